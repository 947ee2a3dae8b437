//! A fleet under load: balancer and workers decide as in production, the work is simulated. Who has too much sheds until
//! it has not, everything comes home when there is less to do, and no gateway moves more than twice in a minute.

use std::collections::BTreeMap;

use limpet_balancer_core::{Config, WorkerId};
use limpet_shared::link::{WEIGHT_SLOT_SECS, Weight, to_balancer::Kind as ToBalancer, to_worker::Kind as ToWorker};
use limpet_worker_core::load::{Governor, Sample};

use super::world::World;

const GATEWAYS: u64 = 300;
/// Part of a worker's processors that it may use.
const LIMIT: f64 = 0.85;

struct Driver {
    governor: Governor,
    /// Gateways' work that it can do per second, in the unit of [`Fleet::work`].
    capacity: f64,
    told: Weight,
}

struct Fleet {
    w: World,
    drivers: BTreeMap<WorkerId, Driver>,
    /// Work of one gateway.
    work: f64,
    epoch: u64,
    owners: Vec<WorkerId>,
    /// The seconds in which each gateway moved.
    moves: Vec<Vec<u64>>,
}

impl Fleet {
    /// Workers of these capacities; a capacity of 1 is used up by `GATEWAYS` gateways of work 1.
    fn new(capacities: &[f64]) -> Self {
        let mut w = World::new(Config::default());
        let mut drivers = BTreeMap::new();
        for (number, capacity) in capacities.iter().enumerate() {
            let id = w.connect(&format!("worker-{number}"));
            let told = Weight { number: 1, weight: 100, ready: true, ..Weight::default() };
            drivers.insert(id, Driver { governor: Governor::new(100), capacity: *capacity, told });
        }
        w.run(10_000);
        let moves = vec![Vec::new(); GATEWAYS as usize];
        let mut fleet = Self { w, drivers, work: 0.0, epoch: 0, owners: Vec::new(), moves };
        fleet.look();
        fleet
    }

    fn look(&mut self) {
        let epoch = self.w.balancer.stats().ring_epoch;
        if epoch == self.epoch {
            return;
        }
        self.epoch = epoch;
        let owners: Vec<WorkerId> = (0..GATEWAYS).map(|g| self.w.owner(g)).collect();
        for (moves, (before, after)) in self.moves.iter_mut().zip(self.owners.iter().zip(&owners)) {
            if before != after {
                moves.push(self.w.ms / 1_000);
            }
        }
        self.owners = owners;
    }

    /// How much of its processors a worker would like to use.
    fn demand(&self, id: WorkerId) -> f64 {
        let gateways = self.owners.iter().filter(|owner| **owner == id).count();
        gateways as f64 * self.work / GATEWAYS as f64 / self.drivers[&id].capacity
    }

    fn seconds(&mut self, count: u64) {
        for _ in 0..count {
            self.w.run(1_000);
            self.look();
            let ids: Vec<WorkerId> = self.drivers.keys().copied().collect();
            for id in ids {
                self.advise(id);
            }
        }
    }

    fn advise(&mut self, id: WorkerId) {
        let demand = self.demand(id);
        let me = &self.w.workers[&id];
        let spare =
            me.control.iter().rev().find_map(|m| if let ToWorker::Spare(s) = m { Some(&s.names) } else { None });
        let room = spare.is_some_and(|names| names.iter().any(|name| *name != me.name));
        let sample = Sample { cpu: demand.min(1.0), ..Sample::default() };
        let now = self.w.now();
        let Some(driver) = self.drivers.get_mut(&id) else { return };
        let advice = driver.governor.sample(now, sample, room);
        let (weight, overloaded, spare) = (advice.weight, advice.overloaded.is_some(), advice.spare);
        let new = Weight { weight, overloaded, spare, ..driver.told.clone() };
        if new != driver.told {
            driver.told = Weight { number: driver.told.number + 1, ..new };
            let told = driver.told.clone();
            self.w.control(id, ToBalancer::Weight(told));
        }
    }

    fn id(&self, number: usize) -> WorkerId {
        *self.drivers.keys().nth(number).unwrap()
    }

    fn states(&mut self) -> Vec<String> {
        self.w.states().into_iter().map(|(_, state, _)| state).collect()
    }

