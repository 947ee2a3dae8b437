//! Who may take part: the revoked certificates and the join tokens.
//!
//! Every worker must know of a revocation within seconds, and both tables hardly ever change. So what is read every few
//! seconds is the number that moves with them, and the tables themselves when it has. The network's settings move it too.

use std::time::Duration;

use limpet_shared::admin::{RevokedServer, TokenInfo};
use limpet_store::{Result, Store};
use tokio::time::Instant;

/// Read anew so often though nothing has moved: a worker of the version before does not count what it changes.
const ANEW: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub struct AccessList {
    pub revoked: Vec<RevokedServer>,
    pub tokens: Vec<TokenInfo>,
    mark: Option<Mark>,
}

/// Up to where it is known.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    version: u64,
    read: Instant,
}

impl AccessList {
    pub fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// What the store has now; `None` if that is what is known already.
    pub async fn read(store: &dyn Store, known: Option<Mark>) -> Result<Option<Self>> {
        let read = Instant::now();
        // The number first: what is read after it is at least as new.
        let version = store.membership_version().await?;
        if known.is_some_and(|known| known.version == version && known.read.elapsed() < ANEW) {
            return Ok(None);
        }
        let (revoked, tokens) = (store.revoked_servers().await?, store.tokens().await?);
        Ok(Some(Self { revoked, tokens, mark: Some(Mark { version, read }) }))
    }
}

#[cfg(test)]
mod tests {
    use limpet_shared::{UnixMicros, admin::Role};
    use limpet_store::{Membership, SqliteStore, moving::Moving};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_tables_are_read_when_they_changed_and_once_a_minute() {
        let store = SqliteStore::in_memory().unwrap();
        let look = async |known: Option<Mark>| AccessList::read(&*store, known).await.unwrap();
        let first = look(None).await.expect("nothing is known yet");
        assert_eq!((first.revoked.len(), first.tokens.len()), (0, 0));
        assert!(look(first.mark()).await.is_none(), "nothing has changed");

        let removed = RevokedServer { name: "w".into(), role: Role::Worker, key: "00".into(), at: UnixMicros(1) };
        store.revoke_server(&removed).await.unwrap();
        let second = look(first.mark()).await.expect("a server was removed");
        assert_eq!(second.revoked, [removed]);
        store.put_token(&TokenInfo { id: "t".into(), ..TokenInfo::default() }).await.unwrap();
        let third = look(second.mark()).await.expect("a token was made");
        assert_eq!((third.revoked.len(), third.tokens.len()), (1, 1));

        assert!(look(third.mark()).await.is_none());
        tokio::time::advance(ANEW).await;
        assert!(look(third.mark()).await.is_some(), "somebody may not have counted");
    }

    #[tokio::test]
    async fn a_store_that_was_put_back_is_read_whatever_its_number() {
        let store = SqliteStore::in_memory().unwrap();
        for id in ["a", "b"] {
            store.put_token(&TokenInfo { id: id.into(), ..TokenInfo::default() }).await.unwrap();
        }
        let known = AccessList::read(&*store, None).await.unwrap().and_then(|access| access.mark());
        store.put_setting("membership_changes", Some(&1_u64.to_be_bytes())).await.unwrap();
        assert!(AccessList::read(&*store, known).await.unwrap().is_some(), "a lower number is another one, too");
    }
}
