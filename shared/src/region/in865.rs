//! IN865-867 (RP002-1.0.4).

use super::plan::{ChannelList, ChannelRun, DataRate, Plan, Rx1Frequency, SLOWER_OR_FASTER, fsk_50, lora};

/// Those that every device knows; a network adds what it likes.
pub(super) const ALL_CHANNELS: u128 = 0b111;

pub(super) static PLAN: Plan = Plan {
    band: "IN865",
    is_of_rp002: true,
    data_rates: &[
        DataRate::both(0, lora(12, 125), 59),
        DataRate::both(1, lora(11, 125), 59),
        DataRate::both(2, lora(10, 125), 59),
        DataRate::both(3, lora(9, 125), 123),
        DataRate::both(4, lora(8, 125), 250),
        DataRate::both(5, lora(7, 125), 250),
        DataRate::both(7, fsk_50(), 250),
    ],
    channels: &[
        ChannelRun { first_index: 0, count: 2, first: 865_062_500, step: 340_000, min_dr: 0, max_dr: 5 },
        ChannelRun { first_index: 2, count: 1, first: 865_985_000, step: 0, min_dr: 0, max_dr: 5 },
    ],
    join_channels: ALL_CHANNELS,
    join_data_rates: &[0, 1, 2, 3, 4, 5],
    free_range: Some((865_000_000, 867_000_000)),
    rx1_frequency: Rx1Frequency::SameAsUplink,
    // There is no DR6: where an offset leads there, the table of the specification has DR5. Some servers send at DR6, where no device listens.
    rx1_offsets: SLOWER_OR_FASTER,
    rx2: (866_550_000, 2),
    // Below the 30 dBm that the band allows: what common gateways reach.
    power: 20,
    most_power: 30,
    power_exceptions: &[],
    channel_list: ChannelList::Frequencies,
    dwell: None,
};
