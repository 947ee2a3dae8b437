//! What real forwarders write, read and answered.
#![allow(clippy::unwrap_used, clippy::panic)]

use limpet_shared::{
    Eui64,
    gwmp::{
        Datr, DownKind, HeaderError, JsonError, Kind, PushData, Rxpk, RxpkError, Stat, TxAckBody, TxAckResult, TxError,
        Txpk, UpKind, parse_downstream, parse_pull_resp, parse_push_data, parse_tx_ack, parse_upstream, pull_ack,
        pull_data, pull_resp, push_ack, push_data, tx_ack,
    },
};

const EUI: Eui64 = Eui64(0x0016_c001_ff10_a235);

fn one(json: &str) -> Rxpk {
    let mut read = parse_push_data(json.as_bytes()).unwrap();
    assert_eq!(read.rxpk.len(), 1);
    read.rxpk.remove(0).unwrap()
}

#[test]
fn the_bytes_of_all_six_messages() {
    let eui = b"\x00\x16\xc0\x01\xff\x10\xa2\x35";
    assert_eq!(push_data(2, 0x1234, EUI, b"{}"), [&b"\x02\x12\x34\x00"[..], eui, b"{}"].concat());
    assert_eq!(push_ack(2, 0x1234), *b"\x02\x12\x34\x01");
    assert_eq!(pull_data(1, 0x1234, EUI)[..], [&b"\x01\x12\x34\x02"[..], eui].concat());
    assert_eq!(pull_resp(2, 0x1234, b"{}"), b"\x02\x12\x34\x03{}");
    assert_eq!(pull_ack(1, 0x1234), *b"\x01\x12\x34\x04");
    assert_eq!(tx_ack(2, 0x1234, EUI, b""), [&b"\x02\x12\x34\x05"[..], eui].concat());
}

#[test]
fn each_side_reads_what_the_other_sends() {
    let datagram = push_data(1, 7, EUI, b"{}");
    let up = parse_upstream(&datagram).unwrap();
    assert_eq!((up.version, up.token, up.kind, up.gateway, up.json), (1, 7, UpKind::PushData, EUI, &b"{}"[..]));
    let datagram = tx_ack(2, 8, EUI, b"{}");
    let up = parse_upstream(&datagram).unwrap();
    assert_eq!((up.token, up.kind, up.json), (8, UpKind::TxAck, &b"{}"[..]));
    // Some gateways pad their keep-alive.
    let padded = [&pull_data(2, 9, EUI)[..], &[0; 4]].concat();
    assert_eq!(parse_upstream(&padded).unwrap().json, b"");
    let datagram = pull_resp(2, 10, b"{}");
    let down = parse_downstream(&datagram).unwrap();
    assert_eq!((down.token, down.kind, down.json), (10, DownKind::PullResp, &b"{}"[..]));
    assert_eq!(parse_downstream(&push_ack(2, 11)).unwrap().kind, DownKind::PushAck);
    assert_eq!(parse_downstream(&pull_ack(2, 12)).unwrap().kind, DownKind::PullAck);
}

#[test]
fn what_is_no_message_of_a_gateway_has_a_reason() {
    let whole = push_data(2, 1, EUI, b"");
    for (datagram, error, reason) in [
        (&b""[..], HeaderError::TooShort, "too_short"),
        (&whole[..11], HeaderError::TooShort, "too_short"),
        (b"\x00\0\0\0\0\0\0\0\0\0\0\0", HeaderError::UnknownVersion(0), "unknown_version"),
        (b"\x03\0\0\0\0\0\0\0\0\0\0\0", HeaderError::UnknownVersion(3), "unknown_version"),
        (b"\x02\0\0\x06\0\0\0\0\0\0\0\0", HeaderError::UnknownType(6), "unknown_type"),
        (b"\x02\0\0\x01", HeaderError::NotFromGateway(Kind::PushAck), "not_from_gateway"),
    ] {
        let got = parse_upstream(datagram).unwrap_err();
        assert_eq!((got, got.reason()), (error, reason));
    }
    assert_eq!(parse_downstream(&whole), Err(HeaderError::NotFromServer(Kind::PushData)));
}

