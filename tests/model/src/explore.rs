//! Visits every state that a model can reach, the nearest first: so the first violation found has a shortest way to it.
//!
//! States are known by a fingerprint of 128 bits. Of 10^8 states two share one with a probability of 10^-23.

use std::{
    fmt::{self, Display},
    hash::{Hash, Hasher},
    time::{Duration, Instant},
};

/// What kind of step it is, for the questions "has it come to an end?" and "may time pass?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A running system does it at once, before a receive window passes.
    Urgent,
    /// A running system does it sooner or later.
    Later,
    /// The surroundings may do it, or never.
    Choice,
    /// Something goes wrong.
    Fault,
}

impl Class {
    /// Whether a run is at an end only when no such step is left.
    fn must_happen(self) -> bool {
        matches!(self, Self::Urgent | Self::Later)
    }
}

/// One step from a state. `L` tells people what it is.
#[derive(Clone, Copy, Debug)]
pub struct Step<S, L> {
    pub class: Class,
    pub label: L,
    pub next: S,
}

/// What is explored. Every run must come to an end, for faults are finitely many and nothing may go round in circles.
pub trait Model {
    type State: Copy + Hash;
    type Label: Copy + Display;

    fn start(&self) -> Self::State;
    fn steps(&self, state: &Self::State, out: &mut Vec<Step<Self::State, Self::Label>>);
    /// One state for all that differ in names only (which of two equal workers), or in what can matter no more.
    fn canonical(&self, state: &Self::State) -> Self::State;
    /// What must never be, and is.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
    /// What is wrong with it if the run ends here.
    fn unfinished(&self, state: &Self::State) -> Option<&'static str>;
    fn tell(&self, state: &Self::State) -> String;
}

/// A shortest run to something that must not be.
#[derive(Clone, Debug)]
pub struct Counterexample {
    pub what: &'static str,
    pub steps: Vec<String>,
    pub end: String,
}

impl Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, after {} steps:", self.what, self.steps.len())?;
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {:>2}. {step}", number + 1)?;
        }
        write!(f, "  now: {}", self.end)
    }
}

/// What an exploration found.
#[derive(Clone, Debug)]
pub struct Report {
    pub states: usize,
    pub steps: usize,
    /// Steps from the start to the state furthest away.
    pub depth: usize,
    /// States in which nothing more must happen.
    pub ends: usize,
    pub took: Duration,
    /// Every state was visited.
    pub complete: bool,
    pub found: Option<Counterexample>,
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, steps, depth, ends, took, complete, .. } = self;
        let visited = if *complete { "complete" } else { "NOT COMPLETE" };
        write!(f, "{states} states, {steps} steps, depth {depth}, {ends} ends, {:.1} s, {visited}", took.as_secs_f64())
    }
}

const ON_A_LOOP: &str = "goes round in circles";

/// Explores until everything was seen, something is wrong, or there are more states than `at_most`.
pub fn explore<M: Model>(model: &M, at_most: usize) -> Report {
    let began = Instant::now();
    let mut search = Search::new(model);
    let bad = search.run(at_most);
    let complete = bad.is_none() && search.seen.prints.len() <= at_most;
    let mut found = bad.map(|(at, what)| search.explain(at, what));
    if complete {
        found = search.find_loop().map(|at| search.explain(at, ON_A_LOOP));
    }
    Report {
        states: search.seen.prints.len(),
        steps: search.edges.len(),
        depth: search.depth,
        ends: search.ends,
        took: began.elapsed(),
        complete,
        found,
    }
}

