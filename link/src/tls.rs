//! TLS 1.3 for the link: both sides show certificates of the cluster's CA, and only a balancer's may play the server.

use std::{sync::Arc, time::Duration};

use limpet_shared::link::{ALPN, ALPN_JOIN};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{
        ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    time_provider::TimeProvider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{host, identity::Identity, token::Fingerprint};

/// TLS could not be set up from these certificates.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS for the link: {0}")]
pub struct TlsError(String);

fn failed(error: impl ToString) -> TlsError {
    TlsError(error.to_string())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The balancer's side. A client certificate is asked for, but only [`ALPN`] needs it: a joining server has none.
/// `to_newcomers` is shown to who joins, `identity` to workers: they may know another CA while it is being changed.
pub(crate) fn server(identity: &Identity, to_newcomers: &Identity) -> Result<QuicServerConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in identity.trust().roots() {
        roots.add(root).map_err(failed)?;
    }
    let shown = |identity: &Identity| CertifiedKey::from_der(identity.chain(), identity.key(), &provider());
    let shown = Shown {
        to_workers: Arc::new(shown(identity).map_err(failed)?),
        to_newcomers: Arc::new(shown(to_newcomers).map_err(failed)?),
    };
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(failed)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(Arc::new(Direct(clients)))
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![ALPN.to_vec(), ALPN_JOIN.to_vec()];
    // A resumed session would carry a certificate that may have ended or been revoked since.
    config.send_tls13_tickets = 0;
    config.time_provider = Arc::new(HostClock);
    QuicServerConfig::try_from(config).map_err(failed)
}

/// Only certificates that a CA of the cluster has made itself. One in between may have any name, also that of the CA which
/// the cluster has changed to, and whoever has a copy of the key of the one before could make it.
#[derive(Debug)]
struct Direct(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Direct {
    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.verify_client_cert(certificate, &[], now)
    }

    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What a balancer shows, by what is asked of it.
#[derive(Debug)]
struct Shown {
    to_workers: Arc<CertifiedKey>,
    to_newcomers: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let joins = hello.alpn().is_some_and(|mut wanted| wanted.any(|protocol| protocol == ALPN_JOIN));
        Some(if joins { &self.to_newcomers } else { &self.to_workers }.clone())
    }
}

/// The worker's side of the link.
pub(crate) fn client(identity: &Identity) -> Result<QuicClientConfig, TlsError> {
    let trust = Expected::Authorities(identity.trust().roots());
    let mut config = client_builder(trust)?.with_client_auth_cert(identity.chain(), identity.key()).map_err(failed)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.time_provider = Arc::new(HostClock);
    QuicClientConfig::try_from(config).map_err(failed)
}

/// The side of a server that joins: it knows the cluster by the fingerprint in its token.
pub(crate) fn joining(cluster: Fingerprint) -> Result<QuicClientConfig, TlsError> {
    let mut config = client_builder(Expected::Fingerprint(cluster))?.with_no_client_auth();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    config.time_provider = Arc::new(HostClock);
    QuicClientConfig::try_from(config).map_err(failed)
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn client_builder(expected: Expected) -> Result<Builder, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?;
    let verifier = Arc::new(BalancerVerifier { expected, provider: provider() });
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

/// Certificates are judged by the host's clock.
#[derive(Debug)]
struct HostClock;

impl TimeProvider for HostClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_micros(host::now().0)))
    }
}

/// How a client knows the cluster's CA.
#[derive(Debug)]
enum Expected {
    Authorities(Vec<CertificateDer<'static>>),
    Fingerprint(Fingerprint),
}

/// Accepts any balancer of the cluster, whatever its name: workers dial addresses, which may stand for any of them.
#[derive(Debug)]
struct BalancerVerifier {
    expected: Expected,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for BalancerVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut roots = RootCertStore::empty();
        match &self.expected {
            Expected::Authorities(authorities) => {
                authorities.iter().try_for_each(|authority| roots.add(authority.clone()))?;
            }
            Expected::Fingerprint(expected) => {
                let authority = chain.iter().find(|candidate| Fingerprint::of(candidate) == *expected);
                roots.add(authority.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?.clone())?;
            }
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

    use super::*;

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params
    }

    #[test]
    fn the_old_key_makes_no_ca_by_the_new_ones_name() {
        let [old, new] = ["old", "new"]
            .map(|name| CertifiedIssuer::self_signed(params(name), KeyPair::generate().unwrap()).unwrap());
        let between = CertifiedIssuer::signed_by(params("new"), KeyPair::generate().unwrap(), &old).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut server = CertificateParams::new(vec!["server".to_owned()]).unwrap();
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let forged = server.clone().signed_by(&key, &between).unwrap();
        let known = server.signed_by(&key, &old).unwrap();
        let mut roots = RootCertStore::empty();
        [&new, &old].into_iter().for_each(|root| roots.add(root.der().clone()).unwrap());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
        let (now, chain) = (UnixTime::now(), [between.der().clone()]);
        assert!(verifier.verify_client_cert(forged.der(), &chain, now).is_ok(), "else there is nothing to refuse");
        let direct = Direct(verifier);
        assert!(direct.verify_client_cert(forged.der(), &chain, now).is_err());
        assert!(direct.verify_client_cert(known.der(), &[], now).is_ok());
    }
}
