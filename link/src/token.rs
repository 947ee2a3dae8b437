//! Join tokens: `limpet1.<payload>.<MAC>`, both parts base64url without padding. Whoever holds one may trade it for a
//! certificate ([`crate::join`]) until it expires or is used up. The MAC is HMAC-SHA256 under the cluster's token key
//! over everything before the last dot, so that any balancer of the cluster can check it.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use limpet_shared::{
    UnixMicros,
    admin::{Role, TokenInfo},
};
use prost::{Message, bytes::Bytes};
use ring::{digest, hmac};

use crate::time::rfc3339;

pub mod ledger;
pub(crate) mod rotation;

const PREFIX: &str = "limpet1";
/// The longest token that is looked at: room for some forty addresses.
const MAX_LEN: usize = 4096;

/// SHA-256 of a CA certificate (DER): how a token and an identity name their cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn of(certificate_der: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, certificate_der).as_ref());
        Self(out)
    }
}
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the join token is malformed: {0}")]
    Malformed(&'static str),
    #[error("the join token expired at {}; the balancer's clock says {}", rfc3339(*at), rfc3339(*now))]
    Expired { at: UnixMicros, now: UnixMicros },
    #[error("the join token was revoked")]
    Revoked,
    #[error("the join token is used up: it was good for {0} server(s)")]
    UsedUp(u32),
    #[error("the join token is of another cluster, or was changed on its way")]
    WrongCluster,
    #[error("the join token is for a {}, not for a {}", role_name(*.token), role_name(*.wanted))]
    WrongRole { token: Role, wanted: Role },
    #[error("a join token {0}")]
    Refused(&'static str),
    #[error(transparent)]
    File(#[from] crate::files::FileError),
    #[error("{0} is damaged: {1}")]
    Damaged(String, String),
}

/// `worker` or `balancer`.
pub fn role_name(role: Role) -> &'static str {
    role.as_str()
}

/// A join token that was read, not yet verified. Its `Debug` form shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Random, 16 hex digits.
    pub id: String,
    pub role: Role,
    /// By the clock of the balancer that made it, as all its times.
    pub created_at: UnixMicros,
    pub expires_at: UnixMicros,
    /// How many certificates it is good for.
    pub uses: u32,
    /// Link addresses (`host:port`), one per balancer.
    pub addresses: Vec<String>,
    /// The cluster's CA.
    pub ca: Fingerprint,
    text: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("role", &self.role)
            .field("expires_at", &self.expires_at)
            .field("uses", &self.uses)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Message)]
struct Payload {
    #[prost(fixed64, tag = "1")]
    id: u64,
    /// 1 worker, 2 balancer.
    #[prost(uint32, tag = "2")]
    role: u32,
    /// Unix seconds.
    #[prost(uint64, tag = "3")]
    expires_at: u64,
    #[prost(uint32, tag = "4")]
    uses: u32,
    #[prost(string, repeated, tag = "5")]
    addresses: Vec<String>,
    #[prost(bytes = "bytes", tag = "6")]
    ca: Bytes,
    /// Unix seconds.
    #[prost(uint64, tag = "7")]
    created_at: u64,
}

impl FromStr for Token {
    type Err = TokenError;

    /// Reads a token as a client can, without the key: its MAC is not checked.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        use TokenError::Malformed;
        let text = text.trim();
        if text.len() > MAX_LEN {
            return Err(Malformed("it is too long"));
        }
        let rest = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('.'));
        let rest = rest.ok_or(Malformed("it does not start with limpet1."))?;
        let (payload, mac) = rest.split_once('.').ok_or(Malformed("its end is missing"))?;
        if BASE64.decode(mac).map_err(|_| Malformed("its last part is no base64url"))?.len()
            != digest::SHA256_OUTPUT_LEN
        {
            return Err(Malformed("its end is missing"));
        }
        let payload = BASE64.decode(payload).map_err(|_| Malformed("its second part is no base64url"))?;
        let payload = Payload::decode(&payload[..]).map_err(|_| Malformed("its second part cannot be read"))?;
        Self::from_payload(payload, text)
    }
}

impl Token {
    fn from_payload(payload: Payload, text: &str) -> Result<Self, TokenError> {
        use TokenError::Malformed;
        let role = match payload.role {
            1 => Role::Worker,
            2 => Role::Balancer,
            _ => return Err(Malformed("it is for an unknown role")),
        };
        let ca = <[u8; 32]>::try_from(&payload.ca[..]).map_err(|_| Malformed("it names no cluster"))?;
        if payload.addresses.is_empty() {
            return Err(Malformed("it names no balancer"));
        }
        Ok(Self {
            id: format!("{:016x}", payload.id),
            role,
            created_at: UnixMicros(payload.created_at.saturating_mul(1_000_000)),
            expires_at: UnixMicros(payload.expires_at.saturating_mul(1_000_000)),
            uses: payload.uses,
            addresses: payload.addresses,
            ca: Fingerprint(ca),
            text: text.to_owned(),
        })
    }

