//! Somebody floods in the name of one gateway: what the others notice of it, and that gateway itself.
//!
//! `LIMPET_FULL=1 cargo test --release --test cluster -- flood --nocapture` gives the figures.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use limpet_shared::{
    Eui64,
    gwmp::{self, Datr, Rxpk},
};

use crate::{
    account::{Account, latencies, settle_part},
    cluster::Cluster,
    collector::Collector,
    field::{Field, Load},
    full, sized, turn,
};

/// Where the flood comes from: not from where the gateway is.
const ELSEWHERE: &str = "127.0.66.1:0";
/// Each with five devices; the flood is in the name of the first.
const GATEWAYS: u64 = 6;
const DEVICES: u32 = 30;
/// How long each flood lasts.
const SECONDS: (u64, u64) = (20, 3);
/// What a flood may add to the memory of the process, in MiB: what the balancer retains at most, and as much again.
const MORE_MEMORY: u64 = 512;

/// A frame of nobody's device, or of nobody's join.
fn frame(number: u64, is_join: bool) -> Vec<u8> {
    let mut phy = vec![0x40; 20];
    phy[1..5].copy_from_slice(&[number as u8, (number >> 8) as u8, (number >> 16) as u8, 0x27]);
    if is_join {
        phy = [&[0x00][..], &[9; 8], &number.to_le_bytes(), &[1; 6]].concat();
    }
    phy
}

/// So many packets in each datagram.
fn datagrams(eui: Eui64, count: u64, packets: u64, is_join: bool) -> Vec<Vec<u8>> {
    let packet = |number| {
        let datr = Datr::Lora { spreading_factor: 7, bandwidth_khz: 125 };
        let (rssi, lsnr) = (Some(-90), Some(4.5));
        Rxpk { tmst: Some(1), rssi, lsnr, ..Rxpk::new(868_100_000, datr, frame(number, is_join)) }
    };
    let datagram = |n: u64| {
        let packets: Vec<_> = (n * packets..(n + 1) * packets).map(packet).collect();
        gwmp::push_data(2, n as u16, eui, &gwmp::push_data_json(&packets, None))
    };
    (0..count).map(datagram).collect()
}

/// Datagrams at a rate, all over again, until it is stopped.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    began: Instant,
    thread: JoinHandle<()>,
}

impl Flood {
    fn start(to: SocketAddr, datagrams: Vec<Vec<u8>>, rate: u64) -> Self {
        let socket = UdpSocket::bind(ELSEWHERE).unwrap();
        socket.connect(to).unwrap();
        let (stop, sent, began) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Instant::now());
        let (told, counter) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let mut datagrams = datagrams.iter().cycle();
            while !told.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
                let due = began.elapsed().as_millis() as u64 * rate / 1_000;
                while counter.load(Ordering::Relaxed) < due {
                    let _ = socket.send(datagrams.next().unwrap());
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, sent, began, thread }
    }

    /// How many there were, and at what rate.
    fn end(self) -> (u64, u64) {
        let sent = self.sent.load(Ordering::Relaxed);
        let rate = sent as f64 / self.began.elapsed().as_secs_f64();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        (sent, rate as u64)
    }
}

struct Scene {
    cluster: Cluster,
    collector: Collector,
    field: Arc<Field>,
}

/// What was counted so far.
#[derive(Clone, Default)]
struct Counts {
    drops: BTreeMap<String, f64>,
    kernel: f64,
    packets: f64,
    processor: Duration,
}

impl Scene {
    async fn counts(&self) -> Counts {
        let edge = &self.cluster.edges[0];
        let drops = self.cluster.series(edge.admin, "limpet_balancer_dropped_total").await;
        let kernel = self.cluster.edge_metric("limpet_balancer_kernel_dropped_datagrams_total").await;
        let packets = self.cluster.series(edge.http, "limpet_worker_rxpk_total").await.values().sum();
        Counts { drops, kernel, packets, processor: self.cluster.processor_time() }
    }

    /// Ordinary traffic for a while, and what became of it.
    async fn traffic(&self, what: &str, flood: Option<Flood>) {
        let before = self.counts().await;
        let load = Load::start(&self.field, sized(100, 50), 0);
        tokio::time::sleep(Duration::from_secs(sized(SECONDS.0, SECONDS.1))).await;
        let sent = load.stop().await;
        let (flood, rate) = flood.map(Flood::end).unwrap_or_default();
        let account = settle_part(&sent, &self.collector).await;
        let after = self.counts().await;
        let kernel = after.kernel - before.kernel;
        let events = latencies(&sent, &self.collector);
        let at = |of: usize| events[(events.len() - 1) * of / 100];
        println!("{what}: {account}");
        println!(
            "  event p50 {:.0?}, p99 {:.0?}, max {:.0?}; {flood} datagrams of the flood at {rate}/s, {kernel} dropped by the kernel; {} packets to the worker in all; \
             processor {:.1?}; memory at most {:?} MiB",
            at(50),
            at(99),
            at(100),
            after.packets - before.packets,
            after.processor - before.processor,
            self.cluster.peak_memory()
        );
        let dropped: BTreeMap<_, _> =
            after.drops.iter().map(|(reason, n)| (reason, n - before.drops[reason])).collect();
        let dropped: BTreeMap<_, _> = dropped.into_iter().filter(|(_, n)| *n > 0.0).collect();
        println!("  dropped by the balancer: {dropped:?}");
        self.judge(&account, kernel, at(99));
        assert_eq!(flood > 0, !dropped.is_empty(), "a flood is dropped by reasons, and nothing else is");
    }

    fn judge(&self, account: &Account, kernel: f64, late: Duration) {
        account.assert_nothing_lost_or_doubled();
        // Who reads too late on a busy machine loses datagrams before it sees them; a forwarder sends those again.
        assert!(account.unacked as f64 <= kernel, "read and not acknowledged: {account}");
        if full() {
            assert_eq!(account.unacked, 0, "{account}");
            assert!(late < Duration::from_secs(1), "events came {late:?} late");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_in_one_gateways_name_costs_no_gateway_an_uplink() {
    let _turn = turn().await;
    let (cluster, collector) = (Cluster::up().await, Collector::start().await);
    let gateways: Vec<Eui64> = (1..=GATEWAYS).map(|number| Eui64(0x024c_5000_0000_0000 + number)).collect();
    let spoofed = gateways[0];
    let field = Arc::new(Field::one_in_reach(&cluster, gateways, DEVICES, &collector.url()).await);
    field.linked().await;
    let scene = Scene { cluster, collector, field };
    scene.traffic("no flood", None).await;
    let memory = scene.cluster.peak_memory()[0];
    let full_packets = gwmp::MAX_RXPK as u64;
    let small = sized(20_000, 4_000);
    for (what, count, packets, rate, is_join) in [
        ("full datagrams", sized(400, 60), full_packets, sized(200, 60), false),
        ("small datagrams", sized(60_000, 12_000), 1, small, false),
        ("JoinRequests", sized(60_000, 12_000), 1, small, true),
    ] {
        let flood = Flood::start(scene.cluster.edges[0].gwmp, datagrams(spoofed, count, packets, is_join), rate);
        scene.traffic(what, Some(flood)).await;
    }
    let now = scene.cluster.peak_memory()[0];
    assert!(now < memory + MORE_MEMORY, "{now} MiB, {memory} before the floods");
}
