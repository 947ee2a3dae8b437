//! The console in a real browser: logging in, and a worker's life from its line to its end.

use std::{net::UdpSocket, path::Path};

use crate::{
    start::Up,
    support::{Browser, Limpet, eventually},
};

async fn log_in(browser: &Browser, password: &str) {
    browser.fill("#user", "admin").await;
    browser.fill("#password", password).await;
    browser.click("form[action='/login'] button").await;
}

/// The cell of a server's line.
fn cell(server: &str, label: &str) -> String {
    format!("tr[data-server='{server}'] td[data-label='{label}']")
}

/// The worker that is not this one, once it is in the list.
async fn newcomer(browser: &Browser, old: &str) -> String {
    eventually("a second worker in the list", async || {
        let source = browser.source().await;
        let names = source.split("id=\"act-").skip(1).filter_map(|rest| rest.split('"').next());
        names.map(str::to_owned).find(|name| name != old)
    })
    .await
}

/// Asks for the line that adds a worker, reads it, and sees that nothing of it stays behind.
async fn copy_join_line(browser: &Browser) -> String {
    browser.click("a[href='/servers/add']").await;
    browser.click("#ask button[type='submit']").await;
    browser.reads("#ask", "workers on other machines need a shared store").await;
    let line = browser.text("#ask .command code").await.expect("a line");
    browser.click("#ask .command .copy").await;
    browser.reads("#ask .command .copy", "ed").await;
    browser.click("#ask [data-close]").await;
    eventually("the line to be gone", async || (!browser.source().await.contains("limpet1.")).then_some(())).await;
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_added_drained_and_removed_in_a_browser() {
    let Some(browser) = Browser::start().await else { return };
    let up = Up::start(&["--name", "edge"]).await;
    let at = |path: &str| format!("http://{}{path}", up.http);

    browser.goto(&at("/servers")).await;
    assert_eq!(browser.path().await, "/login");
    log_in(&browser, "wrong").await;
    browser.reads("main [role='alert']", "the user or the password is wrong").await;
    log_in(&browser, "black-box").await;
    browser.reads("main h1", "Overview").await;
    browser.click("nav a[href='/servers']").await;
    browser.reads(&cell("edge-1", "Share"), "100 %").await;
    browser.reads(&cell("edge-1", "State"), "ready").await;

    let line = copy_join_line(&browser).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let worker = Limpet::pasted("pasted", &line, Path::new(elsewhere.path()));
    let name = newcomer(&browser, "edge-1").await;
    browser.reads(&cell(&name, "State"), "ready").await;
    eventually("both to have a share", async || {
        let shares = [browser.text(&cell(&name, "Share")).await?, browser.text(&cell("edge-1", "Share")).await?];
        shares.iter().all(|share| !share.starts_with("0 %") && !share.starts_with("100 %")).then_some(())
    })
    .await;

    browser.click(&format!("[id='act-{name}']")).await;
    browser.reads("#said", &format!("{name} gets no new frames")).await;
    browser.reads(&cell(&name, "State"), "draining").await;
    browser.reads(&cell("edge-1", "Share"), "100 %").await;

    browser.click(&format!("[id='remove-{name}']")).await;
    browser.reads("#ask h2", &format!("Remove {name}?")).await;
    browser.click("#ask button.harm").await;
    browser.reads("#said", &format!("{name} was removed")).await;
    let stopped = worker.stopped().await;
    assert!(stopped.status.success(), "{stopped:?}");
    eventually("the worker to be gone from the list", async || {
        browser.text(&cell(&name, "State")).await.is_none().then_some(())
    })
    .await;

    let complaints = browser.complaints().await;
    assert!(!complaints.iter().any(|line| line.contains("Content Security Policy")), "{complaints:?}");
    browser.click("form[action='/logout'] button").await;
    browser.reads("main h1", "Log in").await;
    browser.goto(&at("/gateways")).await;
    assert_eq!(browser.path().await, "/login");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_rejected_is_added_in_a_browser() {
    let Some(browser) = Browser::start().await else { return };
    let up = Up::start(&["--name", "edge"]).await;
    browser.goto(&format!("http://{}/login", up.http)).await;
    log_in(&browser, "black-box").await;
    browser.click("nav a[href='/gateways']").await;
    browser.reads("#known ~ p", "There is none yet").await;

    // PULL_DATA, as a forwarder sends it every few seconds.
    let (socket, eui) = (UdpSocket::bind("127.0.0.1:0").unwrap(), "0016c001ff10a235");
    let mut datagram = vec![2, 0, 1, 2];
    datagram.extend(hex::decode(eui).unwrap());
    socket.send_to(&datagram, up.gwmp).unwrap();
    browser.click(&format!("[id='add-{eui}']")).await;
    browser.fill("#ask [name='name']", "roof <b>1</b>").await;
    browser.click("#ask button[type='submit']").await;
    browser.reads("#said", "belongs to tenant Limpet now").await;
    browser.reads(&format!("tr[data-gateway='{eui}'] th"), "roof <b>1</b>").await;

    socket.send_to(&datagram, up.gwmp).unwrap();
    let worker = format!("tr[data-gateway='{eui}'] td[data-label='Worker']");
    browser.reads(&worker, "edge-1").await;
    browser.click(&format!("[id='rename-{eui}']")).await;
    browser.fill("#ask [name='name']", "mast").await;
    browser.click("#ask button[type='submit']").await;
    browser.reads("#said", "is called mast now").await;
    browser.fill("#q", "another").await;
    browser.reads("#known ~ p", "None fits the search").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_added_looked_at_and_removed_in_a_browser() {
    let Some(browser) = Browser::start().await else { return };
    let up = Up::start(&["--name", "edge"]).await;
    browser.goto(&format!("http://{}/login", up.http)).await;
    log_in(&browser, "black-box").await;
    browser.click("nav a[href='/devices']").await;
    browser.reads("#list", "There is none yet").await;
    browser.click("a[href='/devices/add']").await;
    let (eui, key) = ("70b3d57ed0000001", "0102030405060708090a0b0c0d0e0f10");
    browser.fill("#ask [name='dev_eui']", eui).await;
    browser.fill("#ask [name='app_key']", key).await;
    browser.fill("#ask [name='name']", "cellar").await;
    browser.fill("#ask [name='webhook']", "http://127.0.0.1:9/").await;
    browser.click("#ask button[type='submit']").await;
    browser.reads("#said", "belongs to application default now").await;
    browser.fill("#q", "CELL").await;
    browser.click(&format!("tr[data-device='{eui}'] a")).await;
    browser.reads("main h1", "cellar").await;
    assert!(!browser.source().await.contains(key), "keys are shown to who asks for them");
    browser.click("#keys").await;
    browser.reads("#ask", key).await;
    browser.click("#ask [data-close]").await;
    eventually("the key to be gone", async || (!browser.source().await.contains(key)).then_some(())).await;

    browser.click("nav a[href='/integrations']").await;
    browser.reads("tr[data-integration='default'] td[data-label='State']", "ok").await;

    browser.goto(&format!("http://{}/devices/one?eui={eui}", up.http)).await;
    browser.click("#remove").await;
    browser.click("#ask button.harm").await;
    browser.reads("#said", "was removed").await;
    let complaints = browser.complaints().await;
    assert!(!complaints.iter().any(|line| line.contains("Content Security Policy")), "{complaints:?}");
}
