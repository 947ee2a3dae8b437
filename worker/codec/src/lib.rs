//! Codecs: what stands in an FRMPayload, in words, and the way back. As in ChirpStack v4 a device profile has none, Cayenne LPP or
//! a script in JavaScript.
//!
//! Scripts run on threads of their own, in a QuickJS engine with limits of time, memory and stack; who has used most of the time
//! waits for the others. Nothing of one call is seen by the next (`realm` says how).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cayenne;
mod error;
mod js;
mod pool;
mod realm;
mod sandbox;
mod stops;
mod tame;
mod turns;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use error::CodecError;

/// What a payload says, by name.
pub type Object = serde_json::Map<String, serde_json::Value>;
/// A device's variables.
pub type Variables = BTreeMap<String, String>;

/// The longest script that is taken.
pub const LONGEST_SCRIPT: usize = 256 * 1024;

/// What scripts may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Processor time of one call; what others on the machine use does not count.
    pub time: Duration,
    /// Bytes that one call may have beyond what an empty engine has.
    pub memory: usize,
    /// Threads that run scripts; 0: half the processors, two at least and four at most.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_millis(100), memory: 16 * 1024 * 1024, threads: 0 }
    }
}

/// How a profile's payloads are read and written.
#[derive(Clone, Copy, Debug)]
pub enum Codec<'a> {
    None,
    CayenneLpp,
    Js(Script<'a>),
}

/// A script, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// Who is to wait when it takes long: the tenant.
    pub owner: u128,
    /// The profile: one script at a time.
    pub id: u128,
    pub text: &'a str,
}

/// What a device has sent.
#[derive(Clone, Copy, Debug)]
pub struct Uplink<'a> {
    pub bytes: &'a [u8],
    pub f_port: u8,
    /// Milliseconds since 1970.
    pub received_at: u64,
    pub variables: &'a Variables,
}

/// What a device is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Downlink<'a> {
    pub data: &'a Object,
    /// As the request has it, 0 if it has none.
    pub f_port: u8,
    pub variables: &'a Variables,
}

/// What an encoder made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub bytes: Vec<u8>,
    /// The encoder's, or else the request's.
    pub f_port: u8,
}

/// Codecs of a process. Cheap to clone; clones share threads and limits, and the threads begin with the first script.
#[derive(Clone)]
pub struct Codecs {
    pool: Arc<pool::Pool>,
}

impl Default for Codecs {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Codecs {
    pub fn new(limits: Limits) -> Self {
        Self { pool: Arc::new(pool::Pool::new(limits)) }
    }

    /// `None` without a codec.
    pub async fn decode(&self, codec: Codec<'_>, uplink: Uplink<'_>) -> Result<Option<Object>, CodecError> {
        match codec {
            Codec::None => Ok(None),
            Codec::CayenneLpp => cayenne::decode(uplink.bytes).map(Some),
            Codec::Js(script) => {
                let input = js::Input {
                    values: js::decoder_input(&uplink),
                    received_at: Some(uplink.received_at),
                    f_port: uplink.f_port,
                };
                self.pool.run(script, js::Call::Decode(input)).await.and_then(js::Answer::object).map(Some)
            }
        }
    }

    pub async fn encode(&self, codec: Codec<'_>, downlink: Downlink<'_>) -> Result<Encoded, CodecError> {
        match codec {
            Codec::None => Err(CodecError::NoCodec),
            Codec::CayenneLpp => Ok(Encoded { bytes: cayenne::encode(downlink.data)?, f_port: downlink.f_port }),
            Codec::Js(script) => {
                let input =
                    js::Input { values: js::encoder_input(&downlink), received_at: None, f_port: downlink.f_port };
                self.pool.run(script, js::Call::Encode(input)).await.and_then(js::Answer::encoded)
            }
        }
    }

    /// Whether the script can be loaded: it compiles, and what it does when it is loaded ends well.
    pub async fn check(&self, script: Script<'_>) -> Result<(), CodecError> {
        if script.text.len() > LONGEST_SCRIPT {
            return Err(CodecError::TooLong);
        }
        self.pool.run(script, js::Call::Check).await.map(drop)
    }
}
