//! How often each token was used, in a file that survives a restart.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use limpet_shared::UnixMicros;
use serde::{Deserialize, Serialize};

use super::{Token, TokenError};
use crate::files;

/// The uses of all tokens that this balancer has let in and that have not expired, in `DATA/cluster/tokens.json`.
///
/// Several balancers count each for itself: a token for three servers lets in three at each of them.
pub struct TokenUses {
    path: PathBuf,
    used: Mutex<BTreeMap<String, Used>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Used {
    used: u32,
    expires_at: UnixMicros,
}

impl TokenUses {
    /// Reads the file in the cluster folder; none is no uses.
    pub fn open(cluster: &Path) -> Result<Self, TokenError> {
        let path = cluster.join("tokens.json");
        let used = match files::read(&path)? {
            Some(text) => serde_json::from_str(&text)
                .map_err(|e| TokenError::Damaged(path.display().to_string(), e.to_string()))?,
            None => BTreeMap::new(),
        };
        Ok(Self { path, used: Mutex::new(used) })
    }

    /// Counts one use of a verified token; it is on disk when this returns. Blocks on the disk.
    pub fn take(&self, token: &Token, now: UnixMicros) -> Result<(), TokenError> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = used.clone();
        next.retain(|_, entry| entry.expires_at > now);
        let entry = next.entry(token.id.clone()).or_insert(Used { used: 0, expires_at: token.expires_at });
        if entry.used >= token.uses {
            return Err(TokenError::UsedUp(token.uses));
        }
        entry.used += 1;
        let text = serde_json::to_vec_pretty(&next)
            .map_err(|e| TokenError::Damaged(self.path.display().to_string(), e.to_string()))?;
        files::write(&self.path, &text)?;
        *used = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use limpet_shared::admin::Role;

    use super::*;
    use crate::token::{Fingerprint, NewToken, TokenKey};

    fn token(id: u64, uses: u32, expires_at: u64) -> Token {
        let new = NewToken {
            role: Role::Worker,
            expires_at: UnixMicros(expires_at),
            uses,
            addresses: vec!["a:1".into()],
            ca: Fingerprint([0; 32]),
        };
        TokenKey::new(&[0; 32]).sign(id, new).unwrap()
    }

    #[test]
    fn uses_are_counted_across_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let (once, twice) = (token(1, 1, 10_000_000), token(2, 2, 10_000_000));
        let now = UnixMicros(1);
        {
            let uses = TokenUses::open(folder.path()).unwrap();
            uses.take(&once, now).unwrap();
            uses.take(&twice, now).unwrap();
            assert!(matches!(uses.take(&once, now), Err(TokenError::UsedUp(1))));
        }
        let uses = TokenUses::open(folder.path()).unwrap();
        assert!(matches!(uses.take(&once, now), Err(TokenError::UsedUp(1))));
        uses.take(&twice, now).unwrap();
        assert!(matches!(uses.take(&twice, now), Err(TokenError::UsedUp(2))));
    }

    #[test]
    fn what_has_expired_is_forgotten_and_a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let uses = TokenUses::open(folder.path()).unwrap();
        uses.take(&token(1, 1, 1_000_000), UnixMicros(1)).unwrap();
        uses.take(&token(2, 1, 9_000_000), UnixMicros(2_000_000)).unwrap();
        let text = std::fs::read_to_string(folder.path().join("tokens.json")).unwrap();
        assert!(!text.contains("0000000000000001") && text.contains("0000000000000002"));
        std::fs::write(folder.path().join("tokens.json"), "{").unwrap();
        assert!(
            matches!(TokenUses::open(folder.path()), Err(TokenError::Damaged(path, _)) if path.contains("tokens.json"))
        );
    }
}
