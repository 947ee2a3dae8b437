//! What a balancer knows of join tokens: how often each was used, and which are revoked. Kept in a file that survives a
//! restart, and shared with the other balancers by way of workers and their store.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use limpet_shared::{UnixMicros, admin::TokenInfo};

use super::{Token, TokenError};
use crate::files;

/// An expired token is listed for so long.
pub const SHOWN: Duration = Duration::from_secs(24 * 3600);
/// Tokens that are remembered at most. More were made by somebody with the token key.
const MOST: usize = 10_000;

type Known = BTreeMap<String, TokenInfo>;

/// The tokens of the cluster, in `DATA/cluster/tokens.json`.
///
/// Each balancer counts the servers that it has let in, and the counts add up. Which servers these were is known by their keys. They meet every few seconds; in between, a
/// token that is used at two balancers at once may let in more than it should.
pub struct Ledger {
    path: PathBuf,
    /// The balancer's own name, under which it counts.
    own: String,
    known: Mutex<Known>,
    /// Held from reading to writing, so that no count is lost. Readers do not wait for it.
    writing: Mutex<()>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Reads the file in the cluster folder; none is no tokens.
    pub fn open(cluster: &Path, own: &str) -> Result<Self, TokenError> {
        let path = cluster.join("tokens.json");
        let known = match files::read(&path)? {
            Some(text) => serde_json::from_str(&text)
                .map_err(|e| TokenError::Damaged(path.display().to_string(), e.to_string()))?,
            None => Known::new(),
        };
        Ok(Self { path, own: own.to_owned(), known: Mutex::new(known), writing: Mutex::new(()) })
    }

    /// What is known, by id.
    pub fn known(&self) -> Vec<TokenInfo> {
        locked(&self.known).values().cloned().collect()
    }

    /// Notes a token that was made here. Blocks on the disk, as all that write.
    pub fn made(&self, token: &Token, now: UnixMicros) -> Result<(), TokenError> {
        self.learn(&[token.info()], now)
    }

    /// Takes in what others know. A token that has long expired is left out.
    pub fn learn(&self, tokens: &[TokenInfo], now: UnixMicros) -> Result<(), TokenError> {
        self.change(now, |known| {
            for token in tokens.iter().filter(|token| token.expires_at + SHOWN > now) {
                let room = known.len() < MOST;
                match known.get_mut(&token.id) {
                    Some(mine) => mine.merge(token),
                    None if room => drop(known.insert(token.id.clone(), token.clone())),
                    None => {}
                }
            }
            Ok(())
        })
    }

    /// Lets nobody in any more with this token; false if it is not known.
    pub fn revoke(&self, id: &str, now: UnixMicros) -> Result<bool, TokenError> {
        self.change(now, |known| Ok(known.get_mut(id).map(|token| token.revoked = true).is_some()))
    }

    /// The same of all that were made before then and could still be used.
    pub fn revoke_made_before(&self, then: UnixMicros, now: UnixMicros) -> Result<(), TokenError> {
        self.change(now, |known| {
            let open = known.values_mut().filter(|token| token.expires_at > now && token.used() < token.uses);
            open.filter(|token| token.created_at < then).for_each(|token| token.revoked = true);
            Ok(())
        })
    }

    /// The name that a server with this key was let in under with this token.
    pub fn admitted(&self, token: &str, key: &str) -> Option<String> {
        Some(locked(&self.known).get(token)?.admitted.get(key)?.name.clone())
    }

    /// Counts one use of a verified token, by a server with this key ([`crate::identity::PeerName::key`]), unless the key has
    /// used it before: its server asks again because it did not get the answer. It is on disk when this returns.
    pub fn take(&self, token: &Token, key: &str, name: &str, now: UnixMicros) -> Result<(), TokenError> {
        self.change(now, |known| {
            let entry = known.entry(token.id.clone()).or_insert_with(|| token.info());
            if entry.revoked {
                return Err(TokenError::Revoked);
            }
            if !entry.admitted.contains_key(key) && entry.used() >= token.uses {
                return Err(TokenError::UsedUp(token.uses));
            }
            entry.admit(&self.own, key, name, now);
            Ok(())
        })
    }

