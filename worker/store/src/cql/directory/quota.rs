//! How many gateways and devices a tenant may have.
//!
//! The database counts nothing, so it is the tenant's lists that count: who creates a thing lists it first, looks how many are listed
//! then, and makes it only if that is not too many. Of two that do so at once the one that lists later sees both. Lists are followed
//! by notes with times, so this holds as far as servers' clocks agree (within 10 s).

use limpet_worker_core::model::Tenant;
use uuid::Uuid;

use super::{
    super::{CqlStore, db::after_lost_race, listing::Place},
    cascade::owner,
};
use crate::{Directory, List, Result, lists::Entry, words};

/// How often a place is looked for that several want at once.
const TRIES: u32 = 5;

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limited {
    Gateways,
    Devices,
}

/// How many of what a tenant may have.
pub(super) struct Quota {
    tenant: Tenant,
    of: Limited,
    most: u32,
}

impl CqlStore {
    /// `None` if it may have any number.
    pub(super) async fn quota(&self, of: Limited, tenant: Uuid) -> Result<Option<Quota>> {
        let Some(tenant) = self.tenant(tenant).await? else { return Ok(None) };
        let most = match of {
            Limited::Gateways => tenant.max_gateway_count,
            Limited::Devices => tenant.max_device_count,
        };
        Ok((most != 0).then_some(Quota { tenant, of, most }))
    }

    /// How many others are listed than the thing with this id. Its own place may be listed already: its creation broke off, and is
    /// repeated now.
    async fn others(&self, quota: &Quota, id: &str) -> Result<usize> {
        let list = List { tenant: Some(quota.tenant.id), ..List::default() };
        let owners = match quota.of {
            Limited::Gateways => vec![owner::gateways(quota.tenant.id)],
            Limited::Devices => self.lists_of_devices(&list).await?,
        };
        let all = self.find(&owners, &list, None).await?.0;
        if all < quota.most as usize {
            return Ok(all);
        }
        let other = |entry: &Entry| *entry.id != *id;
        Ok(self.find(&owners, &list, Some(&other)).await?.0)
    }

    /// Lists a thing that is not made yet at `place`, which is one of the tenant's own lists, if the tenant may have it.
    pub(super) async fn reserve(&self, quota: &Quota, place: &Place) -> Result<()> {
        let most = quota.most as usize;
        for tries in 0..TRIES {
            if self.others(quota, &place.id).await? >= most {
                break;
            }
            self.listing.put(&self.db, place).await?;
            if self.others(quota, &place.id).await? < most {
                return Ok(());
            }
            // Others want the same place: all step back, and not for equally long.
            self.listing.take(&self.db, &place.owner, &place.id).await?;
            after_lost_race(tries).await;
        }
        let things = if quota.of == Limited::Gateways { "gateways" } else { "devices" };
        Err(words::as_many_as_it_may(&quota.tenant, quota.most, things))
    }
}
