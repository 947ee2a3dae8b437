//! The compare-and-set, and what becomes of a downlink's bytes.

use crate::{
    check::Wrong,
    rule::Rule,
    scenario::Scenario,
    state::{Answer, Item, Phase, Plan, Reply, Row, State, What},
};

/// How a gateway takes a downlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    OnAir,
    /// Not in RX1.
    Refused,
}

impl Scenario {
    /// Whether the store takes it; if so, it is written.
    pub(crate) fn write(&self, state: &mut State, plan: &Plan) -> bool {
        let fits = match plan.what {
            What::Answer if self.lacks(Rule::CompareRevisionToAnswer) => state.row.reply.number == plan.number,
            What::Accept | What::Late | What::Again if self.lacks(Rule::CompareToAccept) => true,
            _ => state.row.rev == plan.rev,
        };
        if !fits {
            return false;
        }
        state.old = Some(state.row);
        state.row.rev += 1;
        if plan.what == What::Answer {
            self.write_answer(state, plan);
        } else {
            self.write_slot(state, plan);
        }
        true
    }

    fn write_slot(&self, state: &mut State, plan: &Plan) {
        let up = self.up(usize::from(plan.by));
        let row = &mut state.row;
        row.number += 1;
        (row.by, row.behind, row.has_event) = (plan.by, plan.behind, plan.what != What::Again);
        row.seen |= 1 << up;
        if plan.what != What::Late {
            row.high_by = plan.by;
        }
        if plan.what != What::Late || self.lacks(Rule::OvertakenLeavesTheAnswer) {
            let Plan { answer, by, ack, item, down, .. } = *plan;
            row.reply = Reply { answer, number: row.number, by, ack, item, down };
        }
        if plan.what != What::Again {
            if state.watch.accepted >> up & 1 == 1 {
                state.wrong(Wrong::AcceptedTwice);
            }
            state.watch.accepted |= 1 << up;
            if state.first == 0 {
                state.first = up + 1;
            }
        }
        // The device sent this after the windows of all before; and what is overtaken is told, and not answered.
        state.watch.excused |= (1 << plan.by) - 1;
        if plan.what == What::Late {
            state.watch.excused |= 1 << plan.by;
        }
        if plan.answer == Answer::Decided {
            self.take_down(state, plan);
        }
    }

    fn write_answer(&self, state: &mut State, plan: &Plan) {
        if state.row.reply.answer == Answer::Closed {
            state.wrong(Wrong::ClosedDecided);
        }
        if !(plan.ack || plan.item) {
            state.wrong(Wrong::NothingWritten);
        }
        let reply = &mut state.row.reply;
        (reply.answer, reply.ack, reply.item, reply.down) = (Answer::Decided, plan.ack, plan.item, plan.down);
        self.take_down(state, plan);
    }

    /// The decision takes its FCntDown and its item.
    fn take_down(&self, state: &mut State, plan: &Plan) {
        let (down, number) = (1_u16 << plan.down, 1_u16 << state.row.reply.number);
        if state.watch.downs & down != 0 {
            state.wrong(Wrong::CounterTwice);
        }
        if state.watch.answered & number != 0 {
            state.wrong(Wrong::DecidedTwice);
        }
        state.watch.downs |= down;
        state.watch.answered |= number;
        let row = &mut state.row;
        row.last_down = row.last_down.max(plan.down);
        if plan.item {
            if row.first_down == 0 {
                row.first_down = plan.down;
            }
            if self.lacks(Rule::ItemUntilTxAck) {
                state.item = Item::Gone;
            }
        }
    }

    /// Another writer of the row (a class C downlink, the API): it keeps slot and answer.
    pub(crate) fn write_beside(&self, state: &mut State) {
        state.old = Some(state.row);
        state.row.rev += 1;
        state.row.last_down += 1;
        let down = state.row.last_down;
        if state.watch.downs & 1 << down != 0 {
            state.wrong(Wrong::CounterTwice);
        }
        state.watch.downs |= 1 << down;
        self.hand_over(state, down, 1);
    }

    /// Bytes leave a worker. 1 stands for those that the row has.
    fn hand_over(&self, state: &mut State, down: u8, bytes: u8) {
        if self.without.is_none() {
            return; // These are always the row's.
        }
        let known = &mut state.watch.bytes[usize::from(down)];
        if *known != 0 && *known != bytes {
            state.wrong(Wrong::TwoPayloads);
        } else {
            *known = bytes;
        }
    }

    /// Whether the balancer passes it on: each once, while a window is left.
    pub(crate) fn passes_on(state: &State, plan: &Plan) -> bool {
        state.has_window(plan.by) && state.passed_on >> plan.by & 1 == 0
    }

    /// The bytes go to the balancer, and from there to the gateway.
    pub(crate) fn send(&self, state: &mut State, plan: &Plan, made_up: u8, taken: Taken) {
        self.hand_over(state, plan.down, if made_up == 0 { 1 } else { made_up });
        if !Self::passes_on(state, plan) {
            return;
        }
        state.passed_on |= 1 << plan.by;
        match taken {
            Taken::OnAir => self.on_air(state, plan),
            // Where RX1 is over there is no second window.
            Taken::Refused if state.phase[usize::from(plan.by)] >= Phase::Rx2 => {
                state.watch.excused |= 1 << plan.by;
            }
            Taken::Refused => state.refused = Plan { what: What::Answer, rev: 0, number: 0, ..*plan },
        }
    }

    /// The balancer turns to RX2 by itself.
    pub(crate) fn send_in_rx2(&self, state: &mut State, taken: Taken) {
        let plan = std::mem::take(&mut state.refused);
        self.hand_over(state, plan.down, if self.lacks(Rule::SameBytesInRx2) { 9 } else { 1 });
        if taken == Taken::Refused {
            state.watch.excused |= 1 << plan.by;
        } else if state.has_window(plan.by) {
            self.on_air(state, &plan);
        }
    }

    fn on_air(&self, state: &mut State, plan: &Plan) {
        if plan.ack {
            state.watch.acked |= 1 << plan.by;
        }
        if plan.item {
            state.watch.carried |= 1 << plan.by;
            state.watch.aired |= self.lacks(Rule::ItemUntilTxAck);
            state.tx_acks |= 1 << plan.down;
        }
    }

    /// A TX_ACK, handled by whichever worker. On air means: not offered again.
    pub(crate) fn take_tx_ack(state: &mut State, down: u8) {
        state.tx_acks &= !(1 << down);
        state.mark.sent = state.mark.sent.max(down);
        let Row { first_down, .. } = state.row;
        if first_down != 0 && state.mark.sent >= first_down {
            state.item = Item::Gone;
        }
    }
}
