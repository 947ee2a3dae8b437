//! What is explored: what devices send, what applications do, how much goes wrong, and which rule is missing.

use crate::{
    explore::{Model, Step},
    label::Label,
    rule::Rule,
    state::State,
};

/// One transmission of the device.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Its FCntUp. The same as before: the device repeats it.
    pub up: u8,
    pub confirmed: bool,
    /// How many gateways hear it.
    pub copies: usize,
}

/// One exploration.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// In the order they are on air.
    pub sent: &'static [Sent],
    /// An application enqueues an item, at any moment.
    pub item: bool,
    /// `reply_delay` is not zero: the answer is a decision of its own.
    pub reply_delay: bool,
    /// Accepting decides at once if an item waits already, for there is room for one.
    pub waiting_item_at_once: bool,
    /// The device waits for its windows before it sends again. If not, servers may get the next uplink at any moment.
    pub patient: bool,
    pub faults: u8,
    /// The rule that is taken out.
    pub without: Option<Rule>,
}

impl Scenario {
    pub(crate) fn lacks(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    pub(crate) fn up(&self, sent: usize) -> u8 {
        self.sent.get(sent).map_or(0, |sent| sent.up)
    }

    pub(crate) fn confirmed(&self, sent: usize) -> bool {
        self.sent.get(sent).is_some_and(|sent| sent.confirmed)
    }
}

impl Model for Scenario {
    type State = State;
    type Label = Label;

    fn start(&self) -> State {
        State { left: self.faults, ..State::default() }
    }

    fn steps(&self, state: &State, out: &mut Vec<Step<State, Label>>) {
        self.all_steps(state, out);
    }

    fn canonical(&self, state: &State) -> State {
        self.forget(state)
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        self.is_broken(state)
    }

    fn unfinished(&self, state: &State) -> Option<&'static str> {
        self.is_unfinished(state)
    }

    fn tell(&self, state: &State) -> String {
        self.told(state)
    }
}
