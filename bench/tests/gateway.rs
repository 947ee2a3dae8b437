//! A virtual gateway against a peer that the test plays itself.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{net::SocketAddr, time::Duration};

use limpet_bench::{Answer, GatewayConfig, Refuse, TxAckFrom, TxAckStyle, VirtualGateway};
use limpet_shared::{
    Eui64,
    gwmp::{
        Datr, Rxpk, TxAckResult, TxError, Txpk, UpKind, parse_push_data, parse_tx_ack, parse_upstream, pull_ack,
        pull_resp, push_ack,
    },
};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout},
};

const EUI: Eui64 = Eui64(0x0016_c001_ff10_a235);
const LORA: Datr = Datr::Lora { spreading_factor: 7, bandwidth_khz: 125 };
/// Longer than anything takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that does only what the test says.
struct Peer {
    socket: UdpSocket,
}

struct Got {
    from: SocketAddr,
    version: u8,
    token: u16,
    json: Vec<u8>,
}

impl Peer {
    async fn new() -> Self {
        Self { socket: UdpSocket::bind("127.0.0.1:0").await.unwrap() }
    }
    fn config(&self) -> GatewayConfig {
        GatewayConfig::new(EUI, self.socket.local_addr().unwrap())
    }
    /// The next datagram of this kind.
    async fn next(&self, kind: UpKind) -> Got {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = timeout(PATIENCE, self.socket.recv_from(&mut buffer)).await.unwrap().unwrap();
            let up = parse_upstream(&buffer[..length]).unwrap();
            assert_eq!(up.gateway, EUI);
            if up.kind == kind {
                return Got { from, version: up.version, token: up.token, json: up.json.to_vec() };
            }
        }
    }
    async fn send(&self, to: SocketAddr, datagram: &[u8]) {
        self.socket.send_to(datagram, to).await.unwrap();
    }
    /// Sends a downlink that is due `ahead` microseconds from now on the gateway's counter, and reads the TX_ACK.
    async fn downlink(&self, gateway: &VirtualGateway, to: SocketAddr, token: u16, ahead: i32) -> Got {
        let tmst = gateway.tmst(Instant::now()).wrapping_add_signed(ahead);
        self.send(to, &pull_resp(2, token, &txpk(tmst, token as u8).to_json())).await;
        let ack = self.next(UpKind::TxAck).await;
        assert_eq!(ack.token, token);
        ack
    }
}

fn txpk(tmst: u32, data: u8) -> Txpk {
    Txpk::at(tmst, 868_100_000, 14, LORA, vec![data; 12])
}

fn refused(word: TxError) -> TxAckResult {
    TxAckResult::Refused(word)
}

#[tokio::test]
async fn an_uplink_is_acknowledged_by_its_token_alone() {
    let peer = Peer::new().await;
    let gateway = VirtualGateway::start(peer.config()).await.unwrap();
    let rxpk = Rxpk { tmst: Some(7), ..Rxpk::new(868_300_000, LORA, vec![1, 2, 3]) };
    let push = gateway.send_uplink(std::slice::from_ref(&rxpk)).await.unwrap();
    let got = peer.next(UpKind::PushData).await;
    assert_eq!(got.token, push.token);
    assert_eq!(parse_push_data(&got.json).unwrap().rxpk, [Ok(rxpk)]);
    peer.send(got.from, &push_ack(2, got.token.wrapping_add(1))).await;
    peer.send(got.from, &push_ack(2, got.token)).await;
    assert!(push.acked(PATIENCE).await.is_some());
    peer.send(got.from, &push_ack(2, got.token)).await;
    // A status after it shows that the second one was read.
    let push = gateway.send_json(b"{}").await.unwrap();
    let got = peer.next(UpKind::PushData).await;
    peer.send(got.from, &push_ack(2, got.token)).await;
    assert!(push.acked(PATIENCE).await.is_some());
    let counters = gateway.counters();
    assert_eq!((counters.pushed, counters.push_acked, counters.push_acks_unasked), (2, 2, 2));
}

#[tokio::test]
async fn it_keeps_its_downlink_route_alive_on_a_socket_of_its_own() {
    let peer = Peer::new().await;
    let config = GatewayConfig { keepalive: Duration::from_millis(20), version: 1, ..peer.config() };
    let gateway = VirtualGateway::start(config).await.unwrap();
    let _push = gateway.send_json(b"{}").await.unwrap();
    let push = peer.next(UpKind::PushData).await;
    let (one, two) = (peer.next(UpKind::PullData).await, peer.next(UpKind::PullData).await);
    assert_eq!((one.from, one.version), (two.from, 1));
    assert_ne!(one.from, push.from);
    assert_ne!(one.token, two.token);
    peer.send(two.from, &pull_ack(1, two.token)).await;
    let read = async {
        while gateway.counters().pull_acked == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, read).await.unwrap();
}

