//! The sweep (step 9): when a balancer is gone, what it retained is picked up from the stored receptions.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use limpet_shared::{
    DevAddr, UnixMicros,
    lorawan::{self, Frame},
};
use limpet_store::{Freshness, StoreError};
use limpet_worker_core::{
    model::{DedupKey, RECEPTIONS_KEPT, SessionRow},
    seen::CLOCK_SKEW,
    uplink::{self, Verdict, VerifiedFrame},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Pipeline, work::Transmission};

/// One worker sweeps at a time; a dead one's lease ends by itself.
const LEASE: &str = "sweep";
const LEASE_FOR: Duration = Duration::from_secs(5);
/// Keys read at a time.
const PAGE: u32 = 256;
/// Unresolved frames that are collected, to be settled in the order received, and devices settled side by side.
const AT_ONCE: u64 = 4096;
const DEVICES: usize = 16;
/// What a process that was killed had in work was received this shortly before, and is seen to first.
const RECENT: Duration = Duration::from_secs(120);
const RECOVER_LIMIT: Duration = Duration::from_secs(10);
/// From a JoinRequest to the device's last window for the JoinAccept (JOIN_ACCEPT_DELAY2).
const JOIN_LISTENS: Duration = Duration::from_secs(6);
/// A frame received this recently may be in another worker's window, which would hear of a copy that the sweep does not: it is
/// looked at again when it is older. Its time is a balancer's clock.
pub(super) const SETTLED_AFTER: Duration = AT_REST.saturating_add(CLOCK_SKEW);
/// At the start of a server that has its balancer beside it nobody else is at work, as a rule.
const AT_REST: Duration = Duration::from_millis(500);
/// Such frames remembered; more are taken at once.
const YOUNG: usize = 100_000;
/// Keys set aside, which cannot be read: how many, how often and when each is tried again. If so many in a row cannot be read it
/// is the store that is away.
const ASIDE: usize = 1_000;
const TRIES: u32 = 3;
const AGAIN: Duration = Duration::from_secs(1);
const AWAY: u32 = 16;
/// Sessions remembered while sweeping.
const REMEMBERED: usize = 50_000;
/// How often receptions past their time are deleted.
const EXPIRE_EVERY: Duration = Duration::from_secs(30);

/// By what names their device.
type Unresolved = BTreeMap<Vec<u8>, Vec<Transmission>>;

/// One sweep.
#[derive(Default)]
struct Swept {
    sessions: HashMap<DevAddr, Vec<SessionRow>>,
    /// Keys looked at when they are older.
    young: Vec<DedupKey>,
    /// Keys that could not be read.
    aside: Vec<DedupKey>,
    failures_in_a_row: u32,
}

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
                biased;
                () = stop.cancelled() => return,
                () = self.0.notified() => match pipeline.sweep(pipeline.surroundings.now() - RECEPTIONS_KEPT, SETTLED_AFTER, &stop).await {
                    Ok(Some(picked_up)) => tracing::info!(picked_up, "swept the stored receptions"),
                    Ok(None) => self.ask_again().await,
                    Err(error) => {
                        tracing::warn!(%error, "the sweep was broken off; it begins again");
                        self.ask_again().await;
                    }
                },
                () = tokio::time::sleep(EXPIRE_EVERY) => {
                    let before = pipeline.surroundings.now() - RECEPTIONS_KEPT;
                    if let Err(error) = pipeline.store.expire_receptions(before).await {
                        pipeline.metrics.store_error("expire_receptions", &error);
                    }
                }
            }
        }
    }
}

impl Pipeline {
    /// Before any new frame is taken: what a killed process had acknowledged and not finished. Its devices go on
    /// counting, and an uplink more than 64 behind cannot be told from a replay any more.
    pub async fn recover(self: &Arc<Self>) {
        let since = self.surroundings.now() - RECENT;
        let swept = tokio::time::timeout(RECOVER_LIMIT, self.sweep(since, AT_REST, &CancellationToken::new())).await;
        match swept {
            Ok(Ok(picked_up)) => tracing::info!(picked_up, "picked up what the last process left"),
            Ok(Err(error)) => tracing::warn!(%error, "what the last process left is picked up later"),
            Err(_) => {
                tracing::warn!(limit = ?RECOVER_LIMIT, "what the last process left is picked up beside new frames")
            }
        }
    }

