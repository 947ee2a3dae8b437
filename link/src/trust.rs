//! Whose certificates count. That is one CA's; while it is being changed (`limpet ctl rotate-ca`) also those that the CA before has
//! given to servers that were known then. Whoever has a copy of its key makes nothing with it that counts.

use std::collections::BTreeSet;

use limpet_shared::link;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use crate::{identity::PeerName, token::Fingerprint};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// When the CA was changed last (Unix, us); 0 if it never was.
    pub since: u64,
    /// The CA, PEM.
    pub ca: String,
    /// The one before, until it is given up.
    pub former: Option<String>,
    /// Keys of the servers that were known when the CA was changed ([`PeerName::key`]).
    pub known: BTreeSet<String>,
}

impl Trust {
    /// Of a cluster whose CA was never changed.
    pub fn first(ca: &str) -> Self {
        Self { ca: ca.to_owned(), ..Self::default() }
    }

    /// As it is told over the link; `None` if it cannot be read.
    pub fn told(message: link::Trust) -> Option<Self> {
        let link::Trust { since, ca, former, known } = message;
        let trust =
            Self { since, ca, former: Some(former).filter(|f| !f.is_empty()), known: known.into_iter().collect() };
        trust.is_whole().then_some(trust)
    }

    pub fn message(&self) -> link::Trust {
        let former = self.former.clone().unwrap_or_default();
        link::Trust { since: self.since, ca: self.ca.clone(), former, known: self.known.iter().cloned().collect() }
    }

    /// Two moments of it: a later change, or the end of the same one.
    pub fn is_later_than(&self, other: &Self) -> bool {
        self.mark() > other.mark()
    }

    /// When the CA was changed, and whether that is over.
    pub fn mark(&self) -> (u64, bool) {
        (self.since, self.former.is_none())
    }

    fn each(&self) -> impl Iterator<Item = &str> {
        [Some(self.ca.as_str()), self.former.as_deref()].into_iter().flatten()
    }

    /// Whether all of it can be used.
    pub(crate) fn is_whole(&self) -> bool {
        self.each().all(|pem| subject(pem).is_some())
    }

    /// What TLS verifies by.
    pub(crate) fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.each().filter_map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok()).collect()
    }

    /// The CA among these that has this name.
    pub(crate) fn called(&self, issuer: &[u8]) -> Option<&str> {
        self.each().find(|pem| subject(pem).as_deref() == Some(issuer))
    }

    /// Whether this CA is one of these: then it is of the same cluster.
    pub fn includes(&self, ca: Fingerprint) -> bool {
        self.roots().iter().any(|root| Fingerprint::of(root) == ca)
    }

    /// Fingerprints of the CAs.
    pub fn clusters(&self) -> Vec<String> {
        self.roots().iter().map(|root| Fingerprint::of(root).to_string()).collect()
    }

    /// Fingerprints of the CA, and of the one before (empty if there is none), as servers tell them.
    pub fn names(&self) -> (String, String) {
        let mut clusters = self.clusters().into_iter();
        (clusters.next().unwrap_or_default(), clusters.next().unwrap_or_default())
    }

    /// Whether a certificate of this issuer is the present CA's.
    pub fn is_present(&self, issuer: &[u8]) -> bool {
        subject(&self.ca).as_deref() == Some(issuer)
    }

    /// Whether a certificate counts that TLS has found good by its roots.
    pub fn counts(&self, peer: &PeerName) -> bool {
        self.is_present(&peer.issuer) || self.known.contains(&peer.key)
    }
}

/// The name of a CA as its certificates have it. Each has another one.
fn subject(pem: &str) -> Option<Vec<u8>> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
    Some(parsed.subject().as_raw().to_vec())
}
