//! Downlinks on their way through a gateway: each window of each goes out once, in time, until one is taken.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    string::String,
    vec::Vec,
};
use core::time::Duration;

use bytes::Bytes;
use limpet_shared::{
    Eui64, Now, UnixMicros,
    gwmp::{TxAckResult, parse_tx_ack, pull_resp},
    link::{Downlink, TxAck, Window},
};
use siphasher::sip::SipHasher13;

use crate::{
    action::{DropReason, Source, WorkerId},
    gateways::Via,
};

/// A window that begins sooner than this is lost: a forwarder needs 42.5 ms, and the way there takes its time.
pub const TOO_LATE: Duration = Duration::from_millis(100);
/// A gateway without a queue transmits when told: it is told so long before.
pub const WITHOUT_QUEUE: Duration = Duration::from_millis(800);
/// A gateway that sends TX_ACKs sends them at once; silence for so long is a refusal.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// An answer that has not come so long after the window will not come.
const SETTLE_AFTER: Duration = Duration::from_millis(500);
/// The same, for a downlink that is transmitted at once.
const SETTLE_IMMEDIATE: Duration = Duration::from_secs(1);
/// For how long a settled key is known, so that another worker's copy does not go on air.
const REMEMBER: Duration = Duration::from_secs(10);
/// Downlinks in flight, and settled ones remembered.
const MAX_ACTIVE: usize = 20_000;
const MAX_SETTLED: usize = 100_000;
/// More windows than a downlink has: RX1, RX2, and room for what may come.
const MAX_WINDOWS: usize = 8;

type Key = (Eui64, u64);

/// What is to be done for downlinks.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Send {
        gateway: Eui64,
        window: u32,
        to: Source,
        bytes: Bytes,
    },
    /// To be told to that worker, or to another one if it is gone.
    Settled {
        worker: WorkerId,
        ack: TxAck,
    },
    Drop {
        gateway: Eui64,
        reason: DropReason,
    },
}

/// One downlink in flight.
#[derive(Clone, Debug)]
struct Active {
    downlink: Downlink,
    /// Who asked for it last.
    worker: WorkerId,
    /// The window that is tried now.
    current: usize,
    state: State,
    /// Numbers of the windows that went out, or could not.
    tried: Vec<u32>,
    /// Tokens under which it went out: any of them may be answered.
    tokens: Vec<(u16, u32)>,
    /// The gateway is known to send TX_ACKs.
    answers: bool,
    deadline: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not sent yet: the gateway has no queue.
    Held,
    /// Silence until the deadline is a refusal.
    Sent,
    /// Silence until the deadline settles it.
    Unanswered,
}

/// One downlink whose fate is known.
#[derive(Clone, Debug)]
struct Settled {
    ack: TxAck,
    told: WorkerId,
    tried: Vec<u32>,
}

/// All downlinks in flight. Bounded.
#[derive(Clone, Debug)]
pub struct Downlinks {
    seed: [u8; 16],
    count: u64,
    active: BTreeMap<Key, Active>,
    tokens: BTreeMap<(Eui64, u16), u64>,
    deadlines: BTreeSet<(Duration, Key)>,
    settled: BTreeMap<Key, Settled>,
    forget: VecDeque<(Duration, Key)>,
}

impl Downlinks {
    /// No downlinks yet. Tokens are drawn from `seed`, so that a stranger cannot guess them.
    pub fn new(seed: [u8; 16]) -> Self {
        Self {
            seed,
            count: 0,
            active: BTreeMap::new(),
            tokens: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            settled: BTreeMap::new(),
            forget: VecDeque::new(),
        }
    }

    /// A worker wants this sent. What went out before does not go out again, whoever asks.
    pub fn on_downlink(
        &mut self,
        now: Now,
        worker: WorkerId,
        mut downlink: Downlink,
        via: Option<Via>,
        out: &mut Vec<Output>,
    ) {
        let key = (Eui64(downlink.gateway), downlink.key);
        if let Some(active) = self.active.get_mut(&key) {
            active.worker = worker;
            return;
        }
        if downlink.windows.is_empty() {
            return out.push(Output::Drop { gateway: key.0, reason: DropReason::DownlinkMalformed });
        }
        downlink.windows.truncate(MAX_WINDOWS);
        let mut tried = Vec::new();
        if let Some(settled) = self.settled.get_mut(&key) {
            let more = downlink.windows.iter().any(|w| !settled.tried.contains(&w.number));
            if settled.ack.error.is_empty() || !more {
                if settled.told != worker {
                    settled.told = worker;
                    out.push(Output::Settled { worker, ack: settled.ack.clone() });
                }
                return;
            }
            tried = settled.tried.clone();
        }
        if self.active.len() >= MAX_ACTIVE {
            out.push(Output::Drop { gateway: key.0, reason: DropReason::DownlinksFull });
            let ack = settle(&downlink, 0, "QUEUE_FULL", now.unix);
            return out.push(Output::Settled { worker, ack });
        }
        let active = Active {
            downlink,
            worker,
            current: 0,
            state: State::Held,
            tried,
            tokens: Vec::new(),
            answers: false,
            deadline: now.mono,
        };
        self.active.insert(key, active);
        self.deadlines.insert((now.mono, key));
        self.advance(now, key, via, 0, "TOO_LATE", out);
    }

