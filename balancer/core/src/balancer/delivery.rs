//! From a retained frame to *done*: who gets it, and when somebody else is asked.
//!
//! A frame is in one of the states of [`State`], with a moment (its *deadline*) at which it is looked at again. A worker
//! is *fit* for it if it is well, has read most of what it was sent, and does not have this frame; for a frame that nobody has its own
//! worker is, too, that is silent for a moment, where there is no other.
//!
//! | state | somebody stores it | somebody is done | all its holders are silent | a link is gone, and no well worker has it | the deadline |
//! | --- | --- | --- | --- | --- | --- |
//! | (new) | | | | | Sent to the best fit worker; else Waiting |
//! | Waiting | | | | | after [`WAIT_FOR_WORKER`]: dropped, `no_worker` |
//! | Sent | PUSH_ACK, Stored | PUSH_ACK, forgotten | to a fit one (`silent`), Sent | to a fit one (`closed`), Sent; else Waiting if nobody has it | after [`PATIENCE`]: to a fit one that gets its own stored (`slow`), AskedTwice; else Sent, with more patience |
//! | AskedTwice | PUSH_ACK, Stored | PUSH_ACK, forgotten | to a fit one (`silent`), AskedTwice | the same, AskedTwice | after [`UNFINISHED`]: to a fit one that gets its own stored (`slow`); else the same |
//! | Stored | | forgotten | to a fit one (`silent`), Stored | the same, Stored | after [`UNFINISHED`]: to a fit one that gets its own stored (`slow`); else the same |
//!
//! A PUSH_ACK goes out once, and not at all more than [`ACK_WITHIN`] after its PUSH_DATA; where *received* is enough ([`AckAt::Received`]), it goes when a worker has read the frame. A Waiting frame
//! goes to a worker as soon as one is fit, and is then Sent, or what it was before it had to wait. Each time that a frame goes to
//! somebody else, or that its link is gone and no well worker has it, counts as a failure; with more than [`MAX_FAILURES`] it is dropped,
//! `poison`. Whoever has not read a frame that is forgotten gets it no more. After a time in which the balancer itself did not run,
//! workers have [`PATIENCE`] to be heard before a deadline of theirs counts.
//! What is written down in two places (frames, their holders' ledgers, bytes, who waits, deadlines) is compared in debug builds
//! after every step (`retention/soundness.rs`).

use alloc::vec::Vec;
use core::time::Duration;

use limpet_shared::{Now, gwmp, link::Ack};

use super::Balancer;
use crate::{
    action::{Action, DropReason, Event, Redelivery, WorkerId},
    config::AckAt,
    health::Verdict,
    retention::{FrameId, Holder, RetainedFrame, State},
};

/// For how long a frame waits for a worker to come, or for the store of all of them: the longest total outage that is
/// survived, if memory lasts so long.
pub const WAIT_FOR_WORKER: Duration = Duration::from_secs(3_600);
/// Sent but not stored for so long: one other worker is tried. The store may be slow, and double load helps no store.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// A frame that nobody finishes for so long is tried elsewhere, so that none can stay for ever.
pub const UNFINISHED: Duration = Duration::from_secs(30);
/// Who has waited so long for a PUSH_ACK waits no more: a later one would be taken for nothing, or for another one's.
pub const ACK_WITHIN: Duration = Duration::from_secs(2);
/// A frame whose workers failed more often than this is set aside.
pub const MAX_FAILURES: u8 = 10;

impl Balancer {
    /// A frame that was just taken in.
    pub(super) fn deliver_first(&mut self, now: Now, frame: RetainedFrame) -> Result<(), DropReason> {
        let gateway = frame.gateway;
        let id = self.retention.admit(frame)?;
        if !self.deliver(now, id) {
            self.retention.set_deadline(id, now.mono + WAIT_FOR_WORKER);
        } else if self.worker_of(gateway).is_some_and(|own| self.retention.is_full(own)) {
            self.event(Event::Spilled { gateway });
        }
        Ok(())
    }

    /// Gives a frame that waits to the best worker; false if there is none.
    fn deliver(&mut self, now: Now, id: FrameId) -> bool {
        match self.best_for(id, &[]) {
            Some(worker) => self.assign(now, id, worker),
            None => false,
        }
    }

