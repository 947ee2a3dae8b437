//! What a gateway may do with its address. GWMP has no authentication, so the address is all that tells a gateway from
//! somebody who claims its EUI. Written as text in the gateway's tag `address_policy`, and in the link's messages.

use alloc::{string::String, vec::Vec};
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    time::Duration,
};

/// The gateway's tag that holds it.
pub const TAG: &str = "address_policy";
/// The longest time for which an address can be held.
pub const HOLD_MOST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Subnets in one lock.
const MOST_SUBNETS: usize = 16;

/// `off`, `alert`, `lock:CIDR,...` or `hold:SECONDS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AddressPolicy {
    /// Any address, and nobody is told when it changes.
    Off,
    /// Any address; a change is told.
    #[default]
    Alert,
    /// Addresses of these networks only.
    Lock(Vec<Subnet>),
    /// The address that it has, until that has been silent for so long.
    Hold(Duration),
}

/// A network in CIDR notation (RFC 4632, RFC 4291); a single address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("{0:?} is no address policy: use off, alert, lock:CIDR,... or hold:SECONDS")]
    Unknown(String),
    #[error(
        "{0:?} is no network: use an address with or without a prefix length, such as 192.0.2.0/24 or 2001:db8::/32"
    )]
    Subnet(String),
    #[error("{0:?} has bits set beyond its prefix length")]
    HostBits(String),
    #[error("lock takes at most {MOST_SUBNETS} networks")]
    TooMany,
    #[error("{0:?} is no time to hold an address: use 1 to 604800 seconds")]
    Hold(String),
}

impl AddressPolicy {
    /// Whether a gateway with this policy may be at this address, whatever it was before.
    pub fn permits(&self, address: IpAddr) -> bool {
        match self {
            Self::Lock(networks) => networks.iter().any(|network| network.contains(address)),
            _ => true,
        }
    }
}

impl FromStr for AddressPolicy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let unknown = || PolicyError::Unknown(text.chars().take(80).collect());
        match text.split_once(':').map_or((text, None), |(word, rest)| (word, Some(rest))) {
            ("off", None) => Ok(Self::Off),
            ("alert", None) => Ok(Self::Alert),
            ("lock", Some(networks)) => {
                let networks: Vec<Subnet> =
                    networks.split(',').map(|network| network.trim().parse()).collect::<Result<_, _>>()?;
                if networks.len() > MOST_SUBNETS { Err(PolicyError::TooMany) } else { Ok(Self::Lock(networks)) }
            }
            ("hold", Some(seconds)) => match seconds.parse().map(Duration::from_secs) {
                Ok(time) if !time.is_zero() && time <= HOLD_MOST => Ok(Self::Hold(time)),
                _ => Err(PolicyError::Hold(seconds.chars().take(80).collect())),
            },
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for AddressPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Alert => f.write_str("alert"),
            Self::Hold(time) => write!(f, "hold:{}", time.as_secs()),
            Self::Lock(networks) => {
                f.write_str("lock:")?;
                networks.iter().enumerate().try_for_each(|(number, network)| {
                    let comma = if number == 0 { "" } else { "," };
                    write!(f, "{comma}{}/{}", network.address, network.bits)
                })
            }
        }
    }
}

impl Subnet {
    /// Whether the address is one of the network's. An IPv4 address in IPv6 clothes is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                masked(address.to_canonical(), self.bits) == self.address
            }
            _ => false,
        }
    }
}

/// The address with all bits after the first `bits` cleared.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits.into())).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl FromStr for Subnet {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let shown = || -> String { text.chars().take(80).collect() };
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| PolicyError::Subnet(shown()))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| PolicyError::Subnet(shown()))?;
        if bits > most {
            return Err(PolicyError::Subnet(shown()));
        }
        if masked(address, bits) != address {
            return Err(PolicyError::HostBits(shown()));
        }
        Ok(Self { address, bits })
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["off", "alert", "lock:192.0.2.0/24,2001:db8::/32", "lock:0.0.0.0/0,::/0", "hold:600"] {
            assert_eq!(text.parse::<AddressPolicy>().unwrap().to_string(), text);
        }
        assert_eq!("lock:192.0.2.1".parse::<AddressPolicy>().unwrap().to_string(), "lock:192.0.2.1/32");
    }

    #[test]
    fn what_is_no_policy_is_refused_with_the_part_that_is_wrong() {
        for (text, expected) in [
            ("", "is no address policy"),
            ("lock", "is no address policy"),
            ("off:1", "is no address policy"),
            ("lock:", "\"\" is no network"),
            ("lock:10.0.0.0/8,10.0.0/8", "\"10.0.0/8\" is no network"),
            ("lock:10.0.0.0/33", "is no network"),
            ("lock:10.0.0.1/8", "has bits set beyond"),
            ("hold:0", "is no time"),
            ("hold:9999999", "is no time"),
            ("hold:ten", "is no time"),
        ] {
            let error = text.parse::<AddressPolicy>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let many = ["10.0.0.1"; MOST_SUBNETS + 1].join(",");
        assert_eq!(alloc::format!("lock:{many}").parse::<AddressPolicy>(), Err(PolicyError::TooMany));
    }

    #[test]
    fn a_lock_permits_its_networks_only() {
        let policy: AddressPolicy = "lock:192.0.2.0/25,2001:db8::/33".parse().unwrap();
        let permits = |address: &str| policy.permits(address.parse().unwrap());
        assert!(permits("192.0.2.127") && permits("2001:db8:7fff::1") && permits("::ffff:192.0.2.1"));
        assert!(!permits("192.0.2.128") && !permits("2001:db8:8000::1") && !permits("::1"));
        assert!("lock:::/0".parse::<AddressPolicy>().unwrap().permits("::1".parse().unwrap()));
    }
}
