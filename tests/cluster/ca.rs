//! The cluster's CA is changed under load, after a balancer was removed that has a copy of its key.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use limpet_link::Authority;
use limpet_shared::admin::{Reply, Request, Role};

use crate::{
    account::settle,
    balancer::BalancerServer,
    cluster::Cluster,
    collector::Collector,
    field::{Field, Load},
    millis, sized,
    support::{Limpet, ctl, eventually, free_address},
    turn,
};

const WORKERS: [&str; 2] = ["alpha", "beta"];

/// `limpet ctl`, which must succeed or not: what it says.
fn said(data: &Path, arguments: &[&str], success: bool) -> String {
    let output = ctl(data, arguments);
    assert_eq!(output.status.success(), success, "{arguments:?}: {output:?}");
    String::from_utf8(if success { output.stdout } else { output.stderr }).unwrap()
}

/// A balancer joins and is removed. Returns the keys that it had, as whoever has its folder can use them.
async fn removed_balancer(cluster: &Cluster) -> Authority {
    let asked = Request::JoinToken { role: Role::Balancer, expires_in_secs: 3600, uses: 1 };
    let Reply::JoinToken { token, .. } = cluster.ask(&asked).await else { panic!("no join token") };
    let mut third = BalancerServer::new("edge-3", &cluster.path("third"));
    third.start_with(&["--join", &token]).await;
    let kept = cluster.path("kept");
    fs::create_dir(&kept).unwrap();
    for name in ["ca.pem", "ca.key", "token.key"] {
        fs::copy(third.data.join("cluster").join(name), kept.join(name)).unwrap();
    }
    eventually("the third balancer to be known with its key", async || {
        cluster.servers().await.iter().any(|server| server.name == "edge-3" && !server.key.is_empty()).then_some(())
    })
    .await;
    cluster.done(&Request::remove("edge-3")).await;
    let ended = third.process.take().unwrap().stopped().await;
    assert!(ended.status.success(), "{:?}: {:#?}", ended.status, ended.lines);
    Authority::load(&kept).unwrap().unwrap()
}

/// A worker that somebody makes with a copy of the key. It must not come in.
async fn forged(cluster: &Cluster, keys: &Authority, name: &str, why: &str) {
    let (data, http) = (cluster.path(name), free_address().to_string());
    keys.identity(&data.join("identity"), name, Role::Worker).unwrap();
    let link = cluster.edges[0].link().to_string();
    let store = format!("sqlite:{}", data.join("store").display());
    let who = ["worker", "--name", name, "--data", data.to_str().unwrap(), "--store", &store, "--http", &http];
    let mut process = Limpet::start(name, &[&who[..], &["--balancer", &link]].concat());
    process.line_with(why).await;
    assert!(cluster.servers().await.iter().all(|server| server.name != name || server.state != "ready"));
    drop(process);
}

/// Waits until all servers have certificates of the CA that the first balancer has now.
async fn all_certified_by(cluster: &Cluster, present: &str) {
    eventually("all servers to have certificates of the new CA", async || {
        let servers = cluster.servers().await;
        let lives = |name: &&str| servers.iter().any(|server| server.name == **name && server.cluster == present);
        ["edge", "edge-2"].iter().chain(&WORKERS).all(lives).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_is_changed_under_load_and_a_removed_balancers_copy_is_worth_nothing() {
    let _turn = turn().await;
    let collector = Collector::start().await;
    let mut cluster = Cluster::apart_with_two_balancers(&WORKERS).await;
    let gateways = cluster.gateways_of_each(2).await.concat();
    let copy = removed_balancer(&cluster).await;
    let (rate, devices) = (sized(100, 30), sized(100, 30));
    let field = Arc::new(Field::all_in_reach(&cluster, gateways, devices, &collector.url()).await);
    field.linked().await;
    let load = Load::start(&field, rate, 5);
    tokio::time::sleep(millis(1_000)).await;

    let (east, west) = (cluster.edges[0].data.clone(), cluster.edges[1].data.clone());
    let asked = said(&east, &["rotate-ca"], false);
    for known in ["balancer edge,", "balancer edge-2", "worker alpha", "worker beta", "remove it first"] {
        assert!(asked.contains(known), "{known}: {asked}");
    }
    assert!(!asked.contains("edge-3"), "{asked}");
    let made = said(&east, &["rotate-ca", "--yes"], true);
    assert!(made.contains("beside each other balancer (balancer edge-2)"), "{made}");
    let token = cluster.path("token");
    fs::write(&token, made.lines().last().unwrap()).unwrap();
    fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    forged(&cluster, &copy, "forged", "it was not known when that began").await;
    let twice = said(&east, &["rotate-ca", "--yes"], false);
    assert!(twice.contains("that is not finished"), "{twice}");
    said(&west, &["rotate-ca", "--join-file", token.to_str().unwrap()], true);
    let present = Authority::load(&east.join("cluster")).unwrap().unwrap().fingerprint().to_string();
    assert_ne!(present, copy.fingerprint().to_string());
    all_certified_by(&cluster, &present).await;
    // In the midst one of each is started again, as it was started before.
    cluster.edges[1].kill();
    cluster.edges[1].start().await;
    cluster.linked(0).await;
    cluster.linked(1).await;

    said(&west, &["rotate-ca", "--finish"], true);
    for data in [&east, &west] {
        let change = data.join("cluster/ca-change.json");
        eventually("both balancers to give up the CA before", async || (!change.exists()).then_some(())).await;
    }
    forged(&cluster, &copy, "late", "CA was changed while this server was away").await;
    tokio::time::sleep(millis(1_000)).await;
    let sent = load.stop().await;
    let account = settle(&sent, &collector).await;
    println!("CA changed: {account}");
    account.assert_nothing_lost_or_doubled();

    for index in 0..WORKERS.len() {
        assert!(cluster.terminate_worker(index).await.status.success());
        cluster.start_worker(index);
        cluster.linked(index).await;
    }
    for index in 0..2 {
        assert!(cluster.edges[index].terminate().await.status.success());
        cluster.edges[index].start().await;
        for worker in 0..WORKERS.len() {
            cluster.linked(worker).await;
        }
    }
    all_certified_by(&cluster, &present).await;
}
