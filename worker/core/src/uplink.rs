//! A data uplink: what it is to its session (step 4 of the protocol), and what accepting it changes (step 5).

mod accept;
mod answer;
mod commands;
mod requests;

pub use accept::{Uplink, accept};
pub use answer::{Next, Reply, decide, next};
pub use requests::describe as describe_request;

use core::time::Duration;

use limpet_shared::{UnixMicros, lorawan::DataFrame};

use crate::{
    model::{Request, RequestState, Session, SessionRow, SlotKind},
    seen::{CLOCK_SKEW, Standing},
};

/// A confirmed uplink heard this much later than the accepted one is a repetition by the device, which missed the ACK;
/// sooner, it is another copy of the same transmission. Class A devices wait at least for RX1 before they repeat.
pub const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// How an uplink is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Above all before it.
    New,
    /// A faster worker accepted its successor first: its event counts, nothing else.
    Overtaken,
    /// A confirmed uplink repeated by its device: another ACK, no event.
    AckAgain,
    /// The device started again from a lower counter, which its owner allows.
    Restarted,
}

/// What an uplink is to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its event is out, or it will be without us: nothing to do.
    AlreadyOut,
    /// The same counter again, so much later that the device itself sent it again.
    Retransmission,
    /// A counter that was used before, too late for an overtaken uplink: somebody replays it, or the device has lost its counter.
    Replay,
    /// Received before the session began, or before an uplink that counts less: of a time that is over.
    Outdated,
    /// It stands in the slot and is not finished.
    Finish,
    Accept(Acceptance),
}

/// A frame whose MIC is right, as it was heard.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedFrame {
    /// The 32-bit FCntUp that verified.
    pub fcnt: u32,
    pub confirmed: bool,
    pub mic: [u8; 4],
    /// Of the earliest copy.
    pub received_at: UnixMicros,
    /// The present time on the clock that `received_at` is of.
    pub now: UnixMicros,
    /// Found again in the store, and not handed over by a balancer.
    pub swept: bool,
}

impl VerifiedFrame {
    /// Whether it is of a time before the session, or before its device started again, whatever its MIC says: a session
    /// activated anew, or with a counter that started again, may have the keys and the counters of what was. A frame that is just
    /// coming in may seem to come before by what clocks differ; one that the sweep finds is not given that.
    fn is_before(&self, session: &Session) -> bool {
        self.was_before(session.since, self.skew())
            || self.is_of_the_replaced(session)
            // The frame that began again was received at least CLOCK_SKEW later than that.
            || self.received_at <= session.seen.restarted_after
                && session.seen.restarted_after + self.skew() <= self.now
    }

    /// Whether it was received before that moment. One beyond the present is of a clock that is ahead of this one, or was before
    /// somebody set it, and says nothing: a frame that is just coming in is never before anything by its clock alone.
    fn was_before(&self, moment: UnixMicros, skew: Duration) -> bool {
        self.received_at + skew < moment && moment <= self.now
    }

    /// Whether it was received when the session began, as far as clocks can tell, and goes on counting where the session before
    /// stopped: accepted, it would make a replay of all that the device, which counts anew, sends from then on.
    fn is_of_the_replaced(&self, session: &Session) -> bool {
        let apart = self.received_at.since(session.since).max(session.since.since(self.received_at));
        apart <= CLOCK_SKEW && session.replaced_at.is_some_and(|next| self.fcnt >= next)
    }

    fn skew(&self) -> Duration {
        if self.swept { Duration::ZERO } else { CLOCK_SKEW }
    }

    /// Whether by the session it is later than it is: of two balancers' clocks one is wrong, or one was set back.
    pub fn finds_clocks_apart(&self, session: &Session) -> bool {
        !self.swept && session.since.max(session.seen.high_at) > self.now + CLOCK_SKEW
    }
}

/// When a frame was received.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// As [`VerifiedFrame`] has them.
    pub received_at: UnixMicros,
    pub now: UnixMicros,
    pub swept: bool,
}

/// Finds the session whose key verifies the MIC, and the 32-bit FCntUp that does. Of two sessions with one key, of which one is over, it
/// is the younger that takes the frame as one of its time: what the device has sent before it was activated anew is of the other.
pub fn pick<'a>(
    rows: impl IntoIterator<Item = &'a SessionRow>,
    frame: &DataFrame<'_>,
    heard: Heard,
) -> Option<(&'a SessionRow, u32)> {
    let verified = rows.into_iter().filter_map(|row| {
        let key = &row.session.device_keys().nwk_s_key;
        let fcnt = row.session.seen.candidates(frame.fcnt).find(|full| frame.verify(key, *full))?;
        Some((row, fcnt))
    });
    let rank = |(row, fcnt): &(&SessionRow, u32)| {
        let Heard { received_at, now, swept } = heard;
        let frame = VerifiedFrame { fcnt: *fcnt, confirmed: false, mic: frame.mic, received_at, now, swept };
        // Whether its owner allows it to be a restart is not known here.
        let takes = !matches!(judge(row, &frame, true), Verdict::Outdated | Verdict::Replay);
        (takes, row.session.since, row.session.key)
    };
    // Asked only where there are two.
    verified.max_by(|one, other| rank(one).cmp(&rank(other)))
}

