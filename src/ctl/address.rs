//! A gateway's address policy as people type and read it: `lock=CIDR,...` and `hold=10m`.

use std::{str::FromStr, time::Duration};

use limpet_shared::policy::{AddressPolicy, PolicyError};

use crate::config::parse;

const ALLOWED: &str = "allowed: alert, off, lock=CIDR[,CIDR] such as lock=192.0.2.0/24, or hold=TIME such as hold=10m \
                       (1s to 7d)";

/// Reads a policy.
pub fn parse(text: &str) -> Result<AddressPolicy, String> {
    let policy = match text.split_once('=') {
        None if matches!(text, "alert" | "off") => text.to_owned(),
        Some(("lock", networks)) => format!("lock:{networks}"),
        Some(("hold", time)) => {
            let seconds = parse::seconds(time).map_err(|why| format!("hold={time}: {why}; {ALLOWED}"))?;
            format!("hold:{seconds}")
        }
        _ => return Err(ALLOWED.into()),
    };
    AddressPolicy::from_str(&policy).map_err(|why| match why {
        // The rest of these words is about how it is kept.
        PolicyError::Hold(_) => format!("that is too long to hold an address; {ALLOWED}"),
        why => format!("{why}; {ALLOWED}"),
    })
}

/// Writes a policy as [`parse()`] reads it. What a newer version has made stays as it is.
pub fn shown(kept: &str) -> String {
    match kept.parse::<AddressPolicy>() {
        Ok(AddressPolicy::Hold(time)) => format!("hold={}", in_units(time)),
        Ok(policy) => policy.to_string().replacen(':', "=", 1),
        Err(_) => kept.to_owned(),
    }
}

/// In the largest unit that needs no fraction.
fn in_units(time: Duration) -> String {
    let seconds = time.as_secs();
    let unit = [(86_400, 'd'), (3_600, 'h'), (60, 'm')].into_iter().find(|(size, _)| seconds.is_multiple_of(*size));
    unit.map_or_else(|| format!("{seconds}s"), |(size, unit)| format!("{}{unit}", seconds / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_kept_and_shown_again() {
        for (typed, kept) in [
            ("alert", "alert"),
            ("off", "off"),
            ("lock=192.0.2.0/24,2001:db8::/32", "lock:192.0.2.0/24,2001:db8::/32"),
            ("hold=10m", "hold:600"),
            ("hold=90s", "hold:90"),
            ("hold=7d", "hold:604800"),
        ] {
            assert_eq!(parse(typed).unwrap().to_string(), kept);
            assert_eq!(shown(kept), typed);
        }
        assert_eq!(shown("lock:192.0.2.1"), "lock=192.0.2.1/32");
        assert_eq!(shown("of a newer version"), "of a newer version");
    }

    #[test]
    fn what_is_no_policy_is_refused_with_what_is_allowed() {
        for (typed, cause) in [
            ("", "allowed: alert"),
            ("locked", "allowed: alert"),
            ("alert=1", "allowed: alert"),
            ("lock=", "\"\" is no network"),
            ("lock=10.0.0.1/8", "bits set beyond its prefix"),
            ("lock=10.0.0.0/8,attic", "\"attic\" is no network"),
            ("hold=600", "write a number with s, m, h or d"),
            ("hold=0s", "hold=0s"),
            ("hold=8d", "too long to hold"),
        ] {
            let refused = parse(typed).unwrap_err();
            assert!(refused.contains(cause) && refused.contains(ALLOWED), "{typed}: {refused}");
        }
    }
}
