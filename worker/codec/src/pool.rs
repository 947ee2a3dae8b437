//! The threads that run scripts. They begin with the first script, and end with the pool.
//!
//! The engine stops a script within its time nearly everywhere. Where it cannot (a built-in function that walks over an array of
//! four thousand million holes), the thread is given up for another one, until it comes back: its caller is told so, its tenant
//! waits for that, and it runs when nobody else wants to.

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
    realm::{STACK, Thread, used},
    sandbox::Sandbox,
    stops::Stops,
    turns::Turns,
};

/// A thread is given up after so many times the time limit, and this.
const GIVEN_UP: (u32, Duration) = (20, Duration::from_secs(3));
/// Threads that may be given up at one moment. When all that there are hang besides, no script is run.
const MOST_GIVEN_UP: usize = 8;
/// Of one owner: beyond that also a mended script is not looked at.
const MOST_OF_ONE: usize = 3;
/// A run is slow after so many times the time limit.
const SLOW: u32 = 3;
/// So often is looked for runs that hang while somebody waits.
const LOOK: Duration = Duration::from_millis(500);
/// Stack of a thread, besides the engine's.
const OWN_STACK: usize = 512 * 1024;

type Sent = oneshot::Sender<Result<Answer, CodecError>>;

struct Job {
    id: u128,
    text: Arc<str>,
    call: Call,
    answer: Sent,
}

/// A job that has its turn.
struct Run {
    id: u128,
    text: Arc<str>,
    call: Call,
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
    /// No thread is left, and none is started.
    all_hang: bool,
    ended: bool,
}

struct Running {
    owner: u128,
    id: u128,
    length: usize,
    since: Instant,
    thread: Option<Thread>,
    /// The thread's processor time when it began.
    used: Duration,
    /// `None` once it was told that the run hangs.
    answer: Option<Sent>,
}

impl Running {
    /// It had many times its time. Of a process that was stopped, or has no processor, only the clock went on.
    fn hangs(&self, limit: Duration, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) <= patience(limit) {
            return false;
        }
        let used = self.thread.and_then(Thread::used);
        used.is_none_or(|used| used.saturating_sub(self.used) > limit * SLOW)
    }
}

fn patience(limit: Duration) -> Duration {
    limit * GIVEN_UP.0 + GIVEN_UP.1
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
            all_hang: false,
            ended: false,
        };
        Self(Arc::new(Shared { limits, state: Mutex::new(state), news: Condvar::new() }))
    }

    /// Waits for its turn and the answer. Whoever does not wait any more takes the job with them.
    pub async fn run(&self, script: Script<'_>, call: Call) -> Result<Answer, CodecError> {
        let (answer, mut answered) = oneshot::channel();
        self.submit(script, call, answer)?;
        loop {
            match tokio::time::timeout(LOOK, &mut answered).await {
                Ok(answer) => return answer.unwrap_or(Err(CodecError::Engine)),
                Err(_) => self.0.give_up_what_hangs(&mut self.0.state.lock(), Instant::now()),
            }
        }
    }

    fn submit(&self, Script { owner, id, text }: Script<'_>, call: Call, answer: Sent) -> Result<(), CodecError> {
        let (shared, now) = (&self.0, Instant::now());
        let size = text.len() + call.size();
        let job = Job { id, text: text.into(), call, answer };
        let mut state = shared.state.lock();
        shared.give_up_what_hangs(&mut state, now);
        if state.all_hang || state.waits_for_a_hanging_one(owner, &job.call) {
            return Err(CodecError::Hangs);
        }
        if let Some(paused) = state.stops.pause_of(id, text.len(), now).filter(|_| !matches!(job.call, Call::Check)) {
            return Err(paused);
        }
        state.turns.push(owner, job, size, |job| job.answer.is_closed()).map_err(|_| CodecError::Busy)?;
        shared.start_thread(&mut state);
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
    /// Until they come back, no script of the owner is run. One that was mended can be loaded, or it could not be saved.
    fn waits_for_a_hanging_one(&self, owner: u128, call: &Call) -> bool {
        let hanging = self.given_up.iter().filter(|given_up| **given_up == owner).count();
        hanging > 0 && !(matches!(call, Call::Check) && hanging < MOST_OF_ONE)
    }

    /// Owners with a run that is slow.
    fn slow(&self, limit: Duration, now: Instant) -> Vec<u128> {
        let is_slow = |running: &&Running| now.saturating_duration_since(running.since) > limit * SLOW;
        self.running.values().filter(is_slow).map(|running| running.owner).collect()
    }

    fn give_up_what_hangs(&mut self, limit: Duration, now: Instant) {
        let hanging: Vec<u64> =
            self.running.iter().filter(|(_, running)| running.hangs(limit, now)).map(|(run, _)| *run).collect();
        let mut hang_on = 0;
        for run in hanging {
            if self.given_up.len() >= MOST_GIVEN_UP {
                hang_on += 1;
                if let Some(answer) = self.running.get_mut(&run).and_then(|running| running.answer.take()) {
                    // Whoever asked may have gone.
                    let _ = answer.send(Err(CodecError::Hangs));
                }
                continue;
            }
            if let Some(Running { owner, id, length, thread, answer, .. }) = self.running.remove(&run) {
                tracing::warn!(
                    tenant = format!("{owner:032x}"),
                    device_profile = format!("{id:032x}"),
                    "a codec does not end and cannot be stopped: its tenant's scripts are not run until it does"
                );
                self.given_up.push(owner);
                self.stops.note(id, length, Some(&CodecError::Hangs), now);
                self.turns.ended(owner, patience(limit));
                self.threads -= 1;
                if let Some(thread) = thread {
                    thread.yields();
                }
                // Whoever asked may have gone.
                let _ = answer.map(|answer| answer.send(Err(CodecError::Hangs)));
            }
        }
        self.all_hang = self.threads > 0 && hang_on >= self.threads;
        while self.all_hang
            && let Some((owner, job)) = self.turns.next_of_all()
        {
            self.turns.ended(owner, Duration::ZERO);
            let _ = job.answer.send(Err(CodecError::Hangs));
        }
    }
}

