//! Where datagrams wait until they are taken up: what `limpet_worker_core::line` decides, for all links together.

use std::{sync::Arc, time::Duration};

use limpet_shared::gwmp;
use limpet_worker_core::line::{Begun, Busy, Class, Line};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::pipeline::Pipeline;

/// What waits takes so many bytes at most; then nothing more is read, and balancers keep it. As much as a balancer retains by
/// default, for only who knows the devices can say which of them goes first.
const MEMORY: usize = 256 << 20;

/// Longer than a balancer keeps a frame.
const BEFORE: Duration = Duration::from_secs(86_400);

/// Begins with a datagram.
pub(crate) type Begin = Box<dyn FnOnce(&Arc<Pipeline>, InWork) + Send>;

/// Clones are one.
#[derive(Clone)]
pub(crate) struct Entrance(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Something may be taken up.
    news: Notify,
    began: Instant,
}

struct State {
    line: Line<Begin>,
    busy: Busy,
}

/// What is taken up: until it is stored, and until it is done.
pub(crate) struct InWork {
    pub storing: AtWork,
    pub taken_up: TakenUp,
}

/// A datagram that is not done, until this is dropped.
pub(crate) struct TakenUp(Entrance);

/// Something to do, until this is dropped.
pub(crate) struct AtWork {
    entrance: Entrance,
    begun: Begun,
    decides: bool,
}

impl State {
    fn take_up(&mut self, now: Duration, class: Class) -> Begun {
        self.busy.take_up();
        self.busy.begin(now, class)
    }
}

impl Default for Entrance {
    fn default() -> Self {
        let state = State { line: Line::new(MEMORY), busy: Busy::default() };
        Self(Arc::new(Shared { state: Mutex::new(state), news: Notify::new(), began: Instant::now() }))
    }
}

impl Entrance {
    /// Since long before this began: what balancers have kept meanwhile is older than this, and no less in order.
    fn now(&self) -> Duration {
        BEFORE + self.0.began.elapsed()
    }

    /// Whether more may be read.
    pub fn has_room(&self) -> bool {
        self.0.state.lock().line.has_room()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.0.state.lock().line.len()
    }

    /// A datagram comes in that was received so long ago. It is given back if it is to be taken up at once, without a look at it.
    pub fn arrive(&self, age: Duration, datagram: &[u8], begin: Begin) -> Option<(Begin, InWork)> {
        let (now, class) = (self.now(), Class::of(age));
        let mut state = self.0.state.lock();
        if state.line.is_empty() && state.busy.has_room(now, class) {
            let begun = state.take_up(now, class);
            drop(state);
            return Some((begin, self.in_work(begun)));
        }
        let packets = gwmp::glance(datagram);
        state.line.push(now.saturating_sub(age), datagram.len(), &packets, begin);
        None
    }

    /// What is to be taken up now; to be asked until there is nothing.
    pub fn next(&self) -> Option<(Begin, InWork)> {
        let now = self.now();
        let mut state = self.0.state.lock();
        let State { line, busy } = &mut *state;
        let mut next = |class| {
            let begin = if busy.has_room(now, class) { line.pop(now, class) } else { None };
            begin.map(|begin| (begin, class))
        };
        let (begin, class) = next(Class::Open).or_else(|| next(Class::Late))?;
        let begun = state.take_up(now, class);
        drop(state);
        Some((begin, self.in_work(begun)))
    }

    fn in_work(&self, begun: Begun) -> InWork {
        let storing = AtWork { entrance: self.clone(), begun, decides: false };
        InWork { storing, taken_up: TakenUp(self.clone()) }
    }

    /// Returns when there may be something to take up.
    pub async fn news(&self) {
        self.0.news.notified().await;
    }

    /// A transmission that was received so long ago is to be decided, until this is dropped.
    pub fn deciding(&self, age: Duration) -> AtWork {
        let begun = self.0.state.lock().busy.begin(self.now(), Class::of(age));
        AtWork { entrance: self.clone(), begun, decides: true }
    }

    fn tell(&self, step: impl FnOnce(&mut Busy)) {
        let mut state = self.0.state.lock();
        step(&mut state.busy);
        let waits = !state.line.is_empty();
        drop(state);
        if waits {
            self.0.news.notify_one();
        }
    }
}

impl Drop for TakenUp {
    fn drop(&mut self) {
        self.0.tell(Busy::done);
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.entrance.tell(|busy| busy.end(&self.begun, self.decides));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After an outage of all workers a balancer has kept much, and a new frame is not the last of it.
    #[tokio::test(start_paused = true)]
    async fn a_worker_that_has_just_started_knows_old_from_new() {
        let (entrance, mut in_work) = (Entrance::default(), Vec::new());
        let arrive = |age| entrance.arrive(Duration::from_secs(age), b"", Box::new(|_, _| {}));
        while let Some((_, begun)) = arrive(3_000) {
            in_work.push(begun);
        }
        let late = in_work.len();
        assert!(late < 100, "{late} old ones at once");
        assert!(arrive(0).is_none(), "it waits with the others, and goes first");
        let (_, newest) = entrance.next().unwrap();
        assert!(matches!(newest.storing.begun, ref begun if begun.class() == Class::Open));
        assert!(entrance.next().is_none(), "no more old ones at once");
    }
}
