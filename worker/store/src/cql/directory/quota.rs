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
use crate::{Directory, List, Result, words};

/// How often a place is looked for that several want at once.
const TRIES: u32 = 5;

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Gateways,
    Devices,
}

/// How many of what a tenant may have.
pub(super) struct Quota {
    tenant: Tenant,
    of: Of,
    most: u32,
}

impl CqlStore {
    /// `None` if it may have any number.
    pub(super) async fn quota(&self, of: Of, tenant: Uuid) -> Result<Option<Quota>> {
        let Some(tenant) = self.tenant(tenant).await? else { return Ok(None) };
        let most = match of {
            Of::Gateways => tenant.max_gateway_count,
            Of::Devices => tenant.max_device_count,
        };
        Ok((most != 0).then_some(Quota { tenant, of, most }))
    }

    async fn listed_of(&self, quota: &Quota) -> Result<usize> {
        let list = List { tenant: Some(quota.tenant.id), ..List::default() };
        let owners = match quota.of {
            Of::Gateways => vec![owner::gateways(quota.tenant.id)],
            Of::Devices => self.lists_of_devices(&list).await?,
        };
        Ok(self.find(&owners, &list, None).await?.0)
    }

    /// Lists a thing that is not made yet at `place`, which is one of the tenant's own lists, if the tenant may have it.
    pub(super) async fn reserve(&self, quota: &Quota, place: &Place) -> Result<()> {
        let most = quota.most as usize;
        for tries in 0..TRIES {
            if self.listed_of(quota).await? >= most {
                break;
            }
            self.listing.put(&self.db, place).await?;
            if self.listed_of(quota).await? <= most {
                return Ok(());
            }
            // Others want the same place: all step back, and not for equally long.
            self.listing.take(&self.db, &place.owner, &place.id).await?;
            after_lost_race(tries).await;
        }
        let things = if quota.of == Of::Gateways { "gateways" } else { "devices" };
        Err(words::as_many_as_it_may(&quota.tenant, quota.most, things))
    }
}
