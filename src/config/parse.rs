//! From text to values. Each error says what is wrong; what is allowed stands in [`super::settings`].

use std::{
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use limpet_shared::{
    policy::{PolicyError, Subnet},
    region::Region,
};
use tracing_subscriber::EnvFilter;

/// `IP:PORT`.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    text.parse().map_err(|_| match text.rsplit_once(':') {
        None => "it has no port".to_owned(),
        Some((host, _)) if host.parse::<std::net::IpAddr>().is_err() && !host.starts_with('[') => {
            format!("{host:?} is no IP address")
        }
        Some(_) => "it is no address".to_owned(),
    })
}

/// `HOST:PORT`, as it is.
pub fn host_port(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("it has no port")?;
    match (host, port.parse::<u16>()) {
        ("", _) => Err("it has no host".into()),
        (_, Err(_) | Ok(0)) => Err(format!("{port:?} is no port")),
        _ if host.contains(':') && !host.starts_with('[') => Err("an IPv6 address needs [ and ]".into()),
        _ if host.contains(|c: char| c.is_whitespace() || c == '/') => Err("it is no host".into()),
        _ => Ok(text.to_owned()),
    }
}

/// A network in CIDR notation, or an address.
pub fn network(text: &str) -> Result<Subnet, String> {
    let address = text.split('/').next().and_then(|address| address.parse::<Ipv6Addr>().ok());
    if address.is_some_and(|address| address.to_ipv4_mapped().is_some()) {
        return Err("write it as IPv4".into());
    }
    text.parse().map_err(|error| match error {
        PolicyError::HostBits(_) => "it has bits set beyond its prefix length".to_owned(),
        _ => "it is no network".to_owned(),
    })
}

/// Texts separated by commas, each read by `one`; at least one.
pub fn list<T>(one: impl Fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Vec<T>, String> {
    move |text| {
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        match parts.is_empty() {
            true => Err("it is empty".into()),
            false => parts.into_iter().map(|part| one(part).map_err(|why| format!("{part:?}: {why}"))).collect(),
        }
    }
}

/// The name of a region, in its canonical spelling.
pub fn region(text: &str) -> Result<String, String> {
    Region::by_name(text).map(|region| region.name().to_owned()).ok_or_else(|| "there is no such region".to_owned())
}

/// `true` or `false`.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("it is neither".into()),
    }
}

/// A whole number within bounds.
pub fn number(from: u32, to: u32) -> impl Fn(&str) -> Result<u32, String> {
    move |text| {
        let number: u32 = text.trim().parse().map_err(|_| "it is no such number".to_owned())?;
        match number {
            _ if number < from => Err(format!("it is less than {from}")),
            _ if number > to => Err(format!("it is more than {to}")),
            _ => Ok(number),
        }
    }
}

/// A path that is not empty.
pub fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("it is empty".into()) } else { Ok(PathBuf::from(text)) }
}

/// The name of a server.
pub fn name(text: &str) -> Result<String, String> {
    limpet_link::name::check(text).map(|()| text.to_owned()).map_err(|_| "it is no such name".into())
}

/// A store's URL.
pub fn store(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some(("sqlite", "")) => Err("it names no folder".into()),
        Some(("sqlite", folder)) if folder.starts_with("//") => Err("write sqlite:DIR, without //".into()),
        Some(("sqlite", _)) => Ok(text.to_owned()),
        Some(("cql", _)) => limpet_store::CqlStore::check_url(text).map(|()| text.to_owned()),
        _ => Err("it is no store".into()),
    }
}

/// A level, or a list of levels for parts of the program.
pub fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in text.split(',').map(str::trim) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            return Err(format!("{level:?} is no level"));
        }
    }
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|e| e.to_string())
}

/// A span of time in seconds: a number with `s`, `m`, `h` or `d`.
pub fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "write a number with s, m, h or d, such as 30m or 7d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(factor).ok_or_else(wrong)?;
    match seconds {
        0 => Err("it would never be good".into()),
        _ if seconds > 10 * 365 * 86_400 => Err("at most 3650d".into()),
        _ => Ok(seconds),
    }
}

/// A span of time of at most 10 s: a number with `ms` or `s`.
pub fn short_time(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let (number, factor) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1_000),
        (None, None) => return Err("it has no unit".into()),
    };
    let number: u64 = number.parse().map_err(|_| "it is no such time".to_owned())?;
    match number.checked_mul(factor) {
        Some(millis) if millis <= 10_000 => Ok(Duration::from_millis(millis)),
        _ => Err("it is longer".into()),
    }
}

/// The same, but not none.
pub fn some_time(text: &str) -> Result<Duration, String> {
    let time = short_time(text)?;
    if time.is_zero() { Err("it is no time at all".into()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_an_ip_and_a_port() {
        assert!(address("0.0.0.0:1700").is_ok() && address("[::]:0").is_ok());
        assert_eq!(address("8080").unwrap_err(), "it has no port");
        assert_eq!(address("localhost:8080").unwrap_err(), r#""localhost" is no IP address"#);
        assert!(address("1.2.3.4:99999").is_err());
        assert!(host_port("edge.example:1701").is_ok() && host_port("[::1]:1701").is_ok());
        for bad in ["edge", ":1", "a:b", "::1:1701", "a:0", "http://a:1"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_are_addresses_with_or_without_a_prefix_length() {
        let networks = list(network)("127.0.0.1, 10.0.0.0/8,2001:db8::/32").unwrap();
        assert!(networks[1].contains([10, 9, 8, 7].into()) && networks.len() == 3);
        assert_eq!(network("10.0.0.1/8").unwrap_err(), "it has bits set beyond its prefix length");
        assert_eq!(network("::ffff:10.0.0.1").unwrap_err(), "write it as IPv4");
        for bad in ["", "proxy", "10.0.0.0/33", "10.0.0.0/", "::/129", "10.0.0.1:80"] {
            assert_eq!(network(bad).unwrap_err(), "it is no network", "{bad}");
        }
    }

    #[test]
    fn lists_name_the_part_that_is_wrong() {
        assert_eq!(list(region)("EU868, us915_1,").unwrap(), ["eu868", "us915_1"]);
        assert_eq!(list(region)("eu868,mars").unwrap_err(), r#""mars": there is no such region"#);
        assert!(list(region)(" , ").is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("7d"), Ok(604_800));
        for bad in ["", "7", "d", "0h", "-1h", "99999999999999999999d", "4000d", "5ä"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn levels_are_levels() {
        assert!(log_filter("info,limpet_balancer=debug").is_ok());
        for bad in ["", "verbose", "limpet=loud", "info,,"] {
            assert!(log_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn short_times_have_a_unit_and_a_limit() {
        for (text, millis) in [("0ms", 0), ("100ms", 100), (" 2s ", 2_000), ("10s", 10_000), ("10000ms", 10_000)] {
            assert_eq!(short_time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "100", "ms", "-1s", "1.5s", "11s", "10001ms", "18446744073709551615s", "1m"] {
            assert!(short_time(wrong).is_err(), "{wrong}");
        }
    }
}
