//! ChirpStack's official client for Python provisions a network against a real `limpet up`: `tests/python/provision.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "python/support.rs"]
#[allow(dead_code, unused_imports, reason = "shared with tests that use more of it")]
mod support;

use std::{path::Path, process::Command};

use support::{Limpet, free_addresses, python};

const PASSWORD: &str = "black-box";

#[tokio::test]
async fn the_official_client_provisions_from_nothing() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let [gwmp, link, admin, http] = free_addresses();
    let data = folder.path().join("data");
    let [gwmp, link, admin, http_text] = [gwmp, link, admin, http].map(|address| address.to_string());
    let arguments = [
        &["up", "--data", data.to_str().unwrap(), "--gwmp", &gwmp, "--link", &link][..],
        &["--admin", &admin, "--http", &http_text, "--admin-password", PASSWORD],
    ];
    let mut up = Limpet::start("up", &arguments.concat());
    up.ready(http).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/provision.py");
    // Twice: it leaves the network as it was.
    for run in 1..=2 {
        let mut command = Command::new(&python);
        command.arg(&script).args([&http_text, PASSWORD]);
        // What the developer has set for a proxy is not meant for a server on this machine.
        let ran = command.env("no_proxy", "*").env("NO_PROXY", "*").output().unwrap();
        let said = [ran.stdout, ran.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(ran.status.success(), "run {run}: {said}");
        println!("{said}");
    }
    up.terminate();
    let stopped = up.stopped().await;
    assert!(stopped.status.success(), "{stopped:?}");
}
