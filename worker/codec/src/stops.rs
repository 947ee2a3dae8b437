//! Scripts that had to be stopped again and again are not run for a while: each run would cost all the time that it may take.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::CodecError;

/// So many in a row begin a pause.
const IN_A_ROW: u32 = 3;
const PAUSE: Duration = Duration::from_secs(10);
/// After a call that the engine could not stop.
const LONG_PAUSE: Duration = Duration::from_secs(600);
/// Scripts remembered; of more nothing is known.
const REMEMBERED: usize = 10_000;

#[derive(Default)]
pub(crate) struct Stops(HashMap<u128, Stopped>);

struct Stopped {
    in_a_row: u32,
    /// Calls that ended by a fault of this program: a call that ends well does not make up for them.
    faults: u32,
    until: Instant,
    /// A profile that was changed has another.
    length: usize,
    error: CodecError,
}

impl Stops {
    /// Why the script is not to be run now.
    pub fn pause_of(&self, script: u128, length: usize, now: Instant) -> Option<CodecError> {
        let stopped = self.0.get(&script).filter(|stopped| stopped.length == length && now < stopped.until)?;
        let left = stopped.until.duration_since(now).as_secs() + 1;
        Some(CodecError::Paused(left, Box::new(stopped.error.clone())))
    }

    pub fn note(&mut self, script: u128, length: usize, ended: Option<&CodecError>, now: Instant) {
        let Some(error) = ended.filter(|error| error.is_stop()) else {
            match self.0.get_mut(&script).filter(|stopped| stopped.faults > 0 && stopped.length == length) {
                Some(stopped) => (stopped.in_a_row, stopped.until) = (stopped.faults, now),
                None => drop(self.0.remove(&script)),
            }
            return;
        };
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, stopped| now < stopped.until);
        }
        if self.0.len() >= REMEMBERED {
            return;
        }
        let fresh = || Stopped { in_a_row: 0, faults: 0, until: now, length, error: error.clone() };
        let stopped = self.0.entry(script).or_insert_with(fresh);
        if stopped.length != length {
            *stopped = fresh();
        }
        stopped.in_a_row = stopped.in_a_row.saturating_add(1);
        stopped.faults = stopped.faults.saturating_add(u32::from(matches!(error, CodecError::Engine)));
        stopped.error = error.clone();
        if matches!(error, CodecError::Hangs) {
            stopped.until = now + LONG_PAUSE;
        } else if stopped.in_a_row >= IN_A_ROW {
            stopped.until = now + PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_stops_in_a_row_are_a_pause() {
        let (mut stops, now) = (Stops::default(), Instant::now());
        let stop = CodecError::Time(Duration::from_millis(100));
        for _ in 0..2 {
            stops.note(1, 5, Some(&stop), now);
            assert_eq!(stops.pause_of(1, 5, now), None);
        }
        stops.note(1, 5, None, now);
        for _ in 0..3 {
            assert_eq!(stops.pause_of(1, 5, now), None, "one that ended begins the count anew");
            stops.note(1, 5, Some(&stop), now);
        }
        assert!(matches!(stops.pause_of(1, 5, now), Some(CodecError::Paused(10..=11, _))));
        assert_eq!(stops.pause_of(1, 6, now), None, "another script of the same profile");
        assert_eq!(stops.pause_of(1, 5, now + PAUSE), None);
    }

    #[test]
    fn faults_of_this_program_count_also_between_calls_that_end_well() {
        let (mut stops, now) = (Stops::default(), Instant::now());
        for _ in 0..3 {
            assert_eq!(stops.pause_of(1, 5, now), None);
            stops.note(1, 5, None, now);
            stops.note(1, 5, Some(&CodecError::Engine), now);
        }
        assert!(matches!(stops.pause_of(1, 5, now), Some(CodecError::Paused(..))));
        stops.note(1, 6, None, now);
        assert_eq!(stops.pause_of(1, 5, now), None, "the script was changed");
    }
}
