//! Every row comes back as it was, from both forms; everything else is an error.

use limpet_shared::{ContextTime, DevAddr, Eui64, RadioTime, StationTime};
use limpet_store_testing::conformance::Samples;
use limpet_worker_core::model::*;
use proptest::{collection::vec, option, prelude::*};

use super::*;

const FORMS: [Form; 2] = [Form::Json, Form::Compact];

fn bytes(body: Body) -> Vec<u8> {
    match body {
        Body::Json(text) => text.into_bytes(),
        Body::Compact(bytes) => bytes,
    }
}

fn comes_back<T: Stored + PartialEq + std::fmt::Debug>(value: &T) {
    for form in FORMS {
        let row = bytes(form.encode(value).unwrap());
        assert_eq!(&decode::<T>(&row).unwrap(), value, "{form:?}");
    }
}

/// A row that was cut off, or has another bit somewhere.
fn is_whole_or_an_error<T: Stored + std::fmt::Debug>(value: &T) {
    let row = compact(&value.to_row());
    // Some of the places: another case has others.
    for at in (0..row.len()).step_by(1 + row.len() / 60) {
        decode::<T>(&row[..at]).unwrap_err();
        let mut other = row.clone();
        other[at] ^= 1 << (at % 8);
        // Its first byte may say now that it is JSON, and then it is none.
        decode::<T>(&other).unwrap_err();
    }
}

fn radio() -> impl Strategy<Value = RadioTime> {
    let station = (any::<i64>(), any::<i64>(), any::<u32>());
    prop_oneof![
        any::<u32>().prop_map(RadioTime::Counter),
        station.prop_map(|(xtime, rctx, delay)| RadioTime::Station(StationTime { xtime, rctx, delay })),
        (vec(any::<u8>(), 0..40), any::<u32>())
            .prop_map(|(context, delay)| RadioTime::Context(ContextTime { context, delay })),
    ]
}

fn tags() -> impl Strategy<Value = Tags> {
    proptest::collection::btree_map(".{0,9}", ".{0,9}", 0..3)
}

prop_compose! {
    fn rx()(
        radio in option::of(radio()), time in option::of(".{0,30}"), tmms in any::<Option<u64>>(),
        (rssi, snr, channel, rf_chain) in (any::<i32>(), -200.0..200.0_f32, any::<u32>(), any::<u32>()),
        (board, antenna, no_crc, fine_time) in (any::<Option<u32>>(), any::<Option<u32>>(), any::<bool>(), any::<Option<u32>>()),
        antennas in vec((any::<u32>(), any::<i32>(), -50.0..50.0_f32, any::<Option<u32>>()), 0..3),
        place in option::of((-90.0..90.0_f64, -180.0..180.0_f64, any::<i32>())), metadata in tags(),
    ) -> RxInfo {
        let antenna_of = |(antenna, rssi, snr, fine_time)| AntennaSignal { antenna, channel: antenna / 2, rssi, snr, fine_time };
        RxInfo {
            radio, time, tmms, rssi, snr, channel, rf_chain, board, antenna, code_rate: "4/5".into(), no_crc, fine_time,
            antennas: antennas.into_iter().map(antenna_of).collect(),
            location: place.map(|(latitude, longitude, source)| Location { latitude, longitude, altitude: 1.5, source, accuracy: 0.5 }),
            metadata,
        }
    }
}

prop_compose! {
    fn reception()(
        ids in any::<(u128, u64, u64, u64, u64)>(), region in ".{0,9}", frequency in any::<u32>(), data_rate in any::<u8>(),
        phy in vec(any::<u8>(), 0..256), rx in rx(),
    ) -> Reception {
        let (key, gateway, context, received_at, balancer) = ids;
        Reception {
            key: DedupKey(key), gateway: Eui64(gateway), context, received_at: UnixMicros(received_at), balancer,
            region, frequency, data_rate, phy, rx,
        }
    }
}

