//! The cluster's own certificate authority. The first balancer makes it in `DATA/cluster/`: `ca.pem`, `ca.key` and
//! `token.key`. Whoever holds these files is the cluster: they belong into its backup, and nowhere else.

mod change;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
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
    trust::Trust,
};

pub use change::{CHANGE_LASTS, CaChange};

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
    #[error(
        "the change of the CA is that of another cluster, or of one that this server was away from: give it an empty \
         --data, and --join with a new token"
    )]
    OtherCa,
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
    /// `DATA/cluster`.
    folder: PathBuf,
    ca: RwLock<Arc<Ca>>,
    tokens: RwLock<TokenKeys>,
    /// Who changes them holds this: readers do not wait for the disk.
    changing: Mutex<()>,
    /// The same for the CA, and before the other.
    changing_ca: Mutex<()>,
}

/// The CA of one moment.
struct Ca {
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
    fingerprint: Fingerprint,
    trust: Trust,
}

impl Ca {
    fn new(key_pem: &str, trust: Trust) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(|e| damaged("ca.key", e.to_string()))?;
        let der = CertificateDer::from_pem_slice(trust.ca.as_bytes()).map_err(|e| damaged("ca.pem", e.to_string()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|e| damaged("ca.pem", e.to_string()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(damaged("ca.key", "it belongs to another ca.pem".into()));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| damaged("ca.pem", e.to_string()))?;
        Ok(Self { key_pem: key_pem.to_owned(), fingerprint: Fingerprint::of(&der), issuer, trust })
    }

    fn write(&self, folder: &Path) -> Result<(), AuthorityError> {
        files::write(&folder.join("ca.key"), self.key_pem.as_bytes())?;
        Ok(files::write(&folder.join("ca.pem"), self.trust.ca.as_bytes())?)
    }
}

fn damaged(file: &'static str, e: String) -> AuthorityError {
    AuthorityError::Damaged { file, problem: format!("damaged ({e})") }
}

fn token_key(text: &str) -> Result<[u8; 32], AuthorityError> {
    let key = BASE64.decode(text.trim()).map_err(|e| damaged("token.key", e.to_string()))?;
    key.try_into().map_err(|_| damaged("token.key", "it must be 32 bytes".into()))
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
        let mut tokens = TokenKeys::first(self::token_key(&token_key)?);
        if let Some(text) = files::read(&cluster.join(TOKEN_KEYS))? {
            tokens = serde_json::from_str(&text).map_err(|e| damaged(TOKEN_KEYS, e.to_string()))?;
        }
        let authority = match files::read(&cluster.join(change::CA_CHANGE))? {
            None => {
                let trust = Trust { since: tokens.ca_since(), ..Trust::first(&ca_pem) };
                Self::new(Ca::new(&ca_key_pem, trust)?, tokens, cluster)
            }
            // The process may have ended while it was written down.
            Some(text) => {
                let change = serde_json::from_str(&text).map_err(|e| damaged(change::CA_CHANGE, e.to_string()))?;
                Self::amid(change, tokens, cluster)?
            }
        };
        Ok(Some(authority))
    }

    /// With a change of the CA that is written down and not finished, or whose end is.
    fn amid(change: CaChange, tokens: TokenKeys, cluster: &Path) -> Result<Self, AuthorityError> {
        let kept = if tokens.ca_since() == change.trust.since { tokens } else { change.tokens.clone() };
        let authority = Self::new(change.ca()?, kept.clone(), cluster);
        authority.set_token_keys(kept)?;
        authority.ca().write(cluster)?;
        authority.follow_token_keys()?;
        Ok(authority)
    }

    /// Writes the keys of a cluster (its own, or those that a balancer's token was traded for) and uses them.
    pub fn install(cluster: &Path, keys: ClusterKeys) -> Result<Self, AuthorityError> {
        Self::install_amid(cluster, keys, None)
    }

    /// The same with the change of the CA that the cluster is amid of, if it is. `ca.pem` is written last: it says that this server has
    /// joined, and a change that is not on disk by then would never be known here.
    pub(crate) fn install_amid(
        cluster: &Path,
        keys: ClusterKeys,
        amid: Option<CaChange>,
    ) -> Result<Self, AuthorityError> {
        let ca = Ca::new(&keys.ca_key_pem, Trust::first(&keys.ca_pem))?;
        let tokens = TokenKeys::first(token_key(&keys.token_key)?);
        files::private_dir(cluster)?;
        for left in [TOKEN_KEYS, change::CA_CHANGE, change::CA_BEFORE] {
            files::remove(&cluster.join(left))?;
        }
        files::write(&cluster.join("token.key"), keys.token_key.as_bytes())?;
        let Some(change) = amid else {
            ca.write(cluster)?;
            return Ok(Self::new(ca, tokens, cluster));
        };
        change.write(cluster)?;
        Self::amid(change, tokens, cluster)
    }

