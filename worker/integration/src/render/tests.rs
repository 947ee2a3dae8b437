//! What a consumer of ChirpStack's events reads out of ours.

use limpet_shared::{DevAddr, Eui64, RadioTime};
use prost::Message;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

fn event(kind: EventKind) -> Event {
    Event {
        id: Uuid::from_u128(0x1234),
        at: UnixMicros(1_700_000_000_250_000),
        device: DeviceInfo {
            tenant_id: Uuid::from_u128(1),
            tenant_name: "Limpet".into(),
            application_id: Uuid::from_u128(2),
            application_name: "meters".into(),
            device_profile_id: Uuid::from_u128(3),
            device_profile_name: "class A".into(),
            device_name: "cellar".into(),
            dev_eui: Eui64(0x0016_c001_ff10_a235),
            tags: Tags::from([("floor".into(), "-1".into())]),
        },
        kind,
    }
}

fn up() -> UpEvent {
    let rx = RxInfo {
        radio: Some(RadioTime::Counter(0x0102_0304)),
        time: Some("2023-11-14T22:13:20.000Z".into()),
        tmms: Some(1_384_035_200_000),
        rssi: -87,
        snr: 7.5,
        channel: 2,
        rf_chain: 1,
        board: Some(0),
        antenna: Some(1),
        code_rate: "4/5".into(),
        ..RxInfo::default()
    };
    UpEvent {
        dev_addr: DevAddr(0x0100_00aa),
        adr: true,
        data_rate: 5,
        fcnt: 70_000,
        fport: Some(10),
        confirmed: true,
        data: vec![1, 2, 0xff],
        region: "eu868".into(),
        frequency: 868_100_000,
        receptions: vec![
            EventReception { gateway: Eui64(0xa), received_at: UnixMicros(1_700_000_000_000_000), rx: rx.clone() },
            EventReception {
                gateway: Eui64(0xb),
                received_at: UnixMicros(1_700_000_000_010_000),
                rx: RxInfo { time: Some("yesterday".into()), radio: None, ..rx },
            },
        ],
    }
}

fn as_json(kind: EventKind) -> (&'static str, Value) {
    let rendered = render(&event(kind), None, true).unwrap();
    assert_eq!(rendered.content_type, "application/json");
    (rendered.name, serde_json::from_slice(&rendered.body).unwrap())
}

#[test]
fn an_uplink_has_every_field_that_flows_and_dashboards_read() {
    let (name, json) = as_json(EventKind::Up(up()));
    assert_eq!(name, "up");
    assert_eq!(json["deduplicationId"], "00000000-0000-0000-0000-000000001234");
    assert_eq!(json["time"], "2023-11-14T22:13:20.250+00:00");
    assert_eq!(
        json["deviceInfo"],
        json!({
            "tenantId": "00000000-0000-0000-0000-000000000001", "tenantName": "Limpet",
            "applicationId": "00000000-0000-0000-0000-000000000002", "applicationName": "meters",
            "deviceProfileId": "00000000-0000-0000-0000-000000000003", "deviceProfileName": "class A",
            "deviceName": "cellar", "devEui": "0016c001ff10a235", "deviceClassEnabled": "CLASS_A",
            "tags": { "floor": "-1" },
        })
    );
    for (field, value) in [
        ("devAddr", json!("010000aa")),
        ("adr", json!(true)),
        ("dr", json!(5)),
        ("fCnt", json!(70_000)),
        ("fPort", json!(10)),
        ("confirmed", json!(true)),
        ("data", json!("AQL/")),
        ("regionConfigId", json!("eu868")),
    ] {
        assert_eq!(json[field], value, "{field}");
    }
    assert_eq!(
        json["txInfo"],
        json!({
            "frequency": 868_100_000,
            "modulation": { "lora": { "bandwidth": 125_000, "spreadingFactor": 7, "codeRate": "CR_4_5" } },
        })
    );
}

