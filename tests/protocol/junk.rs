//! Hostile and broken datagrams: each is counted under its reason, and the server goes on.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    net::SocketAddr,
};

use limpet_bench::{Uplink, VirtualDevice};
use limpet_shared::{
    Eui64,
    gwmp::{self, DownKind, Rxpk},
};
use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};

use crate::{
    network::Network,
    raw::{Answer, Socket},
    support::{PATIENCE, eventually, ids_by_uplink},
};

/// The largest payload of a UDP datagram over IPv4.
const LARGEST: usize = 65_507;
/// Version, token, type, EUI.
const HEADER: usize = 12;

fn uplink(device: &mut VirtualDevice) -> Rxpk {
    let packet = device.uplink(&Uplink { fport: Some(1), payload: vec![7; 10], ..Default::default() }).unwrap();
    Rxpk { tmst: Some(1), rssi: Some(-80), lsnr: Some(5.0), ..Rxpk::new(packet.frequency, packet.datr, packet.phy) }
}

/// A gateway that is served.
async fn gateway(network: &Network) -> Socket {
    let socket = Socket::open(network.gwmp, network.gateway(), 2).await;
    socket.open_route(0xffff).await;
    socket
}

/// A fresh uplink through this gateway is acknowledged and told.
async fn still_works(network: &Network, socket: &Socket, device: &mut VirtualDevice) {
    let told = ids_by_uplink(&network.told("up")).len();
    let packet = uplink(device);
    let token = 0x7777;
    // On a flooded socket the kernel may drop a datagram; a forwarder's next one comes soon.
    eventually("a PUSH_ACK after all that", async || {
        socket.push_packets(token, std::slice::from_ref(&packet)).await;
        let ack = async { while socket.answer().await != Answer::ack(2, token, DownKind::PushAck) {} };
        tokio::time::timeout(std::time::Duration::from_secs(2), ack).await.ok()
    })
    .await;
    network.ups(told + 1).await;
}

/// Waits until a role has counted at least this many drops for a reason.
async fn counted(network: &Network, of: SocketAddr, role: &str, reason: &str, count: u64) {
    let series = format!("limpet_{role}_dropped_total{{reason=\"{reason}\"}}");
    let what = format!("{series} to be {count}");
    eventually(&what, async || (network.metric(of, &series).await >= count).then_some(())).await;
    assert_eq!(network.metric(of, &series).await, count, "{series}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_that_are_no_gwmp_are_counted_by_the_balancer() {
    let network = Network::up().await;
    let (socket, mut device) = (gateway(&network).await, network.abp());
    let whole = gwmp::push_data(2, 1, socket.eui, b"{}");
    for length in 0..HEADER {
        socket.send(&whole[..length]).await;
    }
    counted(&network, network.admin, "balancer", "too_short", HEADER as u64).await;
    let with = |at: usize, byte: u8| {
        let mut datagram = whole.clone();
        datagram[at] = byte;
        datagram
    };
    for version in [0, 3, 0x7f, 0xff] {
        socket.send(&with(0, version)).await;
    }
    counted(&network, network.admin, "balancer", "gwmp_version", 4).await;
    // What only a server sends, and what nobody sends.
    for kind in [1, 3, 4, 6, 0xff] {
        socket.send(&with(3, kind)).await;
    }
    counted(&network, network.admin, "balancer", "gwmp_type", 5).await;
    for body in [&b""[..], b"{", br#"{"txpk_ack":{"error":"NONE"}}"#] {
        socket.tx_ack(0x1234, body).await;
    }
    counted(&network, network.admin, "balancer", "tx_ack_unmatched", 3).await;
    socket.silent().await;
    still_works(&network, &socket, &mut device).await;
}

/// JSON that a worker cannot use: it is counted and acknowledged, for repeating it would help nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_that_is_none_is_counted_by_the_worker() {
    let network = Network::up().await;
    let (socket, mut device) = (gateway(&network).await, network.abp());
    let nested = |open: &str, close: &str, depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth));
    let malformed = [
        String::new(),
        "{".into(),
        "[]".into(),
        "null".into(),
        "{\"rxpk\":7}".into(),
        nested("[", "]", 30_000),
        nested("{\"a\":", "}", 9_000),
        "[".repeat(60_000),
        "{\"rxpk\":".repeat(7_000),
        "\u{0}".repeat(1_000),
    ];
    for (token, json) in malformed.iter().enumerate() {
        socket.push(token as u16, json.as_bytes()).await;
        assert_eq!(socket.answer().await, Answer::ack(2, token as u16, DownKind::PushAck));
    }
    counted(&network, network.http, "worker", "json_malformed", malformed.len() as u64).await;
    let many = format!("{{\"rxpk\":[{}]}}", vec!["{}"; 256].join(","));
    socket.push(1, many.as_bytes()).await;
    assert_eq!(socket.answer().await, Answer::ack(2, 1, DownKind::PushAck));
    counted(&network, network.http, "worker", "too_many_packets", 1).await;
    still_works(&network, &socket, &mut device).await;
}