fn kind() -> impl Strategy<Value = EventKind> {
    let up = (
        any::<(u32, bool, u8, u32, Option<u8>, bool)>(),
        vec(any::<u8>(), 0..40),
        vec((any::<(u64, u64)>(), rx()), 0..3),
    );
    let up = up.prop_map(|((addr, adr, data_rate, fcnt, fport, confirmed), data, receptions)| {
        let reception =
            |((gateway, at), rx)| EventReception { gateway: Eui64(gateway), received_at: UnixMicros(at), rx };
        let receptions = receptions.into_iter().map(reception).collect();
        let (dev_addr, region) = (DevAddr(addr), "eu868".into());
        EventKind::Up(UpEvent {
            dev_addr,
            adr,
            data_rate,
            fcnt,
            fport,
            confirmed,
            data,
            region,
            frequency: addr,
            receptions,
        })
    });
    prop_oneof![
        up,
        any::<u32>().prop_map(|n| EventKind::Join(JoinEvent { dev_addr: DevAddr(n), region: "us915_1".into() })),
        (".{0,9}", any::<bool>(), any::<u32>()).prop_map(|(queue_item, acknowledged, fcnt_down)| EventKind::Ack(
            AckEvent { queue_item, acknowledged, fcnt_down }
        )),
        (".{0,9}", any::<(u32, u64, u32, u8, i8)>()).prop_map(
            |(queue_item, (fcnt_down, gateway, frequency, data_rate, power))| {
                let (gateway, region) = (Eui64(gateway), String::new());
                EventKind::TxAck(TxAckEvent { queue_item, fcnt_down, gateway, frequency, data_rate, power, region })
            }
        ),
        any::<(i8, u8)>().prop_map(|(margin, battery)| EventKind::Status(StatusEvent { margin, battery })),
        (any::<bool>(), ".{0,30}", tags()).prop_map(|(error, description, context)| EventKind::Log(LogEvent {
            error,
            code: "X".into(),
            description,
            context
        })),
    ]
}

prop_compose! {
    fn event()(ids in any::<[u128; 4]>(), device in any::<u64>(), names in ".{0,20}", tags in tags(), kind in kind()) -> Event {
        let [id, tenant, application, profile] = ids.map(Uuid::from_u128);
        let device = DeviceInfo {
            tenant_id: tenant, tenant_name: names.clone(), application_id: application, application_name: names,
            device_profile_id: profile, device_profile_name: String::new(), device_name: "x".into(), dev_eui: Eui64(device), tags,
        };
        Event { id, at: UnixMicros(7), device, kind }
    }
}

prop_compose! {
    fn waiting()(event in event(), refusals in any::<u32>()) -> WaitingBody {
        WaitingBody { event, refusals }
    }
}

prop_compose! {
    fn planned()(
        gateway in any::<u64>(), balancer in any::<u64>(),
        windows in vec((any::<(u8, u64, u32, u8, i8)>(), radio(), any::<Option<u32>>()), 0..3),
    ) -> PlannedGateway {
        let window = |((number, at, frequency, data_rate, power), radio, board)| PlannedWindow {
            number, at: UnixMicros(at), radio, frequency, data_rate, power, board, antenna: board,
        };
        PlannedGateway { gateway: Eui64(gateway), balancer, windows: windows.into_iter().map(window).collect() }
    }
}

fn answer() -> impl Strategy<Value = Answer> {
    let commands = || vec(any::<u8>(), 0..15);
    let open = (any::<(u64, u64, bool, bool, bool)>(), commands(), commands(), vec(planned(), 0..4));
    let open = open.prop_map(|((slot, at, ack, adr, asked), fopts, requests, gateways)| {
        let (opened_at, region) = (UnixMicros(at), "eu868".into());
        Answer::Open(Box::new(OpenAnswer { slot, opened_at, ack, adr, asked, fopts, requests, gateways, region }))
    });
    let item = option::of((any::<u64>(), ".{0,9}"));
    let decided = (any::<(u64, u64, u32)>(), vec(any::<u8>(), 0..60), item, planned(), vec(planned(), 0..3));
    let decided = decided.prop_map(|((slot, key, fcnt_down), phy, item, first, others)| {
        let PlannedGateway { gateway, balancer, windows } = first;
        let item = item.map(|(seq, id)| SentItem { seq, id });
        Answer::decided(slot, PlannedDownlink { key, gateway, fcnt_down, phy, windows, balancer, item, others })
    });
    prop_oneof![Just(Answer::Closed), open, decided]
}

fn request() -> impl Strategy<Value = Request> {
    let states = [RequestState::Waiting, RequestState::Refused, RequestState::Unanswered];
    let request = (vec(any::<u8>(), 0..25), any::<(u8, u32)>(), proptest::sample::select(states.to_vec()));
    request.prop_map(|(commands, (tries, asked_at), state)| Request { commands, tries, asked_at, state })
}

