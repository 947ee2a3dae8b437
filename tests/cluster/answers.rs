//! An application that answers each event: its answer leaves in the windows of that very uplink, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use limpet_shared::Eui64;
use rand::{Rng, rngs::SmallRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    api::Api,
    balancer::PASSWORD,
    cluster::Cluster,
    collector::{Collector, UplinkId},
    field::Field,
    full, millis, moments,
    on_cql::{engine, engine_if_full},
    revisions::revisions,
    sized, turn_alone,
};

/// Uplinks a second of all devices together.
const RATE: u32 = 20;
/// How long the application thinks.
const THINKS: Duration = Duration::from_millis(60);
/// A device sends again so long after its RX1, when its windows are over.
const REST: u32 = 3;
/// `--reply-delay`.
const DELAY: Duration = Duration::from_millis(100);
/// A machine that has no time for any answer is tried again.
const TRIES: u32 = 5;
/// A store that takes an answer within this time is warm.
const WARM: Duration = Duration::from_millis(30);

/// An event is told within this time, unless the machine has none for the worker: what its uplink is owed is then decided without waiting.
const TOLD: Duration = Duration::from_millis(350);

/// An uplink, and what its device heard in its windows.
struct Exchange {
    uplink: UplinkId,
    sent_at: Instant,
    confirmed: bool,
    acknowledged: bool,
    payloads: Vec<Vec<u8>>,
}

/// What an application says to that uplink.
fn answer((dev_eui, f_cnt): UplinkId) -> Vec<u8> {
    format!("{dev_eui} {f_cnt}").into_bytes()
}

/// Devices, and an application at all workers.
#[derive(Clone)]
struct Scene {
    collector: Arc<Collector>,
    field: Arc<Field>,
    apis: Vec<Api>,
    /// Uplinks that the application has seen to.
    answered: Arc<Mutex<BTreeSet<UplinkId>>>,
    /// How long the API took to take each answer.
    took: Arc<Mutex<BTreeMap<UplinkId, Duration>>>,
}

impl Scene {
    /// Two workers, both of which hear each uplink, and devices whose RX1 opens after so many seconds.
    async fn new(cluster: &Cluster, rx1_delay: u32) -> Self {
        let collector = Arc::new(Collector::start().await);
        let gateways = cluster.gateways_of_each(1).await.concat();
        let devices = RATE * (rx1_delay + REST);
        let field = Arc::new(Field::in_wide_air(cluster, gateways, devices, &collector.url()).await);
        field.linked().await;
        let mut apis = Vec::new();
        for index in 0..cluster.workers.len() {
            apis.push(Api::log_in_with(cluster.http(index), PASSWORD).await);
        }
        let first = field.device(0).dev_eui();
        apis[0].set_rx1_delay(first, rx1_delay).await;
        for which in 0..field.devices() {
            let (dev_eui, session) = {
                let mut device = field.device(which);
                let session = device.session_mut().unwrap();
                session.rx1_delay = Duration::from_secs(rx1_delay.into());
                let session = session.clone();
                (device.dev_eui(), session)
            };
            apis[0].activate_as(dev_eui, &session).await;
        }
        Self { collector, field, apis, answered: Arc::default(), took: Arc::default() }
    }

    /// Plays until the store is as fast as it gets: an engine that has just started is slow at first.
    async fn warm_up(&self) {
        for _ in 0..10 {
            self.took.lock().unwrap().clear();
            self.play(sized(100, 40)).await;
            if self.median() < WARM {
                break;
            }
        }
        self.took.lock().unwrap().clear();
        // What came too late is in the queues, and would go before everything else.
        while self
            .fly(self.field.devices(), |number| number % 2 == 0)
            .await
            .iter()
            .any(|exchange| !exchange.payloads.is_empty())
        {}
        self.answered.lock().unwrap().extend(self.collector.ups().into_iter().map(|told| told.uplink));
    }

