//! The threads that run scripts. They begin with the first script, and end with the pool.
//!
//! The engine stops a script within its time nearly everywhere. Where it cannot (a built-in function that walks over an array of
//! four thousand million holes), the thread is given up for another one, until it comes back; its tenant waits for that.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::{
    CodecError, Limits, Script,
    js::{Answer, Call},
    realm::{STACK, used},
    sandbox::Sandbox,
    stops::Stops,
    turns::Turns,
};

/// A thread is given up after so many times the time limit, and this.
const GIVEN_UP: (u32, Duration) = (20, Duration::from_secs(3));
/// Threads that may be given up at one moment; beyond that scripts wait.
const MOST_GIVEN_UP: usize = 8;
/// Stack of a thread, besides the engine's.
const OWN_STACK: usize = 512 * 1024;

type Sent = oneshot::Sender<Result<Answer, CodecError>>;

struct Job {
    id: u128,
    text: Arc<str>,
    call: Call,
    answer: Sent,
}

pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    limits: Limits,
    state: Mutex<State>,
    news: Condvar,
}

struct State {
    turns: Turns<Job>,
    stops: Stops,
    /// Those that take jobs.
    threads: usize,
    next_run: u64,
    running: HashMap<u64, Running>,
    /// Owners of what runs on threads that were given up.
    given_up: Vec<u128>,
    ended: bool,
}

struct Running {
    owner: u128,
    id: u128,
    length: usize,
    since: Instant,
}

impl Pool {
    pub fn new(mut limits: Limits) -> Self {
        if limits.threads == 0 {
            let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            limits.threads = (processors / 2).clamp(2, 4);
        }
        let state = State {
            turns: Turns::new(limits.threads, Instant::now()),
            stops: Stops::default(),
            threads: 0,
            next_run: 0,
            running: HashMap::new(),
            given_up: Vec::new(),
            ended: false,
        };
        Self(Arc::new(Shared { limits, state: Mutex::new(state), news: Condvar::new() }))
    }

    /// Waits for its turn and the answer. Whoever does not wait any more takes the job with them.
    pub async fn run(&self, script: Script<'_>, call: Call) -> Result<Answer, CodecError> {
        let (answer, answered) = oneshot::channel();
        self.submit(script, call, answer)?;
        answered.await.unwrap_or(Err(CodecError::Engine))
    }

    fn submit(&self, Script { owner, id, text }: Script<'_>, call: Call, answer: Sent) -> Result<(), CodecError> {
        let (shared, now) = (&self.0, Instant::now());
        let mut state = shared.state.lock();
        state.give_up_what_hangs(shared.limits.time, now);
        if state.given_up.contains(&owner) {
            return Err(CodecError::Hangs);
        }
        if let Some(paused) = state.stops.pause_of(id, text.len(), now).filter(|_| !matches!(call, Call::Check)) {
            return Err(paused);
        }
        let job = Job { id, text: text.into(), call, answer };
        state.turns.push(owner, job).map_err(|_| CodecError::Busy)?;
        if state.threads < shared.limits.threads {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name("codec".into()).stack_size(STACK + OWN_STACK);
            match thread.spawn(move || shared.work()) {
                Ok(_) => state.threads += 1,
                Err(error) => tracing::error!(%error, "a thread for codecs cannot be started"),
            }
        }
        shared.news.notify_one();
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.state.lock().ended = true;
        self.0.news.notify_all();
    }
}

impl State {
    fn give_up_what_hangs(&mut self, limit: Duration, now: Instant) {
        let patience = limit * GIVEN_UP.0 + GIVEN_UP.1;
        let hangs = |running: &Running| now.saturating_duration_since(running.since) > patience;
        let hanging: Vec<u64> =
            self.running.iter().filter(|(_, running)| hangs(running)).map(|(run, _)| *run).collect();
        for run in hanging {
            if self.given_up.len() >= MOST_GIVEN_UP {
                return;
            }
            if let Some(Running { owner, id, length, .. }) = self.running.remove(&run) {
                tracing::warn!(
                    tenant = format!("{owner:032x}"),
                    device_profile = format!("{id:032x}"),
                    "a codec does not end and cannot be stopped: its tenant's scripts are not run until it does"
                );
                self.given_up.push(owner);
                self.stops.note(id, length, Some(&CodecError::Hangs), now);
                self.turns.ended(owner, patience);
                self.threads -= 1;
            }
        }
    }
}

impl Shared {
    fn work(&self) {
        let mut sandbox = Sandbox::new(self.limits);
        while let Some((run, owner, job)) = self.next() {
            let began = used();
            let done = catch_unwind(AssertUnwindSafe(|| sandbox.run(job.id, &job.text, &job.call)));
            let answer = done.unwrap_or_else(|_| {
                sandbox.give_up(job.id);
                Err(CodecError::Engine)
            });
            let goes_on = self.ended(run, owner, &job, answer.as_ref().err(), used().saturating_sub(began));
            // Whoever asked may have gone.
            let _ = job.answer.send(answer);
            if !goes_on {
                return;
            }
        }
    }

    fn next(&self) -> Option<(u64, u128, Job)> {
        let mut state = self.state.lock();
        loop {
            if state.ended {
                return None;
            }
            let now = Instant::now();
            match state.turns.next(now) {
                Some((owner, job)) if job.answer.is_closed() => state.turns.ended(owner, Duration::ZERO),
                Some((owner, job)) if state.given_up.contains(&owner) => {
                    state.turns.ended(owner, Duration::ZERO);
                    // Whoever asked may have gone.
                    let _ = job.answer.send(Err(CodecError::Hangs));
                }
                Some((owner, job)) => {
                    state.next_run += 1;
                    let run = state.next_run;
                    state.running.insert(run, Running { owner, id: job.id, length: job.text.len(), since: now });
                    return Some((run, owner, job));
                }
                None => self.news.wait(&mut state),
            }
        }
    }

    /// Whether the thread takes another job: not if it was given up meanwhile.
    fn ended(&self, run: u64, owner: u128, job: &Job, error: Option<&CodecError>, took: Duration) -> bool {
        let mut state = self.state.lock();
        if state.running.remove(&run).is_none() {
            if let Some(at) = state.given_up.iter().position(|given_up| *given_up == owner) {
                state.given_up.swap_remove(at);
            }
            return false;
        }
        state.turns.ended(owner, took);
        if !matches!(job.call, Call::Check) {
            state.stops.note(job.id, job.text.len(), error, Instant::now());
        }
        // Another owner's job may have waited for this thread's place, or this owner's for its share.
        self.news.notify_one();
        true
    }
}
