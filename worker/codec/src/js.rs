//! What a script is asked, and what it answers.

use serde_json::{Value, json};

use crate::{CodecError, Downlink, Encoded, Object, Uplink};

/// What a function is called with.
pub(crate) struct Input {
    /// As JSON: all but the time.
    pub values: String,
    /// Milliseconds since 1970.
    pub received_at: Option<u64>,
    pub f_port: u8,
}

pub(crate) enum Call {
    Decode(Input),
    Encode(Input),
    /// Only load it.
    Check,
}

impl Call {
    /// Bytes that it is called with.
    pub fn size(&self) -> usize {
        match self {
            Self::Decode(input) | Self::Encode(input) => input.values.len(),
            Self::Check => 0,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Answer {
    Object(Object),
    Encoded(Encoded),
    Fine,
}

impl Answer {
    pub fn object(self) -> Result<Object, CodecError> {
        if let Self::Object(object) = self { Ok(object) } else { Err(CodecError::Engine) }
    }

    pub fn encoded(self) -> Result<Encoded, CodecError> {
        if let Self::Encoded(encoded) = self { Ok(encoded) } else { Err(CodecError::Engine) }
    }
}

pub(crate) fn decoder_input(uplink: &Uplink<'_>) -> String {
    json!({ "bytes": uplink.bytes, "fPort": uplink.f_port, "variables": uplink.variables }).to_string()
}

pub(crate) fn encoder_input(downlink: &Downlink<'_>) -> String {
    let data = Value::Object(downlink.data.clone());
    json!({ "data": data, "fPort": downlink.f_port, "variables": downlink.variables }).to_string()
}
