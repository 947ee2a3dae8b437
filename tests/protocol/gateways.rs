//! Gateways as they are: ports that change, TX_ACKs from the wrong socket or from nowhere, counters that wrap.

use std::time::Duration;

use limpet_bench::{GatewayConfig, Received, TxAckFrom, TxAckStyle, Uplink, VirtualDevice};
use limpet_shared::gwmp::{Datr, DownKind, Rxpk};

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
    // Who asked a moment ago has a copy: anybody could have sent that PULL_DATA in the gateway's name.
    let (_, copy) = pull.pull_resp().await;
    assert_eq!(copy.data, txpk.data);

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

/// Behind a cellular line, where a TX_ACK takes 600 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_with_slow_answers_is_sent_each_downlink_once() {
    let network = Network::up().await;
    let (eui, mut device) = (network.gateway(), network.abp());
    let (first, second) =
        (network.api.enqueue(device.dev_eui(), 9, b"1").await, network.api.enqueue(device.dev_eui(), 9, b"2").await);
    let (pull, push) = (Socket::open(network.gwmp, eui, 2).await, Socket::open(network.gwmp, eui, 2).await);
    pull.open_route(1).await;
    for number in 0..4 {
        push.report(2 + number, &[uplink(&mut device, 1_000_000 + u32::from(number) * 10_000_000)]).await;
        let (token, txpk) = pull.pull_resp().await;
        acknowledged(&mut device, &txpk.data, number.into());
        tokio::time::sleep(Duration::from_millis(600)).await;
        pull.tx_ack(token, b"").await;
        tokio::time::sleep(QUIET).await;
        pull.strictly_silent().await;
    }
    let sent: Vec<_> = network.told("txack").iter().map(|event| event.body["queueItemId"].clone()).collect();
    assert_eq!(sent, [first, second]);
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

/// It has no queue: a JoinAccept, due after 5 s, is kept back until shortly before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_of_version_1_is_told_of_a_join_accept_when_it_is_due() {
    let network = Network::up().await;
    let config = GatewayConfig { version: 1, ..GatewayConfig::new(network.gateway(), network.gwmp) };
    let mut site = Site::start(vec![config]).await;
    let mut device = network.otaa("1.0.3");
    let packet = device.join().unwrap();
    let exchange = site.exchange_with_all(&mut device, &packet).await;
    assert_eq!(exchange.only(), (1, &Received::Joined));
    let lead = exchange.downlinks[0].lead;
    assert!((0..1_000_000).contains(&lead), "it came {lead} us ahead");
}

/// What a gateway says of its board and antenna comes back with the downlink; FSK is answered with FSK.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_downlink_names_board_antenna_and_modulation() {
    let network = Network::up().await;
    let (eui, mut device) = (network.gateway(), network.abp());
    let socket = Socket::open(network.gwmp, eui, 2).await;
    socket.open_route(1).await;
    let packet = uplink(&mut device, 5);
    let fsk = Datr::Fsk { bit_rate: 50_000 };
    let packet = Rxpk { brd: Some(1), ant: Some(3), freq: 868_800_000, datr: fsk, codr: None, lsnr: None, ..packet };
    socket.report(2, &[packet]).await;
    let (token, rx1) = socket.pull_resp().await;
    assert_eq!((rx1.freq, rx1.datr, rx1.fdev, rx1.ipol), (868_800_000, fsk, Some(25_000), false));
    assert_eq!((rx1.brd, rx1.ant, rx1.tmst, rx1.imme), (Some(1), Some(3), Some(1_000_005), false));
    socket.tx_ack(token, br#"{"txpk_ack":{"error":"TX_FREQ"}}"#).await;
    let (token, rx2) = socket.pull_resp_again(&rx1).await;
    assert_eq!((rx2.brd, rx2.ant, rx2.freq, rx2.ipol), (Some(1), Some(3), 869_525_000, true));
    socket.tx_ack(token, b"").await;
    acknowledged(&mut device, &rx2.data, 0);
    let ups = network.ups(1).await;
    assert_eq!(ups[0].body["dr"], 7);
}

/// Without a counter there is no time to send at; the uplink itself is as good as any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_a_counter_is_heard_and_never_told_to_send() {
    let network = Network::up().await;
    let (eui, mut device) = (network.gateway(), network.abp());
    let socket = Socket::open(network.gwmp, eui, 2).await;
    socket.open_route(1).await;
    let packet = Rxpk { tmst: None, ..uplink(&mut device, 0) };
    socket.report(2, &[packet]).await;
    network.ups(1).await;
    tokio::time::sleep(QUIET).await;
    socket.strictly_silent().await;
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

/// So late that a second refusal would leave no time for another gateway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_refuses_late_leaves_the_join_accept_to_another() {
    let network = Network::up().await;
    let (slow, other) = (network.gateway(), network.gateway());
    let slow = Socket::open(network.gwmp, slow, 2).await;
    let other = Socket::open(network.gwmp, other, 2).await;
    slow.open_route(1).await;
    other.open_route(1).await;
    let packet = network.otaa("1.0.3").join().unwrap();
    let heard = |tmst, lsnr| {
        let rxpk = Rxpk::new(packet.frequency, packet.datr, packet.phy.clone());
        Rxpk { tmst: Some(tmst), rssi: Some(-70), lsnr: Some(lsnr), ..rxpk }
    };
    slow.report(2, &[heard(1_000, 9.0)]).await;
    other.report(2, &[heard(5_000, 1.0)]).await;
    let (token, first) = slow.pull_resp().await;
    // Its RX1 opens 5 s after the request, RX2 another second later.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    slow.tx_ack(token, br#"{"txpk_ack":{"error":"TOO_LATE"}}"#).await;
    let (_, txpk) = other.pull_resp().await;
    assert_eq!((txpk.data, txpk.tmst), (first.data, Some(5_005_000)));
    slow.strictly_silent().await;
}