fn adr() -> impl Strategy<Value = AdrState> {
    let numbers = any::<(u8, Option<u8>, u8, Option<u8>, u8)>();
    (numbers, vec(any::<(u8, i8)>(), 0..21)).prop_map(
        |((nb_trans, max_data_rate, min_power, max_power, ignored), heard)| {
            let heard = heard.into_iter().map(|(missed, snr)| HeardUplink { missed, snr }).collect();
            AdrState { nb_trans, max_data_rate, min_power, max_power, ignored, heard }
        },
    )
}

prop_compose! {
    fn session()(
        ids in any::<(u32, u64, u64, u64, u64)>(), counters in any::<(u32, u32, u32, u64, Option<u32>)>(),
        seen in any::<(u32, [u64; 8], u64, Option<[u8; 4]>, u64)>(), used in 0..=8_usize,
        mac in any::<(u8, u8, u8, u32, u8, bool, u8, Option<u8>, Option<i8>)>(),
        told in (option::of(vec(any::<u32>(), 0..6)), any::<u8>(), any::<u64>(), dwell()), requests in vec(request(), 0..3), adr in adr(),
        slot in any::<(u64, u8, u32, u64, u64, bool, Option<[u8; 4]>)>(), events in vec(event(), 0..3), answer in answer(),
        item in option::of(any::<(u64, u32, u8, Option<u32>, u8)>()), awaited in option::of((".{0,9}", any::<u32>())),
        over in option::of(any::<(u64, [u8; 16], [u8; 16])>()),
    ) -> Session {
        let mut session = Samples::new().session(SessionKey { dev_addr: DevAddr(ids.0), dev_eui: Eui64(ids.1), id: SessionId(ids.2) });
        (session.rev, session.since) = (ids.3, UnixMicros(ids.4));
        (session.resets, session.next_fcnt_down, session.replaced_at) = (counters.0, counters.1, counters.4);
        session.queue_done = counters.3;
        let mut bits = seen.1;
        bits[used..].fill(0);
        session.seen = Seen { next: seen.0, bits, high_at: UnixMicros(seen.2), high_mic: seen.3, restarted_after: UnixMicros(seen.4) };
        session.mac = MacState {
            rx1_delay: mac.0, rx1_dr_offset: mac.1, rx2_data_rate: mac.2, rx2_frequency: mac.3, data_rate: mac.4,
            channels_set: mac.5, channels_tried: mac.6, battery: mac.7, margin: mac.8,
            extra_channels: told.0, tx_power: told.1, status_asked_at: UnixMicros(told.2), requests, adr, dwell: told.3,
        };
        let kind = match slot.1 % 4 {
            0 => SlotKind::Empty,
            1 => SlotKind::Join,
            2 => SlotKind::Up(slot.2),
            _ => SlotKind::AckAgain(slot.2),
        };
        let mut row_slot = Slot::empty();
        (row_slot.number, row_slot.kind, row_slot.received_at) = (slot.0, kind, UnixMicros(slot.3));
        (row_slot.worker, row_slot.accepted_at, row_slot.events) = ("w".into(), UnixMicros(slot.4), events);
        (row_slot.behind_pending, row_slot.mic) = (slot.5, slot.6);
        session.slot = row_slot;
        session.answer = answer;
        session.item = item.map(|(seq, first_fcnt_down, offers, refused, refusals)| {
            ItemInFlight { seq, first_fcnt_down, offers, refused, refusals }
        });
        session.awaiting_ack = awaited.map(|(queue_item, fcnt_down)| AwaitingAck { queue_item, fcnt_down });
        session.over = over.map(|(at, nwk_s_key, app_s_key)| {
            let keys = SessionKeys { nwk_s_key: AesKey(nwk_s_key), app_s_key: AesKey(app_s_key) };
            Over { at: UnixMicros(at), keys }
        });
        session
    }
}

fn dwell() -> impl Strategy<Value = Option<DwellTime>> {
    option::of(any::<(bool, bool)>().prop_map(|(uplink, downlink)| DwellTime { uplink, downlink }))
}

prop_compose! {
    fn region_settings()(
        bytes in any::<(Option<u8>, Option<u8>, Option<u8>, Option<i8>)>(), rx2_frequency in any::<Option<u32>>(),
        adr in any::<(Option<bool>, Option<u8>, Option<u8>, Option<u8>)>(), extra_channels in option::of(vec(any::<u32>(), 0..6)),
        flags in any::<[Option<bool>; 3]>(),
    ) -> RegionSettings {
        let (rx1_delay, rx1_dr_offset, rx2_dr, downlink_tx_power) = bytes;
        let (adr_disabled, min_dr, max_dr, installation_margin) = adr;
        let [uplink_dwell_time_400ms, downlink_dwell_time_400ms, repeater_compatible] = flags;
        RegionSettings {
            rx1_delay, rx1_dr_offset, rx2_dr, rx2_frequency, downlink_tx_power, extra_channels, adr_disabled, min_dr, max_dr, installation_margin,
            uplink_dwell_time_400ms, downlink_dwell_time_400ms, repeater_compatible,
        }
    }
}

