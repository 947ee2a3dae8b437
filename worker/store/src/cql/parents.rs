//! What many devices share, remembered for a moment: an uplink needs its device's profile, application and tenant, which
//! change rarely. A change made at another worker is seen after at most [`KEPT`].

use std::time::Duration;

use limpet_worker_core::model::{Application, DeviceProfile};
use moka::sync::Cache;
use uuid::Uuid;

use super::CqlStore;
use crate::{Directory, Result};

const KEPT: Duration = Duration::from_secs(1);
const AT_MOST: u64 = 10_000;

/// See the module. Only what exists is remembered.
pub(super) struct Parents {
    pub profiles: Cache<Uuid, DeviceProfile>,
    pub applications: Cache<Uuid, Application>,
    /// Names.
    pub tenants: Cache<Uuid, String>,
}

impl Default for Parents {
    fn default() -> Self {
        Self { profiles: cache(), applications: cache(), tenants: cache() }
    }
}

fn cache<T: Clone + Send + Sync + 'static>() -> Cache<Uuid, T> {
    Cache::builder().max_capacity(AT_MOST).time_to_live(KEPT).build()
}

async fn remembered<T: Clone + Send + Sync + 'static>(
    cache: &Cache<Uuid, T>,
    id: Uuid,
    read: impl Future<Output = Result<Option<T>>>,
) -> Result<Option<T>> {
    if let Some(known) = cache.get(&id) {
        return Ok(Some(known));
    }
    let found = read.await?;
    if let Some(found) = &found {
        cache.insert(id, found.clone());
    }
    Ok(found)
}

impl Parents {
    pub async fn profile(&self, store: &CqlStore, id: Uuid) -> Result<Option<DeviceProfile>> {
        remembered(&self.profiles, id, store.device_profile(id)).await
    }
    pub async fn application(&self, store: &CqlStore, id: Uuid) -> Result<Option<Application>> {
        remembered(&self.applications, id, store.application(id)).await
    }
    pub async fn tenant(&self, store: &CqlStore, id: Uuid) -> Result<Option<String>> {
        remembered(&self.tenants, id, async { Ok(store.tenant(id).await?.map(|tenant| tenant.name)) }).await
    }
}
