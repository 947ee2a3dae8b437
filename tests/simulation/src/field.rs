//! Gateways and devices, and what is seen of the network server from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use limpet_bench::{DeviceConfig, ReceiveError, Transmission, Uplink, VirtualDevice};
use limpet_shared::{
    AesKey, DevAddr, Eui64,
    gwmp::{self, DownKind, Downstream, Rxpk},
    lorawan::Keys,
    region::Region,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::net::{Network, SimSocket};

/// Between two PULL_DATA.
const PULL_EVERY: Duration = Duration::from_secs(5);
/// A downlink that comes later than this before its time is refused.
const LEAD: Duration = Duration::from_millis(30);

/// A packet forwarder.
#[derive(Debug)]
pub struct SimGateway {
    pub eui: Eui64,
    socket: SimSocket,
    server: SocketAddr,
    token: u16,
    next_pull: Duration,
    /// The uplinks in each datagram that is not acknowledged yet.
    waiting: BTreeMap<u16, UplinkKey>,
    queue: Vec<(Duration, gwmp::Txpk)>,
}

/// An uplink of a device: its index, the number of its session, FCntUp.
pub type UplinkKey = (usize, u32);

/// What happened, as anybody could see it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Uplinks that were transmitted, with the time.
    pub sent: BTreeMap<UplinkKey, Duration>,
    /// Uplinks for which a gateway has a PUSH_ACK.
    pub acked: BTreeSet<UplinkKey>,
    /// Confirmed uplinks whose ACK the device has heard.
    pub confirmed: BTreeSet<UplinkKey>,
    /// What the device heard in the windows of an uplink: FCntDowns, and payloads.
    pub answers: BTreeMap<UplinkKey, (BTreeSet<u32>, Vec<Vec<u8>>)>,
    /// Downlinks on the air: device, FCntDown, bytes.
    pub on_air: Vec<(usize, u32, Vec<u8>)>,
    /// A device has heard two different downlinks under one FCntDown.
    pub reused: Vec<usize>,
    /// Confirmed uplinks, for the share that is answered.
    pub asked: BTreeSet<UplinkKey>,
    /// PUSH_ACKs, and the slowest.
    pub acks: u64,
    pub refused: u64,
}

/// A device on the air.
#[derive(Debug)]
pub struct SimDevice {
    pub eui: Eui64,
    device: VirtualDevice,
    next: Duration,
    every: Duration,
    /// The last uplink: when it ended, and what it listens for.
    last: Option<(Duration, Transmission, UplinkKey)>,
    confirmed: bool,
}

/// The keys of a device by activation by personalisation.
pub fn keys(index: usize) -> (DevAddr, Keys) {
    let byte = u8::try_from(index % 200).unwrap_or_default();
    let keys = Keys { nwk_s_key: AesKey([byte + 1; 16]), app_s_key: AesKey([byte + 2; 16]) };
    (DevAddr(0x0100_0000 + u32::from(byte)), keys)
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
    pub gateways: Vec<SimGateway>,
    pub devices: Vec<SimDevice>,
    pub seen: Seen,
    chance: SmallRng,
    /// No more uplinks from here on.
    pub until: Duration,
}

