//! How many gateways a worker wants, by how much work it has. A worker above its limit asks for less weight, so that some
//! of its gateways go to others, until it is below; when there is less to do it asks for them back.
//!
//! Three rules keep gateways where they are:
//! * a balancer lets a weight count only from the next slot of [`WEIGHT_SLOT_SECS`] on, so that load moves no gateway
//!   more than twice in a minute; here one change is decided per slot, in its middle, far from where clocks may differ;
//! * weight is given up only while another worker has room. When everybody is overloaded, nothing moves: there is
//!   nowhere to go, and the store, not the number of gateways, may be what is slow;
//! * what was given up is asked for only after a calm time, and only if what it will bring fits well below the limit.

use core::{fmt, time::Duration};

use limpet_shared::{Now, link::WEIGHT_SLOT_SECS};

/// What a worker measures, about once in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Frames in work.
    pub in_flight: f64,
    /// From reading a frame to having it stored, on average; `None` if there was no frame.
    pub stored_after: Option<Duration>,
    /// How much later than asked for the event loop comes back to a task.
    pub late: Duration,
    /// Part of the processors it may use that the process was using, 0 to 1.
    pub cpu: f64,
}

/// What makes work too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    InFlight,
    Stored,
    Late,
    Cpu,
}

impl Signal {
    /// All of them, in the order in which [`Governor::loads`] has them.
    pub const ALL: [Self; 4] = [Self::InFlight, Self::Stored, Self::Late, Self::Cpu];

    /// The metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Stored => "stored",
            Self::Late => "late",
            Self::Cpu => "cpu",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InFlight => "too many frames in work",
            Self::Stored => "frames take too long until they are stored",
            Self::Late => "the event loop is late",
            Self::Cpu => "the processors are busy",
        })
    }
}

/// Each signal's limit: there, the load is 1.
const IN_FLIGHT: f64 = 5_000.0;
const STORED: Duration = Duration::from_millis(250);
const LATE: Duration = Duration::from_millis(100);
const CPU: f64 = 0.85;
/// Samples are averaged over about this time, seconds.
const SMOOTHING: f64 = 5.0;
/// A worker is overloaded when its load has been 1 or more for so long, and no longer when it has been below
/// [`RELIEVED`] for so long.
const PERSISTS: Duration = Duration::from_secs(5);
const RELIEVED: f64 = 0.95;
/// What is left to do after gateways were shed, and at most after some came back.
const SHED_TO: f64 = 0.8;
const RETURN_TO: f64 = 0.7;
/// Above this a worker has no room for the gateways of others; below [`RETURN_TO`] it has.
const NO_ROOM: f64 = 0.8;
/// Parts of the full weight, percent: a change is a multiple, and nobody gives up more.
const STEP: u32 = 5;
const LEAST: u32 = 5;
/// Calm since the last shedding before anything is asked for back. Doubled when a return was too much.
const CALM: Duration = Duration::from_secs(60);
const CALM_MOST: Duration = Duration::from_secs(600);
/// Seconds of a slot within which a change is decided.
const DECIDE: core::ops::Range<u64> = 15..35;

/// What the balancers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// 1 to 100.
    pub weight: u32,
    /// Why it has more work than it can do well, if it has.
    pub overloaded: Option<Signal>,
    /// It has its whole weight, and room for more.
    pub spare: bool,
}

/// Decides for one worker.
#[derive(Clone, Debug)]
pub struct Governor {
    /// The weight that the operator gave it.
    full: u32,
    /// Percent of that which it asks for.
    part: u32,
    loads: [f64; 4],
    last: Option<Duration>,
    /// Since when the load has spoken against the present state.
    since: Option<Duration>,
    overloaded: Option<Signal>,
    spare: bool,
    /// The slot in which the last change was decided.
    decided_in: u64,
    shed_at: Option<Duration>,
    returned_at: Option<Duration>,
    calm: Duration,
}

