//! What an uplink costs, all servers together, and how long gateways and applications wait for it.

use std::time::{Duration, Instant};

use limpet_bench::engine::Engine;

use crate::{
    Outcome, Plan,
    field::{Field, Shape, Written},
    load::{Gateways, Played, percentiles},
    servers::Servers,
    sink::Sink,
};

const GATEWAYS: usize = 40;
/// Before anything is measured at a rate.
const WARM: Duration = Duration::from_secs(2);
/// At which each device is heard for the first time.
const FIRST_RATE: u32 = 250;
/// A CQL engine that has just started is slow at first.
const ENGINE_WARM: Duration = Duration::from_secs(15);
/// For how long the last events are waited for.
const LAST_EVENTS: Duration = Duration::from_secs(10);
/// For how long system calls are counted.
const TRACED: Duration = Duration::from_secs(4);
const TRACED_RATE: u32 = 60;

/// Everything that stands around one measurement.
pub struct Site {
    name: &'static str,
    pub servers: Servers,
    pub field: Field,
    pub gateways: Gateways,
    pub sink: Sink,
}

pub async fn run(plan: &Plan) -> Outcome<()> {
    println!("\n### An uplink, heard by three neighbouring gateways\n");
    println!(
        "| servers | uplinks/s | CPU ms an uplink (balancer / workers) | context switches an uplink | event p50 / p99 ms | PUSH_ACK p50 / p99 ms | missing acks, events |"
    );
    println!("|---|---|---|---|---|---|---|");
    let rates: &[u32] = if plan.long { &[60, 250, 500, 1_000, 2_000, 3_000, 4_000, 5_000] } else { &[60, 500, 2_000] };
    let mut one = Site::start(plan, "SQLite, 1 worker", 1, if plan.long { 10_000 } else { 4_000 }, None).await?;
    for rate in rates {
        one.measure(plan, *rate).await?;
    }
    let calls = one.system_calls().await?;
    drop(one);
    let mut three = Site::start(plan, "SQLite, 3 workers", 3, 500, None).await?;
    three.measure(plan, 60).await?;
    drop(three);
    let engine = on_engine(plan).await?;
    println!("\n{calls}\n\n{engine}");
    Ok(())
}

impl Site {
    pub async fn start(
        plan: &Plan,
        name: &'static str,
        workers: usize,
        devices: usize,
        store: Option<&str>,
    ) -> Outcome<Self> {
        let (sink, webhook) = Sink::start()?;
        let servers = Servers::start(plan, workers, store).await?;
        let mut gateways = Gateways::new(GATEWAYS)?;
        let field = Field::provision(servers.http, devices, &gateways.euis, webhook).await?;
        gateways.connect(servers.gwmp)?;
        gateways.pull();
        let mut site = Self { name, servers, field, gateways, sink };
        site.hear_all(devices).await?;
        Ok(site)
    }

    /// Each device once: the first uplink that a worker hears of a device costs it more than those that follow.
    async fn hear_all(&mut self, devices: usize) -> Outcome<()> {
        let length = Duration::from_secs_f64(devices as f64 / f64::from(FIRST_RATE));
        let (shots, written) = self.field.shots(FIRST_RATE, length, Shape { copies: 1, confirmed: None })?;
        let played = joined(self.gateways.play(shots)?).await?;
        self.events(&written.iter().collect::<Vec<_>>(), &played).await;
        Ok(())
    }

