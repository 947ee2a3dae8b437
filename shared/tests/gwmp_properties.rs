//! GWMP for any input.
#![allow(clippy::unwrap_used, clippy::panic)]

use limpet_shared::{
    Eui64,
    gwmp::{
        Datr, RSig, Rxpk, Stat, Txpk, UpKind, parse_downstream, parse_pull_resp, parse_push_data, parse_tx_ack,
        parse_upstream, push_data, push_data_json,
    },
};
use proptest::{collection::vec, option, prelude::*};

fn datr() -> impl Strategy<Value = Datr> {
    prop_oneof![
        (5u8..=12, 1u16..=2000)
            .prop_map(|(spreading_factor, bandwidth_khz)| Datr::Lora { spreading_factor, bandwidth_khz }),
        (1u32..).prop_map(|bit_rate| Datr::Fsk { bit_rate }),
        (1u16..).prop_map(|channel_width_khz| Datr::LrFhss { channel_width_khz }),
    ]
}

/// Any JSON, as text.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_string()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(" , "))),
            vec(inner, 0..4).prop_map(|list| {
                let fields: Vec<String> =
                    list.iter().enumerate().map(|(n, value)| format!("\"k{n}\" : {value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

prop_compose! {
    fn rsig()(ant in option::of(any::<u32>()), chan in option::of(any::<u32>()), rssic in option::of(any::<i32>()),
              lsnr in option::of(-200f32..200.0), etime in option::of("[A-Za-z0-9+/]{1,24}"),
              foff in option::of(any::<i32>())) -> RSig {
        RSig { ant, chan, rssic, lsnr, etime, foff, ..RSig::default() }
    }
}

prop_compose! {
    fn rxpk()(freq in 1u32.., datr in datr(), data in vec(any::<u8>(), 0..=255), tmst in option::of(any::<u32>()),
              tmms in option::of(0u64..1 << 63), ftime in option::of(0u32..1_000_000_000),
              rssi in option::of(any::<i32>()), lsnr in option::of(-200f32..200.0), ants in vec(any::<u32>(), 0..4),
              stat in -1i8..=1, rsig in vec(rsig(), 0..4), meta in prop::collection::btree_map("[a-z]{1,8}", "[ -~é]{1,8}", 0..3), time in option::of("[ -~é\"\\\\]{1,20}")) -> Rxpk {
        Rxpk { tmst, tmms, ftime, rssi, lsnr, ants, stat, rsig, time, meta, ..Rxpk::new(freq, datr, data) }
    }
}

proptest! {
    #[test]
    fn no_bytes_can_hurt(bytes in vec(any::<u8>(), 0..300)) {
        let _ = parse_upstream(&bytes);
        let _ = parse_downstream(&bytes);
        let _ = parse_push_data(&bytes);
        let _ = parse_pull_resp(&bytes);
        let _ = parse_tx_ack(&bytes);
    }

    #[test]
    fn no_damage_to_good_json_can_hurt(packet in rxpk(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
                                       cut in any::<bool>()) {
        let mut json = push_data_json(&[packet], None);
        let at = at.index(json.len());
        if cut { json.truncate(at) } else { json[at] = byte }
        if let Ok(read) = parse_push_data(&json) {
            for packet in read.rxpk.iter().flatten() {
                let _ = packet.signal();
                prop_assert!(packet.data.len() <= 255 && packet.freq > 0);
            }
        }
    }

    /// A comma behind the last packet is no JSON: the tolerant reader finds what the strict one finds.
    #[test]
    fn what_is_sound_is_read_the_same_beside_what_is_broken(packets in vec(rxpk(), 1..5), desc in "[ -~é\"\\\\{}\u{1}]{0,20}",
                                                           unknown in json(), first in any::<bool>()) {
        let stat = Stat { desc: Some(desc), rxnb: Some(1), ..Stat::default() };
        let sound = String::from_utf8(push_data_json(&packets, Some(&stat))).unwrap();
        let sound = sound.replacen('{', &format!("{{\"unknown\":{unknown},"), 1);
        let sound = sound.replace("\"size\"", &format!("\"more\":{unknown},\"size\""));
        prop_assert!(serde_json::from_str::<serde_json::Value>(&sound).is_ok(), "{}", sound);
        let broken = if first { format!("{{,{}", &sound[1..]) } else { format!("{},}}", &sound[..sound.len() - 1]) };
        let (strict, tolerant) = (parse_push_data(sound.as_bytes()), parse_push_data(broken.as_bytes()));
        prop_assert_eq!(&strict, &tolerant, "{}", broken);
        prop_assert_eq!(strict.unwrap().rxpk.into_iter().map(Result::unwrap).collect::<Vec<_>>(), packets);
    }

    /// One byte more, less or other than there should be costs no packet but the one that it is in.
    #[test]
    fn damage_to_one_packet_costs_no_other(packets in vec(rxpk(), 3..5), at in any::<prop::sample::Index>(),
                                           byte in any::<u8>(), how in 0..3) {
        let at_of = |n: usize| push_data_json(&packets[..n], None).len() - 2;
        let mut json = push_data_json(&packets, None);
        let at = at_of(1) + 1 + at.index(at_of(2) - at_of(1) - 1);
        match how {
            0 => json[at] = byte,
            1 => json.insert(at, byte),
            _ => drop(json.remove(at)),
        }
        let read = parse_push_data(&json).unwrap_or_default();
        let read: Vec<Rxpk> = read.rxpk.into_iter().flatten().collect();
        for (n, packet) in packets.iter().enumerate().filter(|(n, _)| *n != 1) {
            prop_assert!(read.contains(packet), "packet {} of {}", n, json.escape_ascii());
        }
    }

    #[test]
    fn a_report_arrives_as_it_was_sent(version in 1u8..=2, token in any::<u16>(), eui in any::<u64>(),
                                       packets in vec(rxpk(), 0..5)) {
        let datagram = push_data(version, token, Eui64(eui), &push_data_json(&packets, None));
        let up = parse_upstream(&datagram).unwrap();
        prop_assert_eq!((up.version, up.token, up.kind, up.gateway), (version, token, UpKind::PushData, Eui64(eui)));
        let read: Vec<Rxpk> = parse_push_data(up.json).unwrap().rxpk.into_iter().map(Result::unwrap).collect();
        prop_assert_eq!(read, packets);
    }

    #[test]
    fn a_downlink_arrives_as_it_was_sent(tmst in any::<u32>(), freq in 1u32.., powe in any::<u32>(), datr in datr(),
                                         data in vec(any::<u8>(), 0..=255)) {
        let txpk = Txpk::at(tmst, freq, powe, datr, data);
        let json = txpk.to_json();
        let text = std::str::from_utf8(&json).unwrap();
        let freq = text.split("\"freq\":").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
        prop_assert!(freq.split_once('.').unwrap().1.len() <= 6, "{}", freq);
        prop_assert_eq!(parse_pull_resp(&json), Ok(txpk));
    }
}
