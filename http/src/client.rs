//! Who a request is from, also through proxies.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::http::{HeaderMap, HeaderName};
use limpet_shared::policy::Subnet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where a request comes from: an extension of each request that [`crate::serve`] passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The proxies that are believed about whom they speak for; none unless the operator names them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Arc<[Subnet]>);

impl Proxies {
    /// Proxies at the addresses of these networks.
    pub fn new(networks: impl IntoIterator<Item = Subnet>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// Whether a proxy at this address is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Who has sent a request that came from `peer`: the right-most address of `X-Forwarded-For` that is no trusted proxy.
    /// Each proxy adds whom it heard at the right, so that everything left of the last stranger is that stranger's own
    /// claim, and so is the whole header of a peer that is no trusted proxy. What is no address ends the search: then it is
    /// the proxy that added it.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let values = headers.get_all(FORWARDED_FOR).iter().rev();
        let mut entries = values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
        while self.trusts(client) {
            let Some(heard) = entries.next().and_then(address) else { break };
            client = heard;
        }
        client
    }
}

/// An address, which some proxies write with a port.
fn address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let alone = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let with_port = || entry.parse::<SocketAddr>().ok().map(|address| address.ip());
    alone.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

/// The network that counts as one client: an IPv4 address, or the /64 of an IPv6 address, for whoever has one of its
/// addresses has all 2^64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

/// The network of a site, which somebody may have all of: the /24 of an IPv4 address, the /48 of an IPv6 address.
pub fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & !0xff).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !(u128::MAX >> 48)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&'static str]) -> String {
        let proxies = Proxies::new(trusted.iter().map(|network| network.parse().unwrap()));
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn nobody_is_believed_unless_named() {
        assert_eq!(client(&[], "127.0.0.1", &["198.51.100.7"]), "127.0.0.1");
        assert_eq!(client(&[], "::1", &["198.51.100.7"]), "::1");
        assert_eq!(client(&["10.0.0.0/8"], "192.0.2.1", &["198.51.100.7", "10.0.0.1"]), "192.0.2.1");
        assert_eq!(client(&["::/0"], "192.0.2.1", &["198.51.100.7"]), "192.0.2.1", "all of IPv6 is not all");
    }

    #[test]
    fn through_a_chain_of_proxies_the_last_stranger_counts() {
        let trusted = ["127.0.0.1", "10.0.0.0/8", "2001:db8:1::/48"];
        assert_eq!(client(&trusted, "127.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client(&trusted, "::ffff:127.0.0.1", &["1.1.1.1, 198.51.100.7, 10.1.2.3"]), "198.51.100.7");
        assert_eq!(client(&trusted, "2001:db8:1::9", &["2001:db8:2::7, 10.0.0.1"]), "2001:db8:2::7");
        // A proxy may add a header of its own instead of adding to the one that is there.
        assert_eq!(client(&trusted, "10.0.0.1", &["1.1.1.1", "198.51.100.7", "10.0.0.2"]), "198.51.100.7");
        assert_eq!(client(&trusted, "10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "a request of a proxy itself");
        assert_eq!(client(&trusted, "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn ports_and_brackets_are_understood_and_what_is_no_address_is_the_proxys() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(client(&trusted, "10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(client(&trusted, "10.0.0.1", &["[2001:db8::7]:4711"]), "2001:db8::7");
        assert_eq!(client(&trusted, "10.0.0.1", &["[2001:db8::7]"]), "2001:db8::7");
        assert_eq!(client(&trusted, "10.0.0.1", &["::ffff:198.51.100.7"]), "198.51.100.7");
        for nonsense in ["unknown", "", ",", "198.51.100.7, _hidden"] {
            assert_eq!(client(&trusted, "10.0.0.1", &[nonsense]), "10.0.0.1", "{nonsense:?}");
        }
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
