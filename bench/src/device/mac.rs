//! A device's channels, and how it obeys MAC commands.

use std::time::Duration;

use limpet_shared::{
    lorawan::mac::{DownlinkCommand, UplinkCommand},
    region::{Channel, Region},
};
use rand::{rngs::SmallRng, seq::IndexedRandom};

use super::Session;

/// Channels of the band (CN470) that has no wide ones, so that its masks are of 16 channels each.
const BLOCKS_ONLY: usize = 96;

/// The channels that a device knows, and which of them it uses.
#[derive(Clone, Debug)]
pub(super) struct Channels {
    known: Vec<Channel>,
    /// Bit i: the channel of index i is in use.
    enabled: u128,
}

/// What MAC commands led to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) data_rate: u8,
    pub(super) answers: Vec<UplinkCommand>,
    pub(super) sticky: Vec<UplinkCommand>,
}

impl Channels {
    /// Where channels are fixed, all of the band are known and those of the region's sub-band in use, as its owner set
    /// the device up. Elsewhere the band's default channels, until the network adds others.
    pub(super) fn new(region: &'static Region) -> Self {
        let band = Region::by_name(region.band()).unwrap_or(region);
        let all = band.uplink_channels();
        let fixed = all.len() > 16;
        let mask = |channels: &[Channel]| channels.iter().fold(0, |mask, c| mask | 1 << c.index);
        if fixed {
            return Self { enabled: mask(&region.uplink_channels()), known: all };
        }
        let default = mask(&band.join_channels());
        let known = all.into_iter().filter(|c| default >> c.index & 1 == 1).collect();
        Self { known, enabled: default }
    }

    fn is_fixed(&self) -> bool {
        self.known.len() > 16
    }

    fn in_use(&self, data_rate: u8) -> Vec<Channel> {
        let mine = |c: &&Channel| self.enabled >> c.index & 1 == 1 && (c.min_dr..=c.max_dr).contains(&data_rate);
        self.known.iter().filter(mine).copied().collect()
    }

    /// The highest data rate of the channel with the lowest index, which all of its kind have.
    pub(super) fn fastest(&self) -> u8 {
        self.known.iter().find(|c| self.enabled >> c.index & 1 == 1).map_or(0, |c| c.max_dr)
    }

    /// The frequency of any channel in use that allows the data rate, Hz.
    pub(super) fn choose(&self, data_rate: u8, rng: &mut SmallRng) -> Option<u32> {
        self.in_use(data_rate).choose(rng).map(|c| c.frequency)
    }

    /// Takes the CFList of a JoinAccept: five frequencies, or masks of 16 channels each (type 1).
    pub(super) fn apply_cf_list(&mut self, list: &[u8; 16]) {
        if self.is_fixed() {
            if list[15] == 1 {
                let mut masks = *list;
                masks[15] = 0;
                self.enabled = u128::from_le_bytes(masks);
            }
            return;
        }
        // They come after those that every device of the band knows.
        let first = self.known.len() as u8;
        for (index, bytes) in (first..).zip(list.chunks_exact(3)) {
            if let &[a, b, c] = bytes {
                self.add(index, u32::from_le_bytes([a, b, c, 0]) * 100, 0, 5);
            }
        }
    }

    fn add(&mut self, index: u8, frequency: u32, min_dr: u8, max_dr: u8) {
        if index >= 16 {
            return;
        }
        self.known.retain(|c| c.index != index);
        self.enabled &= !(1 << index);
        if frequency != 0 {
            self.known.push(Channel { index, frequency, min_dr, max_dr });
            self.enabled |= 1 << index;
        }
    }

    /// The mask after one LinkADRReq of a block; `None` for a ChMaskCntl that the band does not define.
    fn masked(&self, enabled: u128, mask: u16, cntl: u8) -> Option<u128> {
        let mask = u128::from(mask);
        let block = |number: u8| enabled & !(0xffff << (16 * number)) | mask << (16 * number);
        let wide = enabled & !(0xff << 64) | (mask & 0xff) << 64;
        let narrow: u128 = u64::MAX.into();
        if self.known.len() == BLOCKS_ONLY {
            return match cntl {
                0..=5 => Some(block(cntl)),
                6 => Some((1 << BLOCKS_ONLY) - 1),
                _ => None,
            };
        }
        match (self.is_fixed(), cntl) {
            (true, 0..=3) => Some(block(cntl)),
            (true, 4) => Some(wide),
            (true, 6) => Some(wide | narrow),
            (true, 7) => Some(wide & !narrow),
            (false, 0) => Some(block(0)),
            (false, 6) => Some(self.known.iter().fold(0, |mask, c| mask | 1 << c.index)),
            _ => None,
        }
    }

