//! The surroundings: what arrives, how time passes, and what goes wrong.

use crate::{
    answer::Verdict,
    explore::{Class, Step},
    label::{Label, Of},
    rule::Rule,
    scenario::Scenario,
    state::{At, COPIES, DOWNS, Enqueue, Frame, Item, Phase, Plan, State, Task, WORKERS, What},
    steps::{Steps, lose_memory},
    write::Taken,
};

impl Scenario {
    pub(crate) fn all_steps(&self, state: &State, out: &mut Vec<Step<State, Label>>) {
        let mut out = Steps(out);
        self.frames(state, &mut out);
        self.work(state, &mut out);
        self.enqueue(state, &mut out);
        self.gateways(state, &mut out);
        let busy = out.0.iter().any(|step| step.class == Class::Urgent);
        self.pending(state, &mut out);
        self.sweep(state, &mut out);
        self.time(state, busy, &mut out);
        self.writes_in_flight(state, &mut out);
        self.applications(state, &mut out);
        if state.left > 0 {
            self.crashes(state, &mut out);
        }
    }

    /// Copies arrive, and go to another worker when theirs is gone.
    fn frames(&self, state: &State, out: &mut Steps<'_>) {
        for sent in 0..self.sent.len() {
            if let Some(copy) = (0..self.sent[sent].copies).find(|copy| state.frames[sent][*copy] == Frame::Unsent)
                && self.may_be_sent(state, sent)
            {
                for worker in 0..WORKERS {
                    let mut next = *state;
                    next.frames[sent][copy] = Frame::Retained;
                    hand_to(&mut next, sent, copy, worker);
                    out.add(Class::Choice, Label::of_worker(worker, "stores a copy", Of::Sent(sent)), next);
                }
            }
            for copy in (0..COPIES).filter(|copy| state.frames[sent][*copy] == Frame::Retained) {
                self.redeliver(state, sent, copy, out);
            }
        }
    }

    fn may_be_sent(&self, state: &State, sent: usize) -> bool {
        let Some(before) = sent.checked_sub(1) else { return true };
        let windows_are_over = || {
            let answered = (state.watch.acked | state.watch.carried) >> before & 1 == 1;
            answered || state.phase[before] == Phase::Closed
        };
        state.is_received(before) && (!self.patient || windows_are_over())
    }

    fn redeliver(&self, state: &State, sent: usize, copy: usize, out: &mut Steps<'_>) {
        let holds = |worker: usize| state.tasks[worker][sent].held >> copy & 1 == 1;
        let is_held = (0..WORKERS).any(holds);
        for worker in (0..WORKERS).filter(|worker| !holds(*worker)) {
            let mut next = *state;
            hand_to(&mut next, sent, copy, worker);
            if is_held {
                let label = Label::of_worker(worker, "gets a copy again, for the other is SUSPECTED", Of::Sent(sent));
                out.fault(label, next);
            } else if !self.lacks(Rule::Redeliver) {
                out.add(Class::Urgent, Label::of_worker(worker, "gets a copy again", Of::Sent(sent)), next);
            }
        }
    }

    fn gateways(&self, state: &State, out: &mut Steps<'_>) {
        if state.refused.what != What::Nothing {
            let sent = |taken| {
                let mut next = *state;
                self.send_in_rx2(&mut next, taken);
                next
            };
            let label = |what| Label::outside(what, Of::Down(state.refused.down));
            out.add(Class::Urgent, label("the balancer sends what was refused in RX2"), sent(Taken::OnAir));
            out.fault(label("what was refused is REFUSED IN RX2 too"), sent(Taken::Refused));
        }
        // Or it is lost: then this never happens.
        for down in (1..DOWNS).filter(|down| state.tx_acks >> down & 1 == 1) {
            let mut next = *state;
            Self::take_tx_ack(&mut next, down as u8);
            out.add(Class::Choice, Label::outside("a TX_ACK is handled", Of::Down(down as u8)), next);
        }
    }

