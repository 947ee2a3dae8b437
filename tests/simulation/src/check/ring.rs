//! Promise 4: who has which gateway, as balancers say it when they are asked.

use std::{collections::BTreeMap, time::Duration};

use super::{Facts, Violation};
use crate::{plan::Plan, seen::Look};

/// When the first workers have come through their slow start.
const SETTLED: Duration = Duration::from_millis(5_200);
/// An operator's wish has come to all balancers by then.
const DRAINED_AFTER: Duration = Duration::from_millis(1_000);
/// What a worker that has just come may have of its weight (%).
const AT_FIRST: u32 = 50;
/// A balancer that has just started takes all workers as they come.
const BALANCER_IS_NEW: Duration = Duration::from_secs(6);

pub fn check(plan: &Plan, facts: &Facts) -> Vec<Violation> {
    let mut found = disagreements(&facts.looks);
    for balancer in 0..plan.balancers {
        let looks: Vec<&Look> = facts.looks.iter().filter(|look| look.balancer == balancer).collect();
        for pair in looks.windows(2) {
            if let [before, after] = pair
                && before.run == after.run
            {
                found.extend(moves(before, after));
                if plan.theme.owes().steady && before.at > SETTLED && before.workers != after.workers {
                    found.push(Violation::RingChanged(balancer));
                }
            }
        }
        found.extend(newcomers(&looks));
        found.extend(drained(facts, &looks));
    }
    found.sort();
    found.dedup();
    found
}

/// Balancers with the same workers choose the same.
fn disagreements(looks: &[Look]) -> Vec<Violation> {
    let mut by_ring = BTreeMap::<&BTreeMap<String, u32>, &Look>::new();
    let mut found = Vec::new();
    for look in looks {
        let other = *by_ring.entry(&look.workers).or_insert(look);
        let pairs = look.choices.iter().zip(&other.choices).enumerate();
        found.extend(pairs.filter(|(_, (one, other))| one != other).map(|(gateway, _)| Violation::Disagree(gateway)));
    }
    found
}

/// A gateway leaves a worker that has less than before, or for one that has more.
fn moves(before: &Look, after: &Look) -> Vec<Violation> {
    let weight = |look: &Look, name: &String| look.workers.get(name).copied().unwrap_or_default();
    let pairs = before.choices.iter().zip(&after.choices).enumerate();
    let moved = pairs.filter(|(_, pair)| match pair {
        (Some(from), Some(to)) if from != to => {
            weight(after, from) >= weight(before, from) && weight(after, to) <= weight(before, to)
        }
        _ => false,
    });
    moved.map(|(gateway, _)| Violation::Moved(gateway)).collect()
}

fn newcomers(looks: &[&Look]) -> Vec<Violation> {
    let began = |run: usize| looks.iter().find(|look| look.run == run).map_or(Duration::ZERO, |look| look.at);
    let pairs = looks.windows(2).filter_map(|pair| match pair {
        [before, after] if before.run == after.run && before.at > began(before.run) + BALANCER_IS_NEW => {
            Some((before, after))
        }
        _ => None,
    });
    let mut found = Vec::new();
    for (before, after) in pairs.filter(|(before, _)| !before.workers.is_empty()) {
        let new = after.workers.iter().filter(|(name, _)| !before.workers.contains_key(*name));
        found.extend(new.filter(|(_, weight)| **weight > AT_FIRST).map(|(name, _)| Violation::AllAtOnce(name.clone())));
    }
    found
}

fn drained(facts: &Facts, looks: &[&Look]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (since, name, on) in &facts.drains {
        let until =
            facts.drains.iter().find(|(at, of, _)| at > since && of == name).map_or(Duration::MAX, |(at, ..)| *at);
        let there =
            |look: &&&Look| look.at > *since + DRAINED_AFTER && look.at < until && look.workers.contains_key(name);
        found.extend(looks.iter().filter(|_| *on).find(there).map(|_| Violation::StillThere(name.clone())));
    }
    found
}
