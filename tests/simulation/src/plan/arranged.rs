//! Plans made for one rule each, whose absence few seeds bring to light.

use std::time::Duration;

use limpet_link::host::Rule;

use super::{DevicePlan, GatewayPlan, Habit, Mood, Plan, Strike, TROUBLE_ENDS, Theme, Trouble, UPLINKS_END, troubles};

impl Plan {
    /// The plan for this rule, if there is one.
    pub fn arranged(rule: Rule) -> Option<Self> {
        match rule {
            Rule::SweepWhenBalancerGone => Some(balancer_and_worker_die()),
            Rule::ReadAfterUnknown => Some(store_forgets()),
            Rule::TakeOver => Some(workers_die_telling_a_last_uplink()),
            Rule::HeedJoinRefusal => Some(joins_at_a_slow_worker()),
            Rule::KeepFormerSessions => Some(devices_join_twice_around_a_power_cut()),
            _ => None,
        }
    }
}

/// Where nothing happens.
fn quiet(theme: Theme, joins: bool) -> Plan {
    let device = |index: usize| DevicePlan {
        joins,
        counts_nonces: index.is_multiple_of(2),
        confirmed: index.is_multiple_of(2),
        every: Duration::from_millis(if index.is_multiple_of(2) { 2_400 } else { 900 }),
        is_deaf: false,
        starts_again_at: None,
        application: index / 2 % 2,
        silent_from: None,
    };
    Plan {
        seed: 1,
        theme,
        balancers: 1,
        workers: 2,
        spares: 0,
        gateways: vec![GatewayPlan { balancer: 0, habit: Habit::Honest, added_at: None }; 4],
        devices: (0..6).map(device).collect(),
        clocks: Vec::new(),
        store_delay: Duration::ZERO,
        troubles: Vec::new(),
        strikes: Vec::new(),
        items: Vec::new(),
        items_answer: false,
        endpoints_take: Default::default(),
        heard: 800,
        uplinks_end: UPLINKS_END,
        broken: None,
    }
}

/// Something for each device, all the time.
fn many_items(plan: &Plan) -> Vec<(Duration, usize)> {
    (0..40).map(|number| (Duration::from_millis(1_500 + number * 250), number as usize % plan.devices.len())).collect()
}

/// With the frames that these two hold, while another worker lives that has no copy. Later than all workers have looked for what was
/// stored before they started.
fn balancer_and_worker_die() -> Plan {
    let strike = |acked| Strike {
        acked,
        then: Duration::from_millis(30),
        trouble: Trouble::KillMost,
        lasts: Duration::from_millis(500),
        end: Trouble::PowerBack,
        silences: false,
    };
    let mut plan = Plan { heard: 300, strikes: vec![strike(105), strike(118)], ..quiet(Theme::Aimed, false) };
    plan.devices.iter_mut().for_each(|device| (device.confirmed, device.every) = (false, Duration::from_millis(300)));
    plan
}

/// Between accepting an uplink and its endpoint's word, and that device sends nothing more: nobody else has a reason to look at its slot.
fn workers_die_telling_a_last_uplink() -> Plan {
    let strike = |(at, worker)| Strike {
        acked: 8 + 10 * at,
        then: Duration::from_millis(330),
        trouble: Trouble::KillWorker(worker),
        lasts: Duration::from_millis(800),
        end: Trouble::StartWorker(worker),
        silences: true,
    };
    let strikes = [0, 1, 0, 1].into_iter().enumerate().map(strike).collect();
    Plan { strikes, endpoints_take: [Duration::from_millis(200); 2], ..quiet(Theme::Aimed, false) }
}

/// What it says nothing of it may have done, or not.
fn store_forgets() -> Plan {
    let plan = quiet(Theme::Aimed, false);
    Plan { troubles: (0..plan.workers).map(troubles::forgets).collect(), items: many_items(&plan), ..plan }
}

/// A worker has uplinks that are stored and not accepted, for the store is away for it, when all servers die. Their devices join before
/// that at the other worker and, for they have heard no JoinAccept, again after it, before anybody looks for what was stored.
fn devices_join_twice_around_a_power_cut() -> Plan {
    let at = |millis| Duration::from_millis(millis);
    let mut plan = Plan { seed: 2, heard: 350, uplinks_end: at(20_000), ..quiet(Theme::Aimed, true) };
    for device in &mut plan.devices {
        (device.confirmed, device.every, device.starts_again_at) = (false, at(100), Some(at(10_000)));
    }
    let away = [(at(9_980), Trouble::Store(0, Mood::Away)), (at(10_900), Trouble::Store(0, Mood::Well))];
    let cut = [(at(10_800), Trouble::PowerCut), (at(11_000), Trouble::PowerBack)];
    // What gateways were asked to transmit goes with them.
    let dark = |gateway| [10_850, 10_900].map(|millis| (at(millis), Trouble::RestartGateway(gateway)));
    let troubles = (0..plan.gateways.len()).map(dark).chain([away, cut]).collect();
    Plan { troubles, ..plan }
}

/// Two workers decide one join, and the slow one comes later.
fn joins_at_a_slow_worker() -> Plan {
    let (begins, ends) = (Duration::from_secs(1), TROUBLE_ENDS);
    let slow = [(begins, Trouble::Store(0, Mood::Slow)), (ends, Trouble::Store(0, Mood::Well))];
    let mut plan = quiet(Theme::Slow, true);
    plan.devices.iter_mut().for_each(|device| device.starts_again_at = Some(Duration::from_millis(8_000)));
    Plan { troubles: vec![slow], ..plan }
}
