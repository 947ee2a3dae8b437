//! Regions as devices and gateways meet them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use limpet_shared::{
    gwmp::Datr,
    lorawan::mac::DownlinkCommand,
    region::{Channel, CodeRate, Modulation, Region},
};
use proptest::prelude::*;

#[path = "lorawan_regions/further.rs"]
mod further;
#[path = "lorawan_regions/rx1.rs"]
mod rx1;

fn region(name: &str) -> &'static Region {
    Region::by_name(name).unwrap()
}

fn lora(spreading_factor: u8, bandwidth_khz: u16) -> Modulation {
    Modulation::Lora { spreading_factor, bandwidth_khz }
}

#[test]
fn a_frequency_written_as_a_32_bit_float_is_its_channels() {
    let (us, eu) = (region("us915"), region("eu868"));
    for (written, meant) in [(902_299_987, 902_300_000), (903_000_000, 903_000_000), (902_310_001, 902_310_001)] {
        assert_eq!(us.snap(written, &lora(7, 125)), meant);
    }
    assert_eq!(us.snap(914_199_999, &lora(8, 500)), 914_200_000);
    for (written, meant) in [(868_099_976, 868_100_000), (868_109_999, 868_100_000), (868_849_976, 868_850_000)] {
        assert_eq!(
            eu.snap(written, &lora(7, 125)),
            meant,
            "of 868.85 the network knows nothing, but it is in the band"
        );
    }
}

#[test]
fn regions_have_the_names_of_chirpstack() {
    let alone =
        ["eu868", "eu433", "ru864", "cn779", "as923", "as923_2", "as923_3", "as923_4", "in865", "kr920", "ism2400"];
    let parts = |band: &'static str, count| {
        let parts = (0..count).map(move |number| format!("{band}_{number}"));
        core::iter::once(band.to_owned()).chain(parts)
    };
    let expected = alone.map(str::to_owned).into_iter();
    let expected = expected.chain(parts("us915", 8)).chain(parts("au915", 8)).chain(parts("cn470", 12));
    assert_eq!(Region::names(), expected.collect::<Vec<_>>());
    for name in Region::names() {
        assert_eq!(region(name).name(), *name);
        assert_eq!(region(&name.to_uppercase()), region(name));
        let band = if alone.contains(name) { name } else { name.split('_').next().unwrap() };
        assert_eq!(region(name).band(), band.to_uppercase());
    }
    for unknown in ["", "eu", "eu868_0", "us915_8", "us915_01", "au915_8", "cn470_12", "as923_1", "as923_5"] {
        assert_eq!(Region::by_name(unknown), None, "{unknown}");
    }
}

#[test]
fn modulations_are_written_as_gwmp_has_them() {
    assert_eq!(lora(7, 125).to_string(), "SF7BW125");
    assert_eq!(Modulation::Fsk { bit_rate: 50_000 }.to_string(), "50000");
    let lr_fhss = Modulation::LrFhss { code_rate: CodeRate::TwoThirds, bandwidth_khz: 137 };
    assert_eq!(lr_fhss.to_string(), "M0CW137");
    assert_eq!(CodeRate::TwoThirds.to_string(), "2/3");
    let datr = Datr::LrFhss { channel_width_khz: 137 };
    for codr in ["2/3", "4/6"] {
        assert_eq!(Modulation::from_gwmp(&datr, Some(codr)), Some(lr_fhss));
    }
    assert_eq!(Modulation::from_gwmp(&datr, None), None);
    assert_eq!(Modulation::from_gwmp(&datr, Some("4/5")), None);
    let datr = Datr::Lora { spreading_factor: 12, bandwidth_khz: 500 };
    assert_eq!(Modulation::from_gwmp(&datr, Some("4/5")), Some(lora(12, 500)));
    assert_eq!(Modulation::from_gwmp(&datr, None).unwrap().to_gwmp(), datr);
}

