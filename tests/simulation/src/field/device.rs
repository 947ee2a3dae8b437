//! A device on the air.

use std::{collections::BTreeSet, time::Duration};

use limpet_bench::{DeviceConfig, ReceiveError, Received, Session, Transmission, Uplink, VirtualDevice};
use limpet_shared::{
    Eui64,
    lorawan::{DataFrame, Keys},
    region::Region,
};
use rand::{Rng, rngs::SmallRng};

use super::{app_key, dev_eui, keys};
use crate::{
    plan::DevicePlan,
    seen::{Sent, Serial},
};

/// After its last window a device that has no answer tries again.
const AGAIN: Duration = Duration::from_millis(2_300);
/// The same for a JoinRequest, whose windows are later.
const JOIN_AGAIN: Duration = Duration::from_millis(6_500);
/// How long a device is off that loses its counters: longer than clocks may differ.
const OFF: Duration = Duration::from_millis(2_600);
/// Queue items say their number after this.
pub const ITEM: &str = "item ";

/// What a device wants to send.
#[derive(Clone, Debug)]
pub enum Intent {
    Join,
    Uplink,
    Again(Serial),
}

#[derive(Debug)]
pub struct SimDevice {
    index: usize,
    device: VirtualDevice,
    plan: DevicePlan,
    next: Duration,
    /// Of the JoinRequest that it sends next.
    nonce: u16,
    joining: bool,
    starts_again_at: Option<Duration>,
    /// Up to where it had counted when it lost its counters.
    lost_at: u32,
    is_repeating: bool,
    is_deaf_now: bool,
    /// The last transmission: when it ended, and what it listens for.
    pub last: Option<(Duration, Transmission, Serial)>,
}

impl SimDevice {
    pub fn new(index: usize, plan: &DevicePlan, chance: &mut SmallRng) -> Option<Self> {
        let config = DeviceConfig {
            dev_eui: dev_eui(index),
            join_eui: Eui64(1),
            app_key: app_key(index),
            region: Region::by_name("eu868")?,
            dev_nonce: 1,
            data_rate: None,
            adr: false,
            seed: chance.random(),
        };
        let (addr, keys) = keys(index);
        let device = if plan.joins { VirtualDevice::otaa(config) } else { VirtualDevice::abp(config, addr, keys) };
        Some(Self {
            index,
            device,
            plan: plan.clone(),
            next: Duration::from_millis(1_200 + chance.random_range(0..1_000)),
            nonce: 0,
            joining: plan.joins,
            starts_again_at: plan.starts_again_at,
            lost_at: 0,
            is_repeating: false,
            is_deaf_now: false,
            last: None,
        })
    }

    pub fn dev_addr(&self) -> Option<u32> {
        self.device.session().map(|session| session.dev_addr.0)
    }

    /// Of its last JoinRequest.
    pub fn dev_nonce(&self) -> u16 {
        self.nonce
    }

    pub fn listens(&self) -> bool {
        !self.is_deaf_now
    }

    /// What it sends now, if anything.
    pub fn next(&mut self, now: Duration, answered: &BTreeSet<Serial>) -> Option<Intent> {
        if now < self.next || self.plan.silent_from.is_some_and(|at| at <= now) {
            return None;
        }
        if self.starts_again_at.is_some_and(|at| at <= now) {
            self.starts_again_at = None;
            if self.plan.joins {
                self.joining = true;
            } else {
                self.lose_counters();
                self.next = now + OFF;
                return None;
            }
        }
        if self.joining {
            return Some(Intent::Join);
        }
        let last = self.last.as_ref().map(|(.., serial)| *serial).filter(|serial| *serial > 0);
        match last.filter(|serial| self.is_deaf_now && !self.is_repeating && !answered.contains(serial)) {
            Some(serial) => Some(Intent::Again(serial)),
            None => Some(Intent::Uplink),
        }
    }

    /// From now on it sends nothing.
    pub fn silence(&mut self, now: Duration) {
        self.plan.silent_from = Some(self.plan.silent_from.map_or(now, |before| before.min(now)));
    }

    fn lose_counters(&mut self) {
        (self.is_deaf_now, self.last) = (false, None);
        if let Some(session) = self.device.session_mut() {
            self.lost_at = session.fcnt_up;
            session.fcnt_up = 0;
        }
    }

    /// Sends it. With an uplink comes what is known of it.
    pub fn transmit(&mut self, now: Duration, intent: &Intent, serial: Serial) -> Option<(Transmission, Option<Sent>)> {
        self.is_repeating = matches!(intent, Intent::Again(_));
        let (transmission, sent) = match intent {
            Intent::Join => {
                self.nonce += 1;
                self.next = now + JOIN_AGAIN;
                self.is_deaf_now = false;
                (self.device.join_with(self.nonce).ok()?, None)
            }
            Intent::Again(_) => {
                self.next = now + AGAIN.max(self.plan.every);
                self.is_deaf_now = false;
                (self.device.repeat()?, None)
            }
            Intent::Uplink => {
                self.is_deaf_now = self.plan.is_deaf && serial.is_multiple_of(3);
                self.next = now + if self.is_deaf_now { AGAIN } else { self.plan.every };
                self.uplink(now, serial)?
            }
        };
        self.last = Some((now, transmission.clone(), serial));
        Some((transmission, sent))
    }

    fn uplink(&mut self, now: Duration, serial: Serial) -> Option<(Transmission, Option<Sent>)> {
        let Session { dev_addr, fcnt_up: fcnt, .. } = self.device.session()?.clone();
        let confirmed = self.plan.confirmed;
        let uplink = Uplink { confirmed, fport: Some(1), payload: serial.to_be_bytes().to_vec(), commands: Vec::new() };
        let transmission = self.device.uplink(&uplink).ok()?;
        let sent = Sent {
            device: self.index,
            dev_addr: dev_addr.0,
            fcnt,
            at: now,
            confirmed,
            heard: BTreeSet::new(),
            late: BTreeSet::new(),
            is_again: fcnt < self.lost_at,
            can_be_answered: false,
        };
        Some((transmission, Some(sent)))
    }

    pub fn receive(&mut self, phy: &[u8]) -> Result<Received, ReceiveError> {
        let received = self.device.receive(phy)?;
        if received == Received::Joined {
            self.joining = false;
            self.lost_at = 0;
            self.next = self.next.min(self.last.as_ref().map_or(self.next, |(sent, ..)| *sent + JOIN_AGAIN));
        }
        Ok(received)
    }

    /// The queue item in a downlink to it.
    pub fn item_in(&self, frame: &DataFrame<'_>) -> Option<usize> {
        let session = self.device.session()?;
        let Keys { .. } = session.keys;
        let payload = frame.decrypt(&session.keys, frame.fcnt.into());
        String::from_utf8(payload).ok()?.strip_prefix(ITEM)?.parse().ok()
    }
}
