//! A LoRaWAN 1.0.x class A device: bytes out, bytes in. It has no radio and no clock; [`crate::Air`] has.

use std::time::Duration;

use limpet_shared::{
    AesKey, DevAddr, Eui64,
    gwmp::Datr,
    lorawan::{
        DataSpec, Direction, FCtrl, FrameError, JoinAccept, JoinRequest, Keys, MAX_FOPTS, build_data,
        mac::{DownlinkCommand, UplinkCommand},
        session_keys,
    },
    region::Region,
};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

mod mac;
mod receive;

use mac::Channels;
pub use receive::{ReceiveError, Received};

/// What a device is born with.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    pub dev_eui: Eui64,
    pub join_eui: Eui64,
    pub app_key: AesKey,
    pub region: &'static Region,
    /// Of the first JoinRequest; each further one has the next.
    pub dev_nonce: u16,
    /// Of uplinks; `None` for the fastest that all channels of the region allow.
    pub data_rate: Option<u8>,
    /// Lets the network choose its data rate.
    pub adr: bool,
    /// Decides which channels it hops to.
    pub seed: u64,
}

/// A device with its session.
#[derive(Debug)]
pub struct VirtualDevice {
    config: DeviceConfig,
    rng: SmallRng,
    channels: Channels,
    data_rate: u8,
    /// The DevNonce of the JoinRequest that waits for its answer.
    joining: Option<u16>,
    session: Option<Session>,
    /// Answers to MAC commands for the next uplink.
    answers: Vec<UplinkCommand>,
    /// Answers that are repeated until a downlink shows that the network has them (LoRaWAN 1.0.4, 5.5 and 5.8).
    sticky: Vec<UplinkCommand>,
    /// A confirmed downlink waits for its ACK.
    owes_ack: bool,
    last: Option<Transmission>,
}

/// A device's side of a session.
#[derive(Clone, Debug)]
pub struct Session {
    pub dev_addr: DevAddr,
    pub keys: Keys,
    /// FCntUp of the next uplink.
    pub fcnt_up: u32,
    /// Lowest FCntDown that the next downlink may have.
    pub next_fcnt_down: u32,
    pub rx1_delay: Duration,
    pub rx1_dr_offset: u8,
    pub rx2_data_rate: u8,
    /// Hz.
    pub rx2_frequency: u32,
    /// Its transmissions are limited to 400 ms; so they are until the network says otherwise, in bands that know such a limit.
    pub uplink_limited: bool,
    /// Those to it are.
    pub downlink_limited: bool,
    /// The downlink heard last, to tell a repetition from a counter used twice.
    last_down: Option<Vec<u8>>,
}

/// Something for the air.
#[derive(Clone, Debug, PartialEq)]
pub struct Transmission {
    /// Hz.
    pub frequency: u32,
    pub data_rate: u8,
    pub datr: Datr,
    /// PHYPayload.
    pub phy: Vec<u8>,
    /// When and where the device listens afterwards: RX1, RX2.
    pub windows: [RxWindow; 2],
}

/// When and where a device listens.
#[derive(Clone, Copy, Debug)]
struct Windows {
    /// Until RX1.
    delay: Duration,
    rx1_dr_offset: u8,
    /// It knows a limit to downlinks.
    limited: bool,
    rx2_frequency: u32,
    rx2_data_rate: u8,
}

/// A receive window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxWindow {
    /// After the end of the uplink.
    pub delay: Duration,
    /// Hz.
    pub frequency: u32,
    pub datr: Datr,
}

/// What to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uplink {
    pub confirmed: bool,
    pub fport: Option<u8>,
    pub payload: Vec<u8>,
    /// MAC commands besides the answers that the device owes.
    pub commands: Vec<UplinkCommand>,
}

