//! Downlinks on their way through a gateway: each window of each goes out once, in time, until one is taken.
//!
//! A downlink in flight is in one of the states of `State`, with a moment (its *deadline*) at which it is looked at
//! again. *Next* is its first window that has not gone out and can still be met.
//!
//! | state | taken (TX_ACK) | refused (TX_ACK of the last window) | the deadline |
//! | --- | --- | --- | --- |
//! | (new) | | | the first window that can be met: Held, or sent; none: settled, `TOO_LATE` |
//! | Held, the gateway has no queue | settled, sent | | 800 ms before the window: sent; else the next |
//! | Sent, with time for a next one after silence | settled, sent | the next; none: see below | after the gateway's patience: the next |
//! | Unanswered | settled, sent | the next; none: see below | some time after the window: settled, `NO_ANSWER` |
//!
//! If the worker can ask another gateway, the next window is left to that one where a refusal of it, as late as this one came, would leave no time
//! for asking ([`ASKING`]).
//!
//! What is sent is Sent if the gateway's silence means something ([`crate::answers::Answers`]) and would be clear [`SPARE`] before the next
//! window's last moment; else Unanswered. Nothing left to try: if all that went out was refused, it is settled in the gateway's words.
//! If any was met with silence, that may be on air: Unanswered until its own time is over, and then `NO_ANSWER`.
//! A TX_ACK that comes after `NO_ANSWER` settles it once more, as sent.
//!
//! Whoever asks in a gateway's name has a copy under a token of its own. Only what comes back under the gateway's is a TX_ACK;
//! that the copy was taken counts at the deadline, for the gateway may have moved there; a refusal of it never. A token that is nobody's
//! is taken for the gateway's only where it comes from the gateway's own address.

mod active;

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
    link::{Downlink, TxAck},
};
use siphasher::sip::SipHasher13;

use crate::{
    action::{DropReason, Source, WorkerId},
    addresses::Puller,
    gateways::Via,
};
use active::{Active, Sent, State, silence_refuses};

/// A window that begins sooner than this is lost: a forwarder needs 42.5 ms, and the way there takes its time.
pub const TOO_LATE: Duration = Duration::from_millis(100);
/// Silence sends the next window only if that is clear so long before the window's last moment.
pub const SPARE: Duration = Duration::from_millis(100);
/// What it takes to ask another gateway: the way to a worker and back, and what workers want ahead of a window.
pub const ASKING: Duration = Duration::from_millis(200);
/// A gateway without a queue transmits when told: it is told so long before.
pub const WITHOUT_QUEUE: Duration = Duration::from_millis(800);
/// An answer that has not come so long after the window will not come.
const SETTLE_AFTER: Duration = Duration::from_millis(500);
/// The same, for a downlink that is transmitted at once.
const SETTLE_IMMEDIATE: Duration = Duration::from_secs(1);
/// For how long a settled key is known, so that another worker's copy does not go on air, and a late TX_ACK has its downlink.
const REMEMBER: Duration = Duration::from_secs(10);
/// Downlinks in flight, and settled ones remembered.
const MAX_ACTIVE: usize = 20_000;
const MAX_SETTLED: usize = 100_000;
/// More windows than a downlink has: RX1, RX2, and room for what may come.
const MAX_WINDOWS: usize = 8;

/// What went out may be on air, and nobody knows.
const NO_ANSWER: &str = "NO_ANSWER";
/// It is timed as this gateway cannot be.
const OTHER_KIND: &str = "OTHER_KIND";

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
    /// The same for somebody else who asks in the gateway's name.
    Copy {
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

/// A TX_ACK as it came.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    pub gateway: Eui64,
    pub token: u16,
    /// It came from where the gateway pulls, as far as anybody can know. Only then its token may be one that the gateway has made
    /// up: whoever else asks in its name could answer under any.
    pub at_home: bool,
    /// What follows the header.
    pub body: &'a [u8],
}