    /// Tries the windows from `from` on; `error` is why the one before did not work.
    fn advance(&mut self, now: Now, key: Key, via: Option<Via>, from: usize, error: &str, out: &mut Vec<Output>) {
        let Some(active) = self.active.get_mut(&key) else { return };
        let Some(via) = via else {
            let window = active.downlink.windows.get(from).map_or(0, |w| w.number);
            return self.finish(now, key, window, "NO_ROUTE", out);
        };
        match active.next_window(from, now.unix) {
            None => {
                let last = active.downlink.windows.last().map(|w| w.number);
                let window = active.tried.last().copied().or(last).unwrap_or_default();
                self.finish(now, key, window, error, out);
            }
            Some(index) => {
                active.current = index;
                let Some(at) = active.hold_until(now, &via) else { return self.send(now, key, via, out) };
                active.state = State::Held;
                self.set_deadline(key, at);
            }
        }
    }

    fn send(&mut self, now: Now, key: Key, via: Via, out: &mut Vec<Output>) {
        let Some(token) = self.draw_token(key) else { return };
        let Some(active) = self.active.get_mut(&key) else { return };
        let Some(window) = active.downlink.windows.get(active.current).cloned() else { return };
        self.tokens.insert((key.0, token), key.1);
        active.tokens.push((token, window.number));
        active.tried.push(window.number);
        active.answers = via.sends_tx_ack;
        let settle_at = settle_at(now, &window);
        let refusal_at = now.mono + ANSWER_WITHIN;
        let quick = via.sends_tx_ack && via.version >= 2 && refusal_at < settle_at;
        active.state = if quick { State::Sent } else { State::Unanswered };
        self.set_deadline(key, if quick { refusal_at } else { settle_at });
        let bytes = pull_resp(via.version, token, &window.json).into();
        out.push(Output::Send { gateway: key.0, window: window.number, to: via.source, bytes });
    }

    /// A token that no other downlink of the gateway has; never 0, which some gateways send when they mean none.
    fn draw_token(&mut self, key: Key) -> Option<u16> {
        (0..=u16::MAX).find_map(|_| {
            self.count += 1;
            let token = SipHasher13::new_with_key(&self.seed).hash(&self.count.to_be_bytes()) as u16;
            (token != 0 && !self.tokens.contains_key(&(key.0, token))).then_some(token)
        })
    }

    /// A gateway's TX_ACK, from whichever of its sockets. Whether it belongs to a downlink in flight.
    pub fn on_tx_ack(
        &mut self,
        now: Now,
        gateway: Eui64,
        token: u16,
        body: &[u8],
        via: Option<Via>,
        out: &mut Vec<Output>,
    ) -> Result<(), DropReason> {
        let key = (gateway, *self.tokens.get(&(gateway, token)).ok_or(DropReason::TxAckUnmatched)?);
        let error = match parse_tx_ack(body).map_err(|_| DropReason::TxAckMalformed)? {
            TxAckResult::Sent(_) => String::new(),
            TxAckResult::Refused(error) => error.as_str().into(),
        };
        let active = self.active.get(&key).ok_or(DropReason::TxAckUnmatched)?;
        let window = active.tokens.iter().find(|(t, _)| *t == token).map_or(0, |(_, number)| *number);
        if error.is_empty() {
            self.finish(now, key, window, "", out);
        } else if active.tokens.last().is_some_and(|(t, _)| *t == token) && active.state != State::Held {
            let next = active.current + 1;
            self.advance(now, key, via, next, &error, out);
        }
        // Otherwise: a refusal of a window that was given up already says nothing new.
        Ok(())
    }

