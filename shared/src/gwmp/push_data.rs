//! The JSON of a PUSH_DATA: received packets, the gateway's status, or both.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{
    JsonError, MAX_RXPK, Rxpk, RxpkError,
    loose::Loose,
    object,
    salvage::{clean, salvage},
    to_json, trim_json,
};

/// Longest text of a status field that is kept.
const MAX_TEXT: usize = 128;

/// What a gateway reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PushData {
    /// Each packet for itself: one that can't be read costs no other.
    pub rxpk: Vec<Result<Rxpk, RxpkError>>,
    pub stat: Option<Result<Stat, JsonError>>,
}

/// The gateway's status: all fields that forwarders send.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stat {
    /// The gateway's time, `2014-01-12 08:59:28 GMT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// When the forwarder started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Degrees, north is positive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lati: Option<f64>,
    /// Degrees, east is positive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub long: Option<f64>,
    /// Metres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alti: Option<i32>,
    /// Packets received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rxnb: Option<u32>,
    /// Packets received with good CRC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rxok: Option<u32>,
    /// Packets forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rxfw: Option<u32>,
    /// Share of upstream datagrams that were acknowledged, per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ackr: Option<f32>,
    /// Downlinks received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dwnb: Option<u32>,
    /// Packets transmitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txnb: Option<u32>,
    /// Degrees Celsius.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temp: Option<f32>,
    /// Packets received from the link testing mote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lmok: Option<u32>,
    /// First sequence number received from the link testing mote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lmst: Option<u32>,
    /// Last sequence number received from the link testing mote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lmnw: Option<u32>,
    /// PPS pulses lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lpps: Option<u32>,
    /// Version of the FPGA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fpga: Option<u32>,
    /// Version of the DSP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dsp: Option<u32>,
    /// Version of the driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hal: Option<String>,
    /// Platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pfrm: Option<String>,
    /// Who to write to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<String>,
    /// Description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desc: Option<String>,
}

#[derive(Deserialize)]
struct Root<'a> {
    #[serde(borrow, default, deserialize_with = "list_or_null")]
    rxpk: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    stat: Option<&'a RawValue>,
}

fn list_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'de RawValue>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireStat<'a> {
    #[serde(borrow)]
    time: Loose<'a>,
    #[serde(borrow)]
    boot: Loose<'a>,
    lati: Loose<'a>,
    long: Loose<'a>,
    alti: Loose<'a>,
    rxnb: Loose<'a>,
    rxok: Loose<'a>,
    rxfw: Loose<'a>,
    ackr: Loose<'a>,
    dwnb: Loose<'a>,
    txnb: Loose<'a>,
    temp: Loose<'a>,
    lmok: Loose<'a>,
    lmst: Loose<'a>,
    lmnw: Loose<'a>,
    lpps: Loose<'a>,
    fpga: Loose<'a>,
    dsp: Loose<'a>,
    hal: Loose<'a>,
    pfrm: Loose<'a>,
    mail: Loose<'a>,
    desc: Loose<'a>,
}

/// Reads the JSON of a PUSH_DATA. `Err` means that nothing of it can be used.
pub fn parse_push_data(json: &[u8]) -> Result<PushData, JsonError> {
    // A description in another character set must not cost the packets beside it.
    let text = String::from_utf8_lossy(trim_json(json));
    let Some(root) = object::<Root<'_>>(&text) else { return broken(&text) };
    if root.rxpk.len() > MAX_RXPK {
        return Err(JsonError::TooManyPackets);
    }
    let rxpk = root.rxpk.into_iter().map(|packet| Rxpk::read(packet.get())).collect();
    Ok(PushData { rxpk, stat: root.stat.map(|stat| Stat::read(stat.get())) })
}

/// What is left of JSON that is broken.
fn broken(text: &str) -> Result<PushData, JsonError> {
    let found = salvage(text);
    if found.packets.len() > MAX_RXPK {
        return Err(JsonError::TooManyPackets);
    }
    let rxpk: Vec<_> = found.packets.iter().map(|packet| Rxpk::read(packet)).collect();
    let stats = found.stats.iter().map(|stat| Stat::read(stat));
    let stat = stats.reduce(|earlier, later| if later.is_ok() { later } else { earlier });
    let says_nothing = rxpk.iter().all(|packet| packet == &Err(RxpkError::Malformed)) && !matches!(stat, Some(Ok(_)));
    if says_nothing { Err(JsonError::Malformed) } else { Ok(PushData { rxpk, stat }) }
}

/// Writes the JSON of a PUSH_DATA, as a gateway does.
pub fn push_data_json(rxpk: &[Rxpk], stat: Option<&Stat>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Root<'a> {
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        rxpk: &'a [Rxpk],
        #[serde(skip_serializing_if = "Option::is_none")]
        stat: Option<&'a Stat>,
    }
    to_json(&Root { rxpk, stat })
}

impl Stat {
    fn read(json: &str) -> Result<Self, JsonError> {
        match object::<WireStat<'_>>(json) {
            Some(wire) => Ok(Self::from(wire)),
            // Whole, but with a field twice or a value that cannot be read.
            None => {
                clean(json).and_then(|json| object::<WireStat<'_>>(&json).map(Self::from)).ok_or(JsonError::Malformed)
            }
        }
    }
}

impl From<WireStat<'_>> for Stat {
    fn from(wire: WireStat<'_>) -> Self {
        let text = |field: &Loose<'_>| field.text(MAX_TEXT);
        Self {
            time: text(&wire.time),
            boot: text(&wire.boot),
            lati: wire.lati.f64(),
            long: wire.long.f64(),
            alti: wire.alti.i32(),
            rxnb: wire.rxnb.u32(),
            rxok: wire.rxok.u32(),
            rxfw: wire.rxfw.u32(),
            ackr: wire.ackr.f32(),
            dwnb: wire.dwnb.u32(),
            txnb: wire.txnb.u32(),
            temp: wire.temp.f32(),
            lmok: wire.lmok.u32(),
            lmst: wire.lmst.u32(),
            lmnw: wire.lmnw.u32(),
            lpps: wire.lpps.u32(),
            fpga: wire.fpga.u32(),
            dsp: wire.dsp.u32(),
            hal: text(&wire.hal),
            pfrm: text(&wire.pfrm),
            mail: text(&wire.mail),
            desc: text(&wire.desc),
        }
    }
}