    /// The most moves of one gateway within 60 s.
    fn most_moves(&self) -> usize {
        let within =
            |moves: &[u64], first: usize| moves[first..].iter().take_while(|at| **at <= moves[first] + 60).count();
        let most = |moves: &Vec<u64>| (0..moves.len()).map(|first| within(moves, first)).max().unwrap_or(0);
        self.moves.iter().map(most).max().unwrap_or(0)
    }

    fn moved(&self) -> usize {
        self.moves.iter().filter(|moves| !moves.is_empty()).count()
    }
}

#[test]
fn a_worker_of_half_the_capacity_sheds_until_it_is_under_its_limit_and_has_them_all_back_in_the_end() {
    let mut fleet = Fleet::new(&[0.5, 1.0, 1.0]);
    let (small, home) = (fleet.id(0), fleet.owners.clone());
    fleet.work = 1.75;
    fleet.seconds(25);
    assert!(fleet.demand(small) > LIMIT, "its share is too much for it: {}", fleet.demand(small));
    assert_eq!(fleet.states(), ["overloaded", "ready", "ready"]);
    fleet.seconds(4 * WEIGHT_SLOT_SECS);
    let demands: Vec<f64> = (0..3).map(|number| fleet.demand(fleet.id(number))).collect();
    assert!(demands.iter().all(|demand| *demand < LIMIT), "{demands:?}");
    assert_eq!(fleet.states(), ["ready"; 3]);
    for (before, now) in home.iter().zip(&fleet.owners) {
        assert!(before == now || *before == small, "only gateways of the overloaded one moved");
    }
    let settled = fleet.owners.clone();
    fleet.seconds(1_200);
    assert_eq!(fleet.owners, settled, "and nothing moves any more");

    fleet.work = 0.6;
    fleet.seconds(400);
    assert_eq!(fleet.owners, home, "with less to do the same gateways come back");
    assert!(fleet.most_moves() <= 2);
}

#[test]
fn when_all_are_overloaded_nothing_moves() {
    let mut fleet = Fleet::new(&[0.5, 1.0, 1.0]);
    fleet.seconds(100);
    fleet.work = 4.0;
    fleet.seconds(1_200);
    assert_eq!(fleet.states(), ["overloaded"; 3]);
    assert_eq!(fleet.moved(), 0, "there is nowhere to go");
}

/// Capacities and work at random, from a fixed seed, so that no run differs from another.
#[test]
fn no_gateway_moves_more_than_twice_in_a_minute_whatever_the_load_does() {
    let mut most = 0;
    for seed in 0..10_u8 {
        let mut state = u64::from(seed);
        let mut between = |low: u64, high: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (low + (state >> 33) % (high - low)) as f64 / 100.0
        };
        let workers = 2 + usize::from(seed) % 5;
        let capacities: Vec<f64> = (0..workers).map(|_| between(30, 150)).collect();
        let mut fleet = Fleet::new(&capacities);
        let total: f64 = capacities.iter().sum();
        for _ in 0..12 {
            fleet.work = total * between(20, 110);
            fleet.seconds((between(20, 150) * 100.0) as u64);
        }
        let moves = fleet.most_moves();
        assert!(moves <= 2, "a gateway moved {moves} times in a minute, seed {seed}");
        most = most.max(fleet.moved());
    }
    assert!(most > 0, "something had to move, or this shows nothing");
}

#[test]
fn a_weight_counts_at_once_only_for_a_worker_without_gateways() {
    let mut w = World::with_workers(&["a", "b"]);
    let id = *w.workers.keys().next().unwrap();
    let name = w.workers[&id].name.clone();
    let weigh = |w: &mut World, number, weight, ready| {
        w.control(id, ToBalancer::Weight(Weight { number, weight, ready, ..Weight::default() }));
        w.states().into_iter().find(|(n, _, _)| *n == name).unwrap().2
    };
    assert_eq!(w.ms / 1_000, 10, "in the first slot");
    assert_eq!(weigh(&mut w, 2, 50, true), 100);
    assert_eq!(weigh(&mut w, 3, 40, true), 100);
    w.run(29_900);
    assert_eq!(weigh(&mut w, 4, 30, true), 100, "until the slot ends");
    w.run(100);
    assert_eq!(weigh(&mut w, 5, 30, true), 30, "the last word counts");
    assert_eq!(weigh(&mut w, 6, 60, false), 0);
    weigh(&mut w, 7, 60, true);
    w.run(4_000);
    assert_eq!(weigh(&mut w, 8, 60, true), 60);
}
