//! Starting, asking and stopping `limpet up`.

use std::process::Command;

use crate::support::{Limpet, PATIENCE, ctl, free_addresses, promtool};

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
        let folder = tempfile::tempdir().unwrap();
        let [gwmp, link, admin, http] = free_addresses();
        let data = folder.path().join("data");
        let [gwmp_text, link_text, admin_text, http_text] = [gwmp, link, admin, http].map(|a| a.to_string());
        let arguments = [
            &["up", "--data", data.to_str().unwrap(), "--gwmp", &gwmp_text, "--link", &link_text][..],
            &["--admin", &admin_text, "--http", &http_text, "--admin-password", "black-box"],
            more,
        ];
        let mut limpet = Limpet::start("up", &arguments.concat());
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
    up.limpet.line_with(" worker --join limpet1.").await;
    let listed = ctl(&up.data(), &["--json", "servers"]);
    assert!(listed.status.success(), "{listed:?}");
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert!(listed["servers"].as_array().is_some_and(|servers| servers.len() >= 2), "{listed}");
    up.limpet.terminate();
    let stopped = up.limpet.stopped().await;
    assert!(stopped.status.success(), "{stopped:?}");
}

#[tokio::test]
async fn metrics_of_both_roles_pass_promtool() {
    let Some(promtool) = promtool() else { return };
    let up = Up::start(&[]).await;
    let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
    for (role, address) in [("balancer", up.admin), ("worker", up.http)] {
        let text = client.get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
        assert!(text.contains(&format!("limpet_{role}_")), "{role} has no metrics of its own:\n{text}");
        let file = up.folder.path().join(role);
        std::fs::write(&file, text).unwrap();
        let input = std::fs::File::open(&file).unwrap();
        let checked = Command::new(&promtool).args(["check", "metrics"]).stdin(input).output().unwrap();
        assert!(checked.status.success(), "{role}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}
