//! The tokens that callers show: JSON Web Tokens, signed with a key that all workers of the network share.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use limpet_shared::UnixMicros;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{ApiError, Result};

/// How long a log-in holds.
pub(super) const LOGIN_HOLDS: Duration = Duration::from_secs(24 * 3600);
const ISSUER: &str = "limpet";
/// Longer than any token of ours.
const LONGEST: usize = 4096;

/// Whose token it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    User,
    Key,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Claims {
    pub iss: String,
    /// Id of the user or API key.
    pub sub: Uuid,
    pub typ: Kind,
    /// Unix time, s.
    pub iat: u64,
    /// Unix time, s. API keys have none: they hold until they are deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// Of a user's token: which password it was given for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pwd: Option<String>,
}

impl Claims {
    /// Of a user who logged in just now.
    pub fn of_user(id: Uuid, password_hash: &str, now: UnixMicros) -> Self {
        let exp = Some((now + LOGIN_HOLDS).0 / 1_000_000);
        Self { exp, pwd: Some(password_mark(password_hash)), ..Self::of_key(id, now) }.typed(Kind::User)
    }

    /// Of an API key.
    pub fn of_key(id: Uuid, now: UnixMicros) -> Self {
        Self { iss: ISSUER.into(), sub: id, typ: Kind::Key, iat: now.0 / 1_000_000, exp: None, pwd: None }
    }

    fn typed(self, typ: Kind) -> Self {
        Self { typ, ..self }
    }
}

/// Changes with the password, so that a new password ends every log-in with the old one, and does not help to guess it.
pub(super) fn password_mark(password_hash: &str) -> String {
    hex::encode(&Sha256::digest(password_hash)[..8])
}

/// Signs and verifies.
pub(super) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl Tokens {
    pub fn new(secret: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // Expiry is compared below, with the time that the caller of `verify` gives.
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        validation.set_issuer(&[ISSUER]);
        Self { encoding: EncodingKey::from_secret(secret), decoding: DecodingKey::from_secret(secret), validation }
    }

    pub fn issue(&self, claims: &Claims) -> Result<String> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.encoding)
            .map_err(|e| ApiError::Internal(format!("the token cannot be signed: {e}")))
    }

    pub fn verify(&self, token: &str, now: UnixMicros) -> Result<Claims> {
        let bad = ApiError::Unauthenticated("the token is not valid");
        if token.len() > LONGEST {
            return Err(bad);
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation).map_err(|_| bad)?.claims;
        match claims.exp {
            Some(exp) if exp <= now.0 / 1_000_000 => {
                Err(ApiError::Unauthenticated("the token has expired; log in again"))
            }
            None if claims.typ == Kind::User => Err(ApiError::Unauthenticated("the token is not valid")),
            _ => Ok(claims),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = UnixMicros(1_700_000_000_000_000);

    #[test]
    fn a_token_holds_for_its_time_and_under_its_key_only() {
        let (ours, theirs) = (Tokens::new(&[1; 32]), Tokens::new(&[2; 32]));
        let claims = Claims::of_user(Uuid::from_u128(5), "hash", NOW);
        let token = ours.issue(&claims).unwrap();
        assert_eq!(ours.verify(&token, NOW).unwrap(), claims);
        assert!(ours.verify(&token, NOW + LOGIN_HOLDS - Duration::from_secs(1)).is_ok());
        assert!(ours.verify(&token, NOW + LOGIN_HOLDS).is_err());
        assert!(theirs.verify(&token, NOW).is_err());
        assert!(ours.verify(&token[1..], NOW).is_err());
        assert!(ours.verify("", NOW).is_err());
        assert!(ours.verify(&"a".repeat(1 << 20), NOW).is_err());
    }

    #[test]
    fn a_key_has_no_end_but_a_login_must_have_one() {
        let tokens = Tokens::new(&[1; 32]);
        let key = tokens.issue(&Claims::of_key(Uuid::from_u128(5), NOW)).unwrap();
        assert!(tokens.verify(&key, UnixMicros(u64::MAX)).is_ok());
        let endless = Claims { exp: None, ..Claims::of_user(Uuid::from_u128(5), "hash", NOW) };
        assert!(tokens.verify(&tokens.issue(&endless).unwrap(), NOW).is_err());
    }

    /// `alg: none` must not pass as a signature.
    #[test]
    fn an_unsigned_token_is_refused() {
        let tokens = Tokens::new(&[1; 32]);
        let signed = tokens.issue(&Claims::of_key(Uuid::from_u128(5), NOW)).unwrap();
        let payload = signed.split('.').nth(1).unwrap();
        // {"alg":"none","typ":"JWT"}
        let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
        assert!(tokens.verify(&unsigned, NOW).is_err());
    }
}