    /// Obeys the commands of one downlink and says what to answer.
    pub(super) fn obey(
        &mut self,
        commands: &[DownlinkCommand],
        data_rate: u8,
        region: &Region,
        session: Option<&mut Session>,
    ) -> Outcome {
        let mut outcome = Outcome { data_rate, answers: Vec::new(), sticky: Vec::new() };
        self.obey_link_adr(commands, &mut outcome);
        let Some(session) = session else { return outcome };
        for command in commands {
            use DownlinkCommand as C;
            match *command {
                C::DutyCycleReq { .. } => outcome.answers.push(UplinkCommand::DutyCycleAns),
                C::DevStatusReq => outcome.answers.push(UplinkCommand::DevStatusAns { battery: 200, margin: 10 }),
                // Elsewhere the command is unknown, and not answered.
                C::TxParamSetupReq { downlink_dwell_time, uplink_dwell_time, .. } if region.has_dwell_time() => {
                    (session.downlink_limited, session.uplink_limited) = (downlink_dwell_time, uplink_dwell_time);
                    outcome.sticky.push(UplinkCommand::TxParamSetupAns);
                }
                C::RxParamSetupReq { rx1_dr_offset, rx2_data_rate, frequency_hz } => {
                    let offset_ok = rx1_dr_offset <= region.max_rx1_dr_offset();
                    let rate_ok = region.is_downlink_data_rate(rx2_data_rate);
                    if offset_ok && rate_ok {
                        session.rx1_dr_offset = rx1_dr_offset;
                        session.rx2_data_rate = rx2_data_rate;
                        session.rx2_frequency = frequency_hz;
                    }
                    outcome.sticky.push(UplinkCommand::RxParamSetupAns {
                        channel_ack: true,
                        rx2_data_rate_ack: rate_ok,
                        rx1_dr_offset_ack: offset_ok,
                    });
                }
                C::RxTimingSetupReq { delay } => {
                    session.rx1_delay = Duration::from_secs(delay.max(1).into());
                    outcome.sticky.push(UplinkCommand::RxTimingSetupAns);
                }
                C::NewChannelReq { index, frequency_hz, min_data_rate, max_data_rate } if !self.is_fixed() => {
                    self.add(index, frequency_hz, min_data_rate, max_data_rate);
                    let answer = UplinkCommand::NewChannelAns { frequency_ack: true, data_rate_range_ack: true };
                    outcome.answers.push(answer);
                }
                _ => {}
            }
        }
        outcome
    }

    /// LinkADRReqs in a row are one request: all or nothing of it is done, and each is answered.
    fn obey_link_adr(&mut self, commands: &[DownlinkCommand], outcome: &mut Outcome) {
        let mut enabled = Some(self.enabled);
        let mut wanted = outcome.data_rate;
        let mut requests = 0;
        for command in commands {
            if let DownlinkCommand::LinkAdrReq { data_rate, channel_mask, ch_mask_cntl, .. } = *command {
                enabled = enabled.and_then(|mask| self.masked(mask, channel_mask, ch_mask_cntl));
                wanted = if data_rate == 15 { outcome.data_rate } else { data_rate };
                requests += 1;
            }
        }
        if requests == 0 {
            return;
        }
        let proposed = enabled.map(|enabled| Self { enabled, known: self.known.clone() });
        let channel_mask_ack = proposed.as_ref().is_some_and(|p| p.known.iter().any(|c| p.enabled >> c.index & 1 == 1));
        let data_rate_ack = proposed.as_ref().is_some_and(|p| !p.in_use(wanted).is_empty());
        if let Some(proposed) = proposed.filter(|_| channel_mask_ack && data_rate_ack) {
            *self = proposed;
            outcome.data_rate = wanted;
        }
        let answer = UplinkCommand::LinkAdrAns { channel_mask_ack, data_rate_ack, power_ack: true };
        outcome.answers.extend(std::iter::repeat_n(answer, requests));
    }
}
