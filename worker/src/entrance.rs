//! Where datagrams wait until they are taken up: what `limpet_worker_core::line` decides, for all links together.

use std::{sync::Arc, time::Duration};

use limpet_shared::gwmp;
use limpet_worker_core::line::{Busy, Class, Line};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::pipeline::Pipeline;

/// What waits takes so many bytes at most; then nothing more is read, and balancers keep it. As much as a balancer retains by
/// default, for only who knows the devices can say which of them goes first.
const MEMORY: usize = 256 << 20;

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
    class: Class,
    decides: bool,
}

impl Default for Entrance {
    fn default() -> Self {
        let state = State { line: Line::new(MEMORY), busy: Busy::default() };
        Self(Arc::new(Shared { state: Mutex::new(state), news: Notify::new(), began: Instant::now() }))
    }
}

impl Entrance {
    fn now(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// Whether more may be read.
    pub fn has_room(&self) -> bool {
        self.0.state.lock().line.has_room()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.0.state.lock().line.len()
    }

    /// A datagram comes in that was received so long ago.
    pub fn arrive(&self, age: Duration, datagram: &[u8], begin: Begin) {
        let now = self.now();
        let mut state = self.0.state.lock();
        // What is taken up at once needs no look.
        let at_once = state.line.is_empty() && state.busy.has_room(now, Class::of(age));
        let packets = if at_once { Vec::new() } else { gwmp::glance(datagram) };
        state.line.push(now.saturating_sub(age), datagram.len(), &packets, begin);
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
        busy.take_up();
        busy.begin(class);
        drop(state);
        let storing = AtWork { entrance: self.clone(), class, decides: false };
        Some((begin, InWork { storing, taken_up: TakenUp(self.clone()) }))
    }

    /// Returns when there may be something to take up.
    pub async fn news(&self) {
        self.0.news.notified().await;
    }

    /// A transmission that was received so long ago is to be decided, until this is dropped.
    pub fn deciding(&self, age: Duration) -> AtWork {
        let class = Class::of(age);
        self.0.state.lock().busy.begin(class);
        AtWork { entrance: self.clone(), class, decides: true }
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
        self.entrance.tell(|busy| busy.end(self.class, self.decides));
    }
}
