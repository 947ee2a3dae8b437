//! What a band's channel plan is made of.

use super::{Channel, CodeRate, Modulation};

/// A band's channel plan.
#[derive(Debug)]
pub(super) struct Plan {
    /// Common name, such as `EU868`.
    pub band: &'static str,
    /// False where RP002 has another plan, and this one is of the regional parameters before it.
    pub is_of_rp002: bool,
    pub data_rates: &'static [DataRate],
    /// Runs of uplink channels, by ascending index.
    pub channels: &'static [ChannelRun],
    /// Bit i: Join-requests come on channel i, and every device knows it.
    pub join_channels: u128,
    /// Ascending.
    pub join_data_rates: &'static [u8],
    /// The first and last frequency (Hz) between which a network adds channels as it likes; none: channels are fixed.
    pub free_range: Option<(u32, u32)>,
    pub rx1_frequency: Rx1Frequency,
    /// By RX1DROffset: how many data rates faster RX1 is. If the network may not send at that one, it is the next slower, else the slowest.
    pub rx1_offsets: &'static [i8],
    /// Frequency (Hz) and data rate.
    pub rx2: (u32, u8),
    /// dBm.
    pub power: i8,
    /// The most that the band allows, dBm.
    pub most_power: i8,
    /// First and last frequency (Hz) that another power (dBm) holds for.
    pub power_exceptions: &'static [((u32, u32), i8)],
    pub channel_list: ChannelList,
    /// What holds under a limit of 400 ms to each transmission; none: the band knows no such limit.
    pub dwell: Option<&'static Dwell>,
}

/// What TxParamSetupReq changes.
#[derive(Debug)]
pub(super) struct Dwell {
    /// Data rate, and M without a repeater; what is not listed cannot be used.
    pub max_mac_payloads: &'static [(u8, u8)],
    /// The code of the band's highest power in TxParamSetupReq.
    pub max_eirp: u8,
    /// The first LoRaWAN 1.0.x whose devices know TxParamSetupReq in this band.
    pub since: u8,
}

/// One data rate of a band's table.
#[derive(Debug)]
pub(super) struct DataRate {
    pub index: u8,
    pub modulation: Modulation,
    /// The data rate that it is answered with in RX1 at offset 0, if the band has it; none: devices do not send with this one.
    pub rx1: Option<u8>,
    /// The network may send with it.
    pub down: bool,
    /// M without a repeater.
    pub max_mac_payload: u8,
}

/// Channels at equal distances.
#[derive(Debug)]
pub(super) struct ChannelRun {
    pub first_index: u8,
    pub count: u8,
    /// Hz.
    pub first: u32,
    /// Hz.
    pub step: u32,
    pub min_dr: u8,
    pub max_dr: u8,
}

/// Where RX1 is.
#[derive(Debug)]
pub(super) enum Rx1Frequency {
    SameAsUplink,
    /// On downlink channel (index of the uplink channel modulo `count`); Hz.
    Modulo {
        first: u32,
        step: u32,
        count: u32,
    },
}

/// How devices are told their channels.
#[derive(Debug)]
pub(super) enum ChannelList {
    /// CFList type 0: the channels beside those that every device knows.
    Frequencies,
    /// CFList type 1, or LinkADRReq; not needed if `all` channels are in use. ChMaskCntl is as in US902-928 where channels from 64 on
    /// are `wide`; else it is the number of a block of 16 channels.
    Mask { all: u128, wide: bool },
}

impl Plan {
    /// Every channel of the plan, by ascending index.
    pub fn channels(&self) -> impl Iterator<Item = Channel> {
        self.channels.iter().flat_map(|run| {
            (0..run.count).map(|n| Channel {
                index: run.first_index + n,
                frequency: run.first + run.step * u32::from(n),
                min_dr: run.min_dr,
                max_dr: run.max_dr,
            })
        })
    }
}

/// Slower by the offset.
pub(super) const SLOWER: &[i8] = &[0, -1, -2, -3, -4, -5];
/// The same; faster at offsets 6 and 7.
pub(super) const SLOWER_OR_FASTER: &[i8] = &[0, -1, -2, -3, -4, -5, 1, 2];

/// A LoRa data rate.
pub(super) const fn lora(spreading_factor: u8, bandwidth_khz: u16) -> Modulation {
    Modulation::Lora { spreading_factor, bandwidth_khz }
}

/// FSK as LoRaWAN has it.
pub(super) const fn fsk_50() -> Modulation {
    Modulation::Fsk { bit_rate: 50_000 }
}

/// An LR-FHSS data rate.
pub(super) const fn lr_fhss(code_rate: CodeRate, bandwidth_khz: u16) -> Modulation {
    Modulation::LrFhss { code_rate, bandwidth_khz }
}

impl DataRate {
    /// Whether devices may send with it.
    pub const fn is_up(&self) -> bool {
        self.rx1.is_some()
    }
    /// For both directions; answered with the same.
    pub const fn both(index: u8, modulation: Modulation, max_mac_payload: u8) -> Self {
        Self { index, modulation, rx1: Some(index), down: true, max_mac_payload }
    }
    /// For devices only.
    pub const fn up(index: u8, modulation: Modulation, max_mac_payload: u8, rx1: u8) -> Self {
        Self { index, modulation, rx1: Some(rx1), down: false, max_mac_payload }
    }
    /// For the network only.
    pub const fn down(index: u8, modulation: Modulation, max_mac_payload: u8) -> Self {
        Self { index, modulation, rx1: None, down: true, max_mac_payload }
    }
}
