//! What workers do: the way of an uplink, step by step, and an enqueuer's.

use crate::{
    answer::{Next, Verdict},
    explore::{Class, Step},
    label::{Label, Of},
    rule::Rule,
    scenario::Scenario,
    state::{Answer, At, Enqueue, Frame, Phase, Plan, Row, SENT, State, Task, WORKERS, What},
    write::Taken,
};

/// Gathers the steps from one state.
pub(crate) struct Steps<'a>(pub &'a mut Vec<Step<State, Label>>);

impl Steps<'_> {
    pub fn add(&mut self, class: Class, label: Label, next: State) {
        self.0.push(Step { class, label, next });
    }

    /// What goes wrong costs one of the faults that are left.
    pub fn fault(&mut self, label: Label, mut next: State) {
        if next.left > 0 {
            next.left -= 1;
            self.add(Class::Fault, label, next);
        }
    }
}

/// A worker's work on a transmission.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub worker: usize,
    pub sent: usize,
}

impl Place {
    fn task(self, state: &mut State) -> &mut Task {
        &mut state.tasks[self.worker][self.sent]
    }

    fn says(self, what: &'static str) -> Label {
        Label::of_worker(self.worker, what, Of::Sent(self.sent))
    }
}

impl Scenario {
    pub(crate) fn work(&self, state: &State, out: &mut Steps<'_>) {
        for worker in 0..WORKERS {
            for sent in 0..self.sent.len() {
                self.step(state, Place { worker, sent }, out);
            }
        }
    }

    fn step(&self, state: &State, place: Place, out: &mut Steps<'_>) {
        let task = state.tasks[place.worker][place.sent];
        let mut next = *state;
        match task.at {
            At::Idle => {}
            At::Read => self.read(state, place, out),
            At::Keep => {
                next.pending |= 1 << task.keep;
                *place.task(&mut next) = Task { at: At::Accept, keep: 0, ..task };
                out.add(Class::Urgent, place.says("puts the slot's event into the pending table"), next);
            }
            At::Accept => self.accept(state, place, out),
            At::Send => self.send_slot(state, place, out),
            At::Look => {
                place.task(&mut next).at = if state.pending == 0 { At::Emit } else { At::Pend };
                out.add(Class::Urgent, place.says("looks for events that wait"), next);
            }
            At::Emit => self.emit(state, place, out),
            At::Pend => {
                let up = self.up(place.sent);
                next.pending |= 1 << up;
                self.name_event(&mut next, up, place.worker);
                let task = place.task(&mut next);
                (task.at, task.plan.behind) = (At::Mark, true);
                out.add(Class::Urgent, place.says("puts its event into the pending table"), next);
            }
            At::Mark => self.mark(state, place, out),
            At::Wait => self.wait(state, place, out),
            At::Decide => self.decide(state, place, out),
            // Only of a loser that says so without a reason: who is done says so with its last step.
            At::End => {
                self.release(&mut next, place);
                out.add(Class::Urgent, place.says("tells the balancer done"), next);
            }
        }
    }

    /// *Done*: the balancer forgets the copies that are in these hands.
    fn release(&self, state: &mut State, place: Place) {
        let held = std::mem::take(place.task(state)).held;
        for (copy, frame) in state.frames[place.sent].iter_mut().enumerate() {
            if held >> copy & 1 == 1 && *frame == Frame::Retained {
                *frame = Frame::Done;
            }
        }
    }

    fn again(&self, state: &mut State, place: Place) {
        let task = place.task(state);
        *task = Task { at: At::Read, held: task.held, ..Task::default() };
    }

    /// Step 4. A read that is not SERIAL may miss a write that is just taking effect.
    fn read(&self, state: &State, place: Place, out: &mut Steps<'_>) {
        self.read_row(state, &state.row, place, Class::Urgent, out);
        if let Some(old) = stale(state) {
            self.read_row(state, old, place, Class::Fault, out);
        }
    }

