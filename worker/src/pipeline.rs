//! The life of a frame at a worker (docs/ARCHITECTURE.md, its steps), on one screen: parse, put the receptions, wait the window,
//! read the session, decide, commit, send, emit, mark.
//!
//! Everything it calls has one job. What is decided is decided in `limpet_worker_core`; this module and its children do it.

mod act;
mod answer;
mod data;
mod decoding;
mod foreign;
mod intake;
mod join;
mod lanes;
mod log_limit;
mod operators;
mod owners;
mod pending;
mod repeats;
mod sweep;
#[cfg(test)]
mod tests;
pub(crate) mod troubles;
mod tx_ack;
mod work;

pub(crate) use pending::Counted;
pub use pending::run as run_pending;
pub use sweep::Sweep;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use limpet_codec::Codecs;
use limpet_integration::Deliver;
use limpet_link::host::{self, Rule};
use limpet_shared::{
    UnixMicros,
    link::UplinkFrame,
    lorawan::{self, Frame},
};
use limpet_store::{Store, StoreError};
use limpet_worker_core::{downlink::Way, model::Reception};
use tokio::sync::{Notify, oneshot};

use crate::{
    beat::Beat,
    entrance::{Begin, Entrance},
    metrics::Metrics,
    regions::Regions,
    seams::{Link, Surroundings},
    settings::Settings,
};
use answer::Waiting;
use lanes::{Lanes, Place};
use work::{Transmission, WorkId, Works};

/// A follower looks only after the leader had this much time, and the next follower after as much again.
const FOLLOW_AFTER: Duration = Duration::from_millis(150);
/// On a slow store the leader gets the time of so many of its operations, up to a limit: a follower that comes too early
/// makes the store slower still.
const LEADER_OPERATIONS: u32 = 6;
const FOLLOW_AFTER_MOST: Duration = Duration::from_secs(1);
/// Windows end, and followers look, at moments that this worker's transmissions share: what is to do then costs one
/// wake-up and one write to the store's connection. Followers are not in a hurry; but two of one transmission must not
/// look at once, so it is less than [`FOLLOW_AFTER`].
const WINDOW_GRID: Duration = Duration::from_millis(50);
const FOLLOWERS_GRID: Duration = Duration::from_millis(100);
/// An integration has this long to take an event before the event waits in the pending table.
pub const EMIT_LIMIT: Duration = Duration::from_millis(250);
/// A slot this old may be finished by anyone.
pub const TAKE_OVER_AFTER: Duration = Duration::from_secs(2);

/// How far a frame is, for the balancer that retains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Every rxpk is in the store, or was judged worthless and counted.
    Stored,
    /// It needs nothing more.
    Done,
}

/// What a step says about going on.
enum Flow {
    Done,
    /// Read again, at SERIAL, and act on what the row says.
    Again,
    /// Somebody else is at it: look again after this long.
    Wait(Duration),
    /// Its event is out; its answer is left.
    Answer(Box<Waiting>),
}

/// A worker's pipeline.
pub struct Pipeline {
    pub store: Arc<dyn Store>,
    pub deliver: Arc<dyn Deliver>,
    codecs: Codecs,
    pub link: Arc<dyn Link>,
    pub surroundings: Arc<dyn Surroundings>,
    pub regions: Regions,
    pub metrics: Metrics,
    /// The worker's unique name.
    pub name: String,
    /// Of the network and its regions.
    pub settings: Arc<Settings>,
    /// Workers need not all ask the store at the same moments: by so much this one's are later.
    phase: Duration,
    works: Works,
    lanes: Lanes,
    entrance: Entrance,
    foreign: foreign::Foreign,
    repeats: repeats::Repeats,
    owners: owners::Owners,
    accepted_joins: log_limit::LineLimit,
    refused_joins: log_limit::LineLimit,
    refused_events: log_limit::LineLimit,
    removed_endpoints: log_limit::LineLimit,
    pub(crate) outcomes: tx_ack::Outcomes,
    pub(crate) troubles: Arc<troubles::Troubles>,
    pub(crate) counted: Arc<pending::Counted>,
    /// Every worker that is there takes each URL of an application for an integration of its own.
    pub(crate) urls_apart: Arc<AtomicBool>,
    addresses: pending::Addresses,
    /// Of what is looked at now and then.
    beat: Beat,
    /// An event has begun to wait.
    waiting: Notify,
    store_errors: log_limit::LineLimit,
    clocks_apart: log_limit::LineLimit,
    requests_given_up: log_limit::LineLimit,
}