/// One downlink whose fate is known.
#[derive(Clone, Debug)]
struct Settled {
    ack: TxAck,
    told: WorkerId,
    tried: Vec<u32>,
    sent: Vec<Sent>,
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
        // The kind of every gateway here.
        downlink.write_pull_resps();
        if downlink.windows.is_empty() {
            out.push(Output::Drop { gateway: key.0, reason: DropReason::DownlinkOtherKind });
            return out.push(Output::Settled { worker, ack: settle(&downlink, 0, OTHER_KIND, now.unix) });
        }
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
        let sent = self.settled.get_mut(&key).map(|settled| core::mem::take(&mut settled.sent)).unwrap_or_default();
        let active = Active {
            downlink,
            worker,
            current: 0,
            state: State::Held,
            tried,
            sent,
            echoes: false,
            claimed: None,
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
            return self.conclude(now, key, window, "NO_ROUTE", out);
        };
        match active.next_window(from, now.unix) {
            None => {
                let last = active.downlink.windows.last().map(|w| w.number);
                let window = active.tried.last().copied().or(last).unwrap_or_default();
                self.conclude(now, key, window, error, out);
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
        let (state, deadline) = active.went_out(now, &window, token, &via);
        active.state = state;
        self.set_deadline(key, deadline);
        let bytes = |puller: Puller, token| pull_resp(puller.version, token, &window.json).into();
        let (gateway, number) = (key.0, window.number);
        out.push(Output::Send { gateway, window: number, to: via.puller.source, bytes: bytes(via.puller, token) });
        for puller in via.others.into_iter().flatten() {
            // A token of its own for each, so that only who has the gateway's answers for the gateway.
            let Some(token) = self.draw_token(key) else { return };
            self.tokens.insert((gateway, token), key.1);
            if let Some(active) = self.active.get_mut(&key) {
                active.copied(token);
            }
            out.push(Output::Copy { to: puller.source, bytes: bytes(puller, token) });
        }
    }

    /// A token that no other downlink of the gateway has; never 0, which some gateways send when they mean none.
    fn draw_token(&mut self, key: Key) -> Option<u16> {
        (0..=u16::MAX).find_map(|_| {
            self.count += 1;
            let token = SipHasher13::new_with_key(&self.seed).hash(&self.count.to_be_bytes()) as u16;
            (token != 0 && !self.tokens.contains_key(&(key.0, token))).then_some(token)
        })
    }

    /// A TX_ACK, from whichever of the gateway's sockets. How long it took, if it is the first under a token of ours.
    pub fn on_tx_ack(
        &mut self,
        now: Now,
        answer: &Answer<'_>,
        via: Option<Via>,
        out: &mut Vec<Output>,
    ) -> Result<Option<Duration>, DropReason> {
        let gateway = answer.gateway;
        let ours = self.tokens.get(&(gateway, answer.token)).map(|&key| ((gateway, key), answer.token));
        let may_guess = answer.at_home && via.is_some_and(|via| !via.answers.echoes);
        let guessed = || self.only_one_out(gateway).filter(|_| may_guess);
        let (key, token) = ours.or_else(guessed).ok_or(DropReason::TxAckUnmatched)?;
        let error = match parse_tx_ack(answer.body).map_err(|_| DropReason::TxAckMalformed)? {
            TxAckResult::Sent(_) => String::new(),
            TxAckResult::Refused(error) => error.as_str().into(),
        };
        let all = match self.active.get_mut(&key) {
            Some(active) => &mut active.sent,
            None => &mut self.settled.get_mut(&key).ok_or(DropReason::TxAckUnmatched)?.sent,
        };
        let sent = all.iter_mut().find(|sent| sent.token == token && !sent.answered);
        // A repeated answer says nothing new.
        let Some(sent) = sent else { return Ok(None) };
        sent.answered = true;
        if !sent.home {
            // A refusal by somebody else says nothing.
            let window = Some(sent.window).filter(|_| error.is_empty());
            if let Some(active) = self.active.get_mut(&key) {
                active.claimed = active.claimed.or(window);
            }
            return Ok(None);
        }
        let (window, time) = (sent.window, now.mono.saturating_sub(sent.at));
        match (error.is_empty(), self.active.contains_key(&key)) {
            (true, true) => self.finish(now, key, window, "", out),
            (true, false) => self.late(now, key, window, out),
            (false, true) => self.refused(now, key, (token, time), &error, via, out),
            (false, false) => {}
        }
        Ok(ours.map(|_| time))
    }

    /// The one thing that this gateway may be answering, if it is one: it does not give back what tells which.
    fn only_one_out(&self, gateway: Eui64) -> Option<(Key, u16)> {
        let active = self.active.range((gateway, 0)..=(gateway, u64::MAX));
        let mut out = active.flat_map(|(&key, active)| {
            active.sent.iter().filter(|sent| sent.home && !sent.answered).map(move |sent| (key, sent.token))
        });
        out.next().filter(|_| out.next().is_none())
    }

    /// `took`: how long the gateway needed to say so.
    fn refused(
        &mut self,
        now: Now,
        key: Key,
        (token, took): (u16, Duration),
        error: &str,
        via: Option<Via>,
        out: &mut Vec<Output>,
    ) {
        let Some(active) = self.active.get(&key) else { return };
        let newest = active.sent.last().is_some_and(|sent| sent.token == token);
        if active.state == State::Held {
            return; // The next window waits for its time already.
        }
        if newest && active.leaves_the_next(now, took) {
            let window = active.tried.last().copied().unwrap_or_default();
            self.conclude(now, key, window, error, out);
        } else if newest {
            let next = active.current + 1;
            self.advance(now, key, via, next, error, out);
        } else if active.awaited_until().is_none() {
            let window = active.tried.last().copied().unwrap_or_default();
            self.finish(now, key, window, error, out);
        }
    }

    /// It was settled as not answered, and is on air after all.
    fn late(&mut self, now: Now, key: Key, window: u32, out: &mut Vec<Output>) {
        let Some(settled) = self.settled.get_mut(&key) else { return };
        // What was taken as transmitted is no news.
        if settled.ack.error == NO_ANSWER && !settled.ack.assumed {
            settled.ack = TxAck { error: String::new(), window, at: now.unix.0, ..settled.ack.clone() };
            out.push(Output::Settled { worker: settled.told, ack: settled.ack.clone() });
        }
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
            let sent = self.settled.remove(&key).map(|settled| settled.sent).unwrap_or_default();
            for sent in sent {
                self.tokens.remove(&(key.0, sent.token));
            }
        }
    }

