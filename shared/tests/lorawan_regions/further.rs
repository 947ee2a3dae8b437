//! AS923, IN865, KR920, AU915, CN470 and ISM2400, value by value.
//!
//! Checked against LoRaMac-node's and LoRa Basics Modem's tables, The Things Stack's bands of RP002-1.0.4, lorawan-device's and ChirpStack's.
//! Where they differ: The Things Stack and ChirpStack compute RX1 of IN865 and come to DR6, which the band does not have, and ChirpStack
//! keeps RX1 of AS923 at DR5 or below, as the regional parameters before RP002 did; the tables of RP002 are those of the two device stacks.
//! lorawan-device has a downlink channel of AU915 at 922.3 MHz; all others, and RP002, have 923.3. The longest
//! frame of ISM2400 is 228 bytes in LoRa Basics Modem, and 248 in ChirpStack's predecessor where there are no repeaters.

use limpet_shared::{gwmp::Datr, lorawan::mac::DownlinkCommand, region::Region};

use crate::{DOWN_500, LORA_125, region, rows, rx1, table};

fn frequencies(name: &str) -> Vec<u32> {
    region(name).uplink_channels().iter().map(|channel| channel.frequency).collect()
}

const AS923: [(&str, &str, u32, (u32, u32)); 4] = [
    ("as923", "AS923", 923_200_000, (915_000_000, 928_000_000)),
    ("as923_2", "AS923_2", 921_400_000, (920_000_000, 923_000_000)),
    ("as923_3", "AS923_3", 916_600_000, (915_000_000, 921_000_000)),
    ("as923_4", "AS923_4", 917_300_000, (917_000_000, 920_000_000)),
];

#[test]
fn the_four_groups_of_as923() {
    let mut rates = rows(&[&LORA_125, &[(6, "SF7BW250", 250), (7, "50000", 250)]]);
    rates[2] = (2, "SF10BW125".into(), 123);
    for (name, band, first, (low, high)) in AS923 {
        let region = region(name);
        assert_eq!((region.band(), table(name)), (band, rates.clone()));
        assert_eq!(frequencies(name), [first, first + 200_000], "{name}");
        assert_eq!(region.rx2(), (first, 2), "{name}: SF10 on the first channel");
        assert_eq!(region.join_data_rates(), [2, 3, 4, 5], "what takes less than 400 ms");
        let accepted = [low - 1, low, high, high + 1].map(|frequency| region.accepts(frequency, 5));
        assert_eq!(accepted, [false, true, true, false], "{name}");
        assert_eq!((region.downlink_power(first), region.most_power()), (16, 16));
        for dr in 0..8 {
            assert_eq!(region.uplink_data_rate(&region.modulation(dr).unwrap()), Some(dr));
            assert!(region.is_downlink_data_rate(dr));
        }
        assert_eq!((region.cf_list(), region.extra_channels()), (None, Some(Vec::new())));
        // The third channel: 922.0 MHz is 0x8CAFA0 in 100 Hz.
        let list = region.cf_list_of(&[922_000_000]).map(hex::encode);
        assert_eq!(list.as_deref(), Some("a0af8c00000000000000000000000000"));
        let added = region.channels_with(&[low + 100_000]);
        assert_eq!((added[2].index, added[2].min_dr, added[2].max_dr), (2, 0, 5), "{name}");
    }
}

#[test]
fn rx1_of_as923_where_nobody_knows_whether_downlinks_are_limited() {
    for (name, ..) in AS923 {
        let (region, channel) = (region(name), frequencies(name)[0]);
        // Only where devices of both kinds listen for the same.
        let unknown = |dr, offset| region.rx1_of((channel, dr), offset, None);
        assert_eq!([unknown(5, 0), unknown(2, 0), unknown(5, 3)], [5, 2, 2].map(|dr| Some((channel, dr))));
        assert_eq!([unknown(0, 0), unknown(1, 0), unknown(5, 4), unknown(0, 6)], [None; 4]);
        assert_eq!(unknown(0, 7), Some((channel, 2)));
    }
}

/// The middle and right columns of the tables of maximum payloads.
#[test]
fn payloads_under_limits_and_through_repeaters() {
    let most = |name, limited, repeater| {
        (0..14).map(|dr| region(name).max_downlink(dr, limited, repeater).unwrap_or(0)).collect::<Vec<_>>()
    };
    let none = [0; 6];
    for (name, ..) in AS923 {
        assert_eq!(most(name, false, true), [&[59, 59, 123, 123, 230, 230, 230, 230][..], &none].concat());
        assert_eq!(most(name, true, false), [&[0, 0, 19, 61, 133, 250, 250, 250][..], &none].concat());
        assert_eq!(most(name, true, true), [&[0, 0, 19, 61, 133, 230, 230, 230][..], &none].concat());
    }
    let wide = [61, 137, 250, 250, 250, 250];
    assert_eq!(most("au915_1", false, false), [&[59, 59, 59, 123, 250, 250, 250, 58][..], &wide].concat());
    assert_eq!(most("au915_1", true, false), [&[0, 0, 19, 61, 133, 250, 250, 58][..], &wide].concat());
    assert_eq!(most("au915_1", true, true)[4..], [133, 230, 230, 58, 61, 137, 230, 230, 230, 230]);
    // Who knows no limit has none.
    for name in Region::names().iter().filter(|name| !region(name).has_dwell_time()) {
        for dr in 0..14 {
            let (free, limited) =
                (region(name).max_downlink(dr, false, false), region(name).max_downlink(dr, true, false));
            assert_eq!((free, limited), (region(name).max_mac_payload(dr), free), "{name}");
        }
    }
    let with_dwell_time = Region::names().iter().filter(|name| region(name).has_dwell_time());
    assert!(with_dwell_time.clone().all(|name| name.starts_with("as923") || name.starts_with("au915")));
    assert_eq!(with_dwell_time.count(), 4 + 9);
    for name in ["as923", "au915_1"] {
        assert_eq!((0..8).filter(|dr| region(name).is_within_dwell_time(*dr)).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7]);
    }
    assert!(region("eu868").is_within_dwell_time(0));
}

