//! A server's identity: its certificate, the key to it and the CA of its cluster, in a folder of their own
//! (`DATA/identity/` of a worker, `DATA/cluster/identity/` of a balancer): `cert.pem`, `key.pem` and `ca.pem`.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use limpet_shared::{UnixMicros, admin::Role};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use ring::{digest, hmac};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use crate::{
    authority::CERTIFICATE_LIFE,
    files::{self, FileError},
    name,
    token::Fingerprint,
    trust::Trust,
};

/// Whose certificates count, once the CA was changed.
const TRUST: &str = "trust.json";

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the {part} of this server's identity {problem}")]
    Damaged { part: &'static str, problem: String },
}

fn damaged(part: &'static str, problem: impl fmt::Display) -> IdentityError {
    IdentityError::Damaged { part, problem: problem.to_string() }
}

/// Where the identity of a role is kept under `--data`.
pub fn folder(data: &Path, role: Role) -> PathBuf {
    match role {
        Role::Worker => data.join("identity"),
        Role::Balancer => data.join("cluster").join("identity"),
    }
}

/// A server's certificate and key, checked to belong together. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    peer: PeerName,
    valid_from: UnixMicros,
    expires_at: UnixMicros,
    certificate_pem: String,
    key_pem: String,
    ca_pem: String,
    certificate: CertificateDer<'static>,
    ca: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    trust: Trust,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.0.peer.name)
            .field("role", &self.0.peer.role)
            .finish_non_exhaustive()
    }
}

/// Who a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName {
    pub name: String,
    pub role: Role,
    /// SHA-256 of the public key, hex. A renewed certificate has the same, one that was joined for anew has another.
    pub key: String,
    /// The name of the CA that has signed it, DER.
    pub issuer: Vec<u8>,
}

impl PeerName {
    /// Whether both are the same server's, whoever has signed them.
    fn is_as(&self, other: &Self) -> bool {
        (&self.name, self.role, &self.key) == (&other.name, other.role, &other.key)
    }

    /// Reads name and role from a certificate; its signature is the verifier's business.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        Self::of_parsed(&parsed)
    }

    /// Whose certificate the other side of a connection has shown, and TLS has verified.
    pub(crate) fn shown(connection: &quinn::Connection) -> Option<Self> {
        let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        Self::of(chain.first()?)
    }

    fn of_parsed(certificate: &X509Certificate<'_>) -> Option<Self> {
        let alternatives = certificate.subject_alternative_name().ok()??;
        let name = alternatives.value.general_names.iter().find_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })?;
        name::check(&name).ok()?;
        let role = match certificate.subject().iter_organizational_unit().next()?.as_str().ok()? {
            "worker" => Role::Worker,
            "balancer" => Role::Balancer,
            _ => return None,
        };
        let issuer = certificate.issuer().as_raw().to_vec();
        Some(Self { name, role, key: key_id(certificate.public_key().raw), issuer })
    }
}