    fn is_well(&self, id: WorkerId) -> bool {
        self.workers.get(id).is_some_and(|worker| worker.vitals.verdict == Verdict::Well)
    }

    /// The gateway's own worker, or the next one on the ring, if it is fit and none of `besides`.
    fn best_for(&mut self, id: FrameId, besides: &[WorkerId]) -> Option<WorkerId> {
        let frame = self.retention.frame(id)?;
        let gateway = frame.gateway;
        let mut avoid: Vec<WorkerId> = frame.holders.iter().map(|holder| holder.worker).collect();
        let nobody_has_it = avoid.is_empty();
        avoid.extend(besides);
        let own = self.worker_of(gateway);
        let fit = |id: WorkerId| self.is_well(id) && !self.retention.is_full(id);
        if let Some(own) = own.filter(|own| fit(*own) && !avoid.contains(own)) {
            return Some(own);
        }
        avoid.extend(self.workers.iter().map(|(id, _)| id).filter(|id| !fit(*id)));
        // With nobody else there, its own worker, which is silent for a moment.
        let silent = own.filter(|own| nobody_has_it && !self.retention.is_full(*own));
        self.routing.choose_avoiding(gateway, &avoid).or(silent)
    }

    fn assign(&mut self, now: Now, id: FrameId, worker: WorkerId) -> bool {
        let Some(message) = self.retention.assign(id, worker, now.mono) else { return false };
        let state = self.retention.frame(id).map_or(State::Waiting, RetainedFrame::state);
        self.retention.set_deadline(id, now.mono + patience_in(state));
        let live = self.live(now);
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.vitals.busy(live, state == State::Stored);
        }
        self.push(Action::SendFrame { worker, frame: message });
        true
    }

    /// A worker acknowledges frames.
    pub fn on_ack(&mut self, now: Now, worker: WorkerId, ack: &Ack) {
        self.tick(now);
        let live = self.live(now);
        let Some(sender) = self.workers.get_mut(worker) else { return };
        sender.vitals.acked(live);
        let acked = self.retention.on_ack(worker, ack, self.config.ack == AckAt::Received);
        for due in acked.push_acks {
            let after = now.mono.saturating_sub(due.arrived);
            if after > ACK_WITHIN {
                self.event(Event::PushAckWithheld { after });
                continue;
            }
            self.push(Action::SendUdp { to: due.to, bytes: gwmp::push_ack(due.version, due.token).to_vec().into() });
            self.event(Event::PushAcked { after });
        }
        self.withdraw(acked.withdrawn);
        self.settle_idle();
        self.recovered(now, worker);
        self.rescue_waiting(now);
        if self.held_back {
            self.judge(now);
        }
    }

    fn withdraw(&mut self, unread: Vec<Holder>) {
        for Holder { worker, seq } in unread {
            self.push(Action::WithdrawFrame { worker, seq });
        }
    }

    /// A worker that holds nothing owes no acknowledgement, and one whose frames are stored owes it less often, whoever
    /// did that.
    pub(super) fn settle_idle(&mut self) {
        for (id, worker) in self.workers.iter_mut() {
            if self.retention.unfinished_count(id) == 0 {
                worker.vitals.idle();
            } else if self.retention.unstored_since(id).is_none() {
                worker.vitals.calm();
            }
        }
    }

    /// Frames that no healthy worker has, while one may be there to take them.
    pub(super) fn rescue(&mut self, now: Now) {
        self.rescue_waiting(now);
        // With nobody to take them, what silent workers hold is not walked through, which may be very much.
        if !self.workers.iter().any(|(id, _)| self.is_well(id)) {
            return;
        }
        let silent: Vec<WorkerId> = self.workers.iter().map(|(id, _)| id).filter(|id| !self.is_well(*id)).collect();
        for worker in silent {
            let stuck: Vec<FrameId> = self.retention.unfinished(worker).collect();
            for id in stuck.into_iter().filter(|&id| !self.in_good_hands(id)).collect::<Vec<_>>() {
                self.hand_over(now, id, Redelivery::Silent, &[]);
            }
        }
    }

    /// The oldest first, until nobody takes any more.
    fn rescue_waiting(&mut self, now: Now) {
        while let Some(id) = self.retention.first_waiting() {
            if !self.deliver(now, id) {
                break;
            }
        }
    }

    /// Whether a healthy worker has the frame.
    fn in_good_hands(&self, id: FrameId) -> bool {
        let Some(frame) = self.retention.frame(id) else { return true };
        frame.holders.iter().any(|holder| self.is_well(holder.worker))
    }

    /// The link is gone on which the frame was sent.
    pub(super) fn orphaned(&mut self, now: Now, id: FrameId) {
        if self.in_good_hands(id) || !self.count_failure(id) {
            return;
        }
        if let Some(worker) = self.best_for(id, &[]) {
            self.redelivered(now, id, worker, Redelivery::Closed);
        } else if self.retention.frame(id).is_some_and(|frame| frame.state() == State::Waiting) {
            self.retention.set_deadline(id, now.mono + WAIT_FOR_WORKER);
        }
    }

    /// Gives the frame to another worker, but to none of `besides`; false if nobody is fit.
    fn hand_over(&mut self, now: Now, id: FrameId, why: Redelivery, besides: &[WorkerId]) -> bool {
        let Some(worker) = self.best_for(id, besides) else { return false };
        if !self.count_failure(id) {
            return true;
        }
        if let Some(frame) = self.retention.frame_mut(id) {
            frame.asked_twice |= why == Redelivery::Slow;
        }
        self.redelivered(now, id, worker, why);
        true
    }

    fn redelivered(&mut self, now: Now, id: FrameId, worker: WorkerId, why: Redelivery) {
        let Some(frame) = self.retention.frame(id) else { return };
        let (gateway, attempt) = (frame.gateway, frame.deliveries);
        self.assign(now, id, worker);
        self.event(Event::Redelivered { gateway, attempt, why });
    }

    /// Whether the frame may be tried again. If not, it is set aside.
    fn count_failure(&mut self, id: FrameId) -> bool {
        let Some(frame) = self.retention.frame_mut(id) else { return false };
        frame.failures = frame.failures.saturating_add(1);
        let goes_on = frame.failures <= MAX_FAILURES;
        if !goes_on {
            self.give_up(id, DropReason::Poison);
        }
        goes_on
    }

    /// A frame's moment has come.
    pub(super) fn on_frame_due(&mut self, now: Now, id: FrameId) {
        let Some(frame) = self.retention.frame(id) else { return };
        let (state, finished_by) = (frame.state(), frame.arrived + UNFINISHED);
        let heard_by = self.stalled_until + PATIENCE;
        match state {
            State::Waiting => self.give_up(id, DropReason::NoWorker),
            // What workers said while the balancer did not run is still to be read.
            _ if now.mono < heard_by && self.stalled_until > Duration::ZERO => {
                self.retention.set_deadline(id, heard_by)
            }
            // It was stored since the deadline was set.
            State::Stored if now.mono < finished_by => self.retention.set_deadline(id, finished_by),
            State::Sent | State::AskedTwice | State::Stored => self.on_slow(now, id, state),
        }
    }

    /// Its workers are well and do not get it stored, or done. Another one is asked, but not one that gets nothing stored
    /// either: then it is the store that is slow, and the same work once more would make it slower.
    fn on_slow(&mut self, now: Now, id: FrameId, state: State) {
        let late = |given| given + PATIENCE <= now.mono;
        let workers = self.workers.iter().map(|(id, _)| id);
        let behind = workers.filter(|worker| self.retention.unstored_since(*worker).is_some_and(late));
        let behind: Vec<WorkerId> = behind.collect();
        if !self.hand_over(now, id, Redelivery::Slow, &behind)
            && let Some(frame) = self.retention.frame(id)
        {
            // Under more work than can be done very many wait: each is looked at less and less often.
            let waited = now.mono.saturating_sub(frame.arrived).min(UNFINISHED);
            self.retention.set_deadline(id, now.mono + patience_in(state).max(waited / 3));
        }
    }

    fn give_up(&mut self, id: FrameId, reason: DropReason) {
        if let Some((frame, unread)) = self.retention.release(id) {
            self.withdraw(unread);
            self.dropped(reason, Some(frame.gateway), Some(frame.source.address));
            self.settle_idle();
        }
    }
}

/// After what time a frame in this state is looked at again.
fn patience_in(state: State) -> Duration {
    match state {
        State::Waiting => WAIT_FOR_WORKER,
        State::Sent => PATIENCE,
        State::AskedTwice | State::Stored => UNFINISHED,
    }
}
