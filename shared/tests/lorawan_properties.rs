//! What must hold for any bytes and any frame, with the crate `lorawan` as a second opinion.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use limpet_shared::{
    AesKey, DevAddr, Eui64, UnixMicros,
    lorawan::{
        DataFrame, DataSpec, Direction, FCtrl, Frame, FrameError, JoinAccept, JoinRequest, Keys, build_data,
        mac::{self, DownlinkCommand, End, UplinkCommand, parse_downlink, parse_uplink},
        parse, session_keys,
    },
};
use lorawan_encoding::{
    keys::{AES128, AppKey},
    maccommands::{DownlinkMacCommand, MacCommandIterator, SerializableMacCommand, UplinkMacCommand},
    parser::{
        AsPhyPayloadBytes, DataHeader, DecryptedJoinAcceptPayload, DevNonce, EncryptedDataPayload, FRMPayload,
        JoinRequestPayload,
    },
};
use proptest::{collection::vec, prelude::*};

/// A data frame's parts with their bytes owned.
#[derive(Clone, Debug)]
struct Owned {
    direction: Direction,
    confirmed: bool,
    dev_addr: DevAddr,
    fctrl: FCtrl,
    fcnt: u32,
    fopts: Vec<u8>,
    fport: Option<u8>,
    payload: Vec<u8>,
    keys: Keys,
}

impl Owned {
    fn spec(&self) -> DataSpec<'_> {
        DataSpec {
            direction: self.direction,
            confirmed: self.confirmed,
            dev_addr: self.dev_addr,
            fctrl: self.fctrl,
            fcnt: self.fcnt,
            fopts: &self.fopts,
            fport: self.fport,
            payload: &self.payload,
        }
    }
}

fn any_key() -> impl Strategy<Value = AesKey> + Clone {
    any::<[u8; 16]>().prop_map(AesKey)
}

/// Only flags that the direction has.
fn any_fctrl(direction: Direction) -> impl Strategy<Value = FCtrl> {
    let up = direction == Direction::Up;
    any::<[bool; 4]>().prop_map(move |[adr, ack, a, b]| FCtrl {
        adr,
        ack,
        adr_ack_req: up && a,
        class_b: up && b,
        f_pending: !up && b,
    })
}

/// Any frame that may be built; counters often around a wrap of their low half.
fn any_frame() -> impl Strategy<Value = Owned> {
    let fcnt = prop_oneof![
        any::<u32>(),
        (any::<u16>(), 0u32..4).prop_map(|(high, n)| { (u32::from(high) << 16).wrapping_add(n).wrapping_sub(2) })
    ];
    let direction = prop_oneof![Just(Direction::Up), Just(Direction::Down)];
    let body = prop_oneof![
        (vec(any::<u8>(), 0..=15)).prop_map(|fopts| (fopts, None, Vec::new())),
        (vec(any::<u8>(), 0..=15), 1u8.., vec(any::<u8>(), 0..=227)).prop_map(|(o, port, p)| (o, Some(port), p)),
        vec(any::<u8>(), 0..=242).prop_map(|payload| (Vec::new(), Some(0), payload)),
    ];
    let keys = (any_key(), any_key()).prop_map(|(nwk_s_key, app_s_key)| Keys { nwk_s_key, app_s_key });
    direction.prop_flat_map(any_fctrl_of).prop_flat_map(move |(direction, fctrl)| {
        (Just(direction), Just(fctrl), any::<bool>(), any::<u32>(), fcnt.clone(), body.clone(), keys.clone()).prop_map(
            |(direction, fctrl, confirmed, dev_addr, fcnt, (fopts, fport, payload), keys)| Owned {
                direction,
                confirmed,
                dev_addr: DevAddr(dev_addr),
                fctrl,
                fcnt,
                fopts,
                fport,
                payload,
                keys,
            },
        )
    })
}

