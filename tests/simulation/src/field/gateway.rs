//! A packet forwarder.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use limpet_bench::Transmission;
use limpet_shared::{
    Eui64,
    gwmp::{self, DownKind, Downstream, Rxpk, Txpk},
};
use rand::{Rng, rngs::SmallRng};

use super::gateway_eui;
use crate::{
    net::{Network, SimSocket},
    plan::{GatewayPlan, Habit},
    seen::{Seen, Serial, Trace},
};

/// Between two PULL_DATA.
const PULL_EVERY: Duration = Duration::from_secs(5);
/// A downlink that comes later than this before its time is refused.
const LEAD: Duration = Duration::from_millis(30);
/// When it asks for downlinks first.
const FIRST_PULL: Duration = Duration::from_millis(400);
/// An operator's word has come to all balancers by then.
const KNOWN_AFTER: Duration = Duration::from_millis(2_500);
/// Frames that somebody has listened to.
const OVERHEARD: usize = 64;

/// What a datagram carries.
#[derive(Clone, Copy, Debug)]
pub enum Pushed {
    Uplink(Serial),
    /// By its place among all JoinRequests.
    Join(usize),
}

#[derive(Debug)]
pub struct SimGateway {
    pub index: usize,
    eui: Eui64,
    habit: Habit,
    added_at: Option<Duration>,
    ip: IpAddr,
    socket: SimSocket,
    pub server: SocketAddr,
    token: u16,
    next_pull: Duration,
    /// What is in each datagram that is not acknowledged yet.
    waiting: BTreeMap<u16, Pushed>,
    queue: Vec<(Duration, Txpk)>,
    /// While it is cut off: what it has to send then.
    kept: Option<Vec<Vec<u8>>>,
    /// Its balancer does not run.
    pub is_unread: bool,
    /// Since when it asks for downlinks where it is now.
    there_since: Duration,
    /// Windows that it was asked for: the counter's value and the bytes, with the token.
    asked: BTreeMap<(u32, Vec<u8>), u16>,
    overheard: Vec<Vec<u8>>,
}

