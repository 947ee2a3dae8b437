//! Codecs of device profiles, and objects in queues.

use chirpstack_api::{
    api::{self, CodecRuntime},
    prost_types::{Struct, Value, value::Kind},
};
use tonic::{Code, Status};

use super::server::*;

fn number(value: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(value)) }
}

fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(key, value)| (key.into(), value)).collect() }
}

async fn profile_with(server: &Server, runtime: CodecRuntime, script: &str) -> Result<String, Status> {
    let (payload_codec_runtime, payload_codec_script) = (runtime.into(), script.into());
    server.profile(api::DeviceProfile { payload_codec_runtime, payload_codec_script, ..server.usual_profile() }).await
}

/// A device of that profile, with a variable.
async fn device_of(server: &Server, profile: String) {
    let device = api::Device {
        dev_eui: DEVICE.into(),
        name: "d".into(),
        application_id: server.application("app").await,
        device_profile_id: profile,
        variables: [("offset".to_owned(), "5".to_owned())].into(),
        ..Default::default()
    };
    server.create_device(device).await.unwrap();
}

async fn enqueue(server: &Server, item: api::DeviceQueueItem) -> Result<String, Status> {
    let item = api::DeviceQueueItem { dev_eui: DEVICE.into(), ..item };
    let request = api::EnqueueDeviceQueueItemRequest { queue_item: Some(item), ..Default::default() };
    Ok(server.devices().await.enqueue(server.ask(request)).await?.into_inner().id)
}

async fn queue(server: &Server) -> Vec<(u32, Vec<u8>)> {
    let request = api::GetDeviceQueueItemsRequest { dev_eui: DEVICE.into(), ..Default::default() };
    let items = server.devices().await.get_queue(server.ask(request)).await.unwrap().into_inner().result;
    items.into_iter().map(|item| (item.f_port, item.data)).collect()
}

#[tokio::test]
async fn a_codec_comes_back_as_it_was_given() {
    let server = Server::start().await;
    let script = "function decodeUplink(input) { return { data: {} }; }";
    for (runtime, script) in [
        (CodecRuntime::Js, script),
        (CodecRuntime::CayenneLpp, ""),
        (CodecRuntime::CayenneLpp, "kept (but not run"),
        (CodecRuntime::None, script),
        (CodecRuntime::None, ""),
    ] {
        let id = profile_with(&server, runtime, script).await.unwrap();
        let request = api::GetDeviceProfileRequest { id };
        let answer = server.profiles().await.get(server.ask(request)).await.unwrap().into_inner();
        let profile = answer.device_profile.unwrap();
        assert_eq!((profile.payload_codec_runtime, profile.payload_codec_script.as_str()), (runtime.into(), script));
    }
    device_of(&server, profile_with(&server, CodecRuntime::Js, script).await.unwrap()).await;
    let request = api::GetDeviceRequest { dev_eui: DEVICE.into() };
    let device = server.devices().await.get(server.ask(request)).await.unwrap().into_inner().device.unwrap();
    assert_eq!(device.variables["offset"], "5");
}

#[tokio::test]
async fn a_script_that_cannot_run_is_refused_with_its_line() {
    let server = Server::start().await;
    let broken = "function decodeUplink(input) {\n  return { data: {}\n}";
    let status = profile_with(&server, CodecRuntime::Js, broken).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("payload_codec_script: JS error: SyntaxError: "), "{}", status.message());
    assert!(status.message().contains("codec:3"), "{}", status.message());
    let id = profile_with(&server, CodecRuntime::Js, "").await.unwrap();
    for (script, words) in [
        ("module.exports = {}", "ReferenceError: module is not defined"),
        ("for (;;) {}", "it used more than 100ms of processor time"),
    ] {
        let device_profile = Some(api::DeviceProfile {
            id: id.clone(),
            payload_codec_runtime: CodecRuntime::Js.into(),
            payload_codec_script: script.into(),
            ..server.usual_profile()
        });
        let request = api::UpdateDeviceProfileRequest { device_profile };
        let status = server.profiles().await.update(server.ask(request)).await.unwrap_err();
        assert!(status.message().contains(words), "{}", status.message());
    }
    let long = format!("//{}", "x".repeat(256 * 1024));
    assert_eq!(refused_field(profile_with(&server, CodecRuntime::None, &long).await), "payload_codec_script");
    let unknown = api::DeviceProfile { payload_codec_runtime: 9, ..server.usual_profile() };
    assert_eq!(refused_field(server.profile(unknown).await), "payload_codec_runtime");
}

#[tokio::test]
async fn an_object_becomes_the_payload_that_the_codec_makes_of_it() {
    let server = Server::start().await;
    let script = "function encodeDownlink(input) { \
                  if (input.data.value > 250) throw new Error('too much'); \
                  return { bytes: [input.data.value, Number(input.variables.offset), input.fPort], \
                  fPort: input.data.port }; }";
    device_of(&server, profile_with(&server, CodecRuntime::Js, script).await.unwrap()).await;
    let item = |fields: Vec<(&'static str, Value)>, f_port| api::DeviceQueueItem {
        object: Some(object(fields)),
        f_port,
        ..Default::default()
    };
    enqueue(&server, item(vec![("value", number(7.0))], 3)).await.unwrap();
    enqueue(&server, item(vec![("value", number(8.0)), ("port", number(20.0))], 0)).await.unwrap();
    let status = enqueue(&server, item(vec![("value", number(251.0))], 3)).await.unwrap_err();
    assert_eq!(status.message(), "object: JS error: Error: too much at encodeDownlink (codec:1:72)");
    assert_eq!(refused_field(enqueue(&server, item(vec![("value", number(9.0))], 0)).await), "f_port");
    let both = api::DeviceQueueItem { data: vec![1], ..item(vec![("value", number(1.0))], 3) };
    assert_eq!(refused_field(enqueue(&server, both).await), "object");
    assert_eq!(queue(&server).await, [(3, vec![7, 5, 3]), (20, vec![8, 5, 0])], "what failed is not in the queue");
}

#[tokio::test]
async fn an_object_without_a_codec_is_refused_and_cayenne_needs_no_script() {
    let server = Server::start().await;
    let temperature = object([("1", number(21.5))]);
    let temperature = Value { kind: Some(Kind::StructValue(temperature)) };
    let item = || api::DeviceQueueItem {
        object: Some(object([("temperatureSensor", temperature.clone())])),
        f_port: 4,
        ..Default::default()
    };
    device_of(&server, profile_with(&server, CodecRuntime::None, "").await.unwrap()).await;
    let status = enqueue(&server, item()).await.unwrap_err();
    assert_eq!(status.message(), "object: the device profile has no codec");
    let request = api::DeleteDeviceRequest { dev_eui: DEVICE.into() };
    server.devices().await.delete(server.ask(request)).await.unwrap();
    device_of(&server, profile_with(&server, CodecRuntime::CayenneLpp, "").await.unwrap()).await;
    enqueue(&server, item()).await.unwrap();
    assert_eq!(queue(&server).await, [(4, vec![1, 0x67, 0, 0xd7])]);
}
