//! EU863-870 (RP002-1.0.4, 2.4).

use super::{
    CodeRate,
    plan::{ChannelList, ChannelRun, DataRate, Plan, Rx1Frequency, SLOWER, fsk_50, lora, lr_fhss},
};

/// The three that every device knows, and the five that most networks and gateways add.
pub(super) const ALL_CHANNELS: u128 = 0xff;

/// Other bands have the first eight of them, or those six that are LoRa on channels of 125 kHz.
const SHARED: usize = 8;
const LORA_125: usize = 6;

static DATA_RATES: [DataRate; 12] = [
    DataRate::both(0, lora(12, 125), 59),
    DataRate::both(1, lora(11, 125), 59),
    DataRate::both(2, lora(10, 125), 59),
    DataRate::both(3, lora(9, 125), 123),
    DataRate::both(4, lora(8, 125), 250),
    DataRate::both(5, lora(7, 125), 250),
    DataRate::both(6, lora(7, 250), 250),
    DataRate::both(7, fsk_50(), 250),
    // LR-FHSS is answered with LoRa.
    DataRate::up(8, lr_fhss(CodeRate::OneThird, 137), 58, 1),
    DataRate::up(9, lr_fhss(CodeRate::TwoThirds, 137), 123, 2),
    DataRate::up(10, lr_fhss(CodeRate::OneThird, 336), 58, 1),
    DataRate::up(11, lr_fhss(CodeRate::TwoThirds, 336), 123, 2),
];

/// DR0 to DR7: of most bands that devices send in on channels of 125 kHz.
pub(super) static COMMON_DATA_RATES: &[DataRate] = DATA_RATES.split_at(SHARED).0;
/// DR0 to DR5.
pub(super) static LORA_125_DATA_RATES: &[DataRate] = DATA_RATES.split_at(LORA_125).0;

pub(super) static PLAN: Plan = Plan {
    band: "EU868",
    is_of_rp002: true,
    data_rates: &DATA_RATES,
    channels: &[
        ChannelRun { first_index: 0, count: 3, first: 868_100_000, step: 200_000, min_dr: 0, max_dr: 5 },
        ChannelRun { first_index: 3, count: 5, first: 867_100_000, step: 200_000, min_dr: 0, max_dr: 5 },
    ],
    join_channels: 0b111,
    join_data_rates: &[0, 1, 2, 3, 4, 5],
    free_range: Some((863_000_000, 870_000_000)),
    rx1_frequency: Rx1Frequency::SameAsUplink,
    rx1_offsets: SLOWER,
    rx2: (869_525_000, 0),
    // 25 mW e.r.p. (14 dBm) holds in the sub-bands of the uplink channels, 500 mW (27 dBm) in that of RX2.
    power: 14,
    most_power: 14,
    power_exceptions: &[((869_400_000, 869_650_000), 27)],
    channel_list: ChannelList::Frequencies,
    dwell: None,
};
