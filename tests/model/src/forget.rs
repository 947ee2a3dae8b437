//! The form that equal states have: without what can matter no more, and without names that are only names.

use std::cmp::Ordering;

use crate::{
    scenario::Scenario,
    state::{Answer, At, COPIES, Enqueue, Frame, Item, Phase, Plan, Reply, Row, SENT, State, Task, What},
};

impl Scenario {
    /// Where a rule is missing only revisions are forgotten: what goes wrong may show in what a whole protocol forgets.
    pub(crate) fn forget(&self, state: &State) -> State {
        let mut state = *state;
        forget_revisions(&mut state, self.without.is_none());
        if self.without.is_none() {
            self.forget_what_was_replaced(&mut state);
        }
        self.forget_the_past(&mut state);
        if self.without.is_some() {
            return state;
        }
        self.forget_answers(&mut state);
        renumber(&mut state);
        let is_decided = state.row.reply.answer == Answer::Decided;
        state.watch.answered = u16::from(is_decided) << state.row.reply.number;
        state.watch.downs = (2 << state.row.last_down) - 2;
        name_workers(state)
    }

    /// Whose answer was replaced, and who is in nobody's hands: its windows are as good as over. What was lost and is accepted
    /// with its event out is as good as done.
    fn forget_what_was_replaced(&self, state: &mut State) {
        let reply = state.row.reply;
        for sent in 0..self.sent.len() {
            let by = sent as u8;
            if sent < usize::from(state.row.high_by) && !is_in_hands(state, by) && (reply.number == 0 || reply.by != by)
            {
                state.phase[sent] = Phase::Closed;
            }
            let up = self.up(sent);
            let in_slot = self.up(usize::from(state.row.by)) == up && !state.row.slot_is_out(state);
            if state.row.seen >> up & 1 == 1 && !in_slot {
                for frame in state.frames[sent].iter_mut().filter(|frame| **frame == Frame::Lost) {
                    *frame = Frame::Done;
                }
            }
        }
    }

    /// Of windows that are over, and of copies that nobody keeps.
    fn forget_the_past(&self, state: &mut State) {
        for sent in 0..self.sent.len() {
            let (bit, watch) = (1 << sent, &mut state.watch);
            let is_owed = usize::from(watch.owed) == sent + 1;
            let is_over = state.phase[sent] == Phase::Closed;
            if is_over {
                watch.acked &= !bit;
                state.passed_on &= !bit;
                if is_owed {
                    watch.owed = 0;
                }
            }
            if is_over || !self.patient && !is_owed {
                watch.carried &= !bit;
            }
            // A crash excuses only what was received before it, and only what is owed anything needs to be excused.
            let may_be_owed = self.item && state.item == Item::Unknown || self.confirmed(sent) || is_owed;
            if is_over || !may_be_owed || state.frames[sent][0] == Frame::Unsent {
                watch.excused &= !bit;
            }
            for copy in (0..COPIES).filter(|copy| state.frames[sent][*copy] != Frame::Retained) {
                for tasks in &mut state.tasks {
                    tasks[sent].held &= !(1 << copy);
                }
            }
        }
        state.watch.excused &= (1 << self.sent.len()) - 1;
        state.watch.answered &= 1 << state.row.reply.number;
        if state.row.seen.count_ones() > 1 && state.pending == 0 && state.delivered == state.row.seen {
            state.first = 1;
        }
    }

    /// Of the answer, when its windows are over; of the mark, when another slot is there; of the item, when it is gone.
    fn forget_answers(&self, state: &mut State) {
        let (out, phase) = (state.mark.out, state.phase);
        let forget = |row: &mut Row| {
            row.behind &= !row.has_event || out < row.number;
            let reply = &mut row.reply;
            // An open one may be in the middle of being decided.
            let is_sent = reply.answer == Answer::Decided && phase[usize::from(reply.by)] == Phase::Closed;
            if is_sent || reply.answer == Answer::Closed {
                *reply = Reply { number: reply.number, ..Reply::default() };
            }
        };
        forget(&mut state.row);
        if let Some(old) = &mut state.old {
            forget(old);
        }
        state.mark.through_pending &= out == state.row.number;
        let in_use = |row: &Row| row.reply.item && row.reply.down != 0;
        if state.item == Item::Gone && !in_use(&state.row) && !state.old.is_some_and(|old| in_use(&old)) {
            (state.mark.sent, state.tx_acks, state.row.first_down) = (0, 0, 0);
            if let Some(old) = &mut state.old {
                old.first_down = 0;
            }
        }
    }
}

/// Whether somebody is about to send in the windows of that transmission, or waits for them.
fn is_in_hands(state: &State, by: u8) -> bool {
    let acts = |at: At| matches!(at, At::Send | At::Wait | At::Decide);
    let mut tasks = state.tasks.iter().flatten();
    tasks.any(|task| acts(task.at) && task.plan.by == by)
        || acts(state.enqueue.at) && state.enqueue.plan.by == by
        || state.refused.what != What::Nothing && state.refused.by == by
}

