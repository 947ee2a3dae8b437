//! Frames that other projects published or built, read and built here byte for byte.
//!
//! Origins:
//! * A: the README and tests of `lora-packet` (npm, 0.9.3).
//! * B: the tests of the Go library `brocaar/lorawan` (`phypayload_test.go`).
//! * C: the tests of the crate `lorawan` (0.9.0), of which some are those of B.
//! * D: made with `lora-packet` 0.9.3 (`fromFields`, `generateSessionKeys`) for what nobody published: counters
//!   beyond 16 bits, FPort 0 in both directions, the longest payload, Join-accepts with either CFList.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use limpet_shared::{
    AesKey, DevAddr, Eui64,
    lorawan::{
        DataFrame, DataSpec, Direction, FCtrl, Frame, FrameError, JoinAccept, JoinRequest, Keys, build_data, parse,
        session_keys,
    },
};

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).unwrap()
}

fn key(hex: &str) -> AesKey {
    hex.parse().unwrap()
}

fn data(phy: &[u8]) -> DataFrame<'_> {
    match parse(phy).unwrap() {
        Frame::Data(frame) => frame,
        other => panic!("{other:?} is no data frame"),
    }
}

fn join_request(phy: &[u8]) -> JoinRequest {
    match parse(phy).unwrap() {
        Frame::JoinRequest(request) => request,
        other => panic!("{other:?} is no Join-request"),
    }
}

/// The keys of every vector of A and D.
fn lora_packet_keys() -> Keys {
    Keys { nwk_s_key: key("44024241ed4ce9a68c6a8bc055233fd3"), app_s_key: key("ec925802ae430ca77fd3dd73cb2cc588") }
}

/// The keys of the data frames of B and C.
fn hello_keys() -> Keys {
    Keys { nwk_s_key: AesKey([2; 16]), app_s_key: AesKey([1; 16]) }
}

/// Everything about a data frame that a receiver reads must equal `spec`, and `spec` must build these bytes.
fn check_data(hex: &str, keys: &Keys, spec: &DataSpec) {
    let phy = bytes(hex);
    let frame = data(&phy);
    assert_eq!(frame.direction, spec.direction, "{hex}");
    assert_eq!(frame.confirmed, spec.confirmed, "{hex}");
    assert_eq!(frame.dev_addr, spec.dev_addr, "{hex}");
    assert_eq!(frame.fctrl, spec.fctrl, "{hex}");
    assert_eq!(u32::from(frame.fcnt), spec.fcnt & 0xffff, "{hex}");
    assert_eq!(frame.fopts, spec.fopts, "{hex}");
    assert_eq!(frame.fport, spec.fport, "{hex}");
    assert!(frame.verify(&keys.nwk_s_key, spec.fcnt), "{hex}: MIC");
    assert!(!frame.verify(&keys.app_s_key, spec.fcnt), "{hex}: MIC of another key");
    assert!(!frame.verify(&keys.nwk_s_key, spec.fcnt ^ 0x1_0000), "{hex}: MIC of another 65536 frames");
    assert_eq!(frame.decrypt(keys, spec.fcnt), spec.payload, "{hex}");
    assert_eq!(hex::encode(build_data(spec, keys).unwrap()), hex.to_lowercase());
}

/// An unconfirmed uplink of the device that A uses.
fn uplink_a<'a>(fcnt: u32, fport: Option<u8>, payload: &'a [u8]) -> DataSpec<'a> {
    DataSpec {
        direction: Direction::Up,
        confirmed: false,
        dev_addr: DevAddr(0x49be_7df1),
        fctrl: FCtrl::default(),
        fcnt,
        fopts: &[],
        fport,
        payload,
    }
}

/// A frame of the device that D uses.
fn frame_d<'a>(direction: Direction, fcnt: u32, fport: u8, payload: &'a [u8]) -> DataSpec<'a> {
    DataSpec { direction, dev_addr: DevAddr(0x2601_1bda), ..uplink_a(fcnt, Some(fport), payload) }
}

