//! Reading `cql://user:password@host1,host2/keyspace?replication=datacenter1:3&consistency=local_quorum`.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use scylla::statement::{Consistency, SerialConsistency};

/// Where a database is and how to talk to it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct CqlUrl {
    /// `host:port`, at least one.
    pub hosts: Vec<String>,
    pub login: Option<(String, String)>,
    pub keyspace: String,
    /// How a keyspace that has to be made is replicated.
    pub replication: Replication,
    pub level: Level,
    /// Whose nodes are asked, and whose replicas decide at [`Level::LocalQuorum`].
    pub datacenter: Option<String>,
    /// Talk TLS, and trust the certificates in this file (PEM).
    pub ca: Option<PathBuf>,
}

/// Copies of each row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Replication {
    /// Three where there are three nodes, else one.
    Unsaid,
    /// Per data centre, in the order given.
    PerDatacenter(Vec<(String, u8)>),
}

/// Which replicas must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// A majority in the driver's own data centre.
    LocalQuorum,
    /// A majority of all.
    Quorum,
}

impl Level {
    pub fn plain(self) -> Consistency {
        match self {
            Self::LocalQuorum => Consistency::LocalQuorum,
            Self::Quorum => Consistency::Quorum,
        }
    }
    /// Of the conditional part of a write.
    pub fn conditional(self) -> SerialConsistency {
        match self {
            Self::LocalQuorum => SerialConsistency::LocalSerial,
            Self::Quorum => SerialConsistency::Serial,
        }
    }
    /// Of a read that must see every conditional write begun before.
    pub fn serial(self) -> Consistency {
        match self {
            Self::LocalQuorum => Consistency::LocalSerial,
            Self::Quorum => Consistency::Serial,
        }
    }
}

const PORT: &str = "9042";
const KEYSPACE: &str = "limpet";

impl CqlUrl {
    /// Says what is wrong, without repeating what may be a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("cql://").ok_or("it must begin with cql://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, keyspace) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(read_login(login)?), hosts),
            None => (None, authority),
        };
        let mut parsed = Self {
            hosts: hosts.split(',').map(read_host).collect::<Result<_, _>>()?,
            login,
            keyspace: read_keyspace(keyspace)?,
            replication: Replication::Unsaid,
            level: Level::LocalQuorum,
            datacenter: None,
            ca: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parsed.set(name, &decoded(value)?)?;
        }
        Ok(parsed)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "replication" => self.replication = read_replication(value)?,
            "consistency" => {
                self.level = match value.to_ascii_lowercase().as_str() {
                    "local_quorum" => Level::LocalQuorum,
                    "quorum" => Level::Quorum,
                    _ => return Err(format!("consistency={value}: it may be local_quorum (the default) or quorum")),
                }
            }
            "datacenter" if is_datacenter(value) => self.datacenter = Some(value.into()),
            "datacenter" => {
                return Err(format!(
                    "datacenter={value}: it must be a data centre's name, as in datacenter=datacenter1"
                ));
            }
            "ca" if !value.is_empty() => self.ca = Some(value.into()),
            "ca" => return Err("ca= needs the path of a PEM file".into()),
            _ => {
                return Err(format!(
                    "it knows no setting {name:?}: there are replication, consistency, datacenter and ca"
                ));
            }
        }
        Ok(())
    }

    /// For people; without the password.
    pub fn describe(&self) -> String {
        format!("CQL at {}, keyspace {}", self.hosts.join(","), self.keyspace)
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| "what is percent-encoded in it must be UTF-8".into())
}

fn read_login(login: &str) -> Result<(String, String), String> {
    let (user, password) = login.split_once(':').ok_or("before the @ stands user:password")?;
    Ok((decoded(user)?, decoded(password)?))
}

fn read_host(host: &str) -> Result<String, String> {
    // An IPv6 address stands in brackets, as in every URL.
    let bare = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    let (name, port) = bare.unwrap_or((host, PORT));
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err("it must name at least one host, as in cql://host1,host2/limpet".into());
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(format!("{name}:{port}")),
        _ => Err(format!("{port:?} is no port: 1 to 65535 is allowed")),
    }
}

/// A keyspace's name stands in statements, so it may hold nothing that would have to be quoted.
fn read_keyspace(keyspace: &str) -> Result<String, String> {
    if keyspace.is_empty() {
        return Ok(KEYSPACE.into());
    }
    let well = keyspace.starts_with(|c: char| c.is_ascii_lowercase())
        && keyspace.len() <= 48
        && keyspace.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
    if well {
        Ok(keyspace.into())
    } else {
        Err("a keyspace's name is 1 to 48 of a-z, 0-9 and _, and begins with a letter".into())
    }
}

/// It stands in statements, between quotes.
fn is_datacenter(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-.".contains(&c))
}

fn read_replication(value: &str) -> Result<Replication, String> {
    let allowed =
        || format!("replication={value}: it must be DATACENTER:COPIES, as in datacenter1:3, several with commas");
    let read = |part: &str| {
        let (name, copies) = part.split_once(':')?;
        let named = is_datacenter(name);
        let copies = copies.parse::<u8>().ok().filter(|copies| (1..=9).contains(copies))?;
        named.then(|| (name.to_owned(), copies))
    };
    value.split(',').map(read).collect::<Option<_>>().map(Replication::PerDatacenter).ok_or_else(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_url_is_read() {
        let url = "cql://limpet:p%40ss%3aword@db1,db2:9142,[2001:db8::1]/field?replication=east:3,west:2&consistency=quorum&datacenter=east&ca=/etc/ca.pem";
        let url = CqlUrl::parse(url).unwrap();
        assert!(!url.describe().contains("p@ss"));
        assert_eq!(url.hosts, ["db1:9042", "db2:9142", "[2001:db8::1]:9042"]);
        assert_eq!(url.login, Some(("limpet".into(), "p@ss:word".into())));
        assert_eq!(url.replication, Replication::PerDatacenter(vec![("east".into(), 3), ("west".into(), 2)]));
        assert_eq!((url.level, url.keyspace.as_str()), (Level::Quorum, "field"));
        assert_eq!((url.datacenter.as_deref(), url.ca), (Some("east"), Some("/etc/ca.pem".into())));
        let short = CqlUrl::parse("cql://127.0.0.1").unwrap();
        assert_eq!(
            (short.keyspace.as_str(), short.replication, short.level),
            ("limpet", Replication::Unsaid, Level::LocalQuorum)
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, word) in [
            ("cql://", "host"),
            ("cql://a,,b/x", "host"),
            ("cql://a:0/x", "port"),
            ("cql://a:99999/x", "port"),
            ("cql://a/Camel", "keyspace"),
            ("cql://a/x;drop", "keyspace"),
            ("cql://secret@a/x", "user:password"),
            ("cql://a/x?consistency=one", "local_quorum"),
            ("cql://a/x?replication=3", "datacenter1:3"),
            ("cql://a/x?replication=dc'1:3", "datacenter1:3"),
            ("cql://a/x?datacenter=", "datacenter"),
            ("cql://a/x?datacenter=dc'1", "datacenter"),
            ("cql://a/x?colour=blue", "colour"),
        ] {
            let error = CqlUrl::parse(url).err().unwrap();
            assert!(error.contains(word) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
