//! What an uplink costs when nothing goes wrong: compare-and-sets that are tried, counted along every run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use limpet_model::{
    explore::{Model, Step, explore},
    label::Label,
    scenario::{Scenario, Sent},
    state::State,
};

/// A scenario beside a count; every run must end with one that is allowed.
struct Counted(Scenario, std::ops::RangeInclusive<u8>);

impl Model for Counted {
    type State = (State, u8);
    type Label = Label;

    fn start(&self) -> (State, u8) {
        (self.0.start(), 0)
    }

    fn steps(&self, (state, count): &(State, u8), out: &mut Vec<Step<(State, u8), Label>>) {
        let mut steps = Vec::new();
        self.0.steps(state, &mut steps);
        out.extend(steps.into_iter().map(|Step { class, label, next }| {
            let tries = label.what.contains("compare-and-set");
            Step { class, label, next: (next, count + u8::from(tries)) }
        }));
    }

    fn canonical(&self, (state, count): &(State, u8)) -> (State, u8) {
        (self.0.canonical(state), *count)
    }

    fn broken(&self, (state, _): &(State, u8)) -> Option<&'static str> {
        self.0.broken(state)
    }

    fn unfinished(&self, (state, count): &(State, u8)) -> Option<&'static str> {
        let heard = state.delivered != 0;
        let within = !heard || self.1.contains(count);
        self.0.unfinished(state).or((!within).then_some("another number of compare-and-sets"))
    }

    fn tell(&self, (state, count): &(State, u8)) -> String {
        format!("{count} compare-and-sets; {}", self.0.tell(state))
    }
}

fn costs(confirmed: bool, item: bool, reply_delay: bool, allowed: std::ops::RangeInclusive<u8>) {
    let sent: &[Sent] = if confirmed {
        &[Sent { up: 0, confirmed: true, copies: 1 }]
    } else {
        &[Sent { up: 0, confirmed: false, copies: 1 }]
    };
    let waiting_item_at_once = false;
    let scenario = Scenario {
        name: "cost",
        sent,
        item,
        reply_delay,
        waiting_item_at_once,
        patient: true,
        faults: 0,
        without: None,
    };
    let report = explore(&Counted(scenario, allowed), 1_000_000);
    assert!(report.complete && report.found.is_none(), "{}", report.found.unwrap());
}

#[test]
fn an_uplink_without_an_answer_costs_one() {
    costs(false, false, true, 1..=1);
}

#[test]
fn an_answered_one_costs_two() {
    costs(true, false, true, 2..=2);
}

/// An enqueuer and the end of `reply_delay` at one moment: one of them is refused.
#[test]
fn an_item_costs_at_most_one_refusal_more() {
    costs(false, true, true, 1..=3);
    costs(true, true, true, 2..=3);
}

#[test]
fn without_a_delay_every_uplink_costs_one() {
    costs(false, true, false, 1..=1);
    costs(true, true, false, 1..=1);
}
