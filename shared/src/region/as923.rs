//! AS923 (RP002-1.0.4), in four groups that differ in where in the band they are.

use super::plan::{ChannelList, ChannelRun, DataRate, Dwell, Plan, Rx1Frequency, SLOWER_OR_FASTER, fsk_50, lora};

/// Those that every device knows; what else there is a country's law and a network's choice.
pub(super) const ALL_CHANNELS: u128 = 0b11;

static DATA_RATES: [DataRate; 8] = [
    DataRate::both(0, lora(12, 125), 59),
    DataRate::both(1, lora(11, 125), 59),
    DataRate::both(2, lora(10, 125), 123),
    DataRate::both(3, lora(9, 125), 123),
    DataRate::both(4, lora(8, 125), 250),
    DataRate::both(5, lora(7, 125), 250),
    DataRate::both(6, lora(7, 250), 250),
    DataRate::both(7, fsk_50(), 250),
];

/// DR0 and DR1 take longer than 400 ms for anything.
static LIMITED: Dwell = Dwell {
    max_mac_payloads: &[(2, 19), (3, 61), (4, 133), (5, 250), (6, 250), (7, 250)],
    // 16 dBm.
    max_eirp: 5,
    since: 2,
};

const fn defaults(first: u32) -> [ChannelRun; 1] {
    [ChannelRun { first_index: 0, count: 2, first, step: 200_000, min_dr: 0, max_dr: 5 }]
}

static CHANNELS: [[ChannelRun; 1]; 4] =
    [defaults(923_200_000), defaults(921_400_000), defaults(916_600_000), defaults(917_300_000)];

pub(super) static GROUP_1: Plan = group("AS923", &CHANNELS[0], (915_000_000, 928_000_000));
pub(super) static GROUP_2: Plan = group("AS923_2", &CHANNELS[1], (920_000_000, 923_000_000));
pub(super) static GROUP_3: Plan = group("AS923_3", &CHANNELS[2], (915_000_000, 921_000_000));
pub(super) static GROUP_4: Plan = group("AS923_4", &CHANNELS[3], (917_000_000, 920_000_000));

const fn group(band: &'static str, channels: &'static [ChannelRun; 1], range: (u32, u32)) -> Plan {
    Plan {
        band,
        is_of_rp002: true,
        data_rates: &DATA_RATES,
        channels,
        join_channels: ALL_CHANNELS,
        // A device that has not been told otherwise keeps to 400 ms.
        join_data_rates: &[2, 3, 4, 5],
        free_range: Some(range),
        rx1_frequency: Rx1Frequency::SameAsUplink,
        rx1_offsets: SLOWER_OR_FASTER,
        rx2: (channels[0].first, 2),
        power: 16,
        most_power: 16,
        power_exceptions: &[],
        channel_list: ChannelList::Frequencies,
        dwell: Some(&LIMITED),
    }
}