    fn new(ca: Ca, tokens: TokenKeys, folder: &Path) -> Self {
        let (ca, tokens) = (RwLock::new(Arc::new(ca)), RwLock::new(tokens));
        Self { folder: folder.to_owned(), ca, tokens, changing: Mutex::default(), changing_ca: Mutex::default() }
    }

    fn ca(&self) -> Arc<Ca> {
        self.ca.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The CA certificate, PEM.
    pub fn ca_pem(&self) -> String {
        self.ca().trust.ca.clone()
    }

    /// What a joining balancer gets.
    pub fn keys(&self) -> ClusterKeys {
        let ca = self.ca();
        let token_key = BASE64.encode(self.token_keys().key());
        ClusterKeys { ca_pem: ca.trust.ca.clone(), ca_key_pem: ca.key_pem.clone(), token_key }
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

    /// When the keys of join tokens were changed last (Unix, us), as this balancer has them; 0 if they never were.
    pub fn token_keys_since(&self) -> u64 {
        self.token_keys().changed_at().0
    }

    /// What other balancers have to know of changed token keys, for workers to pass on; empty if they never were.
    pub fn sealed_token_keys(&self) -> String {
        self.token_keys().sealed(self.ca().key_pem.as_bytes()).unwrap_or_default()
    }

    /// Takes in what another balancer has sealed. True if it is news.
    pub fn learn_token_keys(&self, sealed: &str) -> Result<bool, AuthorityError> {
        let Some(told) = TokenKeys::open(sealed, self.ca().key_pem.as_bytes()) else { return Ok(false) };
        let news = self.change_token_keys(|keys| told.replace(keys).then_some(told))?;
        if news {
            self.follow_token_keys()?;
        }
        Ok(news)
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

    fn set_token_keys(&self, next: TokenKeys) -> Result<(), AuthorityError> {
        self.change_token_keys(|_| Some(next)).map(drop)
    }

    /// The fingerprint of the CA.
    pub fn fingerprint(&self) -> Fingerprint {
        self.ca().fingerprint
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
        Ok(params.signed_by(key, &self.ca().issuer).map_err(failed)?.pem())
    }

    /// The identity of a server that holds the authority itself: the one in `folder` if it is still good, else a new
    /// one (with the same key if there is one), which is saved there. One of the CA before is good until that is given up.
    pub fn identity(&self, folder: &Path, name: &str, role: Role) -> Result<Identity, AuthorityError> {
        name::check(name)?;
        let trust = self.trust();
        let old = match Identity::load(folder)? {
            Some(old) if self.has_had(old.ca_fingerprint())? => Some(old),
            _ => None,
        };
        if let Some(old) = &old
            && (old.name(), old.role()) == (name, role)
            && !old.is_due(time::now())
            && trust.called(old.issuer()).is_some()
        {
            if old.trust() == &trust {
                return Ok(old.clone());
            }
            let told = old.trusting(trust)?;
            told.save(folder)?;
            return Ok(told);
        }
        let failed = |e: rcgen::Error| AuthorityError::Certificate(e.to_string());
        let key = match old {
            Some(old) => KeyPair::from_pem(old.key_pem()).map_err(failed)?,
            None => KeyPair::generate().map_err(failed)?,
        };
        let identity = self.certified(&key, name, role)?;
        identity.save(folder)?;
        Ok(identity)
    }

    fn certified(&self, key: &KeyPair, name: &str, role: Role) -> Result<Identity, AuthorityError> {
        let trust = self.trust();
        let certificate = self.certify(key, name, role)?;
        Ok(Identity::from_pem(&certificate, &key.serialize_pem(), &trust.ca)?.trusting(trust)?)
    }

    /// The same server to those who know the present CA only, and no other yet: who joins while the CA is being changed.
    pub(crate) fn to_newcomers(&self, identity: &Identity) -> Result<Identity, AuthorityError> {
        if self.trust().is_present(identity.issuer()) {
            return Ok(identity.clone());
        }
        let key = KeyPair::from_pem(identity.key_pem()).map_err(|e| AuthorityError::Certificate(e.to_string()))?;
        self.certified(&key, identity.name(), identity.role())
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
        let new = NewToken { role, created_at: time::now(), expires_at, uses, addresses, ca: self.fingerprint() };
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

    /// Whoever starts again after that joins again, and is told of the change.
    #[test]
    fn who_joins_amid_a_change_has_not_joined_before_the_change_is_kept() {
        let (east, west) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let east = Authority::open(east.path()).unwrap();
        assert!(east.rotate_ca(Default::default(), time::now()).unwrap());
        let change = east.change().unwrap();
        let install = |change| Authority::install_amid(west.path(), east.keys(), Some(change)).map(|west| west.trust());
        assert!(install(change.with_key("broken off")).is_err());
        assert!(Authority::load(west.path()).unwrap().is_none(), "it has joined, and knows of no change");
        assert_eq!(install(change).unwrap(), east.trust());
        let west = Authority::load(west.path()).unwrap().unwrap();
        assert!(west.trust() == east.trust() && west.token_keys() == east.token_keys());
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
