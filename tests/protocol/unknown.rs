//! Gateways that nobody has added.

use std::time::Duration;

use limpet_bench::Uplink;
use limpet_shared::gwmp::{DownKind, Rxpk};

use crate::{
    network::Network,
    raw::{Answer, Socket},
    support::eventually,
};

fn is_listed(network: &Network, eui: limpet_shared::Eui64, arguments: &[&str]) -> bool {
    let listed = network.ctl(arguments);
    listed["gateways"].as_array().unwrap().iter().any(|gateway| gateway["eui"] == eui.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_gateway_is_rejected_listed_and_served_once_it_is_added() {
    let network = Network::up().await;
    let (eui, mut device) = (limpet_shared::Eui64(0x00a5_5c00_0000_beef), network.abp());
    let socket = Socket::open(network.gwmp, eui, 2).await;
    let mut packet = || {
        let packet = device.uplink(&Uplink { fport: Some(1), ..Default::default() }).unwrap();
        Rxpk { tmst: Some(1), ..Rxpk::new(packet.frequency, packet.datr, packet.phy) }
    };
    socket.pull(1).await;
    socket.push_packets(2, &[packet()]).await;
    socket.silent().await;
    assert!(is_listed(&network, eui, &["gateways", "--unknown"]));
    assert!(!is_listed(&network, eui, &["gateways"]));
    let rejected = network.metric(network.admin, "limpet_balancer_dropped_total{reason=\"unknown_gateway\"}").await;
    assert_eq!(rejected, 2);

    network.ctl(&["gateway", "add", &eui.to_string()]);
    // At once, or as soon as a busy machine comes to it.
    let mut token = 10;
    let answer = eventually("a PULL_ACK", async || {
        token += 1;
        socket.pull(token).await;
        tokio::time::timeout(Duration::from_secs(1), socket.answer()).await.ok()
    })
    .await;
    assert_eq!(answer.kind, DownKind::PullAck);
    socket.push_packets(2, &[packet()]).await;
    while socket.answer().await != Answer::ack(2, 2, DownKind::PushAck) {}
    let ups = network.ups(1).await;
    assert_eq!(ups.iter().map(|up| up.f_cnt).collect::<Vec<_>>(), [1], "the rejected one is not told later");
    assert!(!is_listed(&network, eui, &["gateways", "--unknown"]));
    assert!(is_listed(&network, eui, &["gateways"]));
}