/// Data rate, `datr` as text, M (RP002-1.0.4, tables of 2.4.6 and 2.5.6 without a repeater).
type Row = (u8, &'static str, usize);

/// DR0 to DR5 of most bands.
const LORA_125: [Row; 6] = [
    (0, "SF12BW125", 59),
    (1, "SF11BW125", 59),
    (2, "SF10BW125", 59),
    (3, "SF9BW125", 123),
    (4, "SF8BW125", 250),
    (5, "SF7BW125", 250),
];

/// What US902-928 and AU915-928 send down with.
const DOWN_500: [Row; 6] = [
    (8, "SF12BW500", 61),
    (9, "SF11BW500", 137),
    (10, "SF10BW500", 250),
    (11, "SF9BW500", 250),
    (12, "SF8BW500", 250),
    (13, "SF7BW500", 250),
];

fn table(name: &str) -> Vec<(u8, String, usize)> {
    let region = region(name);
    (0..16).filter_map(|dr| Some((dr, region.modulation(dr)?.to_string(), region.max_mac_payload(dr)?))).collect()
}

fn rows(parts: &[&[Row]]) -> Vec<(u8, String, usize)> {
    parts.concat().into_iter().map(|(dr, datr, m)| (dr, datr.into(), m)).collect()
}

/// RX1 of a device that keeps to no limit.
fn rx1(region: &Region, frequency: u32, data_rate: u8, offset: u8) -> Option<(u32, u8)> {
    region.rx1_of((frequency, data_rate), offset, Some(false))
}

#[test]
fn data_rates_of_eu868() {
    let further = [
        (6, "SF7BW250", 250),
        (7, "50000", 250),
        (8, "M0CW137", 58),
        (9, "M0CW137", 123),
        (10, "M0CW336", 58),
        (11, "M0CW336", 123),
    ];
    assert_eq!(table("eu868"), rows(&[&LORA_125, &further]));
    let eu868 = region("eu868");
    // Every data rate is used upwards, so each modulation finds its own number again.
    for dr in 0..12 {
        assert_eq!(eu868.uplink_data_rate(&eu868.modulation(dr).unwrap()), Some(dr));
        assert_eq!(eu868.is_downlink_data_rate(dr), dr < 8);
    }
    assert_eq!(eu868.uplink_data_rate(&lora(12, 500)), None);
    assert_eq!(eu868.uplink_data_rate(&Modulation::Fsk { bit_rate: 49_999 }), None);
}

/// Value by value after RP002-1.0.4; ChirpStack's tables of these bands say the same.
#[test]
fn bands_with_the_data_rates_of_eu868_up_to_dr7() {
    let same = table("eu868")[..8].to_vec();
    for (name, band, known, rx2, range, power) in [
        ("ru864", "RU864", &[868_900_000, 869_100_000][..], 869_100_000, (864_000_000, 870_000_000), 16),
        ("eu433", "EU433", &[433_175_000, 433_375_000, 433_575_000], 434_665_000, (433_175_000, 434_665_000), 12),
        ("cn779", "CN779", &[779_500_000, 779_700_000, 779_900_000], 786_000_000, (779_500_000, 786_500_000), 12),
    ] {
        let region = region(name);
        assert_eq!((region.band(), table(name)), (band, same.clone()));
        for channels in [region.uplink_channels(), region.join_channels()] {
            let frequencies: Vec<_> = channels.iter().map(|channel| channel.frequency).collect();
            assert_eq!(frequencies, known, "{name}");
            assert!(
                channels.iter().zip(0..).all(|(c, index)| (c.index, c.min_dr, c.max_dr) == (index, 0, 5)),
                "{name}"
            );
        }
        assert_eq!((region.join_data_rates(), region.rx2()), (&[0, 1, 2, 3, 4, 5][..], (rx2, 0)), "{name}");
        for dr in 0..8 {
            assert_eq!(region.uplink_data_rate(&region.modulation(dr).unwrap()), Some(dr), "{name}");
            assert!(region.is_downlink_data_rate(dr) && region.accepts(known[0], dr), "{name}");
        }
        let (low, high) = range;
        let accepted = [low - 1, low, high, high + 1].map(|frequency| region.accepts(frequency, 0));
        assert_eq!(accepted, [false, true, true, false], "{name}");
        assert_eq!(
            (region.downlink_power(known[0]), region.downlink_power(rx2), region.most_power()),
            (power, power, power)
        );
        // Nothing is told that every device knows; what the network adds is.
        assert_eq!((region.cf_list(), region.extra_channels()), (None, Some(Vec::new())), "{name}");
        let added = u32::from_le_bytes([0, 1, 2, 3].map(|at| region.cf_list_of(&[low + 1_000_000]).unwrap()[at]));
        assert_eq!(added, (low + 1_000_000) / 100, "{name}");
        assert_eq!(region.channel_mask_requests(0), [], "{name}");
    }
}

#[test]
fn data_rates_of_us915() {
    let up = [
        (0, "SF10BW125", 19),
        (1, "SF9BW125", 61),
        (2, "SF8BW125", 133),
        (3, "SF7BW125", 250),
        (4, "SF8BW500", 250),
        (5, "M0CW1523", 58),
        (6, "M0CW1523", 133),
    ];
    assert_eq!(table("us915"), rows(&[&up, &DOWN_500]));
    let us915 = region("us915_1");
    for dr in 0..7 {
        assert_eq!(us915.uplink_data_rate(&us915.modulation(dr).unwrap()), Some(dr));
        assert!(!us915.is_downlink_data_rate(dr));
    }
    assert!((8..14).all(|dr| us915.is_downlink_data_rate(dr)));
    // SF8BW500 is DR12 too, but a device that sends it means DR4; SF12BW500 no device sends.
    assert_eq!(us915.uplink_data_rate(&lora(8, 500)), Some(4));
    assert_eq!(us915.uplink_data_rate(&lora(12, 500)), None);
    assert_eq!(us915.uplink_data_rate(&lora(12, 125)), None);
}

#[test]
fn eu868_takes_any_channel_of_its_band() {
    let eu868 = region("eu868");
    for frequency in [863_000_000, 867_100_000, 868_100_000, 868_525_000, 870_000_000] {
        assert!((0..12).all(|dr| eu868.accepts(frequency, dr)), "{frequency}");
        assert!(!eu868.accepts(frequency, 12));
    }
    assert!(!eu868.accepts(862_999_999, 0));
    assert!(!eu868.accepts(870_000_001, 0));
    assert!(!eu868.accepts(902_300_000, 0));
}

#[test]
fn us915_takes_the_channels_of_its_sub_band() {
    let all = region("us915");
    assert!(all.accepts(902_300_000, 0) && all.accepts(914_900_000, 3) && all.accepts(914_200_000, 4));
    assert!(!all.accepts(902_400_000, 0), "between channels");
    assert!(!all.accepts(915_100_000, 0), "behind the last");
    assert!(!all.accepts(902_300_000, 4) && !all.accepts(903_000_000, 3), "data rate of the other width");
    assert!(all.accepts(903_000_000, 5) && all.accepts(903_000_000, 6) && !all.accepts(903_000_000, 7));
    assert!(!all.accepts(923_300_000, 8), "a downlink");
    assert!(!all.accepts(868_100_000, 0));

    let second = region("us915_1");
    assert!(second.accepts(903_900_000, 0) && second.accepts(905_300_000, 3) && second.accepts(904_600_000, 4));
    assert!(!second.accepts(903_700_000, 0) && !second.accepts(905_500_000, 0) && !second.accepts(903_000_000, 4));
    for channel in all.uplink_channels() {
        let takers = Region::names().iter().filter(|name| name.starts_with("us915_"));
        let takers: Vec<&&str> = takers.filter(|n| region(n).accepts(channel.frequency, channel.min_dr)).collect();
        assert_eq!(takers.len(), 1, "{channel:?}");
    }
}

#[test]
fn channels_of_eu868() {
    let channels = region("eu868").uplink_channels();
    let frequencies: Vec<u32> = channels.iter().map(|channel| channel.frequency / 100_000).collect();
    assert_eq!(frequencies, [8681, 8683, 8685, 8671, 8673, 8675, 8677, 8679]);
    assert!(channels.iter().enumerate().all(|(at, channel)| usize::from(channel.index) == at));
    assert!(channels.iter().all(|channel| (channel.min_dr, channel.max_dr) == (0, 5)));
    assert_eq!(region("eu868").join_channels(), channels[..3]);
    assert_eq!(region("eu868").join_data_rates(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn channels_of_us915() {
    let channels = region("us915_1").uplink_channels();
    assert_eq!(channels[0], Channel { index: 8, frequency: 903_900_000, min_dr: 0, max_dr: 3 });
    assert_eq!(channels[7], Channel { index: 15, frequency: 905_300_000, min_dr: 0, max_dr: 3 });
    assert_eq!(channels[8], Channel { index: 65, frequency: 904_600_000, min_dr: 4, max_dr: 6 });
    assert_eq!(channels.len(), 9);
    assert_eq!(region("us915").uplink_channels().len(), 72);
    let joins = region("us915_1").join_channels();
    assert!(joins[..8].iter().all(|channel| (channel.min_dr, channel.max_dr) == (0, 0)));
    assert_eq!(joins[8], Channel { index: 65, frequency: 904_600_000, min_dr: 4, max_dr: 4 });
    assert_eq!(region("us915_1").join_data_rates(), [0, 4]);
}

#[test]
fn rx2_and_join_delays() {
    assert_eq!(region("eu868").rx2(), (869_525_000, 0));
    assert_eq!(region("us915_1").rx2(), (923_300_000, 8));
    assert_eq!(Region::join_accept_delays(), (Duration::from_secs(5), Duration::from_secs(6)));
}

#[test]
fn downlinks_are_as_loud_as_their_band_allows() {
    let eu868 = region("eu868");
    assert_eq!(eu868.downlink_power(868_100_000), 14);
    assert_eq!(eu868.downlink_power(869_525_000), 27);
    assert_eq!((eu868.downlink_power(869_399_999), eu868.downlink_power(869_650_001)), (14, 14));
    assert_eq!(region("us915_1").downlink_power(923_300_000), 20);
    let allowed = |name, frequency| [-1, 10, 20, 99].map(|wanted| region(name).allowed_power(frequency, wanted));
    assert_eq!((allowed("eu868", 868_100_000), allowed("eu868", 869_525_000)), ([-1, 10, 14, 14], [-1, 10, 20, 27]));
    assert_eq!(allowed("us915_1", 923_300_000), [-1, 10, 20, 30]);
    assert_eq!((eu868.most_power(), region("us915").most_power()), (27, 30));
}

#[test]
fn cf_lists() {
    let list = |name| region(name).cf_list().map(hex::encode);
    let of = |name, extra: &[u32]| region(name).cf_list_of(extra).map(hex::encode);
    // 864.1 MHz is 0x83D9E8 in 100 Hz, least significant byte first.
    assert_eq!(of("eu868", &[864_100_000]).as_deref(), Some("e8d98300000000000000000000000000"));
    assert_eq!(of("eu868", &region("eu868").extra_channels().unwrap()), list("eu868"));
    assert_eq!(
        (of("eu868", &[]), of("us915_1", &[903_900_000]), region("us915_1").extra_channels()),
        (None, None, None)
    );
    let added: Vec<_> = region("eu868").channels_with(&[864_100_000]).iter().map(|c| (c.index, c.frequency)).collect();
    assert_eq!(added, [(0, 868_100_000), (1, 868_300_000), (2, 868_500_000), (3, 864_100_000)]);
    assert_eq!(list("eu868").unwrap(), "184f84e85684b85e84886684586e8400");
    assert_eq!(list("us915"), None);
    assert_eq!(list("us915_0").unwrap(), "ff000000000000000100000000000001");
    assert_eq!(list("us915_1").unwrap(), "00ff0000000000000200000000000001");
    assert_eq!(list("us915_7").unwrap(), "00000000000000ff8000000000000001");
}

/// What channels a device of US915 has in use after a block of LinkADRReq, from all of them (RP002-1.0.4, 2.5.5).
fn channels_after(requests: &[DownlinkCommand]) -> Vec<u8> {
    let mut used = [true; 72];
    for request in requests {
        let DownlinkCommand::LinkAdrReq { channel_mask, ch_mask_cntl, .. } = *request else { panic!("{request:?}") };
        let first = match ch_mask_cntl {
            0..=4 => 16 * usize::from(ch_mask_cntl),
            7 => {
                used[..64].fill(false);
                64
            }
            other => panic!("ChMaskCntl {other}"),
        };
        for (bit, channel) in used.iter_mut().skip(first).take(16).enumerate() {
            *channel = channel_mask >> bit & 1 == 1;
        }
    }
    (0..72).filter(|&channel| used[usize::from(channel)]).collect()
}

#[test]
fn a_block_of_link_adr_requests_leaves_the_sub_band() {
    for name in Region::names().iter().filter(|name| name.starts_with("us915_") || name.starts_with("au915_")) {
        let requests = region(name).channel_mask_requests(3);
        let expected: Vec<u8> = region(name).uplink_channels().iter().map(|channel| channel.index).collect();
        assert_eq!(channels_after(&requests), expected, "{name}");
        let bytes: usize = requests.iter().map(DownlinkCommand::len).sum();
        assert!(bytes <= 15, "{name}: must fit FOpts");
        for request in requests {
            assert!(matches!(request, DownlinkCommand::LinkAdrReq { data_rate: 3, nb_trans: 1, .. }));
        }
    }
    assert_eq!(region("us915").channel_mask_requests(0), []);
    assert_eq!(region("eu868").channel_mask_requests(0), []);
}

proptest! {
    /// Whatever a gateway or a profile says: no panic, and RX1 is always at a data rate that the network may use.
    #[test]
    fn rx1_is_a_downlink(name in prop::sample::select(Region::names()), frequency: u32, dr: u8, offset: u8) {
        let region = region(name);
        region.accepts(frequency, dr);
        region.downlink_power(frequency);
        region.channel_mask_requests(dr);
        for frequency in [frequency, region.uplink_channels()[0].frequency] {
            let rx1 = rx1(region, frequency, dr % 16, offset % 8);
            prop_assert!(rx1.is_none_or(|(_, dr)| region.is_downlink_data_rate(dr)));
        }
    }
}