#[test]
fn the_examples_of_the_protocols_text() {
    let json = br#"{"rxpk":[
        {"time":"2013-03-31T16:21:17.528002Z","tmst":3512348611,"chan":2,"rfch":0,"freq":866.349812,"stat":1,
         "modu":"LORA","datr":"SF7BW125","codr":"4/6","rssi":-35,"lsnr":5.1,"size":32,
         "data":"-DS4CGaDCdG+48eJNM3Vai-zDpsR71Pn9CPA9uCON84"},
        {"time":"2013-03-31T16:21:17.530974Z","tmst":3512348514,"chan":9,"rfch":1,"freq":869.1,"stat":1,
         "modu":"FSK","datr":50000,"rssi":-75,"size":16,"data":"VEVTVF9QQUNLRVRfMTIzNA=="},
        {"time":"2013-03-31T16:21:17.532038Z","tmst":3316387610,"chan":0,"rfch":0,"freq":863.00981,"stat":1,
         "modu":"LORA","datr":"SF10BW125","codr":"4/7","rssi":-38,"lsnr":5.5,"size":32,
         "data":"ysgRl452xNLep9S1NTIg2lomKDxUgn3DJ7DE+b00Ass"}]}"#;
    let PushData { rxpk, stat } = parse_push_data(json).unwrap();
    assert_eq!(stat, None);
    let rxpk: Vec<Rxpk> = rxpk.into_iter().map(Result::unwrap).collect();
    let [a, b, c] = &rxpk[..] else { panic!("{rxpk:?}") };
    assert_eq!((a.freq, a.tmst, a.data.len()), (866_349_812, Some(3_512_348_611), 32));
    assert_eq!(a.datr, Datr::Lora { spreading_factor: 7, bandwidth_khz: 125 });
    assert_eq!((a.codr.as_deref(), a.rssi, a.lsnr), (Some("4/6"), Some(-35), Some(5.1)));
    assert_eq!((b.datr, b.freq, b.lsnr), (Datr::Fsk { bit_rate: 50_000 }, 869_100_000, None));
    assert_eq!(b.data, b"TEST_PACKET_1234");
    assert_eq!((c.freq, c.chan, c.rfch), (863_009_810, Some(0), Some(0)));
    assert_eq!(a.time.as_deref(), Some("2013-03-31T16:21:17.528002Z"));
}

#[test]
fn a_status_alone_and_beside_packets() {
    let json = br#"{"stat":{"time":"2014-01-12 08:59:28 GMT","lati":46.24000,"long":3.25230,"alti":145,"rxnb":2,
        "rxok":2,"rxfw":2,"ackr":100.0,"dwnb":2,"txnb":2,"temp":23.2,"pfrm":"IMST + Rpi","mail":"","desc":"roof",
        "lpps":3,"hal":"5.0.1"}}"#;
    let expected = Stat {
        time: Some("2014-01-12 08:59:28 GMT".into()),
        lati: Some(46.24),
        long: Some(3.2523),
        alti: Some(145),
        rxnb: Some(2),
        rxok: Some(2),
        rxfw: Some(2),
        ackr: Some(100.0),
        dwnb: Some(2),
        txnb: Some(2),
        temp: Some(23.2),
        pfrm: Some("IMST + Rpi".into()),
        desc: Some("roof".into()),
        lpps: Some(3),
        hal: Some("5.0.1".into()),
        ..Stat::default()
    };
    assert_eq!(parse_push_data(json).unwrap().stat, Some(Ok(expected)));
    let both = br#"{"rxpk":[{"freq":868.1,"datr":"SF7BW125","data":"QA=="}],"stat":7}"#;
    let read = parse_push_data(both).unwrap();
    assert!(read.rxpk[0].is_ok());
    assert_eq!(read.stat, Some(Err(JsonError::Malformed)));
}

#[test]
fn a_description_in_latin_1_costs_no_packet() {
    let json =
        b"{\"rxpk\":[{\"freq\":868.1,\"datr\":\"SF7BW125\",\"data\":\"QA==\"}],\"stat\":{\"desc\":\"Z\xfcrich\",\"rxnb\":1}}";
    let read = parse_push_data(json).unwrap();
    assert!(read.rxpk[0].is_ok());
    assert_eq!(read.stat.unwrap().unwrap().rxnb, Some(1));
}

