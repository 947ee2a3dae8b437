//! GWMP, the UDP protocol of Semtech's packet forwarder, versions 1 and 2: all six message types, for both sides.
//!
//! A datagram is a 4-byte header (version, token, type), the gateway's EUI if a gateway sent it, and JSON or nothing.
//! The balancer reads header and EUI only ([`parse_upstream`]); a worker reads the JSON ([`parse_push_data`],
//! [`parse_tx_ack`]). The gateway's side ([`push_data`], [`parse_downstream`], [`parse_pull_resp`]) serves simulators.
//!
//! Reading is tolerant where forwarders differ (unknown fields, numbers written as floats or text, base64 without padding
//! or with the URL alphabet, bytes of zero after the JSON) and strict where a mistake would be transmitted or stored.

mod datr;
mod glance;
mod header;
mod loose;
mod modulation;
mod push_data;
mod rxpk;
mod salvage;
mod tx_ack;
mod txpk;

use alloc::vec::Vec;

pub use datr::Datr;
pub use glance::{Glance, glance};
pub use header::{
    DownKind, Downstream, Header, HeaderError, Kind, UpKind, Upstream, parse_downstream, parse_header, parse_upstream,
    pull_ack, pull_data, pull_resp, push_ack, push_data, tx_ack,
};
pub use push_data::{PushData, Stat, parse_push_data, push_data_json};
pub use rxpk::{RSig, Rxpk, RxpkError, Signal};
pub use tx_ack::{TxAckBody, TxAckResult, TxError, TxWarning, parse_tx_ack};
pub use txpk::{Txpk, parse_pull_resp};

/// Most bytes of a PHYPayload that a concentrator can send or receive.
pub const MAX_PHY_PAYLOAD: usize = 255;
/// Most packets of one PUSH_DATA; a concentrator reports at most that many at once.
pub const MAX_RXPK: usize = 255;

/// Why the JSON of a datagram could not be used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or not of the shape that the message type has.
    #[error("not the JSON of this message type")]
    Malformed,
    /// More than [`MAX_RXPK`] packets.
    #[error("more than {MAX_RXPK} packets in one datagram")]
    TooManyPackets,
    /// A `txpk` without this field, or with a value that no gateway can transmit.
    #[error("txpk: {0} is missing or wrong")]
    Field(&'static str),
}

impl JsonError {
    /// The label of the drop in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed => "json_malformed",
            Self::TooManyPackets => "too_many_packets",
            Self::Field(_) => "txpk_field",
        }
    }
}

/// The JSON without what some forwarders send around it: a byte order mark, a terminating zero, line ends.
fn trim_json(json: &[u8]) -> &[u8] {
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let blank = |b: &u8| *b == 0 || b.is_ascii_whitespace();
    let end = json.iter().rposition(|b| !blank(b)).map_or(0, |at| at + 1);
    json.get(..end).unwrap_or_default()
}

/// Reads a JSON object. Serde's structs would take a list of their fields too, which no forwarder means.
fn object<'a, T: serde::Deserialize<'a>>(json: &'a str) -> Option<T> {
    if json.trim_ascii_start().starts_with('{') { serde_json::from_str(json).ok() } else { None }
}

/// Writes JSON. Serialising our own types to memory cannot fail; an empty body would be refused by the peer.
fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