struct Search<'a, M: Model> {
    model: &'a M,
    seen: Seen,
    /// The state that each was first reached from. States are numbered in the order they are found.
    parents: Vec<u32>,
    /// Where each state's steps lead, one after the other, and where each state's begin.
    edges: Vec<u32>,
    begins: Vec<usize>,
    depth: usize,
    ends: usize,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M) -> Self {
        let (seen, parents, edges, begins) = (Seen::new(), Vec::new(), Vec::new(), Vec::new());
        Self { model, seen, parents, edges, begins, depth: 0, ends: 0 }
    }

    /// Level by level. Returns the first state that is wrong.
    fn run(&mut self, at_most: usize) -> Option<(u32, &'static str)> {
        let start = self.model.canonical(&self.model.start());
        self.seen.add(fingerprint(&start));
        self.parents.push(0);
        let (mut level, mut next, mut out) = (vec![start], Vec::new(), Vec::new());
        while !level.is_empty() {
            for state in &level {
                let at = self.begins.len() as u32;
                self.begins.push(self.edges.len());
                if let Some(what) = self.model.broken(state) {
                    return Some((at, what));
                }
                out.clear();
                self.model.steps(state, &mut out);
                for step in &out {
                    let state = self.model.canonical(&step.next);
                    let (number, is_new) = self.seen.add(fingerprint(&state));
                    if is_new {
                        self.parents.push(at);
                        next.push(state);
                    }
                    self.edges.push(number);
                }
                if !out.iter().any(|step| step.class.must_happen()) {
                    self.ends += 1;
                    if let Some(what) = self.model.unfinished(state) {
                        return Some((at, what));
                    }
                }
                if self.seen.prints.len() > at_most {
                    return None;
                }
            }
            self.depth += usize::from(!next.is_empty());
            std::mem::swap(&mut level, &mut next);
            next.clear();
        }
        self.begins.push(self.edges.len());
        None
    }

    /// A state that can be reached from itself: found depth first, as a step to a state whose steps are being followed.
    fn find_loop(&self) -> Option<u32> {
        const NEW: u8 = 0;
        const OPEN: u8 = 1;
        const CLOSED: u8 = 2;
        let mut marks = vec![NEW; self.parents.len()];
        let mut way: Vec<(u32, usize)> = vec![(0, 0)];
        while let Some((at, edge)) = way.pop() {
            marks[at as usize] = OPEN;
            let (begin, end) = (self.begins[at as usize], self.begins[at as usize + 1]);
            let Some(to) = self.edges[begin..end].get(edge) else {
                marks[at as usize] = CLOSED;
                continue;
            };
            way.push((at, edge + 1));
            match marks[*to as usize] {
                NEW => way.push((*to, 0)),
                OPEN => return Some(*to),
                _ => {}
            }
        }
        None
    }

    /// The shortest way to a state, walked again. Workers keep their names, though the search calls equal ones the same.
    fn explain(&self, at: u32, what: &'static str) -> Counterexample {
        let mut way = vec![at];
        let mut first = at;
        while first != 0 {
            first = self.parents[first as usize];
            way.push(first);
        }
        let mut state = self.model.start();
        let (mut steps, mut out) = (Vec::new(), Vec::new());
        for number in way.iter().rev().skip(1) {
            out.clear();
            self.model.steps(&state, &mut out);
            let wanted = self.seen.prints[*number as usize];
            let taken = out.iter().find(|step| fingerprint(&self.model.canonical(&step.next)) == wanted);
            // Equal states have equal steps; a model for which that is not so shows a broken trace.
            let Some(step) = taken else { break };
            steps.push(step.label.to_string());
            state = step.next;
        }
        Counterexample { what, steps, end: self.model.tell(&state) }
    }
}

/// A set of fingerprints that numbers its members.
struct Seen {
    prints: Vec<u128>,
    /// Open addressing: the number plus one in the low half, bits of the print in the high one, 0 where nothing is.
    table: Vec<u64>,
}

impl Seen {
    fn new() -> Self {
        Self { prints: Vec::new(), table: vec![0; 1 << 16] }
    }

