//! Regions as data (RP002-1.0.4, Regional Parameters): frequencies, data rates, receive windows, channel lists.
//!
//! A [`Region`] is one configuration of a band's channel plan, such as `us915_1`: the plan of US902-928, of which
//! channels 8 to 15 and 65 are in use. Another region is another table in a module here, never another branch.

use alloc::vec::Vec;
use core::time::Duration;

use crate::lorawan::mac::DownlinkCommand;

mod as923;
mod au915;
mod cn470;
mod cn779;
mod eu433;
mod eu868;
mod in865;
mod ism2400;
mod kr920;
mod modulation;
mod plan;
mod ru864;
mod us915;

pub use modulation::{CodeRate, Modulation};
use plan::{ChannelList, DataRate, Plan, Rx1Frequency};

/// Every region, in the order that they are shown in.
static REGIONS: [Region; 42] = [
    Region { name: "eu868", plan: &eu868::PLAN, channels: eu868::ALL_CHANNELS },
    Region { name: "eu433", plan: &eu433::PLAN, channels: eu433::ALL_CHANNELS },
    Region { name: "ru864", plan: &ru864::PLAN, channels: ru864::ALL_CHANNELS },
    Region { name: "cn779", plan: &cn779::PLAN, channels: cn779::ALL_CHANNELS },
    Region { name: "as923", plan: &as923::GROUP_1, channels: as923::ALL_CHANNELS },
    Region { name: "as923_2", plan: &as923::GROUP_2, channels: as923::ALL_CHANNELS },
    Region { name: "as923_3", plan: &as923::GROUP_3, channels: as923::ALL_CHANNELS },
    Region { name: "as923_4", plan: &as923::GROUP_4, channels: as923::ALL_CHANNELS },
    Region { name: "in865", plan: &in865::PLAN, channels: in865::ALL_CHANNELS },
    Region { name: "kr920", plan: &kr920::PLAN, channels: kr920::ALL_CHANNELS },
    Region { name: "ism2400", plan: &ism2400::PLAN, channels: ism2400::ALL_CHANNELS },
    Region { name: "us915", plan: &us915::PLAN, channels: us915::ALL_CHANNELS },
    Region { name: "us915_0", plan: &us915::PLAN, channels: us915::sub_band(0) },
    Region { name: "us915_1", plan: &us915::PLAN, channels: us915::sub_band(1) },
    Region { name: "us915_2", plan: &us915::PLAN, channels: us915::sub_band(2) },
    Region { name: "us915_3", plan: &us915::PLAN, channels: us915::sub_band(3) },
    Region { name: "us915_4", plan: &us915::PLAN, channels: us915::sub_band(4) },
    Region { name: "us915_5", plan: &us915::PLAN, channels: us915::sub_band(5) },
    Region { name: "us915_6", plan: &us915::PLAN, channels: us915::sub_band(6) },
    Region { name: "us915_7", plan: &us915::PLAN, channels: us915::sub_band(7) },
    Region { name: "au915", plan: &au915::PLAN, channels: us915::ALL_CHANNELS },
    Region { name: "au915_0", plan: &au915::PLAN, channels: us915::sub_band(0) },
    Region { name: "au915_1", plan: &au915::PLAN, channels: us915::sub_band(1) },
    Region { name: "au915_2", plan: &au915::PLAN, channels: us915::sub_band(2) },
    Region { name: "au915_3", plan: &au915::PLAN, channels: us915::sub_band(3) },
    Region { name: "au915_4", plan: &au915::PLAN, channels: us915::sub_band(4) },
    Region { name: "au915_5", plan: &au915::PLAN, channels: us915::sub_band(5) },
    Region { name: "au915_6", plan: &au915::PLAN, channels: us915::sub_band(6) },
    Region { name: "au915_7", plan: &au915::PLAN, channels: us915::sub_band(7) },
    Region { name: "cn470", plan: &cn470::PLAN, channels: cn470::ALL_CHANNELS },
    Region { name: "cn470_0", plan: &cn470::PLAN, channels: cn470::sub_band(0) },
    Region { name: "cn470_1", plan: &cn470::PLAN, channels: cn470::sub_band(1) },
    Region { name: "cn470_2", plan: &cn470::PLAN, channels: cn470::sub_band(2) },
    Region { name: "cn470_3", plan: &cn470::PLAN, channels: cn470::sub_band(3) },
    Region { name: "cn470_4", plan: &cn470::PLAN, channels: cn470::sub_band(4) },
    Region { name: "cn470_5", plan: &cn470::PLAN, channels: cn470::sub_band(5) },
    Region { name: "cn470_6", plan: &cn470::PLAN, channels: cn470::sub_band(6) },
    Region { name: "cn470_7", plan: &cn470::PLAN, channels: cn470::sub_band(7) },
    Region { name: "cn470_8", plan: &cn470::PLAN, channels: cn470::sub_band(8) },
    Region { name: "cn470_9", plan: &cn470::PLAN, channels: cn470::sub_band(9) },
    Region { name: "cn470_10", plan: &cn470::PLAN, channels: cn470::sub_band(10) },
    Region { name: "cn470_11", plan: &cn470::PLAN, channels: cn470::sub_band(11) },
];