/// One packet that cannot be used costs no other in its datagram.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_that_cannot_be_used_are_counted_one_by_one() {
    let network = Network::up().await;
    let (socket, mut device) = (gateway(&network).await, network.abp());
    let packet = |data: &str, more: &str| {
        format!("{{\"tmst\":1,\"freq\":868.1,\"modu\":\"LORA\",\"datr\":\"SF7BW125\",\"data\":\"{data}\"{more}}}")
    };
    let good = serde_json::to_string(&uplink(&mut device)).unwrap();
    let deep = format!("{{\"freq\":{}1{}}}", "[".repeat(500), "]".repeat(500));
    let cases = [
        ("rxpk_malformed", "7".to_string()),
        ("rxpk_malformed", deep),
        ("rxpk_frequency", packet("QAEAAAEAAAABAAAAAA==", "").replace("868.1", "-1e99")),
        ("rxpk_data_rate", packet("QAEAAAEAAAABAAAAAA==", "").replace("SF7BW125", "SF99BW1")),
        ("rxpk_data", packet("????", "")),
        ("rxpk_too_long", packet(&"QAEA".repeat(2_000), "")),
        ("crc_error", packet("QAEAAAEAAAABAAAAAA==", ",\"stat\":-1")),
        ("too_short", packet("QAEA", "")),
        ("too_short", packet("", "")),
        ("unknown_major", packet("QQEAAAEAAAABAAAAAA==", "")),
        ("proprietary", packet("4AEAAAEAAAABAAAAAA==", "")),
        ("rejoin_unsupported", packet("wAEAAAEAAAABAAAAAA==", "")),
        ("downlink_heard", packet("YAEAAAEAAAABAAAAAA==", "")),
        ("fopts_too_long", packet("QAEAAAEPAAABAAAAAA==", "")),
        ("join_request_length", packet("AAEAAAEAAAABAAAAAA==", "")),
        ("no_region", packet("QAEAAAEAAAABAAAAAA==", "").replace("868.1", "433.1")),
    ];
    let bad: Vec<_> = cases.iter().map(|(_, json)| json.as_str()).collect();
    let json = format!("{{\"rxpk\":[{},{good},{}]}}", bad.join(","), bad.join(","));
    socket.push(9, json.as_bytes()).await;
    assert_eq!(socket.answer().await, Answer::ack(2, 9, DownKind::PushAck));
    network.ups(1).await;
    for (reason, _) in &cases {
        let count = 2 * cases.iter().filter(|(other, _)| other == reason).count();
        counted(&network, network.http, "worker", reason, count as u64).await;
    }
    still_works(&network, &socket, &mut device).await;
}