/// LoRaWAN 1.0.4, 5.9: 16 dBm is code 5, 30 dBm is 13. AU915 has the command from 1.0.3 on.
#[test]
fn tx_param_setup_is_of_as923_and_au915() {
    let codes = |name| [0, 1, 2, 3, 4].map(|patch| region(name).tx_param_setup(patch));
    assert_eq!(codes("as923_3"), [None, None, Some(5), Some(5), Some(5)]);
    assert_eq!(codes("au915"), [None, None, None, Some(13), Some(13)]);
    assert_eq!(codes("us915_1"), [None; 5]);
}

#[test]
fn in865() {
    assert_eq!((region("in865").band(), table("in865")), ("IN865", rows(&[&LORA_125, &[(7, "50000", 250)]])));
    assert_eq!(frequencies("in865"), [865_062_500, 865_402_500, 865_985_000]);
    let in865 = region("in865");
    assert_eq!((in865.rx2(), in865.join_data_rates()), ((866_550_000, 2), &[0, 1, 2, 3, 4, 5][..]));
    assert_eq!(
        [864_999_999, 865_000_000, 867_000_000, 867_000_001].map(|f| in865.accepts(f, 0)),
        [false, true, true, false]
    );
    assert!(in865.accepts(865_062_500, 7) && !in865.accepts(865_062_500, 6) && !in865.is_downlink_data_rate(6));
    assert_eq!((in865.downlink_power(866_550_000), in865.most_power()), (20, 30));
    // 865.0625 MHz as a 32-bit float, and what the network added.
    let lora = super::lora(7, 125);
    assert_eq!(
        [865_062_500, 865_062_497, 866_385_000].map(|f| in865.snap(f, &lora)),
        [865_062_500, 865_062_500, 866_385_000]
    );
}

#[test]
fn kr920() {
    assert_eq!((region("kr920").band(), table("kr920")), ("KR920", rows(&[&LORA_125])));
    assert_eq!(frequencies("kr920"), [922_100_000, 922_300_000, 922_500_000]);
    let kr920 = region("kr920");
    assert_eq!((kr920.rx2(), kr920.join_data_rates()), ((921_900_000, 0), &[0, 1, 2, 3, 4, 5][..]));
    assert_eq!(
        [920_899_999, 920_900_000, 923_300_000, 923_300_001].map(|f| kr920.accepts(f, 0)),
        [false, true, true, false]
    );
    assert_eq!((kr920.downlink_power(922_100_000), kr920.most_power()), (20, 23));
}

#[test]
fn au915() {
    let rates = rows(&[&LORA_125, &[(6, "SF8BW500", 250), (7, "M0CW1523", 58)], &DOWN_500]);
    assert_eq!((region("au915").band(), table("au915")), ("AU915", rates));
    let (all, second) = (region("au915"), region("au915_1"));
    let narrow = (0..64).map(|n| 915_200_000 + 200_000 * n);
    let wide = (0..8).map(|n| 915_900_000 + 1_600_000 * n);
    assert_eq!(frequencies("au915"), narrow.chain(wide).collect::<Vec<_>>());
    let in_use: Vec<_> = second.uplink_channels().iter().map(|c| (c.index, c.frequency, c.min_dr, c.max_dr)).collect();
    assert_eq!((in_use[0], in_use[7]), ((8, 916_800_000, 0, 5), (15, 918_200_000, 0, 5)));
    assert_eq!((in_use.len(), in_use[8]), (9, (65, 917_500_000, 6, 7)));
    let joins: Vec<_> = second.join_channels().iter().map(|channel| (channel.min_dr, channel.max_dr)).collect();
    assert_eq!(joins, [[(2, 2); 8].as_slice(), &[(6, 6)]].concat(), "what takes less than 400 ms");
    assert!(second.accepts(916_800_000, 0) && second.accepts(917_500_000, 6) && second.accepts(917_500_000, 7));
    assert!(!second.accepts(916_600_000, 0) && !second.accepts(916_800_000, 6) && !second.accepts(916_800_000, 8));
    assert_eq!((all.rx2(), all.downlink_power(923_300_000), all.most_power()), ((923_300_000, 8), 20, 30));
    for (index, channel) in (0..).zip(frequencies("au915")) {
        let dr = if index < 64 { 2 } else { 6 };
        assert_eq!(rx1(all, channel, dr, 0).unwrap().0, 923_300_000 + 600_000 * (index % 8), "channel {index}");
    }
    // The masks of its sub-bands are those of US915.
    assert_eq!(all.cf_list(), None);
    for number in 0..8 {
        let (au, us) = (region(&format!("au915_{number}")), region(&format!("us915_{number}")));
        assert_eq!((au.cf_list(), au.channel_mask_requests(3)), (us.cf_list(), us.channel_mask_requests(3)));
    }
}

