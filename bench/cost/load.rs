//! Gateways that send what was written before, at its time, and note when it is acknowledged: one thread, so that it costs
//! the machine little.

use std::{
    collections::HashMap,
    net::{SocketAddr, UdpSocket},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use limpet_shared::{
    DevAddr, Eui64,
    gwmp::{self, DownKind},
    lorawan::{self, Frame},
};
use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec, epoll, poll},
};

use crate::Outcome;

/// For how long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
const EVENTS: usize = 256;

/// A datagram of a gateway, to be sent so long after the start.
pub struct Shot {
    pub at: Duration,
    pub gateway: usize,
    pub datagram: Vec<u8>,
}

/// When each shot left, and how long after it the PUSH_ACK came.
pub struct Played {
    pub sent: Vec<Instant>,
    pub acked: Vec<Option<Duration>>,
    /// What the gateways were given to send.
    pub downlinks: Vec<(DevAddr, Instant)>,
}

/// One socket each.
pub struct Gateways {
    sockets: Vec<UdpSocket>,
    pub euis: Vec<Eui64>,
}

impl Gateways {
    pub fn new(count: usize) -> Outcome<Self> {
        let euis: Vec<Eui64> = (0..count as u64).map(|n| Eui64(0x024c_5000_0000_0000 + n)).collect();
        Ok(Self { sockets: Vec::new(), euis })
    }

    /// From new ports, to this server.
    pub fn connect(&mut self, server: SocketAddr) -> Outcome<()> {
        self.sockets.clear();
        for _ in &self.euis {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(server)?;
            socket.set_nonblocking(true)?;
            self.sockets.push(socket);
        }
        Ok(())
    }

    /// Says where downlinks go.
    pub fn pull(&self) {
        for (socket, eui) in self.sockets.iter().zip(&self.euis) {
            // Who is not there yet is asked for downlinks later.
            let _ = socket.send(&gwmp::pull_data(2, 0, *eui));
        }
    }

    /// Sends all of it, on a thread of its own.
    pub fn play(&self, shots: Vec<Shot>) -> Outcome<JoinHandle<Outcome<Played>>> {
        let sockets = self.sockets.iter().map(UdpSocket::try_clone).collect::<Result<Vec<_>, _>>()?;
        Ok(std::thread::spawn(move || play(&sockets, &shots)))
    }
}

fn token(datagram: &[u8]) -> u16 {
    match datagram {
        [_, high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

fn play(sockets: &[UdpSocket], shots: &[Shot]) -> Outcome<Played> {
    let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (number, socket) in sockets.iter().enumerate() {
        epoll::add(&ready, socket, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
    }
    let mut waiting: HashMap<(usize, u16), usize> = HashMap::new();
    let mut played =
        Played { sent: Vec::with_capacity(shots.len()), acked: vec![None; shots.len()], downlinks: Vec::new() };
    let mut events = Vec::with_capacity(EVENTS);
    let began = Instant::now();
    let mut answered_by = None;
    loop {
        while let Some(shot) = shots.get(played.sent.len()).filter(|shot| began.elapsed() >= shot.at) {
            waiting.insert((shot.gateway, token(&shot.datagram)), played.sent.len());
            played.sent.push(Instant::now());
            // What the kernel does not take is an answer that does not come.
            let _ = sockets.get(shot.gateway).map(|socket| socket.send(&shot.datagram));
        }
        let until = match shots.get(played.sent.len()) {
            Some(next) => began + next.at,
            None => *answered_by.get_or_insert_with(|| Instant::now() + LAST_ANSWERS),
        };
        let left = until.saturating_duration_since(Instant::now());
        if answered_by.is_some() && (waiting.is_empty() || left.is_zero()) {
            return Ok(played);
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        if poll(&mut [PollFd::new(&ready, PollFlags::IN)], Some(&timeout))? == 0 {
            continue;
        }
        events.clear();
        epoll::wait(&ready, spare_capacity(&mut events), Some(&Timespec::default()))?;
        for event in &events {
            let gateway = event.data.u64() as usize;
            let Some(socket) = sockets.get(gateway) else { continue };
            hear(socket, gateway, &mut waiting, &mut played);
        }
    }
}

fn hear(socket: &UdpSocket, gateway: usize, waiting: &mut HashMap<(usize, u16), usize>, played: &mut Played) {
    let mut buffer = [0; 1_500];
    while let Ok(length) = socket.recv(&mut buffer) {
        let now = Instant::now();
        let Ok(answer) = gwmp::parse_downstream(buffer.get(..length).unwrap_or_default()) else { continue };
        if answer.kind == DownKind::PullResp
            && let Ok(txpk) = gwmp::parse_pull_resp(answer.json)
            && let Ok(Frame::Data(frame)) = lorawan::parse(&txpk.data)
        {
            played.downlinks.push((frame.dev_addr, now));
        }
        if answer.kind != DownKind::PushAck {
            continue;
        }
        if let Some(shot) = waiting.remove(&(gateway, answer.token))
            && let (Some(sent), Some(acked)) = (played.sent.get(shot), played.acked.get_mut(shot))
        {
            *acked = Some(now.duration_since(*sent));
        }
    }
}

/// Half of them are not above the first, 99 of 100 not above the second.
pub fn percentiles(mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort_unstable();
    [50, 99].map(|percent| {
        times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    })
}
