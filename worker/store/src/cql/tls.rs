//! TLS to the database, for builds with the feature `cql-tls`.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::OpenError;

/// Trusts the certificates in this PEM file and no others. Nodes are called by address, so that their certificates must
/// name their addresses.
pub(super) fn trusting(ca: &Path) -> Result<Arc<ClientConfig>, OpenError> {
    let failed = |why: String| OpenError::CqlUrl(format!("ca={}: {why}", ca.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| failed(e.to_string()))? {
        let certificate = certificate.map_err(|e| failed(e.to_string()))?;
        roots.add(certificate).map_err(|e| failed(e.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|e| failed(e.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
