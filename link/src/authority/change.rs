//! Changing the CA while the cluster runs. Two count until the change is finished, but of the one before only the certificates of
//! servers that were known when it began. A balancer has the new key from the operator's hand, by way of a token: whoever has a copy
//! of the old one could read or forge whatever servers tell each other. So the end of the change, which balancers tell each other by
//! way of workers, is sealed with the new one ([`crate::token::rotation`]).

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use limpet_shared::UnixMicros;
use serde::{Deserialize, Serialize};

use super::{Authority, AuthorityError, Ca, found};
use crate::{
    files,
    token::{Fingerprint, rotation::TokenKeys},
    trust::Trust,
};

/// What is kept of a change until it is finished. It prevails over `ca.pem` and `ca.key`.
pub(super) const CA_CHANGE: &str = "ca-change.json";
/// Fingerprints of the CAs that were given up, a line each.
pub(super) const CA_BEFORE: &str = "ca-before";
/// The CA before is given up after this, if no operator has done it.
pub const CHANGE_LASTS: Duration = Duration::from_secs(24 * 3600);

/// A change that is not finished. Secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct CaChange {
    pub trust: Trust,
    /// The key of the new CA, PEM.
    ca_key_pem: String,
    pub(super) tokens: TokenKeys,
}

impl CaChange {
    pub(super) fn ca(&self) -> Result<Ca, AuthorityError> {
        Ca::new(&self.ca_key_pem, self.trust.clone())
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), AuthorityError> {
        let text = serde_json::to_vec(self).map_err(|e| AuthorityError::Certificate(e.to_string()))?;
        self.ca()?;
        Ok(files::write(&folder.join(CA_CHANGE), &text)?)
    }

    #[cfg(test)]
    pub(super) fn with_key(&self, ca_key_pem: &str) -> Self {
        Self { ca_key_pem: ca_key_pem.into(), ..self.clone() }
    }
}

impl Authority {
    /// Whose certificates count.
    pub fn trust(&self) -> Trust {
        self.ca().trust.clone()
    }

    /// The change that is going on, for a balancer that has its token; `None` if there is none.
    pub(crate) fn change(&self) -> Option<CaChange> {
        let ca = self.ca();
        ca.trust.former.is_some().then(|| CaChange {
            trust: ca.trust.clone(),
            ca_key_pem: ca.key_pem.clone(),
            tokens: self.token_keys(),
        })
    }

    /// Makes a new CA, and a new key for join tokens: all that were made before end. Certificates of the present CA count until
    /// [`Self::finish_ca`], but only for these keys. False if a change is not finished yet. Blocks on the disk.
    pub fn rotate_ca(&self, known: BTreeSet<String>, now: UnixMicros) -> Result<bool, AuthorityError> {
        let (_alone, ca) = (self.change_alone(), self.ca());
        if ca.trust.former.is_some() {
            return Ok(false);
        }
        let new = found()?;
        let tokens = self.token_keys().of_new_ca(super::token_key(&new.token_key)?, now);
        let trust = Trust { since: tokens.ca_since(), ca: new.ca_pem, former: Some(ca.trust.ca.clone()), known };
        self.begin(CaChange { trust, ca_key_pem: new.ca_key_pem, tokens })?;
        Ok(true)
    }

    /// Changes the CA to what another balancer has changed it to. False if that is the present one already.
    pub(crate) fn adopt(&self, mut change: CaChange, own: &str) -> Result<bool, AuthorityError> {
        let (_alone, ca) = (self.change_alone(), self.ca());
        if ca.trust.ca == change.trust.ca {
            return Ok(false);
        }
        if change.trust.former.as_ref() != Some(&ca.trust.ca) || !change.trust.is_whole() {
            return Err(AuthorityError::OtherCa);
        }
        change.trust.known.insert(own.to_owned());
        self.begin(change)?;
        Ok(true)
    }

    /// Whoever changes the CA holds this: readers do not wait for the disk.
    fn change_alone(&self) -> MutexGuard<'_, ()> {
        self.changing_ca.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, change: CaChange) -> Result<(), AuthorityError> {
        let next = change.ca()?;
        change.write(&self.folder)?;
        self.set_token_keys(change.tokens)?;
        next.write(&self.folder)?;
        *self.ca.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }

    /// Gives up the CA before: its certificates count no more. False if there is none.
    pub fn finish_ca(&self, now: UnixMicros) -> Result<bool, AuthorityError> {
        let (_alone, ca) = (self.change_alone(), self.ca());
        if ca.trust.former.is_none() {
            return Ok(false);
        }
        // This first: what it says is done at the next start, if this process ends here.
        self.change_token_keys(|keys| Some(keys.of_ca_alone(now)))?;
        self.give_up(&ca)?;
        Ok(true)
    }

    /// The same for a change that has lasted for long enough.
    pub fn finish_old_change(&self, now: UnixMicros) -> Result<bool, AuthorityError> {
        let lasted = now.since(UnixMicros(self.ca().trust.since));
        if lasted < CHANGE_LASTS { Ok(false) } else { self.finish_ca(now) }
    }

    /// What the keys of join tokens say of the CA: another balancer has finished the change.
    pub(super) fn follow_token_keys(&self) -> Result<(), AuthorityError> {
        let (_alone, ca) = (self.change_alone(), self.ca());
        let over = self.token_keys().is_ca_alone(ca.trust.since);
        if ca.trust.former.is_some() && over { self.give_up(&ca) } else { Ok(()) }
    }

    fn give_up(&self, ca: &Ca) -> Result<(), AuthorityError> {
        let former = ca.trust.roots().get(1).map(|root| Fingerprint::of(root).to_string()).unwrap_or_default();
        let path = self.folder.join(CA_BEFORE);
        let before = files::read(&path)?.unwrap_or_default();
        files::write(&path, format!("{before}{former}\n").as_bytes())?;
        let trust = Trust { former: None, known: BTreeSet::new(), ..ca.trust.clone() };
        let next = Ca::new(&ca.key_pem, trust)?;
        next.write(&self.folder)?;
        files::remove(&self.folder.join(CA_CHANGE))?;
        *self.ca.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }

    /// Whether a token or a certificate of this CA is of this cluster, now or before.
    pub(crate) fn has_had(&self, ca: Fingerprint) -> Result<bool, AuthorityError> {
        let before = files::read(&self.folder.join(CA_BEFORE))?.unwrap_or_default();
        Ok(self.trust().includes(ca) || before.lines().any(|line| line == ca.to_string()))
    }
}
