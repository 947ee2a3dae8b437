//! Changing the key that signs join tokens while the cluster runs. During a change two keys count: new tokens are signed with
//! the new one, those that were made before stay good until the old one is given up. Balancers hear of it by way of workers,
//! who cannot read what they pass on: it is sealed with a key that is derived from the CA's, which only balancers have.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use limpet_shared::UnixMicros;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};
use serde::{Deserialize, Serialize};

use super::{NewToken, Token, TokenError, TokenKey};

const PURPOSE: &[u8] = b"limpet token keys 1";
/// Longer than any of ours.
const MAX_SEALED: usize = 1_024;

/// The keys of one moment. Secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKeys {
    /// When they were changed last (Unix, us), later each time; 0 if they never were.
    generation: u64,
    key: [u8; 32],
    /// The one before, until it is given up.
    former: Option<[u8; 32]>,
    /// The generation in which the CA was changed last; 0 if it never was.
    #[serde(default)]
    ca_since: u64,
    /// The CA before counts no more.
    #[serde(default)]
    ca_alone: bool,
}

impl TokenKeys {
    /// Of a cluster whose key was never changed.
    pub fn first(key: [u8; 32]) -> Self {
        Self { generation: 0, key, former: None, ca_since: 0, ca_alone: false }
    }

    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// Whether a change ever happened.
    pub fn is_first(&self) -> bool {
        self.generation == 0
    }

    /// With a new key; the present one counts besides. `None` while a change is not finished: its old key would count no
    /// more without anybody having said so.
    pub fn changed(&self, key: [u8; 32], now: UnixMicros) -> Option<Self> {
        let former = Some(self.key);
        self.former.is_none().then(|| Self { generation: self.next(now), key, former, ..self.clone() })
    }

    /// For a new CA: what was signed with the present key leads to the one before, and ends with it.
    pub fn of_new_ca(&self, key: [u8; 32], now: UnixMicros) -> Self {
        let generation = self.next(now);
        Self { generation, key, former: None, ca_since: generation, ca_alone: false }
    }

    /// The same, where the CA before counts no more.
    pub fn of_ca_alone(&self, now: UnixMicros) -> Self {
        Self { generation: self.next(now), ca_alone: true, ..self.clone() }
    }

    pub fn ca_since(&self) -> u64 {
        self.ca_since
    }

    /// Whether the CA of that generation counts alone.
    pub fn is_ca_alone(&self, since: u64) -> bool {
        self.ca_since == since && self.ca_alone
    }

    /// Without the old key. `None` if there is none.
    pub fn finished(&self, now: UnixMicros) -> Option<Self> {
        self.former.is_some().then(|| Self { generation: self.next(now), former: None, ..self.clone() })
    }

    /// When they were changed last: who made a token later by one of the cluster's clocks made it with the present key.
    pub fn changed_at(&self) -> UnixMicros {
        UnixMicros(self.generation)
    }

    fn next(&self, now: UnixMicros) -> u64 {
        now.0.max(self.generation + 1)
    }

    /// Whether these replace `other`: of two balancers that change keys at once the later one prevails everywhere.
    pub fn replace(&self, other: &Self) -> bool {
        (self.generation, self.key) > (other.generation, other.key)
    }

    pub fn sign(&self, id: u64, new: NewToken) -> Result<Token, TokenError> {
        TokenKey::new(&self.key).sign(id, new)
    }

    pub fn verify(&self, text: &str, now: UnixMicros) -> Result<Token, TokenError> {
        match (TokenKey::new(&self.key).verify(text, now), &self.former) {
            (Err(TokenError::WrongCluster), Some(former)) => TokenKey::new(former).verify(text, now),
            (verified, _) => verified,
        }
    }

    /// As workers pass it on: `GENERATION.<sealed>`. Nothing to pass on if there never was a change.
    pub fn sealed(&self, ca_key: &[u8]) -> Option<String> {
        if self.is_first() {
            return None;
        }
        let mut nonce = [0; NONCE_LEN];
        crate::host::fill(&mut nonce).ok()?;
        let mut text = serde_json::to_vec(self).ok()?;
        let sealing = sealing_key(ca_key)?;
        sealing.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(PURPOSE), &mut text).ok()?;
        Some(format!("{}.{}", self.generation, BASE64.encode([&nonce[..], &text].concat())))
    }

    /// Opens what another balancer has sealed; `None` if it was none of this cluster.
    pub fn open(sealed: &str, ca_key: &[u8]) -> Option<Self> {
        let (_, sealed) = sealed.split_once('.').filter(|_| sealed.len() <= MAX_SEALED)?;
        let mut sealed = BASE64.decode(sealed).ok()?;
        let (nonce, text) = sealed.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let text = sealing_key(ca_key)?.open_in_place(nonce, Aad::from(PURPOSE), text).ok()?;
        serde_json::from_slice(text).ok()
    }
}

fn sealing_key(ca_key: &[u8]) -> Option<LessSafeKey> {
    let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, b"limpet").extract(ca_key);
    let info = [PURPOSE];
    let derived = derived.expand(&info, &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(derived)))
}

#[cfg(test)]
mod tests {
    use limpet_shared::admin::Role;

    use super::*;
    use crate::token::Fingerprint;

    const NOW: UnixMicros = UnixMicros(1_700_000_000_000_000);

    fn token(keys: &TokenKeys) -> String {
        let new = NewToken {
            role: Role::Worker,
            created_at: NOW,
            expires_at: UnixMicros(NOW.0 + 60_000_000),
            uses: 1,
            addresses: vec!["10.0.0.1:1701".into()],
            ca: Fingerprint([9; 32]),
        };
        keys.sign(1, new).unwrap().as_str().to_owned()
    }

    #[test]
    fn both_keys_count_until_the_change_is_finished() {
        let first = TokenKeys::first([1; 32]);
        let (old, changed) = (token(&first), first.changed([2; 32], NOW).unwrap());
        let new = token(&changed);
        assert!(changed.verify(&old, NOW).is_ok() && changed.verify(&new, NOW).is_ok());
        assert!(first.verify(&new, NOW).is_err() && changed.changed([3; 32], NOW).is_none());
        let finished = changed.finished(NOW).unwrap();
        assert!(matches!(finished.verify(&old, NOW), Err(TokenError::WrongCluster)));
        assert!(finished.verify(&new, NOW).is_ok() && finished.finished(NOW).is_none());
        assert!(changed.replace(&first) && finished.replace(&changed) && !changed.replace(&finished));
        assert!(!finished.replace(&finished));
    }

    #[test]
    fn only_who_has_the_cas_key_reads_what_is_passed_on() {
        let changed = TokenKeys::first([1; 32]).changed([2; 32], NOW).unwrap();
        let sealed = changed.sealed(b"the CA's key").unwrap();
        assert!(TokenKeys::open(&sealed, b"the CA's key") == Some(changed.clone()));
        assert!(sealed.starts_with("1700000000000000.") && sealed.len() <= MAX_SEALED, "{sealed}");
        assert!(TokenKeys::open(&sealed, b"another").is_none());
        for at in sealed.find('.').unwrap() + 1..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let opened = TokenKeys::open(std::str::from_utf8(&bytes).unwrap(), b"the CA's key");
            assert!(opened.is_none(), "character {at}");
        }
        for bad in ["", ".", "1.", "1.AAAA", &"1.A".repeat(1_000)] {
            assert!(TokenKeys::open(bad, b"the CA's key").is_none(), "{bad}");
        }
        assert!(TokenKeys::first([1; 32]).sealed(b"the CA's key").is_none());
    }
}
