//! What must hold: in every state, when a receive window closes, and when all is over.

use crate::{
    rule::Rule,
    scenario::Scenario,
    state::{At, Frame, Item, Phase, State},
};

/// What can go wrong at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    AcceptedTwice = 1,
    CounterTwice,
    DecidedTwice,
    TwoPayloads,
    ClosedDecided,
    NothingWritten,
    TwoIds,
    OutOfOrder,
    AckMissing,
    ItemMissing,
}

impl Wrong {
    const ALL: [(Self, &'static str); 10] = [
        (Self::AcceptedTwice, "promise 2: one uplink is accepted twice"),
        (Self::CounterTwice, "promise 3: two downlinks are decided under one FCntDown"),
        (Self::DecidedTwice, "promise 2: one uplink is answered twice"),
        (Self::TwoPayloads, "promise 3: two payloads leave under one FCntDown"),
        (Self::ClosedDecided, "an answer that was closed is decided"),
        (Self::NothingWritten, "an uplink without an answer costs a second compare-and-set"),
        (Self::TwoIds, "promise 2: one uplink is told under two ids"),
        (Self::OutOfOrder, "events are first told in another order than uplinks were accepted in"),
        (Self::AckMissing, "promise 1: a confirmed uplink has no ACK in its windows, though a worker lived"),
        (Self::ItemMissing, "promise 9: an item enqueued within reply_delay misses the windows of that uplink"),
    ];
}

impl State {
    pub(crate) fn wrong(&mut self, wrong: Wrong) {
        if self.watch.broken == 0 {
            self.watch.broken = wrong as u8;
        }
    }

    /// The event is with the application, or certain to come to it.
    pub(crate) fn has_left(&self, up: u8) -> bool {
        (self.delivered | self.pending) >> up & 1 == 1
    }

    pub(crate) fn is_received(&self, sent: usize) -> bool {
        self.frames[sent][0] != Frame::Unsent
    }
}

impl Scenario {
    pub(crate) fn deliver(&self, state: &mut State, up: u8) {
        let first = state.first;
        if first != 0 && first - 1 != up && state.delivered >> (first - 1) & 1 == 0 {
            state.wrong(Wrong::OutOfOrder);
        }
        state.delivered |= 1 << up;
    }

    /// An event gets its id.
    pub(crate) fn name_event(&self, state: &mut State, up: u8, worker: usize) {
        if !self.lacks(Rule::IdOfTheUplink) {
            return;
        }
        let (id, known) = (1 + worker as u8, &mut state.watch.ids[usize::from(up)]);
        if *known != 0 && *known != id {
            state.wrong(Wrong::TwoIds);
        } else {
            *known = id;
        }
    }

    /// An item is stored; what it may count on.
    pub(crate) fn note_enqueued(&self, state: &mut State) {
        let reply = &state.row.reply;
        let is_open = reply.answer == crate::state::Answer::Open;
        let in_time = is_open && state.phase[usize::from(reply.by)] == Phase::Reply;
        if in_time && state.has_left(self.up(usize::from(reply.by))) {
            state.watch.owed = reply.by + 1;
        }
    }

    /// The transmission's last window is over.
    pub(crate) fn note_closed(&self, state: &mut State, sent: usize) {
        let is_in = |bits: u8| bits >> sent & 1 == 1;
        let (watch, excused) = (state.watch, is_in(state.watch.excused));
        if self.confirmed(sent) && !is_in(watch.acked) && !excused {
            state.wrong(Wrong::AckMissing);
        }
        if usize::from(watch.owed) == sent + 1 && !is_in(watch.carried) && !excused {
            state.wrong(Wrong::ItemMissing);
        }
    }

    pub(crate) fn is_broken(&self, state: &State) -> Option<&'static str> {
        Wrong::ALL.iter().find(|(wrong, _)| *wrong as u8 == state.watch.broken).map(|(_, what)| *what)
    }

    pub(crate) fn is_unfinished(&self, state: &State) -> Option<&'static str> {
        let any_frame = |frame| state.frames.iter().flatten().any(|f| *f == frame);
        let lost = |sent: usize| state.is_received(sent) && state.delivered >> self.up(sent) & 1 == 0;
        match () {
            () if (0..self.sent.len()).any(lost) => Some("promise 1: an uplink that was stored is never told"),
            () if any_frame(Frame::Retained) => Some("a balancer keeps a frame for ever"),
            () if state.tasks.iter().flatten().any(|t| t.at != At::Idle) => Some("a worker waits for ever"),
            () if state.enqueue.at != At::Idle => Some("an enqueuer waits for ever"),
            // With all its rules an item goes by a TX_ACK only, and that is forgotten.
            () if self.without.is_some() && state.item == Item::Gone && state.mark.sent == 0 && !state.watch.aired => {
                Some("a queue item is lost")
            }
            () => None,
        }
    }

    pub(crate) fn told(&self, state: &State) -> String {
        let row = &state.row;
        let at: Vec<_> = state.tasks.iter().map(|tasks| tasks.map(|t| t.at)).collect();
        format!(
            "frames {:?}, phases {:?}, slot {} of transmission {}, {:?}, out up to slot {}, workers at {at:?}, \
             pending {:02b}, delivered {:02b}, ACKs on air {:03b}",
            &state.frames[..self.sent.len()],
            &state.phase[..self.sent.len()],
            row.number,
            row.by + 1,
            row.reply,
            state.mark.out,
            state.pending,
            state.delivered,
            state.watch.acked,
        )
    }
}
