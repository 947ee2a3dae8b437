//! Nine in ten frames are another network's: what ours notice of it, and what a foreign one costs.
//!
//! `LIMPET_FULL=1 cargo test --release --test cluster -- foreign --nocapture` gives the figures.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use limpet_bench::engine::Engine;
use limpet_shared::{
    Eui64,
    gwmp::{self, Datr, Rxpk},
};

use crate::{
    account::{latencies, settle_part},
    cluster::Cluster,
    collector::Collector,
    field::{Field, Load},
    full,
    on_cql::engine_if_full,
    turn,
};

const GATEWAYS: u64 = 10;
const DEVICES: u32 = 100;
/// Frames a second: ours, and all.
const OURS: u32 = 100;
const ALL: u32 = 1_000;
/// Devices of the other network.
const STRANGERS: u64 = 10_000;
/// How long one kind of traffic lasts, and how often both take turns: what disturbs the machine disturbs both.
const PART: Duration = Duration::from_secs(12);
const TURNS: usize = 3;

/// The frames of another network's devices as the gateways here hear them, until it is stopped.
struct Foreign {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Foreign {
    /// Goes on with frame `from`.
    fn start(to: SocketAddr, gateways: Vec<Eui64>, rate: u32, from: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(to).unwrap();
            let (began, mut sent) = (Instant::now(), 0);
            while !told.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
                while sent < began.elapsed().as_millis() as u64 * u64::from(rate) / 1_000 {
                    let number = from + sent;
                    let gateway = gateways[number as usize % gateways.len()];
                    let _ = socket.send(&datagram(gateway, number));
                    sent += 1;
                }
            }
            sent
        });
        Self { stop, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Of each twenty frames one is a JoinRequest.
fn datagram(gateway: Eui64, number: u64) -> Vec<u8> {
    let phy = if number.is_multiple_of(20) {
        [&[0x00][..], &[9; 8], &number.to_le_bytes(), &[1; 6]].concat()
    } else {
        let ([low, middle, high, ..], [f_cnt, more, ..]) =
            ((number % STRANGERS).to_le_bytes(), (number / STRANGERS).to_le_bytes());
        [&[0x40, low, middle, high, 0x27, 0x00, f_cnt, more, 0x01][..], &[7; 16]].concat()
    };
    let datr = Datr::Lora { spreading_factor: 7, bandwidth_khz: 125 };
    let (rssi, lsnr) = (Some(-90), Some(4.5));
    let packet = Rxpk { tmst: Some(1), rssi, lsnr, ..Rxpk::new(868_300_000, datr, phy) };
    gwmp::push_data(2, number as u16, gateway, &gwmp::push_data_json(&[packet], None))
}

/// What was measured with one kind of traffic.
#[derive(Default)]
struct Measured {
    uplinks: u64,
    foreign: u64,
    processor: Duration,
    acks: Vec<Duration>,
    events: Vec<Duration>,
    /// The engine's statements by kind.
    asked: BTreeMap<&'static str, u64>,
}

impl Measured {
    fn cpu_of_an_uplink(&self) -> f64 {
        self.processor.as_secs_f64() * 1e3 / self.uplinks as f64
    }

    fn median(of: &mut [Duration]) -> f64 {
        of.sort_unstable();
        of[of.len() / 2].as_secs_f64() * 1e3
    }
}

struct Network {
    cluster: Cluster,
    collector: Collector,
    field: Arc<Field>,
    engine: Option<Engine>,
}

impl Network {
    async fn on(cluster: Cluster, gateways: Vec<Eui64>, engine: Option<Engine>) -> Self {
        let collector = Collector::start().await;
        let field = Arc::new(Field::one_in_reach(&cluster, gateways, DEVICES, &collector.url()).await);
        field.linked().await;
        Self { cluster, collector, field, engine }
    }

    fn asked(&self) -> BTreeMap<&'static str, u64> {
        let scopes = ["CASWrite", "CASRead", "Write", "Read", "RangeSlice"];
        self.engine.iter().flat_map(|engine| scopes.map(|scope| (scope, engine.count(scope)))).collect()
    }

    async fn part(&self, rate: u32, from: u64, sums: &mut Measured) {
        let (asked, used) = (self.asked(), self.cluster.processor_time());
        let to = self.cluster.edges[0].gwmp;
        let foreign = (rate > 0).then(|| Foreign::start(to, self.field.gateways.clone(), rate, from));
        let load = Load::start(&self.field, OURS, 0);
        tokio::time::sleep(PART).await;
        let sent = load.stop().await;
        sums.foreign += foreign.map(Foreign::end).unwrap_or_default();
        let account = settle_part(&sent, &self.collector).await;
        account.assert_all_told();
        sums.processor += self.cluster.processor_time() - used;
        sums.uplinks += sent.len() as u64;
        sums.events.extend(latencies(&sent, &self.collector));
        sums.acks.extend(account.push_acks);
        for (scope, count) in self.asked() {
            *sums.asked.entry(scope).or_default() += count - asked[scope];
        }
    }

    /// Ours alone and ours among strangers, by turns. Our events wait for no stranger's frame, and one costs a fraction of ours.
    async fn compare(&self, what: &str, rate: u32) {
        let (mut alone, mut among) = (Measured::default(), Measured::default());
        // What is slow only at first counts for neither.
        self.part(0, 0, &mut Measured::default()).await;
        for _ in 0..TURNS {
            self.part(0, 0, &mut alone).await;
            let from = among.foreign;
            self.part(rate, from, &mut among).await;
        }
        for (name, of) in [("alone", &mut alone), ("among strangers", &mut among)] {
            println!(
                "{what}, {name}: {} uplinks, {} foreign; PUSH_ACK p50 {:.2} ms, event p50 {:.1} ms, processor {:.2} ms for each uplink; statements {:?}",
                of.uplinks,
                of.foreign,
                Measured::median(&mut of.acks),
                Measured::median(&mut of.events),
                of.cpu_of_an_uplink(),
                of.asked
            );
        }
        let more = among.processor.saturating_sub(alone.processor);
        let each = more.as_secs_f64() * 1e3 / among.foreign as f64;
        let part = each / alone.cpu_of_an_uplink();
        println!("  a foreign frame costs {:.0} us of processor time, {part:.3} of one of ours", each * 1e3);
        for (scope, count) in &alone.asked {
            let each = (among.asked[scope] as f64 - *count as f64) / among.foreign as f64;
            println!("  and {each:.2} {scope}");
        }
        println!(
            "  all of them cost {:.0} % of what ours do",
            100.0 * more.as_secs_f64() / alone.processor.as_secs_f64()
        );
        let acks = Measured::median(&mut among.acks) / Measured::median(&mut alone.acks);
        let ratio = Measured::median(&mut among.events) / Measured::median(&mut alone.events);
        println!("  with strangers / without: PUSH_ACK {acks:.2}, event {ratio:.3}");
        assert!(ratio < 1.2 && part < 0.2, "{ratio} {part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_networks_frames_hold_up_none_of_ours() {
    let _turn = turn().await;
    if !full() {
        return println!("skipped: LIMPET_FULL=1 asks for it");
    }
    let gateways = (1..=GATEWAYS).map(|number| Eui64(0x024c_5000_0000_0000 + number)).collect();
    let network = Network::on(Cluster::up().await, gateways, None).await;
    network.compare("SQLite", ALL - OURS).await;
}

/// The engine takes most of the machine for itself, so that its time says little: what it is asked counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_frame_asks_a_database_one_thing() {
    let _turn = turn().await;
    let Some(engine) = engine_if_full(1, "127.0.28") else { return };
    let cluster = Cluster::apart_on(&["alpha"], engine.store("foreign")).await;
    let gateways = cluster.gateways_of_each(GATEWAYS as usize).await.concat();
    Network::on(cluster, gateways, Some(engine)).await.compare("CQL", ALL - OURS).await;
}
