//! A gateway's address, and what its tag says about it.

use std::{net::Ipv4Addr, time::Duration};

use limpet_shared::Eui64;
use tonic::Code;

use crate::{
    network::Network,
    raw::Socket,
    support::{ctl, eventually},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_locks_a_gateway_to_its_network_and_frees_it_again() {
    let network = Network::up().await;
    let eui = Eui64(0x0250_0000_00ff_0001);
    let text = eui.to_string();
    let refused = ctl(&network.data, &["gateway", "add", &text, "--address", "lock=127.0.0.2/8"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("bits set beyond") && said.contains("allowed: alert, off"),
        "{said}"
    );
    network.ctl(&["gateway", "add", &text, "--address", "lock=127.0.0.2"]);
    let here = Socket::open(network.gwmp, eui, 2).await;
    let there = Socket::open_from(Ipv4Addr::new(127, 0, 0, 2), network.gwmp, eui, 2).await;
    there.open_route(1).await;
    here.pull(2).await;
    here.silent().await;
    let policies = || {
        let list = network.ctl(&["gateways"]);
        let gateways = list["gateways"].as_array().unwrap().clone();
        gateways.into_iter().find(|gateway| gateway["eui"] == text.as_str()).unwrap()["policy"].clone()
    };
    assert_eq!(policies(), "lock:127.0.0.2/32");
    network.ctl(&["gateway", "set", &text, "--address", "off"]);
    assert_eq!(policies(), "off");
    // At once, or as soon as a busy machine comes to it.
    eventually("the gateway to be free", async || {
        here.pull(3).await;
        here.answer_soon().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_is_counted_and_a_lock_keeps_others_out() {
    let network = Network::up().await;
    let eui = network.gateway();
    let here = Socket::open(network.gwmp, eui, 2).await;
    let there = Socket::open_from(Ipv4Addr::new(127, 0, 0, 2), network.gwmp, eui, 2).await;
    let metric = async |series: &str| network.metric(network.admin, series).await;
    here.open_route(1).await;
    // A change is told at most once in a second.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    there.open_route(2).await;
    let moves = "limpet_balancer_gateway_moves_total";
    eventually("the move to be counted", async || (metric(moves).await == 1).then_some(())).await;

    let refused = network.api.tag_gateway(eui, "address_policy", "lock:127.0.0.2/8").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("address_policy: \"127.0.0.2/8\" has bits set beyond"), "{refused:?}");

    network.api.tag_gateway(eui, "address_policy", "lock:127.0.0.2").await.unwrap();
    let locked = "limpet_balancer_dropped_total{reason=\"address_locked\"}";
    // At once, or as soon as a busy machine comes to it.
    eventually("the lock to hold", async || {
        here.pull(3).await;
        (metric(locked).await > 0).then_some(())
    })
    .await;
    while here.answer_soon().await.is_some() {}
    here.pull(4).await;
    here.silent().await;
    there.open_route(5).await;
}