impl Pipeline {
    #[allow(clippy::too_many_arguments)] // Wired once, in one place.
    pub fn new(
        store: Arc<dyn Store>,
        deliver: Arc<dyn Deliver>,
        link: Arc<dyn Link>,
        surroundings: Arc<dyn Surroundings>,
        regions: Regions,
        metrics: Metrics,
        name: String,
        settings: Arc<Settings>,
        codecs: Codecs,
    ) -> Arc<Self> {
        let phase = Duration::from_millis(u64::from(surroundings.random() % 100));
        Arc::new(Self {
            store,
            deliver,
            codecs,
            link,
            surroundings,
            regions,
            metrics,
            name,
            settings,
            phase,
            works: Works::default(),
            lanes: Lanes::default(),
            entrance: Entrance::default(),
            foreign: foreign::Foreign::default(),
            repeats: repeats::Repeats::default(),
            owners: owners::Owners::default(),
            accepted_joins: log_limit::LineLimit::default(),
            refused_joins: log_limit::LineLimit::default(),
            refused_events: log_limit::LineLimit::default(),
            removed_endpoints: log_limit::LineLimit::default(),
            outcomes: tx_ack::Outcomes::default(),
            troubles: Arc::default(),
            counted: Arc::default(),
            urls_apart: Arc::default(),
            addresses: pending::Addresses::default(),
            beat: Beat::start(),
            waiting: Notify::new(),
            store_errors: log_limit::LineLimit::of(STORE_ERRORS_TOLD),
            clocks_apart: log_limit::LineLimit::default(),
            requests_given_up: log_limit::LineLimit::default(),
        })
    }

    /// Takes up what was set in the store.
    pub(crate) async fn read_settings(&self) -> limpet_store::Result<()> {
        self.settings.read(&*self.store, self.regions.all()).await
    }

    /// An event was put where it waits for its integration.
    fn waits(&self) {
        self.metrics.pending();
        self.waiting.notify_one();
    }

    /// What time it is at that balancer; by this machine's clock if no link says. A balancer of 0 is any.
    fn now_at(&self, balancer: u64) -> UnixMicros {
        let known = self.link.now_at(balancer).filter(|_| host::keeps(Rule::BalancersTime));
        known.unwrap_or_else(|| self.surroundings.now())
    }

    /// What time it is on the clock that the reception's time is of. This machine's own may be another.
    fn now_of(&self, reception: &Reception) -> UnixMicros {
        self.now_at(reception.balancer)
    }

    /// The same for all copies of a transmission: the first one's.
    fn now_of_first(&self, copies: &Transmission) -> UnixMicros {
        copies.receptions.first().map_or_else(|| self.surroundings.now(), |first| self.now_of(first))
    }

    /// The way back of each copy.
    fn ways(&self, copies: &Transmission) -> Vec<Way> {
        let asks = |gateway| self.link.asks(gateway) || !host::keeps(Rule::OnlyWhoAsks);
        copies.receptions.iter().map(|r| Way { asks: asks(r.gateway), now: self.now_of(r) }).collect()
    }

    /// How long ago it was received.
    fn age(&self, reception: &Reception) -> Duration {
        self.now_of(reception).since(reception.received_at)
    }

    /// A datagram of a balancer comes in; `begin` begins with it, at once or when others let it.
    pub(crate) fn arrive(self: &Arc<Self>, balancer: u64, frame: &UplinkFrame, begin: Begin) {
        let age = self.now_at(balancer).since(frame.received_at);
        match self.entrance.arrive(age, &frame.datagram, begin) {
            Some((begin, in_work)) => begin(self, in_work),
            None => self.take_up(),
        }
    }

