//! EU863-870 (RP002-1.0.4, 2.4).

use super::{
    CodeRate,
    plan::{ChannelList, ChannelRun, DataRate, Plan, Rx1Frequency, fsk_50, lora, lr_fhss},
};

/// The three that every device knows, and the five that most networks and gateways add.
pub(super) const ALL_CHANNELS: u128 = 0xff;

/// Other bands have the first eight of them, or those six that are LoRa on channels of 125 kHz, and are answered in the same way.
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
    DataRate::up(8, lr_fhss(CodeRate::OneThird, 137), 58),
    DataRate::up(9, lr_fhss(CodeRate::TwoThirds, 137), 123),
    DataRate::up(10, lr_fhss(CodeRate::OneThird, 336), 58),
    DataRate::up(11, lr_fhss(CodeRate::TwoThirds, 336), 123),
];

/// Slower by the offset, and never below DR0.
static RX1: [(u8, &[u8]); 12] = [
    (0, &[0, 0, 0, 0, 0, 0]),
    (1, &[1, 0, 0, 0, 0, 0]),
    (2, &[2, 1, 0, 0, 0, 0]),
    (3, &[3, 2, 1, 0, 0, 0]),
    (4, &[4, 3, 2, 1, 0, 0]),
    (5, &[5, 4, 3, 2, 1, 0]),
    (6, &[6, 5, 4, 3, 2, 1]),
    (7, &[7, 6, 5, 4, 3, 2]),
    (8, &[1, 0, 0, 0, 0, 0]),
    (9, &[2, 1, 0, 0, 0, 0]),
    (10, &[1, 0, 0, 0, 0, 0]),
    (11, &[2, 1, 0, 0, 0, 0]),
];

/// DR0 to DR7, and how they are answered in RX1: of most bands that devices send in on channels of 125 kHz.
pub(super) static COMMON_DATA_RATES: &[DataRate] = DATA_RATES.split_at(SHARED).0;
pub(super) static COMMON_RX1: &[(u8, &[u8])] = RX1.split_at(SHARED).0;
/// DR0 to DR5, and how they are answered.
pub(super) static LORA_125_DATA_RATES: &[DataRate] = DATA_RATES.split_at(LORA_125).0;
pub(super) static LORA_125_RX1: &[(u8, &[u8])] = RX1.split_at(LORA_125).0;

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
    rx1_data_rates: &RX1,
    rx2: (869_525_000, 0),
    // 25 mW e.r.p. (14 dBm) holds in the sub-bands of the uplink channels, 500 mW (27 dBm) in that of RX2.
    power: 14,
    most_power: 14,
    power_exceptions: &[((869_400_000, 869_650_000), 27)],
    channel_list: ChannelList::Frequencies,
    dwell: None,
};