#[tokio::test]
async fn a_downlink_is_queued_told_and_transmitted_at_its_time_also_over_the_wrap() {
    for tmst_start in [0, u32::MAX - 100_000] {
        let peer = Peer::new().await;
        let gateway = VirtualGateway::start(GatewayConfig { tmst_start, ..peer.config() }).await.unwrap();
        let (mut downlinks, mut on_air) = (gateway.downlinks(), gateway.on_air());
        let route = peer.next(UpKind::PullData).await.from;
        let ack = peer.downlink(&gateway, route, 77, 2_000_000).await;
        assert_eq!((ack.from, parse_tx_ack(&ack.json)), (route, Ok(TxAckResult::Sent(None))));
        assert_eq!(ack.json, b"");
        let told = downlinks.recv().await.unwrap();
        assert_eq!((told.token, told.answer, &told.txpk.data[..]), (77, Answer::Queued, &[77; 12][..]));
        assert!((42_500..=2_000_000).contains(&told.lead), "{}", told.lead);
        let sent = timeout(PATIENCE, on_air.recv()).await.unwrap().unwrap();
        assert_eq!(Some(sent.tmst), told.txpk.tmst);
        assert!(gateway.tmst(Instant::now()).wrapping_sub(sent.tmst) < u32::MAX / 2, "not before its time");
    }
}

#[tokio::test]
async fn it_refuses_what_a_concentrator_refuses() {
    let peer = Peer::new().await;
    let gateway = VirtualGateway::start(peer.config()).await.unwrap();
    let mut downlinks = gateway.downlinks();
    let route = peer.next(UpKind::PullData).await.from;
    for ahead in [-1_000_000, 600_000_000] {
        let ack = peer.downlink(&gateway, route, 1, ahead).await;
        assert_eq!(parse_tx_ack(&ack.json), Ok(refused(TxError::TooEarly)), "{ahead}");
        assert_eq!(downlinks.recv().await.unwrap().answer, Answer::Refused(TxError::TooEarly));
    }
    // On its way its time may pass, and then it is TOO_EARLY.
    let ack = peer.downlink(&gateway, route, 1, 20_000).await;
    assert!(matches!(parse_tx_ack(&ack.json), Ok(TxAckResult::Refused(TxError::TooLate | TxError::TooEarly))));
    gateway.refuse(Refuse::All(TxError::GpsUnlocked));
    let ack = peer.downlink(&gateway, route, 2, 5_000_000).await;
    assert_eq!(parse_tx_ack(&ack.json), Ok(refused(TxError::GpsUnlocked)));
    assert_eq!(gateway.counters().refused["GPS_UNLOCKED"], 1);
}

#[tokio::test]
async fn the_first_window_can_be_refused_and_the_second_taken() {
    let peer = Peer::new().await;
    let config = GatewayConfig { refuse: Refuse::FirstWindow(TxError::CollisionPacket), ..peer.config() };
    let gateway = VirtualGateway::start(config).await.unwrap();
    let route = peer.next(UpKind::PullData).await.from;
    let rx1 = peer.downlink(&gateway, route, 5, 5_000_000).await;
    assert_eq!(parse_tx_ack(&rx1.json), Ok(refused(TxError::CollisionPacket)));
    let rx2 = peer.downlink(&gateway, route, 5, 6_000_000).await;
    assert_eq!(parse_tx_ack(&rx2.json), Ok(TxAckResult::Sent(None)));
}

