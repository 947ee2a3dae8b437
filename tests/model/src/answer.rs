//! What a worker makes of the session that it read: step 4 of the protocol, and the answer's own decision.

use crate::{
    rule::Rule,
    scenario::Scenario,
    state::{Answer, Item, Phase, Plan, Row, State, What},
};

/// What a frame is to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is left to do for it.
    Done,
    /// It stands in the slot, and its event is not known to be out.
    Finish,
    /// A compare-and-set; before it, the event of that uplink must be kept.
    Write(Plan, Option<u8>),
    /// Its answer is open.
    Await,
    /// Its answer is decided, and may not have been sent.
    Send,
}

/// What the answer's step comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is nothing to say, or no window to say it in, or another uplink's answer.
    Ended,
    /// It was decided.
    Send,
    Decide(Plan),
    /// The row is older than the answer that one waits for: it is read again, at SERIAL.
    Stale,
}

impl Row {
    pub(crate) fn slot_is_out(&self, state: &State) -> bool {
        state.mark.out >= self.number
    }

    /// Whether the event before the next one may be in the pending table.
    fn next_is_behind(&self, state: &State) -> bool {
        if self.has_event { !self.slot_is_out(state) || state.mark.through_pending } else { self.behind }
    }

    /// The decided answer's downlink, as something to send.
    pub(crate) fn decided(&self) -> Plan {
        let reply = &self.reply;
        let (number, by, ack, item, down) = (reply.number, reply.by, reply.ack, reply.item, reply.down);
        Plan { what: What::Answer, number, by, ack, item, down, ..Plan::default() }
    }
}

impl State {
    pub(crate) fn has_window(&self, sent: u8) -> bool {
        self.phase[usize::from(sent)] < Phase::Closed
    }

    /// Whether the item is in the queue, and no TX_ACK says that it was on air.
    pub(crate) fn has_item_for(&self, row: &Row) -> bool {
        self.item == Item::Queued && (row.first_down == 0 || self.mark.sent < row.first_down)
    }

    /// Only what carries an item leaves a mark when it is on air.
    fn known_on_air(&self, row: &Row) -> bool {
        row.reply.item && self.mark.sent >= row.reply.down
    }
}

impl Scenario {
    /// Step 4, for a transmission.
    pub(crate) fn judge(&self, state: &State, row: &Row, sent: usize) -> Verdict {
        let up = self.up(sent);
        let is_out = row.slot_is_out(state);
        if row.number > 0 && self.up(usize::from(row.by)) == up && !is_out {
            return Verdict::Finish;
        }
        let keep = !is_out && row.has_event && !self.lacks(Rule::KeepBeforeReplacing);
        let keep = keep.then(|| self.up(usize::from(row.by)));
        let (is_seen, is_highest) = (row.seen >> up & 1 == 1, row.seen >> (up + 1) == 0);
        if !is_seen {
            if !is_highest && self.lacks(Rule::AcceptOvertaken) {
                return Verdict::Done;
            }
            let what = if is_highest { What::Accept } else { What::Late };
            return Verdict::Write(self.acceptance(state, row, sent, what), keep);
        }
        let repeats = self.confirmed(sent) && sent > usize::from(row.high_by);
        if is_highest && repeats && !self.lacks(Rule::RepeatIsAnswered) {
            return Verdict::Write(self.acceptance(state, row, sent, What::Again), keep);
        }
        self.judge_answer(state, row, up)
    }

    /// An accepted uplink whose event is out.
    fn judge_answer(&self, state: &State, row: &Row, up: u8) -> Verdict {
        let reply = &row.reply;
        if reply.number == 0 || self.up(usize::from(reply.by)) != up {
            return Verdict::Done;
        }
        let has_window = state.has_window(reply.by);
        match reply.answer {
            Answer::Open if has_window && !self.lacks(Rule::TakeOverAnswers) => Verdict::Await,
            Answer::Closed if self.lacks(Rule::ClosedStaysClosed) => Verdict::Await,
            Answer::Decided if has_window && !state.known_on_air(row) && !self.lacks(Rule::SendDecidedAgain) => {
                Verdict::Send
            }
            _ => Verdict::Done,
        }
    }

    /// Step 5: what accepting writes.
    fn acceptance(&self, state: &State, row: &Row, sent: usize, what: What) -> Plan {
        let by = sent as u8;
        let behind = row.next_is_behind(state) && !self.lacks(Rule::WaitBehind);
        let plan = Plan { what, rev: row.rev, number: row.number + 1, by, behind, ..Plan::default() };
        if what == What::Late || !state.has_window(by) {
            return plan;
        }
        let (ack, item) = (self.confirmed(sent), what == What::Accept && state.has_item_for(row));
        let is_later = self.reply_delay && what == What::Accept && !(self.waiting_item_at_once && item);
        let (answer, down) = match () {
            () if is_later => (Answer::Open, 0),
            () if ack || item => (Answer::Decided, row.last_down + 1),
            () => (Answer::Closed, 0),
        };
        // What is opened says nothing of the queue, which is read when it is decided.
        let item = item && (!is_later || self.lacks(Rule::QueueWhenDeciding));
        Plan { answer, ack, item, down, ..plan }
    }

    /// The answer's step, for who waited for the answer opened with that slot: at the end of `reply_delay`, or for an enqueuer
    /// at once.
    pub(crate) fn answer(&self, state: &State, row: &Row, number: u8, sent: u8) -> Next {
        let reply = &row.reply;
        let own = reply.number == number;
        if !own && !self.lacks(Rule::OwnSlotOnly) {
            let is_older = reply.number < number && !self.lacks(Rule::NeverGoBack);
            return if is_older { Next::Stale } else { Next::Ended };
        }
        let can_decide = match reply.answer {
            Answer::Open => state.has_window(reply.by),
            Answer::Closed => self.lacks(Rule::ClosedStaysClosed),
            Answer::Decided if self.lacks(Rule::DecideOnce) => state.has_window(reply.by),
            Answer::Decided => {
                let unsent = state.has_window(reply.by) && !state.known_on_air(row);
                return if unsent { Next::Send } else { Next::Ended };
            }
        };
        let knew = self.lacks(Rule::QueueWhenDeciding);
        let item = if knew { reply.item } else { state.has_item_for(row) };
        let ack = if own { reply.ack } else { self.confirmed(usize::from(sent)) };
        if !can_decide || !(ack || item || self.lacks(Rule::NothingIsNotWritten)) {
            return Next::Ended;
        }
        let (rev, by, down) = (row.rev, reply.by, row.last_down + 1);
        let number = reply.number;
        Next::Decide(Plan { what: What::Answer, rev, number, by, ack, item, down, ..Plan::default() })
    }
}
