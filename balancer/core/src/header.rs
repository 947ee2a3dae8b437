//! The 12 bytes that every datagram of a gateway starts with. The balancer reads no further, except into a TX_ACK.

use limpet_shared::{
    Eui64,
    gwmp::{HeaderError, MAX_RXPK, UpKind, parse_upstream},
};

use crate::action::DropReason;

/// What the edge reads of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// 1 or 2.
    pub version: u8,
    /// The sender's mark, repeated in the answer.
    pub token: u16,
    pub kind: UpKind,
    pub gateway: Eui64,
}

/// At most so many packets are counted of one datagram: more are read by nobody.
const MOST_PACKETS: usize = MAX_RXPK + 1;

/// How many packets a PUSH_DATA can hold, without reading its JSON: each is an object, so that there is an opening brace
/// for it. Whatever else has one (the whole, a `stat`, signals by antenna) is counted too, never too little.
pub fn packets(datagram: &[u8]) -> u32 {
    let braces = datagram.iter().skip(LEN).filter(|byte| **byte == b'{').count();
    braces.saturating_sub(1).clamp(1, MOST_PACKETS) as u32
}

/// Length of the header.
pub const LEN: usize = 12;

impl Header {
    /// Reads the header of a datagram.
    pub fn parse(datagram: &[u8]) -> Result<Self, DropReason> {
        let up = parse_upstream(datagram).map_err(|error| match error {
            HeaderError::TooShort => DropReason::TooShort,
            HeaderError::UnknownVersion(_) => DropReason::GwmpVersion,
            HeaderError::UnknownType(_) | HeaderError::NotFromGateway(_) | HeaderError::NotFromServer(_) => {
                DropReason::GwmpType
            }
        })?;
        Ok(Self { version: up.version, token: up.token, kind: up.kind, gateway: up.gateway })
    }
}

/// The message type's name, as a metric's label.
pub fn label(kind: UpKind) -> &'static str {
    match kind {
        UpKind::PushData => "push_data",
        UpKind::PullData => "pull_data",
        UpKind::TxAck => "tx_ack",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_by_their_braces() {
        let of = |json: &str| packets(&[&[0; LEN][..], json.as_bytes()].concat());
        assert_eq!(of(""), 1);
        assert_eq!(of(r#"{"rxpk":[]}"#), 1);
        assert_eq!(of(r#"{"rxpk":[{"data":"AA=="},{"data":"AA=="}]}"#), 2);
        assert_eq!(of(r#"{"rxpk":[{"data":"AA==","rsig":[{"ant":0}]}],"stat":{}}"#), 3);
        assert_eq!(of(&"{".repeat(10_000)), 256);
    }

    #[test]
    fn the_header_is_read_and_what_is_none_is_named() {
        let good = [2, 0xab, 0xcd, 0, 0, 0x16, 0xc0, 1, 0xff, 0x10, 0xa2, 0x35, b'{'];
        let header = Header::parse(&good).unwrap();
        let gateway = Eui64(0x0016_c001_ff10_a235);
        assert_eq!(header, Header { version: 2, token: 0xabcd, kind: UpKind::PushData, gateway });
        let with = |at: usize, byte: u8| {
            let mut bad = good;
            bad[at] = byte;
            Header::parse(&bad)
        };
        assert_eq!(Header::parse(&good[..11]), Err(DropReason::TooShort));
        assert_eq!(with(0, 3), Err(DropReason::GwmpVersion));
        assert_eq!(with(3, 1), Err(DropReason::GwmpType));
        assert_eq!(with(3, 5).unwrap().kind, UpKind::TxAck);
    }
}