impl Identity {
    /// Checks that the parts belong together: the key to the certificate, and that it says who it is for.
    pub fn from_pem(certificate_pem: &str, key_pem: &str, ca_pem: &str) -> Result<Self, IdentityError> {
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|e| damaged("certificate", e))?;
        let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|e| damaged("CA certificate", e))?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| damaged("key", "cannot be read"))?;
        let pair = KeyPair::from_pem(key_pem).map_err(|_| damaged("key", "cannot be read"))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|e| damaged("certificate", e))?;
        if parsed.public_key().subject_public_key.data.as_ref() != pair.der_bytes() {
            return Err(damaged("key", "belongs to another certificate"));
        }
        let peer = PeerName::of_parsed(&parsed).ok_or_else(|| damaged("certificate", "names no server"))?;
        let unix = |seconds: i64| UnixMicros(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000));
        let valid_from = unix(parsed.validity().not_before.timestamp());
        let expires_at = unix(parsed.validity().not_after.timestamp());
        let trust = Trust::first(ca_pem);
        let [certificate_pem, key_pem, ca_pem] = [certificate_pem, key_pem, ca_pem].map(str::to_owned);
        Ok(Self(Arc::new(Inner {
            peer,
            valid_from,
            expires_at,
            certificate_pem,
            key_pem,
            ca_pem,
            certificate,
            ca,
            key,
            trust,
        })))
    }

    /// Loads the identity in a folder; `None` if there is none.
    pub fn load(folder: &Path) -> Result<Option<Self>, IdentityError> {
        // `cert.pem` is written last.
        let Some(certificate) = files::read(&folder.join("cert.pem"))? else { return Ok(None) };
        let key = files::read(&folder.join("key.pem"))?.ok_or_else(|| damaged("key", "is missing"))?;
        let ca = files::read(&folder.join("ca.pem"))?.ok_or_else(|| damaged("CA certificate", "is missing"))?;
        let identity = Self::from_pem(&certificate, &key, &ca)?;
        let Some(text) = files::read(&folder.join(TRUST))? else { return Ok(Some(identity)) };
        identity.trusting(serde_json::from_str(&text).map_err(|e| damaged("CAs", e))?).map(Some)
    }

    /// The same, for which these CAs count.
    pub fn trusting(&self, trust: Trust) -> Result<Self, IdentityError> {
        if !trust.is_whole() {
            return Err(damaged("CAs", "cannot be read"));
        }
        let Inner { certificate_pem, key_pem, ca_pem, .. } = &*self.0;
        let Self(mut inner) = Self::from_pem(certificate_pem, key_pem, ca_pem)?;
        if let Some(inner) = Arc::get_mut(&mut inner) {
            inner.trust = trust;
        }
        Ok(Self(inner))
    }

    /// Writes the identity into a folder.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        files::private_dir(folder)?;
        // A new key beside the old certificate would be no identity: the old one goes first, the new one comes last.
        let certificate = folder.join("cert.pem");
        if files::read(&folder.join("key.pem"))?.is_some_and(|old| old != self.0.key_pem) && certificate.exists() {
            std::fs::remove_file(&certificate).map_err(|e| FileError::new("replace", &certificate, e))?;
        }
        files::write(&folder.join("key.pem"), self.0.key_pem.as_bytes())?;
        files::write(&folder.join("ca.pem"), self.0.ca_pem.as_bytes())?;
        if self.0.trust.since == 0 {
            files::remove(&folder.join(TRUST))?;
        } else {
            let text = serde_json::to_vec(&self.0.trust).map_err(|e| damaged("CAs", e))?;
            files::write(&folder.join(TRUST), &text)?;
        }
        files::write(&certificate, self.0.certificate_pem.as_bytes())?;
        Ok(())
    }

    /// The server's name.
    pub fn name(&self) -> &str {
        &self.0.peer.name
    }
    pub fn role(&self) -> Role {
        self.0.peer.role
    }
    /// What its certificate is revoked by ([`PeerName::key`]).
    pub fn key_id(&self) -> &str {
        &self.0.peer.key
    }
    /// When the certificate begins: a day before it was made.
    pub fn valid_from(&self) -> UnixMicros {
        self.0.valid_from
    }
    /// When the certificate ends.
    pub fn expires_at(&self) -> UnixMicros {
        self.0.expires_at
    }
    /// Less than a third of its life is left: time to renew it.
    pub fn is_due(&self, now: UnixMicros) -> bool {
        self.0.expires_at.since(now) < CERTIFICATE_LIFE / 3
    }
    /// It has ended: no peer accepts it any more.
    pub fn is_expired(&self, now: UnixMicros) -> bool {
        self.0.expires_at.since(now) == Duration::ZERO
    }
    /// The cluster that it belongs to.
    pub fn ca_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0.ca)
    }

    /// A certificate request (PKCS#10, DER) for the same key, to renew the certificate.
    pub fn csr(&self) -> Result<Vec<u8>, IdentityError> {
        let key = KeyPair::from_pem(&self.0.key_pem).map_err(|_| damaged("key", "cannot be read"))?;
        request(&key)
    }

    /// This identity with its renewed certificate.
    pub fn renewed(&self, certificate_pem: &str) -> Result<Self, IdentityError> {
        let trust = &self.0.trust;
        let new = Self::from_pem(certificate_pem, &self.0.key_pem, &trust.ca)?;
        if !new.0.peer.is_as(&self.0.peer) {
            return Err(damaged("certificate", format!("is for {}", new.name())));
        }
        let present = trust.is_present(new.issuer());
        let Some(ca) = trust.called(new.issuer()).filter(|_| present || !self.is_of_present_ca()) else {
            return Err(damaged("certificate", "is of another CA than the cluster's"));
        };
        Self::from_pem(certificate_pem, &self.0.key_pem, ca)?.trusting(trust.clone())
    }

    /// Whose certificates count for it.
    pub fn trust(&self) -> &Trust {
        &self.0.trust
    }
    /// The name of the CA that has signed its certificate, DER.
    pub fn issuer(&self) -> &[u8] {
        &self.0.peer.issuer
    }
    /// Fingerprints of the CA that has signed its certificate, and of the one before while that counts too (else empty).
    pub fn clusters(&self) -> (String, String) {
        let own = self.ca_fingerprint().to_string();
        let before = if self.is_of_present_ca() { self.trust().clusters().get(1).cloned() } else { None };
        (own, before.unwrap_or_default())
    }
    /// Its certificate is not of a CA that is being given up.
    pub fn is_of_present_ca(&self) -> bool {
        self.0.trust.is_present(self.issuer())
    }

    pub(crate) fn key_pem(&self) -> &str {
        &self.0.key_pem
    }
    /// The certificate with its CA, as TLS sends it: a joining server knows only the CA's fingerprint.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.0.certificate.clone(), self.0.ca.clone()]
    }
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.0.key.clone_key()
    }
    /// The key of QUIC's stateless resets: the same after a restart, so that peers notice the restart at once.
    pub(crate) fn reset_key(&self) -> hmac::Key {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.key.secret_der());
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, b"limpet stateless reset").as_ref())
    }
}

/// [`PeerName::key`] of a public key (SubjectPublicKeyInfo, DER).
pub(crate) fn key_id(public_key: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, public_key).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A certificate request (PKCS#10, DER) for a key. Who it is for is the issuer's business.
pub(crate) fn request(key: &KeyPair) -> Result<Vec<u8>, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let csr = params.serialize_request(key).map_err(|e| damaged("key", e))?;
    Ok(csr.der().to_vec())
}
