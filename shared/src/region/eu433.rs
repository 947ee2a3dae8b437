//! EU433 (RP002-1.0.4).

use super::{
    eu868,
    plan::{ChannelList, ChannelRun, Plan, Rx1Frequency, SLOWER},
};

/// Those that every device knows; a network adds what it likes.
pub(super) const ALL_CHANNELS: u128 = 0b111;

pub(super) static PLAN: Plan = Plan {
    band: "EU433",
    is_of_rp002: true,
    data_rates: eu868::COMMON_DATA_RATES,
    channels: &[ChannelRun { first_index: 0, count: 3, first: 433_175_000, step: 200_000, min_dr: 0, max_dr: 5 }],
    join_channels: ALL_CHANNELS,
    join_data_rates: &[0, 1, 2, 3, 4, 5],
    free_range: Some((433_175_000, 434_665_000)),
    rx1_frequency: Rx1Frequency::SameAsUplink,
    rx1_offsets: SLOWER,
    rx2: (434_665_000, 0),
    // 12.15 dBm.
    power: 12,
    most_power: 12,
    power_exceptions: &[],
    channel_list: ChannelList::Frequencies,
    dwell: None,
};
