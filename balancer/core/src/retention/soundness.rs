//! What must hold after every step.

use super::{FrameId, Holder, RetainedFrame, Retention, State};

/// More frames than this are looked at only now and then: each look costs time for each of them.
const FEW: usize = 64;
const NOW_AND_THEN: u64 = 1_024;

impl Retention {
    /// Whether all that is written down in two places is the same there: frames and ledgers, bytes and shares, those that
    /// wait, and deadlines. `step` counts the steps, so that with many frames not every one of them is looked at.
    pub fn is_sound(&self, step: u64) -> bool {
        if self.frames.len() > FEW && !step.is_multiple_of(NOW_AND_THEN) {
            return true;
        }
        let held = self.frames.values().map(RetainedFrame::cost).sum::<usize>();
        let sent = self.ledgers.values().map(|ledger| ledger.len()).sum::<usize>();
        let stored = |id: FrameId| self.frames.get(&id).is_some_and(|frame| frame.stored);
        held == self.bytes
            && self.bytes <= self.limit
            && self.shares.values().sum::<usize>() == held
            && sent == self.frames.values().map(|frame| frame.holders.len()).sum::<usize>()
            && self.frames.iter().all(|(id, frame)| self.is_frame_sound(*id, frame))
            && self.waiting.iter().all(|id| self.frames.contains_key(id))
            && self.deadlines.len() == self.frames.values().filter(|frame| frame.deadline.is_some()).count()
            && self.ledgers.values().all(|ledger| ledger.is_sound(stored))
    }

    /// A frame that nobody has waits, each holder's ledger has it under its number, and somebody will look at it again.
    fn is_frame_sound(&self, id: FrameId, frame: &RetainedFrame) -> bool {
        let in_ledger = |holder: &Holder| {
            self.ledgers.get(&holder.worker).is_some_and(|ledger| ledger.frame(holder.seq) == Some(id))
        };
        (frame.state() == State::Waiting) == self.waiting.contains(&id)
            && frame.holders.iter().all(in_ledger)
            && (frame.acked || !frame.stored)
            && frame.deadline.is_some_and(|at| self.deadlines.contains(&(at, id)))
    }
}