    fn on_deadline(&mut self, now: Now, key: Key, via: Option<Via>, out: &mut Vec<Output>) {
        let Some(active) = self.active.get_mut(&key) else { return };
        let (current, state) = (active.current, active.state);
        if let Some(window) = active.claimed.filter(|_| state != State::Held) {
            return self.finish(now, key, window, "", out);
        }
        match state {
            State::Held => match via {
                // It may have shown meanwhile that it has a queue, or have moved: `send` asks nothing of the time.
                Some(via) if active.meets(current, now.unix) => self.send(now, key, via, out),
                _ => self.advance(now, key, via, current, "TOO_LATE", out),
            },
            // Meanwhile it may have shown that its silence means nothing.
            State::Sent if via.is_some_and(|via| silence_refuses(via.puller.version, &via.answers)) => {
                self.advance(now, key, via, current + 1, NO_ANSWER, out);
            }
            State::Sent | State::Unanswered => {
                let window = active.tried.last().copied().unwrap_or_default();
                self.conclude(now, key, window, NO_ANSWER, out);
            }
        }
    }

    /// There is nothing more to try. What may be on air is waited for.
    fn conclude(&mut self, now: Now, key: Key, window: u32, error: &str, out: &mut Vec<Output>) {
        let Some(active) = self.active.get_mut(&key) else { return };
        match active.awaited_until() {
            Some(until) if until > now.mono => {
                active.state = State::Unanswered;
                self.set_deadline(key, until);
            }
            Some(_) => self.finish(now, key, window, NO_ANSWER, out),
            None => self.finish(now, key, window, error, out),
        }
    }

    fn finish(&mut self, now: Now, key: Key, window: u32, error: &str, out: &mut Vec<Output>) {
        let Some(active) = self.active.remove(&key) else { return };
        self.deadlines.remove(&(active.deadline, key));
        let assumed = error == NO_ANSWER && !active.echoes;
        let ack = TxAck { assumed, ..settle(&active.downlink, window, error, now.unix) };
        let settled = Settled { ack: ack.clone(), told: active.worker, tried: active.tried, sent: active.sent };
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