    /// Takes every reception stored since then that is not resolved through step 4, in the order received; what is younger than
    /// `settled_after` when it has that age. Returns how many frames were picked up; `None` if another worker is sweeping.
    pub(crate) async fn sweep(
        self: &Arc<Self>,
        since: UnixMicros,
        settled_after: Duration,
        stop: &CancellationToken,
    ) -> Result<Option<u64>, StoreError> {
        let (mut after, mut picked_up, mut swept) = (None, 0, Swept::default());
        while !stop.is_cancelled() {
            if !self.has_sweep_lease(LEASE_FOR).await? {
                return Ok(None);
            }
            let (mut unresolved, mut found) = (Unresolved::new(), 0);
            while found < AT_ONCE {
                let keys = self.store.reception_keys(since, after, PAGE).await?;
                let Some(last) = keys.last().copied() else { break };
                after = Some(last);
                for key in keys {
                    found += self.sweep_key(key, settled_after, &mut swept, &mut unresolved).await?;
                }
                self.has_sweep_lease(LEASE_FOR).await?;
            }
            picked_up += found;
            self.settle_all(unresolved).await;
            if found < AT_ONCE {
                break;
            }
        }
        let young = std::mem::take(&mut swept.young);
        if !young.is_empty() && !stop.is_cancelled() {
            // By then their workers are done with nearly all of them.
            tokio::time::sleep(settled_after).await;
            picked_up += self.sweep_keys(&young, &mut swept).await?;
        }
        picked_up += self.sweep_aside(&mut swept, stop).await?;
        // Over by everybody's clock, however far behind this one's.
        self.store.lease(LEASE, &self.name, self.surroundings.now(), UnixMicros::default()).await?;
        Ok(Some(picked_up))
    }

    async fn sweep_keys(self: &Arc<Self>, keys: &[DedupKey], swept: &mut Swept) -> Result<u64, StoreError> {
        let (mut unresolved, mut found) = (Unresolved::new(), 0);
        for page in keys.chunks(PAGE as usize) {
            self.has_sweep_lease(LEASE_FOR).await?;
            for key in page {
                found += self.sweep_key(*key, Duration::ZERO, swept, &mut unresolved).await?;
            }
        }
        self.settle_all(unresolved).await;
        Ok(found)
    }

    /// Tries again what could not be read. What cannot be read by a store that is there is left.
    async fn sweep_aside(self: &Arc<Self>, swept: &mut Swept, stop: &CancellationToken) -> Result<u64, StoreError> {
        let mut found = 0;
        for _ in 0..TRIES {
            if swept.aside.is_empty() || stop.is_cancelled() {
                return Ok(found);
            }
            tokio::time::sleep(AGAIN).await;
            swept.failures_in_a_row = 0;
            for some in std::mem::take(&mut swept.aside).chunks(AWAY as usize / 2) {
                found += self.sweep_keys(some, swept).await?;
                swept.failures_in_a_row = 0;
            }
        }
        if !swept.aside.is_empty() {
            self.store.ping().await?;
            let keys = swept.aside.len();
            tracing::warn!(keys, "some stored receptions cannot be read, and were left where they are");
        }
        Ok(found)
    }

    /// A key that cannot be read costs no other: it is counted, and set aside.
    async fn sweep_key(
        &self,
        key: DedupKey,
        settled_after: Duration,
        swept: &mut Swept,
        unresolved: &mut Unresolved,
    ) -> Result<u64, StoreError> {
        let looked = self.look_at_key(key, settled_after, swept, unresolved).await;
        match &looked {
            Ok(_) => swept.failures_in_a_row = 0,
            Err(error) => {
                self.metrics.store_error("sweep_key", error);
                tracing::debug!(%error, "a stored reception is set aside");
                swept.failures_in_a_row += u32::from(!matches!(error, StoreError::Corrupt(_)));
                if swept.failures_in_a_row < AWAY {
                    swept.aside.extend((swept.aside.len() < ASIDE).then_some(key));
                    return Ok(0);
                }
            }
        }
        looked
    }

