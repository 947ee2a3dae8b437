//! One queue for each DevAddr: what waits for what among the frames of a device that this worker has in hand.
//!
//! A frame takes its *place* when it comes in, before the store is asked for anything, and leaves it when it is settled. Between
//! that it goes through these stages, the last two perhaps several times:
//!
//! | stage | begins with | waits for it | for how long |
//! | --- | --- | --- | --- |
//! | in line | [`Lanes::enter`] | the place behind it, of its class | [`TURN_LIMIT`], [`OLD_TURN_LIMIT`] |
//! | its turn | the place before it is gone, or was waited for long enough | the place behind it | the same |
//! | deciding | [`Place::decide`], after its MIC has picked a session | whoever would decide for that session | until it has |
//! | acting | [`Place::act`], before its compare-and-set | whoever decides for that session next | [`OUT_LIMIT`] |
//!
//! All of it saves work and keeps an order; the compare-and-set keeps the session's row right without it. In line, because a
//! device's uplinks are to be accepted in the order they were received, however busy the machine is; for a limited time, because
//! anybody can send junk under a device's DevAddr. Deciding, because of many uplinks at once (a gateway reports all that it has
//! buffered) each would refuse all others' writes, again and again; for any time, because nobody else has the key. Acting, because
//! what is on its way out is not abandoned, and a moment's patience spares its event the way through the pending table.
//!
//! Those that have a receive window left, and those that have none, are two lines: what is taken up first under more work than can be
//! done is not to wait here for what it has passed.
//!
//! What does not come from a gateway just now, the sweep's frames and the session that a join has made, has a place *beside*
//! the line: it decides and acts like the others, and nobody is behind it.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
    time::Duration,
};

use limpet_shared::DevAddr;
use limpet_worker_core::{
    line::{Class, PASSES},
    model::SessionKey,
    seen::REMEMBERED,
};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use crate::entrance::AtWork;

/// A frame waits at most this long for those of its device that came before.
const TURN_LIMIT: Duration = Duration::from_millis(500);
/// The same for one that is too old for a receive window, after an outage say. It is not in a hurry, and a device's frames
/// must come in order then: one that is [`REMEMBERED`] behind the latest cannot be told from a replay.
const OLD_TURN_LIMIT: Duration = Duration::from_secs(120);
const OLD: Duration = Duration::from_secs(5);
/// One that has a window left passes no more late ones than this: with those that it has passed at the entrance, and some at other
/// workers, they are still fewer than a session remembers. Else it waits behind them.
const MOST_PASSED: usize = (REMEMBERED - PASSES) as usize - 64;
/// Who decides waits so long for the events of the slot before.
const OUT_LIMIT: Duration = Duration::from_millis(100);
/// Debug builds look at whole lanes up to this length after each step.
const FEW: usize = 64;

/// The lanes of all DevAddrs that have frames in hand.
#[derive(Clone, Default)]
pub(crate) struct Lanes(Arc<Mutex<All>>);

#[derive(Default)]
struct All {
    lanes: HashMap<DevAddr, Lane>,
    last: u64,
}

/// The places of one DevAddr by number, which is the order they were taken in.
#[derive(Default)]
struct Lane(BTreeMap<u64, Occupant>);

/// What holds a place, and where it is on its way.
struct Occupant {
    /// Which line it stands in, if any.
    in_line: Option<Class>,
    turn: Turn,
    decision: Decision,
    acting: Option<Acting>,
}

enum Turn {
    /// Dropped when it has come.
    Awaited(Option<oneshot::Sender<()>>),
    Come,
}

enum Decision {
    None,
    /// The sender says when it is deciding.
    Awaited(SessionKey, oneshot::Sender<()>),
    Deciding(SessionKey),
}

struct Acting {
    session: SessionKey,
    slot: u64,
    /// Dropped with it.
    awaited_by: Vec<oneshot::Sender<()>>,
}

/// A frame's place; dropping it is leaving it.
pub(crate) struct Place {
    all: Arc<Mutex<All>>,
    dev_addr: DevAddr,
    number: u64,
    /// It is young and stands with the late ones, for there are too many to pass.
    is_patient: bool,
    /// Until it has decided.
    at_work: Mutex<Option<AtWork>>,
}

impl Lanes {
    /// A place at the end of a line.
    pub fn enter(&self, dev_addr: DevAddr, class: Class) -> Place {
        self.take(dev_addr, Some(class))
    }