    fn add(&mut self, print: u128) -> (u32, bool) {
        if self.prints.len() * 2 > self.table.len() {
            self.grow();
        }
        let (mask, tag) = (self.table.len() - 1, print as u64 >> 32);
        let mut place = print as usize & mask;
        loop {
            let entry = self.table[place];
            if entry == 0 {
                let number = self.prints.len() as u32;
                self.prints.push(print);
                self.table[place] = tag << 32 | u64::from(number + 1);
                return (number, true);
            }
            let number = entry as u32 - 1;
            if entry >> 32 == tag && self.prints[number as usize] == print {
                return (number, false);
            }
            place = (place + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let mut table = vec![0_u64; self.table.len() * 2];
        let mask = table.len() - 1;
        for (number, print) in self.prints.iter().enumerate() {
            let mut place = *print as usize & mask;
            while table[place] != 0 {
                place = (place + 1) & mask;
            }
            table[place] = (*print as u64 >> 32) << 32 | (number as u64 + 1);
        }
        self.table = table;
    }
}

/// Two lanes of multiply and rotate, over words of 64 bits.
struct Print {
    a: u64,
    b: u64,
}

pub(crate) fn fingerprint(value: &impl Hash) -> u128 {
    let mut print = Print { a: 0x9E37_79B9_7F4A_7C15, b: 0xD1B5_4A32_D192_ED03 };
    value.hash(&mut print);
    let (mut a, mut b) = (print.a, print.b);
    a = (a ^ a >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    a = (a ^ a >> 32).wrapping_mul(0x94D0_49BB_1331_11EB);
    b = (b ^ b >> 31).wrapping_mul(0x94D0_49BB_1331_11EB);
    b = (b ^ b >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    u128::from(b ^ b >> 32) << 64 | u128::from(a ^ a >> 31)
}

impl Hasher for Print {
    fn write_u64(&mut self, word: u64) {
        self.a = (self.a.rotate_left(5) ^ word).wrapping_mul(0x517C_C1B7_2722_0A95);
        self.b = (self.b ^ word.wrapping_mul(0x9FB2_1C65_1E98_DF25)).rotate_left(29);
        self.b = self.b.wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.a
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters that go up to three; `next` may add a step of its own.
    struct Counters(fn([u8; 2]) -> Option<[u8; 2]>, [u8; 2]);

    impl Model for Counters {
        type State = [u8; 2];
        type Label = &'static str;

        fn start(&self) -> [u8; 2] {
            [0, 0]
        }
        fn steps(&self, state: &[u8; 2], out: &mut Vec<Step<[u8; 2], &'static str>>) {
            let [a, b] = *state;
            let mut add = |label, next| out.push(Step { class: Class::Later, label, next });
            if a < 3 {
                add("left", [a + 1, b]);
            }
            if b < 3 {
                add("right", [a, b + 1]);
            }
            if let Some(next) = (self.0)(*state) {
                add("own", next);
            }
        }
        fn canonical(&self, state: &[u8; 2]) -> [u8; 2] {
            *state
        }
        fn broken(&self, state: &[u8; 2]) -> Option<&'static str> {
            (*state == self.1).then_some("forbidden")
        }
        fn unfinished(&self, state: &[u8; 2]) -> Option<&'static str> {
            (*state != [3, 3]).then_some("stuck")
        }
        fn tell(&self, state: &[u8; 2]) -> String {
            format!("{state:?}")
        }
    }

    const NOWHERE: [u8; 2] = [9, 9];

    #[test]
    fn every_state_is_visited_once() {
        let report = explore(&Counters(|_| None, NOWHERE), 1000);
        assert!(report.complete && report.found.is_none());
        assert_eq!((report.states, report.steps, report.depth, report.ends), (16, 24, 6, 1));
    }

    #[test]
    fn the_way_to_what_is_forbidden_is_a_shortest_one() {
        let found = explore(&Counters(|s| (s == [0, 0]).then_some([2, 0]), [2, 1]), 1000).found.unwrap();
        assert_eq!((found.what, found.end.as_str()), ("forbidden", "[2, 1]"));
        let mut steps = found.steps;
        steps.sort_unstable();
        assert_eq!(steps, ["own", "right"]);
    }

    #[test]
    fn an_end_that_is_none_and_a_loop_are_found() {
        let stuck = explore(&Counters(|s| (s == [1, 0]).then_some([7, 7]), NOWHERE), 1000).found.unwrap();
        assert_eq!((stuck.what, stuck.steps.len()), ("stuck", 2));
        let circle = explore(&Counters(|s| (s == [2, 2]).then_some([1, 1]), NOWHERE), 1000).found.unwrap();
        assert_eq!(circle.what, ON_A_LOOP);
    }

    #[test]
    fn too_many_states_are_no_complete_run() {
        assert!(!explore(&Counters(|_| None, NOWHERE), 10).complete);
    }
}