/// Of the regional parameters 1.0.2 revision B and 1.0.3 revision A.
#[test]
fn cn470() {
    assert_eq!((region("cn470").band(), table("cn470")), ("CN470", rows(&[&LORA_125])));
    assert_eq!(frequencies("cn470"), (0..96).map(|n| 470_300_000 + 200_000 * n).collect::<Vec<_>>());
    let all = region("cn470");
    assert_eq!((all.rx2(), all.downlink_power(505_300_000), all.most_power()), ((505_300_000, 0), 19, 19));
    for (index, channel) in (0..).zip(frequencies("cn470")) {
        assert_eq!(rx1(all, channel, 5, 2), Some((500_300_000 + 200_000 * (index % 48), 3)), "channel {index}");
    }
    assert_eq!((all.cf_list(), all.channel_mask_requests(0)), (None, Vec::new()));
    let list = |number| region(&format!("cn470_{number}")).cf_list().map(hex::encode).unwrap();
    assert_eq!(list(0), "ff000000000000000000000000000001");
    assert_eq!(list(1), "00ff0000000000000000000000000001");
    assert_eq!(list(11), "0000000000000000000000ff00000001");
    for number in 0..12 {
        let region = region(&format!("cn470_{number}"));
        let expected: Vec<u8> = (8 * number..8 * number + 8).collect();
        assert_eq!(region.uplink_channels().iter().map(|channel| channel.index).collect::<Vec<_>>(), expected);
        // From all channels on, each request alone leaves some.
        let mut used = [true; 96];
        for request in region.channel_mask_requests(4) {
            let DownlinkCommand::LinkAdrReq { data_rate: 4, channel_mask, ch_mask_cntl, nb_trans: 1, .. } = request
            else {
                panic!("{request:?}")
            };
            for (bit, channel) in used.iter_mut().skip(16 * usize::from(ch_mask_cntl)).take(16).enumerate() {
                *channel = channel_mask >> bit & 1 == 1;
            }
            assert!(used.contains(&true));
        }
        assert_eq!((0..96).filter(|channel| used[usize::from(*channel)]).collect::<Vec<u8>>(), expected);
    }
    let of_rp002 = Region::names().iter().filter(|name| !region(name).is_of_rp002());
    assert!(of_rp002.clone().all(|name| name.starts_with("cn470")) && of_rp002.count() == 13);
}

/// Semtech's proposal TN1300.03, as LoRa Basics Modem and ChirpStack's predecessor have it.
#[test]
fn ism2400() {
    let rates = [
        (0, "SF12BW812", 59),
        (1, "SF11BW812", 123),
        (2, "SF10BW812", 228),
        (3, "SF9BW812", 228),
        (4, "SF8BW812", 228),
        (5, "SF7BW812", 228),
        (6, "SF6BW812", 228),
        (7, "SF5BW812", 228),
    ];
    assert_eq!((region("ism2400").band(), table("ism2400")), ("ISM2400", rows(&[&rates])));
    assert_eq!(frequencies("ism2400"), [2_403_000_000, 2_425_000_000, 2_479_000_000]);
    let ism2400 = region("ism2400");
    assert_eq!((ism2400.rx2(), ism2400.join_data_rates()), ((2_423_000_000, 0), &[0, 1, 2, 3, 4, 5, 6, 7][..]));
    assert_eq!((ism2400.downlink_power(2_423_000_000), ism2400.most_power()), (10, 10));
    assert!(
        ism2400.accepts(2_479_000_000, 7) && !ism2400.accepts(2_423_000_000, 0) && !ism2400.accepts(2_403_000_000, 8)
    );
    assert_eq!(
        Region::names().iter().filter(|name| !region(name).tells_frequencies()).collect::<Vec<_>>(),
        [&"ism2400"]
    );
    // Channels that a network adds would be told in other units than elsewhere: there are none.
    assert_eq!((ism2400.extra_channel_range(), ism2400.takes_extra_channel(2_410_000_000)), (None, false));
    assert_eq!((ism2400.cf_list(), ism2400.channel_mask_requests(0)), (None, Vec::new()));
    let datr = Datr::from(ism2400.modulation(7).unwrap());
    assert_eq!(
        (datr.code_rate(), Datr::from(region("eu868").modulation(7).unwrap()).code_rate()),
        (Some("4/8LI"), None)
    );
    assert_eq!(Datr::from(region("au915").modulation(8).unwrap()).code_rate(), Some("4/5"));
}
