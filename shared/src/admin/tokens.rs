//! What servers know of join tokens, and how it comes together.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
};

use serde::{Deserialize, Serialize};

use super::Role;
use crate::UnixMicros;

/// What is known of a join token, besides its secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenInfo {
    /// 16 hex digits.
    pub id: String,
    pub role: Role,
    pub created_at: UnixMicros,
    pub expires_at: UnixMicros,
    /// How many servers it lets in.
    pub uses: u32,
    /// How many each balancer has let in with it.
    pub used: BTreeMap<String, u32>,
    /// Whom it has let in, by the key of the certificate (SHA-256, hex): who asks again with its key, because the answer was
    /// lost, costs no further use. The last [`Self::MOST_ADMITTED`] of them.
    pub admitted: BTreeMap<String, Admitted>,
    pub revoked: bool,
}

/// A server that a join token has let in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Admitted {
    /// The name in its certificate.
    pub name: String,
    /// When it was let in under this name.
    pub at: UnixMicros,
    /// The balancers that have counted a use for it: more than one if it asked another before they had told each other.
    pub by: BTreeSet<String>,
}

impl TokenInfo {
    /// Servers that are remembered of one token: what the console lets it be used for.
    pub const MOST_ADMITTED: usize = 100;

    /// How many servers it has let in so far.
    pub fn used(&self) -> u32 {
        let counted = self.used.values().fold(0_u32, |sum, used| sum.saturating_add(*used));
        let twice: usize = self.admitted.values().map(|server| server.by.len().saturating_sub(1)).sum();
        counted.saturating_sub(u32::try_from(twice).unwrap_or(u32::MAX))
    }

    /// A balancer gives a certificate for this key. A use counts unless the key is known already; the same name once more
    /// changes nothing.
    pub fn admit(&mut self, balancer: &str, key: &str, name: &str, at: UnixMicros) {
        match self.admitted.get_mut(key) {
            Some(server) if server.name == name => {}
            Some(server) => (server.name, server.at) = (name.into(), at),
            None => {
                let used = self.used.entry(balancer.into()).or_default();
                *used = used.saturating_add(1);
                let server = Admitted { name: name.into(), at, by: [String::from(balancer)].into() };
                self.admitted.insert(key.into(), server);
                self.forget();
            }
        }
    }

    /// Keeps the servers that were let in last.
    fn forget(&mut self) {
        while self.admitted.len() > Self::MOST_ADMITTED {
            let oldest = self.admitted.iter().min_by_key(|(key, server)| (server.at, *key)).map(|(key, _)| key.clone());
            oldest.map(|key| self.admitted.remove(&key));
        }
    }

    /// Takes in what somebody else knows of the same token. In any order, however often, the result is the same.
    pub fn merge(&mut self, other: &Self) {
        self.revoked |= other.revoked;
        for (balancer, used) in &other.used {
            let mine = self.used.entry(balancer.clone()).or_default();
            *mine = (*mine).max(*used);
        }
        for (key, theirs) in &other.admitted {
            let mine = self.admitted.entry(key.clone()).or_default();
            mine.by.extend(theirs.by.iter().cloned());
            if (theirs.at, &theirs.name) > (mine.at, &mine.name) {
                (mine.name, mine.at) = (theirs.name.clone(), theirs.at);
            }
        }
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn a_token_counts_each_server_once_whichever_balancers_it_asked() {
        let (mut east, mut west) = (TokenInfo { uses: 3, ..TokenInfo::default() }, TokenInfo::default());
        east.admit("east", "aa", "host", UnixMicros(1));
        east.admit("east", "aa", "host", UnixMicros(2));
        west.admit("west", "aa", "host", UnixMicros(3));
        west.admit("west", "bb", "other", UnixMicros(4));
        assert_eq!((east.used(), west.used()), (1, 2));
        let (before_east, before_west) = (east.clone(), west.clone());
        east.merge(&before_west);
        west.merge(&before_east);
        west.merge(&before_east);
        assert_eq!(east.admitted, west.admitted);
        assert_eq!((east.used(), west.used()), (2, 2));
        // One that has learnt of it counts nothing.
        east.admit("east", "bb", "other", UnixMicros(5));
        assert_eq!(east.used(), 2);
    }

    #[test]
    fn what_is_remembered_of_a_token_is_bounded_and_its_uses_are_not_forgotten() {
        let mut token = TokenInfo::default();
        for n in 0..150 {
            token.admit("east", &format!("{n:04}"), "host", UnixMicros(n));
        }
        assert_eq!((token.used(), token.admitted.len()), (150, TokenInfo::MOST_ADMITTED));
        assert!(token.admitted.contains_key("0149") && !token.admitted.contains_key("0049"));
        let before = token.clone();
        token.merge(&before);
        assert_eq!(token, before);
    }

    #[test]
    fn what_an_earlier_version_has_written_is_read() {
        let old = r#"{"id":"01","role":"worker","uses":2,"used":{"east":1},"revoked":false}"#;
        let token: TokenInfo = serde_json::from_str(old).unwrap();
        assert_eq!((token.used(), token.admitted.len()), (1, 0));
    }
}
