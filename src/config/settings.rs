//! The list of all settings of the roles: what `docs/configuration.md` explains and messages quote.

/// One setting: flag `--key`, environment `LIMPET_KEY`, key in the file.
#[derive(Debug)]
pub struct Setting {
    pub key: &'static str,
    /// What is allowed, as messages say it.
    pub allowed: &'static str,
    /// Its value must not be shown.
    pub secret: bool,
}

const fn setting(key: &'static str, allowed: &'static str) -> Setting {
    Setting { key, allowed, secret: false }
}

const ADDRESS: &str = "IP:PORT, such as 0.0.0.0:1700 or [::]:1700";
const BOOL: &str = "true or false";

/// All settings, in the order of the documentation.
pub static SETTINGS: &[Setting] = &[
    setting("data", "a folder"),
    setting("config", "a file"),
    setting("threads", "1 to 1024"),
    setting("log-level", "error, warn, info, debug, trace, or a list such as info,limpet_balancer=debug"),
    setting("log-format", "text or json"),
    Setting { key: "admin-password", allowed: "at least 8 characters", secret: true },
    setting("admin-password-file", "a file whose first line is the password, at least 8 characters"),
    setting("name", "1 to 63 letters, digits, '-', '_' and '.', starting with a letter or digit"),
    Setting { key: "join", allowed: "a token made by `limpet ctl join-token`", secret: true },
    setting("join-file", "a file whose last line is a token made by `limpet ctl join-token`"),
    setting("gwmp", ADDRESS),
    setting("link", ADDRESS),
    setting("admin", ADDRESS),
    setting("advertise", "HOST:PORT, several separated by commas"),
    setting("trusted-proxy", "IP or IP/BITS, such as 127.0.0.1 or 2001:db8::/32, several separated by commas"),
    setting("accept-unknown-gateways", BOOL),
    setting("ack", "stored or received"),
    setting("retained-mib", "a number from 1 to 65536"),
    setting("gateway-rate", "a number from 0 to 1000000"),
    setting("gateway-kib", "a number from 0 to 1000000"),
    setting("unknown-rate", "a number from 0 to 1000000"),
    setting("balancer", "HOST:PORT, several separated by commas"),
    // Not repeated in messages: it may hold a password.
    Setting {
        key: "store",
        allowed: "sqlite:DIR, or cql://user:password@host1,host2/keyspace?replication=datacenter1:3&consistency=local_quorum",
        secret: true,
    },
    setting("store-file", "a file whose first line is the URL of a store"),
    setting(
        "region",
        "eu868, eu433, ru864, cn779, as923, as923_2 to as923_4, in865, kr920, ism2400, us915, us915_0 to us915_7, au915, au915_0 to au915_7, cn470, \
         cn470_0 to cn470_11, several separated by commas",
    ),
    setting("weight", "a number from 1 to 100"),
    setting("reply-delay", "0ms to 10s: a number with ms or s"),
    setting("codec-time", "1ms to 10s: a number with ms or s"),
    setting("codec-mib", "a number from 1 to 1024"),
    setting("http", ADDRESS),
    setting("workers", "a number from 1 to 64"),
    setting("demo", BOOL),
];

/// The setting of this key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The environment variable of a key.
pub fn variable(key: &str) -> String {
    format!("LIMPET_{}", key.replace('-', "_").to_uppercase())
}

/// The known key that looks most like `wrong`, if one is close enough to be meant.
pub fn nearest(wrong: &str) -> Option<&'static str> {
    let wrong = wrong.to_lowercase();
    let (distance, key) = SETTINGS.iter().map(|s| (distance(&wrong, s.key), s.key)).min()?;
    (distance <= (wrong.len() / 3).max(1)).then_some(key)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one text into the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut now = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            now[j] = replaced.min(last[j] + 1).min(now[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                now[j] = now[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, now);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_finds_its_neighbour_and_nonsense_none() {
        for (wrong, right) in [("gwpm", "gwmp"), ("loglevel", "log-level"), ("regions", "region"), ("HTTP", "http")] {
            assert_eq!(nearest(wrong), Some(right));
        }
        for nonsense in ["", "postgresql", "x"] {
            assert_eq!(nearest(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn variables_are_shell_names() {
        assert_eq!(variable("admin-password-file"), "LIMPET_ADMIN_PASSWORD_FILE");
    }
}