static NAMES: [&str; REGIONS.len()] = {
    let mut names = [""; REGIONS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = REGIONS[at].name;
        at += 1;
    }
    names
};

/// Channels that a CFList of type 0 has room for.
pub const MOST_EXTRA_CHANNELS: usize = 5;

/// What a repeater leaves of a MACPayload: it puts some bytes of its own around it.
const MOST_THROUGH_REPEATER: usize = 230;

/// One configuration of a band, as ChirpStack names them: `eu868`, `as923_2` and so on, `us915_0` to `us915_7`. `us915`, `au915` and `cn470`
/// are all channels of such a band.
#[derive(Debug)]
pub struct Region {
    name: &'static str,
    plan: &'static Plan,
    /// Bit i: channel i of the plan is in use.
    channels: u128,
}

/// An uplink channel as devices have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its number in LinkADRReq and NewChannelReq.
    pub index: u8,
    /// Hz.
    pub frequency: u32,
    pub min_dr: u8,
    pub max_dr: u8,
}

/// Two regions are the same if their names are.
impl PartialEq for Region {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
impl Eq for Region {}

impl Region {
    /// The region of this name; case is ignored.
    pub fn by_name(name: &str) -> Option<&'static Region> {
        REGIONS.iter().find(|region| region.name.eq_ignore_ascii_case(name))
    }

