//! Where a log-in comes from.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::ConnectInfo,
    http::{Extensions, HeaderMap},
};

/// Who tries to log in.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// None where the server was not told: then all such clients count as one.
    pub address: Option<IpAddr>,
    /// A token of a log-in or an API key that it has shown besides.
    pub token: Option<String>,
}

impl Client {
    /// From what came with an HTTP request. A proxy on the same machine is believed about whom it speaks for, by what it
    /// has added to `X-Forwarded-For` itself; nobody else is, for anybody can write that header.
    pub fn of(extensions: &Extensions, headers: &HeaderMap, token: Option<&str>) -> Self {
        let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip().to_canonical());
        let address = match peer {
            Some(peer) if peer.is_loopback() => forwarded(headers).or(Some(peer)),
            peer => peer,
        };
        Self { address, token: token.map(str::to_owned) }
    }
}

fn forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?;
    let text = last.to_str().ok()?.rsplit(',').next()?.trim();
    let address = text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(peer: &str, forwarded: &[&'static str]) -> String {
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        Client::of(&extensions, &headers, None).address.unwrap().to_string()
    }

    #[test]
    fn only_a_proxy_on_this_machine_is_believed_and_only_what_it_added_itself() {
        assert_eq!(address("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(address("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(address("::ffff:127.0.0.1", &["1.1.1.1, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(address("::1", &["1.1.1.1", "2001:db8::1"]), "2001:db8::1");
        assert_eq!(address("127.0.0.1", &["nonsense"]), "127.0.0.1");
        assert_eq!(Client::of(&Extensions::new(), &HeaderMap::new(), None).address, None);
    }
}
