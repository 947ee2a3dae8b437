//! CN470-510 as the regional parameters before RP002 have it (1.0.2 revision B, 1.0.3 revision A): 96 channels up, 48 down. RP002 has other
//! plans for this band, by the gateway's antenna, which have no channel in common with it.

use super::{
    eu868,
    plan::{ChannelList, ChannelRun, Plan, Rx1Frequency, SLOWER},
};

pub(super) const ALL_CHANNELS: u128 = (1 << 96) - 1;

/// Sub-band 0 to 11: eight channels.
pub(super) const fn sub_band(number: u32) -> u128 {
    0xff << (8 * number)
}

pub(super) static PLAN: Plan = Plan {
    band: "CN470",
    is_of_rp002: false,
    data_rates: eu868::LORA_125_DATA_RATES,
    channels: &[ChannelRun { first_index: 0, count: 96, first: 470_300_000, step: 200_000, min_dr: 0, max_dr: 5 }],
    join_channels: ALL_CHANNELS,
    join_data_rates: &[0, 1, 2, 3, 4, 5],
    free_range: None,
    rx1_frequency: Rx1Frequency::Modulo { first: 500_300_000, step: 200_000, count: 48 },
    rx1_offsets: SLOWER,
    rx2: (505_300_000, 0),
    // 19.15 dBm.
    power: 19,
    most_power: 19,
    power_exceptions: &[],
    channel_list: ChannelList::Mask { all: ALL_CHANNELS, wide: false },
    dwell: None,
};