impl Governor {
    /// For a worker of this weight, 1 to 100.
    pub fn new(full: u32) -> Self {
        Self {
            full,
            part: 100,
            loads: [0.0; 4],
            last: None,
            since: None,
            overloaded: None,
            spare: false,
            decided_in: 0,
            shed_at: None,
            returned_at: None,
            calm: CALM,
        }
    }

    /// The load by each signal, smoothed; 1 is the limit.
    pub fn loads(&self) -> [f64; 4] {
        self.loads
    }

    fn load(&self) -> f64 {
        self.loads.iter().copied().fold(0.0, f64::max)
    }

    /// What to tell the balancers now. `others_have_room`: another worker would take what this one sheds.
    pub fn sample(&mut self, now: Now, sample: Sample, others_have_room: bool) -> Advice {
        self.smooth(now.mono, sample);
        self.judge(now.mono);
        let (slot, second) = (now.unix.0 / 1_000_000 / WEIGHT_SLOT_SECS, now.unix.0 / 1_000_000 % WEIGHT_SLOT_SECS);
        if slot != self.decided_in && DECIDE.contains(&second) && self.decide(now.mono, others_have_room) {
            self.decided_in = slot;
        }
        Advice { weight: (self.full * self.part / 100).max(1), overloaded: self.overloaded, spare: self.spare }
    }

    fn smooth(&mut self, now: Duration, sample: Sample) {
        let elapsed = self.last.map_or(1.0, |last| now.saturating_sub(last).as_secs_f64());
        self.last = Some(now);
        let weight = elapsed / (elapsed + SMOOTHING);
        let part = |value: Duration, limit: Duration| value.as_secs_f64() / limit.as_secs_f64();
        let new = [
            sample.in_flight / IN_FLIGHT,
            part(sample.stored_after.unwrap_or_default(), STORED),
            part(sample.late, LATE),
            sample.cpu / CPU,
        ];
        for (smoothed, new) in self.loads.iter_mut().zip(new) {
            *smoothed += (new - *smoothed) * weight;
        }
    }

    fn judge(&mut self, now: Duration) {
        let load = self.load();
        let worst = Signal::ALL.into_iter().zip(self.loads).find(|(_, value)| *value >= load).map(|(signal, _)| signal);
        let against = if self.overloaded.is_some() { load < RELIEVED } else { load >= 1.0 };
        if !against {
            self.since = None;
        } else if now >= *self.since.get_or_insert(now) + PERSISTS {
            self.overloaded = if self.overloaded.is_some() { None } else { worst };
            self.since = None;
        }
        let enough = if self.spare { load <= NO_ROOM } else { load <= RETURN_TO };
        self.spare = enough && self.part == 100 && self.overloaded.is_none();
    }

    /// Whether the weight changes.
    fn decide(&mut self, now: Duration, others_have_room: bool) -> bool {
        let load = self.load();
        let before = self.part;
        if self.overloaded.is_some() {
            // Between a shedding and the end of the overload the average lags behind; below 1 it is on its way.
            if load < 1.0 || !others_have_room || before <= LEAST {
                return false;
            }
            // Never more than half at once: what is measured may not follow the number of gateways.
            let half = (before / 2).next_multiple_of(STEP);
            self.part = scaled(before, SHED_TO / load).max(half).min(before - STEP);
            if self.returned_at.is_some_and(|at| now < at + CALM_MOST) {
                self.calm = (self.calm * 2).min(CALM_MOST);
            }
            self.shed_at = Some(now);
        } else if before < 100 && self.shed_at.is_none_or(|at| now >= at + self.calm) {
            let fits = if load > 0.0 { scaled(before, RETURN_TO / load) } else { 100 };
            // Twice as much at once at most, for the same reason.
            self.part = fits.min(before * 2).clamp(before, 100);
            if self.part > before {
                self.returned_at = Some(now);
            }
        } else if before == 100 && self.returned_at.is_some_and(|at| now >= at + CALM_MOST) {
            self.calm = CALM;
            self.returned_at = None;
        }
        self.part != before
    }
}