/// Step 4. `relaxed`: the device's owner allows counters that start again.
pub fn judge(row: &SessionRow, frame: &VerifiedFrame, relaxed: bool) -> Verdict {
    let verdict = judge_in_its_time(row, frame, relaxed);
    let Some(over) = row.session.over else { return verdict };
    match verdict {
        Verdict::Accept(_) if frame.received_at > over.at + CLOCK_SKEW => Verdict::Outdated,
        // Nothing is answered there any more.
        Verdict::Accept(Acceptance::AckAgain) => Verdict::Retransmission,
        verdict => verdict,
    }
}

fn judge_in_its_time(row: &SessionRow, frame: &VerifiedFrame, relaxed: bool) -> Verdict {
    let (session, fcnt) = (&row.session, frame.fcnt);
    let in_slot = matches!(session.slot.kind, SlotKind::Up(f) | SlotKind::AckAgain(f) if f == fcnt);
    if in_slot {
        return judge_in_slot(row, frame, relaxed);
    }
    if frame.is_before(session) {
        return Verdict::Outdated;
    }
    if session.seen.is_highest(fcnt) && frame.received_at >= session.seen.high_at + repeat_after(session) {
        return judge_again(session.seen.high_mic, session, frame, relaxed);
    }
    let later = frame.received_at > session.seen.high_at + CLOCK_SKEW;
    match session.seen.standing(fcnt) {
        Standing::Next if frame.was_before(session.seen.high_at, CLOCK_SKEW) => Verdict::Outdated,
        Standing::Next => Verdict::Accept(Acceptance::New),
        Standing::Overtaken if !later => Verdict::Accept(Acceptance::Overtaken),
        Standing::Overtaken | Standing::Taken if relaxed && later => Verdict::Accept(Acceptance::Restarted),
        Standing::Overtaken => Verdict::Replay,
        Standing::Taken if later => Verdict::Replay,
        Standing::Taken => Verdict::AlreadyOut,
    }
}

fn judge_in_slot(row: &SessionRow, frame: &VerifiedFrame, relaxed: bool) -> Verdict {
    let slot = &row.session.slot;
    if row.marks.out < slot.number {
        return Verdict::Finish;
    }
    if frame.received_at < slot.received_at + repeat_after(&row.session) {
        return Verdict::AlreadyOut;
    }
    judge_again(slot.mic, &row.session, frame, relaxed)
}

/// Before that it is no repetition: a device listens first.
fn repeat_after(session: &Session) -> Duration {
    REPEAT_AFTER.max(Duration::from_secs(session.mac.rx1_delay.into()))
}

/// An accepted counter, heard so much later that its device must have sent it again. `mic`: of the frame that was accepted.
fn judge_again(mic: Option<[u8; 4]>, session: &Session, frame: &VerifiedFrame, relaxed: bool) -> Verdict {
    let is_highest = session.seen.is_highest(frame.fcnt);
    if mic.is_some_and(|mic| mic != frame.mic) {
        // Another frame: the first after every start, of a device that keeps no counter.
        let starts = is_highest || frame.received_at > session.seen.high_at + CLOCK_SKEW;
        return if relaxed && starts { Verdict::Accept(Acceptance::Restarted) } else { Verdict::Replay };
    }
    if frame.confirmed && is_highest { Verdict::Accept(Acceptance::AckAgain) } else { Verdict::Retransmission }
}

/// Requests to the device that are over since `before`, for the device refuses them or never answers.
pub fn given_up<'a>(before: &'a Session, now: &'a Session) -> impl Iterator<Item = &'a Request> {
    let is_over = |request: &&Request| request.state != RequestState::Waiting;
    now.mac.requests.iter().filter(is_over).filter(|request| {
        before.mac.requests.iter().all(|was| (was.state, &was.commands) != (request.state, &request.commands))
    })
}

/// Whether the event before the next one may be in the pending table (`p` of the model): the next one then looks there
/// before it goes out.
pub fn behind_pending(row: &SessionRow) -> bool {
    let slot = &row.session.slot;
    match slot.kind {
        SlotKind::Empty => false,
        SlotKind::AckAgain(_) => slot.behind_pending,
        SlotKind::Join | SlotKind::Up(_) => !row.slot_is_out() || row.marks.out_through_pending,
    }
}
