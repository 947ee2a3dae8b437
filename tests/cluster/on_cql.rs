//! Workers on a real CQL engine: what each uplink costs, and what is left when servers and database nodes die.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use limpet_bench::engine::{Engine, Fault};
use rand::Rng;

use crate::{
    account::{Account, settle},
    cluster::Cluster,
    collector::Collector,
    field::{Field, Load, Sent},
    full, millis, moments, sized,
    support::eventually,
    turn,
};

const WORKERS: [&str; 3] = ["alpha", "beta", "gamma"];
/// Every so many uplinks one is confirmed.
const CONFIRMED: u32 = 5;

/// For what takes minutes: only with `LIMPET_FULL=1`.
pub fn engine_if_full(nodes: u8, net: &str) -> Option<Engine> {
    if !full() {
        println!("skipped: LIMPET_FULL=1 asks for it");
        return None;
    }
    engine(nodes, net)
}

/// Without an engine a test is skipped, and says so; with `CI=true` it fails.
pub fn engine(nodes: u8, net: &str) -> Option<Engine> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cql-{net}"));
    match Engine::start(nodes, &folder, net) {
        Ok(engine) => Some(engine),
        Err(missing) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
            println!("skipped: {missing}");
            None
        }
    }
}

/// Devices that gateways of all three workers hear, or each that of one, and where their events go.
struct Network {
    cluster: Cluster,
    collector: Collector,
    field: Arc<Field>,
    /// What was sent until the engine was warm.
    first: Vec<Sent>,
}

impl Network {
    async fn on(engine: &Engine, keyspace: &str, devices: u32) -> Self {
        Self::with(engine, keyspace, devices, WORKERS.len()).await
    }

    /// `copies`: of each uplink; one, or as many as there are workers.
    async fn with(engine: &Engine, keyspace: &str, devices: u32, copies: usize) -> Self {
        let collector = Collector::start().await;
        let cluster = Cluster::apart_on(&WORKERS, engine.store(keyspace)).await;
        let gateways = cluster.gateways_of_each(1).await;
        let (gateways, url) = (gateways.concat(), collector.url());
        let field = match copies {
            1 => Field::one_in_reach(&cluster, gateways, devices, &url).await,
            _ => Field::all_in_reach(&cluster, gateways, devices, &url).await,
        };
        field.linked().await;
        let field = Arc::new(field);
        // An engine that has just started is slow at first, and workers that find it slow give gateways away for a while:
        // where each gateway ends up is not waited for.
        let load = Load::start(&field, 10, 0);
        tokio::time::sleep(millis(10_000)).await;
        let first = load.stop().await;
        settle(&first, &collector).await.assert_all_told();
        Self { cluster, collector, field, first }
    }

    /// What became of everything, with what was sent besides.
    async fn account(&self, sent: &[Sent]) -> Account {
        settle(&[&self.first, sent].concat(), &self.collector).await
    }
}

/// The engine's own count, for three copies at three workers and for one. Followers enter only after the leader had its
/// time, so on a machine that is too slow for that some uplinks cost one more.
#[tokio::test(flavor = "multi_thread")]
async fn an_uplink_costs_one_conditional_write_and_its_answer_another() {
    let _turn = turn().await;
    let Some(engine) = engine_if_full(1, "127.0.21") else { return };
    for (copies, keyspace) in [(3, "costs"), (1, "costs_of_one")] {
        let network = Network::with(&engine, keyspace, 30, copies).await;
        costs(&engine, &network, copies).await;
    }
}

async fn costs(engine: &Engine, network: &Network, copies: usize) {
    let scopes = ["CASWrite", "CASRead", "Write", "Read"];
    let (before, used) = (scopes.map(|scope| engine.count(scope)), network.cluster.processor_time());
    let load = Load::start(&network.field, 60, CONFIRMED);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let sent = load.stop().await;
    let account = network.account(&sent).await;
    let cpu = network.cluster.processor_time() - used;
    let counted: Vec<u64> = scopes.iter().zip(before).map(|(scope, before)| engine.count(scope) - before).collect();
    println!("steady, copies of an uplink: {copies}: {account}");
    for (scope, count) in scopes.iter().zip(&counted) {
        println!("  {scope}: {count}, {:.2} for each uplink", *count as f64 / sent.len() as f64);
    }
    println!(
        "  processor time of all Limpet processes: {:.2} ms for each uplink",
        cpu.as_secs_f64() * 1e3 / sent.len() as f64
    );
    account.assert_all_told();
    let (uplinks, conditional) = (sent.len() as u64, counted[0]);
    // One accepts, and another one answers.
    let wanted = uplinks + account.confirmed as u64;
    assert!(conditional >= wanted, "{conditional} conditional writes accepted {uplinks} uplinks");
    assert_eq!(account.repeated, 0, "nothing died: {account}");
    assert!(conditional <= wanted + uplinks / 100, "{conditional} conditional writes for {uplinks} uplinks");
}

