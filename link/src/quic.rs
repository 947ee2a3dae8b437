//! What QUIC runs on: tokio, as quinn itself does it, with fewer wake-ups and system calls for each packet.

use std::{
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use quinn::{
    AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller,
    udp::{RecvMeta, Transmit, UdpSocketState},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    alarm::Alarm,
    host,
    watched::{watched, watched_for},
};

/// The running tokio runtime.
pub(crate) fn runtime() -> io::Result<Arc<dyn Runtime>> {
    tokio::runtime::Handle::try_current().map_err(|_| host::no_runtime())?;
    Ok(Arc::new(OnTokio))
}

#[derive(Debug)]
struct OnTokio;

impl Runtime for OnTokio {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let mut alarm = Alarm::default();
        alarm.set(Some(at.into()));
        Box::pin(alarm)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Arc::new(Socket::new(socket, state)?))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

impl AsyncTimer for Alarm {
    fn reset(self: Pin<&mut Self>, at: Instant) {
        self.get_mut().set(Some(at.into()));
    }

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Alarm::poll(self.get_mut(), context)
    }
}

/// Reads what is there, of which the kernel has told. With fewer datagrams than there are places for it has no more, and
/// tells of the next one: it need not be asked. 0 if there was nothing. `try_io` is the socket's, for reading.
pub fn read_all(
    places: usize,
    try_io: impl FnOnce(&mut dyn FnMut() -> io::Result<usize>) -> io::Result<usize>,
    mut read: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut last = 0;
    let more = try_io(&mut || {
        let count = read()?;
        if count < places {
            last = count;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    });
    match more {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(last),
        other => other,
    }
}

#[derive(Debug)]
struct Socket {
    /// For reading only: else the kernel tells of each packet that has left, and wakes us up for it.
    io: AsyncFd<std::net::UdpSocket>,
    state: UdpSocketState,
    /// It took no more when it was last given something.
    full: AtomicBool,
}

impl Socket {
    fn new(socket: std::net::UdpSocket, state: UdpSocketState) -> io::Result<Self> {
        Ok(Self { io: watched(socket)?, state, full: AtomicBool::new(false) })
    }

    /// Returns when it takes more.
    async fn has_room(&self) {
        let told = async {
            let other = watched_for(Interest::WRITABLE, self.io.get_ref().try_clone()?)?;
            other.writable().await.map(drop)
        };
        // Without a file descriptor to be told by, it is tried again. An error would end the connection, and nobody hear of it.
        if told.await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.full.store(false, Ordering::Relaxed);
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.io.get_ref().into(), transmit);
        let full = sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.full.store(full, Ordering::Relaxed);
        sent
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            drop(ready!(self.io.poll_read_ready(context))?);
            let places = buffers.len().min(metas.len());
            let try_io = |read: &mut dyn FnMut() -> io::Result<usize>| self.io.try_io(Interest::READABLE, |_| read());
            match read_all(places, try_io, || self.state.recv(self.io.get_ref().into(), buffers, metas)) {
                Ok(0) => {}
                read => return Poll::Ready(read),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

type Wait = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// One of those that wait until the socket takes more.
struct Writable {
    socket: Arc<Socket>,
    waiting: Option<Wait>,
}

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, waiting } = self.get_mut();
        if waiting.is_none() && !socket.full.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let wait = waiting.get_or_insert_with(|| {
            let socket = socket.clone();
            Box::pin(async move {
                socket.has_room().await;
                Ok(())
            })
        });
        let done = ready!(wait.as_mut().poll(context));
        *waiting = None;
        Poll::Ready(done)
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_socket_that_took_no_more_is_waited_for_once() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let state = UdpSocketState::new((&socket).into()).unwrap();
        let socket = Arc::new(Socket::new(socket, state).unwrap());
        let mut poller = socket.clone().create_io_poller();
        for full in [false, true, false] {
            socket.full.store(full, Ordering::Relaxed);
            let mut polls = 0;
            let writable = poll_fn(|context| {
                polls += 1;
                poller.as_mut().poll_writable(context)
            });
            writable.await.unwrap();
            assert_eq!(polls > 1, full);
            assert!(!socket.full.load(Ordering::Relaxed));
        }
    }
}
