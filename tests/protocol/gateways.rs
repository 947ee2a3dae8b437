//! Gateways as they are: ports that change, TX_ACKs from the wrong socket or from nowhere, counters that wrap.

use limpet_bench::{GatewayConfig, Received, TxAckFrom, TxAckStyle, Uplink, VirtualDevice};
use limpet_shared::gwmp::{DownKind, Rxpk};

use crate::{
    network::Network,
    raw::{Answer, Socket},
    site::{QUIET, Site},
    support::eventually,
};

/// The next uplink of a device as a gateway reports it. Confirmed, so that there is something to send.
fn uplink(device: &mut VirtualDevice, tmst: u32) -> Rxpk {
    let packet = device.uplink(&Uplink { confirmed: true, fport: Some(3), ..Default::default() }).unwrap();
    Rxpk { tmst: Some(tmst), rssi: Some(-70), lsnr: Some(7.0), ..Rxpk::new(packet.frequency, packet.datr, packet.phy) }
}

fn acknowledged(device: &mut VirtualDevice, phy: &[u8], with_fcnt: u32) {
    let received = device.receive(phy).unwrap();
    assert!(matches!(received, Received::Data { ack: true, fcnt, .. } if fcnt == with_fcnt), "{received:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_port_may_change_at_any_time() {
    let network = Network::up().await;
    let (eui, mut device) = (network.gateway(), network.abp());
    let open = async || Socket::open(network.gwmp, eui, 2).await;
    let (pull, push) = (open().await, open().await);
    pull.open_route(1).await;
    push.report(2, &[uplink(&mut device, 1_000_000)]).await;
    let (token, txpk) = pull.pull_resp().await;
    pull.tx_ack(token, b"").await;
    assert_eq!(txpk.tmst, Some(2_000_000));
    acknowledged(&mut device, &txpk.data, 0);

    // PUSH_DATA from new ports: each has its answer where it came from, downlinks still go where PULL_DATA came from.
    let other_push = open().await;
    other_push.report(3, &[uplink(&mut device, 11_000_000)]).await;
    let (token, txpk) = pull.pull_resp().await;
    pull.tx_ack(token, b"").await;
    acknowledged(&mut device, &txpk.data, 1);

    // PULL_DATA from a new port between an uplink and its downlink.
    let other_pull = open().await;
    push.report(4, &[uplink(&mut device, 21_000_000)]).await;
    other_pull.open_route(5).await;
    let (token, txpk) = other_pull.pull_resp().await;
    other_pull.tx_ack(token, b"").await;
    acknowledged(&mut device, &txpk.data, 2);

    for socket in [&pull, &push, &other_pull, &other_push] {
        socket.silent().await;
    }
    network.ups(3).await;
    assert_eq!(network.told("up").len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_socket_for_everything_will_do() {
    let network = Network::up().await;
    let (eui, mut device) = (network.gateway(), network.abp());
    let socket = Socket::open(network.gwmp, eui, 2).await;
    socket.open_route(7).await;
    socket.report(7, &[uplink(&mut device, 5)]).await;
    let (token, txpk) = socket.pull_resp().await;
    socket.tx_ack(token, br#"{"txpk_ack":{"error":"NONE"}}"#).await;
    acknowledged(&mut device, &txpk.data, 0);
    socket.silent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_that_wraps_wraps_in_the_downlink_too() {
    let network = Network::up().await;
    let (eui, mut device) = (network.gateway(), network.abp());
    let socket = Socket::open(network.gwmp, eui, 2).await;
    socket.open_route(1).await;
    let cases = [u32::MAX, u32::MAX - 999_999, u32::MAX - 500_000, 0];
    for (number, tmst) in cases.into_iter().enumerate() {
        let number = number as u16;
        socket.report(10 + number, &[uplink(&mut device, tmst)]).await;
        let (token, rx1) = socket.pull_resp().await;
        assert_eq!(rx1.tmst, Some(tmst.wrapping_add(1_000_000)), "RX1 after {tmst}");
        socket.tx_ack(token, br#"{"txpk_ack":{"error":"COLLISION_PACKET"}}"#).await;
        let (token, rx2) = socket.pull_resp_again(&rx1).await;
        assert_eq!(rx2.tmst, Some(tmst.wrapping_add(2_000_000)), "RX2 after {tmst}");
        socket.tx_ack(token, b"").await;
        acknowledged(&mut device, &rx2.data, number.into());
    }
    network.ups(cases.len()).await;
    assert_eq!(network.told("up").len(), cases.len());
}

/// With every way to say yes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tx_ack_may_come_from_the_push_socket() {
    let network = Network::up().await;
    let styles = [TxAckStyle::NoBody, TxAckStyle::None, TxAckStyle::Empty];
    let config = |tx_ack_style| {
        let config = GatewayConfig::new(network.gateway(), network.gwmp);
        GatewayConfig { tx_ack: TxAckFrom::PushSocket, tx_ack_style, ..config }
    };
    for (number, config) in styles.map(config).into_iter().enumerate() {
        let mut device = network.abp();
        let id = network.api.enqueue(device.dev_eui(), 9, b"down").await;
        let mut site = Site::start(vec![config]).await;
        let packet = device.uplink(&Uplink { fport: Some(1), ..Default::default() }).unwrap();
        let exchange = site.exchange_with_all(&mut device, &packet).await;
        let (_, received) = exchange.only();
        assert!(matches!(received, Received::Data { fport: Some(9), payload, .. } if payload == b"down"));
        let sent = eventually("the txack event", async || network.told("txack").get(number).cloned()).await;
        assert_eq!(sent.body["queueItemId"], id);
        assert_eq!(network.api.queue_length(device.dev_eui()).await, 0);
        // It was on air, so it is not offered again.
        let packet = device.uplink(&Uplink { fport: Some(1), ..Default::default() }).unwrap();
        site.exchange_with_all(&mut device, &packet).await.none();
    }
    assert_eq!(network.metric(network.admin, "limpet_balancer_dropped_total{reason=\"tx_ack_unmatched\"}").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_of_version_1_never_sends_a_tx_ack() {
    let network = Network::up().await;
    let (eui, mut device) = (network.gateway(), network.abp());
    let id = network.api.enqueue(device.dev_eui(), 9, b"down").await;
    let (pull, push) = (Socket::open(network.gwmp, eui, 1).await, Socket::open(network.gwmp, eui, 1).await);
    pull.open_route(1).await;
    push.report(2, &[uplink(&mut device, 77)]).await;
    // In the gateway's own version, once, for RX1: silence is no refusal.
    let (_, txpk) = pull.pull_resp().await;
    assert_eq!(txpk.tmst, Some(1_000_077));
    acknowledged(&mut device, &txpk.data, 0);
    tokio::time::sleep(QUIET).await;
    pull.strictly_silent().await;
    push.strictly_silent().await;
    // Nobody says that it was on air; it is taken to have been.
    let sent = eventually("the txack event", async || network.told("txack").first().cloned()).await;
    assert_eq!(sent.body["queueItemId"], id);
    assert_eq!(network.api.queue_length(device.dev_eui()).await, 0);
    push.report(3, &[uplink(&mut device, 10_000_077)]).await;
    let (_, txpk) = pull.pull_resp().await;
    let received = device.receive(&txpk.data).unwrap();
    assert!(matches!(received, Received::Data { ack: true, fcnt: 1, fport: None, .. }), "{received:?}");
    network.ups(2).await;
    assert_eq!(network.told("up").len(), 2);
}

/// Version 2, with a status report beside the packets, and datagrams that are sent twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datagram_that_comes_twice_is_one_reception() {
    let network = Network::up().await;
    let (eui, mut device) = (network.gateway(), network.abp());
    let socket = Socket::open(network.gwmp, eui, 2).await;
    socket.open_route(1).await;
    let packet = uplink(&mut device, 3_000_000);
    socket.push_packets(5, std::slice::from_ref(&packet)).await;
    socket.push_packets(5, &[packet.clone(), packet.clone()]).await;
    let mut downlinks = Vec::new();
    let mut acks = 0;
    while acks < 2 || downlinks.is_empty() {
        let answer = socket.answer().await;
        match answer.txpk {
            Some(txpk) => downlinks.push((answer.token, txpk)),
            None => {
                assert_eq!(answer, Answer::ack(2, 5, DownKind::PushAck));
                acks += 1;
            }
        }
    }
    socket.tx_ack(downlinks[0].0, b"").await;
    tokio::time::sleep(QUIET).await;
    socket.silent().await;
    assert_eq!(downlinks.len(), 1);
    let ups = network.ups(1).await;
    assert_eq!(ups.len(), 1);
    assert_eq!(ups[0].body["rxInfo"].as_array().unwrap().len(), 1, "one gateway: {ups:#?}");
}