fn any_fctrl_of(direction: Direction) -> impl Strategy<Value = (Direction, FCtrl)> {
    (Just(direction), any_fctrl(direction))
}

fn data(phy: &[u8]) -> DataFrame<'_> {
    match parse(phy) {
        Ok(Frame::Data(frame)) => frame,
        other => panic!("{other:?} is no data frame"),
    }
}

fn other(key: &AesKey) -> AES128 {
    AES128(key.0)
}

/// Each command's bytes.
fn encoded<C>(commands: &[C], encode: impl Fn(&C, &mut Vec<u8>)) -> Vec<Vec<u8>> {
    let one = |command| {
        let mut out = Vec::new();
        encode(command, &mut out);
        out
    };
    commands.iter().map(one).collect()
}

fn cids(commands: &[Vec<u8>]) -> Vec<u8> {
    commands.iter().map(|bytes| bytes[0]).collect()
}

fn without_commands(frame: Owned) -> Owned {
    Owned { fopts: Vec::new(), fport: frame.fport.map(|fport| fport.max(1)), ..frame }
}

proptest! {
    /// Whatever a gateway sends: no panic, and what is read stays within the frame.
    #[test]
    fn any_bytes_are_a_frame_or_an_error(mut phy in vec(any::<u8>(), 0..300), mhdr in 0u8..8, key in any_key()) {
        if let Some(first) = phy.first_mut().filter(|_| mhdr < 7) {
            *first = mhdr << 5;
        }
        let keys = Keys { nwk_s_key: key, app_s_key: key };
        match parse(&phy) {
            Ok(Frame::Data(frame)) => {
                frame.verify(&key, u32::from(frame.fcnt));
                prop_assert_eq!(frame.decrypt(&keys, 0).len(), frame.payload.len());
                let fport = usize::from(frame.fport.is_some());
                prop_assert_eq!(12 + frame.fopts.len() + fport + frame.payload.len(), phy.len());
                parse_uplink(frame.fopts);
                parse_downlink(frame.payload);
            }
            Ok(Frame::JoinRequest(request)) => {
                request.verify(&key);
            }
            Ok(_) => prop_assert!((12..=255).contains(&phy.len())),
            Err(error) => {
                prop_assert!(error.reason().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            }
        }
        let _ = JoinAccept::open(&phy, &key);
    }

    /// What is built reads back, authentic and in clear, under its own counter only.
    #[test]
    fn a_built_frame_reads_back(owned in any_frame()) {
        let phy = build_data(&owned.spec(), &owned.keys).unwrap();
        let frame = data(&phy);
        prop_assert_eq!(frame.direction, owned.direction);
        prop_assert_eq!(frame.confirmed, owned.confirmed);
        prop_assert_eq!(frame.dev_addr, owned.dev_addr);
        prop_assert_eq!(frame.fctrl, owned.fctrl);
        prop_assert_eq!(frame.fcnt, owned.fcnt as u16);
        prop_assert_eq!(frame.fopts, &owned.fopts);
        prop_assert_eq!(frame.fport, owned.fport);
        prop_assert!(frame.verify(&owned.keys.nwk_s_key, owned.fcnt));
        prop_assert_eq!(frame.decrypt(&owned.keys, owned.fcnt), owned.payload.clone());
    }

    /// The crate finds the same fields, MIC and clear text in a frame that we built.
    #[test]
    fn the_crate_reads_our_frames(owned in any_frame()) {
        let phy = build_data(&owned.spec(), &owned.keys).unwrap();
        let theirs = EncryptedDataPayload::new(phy.clone()).unwrap();
        prop_assert_eq!(theirs.is_uplink(), owned.direction == Direction::Up);
        prop_assert_eq!(theirs.is_confirmed(), owned.confirmed);
        prop_assert!(theirs.fhdr().dev_addr().as_ref() == owned.dev_addr.0.to_le_bytes());
        prop_assert_eq!(theirs.fhdr().fcnt(), owned.fcnt as u16);
        prop_assert!(theirs.fhdr().data() == owned.fopts);
        // It takes an FPort without a payload for none at all.
        prop_assert_eq!(theirs.f_port(), owned.fport.filter(|_| !owned.payload.is_empty()));
        let fctrl = theirs.fhdr().fctrl();
        prop_assert_eq!((fctrl.adr(), fctrl.ack()), (owned.fctrl.adr, owned.fctrl.ack));
        prop_assert_eq!((fctrl.adr_ack_req(), fctrl.f_pending()), (owned.fctrl.adr_ack_req, owned.fctrl.f_pending));
        prop_assert!(theirs.validate_mic(&other(&owned.keys.nwk_s_key), owned.fcnt));
        let (nwk, app) = (other(&owned.keys.nwk_s_key), other(&owned.keys.app_s_key));
        let clear = theirs.decrypt(Some(&nwk), Some(&app), owned.fcnt).unwrap();
        match clear.frm_payload() {
            FRMPayload::None => prop_assert!(owned.payload.is_empty()),
            FRMPayload::Data(bytes) => prop_assert_eq!(bytes, &owned.payload[..]),
            FRMPayload::MACCommands(commands) => prop_assert_eq!(commands.data(), &owned.payload[..]),
        }
    }

    /// The crate builds the same bytes, of a frame without MAC commands, which it takes in forms of its own only.
    #[test]
    fn the_crate_builds_our_frames(owned in any_frame().prop_map(without_commands)) {
        use lorawan_encoding::{creator::DataPayloadCreator, parser};
        let mut creator = DataPayloadCreator::new();
        let flags = u8::from(owned.fctrl.adr) << 7
            | u8::from(owned.fctrl.adr_ack_req) << 6
            | u8::from(owned.fctrl.ack) << 5
            | u8::from(owned.fctrl.class_b || owned.fctrl.f_pending) << 4;
        creator
            .set_confirmed(owned.confirmed)
            .set_uplink(owned.direction == Direction::Up)
            .set_dev_addr(&owned.dev_addr.0.to_le_bytes())
            .set_fctrl(&parser::FCtrl::new(flags, owned.direction == Direction::Up))
            .set_fcnt(owned.fcnt);
        if let Some(fport) = owned.fport {
            creator.set_f_port(fport);
        }
        let (nwk, app) = (owned.keys.nwk_s_key.0.into(), owned.keys.app_s_key.0.into());
        let theirs = creator.build(&owned.payload, &[], &nwk, &app).unwrap();
        prop_assert_eq!(theirs, &build_data(&owned.spec(), &owned.keys).unwrap()[..]);
    }

    /// One changed bit anywhere is noticed: either the frame no longer parses or its MIC is wrong.
    #[test]
    fn a_changed_bit_is_noticed(owned in any_frame(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut phy = build_data(&owned.spec(), &owned.keys).unwrap();
        let at = at.index(phy.len());
        phy[at] ^= 1 << bit;
        if let Ok(Frame::Data(frame)) = parse(&phy) {
            prop_assert!(!frame.verify(&owned.keys.nwk_s_key, owned.fcnt));
        }
    }

    #[test]
    fn a_join_request_reads_back(join_eui: u64, dev_eui: u64, dev_nonce: u16, app_key in any_key()) {
        let (join_eui, dev_eui) = (Eui64(join_eui), Eui64(dev_eui));
        let phy = JoinRequest::build(join_eui, dev_eui, dev_nonce, &app_key);
        let Ok(Frame::JoinRequest(request)) = parse(&phy) else { panic!("no Join-request") };
        prop_assert_eq!((request.join_eui, request.dev_eui, request.dev_nonce), (join_eui, dev_eui, dev_nonce));
        prop_assert!(request.verify(&app_key));
        let theirs = JoinRequestPayload::new(&phy[..]).unwrap();
        prop_assert!(theirs.validate_mic(&other(&app_key)));
        prop_assert!(theirs.dev_eui().as_ref() == dev_eui.0.to_le_bytes());
        prop_assert!(theirs.app_eui().as_ref() == join_eui.0.to_le_bytes());
    }

    /// A Join-accept of either length opens for us and for the crate, and both derive the same keys from it.
    #[test]
    fn a_join_accept_opens(
        (join_nonce, net_id) in (0u32..1 << 24, 0u32..1 << 24),
        dev_addr: u32,
        (rx1_dr_offset, rx2_data_rate, rx_delay) in (0u8..8, 0u8..16, 0u8..16),
        cf_list: Option<[u8; 16]>,
        app_key in any_key(),
        dev_nonce: u16,
    ) {
        let dev_addr = DevAddr(dev_addr);
        let accept = JoinAccept { join_nonce, net_id, dev_addr, rx1_dr_offset, rx2_data_rate, rx_delay, cf_list };
        let phy = accept.build(&app_key);
        prop_assert_eq!(phy.len(), if cf_list.is_some() { 33 } else { 17 });
        prop_assert_eq!(parse(&phy), Ok(Frame::JoinAccept(&phy)));
        prop_assert_eq!(JoinAccept::open(&phy, &app_key), Ok(accept));

        let their_key = AppKey::from(app_key.0);
        let theirs = DecryptedJoinAcceptPayload::new(phy, &their_key).unwrap();
        prop_assert!(theirs.app_nonce().as_ref() == &join_nonce.to_le_bytes()[..3]);
        prop_assert!(theirs.net_id().as_ref() == &net_id.to_le_bytes()[..3]);
        prop_assert!(theirs.dev_addr().as_ref() == dev_addr.0.to_le_bytes());
        let settings = theirs.dl_settings();
        prop_assert_eq!((settings.rx1_dr_offset(), settings.rx2_data_rate()), (rx1_dr_offset, rx2_data_rate));
        prop_assert_eq!(theirs.rx_delay(), rx_delay);
        if let Some(list) = cf_list {
            prop_assert_eq!(&theirs.as_bytes()[13..29], &list);
        }
        let keys = session_keys(&app_key, join_nonce, net_id, dev_nonce);
        let nonce = DevNonce::from(dev_nonce.to_le_bytes());
        prop_assert!(theirs.derive_newskey(&nonce, &their_key).as_ref() == keys.nwk_s_key.0);
        prop_assert!(theirs.derive_appskey(&nonce, &their_key).as_ref() == keys.app_s_key.0);
    }

    /// Both directions: what was read, written again, is what was there (up to bits that are reserved), and nothing
    /// behind an unknown or cut command is read.
    #[test]
    fn mac_commands_read_what_they_write(bytes in vec(prop_oneof![0u8..0x14, any::<u8>()], 0..60)) {
        let up = parse_uplink(&bytes);
        let mut again = Vec::new();
        up.commands.iter().for_each(|command| command.encode(&mut again));
        prop_assert_eq!(&parse_uplink(&again).commands, &up.commands);
        prop_assert_eq!(again.len() == bytes.len(), up.end == End::Complete);

        let down = parse_downlink(&bytes);
        let mut again = Vec::new();
        for command in &down.commands {
            let before = again.len();
            command.encode(&mut again);
            prop_assert_eq!(again.len() - before, command.len());
        }
        prop_assert_eq!(&parse_downlink(&again).commands, &down.commands);
        prop_assert_eq!(again.len() == bytes.len(), down.end == End::Complete);
    }

    /// The crate, which knows class A only, splits the same bytes into the same commands. It gets only what we read:
    /// it panics on a command that lacks its last byte.
    #[test]
    fn the_crate_reads_the_same_mac_commands(bytes in vec(0x02u8..0x0b, 0..40)) {
        let ours = encoded(&parse_uplink(&bytes).commands, UplinkCommand::encode);
        let theirs = MacCommandIterator::<UplinkMacCommand>::new(&bytes[..ours.concat().len()]);
        prop_assert_eq!(cids(&ours), theirs.map(|command| command.cid()).collect::<Vec<u8>>());
        let ours = encoded(&parse_downlink(&bytes).commands, DownlinkCommand::encode);
        let theirs = MacCommandIterator::<DownlinkMacCommand>::new(&bytes[..ours.concat().len()]);
        prop_assert_eq!(cids(&ours), theirs.map(|command| command.cid()).collect::<Vec<u8>>());
    }

    /// GPS time grows by what Unix time grows; the fraction never reaches a whole second.
    #[test]
    fn gps_time_follows_unix_time(unix in 1_483_228_800_000_000u64..4_000_000_000_000_000) {
        let (seconds, fraction) = mac::gps_time(UnixMicros(unix));
        prop_assert_eq!(u64::from(seconds), unix / 1_000_000 - 315_964_800 + 18);
        let error = (unix % 1_000_000) as f64 / 1e6 - f64::from(fraction) / 256.0;
        prop_assert!((0.0..1.0 / 256.0).contains(&error));
    }
}

fn spec<'a>(fopts: &'a [u8], fport: Option<u8>, payload: &'a [u8]) -> DataSpec<'a> {
    DataSpec {
        direction: Direction::Down,
        confirmed: false,
        dev_addr: DevAddr(0x0102_0304),
        fctrl: FCtrl::default(),
        fcnt: 0,
        fopts,
        fport,
        payload,
    }
}

#[test]
fn frames_that_cannot_be_are_refused() {
    let build = |fopts: &[u8], fport, payload: &[u8]| build_data(&spec(fopts, fport, payload), &Keys::default());
    assert_eq!(build(&[0; 16], None, b""), Err(FrameError::FOptsTooLong));
    assert_eq!(build(&[0; 1], Some(0), b""), Err(FrameError::FOptsWithPort0));
    assert_eq!(build(&[], None, b"x"), Err(FrameError::PayloadWithoutPort));
    assert_eq!(build(&[], Some(1), &[0; 243]), Err(FrameError::TooLong));
    assert_eq!(build(&[0; 15], Some(1), &[0; 228]), Err(FrameError::TooLong));
    assert_eq!(build(&[0; 15], Some(1), &[0; 227]).map(|phy| phy.len()), Ok(255));
    assert_eq!(build(&[], Some(1), &[0; 242]).map(|phy| phy.len()), Ok(255));
    assert_eq!(build(&[], None, b"").map(|phy| phy.len()), Ok(12));
}

#[test]
fn junk_is_named_by_its_reason() {
    let reason = |phy: &[u8]| parse(phy).unwrap_err().reason();
    assert_eq!(reason(b""), "too_short");
    assert_eq!(reason(&[0x40; 11]), "too_short");
    assert_eq!(reason(&[0x40; 256]), "too_long");
    assert_eq!(reason(&[0x41; 20]), "unknown_major");
    assert_eq!(reason(&[0x00; 22]), "join_request_length");
    assert_eq!(reason(&[0x00; 24]), "join_request_length");
    assert_eq!(reason(&[0x20; 18]), "join_accept_length");
    // FOptsLen 1 in a frame of 12 bytes would reach into the MIC.
    assert_eq!(reason(&[0x40, 4, 3, 2, 1, 0x01, 0, 0, 9, 9, 9, 9]), "fopts_too_long");
    assert_eq!(reason(&[0x40, 4, 3, 2, 1, 0x01, 0, 0, 0x02, 0x00, 9, 9, 9, 9]), "fopts_with_port0");
}

#[test]
fn other_frames_are_named() {
    assert_eq!(parse(&[0xc0; 19]), Ok(Frame::Rejoin));
    // A proprietary frame's Major says nothing.
    assert_eq!(parse(&[0xff; 12]), Ok(Frame::Proprietary));
    assert_eq!(JoinAccept::open(&[0x60; 17], &AesKey::default()), Err(FrameError::OtherType));
}

/// RFU bits of the MHDR may be anything: the frame is read, and they are part of what was signed.
#[test]
fn reserved_bits_are_ignored_but_signed() {
    let mut phy = build_data(&spec(&[], Some(1), b"x"), &Keys::default()).unwrap();
    phy[0] |= 0b100;
    assert!(!data(&phy).verify(&AesKey::default(), 0));
    let mut phy = JoinRequest::build(Eui64(1), Eui64(2), 3, &AesKey::default());
    phy[0] |= 0b100;
    let Ok(Frame::JoinRequest(request)) = parse(&phy) else { panic!("no Join-request") };
    assert!(!request.verify(&AesKey::default()));
}

/// The counter's upper half is in the MIC and in the key stream, though not on air.
#[test]
fn a_frame_is_authentic_under_one_counter_of_65536() {
    let keys = Keys { nwk_s_key: AesKey([3; 16]), app_s_key: AesKey([4; 16]) };
    for fcnt in [0, 0xffff, 0x1_0000, 0x1_ffff, 0x2_0000, 0xffff_0000, u32::MAX] {
        let phy = build_data(&DataSpec { fcnt, ..spec(&[], Some(7), b"payload") }, &keys).unwrap();
        let frame = data(&phy);
        assert_eq!(u32::from(frame.fcnt), fcnt & 0xffff);
        for high in [0u32, 1, 2, 3, 0xfffe, 0xffff] {
            let tried = high << 16 | fcnt & 0xffff;
            assert_eq!(frame.verify(&keys.nwk_s_key, tried), tried == fcnt, "{tried:#x} for {fcnt:#x}");
            assert_eq!(frame.decrypt(&keys, tried) == b"payload", tried == fcnt);
        }
    }
}

/// A flag that the direction lacks is not sent: bit 6 of a downlink is reserved, bit 4 means two things.
#[test]
fn flags_belong_to_a_direction() {
    let all = FCtrl { adr: true, adr_ack_req: true, ack: true, class_b: true, f_pending: true };
    let sent = |direction| {
        let phy = build_data(&DataSpec { direction, fctrl: all, ..spec(&[], None, b"") }, &Keys::default()).unwrap();
        (phy[5], data(&phy).fctrl)
    };
    assert_eq!(sent(Direction::Up), (0xf0, FCtrl { f_pending: false, ..all }));
    assert_eq!(sent(Direction::Down), (0xb0, FCtrl { adr_ack_req: false, class_b: false, ..all }));
    let up = FCtrl { class_b: false, f_pending: true, ..FCtrl::default() };
    let phy = build_data(&DataSpec { direction: Direction::Up, fctrl: up, ..spec(&[], None, b"") }, &Keys::default());
    assert_eq!(phy.unwrap()[5], 0x00);
}

#[test]
fn uplink_commands_of_the_specification() {
    let parsed = parse_uplink(&[0x02, 0x03, 0x05, 0x06, 0xff, 0x3f, 0x06, 0x80, 0x1f, 0x0d, 0x10, 0xfb, 0x05, 0x02]);
    assert_eq!(parsed.end, End::Complete);
    assert_eq!(
        parsed.commands,
        [
            UplinkCommand::LinkCheckReq,
            UplinkCommand::LinkAdrAns { channel_mask_ack: true, data_rate_ack: false, power_ack: true },
            UplinkCommand::DevStatusAns { battery: 255, margin: -1 },
            UplinkCommand::DevStatusAns { battery: 128, margin: 31 },
            UplinkCommand::DeviceTimeReq,
            UplinkCommand::PingSlotInfoReq { periodicity: 3 },
            UplinkCommand::RxParamSetupAns { channel_ack: false, rx2_data_rate_ack: true, rx1_dr_offset_ack: false },
        ]
    );
    let lowest = parse_uplink(&[0x06, 0x00, 0x20]);
    assert_eq!(lowest.commands, [UplinkCommand::DevStatusAns { battery: 0, margin: -32 }]);
}

#[test]
fn an_unknown_or_cut_command_ends_the_reading_not_the_frame() {
    let parsed = parse_uplink(&[0x02, 0x80, 0x02]);
    assert_eq!((parsed.commands, parsed.end), (vec![UplinkCommand::LinkCheckReq], End::Unknown(0x80)));
    let parsed = parse_uplink(&[0x02, 0x06, 0xff]);
    assert_eq!((parsed.commands, parsed.end), (vec![UplinkCommand::LinkCheckReq], End::Truncated(0x06)));
    // ResetInd, which only ABP devices of 1.1 send.
    assert_eq!(parse_uplink(&[0x01, 0x01]).end, End::Unknown(0x01));
    assert_eq!(parse_uplink(&[]).end, End::Complete);
}

#[test]
fn downlink_commands_as_they_go_on_air() {
    let on_air = |command: DownlinkCommand| {
        let mut out = Vec::new();
        command.encode(&mut out);
        assert_eq!(parse_downlink(&out).commands, [command]);
        hex::encode(out)
    };
    use DownlinkCommand as C;
    assert_eq!(on_air(C::LinkCheckAns { margin: 20, gateways: 3 }), "021403");
    let adr = C::LinkAdrReq { data_rate: 5, tx_power: 2, channel_mask: 0x00ff, ch_mask_cntl: 6, nb_trans: 1 };
    assert_eq!(on_air(adr), "0352ff0061");
    assert_eq!(on_air(C::DutyCycleReq { max_duty_cycle: 7 }), "0407");
    let rx = C::RxParamSetupReq { rx1_dr_offset: 2, rx2_data_rate: 3, frequency_hz: 869_525_000 };
    assert_eq!(on_air(rx), "0523d2ad84");
    assert_eq!(on_air(C::DevStatusReq), "06");
    let channel = C::NewChannelReq { index: 3, frequency_hz: 867_100_000, min_data_rate: 0, max_data_rate: 5 };
    assert_eq!(on_air(channel), "0703184f8450");
    assert_eq!(on_air(C::RxTimingSetupReq { delay: 5 }), "0805");
    let params = C::TxParamSetupReq { downlink_dwell_time: true, uplink_dwell_time: false, max_eirp: 13 };
    assert_eq!(on_air(params), "092d");
    assert_eq!(on_air(C::DlChannelReq { index: 1, frequency_hz: 869_525_000 }), "0a01d2ad84");
    assert_eq!(on_air(C::DeviceTimeAns { gps_seconds: 0x0102_0304, fraction: 0x80 }), "0d0403020180");
    assert_eq!(on_air(C::PingSlotInfoAns), "10");
    assert_eq!(on_air(C::PingSlotChannelReq { frequency_hz: 869_525_000, data_rate: 3 }), "11d2ad8403");
    assert_eq!(on_air(C::BeaconFreqReq { frequency_hz: 0 }), "13000000");
}

#[test]
fn gps_time_of_known_moments() {
    // 2017-01-01T00:00:00Z, the end of the last leap second: GPS 1167264018.
    assert_eq!(mac::gps_time(UnixMicros(1_483_228_800_000_000)), (1_167_264_018, 0));
    assert_eq!(mac::gps_time(UnixMicros(1_483_228_800_500_000)), (1_167_264_018, 128));
    assert_eq!(mac::gps_time(UnixMicros(1_483_228_800_999_999)), (1_167_264_018, 255));
    // A clock that was never set.
    assert_eq!(mac::gps_time(UnixMicros(0)), (18, 0));
}
