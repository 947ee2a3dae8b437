//! ISM2400, which is Semtech's proposal (TN1300.03) and no part of RP002.

use super::plan::{ChannelList, ChannelRun, DataRate, Plan, Rx1Frequency, SLOWER, lora};

/// Those that every device knows. What a network adds would be told in 200 Hz where LoRaWAN has 100: it adds none here.
pub(super) const ALL_CHANNELS: u128 = 0b111;

pub(super) static PLAN: Plan = Plan {
    band: "ISM2400",
    is_of_rp002: true,
    // Devices take 228 bytes; the proposal lets a network without repeaters send 248.
    data_rates: &[
        DataRate::both(0, lora(12, 812), 59),
        DataRate::both(1, lora(11, 812), 123),
        DataRate::both(2, lora(10, 812), 228),
        DataRate::both(3, lora(9, 812), 228),
        DataRate::both(4, lora(8, 812), 228),
        DataRate::both(5, lora(7, 812), 228),
        DataRate::both(6, lora(6, 812), 228),
        DataRate::both(7, lora(5, 812), 228),
    ],
    channels: &[
        ChannelRun { first_index: 0, count: 2, first: 2_403_000_000, step: 22_000_000, min_dr: 0, max_dr: 7 },
        ChannelRun { first_index: 2, count: 1, first: 2_479_000_000, step: 0, min_dr: 0, max_dr: 7 },
    ],
    join_channels: ALL_CHANNELS,
    join_data_rates: &[0, 1, 2, 3, 4, 5, 6, 7],
    free_range: None,
    rx1_frequency: Rx1Frequency::SameAsUplink,
    rx1_offsets: SLOWER,
    rx2: (2_423_000_000, 0),
    power: 10,
    most_power: 10,
    power_exceptions: &[],
    channel_list: ChannelList::Frequencies,
    dwell: None,
};
