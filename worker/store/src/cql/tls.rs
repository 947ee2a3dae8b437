//! TLS to the database, for builds with the feature `cql-tls`.

use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, Error, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::OpenError;

/// A node has this long for each step of the handshake that is made to find out what is wrong.
const STEP_LIMIT: Duration = Duration::from_secs(2);

/// Trusts the certificates in this PEM file and no others. Nodes are called by address, so that their certificates must
/// name their addresses.
pub(super) fn trusting(ca: &Path) -> Result<Arc<ClientConfig>, OpenError> {
    let failed = |why: String| OpenError::CqlCa { path: ca.into(), why };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| failed(e.to_string()))? {
        let certificate = certificate.map_err(|e| failed(e.to_string()))?;
        roots.add(certificate).map_err(|e| failed(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("it holds no certificate (-----BEGIN CERTIFICATE-----)".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|e| failed(e.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// Why no node took the connection, if that is TLS's doing: the driver says only that it got none. `None` if it is not.
pub(super) async fn objection(ca: &Path, hosts: &[String]) -> Option<String> {
    let config = trusting(ca).ok()?;
    for host in hosts {
        let (config, called) = (config.clone(), host.clone());
        let shaken = tokio::task::spawn_blocking(move || shake(config, &called)).await.ok()?;
        let Err(error) = shaken else { continue };
        let what = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        return Some(match what {
            Some(Error::InvalidCertificate(why)) => format!(
                "{host} shows a certificate that those in {} do not vouch for, or that does not name this address ({why:?})",
                ca.display()
            ),
            Some(Error::InvalidMessage(_)) => {
                format!("{host} does not talk TLS on this port: leave ca= out, or name its TLS port")
            }
            Some(other) => format!("{host}: {other}"),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                format!("{host} ends the connection when TLS begins: leave ca= out, or name its TLS port")
            }
            None => continue,
        });
    }
    None
}

fn shake(config: Arc<ClientConfig>, host: &str) -> io::Result<()> {
    let address = host.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut tcp = TcpStream::connect_timeout(&address, STEP_LIMIT)?;
    tcp.set_read_timeout(Some(STEP_LIMIT))?;
    tcp.set_write_timeout(Some(STEP_LIMIT))?;
    let name = ServerName::IpAddress(address.ip().into());
    let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    Ok(())
}
