//! What balancers are told of this worker's state: one message, numbered, of which several parts of the worker have a say.

use limpet_shared::link::{Drain, Weight};
use limpet_worker_core::load::Advice;

/// The message as it was sent last, and what its one reason is made from.
#[derive(Debug)]
pub struct Advertised {
    pub weight: Weight,
    not_ready: String,
    overload: String,
    /// An operator has ended a drain since this process started, and asked for none after that.
    taken_back: bool,
}

impl Advertised {
    /// A worker of this weight that is not ready yet.
    pub fn new(weight: u32) -> Self {
        let reason = String::from("starting");
        let weight = Weight {
            number: 1,
            weight,
            ready: false,
            reason: reason.clone(),
            drained: Some(false),
            ..Weight::default()
        };
        Self { weight, not_ready: reason, overload: String::new(), taken_back: false }
    }

    /// The message to send, if it is another one now.
    fn changed(&mut self, change: impl FnOnce(&mut Self)) -> Option<Weight> {
        let before = self.weight.clone();
        change(self);
        let weight = &self.weight;
        self.weight.reason = match (weight.ready, weight.overloaded) {
            (false, _) => self.not_ready.clone(),
            (true, true) => self.overload.clone(),
            (true, false) => String::new(),
        };
        if self.weight == before {
            return None;
        }
        self.weight.number += 1;
        Some(self.weight.clone())
    }

    pub fn ready(&mut self, ready: bool, reason: &str) -> Option<Weight> {
        self.changed(|this| {
            this.weight.ready = ready;
            this.not_ready = reason.to_owned();
        })
    }

    pub fn load(&mut self, advice: Advice) -> Option<Weight> {
        self.changed(|this| {
            this.weight.weight = advice.weight;
            this.weight.spare = advice.spare;
            this.weight.overloaded = advice.overloaded.is_some();
            // Which of the signals is the worst may change all the time; the first one is reason enough.
            if let Some(signal) = advice.overloaded.filter(|_| this.overload.is_empty()) {
                this.overload = signal.to_string();
            } else if advice.overloaded.is_none() {
                this.overload.clear();
            }
        })
    }

    /// Sent even if nothing changed: the balancer that asked waits for a word. With it, whether there is a change: what a
    /// balancer remembers of an earlier run is none if an operator has ended it meanwhile.
    pub fn drained(&mut self, drain: &Drain) -> (Weight, bool) {
        let outdated = drain.on && drain.remembered && self.taken_back;
        if !outdated {
            self.taken_back = !drain.on;
            self.weight.drained = Some(drain.on);
        }
        self.weight.number += 1;
        (self.weight.clone(), !outdated)
    }
}

#[cfg(test)]
mod tests {
    use limpet_worker_core::load::Signal;

    use super::*;

    #[test]
    fn only_what_changes_is_told_with_the_reason_that_counts() {
        let mut advertised = Advertised::new(80);
        let advice = |overloaded| Advice { weight: 80, overloaded, spare: false };
        assert_eq!(advertised.load(advice(None)), None);
        let ready = advertised.ready(true, "").unwrap();
        assert_eq!((ready.number, ready.weight, ready.reason.as_str()), (2, 80, ""));
        assert_eq!(advertised.ready(true, ""), None);
        let overloaded = advertised.load(advice(Some(Signal::Cpu))).unwrap();
        assert_eq!((overloaded.overloaded, overloaded.reason.as_str()), (true, "the processors are busy"));
        assert_eq!(advertised.load(advice(Some(Signal::Late))), None, "another reason is no news");
        assert_eq!(advertised.ready(false, "the store does not answer").unwrap().reason, "the store does not answer");
        assert_eq!(advertised.ready(true, "").unwrap().reason, "the processors are busy");
        assert_eq!(advertised.load(advice(None)).unwrap().reason, "");
        let number = advertised.weight.number;
        assert_eq!(advertised.drained(&Drain::default()).0.number, number + 1);
    }

    #[test]
    fn a_drain_that_an_operator_has_ended_does_not_come_back_with_a_balancer_that_remembers_it() {
        let (asked, remembered) = (Drain { on: true, remembered: false }, Drain { on: true, remembered: true });
        let mut advertised = Advertised::new(80);
        let mut drained = |drain| {
            let (weight, news) = advertised.drained(&drain);
            (weight.drained, news)
        };
        assert_eq!(drained(remembered.clone()), (Some(true), true), "it outlives a restart");
        assert_eq!(drained(Drain::default()), (Some(false), true));
        assert_eq!(drained(remembered.clone()), (Some(false), false));
        assert_eq!(drained(asked), (Some(true), true));
        assert_eq!(drained(remembered), (Some(true), true));
    }
}
