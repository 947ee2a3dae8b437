//! Commands that a device sends.

use alloc::vec::Vec;

use super::{End, Parsed, cid, read_all, unread};

/// A MAC command from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UplinkCommand {
    /// How well am I heard? (5.2)
    LinkCheckReq,
    /// A LinkADRReq is done only if all three are true; otherwise nothing of it is (5.3).
    LinkAdrAns { channel_mask_ack: bool, data_rate_ack: bool, power_ack: bool },
    /// (5.4)
    DutyCycleAns,
    /// An RXParamSetupReq is done only if all three are true (5.5). A device repeats it until a downlink comes.
    RxParamSetupAns { channel_ack: bool, rx2_data_rate_ack: bool, rx1_dr_offset_ack: bool },
    /// `battery`: 0 external power, 1 to 254 its level, 255 not known. `margin`: SNR in dB of the DevStatusReq,
    /// -32 to 31 (5.6).
    DevStatusAns { battery: u8, margin: i8 },
    /// A NewChannelReq is done only if both are true (5.7).
    NewChannelAns { frequency_ack: bool, data_rate_range_ack: bool },
    /// Repeated until a downlink comes (5.8).
    RxTimingSetupAns,
    /// (5.9)
    TxParamSetupAns,
    /// A DlChannelReq is done only if both are true; repeated until a downlink comes (5.10).
    DlChannelAns { frequency_ack: bool, uplink_frequency_exists: bool },
    /// What time is it? (5.11)
    DeviceTimeReq,
    /// One ping slot every 2^`periodicity` seconds, 0 to 7 (12.1).
    PingSlotInfoReq { periodicity: u8 },
    /// (12.2)
    PingSlotChannelAns { frequency_ack: bool, data_rate_ack: bool },
    /// (12.4)
    BeaconFreqAns { frequency_ack: bool },
}

/// Reads the MAC commands of an uplink: FOpts, or the FRMPayload in clear if FPort is 0.
pub fn parse_uplink(bytes: &[u8]) -> Parsed<UplinkCommand> {
    read_all(bytes, take)
}

fn take(bytes: &[u8]) -> Result<(UplinkCommand, &[u8]), End> {
    use UplinkCommand as C;
    let flag = |status: u8, bit: u8| status >> bit & 1 == 1;
    Ok(match *bytes {
        [cid::LINK_CHECK, ref rest @ ..] => (C::LinkCheckReq, rest),
        [cid::LINK_ADR, s, ref rest @ ..] => {
            (C::LinkAdrAns { channel_mask_ack: flag(s, 0), data_rate_ack: flag(s, 1), power_ack: flag(s, 2) }, rest)
        }
        [cid::DUTY_CYCLE, ref rest @ ..] => (C::DutyCycleAns, rest),
        [cid::RX_PARAM_SETUP, s, ref rest @ ..] => {
            let command = C::RxParamSetupAns {
                channel_ack: flag(s, 0),
                rx2_data_rate_ack: flag(s, 1),
                rx1_dr_offset_ack: flag(s, 2),
            };
            (command, rest)
        }
        [cid::DEV_STATUS, battery, margin, ref rest @ ..] => {
            // Six bits, signed: moved to the top of the byte, the arithmetic shift back keeps the sign.
            (C::DevStatusAns { battery, margin: (margin << 2) as i8 >> 2 }, rest)
        }
        [cid::NEW_CHANNEL, s, ref rest @ ..] => {
            (C::NewChannelAns { frequency_ack: flag(s, 0), data_rate_range_ack: flag(s, 1) }, rest)
        }
        [cid::RX_TIMING_SETUP, ref rest @ ..] => (C::RxTimingSetupAns, rest),
        [cid::TX_PARAM_SETUP, ref rest @ ..] => (C::TxParamSetupAns, rest),
        [cid::DL_CHANNEL, s, ref rest @ ..] => {
            (C::DlChannelAns { frequency_ack: flag(s, 0), uplink_frequency_exists: flag(s, 1) }, rest)
        }
        [cid::DEVICE_TIME, ref rest @ ..] => (C::DeviceTimeReq, rest),
        [cid::PING_SLOT_INFO, param, ref rest @ ..] => (C::PingSlotInfoReq { periodicity: param & 0x07 }, rest),
        [cid::PING_SLOT_CHANNEL, s, ref rest @ ..] => {
            (C::PingSlotChannelAns { frequency_ack: flag(s, 0), data_rate_ack: flag(s, 1) }, rest)
        }
        [cid::BEACON_FREQ, s, ref rest @ ..] => (C::BeaconFreqAns { frequency_ack: flag(s, 0) }, rest),
        _ => return Err(unread(bytes)),
    })
}

impl UplinkCommand {
    /// Appends the command as a device sends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let bits = |flags: &[bool]| flags.iter().rev().fold(0, |byte, &set| byte << 1 | u8::from(set));
        match *self {
            Self::LinkCheckReq => out.push(cid::LINK_CHECK),
            Self::LinkAdrAns { channel_mask_ack, data_rate_ack, power_ack } => {
                out.extend([cid::LINK_ADR, bits(&[channel_mask_ack, data_rate_ack, power_ack])]);
            }
            Self::DutyCycleAns => out.push(cid::DUTY_CYCLE),
            Self::RxParamSetupAns { channel_ack, rx2_data_rate_ack, rx1_dr_offset_ack } => {
                out.extend([cid::RX_PARAM_SETUP, bits(&[channel_ack, rx2_data_rate_ack, rx1_dr_offset_ack])]);
            }
            Self::DevStatusAns { battery, margin } => out.extend([cid::DEV_STATUS, battery, margin as u8 & 0x3f]),
            Self::NewChannelAns { frequency_ack, data_rate_range_ack } => {
                out.extend([cid::NEW_CHANNEL, bits(&[frequency_ack, data_rate_range_ack])]);
            }
            Self::RxTimingSetupAns => out.push(cid::RX_TIMING_SETUP),
            Self::TxParamSetupAns => out.push(cid::TX_PARAM_SETUP),
            Self::DlChannelAns { frequency_ack, uplink_frequency_exists } => {
                out.extend([cid::DL_CHANNEL, bits(&[frequency_ack, uplink_frequency_exists])]);
            }
            Self::DeviceTimeReq => out.push(cid::DEVICE_TIME),
            Self::PingSlotInfoReq { periodicity } => out.extend([cid::PING_SLOT_INFO, periodicity & 0x07]),
            Self::PingSlotChannelAns { frequency_ack, data_rate_ack } => {
                out.extend([cid::PING_SLOT_CHANNEL, bits(&[frequency_ack, data_rate_ack])]);
            }
            Self::BeaconFreqAns { frequency_ack } => out.extend([cid::BEACON_FREQ, bits(&[frequency_ack])]),
        }
    }
}
