//! The life of one device.

use std::{collections::HashSet, sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::Context;
use crate::{Caught, Coverage, DeviceConfig, Flight, ReceiveError, Received, Transmission, Uplink, VirtualDevice};

/// How often a device asks to join.
const JOIN_TRIES: u32 = 5;
/// How often a confirmed uplink is sent at most.
const CONFIRMED_TRIES: u32 = 3;
/// How many uplinks more a device sends to fetch what was enqueued for it.
const FETCHES: u32 = 3;
/// How long a PUSH_ACK is waited for; a forwarder gives up after a fraction of that.
const ACK_TIMEOUT: Duration = Duration::from_secs(3);
/// Reports of one packet reach the server within this.
const BACKHAUL_JITTER_MS: u64 = 30;
/// FPort of uplinks and downlinks.
const FPORT: u8 = 10;

struct Player {
    context: Arc<Context>,
    device: VirtualDevice,
    coverage: Vec<Coverage>,
    dice: SmallRng,
    acks: JoinSet<()>,
    /// Payloads that were enqueued and have not come yet.
    expected: HashSet<Vec<u8>>,
}

/// What one transmission brought.
#[derive(Default)]
struct Heard {
    joined: bool,
    ack: bool,
}

/// Joins, sends all uplinks, fetches what waits, and ends.
pub(super) async fn device(context: Arc<Context>, index: usize) {
    let plan = &context.plan;
    let begin = Instant::now() + plan.begin(index);
    let mut player = Player::new(context.clone(), index);
    if player.sleeps_until(begin).await && player.join().await {
        player.send_all().await;
    }
    while player.acks.join_next().await.is_some() {}
}

impl Player {
    fn new(context: Arc<Context>, index: usize) -> Self {
        let plan = &context.plan;
        let mut dice = SmallRng::seed_from_u64(plan.identities.timing(index));
        let coverage = (0..plan.copies)
            .map(|copy| Coverage {
                gateway: (index + copy) % plan.gateways,
                rssi: dice.random_range(-118..-50),
                snr: f32::from(dice.random_range(-30i16..40)) / 4.0,
                delay: Duration::ZERO,
            })
            .collect();
        let device = VirtualDevice::otaa(DeviceConfig {
            dev_eui: plan.identities.device(index),
            join_eui: plan.identities.join_eui(),
            app_key: plan.identities.app_key(index),
            region: plan.region,
            dev_nonce: first_dev_nonce(),
            data_rate: None,
            adr: true,
            seed: dice.random(),
        });
        Self { context, device, coverage, dice, acks: JoinSet::new(), expected: HashSet::new() }
    }

    /// False if the run was stopped meanwhile.
    async fn sleeps_until(&self, at: Instant) -> bool {
        let mut stop = self.context.stop.subscribe();
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => false,
            () = sleep_until(at) => true,
        }
    }

    async fn join(&mut self) -> bool {
        for _ in 0..JOIN_TRIES {
            let Ok(request) = self.device.join() else { return false };
            self.context.stats.count(|c| c.joins_tried += 1);
            if self.exchange(&request).await.joined {
                self.context.stats.count(|c| c.joins_accepted += 1);
                return true;
            }
            let pause = Duration::from_millis(self.dice.random_range(0..2_000));
            if !self.sleeps_until(Instant::now() + pause).await {
                return false;
            }
        }
        tracing::warn!(device = %self.device.dev_eui(), "not joined after {JOIN_TRIES} tries");
        false
    }

    async fn send_all(&mut self) {
        let mut next = Instant::now();
        for _ in 0..self.context.plan.uplinks {
            if !self.sleeps_until(next).await {
                return;
            }
            next += self.context.plan.interval;
            if self.percent(self.context.plan.downlinks) {
                self.enqueue().await;
            }
            let confirmed = self.percent(self.context.plan.confirmed);
            self.send(confirmed).await;
        }
        for _ in 0..FETCHES {
            if self.expected.is_empty() || *self.context.stop.borrow() {
                return;
            }
            self.send(false).await;
        }
    }

    async fn send(&mut self, confirmed: bool) {
        let length = self.dice.random_range(2..20);
        let payload = self.device.random_payload(length);
        let uplink = Uplink { confirmed, fport: Some(FPORT), payload, commands: Vec::new() };
        let Ok(packet) = self.device.uplink(&uplink) else { return };
        self.context.stats.count(|c| {
            c.uplinks += 1;
            c.confirmed += u64::from(confirmed);
        });
        let mut acknowledged = self.exchange(&packet).await.ack;
        for _ in 1..CONFIRMED_TRIES {
            if acknowledged || !confirmed {
                break;
            }
            let Some(again) = self.device.repeat_elsewhere() else { break };
            self.context.stats.count(|c| c.repeated += 1);
            acknowledged = self.exchange(&again).await.ack;
        }
        self.context.stats.count(|c| c.acknowledged += u64::from(confirmed && acknowledged));
    }

    /// Sends, then listens until something for this device comes or both windows are over.
    async fn exchange(&mut self, packet: &Transmission) -> Heard {
        for coverage in &mut self.coverage {
            coverage.delay = Duration::from_millis(self.dice.random_range(0..BACKHAUL_JITTER_MS));
        }
        let mut flight = match self.context.air.transmit(packet, &self.coverage).await {
            Ok(flight) => flight,
            Err(error) => {
                tracing::warn!(%error, "not sent");
                return Heard::default();
            }
        };
        self.await_push_acks(&mut flight);
        while let Some(caught) = flight.next().await {
            if let Some(heard) = self.hear(&caught) {
                return heard;
            }
        }
        Heard::default()
    }

    fn await_push_acks(&mut self, flight: &mut Flight) {
        while self.acks.try_join_next().is_some() {}
        for push in flight.pushes.drain(..) {
            let context = self.context.clone();
            self.acks.spawn(async move { context.stats.push_settled(push.acked(ACK_TIMEOUT).await) });
        }
    }

    /// `None` for what is not for this device, which listens on.
    fn hear(&mut self, caught: &Caught) -> Option<Heard> {
        let received = self.device.receive(&caught.phy);
        let stats = &self.context.stats;
        let heard = match received {
            Ok(Received::Joined) => Heard { joined: true, ack: false },
            Ok(Received::Data { ack, payload, .. }) => {
                if self.expected.remove(&payload) {
                    stats.count(|c| c.delivered += 1);
                }
                Heard { joined: false, ack }
            }
            Err(ReceiveError::CounterReused) => {
                tracing::error!(device = %self.device.dev_eui(), "two different downlinks under one FCntDown");
                stats.count(|c| c.counter_reused += 1);
                return None;
            }
            // Another device's downlink in the same window: its MIC or address tells.
            Err(ReceiveError::NotForUs | ReceiveError::NotJoining) => return None,
            Err(error) => {
                tracing::debug!(device = %self.device.dev_eui(), %error, "a downlink that the device ignores");
                stats.count(|c| c.undecodable += 1);
                return None;
            }
        };
        stats.count(|c| if caught.window == 1 { c.rx1 += 1 } else { c.rx2 += 1 });
        Some(heard)
    }

    async fn enqueue(&mut self) {
        let Some(api) = &self.context.api else { return };
        let length = self.dice.random_range(4..12);
        let payload = self.device.random_payload(length);
        match api.enqueue(self.device.dev_eui(), FPORT, &payload).await {
            Ok(()) => {
                self.context.stats.count(|c| c.enqueued += 1);
                self.expected.insert(payload);
            }
            Err(error) => {
                tracing::warn!(%error, "not enqueued");
                self.context.stats.count(|c| c.enqueue_failed += 1);
            }
        }
    }

    fn percent(&mut self, share: u8) -> bool {
        self.dice.random_range(0..100) < share
    }
}

/// Grows with the clock, so that a second run with the same seed does not repeat a DevNonce for a day and a half.
fn first_dev_nonce() -> u16 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (now.as_secs() / 2) as u16
}