    fn read_row(&self, state: &State, row: &Row, place: Place, class: Class, out: &mut Steps<'_>) {
        let mut next = *state;
        let (mut class, stale) = (class, class == Class::Fault);
        let held = state.tasks[place.worker][place.sent].held;
        let start = Task { held, taken: true, ..Task::default() };
        let what = match self.judge(state, row, place.sent) {
            Verdict::Done => {
                self.release(&mut next, place);
                "reads: nothing is left to do; tells the balancer done"
            }
            Verdict::Write(plan, keep) => {
                let at = if keep.is_some() { At::Keep } else { At::Accept };
                *place.task(&mut next) = Task { at, held, plan, keep: keep.unwrap_or(0), ..Task::default() };
                "reads: will accept it"
            }
            Verdict::Finish => {
                match acting(state, row.number, place) {
                    Some(worker) if worker == place.worker => return,
                    Some(_) => class = Class::Fault,
                    None => {}
                }
                *place.task(&mut next) = self.take_over(state, row, place, start);
                "reads: takes over the slot"
            }
            Verdict::Await => {
                let plan = Plan { number: row.reply.number, by: row.reply.by, ..Plan::default() };
                *place.task(&mut next) = Task { at: At::Wait, plan, ..start };
                "reads: its answer is open"
            }
            Verdict::Send => {
                *place.task(&mut next) =
                    Task { at: At::Send, plan: row.decided(), made_up: self.made_up(place), ..start };
                "reads: its answer is decided"
            }
        };
        match class {
            Class::Fault => {
                out.fault(place.says(if stale { "READS A STALE ROW" } else { "SUSPECTS the slot's worker" }), next)
            }
            _ => out.add(class, place.says(what), next),
        }
    }

    /// The slot's bytes first, for their window does not wait; then its event.
    fn take_over(&self, state: &State, row: &Row, place: Place, start: Task) -> Task {
        let what = if row.has_event { What::Accept } else { What::Again };
        let slot = Plan { what, number: row.number, by: row.by, behind: row.behind, ..Plan::default() };
        let task = Task { plan: slot, event: row.has_event, ..start };
        let reply = &row.reply;
        let sends = reply.number == row.number && reply.answer == Answer::Decided && state.has_window(reply.by);
        if sends && !self.lacks(Rule::SendDecidedAgain) {
            let plan = Plan { ack: reply.ack, item: reply.item, down: reply.down, ..slot };
            return Task { at: At::Send, plan, made_up: self.made_up(place), ..task };
        }
        after_send(task)
    }

    /// Bytes of one's own, where the rule is missing that there are none.
    fn made_up(&self, place: Place) -> u8 {
        if self.lacks(Rule::SlotsBytes) { own_bytes(place) } else { 0 }
    }

    fn accept(&self, state: &State, place: Place, out: &mut Steps<'_>) {
        let task = state.tasks[place.worker][place.sent];
        let mut next = *state;
        if self.write(&mut next, &task.plan) {
            let decided = task.plan.answer == Answer::Decided;
            let accepted = Task { event: task.plan.what != What::Again, ..task };
            *place.task(&mut next) = if decided { Task { at: At::Send, ..accepted } } else { after_send(accepted) };
            out.add(Class::Urgent, place.says("accepts it: the compare-and-set is taken"), next);
        } else {
            if self.lacks(Rule::LoserReadsAgain) {
                place.task(&mut next).at = At::End;
            } else {
                self.again(&mut next, place);
            }
            out.add(Class::Urgent, place.says("is refused its compare-and-set"), next);
        }
        self.no_answer(state, place, out, |model, next| {
            if model.lacks(Rule::ActOnTheRow) {
                let accepted = Task { event: task.plan.what != What::Again, made_up: own_bytes(place), ..task };
                let decided = task.plan.answer == Answer::Decided;
                *place.task(next) = if decided { Task { at: At::Send, ..accepted } } else { after_send(accepted) };
            } else {
                model.again(next, place);
            }
        });
    }

