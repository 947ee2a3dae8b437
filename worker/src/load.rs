//! Measures how much work this worker has, and tells the balancers how many gateways it wants.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use limpet_link::host;
use limpet_shared::Now;
use limpet_worker_core::load::{Governor, Sample, Signal};
use rustix::time::{ClockId, clock_gettime};
use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    beat::BEAT,
    links::Links,
    metrics::Metrics,
    seams::{Machine, Surroundings},
};

/// A sample is made of so many naps until the next beat: how late each ends shows how busy the event loop is.
const NAPS: u32 = 5;

/// How long frames took from being read to being stored, since the last look.
#[derive(Debug, Default)]
pub struct StoredAfter {
    micros: AtomicU64,
    frames: AtomicU64,
}

impl StoredAfter {
    /// One frame took so long.
    pub fn note(&self, took: Duration) {
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// The average; `None` if there was no frame.
    fn take(&self) -> Option<Duration> {
        let (frames, micros) = (self.frames.swap(0, Ordering::Relaxed), self.micros.swap(0, Ordering::Relaxed));
        micros.checked_div(frames).map(Duration::from_micros)
    }
}

/// Runs until `end`. `weight` is the one that the operator gave this worker; `store_threads` work for it beside the
/// runtime's.
pub async fn run(links: Arc<Links>, metrics: Metrics, weight: u32, store_threads: usize, end: CancellationToken) {
    let threads = Handle::current().metrics().num_workers() + store_threads;
    let (mut governor, mut meter, began) = (Governor::new(weight), Meter::start(threads), Instant::now());
    let (mut overloaded, mut last) = (None, weight);
    while let Some(sample) = end.run_until_cancelled(meter.sample(&links, &metrics)).await {
        let now = Now { mono: began.elapsed(), unix: Machine.now() };
        let room = links.others_have_room();
        let advice = governor.sample(now, sample, room);
        if advice.overloaded.is_some() != Option::is_some(&overloaded) {
            overloaded = advice.overloaded;
            match overloaded {
                Some(reason) if room => tracing::warn!(%reason, "overloaded"),
                Some(reason) => tracing::warn!(%reason, "overloaded; no other worker has room, so all gateways stay"),
                None => tracing::info!("no longer overloaded"),
            }
        }
        if advice.weight != last {
            tracing::info!(from = last, to = advice.weight, "asks for another share of the gateways");
            last = advice.weight;
        }
        metrics.load(&governor.loads(), advice);
        links.advise(advice);
    }
}

/// What was measured last.
struct Meter {
    at: Instant,
    cpu: Duration,
    processors: f64,
}

impl Meter {
    /// With fewer threads than there are processors, it is full when they are.
    fn start(threads: usize) -> Self {
        // Knows of quotas that containers have.
        let processors = std::thread::available_parallelism().map_or(1, usize::from).min(threads);
        Self { at: Instant::now(), cpu: cpu_time(), processors: processors as f64 }
    }

    /// Takes about a second.
    async fn sample(&mut self, links: &Links, metrics: &Metrics) -> Sample {
        let mut late = Duration::ZERO;
        for _ in 0..NAPS {
            let due = links.beat.next(BEAT);
            tokio::time::sleep_until(due).await;
            late += due.elapsed();
        }
        let (at, cpu) = (Instant::now(), cpu_time());
        let (elapsed, used) = (at.duration_since(self.at), cpu.saturating_sub(self.cpu));
        (self.at, self.cpu) = (at, cpu);
        Sample {
            in_flight: metrics.busy_with(),
            stored_after: links.stored_after.take(),
            late: late / NAPS,
            cpu: used.as_secs_f64() / elapsed.as_secs_f64().max(0.001) / self.processors,
        }
    }
}

/// Processor time of this process, all its threads.
fn cpu_time() -> Duration {
    host::simulated().map_or_else(
        || {
            let time = clock_gettime(ClockId::ProcessCPUTime);
            Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
        },
        |host| host.cpu_time(),
    )
}

/// Labels and values of the loads.
pub fn labelled(loads: &[f64; 4]) -> impl Iterator<Item = (&'static str, f64)> {
    Signal::ALL.into_iter().map(Signal::label).zip(loads.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_of_the_frames_since_the_last_look() {
        let stored = StoredAfter::default();
        assert_eq!(stored.take(), None);
        stored.note(Duration::from_millis(10));
        stored.note(Duration::from_millis(30));
        assert_eq!(stored.take(), Some(Duration::from_millis(20)));
        assert_eq!(stored.take(), None);
    }

    #[tokio::test]
    async fn a_worker_with_one_thread_is_full_when_that_is() {
        let all = std::thread::available_parallelism().unwrap().get() as f64;
        assert_eq!([Meter::start(1).processors, Meter::start(usize::MAX).processors], [1.0, all]);
    }

    #[test]
    fn work_is_seen_as_processor_time() {
        let (began, before) = (std::time::Instant::now(), cpu_time());
        for n in 0..3_000_000_u64 {
            std::hint::black_box(n);
        }
        let used = cpu_time().saturating_sub(before);
        let processors = std::thread::available_parallelism().unwrap().get() as u32;
        // Other tests run in this process too, and the system counts some of it late: that it is work, and in the right unit.
        let most = (began.elapsed() + Duration::from_secs(1)) * processors;
        assert!(used > Duration::ZERO && used <= most, "{used:?} of {most:?}");
    }
}
