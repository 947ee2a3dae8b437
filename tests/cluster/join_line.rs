//! The line that `limpet up` prints adds a worker when it is pasted as it is.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use limpet_shared::Eui64;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{
    account::settle,
    cluster::Cluster,
    collector::Collector,
    field::{Field, Load},
    millis,
    support::eventually,
    turn,
};

/// A shell and what it runs, in a process group of their own.
pub struct Pasted(Child);

impl Pasted {
    pub fn start(line: &str, folder: &std::path::Path) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(folder).process_group(0);
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LIMPET_")) {
            shell.env_remove(name);
        }
        Self(shell.spawn().unwrap())
    }
}

impl Drop for Pasted {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.id().cast_signed()).unwrap();
        // It may have ended already, which is all right.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_join_line_pasted_as_it_is_adds_a_worker_that_serves_gateways() {
    let _turn = turn().await;
    let collector = Collector::start().await;
    let mut cluster = Cluster::up().await;
    let line = cluster.edges[0].process.as_mut().unwrap().line_with(" worker --join-file - ").await;
    let elsewhere = tempfile::tempdir().unwrap();
    let _pasted = Pasted::start(line.trim(), elsewhere.path());
    let added = eventually("a second worker to be ready", async || {
        let servers = cluster.servers().await;
        let ready = servers.into_iter().filter(|server| server.role == "worker" && server.state == "ready");
        ready.map(|server| server.name).find(|name| name != "up-1")
    })
    .await;
    let mut gateways = vec![Vec::new(), Vec::new()];
    for number in 1.. {
        let gateway = Eui64(0x024c_5000_0000_0000 + number);
        let owner = usize::from(cluster.ring(gateway).await == added);
        gateways[owner].push(gateway);
        if gateways.iter().all(|gateways| !gateways.is_empty()) {
            break;
        }
    }
    let field = Arc::new(Field::new(&cluster, &gateways, 12, &collector.url()).await);
    field.linked().await;
    let load = Load::start(&field, 12, 0);
    tokio::time::sleep(millis(2_000)).await;
    assert!(cluster.view().serves_all(&added, &gateways[1]).await, "{added} does not serve its gateways");
    let sent = load.stop().await;
    let account = settle(&sent, &collector).await;
    println!("a worker joined: {account}");
    account.assert_all_told();
    account.assert_in_order();
    assert_eq!(account.unacked, 0);
}
