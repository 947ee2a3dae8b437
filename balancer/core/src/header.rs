//! The 12 bytes that every datagram of a gateway starts with (Semtech's PROTOCOL.TXT, sections 3 and 5). The balancer
//! reads no further, except into a TX_ACK.

use bytes::{BufMut, Bytes, BytesMut};
use limpet_shared::Eui64;

use crate::action::DropReason;

/// ```text
/// | u8 version | u16 token | u8 type | u64 gateway EUI, most significant byte first | JSON
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// 1 or 2.
    pub version: u8,
    /// The sender's mark, repeated in the answer.
    pub token: u16,
    pub kind: Kind,
    pub gateway: Eui64,
}

/// What a gateway sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    PushData,
    PullData,
    TxAck,
}

impl Kind {
    /// The field's name for it, as a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::PushData => "push_data",
            Self::PullData => "pull_data",
            Self::TxAck => "tx_ack",
        }
    }
}

/// Length of the header.
pub const LEN: usize = 12;
const PUSH_DATA: u8 = 0;
const PUSH_ACK: u8 = 1;
const PULL_DATA: u8 = 2;
const PULL_RESP: u8 = 3;
const PULL_ACK: u8 = 4;
const TX_ACK: u8 = 5;

impl Header {
    /// Reads the header of a datagram.
    pub fn parse(datagram: &[u8]) -> Result<Self, DropReason> {
        let &[version, t0, t1, kind, ref eui @ ..] = datagram.first_chunk::<LEN>().ok_or(DropReason::TooShort)?;
        if !(1..=2).contains(&version) {
            return Err(DropReason::GwmpVersion);
        }
        let kind = match kind {
            PUSH_DATA => Kind::PushData,
            PULL_DATA => Kind::PullData,
            TX_ACK => Kind::TxAck,
            _ => return Err(DropReason::GwmpType),
        };
        Ok(Self { version, token: u16::from_be_bytes([t0, t1]), kind, gateway: Eui64::from_be_bytes(*eui) })
    }
}

/// The answer to a PUSH_DATA.
pub fn push_ack(version: u8, token: u16) -> Bytes {
    message(version, token, PUSH_ACK, &[])
}

/// The answer to a PULL_DATA.
pub fn pull_ack(version: u8, token: u16) -> Bytes {
    message(version, token, PULL_ACK, &[])
}

/// A downlink; `json` is the whole `{"txpk":{...}}`.
pub fn pull_resp(version: u8, token: u16, json: &[u8]) -> Bytes {
    message(version, token, PULL_RESP, json)
}

fn message(version: u8, token: u16, kind: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + body.len());
    out.put_u8(version);
    out.put_u16(token);
    out.put_u8(kind);
    out.put_slice(body);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_and_what_is_none_is_named() {
        let good = [2, 0xab, 0xcd, 0, 0, 0x16, 0xc0, 1, 0xff, 0x10, 0xa2, 0x35, b'{'];
        let header = Header::parse(&good).unwrap();
        let gateway = Eui64(0x0016_c001_ff10_a235);
        assert_eq!(header, Header { version: 2, token: 0xabcd, kind: Kind::PushData, gateway });
        let with = |at: usize, byte: u8| {
            let mut bad = good;
            bad[at] = byte;
            Header::parse(&bad)
        };
        assert_eq!(Header::parse(&good[..11]), Err(DropReason::TooShort));
        assert_eq!(with(0, 3), Err(DropReason::GwmpVersion));
        assert_eq!(with(3, 1), Err(DropReason::GwmpType));
        assert_eq!(with(3, 5).unwrap().kind, Kind::TxAck);
        assert_eq!(push_ack(1, 0xabcd), &[1, 0xab, 0xcd, 1][..]);
        assert_eq!(pull_resp(2, 1, b"{}"), &[2, 0, 1, 3, b'{', b'}'][..]);
    }
}
