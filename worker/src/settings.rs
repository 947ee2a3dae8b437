//! The network's settings as this worker knows them. The store has them; whoever changes them moves a number that the roll follows.

use std::{sync::Arc, time::Duration};

use limpet_shared::{admin, region::Region};
use limpet_store::{Result, Store, StoreError};
use limpet_worker_core::{
    model::NetworkSettings,
    settings::{self, Scope},
};
use parking_lot::RwLock;
use tokio::sync::Mutex;

/// How often a change begins anew because another one was faster.
const CHANGES: u32 = 10;

/// See the module.
#[derive(Default)]
pub struct Settings {
    now: RwLock<Arc<NetworkSettings>>,
    /// One read at a time: the one that began last holds.
    reading: Mutex<()>,
}

impl Settings {
    pub fn new(settings: NetworkSettings) -> Arc<Self> {
        Arc::new(Self { now: RwLock::new(Arc::new(settings)), reading: Mutex::default() })
    }

    /// As they are at this moment: what is decided with them is decided with all of them at once.
    pub fn now(&self) -> Arc<NetworkSettings> {
        self.now.read().clone()
    }

    pub fn reply_delay(&self) -> Duration {
        self.now.read().reply_delay()
    }

    pub fn deduplication_delay(&self) -> Duration {
        self.now.read().deduplication_delay()
    }

    pub fn net_id(&self) -> u32 {
        self.now.read().net_id()
    }

    /// Takes up what the store has.
    pub async fn read(&self, store: &dyn Store, regions: &[&'static Region]) -> Result<()> {
        let _one = self.reading.lock().await;
        let read = store.network_settings().await?;
        let before = self.now();
        if *before != read {
            let changes = changes(&before, &read, regions);
            tracing::info!(changes, "other settings of the network hold from now on");
            *self.now.write() = Arc::new(read);
        }
        Ok(())
    }
}

/// What became another value, for people.
fn changes(before: &NetworkSettings, now: &NetworkSettings, regions: &[&'static Region]) -> String {
    let mut changes = Vec::new();
    for scope in std::iter::once(Scope::Network).chain(regions.iter().copied().map(Scope::Region)) {
        let (before, now) = (settings::shown(before, scope), settings::shown(now, scope));
        let changed = before.into_iter().zip(now).filter(|(before, now)| before.value != now.value);
        let told = |(before, now): (admin::Setting, admin::Setting)| {
            format!("{} {}={} (was {})", scope.id(), now.name, now.value, before.value)
        };
        changes.extend(changed.map(told));
    }
    changes.join(", ")
}

/// What the network has. Without a `reply_delay` it gets this worker's, if that was given one. What cannot be read keeps no worker from
/// its work: sessions have what their devices were told.
pub async fn open(store: &dyn Store, reply_delay: Option<Duration>) -> Result<NetworkSettings> {
    match seeded(store, reply_delay).await {
        Err(StoreError::Corrupt(why)) => {
            tracing::error!(why, "the network's settings cannot be read; their defaults hold until they can");
            Ok(NetworkSettings::default())
        }
        settings => settings,
    }
}

async fn seeded(store: &dyn Store, reply_delay: Option<Duration>) -> Result<NetworkSettings> {
    let Some(given) = reply_delay else { return store.network_settings().await };
    for _ in 0..CHANGES {
        let was = store.network_settings().await?;
        if was.reply_delay.is_some() {
            if was.reply_delay() != given {
                tracing::warn!(
                    ?given,
                    holds = ?was.reply_delay(),
                    "--reply-delay has no effect: the network has a reply_delay already; \
                     `limpet ctl region set network reply_delay=TIME` changes it"
                );
            }
            return Ok(was);
        }
        let millis = u32::try_from(given.as_millis()).unwrap_or(u32::MAX);
        let next = NetworkSettings { reply_delay: Some(millis), ..was.clone() };
        if store.replace_network_settings(&was, &next).await? {
            tracing::info!(?given, "the network has the reply_delay of this worker's --reply-delay from now on");
            return Ok(next);
        }
    }
    Err(StoreError::Unavailable("the network's settings were changed by others all the time".into()))
}

#[cfg(test)]
mod tests {
    use limpet_store::{Directory, SqliteStore};

    use super::*;

    #[tokio::test]
    async fn a_flag_is_written_down_where_nothing_is_set_and_changes_nothing_later() {
        let store = SqliteStore::in_memory().unwrap();
        let opened = async |millis: Option<u64>| open(&*store, millis.map(Duration::from_millis)).await.unwrap();
        assert_eq!(opened(None).await, NetworkSettings::default());
        assert_eq!(opened(Some(250)).await.reply_delay(), Duration::from_millis(250));
        assert_eq!(store.network_settings().await.unwrap().reply_delay, Some(250));
        for other in [Some(100), Some(250), None] {
            assert_eq!(opened(other).await.reply_delay, Some(250), "{other:?}");
        }
    }

    #[tokio::test]
    async fn what_the_store_has_holds_from_the_next_read_on() {
        let (store, settings) = (SqliteStore::in_memory().unwrap(), Settings::default());
        let regions = [Region::by_name("eu868").unwrap()];
        let mut next = NetworkSettings { net_id: Some(0x2d), ..NetworkSettings::default() };
        settings::change(&mut next, Scope::Region(regions[0]), "rx1_delay", Some("5")).unwrap();
        assert!(store.replace_network_settings(&NetworkSettings::default(), &next).await.unwrap());
        assert_eq!(settings.net_id(), 0);
        settings.read(&*store, &regions).await.unwrap();
        assert_eq!((settings.net_id(), settings.now().of(regions[0]).rx1_delay), (0x2d, Some(5)));
        let told = changes(&NetworkSettings::default(), &next, &regions);
        assert_eq!(told, "network net_id=00002d (was 000000), eu868 rx1_delay=5 (was 1)");
    }
}