    /// Whether more may come in.
    pub(crate) fn has_room(&self) -> bool {
        self.entrance.has_room()
    }

    /// Begins with what may be begun with now.
    pub(crate) fn take_up(self: &Arc<Self>) {
        while let Some((begin, in_work)) = self.entrance.next() {
            begin(self, in_work);
        }
        self.metrics.waiting_datagrams(self.entrance.waiting());
    }

    /// Begins with what has waited whenever there is room for more, with a link or without.
    pub(crate) async fn take_up_when_there_is_room(self: Arc<Self>) {
        loop {
            self.entrance.news().await;
            self.take_up();
        }
    }

    /// One datagram, from the link of a balancer to *done*. Ends only when everything in it needs nothing more, however long the
    /// store is away: until then the balancer retains it.
    pub async fn datagram(self: &Arc<Self>, balancer: u64, frame: UplinkFrame, report: impl Fn(Stage)) {
        let parsed = self.parse(balancer, &frame).await;
        let ours = futures_util::future::join_all(parsed.iter().map(|(r, _)| self.may_be_ours(r))).await;
        let mine = parsed.into_iter().zip(ours).filter_map(|(both, ours)| ours.then_some(both));
        let (receptions, places): (Vec<_>, Vec<_>) = mine.unzip();
        if !host::keeps(Rule::SayStoredWhenStored) {
            report(Stage::Stored);
        }
        let puts = receptions
            .iter()
            .map(|reception| self.until_stored("put_reception", move || self.store.put_reception(reception.clone())));
        futures_util::future::join_all(puts).await;
        report(Stage::Stored);
        if !host::keeps(Rule::DoneWhenOut) {
            report(Stage::Done);
        }
        let (left, share) = (frame.attempt > 0, 1.0 / receptions.len().max(1) as f64);
        let follow = |(reception, place)| self.follow(reception, place, left, share);
        let works: Vec<_> = receptions.iter().zip(places).map(follow).collect();
        for done in works {
            // A closed channel means that the task is gone with the process: nothing is reported then.
            if done.await.is_err() {
                return;
            }
        }
        report(Stage::Done);
    }

    /// Joins the work on this transmission, which has a place already, or begins it. The receiver is told when it is done.
    fn follow(
        self: &Arc<Self>,
        reception: &Reception,
        place: Option<Place>,
        left: bool,
        share: f64,
    ) -> oneshot::Receiver<()> {
        let (begun, done) = self.works.hold(reception, left, share);
        if let Some(work) = begun {
            let pipeline = self.clone();
            tokio::spawn(async move { pipeline.transmission(work, place).await });
        }
        done
    }

    /// All copies of one transmission that this worker holds: window, leadership, verdict.
    async fn transmission(&self, work: WorkId, mut place: Option<Place>) {
        let begun = self.works.begun(work);
        let held = self.works.held(work);
        let delay = self.settings.deduplication_delay();
        let window = if host::keeps(Rule::WaitForCopies) { delay } else { Duration::ZERO };
        let window_ends = self.on_grid(held.latest + window, WINDOW_GRID);
        tokio::time::sleep(window_ends.since(self.now_at(held.balancer)).min(delay + WINDOW_GRID)).await;
        let held = self.works.held(work);
        let asked = tokio::time::Instant::now();
        let receptions = self.until_stored("receptions", || self.store.receptions(work.key)).await;
        let follow_after = (asked.elapsed() * LEADER_OPERATIONS).clamp(FOLLOW_AFTER, FOLLOW_AFTER_MOST);
        let mut copies = Transmission::of(receptions, &held);
        let rank = copies.rank(&held);
        copies.follows = rank > 0;
        self.let_others_go_first(follow_after * rank.min(2)).await;
        let age = copies.receptions.first().map(|first| self.age(first)).unwrap_or_default();
        let mut at_work = None;
        match &mut place {
            Some(place) => {
                place.turn(age).await;
                place.work(self.entrance.deciding(age));
            }
            None => at_work = Some(self.entrance.deciding(age)),
        }
        let waiting = self.settle(&copies, place).await;
        drop((copies, at_work));
        // The device's next uplink, and whatever else is behind it, does not wait for this.
        if let Some(waiting) = waiting {
            let _idle = self.metrics.awaiting_answers(self.works.datagrams(work));
            self.answer(*waiting).await;
        }
        begun.finish();
    }

