//! What goes on on a connection: requests in work, answers that are being read, and since when nothing is.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::entrance::Limits;

/// An answer is handed over in pieces of this size at most (bytes): it is in work until its reader has room for the last one.
const PIECE: usize = 16 << 10;

/// Of one connection.
pub(crate) struct Activity(Mutex<State>);

struct State {
    /// Requests whose answers are not handed over to their end.
    in_work: usize,
    /// Those of them of which a piece was handed over, and whose reader has asked for no more since.
    unread: usize,
    /// When something has happened last.
    last: Instant,
}

/// What a connection is to be closed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    Idle,
    Unread,
}

impl Activity {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { in_work: 0, unread: 0, last: Instant::now() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.last = Instant::now();
    }

    /// A request has come; it is in work until what this gives is dropped.
    pub fn begin(self: &Arc<Self>) -> InWork {
        self.change(|state| state.in_work += 1);
        InWork { activity: self.clone(), is_unread: false }
    }

    /// Whether the connection is to be closed, or when to look again.
    pub fn look(&self, limits: &Limits) -> Result<Instant, Close> {
        let state = self.state();
        let (limit, close) = match (state.in_work, state.unread) {
            (0, _) => (limits.idle, Close::Idle),
            // A stream of events may have nothing to tell for any time.
            (_, 0) => return Ok(Instant::now() + look_every(limits)),
            _ => (limits.unread, Close::Unread),
        };
        let (until, now) = (state.last + limit, Instant::now());
        // What is idle now may be unread soon.
        if until <= now { Err(close) } else { Ok(until.min(now + look_every(limits))) }
    }
}

/// How often a connection is looked at, at least.
pub(crate) fn look_every(limits: &Limits) -> Duration {
    limits.unread.min(limits.idle) / 4
}

/// A request in work.
pub(crate) struct InWork {
    activity: Arc<Activity>,
    is_unread: bool,
}

impl InWork {
    /// The answer, in work until its reader has it.
    pub fn answer(self, body: Body) -> Body {
        Body::new(Answer { body, rest: Bytes::new(), in_work: self })
    }

    fn unread(&mut self, is_unread: bool) {
        let was = std::mem::replace(&mut self.is_unread, is_unread);
        self.activity.change(|state| state.unread = state.unread + usize::from(is_unread) - usize::from(was));
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        let unread = usize::from(self.is_unread);
        self.activity.change(|state| (state.in_work, state.unread) = (state.in_work - 1, state.unread - unread));
    }
}

struct Answer {
    body: Body,
    /// What was taken from it and not handed over.
    rest: Bytes,
    in_work: InWork,
}

impl Answer {
    fn piece(&mut self) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        self.in_work.unread(true);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// Polled only when there is room for more, by HTTP/2's flow control or in the socket.
impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.in_work.unread(false);
        if !self.rest.is_empty() {
            return self.piece();
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.rest = data;
                    self.piece()
                }
                Err(other) => Poll::Ready(Some(Ok(other))),
            },
            other => Poll::Ready(other),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
