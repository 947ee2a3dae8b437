//! RU864-870 (RP002-1.0.4).

use super::{
    eu868,
    plan::{ChannelList, ChannelRun, Plan, Rx1Frequency, SLOWER},
};

/// Those that every device knows; a network adds what it likes.
pub(super) const ALL_CHANNELS: u128 = 0b11;

pub(super) static PLAN: Plan = Plan {
    band: "RU864",
    is_of_rp002: true,
    data_rates: eu868::COMMON_DATA_RATES,
    channels: &[ChannelRun { first_index: 0, count: 2, first: 868_900_000, step: 200_000, min_dr: 0, max_dr: 5 }],
    join_channels: ALL_CHANNELS,
    join_data_rates: &[0, 1, 2, 3, 4, 5],
    free_range: Some((864_000_000, 870_000_000)),
    rx1_frequency: Rx1Frequency::SameAsUplink,
    rx1_offsets: SLOWER,
    rx2: (869_100_000, 0),
    power: 16,
    most_power: 16,
    power_exceptions: &[],
    channel_list: ChannelList::Frequencies,
    dwell: None,
};
