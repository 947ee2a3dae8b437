//! Messages over QUIC streams: a bounded queue and a task that writes whatever has gathered in it at once, and a
//! reader that waits for whole messages.

use bytes::{Bytes, BytesMut};
use limpet_shared::link::{self, Ack, ToBalancer, ToWorker, TooLong, UplinkFrame};
use prost::Message;
use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc;

/// A message that travels on a stream of the link.
pub trait Wire: Send + Sized + 'static {
    /// Appends the message with its length prefix.
    fn put(&self, out: &mut BytesMut);
    /// Reads a message without its length prefix; `None` if it is none.
    fn take(body: Bytes) -> Option<Self>;
}

macro_rules! wire_as_protobuf {
    ($($t:ty),*) => {$(
        impl Wire for $t {
            fn put(&self, out: &mut BytesMut) {
                link::encode(self, out);
            }
            fn take(body: Bytes) -> Option<Self> {
                Self::decode(body).ok()
            }
        }
    )*};
}
wire_as_protobuf!(ToBalancer, ToWorker, Ack);

impl Wire for UplinkFrame {
    fn put(&self, out: &mut BytesMut) {
        self.encode(out);
    }
    fn take(body: Bytes) -> Option<Self> {
        Self::decode(body)
    }
}

/// Control messages that wait to be written; more than a healthy peer ever leaves.
pub const CONTROL_QUEUE: usize = 1024;
/// Acks that wait to be written.
pub const ACK_QUEUE: usize = 16_384;
/// The control stream goes before frames.
pub(crate) const CONTROL_PRIORITY: i32 = 1;
/// So much is gathered into one write.
pub(crate) const WRITE_AT_ONCE: usize = 64 << 10;
const READ_AT_ONCE: usize = 256 << 10;

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer reads more slowly than we write.
    #[error("the link's queue is full")]
    Full,
    #[error("the link is closed")]
    Closed,
}

/// Sends messages. Clones share one queue; when the last one is dropped, the stream ends after what it holds.
pub struct Sender<M>(mpsc::Sender<M>);

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Sends control messages: [`ToWorker`] at a balancer, [`ToBalancer`] at a worker.
pub type ControlSender<M> = Sender<M>;
/// Receives control messages: [`ToBalancer`] at a balancer, [`ToWorker`] at a worker.
pub type ControlReceiver<M> = Receiver<M>;
/// The worker's end of the frame stream.
pub type FrameReceiver = Receiver<UplinkFrame>;
pub type AckSender = Sender<Ack>;
pub type AckReceiver = Receiver<Ack>;

impl<M: Wire> Sender<M> {
    pub(crate) fn of(queue: mpsc::Sender<M>) -> Self {
        Self(queue)
    }

    /// Queues a message without waiting.
    pub fn try_send(&self, message: impl Into<M>) -> Result<(), SendError> {
        self.0.try_send(message.into()).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::Closed,
        })
    }

    /// Queues a message, waiting for room.
    pub async fn send(&self, message: impl Into<M>) -> Result<(), SendError> {
        self.0.send(message.into()).await.map_err(|_| SendError::Closed)
    }

    /// Messages that wait to be written.
    pub fn waiting(&self) -> usize {
        self.0.max_capacity() - self.0.capacity()
    }
}

/// Where a stream's messages wait.
pub(crate) trait Source: Send + 'static {
    /// Waits for a message and appends it, with what else is there, up to a write's worth; false after the last one.
    fn gather(&mut self, out: &mut BytesMut) -> impl Future<Output = bool> + Send;
}

impl<M: Wire> Source for mpsc::Receiver<M> {
    async fn gather(&mut self, out: &mut BytesMut) -> bool {
        let Some(first) = self.recv().await else { return false };
        first.put(out);
        while out.len() < WRITE_AT_ONCE {
            let Ok(next) = self.try_recv() else { break };
            next.put(out);
        }
        true
    }
}

/// Starts the task that writes a stream, with a queue of its own.
pub(crate) fn writer<M: Wire>(stream: SendStream, queue: usize) -> (Sender<M>, tokio::task::JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(queue);
    (Sender(sender), tokio::spawn(write_all(receiver, stream)))
}

/// Writes all that comes from a queue, as fast as the peer takes it.
pub(crate) async fn write_all(mut queue: impl Source, mut stream: SendStream) {
    let mut buffer = BytesMut::new();
    let mut stopped = std::pin::pin!(stream.stopped());
    loop {
        let more = tokio::select! {
            biased;
            more = queue.gather(&mut buffer) => more,
            // Without this, a peer that went away would be noticed only with the next message.
            _ = &mut stopped => return,
        };
        if !more {
            break;
        }
        if stream.write_chunk(buffer.split().freeze()).await.is_err() {
            return;
        }
    }
    if stream.finish().is_ok() {
        // Until the peer has it all.
        let _ = stopped.await;
    }
}

/// Writes one message outside of any queue.
pub(crate) async fn write_one(stream: &mut SendStream, message: &impl Wire) -> Result<(), quinn::WriteError> {
    let mut buffer = BytesMut::new();
    message.put(&mut buffer);
    stream.write_chunk(buffer.freeze()).await
}

/// Why nothing more can be received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The bytes are no message of this stream.
    #[error("a message cannot be read")]
    Malformed,
    /// The connection ended.
    #[error("the link ended: {0}")]
    Lost(String),
}

/// Receives messages. Dropping a waiting call loses nothing.
pub struct Receiver<M> {
    stream: RecvStream,
    buffer: BytesMut,
    limit: usize,
    message: std::marker::PhantomData<fn() -> M>,
}

impl<M: Wire> Receiver<M> {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self::with_limit(stream, link::MAX_MESSAGE)
    }

    /// A receiver that refuses messages longer than `limit` bytes.
    pub(crate) fn with_limit(stream: RecvStream, limit: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), limit, message: std::marker::PhantomData }
    }

    /// Accepts messages up to the link's own limit from now on.
    pub(crate) fn trust(self) -> Self {
        Self { limit: link::MAX_MESSAGE, ..self }
    }

    /// The next message; `None` when the peer has ended the stream in good order.
    pub async fn recv(&mut self) -> Result<Option<M>, RecvError> {
        match self.body().await? {
            Some(body) => M::take(body).map(Some).ok_or(RecvError::Malformed),
            None => Ok(None),
        }
    }

    /// Waits for a message, then takes it and all others that are here already, at most `max`. Returns how many were
    /// appended; 0 when the peer has ended the stream in good order.
    pub async fn recv_many(&mut self, out: &mut Vec<M>, max: usize) -> Result<usize, RecvError> {
        let Some(first) = self.recv().await? else { return Ok(0) };
        out.push(first);
        let mut count = 1;
        while count < max {
            let Some(body) = link::next_message(&mut self.buffer)? else { break };
            out.push(M::take(body).ok_or(RecvError::Malformed)?);
            count += 1;
        }
        Ok(count)
    }

    /// The next message's bytes.
    pub(crate) async fn body(&mut self) -> Result<Option<Bytes>, RecvError> {
        loop {
            if let Some(len) = self.buffer.first_chunk::<4>().map(|prefix| u32::from_be_bytes(*prefix) as usize)
                && len > self.limit
            {
                return Err(TooLong(len).into());
            }
            if let Some(body) = link::next_message(&mut self.buffer)? {
                return Ok(Some(body));
            }
            match self.stream.read_chunk(READ_AT_ONCE, true).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(RecvError::Lost("the stream was cut inside a message".into())),
                Err(e) => return Err(RecvError::Lost(e.to_string())),
            }
        }
    }
}