    /// What `change` makes of it, once it is on disk.
    fn change<T>(
        &self,
        now: UnixMicros,
        change: impl FnOnce(&mut Known) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let _turn = locked(&self.writing);
        let before = locked(&self.known).clone();
        let mut next = before.clone();
        next.retain(|_, token| token.expires_at + SHOWN > now);
        let outcome = change(&mut next)?;
        if next != before {
            let text = serde_json::to_vec_pretty(&next)
                .map_err(|e| TokenError::Damaged(self.path.display().to_string(), e.to_string()))?;
            files::write(&self.path, &text)?;
            *locked(&self.known) = next;
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use limpet_shared::admin::Role;

    use super::*;
    use crate::token::{Fingerprint, NewToken, TokenKey};

    const NOW: UnixMicros = UnixMicros(1_700_000_000_000_000);

    fn token(id: u64, uses: u32, expires_at: UnixMicros) -> Token {
        let new = NewToken {
            role: Role::Worker,
            created_at: NOW,
            expires_at,
            uses,
            addresses: vec!["a:1".into()],
            ca: Fingerprint([0; 32]),
        };
        TokenKey::new(&[0; 32]).sign(id, new).unwrap()
    }

    #[test]
    fn uses_are_counted_across_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let later = NOW + Duration::from_secs(10);
        let (once, twice) = (token(1, 1, later), token(2, 2, later));
        {
            let ledger = Ledger::open(folder.path(), "east").unwrap();
            ledger.take(&once, "key 1", "w", NOW).unwrap();
            ledger.take(&twice, "key 2", "w", NOW).unwrap();
            assert!(matches!(ledger.take(&once, "key 3", "w", NOW), Err(TokenError::UsedUp(1))));
        }
        let ledger = Ledger::open(folder.path(), "east").unwrap();
        assert!(matches!(ledger.take(&once, "key 4", "w", NOW), Err(TokenError::UsedUp(1))));
        ledger.take(&twice, "key 5", "w", NOW).unwrap();
        assert!(matches!(ledger.take(&twice, "key 6", "w", NOW), Err(TokenError::UsedUp(2))));
    }

    #[test]
    fn two_balancers_add_their_counts_up_and_share_a_revocation() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let later = NOW + Duration::from_secs(10);
        let (thrice, other) = (token(1, 3, later), token(2, 3, later));
        let east = Ledger::open(one.path(), "east").unwrap();
        let west = Ledger::open(two.path(), "west").unwrap();
        east.made(&other, NOW).unwrap();
        east.take(&thrice, "key 7", "w", NOW).unwrap();
        east.take(&thrice, "key 8", "w", NOW).unwrap();
        west.take(&thrice, "key 9", "w", NOW).unwrap();
        for _ in 0..2 {
            west.learn(&east.known(), NOW).unwrap();
            east.learn(&west.known(), NOW).unwrap();
        }
        assert_eq!(east.known(), west.known());
        assert!(matches!(west.take(&thrice, "key 10", "w", NOW), Err(TokenError::UsedUp(3))));
        assert!(west.revoke(&other.id, NOW).unwrap());
        assert!(!west.revoke("nothing", NOW).unwrap());
        east.learn(&west.known(), NOW).unwrap();
        assert!(matches!(east.take(&other, "key 11", "w", NOW), Err(TokenError::Revoked)));
    }

    #[test]
    fn what_was_made_before_the_keys_change_and_is_not_used_up_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), "east").unwrap();
        let (open, used_up) = (token(1, 1, NOW + SHOWN), token(2, 1, NOW + SHOWN));
        ledger.made(&open, NOW).unwrap();
        ledger.take(&used_up, "key 7", "w", NOW).unwrap();
        let revoked =
            || ledger.known().into_iter().filter(|token| token.revoked).map(|token| token.id).collect::<Vec<_>>();
        ledger.revoke_made_before(NOW, NOW).unwrap();
        assert!(revoked().is_empty(), "made with the new key");
        ledger.revoke_made_before(UnixMicros(NOW.0 + 1), NOW).unwrap();
        assert_eq!(revoked(), [open.id]);
    }

    #[test]
    fn what_expired_long_ago_is_forgotten_and_a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), "east").unwrap();
        ledger.take(&token(1, 1, NOW + Duration::from_secs(1)), "key 12", "w", NOW).unwrap();
        let (next_day, later) = (NOW + SHOWN + Duration::from_secs(2), NOW + 2 * SHOWN);
        ledger.learn(&[token(3, 1, NOW).info()], next_day).unwrap();
        ledger.take(&token(2, 1, later), "key 13", "w", next_day).unwrap();
        let text = std::fs::read_to_string(folder.path().join("tokens.json")).unwrap();
        assert!(!text.contains("0000000000000001") && text.contains("0000000000000002"));
        assert!(!text.contains("0000000000000003"));
        std::fs::write(folder.path().join("tokens.json"), "{").unwrap();
        let error = Ledger::open(folder.path(), "east").err().unwrap().to_string();
        assert!(error.contains("tokens.json is damaged"), "{error}");
    }

    #[test]
    fn who_did_not_get_the_answer_asks_again_without_using_the_token_up() {
        let folder = tempfile::tempdir().unwrap();
        let once = token(1, 1, NOW + Duration::from_secs(10));
        Ledger::open(folder.path(), "east").unwrap().take(&once, "aa", "w", NOW).unwrap();
        let ledger = Ledger::open(folder.path(), "east").unwrap();
        assert_eq!(ledger.admitted(&once.id, "aa").as_deref(), Some("w"));
        for _ in 0..3 {
            ledger.take(&once, "aa", "w", NOW).unwrap();
        }
        assert!(matches!(ledger.take(&once, "bb", "w", NOW), Err(TokenError::UsedUp(1))));
        assert_eq!((ledger.known()[0].used(), ledger.admitted(&once.id, "bb")), (1, None));
        // At another balancer that has heard of it too, and nowhere once the token is revoked.
        let west = tempfile::tempdir().unwrap();
        let west = Ledger::open(west.path(), "west").unwrap();
        west.learn(&ledger.known(), NOW).unwrap();
        west.take(&once, "aa", "w", NOW).unwrap();
        assert_eq!(west.known()[0].used(), 1);
        west.revoke(&once.id, NOW).unwrap();
        assert!(matches!(west.take(&once, "aa", "w", NOW), Err(TokenError::Revoked)));
    }
}
