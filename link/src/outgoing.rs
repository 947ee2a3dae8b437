//! What is on its way from a balancer to a worker: it begins to gather before the link is up, and waits here until the
//! stream takes it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::BytesMut;
use limpet_shared::link::{ToWorker, UplinkFrame, to_worker};
use tokio::sync::{Notify, mpsc};

use crate::stream::{ControlSender, Sender, Source, WRITE_AT_ONCE};

/// Control messages that wait for one worker; with more it reads nothing, and should lose its link.
pub const CONTROL_LIMIT: usize = 16_384;

/// The balancer's end. Dropping it ends the streams: what is queued of control messages is still written, frames are not.
pub struct Outgoing {
    pub control: ControlSender<ToWorker>,
    pub frames: FrameSender,
}

/// The stream's end.
pub struct Queues {
    pub(crate) control: mpsc::Receiver<ToWorker>,
    pub(crate) frames: FrameQueue,
}

/// Both ends, for a worker that introduces itself.
pub fn outgoing() -> (Outgoing, Queues) {
    let (sender, control) = mpsc::channel(CONTROL_LIMIT);
    let shared = Arc::<Shared>::default();
    let frames = FrameSender(shared.clone());
    (Outgoing { control: Sender::of(sender), frames }, Queues { control, frames: FrameQueue(shared) })
}

impl Queues {
    /// The first control message; `None` if the balancer has nothing to say to this worker.
    pub async fn first(&mut self) -> Option<to_worker::Kind> {
        self.control.recv().await?.kind
    }
}

/// Queues frames. They are in the order of their numbers, and may be taken back while they wait. It has no limit of its
/// own: whoever sends knows what the worker has read ([`limpet_shared::link::Ack::received`]), and stops in time.
pub struct FrameSender(Arc<Shared>);

/// The frames that wait.
pub(crate) struct FrameQueue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    frames: BTreeMap<u64, UplinkFrame>,
    /// One of the ends is gone.
    closed: bool,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.frames.clear();
        drop(waiting);
        self.news.notify_one();
    }
}

impl FrameSender {
    /// Queues a frame; false if the link has ended.
    pub fn send(&self, frame: UplinkFrame) -> bool {
        let mut waiting = self.0.waiting();
        if waiting.closed {
            return false;
        }
        waiting.frames.insert(frame.seq, frame);
        drop(waiting);
        self.0.news.notify_one();
        true
    }

    /// Takes a frame back; false if it is on its way, or never was here.
    pub fn withdraw(&self, seq: u64) -> bool {
        self.0.waiting().frames.remove(&seq).is_some()
    }

    /// Frames that wait to be written.
    pub fn waiting(&self) -> usize {
        self.0.waiting().frames.len()
    }
}

impl Drop for FrameSender {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Drop for FrameQueue {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Source for FrameQueue {
    async fn gather(&mut self, out: &mut BytesMut) -> bool {
        loop {
            if let Some(some) = self.take(out) {
                return some;
            }
            self.0.news.notified().await;
        }
    }
}

impl FrameQueue {
    /// Writes what is here into `out`; `None` if there is nothing yet.
    fn take(&self, out: &mut BytesMut) -> Option<bool> {
        let mut waiting = self.0.waiting();
        if waiting.closed {
            return Some(false);
        }
        while out.len() < WRITE_AT_ONCE {
            let Some((_, frame)) = waiting.frames.pop_first() else { break };
            frame.encode(out);
        }
        (!out.is_empty()).then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use limpet_shared::{Eui64, UnixMicros};

    use super::*;

    fn frame(seq: u64, len: usize) -> UplinkFrame {
        let datagram = Bytes::from(vec![0; len]);
        UplinkFrame { seq, received_at: UnixMicros(0), gateway: Eui64(1), attempt: 0, datagram }
    }

    #[tokio::test]
    async fn what_was_taken_back_is_not_written() {
        let (outgoing, mut queues) = outgoing();
        (1..=4).for_each(|seq| assert!(outgoing.frames.send(frame(seq, 10))));
        assert!(outgoing.frames.withdraw(2));
        assert!(!outgoing.frames.withdraw(2));
        let mut out = BytesMut::new();
        assert!(queues.frames.gather(&mut out).await);
        assert_eq!(out.len(), 3 * (4 + 25 + 10));
        assert!(!outgoing.frames.withdraw(1), "it is on its way");
        assert_eq!(outgoing.frames.waiting(), 0);
    }

    #[tokio::test]
    async fn a_write_is_of_a_bounded_size_and_the_end_of_either_side_is_noticed() {
        let (outgoing, mut queues) = outgoing();
        (1..=20).for_each(|seq| assert!(outgoing.frames.send(frame(seq, 60_000))));
        let mut out = BytesMut::new();
        assert!(queues.frames.gather(&mut out).await);
        assert!(out.len() < 2 * WRITE_AT_ONCE);
        drop(outgoing);
        assert!(!queues.frames.gather(&mut out).await, "frames of a link that ends go elsewhere");
        let (outgoing, queues) = super::outgoing();
        drop(queues);
        assert!(!outgoing.frames.send(frame(1, 1)));
    }
}