    async fn let_others_go_first(&self, time: Duration) {
        if !time.is_zero() {
            let now = self.surroundings.now();
            tokio::time::sleep(self.on_grid(now + time, FOLLOWERS_GRID).since(now)).await;
        }
    }

    /// The first moment from `at` on at which this worker does things together.
    fn on_grid(&self, at: UnixMicros, grid: Duration) -> UnixMicros {
        (at - self.phase).on_grid(grid) + self.phase
    }

    /// Takes a transmission to its end: an event that is out, or a verdict that is counted; and then perhaps an answer that is still
    /// to be decided. Without a place in its device's lane it has one beside the line.
    pub(crate) async fn settle(&self, copies: &Transmission, mut place: Option<Place>) -> Option<Box<Waiting>> {
        let Some(first) = copies.receptions.first() else {
            self.metrics.dropped("no_reception");
            return None;
        };
        let phy = first.phy.clone();
        let mut pause = Pause::default();
        loop {
            let again = pause.count > 0;
            let step = match lorawan::parse(&phy) {
                Ok(Frame::Data(frame)) => {
                    let place = place.get_or_insert_with(|| self.lanes.beside(frame.dev_addr));
                    let step = self.data(copies, &frame, again, place).await;
                    place.rest();
                    step
                }
                Ok(Frame::JoinRequest(request)) => self.join(copies, &request, again).await,
                _ => Ok(Flow::Done),
            };
            match step {
                Ok(Flow::Done) => return None,
                Ok(Flow::Answer(waiting)) => return Some(waiting),
                Ok(Flow::Again) => pause.count += 1,
                Ok(Flow::Wait(time)) => tokio::time::sleep(time).await,
                // What a write did is read at once; a store that says it of none, such as one with a full disk, gets time.
                Err(error @ StoreError::Unknown(_)) if pause.count == 0 => {
                    self.metrics.store_error("settle", &error);
                    tracing::debug!(%error, "reading what a write did");
                    pause.count += 1;
                }
                Err(error) => self.store_failed("settle", &error, &mut pause).await,
            }
        }
    }

    /// Repeats a store operation that is safe to repeat until the store has done it.
    pub(crate) async fn until_stored<T, F>(&self, what: &'static str, operation: impl Fn() -> F) -> T
    where
        F: Future<Output = limpet_store::Result<T>>,
    {
        let mut pause = Pause::default();
        loop {
            let asked = tokio::time::Instant::now();
            let answer = operation().await;
            self.metrics.store_took(what, asked.elapsed());
            match answer {
                Ok(value) => return value,
                Err(error) => self.store_failed(what, &error, &mut pause).await,
            }
        }
    }

    async fn store_failed(&self, what: &'static str, error: &StoreError, pause: &mut Pause) {
        self.metrics.store_error(what, error);
        if let Some(unsaid) = self.store_errors.admit(self.surroundings.now()) {
            tracing::warn!(what, %error, tries = pause.count + 1, unsaid, "the store did not do it; trying again");
        }
        pause.next().await;
    }
}

/// In so long a few lines tell that the store does not do what it is asked for. Readiness tells it at once.
const STORE_ERRORS_TOLD: Duration = Duration::from_secs(10);

/// Growing pauses between tries while the store is away.
#[derive(Default)]
struct Pause {
    count: u32,
}

impl Pause {
    async fn next(&mut self) {
        self.count += 1;
        tokio::time::sleep(Duration::from_millis(25 << self.count.min(4))).await;
    }
}
