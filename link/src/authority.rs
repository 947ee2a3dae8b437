//! The cluster's own certificate authority. The first balancer makes it in `DATA/cluster/`: `ca.pem`, `ca.key` and
//! `token.key`. Whoever holds these files is the cluster: they belong into its backup, and nowhere else.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, RwLock},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use limpet_shared::{UnixMicros, admin::Role};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};

use crate::{
    files::{self, FileError},
    host,
    identity::{self, Identity, IdentityError},
    name::{self, NameError},
    time,
    token::{Fingerprint, NewToken, Token, TokenError, role_name, rotation::TokenKeys},
};

/// How long a server's certificate is valid; it is renewed when a third of that is left.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// The CA is not renewed, so it outlives the hardware.
const CA_LIFE: Duration = Duration::from_secs(30 * 365 * 86_400);
/// Certificates are valid this long before they are made, as the clocks of servers differ.
const CLOCK_SKEW: Duration = Duration::from_secs(86_400);

/// The keys of join tokens, once they were changed.
const TOKEN_KEYS: &str = "token-keys.json";

/// Why the authority cannot be used, or does not issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{file} in the cluster folder is {problem}; restore it from the backup of this cluster")]
    Damaged { file: &'static str, problem: String },
    #[error("the certificate request cannot be used: {0}")]
    Csr(String),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("cannot make a certificate: {0}")]
    Certificate(String),
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What a joining balancer gets, so that it can admit servers too. A secret.
#[derive(Clone)]
pub struct ClusterKeys {
    pub ca_pem: String,
    pub ca_key_pem: String,
    /// 32 bytes, base64.
    pub token_key: String,
}

/// The cluster's CA and token key.
pub struct Authority {
    keys: ClusterKeys,
    issuer: Issuer<'static, KeyPair>,
    /// `DATA/cluster`.
    folder: PathBuf,
    tokens: RwLock<TokenKeys>,
    /// Who changes them holds this: readers do not wait for the disk.
    changing: Mutex<()>,
    fingerprint: Fingerprint,
}

impl Authority {
    /// Loads the cluster in `cluster` (`DATA/cluster`), or founds a new one there.
    pub fn open(cluster: &Path) -> Result<Self, AuthorityError> {
        match Self::load(cluster)? {
            Some(authority) => Ok(authority),
            None => {
                tracing::info!("founding a new cluster: making its certificate authority in {}", cluster.display());
                Self::install(cluster, found()?)
            }
        }
    }

    /// Loads the cluster in `cluster`; `None` if there is none.
    pub fn load(cluster: &Path) -> Result<Option<Self>, AuthorityError> {
        // `ca.pem` is written last: without it the others are left over from a crash.
        let Some(ca_pem) = files::read(&cluster.join("ca.pem"))? else { return Ok(None) };
        let missing = |file| AuthorityError::Damaged { file, problem: "missing".into() };
        let ca_key_pem = files::read(&cluster.join("ca.key"))?.ok_or_else(|| missing("ca.key"))?;
        let token_key = files::read(&cluster.join("token.key"))?.ok_or_else(|| missing("token.key"))?;
        let mut authority = Self::new(ClusterKeys { ca_pem, ca_key_pem, token_key }, cluster)?;
        if let Some(text) = files::read(&cluster.join(TOKEN_KEYS))? {
            let damaged = |e: serde_json::Error| AuthorityError::Damaged { file: TOKEN_KEYS, problem: e.to_string() };
            authority.tokens = RwLock::new(serde_json::from_str(&text).map_err(damaged)?);
        }
        Ok(Some(authority))
    }

    /// Writes the keys of a cluster (its own, or those that a balancer's token was traded for) and uses them.
    pub fn install(cluster: &Path, keys: ClusterKeys) -> Result<Self, AuthorityError> {
        let authority = Self::new(keys, cluster)?;
        files::private_dir(cluster)?;
        files::remove(&cluster.join(TOKEN_KEYS))?;
        files::write(&cluster.join("token.key"), authority.keys.token_key.as_bytes())?;
        files::write(&cluster.join("ca.key"), authority.keys.ca_key_pem.as_bytes())?;
        files::write(&cluster.join("ca.pem"), authority.keys.ca_pem.as_bytes())?;
        Ok(authority)
    }