    /// In order of the slots' numbers, one worker at a time; each is deleted when it was taken.
    fn pending(&self, state: &State, out: &mut Steps<'_>) {
        let mut next = *state;
        if state.integration_down {
            next.integration_down = false;
            out.add(Class::Later, Label::outside("the integration is up again", Of::Nothing), next);
        } else if state.pending != 0 {
            let first = state.first.wrapping_sub(1);
            let up = if first < 8 && state.pending >> first & 1 == 1 { first } else { lowest(state.pending) };
            self.deliver(&mut next, up);
            next.pending &= !(1 << up);
            out.add(Class::Later, Label::outside("an event that waited is told", Of::Event(up)), next);
        }
        // Sooner nobody would notice.
        let notices = state.tasks.iter().flatten().any(|task| task.at == At::Emit);
        if notices && !state.integration_down {
            let mut next = *state;
            next.integration_down = true;
            out.fault(Label::outside("THE INTEGRATION GOES DOWN", Of::Nothing), next);
        }
    }

    /// What no balancer keeps and nobody is at.
    fn sweep(&self, state: &State, out: &mut Steps<'_>) {
        for sent in (0..self.sent.len()).filter(|sent| state.is_received(*sent)) {
            let frames = state.frames[sent];
            let at_work = (0..WORKERS).any(|worker| state.tasks[worker][sent].at != At::Idle);
            if frames.contains(&Frame::Retained) || at_work {
                continue;
            }
            let is_lost = frames.contains(&Frame::Lost) && !self.lacks(Rule::Sweep);
            let unresolved = match self.judge(state, &state.row, sent) {
                Verdict::Finish => true,
                Verdict::Write(plan, _) => plan.what != What::Again,
                Verdict::Done | Verdict::Await | Verdict::Send => false,
            };
            for worker in 0..WORKERS {
                let mut next = *state;
                next.tasks[worker][sent] = Task { at: At::Read, ..Task::default() };
                let label = |what| Label::of_worker(worker, what, Of::Sent(sent));
                if is_lost && unresolved {
                    out.add(Class::Later, label("sweeps"), next);
                } else if unresolved {
                    out.fault(label("SWEEPS what needs none"), next);
                }
            }
        }
    }

    /// Windows pass when nobody has anything left to do for them; sooner is a fault. `reply_delay` ends when it will, but not
    /// before the event is told.
    fn time(&self, state: &State, busy: bool, out: &mut Steps<'_>) {
        for sent in (0..self.sent.len()).filter(|sent| state.is_received(*sent)) {
            let earlier = (0..sent).map(|before| state.phase[before]).min().unwrap_or(Phase::Closed);
            let label = |what| Label::outside(what, Of::Sent(sent));
            let mut next = *state;
            match state.phase[sent] {
                Phase::Reply if state.has_left(self.up(sent)) || !busy => {
                    next.phase[sent] = Phase::Rx1;
                    out.add(Class::Later, label("reply_delay is over"), next);
                }
                Phase::Rx1 if !busy && earlier >= Phase::Rx2 => {
                    next.phase[sent] = Phase::Rx2;
                    out.add(Class::Later, label("RX1 passes"), next);
                }
                Phase::Rx2 if !busy && earlier >= Phase::Closed => {
                    self.close(&mut next, sent);
                    out.add(Class::Later, label("RX2 passes"), next);
                }
                _ => {}
            }
            for phase in [Phase::Rx2, Phase::Closed] {
                if state.left > 0 && state.phase[sent] < phase {
                    let mut next = *state;
                    for at in (0..=sent).filter(|at| state.phase[*at] < phase) {
                        if phase == Phase::Closed {
                            next.watch.excused |= 1 << at;
                            self.close(&mut next, at);
                        } else {
                            next.phase[at] = phase;
                        }
                    }
                    let what =
                        if phase == Phase::Rx2 { "EVERYTHING STALLS past RX1" } else { "EVERYTHING STALLS past RX2" };
                    out.fault(label(what), next);
                }
            }
        }
    }

    fn close(&self, state: &mut State, sent: usize) {
        state.phase[sent] = Phase::Closed;
        self.note_closed(state, sent);
    }

