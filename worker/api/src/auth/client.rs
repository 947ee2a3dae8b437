//! Where a log-in comes from.

use std::net::IpAddr;

use axum::http::Extensions;
use limpet_http::ClientAddress;

/// Who tries to log in.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// None where the server was not told: then all such clients count as one.
    pub address: Option<IpAddr>,
    /// A token of a log-in or an API key that it has shown besides.
    pub token: Option<String>,
}

impl Client {
    /// From what came with an HTTP request.
    pub fn of(extensions: &Extensions, token: Option<&str>) -> Self {
        let address = extensions.get::<ClientAddress>().map(|ClientAddress(address)| *address);
        Self { address, token: token.map(str::to_owned) }
    }
}
