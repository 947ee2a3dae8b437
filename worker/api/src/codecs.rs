//! Codecs of device profiles: scripts are looked at before they are kept, and objects become payloads when they are enqueued.

use chirpstack_api::prost_types::{self, value::Kind};
use limpet_codec::{Codec, CodecError, Downlink, Encoded, Object, Script};
use limpet_worker_core::model::{CodecRuntime, DeviceContext, DeviceProfile};
use serde_json::{Number, Value};

use crate::{
    Api,
    error::{ApiError, Result},
};

/// Levels of an object.
const LEVELS: usize = 32;

impl Api {
    /// A script that cannot run is refused, with what the engine says of it and where.
    pub(crate) async fn check_codec(&self, profile: &DeviceProfile) -> Result<()> {
        if profile.codec.runtime != CodecRuntime::Js {
            return Ok(());
        }
        let checked = self.codecs.check(script_of(profile)).await;
        checked.map_err(|error| refused("payload_codec_script", &error))
    }

    /// The payload that says the same as the object, and its port.
    pub(crate) async fn encode(
        &self,
        context: &DeviceContext,
        object: &prost_types::Struct,
        f_port: u8,
    ) -> Result<Encoded> {
        let data = read(object, 0)?;
        let codec = match context.profile.codec.runtime {
            CodecRuntime::None => Codec::None,
            CodecRuntime::CayenneLpp => Codec::CayenneLpp,
            CodecRuntime::Js => Codec::Js(script_of(&context.profile)),
        };
        let downlink = Downlink { data: &data, f_port, variables: &context.device.variables };
        let encoded = self.codecs.encode(codec, downlink).await;
        encoded.map_err(|error| refused("object", &error))
    }
}

fn script_of(profile: &DeviceProfile) -> Script<'_> {
    Script { owner: profile.tenant_id.as_u128(), id: profile.id.as_u128(), text: &profile.codec.script }
}

fn refused(field: &'static str, error: &CodecError) -> ApiError {
    if error.is_busy() { ApiError::Exhausted(error.to_string()) } else { ApiError::invalid(field, error.to_string()) }
}

fn read(object: &prost_types::Struct, level: usize) -> Result<Object> {
    object.fields.iter().map(|(key, said)| Ok((key.clone(), value(said, level + 1)?))).collect()
}

fn value(said: &prost_types::Value, level: usize) -> Result<Value> {
    if level > LEVELS {
        return Err(ApiError::invalid("object", format!("must have at most {LEVELS} levels")));
    }
    Ok(match &said.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => match Number::from_f64(*number) {
            Some(number) => Value::Number(number),
            None => return Err(ApiError::invalid("object", format!("{number} is no number that JSON has"))),
        },
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        Some(Kind::StructValue(object)) => Value::Object(read(object, level)?),
        Some(Kind::ListValue(list)) => {
            Value::Array(list.values.iter().map(|said| value(said, level + 1)).collect::<Result<_>>()?)
        }
    })
}