/// So many times as much, in whole steps.
fn scaled(part: u32, by: f64) -> u32 {
    // A cast of a float to an integer saturates.
    let scaled = (f64::from(part) * by.min(100.0)) as u32;
    scaled.min(100) / STEP * STEP
}

#[cfg(test)]
mod tests {
    use limpet_shared::UnixMicros;

    use super::*;

    /// A worker's governor, second by second.
    struct Run {
        second: u64,
        governor: Governor,
    }

    impl Run {
        fn new(full: u32) -> Self {
            Self { second: WEIGHT_SLOT_SECS * 1_000, governor: Governor::new(full) }
        }

        fn on(&mut self, seconds: u64, cpu: f64, room: bool) -> Advice {
            let mut advice = None;
            for _ in 0..seconds {
                self.second += 1;
                let unix = UnixMicros(self.second * 1_000_000);
                let now = Now { mono: Duration::from_secs(self.second), unix };
                advice = Some(self.governor.sample(now, Sample { cpu, ..Sample::default() }, room));
            }
            advice.unwrap()
        }
    }

    #[test]
    fn a_burst_changes_nothing_and_a_lasting_overload_sheds_in_proportion() {
        let mut run = Run::new(100);
        assert_eq!(run.on(30, 0.3, true), Advice { weight: 100, overloaded: None, spare: true });
        let after = run.on(4, 1.0, true);
        assert_eq!((after.weight, after.overloaded), (100, None));
        run.on(30, 0.3, true);
        let after = run.on(80, 0.95, true);
        assert_eq!(after.overloaded, Some(Signal::Cpu));
        // 80 % of the limit of 85 % are 72 % of what 95 % are; then once more, as this load does not react.
        assert_eq!(after.weight, 50);
        assert!(!after.spare);
    }

    #[test]
    fn it_changes_once_in_a_slot_and_in_the_middle_of_it() {
        let mut run = Run::new(100);
        let (mut last, mut changes) = (100, alloc::vec::Vec::new());
        for second in 0..10 * WEIGHT_SLOT_SECS {
            let weight = run.on(1, 1.0, true).weight;
            if weight != last {
                changes.push((second + 1) % WEIGHT_SLOT_SECS);
                last = weight;
            }
        }
        assert!(changes.len() > 3 && changes.iter().all(|second| DECIDE.contains(second)), "{changes:?}");
        assert_eq!(last, LEAST, "it keeps some, however bad it is");
    }

    #[test]
    fn nothing_is_shed_to_nowhere() {
        let mut run = Run::new(100);
        let after = run.on(600, 1.0, false);
        assert_eq!((after.weight, after.overloaded), (100, Some(Signal::Cpu)));
    }

    #[test]
    fn what_was_shed_comes_back_when_it_fits_and_not_before() {
        let mut run = Run::new(100);
        let shed = run.on(60, 1.0, true);
        assert!(shed.weight < 100);
        // The rest is 80 % of the limit: more would not fit.
        assert_eq!(run.on(1_000, 0.85 * 0.8, true), Advice { overloaded: None, ..shed });
        assert_eq!(run.on(200, 0.2, true), Advice { weight: 100, overloaded: None, spare: true });
    }

    #[test]
    fn a_return_that_was_too_much_is_tried_again_later_and_later() {
        let mut run = Run::new(100);
        let mut returns = alloc::vec::Vec::new();
        let mut last = 100;
        for second in 0..3_600 {
            // Whoever has less than all of its gateways has nothing to do, and with all of them too much.
            let weight = run.on(1, if last == 100 { 1.0 } else { 0.1 }, true).weight;
            if weight > last {
                returns.push(second);
            }
            last = weight;
        }
        assert!(returns.len() < 12, "{returns:?}");
        assert!(returns.last().unwrap() - returns[returns.len() - 2] > CALM_MOST.as_secs());
    }

    #[test]
    fn a_small_weight_stays_a_part_of_itself() {
        let mut run = Run::new(3);
        assert_eq!(run.on(60, 0.1, true).weight, 3);
        assert_eq!(run.on(600, 1.0, true).weight, 1);
    }
}
