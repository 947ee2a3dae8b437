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

use crate::action::{DropReason, Source, WorkerId};

/// Number of a retained frame, in the order of arrival.
pub type FrameId = u64;

/// What a frame costs besides its datagram, roughly.
pub const OVERHEAD: usize = 256;

/// One PUSH_DATA on its way to *done*.
#[derive(Clone, Debug)]
pub struct Frame {
    pub gateway: Eui64,
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
    /// Times that it had to be given to somebody else, or nobody finished it.
    pub failures: u8,
    /// Its PUSH_ACK is out.
    pub acked: bool,
    /// A worker said so.
    pub stored: bool,
    /// A second worker was tried because the first one did not store it in time.
    pub patience_used: bool,
    /// Who has it: every connection it was sent on.
    pub holders: Vec<Holder>,
    deadline: Option<Duration>,
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

/// One connection's frames.
#[derive(Clone, Debug, Default)]
struct Ledger {
    last_seq: u64,
    received: u64,
    outstanding: BTreeMap<u64, FrameId>,
    /// Of these, the ones whose frames no worker has stored, and when they were sent.
    unstored: BTreeMap<u64, Duration>,
}

/// All retained frames. Bounded by bytes.
#[derive(Clone, Debug)]
pub struct Retention {
    limit: usize,
    bytes: usize,
    last_id: FrameId,
    frames: BTreeMap<FrameId, Frame>,
    ledgers: BTreeMap<WorkerId, Ledger>,
    unheld: BTreeSet<FrameId>,
    deadlines: BTreeSet<(Duration, FrameId)>,
}

impl Frame {
    fn cost(&self) -> usize {
        self.datagram.len() + OVERHEAD
    }

    /// A frame that nobody has yet.
    pub fn new(gateway: Eui64, source: Source, version: u8, token: u16, datagram: Bytes) -> Self {
        Self {
            gateway,
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
            patience_used: false,
            holders: Vec::new(),
            deadline: None,
        }
    }
}

impl Retention {
    /// Room for `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: 0,
            last_id: 0,
            frames: BTreeMap::new(),
            ledgers: BTreeMap::new(),
            unheld: BTreeSet::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Takes a frame in, if there is room.
    pub fn admit(&mut self, frame: Frame) -> Result<FrameId, DropReason> {
        if self.bytes + frame.cost() > self.limit {
            return Err(DropReason::RetentionFull);
        }
        self.bytes += frame.cost();
        self.last_id += 1;
        self.frames.insert(self.last_id, frame);
        self.unheld.insert(self.last_id);
        Ok(self.last_id)
    }

    pub fn frame(&self, id: FrameId) -> Option<&Frame> {
        self.frames.get(&id)
    }

    pub fn frame_mut(&mut self, id: FrameId) -> Option<&mut Frame> {
        self.frames.get_mut(&id)
    }

    /// Gives a frame to a worker: the message to send. It may be held by several workers at once.
    pub fn assign(&mut self, id: FrameId, worker: WorkerId, now: Duration) -> Option<UplinkFrame> {
        let frame = self.frames.get_mut(&id)?;
        let ledger = self.ledgers.entry(worker).or_default();
        ledger.last_seq += 1;
        ledger.outstanding.insert(ledger.last_seq, id);
        if !frame.stored {
            ledger.unstored.insert(ledger.last_seq, now);
        }
        frame.holders.push(Holder { worker, seq: ledger.last_seq });
        self.unheld.remove(&id);
        let attempt = frame.deliveries;
        frame.deliveries = frame.deliveries.saturating_add(1);
        Some(UplinkFrame {
            seq: ledger.last_seq,
            received_at: frame.received_at,
            gateway: frame.gateway,
            attempt,
            datagram: frame.datagram.clone(),
        })
    }

