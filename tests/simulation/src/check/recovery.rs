//! Promise 5: workers hold nothing that matters. Whichever of them have died, were stopped, drained or cut off: when all troubles are over,
//! those that are there now do with every uplink what workers would that were there from the beginning.

use std::{collections::BTreeMap, time::Duration};

use super::{Facts, PROMPT, Violation, first_told};
use crate::{
    plan::{ENOUGH, Plan},
    seen::Serial,
};

/// Links are up again by then, and every worker has its share.
const RECOVERED: Duration = Duration::from_millis(4_500);
/// A device's windows are over after that, which is before the end of the run.
const ANSWERED: Duration = Duration::from_millis(2_500);

pub fn check(plan: &Plan, facts: &Facts) -> Vec<Violation> {
    let seen = &facts.seen;
    let told: BTreeMap<Serial, Duration> =
        first_told(facts).into_iter().map(|(serial, told)| (serial, told.at)).collect();
    let of_now = seen.sent.iter().filter(|(_, sent)| {
        let device = plan.devices.get(sent.device);
        // Of one that counts anew an older frame may be the newer one, for all that anybody knows; one that repeats is heard twice.
        let is_plain = device.is_some_and(|d| !d.is_deaf && (d.joins || d.starts_again_at.is_none()));
        is_plain && sent.at > facts.troubled_until + RECOVERED && !sent.heard.is_empty()
    });
    let fares_ill = |serial: &Serial| {
        let Some(sent) = seen.sent.get(serial).filter(|sent| sent.can_be_answered) else { return false };
        // What waits from before goes first, and an endpoint that takes its time is long at it.
        let has_backlog = plan.devices.get(sent.device).is_some_and(|d| {
            let is_slow = plan.endpoints_take.get(d.application).is_some_and(|takes| !takes.is_zero());
            is_slow || plan.troubles_of_endpoint(d.application)
        });
        let is_late = told.get(serial).is_none_or(|at| *at > sent.at + PROMPT) && !has_backlog;
        let is_open = sent.at + ANSWERED < plan.uplinks_end + ENOUGH;
        let is_unanswered = sent.confirmed && seen.listened.contains(serial) && !seen.answered.contains(serial);
        !seen.acked.contains_key(serial) || is_late || is_unanswered && is_open
    };
    of_now.filter(|(serial, _)| fares_ill(serial)).map(|(serial, _)| Violation::Forgotten(*serial)).collect()
}