    /// All names that [`Region::by_name`] knows.
    pub fn names() -> &'static [&'static str] {
        &NAMES
    }

    /// Such as `us915_1`; what events carry as `regionConfigId`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The common name of the band, such as `US915`, in the words of ChirpStack's API.
    pub fn band(&self) -> &'static str {
        self.plan.band
    }

    /// Whether its plan is that of RP002, whatever the revision; else it is of the regional parameters before that.
    pub fn is_of_rp002(&self) -> bool {
        self.plan.is_of_rp002
    }

    /// The data rate that an uplink of this modulation has. A plan may use one modulation under two numbers;
    /// this is the one that devices send with.
    pub fn uplink_data_rate(&self, modulation: &Modulation) -> Option<u8> {
        self.plan.data_rates.iter().find(|rate| rate.is_up() && rate.modulation == *modulation).map(|rate| rate.index)
    }

    /// What a data rate of either direction means; none if the band reserves its number.
    pub fn modulation(&self, data_rate: u8) -> Option<Modulation> {
        self.data_rate(data_rate).map(|rate| rate.modulation)
    }

    /// M of the band's table, without a repeater: how many bytes FHDR, FPort and FRMPayload may have together.
    /// 7 bytes of FHDR and the FPort taken off, it is N, the limit of FRMPayload with empty FOpts.
    pub fn max_mac_payload(&self, data_rate: u8) -> Option<usize> {
        self.data_rate(data_rate).map(|rate| usize::from(rate.max_mac_payload))
    }

    /// The same of a downlink, where the network keeps each of them to 400 ms (if the band knows such a limit), or lets them pass
    /// through repeaters. None also where nothing is that short.
    pub fn max_downlink(&self, data_rate: u8, limited: bool, repeater: bool) -> Option<usize> {
        let m = match self.plan.dwell {
            Some(dwell) if limited => dwell.max_mac_payloads.iter().find(|(dr, _)| *dr == data_rate)?.1.into(),
            _ => self.max_mac_payload(data_rate)?,
        };
        Some(if repeater { m.min(MOST_THROUGH_REPEATER) } else { m })
    }

    /// Whether the band knows limits to how long a transmission may be.
    pub fn has_dwell_time(&self) -> bool {
        self.plan.dwell.is_some()
    }

    /// Whether an uplink of this data rate can be as short as such a limit wants it.
    pub fn is_within_dwell_time(&self, data_rate: u8) -> bool {
        self.plan.dwell.is_none_or(|dwell| dwell.max_mac_payloads.iter().any(|(dr, _)| *dr == data_rate))
    }

    /// The code of MaxEIRP in a TxParamSetupReq; none if devices of LoRaWAN 1.0.`patch` do not know that command in this band.
    pub fn tx_param_setup(&self, patch: u8) -> Option<u8> {
        self.plan.dwell.filter(|dwell| patch >= dwell.since).map(|dwell| dwell.max_eirp)
    }

    /// Whether the network may send at this data rate.
    pub fn is_downlink_data_rate(&self, data_rate: u8) -> bool {
        self.data_rate(data_rate).is_some_and(|rate| rate.down)
    }

    /// The data rates that the network may send at, ascending.
    pub fn downlink_data_rates(&self) -> impl Iterator<Item = u8> {
        self.plan.data_rates.iter().filter(|rate| rate.down).map(|rate| rate.index)
    }

    fn data_rate(&self, index: u8) -> Option<&'static DataRate> {
        self.plan.data_rates.iter().find(|rate| rate.index == index)
    }

    /// Whether an uplink on this frequency and data rate can be this region's. Where the network adds channels as it
    /// likes, any frequency of the band can; else only that of a channel in use.
    pub fn accepts(&self, frequency_hz: u32, data_rate: u8) -> bool {
        if !self.data_rate(data_rate).is_some_and(DataRate::is_up) {
            return false;
        }
        match self.plan.free_range {
            Some((low, high)) => (low..=high).contains(&frequency_hz),
            None => self.channels_in(self.channels).any(|channel| {
                channel.frequency == frequency_hz && (channel.min_dr..=channel.max_dr).contains(&data_rate)
            }),
        }
    }

    /// The frequency that was meant: some gateways write it as a 32-bit float (902.299987), which is no channel's. That of the
    /// plan's channel within 10 kHz or a tenth of the width, whichever is less; else the nearest multiple of the 100 Hz in
    /// which LoRaWAN gives frequencies, if the band lets a network choose any.
    pub fn snap(&self, frequency_hz: u32, modulation: &Modulation) -> u32 {
        let reach = (modulation.width_hz() / 10).min(10_000);
        let near = |channel: &Channel| channel.frequency.abs_diff(frequency_hz) <= reach;
        let nearest = self.plan.channels().filter(near).min_by_key(|channel| channel.frequency.abs_diff(frequency_hz));
        match nearest {
            Some(channel) => channel.frequency,
            None if self.plan.free_range.is_some() => frequency_hz.saturating_add(50) / 100 * 100,
            None => frequency_hz,
        }
    }

    /// The channels of the plan that the mask has, in order of their index.
    fn channels_in(&self, mask: u128) -> impl Iterator<Item = Channel> {
        self.plan.channels().filter(move |channel| mask >> channel.index & 1 == 1)
    }

    /// The channels that devices use once they joined, in order of their index.
    pub fn uplink_channels(&self) -> Vec<Channel> {
        self.channels_in(self.channels).collect()
    }

    /// The channels that Join-requests come on, each with the data rates that are allowed for them.
    pub fn join_channels(&self) -> Vec<Channel> {
        let allowed = |channel: &Channel, dr: &&u8| (channel.min_dr..=channel.max_dr).contains(*dr);
        self.channels_in(self.channels & self.plan.join_channels)
            .filter_map(|channel| {
                let rates = || self.plan.join_data_rates.iter().filter(|dr| allowed(&channel, dr));
                Some(Channel { min_dr: *rates().min()?, max_dr: *rates().max()?, ..channel })
            })
            .collect()
    }

    /// The data rates of Join-requests, ascending.
    pub fn join_data_rates(&self) -> &'static [u8] {
        self.plan.join_data_rates
    }

    /// Frequency (Hz) and data rate of RX1 for a device that keeps to a limit to the length of downlinks, that knows none, or of which that
    /// is not known: then there is an RX1 only if it is the same either way. None also if the uplink is on no channel of the band, or if
    /// the band does not define this offset.
    pub fn rx1_of(&self, uplink: (u32, u8), rx1_dr_offset: u8, limited: Option<bool>) -> Option<(u32, u8)> {
        let rx1 = |limited| self.rx1(uplink, rx1_dr_offset, limited);
        match limited {
            Some(limited) => rx1(limited),
            None => rx1(false).filter(|free| rx1(true) == Some(*free)),
        }
    }

    fn rx1(&self, (frequency, data_rate): (u32, u8), rx1_dr_offset: u8, limited: bool) -> Option<(u32, u8)> {
        let frequency = match self.plan.rx1_frequency {
            Rx1Frequency::SameAsUplink => frequency,
            Rx1Frequency::Modulo { first, step, count } => {
                let uplink = self.plan.channels().find(|channel| channel.frequency == frequency)?;
                first + step * (u32::from(uplink.index) % count)
            }
        };
        let faster = *self.plan.rx1_offsets.get(usize::from(rx1_dr_offset))?;
        let wanted = self.data_rate(data_rate)?.rx1?.saturating_add_signed(faster);
        let rates = || self.downlink_data_rates().filter(|dr| !limited || self.is_within_dwell_time(*dr));
        let data_rate = rates().filter(|dr| *dr <= wanted).max().or_else(|| rates().min())?;
        Some((frequency, data_rate))
    }

    /// The band's default frequency (Hz) and data rate of RX2.
    pub fn rx2(&self) -> (u32, u8) {
        self.plan.rx2
    }

    /// Whether a network may have devices listen there (Hz) in RX2: anywhere in the band, in the 100 Hz of LoRaWAN; on its downlink channels
    /// where they are fixed.
    pub fn takes_rx2_frequency(&self, frequency_hz: u32) -> bool {
        let in_range = |(low, high)| (low..=high).contains(&frequency_hz) && frequency_hz.is_multiple_of(100);
        let is_channel = match self.plan.rx1_frequency {
            Rx1Frequency::SameAsUplink => false,
            Rx1Frequency::Modulo { first, step, count } => {
                (0..count).any(|channel| first + step * channel == frequency_hz)
            }
        };
        frequency_hz == self.plan.rx2.0 || is_channel || self.plan.free_range.is_some_and(in_range)
    }

    /// The highest RX1DROffset that the band defines.
    pub fn max_rx1_dr_offset(&self) -> u8 {
        self.plan.rx1_offsets.len().saturating_sub(1) as u8
    }

    /// What a gateway is told to send with, in dBm (`powe` of a txpk).
    pub fn downlink_power(&self, frequency: u32) -> i8 {
        self.power_exception(frequency).unwrap_or(self.plan.power)
    }

    /// The same if the network wants to send with that many dBm: no more than the band allows on this frequency.
    pub fn allowed_power(&self, frequency: u32, wanted: i8) -> i8 {
        wanted.min(self.power_exception(frequency).unwrap_or(self.plan.most_power))
    }

    fn power_exception(&self, frequency: u32) -> Option<i8> {
        let mut exceptions = self.plan.power_exceptions.iter();
        exceptions.find(|(range, _)| (range.0..=range.1).contains(&frequency)).map(|(_, power)| *power)
    }

    /// The most that the band allows on any frequency, dBm.
    pub fn most_power(&self) -> i8 {
        let exceptions = self.plan.power_exceptions.iter().map(|(_, power)| *power);
        exceptions.fold(self.plan.most_power, i8::max)
    }

    /// The CFList of a Join-accept: channels beside the default ones (type 0), or the mask of channels in use
    /// (type 1, which LoRaWAN 1.0.2 and older do not know in a band with fixed channels: see
    /// [`Region::channel_mask_requests`]). None if devices need none.
    pub fn cf_list(&self) -> Option<[u8; 16]> {
        match self.plan.channel_list {
            ChannelList::Frequencies => self.cf_list_of(&self.extra_channels()?),
            ChannelList::Mask { all, .. } => (self.channels != all).then(|| self.mask_list()),
        }
    }

    /// The same (type 0) if the network adds these channels (Hz), at most [`MOST_EXTRA_CHANNELS`]. None if there are none, or if
    /// the band's channels are fixed.
    pub fn cf_list_of(&self, extra: &[u32]) -> Option<[u8; 16]> {
        if extra.is_empty() || !matches!(self.plan.channel_list, ChannelList::Frequencies) {
            return None;
        }
        // In 100 Hz, 0 where there is none.
        let mut list = [0; 16];
        for (bytes, frequency) in list.chunks_exact_mut(3).zip(extra) {
            bytes.copy_from_slice(&(frequency / 100).to_le_bytes()[..3]);
        }
        Some(list)
    }

    /// The channels (Hz) that the network adds to those which every device knows; none if the band's channels are fixed.
    pub fn extra_channels(&self) -> Option<Vec<u32>> {
        let added = self.channels_in(self.channels & !self.plan.join_channels).map(|channel| channel.frequency);
        matches!(self.plan.channel_list, ChannelList::Frequencies).then(|| added.collect())
    }

    /// The channels that devices use once they joined where the network adds these (Hz) to those that every device knows.
    pub fn channels_with(&self, extra: &[u32]) -> Vec<Channel> {
        let mut channels: Vec<_> = self.channels_in(self.channels & self.plan.join_channels).collect();
        if let Some(last) = channels.last().copied() {
            let added = (last.index + 1..).zip(extra);
            channels.extend(added.map(|(index, &frequency)| Channel { index, frequency, ..last }));
        }
        channels
    }

    /// Between which frequencies (Hz) a network may add channels; none if the band's are fixed.
    pub fn extra_channel_range(&self) -> Option<(u32, u32)> {
        self.plan.free_range
    }

    /// Whether MAC commands can tell a frequency of this band: in the three bytes that they have for it, 100 Hz each.
    pub fn tells_frequencies(&self) -> bool {
        self.plan.rx2.0 / 100 < 1 << 24
    }

    /// Whether a network may add a channel there: within the band, in the 100 Hz of LoRaWAN, none that every device knows, and none so
    /// near to one of the plan that what is heard on it is taken for that ([`Region::snap`]).
    pub fn takes_extra_channel(&self, frequency_hz: u32) -> bool {
        let known = |frequency| self.channels_in(self.plan.join_channels).any(|known| known.frequency == frequency);
        let in_range = self.plan.free_range.is_some_and(|(low, high)| (low..=high).contains(&frequency_hz));
        let beside = |channel: Channel| (1..=10_000).contains(&channel.frequency.abs_diff(frequency_hz));
        in_range && frequency_hz.is_multiple_of(100) && !known(frequency_hz) && !self.plan.channels().any(beside)
    }

    /// Type 1: masks of 16 channels each, channel 0 first; the type in the last byte.
    fn mask_list(&self) -> [u8; 16] {
        let mut list = self.channels.to_le_bytes();
        list[15] = 1;
        list
    }

    /// The block of LinkADRReq that tells a device which does not read the CFList (LoRaWAN 1.0.2 and older, ABP) the
    /// channels in use; empty where it needs none. The device takes the data rate of the last of them, so
    /// `data_rate` is the one that it shall go on with; it sends with maximum power and once.
    pub fn channel_mask_requests(&self, data_rate: u8) -> Vec<DownlinkCommand> {
        let ChannelList::Mask { all, wide } = self.plan.channel_list else { return Vec::new() };
        if self.channels == all {
            return Vec::new();
        }
        let request = |(ch_mask_cntl, channel_mask)| DownlinkCommand::LinkAdrReq {
            data_rate,
            tx_power: 0,
            channel_mask,
            ch_mask_cntl,
            nb_trans: 1,
        };
        let block = |number: u8| (number, (self.channels >> (16 * number)) as u16);
        let in_use = |number: &u8| block(*number).1 != 0;
        if wide {
            // ChMaskCntl 7 turns channels 0 to 63 off and sets 64 to 71 by its mask; 0 to 3 then turn some on again.
            let narrow = (0..4).filter(in_use).map(block);
            return core::iter::once((7, block(4).1)).chain(narrow).map(request).collect();
        }
        // What turns channels on comes first: so there is one at each step, for a device that judges the requests one by one.
        let blocks = 0..(u128::BITS - all.leading_zeros()).div_ceil(16) as u8;
        let off = blocks.clone().filter(|number| !in_use(number));
        blocks.filter(in_use).chain(off).map(block).map(request).collect()
    }

    /// How long after the end of a Join-request its RX1 and RX2 open.
    pub fn join_accept_delays() -> (Duration, Duration) {
        (Duration::from_secs(5), Duration::from_secs(6))
    }
}
