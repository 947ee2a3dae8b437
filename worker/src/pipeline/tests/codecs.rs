//! What payloads say, in events: at once, after an outage of the endpoint, and when a codec cannot say it.

use super::*;
use limpet_worker_core::model::PayloadCodec;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

async fn set(net: &Net, runtime: CodecRuntime, script: &str) {
    let mut profile = net.store.device_profile(Uuid::from_u128(3)).await.unwrap().unwrap();
    profile.codec = PayloadCodec { runtime, script: script.into() };
    net.store.update_device_profile(&profile).await.unwrap();
    let (mut device, _) = net.store.device(DEVICE).await.unwrap().unwrap();
    device.variables = Tags::from([("factor".into(), "2".into())]);
    net.store.update_device(&device).await.unwrap();
}

fn sends(fcnt: u32, fport: u8, payload: &[u8]) -> Vec<u8> {
    lorawan::build_data(&DataSpec { fport: Some(fport), payload, ..hello(fcnt) }, &KEYS).unwrap()
}

/// Events in the order in which they were taken: name, id and, of an `up`, what its payload says; of a `log`, its code and words.
fn told(net: &Net) -> Vec<(&'static str, Uuid, Value)> {
    let objects = net.webhook.objects.lock();
    let said = |event: &Event| match &event.kind {
        EventKind::Up(_) => {
            objects.iter().find(|(id, _)| *id == event.id).map_or(Value::Null, |(_, object)| json!(object))
        }
        EventKind::Log(log) => json!([log.error, log.code, log.description]),
        _ => Value::Null,
    };
    net.webhook.events.lock().iter().map(|event| (event.kind.name(), event.id, said(event))).collect()
}

const CAYENNE: [u8; 4] = [3, 0x67, 1, 0x10];
const HALF: &str = "Cayenne LPP: the payload ends within temperatureSensor of channel 3";

#[tokio::test(start_paused = true)]
async fn a_payload_is_told_in_words_beside_its_bytes() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.give(0, net.frame(1, CHANNEL, &sends(0, 2, &CAYENNE), 5)).await.unwrap();
    set(&net, CodecRuntime::CayenneLpp, "").await;
    net.give(0, net.frame(1, CHANNEL, &sends(1, 2, &CAYENNE), 5)).await.unwrap();
    // Port 0 is the network's.
    net.give(0, net.frame(1, CHANNEL, &sends(2, 0, &[2]), 5)).await.unwrap();
    let said: Vec<Value> = told(&net).into_iter().map(|(_, _, said)| said).collect();
    assert_eq!(said, [Value::Null, json!({"temperatureSensor": {"3": 27.2}}), Value::Null]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_none_goes_out_in_bytes_and_its_owner_is_told() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    set(&net, CodecRuntime::CayenneLpp, "").await;
    let stop = CancellationToken::new();
    tokio::spawn(run_pending(net.workers[0].clone(), 1, stop.clone()));
    net.give(0, net.frame(1, CHANNEL, &sends(0, 2, &CAYENNE[..3]), 5)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    stop.cancel();
    let told = told(&net);
    let [up, log] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((up.0, &up.2), ("up", &Value::Null));
    assert_eq!((log.0, log.2.clone()), ("log", json!([true, "UPLINK_CODEC", HALF])));
    assert_eq!(up.1, log.1, "the event that it is about");
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_its_endpoint_is_told_in_words_too_and_in_order() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    set(&net, CodecRuntime::CayenneLpp, "").await;
    let stop = CancellationToken::new();
    tokio::spawn(run_pending(net.workers[0].clone(), 1, stop.clone()));
    net.webhook.down.store(true, Ordering::Relaxed);
    for (fcnt, length) in [(0, 4), (1, 3), (2, 4)] {
        net.give(0, net.frame(1, CHANNEL, &sends(fcnt, 2, &CAYENNE[..length]), 5)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    assert!(told(&net).is_empty());
    net.webhook.down.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(30)).await;
    stop.cancel();
    let object = json!({"temperatureSensor": {"3": 27.2}});
    let expected =
        [("up", object.clone()), ("up", Value::Null), ("log", json!([true, "UPLINK_CODEC", HALF])), ("up", object)];
    let found: Vec<_> = told(&net).into_iter().map(|(name, _, said)| (name, said)).collect();
    assert_eq!(found, expected);
}

/// In real time: scripts run on threads that know no other.
#[tokio::test]
async fn a_script_says_what_a_payload_means_and_one_that_loops_loses_nothing() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    let script = "function decodeUplink(input) { \
                  if (input.bytes[0] === 9) for (;;) {} \
                  return { data: { value: input.bytes[0] * Number(input.variables.factor), port: input.fPort, \
                  year: input.recvTime.getUTCFullYear() } } }";
    set(&net, CodecRuntime::Js, script).await;
    let stop = CancellationToken::new();
    tokio::spawn(run_pending(net.workers[0].clone(), 1, stop.clone()));
    for (fcnt, byte) in [(0, 4), (1, 9), (2, 5)] {
        net.give(0, net.frame(1, CHANNEL, &sends(fcnt, 7, &[byte]), 5)).await.unwrap();
    }
    for _ in 0..200 {
        if told(&net).len() >= 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.cancel();
    let found: Vec<_> = told(&net).into_iter().map(|(name, _, said)| (name, said)).collect();
    let of = |value: f64| json!({"value": value, "port": 7.0, "year": 2023.0});
    let stopped = "the script was stopped: it used more than 100ms of processor time";
    for event in
        [("up", of(8.0)), ("up", Value::Null), ("log", json!([true, "UPLINK_CODEC", stopped])), ("up", of(10.0))]
    {
        assert!(found.contains(&event), "{event:?} is missing in {found:?}");
    }
}

/// As with one whose tenant asks for more than its share.
#[tokio::test(start_paused = true)]
async fn an_event_whose_codec_has_no_turn_waits_and_is_told_without_in_the_end() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.give(0, net.frame(1, CHANNEL, &sends(0, 2, &[1]), 5)).await.unwrap();
    let event = net.webhook.events.lock()[0].clone();
    set(&net, CodecRuntime::Js, "function decodeUplink() { return { data: {} } }").await;
    // No time at all is no turn.
    let read = async || net.workers[0].read_payload_later(&event, &mut None, Duration::ZERO).await;
    let reading = read().await;
    assert!(reading.is_known().is_err(), "{reading:?}");
    tokio::time::sleep(Duration::from_secs(61)).await;
    let reading = read().await;
    assert!(reading.is_known().is_ok() && reading.object().is_none(), "{reading:?}");
    assert!(net.workers[0].complaint(&reading, &event).is_some(), "its owner is told");
}
