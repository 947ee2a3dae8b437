//! Three database nodes with three copies of each row, two balancers, three workers, and one fault after another, of every
//! kind: nothing that a balancer acknowledged is lost, nothing is told under two ids, no FCntDown is used twice.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use limpet_bench::engine::{Engine, Fault};
use limpet_shared::{Eui64, admin::Request};
use rand::{Rng, rngs::SmallRng, seq::SliceRandom};

use crate::{
    account::{Account, settle},
    cluster::Cluster,
    collector::Collector,
    cut_off::{self, CutOff},
    field::{Field, Load, Sent},
    millis, moments,
    on_cql::engine_if_full,
    support::{ctl, eventually},
    turn,
};

const WORKERS: [&str; 3] = ["alpha", "beta", "gamma"];
const NET: &str = "127.0.24";
const LASTS: Duration = Duration::from_secs(300);
/// Uplinks a second of all devices, each heard by three gateways.
const RATE: u32 = 20;
const DEVICES: u32 = 60;
const CONFIRMED: u32 = 5;
/// An uplink sent so long before a fault, or after its end, may have missed its windows because of it.
const BEFORE: Duration = Duration::from_secs(2);
/// A PUSH_ACK that comes later is a late one.
const LATE: Duration = Duration::from_millis(200);
const AFTER: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    WorkerKilled,
    WorkerStopped,
    WorkerCutOff,
    WorkerAddedThenDrainedAndRemoved,
    BalancerKilled,
    NodeKilled,
    NodeFrozen,
}

const KINDS: [Kind; 7] = [
    Kind::WorkerKilled,
    Kind::WorkerStopped,
    Kind::WorkerCutOff,
    Kind::WorkerAddedThenDrainedAndRemoved,
    Kind::BalancerKilled,
    Kind::NodeKilled,
    Kind::NodeFrozen,
];

struct Trial {
    cluster: Cluster,
    engine: Engine,
    field: Arc<Field>,
    dice: SmallRng,
    /// Workers run as users of their own, so that they can be cut off.
    users: bool,
    /// The balancer that the gateways send to.
    edge: usize,
    added: u32,
    faults: Vec<(Kind, Instant, Instant)>,
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_servers_and_database_nodes_lose_nothing() {
    let _turn = turn().await;
    let (dice, _) = moments();
    let Some(engine) = engine_if_full(3, NET) else { return };
    if !engine.is_ours() {
        return println!("skipped: the engine of LIMPET_TEST_CQL is not this test's to kill");
    }
    let users = cut_off::users();
    if let Err(missing) = &users {
        println!("no worker is cut off from the database: {missing}");
    }
    let collector = Collector::start().await;
    let users = users.ok();
    let cluster = Cluster::apart_on_with_two_balancers(&WORKERS, engine.store("faults"), users).await;
    let gateways: Vec<Eui64> = cluster.gateways_of_each(1).await.concat();
    let field = Arc::new(Field::all_in_reach(&cluster, gateways, DEVICES, &collector.url()).await);
    field.linked().await;
    let load = Load::start(&field, RATE, CONFIRMED);
    // An engine that has just started is slow for a while; what is sent then counts like everything else.
    tokio::time::sleep(millis(15_000)).await;
    let users = users.is_some();
    let mut trial = Trial { cluster, engine, field, dice, users, edge: 0, added: 0, faults: Vec::new() };
    trial.run().await;
    let sent = load.stop().await;
    let account = settle(&sent, &collector).await;
    println!("{} faults in {} s: {account}", trial.faults.len(), LASTS.as_secs());
    println!("  {} downlink counters used, each for one downlink", trial.field.assert_counters_used_once());
    trial.tell_missed(&sent, &account);
    trial.tell_late(&sent);
    account.assert_nothing_lost_or_doubled();
}

impl Trial {
    /// Each kind in turn, in an order that the dice choose anew each time.
    async fn run(&mut self) {
        let began = Instant::now();
        let mut kinds: Vec<Kind> = Vec::new();
        while began.elapsed() < LASTS {
            let Some(kind) = kinds.pop() else {
                kinds = KINDS.to_vec();
                kinds.retain(|kind| self.users || *kind != Kind::WorkerCutOff);
                kinds.shuffle(&mut self.dice);
                continue;
            };
            self.pause(1_000, 4_000).await;
            let from = Instant::now();
            println!("{:5.1} s: {kind:?}", began.elapsed().as_secs_f64());
            self.cause(kind).await;
            self.faults.push((kind, from, Instant::now()));
        }
        self.pause(5_000, 5_001).await;
    }

    async fn pause(&mut self, least: u64, most: u64) {
        let time = self.dice.random_range(least..most);
        tokio::time::sleep(millis(time)).await;
    }

