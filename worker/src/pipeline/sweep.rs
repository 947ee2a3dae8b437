//! The sweep (step 8): when a balancer is gone, what it retained is picked up from the stored receptions.

use std::{collections::HashMap, sync::Arc, time::Duration};

use limpet_shared::{
    DevAddr,
    lorawan::{self, Frame},
};
use limpet_store::{Freshness, StoreError};
use limpet_worker_core::{
    model::{DedupKey, SessionRow},
    uplink::{self, Verdict},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Pipeline, work::Transmission};

/// The longest total outage that is survived: receptions are kept that long.
pub const KEPT: Duration = Duration::from_secs(3600);
/// One worker sweeps at a time; a dead one's lease ends by itself.
const LEASE: &str = "sweep";
const LEASE_FOR: Duration = Duration::from_secs(5);
/// Keys read at a time.
const PAGE: u32 = 256;
/// Sessions remembered while sweeping.
const REMEMBERED: usize = 50_000;
/// How often receptions past their time are deleted.
const EXPIRE_EVERY: Duration = Duration::from_secs(30);

/// Asks for a sweep.
#[derive(Clone, Debug, Default)]
pub struct Sweep(Arc<Notify>);

impl Sweep {
    /// A balancer is gone, or this worker has just started beside its balancer.
    pub fn ask(&self) {
        self.0.notify_one();
    }

    /// Another worker is at it, which may die; or the store is away.
    async fn ask_again(&self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.ask();
    }

    /// Sweeps when asked to, and expires receptions, until told to stop.
    pub async fn run(self, pipeline: Arc<Pipeline>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.notified() => match pipeline.sweep(&stop).await {
                    Ok(Some(picked_up)) => tracing::info!(picked_up, "swept the stored receptions"),
                    Ok(None) => self.ask_again().await,
                    Err(error) => {
                        tracing::warn!(%error, "the sweep was broken off; it begins again");
                        self.ask_again().await;
                    }
                },
                () = tokio::time::sleep(EXPIRE_EVERY) => {
                    let before = pipeline.surroundings.now() - KEPT;
                    if let Err(error) = pipeline.store.expire_receptions(before).await {
                        pipeline.metrics.store_error("expire_receptions", &error);
                    }
                }
            }
        }
    }
}

impl Pipeline {
    /// Takes every stored reception that is not resolved through step 4. Returns how many frames were picked up; `None`
    /// if another worker is sweeping.
    pub(crate) async fn sweep(self: &Arc<Self>, stop: &CancellationToken) -> Result<Option<u64>, StoreError> {
        let since = self.surroundings.now() - KEPT;
        let (mut after, mut picked_up) = (None, 0);
        let mut sessions = HashMap::new();
        while !stop.is_cancelled() {
            let now = self.surroundings.now();
            if !self.store.lease(LEASE, &self.name, now, now + LEASE_FOR).await? {
                return Ok(None);
            }
            let keys = self.store.reception_keys(since, after, PAGE).await?;
            let Some(last) = keys.last().copied() else { break };
            for key in keys {
                if !self.is_in_work(key) && self.sweep_key(key, &mut sessions).await? {
                    picked_up += 1;
                }
            }
            after = Some(last);
        }
        let now = self.surroundings.now();
        self.store.lease(LEASE, &self.name, now, now).await?;
        Ok(Some(picked_up))
    }

    async fn sweep_key(
        &self,
        key: DedupKey,
        sessions: &mut HashMap<DevAddr, Vec<SessionRow>>,
    ) -> Result<bool, StoreError> {
        let copies = Transmission::earliest(self.store.receptions(key).await?);
        let Some(first) = copies.receptions.first() else { return Ok(false) };
        if let Ok(Frame::Data(frame)) = lorawan::parse(&first.phy) {
            if sessions.len() >= REMEMBERED {
                sessions.clear();
            }
            if !sessions.contains_key(&frame.dev_addr) {
                let rows = self.store.sessions_by_addr(frame.dev_addr, Freshness::Serial).await?;
                sessions.insert(frame.dev_addr, rows);
            }
            // What the remembered row says is out stays out; anything else is looked at afresh.
            let rows = sessions.get(&frame.dev_addr).map_or(&[][..], Vec::as_slice);
            let resolved = uplink::pick(rows, &frame).is_none_or(|(row, fcnt)| {
                let verdict = uplink::judge(row, fcnt, false, copies.received_at(), false);
                matches!(verdict, Verdict::AlreadyOut | Verdict::Replay)
            });
            if resolved {
                return Ok(false);
            }
            sessions.remove(&frame.dev_addr);
        }
        self.settle(&copies).await;
        Ok(true)
    }

    fn is_in_work(&self, key: DedupKey) -> bool {
        self.works.contains(key)
    }
}
