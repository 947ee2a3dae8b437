//! The settings of the network and its regions, from the command line.

use std::{path::Path, process::Output};

use crate::{
    start::Up,
    support::{Limpet, ctl, free_addresses},
};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What holds, and whether somebody has set it.
fn value(data: &Path, more: &[&str], id: &str, name: &str) -> (String, bool) {
    let shown = ctl(data, &[&["--json", "region", "show", id], more].concat());
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let settings = shown["regions"][0]["settings"].as_array().unwrap().clone();
    let setting = settings.iter().find(|setting| setting["name"] == name).unwrap();
    (setting["value"].as_str().unwrap().to_owned(), setting["is_set"] == true)
}

#[tokio::test]
async fn settings_are_changed_beside_a_server_and_at_its_store_and_a_flag_changes_none() {
    let mut up = Up::start(&["--reply-delay", "250ms"]).await;
    let data = up.data();
    assert_eq!(value(&data, &[], "network", "reply_delay"), ("250ms".into(), true), "the first start has said it");
    let changed = ctl(&data, &["region", "set", "EU868", "rx1_delay=5", "downlink_tx_power=-1"]);
    assert!(changed.status.success(), "{changed:?}");
    let line = up.limpet.line_with("eu868 has rx1_delay=5 (was 1), downlink_tx_power=-1 as before now").await;
    assert!(line.contains("limpet ctl at "), "{line}");
    up.limpet.line_with("eu868 rx1_delay=5 (was 1)").await;
    let refused = ctl(&data, &["region", "set", "eu868", "rx2_dr=3", "rx1_delay=16"]);
    assert!(!refused.status.success() && said(&refused).contains("allowed is 1 to 15 (seconds)"), "{refused:?}");
    let listed = said(&ctl(&data, &["region", "list"]));
    assert!(listed.contains("reply_delay=250ms") && listed.contains("rx1_delay=5"), "{listed}");
    assert!(!listed.contains("rx2_dr"), "{listed}");
    up.limpet.terminate();
    assert!(up.limpet.stopped().await.status.success());

    let lacking = ctl(&data, &["region", "list"]);
    assert!(!lacking.status.success() && said(&lacking).contains("say --store URL"), "{lacking:?}");
    let store = format!("sqlite:{}", data.join("store").display());
    let at_store = ["--store", store.as_str()];
    let unset = ctl(&data, &[&["region", "unset", "eu868", "rx1_delay"], &at_store[..]].concat());
    assert!(unset.status.success() && said(&unset).contains("rx1_delay=1 (was 5)"), "{unset:?}");
    assert_eq!(value(&data, &at_store, "eu868", "rx1_delay"), ("1".into(), false));

    let [gwmp, link, admin, http] = free_addresses().map(|address| address.to_string());
    let arguments = ["up", "--data", data.to_str().unwrap(), "--gwmp", &gwmp, "--link", &link, "--admin", &admin];
    let again = [&arguments[..], &["--http", &http, "--reply-delay", "100ms"]].concat();
    let mut again = Limpet::start("again", &again);
    again.line_with("--reply-delay has no effect").await;
    again.ready(http.parse().unwrap()).await;
    assert_eq!(value(&data, &[], "network", "reply_delay"), ("250ms".into(), true));
    again.terminate();
    assert!(again.stopped().await.status.success());
}
