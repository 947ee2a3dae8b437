//! A data uplink: what it is to its session (step 4 of the protocol), and what accepting it changes (step 5).

mod accept;
mod answers;

pub use accept::{Uplink, accept};

use core::time::Duration;

use limpet_shared::{UnixMicros, lorawan::DataFrame};

use crate::{
    model::{SessionRow, SlotKind},
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
    /// A counter that was used before, too late for an overtaken uplink: somebody replays it.
    Replay,
    /// It stands in the slot and is not finished.
    Finish,
    Accept(Acceptance),
}

/// Finds the session whose key verifies the MIC, and the 32-bit FCntUp that does.
pub fn pick<'a>(rows: &'a [SessionRow], frame: &DataFrame<'_>) -> Option<(&'a SessionRow, u32)> {
    rows.iter().find_map(|row| {
        let key = &row.session.keys.nwk_s_key;
        let fcnt = row.session.seen.candidates(frame.fcnt).find(|full| frame.verify(key, *full))?;
        Some((row, fcnt))
    })
}

/// Step 4. `relaxed`: the device's owner allows counters that start again.
pub fn judge(row: &SessionRow, fcnt: u32, confirmed: bool, received_at: UnixMicros, relaxed: bool) -> Verdict {
    let session = &row.session;
    let in_slot = matches!(session.slot.kind, SlotKind::Up(f) | SlotKind::AckAgain(f) if f == fcnt);
    if in_slot {
        return judge_in_slot(row, fcnt, confirmed, received_at);
    }
    let later = received_at > session.seen.high_at + CLOCK_SKEW;
    match session.seen.standing(fcnt) {
        Standing::Next => Verdict::Accept(Acceptance::New),
        Standing::Overtaken if !later => Verdict::Accept(Acceptance::Overtaken),
        Standing::Overtaken | Standing::Taken if relaxed && later => Verdict::Accept(Acceptance::Restarted),
        Standing::Overtaken => Verdict::Replay,
        Standing::Taken if later => Verdict::Replay,
        Standing::Taken => Verdict::AlreadyOut,
    }
}

fn judge_in_slot(row: &SessionRow, fcnt: u32, confirmed: bool, received_at: UnixMicros) -> Verdict {
    let slot = &row.session.slot;
    if row.marks.out < slot.number {
        return Verdict::Finish;
    }
    let repeated = received_at >= slot.received_at + REPEAT_AFTER;
    if confirmed && repeated && row.session.seen.is_highest(fcnt) {
        Verdict::Accept(Acceptance::AckAgain)
    } else {
        Verdict::AlreadyOut
    }
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
