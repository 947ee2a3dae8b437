//! Frames that are held until a worker is done with them, and who holds which.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::time::Duration;

use bytes::Bytes;
use limpet_shared::{
    Eui64, UnixMicros,
    link::{Ack, UplinkFrame},
};

use crate::{
    action::{DropReason, Source, WorkerId},
    addresses::Place,
};

mod ledger;
mod soundness;

use ledger::Ledger;

/// Number of a retained frame, in the order of arrival.
pub type FrameId = u64;

/// What a frame costs besides its datagram, roughly.
pub const OVERHEAD: usize = 256;
/// What comes in a gateway's name from where it is not has this part of a gateway's share.
const ELSEWHERE: usize = 8;

/// One PUSH_DATA on its way to *done*.
#[derive(Clone, Debug)]
pub struct RetainedFrame {
    pub gateway: Eui64,
    /// Which of the gateway's places it came from, as far as anybody can know.
    pub place: Place,
    /// Told to every worker that gets it; no redelivery changes it.
    pub received_at: UnixMicros,
    /// The same moment, monotonic.
    pub arrived: Duration,
    /// Where its PUSH_ACK goes.
    pub source: Source,
    pub version: u8,
    pub token: u16,
    pub datagram: Bytes,
    /// Deliveries so far.
    pub deliveries: u8,
    /// Times that it had to be given to somebody else.
    pub failures: u8,
    /// Its PUSH_ACK is out.
    pub acked: bool,
    /// A worker said so.
    pub stored: bool,
    /// A second worker was tried because the first one did not store it in time.
    pub asked_twice: bool,
    /// Who has it: every connection it was sent on.
    pub holders: Vec<Holder>,
    deadline: Option<Duration>,
}

/// Where a retained frame stands. What follows from it is in the table of `balancer/delivery.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has it.
    Waiting,
    /// Somebody has it.
    Sent,
    /// Another worker has it too, for the first one did not get it stored.
    AskedTwice,
    /// It is in the store, and not done.
    Stored,
}

/// A worker that has a frame, under the number of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub worker: WorkerId,
    pub seq: u64,
}

/// A PUSH_ACK that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushAck {
    pub to: Source,
    pub version: u8,
    pub token: u16,
    pub arrived: Duration,
}

/// What an [`Ack`] brought.
#[derive(Clone, Debug, Default)]
pub struct Acked {
    pub push_acks: Vec<PushAck>,
    /// Whoever has not read them needs them no more.
    pub withdrawn: Vec<Holder>,
}

/// All retained frames. Bounded by bytes.
#[derive(Clone, Debug)]
pub struct Retention {
    limit: usize,
    /// What one worker may leave unread.
    unread_limit: usize,
    bytes: usize,
    /// Of these, each gateway's, by where they came from.
    shares: BTreeMap<(Eui64, Place), usize>,
    last_id: FrameId,
    frames: BTreeMap<FrameId, RetainedFrame>,
    ledgers: BTreeMap<WorkerId, Ledger>,
    waiting: BTreeSet<FrameId>,
    deadlines: BTreeSet<(Duration, FrameId)>,
}

impl RetainedFrame {
    fn cost(&self) -> usize {
        self.datagram.len() + OVERHEAD
    }

    /// Whose share it takes.
    fn owner(&self) -> (Eui64, Place) {
        (self.gateway, self.place)
    }

    pub fn state(&self) -> State {
        match (self.holders.is_empty(), self.stored, self.asked_twice) {
            (true, _, _) => State::Waiting,
            (false, true, _) => State::Stored,
            (false, false, true) => State::AskedTwice,
            (false, false, false) => State::Sent,
        }
    }

    /// A frame that nobody has yet.
    pub fn new(gateway: Eui64, source: Source, version: u8, token: u16, datagram: Bytes) -> Self {
        Self {
            gateway,
            place: Place::Elsewhere,
            received_at: UnixMicros(0),
            arrived: Duration::ZERO,
            source,
            version,
            token,
            datagram,
            deliveries: 0,
            failures: 0,
            acked: false,
            stored: false,
            asked_twice: false,
            holders: Vec::new(),
            deadline: None,
        }
    }
}