    /// A place that nobody is behind, and that is behind nobody.
    pub fn beside(&self, dev_addr: DevAddr) -> Place {
        self.take(dev_addr, None)
    }

    fn take(&self, dev_addr: DevAddr, in_line: Option<Class>) -> Place {
        let mut all = self.0.lock();
        all.last += 1;
        let number = all.last;
        let lane = all.lanes.entry(dev_addr).or_default();
        let is_patient = in_line == Some(Class::Open) && lane.has_late(MOST_PASSED);
        let in_line = if is_patient { Some(Class::Late) } else { in_line };
        let is_behind = in_line.is_some() && lane.0.values().rev().any(|other| other.in_line == in_line);
        let turn = if is_behind { Turn::Awaited(None) } else { Turn::Come };
        lane.0.insert(number, Occupant { in_line, turn, decision: Decision::None, acting: None });
        debug_assert!(lane.is_sound());
        Place { all: self.0.clone(), dev_addr, number, is_patient, at_work: Mutex::default() }
    }

    /// Whether a task of this process is acting on that slot.
    pub fn is_acting(&self, session: &SessionKey, slot: u64) -> bool {
        let mut all = self.0.lock();
        all.lanes.get_mut(&session.dev_addr).is_some_and(|lane| lane.acting_on(session, slot).is_some())
    }

    /// If the slot is being acted on, waits for the end of that a moment. True if it was and is over now.
    pub async fn soon_out(&self, session: &SessionKey, slot: u64) -> bool {
        let (sender, over) = oneshot::channel();
        {
            let mut all = self.0.lock();
            let acting = all.lanes.get_mut(&session.dev_addr).and_then(|lane| lane.acting_on(session, slot));
            let Some(acting) = acting else { return false };
            acting.awaited_by.push(sender);
        }
        timeout(OUT_LIMIT, over).await.is_ok()
    }
}

impl Place {
    fn with<T>(&self, step: impl FnOnce(&mut Lane, u64) -> T) -> T {
        let mut all = self.all.lock();
        // It is there as long as this place is in it.
        let lane = all.lanes.entry(self.dev_addr).or_default();
        let out = step(lane, self.number);
        debug_assert!(lane.is_sound());
        out
    }

    /// Waits for those before it in line, for as long as a frame of this age can wait. Then it goes on all the same, and whoever
    /// is behind it waits for it and no more for those that it has passed.
    pub async fn turn(&mut self, age: Duration) {
        let Some(come) = self.with(Lane::await_turn) else { return };
        let limit = if age < OLD && !self.is_patient { TURN_LIMIT } else { OLD_TURN_LIMIT };
        if timeout(limit, come).await.is_err() {
            self.with(Lane::pass);
        }
    }

    /// Waits until nobody else decides for the session; of several that wait, the one that came in first is next. The caller
    /// has verified a MIC with the session's key. True if it has waited: what was read before may be old.
    pub async fn decide(&mut self, session: &SessionKey) -> bool {
        match self.with(|lane, number| lane.decide(number, session)) {
            None => false,
            Some(deciding) => {
                // It cannot fail while the place is there.
                let _ = deciding.await;
                true
            }
        }
    }

    /// There is something to do for it until it has decided.
    pub fn work(&self, at_work: AtWork) {
        *self.at_work.lock() = Some(at_work);
    }

    /// It has decided: others may, though it may still be acting on what was decided.
    pub fn decided(&self) {
        self.with(Lane::decided);
        self.at_work.lock().take();
    }

    /// It acts on that slot, or will as soon as it is committed.
    pub fn act(&self, session: &SessionKey, slot: u64) {
        self.with(|lane, number| {
            if let Some(me) = lane.0.get_mut(&number) {
                me.acting = Some(Acting { session: *session, slot, awaited_by: Vec::new() });
            }
        });
    }

    /// The same, unless somebody acts on that slot. False then.
    pub fn act_alone(&self, session: &SessionKey, slot: u64) -> bool {
        self.with(|lane, number| {
            if lane.acting_on(session, slot).is_some() {
                return false;
            }
            if let Some(me) = lane.0.get_mut(&number) {
                me.acting = Some(Acting { session: *session, slot, awaited_by: Vec::new() });
            }
            true
        })
    }