    async fn cause(&mut self, kind: Kind) {
        let (worker, node) = (self.dice.random_range(0..WORKERS.len()), self.dice.random_range(1..=3));
        match kind {
            Kind::WorkerKilled => {
                self.cluster.kill_worker(worker);
                self.pause(0, 3_000).await;
                self.cluster.start_worker(worker);
                self.cluster.ready(worker).await;
            }
            Kind::WorkerStopped => {
                let process = self.cluster.workers[worker].process.as_ref().unwrap();
                process.freeze();
                tokio::time::sleep(millis(3_000)).await;
                process.thaw();
            }
            Kind::WorkerCutOff => {
                let cut_off = CutOff::of(self.cluster.workers[worker].user.unwrap(), NET);
                self.pause(3_000, 8_000).await;
                drop(cut_off);
                self.cluster.ready(worker).await;
            }
            Kind::WorkerAddedThenDrainedAndRemoved => self.add_and_remove().await,
            Kind::BalancerKilled => {
                let (dead, other) = (self.edge, 1 - self.edge);
                self.cluster.edges[dead].kill();
                self.pause(100, 1_000).await;
                self.field.move_to(self.cluster.edges[other].gwmp).await;
                self.field.send_again().await;
                self.edge = other;
                self.pause(1_000, 3_000).await;
                self.cluster.edges[dead].start().await;
            }
            Kind::NodeKilled => {
                self.node(Fault::Kill, node);
                self.pause(2_000, 6_000).await;
                self.node(Fault::Restart, node);
            }
            Kind::NodeFrozen => {
                self.node(Fault::Pause, node);
                tokio::time::sleep(millis(5_000)).await;
                self.node(Fault::Resume, node);
            }
        }
    }

    /// Beside the load, for it may take a while.
    fn node(&self, fault: Fault, node: u8) {
        tokio::task::block_in_place(|| self.engine.fault(fault, node));
    }

    async fn add_and_remove(&mut self) {
        self.added += 1;
        let name = format!("late-{}", self.added);
        let index = self.cluster.name_worker(&name);
        self.cluster.start_worker(index);
        self.cluster.ready(index).await;
        self.pause(4_000, 6_000).await;
        self.cluster.done(&Request::drain(&name, true)).await;
        eventually(&format!("{name} to have nothing left"), async || {
            let servers = self.cluster.servers().await;
            let worker = servers.into_iter().find(|server| server.name == name)?;
            (worker.state == "draining" && worker.in_flight == 0).then_some(())
        })
        .await;
        let said = ctl(&self.cluster.edges[self.edge].data, &["remove", &name]);
        assert!(said.status.success(), "remove {name}: {said:?}");
        let stopped = self.cluster.workers[index].process.take().unwrap().stopped().await;
        assert!(stopped.status.success(), "{:?}: {:#?}", stopped.status, stopped.lines);
        self.cluster.workers.pop();
    }

    /// For each kind, the worst fault of it: how late a PUSH_ACK came, and over which time uplinks got late ones.
    fn tell_late(&self, sent: &[Sent]) {
        let first_ack = |sent: &Sent| sent.heard_by.iter().filter_map(|(_, acked)| *acked).min();
        let mut worst: BTreeMap<Kind, (Duration, Duration)> = BTreeMap::new();
        for (kind, from, to) in &self.faults {
            let during = sent.iter().filter(|sent| sent.at >= *from && sent.at < *to + millis(1_000));
            let acked: Vec<(Instant, Duration)> = during.filter_map(|s| Some((s.at, first_ack(s)?))).collect();
            let late = || acked.iter().filter(|(_, after)| *after > LATE).map(|(at, _)| *at);
            let span = late().max().zip(late().min()).map_or(Duration::ZERO, |(last, first)| last - first);
            let most = acked.iter().map(|(_, after)| *after).max().unwrap_or_default();
            let worst = worst.entry(*kind).or_default();
            *worst = (worst.0.max(most), worst.1.max(span));
        }
        for (kind, (most, span)) in worst {
            println!("  {kind:?}: PUSH_ACK after {most:.1?} at most; after more than {LATE:?} over {span:.1?} at most");
        }
    }

    /// Which confirmed uplinks got no ACK in a receive window, and what was going on then.
    fn tell_missed(&self, sent: &[Sent], account: &Account) {
        let mut missed: BTreeMap<Option<Kind>, usize> = BTreeMap::new();
        for sent in sent.iter().filter(|sent| sent.confirmed && sent.answered.is_none()) {
            let during = |(_, from, to): &&(Kind, Instant, Instant)| sent.at + BEFORE > *from && sent.at < *to + AFTER;
            let cause = self
                .faults
                .iter()
                .filter(during)
                .min_by_key(|(_, from, _)| if sent.at > *from { sent.at - *from } else { *from - sent.at });
            *missed.entry(cause.map(|(kind, ..)| *kind)).or_default() += 1;
        }
        println!("  receive windows missed: {} of {} confirmed", account.unanswered.len(), account.confirmed);
        for (kind, count) in missed {
            let cause = kind.map_or("no fault near".to_owned(), |kind| format!("{kind:?}"));
            println!("    {count} at: {cause}");
        }
    }
}