#[test]
fn uplinks_of_lora_packet() {
    let keys = lora_packet_keys();
    check_data("40F17DBE4900020001954378762B11FF0D", &keys, &uplink_a(2, Some(1), b"test"));
    check_data("40F17DBE49000300012A3518AF", &keys, &uplink_a(3, Some(1), b""));
    // Published for its decryption; its MIC is right too.
    check_data(
        "40f17dbe490004000155332de41a11adc072553544429ce7787707d1c316e027e7e5e334263376affb8aa17ad30075293f28dea8a20af3\
         c5e7",
        &keys,
        &uplink_a(4, Some(1), b"The quick brown fox jumps over the lazy dog."),
    );
}

#[test]
fn an_ack_of_lora_packet() {
    let fctrl = FCtrl { ack: true, ..FCtrl::default() };
    let spec = DataSpec { direction: Direction::Down, fctrl, ..uplink_a(2, Some(1), b"") };
    check_data("60f17dbe4920020001f9d65d27", &lora_packet_keys(), &spec);
}

#[test]
fn a_wrong_mic_of_lora_packet() {
    let phy = bytes("40F17DBE49000300012A3518AA");
    assert!(!data(&phy).verify(&lora_packet_keys().nwk_s_key, 3));
    let phy = bytes("0039363463336913AA05693574323831330489C65B1305");
    assert!(!join_request(&phy).verify(&key("98929b92c49edba9676d646d3b612456")));
}

