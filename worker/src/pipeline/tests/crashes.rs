//! Seeded runs with crashing workers and a store that delays, refuses, loses and hides: the promises hold in each.

use std::collections::{HashMap, HashSet};

use limpet_store_testing::fault::{FaultStore, Faults};

use super::*;

const UPLINKS: u32 = 12;
const FAULTS: Faults = Faults { delay: Duration::from_millis(15), refuse: 20, lose: 10, hide: 10, crash: 15 };

/// A worker that dies with its view of the store and is started again.
struct Mortal {
    store: Arc<FaultStore>,
    pipeline: Arc<Pipeline>,
}

struct Run {
    net: Net,
    seed: Mutex<u64>,
    workers: Vec<Mutex<Arc<Mortal>>>,
}

impl Run {
    async fn new(seed: u64) -> Arc<Self> {
        let net = Net::new("eu868", 0).await;
        net.personalize().await;
        let run = Self { net, seed: Mutex::new(seed), workers: Vec::new() };
        let workers = (0..2).map(|i| Mutex::new(run.start(i))).collect();
        Arc::new(Self { workers, ..run })
    }

    fn start(&self, index: usize) -> Arc<Mortal> {
        let mut seed = self.seed.lock();
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let store = FaultStore::new(self.net.store.clone(), *seed, FAULTS);
        let pipeline = self.net.worker_over(&format!("w{index}"), store.clone());
        Arc::new(Mortal { store, pipeline })
    }

    /// What the balancer does: hands the frame over, and when its worker dies, to the other one.
    async fn deliver(self: Arc<Self>, mut index: usize, mut frame: UplinkFrame) {
        loop {
            let worker = self.workers[index].lock().clone();
            let done = give(worker.pipeline.clone(), frame.clone());
            let dead = tokio::select! {
                stages = done => {
                    assert_eq!(stages.unwrap(), DONE);
                    return;
                }
                () = worker.store.crashed() => worker,
            };
            let mut slot = self.workers[index].lock();
            if Arc::ptr_eq(&slot, &dead) {
                *slot = self.start(index);
            }
            drop(slot);
            frame.attempt += 1;
            index = 1 - index;
        }
    }
}

async fn run(seed: u64) {
    let run = Run::new(seed).await;
    let mut deliveries = Vec::new();
    for fcnt in 0..UPLINKS {
        run.net.webhook.down.store(fcnt % 5 == 3, Ordering::Relaxed);
        let phy = uplink(fcnt, fcnt % 2 == 0);
        for index in 0..2 {
            let frame = run.net.frame(index as u64 + 1, CHANNEL, &phy, fcnt);
            deliveries.push(tokio::spawn(run.clone().deliver(index, frame)));
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    run.net.webhook.down.store(false, Ordering::Relaxed);
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    // A worker without faults sends what waits.
    let stop = tokio_util::sync::CancellationToken::new();
    let pending = tokio::spawn(run_pending(run.net.worker("w9"), 9, stop.clone()));
    tokio::time::sleep(Duration::from_secs(30)).await;
    stop.cancel();
    pending.await.unwrap();
    check(&run.net, seed);
}

fn check(net: &Net, seed: u64) {
    let mut ids: HashMap<u32, HashSet<Uuid>> = HashMap::new();
    let mut firsts = Vec::new();
    for (id, fcnt) in net.webhook.ups() {
        if ids.entry(fcnt).or_default().insert(id) {
            firsts.push(fcnt);
        }
    }
    assert!(ids.values().all(|i| i.len() == 1), "seed {seed}: an uplink under two ids: {ids:?}");
    assert_eq!(ids.len(), UPLINKS as usize, "seed {seed}: lost uplinks; there are {firsts:?}");
    let mut payloads: HashMap<u64, Vec<u8>> = HashMap::new();
    for downlink in net.downlinks() {
        let phy = txpk(&downlink, 0).data;
        let first = payloads.entry(downlink.key).or_insert_with(|| phy.clone());
        assert_eq!(*first, phy, "seed {seed}: two payloads for one FCntDown");
    }
    let counters: HashSet<_> = payloads.values().map(|phy| phy[6..8].to_vec()).collect();
    assert_eq!(counters.len(), payloads.len(), "seed {seed}: two downlinks under one FCntDown");
}

#[test]
fn nothing_is_lost_or_doubled_whoever_crashes() {
    for seed in 0..200 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(seed));
    }
}
