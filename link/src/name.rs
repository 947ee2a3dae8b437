//! Names of servers.

/// Why a text cannot be a server's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a server's name has 1 to 63 letters, digits, '-', '_' and '.', and starts with a letter or digit; {0:?} does not"
)]
pub struct NameError(pub String);

/// Checks the name of a server. It becomes the DNS name in its certificate and a metric label, so its alphabet is narrow.
pub fn check(name: &str) -> Result<(), NameError> {
    let fits = (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if fits { Ok(()) } else { Err(NameError(name.chars().take(80).collect())) }
}

/// What a name stands for now, as the balancer that is asked knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameState {
    /// Nobody connected has it.
    Free,
    /// A server with this name is connected.
    Live,
    /// The server that has this certificate was removed from the cluster. Its name is free for another.
    Revoked,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_a_certificate_and_a_label_can_carry() {
        for good in ["a", "worker-1", "host.example.net", "x_y", "0"] {
            check(good).unwrap();
        }
        for bad in ["", "-a", ".a", "a b", "ä", "a/b", "a\n", &"x".repeat(64)] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