    /// What came too late for its own uplink waits, and would go before everything else.
    async fn empty_the_queues(&self) {
        while self.has_items().await {
            self.fly(self.field.devices(), |_| false).await;
        }
    }

    async fn has_items(&self) -> bool {
        for which in 0..self.field.devices() {
            let dev_eui = self.field.device(which).dev_eui();
            if self.apis[0].queue_length(dev_eui).await > 0 {
                return true;
            }
        }
        false
    }

    /// How long the API took to take an answer.
    fn median(&self) -> Duration {
        let mut took: Vec<_> = self.took.lock().unwrap().values().copied().collect();
        took.sort();
        took.get(took.len() / 2).copied().unwrap_or_default()
    }

    /// So many uplinks, each device one after the other; every other one is confirmed. The application answers all meanwhile.
    async fn play(&self, uplinks: usize) -> Vec<Exchange> {
        let stop = CancellationToken::new();
        let application = tokio::spawn(self.clone().respond(stop.clone()));
        let played = self.fly(uplinks, |number| number % 2 == 0).await;
        stop.cancel();
        application.await.unwrap();
        played
    }

    /// The same, of which these are confirmed, and nobody answers.
    async fn fly(&self, uplinks: usize, confirmed: impl Fn(usize) -> bool) -> Vec<Exchange> {
        let (mut flights, mut played) = (JoinSet::new(), Vec::new());
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
        for number in 0..uplinks {
            ticks.tick().await;
            let (field, confirmed) = (self.field.clone(), confirmed(number));
            flights.spawn(async move {
                let sent = Mutex::new(None);
                let which = number % field.devices();
                let (acknowledged, payloads) = field
                    .exchange(which, confirmed, |uplink| *sent.lock().unwrap() = Some((uplink, Instant::now())))
                    .await;
                let (uplink, sent_at) = sent.into_inner().unwrap().unwrap();
                Exchange { uplink, sent_at, confirmed, acknowledged, payloads }
            });
        }
        while let Some(flight) = flights.join_next().await {
            played.push(flight.unwrap());
        }
        played.sort_by_key(|exchange| exchange.uplink);
        played
    }

    /// The application: it enqueues its answer some time after each event, at one worker after the other, until one has taken it.
    async fn respond(self, stop: CancellationToken) {
        let mut answers = JoinSet::new();
        while !stop.is_cancelled() {
            for told in self.collector.ups() {
                if !self.answered.lock().unwrap().insert(told.uplink) {
                    continue;
                }
                let (apis, took, at) = (self.apis.clone(), self.took.clone(), told.at + THINKS);
                answers.spawn(async move {
                    tokio::time::sleep_until(at.into()).await;
                    let (dev_eui, f_cnt) = told.uplink;
                    let mut choices = apis.iter().cycle().skip(f_cnt as usize);
                    while choices.next().unwrap().enqueue_as(&told.id, dev_eui, &answer(told.uplink)).await.is_err() {
                        tokio::time::sleep(millis(20)).await;
                    }
                    took.lock().unwrap().insert(told.uplink, at.elapsed());
                });
            }
            tokio::time::sleep(millis(2)).await;
        }
        while answers.join_next().await.is_some() {}
    }
}

async fn all_leave_in_time(cluster: Cluster, rx1_delay: u32) {
    let scene = Scene::new(&cluster, rx1_delay).await;
    scene.warm_up().await;
    let mut tries = 1;
    while !what_is_in_time_leaves_in_time(&cluster, &scene, rx1_delay).await {
        assert!(tries < TRIES, "the machine had no time for any answer, so this has shown nothing");
        tries += 1;
    }
    nothing_to_say_is_not_written(&cluster, &scene).await;
}

