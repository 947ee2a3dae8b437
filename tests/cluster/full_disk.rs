//! `limpet up` on a disk that is soon full, while gateways go on sending.
//!
//! `LIMPET_FULL=1 cargo test --release --locked --test cluster -- full_disk --nocapture`, as root: the disk is a small file system in memory.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use limpet_shared::admin::{Reply, Request};
use serde_json::Value;

use crate::{balancer::PASSWORD, cluster::Cluster, full, millis, support::Limpet, turn};

/// In MB.
const SIZE: &str = "size=3m";
const RATE: &str = "15";
const LASTS: Duration = Duration::from_secs(80);
/// Until all who tell of the server's state have heard of a change.
const HEARD: Duration = Duration::from_secs(5);

/// A disk of a few megabytes, until this is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SIZE, "limpet-small-disk"]).arg(folder.path());
        match mount.output() {
            Ok(done) if done.status.success() => Ok(Self(folder)),
            Ok(done) => Err(String::from_utf8_lossy(&done.stderr).trim().into()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).output();
    }
}

/// What a server said of itself at one moment.
#[derive(Clone, Debug)]
struct Said {
    at: Duration,
    ready: bool,
    /// Of the worker, as `limpet ctl servers` has it.
    state: String,
    why: String,
    /// Of the worker and the balancer, which have the same disk, as `limpet ctl servers` has it.
    disk_free: Vec<u64>,
    epoch: u64,
}

async fn look(cluster: &Cluster, began: Instant) -> Said {
    let client = reqwest::Client::new();
    let edge = &cluster.edges[0];
    let get = async |url: String| client.get(url).timeout(Duration::from_secs(5)).send().await.unwrap();
    let ready = get(format!("http://{}/readyz", edge.http)).await.status().is_success();
    let servers: Vec<Value> = get(format!("http://{}/servers", edge.admin)).await.json().await.unwrap();
    let ring: Value = get(format!("http://{}/ring", edge.admin)).await.json().await.unwrap();
    let worker = servers.iter().find(|server| server["role"] == "worker").expect("both of them");
    let Reply::Servers { servers: listed } = cluster.ask(&Request::Servers).await else { panic!("no list of servers") };
    assert!(listed.iter().any(|server| server.role == "worker"), "the worker is not listed: {listed:?}");
    Said {
        at: began.elapsed(),
        ready,
        state: worker["state"].as_str().unwrap().into(),
        why: worker["reason"].as_str().unwrap().into(),
        disk_free: listed.iter().map(|server| server.disk_free).collect(),
        epoch: ring["epoch"].as_u64().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_nothing_flaps() {
    let _turn = turn().await;
    if !full() {
        return println!("skipped: LIMPET_FULL=1 asks for it");
    }
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(missing) => return println!("skipped: a small disk cannot be mounted here: {missing}"),
    };
    let cluster = Cluster::up_in(disk.path().join("data")).await;
    let (server, api) = (cluster.edges[0].gwmp.to_string(), format!("http://{}", cluster.edges[0].http));
    let who = ["simulate", "--server", &server, "--api", &api, "--password", PASSWORD];
    let what = ["--devices", "60", "--rate", RATE, "--uplinks", "10000", "--duration", "80s"];
    let _simulate = Limpet::start("simulate", &[&who[..], &what].concat());
    let (began, mut said) = (Instant::now(), Vec::new());
    while began.elapsed() < LASTS + HEARD {
        said.push(look(&cluster, began).await);
        tokio::time::sleep(millis(250)).await;
    }
    let full_at = said.iter().find(|said| !said.ready).map(|said| said.at).expect("a full disk");
    let changes = |of: &dyn Fn(&Said) -> String| said.windows(2).filter(|two| of(&two[0]) != of(&two[1])).count();
    let (flips, states) = (changes(&|said: &Said| said.ready.to_string()), changes(&|said: &Said| said.state.clone()));
    let epochs = said[said.len() - 1].epoch - said[0].epoch;
    let lines = cluster.edges[0].process.as_ref().unwrap().lines().len();
    let table = cluster.ctl(&["servers"]);
    println!(
        "full after {full_at:.0?}; in {LASTS:?} {lines} lines in the log, /readyz changed {flips} times, the worker's state {states} times, the ring {epochs} times\n{table}"
    );
    let contradicts = |said: &&Said| said.at > full_at + HEARD && said.state == "ready" && !said.ready;
    let wrong: Vec<_> = said.iter().filter(contradicts).collect();
    assert!(wrong.is_empty(), "ready for some and not for others: {wrong:?}");
    assert!(said.iter().flat_map(|said| &said.disk_free).all(|free| *free > 0), "DISK FREE is gone: {said:?}");
    let last = &said[said.len() - 1];
    assert!(!last.ready && !last.why.is_empty(), "{last:?}");
    assert!(flips <= 3 && epochs <= 6, "{flips} {epochs}");
    assert!(lines < 300, "{lines}");
    let said = cluster.edges[0].process.as_ref().unwrap().lines();
    let of_log = said.iter().filter(|line| line.contains("write-ahead log")).count();
    assert!(of_log <= 15, "{of_log} in {LASTS:?}");
}
