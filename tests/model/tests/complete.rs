//! Everything that can happen to two workers, two uplinks and any two faults, and that no promise breaks.
//!
//! `LIMPET_FULL=1` allows one fault more, which takes minutes and gigabytes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use limpet_model::{
    explore::explore,
    scenario::{Scenario, Sent},
};

const ONE: Sent = Sent { up: 0, confirmed: false, copies: 1 };
const NEXT: Sent = Sent { up: 1, ..ONE };
const CONFIRMED: Sent = Sent { confirmed: true, ..ONE };
const HEARD_TWICE: Sent = Sent { copies: 2, ..CONFIRMED };

fn plain(name: &'static str, faults: u8, sent: &'static [Sent]) -> Scenario {
    let more = std::env::var_os("LIMPET_FULL").is_some_and(|full| full == "1");
    Scenario {
        name,
        sent,
        item: true,
        reply_delay: true,
        waiting_item_at_once: false,
        patient: false,
        faults: faults + u8::from(more),
        without: None,
    }
}

#[track_caller]
fn holds(scenario: Scenario) {
    let report = explore(&scenario, 200_000_000);
    println!("{}, any {} faults: {report}", scenario.name, scenario.faults);
    if let Some(found) = report.found {
        panic!("{}: {found}", scenario.name);
    }
    assert!(report.complete);
}

#[test]
fn one_uplink_heard_twice_and_an_item() {
    holds(plain("one confirmed uplink heard twice", 2, &[HEARD_TWICE]));
}

#[test]
fn one_uplink_and_the_next() {
    holds(plain("a confirmed uplink and the next", 2, &[CONFIRMED, NEXT]));
}

#[test]
fn one_uplink_and_the_next_which_is_confirmed() {
    holds(plain("an uplink and a confirmed one", 1, &[ONE, Sent { confirmed: true, ..NEXT }]));
}

#[test]
fn a_device_that_waits_for_its_windows() {
    let sent = &[CONFIRMED, Sent { confirmed: true, ..NEXT }];
    holds(Scenario { patient: true, ..plain("two confirmed uplinks of a patient device", 2, sent) });
}

#[test]
fn a_confirmed_uplink_that_is_repeated() {
    holds(plain("a confirmed uplink and its repetition", 2, &[CONFIRMED, CONFIRMED]));
}

#[test]
fn an_item_that_waits_is_decided_at_once() {
    holds(Scenario { waiting_item_at_once: true, ..plain("a waiting item goes at once", 1, &[ONE, NEXT]) });
}

#[test]
fn both_decisions_in_one() {
    holds(Scenario { reply_delay: false, ..plain("reply_delay = 0", 2, &[CONFIRMED, NEXT]) });
}

#[test]
fn both_decisions_in_one_and_repeated() {
    holds(Scenario { reply_delay: false, ..plain("reply_delay = 0, repeated", 2, &[CONFIRMED, CONFIRMED]) });
}

#[test]
fn two_uplinks_heard_twice() {
    let sent = &[HEARD_TWICE, Sent { copies: 2, ..NEXT }];
    holds(plain("a confirmed uplink and the next, each heard twice", 0, sent));
}

#[test]
fn repeated_and_gone_on() {
    let sent = &[CONFIRMED, CONFIRMED, NEXT];
    holds(plain("a confirmed uplink, its repetition and the next", 0, sent));
}