impl SimGateway {
    pub fn new(index: usize, plan: &GatewayPlan, network: &Network, servers: &[SocketAddr]) -> std::io::Result<Self> {
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 9, u8::try_from(index + 1).unwrap_or(255)));
        Ok(Self {
            index,
            eui: gateway_eui(index),
            habit: plan.habit,
            added_at: plan.added_at,
            ip,
            socket: network.bind(SocketAddr::new(ip, 0))?,
            server: servers.get(plan.balancer).copied().ok_or(std::io::ErrorKind::InvalidInput)?,
            token: 0,
            next_pull: FIRST_PULL,
            waiting: BTreeMap::new(),
            queue: Vec::new(),
            kept: None,
            is_unread: false,
            there_since: FIRST_PULL,
            asked: BTreeMap::new(),
            overheard: Vec::new(),
        })
    }

    /// Whether it would transmit an answer to what it hears now.
    pub fn can_answer(&self, now: Duration) -> bool {
        let transmits = !matches!(self.habit, Habit::ReceivesOnly | Habit::RefusesAll);
        let known = self.added_at.is_none_or(|at| at + PULL_EVERY + KNOWN_AFTER < now);
        transmits && known && self.kept.is_none() && now >= self.there_since + Duration::from_millis(200)
    }

    /// What it hears now reaches its balancer later.
    pub fn is_late(&self) -> bool {
        self.kept.is_some() || self.is_unread
    }

    /// The concentrator's counter.
    fn counter(now: Duration) -> u32 {
        // It wraps after 71 minutes.
        (now.as_micros() & u128::from(u32::MAX)) as u32
    }

    fn next_token(&mut self) -> u16 {
        self.token = self.token.wrapping_add(1);
        self.token
    }

    fn send(&mut self, datagram: Vec<u8>) {
        match &mut self.kept {
            Some(kept) => kept.push(datagram),
            None => self.socket.send_to(self.server, &datagram),
        }
    }

    pub fn pull(&mut self, now: Duration) {
        if now >= self.next_pull && self.habit != Habit::ReceivesOnly && self.kept.is_none() {
            self.next_pull = now + PULL_EVERY;
            let token = self.next_token();
            self.socket.send_to(self.server, &gwmp::pull_data(2, token, self.eui));
        }
    }

    pub fn push(&mut self, now: Duration, transmission: &Transmission, pushed: Pushed, rssi: i32) {
        let mut rxpk = Rxpk::new(transmission.frequency, transmission.datr, transmission.phy.clone());
        rxpk.tmst = Some(Self::counter(now));
        rxpk.rssi = Some(rssi);
        let token = self.next_token();
        self.waiting.insert(token, pushed);
        let json = gwmp::push_data_json(&[rxpk], None);
        let datagram = gwmp::push_data(2, token, self.eui, &json);
        if self.overheard.len() < OVERHEARD {
            self.overheard.push(datagram.clone());
        }
        self.send(datagram);
    }

    pub fn listen(&mut self, now: Duration, seen: &mut Seen, trace: &Trace) {
        while let Some((from, bytes)) = self.socket.take() {
            if self.kept.is_some() {
                continue;
            }
            match gwmp::parse_downstream(&bytes) {
                Ok(Downstream { kind: DownKind::PushAck, token, .. }) => match self.waiting.remove(&token) {
                    Some(Pushed::Uplink(serial)) => {
                        seen.acked.entry(serial).or_default().insert(self.index);
                    }
                    Some(Pushed::Join(at)) => seen.joins.get_mut(at).into_iter().for_each(|asked| asked.acked = true),
                    None => {}
                },
                Ok(Downstream { kind: DownKind::PullResp, token, json, .. }) => {
                    if let Ok(txpk) = gwmp::parse_pull_resp(json) {
                        self.plan(now, from, token, txpk, (&mut *seen, trace));
                    }
                }
                _ => {}
            }
        }
    }

    fn plan(&mut self, now: Duration, from: SocketAddr, token: u16, txpk: Txpk, (seen, trace): (&mut Seen, &Trace)) {
        let tmst = txpk.tmst.unwrap_or_default();
        let before = self.asked.insert((tmst, txpk.data.clone()), token);
        if before.is_some_and(|before| before != token) {
            seen.asked_twice.insert(self.index);
        }
        if before.is_some() {
            return;
        }
        let lead = tmst.wrapping_sub(Self::counter(now)).cast_signed();
        let in_time = u64::try_from(lead).ok().map(Duration::from_micros).filter(|lead| *lead >= LEAD);
        // RX1 is on the uplink's channel, RX2 on one of its own.
        let refuses = match self.habit {
            Habit::RefusesAll => true,
            Habit::RefusesRx1 => txpk.freq != RX2,
            _ => false,
        };
        let word = match in_time {
            None => "TOO_LATE",
            Some(_) if refuses => "COLLISION_PACKET",
            Some(lead) => {
                self.queue.push((now + lead, txpk));
                "NONE"
            }
        };
        seen.refused += u64::from(word != "NONE");
        trace.say(now, format!("gateway {} is asked to transmit: {word}", self.index));
        let token = if self.habit == Habit::ForgetsTokens { 0 } else { token };
        if self.habit != Habit::Silent {
            let answer = format!(r#"{{"txpk_ack":{{"error":"{word}"}}}}"#);
            self.socket.send_to(from, &gwmp::tx_ack(2, token, self.eui, answer.as_bytes()));
        }
    }

    /// What goes on the air now.
    pub fn due(&mut self, now: Duration) -> Vec<(Duration, usize, Txpk)> {
        let (due, later): (Vec<_>, _) = std::mem::take(&mut self.queue).into_iter().partition(|(at, _)| *at <= now);
        self.queue = later;
        due.into_iter().map(|(at, txpk)| (at, self.index, txpk)).collect()
    }

    pub fn move_to(&mut self, now: Duration, server: SocketAddr) {
        if self.server != server {
            self.server = server;
            (self.next_pull, self.there_since) = (now, now);
            self.waiting.clear();
        }
    }

    pub fn restart(&mut self, now: Duration, network: &Network) -> std::io::Result<()> {
        self.socket = network.bind(SocketAddr::new(self.ip, 0))?;
        self.queue.clear();
        self.waiting.clear();
        (self.next_pull, self.there_since) = (now, now);
        Ok(())
    }

    /// Cut off, or back: then it sends what it has kept, in order.
    pub fn cut_off(&mut self, off: bool) {
        if off {
            self.kept.get_or_insert_default();
        } else {
            for datagram in self.kept.take().unwrap_or_default() {
                self.socket.send_to(self.server, &datagram);
            }
        }
    }

    /// Somebody sends some of what it sent before, under other tokens.
    pub fn replay(&mut self, chance: &mut SmallRng) {
        for _ in 0..4 {
            let at = chance.random_range(0..OVERHEARD);
            if let Some(mut datagram) = self.overheard.get(at).cloned() {
                datagram.splice(1..3, [0xff, chance.random()]);
                self.socket.send_to(self.server, &datagram);
            }
        }
    }

    /// Bytes that mean nothing, whole datagrams with a bit wrong, and TX_ACKs that nobody asked for.
    pub fn junk(&mut self, chance: &mut SmallRng) {
        for round in 0..12 {
            let mut datagram = match round % 3 {
                0 => gwmp::tx_ack(2, chance.random(), self.eui, br#"{"txpk_ack":{"error":"NONE"}}"#),
                1 => (0..chance.random_range(0..200)).map(|_| chance.random()).collect(),
                _ => self.overheard.last().cloned().unwrap_or_default(),
            };
            // Not in the EUI: what another gateway has said is not junk.
            let at = chance.random_range(12..400);
            if let (true, Some(byte)) = (round % 3 == 2, datagram.get_mut(at)) {
                *byte ^= 1 << chance.random_range(0..8);
            }
            if round % 3 == 2 {
                datagram.splice(1..3, [0xfe, chance.random()]);
            }
            self.socket.send_to(self.server, &datagram);
        }
    }

    /// Its balancer has forgotten what it asked for.
    pub fn forget(&mut self) {
        self.asked.clear();
    }
}

/// RX2 of EU868 (Hz).
const RX2: u32 = 869_525_000;