/// All that a revision is good for is whether it is the present one.
fn forget_revisions(state: &mut State, whole: bool) {
    if state.left == 0 {
        state.old = None;
    }
    let rev = std::mem::replace(&mut state.row.rev, 1);
    if let Some(old) = &mut state.old {
        old.rev = 0;
    }
    let forget = |plan: &mut Plan| {
        plan.rev = u8::from(plan.rev == rev);
        // It can only be refused.
        if plan.rev == 0 && whole {
            *plan = Plan { what: What::Nothing, number: plan.number, by: plan.by, ..Plan::default() };
        }
    };
    for task in state.tasks.iter_mut().flatten() {
        match task.at {
            At::Accept => {
                forget(&mut task.plan);
                if task.plan.what == What::Nothing {
                    task.plan = Plan::default();
                }
            }
            At::Decide => forget(&mut task.plan),
            At::Keep => {
                task.plan.rev = u8::from(task.plan.rev == rev);
                if task.plan.rev == 0 && whole {
                    task.plan = Plan::default();
                }
            }
            _ => task.plan.rev = 0,
        }
    }
    if state.enqueue.at == At::Decide {
        forget(&mut state.enqueue.plan);
    }
    if state.enqueue.at == At::Idle {
        state.enqueue = Enqueue::default();
    }
    for plan in state.flying.iter_mut().filter(|plan| plan.what != What::Nothing) {
        forget(plan);
        if plan.what == What::Nothing {
            *plan = Plan::default();
        }
    }
    state.flying.sort_unstable();
}

/// Numbers by their order: how many of those in use are not above. Zero stays what it is.
#[derive(Default)]
struct Ranks(u32);

impl Ranks {
    fn note(&mut self, number: u8) {
        self.0 |= 1 << number;
    }

    /// Nothing is left out.
    fn is_whole(&self) -> bool {
        let up = (self.0 | 1) + 1;
        up & (up - 1) == 0
    }

    fn of(&self, number: u8) -> u8 {
        let not_above = self.0 >> 1 & ((1 << number) - 1);
        not_above.count_ones() as u8
    }
}

/// Slots' numbers are compared, and the next is one above the present. So are FCntDowns.
fn renumber(state: &mut State) {
    let (mut slots, mut downs) = (Ranks::default(), Ranks(u32::from(state.tx_acks)));
    for plan in plans(state) {
        slots.note(plan.number);
        downs.note(plan.down);
    }
    slots.note(state.mark.out);
    downs.note(state.mark.sent);
    for row in [Some(&state.row), state.old.as_ref()].into_iter().flatten() {
        slots.note(row.number);
        slots.note(row.reply.number);
        downs.note(row.last_down);
        downs.note(row.first_down);
        downs.note(row.reply.down);
    }
    if slots.is_whole() && downs.is_whole() {
        return;
    }
    for plan in plans(state) {
        (plan.number, plan.down) = (slots.of(plan.number), downs.of(plan.down));
    }
    (state.mark.out, state.mark.sent) = (slots.of(state.mark.out), downs.of(state.mark.sent));
    state.tx_acks = (1..16).filter(|down| state.tx_acks >> down & 1 == 1).map(|down| 1 << downs.of(down)).sum();
    for row in [Some(&mut state.row), state.old.as_mut()].into_iter().flatten() {
        (row.number, row.reply.number) = (slots.of(row.number), slots.of(row.reply.number));
        row.last_down = downs.of(row.last_down);
        row.first_down = downs.of(row.first_down);
        row.reply.down = downs.of(row.reply.down);
    }
}

fn plans(state: &mut State) -> impl Iterator<Item = &mut Plan> {
    let tasks = state.tasks.iter_mut().flatten().filter(|task| task.at != At::Idle).map(|task| &mut task.plan);
    tasks.chain([&mut state.enqueue.plan, &mut state.refused]).chain(&mut state.flying)
}

/// Of two workers, and of two copies, each may be the first.
fn name_workers(mut state: State) -> State {
    let without_copies = |tasks: [Task; SENT]| tasks.map(|task| Task { held: 0, ..task });
    match without_copies(state.tasks[0]).cmp(&without_copies(state.tasks[1])) {
        Ordering::Less => swap_workers(&mut state),
        Ordering::Equal => {
            let mut swapped = state;
            swap_workers(&mut swapped);
            sort_copies(&mut swapped);
            sort_copies(&mut state);
            return state.max(swapped);
        }
        Ordering::Greater => {}
    }
    sort_copies(&mut state);
    state
}

fn swap_workers(state: &mut State) {
    state.tasks.swap(0, 1);
    if state.enqueue.at != At::Idle {
        state.enqueue.worker = 1 - state.enqueue.worker;
    }
}

/// Two copies of a transmission differ in nothing.
fn sort_copies(state: &mut State) {
    for sent in 0..SENT {
        let key = |state: &State, copy: usize| {
            (state.frames[sent][copy], [0, 1].map(|worker| state.tasks[worker][sent].held >> copy & 1))
        };
        if key(state, 0) > key(state, 1) {
            continue;
        }
        state.frames[sent].swap(0, 1);
        for tasks in &mut state.tasks {
            let held = &mut tasks[sent].held;
            *held = *held >> 1 & 1 | (*held & 1) << 1;
        }
    }
}