    fn new(keys: ClusterKeys, folder: &Path) -> Result<Self, AuthorityError> {
        let damaged = |file, e: String| AuthorityError::Damaged { file, problem: format!("damaged ({e})") };
        let key = KeyPair::from_pem(&keys.ca_key_pem).map_err(|e| damaged("ca.key", e.to_string()))?;
        let der =
            CertificateDer::from_pem_slice(keys.ca_pem.as_bytes()).map_err(|e| damaged("ca.pem", e.to_string()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|e| damaged("ca.pem", e.to_string()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(damaged("ca.key", "it belongs to another ca.pem".into()));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| damaged("ca.pem", e.to_string()))?;
        let token_key = BASE64.decode(keys.token_key.trim()).map_err(|e| damaged("token.key", e.to_string()))?;
        let token_key: [u8; 32] =
            token_key.try_into().map_err(|_| damaged("token.key", "it must be 32 bytes".into()))?;
        let tokens = RwLock::new(TokenKeys::first(token_key));
        let (fingerprint, changing) = (Fingerprint::of(&der), Mutex::new(()));
        Ok(Self { fingerprint, folder: folder.to_owned(), tokens, changing, issuer, keys })
    }

    /// The CA certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.keys.ca_pem
    }

    /// What a joining balancer gets.
    pub fn keys(&self) -> ClusterKeys {
        ClusterKeys { token_key: BASE64.encode(self.token_keys().key()), ..self.keys.clone() }
    }

    fn token_keys(&self) -> TokenKeys {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a new key for join tokens; those of the present one stay good until [`Self::finish_token_key`]. False if a
    /// change is not finished yet. Blocks on the disk, as all that change keys.
    pub fn rotate_token_key(&self) -> Result<bool, AuthorityError> {
        let mut key = [0; 32];
        host::fill(&mut key).map_err(|e| AuthorityError::Random(e.to_string()))?;
        self.change_token_keys(|keys| keys.changed(key, time::now()))
    }

    /// Gives up the old key: its tokens let nobody in any more. They were made before the time that this gives; `None` if
    /// there is no old key.
    pub fn finish_token_key(&self) -> Result<Option<UnixMicros>, AuthorityError> {
        let mut changed_at = UnixMicros(0);
        let finished = self.change_token_keys(|keys| {
            changed_at = keys.changed_at();
            keys.finished(time::now())
        })?;
        Ok(finished.then_some(changed_at))
    }

    /// What other balancers have to know of changed token keys, for workers to pass on; empty if they never were.
    pub fn sealed_token_keys(&self) -> String {
        self.token_keys().sealed(self.keys.ca_key_pem.as_bytes()).unwrap_or_default()
    }

    /// Takes in what another balancer has sealed. True if it is news.
    pub fn learn_token_keys(&self, sealed: &str) -> Result<bool, AuthorityError> {
        let Some(told) = TokenKeys::open(sealed, self.keys.ca_key_pem.as_bytes()) else { return Ok(false) };
        self.change_token_keys(|keys| told.replace(keys).then_some(told))
    }

    /// They count once they are on disk, and then at once.
    fn change_token_keys(&self, change: impl FnOnce(&TokenKeys) -> Option<TokenKeys>) -> Result<bool, AuthorityError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(next) = change(&self.token_keys()) else { return Ok(false) };
        let text = serde_json::to_vec(&next).map_err(|e| AuthorityError::Certificate(e.to_string()))?;
        files::write(&self.folder.join(TOKEN_KEYS), &text)?;
        let key = BASE64.encode(next.key());
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = next;
        // For backups and versions that know of one key only: the change holds without it.
        if let Err(error) = files::write(&self.folder.join("token.key"), key.as_bytes()) {
            tracing::warn!(%error, "the changed key for join tokens is in {TOKEN_KEYS}, but not in token.key");
        }
        Ok(true)
    }

    /// The fingerprint of the CA.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Issues a certificate (PEM) for the public key of a PKCS#10 request (DER). Nothing else of the request is used.
    pub fn issue(&self, csr: &[u8], name: &str, role: Role) -> Result<String, AuthorityError> {
        self.certify(&request(csr)?.public_key, name, role)
    }

    /// The key ([`identity::PeerName::key`]) that a PKCS#10 request (DER) asks for; whoever signed the request has it.
    pub fn key_of(csr: &[u8]) -> Result<String, AuthorityError> {
        Ok(identity::key_id(&request(csr)?.public_key.subject_public_key_info()))
    }

    /// Issues a new certificate (PEM) to a connected worker, for the name and the key ([`identity::PeerName::key`]) that
    /// its present certificate shows: for another key, a revocation of the present one would not hold.
    pub fn renew(&self, csr: &[u8], peer_name: &str, key: &str) -> Result<String, AuthorityError> {
        let csr = request(csr)?;
        if identity::key_id(&csr.public_key.subject_public_key_info()) != key {
            return Err(AuthorityError::Csr("it is for another key than that of the present certificate".into()));
        }
        self.certify(&csr.public_key, peer_name, Role::Worker)
    }

    fn certify(&self, key: &impl PublicKeyData, name: &str, role: Role) -> Result<String, AuthorityError> {
        name::check(name)?;
        let failed = |e: rcgen::Error| AuthorityError::Certificate(e.to_string());
        let mut params = CertificateParams::default();
        let dns_name = name.try_into().map_err(failed)?;
        params.subject_alt_names = vec![SanType::DnsName(dns_name)];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationalUnitName, role_name(role));
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Only a balancer may be a TLS server: a worker's certificate cannot play one.
        params.extended_key_usages = match role {
            Role::Worker => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Role::Balancer => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, CERTIFICATE_LIFE);
        Ok(params.signed_by(key, &self.issuer).map_err(failed)?.pem())
    }