prop_compose! {
    fn network_settings()(
        numbers in any::<(Option<u32>, Option<u32>, Option<u32>)>(),
        regions in proptest::collection::btree_map("[a-z0-9_]{1,9}", region_settings(), 0..3),
    ) -> NetworkSettings {
        let (net_id, reply_delay, deduplication_delay) = numbers;
        NetworkSettings { net_id, reply_delay, deduplication_delay, regions }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn settings_come_back_as_they_were_and_whole(was in network_settings()) {
        let row = settings::write(&was);
        prop_assert_eq!(settings::read(Some(&row)).unwrap(), was);
        for at in 0..row.len() {
            settings::read(Some(&row[..at])).unwrap_err();
            let mut other = row.clone();
            other[at] ^= 1 << (at % 8);
            settings::read(Some(&other)).unwrap_err();
        }
    }

    #[test]
    fn every_session_comes_back_as_it_was(session in session()) {
        comes_back(&session);
    }

    #[test]
    fn every_reception_comes_back_as_it_was(reception in reception()) {
        comes_back(&reception);
    }

    #[test]
    fn every_waiting_event_comes_back_as_it_was(event in waiting()) {
        comes_back(&event);
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_an_error(session in session(), reception in reception(), event in waiting()) {
        is_whole_or_an_error(&session);
        is_whole_or_an_error(&reception);
        is_whole_or_an_error(&event);
    }

    /// Also behind a head that is right.
    #[test]
    fn random_bytes_are_an_error_and_never_a_panic(message in vec(any::<u8>(), 0..400), headed in any::<bool>()) {
        let mut row = message.clone();
        if headed {
            row = [&[VERSION][..], &check(&message).to_be_bytes(), &message].concat();
        }
        let read = [decode::<Session>(&row).is_ok(), decode::<WaitingBody>(&row).is_ok()];
        prop_assert_eq!(read, [false; 2]);
        // A reception of nothing but its key could be made up by chance.
        let _ = decode::<Reception>(&row);
    }
}

/// Rows as they are in use: those of the fixture, with one gateway and a payload of five bytes.
#[test]
fn a_row_takes_less_than_half_of_its_json() {
    let fixture = include_str!("../../../../tests/fixtures/e024af5.jsonl");
    let line = |kind: &str| fixture.lines().find(|line| line.starts_with(&format!("{{\"kind\":\"{kind}\""))).unwrap();
    let of = |kind: &str, field: &str| serde_json::from_str::<serde_json::Value>(line(kind)).unwrap()[field].take();
    let session: Session = serde_json::from_value(of("session", "session")).unwrap();
    let event: Event = serde_json::from_value(of("pending_event", "event")).unwrap();
    let EventKind::Up(up) = &event.kind else { panic!("{event:?}") };
    let EventReception { gateway, received_at, rx } = up.receptions[0].clone();
    let reception = Reception {
        key: DedupKey(u128::MAX / 3),
        gateway,
        context: u64::MAX / 3,
        received_at,
        balancer: u64::MAX / 3,
        region: up.region.clone(),
        frequency: up.frequency,
        data_rate: up.data_rate,
        phy: vec![0x80; 18],
        rx,
    };
    smaller("session", &session);
    smaller("reception", &reception);
    smaller("event", &WaitingBody { event: event.clone(), refusals: 0 });
}

fn smaller<T: Stored + PartialEq + std::fmt::Debug>(what: &str, value: &T) {
    comes_back(value);
    let [json, compact] = FORMS.map(|form| form.encode(value).unwrap().len());
    println!("{what}: {json} bytes as JSON, {compact} compact");
    assert!(compact * 2 < json, "{what}: {compact} of {json}");
}

#[test]
fn a_form_of_a_newer_version_is_named() {
    let mut row = compact(&WaitingBody { event: Samples::new().event(Eui64(1)), refusals: 1 }.to_row());
    row[0] = 2;
    let refused = decode::<WaitingBody>(&row).unwrap_err().to_string();
    assert!(refused.contains("version 2, which a newer Limpet wrote"), "{refused}");
    assert!(decode::<WaitingBody>(b"").is_err() && decode::<WaitingBody>(b"{").is_err());
}
