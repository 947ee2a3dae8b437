//! What the store's threads answer, brought to the runtime together: each answer by itself would wake it up, with a system call and
//! a turn of its own.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Tells somebody what they wait for.
pub(super) type Letter = Box<dyn FnOnce() + Send>;

/// Clones are one. Letters are delivered by a task of the runtime that asked first, until it ends, and by whoever posts them if there is none.
#[derive(Clone, Default)]
pub(super) struct Letters(Arc<Office>);

#[derive(Default)]
struct Office {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    posted: Vec<Letter>,
    /// There is a task that delivers them.
    attended: bool,
    closed: bool,
}

/// The task is there until this is dropped, with its runtime if not before.
struct Attendance(Arc<Office>);

impl Letters {
    /// Somebody of this runtime is about to ask for something.
    pub fn attend(&self) {
        let mut state = self.0.state.lock();
        if state.attended || state.closed {
            return;
        }
        state.attended = true;
        drop(state);
        let attendance = Attendance(self.0.clone());
        tokio::spawn(async move {
            while attendance.0.deliver() {
                attendance.0.news.notified().await;
            }
        });
    }

    /// Posts some, all at once.
    pub fn post(&self, letters: impl IntoIterator<Item = Letter>) {
        let mut state = self.0.state.lock();
        if state.attended {
            state.posted.extend(letters);
            drop(state);
            self.0.news.notify_one();
        } else {
            drop(state);
            letters.into_iter().for_each(|letter| letter());
        }
    }

    /// Nobody asks any more.
    pub fn close(&self) {
        self.0.state.lock().closed = true;
        self.0.news.notify_one();
    }
}

impl Office {
    /// False after the end.
    fn deliver(&self) -> bool {
        let (posted, closed) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.posted), state.closed)
        };
        posted.into_iter().for_each(|letter| letter());
        !closed
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.state.lock();
            state.attended = false;
            std::mem::take(&mut state.posted)
        };
        left.into_iter().for_each(|letter| letter());
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn letter() -> (Letter, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Box::new(move || sender.send(()).unwrap_or_default()), receiver)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn letters_come_whichever_runtime_asks_and_when_it_is_gone() {
        let letters = Letters::default();
        let post = |letter| {
            let letters = letters.clone();
            std::thread::spawn(move || letters.post([letter])).join().unwrap();
        };
        for _ in 0..2 {
            let (first, came) = letter();
            let (second, mut left) = letter();
            let runtime = runtime();
            runtime.block_on(async {
                letters.attend();
                letters.attend();
                post(first);
                came.await.unwrap();
            });
            post(second);
            assert!(left.try_recv().is_err(), "nobody has delivered it yet");
            drop(runtime);
            assert_eq!(left.try_recv(), Ok(()));
        }
        let (unattended, mut came) = letter();
        post(unattended);
        assert_eq!(came.try_recv(), Ok(()));
    }

    #[test]
    fn nothing_is_left_at_the_end() {
        let letters = Letters::default();
        let ((before, came), (after, mut late)) = (letter(), letter());
        runtime().block_on(async {
            letters.attend();
            letters.post([before]);
            letters.close();
            came.await.unwrap();
            tokio::task::yield_now().await;
            letters.attend();
            letters.post([after]);
            assert_eq!(late.try_recv(), Ok(()), "by whoever posts it");
        });
    }
}