#[test]
fn each_reception_tells_its_gateway_and_what_it_heard() {
    let (_, json) = as_json(EventKind::Up(up()));
    let (first, second) = (&json["rxInfo"][0], &json["rxInfo"][1]);
    for (field, value) in [
        ("gatewayId", json!("000000000000000a")),
        ("gwTime", json!("2023-11-14T22:13:20+00:00")),
        ("nsTime", json!("2023-11-14T22:13:20+00:00")),
        ("timeSinceGpsEpoch", json!("1384035200s")),
        ("rssi", json!(-87)),
        ("snr", json!(7.5)),
        ("channel", json!(2)),
        ("rfChain", json!(1)),
        ("antenna", json!(1)),
        ("context", json!("AQIDBA==")),
        ("crcStatus", json!("CRC_OK")),
    ] {
        assert_eq!(first[field], value, "{field}");
    }
    assert_eq!(second["gatewayId"], "000000000000000b");
    assert_eq!(second.get("gwTime"), None, "a time that cannot be read is left out");
    assert_ne!(first["uplinkId"], second["uplinkId"]);
    assert_eq!(json, as_json(EventKind::Up(up())).1, "whoever renders it, it is the same event");
}

#[test]
fn protobuf_says_what_json_says() {
    for kind in [EventKind::Up(up()), EventKind::Join(JoinEvent { dev_addr: DevAddr(1), region: "eu868".into() })] {
        let event = event(kind);
        let (binary, text) = (render(&event, None, false).unwrap(), render(&event, None, true).unwrap());
        assert_eq!(binary.content_type, "application/octet-stream");
        let from_binary = match binary.name {
            "up" => serde_json::to_value(pb::UplinkEvent::decode(&binary.body[..]).unwrap()).unwrap(),
            _ => serde_json::to_value(pb::JoinEvent::decode(&binary.body[..]).unwrap()).unwrap(),
        };
        assert_eq!(from_binary, serde_json::from_slice::<Value>(&text.body).unwrap());
    }
}

#[test]
fn acknowledgements_name_the_queue_item() {
    let (name, json) = as_json(EventKind::Ack(AckEvent { queue_item: "q1".into(), acknowledged: false, fcnt_down: 9 }));
    assert_eq!((name, &json["queueItemId"], &json["fCntDown"]), ("ack", &json!("q1"), &json!(9)));
    assert_eq!(json["acknowledged"], json!(false));

    let tx = TxAckEvent {
        queue_item: "q2".into(),
        fcnt_down: 10,
        gateway: Eui64(0xa),
        frequency: 869_525_000,
        data_rate: 0,
        power: 27,
        region: "eu868".into(),
    };
    let (name, json) = as_json(EventKind::TxAck(tx));
    assert_eq!((name, &json["queueItemId"], &json["gatewayId"]), ("txack", &json!("q2"), &json!("000000000000000a")));
    assert_eq!(json["txInfo"]["power"], 27);
    assert_eq!(json["txInfo"]["modulation"]["lora"]["spreadingFactor"], 12);
    assert_eq!(json["txInfo"]["modulation"]["lora"]["polarizationInversion"], true);
}

#[test]
fn a_log_has_chirpstacks_code_and_carries_the_id_in_its_context() {
    let log = LogEvent {
        error: true,
        code: "DOWNLINK_PAYLOAD_SIZE".into(),
        description: "too long".into(),
        context: Tags::from([("max".into(), "51".into())]),
    };
    let (name, json) = as_json(EventKind::Log(log.clone()));
    assert_eq!((name, &json["level"], &json["code"]), ("log", &json!("ERROR"), &json!("DOWNLINK_PAYLOAD_SIZE")));
    let id = "00000000-0000-0000-0000-000000001234";
    assert_eq!(json["context"], json!({ "max": "51", "deduplication_id": id }));
    let unknown = LogEvent { error: false, code: "SOMETHING_NEW".into(), ..log };
    let (_, json) = as_json(EventKind::Log(unknown));
    assert_eq!((&json["level"], &json["code"]), (&json!("WARNING"), &json!("UNKNOWN")));
}

#[test]
fn odd_values_are_rendered_and_none_panics() {
    let mut odd = up();
    odd.region = "atlantis".into();
    odd.fport = None;
    odd.receptions[0].rx = RxInfo { snr: f32::NAN, tmms: Some(u64::MAX), ..Default::default() };
    odd.receptions[1].received_at = UnixMicros(u64::MAX);
    let mut event = event(EventKind::Up(odd));
    event.at = UnixMicros(u64::MAX);
    let json: Value = serde_json::from_slice(&render(&event, None, true).unwrap().body).unwrap();
    assert_eq!(json["fPort"], 0);
    assert_eq!(json["txInfo"]["frequency"], 868_100_000);
    assert_eq!(json["txInfo"].get("modulation"), None);
    assert!(!render(&event, None, false).unwrap().body.is_empty());
}

