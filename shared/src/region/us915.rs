//! US902-928 (RP002-1.0.4, 2.5).

use super::{
    CodeRate,
    plan::{ChannelList, ChannelRun, DataRate, Plan, Rx1Frequency, lora, lr_fhss},
};

/// 64 channels of 125 kHz, then 8 of 500 kHz.
pub(super) const ALL_CHANNELS: u128 = (1 << 72) - 1;

/// Sub-band 0 to 7: eight channels of 125 kHz and the one of 500 kHz that spans them.
pub(super) const fn sub_band(number: u32) -> u128 {
    0xff << (8 * number) | 1 << (64 + number)
}

pub(super) static PLAN: Plan = Plan {
    band: "US915",
    is_of_rp002: true,
    data_rates: &[
        DataRate::up(0, lora(10, 125), 19, 10),
        DataRate::up(1, lora(9, 125), 61, 11),
        DataRate::up(2, lora(8, 125), 133, 12),
        DataRate::up(3, lora(7, 125), 250, 13),
        // As if there were a DR14: with DR13 at the first two offsets.
        DataRate::up(4, lora(8, 500), 250, 14),
        DataRate::up(5, lr_fhss(CodeRate::OneThird, 1523), 58, 10),
        DataRate::up(6, lr_fhss(CodeRate::TwoThirds, 1523), 133, 11),
        DataRate::down(8, lora(12, 500), 61),
        DataRate::down(9, lora(11, 500), 137),
        DataRate::down(10, lora(10, 500), 250),
        DataRate::down(11, lora(9, 500), 250),
        DataRate::down(12, lora(8, 500), 250),
        DataRate::down(13, lora(7, 500), 250),
    ],
    channels: &[
        ChannelRun { first_index: 0, count: 64, first: 902_300_000, step: 200_000, min_dr: 0, max_dr: 3 },
        ChannelRun { first_index: 64, count: 8, first: 903_000_000, step: 1_600_000, min_dr: 4, max_dr: 6 },
    ],
    join_channels: ALL_CHANNELS,
    join_data_rates: &[0, 4],
    free_range: None,
    rx1_frequency: Rx1Frequency::Modulo { first: 923_300_000, step: 600_000, count: 8 },
    rx1_offsets: &[0, -1, -2, -3],
    rx2: (923_300_000, 8),
    // Below the 26 dBm that RP002 recommends for downlinks: what common gateways reach.
    power: 20,
    most_power: 30,
    power_exceptions: &[],
    channel_list: ChannelList::Mask { all: ALL_CHANNELS, wide: true },
    dwell: None,
};
