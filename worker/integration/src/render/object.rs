//! What a payload says, as the protocol has it.

use chirpstack_api::pbjson_types::{ListValue, Struct, Value, value::Kind};
use limpet_codec::Object;
use serde_json::Value as Json;

pub(super) fn write(object: &Object) -> Struct {
    Struct { fields: object.iter().map(|(key, said)| (key.clone(), value(said))).collect() }
}

fn value(said: &Json) -> Value {
    let kind = match said {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        // All numbers are fractions there.
        Json::Number(number) => number.as_f64().map_or(Kind::NullValue(0), Kind::NumberValue),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(list) => Kind::ListValue(ListValue { values: list.iter().map(value).collect() }),
        Json::Object(object) => Kind::StructValue(write(object)),
    };
    Value { kind: Some(kind) }
}
