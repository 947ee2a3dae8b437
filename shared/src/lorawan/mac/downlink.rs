//! Commands that the network sends.

use alloc::vec::Vec;

use super::{
    super::{put_u24, u24},
    End, Parsed, cid, read_all, unread,
};

/// A MAC command to a device. `encode` cuts a value to the width of its field; frequencies are sent in steps of 100 Hz,
/// up to 1.67 GHz.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DownlinkCommand {
    /// `margin`: dB above the demodulation floor, 0 to 254, of the best of `gateways` receptions (5.2).
    LinkCheckAns { margin: u8, gateways: u8 },
    /// Several in a row are one request, of which the last one's data rate, power and repetitions hold (5.3).
    LinkAdrReq {
        /// 0 to 15; 15 keeps the current one from 1.0.4 on.
        data_rate: u8,
        /// Steps below the region's maximum; 15 keeps the current one from 1.0.4 on.
        tx_power: u8,
        channel_mask: u16,
        /// What the mask stands for, 0 to 7; the region defines it.
        ch_mask_cntl: u8,
        /// How often each unconfirmed uplink is sent, 1 to 15; 0 keeps it.
        nb_trans: u8,
    },
    /// At most 1/2^`max_duty_cycle` of the time on air, 0 to 15 (5.4).
    DutyCycleReq { max_duty_cycle: u8 },
    /// (5.5)
    RxParamSetupReq { rx1_dr_offset: u8, rx2_data_rate: u8, frequency_hz: u32 },
    /// (5.6)
    DevStatusReq,
    /// Adds or changes a channel; frequency 0 removes it (5.7).
    NewChannelReq { index: u8, frequency_hz: u32, min_data_rate: u8, max_data_rate: u8 },
    /// Seconds until RX1, 0 to 15; both 0 and 1 are one second (5.8).
    RxTimingSetupReq { delay: u8 },
    /// `max_eirp` is the code of the table in 5.9, 0 to 15.
    TxParamSetupReq { downlink_dwell_time: bool, uplink_dwell_time: bool, max_eirp: u8 },
    /// RX1 of uplinks on this channel is on another frequency (5.10).
    DlChannelReq { index: u8, frequency_hz: u32 },
    /// The time at the end of the uplink that asked, from [`super::gps_time`] (5.11).
    DeviceTimeAns {
        gps_seconds: u32,
        /// In 1/256 s.
        fraction: u8,
    },
    /// (12.1)
    PingSlotInfoAns,
    /// Frequency 0: the region's default (12.2).
    PingSlotChannelReq { frequency_hz: u32, data_rate: u8 },
    /// Frequency 0: the region's default (12.4).
    BeaconFreqReq { frequency_hz: u32 },
}

/// Reads the MAC commands of a downlink, as a device does.
pub fn parse_downlink(bytes: &[u8]) -> Parsed<DownlinkCommand> {
    read_all(bytes, take)
}

fn take(bytes: &[u8]) -> Result<(DownlinkCommand, &[u8]), End> {
    use DownlinkCommand as C;
    let hz = |a, b, c| u24([a, b, c]) * 100;
    Ok(match *bytes {
        [cid::LINK_CHECK, margin, gateways, ref rest @ ..] => (C::LinkCheckAns { margin, gateways }, rest),
        [cid::LINK_ADR, rate_power, m0, m1, redundancy, ref rest @ ..] => {
            let command = C::LinkAdrReq {
                data_rate: rate_power >> 4,
                tx_power: rate_power & 0x0f,
                channel_mask: u16::from_le_bytes([m0, m1]),
                ch_mask_cntl: redundancy >> 4 & 0x07,
                nb_trans: redundancy & 0x0f,
            };
            (command, rest)
        }
        [cid::DUTY_CYCLE, cycle, ref rest @ ..] => (C::DutyCycleReq { max_duty_cycle: cycle & 0x0f }, rest),
        [cid::RX_PARAM_SETUP, dl, a, b, c, ref rest @ ..] => {
            let command = C::RxParamSetupReq {
                rx1_dr_offset: dl >> 4 & 0x07,
                rx2_data_rate: dl & 0x0f,
                frequency_hz: hz(a, b, c),
            };
            (command, rest)
        }
        [cid::DEV_STATUS, ref rest @ ..] => (C::DevStatusReq, rest),
        [cid::NEW_CHANNEL, index, a, b, c, range, ref rest @ ..] => {
            let command = C::NewChannelReq {
                index,
                frequency_hz: hz(a, b, c),
                min_data_rate: range & 0x0f,
                max_data_rate: range >> 4,
            };
            (command, rest)
        }
        [cid::RX_TIMING_SETUP, delay, ref rest @ ..] => (C::RxTimingSetupReq { delay: delay & 0x0f }, rest),
        [cid::TX_PARAM_SETUP, p, ref rest @ ..] => {
            let command = C::TxParamSetupReq {
                downlink_dwell_time: p & 0x20 != 0,
                uplink_dwell_time: p & 0x10 != 0,
                max_eirp: p & 0x0f,
            };
            (command, rest)
        }
        [cid::DL_CHANNEL, index, a, b, c, ref rest @ ..] => {
            (C::DlChannelReq { index, frequency_hz: hz(a, b, c) }, rest)
        }
        [cid::DEVICE_TIME, s0, s1, s2, s3, fraction, ref rest @ ..] => {
            (C::DeviceTimeAns { gps_seconds: u32::from_le_bytes([s0, s1, s2, s3]), fraction }, rest)
        }
        [cid::PING_SLOT_INFO, ref rest @ ..] => (C::PingSlotInfoAns, rest),
        [cid::PING_SLOT_CHANNEL, a, b, c, rate, ref rest @ ..] => {
            (C::PingSlotChannelReq { frequency_hz: hz(a, b, c), data_rate: rate & 0x0f }, rest)
        }
        [cid::BEACON_FREQ, a, b, c, ref rest @ ..] => (C::BeaconFreqReq { frequency_hz: hz(a, b, c) }, rest),
        _ => return Err(unread(bytes)),
    })
}

