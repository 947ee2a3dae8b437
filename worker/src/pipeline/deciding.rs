//! One task of this process decides for a session at a time. The compare-and-set keeps the row right without it; but of
//! many uplinks of one device at once (a gateway reports all that it buffered) each would refuse all others, again and again.

use std::{collections::HashMap, sync::Arc};

use limpet_worker_core::model::SessionKey;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

type Lock = Arc<tokio::sync::Mutex<()>>;

/// Sessions that are being decided for.
#[derive(Clone, Default)]
pub(crate) struct Deciding(Arc<Mutex<HashMap<SessionKey, Lock>>>);

/// While this lives, nobody else in this process decides for the session.
pub(crate) struct Decision {
    all: Deciding,
    key: SessionKey,
    /// Somebody else did before: what was read before may be old.
    pub waited: bool,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Deciding {
    /// Waits for those who came before. The caller has verified a MIC with the session's key, so that nobody else can
    /// make a line.
    pub async fn alone(&self, key: &SessionKey) -> Decision {
        let lock = self.0.lock().entry(*key).or_default().clone();
        let mut decision = Decision { all: self.clone(), key: *key, waited: false, guard: None };
        decision.guard = lock.clone().try_lock_owned().ok();
        if decision.guard.is_none() {
            decision.waited = true;
            decision.guard = Some(lock.lock_owned().await);
        }
        decision
    }
}

impl Drop for Decision {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        drop(self.guard.take());
        // One is the map's own: nobody holds it or waits for it, and nobody can begin to while the map is locked.
        if all.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use limpet_shared::{DevAddr, Eui64};
    use limpet_worker_core::model::SessionId;

    use super::*;

    fn key(id: u64) -> SessionKey {
        SessionKey { dev_addr: DevAddr(1), dev_eui: Eui64(2), id: SessionId(id) }
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_in_order_and_nothing_is_left() {
        let deciding = Deciding::default();
        let first = deciding.alone(&key(1)).await;
        assert!(!first.waited && !deciding.alone(&key(2)).await.waited, "sessions do not wait for each other");
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..3 {
            let (deciding, order) = (deciding.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let decision = deciding.alone(&key(1)).await;
                assert!(decision.waited);
                tokio::time::sleep(Duration::from_millis(10)).await;
                order.lock().push(number);
            }));
            tokio::task::yield_now().await;
        }
        // One who gives up while waiting leaves nothing behind.
        let impatient = tokio::time::timeout(Duration::from_millis(1), deciding.alone(&key(1))).await;
        assert!(impatient.is_err());
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), [0, 1, 2]);
        assert!(deciding.0.lock().is_empty());
    }
}
