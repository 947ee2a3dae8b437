//! Identifiers as LoRaWAN defines them.

use alloc::string::String;
use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A 64-bit IEEE EUI: gateway EUI, DevEUI or JoinEUI. Written as 16 hex digits, most significant byte first
/// (on air LoRaWAN sends it least significant byte first; GWMP most significant first).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Eui64(pub u64);

/// A device's 32-bit network address (LoRaWAN 1.0.4, 6.1.1). Written as 8 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DevAddr(pub u32);

/// A 128-bit AES key. Its `Debug` form hides the key, so that no log can hold one.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct AesKey(pub [u8; 16]);

/// Why a text is no identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {digits} hex digits{not}", not = instead(got))]
pub struct IdError {
    /// The kind of identifier, such as "EUI".
    pub what: &'static str,
    /// How many hex digits it has.
    pub digits: usize,
    /// The text that was given, cut to 64 characters; empty for a key, which no message may show.
    pub got: String,
}

fn instead(got: &str) -> String {
    if got.is_empty() { String::new() } else { alloc::format!(", not {got:?}") }
}

/// Reads `N` bytes of hex digits. A colon or dash between bytes is allowed, as people copy EUIs from labels.
fn hex_bytes<const N: usize>(what: &'static str, text: &str, secret: bool) -> Result<[u8; N], IdError> {
    let error =
        || IdError { what, digits: 2 * N, got: if secret { String::new() } else { text.chars().take(64).collect() } };
    let mut out = [0; N];
    let mut digits = 0;
    for (at, c) in text.trim().chars().enumerate() {
        if matches!(c, ':' | '-') && at > 0 {
            continue;
        }
        let digit = c.to_digit(16).ok_or_else(error)? as u8;
        let byte = out.get_mut(digits / 2).ok_or_else(error)?;
        *byte = *byte << 4 | digit;
        digits += 1;
    }
    if digits == 2 * N { Ok(out) } else { Err(error()) }
}

impl Eui64 {
    /// From the byte order of GWMP and of text: most significant byte first.
    pub fn from_be_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }
    /// From the byte order of LoRaWAN on air: least significant byte first.
    pub fn from_le_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }
}

impl fmt::Display for Eui64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
impl fmt::Display for DevAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}
impl AesKey {
    /// The key as 32 hex digits, for the API that sets and shows keys; never for a log.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}
impl fmt::Debug for Eui64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Debug for DevAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Debug for AesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AesKey(hidden)")
    }
}

impl FromStr for Eui64 {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        hex_bytes("EUI", text, false).map(Self::from_be_bytes)
    }
}
impl FromStr for DevAddr {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        hex_bytes("DevAddr", text, false).map(|b| Self(u32::from_be_bytes(b)))
    }
}
impl FromStr for AesKey {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        hex_bytes("key", text, true).map(Self)
    }
}

macro_rules! serde_as_text {
    ($t:ty, |$v:ident| $show:expr) => {
        impl Serialize for $t {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let $v = self;
                s.serialize_str(&$show)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    };
}
serde_as_text!(Eui64, |v| alloc::format!("{v}"));
serde_as_text!(DevAddr, |v| alloc::format!("{v}"));
serde_as_text!(AesKey, |v| v.to_hex());

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_eui_reads_what_it_writes_and_what_labels_show() {
        let eui: Eui64 = "0016c001ff10a235".parse().unwrap();
        assert_eq!(eui, "00:16:C0:01:FF:10:A2:35".parse().unwrap());
        assert_eq!(eui.to_string(), "0016c001ff10a235");
        for bad in ["", "0016c001ff10a2", "0016c001ff10a2350", "0016c001ff10a23g", "é"] {
            assert_eq!(bad.parse::<Eui64>().unwrap_err().got, bad);
        }
    }

    #[test]
    fn no_message_shows_a_key() {
        let error = "00112233445566778899aabbccddee".parse::<AesKey>().unwrap_err();
        assert!(!error.to_string().contains("0011"));
        assert!(!alloc::format!("{:?}", AesKey([7; 16])).contains('7'));
    }
}