    /// Applies what a worker acknowledges; the PUSH_ACKs that are due then. Numbers that are settled already, or were never given, mean nothing.
    pub fn on_ack(&mut self, worker: WorkerId, ack: &Ack, ack_received: bool) -> Vec<PushAck> {
        let mut out = Vec::new();
        let received = self.advance_received(worker, ack.received);
        if ack_received {
            received.into_iter().for_each(|id| self.mark_acked(id, &mut out));
        }
        for &seq in &ack.stored {
            if let Some(id) = self.lookup(worker, seq) {
                self.mark_stored(id, &mut out);
            }
        }
        for &seq in &ack.done {
            if let Some(id) = self.lookup(worker, seq) {
                self.mark_stored(id, &mut out);
                self.release(id);
            }
        }
        out
    }

    /// Frames newly covered by the cumulative number.
    fn advance_received(&mut self, worker: WorkerId, received: u64) -> Vec<FrameId> {
        let Some(ledger) = self.ledgers.get_mut(&worker) else { return Vec::new() };
        let received = received.min(ledger.last_seq);
        if received <= ledger.received {
            return Vec::new();
        }
        let newly = ledger.outstanding.range(ledger.received + 1..=received).map(|(_, &id)| id).collect();
        ledger.received = received;
        newly
    }

    fn lookup(&self, worker: WorkerId, seq: u64) -> Option<FrameId> {
        self.ledgers.get(&worker)?.outstanding.get(&seq).copied()
    }

    fn mark_stored(&mut self, id: FrameId, out: &mut Vec<PushAck>) {
        if let Some(frame) = self.frames.get_mut(&id).filter(|f| !f.stored) {
            frame.stored = true;
            for holder in &frame.holders {
                if let Some(ledger) = self.ledgers.get_mut(&holder.worker) {
                    ledger.unstored.remove(&holder.seq);
                }
            }
        }
        self.mark_acked(id, out);
    }

    fn mark_acked(&mut self, id: FrameId, out: &mut Vec<PushAck>) {
        let Some(frame) = self.frames.get_mut(&id).filter(|f| !f.acked) else { return };
        frame.acked = true;
        out.push(PushAck { to: frame.source, version: frame.version, token: frame.token, arrived: frame.arrived });
    }

    /// Forgets a frame: it is done, or given up.
    pub fn release(&mut self, id: FrameId) -> Option<Frame> {
        let frame = self.frames.remove(&id)?;
        self.bytes -= frame.cost();
        self.unheld.remove(&id);
        if let Some(deadline) = frame.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        for holder in &frame.holders {
            if let Some(ledger) = self.ledgers.get_mut(&holder.worker) {
                ledger.outstanding.remove(&holder.seq);
                ledger.unstored.remove(&holder.seq);
            }
        }
        Some(frame)
    }

    /// Forgets a connection; the frames that were on it.
    pub fn forget_worker(&mut self, worker: WorkerId) -> Vec<FrameId> {
        let Some(ledger) = self.ledgers.remove(&worker) else { return Vec::new() };
        let orphans: Vec<FrameId> = ledger.outstanding.into_values().collect();
        for &id in &orphans {
            if let Some(frame) = self.frames.get_mut(&id) {
                frame.holders.retain(|h| h.worker != worker);
                if frame.holders.is_empty() {
                    self.unheld.insert(id);
                }
            }
        }
        orphans
    }

    /// What a worker has not finished, in the order it was sent.
    pub fn unfinished(&self, worker: WorkerId) -> impl Iterator<Item = FrameId> {
        self.ledgers.get(&worker).into_iter().flat_map(|l| l.outstanding.values().copied())
    }

    /// When this worker got the first of its frames that nobody has stored.
    pub fn unstored_since(&self, worker: WorkerId) -> Option<Duration> {
        self.ledgers.get(&worker)?.unstored.values().next().copied()
    }

    /// How many frames a worker has not finished.
    pub fn unfinished_count(&self, worker: WorkerId) -> usize {
        self.ledgers.get(&worker).map_or(0, |l| l.outstanding.len())
    }

    /// Frames that wait for any worker, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = FrameId> {
        self.unheld.iter().copied()
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