/// Why a device has nothing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("the device has not joined")]
    NotJoined,
    #[error("no channel of the device allows data rate {0}")]
    NoChannel(u8),
    #[error("the region has no receive window for data rate {0}")]
    NoWindow(u8),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl VirtualDevice {
    /// A device that has to join.
    pub fn otaa(config: DeviceConfig) -> Self {
        let channels = Channels::new(config.region);
        let data_rate = config.data_rate.unwrap_or_else(|| channels.fastest());
        let rng = SmallRng::seed_from_u64(config.seed);
        Self {
            config,
            rng,
            channels,
            data_rate,
            joining: None,
            session: None,
            answers: Vec::new(),
            sticky: Vec::new(),
            owes_ack: false,
            last: None,
        }
    }

    /// A device that was activated by hand, with counters at 0 and the region's default windows.
    pub fn abp(config: DeviceConfig, dev_addr: DevAddr, keys: Keys) -> Self {
        let (_, rx2_data_rate) = config.region.rx2();
        let session = Session::new(dev_addr, keys, Duration::from_secs(1), 0, rx2_data_rate, config.region);
        Self { session: Some(session), ..Self::otaa(config) }
    }

    pub fn dev_eui(&self) -> Eui64 {
        self.config.dev_eui
    }
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }
    /// For tests of counters: a device that was used before.
    pub fn session_mut(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }
    /// The data rate of the next uplink.
    pub fn data_rate(&self) -> u8 {
        self.data_rate
    }

    /// A JoinRequest with the next DevNonce.
    pub fn join(&mut self) -> Result<Transmission, DeviceError> {
        let dev_nonce = self.config.dev_nonce;
        self.config.dev_nonce = dev_nonce.wrapping_add(1);
        self.join_with(dev_nonce)
    }

    /// A JoinRequest with this DevNonce.
    pub fn join_with(&mut self, dev_nonce: u16) -> Result<Transmission, DeviceError> {
        let DeviceConfig { dev_eui, join_eui, app_key, region, .. } = self.config.clone();
        self.joining = Some(dev_nonce);
        let channels = region.join_channels();
        let channel = channels.choose(&mut self.rng).ok_or(DeviceError::NoChannel(0))?;
        let (delay, _) = Region::join_accept_delays();
        let (rx2_frequency, rx2_data_rate) = region.rx2();
        let windows = Windows { delay, rx1_dr_offset: 0, limited: false, rx2_frequency, rx2_data_rate };
        let phy = JoinRequest::build(join_eui, dev_eui, dev_nonce, &app_key);
        self.transmission(channel.frequency, channel.max_dr, phy, windows)
    }

    /// A data uplink under the next FCntUp, with all that the device owes: answers to MAC commands, an ACK.
    pub fn uplink(&mut self, uplink: &Uplink) -> Result<Transmission, DeviceError> {
        let session = self.session.as_mut().ok_or(DeviceError::NotJoined)?;
        let data_rate = session.within_limits(self.data_rate, self.config.region);
        let frequency = self.channels.choose(data_rate, &mut self.rng).ok_or(DeviceError::NoChannel(data_rate))?;
        let fopts = fopts(self.sticky.iter().chain(&self.answers).chain(&uplink.commands));
        let phy = build_data(
            &DataSpec {
                direction: Direction::Up,
                confirmed: uplink.confirmed,
                dev_addr: session.dev_addr,
                fctrl: FCtrl { adr: self.config.adr, ack: self.owes_ack, ..FCtrl::default() },
                fcnt: session.fcnt_up,
                fopts: &fopts,
                fport: uplink.fport,
                payload: &uplink.payload,
            },
            &session.keys,
        )?;
        session.fcnt_up = session.fcnt_up.wrapping_add(1);
        self.answers.clear();
        self.owes_ack = false;
        let windows = session.windows();
        self.transmission(frequency, data_rate, phy, windows)
    }

    /// The last transmission once more, unchanged, on the same channel.
    pub fn repeat(&self) -> Option<Transmission> {
        self.last.clone()
    }

    /// The last transmission once more, on another channel (as most stacks repeat a confirmed uplink).
    pub fn repeat_elsewhere(&mut self) -> Option<Transmission> {
        let last = self.last.clone()?;
        let windows = self.session.as_ref()?.windows();
        let frequency = self.channels.choose(last.data_rate, &mut self.rng)?;
        self.transmission(frequency, last.data_rate, last.phy, windows).ok()
    }

    fn transmission(
        &mut self,
        frequency: u32,
        data_rate: u8,
        phy: Vec<u8>,
        Windows { delay, rx1_dr_offset, limited, rx2_frequency, rx2_data_rate }: Windows,
    ) -> Result<Transmission, DeviceError> {
        let region = self.config.region;
        let none = DeviceError::NoWindow(data_rate);
        let datr = |rate| region.modulation(rate).map(Datr::from).ok_or(none);
        let rx1 = region.rx1_of((frequency, data_rate), rx1_dr_offset, Some(limited));
        let (rx1_frequency, rx1_data_rate) = rx1.ok_or(none)?;
        let rx1 = RxWindow { delay, frequency: rx1_frequency, datr: datr(rx1_data_rate)? };
        let second = Duration::from_secs(1);
        let rx2 = RxWindow { delay: delay + second, frequency: rx2_frequency, datr: datr(rx2_data_rate)? };
        let transmission = Transmission { frequency, data_rate, datr: datr(data_rate)?, phy, windows: [rx1, rx2] };
        self.last = Some(transmission.clone());
        Ok(transmission)
    }

    fn joined(&mut self, accept: &JoinAccept, dev_nonce: u16) {
        let keys = session_keys(&self.config.app_key, accept.join_nonce, accept.net_id, dev_nonce);
        let delay = Duration::from_secs(accept.rx_delay.max(1).into());
        let (offset, rx2_data_rate) = (accept.rx1_dr_offset, accept.rx2_data_rate);
        self.session = Some(Session::new(accept.dev_addr, keys, delay, offset, rx2_data_rate, self.config.region));
        self.channels = Channels::new(self.config.region);
        if let Some(list) = &accept.cf_list {
            self.channels.apply_cf_list(list);
        }
        self.answers.clear();
        self.sticky.clear();
        self.owes_ack = false;
    }

    /// For tests: what it was asked it does, and never says so.
    pub fn forget_answers(&mut self) {
        self.answers.clear();
        self.sticky.clear();
    }

    /// A random payload, for whoever has nothing to say.
    pub fn random_payload(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.rng.random()).collect()
    }
}