/// An event beside the `up` event of ChirpStack's documentation (integrations, event types): the same fields of the same kinds, and
/// none that it does not have. `rxInfo` lists each antenna; zeros are left out, as in ChirpStack.
#[test]
fn an_uplink_looks_as_chirpstacks_documentation_shows_it() {
    let mut up = up();
    up.receptions.truncate(1);
    let rx = &mut up.receptions[0].rx;
    rx.location = Some(Location { latitude: 53.5, longitude: 10.25, altitude: 20.0, source: 1, accuracy: 0.0 });
    rx.metadata = Tags::from([("serial".into(), "A7".into()), ("region_config_id".into(), "forged".into())]);
    (rx.tmms, rx.fine_time) = (Some(1_384_035_200_123), Some(456_789_012));
    rx.antennas = vec![
        AntennaSignal { antenna: 1, channel: 2, rssi: -87, snr: 7.5, fine_time: Some(7) },
        AntennaSignal { antenna: 3, channel: 11, rssi: -95, snr: -2.25, fine_time: None },
    ];
    let (_, mut json) = as_json(EventKind::Up(up));
    let ids: Vec<Value> = json["rxInfo"].as_array_mut().unwrap().iter_mut().map(|rx| rx["uplinkId"].take()).collect();
    assert!(ids.iter().all(Value::is_u64) && ids[0] != ids[1], "{ids:?}");
    let rx_info = |antenna: u32, channel: u32, rssi: i32, snr: f64, fine: &str| {
        json!({
            "gatewayId": "000000000000000a",
            "uplinkId": null,
            "gwTime": "2023-11-14T22:13:20+00:00",
            "nsTime": "2023-11-14T22:13:20+00:00",
            "timeSinceGpsEpoch": "1384035200.123s",
            "fineTimeSinceGpsEpoch": fine,
            "rssi": rssi,
            "snr": snr,
            "channel": channel,
            "rfChain": 1,
            "antenna": antenna,
            "location": { "latitude": 53.5, "longitude": 10.25, "altitude": 20.0, "source": "GPS" },
            "context": "AQIDBA==",
            "metadata": { "serial": "A7", "region_config_id": "eu868", "region_common_name": "EU868" },
            "crcStatus": "CRC_OK",
        })
    };
    let first = rx_info(1, 2, -87, 7.5, "1384035200.000000007s");
    let second = rx_info(3, 11, -95, -2.25, "1384035200.456789012s");
    assert_eq!(json["rxInfo"], json!([first, second]));
}

#[test]
fn a_frame_without_crc_and_half_a_fine_timestamp() {
    for (no_crc, tmms, fine_time, status) in [
        (true, None, Some(5), "NO_CRC"),
        (false, Some(1_000), None, "CRC_OK"),
        (false, Some(1_000), Some(1_000_000_000), "CRC_OK"),
    ] {
        let mut up = up();
        let rx = &mut up.receptions[0].rx;
        (rx.no_crc, rx.tmms, rx.fine_time) = (no_crc, tmms, fine_time);
        let event = event(EventKind::Up(up));
        let binary = pb::UplinkEvent::decode(&render(&event, None, false).unwrap().body[..]).unwrap();
        assert_eq!(binary.rx_info[0].crc_status().as_str_name(), status);
        assert_eq!(binary.rx_info[0].fine_time_since_gps_epoch, None, "neither clock alone says when it was");
        assert_eq!(binary.rx_info[0].location, None);
    }
}

#[test]
fn what_the_payload_says_is_an_object_of_fractions_lists_and_objects() {
    let said = json!({"a": 10, "b": {"c": [1.5, null, "x", true, {"d": {}}]}, "": -0.25});
    let event = event(EventKind::Up(up()));
    let object = said.as_object().unwrap();
    let text: Value = serde_json::from_slice(&render(&event, Some(object), true).unwrap().body).unwrap();
    assert_eq!(text["object"], json!({"a": 10.0, "b": {"c": [1.5, null, "x", true, {"d": {}}]}, "": -0.25}));
    let binary = pb::UplinkEvent::decode(&render(&event, Some(object), false).unwrap().body[..]).unwrap();
    assert_eq!(serde_json::to_value(binary.object.unwrap()).unwrap(), text["object"]);
    let without: Value = serde_json::from_slice(&render(&event, None, true).unwrap().body).unwrap();
    assert_eq!(without.get("object"), None);
}