impl Field {
    pub fn new(
        network: &Network,
        seed: u64,
        (gateways, devices): (usize, usize),
        servers: &[SocketAddr],
        until: Duration,
    ) -> std::io::Result<Self> {
        let mut chance = SmallRng::seed_from_u64(seed);
        let gateway = |index: usize| {
            let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 9, u8::try_from(index + 1).unwrap_or(255)));
            let server = servers.get(index % servers.len().max(1)).copied();
            let server = server.ok_or(std::io::ErrorKind::InvalidInput)?;
            Ok(SimGateway {
                eui: gateway_eui(index),
                socket: network.bind(SocketAddr::new(ip, 0))?,
                server,
                token: 0,
                next_pull: Duration::from_millis(400),
                waiting: BTreeMap::new(),
                queue: Vec::new(),
            })
        };
        let region = Region::by_name("eu868").ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut device = |index: usize| {
            let config = DeviceConfig {
                dev_eui: dev_eui(index),
                join_eui: Eui64(1),
                app_key: AesKey([9; 16]),
                region,
                dev_nonce: 1,
                data_rate: None,
                adr: false,
                seed: chance.random(),
            };
            let (addr, keys) = keys(index);
            SimDevice {
                eui: config.dev_eui,
                device: VirtualDevice::abp(config, addr, keys),
                next: Duration::from_millis(1_200 + chance.random_range(0..1_000)),
                every: Duration::from_millis(chance.random_range(1_100..2_000)),
                last: None,
                confirmed: index.is_multiple_of(2),
            }
        };
        Ok(Self {
            gateways: (0..gateways).map(gateway).collect::<std::io::Result<_>>()?,
            devices: (0..devices).map(&mut device).collect(),
            seen: Seen::default(),
            chance,
            until,
        })
    }

    /// Lets gateways talk to the server, and devices to gateways.
    pub fn tick(&mut self, now: Duration) {
        self.transmit(now);
        let mut air = Vec::new();
        for gateway in &mut self.gateways {
            gateway.pull(now);
            gateway.listen(now, &mut self.seen);
            air.extend(gateway.due(now));
        }
        for (at, txpk) in air {
            self.hear(at, &txpk);
        }
    }

    fn transmit(&mut self, now: Duration) {
        if now >= self.until {
            return;
        }
        for index in 0..self.devices.len() {
            let Some(device) = self.devices.get_mut(index).filter(|device| device.next <= now) else { continue };
            device.next = now + device.every;
            let Some(fcnt) = device.device.session().map(|session| session.fcnt_up) else { continue };
            let uplink =
                Uplink { confirmed: device.confirmed, fport: Some(1), payload: vec![1, 2, 3], commands: Vec::new() };
            let Ok(transmission) = device.device.uplink(&uplink) else { continue };
            let key = (index, fcnt);
            device.last = Some((now, transmission.clone(), key));
            self.seen.sent.insert(key, now);
            if uplink.confirmed {
                self.seen.asked.insert(key);
            }
            for gateway in &mut self.gateways {
                // Most gateways hear most devices.
                if self.chance.random_range(0..10) < 8 {
                    gateway.push(now, &transmission, key, self.chance.random_range(-110..-50));
                }
            }
        }
    }

    /// A downlink on the air: who listens at this moment, on this channel, hears it.
    fn hear(&mut self, at: Duration, txpk: &gwmp::Txpk) {
        for (index, device) in self.devices.iter_mut().enumerate() {
            let Some((sent, transmission, key)) = &device.last else { continue };
            let listens = transmission.windows.iter().any(|window| {
                let opens = *sent + window.delay;
                window.frequency == txpk.freq
                    && window.datr == txpk.datr
                    && opens.abs_diff(at) < Duration::from_millis(2)
            });
            if !listens {
                continue;
            }
            match device.device.receive(&txpk.data) {
                Ok(limpet_bench::Received::Data { ack, fcnt, payload, .. }) => {
                    self.seen.on_air.push((index, fcnt, txpk.data.clone()));
                    let answers = self.seen.answers.entry(*key).or_default();
                    answers.0.insert(fcnt);
                    answers.1.push(payload);
                    if ack {
                        self.seen.confirmed.insert(*key);
                    }
                }
                Err(ReceiveError::CounterReused) => self.seen.reused.push(index),
                _ => {}
            }
        }
    }
}

impl SimGateway {
    /// The concentrator's counter.
    fn counter(now: Duration) -> u32 {
        // It wraps after 71 minutes.
        (now.as_micros() & u128::from(u32::MAX)) as u32
    }

    fn pull(&mut self, now: Duration) {
        if now < self.next_pull {
            return;
        }
        self.next_pull = now + PULL_EVERY;
        self.token = self.token.wrapping_add(1);
        self.socket.send_to(self.server, &gwmp::pull_data(2, self.token, self.eui));
    }

    fn push(&mut self, now: Duration, transmission: &Transmission, key: UplinkKey, rssi: i32) {
        let mut rxpk = Rxpk::new(transmission.frequency, transmission.datr, transmission.phy.clone());
        rxpk.tmst = Some(Self::counter(now));
        rxpk.rssi = Some(rssi);
        self.token = self.token.wrapping_add(1);
        self.waiting.insert(self.token, key);
        let json = gwmp::push_data_json(&[rxpk], None);
        self.socket.send_to(self.server, &gwmp::push_data(2, self.token, self.eui, &json));
    }

    fn listen(&mut self, now: Duration, seen: &mut Seen) {
        while let Some((from, bytes)) = self.socket.take() {
            match gwmp::parse_downstream(&bytes) {
                Ok(Downstream { kind: DownKind::PushAck, token, .. }) => {
                    if let Some(key) = self.waiting.remove(&token) {
                        seen.acked.insert(key);
                        seen.acks += 1;
                    }
                }
                Ok(Downstream { kind: DownKind::PullResp, token, json, .. }) => {
                    let Ok(txpk) = gwmp::parse_pull_resp(json) else { continue };
                    let lead = txpk.tmst.unwrap_or_default().wrapping_sub(Self::counter(now)).cast_signed();
                    let in_time = u64::try_from(lead).ok().map(Duration::from_micros).filter(|lead| *lead >= LEAD);
                    let answer: &[u8] = match in_time {
                        Some(lead) => {
                            self.queue.push((now + lead, txpk));
                            br#"{"txpk_ack":{"error":"NONE"}}"#
                        }
                        None => {
                            seen.refused += 1;
                            br#"{"txpk_ack":{"error":"TOO_LATE"}}"#
                        }
                    };
                    self.socket.send_to(from, &gwmp::tx_ack(2, token, self.eui, answer));
                }
                _ => {}
            }
        }
    }

    /// What goes on the air now.
    fn due(&mut self, now: Duration) -> Vec<(Duration, gwmp::Txpk)> {
        let (due, later) = std::mem::take(&mut self.queue).into_iter().partition(|(at, _)| *at <= now);
        self.queue = later;
        due
    }
}
