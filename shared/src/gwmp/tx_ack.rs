//! The JSON of a TX_ACK: what became of a PULL_RESP.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use super::{JsonError, loose::Loose, object, to_json, trim_json};

/// Longest word of an unknown error that is kept.
const MAX_WORD: usize = 32;

/// What a gateway said of a downlink.
#[derive(Clone, Debug, PartialEq)]
pub enum TxAckResult {
    /// It is in the gateway's queue.
    Sent(Option<TxWarning>),
    /// It will not be transmitted.
    Refused(TxError),
}

/// It will be transmitted, but not quite as asked.
#[derive(Clone, Debug, PartialEq)]
pub struct TxWarning {
    /// `TX_POWER`, usually.
    pub word: String,
    /// What is used instead, such as the power in dBm.
    pub value: Option<f64>,
}

/// Why a gateway refused, in the forwarder's words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TxError {
    TooLate,
    TooEarly,
    CollisionPacket,
    CollisionBeacon,
    TxFreq,
    TxPower,
    GpsUnlocked,
    /// A word that the protocol's text does not list, cut to 32 bytes.
    Other(String),
}

impl TxError {
    fn from_word(word: &str) -> Self {
        match word {
            "TOO_LATE" => Self::TooLate,
            "TOO_EARLY" => Self::TooEarly,
            "COLLISION_PACKET" => Self::CollisionPacket,
            "COLLISION_BEACON" => Self::CollisionBeacon,
            "TX_FREQ" => Self::TxFreq,
            "TX_POWER" => Self::TxPower,
            "GPS_UNLOCKED" => Self::GpsUnlocked,
            other => Self::Other(other.into()),
        }
    }

    /// Whether the protocol's text lists the word: then the gateway certainly does not transmit.
    pub fn is_listed(word: &str) -> bool {
        !matches!(Self::from_word(word), Self::Other(_))
    }

    /// The forwarder's word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::TooLate => "TOO_LATE",
            Self::TooEarly => "TOO_EARLY",
            Self::CollisionPacket => "COLLISION_PACKET",
            Self::CollisionBeacon => "COLLISION_BEACON",
            Self::TxFreq => "TX_FREQ",
            Self::TxPower => "TX_POWER",
            Self::GpsUnlocked => "GPS_UNLOCKED",
            Self::Other(word) => word,
        }
    }

    /// The label in metrics; one for all words that a gateway may invent.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLate => "too_late",
            Self::TooEarly => "too_early",
            Self::CollisionPacket => "collision_packet",
            Self::CollisionBeacon => "collision_beacon",
            Self::TxFreq => "tx_freq",
            Self::TxPower => "tx_power",
            Self::GpsUnlocked => "gps_unlocked",
            Self::Other(_) => "other",
        }
    }
}

/// Printable and short: it ends in logs and events.
fn cut(word: &str) -> String {
    let mut out = String::new();
    for c in word.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > MAX_WORD {
            break;
        }
        out.push(c);
    }
    out
}

/// The object inside, as a gateway writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TxAckBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<i32>,
}

impl TxAckBody {
    /// `{"txpk_ack":{...}}`
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Root<'a> {
            txpk_ack: &'a TxAckBody,
        }
        to_json(&Root { txpk_ack: self })
    }
}

#[derive(Deserialize)]
struct Root<'a> {
    #[serde(borrow, default)]
    txpk_ack: Option<Wire<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire<'a> {
    #[serde(borrow)]
    error: Loose<'a>,
    #[serde(borrow)]
    warn: Loose<'a>,
    #[serde(borrow)]
    value: Loose<'a>,
}

/// Reads the JSON of a TX_ACK. Success has three forms: no body, the error `NONE`, and an empty error; a warning is
/// success too. `TX_POWER` as an error is a refusal, as protocol versions up to 1.4 had it, unless it comes with the power
/// that is used instead. Words are read whatever their case.
pub fn parse_tx_ack(json: &[u8]) -> Result<TxAckResult, JsonError> {
    let json = trim_json(json);
    if json.is_empty() {
        return Ok(TxAckResult::Sent(None));
    }
    let text = core::str::from_utf8(json).map_err(|_| JsonError::Malformed)?;
    let root: Root<'_> = object(text).ok_or(JsonError::Malformed)?;
    let Some(wire) = root.txpk_ack else { return Ok(TxAckResult::Sent(None)) };
    let word = |field: &Loose<'_>| {
        let word = field.str().unwrap_or_default().trim().to_ascii_uppercase();
        (!word.is_empty() && word != "NONE").then(|| cut(&word))
    };
    let value = wire.value.number();
    match word(&wire.error) {
        Some(word) if word == "TX_POWER" && value.is_some() => Ok(TxAckResult::Sent(Some(TxWarning { word, value }))),
        Some(error) => Ok(TxAckResult::Refused(TxError::from_word(&error))),
        None => Ok(TxAckResult::Sent(word(&wire.warn).map(|word| TxWarning { word, value }))),
    }
}