    /// Does what is due.
    pub fn on_timeout(&mut self, now: Now, via: impl Fn(Eui64) -> Option<Via>, out: &mut Vec<Output>) {
        while let Some(&(at, key)) = self.deadlines.first()
            && at <= now.mono
        {
            self.deadlines.remove(&(at, key));
            self.on_deadline(now, key, via(key.0), out);
        }
        while let Some(&(at, key)) = self.forget.front()
            && (at <= now.mono || self.forget.len() > MAX_SETTLED)
        {
            self.forget.pop_front();
            self.settled.remove(&key);
        }
    }

    fn on_deadline(&mut self, now: Now, key: Key, via: Option<Via>, out: &mut Vec<Output>) {
        let Some(active) = self.active.get_mut(&key) else { return };
        let (current, state) = (active.current, active.state);
        match state {
            State::Held => match via {
                // It may have shown meanwhile that it has a queue, or have moved: `send` asks nothing of the time.
                Some(via) if active.meets(current, now.unix) => self.send(now, key, via, out),
                _ => self.advance(now, key, via, current, "TOO_LATE", out),
            },
            State::Sent if active.next_window(current + 1, now.unix).is_some() => {
                self.advance(now, key, via, current + 1, "NO_ANSWER", out);
            }
            State::Sent => {
                active.state = State::Unanswered;
                let at = active.downlink.windows.get(current).map_or(now.mono, |w| settle_at(now, w));
                self.set_deadline(key, at.max(now.mono + Duration::from_millis(1)));
            }
            State::Unanswered => {
                let window = active.tried.last().copied().unwrap_or_default();
                self.finish(now, key, window, "NO_ANSWER", out);
            }
        }
    }

    fn finish(&mut self, now: Now, key: Key, window: u32, error: &str, out: &mut Vec<Output>) {
        let Some(active) = self.active.remove(&key) else { return };
        self.deadlines.remove(&(active.deadline, key));
        for (token, _) in &active.tokens {
            self.tokens.remove(&(key.0, *token));
        }
        let assumed = error == "NO_ANSWER" && !active.answers;
        let ack = TxAck { assumed, ..settle(&active.downlink, window, error, now.unix) };
        let settled = Settled { ack: ack.clone(), told: active.worker, tried: active.tried };
        if self.settled.insert(key, settled).is_none() {
            self.forget.push_back((now.mono + REMEMBER, key));
        }
        out.push(Output::Settled { worker: active.worker, ack });
    }

    fn set_deadline(&mut self, key: Key, at: Duration) {
        let Some(active) = self.active.get_mut(&key) else { return };
        self.deadlines.remove(&(active.deadline, key));
        active.deadline = at;
        self.deadlines.insert((at, key));
    }

    /// When [`Self::on_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        let active = self.deadlines.first().map(|(at, _)| *at);
        let forget = self.forget.front().map(|(at, _)| *at);
        active.into_iter().chain(forget).min()
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> usize {
        self.active.len()
    }
}

impl Active {
    /// The first window from `from` on that was not tried and can still be met.
    fn next_window(&self, from: usize, now: UnixMicros) -> Option<usize> {
        (from..self.downlink.windows.len()).find(|&index| {
            let untried = self.downlink.windows.get(index).is_some_and(|w| !self.tried.contains(&w.number));
            untried && self.meets(index, now)
        })
    }

    fn meets(&self, index: usize, now: UnixMicros) -> bool {
        self.downlink.windows.get(index).is_some_and(|w| w.number == 0 || w.at >= (now + TOO_LATE).0)
    }

    /// Until when the window is kept back; `None` to send it now.
    fn hold_until(&self, now: Now, via: &Via) -> Option<Duration> {
        let window = self.downlink.windows.get(self.current)?;
        if via.version >= 2 || via.sends_tx_ack || window.number == 0 {
            return None;
        }
        let at = mono_of(now, UnixMicros(window.at)).saturating_sub(WITHOUT_QUEUE);
        (at > now.mono).then_some(at)
    }
}

fn mono_of(now: Now, at: UnixMicros) -> Duration {
    now.mono + at.since(now.unix)
}

fn settle_at(now: Now, window: &Window) -> Duration {
    if window.number == 0 { now.mono + SETTLE_IMMEDIATE } else { mono_of(now, UnixMicros(window.at)) + SETTLE_AFTER }
}

fn settle(downlink: &Downlink, window: u32, error: &str, at: UnixMicros) -> TxAck {
    TxAck {
        key: downlink.key,
        gateway: downlink.gateway,
        window,
        error: String::from(error),
        context: downlink.context.clone(),
        at: at.0,
        assumed: false,
    }
}