    /// Sends, and measures what comes after the first moments.
    async fn measure(&mut self, plan: &Plan, rate: u32) -> Outcome<()> {
        self.gateways.pull();
        let length = plan.measured();
        let (shots, written) = self.field.shots(rate, WARM + length, Shape::default())?;
        let began = Instant::now();
        let playing = self.gateways.play(shots)?;
        tokio::time::sleep_until((began + WARM).into()).await;
        let before = self.servers.used()?;
        tokio::time::sleep_until((began + WARM + length).into()).await;
        let [balancer, workers] = self.servers.since(&before)?;
        let played = joined(playing).await?;
        let measured: Vec<&Written> = written
            .iter()
            .filter(|one| played.sent.get(one.first).is_some_and(|at| at.duration_since(began) >= WARM))
            .collect();
        let events = self.events(&measured, &played).await;
        let acks: Vec<Duration> = played.acked.iter().copied().flatten().collect();
        let missing = (played.acked.len() - acks.len(), measured.len() - events.len());
        let (event, ack) = (percentiles(events), percentiles(acks));
        let each = |time: Duration| time.as_secs_f64() * 1e3 / measured.len().max(1) as f64;
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "| {} | {rate} | {:.2} ({:.2} / {:.2}) | {:.1} | {:.0} / {:.0} | {:.1} / {:.1} | {}, {} |",
            self.name,
            each(balancer.cpu + workers.cpu),
            each(balancer.cpu),
            each(workers.cpu),
            (balancer.switches + workers.switches) as f64 / measured.len().max(1) as f64,
            millis(event[0]),
            millis(event[1]),
            millis(ack[0]),
            millis(ack[1]),
            missing.0,
            missing.1,
        );
        Ok(())
    }

    /// How long after its first copy each event came, once all are there or none has come for long.
    async fn events(&self, written: &[&Written], played: &Played) -> Vec<Duration> {
        let after = || -> Vec<Duration> {
            let told = self.sink.told();
            let one =
                |one: &&Written| Some(told.get(&one.uplink)?.0.saturating_duration_since(*played.sent.get(one.first)?));
            written.iter().filter_map(one).collect()
        };
        let began = Instant::now();
        while after().len() < written.len() && began.elapsed() < LAST_EVENTS {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        after()
    }

    /// Where strace is to be had: it slows down what it looks at, so nothing else is measured meanwhile.
    async fn system_calls(&mut self) -> Outcome<String> {
        let (shots, written) = self.field.shots(TRACED_RATE, WARM + TRACED, Shape::default())?;
        let playing = self.gateways.play(shots)?;
        tokio::time::sleep(WARM).await;
        let Some(traces) = self.servers.trace() else { return Ok("System calls: strace is missing.".into()) };
        tokio::time::sleep(TRACED).await;
        let uplinks = f64::from(TRACED_RATE) * TRACED.as_secs_f64();
        let mut said = format!("System calls an uplink at {TRACED_RATE}/s, {}:", self.name);
        for (process, trace) in std::iter::once(&self.servers.balancer).chain(&self.servers.workers).zip(traces) {
            let calls = trace.stop();
            let all: u64 = calls.iter().map(|(_, count)| count).sum();
            let most = calls.iter().take(6).map(|(name, count)| format!("{name} {:.1}", *count as f64 / uplinks));
            let most: Vec<String> = most.collect();
            said += &format!(" {} {:.1} ({});", process.name, all as f64 / uplinks, most.join(", "));
        }
        let played = joined(playing).await?;
        self.events(&written.iter().collect::<Vec<_>>(), &played).await;
        Ok(said)
    }
}

pub async fn joined(playing: std::thread::JoinHandle<Outcome<Played>>) -> Outcome<Played> {
    tokio::task::spawn_blocking(move || playing.join().map_err(|_| "the gateways broke down")?).await?
}

/// The same on a CQL engine, where one can be had, with the engine's own count of its work.
async fn on_engine(plan: &Plan) -> Outcome<String> {
    let folder = plan.target.join("cost-cql");
    let engine = match Engine::start(1, &folder, "127.0.29") {
        Ok(engine) => engine,
        Err(missing) => return Ok(format!("No CQL engine: {missing}")),
    };
    let mut site = Site::start(plan, "CQL, 3 workers", 3, 500, Some(&engine.store("cost"))).await?;
    let (shots, warm) = site.field.shots(30, ENGINE_WARM, Shape::default())?;
    let played = joined(site.gateways.play(shots)?).await?;
    site.events(&warm.iter().collect::<Vec<_>>(), &played).await;
    let scopes = ["CASWrite", "CASRead", "Write", "Read"];
    let before = scopes.map(|scope| engine.count(scope));
    site.measure(plan, 60).await?;
    let uplinks = 60.0 * (WARM + plan.measured()).as_secs_f64();
    let each = |(scope, before): (&&str, u64)| {
        format!("{scope} {:.2}", engine.count(scope).saturating_sub(before) as f64 / uplinks)
    };
    let counted: Vec<String> = scopes.iter().zip(before).map(each).collect();
    Ok(format!("The engine's operations an uplink at 60/s, 3 workers: {}.", counted.join(", ")))
}