    /// The identity of a server that holds the authority itself: the one in `folder` if it is still good, else a new
    /// one (with the same key if there is one), which is saved there.
    pub fn identity(&self, folder: &Path, name: &str, role: Role) -> Result<Identity, AuthorityError> {
        name::check(name)?;
        let old = Identity::load(folder)?.filter(|old| old.ca_fingerprint() == self.fingerprint);
        if let Some(old) = &old
            && (old.name(), old.role()) == (name, role)
            && !old.is_due(time::now())
        {
            return Ok(old.clone());
        }
        let failed = |e: rcgen::Error| AuthorityError::Certificate(e.to_string());
        let key = match old {
            Some(old) => KeyPair::from_pem(old.key_pem()).map_err(failed)?,
            None => KeyPair::generate().map_err(failed)?,
        };
        let certificate = self.certify(&key, name, role)?;
        let identity = Identity::from_pem(&certificate, &key.serialize_pem(), self.ca_pem())?;
        identity.save(folder)?;
        Ok(identity)
    }

    /// Makes a join token.
    pub fn token(
        &self,
        role: Role,
        expires_at: UnixMicros,
        uses: u32,
        addresses: Vec<String>,
    ) -> Result<Token, TokenError> {
        let mut id = [0; 8];
        host::fill(&mut id).map_err(|_| TokenError::Refused("needs random numbers, and the system gives none"))?;
        let new = NewToken { role, created_at: time::now(), expires_at, uses, addresses, ca: self.fingerprint };
        self.token_keys().sign(u64::from_be_bytes(id), new)
    }

    /// Checks a join token's MAC and expiry; its uses are counted apart ([`crate::token::ledger::Ledger`]).
    pub fn verify(&self, token: &str, now: UnixMicros) -> Result<Token, TokenError> {
        self.token_keys().verify(token, now)
    }
}

/// Reads a PKCS#10 request, signed with the key that it is for.
fn request(csr: &[u8]) -> Result<CertificateSigningRequestParams, AuthorityError> {
    CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
        .map_err(|e| AuthorityError::Csr(e.to_string()))
}

/// The keys of a new cluster.
fn found() -> Result<ClusterKeys, AuthorityError> {
    let failed = |e: rcgen::Error| AuthorityError::Certificate(e.to_string());
    let mut random = [0; 40];
    host::fill(&mut random).map_err(|e| AuthorityError::Random(e.to_string()))?;
    let (id, token_key) = random.split_at(8);
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // A number in the name tells the clusters of one organisation apart, and two roots never look alike to a verifier.
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("Limpet cluster {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, CA_LIFE);
    let ca_pem = params.self_signed(&key).map_err(failed)?.pem();
    Ok(ClusterKeys { ca_pem, ca_key_pem: key.serialize_pem(), token_key: BASE64.encode(token_key) })
}

fn validity(params: &mut CertificateParams, life: Duration) {
    let now = time::now();
    params.not_before = time::system(now - CLOCK_SKEW).into();
    params.not_after = time::system(now + life).into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_token_key_holds_though_its_copy_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path()).unwrap();
        let before = authority.keys().token_key;
        // Nothing can be put in the place of a folder that is not empty.
        let copy = folder.path().join("token.key");
        std::fs::remove_file(&copy).unwrap();
        std::fs::create_dir_all(copy.join("in the way")).unwrap();
        assert!(authority.rotate_token_key().unwrap());
        assert!(authority.keys().token_key != before && !authority.sealed_token_keys().is_empty());
        assert!(!authority.rotate_token_key().unwrap(), "that change is not finished");
    }

    #[test]
    fn nobody_who_reads_the_token_keys_waits_for_who_writes_them() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path()).unwrap();
        let change = |keys: &TokenKeys| {
            // As long as the change goes on.
            assert!(authority.tokens.try_read().is_ok());
            keys.changed([7; 32], time::now())
        };
        assert!(authority.change_token_keys(change).unwrap());
    }
}