impl DownlinkCommand {
    /// Appends the command as it goes on air.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let dl_settings = |offset: u8, rate: u8| (offset & 0x07) << 4 | rate & 0x0f;
        match *self {
            Self::LinkCheckAns { margin, gateways } => out.extend([cid::LINK_CHECK, margin, gateways]),
            Self::LinkAdrReq { data_rate, tx_power, channel_mask, ch_mask_cntl, nb_trans } => {
                let [m0, m1] = channel_mask.to_le_bytes();
                let redundancy = (ch_mask_cntl & 0x07) << 4 | nb_trans & 0x0f;
                out.extend([cid::LINK_ADR, data_rate << 4 | tx_power & 0x0f, m0, m1, redundancy]);
            }
            Self::DutyCycleReq { max_duty_cycle } => out.extend([cid::DUTY_CYCLE, max_duty_cycle & 0x0f]),
            Self::RxParamSetupReq { rx1_dr_offset, rx2_data_rate, frequency_hz } => {
                out.extend([cid::RX_PARAM_SETUP, dl_settings(rx1_dr_offset, rx2_data_rate)]);
                put_u24(out, frequency_hz / 100);
            }
            Self::DevStatusReq => out.push(cid::DEV_STATUS),
            Self::NewChannelReq { index, frequency_hz, min_data_rate, max_data_rate } => {
                out.extend([cid::NEW_CHANNEL, index]);
                put_u24(out, frequency_hz / 100);
                out.push(max_data_rate << 4 | min_data_rate & 0x0f);
            }
            Self::RxTimingSetupReq { delay } => out.extend([cid::RX_TIMING_SETUP, delay & 0x0f]),
            Self::TxParamSetupReq { downlink_dwell_time, uplink_dwell_time, max_eirp } => {
                let dwell = u8::from(downlink_dwell_time) << 5 | u8::from(uplink_dwell_time) << 4;
                out.extend([cid::TX_PARAM_SETUP, dwell | max_eirp & 0x0f]);
            }
            Self::DlChannelReq { index, frequency_hz } => {
                out.extend([cid::DL_CHANNEL, index]);
                put_u24(out, frequency_hz / 100);
            }
            Self::DeviceTimeAns { gps_seconds, fraction } => {
                out.push(cid::DEVICE_TIME);
                out.extend_from_slice(&gps_seconds.to_le_bytes());
                out.push(fraction);
            }
            Self::PingSlotInfoAns => out.push(cid::PING_SLOT_INFO),
            Self::PingSlotChannelReq { frequency_hz, data_rate } => {
                out.push(cid::PING_SLOT_CHANNEL);
                put_u24(out, frequency_hz / 100);
                out.push(data_rate & 0x0f);
            }
            Self::BeaconFreqReq { frequency_hz } => {
                out.push(cid::BEACON_FREQ);
                put_u24(out, frequency_hz / 100);
            }
        }
    }

    /// How many bytes `encode` appends, the identifier included.
    #[expect(clippy::len_without_is_empty, reason = "no command is empty")]
    pub fn len(&self) -> usize {
        match self {
            Self::DevStatusReq | Self::PingSlotInfoAns => 1,
            Self::DutyCycleReq { .. } | Self::RxTimingSetupReq { .. } | Self::TxParamSetupReq { .. } => 2,
            Self::LinkCheckAns { .. } => 3,
            Self::BeaconFreqReq { .. } => 4,
            Self::LinkAdrReq { .. } | Self::RxParamSetupReq { .. } => 5,
            Self::DlChannelReq { .. } | Self::PingSlotChannelReq { .. } => 5,
            Self::NewChannelReq { .. } | Self::DeviceTimeAns { .. } => 6,
        }
    }
}
