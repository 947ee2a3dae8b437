//! Ends of leases that a clock which was ahead has written.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Whoever holds a lease renews it long before: leases last some seconds. An end that has stood for so long was left behind.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// Lease and asker that are remembered: there are a few of either.
const REMEMBERED: usize = 1_000;

/// A lease, and who asks for it.
type Asked = (String, String);
/// Who has it instead and until when, as it was read, and since when so by a clock that does not jump.
type Read = (String, i64, Instant);

#[derive(Default)]
pub(crate) struct LeaseEnds(Mutex<BTreeMap<Asked, Read>>);

impl LeaseEnds {
    /// Another holds the lease until then, as the store says. Whether it is over all the same: that has been there, unchanged,
    /// for longer than anybody holds a lease without renewing it.
    pub fn is_stale(&self, (name, asker): (&str, &str), holder: &str, ends: i64, now: Instant) -> bool {
        let mut known = self.0.lock();
        let key = (name.to_owned(), asker.to_owned());
        match known.get(&key) {
            Some((known, until, since)) if (known.as_str(), *until) == (holder, ends) => now - *since >= STALE_AFTER,
            _ => {
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(key, (holder.into(), ends, now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_nobody_moves_is_over_and_one_that_is_renewed_is_not() {
        let (ends, began) = (LeaseEnds::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        for second in 0..100 {
            // Renewed every three seconds, by a clock that is a year ahead of ours.
            assert!(!ends.is_stale(("sweep", "me"), "a", 31_536_000 + second / 3, at(second.cast_unsigned())));
        }
        assert!(!ends.is_stale(("other", "me"), "a", 1, at(100)));
        assert!(!ends.is_stale(("sweep", "me"), "b", 99, at(100)) && !ends.is_stale(("sweep", "me"), "b", 99, at(129)));
        assert!(ends.is_stale(("sweep", "me"), "b", 99, at(130)));
    }
}
