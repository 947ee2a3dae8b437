//! One beat for all that a worker does now and then: what falls due together wakes the processor once, and of an idle server's
//! cost most is waking up.

use std::time::Duration;

use tokio::time::Instant;

/// What is done every so often is done every so many of these.
pub const BEAT: Duration = Duration::from_millis(200);

/// Where the beat began.
#[derive(Clone, Copy, Debug)]
pub struct Beat(Instant);

impl Beat {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The next moment, after now, that is a whole number of beats after the start, and of as many beats as `period` has.
    pub fn next(&self, period: Duration) -> Instant {
        let period = period.as_millis().max(1);
        let gone = self.0.elapsed().as_millis() / period + 1;
        self.0 + Duration::from_millis(u64::try_from(gone * period).unwrap_or(u64::MAX))
    }

    /// Waits for that moment.
    pub async fn every(&self, period: Duration) {
        tokio::time::sleep_until(self.next(period)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn periods_of_several_beats_fall_on_a_shorter_ones() {
        let beat = Beat::start();
        tokio::time::sleep(Duration::from_millis(70)).await;
        let mut moments = Vec::new();
        for _ in 0..10 {
            beat.every(BEAT).await;
            moments.push(Instant::now());
        }
        let beat = Beat(moments[0] - BEAT);
        assert_eq!(moments[9] - moments[0], BEAT * 9);
        assert_eq!((beat.next(BEAT * 5) - beat.next(BEAT)).as_millis() % BEAT.as_millis(), 0);
    }
}
