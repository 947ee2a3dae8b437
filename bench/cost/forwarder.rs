//! The least that a balancer can be: datagrams in batches one way, answers in batches the other. Beside it everything is
//! measured that does more.

use std::net::{SocketAddr, UdpSocket};

use quinn::udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg},
};

use crate::Outcome;

const DATAGRAM: usize = 2_048;

/// A socket with what it has read.
struct Side {
    socket: UdpSocket,
    state: UdpSocketState,
    memory: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
}

impl Side {
    fn new(socket: UdpSocket) -> Outcome<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, state, memory: vec![0; DATAGRAM * BATCH_SIZE], metas: [RecvMeta::default(); BATCH_SIZE] })
    }

    /// What is there, and from whom.
    fn read(&mut self) -> Vec<(&[u8], SocketAddr)> {
        let mut buffers: Vec<_> = self.memory.chunks_mut(DATAGRAM).map(std::io::IoSliceMut::new).collect();
        let read = self.state.recv((&self.socket).into(), &mut buffers, &mut self.metas);
        drop(buffers);
        let filled = self.memory.chunks(DATAGRAM).zip(&self.metas).take(read.unwrap_or_default());
        filled
            .flat_map(|(buffer, meta)| {
                let bytes = buffer.get(..meta.len).unwrap_or_default();
                bytes.chunks(meta.stride.max(1)).map(|bytes| (bytes, meta.addr))
            })
            .collect()
    }
}

/// Sends all, to whom each is for. What the kernel does not take is lost, as UDP may.
fn send(socket: &UdpSocket, datagrams: &[(&[u8], SocketAddr)]) -> Outcome<()> {
    let parts: Vec<_> = datagrams.iter().map(|(bytes, _)| [std::io::IoSlice::new(bytes)]).collect();
    let addresses: Vec<SocketAddrAny> = datagrams.iter().map(|(_, to)| SocketAddrAny::from(*to)).collect();
    let mut nothing: Vec<_> = datagrams.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let headers = addresses.iter().zip(&parts).zip(&mut nothing);
    let mut headers: Vec<_> =
        headers.map(|((address, part), nothing)| MMsgHdr::new_with_addr(address, part, nothing)).collect();
    let mut rest = &mut headers[..];
    while !rest.is_empty() {
        match sendmmsg(socket, rest, SendFlags::empty()) {
            Ok(sent) => rest = rest.get_mut(sent..).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::CONNREFUSED) => rest = rest.get_mut(1..).unwrap_or_default(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Forwards until it is killed. An answer goes to whoever has sent its token last.
pub fn run(listen: SocketAddr, to: SocketAddr) -> Outcome<()> {
    let (mut gateways, mut server) =
        (Side::new(UdpSocket::bind(listen)?)?, Side::new(UdpSocket::bind("127.0.0.1:0")?)?);
    let mut asked: Vec<SocketAddr> = vec![listen; 1 << 16];
    let token = |bytes: &[u8]| match bytes {
        [_, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    loop {
        let mut wanted = [PollFd::new(&gateways.socket, PollFlags::IN), PollFd::new(&server.socket, PollFlags::IN)];
        poll(&mut wanted, None)?;
        let ready = wanted.map(|one| !one.revents().is_empty());
        if ready[0] {
            let read = gateways.read();
            for (bytes, from) in &read {
                if let Some(asked) = asked.get_mut(token(bytes)) {
                    *asked = *from;
                }
            }
            send(&server.socket, &read.iter().map(|(bytes, _)| (*bytes, to)).collect::<Vec<_>>())?;
        }
        if ready[1] {
            let read = server.read();
            let back = |(bytes, _): &(&'_ [u8], SocketAddr)| asked.get(token(bytes)).copied().unwrap_or(listen);
            let answers: Vec<_> = read.iter().map(|one| (one.0, back(one))).collect();
            send(&gateways.socket, &answers)?;
        }
    }
}

/// A server that acknowledges every PUSH_DATA, until it is killed.
pub fn answer(listen: SocketAddr) -> Outcome<()> {
    let mut side = Side::new(UdpSocket::bind(listen)?)?;
    loop {
        poll(&mut [PollFd::new(&side.socket, PollFlags::IN)], None)?;
        let read = side.read();
        let answers: Vec<([u8; 4], SocketAddr)> = read
            .iter()
            .filter_map(|(bytes, from)| match bytes {
                [version, high, low, 0, ..] => Some(([*version, *high, *low, 1], *from)),
                _ => None,
            })
            .collect();
        send(&side.socket, &answers.iter().map(|(bytes, to)| (&bytes[..], *to)).collect::<Vec<_>>())?;
    }
}
