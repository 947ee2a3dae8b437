//! Devices and gateways: list, add, rename, remove; a device's page; what waits for an integration.

use super::*;

const KEY: &str = "0102030405060708090a0b0c0d0e0f10";
const ADD: &str = "dev_eui=70b3d57ed0000001&app_key=0102030405060708090a0b0c0d0e0f10&name=cellar+%3Cb%3E&join_eui=&application=meters&webhook=http%3A%2F%2Fx%3Ahunter2%40localhost%3A9%2Fhunter3";
const ONE: &str = "/devices/one?eui=70b3d57ed0000001";

#[tokio::test]
async fn a_device_is_added_looked_at_renamed_and_removed() {
    let browser = Browser::logged_in().await;
    let wrong = browser.post("/devices/add", &ADD.replace(KEY, "0102")).await.text;
    assert!(wrong.contains("32 hexadecimal digits") && wrong.contains("cellar") && !wrong.contains("value=\"0102\""));
    let added = browser.post("/devices/add", ADD).await.text;
    assert!(added.contains("belongs to application meters now") && added.contains("cellar &#60;b&#62;"), "{added}");
    assert!(browser.get("/devices?q=CELLAR").await.text.contains(ONE));
    assert!(browser.part("/devices?q=attic").await.text.contains("None fits the search"));

    let page = browser.get(ONE).await.text;
    assert!(page.contains("cellar &#60;b&#62;") && page.contains("none yet") && !page.contains(KEY), "{page}");
    assert!(browser.get("/devices/keys?eui=70b3d57ed0000001").await.text.contains(KEY));
    for room in ["/devices/one", "/devices/rename", "/devices/remove"] {
        let missing = browser.get(&format!("{room}?eui=0000000000000009")).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND, "{room}");
        assert!(
            missing.text.contains("0000000000000009")
                && !missing.text.contains("<form method=\"post\" action=\"/devices")
        );
    }
    assert!(browser.get("/devices/rename?eui=70b3d57ed0000001").await.text.contains("value=\"cellar &#60;b&#62;\""));

    let empty = browser.post("/devices/rename", "eui=70b3d57ed0000001&name=+").await.text;
    assert!(empty.contains("Another name for"), "asked again: {empty}");
    assert!(
        browser.post("/devices/rename", "eui=70b3d57ed0000001&name=attic").await.text.contains("is called attic now")
    );
    assert!(browser.get("/devices/remove?eui=70b3d57ed0000001").await.text.contains("Remove 70b3d57ed0000001?"));
    assert!(browser.post("/devices/remove", "eui=70b3d57ed0000001").await.text.contains("was removed"));
    assert!(browser.post("/devices/remove", "eui=70b3d57ed0000001").await.text.contains("does not exist"));
    assert!(browser.get("/devices").await.text.contains("There is none yet"));
}

#[test]
fn a_device_that_cannot_be_read_now_is_not_said_to_be_gone() {
    use limpet_shared::admin::ErrorKind;
    let statuses = [ErrorKind::NotFound, ErrorKind::Unavailable, ErrorKind::Internal].map(limpet_http::status);
    assert_eq!(statuses.map(|status| status.as_u16()), [404, 503, 500]);
}

#[tokio::test]
async fn a_gateway_is_renamed_and_removed() {
    let browser = Browser::logged_in().await;
    browser.post("/gateways/add", "eui=0016c001ff10a235&name=roof").await;
    let renamed = browser.post("/gateways/rename", "eui=0016c001ff10a235&name=mast").await.text;
    assert!(renamed.contains("is called mast now") && !renamed.contains("roof"), "{renamed}");
    assert!(browser.get("/gateways/remove?eui=0016c001ff10a235").await.text.contains("Remove 0016c001ff10a235?"));
    assert!(browser.post("/gateways/remove", "eui=0016c001ff10a235").await.text.contains("was removed"));
    assert!(!browser.get("/gateways").await.text.contains("mast"));
    for room in ["/gateways/rename", "/gateways/remove"] {
        let missing = browser.get(&format!("{room}?eui=0016c001ff10a235")).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND, "{room}");
        assert!(missing.text.contains("There is no gateway 0016c001ff10a235"), "{}", missing.text);
    }
}

#[tokio::test]
async fn many_gateways_come_in_parts_and_a_part_stays_while_it_is_refreshed() {
    let browser = Browser::logged_in().await;
    for n in 0..250 {
        browser.post("/gateways/add", &format!("eui={:016x}&name=mast+{n:03}", n + 1)).await;
    }
    let rows = |text: &str| text.matches("<tr data-gateway=").count() - text.matches("add-0000").count();
    let first = browser.get("/gateways").await.text;
    assert_eq!((rows(&first), first.contains("250 in all."), first.contains("mast 200")), (200, true, false));
    assert!(first.contains("/gateways?q=&#38;offset=200") || first.contains("/gateways?q=&offset=200"), "{first}");
    let last = browser.get("/gateways?offset=200").await.text;
    assert!(rows(&last) == 50 && last.contains("mast 249") && last.contains("Those before"), "{last}");
    // What is fetched anew every few seconds says where it stands.
    let anew = browser.part("/gateways?q=&offset=200").await.text;
    assert!(anew.contains("name=\"offset\" value=\"200\"") && rows(&anew) == 50, "{anew}");
    assert!(last.contains("hx-include=\"#q, #offset\""));
    let found = browser.part("/gateways?q=MAST+24").await.text;
    assert_eq!((rows(&found), found.contains("10 in all.")), (10, true));
    assert!(browser.part("/gateways?q=steeple").await.text.contains("None fits the search"));
}

#[tokio::test]
async fn an_endpoint_is_shown_without_its_secrets() {
    let browser = Browser::logged_in().await;
    browser.post("/devices/add", ADD).await;
    let page = browser.get("/integrations").await.text;
    assert!(page.contains("meters") && page.contains("http://localhost:9") && !page.contains("hunter"), "{page}");
}