#[test]
fn an_sx1302_forwarder() {
    let rxpk = one(r#"{"rxpk":[{"jver":1,"tmst":2563862043,"time":"2021-06-14T09:26:09.123456Z","tmms":1307697987123,
        "ftime":123456789,"chan":0,"rfch":1,"freq":868.100000,"mid": 8,"stat":1,"modu":"LORA","datr":"SF12BW125",
        "codr":"4/5","rssis":-112,"lsnr":-18.5,"foff":-1234,"rssi":-108,"size":2,"data":"QAE="}]}"#);
    assert_eq!((rxpk.jver, rxpk.mid, rxpk.ftime), (Some(1), Some(8), Some(123_456_789)));
    assert_eq!((rxpk.rssis, rxpk.foff, rxpk.tmms), (Some(-112), Some(-1234), Some(1_307_697_987_123)));
    assert_eq!((rxpk.signal().rssi, rxpk.signal().snr), (-108, -18.5));
}

#[test]
fn a_gateway_with_several_antennas() {
    // Semtech's JSON version 2, as Kerlink's iBTS writes it: the signal stands in rsig alone.
    let rxpk = one(r#"{"rxpk":[{"jver":2,"brd":1,"aesk":4,"tmst":749151243,"delayed":0,"freq":868.3,"stat":1,
        "modu":"LORA","datr":"SF9BW125","codr":"4/5","size":2,"data":"QAE=","rsig":[
          {"ant":0,"chan":11,"rssic":-100,"rssis":-105,"rssisd":2,"lsnr":-3.5,"etime":"42QMzOlYSSPMMeqVPrY0fQ=="},
          {"ant":1,"chan":27,"rssic":-104,"lsnr":1.2,"foff":-300,"ftime":999999999,"ftver":1,"ftdelta":-19},
          {"ant":2,"chan":3,"rssic":-90,"lsnr":-7.0,"rfbsb":100,"rs2s1":96}]}]}"#);
    assert_eq!((rxpk.brd, rxpk.aesk, rxpk.rsig.len()), (Some(1), Some(4), 3));
    let best = rxpk.signal();
    assert_eq!((best.antenna, best.channel, best.rssi, best.snr), (1, 27, -104, 1.2));
    assert_eq!(rxpk.rsig[0].etime.as_deref(), Some("42QMzOlYSSPMMeqVPrY0fQ=="));
    assert_eq!((rxpk.rsig[1].ftdelta, rxpk.rsig[2].rs2s1), (Some(-19), Some(96)));
}

#[test]
fn boards_and_antennas_as_lists() {
    let rxpk = one(r#"{"rxpk":[{"tmst":4033486923,"freq":904.6,"chan":3,"brd":[2,5],"ants":[1,3],"stat":1,
        "modu":"LORA","datr":"SF8BW500","codr":"4/5","rssi":-57.0,"lsnr":12,"fts":-1,"size":2,"data":"QAE",
        "unknown":{"a":[1,{}]}}]}"#);
    assert_eq!((rxpk.brd, &rxpk.ants[..], rxpk.fts), (Some(2), &[1, 3][..], Some(-1)));
    assert_eq!((rxpk.signal().antenna, rxpk.signal().rssi), (1, -57));
}

#[test]
fn lr_fhss() {
    let rxpk = one(r#"{"rxpk":[{"tmst":1,"freq":868.13,"stat":1,"modu":"LR-FHSS","datr":"M0CW137","codr":"2/6",
        "hpw":52,"rssi":-90,"size":2,"data":"QAE="}]}"#);
    assert_eq!((rxpk.datr, rxpk.hpw), (Datr::LrFhss { channel_width_khz: 137 }, Some(52)));
    assert_eq!((rxpk.datr.modu(), rxpk.datr.text().as_deref()), ("LR-FHSS", Some("M0CW137")));
}

