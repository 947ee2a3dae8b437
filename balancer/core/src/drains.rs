//! Workers that an operator has told to drain. The wish outlives the link, and the worker's own restart; a worker that
//! hears it from one balancer tells all others.

use alloc::{collections::BTreeMap, string::String};

use limpet_shared::link::Drain;

/// Names remembered. An operator has to name a connected worker, so more means names that are long gone.
const MOST: usize = 1_000;

/// How far a wish has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// The worker may not have heard of it.
    Asked,
    /// This run of the worker has said that it drains. If it says otherwise later, somebody has taken it back.
    Known(u64),
}

/// Who is to drain, by name.
#[derive(Clone, Debug, Default)]
pub struct Drains(BTreeMap<String, Wish>);

impl Drains {
    /// An operator wants it, or takes it back.
    pub fn ask(&mut self, name: &str, on: bool) {
        if !on {
            self.0.remove(name);
        } else {
            if self.0.len() >= MOST {
                self.0.pop_first();
            }
            self.0.insert(name.into(), Wish::Asked);
        }
    }

    /// A worker is linked, in its run `instance`: whether it drains, and what it has to be told of that. `None` from a
    /// worker of a version that does not say. What an earlier run of it knew may have been taken back at another balancer.
    pub fn linked(&mut self, name: &str, instance: u64, says: Option<bool>) -> (bool, Option<Drain>) {
        match (says, self.0.get(name)) {
            (Some(true), _) => {
                self.0.insert(name.into(), Wish::Known(instance));
                (true, None)
            }
            (Some(false), Some(Wish::Known(known))) if *known == instance => {
                self.0.remove(name);
                (false, None)
            }
            (_, Some(wish)) => (true, Some(Drain { on: true, remembered: *wish != Wish::Asked })),
            (_, None) => (false, None),
        }
    }

    /// A linked worker says whether it drains: what that makes of it here, if anything.
    pub fn says(&mut self, name: &str, instance: u64, says: Option<bool>) -> Option<bool> {
        match (says?, self.0.get(name)) {
            (true, _) => {
                self.0.insert(name.into(), Wish::Known(instance));
                Some(true)
            }
            // It cannot have read yet what it was asked for.
            (false, Some(Wish::Asked)) => None,
            (false, _) => {
                self.0.remove(name);
                Some(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(remembered: bool) -> Option<Drain> {
        Some(Drain { on: true, remembered })
    }

    #[test]
    fn a_wish_outlives_links_and_restarts_until_it_is_taken_back_anywhere() {
        let mut drains = Drains::default();
        assert_eq!(drains.linked("a", 1, Some(false)), (false, None));
        drains.ask("a", true);
        assert_eq!(drains.says("a", 1, Some(false)), None, "said before it was asked");
        assert_eq!(drains.linked("a", 1, Some(false)), (true, told(false)), "the wish was lost with the link");
        assert_eq!(drains.says("a", 1, Some(true)), Some(true));
        assert_eq!(drains.linked("a", 1, Some(true)), (true, None), "the link came back");
        assert_eq!(drains.linked("a", 2, Some(false)), (true, told(true)), "it was restarted");
        assert_eq!(drains.says("a", 2, Some(true)), Some(true));
        assert_eq!(drains.linked("a", 2, Some(false)), (false, None), "taken back at another balancer meanwhile");
        drains.ask("a", true);
        drains.ask("a", false);
        assert_eq!(drains.linked("a", 3, Some(false)), (false, None));
    }

    #[test]
    fn a_wish_that_was_taken_back_while_the_link_was_away_is_given_up_when_the_worker_says_so() {
        let mut drains = Drains::default();
        drains.ask("a", true);
        assert_eq!(drains.says("a", 1, Some(true)), Some(true));
        // Hello was written before the operator's word came to the new run, which goes by that.
        assert_eq!(drains.linked("a", 2, Some(false)), (true, told(true)));
        assert_eq!(drains.says("a", 2, Some(false)), Some(false));
        assert_eq!(drains.linked("a", 2, Some(false)), (false, None));
    }

    #[test]
    fn a_worker_of_an_older_version_does_what_it_is_told() {
        let mut drains = Drains::default();
        drains.ask("old", true);
        assert_eq!(drains.says("old", 1, None), None);
        assert_eq!(drains.linked("old", 1, None), (true, told(false)));
    }
}