    /// It neither decides nor acts any more, and keeps its place in line.
    pub fn rest(&self) {
        self.with(|lane, number| {
            lane.decided(number);
            if let Some(me) = lane.0.get_mut(&number) {
                me.acting = None;
            }
        });
        self.at_work.lock().take();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        let Some(lane) = all.lanes.get_mut(&self.dev_addr) else { return };
        lane.leave(self.number);
        debug_assert!(lane.is_sound());
        if lane.0.is_empty() {
            all.lanes.remove(&self.dev_addr);
        }
    }
}

impl Lane {
    /// Whether so many late ones are in line.
    fn has_late(&self, most: usize) -> bool {
        self.0.values().filter(|place| place.in_line == Some(Class::Late)).nth(most.saturating_sub(1)).is_some()
    }

    fn await_turn(&mut self, number: u64) -> Option<oneshot::Receiver<()>> {
        let Turn::Awaited(waker) = &mut self.0.get_mut(&number)?.turn else { return None };
        let (sender, come) = oneshot::channel();
        *waker = Some(sender);
        Some(come)
    }

    fn pass(&mut self, number: u64) {
        if let Some(me) = self.0.get_mut(&number) {
            me.turn = Turn::Come;
        }
    }

    fn decide(&mut self, number: u64, session: &SessionKey) -> Option<oneshot::Receiver<()>> {
        let decides = |other: &Occupant| matches!(&other.decision, Decision::Deciding(of) if of == session);
        let is_taken = self.0.iter().any(|(at, other)| *at != number && decides(other));
        let me = self.0.get_mut(&number)?;
        if !is_taken {
            me.decision = Decision::Deciding(*session);
            return None;
        }
        let (sender, deciding) = oneshot::channel();
        me.decision = Decision::Awaited(*session, sender);
        Some(deciding)
    }

    fn decided(&mut self, number: u64) {
        let Some(me) = self.0.get_mut(&number) else { return };
        if let Decision::Deciding(session) = std::mem::replace(&mut me.decision, Decision::None) {
            self.next_decides(&session);
        }
    }

    fn next_decides(&mut self, session: &SessionKey) {
        let waits = |other: &&mut Occupant| matches!(&other.decision, Decision::Awaited(of, _) if of == session);
        if let Some(next) = self.0.values_mut().find(waits) {
            let before = std::mem::replace(&mut next.decision, Decision::Deciding(*session));
            if let Decision::Awaited(_, waker) = before {
                // Whoever waits no more is about to leave, and lets the next one.
                let _ = waker.send(());
            }
        }
    }

    fn leave(&mut self, number: u64) {
        let Some(left) = self.0.remove(&number) else { return };
        // Who leaves before its turn, such as a copy of a frame that has its own place, lets nobody go before those before it.
        if left.in_line.is_some() && matches!(left.turn, Turn::Come) {
            let mut behind = self.0.range_mut((Excluded(number), Unbounded)).map(|(_, other)| other);
            if let Some(next) = behind.find(|other| other.in_line == left.in_line) {
                next.turn = Turn::Come;
            }
        }
        if let Decision::Deciding(session) = left.decision {
            self.next_decides(&session);
        }
    }

    fn acting_on(&mut self, session: &SessionKey, slot: u64) -> Option<&mut Acting> {
        let mut acting = self.0.values_mut().filter_map(|place| place.acting.as_mut());
        acting.find(|acting| acting.session == *session && acting.slot == slot)
    }

    /// Somebody's turn has come, one decides for a session at most, and whoever waits to decide waits for one that does.
    fn is_sound(&self) -> bool {
        if self.0.len() > FEW {
            return true;
        }
        let first_is_there = |class| {
            let mut line = self.0.values().filter(|place| place.in_line == Some(class));
            line.next().is_none_or(|first| matches!(first.turn, Turn::Come))
        };
        let of = |place: &Occupant| match &place.decision {
            Decision::Deciding(session) => Some(*session),
            Decision::None | Decision::Awaited(..) => None,
        };
        let deciding: Vec<SessionKey> = self.0.values().filter_map(of).collect();
        let is_awaited = |place: &Occupant| match &place.decision {
            Decision::Awaited(session, _) => deciding.contains(session),
            Decision::None | Decision::Deciding(_) => true,
        };
        [Class::Open, Class::Late].into_iter().all(first_is_there)
            && deciding.iter().enumerate().all(|(at, session)| !deciding[..at].contains(session))
            && self.0.values().all(is_awaited)
    }
}

#[cfg(test)]
mod tests;