    async fn look_at_key(
        &self,
        key: DedupKey,
        settled_after: Duration,
        swept: &mut Swept,
        unresolved: &mut Unresolved,
    ) -> Result<u64, StoreError> {
        let stored = Transmission::all(self.store.receptions(key).await?);
        let latest = stored.last().map(Transmission::latest).unwrap_or_default();
        if !settled_after.is_zero() && swept.young.len() < YOUNG && self.now_at(0) < latest + settled_after {
            swept.young.push(key);
            return Ok(0);
        }
        self.collect(stored, &mut swept.sessions, unresolved).await
    }

    async fn has_sweep_lease(&self, time: Duration) -> Result<bool, StoreError> {
        let now = self.surroundings.now();
        self.store.lease(LEASE, &self.name, now, now + time).await
    }

    /// Devices side by side, each device's frames in the order received.
    async fn settle_all(self: &Arc<Self>, unresolved: Unresolved) {
        let devices = unresolved.into_values().map(|mut frames| async move {
            frames.sort_by_key(Transmission::received_at);
            for frame in &frames {
                // What comes after it need not wait for the device's windows.
                if let Some(waiting) = self.settle(frame, None).await {
                    let pipeline = self.clone();
                    tokio::spawn(async move { pipeline.answer(*waiting).await });
                }
            }
        });
        futures_util::stream::iter(devices).for_each_concurrent(DEVICES, |device| device).await;
    }

    /// Adds those transmissions that somebody must still finish, and returns how many these are.
    async fn collect(
        &self,
        stored: Vec<Transmission>,
        sessions: &mut HashMap<DevAddr, Vec<SessionRow>>,
        unresolved: &mut Unresolved,
    ) -> Result<u64, StoreError> {
        let mut found = 0;
        for copies in stored {
            if let Some(device) = self.unresolved(&copies, sessions).await? {
                unresolved.entry(device).or_default().push(copies);
                found += 1;
            }
        }
        Ok(found)
    }

    /// What names the device of a transmission that somebody must still finish.
    async fn unresolved(
        &self,
        copies: &Transmission,
        sessions: &mut HashMap<DevAddr, Vec<SessionRow>>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(first) = copies.receptions.first() else { return Ok(None) };
        if self.works.contains(first.key) {
            return Ok(None);
        }
        let device = match lorawan::parse(&first.phy) {
            Ok(Frame::Data(frame)) => {
                let rows = self.remembered(frame.dev_addr, sessions).await?;
                // A session changes only forwards: what was out when the row was read stays out.
                let resolved = uplink::pick(rows, &frame, self.heard(copies)).is_none_or(|(row, fcnt)| {
                    let (mic, received_at) = (frame.mic, copies.received_at());
                    let now = self.now_of(first);
                    let verified = VerifiedFrame { fcnt, confirmed: false, mic, received_at, now, swept: true };
                    // Whether its owner allows it to be a restart is judged when it is settled.
                    let verdict = uplink::judge(row, &verified, true);
                    let is_new = matches!(verdict, Verdict::Finish | Verdict::Accept(_));
                    !is_new && !self.is_unanswered(&row.session, fcnt)
                });
                if resolved {
                    return Ok(None);
                }
                frame.dev_addr.0.to_be_bytes().to_vec()
            }
            Ok(Frame::JoinRequest(request)) => {
                let row = self.store.join_row(request.dev_eui, request.dev_nonce, Freshness::Serial).await?;
                let stored = match &row {
                    Some(row) => self.store.session(&row.session.key, Freshness::Serial).await?,
                    None => None,
                };
                let finished = stored.is_some_and(|s| s.session.slot.number > 1 || s.slot_is_out());
                // Without a row it was not accepted: worth a look only while its device still listens.
                let missed = row.is_none() && self.age(first) > JOIN_LISTENS;
                if finished || missed {
                    return Ok(None);
                }
                request.dev_eui.0.to_be_bytes().to_vec()
            }
            _ => return Ok(None),
        };
        Ok(Some(device))
    }

    async fn remembered<'a>(
        &self,
        dev_addr: DevAddr,
        sessions: &'a mut HashMap<DevAddr, Vec<SessionRow>>,
    ) -> Result<&'a [SessionRow], StoreError> {
        if sessions.len() >= REMEMBERED {
            sessions.clear();
        }
        let rows = match sessions.entry(dev_addr) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(self.store.sessions_by_addr(dev_addr, Freshness::Serial).await?),
        };
        Ok(rows)
    }
}
