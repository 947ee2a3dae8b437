//! Starting, asking and stopping `limpet up`.

use std::{io::Read, process::Command};

use crate::support::{Limpet, Terminal, ctl, eventually, free_addresses, python};

/// `limpet up` in a folder of its own, ready, with where it listens: GWMP, link, admin, HTTP.
pub struct Up {
    pub limpet: Limpet,
    pub folder: tempfile::TempDir,
    pub gwmp: std::net::SocketAddr,
    pub admin: std::net::SocketAddr,
    pub http: std::net::SocketAddr,
}

impl Up {
    pub async fn start(more: &[&str]) -> Self {
        Self::start_at(more, |_| {}).await
    }

    /// The same, with outputs that lead where `outputs` says.
    pub async fn start_at(more: &[&str], outputs: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [gwmp, link, admin, http] = free_addresses();
        let data = folder.path().join("data");
        let [gwmp_text, link_text, admin_text, http_text] = [gwmp, link, admin, http].map(|a| a.to_string());
        let arguments = [
            &["up", "--data", data.to_str().unwrap(), "--gwmp", &gwmp_text, "--link", &link_text][..],
            &["--admin", &admin_text, "--http", &http_text, "--admin-password", "black-box"],
            more,
        ];
        let mut limpet = Limpet::start_at("up", &arguments.concat(), outputs);
        limpet.ready(http).await;
        limpet.ready(admin).await;
        Self { limpet, folder, gwmp, admin, http }
    }

    pub fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }
}

#[tokio::test]
async fn up_says_where_it_is_and_ends_when_told() {
    let mut up = Up::start(&[]).await;
    up.limpet.line_with(&up.http.to_string()).await;
    // Nothing that ends up in a journal lets anybody in.
    let line = up.limpet.line_with(" worker --join-file - ").await;
    assert!(line.contains(" join-token --uses 1 --expires 1h | "), "{line}");
    assert!(!up.limpet.lines().iter().any(|line| line.contains("limpet1.")));
    let tokens = ctl(&up.data(), &["--json", "join-token", "list"]);
    assert!(String::from_utf8_lossy(&tokens.stdout).contains("\"tokens\": []"), "{tokens:?}");
    let listed = ctl(&up.data(), &["--json", "servers"]);
    assert!(listed.status.success(), "{listed:?}");
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert!(listed["servers"].as_array().is_some_and(|servers| servers.len() >= 2), "{listed}");
    up.limpet.terminate();
    let stopped = up.limpet.stopped().await;
    assert!(stopped.status.success(), "{stopped:?}");
}

#[tokio::test]
async fn with_json_logs_every_line_is_json_and_a_taken_port_is_told_before_a_cluster_is_founded() {
    let mut up = Up::start(&["--log-format", "json"]).await;
    let welcome = up.limpet.line_with("Limpet is running").await;
    let welcome: serde_json::Value = serde_json::from_str(&welcome).unwrap();
    assert_eq!(welcome["console"], format!("http://{}", up.http));
    assert!(welcome["add_worker"].as_str().unwrap().contains(" worker --join-file - "), "{welcome}");

    let data = up.folder.path().join("second");
    let (gwmp, admin) = (up.gwmp.to_string(), up.admin.to_string());
    let second = ["balancer", "--data", data.to_str().unwrap(), "--gwmp", &gwmp, "--admin", &admin];
    let second = Limpet::start("second", &[&second[..], &["--link", "127.0.0.1:0"]].concat()).stopped().await;
    assert_eq!(second.status.code(), Some(1));
    for flag in ["--gwmp", "--admin"] {
        assert!(second.lines.iter().any(|line| line.ends_with(&format!("choose another {flag}"))), "{second:?}");
    }
    assert!(!data.join("cluster").exists());

    up.limpet.terminate();
    let stopped = up.limpet.stopped().await;
    assert!(stopped.status.success(), "{stopped:?}");
    let read =
        |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    let events: Vec<serde_json::Value> = stopped.lines.iter().map(read).collect();
    let told = events.iter().position(|event| event["message"] == "stopping").expect("a word of the end");
    let warned = events[told..].iter().find(|event| event["level"] == "WARN" || event["level"] == "ERROR");
    assert_eq!(warned, None, "an orderly stop is nothing to worry about");
}

/// Somebody who looks at a terminal gets a line with a token for one worker.
#[tokio::test]
async fn at_a_terminal_up_shows_a_token_for_one_worker() {
    let Terminal { mut shown, end } = Terminal::open();
    let up = Up::start_at(&[], |command| {
        command.stdout(end);
    })
    .await;
    let shown = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        let mut part = [0; 4_096];
        while !text.contains(" --http 127.0.0.1:0") {
            let read = shown.read(&mut part).unwrap();
            text.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        text
    });
    let shown = shown.await.unwrap();
    assert!(shown.contains("for one worker") && shown.contains(" worker --join limpet1."), "{shown}");
    let uses = eventually("the token to be listed", async || {
        let tokens = ctl(&up.data(), &["--json", "join-token", "list"]);
        let tokens: serde_json::Value = serde_json::from_slice(&tokens.stdout).ok()?;
        tokens["tokens"][0]["uses"].as_u64()
    });
    assert_eq!(uses.await, 1);
}

/// ChirpStack's own client provisions a network from nothing, and looks at every status code on the way.
#[tokio::test]
async fn chirpstacks_official_client_provisions_it() {
    let Some(python) = python() else { return };
    let up = Up::start(&[]).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/provision.py");
    let ran = Command::new(python).args([script, &up.http.to_string(), "black-box"]).output().unwrap();
    let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(ran.status.success(), "{said}");
}

#[tokio::test]
async fn a_store_that_is_away_is_waited_for_and_the_wait_ends_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let [gwmp, link, admin, http] = free_addresses().map(|address| address.to_string());
    let where_to = ["--gwmp", &gwmp, "--link", &link, "--admin", &admin, "--http", &http];
    let store = ["--store", "cql://127.0.0.1:9/limpet"];
    let mut up = Limpet::start("up", &[&["up", "--data", &data], &where_to[..], &store].concat());
    up.line_with("cannot reach the database").await;
    up.terminate();
    assert_eq!(up.stopped().await.status.code(), Some(0));
}

#[tokio::test]
async fn who_adds_and_removes_gateways_and_devices_is_in_the_log() {
    let mut up = Up::start(&[]).await;
    let (eui, dev_eui) = ("0016c001ff10a235", "70b3d57ed0000001");
    let key = "000102030405060708090a0b0c0d0e0f";
    for (arguments, said) in [
        (&["gateway", "add", eui][..], "gateway 0016c001ff10a235 belongs to"),
        (&["gateway", "rename", eui, "mast"], "is called mast now"),
        (&["gateway", "remove", eui], "gateway 0016c001ff10a235 was removed"),
        (
            &["device", "add", "--dev-eui", dev_eui, "--app-key", key, "--webhook", "http://127.0.0.1:9/"],
            "device 70b3d57ed0000001 (",
        ),
        (&["device", "remove", dev_eui], "device 70b3d57ed0000001 was removed"),
    ] {
        let told = ctl(&up.data(), arguments);
        assert!(told.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&told.stderr));
        let line = up.limpet.line_with(said).await;
        assert!(line.contains("INFO") && line.contains("limpet ctl at "), "{line}");
    }
}