/// False if the machine had no time for any answer.
async fn what_is_in_time_leaves_in_time(cluster: &Cluster, scene: &Scene, rx1_delay: u32) -> bool {
    scene.empty_the_queues().await;
    scene.took.lock().unwrap().clear();
    let before = scene.field.assert_counters_used_once();
    let written = revisions(cluster.store()).await;
    let played = scene.play(sized(1_000, 40)).await;
    let answered = revisions(cluster.store()).await;
    let took = scene.took.lock().unwrap().clone();
    let slowest = took.values().max().copied().unwrap_or_default();
    let delay = DELAY + Duration::from_secs(u64::from(rx1_delay) - 1);
    // A machine that has no time for the API takes an answer in too late; and then that goes before the device's next one.
    let told: BTreeMap<UplinkId, Instant> =
        scene.collector.ups().into_iter().map(|told| (told.uplink, told.at)).collect();
    let told_in_time = |e: &Exchange| told.get(&e.uplink).is_some_and(|at| *at <= e.sent_at + TOLD);
    let taken_in_time = |e: &Exchange| took.get(&e.uplink).is_some_and(|took| THINKS + *took <= delay);
    let in_time = |e: &&Exchange| full() || told_in_time(e) && taken_in_time(e);
    let late: BTreeSet<Eui64> = played.iter().filter(|e| !in_time(e)).map(|e| e.uplink.0).collect();
    let owed: Vec<_> = played.iter().filter(|e| !late.contains(&e.uplink.0)).collect();
    let is_right = |e: &&&Exchange| e.payloads == [answer(e.uplink)] && e.acknowledged == e.confirmed;
    let missed: Vec<_> = owed.iter().filter(|e| !is_right(e)).map(|e| (e.uplink, &e.payloads)).collect();
    let (right, all) = (owed.len() - missed.len(), played.len());
    println!("RX1 after {rx1_delay} s: {all} answers, {} enqueued in time, {right} of them left in time", owed.len());
    println!("  taken by the API after {:?}, the slowest after {slowest:?}", scene.median());
    assert!(missed.is_empty(), "not answered in their windows, or otherwise: {missed:?}");
    let used = scene.field.assert_counters_used_once() - before;
    assert!(!late.is_empty() || used == all, "{used} downlinks for {all} uplinks: ACK and answer go into one");
    assert_two_writes_each(&owed, |of| answered[of] - written[of]);
    !owed.is_empty()
}

/// One accepts, another one answers.
fn assert_two_writes_each(owed: &[&Exchange], writes: impl Fn(&Eui64) -> i64) {
    let mut uplinks: BTreeMap<Eui64, i64> = BTreeMap::new();
    owed.iter().for_each(|e| *uplinks.entry(e.uplink.0).or_default() += 1);
    let more: Vec<_> = uplinks.iter().filter(|(of, uplinks)| writes(of) != **uplinks * 2).collect();
    println!(
        "  conditional writes for each answered uplink: {:.3}",
        per_uplink(uplinks.keys().map(&writes).sum(), owed.len())
    );
    assert!(more.is_empty(), "an answered uplink takes two conditional writes: {more:?}");
}

fn per_uplink(count: i64, uplinks: usize) -> f64 {
    count as f64 / uplinks as f64
}