    /// A compare-and-set is not answered: it is still in flight, and may take effect at any later moment or never.
    fn no_answer(&self, state: &State, place: Place, out: &mut Steps<'_>, then: impl Fn(&Self, &mut State)) {
        let mut next = *state;
        let plan = state.tasks[place.worker][place.sent].plan;
        let Some(free) = next.flying.iter_mut().find(|plan| plan.what == What::Nothing) else { return };
        // Without the rule it takes itself for done, which does no harm if it was.
        if !self.lacks(Rule::ActOnTheRow) {
            *free = plan;
        }
        then(self, &mut next);
        out.fault(place.says("GETS NO ANSWER to its compare-and-set"), next);
    }

    fn send_slot(&self, state: &State, place: Place, out: &mut Steps<'_>) {
        let task = state.tasks[place.worker][place.sent];
        let label = |what| Label::of_worker(place.worker, what, Of::Down(task.plan.down));
        let sent = |taken| {
            let mut next = *state;
            self.send(&mut next, &task.plan, task.made_up, taken);
            *place.task(&mut next) = after_send(task);
            if place.task(&mut next).at == At::End {
                self.release(&mut next, place);
            }
            next
        };
        out.add(Class::Urgent, label("sends the slot's bytes"), sent(Taken::OnAir));
        if after_send(task).at == At::End {
            let mut dead = *state;
            self.send(&mut dead, &task.plan, task.made_up, Taken::OnAir);
            lose_memory(&mut dead, place.worker);
            out.fault(label("sends the slot's bytes, AND CRASHES"), dead);
        }
        faults_of_send(state, &task.plan, label, sent, out);
    }

    fn emit(&self, state: &State, place: Place, out: &mut Steps<'_>) {
        let mut next = *state;
        let up = self.up(place.sent);
        if state.integration_down {
            place.task(&mut next).at = At::Pend;
            return out.add(Class::Urgent, place.says("finds the integration down"), next);
        }
        self.deliver(&mut next, up);
        self.name_event(&mut next, up, place.worker);
        let mut unsaid = next;
        let task = place.task(&mut next);
        (task.at, task.plan.behind) = (At::Mark, false);
        out.add(Class::Urgent, place.says("tells its event"), next);
        place.task(&mut unsaid).at = At::Pend;
        out.fault(place.says("tells its event, AND IS NOT ANSWERED"), unsaid);
    }

    /// `out`, under the slot's number: of two for one slot the one that says "through pending" wins.
    fn mark(&self, state: &State, place: Place, out: &mut Steps<'_>) {
        let task = state.tasks[place.worker][place.sent];
        let mut next = *state;
        let (number, through_pending) = (task.plan.number, task.plan.behind);
        if number > state.mark.out {
            (next.mark.out, next.mark.through_pending) = (number, through_pending);
        } else if number == state.mark.out {
            next.mark.through_pending |= through_pending;
        }
        let is_open = task.plan.answer == Answer::Open
            || task.plan.answer == Answer::Closed && self.lacks(Rule::ClosedStaysClosed);
        if task.taken {
            self.again(&mut next, place);
        } else if task.plan.what == What::Accept && is_open {
            if self.lacks(Rule::DoneAfterTheAnswer) {
                self.release(&mut next, place);
            }
            let plan = Plan { number, by: task.plan.by, ..Plan::default() };
            let held = if self.lacks(Rule::DoneAfterTheAnswer) { 0 } else { task.held };
            *place.task(&mut next) = Task { at: At::Wait, held, plan, ..Task::default() };
        } else {
            let mut dead = next;
            lose_memory(&mut dead, place.worker);
            out.fault(place.says("marks it out, AND CRASHES"), dead);
            self.release(&mut next, place);
        }
        out.add(Class::Urgent, place.says("marks it out"), next);
    }

