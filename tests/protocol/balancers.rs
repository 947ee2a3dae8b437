//! Two balancers, two workers that have a link to both: a downlink leaves by the balancer that its gateway asked last,
//! wherever it was decided.

use std::{net::SocketAddr, time::Duration};

use limpet_bench::{Received, Transmission, Uplink, VirtualDevice};
use limpet_shared::{
    Eui64,
    gwmp::{Rxpk, Txpk},
};

use crate::{network::Network, raw::Socket, support::eventually};

const WORKERS: [&str; 2] = ["w1", "w2"];

/// Confirmed, so that there is something to send.
fn confirmed(device: &mut VirtualDevice) -> Transmission {
    device.uplink(&Uplink { confirmed: true, fport: Some(3), ..Default::default() }).unwrap()
}

/// A packet as a gateway with this counter reports it, heard that well.
fn heard(packet: &Transmission, tmst: u32, snr: f32) -> Rxpk {
    let packet = Rxpk::new(packet.frequency, packet.datr, packet.phy.clone());
    Rxpk { tmst: Some(tmst), rssi: Some(-80), lsnr: Some(snr), ..packet }
}

fn acknowledged(device: &mut VirtualDevice, txpk: &Txpk) {
    let received = device.receive(&txpk.data).unwrap();
    assert!(matches!(received, Received::Data { ack: true, .. }), "{received:?}");
}

async fn at(balancer: SocketAddr, eui: Eui64) -> Socket {
    Socket::open(balancer, eui, 2).await
}

/// Another gateway, of the other worker, hears each packet first: its worker decides, and has never had a frame of
/// the gateway that it answers through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_leaves_by_the_balancer_that_was_asked_last_whichever_worker_decides() {
    let network = Network::with_two_balancers(&WORKERS).await;
    let [a, b] = network.balancers();
    let gateways = network.gateway_of_each(&WORKERS);
    let (near, far) = (gateways[0], gateways[1]);
    let mut device = network.abp();
    let first = at(a, near).await;
    first.open_route(1).await;
    let [far_at_a, far_at_b] = [at(a, far).await, at(b, far).await];
    // It moves there and back; both balancers have a way to it all the while.
    let moves = [(&far_at_a, &far_at_b), (&far_at_b, &far_at_a), (&far_at_a, &far_at_b), (&far_at_b, &far_at_a)];
    for (number, (here, elsewhere)) in moves.into_iter().enumerate() {
        let number = number as u16;
        here.open_route(10 + number).await;
        let packet = confirmed(&mut device);
        first.report(20 + number, &[heard(&packet, 1, -9.0)]).await;
        here.report(30 + number, &[heard(&packet, 1_000_000, 9.0)]).await;
        let (token, txpk) = here.pull_resp().await;
        here.tx_ack(token, b"").await;
        acknowledged(&mut device, &txpk);
        elsewhere.silent().await;
        first.silent().await;
        // Long enough for its next keep-alive to be told.
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    network.ups(moves.len()).await;
    assert_eq!(network.told("up").len(), moves.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_loses_its_balancer_gets_its_downlinks_through_the_other_one() {
    let mut network = Network::with_two_balancers(&WORKERS).await;
    let [a, b] = network.balancers();
    let eui = network.gateway_of_each(&WORKERS)[1];
    let mut device = network.abp();
    let here = at(a, eui).await;
    here.open_route(1).await;
    let packet = confirmed(&mut device);
    here.report(2, &[heard(&packet, 1, 5.0)]).await;
    let (token, txpk) = here.pull_resp().await;
    here.tx_ack(token, b"").await;
    acknowledged(&mut device, &txpk);

    network.cluster_mut().take_balancer().kill();
    let there = at(b, eui).await;
    there.open_route(3).await;
    let packet = confirmed(&mut device);
    there.report(4, &[heard(&packet, 1, 5.0)]).await;
    let (token, txpk) = there.pull_resp().await;
    there.tx_ack(token, b"").await;
    acknowledged(&mut device, &txpk);
    network.ups(2).await;
}

/// The workers were told two addresses of the first balancer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_addresses_of_one_balancer_are_one_link() {
    let network = Network::with_two_balancers(&WORKERS[..1]).await;
    let http = network.cluster.as_ref().unwrap().http(WORKERS[0]);
    let links = async || network.metric(http, "limpet_worker_links").await;
    eventually("a link to each balancer", async || (links().await == 2).then_some(())).await;
    let changes = "limpet_balancer_ring_changes_total";
    // A link that replaced another one would take the worker off the ring for a moment.
    let settled = eventually("the ring to settle", async || {
        let before = network.metric(network.admin, changes).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        (network.metric(network.admin, changes).await == before).then_some(before)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((network.metric(network.admin, changes).await, links().await), (settled, 2));
}
