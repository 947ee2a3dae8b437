//! Codecs from outside: scripts as people write them, and scripts that nobody should have written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod examples;
mod limits;
mod surroundings;

use limpet_codec::{Codec, CodecError, Codecs, Downlink, Encoded, Object, Script, Uplink, Variables};
use serde_json::{Value, json};

/// A script with nothing but a decoder for one payload.
async fn decode(codecs: &Codecs, text: &str) -> Result<Value, CodecError> {
    decode_of(codecs, (1, 1), text, &[1, 2, 3]).await
}

async fn decode_of(codecs: &Codecs, (owner, id): (u128, u128), text: &str, bytes: &[u8]) -> Result<Value, CodecError> {
    let variables = Variables::from([("foo".into(), "bar".into())]);
    let uplink = Uplink { bytes, f_port: 10, received_at: 1_404_810_611_000, variables: &variables };
    let object = codecs.decode(Codec::Js(Script { owner, id, text }), uplink).await?;
    Ok(Value::Object(object.expect("a script gives an object")))
}

async fn encode(codecs: &Codecs, text: &str, data: Value) -> Result<Encoded, CodecError> {
    let data: Object = data.as_object().unwrap().clone();
    let variables = Variables::default();
    let downlink = Downlink { data: &data, f_port: 10, variables: &variables };
    codecs.encode(Codec::Js(Script { owner: 1, id: 1, text }), downlink).await
}

/// The body of a decoder.
fn decoder(body: &str) -> String {
    format!("function decodeUplink(input) {{ {body} }}")
}

#[tokio::test]
async fn without_a_codec_there_is_no_object_and_no_payload() {
    let codecs = Codecs::default();
    let variables = Variables::default();
    let uplink = Uplink { bytes: &[1], f_port: 1, received_at: 0, variables: &variables };
    assert_eq!(codecs.decode(Codec::None, uplink).await, Ok(None));
    let data = Object::new();
    let downlink = Downlink { data: &data, f_port: 1, variables: &variables };
    let refused = codecs.encode(Codec::None, downlink).await.unwrap_err();
    assert_eq!(refused.to_string(), "the device profile has no codec");
}

#[tokio::test]
async fn cayenne_needs_no_script() {
    let codecs = Codecs::default();
    let variables = Variables::default();
    let uplink = Uplink { bytes: &[3, 0x67, 1, 0x10], f_port: 1, received_at: 0, variables: &variables };
    let object = codecs.decode(Codec::CayenneLpp, uplink).await.unwrap().unwrap();
    assert_eq!(Value::Object(object.clone()), json!({"temperatureSensor": {"3": 27.2}}));
    let downlink = Downlink { data: &object, f_port: 5, variables: &variables };
    let encoded = codecs.encode(Codec::CayenneLpp, downlink).await.unwrap();
    assert_eq!(encoded, Encoded { bytes: vec![3, 0x67, 1, 0x10], f_port: 5 });
}