    /// The end of `reply_delay`: the row and the queue as they are now.
    fn wait(&self, state: &State, place: Place, out: &mut Steps<'_>) {
        let task = state.tasks[place.worker][place.sent];
        if state.phase[usize::from(task.plan.by)] == Phase::Reply {
            return;
        }
        let suspects = task.taken && is_answering(state, task.plan.number, place);
        self.look_at_answer(state, &state.row, place, suspects, "", out);
        if let Some(old) = stale(state).filter(|_| !suspects) {
            self.look_at_answer(state, old, place, true, "READS A STALE ROW for its answer", out);
        }
    }

    fn look_at_answer(
        &self,
        state: &State,
        row: &Row,
        place: Place,
        is_fault: bool,
        stale: &'static str,
        out: &mut Steps<'_>,
    ) {
        let mut next = *state;
        let task = state.tasks[place.worker][place.sent];
        let what = match self.answer(state, row, task.plan.number, place.sent as u8) {
            // Read again at once, which is where it is.
            Next::Stale => return,
            Next::Ended => {
                self.release(&mut next, place);
                "has nothing to answer; tells the balancer done"
            }
            Next::Send => {
                *place.task(&mut next) =
                    Task { at: At::Send, plan: row.decided(), made_up: self.made_up(place), ..task };
                "finds its answer decided"
            }
            Next::Decide(plan) if self.lacks(Rule::WriteTheAnswer) => {
                *place.task(&mut next) = Task { at: At::Send, plan, made_up: own_bytes(place), ..task };
                "has something to answer"
            }
            Next::Decide(plan) => {
                *place.task(&mut next) = Task { at: At::Decide, plan, ..task };
                "has something to answer"
            }
        };
        match is_fault {
            true if stale.is_empty() => out.fault(place.says("SUSPECTS who is to answer"), next),
            true => out.fault(place.says(stale), next),
            false => out.add(Class::Urgent, place.says(what), next),
        }
    }

    fn decide(&self, state: &State, place: Place, out: &mut Steps<'_>) {
        let task = state.tasks[place.worker][place.sent];
        let wait =
            Task { at: At::Wait, plan: Plan { number: task.plan.number, by: task.plan.by, ..Plan::default() }, ..task };
        let mut next = *state;
        let what = if self.write(&mut next, &task.plan) {
            place.task(&mut next).at = At::Send;
            "decides the answer: the compare-and-set is taken"
        } else {
            *place.task(&mut next) = wait;
            "is refused its compare-and-set for the answer"
        };
        out.add(Class::Urgent, place.says(what), next);
        self.no_answer(state, place, out, |model, next| {
            *place.task(next) = if model.lacks(Rule::ActOnTheRow) {
                Task { at: At::Send, made_up: own_bytes(place), ..task }
            } else {
                wait
            };
        });
    }

    /// The API stored an item: whoever did looks for an open answer at once.
    pub(crate) fn enqueue(&self, state: &State, out: &mut Steps<'_>) {
        let enqueue = state.enqueue;
        let says = |what| Label::of_worker(usize::from(enqueue.worker), what, Of::Nothing);
        let mut next = *state;
        match enqueue.at {
            At::Read => {
                self.read_for_item(state, &state.row, says("reads the session for the new item"), false, out);
                if let Some(old) = stale(state) {
                    self.read_for_item(state, old, says("READS A STALE ROW for the new item"), true, out);
                }
            }
            At::Decide => {
                let what = if self.write(&mut next, &enqueue.plan) {
                    next.enqueue.at = At::Send;
                    "answers with the new item: the compare-and-set is taken"
                } else {
                    (next.enqueue.at, next.enqueue.plan) = (At::Read, Plan::default());
                    "is refused its compare-and-set for the new item"
                };
                out.add(Class::Urgent, says(what), next);
                let mut next = *state;
                if let Some(free) = next.flying.iter_mut().find(|plan| plan.what == What::Nothing) {
                    *free = enqueue.plan;
                    (next.enqueue.at, next.enqueue.plan) = (At::Read, Plan::default());
                    out.fault(says("GETS NO ANSWER to its compare-and-set for the new item"), next);
                }
            }
            At::Send => {
                let sent = |taken| {
                    let mut next = *state;
                    self.send(&mut next, &enqueue.plan, 0, taken);
                    next.enqueue = Enqueue::default();
                    next
                };
                out.add(Class::Urgent, says("sends the bytes with the new item"), sent(Taken::OnAir));
                faults_of_send(state, &enqueue.plan, says, sent, out);
            }
            _ => {}
        }
    }

