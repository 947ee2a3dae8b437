//! The binary part of a datagram.

use alloc::vec::Vec;

use crate::Eui64;

/// The six message types, with the number that byte 3 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    PushData = 0,
    PushAck = 1,
    PullData = 2,
    PullResp = 3,
    PullAck = 4,
    TxAck = 5,
}

/// The first four bytes of every datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// 1 or 2. A gateway of version 1 sends no TX_ACK.
    pub version: u8,
    /// Chosen by whoever asks, repeated in the answer.
    pub token: u16,
    pub kind: Kind,
}

/// Why a datagram is no GWMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("shorter than its header")]
    TooShort,
    #[error("unknown protocol version {0}")]
    UnknownVersion(u8),
    #[error("unknown message type {0}")]
    UnknownType(u8),
    #[error("a gateway sends no {0:?}")]
    NotFromGateway(Kind),
    #[error("a server sends no {0:?}")]
    NotFromServer(Kind),
}

impl HeaderError {
    /// The label of the drop in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::UnknownVersion(_) => "unknown_version",
            Self::UnknownType(_) => "unknown_type",
            Self::NotFromGateway(_) => "not_from_gateway",
            Self::NotFromServer(_) => "not_from_server",
        }
    }
}

/// What a gateway sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpKind {
    PushData,
    PullData,
    TxAck,
}

/// A datagram from a gateway; its JSON is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream<'a> {
    pub version: u8,
    pub token: u16,
    pub kind: UpKind,
    pub gateway: Eui64,
    /// All behind the EUI; empty for PULL_DATA, and for a TX_ACK that says nothing but yes.
    pub json: &'a [u8],
}

/// What a server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownKind {
    PushAck,
    PullAck,
    PullResp,
}

/// A datagram from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downstream<'a> {
    pub version: u8,
    pub token: u16,
    pub kind: DownKind,
    /// `{"txpk":{...}}` of a PULL_RESP, else empty.
    pub json: &'a [u8],
}

/// Reads the four bytes that all messages begin with.
pub fn parse_header(datagram: &[u8]) -> Result<Header, HeaderError> {
    let &[version, high, low, kind, ..] = datagram else { return Err(HeaderError::TooShort) };
    if !matches!(version, 1 | 2) {
        return Err(HeaderError::UnknownVersion(version));
    }
    let kind = match kind {
        0 => Kind::PushData,
        1 => Kind::PushAck,
        2 => Kind::PullData,
        3 => Kind::PullResp,
        4 => Kind::PullAck,
        5 => Kind::TxAck,
        other => return Err(HeaderError::UnknownType(other)),
    };
    Ok(Header { version, token: u16::from_be_bytes([high, low]), kind })
}

/// Reads header and EUI of what a gateway sent.
pub fn parse_upstream(datagram: &[u8]) -> Result<Upstream<'_>, HeaderError> {
    let Header { version, token, kind } = parse_header(datagram)?;
    let kind = match kind {
        Kind::PushData => UpKind::PushData,
        Kind::PullData => UpKind::PullData,
        Kind::TxAck => UpKind::TxAck,
        other => return Err(HeaderError::NotFromGateway(other)),
    };
    let rest = datagram.get(4..).unwrap_or_default();
    let (eui, json) = rest.split_first_chunk::<8>().ok_or(HeaderError::TooShort)?;
    let json = if kind == UpKind::PullData { &[] } else { json };
    Ok(Upstream { version, token, kind, gateway: Eui64::from_be_bytes(*eui), json })
}

/// Reads what a server sent, as a gateway does.
pub fn parse_downstream(datagram: &[u8]) -> Result<Downstream<'_>, HeaderError> {
    let Header { version, token, kind } = parse_header(datagram)?;
    let (kind, json) = match kind {
        Kind::PushAck => (DownKind::PushAck, &[][..]),
        Kind::PullAck => (DownKind::PullAck, &[][..]),
        Kind::PullResp => (DownKind::PullResp, datagram.get(4..).unwrap_or_default()),
        other => return Err(HeaderError::NotFromServer(other)),
    };
    Ok(Downstream { version, token, kind, json })
}

fn header(version: u8, token: u16, kind: Kind) -> [u8; 4] {
    let [high, low] = token.to_be_bytes();
    [version, high, low, kind as u8]
}

fn with_eui(version: u8, token: u16, kind: Kind, gateway: Eui64) -> [u8; 12] {
    let mut out = [0; 12];
    let (head, eui) = out.split_at_mut(4);
    head.copy_from_slice(&header(version, token, kind));
    eui.copy_from_slice(&gateway.0.to_be_bytes());
    out
}

/// The answer to the PUSH_DATA with this token.
pub fn push_ack(version: u8, token: u16) -> [u8; 4] {
    header(version, token, Kind::PushAck)
}

/// The answer to the PULL_DATA with this token.
pub fn pull_ack(version: u8, token: u16) -> [u8; 4] {
    header(version, token, Kind::PullAck)
}

/// A downlink for a gateway; `json` is `{"txpk":{...}}` ([`super::Txpk::to_json`]). In version 1 the token's bytes are
/// unused, and gateways ignore them.
pub fn pull_resp(version: u8, token: u16, json: &[u8]) -> Vec<u8> {
    [&header(version, token, Kind::PullResp)[..], json].concat()
}

/// A gateway's report; `json` as [`super::push_data_json`] writes it.
pub fn push_data(version: u8, token: u16, gateway: Eui64, json: &[u8]) -> Vec<u8> {
    [&with_eui(version, token, Kind::PushData, gateway)[..], json].concat()
}

/// A gateway's keep-alive.
pub fn pull_data(version: u8, token: u16, gateway: Eui64) -> [u8; 12] {
    with_eui(version, token, Kind::PullData, gateway)
}

/// A gateway's answer to the PULL_RESP with this token; empty `json` means that it will transmit.
pub fn tx_ack(version: u8, token: u16, gateway: Eui64, json: &[u8]) -> Vec<u8> {
    [&with_eui(version, token, Kind::TxAck, gateway)[..], json].concat()
}
