//! One downlink in flight: which window is next, and how long an answer is waited for.

use alloc::vec::Vec;
use core::time::Duration;

use limpet_shared::{
    Now, UnixMicros,
    link::{Downlink, Window},
};

use super::{ASKING, SETTLE_AFTER, SETTLE_IMMEDIATE, SPARE, TOO_LATE, WITHOUT_QUEUE};
use crate::{action::WorkerId, answers::Answers, gateways::Via};

#[derive(Clone, Debug)]
pub struct Active {
    pub downlink: Downlink,
    /// Who asked for it last.
    pub worker: WorkerId,
    /// The window that is tried now.
    pub current: usize,
    pub state: State,
    /// Numbers of the windows that went out, or could not.
    pub tried: Vec<u32>,
    /// What went out: any of it may be answered.
    pub sent: Vec<Sent>,
    /// The gateway is known to answer under our tokens.
    pub echoes: bool,
    /// A window that somebody else who has a copy says was taken. That counts if the gateway itself, which may have moved there,
    /// says nothing.
    pub claimed: Option<u32>,
    pub deadline: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not sent yet: the gateway has no queue.
    Held,
    /// Silence until the deadline sends the next window.
    Sent,
    /// Silence until the deadline settles it.
    Unanswered,
}

/// One window that went out.
#[derive(Clone, Debug)]
pub struct Sent {
    pub token: u16,
    pub window: u32,
    /// When, on the monotonic clock.
    pub at: Duration,
    /// An answer that has not come until then does not matter any more.
    pub settle_at: Duration,
    pub answered: bool,
    /// Whether it went to the gateway, as far as anybody can know, and not to who else asks in its name.
    pub home: bool,
}

impl Active {
    /// The first window from `from` on that was not tried and can still be met.
    pub fn next_window(&self, from: usize, now: UnixMicros) -> Option<usize> {
        (from..self.downlink.windows.len()).find(|&index| {
            let untried = self.downlink.windows.get(index).is_some_and(|w| !self.tried.contains(&w.number));
            untried && self.meets(index, now)
        })
    }

    pub fn meets(&self, index: usize, now: UnixMicros) -> bool {
        self.downlink.windows.get(index).is_some_and(|w| w.number == 0 || w.at >= (now + TOO_LATE).0)
    }

    /// Whether the next window is another gateway's: this one, which needs so long for a refusal, would leave no time to ask that.
    pub fn leaves_the_next(&self, now: Now, took: Duration) -> bool {
        let next = self.next_window(self.current + 1, now.unix).and_then(|index| self.downlink.windows.get(index));
        let Some(at) = next.filter(|_| self.downlink.others).map(|window| mono_of(now, UnixMicros(window.at))) else {
            return false;
        };
        now.mono + ASKING <= at && now.mono + took + ASKING > at
    }

    /// Until when the window is kept back; `None` to send it now.
    pub fn hold_until(&self, now: Now, via: &Via) -> Option<Duration> {
        let window = self.downlink.windows.get(self.current)?;
        if via.puller.version >= 2 || via.answers.echoes || window.number == 0 {
            return None;
        }
        let at = mono_of(now, UnixMicros(window.at)).saturating_sub(WITHOUT_QUEUE);
        (at > now.mono).then_some(at)
    }

    /// Notes that the current window goes out under that token, and how long an answer is waited for. The state that
    /// follows, and its deadline.
    pub fn went_out(&mut self, now: Now, window: &Window, token: u16, via: &Via) -> (State, Duration) {
        self.tried.push(window.number);
        self.echoes = via.answers.echoes;
        let next = self.next_window(self.current + 1, now.unix).and_then(|index| self.downlink.windows.get(index));
        // Until then a refusal can still send the next one.
        let turn_by = next.map(|w| mono_of(now, UnixMicros(w.at)).saturating_sub(TOO_LATE));
        let refused_at = now.mono + via.answers.patience();
        let own = match window.number {
            0 => now.mono + SETTLE_IMMEDIATE,
            _ => mono_of(now, UnixMicros(window.at)) + SETTLE_AFTER,
        };
        let settle_at = own.max(refused_at).max(turn_by.unwrap_or_default());
        self.sent.push(Sent { token, window: window.number, at: now.mono, settle_at, answered: false, home: true });
        let in_time = turn_by.is_some_and(|by| refused_at + SPARE <= by);
        if in_time && silence_refuses(via.puller.version, &via.answers) {
            (State::Sent, refused_at)
        } else {
            (State::Unanswered, settle_at)
        }
    }

    /// Notes that what went out last went to somebody else as well.
    pub fn copied(&mut self, token: u16) {
        if let Some(last) = self.sent.last().cloned() {
            let copy = Sent { token, home: false, ..last };
            self.sent.insert(self.sent.len() - 1, copy);
        }
    }

    /// Until when an answer to what went out may come; `None` if there is an answer to everything.
    pub fn awaited_until(&self) -> Option<Duration> {
        self.sent.iter().filter(|sent| sent.home && !sent.answered).map(|sent| sent.settle_at).max()
    }
}

/// Only from a gateway with TX_ACKs in its protocol that has sent one.
pub fn silence_refuses(version: u8, answers: &Answers) -> bool {
    version >= 2 && answers.echoes
}

fn mono_of(now: Now, at: UnixMicros) -> Duration {
    now.mono + at.since(now.unix)
}
