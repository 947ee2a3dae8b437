//! KR920-923 (RP002-1.0.4).

use super::{
    eu868,
    plan::{ChannelList, ChannelRun, Plan, Rx1Frequency, SLOWER},
};

/// Those that every device knows; a network adds what it likes.
pub(super) const ALL_CHANNELS: u128 = 0b111;

pub(super) static PLAN: Plan = Plan {
    band: "KR920",
    is_of_rp002: true,
    data_rates: eu868::LORA_125_DATA_RATES,
    channels: &[ChannelRun { first_index: 0, count: 3, first: 922_100_000, step: 200_000, min_dr: 0, max_dr: 5 }],
    join_channels: ALL_CHANNELS,
    join_data_rates: &[0, 1, 2, 3, 4, 5],
    free_range: Some((920_900_000, 923_300_000)),
    rx1_frequency: Rx1Frequency::SameAsUplink,
    rx1_offsets: SLOWER,
    rx2: (921_900_000, 0),
    // A gateway may use 23 dBm where devices may use 10 or 14; this is what common ones reach.
    power: 20,
    most_power: 23,
    power_exceptions: &[],
    channel_list: ChannelList::Frequencies,
    dwell: None,
};