impl Shared {
    fn give_up_what_hangs(self: &Arc<Self>, state: &mut State, now: Instant) {
        let threads = state.threads;
        state.give_up_what_hangs(self.limits.time, now);
        for _ in state.threads..threads {
            self.start_thread(state);
            // What waits of its owner is told.
            self.news.notify_all();
        }
    }

    /// If there is one to start, and something for it to do.
    fn start_thread(self: &Arc<Self>, state: &mut State) {
        if state.threads >= self.limits.threads || state.turns.waiting() == 0 {
            return;
        }
        let shared = self.clone();
        let thread = std::thread::Builder::new().name("codec".into()).stack_size(STACK + OWN_STACK);
        match thread.spawn(move || shared.work()) {
            Ok(_) => state.threads += 1,
            Err(error) => tracing::error!(%error, "a thread for codecs cannot be started"),
        }
    }

    fn work(&self) {
        let mut sandbox = Sandbox::new(self.limits);
        let thread = Thread::this();
        while let Some((run, owner, job)) = self.next(thread) {
            let began = used();
            let done = catch_unwind(AssertUnwindSafe(|| sandbox.run(job.id, &job.text, &job.call)));
            let answer = done.unwrap_or_else(|_| {
                sandbox.give_up(job.id);
                Err(CodecError::Engine)
            });
            let took = used().saturating_sub(began);
            let Some(asked) = self.ended(run, owner, &job, answer.as_ref().err(), took) else { return };
            // Whoever asked may have gone.
            let _ = asked.map(|asked| asked.send(answer));
        }
    }

    fn next(&self, thread: Option<Thread>) -> Option<(u64, u128, Run)> {
        let mut state = self.state.lock();
        loop {
            if state.ended {
                return None;
            }
            let now = Instant::now();
            let slow = state.slow(self.limits.time, now);
            match state.turns.next(now, &slow) {
                Some((owner, job)) if job.answer.is_closed() => state.turns.ended(owner, Duration::ZERO),
                Some((owner, job)) if state.waits_for_a_hanging_one(owner, &job.call) => {
                    state.turns.ended(owner, Duration::ZERO);
                    // Whoever asked may have gone.
                    let _ = job.answer.send(Err(CodecError::Hangs));
                }
                Some((owner, job)) => {
                    state.next_run += 1;
                    let run = state.next_run;
                    let Job { id, text, call, answer } = job;
                    let answer = Some(answer);
                    let running = Running { owner, id, length: text.len(), since: now, thread, used: used(), answer };
                    state.running.insert(run, running);
                    return Some((run, owner, Run { id, text, call }));
                }
                None => self.news.wait(&mut state),
            }
        }
    }

    /// Who waits for the answer, if anyone; `None` if the thread takes no other job, for it was given up meanwhile.
    fn ended(
        &self,
        run: u64,
        owner: u128,
        job: &Run,
        error: Option<&CodecError>,
        took: Duration,
    ) -> Option<Option<Sent>> {
        let mut state = self.state.lock();
        let Some(ended) = state.running.remove(&run) else {
            if let Some(at) = state.given_up.iter().position(|given_up| *given_up == owner) {
                state.given_up.swap_remove(at);
            }
            if error.is_none() && !matches!(job.call, Call::Check) {
                state.stops.note(job.id, job.text.len(), None, Instant::now());
            }
            return None;
        };
        state.all_hang = false;
        state.turns.ended(owner, took);
        if !matches!(job.call, Call::Check) {
            state.stops.note(job.id, job.text.len(), error, Instant::now());
        }
        // Another owner's job may have waited for this thread's place, or this owner's for its share.
        self.news.notify_one();
        Some(ended.answer)
    }
}