    fn read_for_item(&self, state: &State, row: &Row, label: Label, is_fault: bool, out: &mut Steps<'_>) {
        let mut next = *state;
        let answer = self.answer(state, row, row.reply.number, row.reply.by);
        (next.enqueue.at, next.enqueue.plan) = match answer {
            _ if self.lacks(Rule::QueueWhenDeciding) => (At::Idle, Plan::default()),
            Next::Decide(plan) => (At::Decide, plan),
            // Its own write may have been this one, and it may be the last to know.
            Next::Send if row.reply.item => (At::Send, row.decided()),
            Next::Send | Next::Ended | Next::Stale => (At::Idle, Plan::default()),
        };
        if next.enqueue.at == At::Idle {
            next.enqueue = Enqueue::default();
        }
        if is_fault { out.fault(label, next) } else { out.add(Class::Urgent, label, next) }
    }
}

/// A worker restarts with nothing in its memory.
pub(crate) fn lose_memory(state: &mut State, worker: usize) {
    state.tasks[worker] = [Task::default(); SENT];
    if usize::from(state.enqueue.worker) == worker {
        state.enqueue = Enqueue::default();
    }
}

/// What a read may still see.
fn stale(state: &State) -> Option<&Row> {
    state.old.as_ref().filter(|_| state.left > 0)
}

/// What comes after the slot's bytes are out.
fn after_send(task: Task) -> Task {
    let at = match task.plan.what {
        _ if task.event && task.plan.behind => At::Look,
        _ if task.event => At::Emit,
        What::Again => At::Mark,
        _ => At::End,
    };
    let plan = Plan { rev: 0, ack: false, item: false, down: 0, ..task.plan };
    Task { at, event: false, made_up: 0, plan, ..task }
}

fn faults_of_send(
    state: &State,
    plan: &Plan,
    label: impl Fn(&'static str) -> Label,
    sent: impl Fn(Taken) -> State,
    out: &mut Steps<'_>,
) {
    if !Scenario::passes_on(state, plan) {
        return;
    }
    if state.refused.what == What::Nothing {
        out.fault(label("sends bytes that the gateway REFUSES IN RX1"), sent(Taken::Refused));
    }
}

/// Bytes that this worker would make for its transmission, unlike anyone else's.
fn own_bytes(place: Place) -> u8 {
    2 + place.worker as u8 + 2 * place.sent as u8
}

fn others(state: &State, place: Place) -> impl Iterator<Item = (usize, &Task)> {
    let all = (0..WORKERS).flat_map(|worker| (0..SENT).map(move |sent| (worker, sent)));
    all.filter(move |at| *at != (place.worker, place.sent)).map(|(worker, sent)| (worker, &state.tasks[worker][sent]))
}

/// Who else is about to tell the slot's event.
fn acting(state: &State, number: u8, place: Place) -> Option<usize> {
    let acts = |task: &Task| {
        let to_mark = matches!(task.plan.what, What::Accept | What::Late | What::Again);
        let on_it = matches!(task.at, At::Send | At::Look | At::Emit | At::Pend | At::Mark);
        on_it && to_mark && task.plan.number == number
    };
    others(state, place).find(|(_, task)| acts(task)).map(|(worker, _)| worker)
}

/// Whether the worker that accepted the uplink is about to answer it.
fn is_answering(state: &State, number: u8, place: Place) -> bool {
    let answers = |task: &Task| {
        let on_it =
            task.at == At::Wait || task.at == At::Decide || task.at == At::Send && task.plan.what == What::Answer;
        on_it && !task.taken && task.plan.number == number
    };
    others(state, place).any(|(_, task)| answers(task))
}
