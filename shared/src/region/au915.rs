//! AU915-928 (RP002-1.0.4). The numbers of its channels are those of US902-928.

use super::{
    CodeRate,
    plan::{ChannelList, ChannelRun, DataRate, Dwell, Plan, Rx1Frequency, SLOWER, lora, lr_fhss},
    us915::ALL_CHANNELS,
};

static LIMITED: Dwell = Dwell {
    max_mac_payloads: &[
        (2, 19),
        (3, 61),
        (4, 133),
        (5, 250),
        (6, 250),
        (7, 58),
        (8, 61),
        (9, 137),
        (10, 250),
        (11, 250),
        (12, 250),
        (13, 250),
    ],
    // 30 dBm.
    max_eirp: 13,
    since: 3,
};

pub(super) static PLAN: Plan = Plan {
    band: "AU915",
    is_of_rp002: true,
    data_rates: &[
        DataRate::up(0, lora(12, 125), 59, 8),
        DataRate::up(1, lora(11, 125), 59, 9),
        DataRate::up(2, lora(10, 125), 59, 10),
        DataRate::up(3, lora(9, 125), 123, 11),
        DataRate::up(4, lora(8, 125), 250, 12),
        DataRate::up(5, lora(7, 125), 250, 13),
        // As if there were a DR14: with DR13 at the first two offsets.
        DataRate::up(6, lora(8, 500), 250, 14),
        DataRate::up(7, lr_fhss(CodeRate::OneThird, 1523), 58, 9),
        DataRate::down(8, lora(12, 500), 61),
        DataRate::down(9, lora(11, 500), 137),
        DataRate::down(10, lora(10, 500), 250),
        DataRate::down(11, lora(9, 500), 250),
        DataRate::down(12, lora(8, 500), 250),
        DataRate::down(13, lora(7, 500), 250),
    ],
    channels: &[
        ChannelRun { first_index: 0, count: 64, first: 915_200_000, step: 200_000, min_dr: 0, max_dr: 5 },
        ChannelRun { first_index: 64, count: 8, first: 915_900_000, step: 1_600_000, min_dr: 6, max_dr: 7 },
    ],
    join_channels: ALL_CHANNELS,
    // A device that has not been told otherwise keeps to 400 ms.
    join_data_rates: &[2, 6],
    free_range: None,
    rx1_frequency: Rx1Frequency::Modulo { first: 923_300_000, step: 600_000, count: 8 },
    rx1_offsets: SLOWER,
    rx2: (923_300_000, 8),
    // Below the 30 dBm that the band allows: what common gateways reach.
    power: 20,
    most_power: 30,
    power_exceptions: &[],
    channel_list: ChannelList::Mask { all: ALL_CHANNELS, wide: true },
    dwell: Some(&LIMITED),
};
