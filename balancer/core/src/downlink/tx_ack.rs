//! What a gateway says of a downlink (PROTOCOL.TXT, section 5.5 and section 6).

use alloc::string::{String, ToString};

use serde::Deserialize;

/// A TX_ACK is a few words; more than this is none.
const MAX_BODY: usize = 4_096;
const MAX_WORD: usize = 32;

#[derive(Deserialize)]
struct Body {
    txpk_ack: Option<TxpkAck>,
}
#[derive(Deserialize)]
struct TxpkAck {
    error: Option<String>,
}

/// The gateway's word for why it does not transmit; empty if it does. `None` if nobody can tell. Success has three forms: no
/// body, `"error":"NONE"` and `"error":""`. TX_POWER is a warning: it transmits, with the nearest power it has.
pub fn outcome(body: &[u8]) -> Option<String> {
    let body = body.trim_ascii().strip_suffix(&[0]).unwrap_or(body).trim_ascii();
    if body.is_empty() {
        return Some(String::new());
    }
    if body.len() > MAX_BODY {
        return None;
    }
    let parsed: Body = serde_json::from_slice(body).ok()?;
    let word = parsed.txpk_ack.and_then(|ack| ack.error).unwrap_or_default().trim().to_ascii_uppercase();
    match word.as_str() {
        "" | "NONE" | "TX_POWER" => Some(String::new()),
        word => {
            Some(word.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(MAX_WORD).collect::<String>())
                .map(|word| if word.is_empty() { "UNKNOWN".to_string() } else { word })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_success_and_the_words_of_failure() {
        for success in [
            "",
            "  ",
            "\0",
            r#"{"txpk_ack":{"error":"NONE"}}"#,
            r#"{"txpk_ack":{"error":""}}"#,
            r#"{"txpk_ack":{}}"#,
            "{}",
        ] {
            assert_eq!(outcome(success.as_bytes()).as_deref(), Some(""), "{success}");
        }
        assert_eq!(outcome(br#"{"txpk_ack":{"error":"TX_POWER","value":14}}"#).as_deref(), Some(""));
        assert_eq!(outcome(br#"{"txpk_ack":{"warn":"TX_POWER","value":14}}"#).as_deref(), Some(""));
        assert_eq!(outcome(br#"{"txpk_ack":{"error":"TOO_LATE"}}"#).as_deref(), Some("TOO_LATE"));
        assert_eq!(outcome(br#"{"txpk_ack":{"error":"collision_packet\n"}}"#).as_deref(), Some("COLLISION_PACKET"));
        assert_eq!(outcome(br#"{"txpk_ack":{"error":"\u0007"}}"#).as_deref(), Some("UNKNOWN"));
        for junk in [&b"{"[..], b"[1]", &[0xff; 9], b" x", &[b'['; 9_000]] {
            assert_eq!(outcome(junk), None);
        }
    }
}
