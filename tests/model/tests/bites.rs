//! The model finds what each rule is there for: without it something breaks, and the shortest way there is told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use limpet_model::{
    explore::{Counterexample, explore},
    rule::Rule,
    scenario::{Scenario, Sent},
};

const ONE: Sent = Sent { up: 0, confirmed: false, copies: 1 };
const NEXT: Sent = Sent { up: 1, ..ONE };
const CONFIRMED: Sent = Sent { confirmed: true, ..ONE };
const HEARD_TWICE: Sent = Sent { copies: 2, ..ONE };

const SMALL: Scenario = Scenario {
    name: "without a rule",
    sent: &[CONFIRMED],
    item: false,
    reply_delay: true,
    waiting_item_at_once: false,
    patient: false,
    faults: 0,
    without: None,
};

/// Where the rule is missed: the smallest scenario that shows it, and the first word of what breaks.
fn missed(rule: Rule) -> (Scenario, &'static str) {
    let two = Scenario { sent: &[ONE, NEXT], ..SMALL };
    let with_item = Scenario { item: true, ..two };
    let second_confirmed = Scenario { sent: &[ONE, Sent { confirmed: true, ..NEXT }], ..SMALL };
    let faults = |scenario: Scenario, faults| Scenario { faults, ..scenario };
    match rule {
        Rule::CompareToAccept => (Scenario { sent: &[HEARD_TWICE], ..SMALL }, "promise 2: one uplink is accepted"),
        Rule::WriteTheAnswer => {
            (Scenario { sent: &[CONFIRMED, Sent { confirmed: true, ..NEXT }], ..SMALL }, "promise 3")
        }
        Rule::CompareRevisionToAnswer => (faults(SMALL, 1), "promise 3: two downlinks"),
        Rule::DecideOnce => (Scenario { item: true, ..SMALL }, "promise 2: one uplink is answered twice"),
        Rule::OwnSlotOnly => (Scenario { item: true, ..second_confirmed }, "promise"),
        Rule::NeverGoBack => (faults(SMALL, 1), "promise 1: a confirmed uplink has no ACK"),
        Rule::ClosedStaysClosed => (faults(Scenario { item: true, ..SMALL }, 1), "an answer that was closed"),
        Rule::OvertakenLeavesTheAnswer => (second_confirmed, "promise 1: a confirmed uplink has no ACK"),
        Rule::DoneAfterTheAnswer => (faults(SMALL, 1), "promise 1: a confirmed uplink has no ACK"),
        Rule::TakeOverAnswers => (faults(SMALL, 1), "promise 1: a confirmed uplink has no ACK"),
        Rule::SendDecidedAgain => (faults(SMALL, 1), "promise 1: a confirmed uplink has no ACK"),
        Rule::SlotsBytes => (faults(SMALL, 1), "promise 3: two payloads"),
        Rule::ActOnTheRow => (faults(Scenario { reply_delay: false, ..SMALL }, 2), "promise 3: two payloads"),
        Rule::QueueWhenDeciding => (Scenario { sent: &[ONE], item: true, ..SMALL }, "promise 9"),
        Rule::ItemUntilTxAck => (faults(Scenario { sent: &[ONE], ..with_item }, 2), "a queue item is lost"),
        Rule::NothingIsNotWritten => (Scenario { sent: &[ONE], ..SMALL }, "an uplink without an answer"),
        Rule::RepeatIsAnswered => {
            (Scenario { sent: &[CONFIRMED, CONFIRMED], ..SMALL }, "promise 1: a confirmed uplink has no ACK")
        }
        Rule::SameBytesInRx2 => (faults(SMALL, 1), "promise 3: two payloads"),
        Rule::KeepBeforeReplacing => (two, "events are first told in another order"),
        Rule::WaitBehind => (faults(two, 1), "events are first told in another order"),
        Rule::AcceptOvertaken => (two, "promise 1: an uplink that was stored"),
        Rule::LoserReadsAgain => (faults(SMALL, 2), "promise 1"),
        Rule::Redeliver => (faults(SMALL, 1), "promise 1"),
        Rule::Sweep => (faults(SMALL, 2), "promise 1: an uplink that was stored"),
        Rule::IdOfTheUplink => (faults(SMALL, 1), "promise 2: one uplink is told"),
    }
}

fn without(rule: Rule) -> Option<Counterexample> {
    let (scenario, _) = missed(rule);
    explore(&Scenario { without: Some(rule), ..scenario }, 5_000_000).found
}

#[test]
fn every_rule_is_missed() {
    let mut unfit = Vec::new();
    for rule in Rule::ALL {
        let (scenario, expected) = missed(rule);
        match without(rule) {
            Some(found) => {
                println!("without {rule:?}: {found}\n");
                if !found.what.starts_with(expected) {
                    unfit.push(format!("{rule:?}: {}", found.what));
                }
            }
            None => unfit.push(format!("{rule:?} is not missed")),
        }
        let whole = explore(&scenario, 5_000_000);
        if whole.found.is_some() || !whole.complete {
            unfit.push(format!(
                "with {rule:?} the same scenario breaks as well: {}",
                whole.found.map_or("not complete".into(), |f| f.to_string())
            ));
        }
    }
    assert!(unfit.is_empty(), "{}", unfit.join("\n"));
}