    fn writes_in_flight(&self, state: &State, out: &mut Steps<'_>) {
        for (at, plan) in state.flying.iter().enumerate().filter(|(_, plan)| plan.what != What::Nothing) {
            let label = |what| Label::outside(what, Of::Sent(usize::from(plan.by)));
            let mut next = *state;
            next.flying[at] = Plan::default();
            // Or never: then it is lost.
            if self.write(&mut next, plan) {
                out.add(Class::Choice, label("a compare-and-set in flight takes effect"), next);
            }
        }
        // It changes nothing but the revision and the counter, which only matter to who is about to write.
        if state.left > 0 && usize::from(state.row.last_down) + 2 < DOWNS && is_about_to_write(state) {
            let mut next = *state;
            self.write_beside(&mut next);
            out.fault(Label::outside("ANOTHER WRITER takes an FCntDown", Of::Nothing), next);
        }
    }

    fn applications(&self, state: &State, out: &mut Steps<'_>) {
        if !self.item || state.item != Item::Unknown {
            return;
        }
        for worker in 0..WORKERS {
            let mut next = *state;
            next.item = Item::Queued;
            next.enqueue = Enqueue { at: At::Read, worker: worker as u8, plan: Plan::default() };
            self.note_enqueued(&mut next);
            out.add(Class::Choice, Label::of_worker(worker, "stores a queue item", Of::Nothing), next);
        }
    }

    /// Of what a worker that crashes was about to write one may be in flight.
    fn crashes(&self, state: &State, out: &mut Steps<'_>) {
        for worker in 0..WORKERS {
            let enqueues = state.enqueue.at != At::Idle && usize::from(state.enqueue.worker) == worker;
            let tasks = state.tasks[worker];
            if !enqueues && tasks.iter().all(|task| task.at == At::Idle) {
                continue;
            }
            let mut next = *state;
            lose_memory(&mut next, worker);
            out.fault(Label::of_worker(worker, "CRASHES", Of::Nothing), next);
            let of_item = (enqueues && state.enqueue.at == At::Decide).then_some(state.enqueue.plan);
            let of_tasks = tasks.iter().filter(|task| matches!(task.at, At::Accept | At::Decide)).map(|task| task.plan);
            for plan in of_tasks.chain(of_item) {
                let mut next = next;
                if let Some(free) = next.flying.iter_mut().find(|plan| plan.what == What::Nothing) {
                    *free = plan;
                    let label = Label::of_worker(
                        worker,
                        "CRASHES with a compare-and-set in flight",
                        Of::Sent(usize::from(plan.by)),
                    );
                    out.fault(label, next);
                }
            }
        }
        let keeps = state.frames.iter().flatten().any(|frame| *frame == Frame::Retained);
        if keeps || state.tx_acks != 0 || state.refused.what != What::Nothing {
            let mut next = *state;
            for frame in next.frames.iter_mut().flatten().filter(|frame| **frame == Frame::Retained) {
                *frame = Frame::Lost;
            }
            (next.tx_acks, next.refused, next.passed_on) = (0, Plan::default(), 0);
            next.watch.excused = 0xff;
            out.fault(Label::outside("THE BALANCER CRASHES", Of::Nothing), next);
        }
    }
}

fn is_about_to_write(state: &State) -> bool {
    let fits = |plan: &Plan| plan.what != What::Nothing && plan.rev == state.row.rev;
    let tasks = state.tasks.iter().flatten().filter(|task| matches!(task.at, At::Keep | At::Accept | At::Decide));
    let enqueues = state.enqueue.at == At::Decide && fits(&state.enqueue.plan);
    enqueues || tasks.map(|task| &task.plan).chain(&state.flying).any(fits)
}

fn hand_to(state: &mut State, sent: usize, copy: usize, worker: usize) {
    let task = &mut state.tasks[worker][sent];
    task.held |= 1 << copy;
    if task.at == At::Idle {
        task.at = At::Read;
    }
}

fn lowest(bits: u8) -> u8 {
    bits.trailing_zeros() as u8
}