/// What workers ask for that have nothing to do; `docs/operations/store.md` says of what it consists.
#[tokio::test(flavor = "multi_thread")]
async fn workers_with_nothing_to_do_ask_little_of_the_database() {
    let _turn = turn().await;
    let Some(engine) = engine_if_full(1, "127.0.26") else { return };
    let network = Network::with(&engine, "idle", 30, WORKERS.len()).await;
    // What the traffic left behind is looked at for a while.
    tokio::time::sleep(Duration::from_secs(90)).await;
    let scopes = ["CASWrite", "CASRead", "Write", "Read", "RangeSlice"];
    let before = scopes.map(|scope| engine.count(scope));
    let (began, used) = (Instant::now(), network.cluster.processor_time());
    tokio::time::sleep(Duration::from_secs(120)).await;
    let counted: Vec<u64> = scopes.iter().zip(before).map(|(scope, before)| engine.count(scope) - before).collect();
    let seconds = began.elapsed().as_secs_f64();
    println!("idle, {} workers, for each and a second:", WORKERS.len());
    for (scope, count) in scopes.iter().zip(&counted) {
        println!("  {scope}: {:.3}", *count as f64 / seconds / WORKERS.len() as f64);
    }
    println!("  processor time of all Limpet processes: {:.1} ms a second", {
        (network.cluster.processor_time() - used).as_secs_f64() * 1e3 / seconds
    });
    assert_eq!(counted[0], 0, "nothing changes, so nothing is written conditionally");
    // Tokens and revoked servers once a minute at each worker, in some pages; and expired receptions.
    let walks = counted[4] as f64 / seconds / WORKERS.len() as f64;
    assert!(walks < 0.5, "{walks} walks through tables a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_lose_nothing_on_a_database() {
    let _turn = turn().await;
    let (mut dice, _) = moments();
    let Some(engine) = engine(1, "127.0.22") else { return };
    let mut network = Network::on(&engine, "kills", 30).await;
    let load = Load::start(&network.field, sized(60, 15), CONFIRMED);
    for _ in 0..sized(20, 4) {
        tokio::time::sleep(millis(dice.random_range(0..3_000))).await;
        let victim = dice.random_range(0..WORKERS.len());
        network.cluster.kill_worker(victim);
        tokio::time::sleep(millis(dice.random_range(0..2_000))).await;
        network.cluster.start_worker(victim);
        network.cluster.ready(victim).await;
    }
    let sent = load.stop().await;
    let account = network.account(&sent).await;
    println!("workers killed: {account}");
    account.assert_all_told();
    a_webhook_that_is_away_costs_nothing(&mut network, sent).await;
}

/// What happens while it is away comes once when it is back, and no statement about what waits fails.
async fn a_webhook_that_is_away_costs_nothing(network: &mut Network, before: Vec<Sent>) {
    let errors = async |network: &Network| {
        let mut sum = 0.0;
        for worker in 0..WORKERS.len() {
            sum += network.cluster.worker_metric(worker, "limpet_worker_store_errors_total").await;
        }
        sum
    };
    let failed = errors(network).await;
    network.collector.close().await;
    let load = Load::start(&network.field, 5, 0);
    tokio::time::sleep(millis(6_000)).await;
    let meanwhile = load.stop().await;
    // Nobody is still being told by a worker that found it away a moment ago.
    tokio::time::sleep(millis(500)).await;
    network.collector.listen().await;
    let account = network.account(&[&before[..], &meanwhile].concat()).await;
    println!("webhook away: {account}");
    account.assert_all_told();
    assert!(meanwhile.len() >= 20, "only {} uplinks were sent", meanwhile.len());
    let ups = network.collector.ups();
    for Sent { uplink, .. } in &meanwhile {
        assert_eq!(ups.iter().filter(|told| told.uplink == *uplink).count(), 1, "{uplink:?}");
    }
    assert_eq!(errors(network).await, failed, "statements failed");
}

/// Nothing is acknowledged that is not stored, and service resumes by itself.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_nothing_is_acknowledged() {
    let _turn = turn().await;
    let Some(engine) = engine_if_full(1, "127.0.23") else { return };
    if !engine.is_ours() {
        return println!("skipped: the engine of LIMPET_TEST_CQL is not this test's to kill");
    }
    let network = Network::on(&engine, "away", 20).await;
    let load = Load::start(&network.field, 10, 0);
    tokio::time::sleep(millis(2_000)).await;
    tokio::task::block_in_place(|| engine.fault(Fault::Kill, 1));
    eventually("every worker to say that it is not ready", async || {
        for worker in 0..WORKERS.len() {
            if network.cluster.is_ready(worker).await {
                return None;
            }
        }
        Some(())
    })
    .await;
    // What was stored just before may have been acknowledged until now.
    let silent_from = Instant::now();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let silent_to = Instant::now();
    tokio::task::block_in_place(|| engine.fault(Fault::Restart, 1));
    let back = Instant::now();
    eventually("every worker to be ready again", async || {
        for worker in 0..WORKERS.len() {
            if !network.cluster.is_ready(worker).await {
                return None;
            }
        }
        Some(())
    })
    .await;
    println!("ready again {:.1} s after the database", back.elapsed().as_secs_f64());
    tokio::time::sleep(millis(3_000)).await;
    let sent = load.stop().await;
    let account = network.account(&sent).await;
    println!("database away: {account}");
    println!("  memory at most (MiB; workers, balancer): {:?}", network.cluster.peak_memory());
    let acked_at = |sent: &Sent| sent.heard_by.iter().filter_map(|(_, after)| Some(sent.at + (*after)?)).min();
    let wrongly =
        sent.iter().filter(|sent| acked_at(sent).is_some_and(|at| at > silent_from && at < silent_to)).count();
    assert_eq!(wrongly, 0, "acknowledged while nothing could be stored: {account}");
    account.assert_all_told();
}