#[tokio::test]
async fn yes_is_said_in_three_ways_and_from_either_socket() {
    for (style, json) in [
        (TxAckStyle::None, &br#"{"txpk_ack":{"error":"NONE"}}"#[..]),
        (TxAckStyle::Empty, br#"{"txpk_ack":{"error":""}}"#),
        (TxAckStyle::NoBody, b""),
    ] {
        let peer = Peer::new().await;
        let config = GatewayConfig { tx_ack: TxAckFrom::PushSocket, tx_ack_style: style, ..peer.config() };
        let gateway = VirtualGateway::start(config).await.unwrap();
        let (up, down) = gateway.local_addrs().unwrap();
        let route = peer.next(UpKind::PullData).await.from;
        let ack = peer.downlink(&gateway, route, 3, 5_000_000).await;
        assert_eq!(ack.json, json);
        assert_eq!((ack.from.port(), route.port()), (up.port(), down.port()));
    }
}

#[tokio::test]
async fn who_sends_no_tx_ack_still_transmits() {
    let peer = Peer::new().await;
    for config in
        [GatewayConfig { version: 1, ..peer.config() }, GatewayConfig { tx_ack: TxAckFrom::Never, ..peer.config() }]
    {
        let gateway = VirtualGateway::start(config).await.unwrap();
        let mut on_air = gateway.on_air();
        let route = peer.next(UpKind::PullData).await.from;
        let tmst = gateway.tmst(Instant::now()).wrapping_add(2_000_000);
        peer.send(route, &pull_resp(2, 1, &txpk(tmst, 1).to_json())).await;
        timeout(PATIENCE, on_air.recv()).await.unwrap().unwrap();
        // Datagrams on loopback keep their order: a TX_ACK would lie before this in the peer's socket.
        gateway.pull().await.unwrap();
        let mut buffer = [0; 2048];
        let length = peer.socket.recv(&mut buffer).await.unwrap();
        assert_eq!(parse_upstream(&buffer[..length]).unwrap().kind, UpKind::PullData);
    }
}

#[tokio::test]
async fn a_downlink_without_a_field_that_semtech_needs_is_dropped_in_silence() {
    let peer = Peer::new().await;
    let gateway = VirtualGateway::start(peer.config()).await.unwrap();
    let route = peer.next(UpKind::PullData).await.from;
    let tmst = gateway.tmst(Instant::now()).wrapping_add(1_000_000);
    let json = String::from_utf8(txpk(tmst, 1).to_json()).unwrap().replace(r#""rfch":0,"#, "");
    peer.send(route, &pull_resp(2, 9, json.as_bytes())).await;
    let ack = peer.downlink(&gateway, route, 10, 5_000_000).await;
    assert_eq!(ack.token, 10, "the first TX_ACK is for the second downlink");
    assert_eq!((gateway.counters().junk, gateway.counters().downlinks), (1, 1));
}

#[tokio::test]
async fn after_a_rebind_it_speaks_from_other_ports_and_hears_there() {
    let peer = Peer::new().await;
    let gateway = VirtualGateway::start(peer.config()).await.unwrap();
    let before = peer.next(UpKind::PullData).await.from;
    gateway.rebind().await.unwrap();
    gateway.pull().await.unwrap();
    let route = peer.next(UpKind::PullData).await.from;
    assert_ne!(route, before);
    let ack = peer.downlink(&gateway, route, 4, 5_000_000).await;
    assert_eq!(ack.from, route);
    let push = gateway.send_json(b"{}").await.unwrap();
    let got = peer.next(UpKind::PushData).await;
    peer.send(got.from, &push_ack(2, got.token)).await;
    assert!(push.acked(PATIENCE).await.is_some());
}

#[tokio::test]
async fn after_a_move_it_hears_both_servers_and_sends_again_what_was_not_acknowledged() {
    let (before, after) = (Peer::new().await, Peer::new().await);
    let gateway = VirtualGateway::start(before.config()).await.unwrap();
    let route = before.next(UpKind::PullData).await.from;
    let [answered, silent] = [gateway.send_json(b"{}").await.unwrap(), gateway.send_json(b"{}").await.unwrap()];
    let abandoned = gateway.send_json(b"{}").await.unwrap();
    let first = before.next(UpKind::PushData).await;
    drop(abandoned);
    gateway.move_to(after.config().server).await.unwrap();
    after.next(UpKind::PullData).await;

    // What the first server still has to say arrives, and is answered there.
    before.send(first.from, &push_ack(2, first.token)).await;
    assert!(answered.acked(PATIENCE).await.is_some());
    let ack = before.downlink(&gateway, route, 6, 5_000_000).await;
    assert_eq!((ack.token, ack.from), (6, route));

    assert_eq!(gateway.send_again().await.unwrap(), 1);
    let again = after.next(UpKind::PushData).await;
    assert_eq!(again.token, silent.token);
    after.send(again.from, &push_ack(2, again.token)).await;
    assert!(silent.acked(PATIENCE).await.is_some());
    assert_eq!(gateway.send_again().await.unwrap(), 0);
}
