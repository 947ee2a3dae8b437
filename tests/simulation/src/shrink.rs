//! Of a plan that breaks a promise, the part that is needed for it.

use crate::{Plan, Violation, run};

/// Leaves out troubles, queue items, devices and gateways as long as the same promise is broken. Gives what is left, and what it breaks.
pub fn shrink(plan: &Plan, broken: &Violation) -> (Plan, Vec<Violation>) {
    let (mut least, mut breaks) = (plan.clone(), vec![broken.clone()]);
    let mut tried = 0;
    while let Some(smaller) = smaller(&least).into_iter().nth(tried) {
        let found = run(&smaller).map(|outcome| outcome.violations).unwrap_or_default();
        if found.iter().any(|found| found.is_like(broken)) {
            (least, breaks, tried) = (smaller, found, 0);
        } else {
            tried += 1;
        }
    }
    (least, breaks)
}

/// Plans with one thing less. Of devices and gateways the last, for the others are known by their place.
fn smaller(plan: &Plan) -> Vec<Plan> {
    let mut all = Vec::new();
    for at in 0..plan.troubles.len() {
        let mut plan = plan.clone();
        plan.troubles.remove(at);
        all.push(plan);
    }
    for at in 0..plan.strikes.len() {
        let mut plan = plan.clone();
        plan.strikes.remove(at);
        all.push(plan);
    }
    if !plan.items.is_empty() {
        all.push(Plan { items: Vec::new(), ..plan.clone() });
    }
    if let Some((_, devices)) = plan.devices.split_last().filter(|(_, others)| !others.is_empty()) {
        let items = plan.items.iter().copied().filter(|(_, device)| *device < devices.len()).collect();
        all.push(Plan { devices: devices.to_vec(), items, ..plan.clone() });
    }
    if let Some((_, gateways)) = plan.gateways.split_last().filter(|(_, others)| !others.is_empty()) {
        all.push(Plan { gateways: gateways.to_vec(), ..plan.clone() });
    }
    all
}