    /// What may be told of it. It has let nobody in yet.
    pub fn info(&self) -> TokenInfo {
        TokenInfo {
            id: self.id.clone(),
            role: self.role,
            created_at: self.created_at,
            expires_at: self.expires_at,
            uses: self.uses,
            ..TokenInfo::default()
        }
    }

    /// The token as it is handed on. A secret.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// What a new token shall say.
#[derive(Clone, Debug)]
pub struct NewToken {
    pub role: Role,
    pub created_at: UnixMicros,
    pub expires_at: UnixMicros,
    pub uses: u32,
    pub addresses: Vec<String>,
    pub ca: Fingerprint,
}

/// The key that signs and verifies join tokens: 32 bytes, shared by all balancers of a cluster.
pub struct TokenKey(hmac::Key);

impl TokenKey {
    /// The key from its bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Signs a token. `id` is random.
    pub fn sign(&self, id: u64, new: NewToken) -> Result<Token, TokenError> {
        if new.uses == 0 {
            return Err(TokenError::Refused("must be good for at least one use"));
        }
        let payload = Payload {
            id,
            role: match new.role {
                Role::Worker => 1,
                Role::Balancer => 2,
            },
            created_at: new.created_at.0 / 1_000_000,
            expires_at: new.expires_at.0.div_ceil(1_000_000),
            uses: new.uses,
            addresses: new.addresses,
            ca: Bytes::copy_from_slice(&new.ca.0),
        };
        let signed = format!("{PREFIX}.{}", BASE64.encode(payload.encode_to_vec()));
        let mac = BASE64.encode(hmac::sign(&self.0, signed.as_bytes()));
        let text = format!("{signed}.{mac}");
        if text.len() > MAX_LEN {
            return Err(TokenError::Refused("can carry fewer addresses"));
        }
        Token::from_payload(payload, &text)
    }

    /// Reads a token and checks its MAC and expiry. Its uses are counted by [`ledger::Ledger`].
    pub fn verify(&self, text: &str, now: UnixMicros) -> Result<Token, TokenError> {
        let token: Token = text.parse()?;
        let (signed, mac) = token.text.rsplit_once('.').ok_or(TokenError::WrongCluster)?;
        let mac = BASE64.decode(mac).map_err(|_| TokenError::WrongCluster)?;
        hmac::verify(&self.0, signed.as_bytes(), &mac).map_err(|_| TokenError::WrongCluster)?;
        if token.expires_at <= now {
            return Err(TokenError::Expired { at: token.expires_at, now });
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = UnixMicros(1_700_000_000_000_000);

    fn key() -> TokenKey {
        TokenKey::new(&[7; 32])
    }
    fn new() -> NewToken {
        NewToken {
            role: Role::Worker,
            created_at: NOW,
            expires_at: UnixMicros(NOW.0 + 1),
            uses: 3,
            addresses: vec!["10.0.0.1:1701".into()],
            ca: Fingerprint([9; 32]),
        }
    }

    #[test]
    fn a_token_says_what_it_was_made_with() {
        let token = key().sign(0xabc, new()).unwrap();
        let read: Token = format!(" {}\n", token.as_str()).parse().unwrap();
        assert_eq!(read, token);
        assert_eq!((read.id.as_str(), read.uses, read.role), ("0000000000000abc", 3, Role::Worker));
        assert_eq!(read.addresses, ["10.0.0.1:1701"]);
        assert_eq!(key().verify(token.as_str(), NOW).unwrap(), token);
        let mac = token.as_str().rsplit_once('.').unwrap().1;
        assert!(!format!("{token:?}").contains(mac));
    }

    #[test]
    fn each_refusal_names_its_cause() {
        let token = key().sign(1, new()).unwrap();
        let later = UnixMicros(token.expires_at.0);
        let error = key().verify(token.as_str(), later).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the join token expired at 2023-11-14T22:13:21Z; the balancer's clock says 2023-11-14T22:13:21Z"
        );
        assert!(matches!(TokenKey::new(&[8; 32]).verify(token.as_str(), NOW), Err(TokenError::WrongCluster)));
        assert!(matches!(key().sign(1, NewToken { uses: 0, ..new() }), Err(TokenError::Refused(_))));
        let cut = &token.as_str()[..token.as_str().len() - 4];
        for bad in ["", "limpet1", "limpet1.", "limpet1..", "limpet2.a.b", "limpet1.%%.%%", cut, &"x".repeat(5000)] {
            assert!(matches!(bad.parse::<Token>(), Err(TokenError::Malformed(_))), "{bad:?}");
        }
    }

    #[test]
    fn no_change_of_any_character_passes() {
        let token = key().sign(1, new()).unwrap();
        for at in 0..token.as_str().len() {
            let mut bytes = token.as_str().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(key().verify(&changed, NOW).is_err(), "character {at}");
        }
    }
}
