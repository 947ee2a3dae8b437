//! Workers that are killed at any moment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use limpet_shared::Eui64;
use rand::{Rng, rngs::SmallRng};

use crate::{
    account::settle,
    cluster::Cluster,
    collector::Collector,
    field::{Field, Load},
    full, millis, moments, rate, sized,
    support::eventually,
    turn_alone,
    watch::Watch,
};

/// Promised: the other worker serves a killed one's gateways after so long, and they are back so long after its return.
const TAKEN_OVER: Duration = Duration::from_millis(1_500);
const BACK: Duration = Duration::from_secs(10);

/// Every so many uplinks one is confirmed.
const CONFIRMED: u32 = 10;

/// What is needed to kill one worker and see what happens.
struct Round<'a> {
    cluster: &'a mut Cluster,
    load: &'a Load,
    watch: &'a mut Watch,
    gateways: &'a [Vec<Eui64>],
    dice: &'a mut SmallRng,
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_lose_nothing_and_their_gateways_are_served_and_come_back() {
    let _turn = turn_alone().await;
    let (mut dice, _) = moments();
    let collector = Collector::start().await;
    let mut cluster = Cluster::apart(&["alpha", "beta"]).await;
    let gateways = cluster.gateways_of_each(3).await;
    let field = Arc::new(Field::new(&cluster, &gateways, rate(), &collector.url()).await);
    field.linked().await;
    let load = Load::start(&field, rate(), CONFIRMED);
    cluster.home(&gateways).await;
    let mut watch = Watch::start(&cluster, &gateways);
    let (mut taken_over, mut back) = (Vec::new(), Vec::new());
    let mut round =
        Round { cluster: &mut cluster, load: &load, watch: &mut watch, gateways: &gateways, dice: &mut dice };
    for number in 0..sized(20, 4) {
        if number % 4 == 3 {
            round.kill_and_go_on().await;
        } else {
            let (one, other) = round.kill_and_look().await;
            taken_over.push(one);
            back.push(other);
        }
    }
    cluster.home(&gateways).await;
    let (moved, starved) = watch.stop(&cluster);
    let sent = load.stop().await;
    let account = settle(&sent, &collector).await;
    taken_over.sort();
    back.sort();
    println!("workers killed: {account}");
    println!("  taken over after {taken_over:?}\n  back after {back:?}\n  moved from a living worker: {moved:?}");
    let kernel_drops = cluster.edge_metric("limpet_balancer_kernel_dropped_datagrams_total").await;
    println!("  datagrams dropped by the kernel: {kernel_drops}");
    println!("  moved because the machine had no time for their worker: {} sightings", starved.len());
    println!("  {} downlink counters used, each for one downlink", field.assert_counters_used_once());
    account.assert_all_told();
    account.assert_all_answered();
    assert!(moved.is_empty(), "gateways of a living worker moved: {moved:?}");
    if full() {
        assert!(starved.is_empty(), "gateways of a living worker moved: {starved:?}");
        assert!(taken_over.iter().all(|time| *time <= TAKEN_OVER), "served again after {taken_over:?}");
        assert!(back.iter().all(|time| *time <= BACK), "came back after {back:?}");
    }
}

impl Round<'_> {
    /// Kills one, waits until its gateways are served, starts it again and waits until they are back.
    async fn kill_and_look(&mut self) -> (Duration, Duration) {
        tokio::time::sleep(millis(self.dice.random_range(0..2_000))).await;
        let victim = self.dice.random_range(0..2);
        let (name, other) = (self.cluster.workers[victim].name.clone(), self.cluster.workers[1 - victim].name.clone());
        let (from, killed) = (self.load.log.len(), Instant::now());
        self.watch.away(&name, self.cluster);
        self.cluster.kill_worker(victim);
        let mut served = killed;
        for gateway in &self.gateways[victim] {
            let what = format!("a PUSH_ACK for {gateway} of the killed {name}");
            let first = async || self.load.log.first_ack(*gateway, killed, from);
            served = served.max(eventually(&what, first).await);
        }
        let view = self.cluster.view();
        let what = format!("{other} to serve the gateways of {name}");
        eventually(&what, async || view.serves_all(&other, &self.gateways[victim]).await.then_some(())).await;
        tokio::time::sleep(millis(self.dice.random_range(0..1_500))).await;
        let returned = Instant::now();
        self.cluster.start_worker(victim);
        self.cluster.home(self.gateways).await;
        let back = returned.elapsed();
        self.watch.back(&name, self.cluster);
        (served - killed, back)
    }

    /// Kills one and starts it again at once, and waits for nothing: the next kill may come while it is still starting.
    async fn kill_and_go_on(&mut self) {
        for _ in 0..2 {
            tokio::time::sleep(millis(self.dice.random_range(0..3_000))).await;
            let victim = self.dice.random_range(0..2);
            self.watch.away(&self.cluster.workers[victim].name, self.cluster);
            self.cluster.kill_worker(victim);
            tokio::time::sleep(millis(self.dice.random_range(0..300))).await;
            self.cluster.start_worker(victim);
        }
        self.cluster.home(self.gateways).await;
        for worker in &self.cluster.workers {
            self.watch.back(&worker.name, self.cluster);
        }
    }
}
