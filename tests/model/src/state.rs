//! All that a moment of the protocol consists of, in small numbers.

use std::hash::{Hash, Hasher};

/// Workers, transmissions, copies of each, and FCntDowns that there can be at most.
pub const WORKERS: usize = 2;
pub const SENT: usize = 3;
pub const COPIES: usize = 2;
pub const DOWNS: usize = 9;

/// Enums that are no more than their names.
macro_rules! small {
    ($($(#[$of:meta])* $name:ident { $($(#[$about:meta])* $variant:ident),* $(,)? })*) => { $(
        $(#[$of])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { #[default] $($(#[$about])* $variant),* }
    )* };
}

small! {
    /// One gateway's copy of a transmission, as the balancers see it.
    Frame {
        Unsent,
        /// Stored, hence acknowledged; kept until it is done.
        Retained,
        Done,
        /// Its balancer is gone; what is stored is left to the sweep.
        Lost,
    }

    /// The time of a transmission, by its device's receive windows.
    Phase {
        /// `reply_delay` is not over, both windows are to come.
        Reply,
        Rx1,
        /// RX1 is missed.
        Rx2,
        Closed,
    }

    /// What a slot's uplink is answered.
    Answer {
        /// Nothing, and that stays so.
        Closed,
        /// It can still be decided.
        Open,
        /// With the slot's bytes.
        Decided,
    }

    /// What a compare-and-set is for.
    What {
        Nothing,
        Accept,
        /// Below the highest: for its event alone.
        Late,
        /// A confirmed uplink that its device repeats: an ACK without an event.
        Again,
        /// The answer's own decision.
        Answer,
    }

    /// What a worker does next.
    At {
        Idle,
        /// Read the session.
        Read,
        /// Put the slot's event into the pending table, before the slot is replaced.
        Keep,
        /// The compare-and-set that accepts.
        Accept,
        /// Hand the slot's bytes to the balancer.
        Send,
        /// See whether events of the device wait.
        Look,
        Emit,
        Pend,
        /// Write `out`.
        Mark,
        /// Wait for the end of `reply_delay`, then read.
        Wait,
        /// The compare-and-set that answers.
        Decide,
        /// Tell the balancer that it is done.
        End,
    }
}

/// The session's row, changed by compare-and-set on its revision. Slot 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub rev: u8,
    /// FCntUps accepted, one bit each.
    pub seen: u8,
    /// The transmission by which the highest of them was accepted, or acknowledged last.
    pub high_by: u8,
    pub number: u8,
    /// The transmission that the slot was accepted by: its windows are the slot's.
    pub by: u8,
    pub has_event: bool,
    /// `p`: the event before may be in the pending table.
    pub behind: bool,
    pub reply: Reply,
    /// The last FCntDown that was taken.
    pub last_down: u8,
    /// The FCntDown that the queue item was first sent under, or 0.
    pub first_down: u8,
}

/// The answer. It stands beside the slot, and is that of the highest uplink: an overtaken one takes the slot and leaves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reply {
    pub answer: Answer,
    /// The slot that it was opened with, and the transmission in whose windows it goes.
    pub number: u8,
    pub by: u8,
    /// An ACK must be said. (MAC answers are the same to the protocol.)
    pub ack: bool,
    /// Once decided.
    pub item: bool,
    pub down: u8,
}

/// The row beside it, written plainly under the slot's number as its timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The last slot whose event is out, and whether by way of the pending table.
    pub out: u8,
    pub through_pending: bool,
    /// The last FCntDown of a queue item with a TX_ACK.
    pub sent: u8,
}

/// A compare-and-set as it was planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plan {
    pub what: What,
    /// What it expects.
    pub rev: u8,
    pub number: u8,
    pub by: u8,
    pub behind: bool,
    pub answer: Answer,
    pub ack: bool,
    pub item: bool,
    pub down: u8,
}

/// A worker's work on one transmission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    pub at: At,
    /// Copies in its hands, one bit each.
    pub held: u8,
    /// What it is about to write; after that the slot that it acts on.
    pub plan: Plan,
    /// The event is still to be told.
    pub event: bool,
    /// Somebody else accepted it.
    pub taken: bool,
    /// [`At::Keep`]: the uplink whose event is kept.
    pub keep: u8,
    /// Bytes that no compare-and-set wrote, by whoever made them up. 0 in a protocol that has all its rules.
    pub made_up: u8,
}

/// An application's queue item on its way in, through one worker's API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Enqueue {
    pub at: At,
    pub worker: u8,
    pub plan: Plan,
}

small! {
    /// The queue item.
    Item { Unknown, Queued, Gone }
}

/// One moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    pub frames: [[Frame; COPIES]; SENT],
    pub phase: [Phase; SENT],
    pub row: Row,
    /// The row before it was last written: what a read that is not SERIAL may still see.
    pub old: Option<Row>,
    pub mark: Mark,
    pub tasks: [[Task; SENT]; WORKERS],
    pub enqueue: Enqueue,
    pub item: Item,
    /// Compare-and-sets that were not answered, and may still take effect.
    pub flying: [Plan; 2],
    pub integration_down: bool,
    /// The uplink accepted first, plus one: pending rows are sent by their slots' numbers.
    pub first: u8,
    /// Uplinks whose events are in the pending table, and are with the application.
    pub pending: u8,
    pub delivered: u8,
    /// Downlinks that a gateway took, for which the TX_ACK is on its way: by FCntDown.
    pub tx_acks: u16,
    /// A downlink that a gateway refused in RX1, for RX2.
    pub refused: Plan,
    /// Transmissions whose downlink a balancer has passed on.
    pub passed_on: u8,
    /// Faults that may still happen.
    pub left: u8,
    pub watch: Watch,
}

