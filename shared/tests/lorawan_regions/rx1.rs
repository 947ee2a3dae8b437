//! RX1: on which channel, and at which data rate by RX1DROffset, as the tables of the regional parameters have it.

use limpet_shared::region::Region;

use crate::{region, rx1};

/// Data rate of the uplink, and those of RX1 from offset 0 on; at what is not listed there is no RX1.
type Table = &'static [(u8, &'static [u8])];

const EU868: Table = &[
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

const US915: Table = &[
    (0, &[10, 9, 8, 8]),
    (1, &[11, 10, 9, 8]),
    (2, &[12, 11, 10, 9]),
    (3, &[13, 12, 11, 10]),
    (4, &[13, 13, 12, 11]),
    (5, &[10, 9, 8, 8]),
    (6, &[11, 10, 9, 8]),
];

const AU915: Table = &[
    (0, &[8, 8, 8, 8, 8, 8]),
    (1, &[9, 8, 8, 8, 8, 8]),
    (2, &[10, 9, 8, 8, 8, 8]),
    (3, &[11, 10, 9, 8, 8, 8]),
    (4, &[12, 11, 10, 9, 8, 8]),
    (5, &[13, 12, 11, 10, 9, 8]),
    (6, &[13, 13, 12, 11, 10, 9]),
    (7, &[9, 8, 8, 8, 8, 8]),
];

const AS923: Table = &[
    (0, &[0, 0, 0, 0, 0, 0, 1, 2]),
    (1, &[1, 0, 0, 0, 0, 0, 2, 3]),
    (2, &[2, 1, 0, 0, 0, 0, 3, 4]),
    (3, &[3, 2, 1, 0, 0, 0, 4, 5]),
    (4, &[4, 3, 2, 1, 0, 0, 5, 6]),
    (5, &[5, 4, 3, 2, 1, 0, 6, 7]),
    (6, &[6, 5, 4, 3, 2, 1, 7, 7]),
    (7, &[7, 6, 5, 4, 3, 2, 7, 7]),
];

/// Of a device that was told a limit of 400 ms.
const AS923_LIMITED: Table = &[
    (0, &[2, 2, 2, 2, 2, 2, 2, 2]),
    (1, &[2, 2, 2, 2, 2, 2, 2, 3]),
    (2, &[2, 2, 2, 2, 2, 2, 3, 4]),
    (3, &[3, 2, 2, 2, 2, 2, 4, 5]),
    (4, &[4, 3, 2, 2, 2, 2, 5, 6]),
    (5, &[5, 4, 3, 2, 2, 2, 6, 7]),
    (6, &[6, 5, 4, 3, 2, 2, 7, 7]),
    (7, &[7, 6, 5, 4, 3, 2, 7, 7]),
];

/// There is no DR6: where the sum would be that, the table has DR5.
const IN865: Table = &[
    (0, &[0, 0, 0, 0, 0, 0, 1, 2]),
    (1, &[1, 0, 0, 0, 0, 0, 2, 3]),
    (2, &[2, 1, 0, 0, 0, 0, 3, 4]),
    (3, &[3, 2, 1, 0, 0, 0, 4, 5]),
    (4, &[4, 3, 2, 1, 0, 0, 5, 5]),
    (5, &[5, 4, 3, 2, 1, 0, 5, 7]),
    (7, &[7, 5, 5, 4, 3, 2, 7, 7]),
];

/// Without a limit to downlinks, and with one.
fn tables(name: &str) -> (Table, Table) {
    let one = match name.split('_').next().unwrap() {
        "as923" => return (AS923, AS923_LIMITED),
        "eu868" => EU868,
        "eu433" | "ru864" | "cn779" | "ism2400" => &EU868[..8],
        "kr920" | "cn470" => &EU868[..6],
        "in865" => IN865,
        "us915" => US915,
        "au915" => AU915,
        other => panic!("{other} has no table"),
    };
    (one, one)
}

#[test]
fn rx1_has_the_data_rates_of_the_bands_table() {
    for name in Region::names() {
        let (region, (free, limited)) = (region(name), tables(name));
        let frequency = region.uplink_channels()[1].frequency;
        for (dr, offset) in (0..16).flat_map(|dr| (0..9).map(move |offset| (dr, offset))) {
            let of = |table: Table| {
                let (_, by_offset) = table.iter().find(|(uplink, _)| *uplink == dr)?;
                by_offset.get(usize::from(offset)).copied()
            };
            let answered = |limited| region.rx1_of((frequency, dr), offset, limited).map(|(_, rate)| rate);
            let (free, limited) = (of(free), of(limited));
            assert_eq!(answered(Some(false)), free, "{name}: DR{dr}, offset {offset}");
            assert_eq!(answered(Some(true)), limited, "{name}: DR{dr}, offset {offset}, limited");
            assert_eq!(
                answered(None),
                free.filter(|_| free == limited),
                "{name}: DR{dr}, offset {offset}, nobody knows which"
            );
        }
        assert_eq!(usize::from(region.max_rx1_dr_offset()) + 1, free[0].1.len(), "{name}");
    }
}

#[test]
fn rx1_of_most_bands_is_on_the_uplinks_channel() {
    let fixed = ["us915", "au915", "cn470"];
    for name in Region::names().iter().filter(|name| !fixed.iter().any(|fixed| name.starts_with(fixed))) {
        for channel in region(name).uplink_channels() {
            assert_eq!(rx1(region(name), channel.frequency, 3, 0), Some((channel.frequency, 3)), "{name}");
        }
    }
}

#[test]
fn rx1_of_us915_is_on_the_channel_modulo_8() {
    let us915 = region("us915");
    assert_eq!(rx1(us915, 902_300_000, 0, 0), Some((923_300_000, 10)));
    assert_eq!(rx1(us915, 914_900_000, 3, 0), Some((927_500_000, 13)), "channel 63");
    assert_eq!(rx1(us915, 903_000_000, 4, 0), Some((923_300_000, 13)), "channel 64");
    assert_eq!(rx1(region("us915_1"), 904_600_000, 4, 1), Some((923_900_000, 13)), "channel 65");
    assert_eq!(rx1(region("us915_1"), 905_300_000, 0, 3), Some((927_500_000, 8)));
    assert_eq!(rx1(us915, 902_400_000, 0, 0), None, "no channel");
}
