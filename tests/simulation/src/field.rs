//! Gateways and devices: what is outside of the servers, and what is seen of them from there.

mod device;
mod gateway;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use limpet_bench::{ReceiveError, Received, Transmission};
use limpet_shared::{
    AesKey, DevAddr, Eui64,
    gwmp::Txpk,
    lorawan::{self, Frame, JoinAccept, Keys},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::{
    net::Network,
    plan::{Plan, Trouble},
    seen::{Accept, Asking, Seen, Sent, Serial, Trace},
};
pub use device::ITEM;
use device::{Intent, SimDevice};
use gateway::{Pushed, SimGateway};

/// A device listens from so long before a window opens to so long after.
const WINDOW: Duration = Duration::from_millis(2);

/// The keys of a device that is activated by hand.
pub fn keys(index: usize) -> (DevAddr, Keys) {
    let byte = u8::try_from(index % 200).unwrap_or_default();
    let keys = Keys { nwk_s_key: AesKey([byte + 1; 16]), app_s_key: AesKey([byte + 2; 16]) };
    (DevAddr(0x0100_0000 + u32::from(byte)), keys)
}

pub fn app_key(index: usize) -> AesKey {
    AesKey([u8::try_from(index % 200).unwrap_or_default() + 50; 16])
}

pub fn dev_eui(index: usize) -> Eui64 {
    Eui64(0x70b3_d57e_d000_0000 + index as u64)
}

pub fn gateway_eui(index: usize) -> Eui64 {
    Eui64(0x0016_c001_ff00_0000 + index as u64)
}

/// Everything that is not a server.
#[derive(Debug)]
pub struct Field {
    gateways: Vec<SimGateway>,
    devices: Vec<SimDevice>,
    pub seen: Seen,
    chance: SmallRng,
    serial: Serial,
    /// So many in a thousand gateways hear an uplink.
    heard: u32,
    /// When devices send no more.
    uplinks_end: Duration,
    network: Network,
    servers: Vec<SocketAddr>,
    trace: Trace,
}

impl Field {
    pub fn new(network: &Network, plan: &Plan, servers: &[SocketAddr], trace: Trace) -> std::io::Result<Self> {
        let mut chance = SmallRng::seed_from_u64(plan.seed ^ 0xf1e1d);
        let gateways = plan.gateways.iter().enumerate();
        let gateways = gateways.map(|(index, plan)| SimGateway::new(index, plan, network, servers));
        let devices = plan.devices.iter().enumerate();
        let devices: Option<Vec<_>> = devices.map(|(index, plan)| SimDevice::new(index, plan, &mut chance)).collect();
        let devices = devices.ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut seen = Seen::default();
        seen.sessions.extend(devices.iter().enumerate().filter_map(|(index, d)| Some((index, d.dev_addr()?))));
        Ok(Self {
            gateways: gateways.collect::<std::io::Result<_>>()?,
            devices,
            seen,
            chance,
            serial: 0,
            heard: plan.heard,
            uplinks_end: plan.uplinks_end,
            network: network.clone(),
            servers: servers.to_vec(),
            trace,
        })
    }

    /// Lets gateways talk to the server, and devices to gateways.
    pub fn tick(&mut self, now: Duration) {
        if now < self.uplinks_end {
            (0..self.devices.len()).for_each(|index| self.transmit(now, index));
        }
        let mut air = Vec::new();
        for gateway in &mut self.gateways {
            gateway.pull(now);
            gateway.listen(now, &mut self.seen, &self.trace);
            air.extend(gateway.due(now));
        }
        for (at, gateway, txpk) in air {
            self.note_on_air(now, gateway, &txpk);
            (0..self.devices.len()).for_each(|index| self.hear(now, at, index, &txpk));
        }
    }

    fn transmit(&mut self, now: Duration, index: usize) {
        let Some(device) = self.devices.get_mut(index) else { return };
        let Some(intent) = device.next(now, &self.seen.answered) else { return };
        let serial = match intent {
            Intent::Uplink => {
                self.serial += 1;
                self.serial
            }
            Intent::Again(serial) => serial,
            Intent::Join => 0,
        };
        let Some((transmission, sent)) = device.transmit(now, &intent, serial) else { return };
        let (mut heard, mut late) = (BTreeSet::new(), BTreeSet::new());
        for gateway in &mut self.gateways {
            if self.chance.random_range(0..1000) < self.heard {
                let pushed = if let Intent::Join = intent {
                    Pushed::Join(self.seen.joins.len())
                } else {
                    Pushed::Uplink(serial)
                };
                gateway.push(now, &transmission, pushed, self.chance.random_range(-110..-50));
                heard.insert(gateway.index);
                late.extend(gateway.is_late().then_some(gateway.index));
            }
        }
        let can_be_answered = self.gateways.iter().any(|g| heard.contains(&g.index) && g.can_answer(now));
        self.trace
            .say(now, format!("device {index} {}, heard by gateways {heard:?}", what(&intent, serial, sent.as_ref())));
        match (intent, sent) {
            (Intent::Join, _) => {
                let dev_nonce = device.dev_nonce();
                let asked =
                    Asking { device: index, dev_nonce, at: now, can_be_answered, acked: false, accepted: false };
                self.seen.joins.push(asked);
            }
            (Intent::Uplink, Some(sent)) => {
                if device.listens() {
                    self.seen.listened.insert(serial);
                }
                self.seen.sent.insert(serial, Sent { heard, late, can_be_answered, ..sent });
            }
            (_, _) => {
                self.seen.listened.insert(serial);
                if let Some(sent) = self.seen.sent.get_mut(&serial) {
                    sent.heard.extend(heard);
                    sent.late.extend(late);
                    sent.can_be_answered = can_be_answered;
                }
            }
        }
    }

    /// A downlink on the air: who listens at this moment, on this channel, hears it.
    fn hear(&mut self, now: Duration, at: Duration, index: usize, txpk: &Txpk) {
        let Some(device) = self.devices.get_mut(index) else { return };
        if !device.listens() || !device.last.as_ref().is_some_and(|(sent, last, _)| is_open(*sent, last, at, txpk)) {
            return;
        }
        let serial = device.last.as_ref().map(|(.., serial)| *serial);
        match device.receive(&txpk.data) {
            Ok(Received::Joined) => {
                let dev_addr = device.dev_addr().unwrap_or_default();
                self.trace.say(now, format!("device {index} has joined as {dev_addr:08x}"));
                self.seen.sessions.insert((index, dev_addr));
                let asked = self.seen.joins.iter_mut().rev().find(|asked| asked.device == index);
                asked.into_iter().for_each(|asked| asked.accepted = true);
            }
            Ok(Received::Data { ack, fcnt, payload, .. }) => {
                self.trace
                    .say(now, format!("device {index} hears FCntDown {fcnt}{}", if ack { ", an ACK" } else { "" }));
                self.seen.answered.extend(serial.filter(|_| ack));
                let heard = self.seen.heard.entry(serial.unwrap_or_default()).or_default();
                heard.0.insert(fcnt);
                heard.1.insert(payload);
            }
            Err(ReceiveError::CounterReused) => drop(self.seen.reused.insert(index)),
            Err(_) => {}
        }
    }

    /// What a gateway transmits, whether its device hears it or not.
    fn note_on_air(&mut self, now: Duration, gateway: usize, txpk: &Txpk) {
        match lorawan::parse(&txpk.data) {
            Ok(Frame::Data(frame)) => {
                let key = (frame.dev_addr.0, frame.fcnt);
                self.trace.say(now, format!("gateway {gateway} transmits to {:08x} under FCntDown {}", key.0, key.1));
                self.seen.downlinks.entry(key).or_default().insert(txpk.data.clone());
                let owner = self.devices.iter().find(|device| device.dev_addr() == Some(key.0));
                self.seen.items_on_air.extend(owner.and_then(|device| device.item_in(&frame)));
            }
            Ok(Frame::JoinAccept(_)) => {
                for device in 0..self.devices.len() {
                    if let Ok(accept) = JoinAccept::open(&txpk.data, &app_key(device)) {
                        let join_nonce = accept.join_nonce;
                        self.trace.say(
                            now,
                            format!("gateway {gateway} transmits JoinAccept {join_nonce} to device {device}"),
                        );
                        self.seen.accepts.push(Accept { device, join_nonce, phy: txpk.data.clone() });
                    }
                }
            }
            _ => {}
        }
    }

    /// A gateway's trouble.
    pub fn happen(&mut self, now: Duration, trouble: Trouble) -> std::io::Result<()> {
        let (Trouble::MoveGateway(index, _)
        | Trouble::RestartGateway(index)
        | Trouble::Backhaul(index, _)
        | Trouble::Replay(index)
        | Trouble::Junk(index)) = trouble
        else {
            return Ok(());
        };
        let Some(gateway) = self.gateways.get_mut(index) else { return Ok(()) };
        match trouble {
            Trouble::MoveGateway(_, balancer) => {
                self.servers.get(balancer).into_iter().for_each(|server| gateway.move_to(now, *server));
            }
            Trouble::RestartGateway(_) => gateway.restart(now, &self.network)?,
            Trouble::Backhaul(_, off) => gateway.cut_off(off),
            Trouble::Replay(_) => gateway.replay(&mut self.chance),
            _ => gateway.junk(&mut self.chance),
        }
        Ok(())
    }

    /// The device whose uplink was acknowledged last sends nothing more.
    pub fn silence_the_last(&mut self, now: Duration) {
        let last = self.seen.acked.keys().next_back().and_then(|serial| self.seen.sent.get(serial));
        if let Some(device) = last.map(|sent| sent.device).and_then(|device| self.devices.get_mut(device)) {
            device.silence(now);
        }
    }

    /// A balancer is new, and knows nothing of what it sent before.
    pub fn balancer_started(&mut self, balancer: usize) {
        let server = self.servers.get(balancer).copied();
        self.gateways.iter_mut().filter(|g| Some(g.server) == server).for_each(SimGateway::forget);
    }

    /// A balancer stops, or goes on.
    pub fn balancer_paused(&mut self, balancer: usize, paused: bool) {
        let server = self.servers.get(balancer).copied();
        self.gateways.iter_mut().filter(|g| Some(g.server) == server).for_each(|g| g.is_unread = paused);
    }

    /// The DevAddr that a device has now.
    pub fn dev_addr(&self, device: usize) -> Option<u32> {
        self.devices.get(device)?.dev_addr()
    }
}

fn what(intent: &Intent, serial: Serial, sent: Option<&Sent>) -> String {
    match (intent, sent) {
        (Intent::Join, _) => "asks to join".into(),
        (Intent::Again(_), _) => format!("sends uplink {serial} again"),
        (_, Some(sent)) => {
            let confirmed = if sent.confirmed { ", confirmed" } else { "" };
            format!("sends uplink {serial} (FCntUp {}{confirmed})", sent.fcnt)
        }
        (_, None) => "sends nothing".into(),
    }
}

fn is_open(sent: Duration, last: &Transmission, at: Duration, txpk: &Txpk) -> bool {
    last.windows.iter().any(|window| {
        let opens = sent + window.delay;
        window.frequency == txpk.freq && window.datr == txpk.datr && opens.abs_diff(at) < WINDOW
    })
}