#[test]
fn the_crc_status_is_kept() {
    let stat = |field: &str| one(&format!(r#"{{"rxpk":[{{"freq":1,"datr":50000,"data":"QAE="{field}}}]}}"#)).stat;
    assert_eq!([stat(r#","stat":-1"#), stat(r#","stat":0"#), stat(r#","stat":1.0"#), stat("")], [-1, 0, 1, 1]);
}

#[test]
fn numbers_in_every_dress() {
    let rxpk = one(r#"{"rxpk":[{"tmst":"12345.0","freq":"868.5","chan":null,"rfch":1e0,"rssi":-107.6,"lsnr":"-2.25",
        "foff":{},"mid":-4,"datr":"SF7BW125","size":2.0,"data":"QAE="}]}"#);
    assert_eq!((rxpk.tmst, rxpk.freq, rxpk.chan, rxpk.rfch), (Some(12345), 868_500_000, None, Some(1)));
    assert_eq!((rxpk.rssi, rxpk.lsnr, rxpk.foff, rxpk.mid), (Some(-108), Some(-2.25), None, Some(0)));
    // A counter wider than 32 bits, and one printed as signed.
    for (tmst, expected) in [("4294967297", 1), ("-1", u32::MAX), ("4294967295", u32::MAX)] {
        let json = format!(r#"{{"rxpk":[{{"tmst":{tmst},"freq":868.1,"datr":"SF7BW125","data":"QAE="}}]}}"#);
        assert_eq!(one(&json).tmst, Some(expected), "{tmst}");
    }
}

#[test]
fn data_rates_in_either_case() {
    let datr = |modu: &str, datr: &str| {
        one(&format!(r#"{{"rxpk":[{{"freq":868.1,"modu":"{modu}","datr":"{datr}","data":"QAE="}}]}}"#)).datr
    };
    for text in ["SF7BW125", "sf7bw125", "Sf7bW125"] {
        assert_eq!(datr("lora", text), Datr::Lora { spreading_factor: 7, bandwidth_khz: 125 }, "{text}");
    }
    assert_eq!(datr("lr-fhss", "m0cw137"), Datr::LrFhss { channel_width_khz: 137 });
}

#[test]
fn base64_in_every_dress() {
    for text in ["+/8=", "+/8", "-_8=", "-_8", r"+\/8="] {
        let json = format!(r#"{{"rxpk":[{{"freq":868.1,"datr":"SF7BW125","size":2,"data":"{text}"}}]}}"#);
        assert_eq!(one(&json).data, [0xfb, 0xff], "{text}");
    }
}

#[test]
fn one_bad_packet_costs_no_other_and_says_why() {
    let good = r#"{"freq":868.1,"datr":"SF7BW125","data":"QAE="}"#;
    let long = format!(r#"{{"freq":868.1,"datr":"SF7BW125","data":"{}"}}"#, "A".repeat(344));
    for (bad, expected) in [
        ("7", RxpkError::Malformed),
        ("[]", RxpkError::Malformed),
        (r#"{"datr":"SF7BW125","data":"QAE="}"#, RxpkError::Frequency),
        (r#"{"freq":-1,"datr":"SF7BW125","data":"QAE="}"#, RxpkError::Frequency),
        (r#"{"freq":868100000,"datr":"SF7BW125","data":"QAE="}"#, RxpkError::Frequency),
        (r#"{"freq":868.1,"modu":"OFDM","datr":1,"data":"QAE="}"#, RxpkError::Modulation),
        (r#"{"freq":868.1,"modu":"LORA","datr":50000,"data":"QAE="}"#, RxpkError::DataRate),
        (r#"{"freq":868.1,"modu":"LORA","datr":"SF4BW125","data":"QAE="}"#, RxpkError::DataRate),
        (r#"{"freq":868.1,"modu":"LORA","datr":"SF+7BW125","data":"QAE="}"#, RxpkError::DataRate),
        (r#"{"freq":868.1,"modu":"FSK","datr":0,"data":"QAE="}"#, RxpkError::DataRate),
        (r#"{"freq":868.1,"modu":"LR-FHSS","datr":"MCW","data":"QAE="}"#, RxpkError::DataRate),
        (r#"{"freq":868.1,"datr":"SF7BW125"}"#, RxpkError::Data),
        (r#"{"freq":868.1,"datr":"SF7BW125","data":"Q!E="}"#, RxpkError::Data),
        (&long, RxpkError::TooLong),
    ] {
        let json = format!(r#"{{"rxpk":[{good},{bad},{good}]}}"#);
        let read = parse_push_data(json.as_bytes()).unwrap();
        assert!(read.rxpk[0].is_ok() && read.rxpk[2].is_ok(), "{bad}");
        assert_eq!(read.rxpk[1].as_ref().unwrap_err(), &expected, "{bad}");
    }
}

/// A PUSH_DATA of three packets and a status, broken in one place: what is sound comes through.
#[test]
fn json_broken_in_one_place_costs_no_sound_packet() {
    let packet = |tmst: u32| {
        format!(
            r#"{{"tmst":{tmst},"freq":868.1,"stat":1,"datr":"SF7BW125","rssi":-35,"lsnr":5.1,"rsig":[{{"ant":0}}],"size":2,"data":"QAE="}}"#
        )
    };
    let stat = r#"{"time":"2014-01-12 08:59:28 GMT","lati":46.24,"long":3.25,"rxnb":7,"desc":"roof"}"#;
    let first = format!(r#"{{"stat":{stat},"rxpk":[{},{},{}]}}"#, packet(1), packet(2), packet(3));
    let last = format!(r#"{{"rxpk":[{},{},{}],"stat":{stat}}}"#, packet(1), packet(2), packet(3));
    // What is put in place of what (once), the packets that come through, and what is counted.
    let cases: &[(&str, &str, &[u32], &[&str])] = &[
        (r#""desc":"roof"}"#, r#""desc}"#, &[1, 2, 3], &[]),
        (r#""desc":"roof"}"#, r#""desc":"roof}"#, &[1, 2, 3], &[]),
        (r#""desc":"roof"}"#, r#""desc":roof"}"#, &[1, 2, 3], &[]),
        (r#""desc":"roof"}"#, r#""desc":}"#, &[1, 2, 3], &[]),
        (r#""desc":"roof"}"#, r#""desc":"my "best" roof"}"#, &[1, 2, 3], &[]),
        (r#""desc":"roof"}"#, r#""desc":"roof""#, &[1, 2, 3], &[]),
        ("roof", "a\u{1}\t\r\n\u{7f}", &[1, 2, 3], &[]),
        ("roof", r"\x41 \ud800 \u12 \", &[1, 2, 3], &[]),
        ("roof", "\u{0}", &[1, 2, 3], &[]),
        ("46.24", "nan", &[1, 2, 3], &[]),
        ("46.24", "", &[1, 2, 3], &[]),
        (r#""rxnb":7"#, r#""rxnb":7,"rxnb":8"#, &[1, 2, 3], &[]),
        ("\"lsnr\":5.1", "\"lsnr\":NaN", &[1, 2, 3], &[]),
        ("\"lsnr\":5.1", "\"lsnr\":-Infinity", &[1, 2, 3], &[]),
        ("\"lsnr\":5.1", "\"lsnr\":1e999", &[1, 2, 3], &[]),
        ("\"lsnr\":5.1", "\"lsnr\":+5.", &[1, 2, 3], &[]),
        ("\"lsnr\":5.1", "\"lsnr\":", &[1, 2, 3], &[]),
        ("\"lsnr\":5.1", "\"lsnr\":5,1", &[1, 2, 3], &[]),
        ("\"freq\":868.1", "\"freq\":868,100000", &[1, 2, 3], &[]),
        ("\"tmst\":1,", "\"tmst\":1 ", &[1, 2, 3], &[]),
        ("\"freq\":868.1", "\"freq\":868.1.0", &[2, 3], &["rxpk_frequency"]),
        ("\"size\":2", "\"size\":20", &[1, 2, 3], &[]),
        ("\"size\":2", "\"size\":\"2\"", &[1, 2, 3], &[]),
        ("\"freq\":868.1", "\"freq\":\"868.1\"", &[1, 2, 3], &[]),
        ("\"freq\":868.1", "\"freq\":868.1,\"freq\":null", &[1, 2, 3], &[]),
        ("\"freq\":868.1", "\"freq\":7,\"freq\":868.1", &[1, 2, 3], &[]),
        ("\"rssi\":-35", "\"rssid\":1,\"rssisd\":2", &[1, 2, 3], &[]),
        ("\"data\":\"QAE=\"", "\"data\":\"QAE=\",", &[1, 2, 3], &[]),
        ("[{\"ant\":0}]", "[{\"ant\":0,}]", &[1, 2, 3], &[]),
        ("[{\"ant\":0}]", "[{\"ant\":0,\"ant\":0}]", &[1, 2, 3], &[]),
        ("[{\"ant\":0}]", "[{\"ant\":0}", &[2, 3], &["rxpk_malformed"]),
        ("[{\"ant\":0}]", "[{\"ant\":0]", &[2, 3], &["rxpk_malformed"]),
        ("[{\"ant\":0}],\"size\":2,\"data\":\"QAE=\"}", "[{\"ant\":0}", &[2, 3], &["rxpk_malformed"]),
        ("\"datr\":\"SF7BW125\"", "\"datr\":\"SF7BW125", &[2, 3], &["rxpk_malformed"]),
        ("\"data\":\"QAE=\"}", "\"data\":\"QAE=\"", &[1, 2, 3], &[]),
        ("\"data\":\"QAE=\"}", "\"data\":\"QA", &[2, 3], &["rxpk_malformed"]),
        ("},{\"tmst\":2", "}{\"tmst\":2", &[1, 2, 3], &[]),
        ("},{\"tmst\":2", "},,{\"tmst\":2", &[1, 2, 3], &[]),
        ("},{\"tmst\":2", "},nan,{\"tmst\":2", &[1, 2, 3], &["rxpk_malformed"]),
        ("}]", "},]", &[1, 2, 3], &[]),
        ("\"rxpk\":[", "\"rxpk\":", &[1, 2, 3], &[]),
        ("\"rxpk\":[", "\"rxpk:[", &[1, 2, 3], &[]),
        ("\"rxpk\":[", "rxpk\":[", &[1, 2, 3], &[]),
        ("\"rxpk\":[", "\"rxpk\":[],\"rxpk\":[", &[1, 2, 3], &[]),
        ("},{\"tmst\":3", "}],\"rxpk\":[{\"tmst\":3", &[1, 2, 3], &[]),
        ("{\"", "\u{feff}{\"", &[1, 2, 3], &[]),
        ("{\"", "{{\"", &[1, 2, 3], &[]),
        ("{\"", "\"", &[1, 2, 3], &[]),
    ];
    for (sound, instead, packets, reasons) in cases {
        for whole in [&first, &last] {
            assert!(whole.contains(sound), "{sound}");
            reads(whole.replacen(sound, instead, 1).as_bytes(), packets, reasons);
        }
    }
    for (end, packets, reasons) in
        [("\0\0", &[1, 2, 3][..], &[][..]), ("}}", &[1, 2, 3], &[]), ("garbage \"{", &[1, 2, 3], &[])]
    {
        reads(format!("{first}{end}").as_bytes(), packets, reasons);
        reads(format!("{last}{end}").as_bytes(), packets, reasons);
    }
    let invalid: Vec<u8> =
        last.replace("roof", "Z~rich\u{1}").bytes().map(|b| if b == b'~' { 0xfc } else { b }).collect();
    reads(&invalid, &[1, 2, 3], &[]);
    // Cut anywhere: what is whole before the cut comes through.
    for at in 0..first.len() {
        let whole = (1..=3).filter(|n| first.find(&packet(*n)).unwrap() + packet(*n).len() <= at);
        let whole: Vec<u32> = whole.collect();
        let read = parse_push_data(&first.as_bytes()[..at]).unwrap_or_default();
        let read: Vec<u32> = read.rxpk.iter().flatten().filter_map(|packet| packet.tmst).collect();
        assert!(read.starts_with(&whole), "{whole:?} but {read:?} of {}", &first[..at]);
    }
}

fn reads(json: &[u8], packets: &[u32], reasons: &[&str]) {
    let shown = String::from_utf8_lossy(json);
    let read = parse_push_data(json).unwrap_or_else(|error| panic!("{error} of {shown}"));
    let came: Vec<u32> = read.rxpk.iter().flatten().filter_map(|packet| packet.tmst).collect();
    let lost: Vec<&str> = read.rxpk.iter().filter_map(|packet| Some(packet.as_ref().err()?.reason())).collect();
    assert_eq!((&came[..], &lost[..]), (packets, reasons), "{shown}");
    for packet in read.rxpk.iter().flatten() {
        assert_eq!((packet.freq, &packet.data[..]), (868_100_000, &[0x40, 1][..]), "{shown}");
    }
}

/// Of a status that is cut, what was whole; of a field that is there twice, the last that has a value.
#[test]
fn a_broken_status_is_read_as_far_as_it_goes() {
    for (json, rxnb) in [
        (r#"{"stat":{"rxnb":7,"desc}"#, 7),
        (r#"{"stat":{"rxnb":7,"desc":"roof}}"#, 7),
        (r#"{"stat":{"rxnb":6,"rxnb":7,"rxnb":NaN}}"#, 7),
        (r#"{"stat":{"rxnb":7},}"#, 7),
        (r#"{"stat":{"rxnb":6},"stat":{"rxnb":7}}"#, 7),
        (r#"{"stat":{"rxnb":007}}"#, 7),
    ] {
        assert_eq!(parse_push_data(json.as_bytes()).unwrap().stat.unwrap().unwrap().rxnb, Some(rxnb), "{json}");
    }
}

/// Text made to be read again and again takes no longer than other text of its length.
#[test]
fn broken_json_is_read_in_few_passes() {
    for piece in [
        "{",
        "{\"",
        "{\"a\":",
        "{\"a\":\"",
        "{\"a\":{",
        "{\"rxpk\":[",
        "{\"rxpk\":[{",
        "[",
        "\"stat\":{",
        "{\"a\":{\"freq\":1,\"data\":1",
        "{\\\"",
        "\\{\"a\":\"",
    ] {
        let json = piece.repeat(65_000 / piece.len());
        assert!(parse_push_data(json.as_bytes()).unwrap_or_default().rxpk.len() <= 255, "{piece}");
    }
}

#[test]
fn junk_and_floods_are_refused_whole() {
    for junk in [&b""[..], b"{", b"[]", b"null", b"{}x", br#"{"rxpk":{}}"#, b"\xff\xfe"] {
        assert_eq!(parse_push_data(junk), Err(JsonError::Malformed), "{junk:?}");
    }
    let list = |n: usize| format!(r#"{{"rxpk":[{}]}}"#, vec!["1"; n].join(","));
    assert_eq!(parse_push_data(list(255).as_bytes()).unwrap().rxpk.len(), 255);
    assert_eq!(parse_push_data(list(256).as_bytes()), Err(JsonError::TooManyPackets));
    let deep = format!(r#"{{"rxpk":[{{"x":{}"#, "[".repeat(60_000));
    assert_eq!(parse_push_data(deep.as_bytes()), Err(JsonError::Malformed));
    let antennas = vec!["{}"; 20_000].join(",");
    let many = format!(r#"{{"rxpk":[{{"freq":868.1,"datr":"SF7BW125","data":"QAE=","rsig":[{antennas}]}}]}}"#);
    assert!(one(&many).rsig.len() <= 32);
    assert_eq!(parse_push_data(b"{}"), Ok(PushData::default()));
    assert_eq!(parse_push_data(b"{\"rxpk\":null}\0\n"), Ok(PushData::default()));
}

#[test]
fn a_downlink_as_forwarders_need_it() {
    let datr = Datr::Lora { spreading_factor: 9, bandwidth_khz: 125 };
    let mut txpk = Txpk::at(u32::MAX, 869_525_000, 27, datr, vec![0x60, 0xff]);
    let expected = concat!(
        r#"{"txpk":{"imme":false,"tmst":4294967295,"freq":869.525,"rfch":0,"powe":27,"modu":"LORA","datr":"SF9BW125","#,
        r#""codr":"4/5","ipol":true,"ncrc":true,"size":2,"data":"YP8="}}"#
    );
    assert_eq!(String::from_utf8(txpk.to_json()).unwrap(), expected);
    assert_eq!(parse_pull_resp(&txpk.to_json()), Ok(txpk.clone()));
    // A time makes "at once" a contradiction.
    txpk.imme = true;
    assert_eq!(String::from_utf8(txpk.to_json()).unwrap(), expected);
    let fsk = Txpk::at(1, 868_800_000, 14, Datr::Fsk { bit_rate: 50_000 }, vec![1]);
    let expected = concat!(
        r#"{"txpk":{"imme":false,"tmst":1,"freq":868.8,"rfch":0,"powe":14,"modu":"FSK","datr":50000,"fdev":25000,"#,
        r#""ipol":false,"prea":5,"size":1,"data":"AQ=="}}"#
    );
    assert_eq!(String::from_utf8(fsk.to_json()).unwrap(), expected);
    assert_eq!(parse_pull_resp(&fsk.to_json()), Ok(fsk.clone()));
    let now = Txpk { imme: true, tmst: None, ..fsk };
    assert!(String::from_utf8(now.to_json()).unwrap().starts_with(r#"{"txpk":{"imme":true,"freq":868.8,"#));
}

#[test]
fn a_downlink_that_some_forwarder_would_drop_is_no_downlink() {
    let whole = r#"{"txpk":{"imme":false,"tmst":1,"freq":868.1,"rfch":0,"powe":14,"modu":"LORA","datr":"SF9BW125",
        "codr":"4/5","ipol":true,"size":2,"data":"YP8="}}"#;
    assert!(parse_pull_resp(whole.as_bytes()).is_ok());
    for (part, instead, field) in [
        (r#""imme":false,"#, "", "imme"),
        (r#""tmst":1,"#, "", "tmst"),
        (r#""freq":868.1,"#, "", "freq"),
        (r#""rfch":0,"#, "", "rfch"),
        (r#""powe":14,"#, "", "powe"),
        (r#""powe":14,"#, r#""powe":-1,"#, "powe"),
        (r#""powe":14,"#, r#""powe":14.5,"#, "powe"),
        (r#""datr":"SF9BW125","#, "", "datr"),
        (r#""codr":"4/5","#, "", "codr"),
        (r#""ipol":true,"#, "", "ipol"),
        (r#""size":2,"#, "", "size"),
        (r#""size":2,"#, r#""size":3,"#, "size"),
        (r#","data":"YP8=""#, "", "data"),
    ] {
        let json = whole.replace(part, instead);
        assert_eq!(parse_pull_resp(json.as_bytes()), Err(JsonError::Field(field)), "{json}");
    }
}

#[test]
fn three_forms_of_yes() {
    let none = br#"{"txpk_ack":{"error":"NONE"}}"#;
    let empty = br#"{"txpk_ack":{"error":""}}"#;
    for yes in [&b""[..], b"\0", none, empty, b"{}", br#"{"txpk_ack":{}}"#] {
        assert_eq!(parse_tx_ack(yes), Ok(TxAckResult::Sent(None)), "{yes:?}");
    }
    let semtech = br#"{"txpk_ack":{"warn":"TX_POWER","value":20}}"#;
    let both = br#"{"txpk_ack":{"error":"NONE","warn":"TX_POWER","value":"20"}}"#;
    for warned in [&semtech[..], both] {
        let Ok(TxAckResult::Sent(Some(warning))) = parse_tx_ack(warned) else { panic!("{warned:?}") };
        assert_eq!((warning.word.as_str(), warning.value), ("TX_POWER", Some(20.0)));
    }
    assert_eq!(parse_tx_ack(b"yes"), Err(JsonError::Malformed));
}

#[test]
fn every_form_of_no() {
    for (word, reason) in [
        ("TOO_LATE", "too_late"),
        ("TOO_EARLY", "too_early"),
        ("COLLISION_PACKET", "collision_packet"),
        ("COLLISION_BEACON", "collision_beacon"),
        ("TX_FREQ", "tx_freq"),
        ("TX_POWER", "tx_power"),
        ("GPS_UNLOCKED", "gps_unlocked"),
        ("INTERNAL_ERROR", "other"),
    ] {
        let body = TxAckBody { error: Some(word.into()), ..TxAckBody::default() };
        let Ok(TxAckResult::Refused(error)) = parse_tx_ack(&body.to_json()) else { panic!("{word}") };
        assert_eq!((error.as_str(), error.reason()), (word, reason));
    }
    let endless = format!(r#"{{"txpk_ack":{{"error":"\u0007{}"}}}}"#, "é".repeat(5000));
    let read = parse_tx_ack(endless.as_bytes());
    assert_eq!(read, Ok(TxAckResult::Refused(TxError::Other("é".repeat(16)))));
}