/// Accepting is one conditional write, and there is no other.
async fn nothing_to_say_is_not_written(cluster: &Cluster, scene: &Scene) {
    scene.empty_the_queues().await;
    let lost_races = async || {
        let mut sum = 0.0;
        for worker in 0..cluster.workers.len() {
            sum += cluster.worker_metric(worker, "limpet_worker_lost_races_total").await;
        }
        sum
    };
    let (before, lost) = (revisions(cluster.store()).await, lost_races().await);
    let flown = scene.fly(sized(1_000, 20), |_| false).await;
    let (after, lost) = (revisions(cluster.store()).await, lost_races().await - lost);
    let written = after.values().sum::<i64>() - before.values().sum::<i64>();
    println!("  for each unanswered: {:.3}; refused, of {}: {lost}", per_uplink(written, flown.len()), flown.len());
    assert!(flown.iter().all(|exchange| exchange.payloads.is_empty()), "nobody has said anything");
    assert_eq!(written, i64::try_from(flown.len()).unwrap(), "an uplink with nothing to say takes one");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_leaves_in_the_windows_of_its_uplink() {
    let _turn = turn_alone().await;
    for rx1_delay in [1, 5] {
        all_leave_in_time(Cluster::apart(&["alpha", "beta"]).await, rx1_delay).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_leaves_in_the_windows_of_its_uplink_on_a_database() {
    let _turn = turn_alone().await;
    let Some(engine) = engine(1, "127.0.28") else { return };
    // What a later window changes is not the store's; it is seen on SQLite.
    for (rx1_delay, keyspace) in [(1, "answers"), (5, "answers_after_5")].into_iter().take(sized(2, 1)) {
        let cluster = Cluster::apart_on(&["alpha", "beta"], engine.store(keyspace)).await;
        all_leave_in_time(cluster, rx1_delay).await;
    }
}

/// Whatever dies between event, decision and air: each answer goes out with its own uplink, or with the next.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_leaves_with_its_uplink_or_the_next_though_workers_are_killed() {
    let _turn = turn_alone().await;
    let cluster = Cluster::apart(&["alpha", "beta"]).await;
    let scene = Scene::new(&cluster, 1).await;
    with_its_uplink_or_the_next(cluster, scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_leaves_with_its_uplink_or_the_next_on_a_database_too() {
    let _turn = turn_alone().await;
    let Some(engine) = engine_if_full(1, "127.0.29") else { return };
    let cluster = Cluster::apart_on(&["alpha", "beta"], engine.store("answers_and_kills")).await;
    let scene = Scene::new(&cluster, 1).await;
    scene.warm_up().await;
    with_its_uplink_or_the_next(cluster, scene).await;
}

async fn with_its_uplink_or_the_next(mut cluster: Cluster, scene: Scene) {
    let (mut dice, _) = moments();
    let (uplinks, playing) = (sized(2_000, 200), scene.clone());
    let playing = tokio::spawn(async move {
        let played = playing.play(uplinks).await;
        // What was answered last goes out with one more uplink.
        let rest = playing.play(playing.field.devices()).await;
        (played, rest)
    });
    while !playing.is_finished() {
        kill(&mut cluster, &mut dice).await;
    }
    let (played, rest) = playing.await.unwrap();
    let mut by_device: BTreeMap<Eui64, Vec<&Exchange>> = Default::default();
    for exchange in played.iter().chain(&rest) {
        by_device.entry(exchange.uplink.0).or_default().push(exchange);
    }
    let (mut missed, mut own, mut next, mut again) = (Vec::new(), 0, 0, 0);
    for exchanges in by_device.values() {
        for (number, exchange) in exchanges.iter().enumerate().take(exchanges.len() - 1) {
            let carries = |e: &&&Exchange| e.payloads.contains(&answer(exchange.uplink));
            match exchanges.iter().position(|e| carries(&e)) {
                Some(at) if at == number => own += 1,
                Some(at) if at == number + 1 => next += 1,
                _ => missed.push(exchange.uplink),
            }
            again += exchanges.iter().filter(carries).count().saturating_sub(1);
        }
    }
    println!("workers killed: {own} answers left with their uplink, {next} with the next, {again} once more");
    let told: BTreeSet<UplinkId> = scene.collector.ups().into_iter().map(|told| told.uplink).collect();
    missed.retain(|uplink| told.contains(uplink));
    assert!(missed.is_empty(), "of {uplinks}: {missed:?}");
    assert!(played.iter().chain(&rest).all(|e| e.payloads.len() <= 1), "two answers to one uplink");
    scene.field.assert_counters_used_once();
}

async fn kill(cluster: &mut Cluster, dice: &mut SmallRng) {
    tokio::time::sleep(millis(dice.random_range(0..2_000))).await;
    let victim = dice.random_range(0..2);
    cluster.kill_worker(victim);
    tokio::time::sleep(millis(dice.random_range(0..500))).await;
    cluster.start_worker(victim);
    cluster.ready(victim).await;
}