/// As many packets as a concentrator reports at once, of several devices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datagram_of_255_packets_is_255_events() {
    let network = Network::up().await;
    let socket = gateway(&network).await;
    let mut devices: Vec<_> = (0..5).map(|_| network.abp()).collect();
    let mut packets = Vec::new();
    for _ in 0..gwmp::MAX_RXPK / devices.len() {
        packets.extend(devices.iter_mut().map(uplink));
    }
    assert_eq!(packets.len(), gwmp::MAX_RXPK);
    socket.report(1, &packets).await;
    let ups = network.ups(packets.len()).await;
    assert!(ids_by_uplink(&ups).values().all(|ids| ids.len() == 1));
    assert_eq!(network.metric(network.http, "limpet_worker_rxpk_total").await, packets.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datagram_of_255_packets_of_one_device_is_255_events() {
    let network = Network::up().await;
    let (socket, mut device) = (gateway(&network).await, network.abp());
    let packets: Vec<_> = (0..gwmp::MAX_RXPK).map(|_| uplink(&mut device)).collect();
    socket.report(1, &packets).await;
    let ups = network.ups(packets.len()).await;
    assert_eq!(ups.len(), packets.len());
}

/// The same datagram, over and over: one event, and the devices of others do not suffer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_replayed_without_end_is_one_event() {
    let network = Network::up().await;
    let (socket, replayer) = (gateway(&network).await, gateway(&network).await);
    let (mut device, mut other) = (network.abp(), network.abp());
    let packets = [uplink(&mut device)];
    let json = gwmp::push_data_json(&packets, None);
    for round in 0..100 {
        for token in 0..100 {
            replayer.push(token, &json).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        if round % 25 == 0 {
            still_works(&network, &socket, &mut other).await;
        }
    }
    still_works(&network, &socket, &mut other).await;
    let eui = device.dev_eui().to_string();
    let told: Vec<_> = network.told("up").into_iter().filter(|up| up.dev_eui == eui).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_datagrams_are_read_whole() {
    let network = Network::up().await;
    let (socket, mut device) = (gateway(&network).await, network.abp());
    // The packet stands behind all that fills the datagram.
    let packet = serde_json::to_string(&uplink(&mut device)).unwrap();
    let around = format!("{{\"stat\":{{\"desc\":\"\"}},\"rxpk\":[{packet}]}}").len();
    let filler = "x".repeat(LARGEST - HEADER - around);
    let json = format!("{{\"stat\":{{\"desc\":\"{filler}\"}},\"rxpk\":[{packet}]}}");
    assert_eq!(json.len() + HEADER, LARGEST);
    socket.push(1, json.as_bytes()).await;
    assert_eq!(socket.answer().await, Answer::ack(2, 1, DownKind::PushAck));
    network.ups(1).await;
    // Not more than a gateway may send in a second.
    for token in 2..12 {
        socket.push(token, &vec![b'['; LARGEST - HEADER]).await;
        assert_eq!(socket.answer().await, Answer::ack(2, token, DownKind::PushAck));
    }
    still_works(&network, &socket, &mut device).await;
}

/// Random bytes, some of them dressed as a gateway's, from several sockets at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_survived() {
    let network = Network::up().await;
    let (socket, mut device) = (gateway(&network).await, network.abp());
    let seed = RandomState::new().build_hasher().finish();
    println!("seed {seed}");
    let mut floods = Vec::new();
    for number in 0..4 {
        let (gwmp, known) = (network.gwmp, socket.eui);
        floods.push(tokio::spawn(flood(gwmp, known, SmallRng::seed_from_u64(seed.wrapping_add(number)))));
    }
    for _ in 0..3 {
        still_works(&network, &socket, &mut device).await;
    }
    for flood in floods {
        flood.await.unwrap();
    }
    // Datagrams of unknown gateways are limited per address, and so is what is remembered of them.
    let unknown = network.ctl(&["gateways", "--unknown"]);
    assert!(unknown["gateways"].as_array().unwrap().len() <= 1_000);
    let other = gateway(&network).await;
    still_works(&network, &other, &mut device).await;
    for (role, at) in [("balancer", network.admin), ("worker", network.http)] {
        let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        for page in ["healthz", "readyz"] {
            let answer = client.get(format!("http://{at}/{page}")).send().await.unwrap();
            assert!(answer.status().is_success(), "/{page} of the {role}: {answer:?}");
        }
    }
}

async fn flood(server: SocketAddr, known: Eui64, mut rng: SmallRng) {
    let socket = Socket::open(server, known, 2).await;
    for number in 0..3_000 {
        let length = if number % 50 == 0 { LARGEST } else { rng.random_range(0..300) };
        let mut datagram = vec![0; length];
        rng.fill_bytes(&mut datagram);
        if let Some(header) = datagram.first_chunk_mut::<HEADER>()
            && number % 2 == 0
        {
            // A PUSH_DATA, a PULL_DATA or a TX_ACK of a gateway that is known, or not.
            (header[0], header[3]) = (2, [0, 2, 5][number % 3]);
            let eui = if number % 4 == 0 { known } else { Eui64(rng.random()) };
            header[4..].copy_from_slice(&eui.0.to_be_bytes());
        }
        socket.send(&datagram).await;
        if number % 32 == 0 {
            tokio::task::yield_now().await;
        }
    }
}