#[test]
fn data_frames_of_brocaar_and_the_crate() {
    let hello = |direction, confirmed, fcnt, fport, payload| DataSpec {
        direction,
        confirmed,
        dev_addr: DevAddr(0x0102_0304),
        fctrl: FCtrl { adr: true, ..FCtrl::default() },
        fcnt,
        fopts: &[],
        fport: Some(fport),
        payload,
    };
    check_data("400403020180010001a694642615d6c3b582", &hello_keys(), &hello(Direction::Up, false, 1, 1, b"hello"));
    // FCnt 76543 = 0x12aff: only 0x2aff is on air.
    check_data(
        "a00403020180ff2a2a0af1a36a05d0125f885d881d49e1",
        &hello_keys(),
        &hello(Direction::Down, true, 76_543, 42, b"hello lora"),
    );
    let keys = Keys {
        nwk_s_key: AesKey([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
        app_s_key: AesKey([16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
    };
    let spec = DataSpec { fctrl: FCtrl::default(), ..hello(Direction::Up, true, 0, 10, &[1, 2, 3, 4]) };
    check_data("80040302010000000ae264d4f7b56a0e75", &keys, &spec);
}

#[test]
fn mac_commands_in_either_place_of_the_crate() {
    let keys = Keys { nwk_s_key: AesKey([1; 16]), app_s_key: AesKey([0; 16]) };
    let spec = DataSpec { dev_addr: DevAddr(0x0102_0304), ..uplink_a(0, Some(0), &[0x02, 0x03, 0x05]) };
    check_data("40040302010000000069369eee6aa508", &keys, &spec);
    let spec = DataSpec { fopts: &[0x02, 0x03, 0x05], fport: None, payload: &[], ..spec };
    check_data("4004030201030000020305d7fa0c6c", &keys, &spec);
}

#[test]
fn counters_beyond_16_bits_and_fport_0_of_lora_packet() {
    let keys = lora_packet_keys();
    let long_payload = bytes("00ff10ef20df30cf40bf50af609f708f80");
    check_data(
        "80da1b0126c2ffff0d02c8f3cba39b23820b2b5acc38ec5d0e56434f0cbab122",
        &keys,
        &DataSpec {
            confirmed: true,
            fctrl: FCtrl { adr: true, adr_ack_req: true, ..FCtrl::default() },
            fopts: &[0x0d, 0x02],
            ..frame_d(Direction::Up, 0x0001_ffff, 200, &long_payload)
        },
    );
    check_data(
        "40da1b012620000001bd37d0ccb28dc85b39c45ebcdb453302b3a5d95a",
        &keys,
        &DataSpec {
            fctrl: FCtrl { ack: true, ..FCtrl::default() },
            ..frame_d(Direction::Up, 0x0002_0000, 1, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
        },
    );
    let commands = [0x03, 0x07, 0x06, 0x0a, 0x05];
    check_data("40da1b012600ffff00bb5f338607b89fb05c", &keys, &frame_d(Direction::Up, u32::MAX, 0, &commands));
    let commands = [0x02, 0x0b, 0x01, 0x06, 0x08, 0x00];
    check_data("60da1b01260007000028597baa81cb5c92b8b6", &keys, &frame_d(Direction::Down, 7, 0, &commands));
    check_data(
        "a0da1b0126b5002b0305ff00010a079ed2cb5ac583325353",
        &keys,
        &DataSpec {
            confirmed: true,
            fctrl: FCtrl { adr: true, ack: true, f_pending: true, ..FCtrl::default() },
            fopts: &[0x03, 0x05, 0xff, 0x00, 0x01],
            ..frame_d(Direction::Down, 0x0001_2b00, 10, b"limpet")
        },
    );
}

#[test]
fn the_longest_payload_of_lora_packet() {
    let payload: Vec<u8> = (0..242).collect();
    check_data(
        "40da1b0126003412dfd040c5551e5912ab238a4e7864754a441a0c0e787fa34c9bb3931e4f4fd12caf342bce4b85f482fd76d62f3c4f\
         d334fb4a7696f3231f75df4da188534410d3d4c11920db61db49f6b1142b27610ef912035060ff5e3b49a7229f8fe7558f3f6672ceaa\
         399a6517fbdb07f68a107ae67d2a323e051c97083662bdfa1fe4709e90039ffca3ce9e813db4fa851a0a2576aa9c28b3bcef9788eed7\
         738d338642f51a1bd7f47c2e7bffbea97ca5e247afad6e9b090d4bef055c1d43bedbc1b2832c3907a40183634aa1ffc728f6701e0a78\
         8f6f1c6792904f1dc0531a2c7c88a6e4d395fde03c000c2c18a50673fa117daed890026c3f5400",
        &lora_packet_keys(),
        &frame_d(Direction::Up, 0x1234, 223, &payload),
    );
}

#[test]
fn join_requests() {
    let vectors = [
        // A
        (
            "0039363463336913aa05693574323831330489c65b1304",
            "98929b92c49edba9676d646d3b612456",
            "aa13693363343639",
            "3331383274356905",
            0x8904,
        ),
        // B and C
        (
            "00040302010403020105040302050403022d106a990e12",
            "01010101010101010101010101010101",
            "0102030401020304",
            "0203040502030405",
            0x102d,
        ),
        // B
        (
            "0001010101010101010202020202020202030309b97b32",
            "0102030405060708090a0b0c0d0e0f10",
            "0101010101010101",
            "0202020202020202",
            0x0303,
        ),
        // D
        (
            "002b1a00d07ed5b37030051c000ba30400efbe8e532e9d",
            "98929b92c49edba9676d646d3b612456",
            "70b3d57ed0001a2b",
            "0004a30b001c0530",
            0xbeef,
        ),
    ];
    for (hex, app_key, join_eui, dev_eui, dev_nonce) in vectors {
        let (phy, app_key) = (bytes(hex), key(app_key));
        let (join_eui, dev_eui): (Eui64, Eui64) = (join_eui.parse().unwrap(), dev_eui.parse().unwrap());
        let request = join_request(&phy);
        assert_eq!((request.join_eui, request.dev_eui, request.dev_nonce), (join_eui, dev_eui, dev_nonce), "{hex}");
        assert!(request.verify(&app_key), "{hex}");
        assert!(!request.verify(&AesKey([9; 16])), "{hex}");
        assert_eq!(hex::encode(JoinRequest::build(join_eui, dev_eui, dev_nonce, &app_key)), hex);
    }
}

/// `hex` must open to `accept`, and `accept` must build it; the wrong key and a changed byte must be refused.
fn check_join_accept(hex: &str, app_key: &AesKey, accept: &JoinAccept) {
    let phy = bytes(hex);
    assert_eq!(parse(&phy), Ok(Frame::JoinAccept(&phy)), "{hex}");
    assert_eq!(JoinAccept::open(&phy, app_key), Ok(*accept), "{hex}");
    assert_eq!(hex::encode(accept.build(app_key)), hex);
    assert_eq!(JoinAccept::open(&phy, &AesKey([9; 16])), Err(FrameError::BadMic), "{hex}");
    let mut forged = phy;
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(JoinAccept::open(&forged, app_key), Err(FrameError::BadMic), "{hex}");
}

fn plain_accept(join_nonce: u32, net_id: u32, dev_addr: u32) -> JoinAccept {
    JoinAccept {
        join_nonce,
        net_id,
        dev_addr: DevAddr(dev_addr),
        rx1_dr_offset: 0,
        rx2_data_rate: 0,
        rx_delay: 0,
        cf_list: None,
    }
}

#[test]
fn join_accepts_without_a_cf_list() {
    // B and C
    let app_key = key("00112233445566778899aabbccddeeff");
    check_join_accept("20493eeb51fba2116f810edb3742975142", &app_key, &plain_accept(0x57_0bc7, 0x22_1101, 0x0203_1980));
    // B
    let app_key = key("0102030405060708090a0b0c0d0e0f10");
    check_join_accept("2023cf335489aae3183c0be0baa8dee5f3", &app_key, &plain_accept(0x01_0101, 0x02_0202, 0x0102_0304));
    // A
    check_join_accept("20e3de108795f776b8037610ef7869b5b3", &AesKey([0; 16]), &plain_accept(0, 0, 0));
    // D
    let app_key = key("98929b92c49edba9676d646d3b612456");
    let accept = JoinAccept {
        rx1_dr_offset: 2,
        rx2_data_rate: 3,
        rx_delay: 5,
        ..plain_accept(0xe5_063a, 0xc0_0053, 0xfc00_d1e5)
    };
    check_join_accept("2012c65900e5ceda2082e709be8e35cf9d", &app_key, &accept);
}

#[test]
fn join_accepts_with_a_cf_list() {
    // 867.1, 867.3, 867.5, 867.7 and 867.9 MHz.
    let frequencies: [u8; 16] = bytes("184f84e85684b85e84886684586e8400").try_into().unwrap();
    // C
    let phy = bytes("20e45673b63cb4b9cecb2aa83f0333e615d2ac89eea1659837c3aa6df9689889cf");
    let accept = JoinAccept::open(&phy, &AesKey([1; 16])).unwrap();
    assert_eq!((accept.join_nonce, accept.rx1_dr_offset, accept.rx2_data_rate), (0x01_0203, 1, 2));
    assert_eq!((accept.rx_delay, accept.cf_list), (3, Some(frequencies)));
    assert_eq!(accept.build(&AesKey([1; 16])), phy);
    // D
    let app_key = key("98929b92c49edba9676d646d3b612456");
    let accept = JoinAccept {
        rx1_dr_offset: 2,
        rx2_data_rate: 3,
        rx_delay: 5,
        cf_list: Some(frequencies),
        ..plain_accept(0xe5_063a, 0xc0_0053, 0xfc00_d1e5)
    };
    check_join_accept("20d1728950de43a2c2dbd278dbbbae99fe23e64489a48a3f93b842cb50653b2348", &app_key, &accept);
    // D: the channel mask of US915's second sub-band.
    let mask: [u8; 16] = bytes("00ff0000000000000200000000000001").try_into().unwrap();
    let accept = JoinAccept { rx1_dr_offset: 0, rx2_data_rate: 8, rx_delay: 1, cf_list: Some(mask), ..accept };
    check_join_accept("20f7f40a6866b937c0d2dd4dc39e8c3de6607d1425579facd4f9fb3550a62a2776", &app_key, &accept);
}

#[test]
fn session_keys_of_a_join() {
    let derived = |app_key: &str, join_nonce, net_id, dev_nonce| {
        let keys = session_keys(&key(app_key), join_nonce, net_id, dev_nonce);
        (keys.nwk_s_key.to_hex(), keys.app_s_key.to_hex())
    };
    // A
    let keys = derived("98929b92c49edba9676d646d3b612456", 0x37_6338, 0xaa_bbcc, 0xf18e);
    assert_eq!(keys, ("4e3d6e6afbcc67af2ba3c8e8ec4acf4b".into(), "610897aa6f1460623443b527d3ac6a9d".into()));
    // C, for the first Join-accept above and the Join-request with DevNonce 0x102d.
    let keys = derived("00112233445566778899aabbccddeeff", 0x57_0bc7, 0x22_1101, 0x102d);
    assert_eq!(keys, ("7bb25f89e0d1371e1fbf4d997e1468a3".into(), "148820dfb1e0c9d6289cde16c1af249f".into()));
    // D
    let keys = derived("98929b92c49edba9676d646d3b612456", 0xe5_063a, 0xc0_0053, 0xbeef);
    assert_eq!(keys, ("e530deb75338069405078532da8110a9".into(), "c1811a1cc8927e205d3508ba516e0e84".into()));
}
