//! Who serves which gateway, looked at all the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use limpet_shared::Eui64;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, View};

/// Between two looks at all gateways.
const EVERY: Duration = Duration::from_millis(50);

/// Looks at the balancer's published view for gateways that are not where they belong.
pub struct Watch {
    shared: Arc<Shared>,
    /// Per worker, how often it had been taken for dead when it was last known to be away or back.
    ejections: BTreeMap<String, usize>,
    /// Workers that were taken for dead while they lived.
    starved: BTreeSet<String>,
    task: JoinHandle<()>,
}

struct Shared {
    began: Instant,
    /// Workers that were killed and whose gateways are not all back yet.
    away: Mutex<BTreeSet<String>>,
    moved: Mutex<Vec<Moved>>,
}

/// A gateway that was seen elsewhere although its worker lived.
#[derive(Clone, Debug)]
struct Moved {
    home: String,
    how: String,
}

impl Watch {
    /// Each worker with its gateways, all at home now.
    pub fn start(cluster: &Cluster, gateways: &[Vec<Eui64>]) -> Self {
        let homes = cluster.workers.iter().map(|worker| worker.name.clone()).zip(gateways.to_vec()).collect();
        let ejections = cluster.workers.iter().map(|w| (w.name.clone(), cluster.ejections(&w.name))).collect();
        let shared = Arc::new(Shared { began: Instant::now(), away: Mutex::default(), moved: Mutex::default() });
        let task = tokio::spawn(look(cluster.view(), homes, shared.clone()));
        Self { shared, ejections, starved: BTreeSet::new(), task }
    }

    /// From now on its gateways may be elsewhere. Call it before the kill.
    pub fn away(&mut self, worker: &str, cluster: &Cluster) {
        if self.shared.away.lock().unwrap().insert(worker.into()) && cluster.ejections(worker) > self.ejections[worker]
        {
            self.starved.insert(worker.into());
        }
    }

    /// From now on its gateways must be at home.
    pub fn back(&mut self, worker: &str, cluster: &Cluster) {
        self.ejections.insert(worker.into(), cluster.ejections(worker));
        self.shared.away.lock().unwrap().remove(worker);
    }

    /// Gateways that moved although their worker lived: without any reason, and because the machine had no time for
    /// their worker, so that the balancer took it for dead.
    pub fn stop(mut self, cluster: &Cluster) -> (Vec<String>, Vec<String>) {
        self.task.abort();
        for worker in &cluster.workers {
            self.away(&worker.name, cluster);
        }
        let moved = std::mem::take(&mut *self.shared.moved.lock().unwrap());
        let (starved, moved): (Vec<Moved>, Vec<Moved>) =
            moved.into_iter().partition(|moved| self.starved.contains(&moved.home));
        let how = |all: Vec<Moved>| all.into_iter().map(|moved| moved.how).collect();
        (how(moved), how(starved))
    }
}

async fn look(view: View, homes: Vec<(String, Vec<Eui64>)>, shared: Arc<Shared>) {
    loop {
        for (home, gateways) in &homes {
            for &gateway in gateways {
                let was_away = shared.away.lock().unwrap().contains(home);
                let Some(seen_at) = view.worker_of(gateway).await else { continue };
                let is_away = shared.away.lock().unwrap().contains(home);
                if seen_at != *home && !was_away && !is_away {
                    let after = shared.began.elapsed().as_secs_f64();
                    let how = format!("{after:.1} s: {gateway} of {home} was served by {seen_at}");
                    shared.moved.lock().unwrap().push(Moved { home: home.clone(), how });
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