impl Retention {
    /// Room for `limit` bytes, of which a worker may be sent so many that it has not read.
    pub fn new(limit: usize, unread_limit: usize) -> Self {
        Self {
            limit,
            unread_limit,
            bytes: 0,
            shares: BTreeMap::new(),
            last_id: 0,
            frames: BTreeMap::new(),
            ledgers: BTreeMap::new(),
            waiting: BTreeSet::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Takes a frame in, if there is room. No gateway gets more than what is left free: one that floods ends at half of
    /// the memory, two of them at a third each, and there is always room for those that have little here. What it pushes from
    /// another address than it pulls from is held to that apart; what comes in its name from elsewhere has an eighth of it. Neither takes
    /// anything of the gateway's own.
    pub fn admit(&mut self, frame: RetainedFrame) -> Result<FrameId, DropReason> {
        let (cost, free) = (frame.cost(), self.limit.saturating_sub(self.bytes));
        if cost > free {
            return Err(DropReason::RetentionFull);
        }
        let share = self.shares.get(&frame.owner()).copied().unwrap_or_default() + cost;
        let most = if frame.place == Place::Elsewhere { free / ELSEWHERE } else { free };
        if share > most {
            return Err(DropReason::RetentionShare);
        }
        self.shares.insert(frame.owner(), share);
        self.bytes += cost;
        self.last_id += 1;
        self.frames.insert(self.last_id, frame);
        self.waiting.insert(self.last_id);
        Ok(self.last_id)
    }

    pub fn frame(&self, id: FrameId) -> Option<&RetainedFrame> {
        self.frames.get(&id)
    }

    pub fn frame_mut(&mut self, id: FrameId) -> Option<&mut RetainedFrame> {
        self.frames.get_mut(&id)
    }

    /// Gives a frame to a worker: the message to send. It may be held by several workers at once.
    pub fn assign(&mut self, id: FrameId, worker: WorkerId, now: Duration) -> Option<UplinkFrame> {
        let frame = self.frames.get_mut(&id)?;
        let seq = self.ledgers.entry(worker).or_default().assign(id, frame.cost(), (!frame.stored).then_some(now));
        frame.holders.push(Holder { worker, seq });
        self.waiting.remove(&id);
        let attempt = frame.deliveries;
        frame.deliveries = frame.deliveries.saturating_add(1);
        Some(UplinkFrame {
            seq,
            received_at: frame.received_at,
            gateway: frame.gateway,
            attempt,
            datagram: frame.datagram.clone(),
        })
    }

    /// Applies what a worker acknowledges. Numbers that are settled already, or were never given, mean nothing.
    pub fn on_ack(&mut self, worker: WorkerId, ack: &Ack, ack_received: bool) -> Acked {
        let mut out = Acked::default();
        let read = self.ledgers.get_mut(&worker).map(|ledger| ledger.read_to(ack.received)).unwrap_or_default();
        if ack_received {
            read.into_iter().for_each(|id| self.mark_acked(id, &mut out));
        }
        for &seq in &ack.stored {
            if let Some(id) = self.lookup(worker, seq) {
                self.mark_stored(id, &mut out);
            }
        }
        for &seq in &ack.done {
            if let Some(id) = self.lookup(worker, seq) {
                self.mark_stored(id, &mut out);
                out.withdrawn.extend(self.release(id).into_iter().flat_map(|(_, unread)| unread));
            }
        }
        out
    }

    fn lookup(&self, worker: WorkerId, seq: u64) -> Option<FrameId> {
        self.ledgers.get(&worker)?.frame(seq)
    }

    fn mark_stored(&mut self, id: FrameId, out: &mut Acked) {
        if let Some(frame) = self.frames.get_mut(&id).filter(|f| !f.stored) {
            frame.stored = true;
            for holder in &frame.holders {
                if let Some(ledger) = self.ledgers.get_mut(&holder.worker) {
                    ledger.stored(holder.seq);
                }
            }
        }
        self.mark_acked(id, out);
    }

    fn mark_acked(&mut self, id: FrameId, out: &mut Acked) {
        let Some(frame) = self.frames.get_mut(&id).filter(|f| !f.acked) else { return };
        frame.acked = true;
        out.push_acks.push(PushAck {
            to: frame.source,
            version: frame.version,
            token: frame.token,
            arrived: frame.arrived,
        });
    }

    /// Forgets a frame: it is done, or given up. With it, who has it and has not read it.
    pub fn release(&mut self, id: FrameId) -> Option<(RetainedFrame, Vec<Holder>)> {
        let frame = self.frames.remove(&id)?;
        self.bytes -= frame.cost();
        if let Some(share) = self.shares.get_mut(&frame.owner()) {
            *share -= frame.cost();
            if *share == 0 {
                self.shares.remove(&frame.owner());
            }
        }
        self.waiting.remove(&id);
        if let Some(deadline) = frame.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        let mut unread = Vec::new();
        for holder in &frame.holders {
            if let Some(ledger) = self.ledgers.get_mut(&holder.worker)
                && ledger.release(holder.seq)
            {
                unread.push(*holder);
            }
        }
        Some((frame, unread))
    }

    /// Forgets a connection; the frames that were on it.
    pub fn forget_worker(&mut self, worker: WorkerId) -> Vec<FrameId> {
        let Some(ledger) = self.ledgers.remove(&worker) else { return Vec::new() };
        let orphans: Vec<FrameId> = ledger.unfinished().collect();
        for &id in &orphans {
            if let Some(frame) = self.frames.get_mut(&id) {
                frame.holders.retain(|h| h.worker != worker);
                if frame.holders.is_empty() {
                    self.waiting.insert(id);
                }
            }
        }
        orphans
    }

    /// What a worker has not finished, in the order it was sent.
    pub fn unfinished(&self, worker: WorkerId) -> impl Iterator<Item = FrameId> {
        self.ledgers.get(&worker).into_iter().flat_map(Ledger::unfinished)
    }

    /// When this worker got the first of its frames that nobody has stored.
    pub fn unstored_since(&self, worker: WorkerId) -> Option<Duration> {
        self.ledgers.get(&worker)?.unstored_since()
    }

    /// How many frames a worker has not finished.
    pub fn unfinished_count(&self, worker: WorkerId) -> usize {
        self.ledgers.get(&worker).map_or(0, Ledger::len)
    }

    /// Whether a worker leaves so much unread that it should get no more.
    pub fn is_full(&self, worker: WorkerId) -> bool {
        self.ledgers.get(&worker).is_some_and(|ledger| ledger.unread() >= self.unread_limit)
    }

    /// The frame that has waited for any worker longest.
    pub fn first_waiting(&self) -> Option<FrameId> {
        self.waiting.first().copied()
    }

    /// Sets the moment at which the frame is looked at again; it replaces the one before.
    pub fn set_deadline(&mut self, id: FrameId, at: Duration) {
        let Some(frame) = self.frames.get_mut(&id) else { return };
        if let Some(before) = frame.deadline.replace(at) {
            self.deadlines.remove(&(before, id));
        }
        self.deadlines.insert((at, id));
    }

    /// The next moment at which a frame is to be looked at.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Takes one frame whose moment has come.
    pub fn pop_due(&mut self, now: Duration) -> Option<FrameId> {
        let &(at, id) = self.deadlines.first().filter(|(at, _)| *at <= now)?;
        self.deadlines.remove(&(at, id));
        if let Some(frame) = self.frames.get_mut(&id) {
            frame.deadline = None;
        }
        Some(id)
    }

    /// Frames held now.
    pub fn held(&self) -> usize {
        self.frames.len()
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