impl Session {
    fn new(dev_addr: DevAddr, keys: Keys, delay: Duration, offset: u8, rx2_data_rate: u8, region: &Region) -> Self {
        Self {
            dev_addr,
            keys,
            fcnt_up: 0,
            next_fcnt_down: 0,
            rx1_delay: delay,
            rx1_dr_offset: offset,
            rx2_data_rate,
            rx2_frequency: region.rx2().0,
            uplink_limited: region.has_dwell_time(),
            downlink_limited: false,
            last_down: None,
        }
    }

    fn windows(&self) -> Windows {
        Windows {
            delay: self.rx1_delay,
            rx1_dr_offset: self.rx1_dr_offset,
            limited: self.downlink_limited,
            rx2_frequency: self.rx2_frequency,
            rx2_data_rate: self.rx2_data_rate,
        }
    }

    /// This data rate, or the next one at which a frame takes less than 400 ms, if the device keeps to that.
    fn within_limits(&self, data_rate: u8, region: &Region) -> u8 {
        let fits = |dr: &u8| !self.uplink_limited || region.is_within_dwell_time(*dr);
        (data_rate..16).find(fits).unwrap_or(data_rate)
    }
}

/// As many whole commands as FOpts holds.
fn fopts<'a>(commands: impl Iterator<Item = &'a UplinkCommand>) -> Vec<u8> {
    let mut out = Vec::new();
    for command in commands {
        let mut one = Vec::new();
        command.encode(&mut one);
        if out.len() + one.len() <= MAX_FOPTS {
            out.append(&mut one);
        }
    }
    out
}

/// MAC commands as a device reads them.
type Commands = Vec<DownlinkCommand>;