/// What only the checks look at. No step depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watch {
    pub accepted: u8,
    /// FCntDowns that were decided, and slots whose answer was.
    pub downs: u16,
    pub answered: u16,
    /// Per FCntDown: the bytes handed to a balancer. 1: those of the row; more: made up.
    pub bytes: [u8; DOWNS],
    /// Per uplink: the id under which its event was told.
    pub ids: [u8; SENT],
    /// Transmissions whose ACK was on air in their windows, and whose downlink with the item was.
    pub acked: u8,
    pub carried: u8,
    /// The item was on air at some time.
    pub aired: bool,
    /// The transmission in whose windows the item must leave, plus one.
    pub owed: u8,
    /// Transmissions that owe no answer any more.
    pub excused: u8,
    /// The first thing that went wrong.
    pub broken: u8,
}

/// Small numbers side by side in a word: each with the bits that it needs.
struct Word(u64, u32);

impl Word {
    fn of(parts: &[(u64, u32)]) -> u64 {
        let word = parts.iter().fold(Self(0, 0), |word, (value, bits)| {
            debug_assert!(value >> bits == 0, "{value} does not fit {bits} bits");
            Self(word.0 << bits | value, word.1 + bits)
        });
        debug_assert!(word.1 <= 64);
        word.0
    }
}

impl Plan {
    /// 28 bits.
    fn word(&self) -> u64 {
        let Self { what, rev, number, by, behind, answer, ack, item, down } = *self;
        Word::of(&[
            (what as u64, 3),
            (rev.into(), 8),
            (number.into(), 4),
            (by.into(), 2),
            (behind.into(), 1),
            (answer as u64, 2),
            (ack.into(), 1),
            (item.into(), 1),
            (down.into(), 4),
        ])
    }
}

impl Task {
    fn word(&self) -> u64 {
        let Self { at, held, plan, event, taken, keep, made_up } = *self;
        Word::of(&[
            (plan.word(), 28),
            (at as u64, 4),
            (held.into(), 2),
            (event.into(), 1),
            (taken.into(), 1),
            (keep.into(), 2),
            (made_up.into(), 4),
        ])
    }
}

impl Row {
    fn word(&self) -> u64 {
        let Self { rev, seen, high_by, number, by, has_event, behind, reply, last_down, first_down } = *self;
        let Reply { answer, number: opened, by: windows, ack, item, down } = reply;
        Word::of(&[
            (rev.into(), 8),
            (seen.into(), 3),
            (high_by.into(), 2),
            (number.into(), 4),
            (by.into(), 2),
            (has_event.into(), 1),
            (behind.into(), 1),
            (answer as u64, 2),
            (opened.into(), 4),
            (windows.into(), 2),
            (ack.into(), 1),
            (item.into(), 1),
            (down.into(), 4),
            (last_down.into(), 4),
            (first_down.into(), 4),
        ])
    }
}

impl Watch {
    fn words(&self) -> [u64; 2] {
        let bytes = self.bytes.iter().fold(0, |word, bytes| word << 4 | u64::from(*bytes));
        let ids = self.ids.iter().fold(0, |word, id| word << 4 | u64::from(*id));
        let rest = Word::of(&[
            (self.accepted.into(), 3),
            (self.downs.into(), 10),
            (self.answered.into(), 12),
            (self.acked.into(), 3),
            (self.carried.into(), 3),
            (self.aired.into(), 1),
            (self.owed.into(), 2),
            (self.excused.into(), 8),
            (self.broken.into(), 4),
        ]);
        [bytes << 12 | ids, rest]
    }
}

/// By words of 64 bits, for millions of states are hashed.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { frames, phase, row, old, mark, tasks, enqueue, item, flying, integration_down, first, .. } = self;
        let Self { pending, delivered, tx_acks, refused, passed_on, left, watch, .. } = self;
        for task in tasks.iter().flatten() {
            hasher.write_u64(task.word());
        }
        hasher.write_u64(row.word());
        hasher.write_u64(old.map_or(u64::MAX, |old| old.word()));
        hasher.write_u64(flying[0].word() << 28 | flying[1].word());
        let enqueue = (enqueue.at as u64) << 1 | u64::from(enqueue.worker) | enqueue.plan.word() << 8;
        hasher.write_u64(refused.word() << 36 | enqueue);
        let frames = frames.iter().flatten().fold(0, |word, frame| word << 2 | *frame as u64);
        let phases = phase.iter().fold(0, |word, phase| word << 2 | *phase as u64);
        hasher.write_u64(Word::of(&[
            (frames, 12),
            (phases, 6),
            (mark.out.into(), 4),
            (mark.through_pending.into(), 1),
            (mark.sent.into(), 4),
            (*item as u64, 2),
            ((*integration_down).into(), 1),
            ((*first).into(), 2),
            ((*pending).into(), 3),
            ((*delivered).into(), 3),
            ((*tx_acks).into(), 10),
            ((*passed_on).into(), 3),
            ((*left).into(), 3),
        ]));
        watch.words().into_iter().for_each(|word| hasher.write_u64(word));
    }
}
