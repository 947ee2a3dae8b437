//! What belongs to what.
//!
//! The database has no transaction over several rows, so the order of writes does it: a thing is listed, then made, then
//! its parents are looked at once more; a parent goes after its children, and what was made meanwhile goes after it.

use std::{collections::BTreeSet, time::Instant};

use futures_util::{StreamExt, TryStreamExt, future::try_join, stream};
use limpet_shared::Eui64;
use limpet_worker_core::model::*;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::super::{
    CqlStore,
    entities::Kind,
    json::parse,
    listing::{AT_ONCE, Place, SETTLED, owned},
};
use super::quota::{Limited, Quota};
use crate::{
    Directory, List, Page, Result, StoreError,
    lists::{Ask, Entry},
    words,
};

/// Names of lists.
pub(super) mod owner {
    use uuid::Uuid;

    pub const TENANTS: &str = "tenant";
    pub const USERS: &str = "user";
    /// Every gateway, of whatever tenant.
    pub const GATEWAYS: &str = "gateway";
    /// No list, only notes: which gateway each version of the set of gateways is about, `at` the version.
    pub const GATEWAY_SET: &str = "gateway_set";

    /// `None`: those that act for the whole network.
    pub fn api_keys(tenant: Option<Uuid>) -> String {
        tenant.map_or_else(|| "api_key".into(), |tenant| format!("api_key/{tenant}"))
    }
    pub fn applications(tenant: Uuid) -> String {
        format!("application/{tenant}")
    }
    pub fn profiles(tenant: Uuid) -> String {
        format!("device_profile/{tenant}")
    }
    pub fn gateways(tenant: Uuid) -> String {
        format!("gateway/{tenant}")
    }
    pub fn devices(application: Uuid) -> String {
        format!("device/{application}")
    }
    pub fn devices_of_profile(profile: Uuid) -> String {
        format!("device_of_profile/{profile}")
    }
}

fn place(owner: String, id: String, name: &str, identity: bool) -> Place {
    let search = words::search_text(name, identity.then_some(id.as_str()));
    Place { owner, name: name.into(), id, also: String::new(), search }
}

pub(super) fn tenant_places(tenant: &Tenant) -> Vec<Place> {
    vec![place(owner::TENANTS.into(), tenant.id.to_string(), &tenant.name, false)]
}

pub(super) fn account_places(user: &User) -> Vec<Place> {
    vec![place(owner::USERS.into(), user.id.to_string(), &user.email, false)]
}

pub(super) fn api_key_places(key: &ApiKey) -> Vec<Place> {
    vec![place(owner::api_keys(key.tenant_id), key.id.to_string(), &key.name, false)]
}

pub(super) fn application_places(application: &Application) -> Vec<Place> {
    vec![place(owner::applications(application.tenant_id), application.id.to_string(), &application.name, false)]
}

pub(super) fn profile_places(profile: &DeviceProfile) -> Vec<Place> {
    vec![place(owner::profiles(profile.tenant_id), profile.id.to_string(), &profile.name, false)]
}

pub(super) fn gateway_places(gateway: &Gateway) -> Vec<Place> {
    let at = |owner| place(owner, gateway.eui.to_string(), &gateway.name, true);
    vec![at(owner::gateways(gateway.tenant_id)), at(owner::GATEWAYS.into())]
}

pub(super) fn device_places(device: &Device) -> Vec<Place> {
    let mut places = vec![
        place(owner::devices(device.application_id), device.dev_eui.to_string(), &device.name, true),
        place(owner::devices_of_profile(device.device_profile_id), device.dev_eui.to_string(), &device.name, true),
    ];
    places[0].also = device.device_profile_id.to_string();
    places[1].also = device.application_id.to_string();
    places
}

/// A thing that must exist for another to belong to it, with its name for people.
pub(super) type Parent = (Kind, &'static str, Uuid);

pub(super) fn tenant(id: Uuid) -> Parent {
    (Kind::Tenant, "tenant", id)
}

impl CqlStore {
    pub(super) async fn get<T: DeserializeOwned>(&self, kind: Kind, id: impl ToString) -> Result<Option<T>> {
        self.entities.get(&self.db, kind, &id.to_string()).await
    }

    async fn need(&self, parents: &[Parent]) -> Result<()> {
        for &(kind, what, id) in parents {
            if !self.entities.exists(&self.db, kind, &id.to_string()).await? {
                return Err(words::missing(what, id));
            }
        }
        Ok(())
    }

    pub(super) async fn create<T: Serialize + DeserializeOwned>(
        &self,
        kind: Kind,
        id: impl ToString,
        value: &T,
        places: fn(&T) -> Vec<Place>,
        parents: &[Parent],
    ) -> Result<()> {
        self.create_within(None, kind, id, value, places, parents).await
    }

    /// If there is a quota, the first of its places is in one of the tenant's own lists.
    pub(super) async fn create_within<T: Serialize + DeserializeOwned>(
        &self,
        quota: Option<&Quota>,
        kind: Kind,
        id: impl ToString,
        value: &T,
        places: fn(&T) -> Vec<Place>,
        parents: &[Parent],
    ) -> Result<()> {
        let (id, own, began) = (id.to_string(), places(value), Instant::now());
        self.need(parents).await?;
        // Before it is listed, or the list of another's thing would be overwritten.
        if self.entities.exists(&self.db, kind, &id).await? {
            return Err(words::exists(kind.name(), id));
        }
        if let (Some(quota), Some(first)) = (quota, own.first()) {
            self.reserve(quota, first).await?;
        }
        self.list(&own).await?;
        if !self.entities.insert(&self.db, kind, &id, value).await? {
            // Somebody was faster, perhaps of another tenant, whose thing our lists do not have.
            for place in &own {
                self.tidy(kind, &place.owner, &id, places).await?;
            }
            return Err(words::exists(kind.name(), id));
        }
        if began.elapsed() > SETTLED / 2 {
            // A row without its thing is taken out at that age.
            self.list(&own).await?;
        }
        // A parent may have gone meanwhile, before it could take this along.
        if let Err(error) = self.need(parents).await {
            self.entities.remove(&self.db, kind, &id).await?;
            self.unlist(&own).await?;
            return Err(error);
        }
        Ok(())
    }

    pub(super) async fn update<T: Serialize + DeserializeOwned + Clone>(
        &self,
        kind: Kind,
        id: impl ToString,
        places: impl Fn(&T) -> Vec<Place>,
        next: impl Fn(T) -> Result<T>,
    ) -> Result<()> {
        let id = id.to_string();
        let Some(before) = self.entities.get::<T>(&self.db, kind, &id).await? else {
            return Err(words::missing(kind.name(), id));
        };
        let new = places(&next(before)?);
        self.list(&new).await?;
        let mut replaced = Vec::new();
        let changed = self.entities.change(&self.db, kind, &id, |old: T| {
            replaced = places(&old);
            next(old)
        });
        if changed.await?.is_none() {
            self.unlist(&new).await?;
            return Err(words::missing(kind.name(), id));
        }
        replaced.retain(|old| !new.iter().any(|new| new.owner == old.owner));
        self.unlist(&replaced).await
    }

    /// Puts `next` in the place of what was there, which is of the same tenant: nothing moves to another one.
    pub(super) async fn update_within_tenant<T: Serialize + DeserializeOwned + Clone>(
        &self,
        kind: Kind,
        id: impl ToString,
        next: &T,
        tenant_of: fn(&T) -> Uuid,
        places: fn(&T) -> Vec<Place>,
    ) -> Result<()> {
        let (id, tenant) = (id.to_string(), tenant_of(next));
        let stays = |old: T| match tenant_of(&old) == tenant {
            true => Ok(next.clone()),
            false => Err(words::missing_in_tenant(kind.name(), &id, tenant)),
        };
        self.update(kind, &id, places, stays).await
    }

    pub(super) async fn delete<T: DeserializeOwned>(
        &self,
        kind: Kind,
        what: &str,
        id: impl ToString,
        places: impl Fn(&T) -> Vec<Place>,
    ) -> Result<()> {
        let id = id.to_string();
        let found: Option<T> = self.entities.get(&self.db, kind, &id).await?;
        let Some(found) = found else { return Err(words::missing(what, id)) };
        if !self.entities.remove(&self.db, kind, &id).await? {
            return Err(words::missing(what, id));
        }
        self.unlist(&places(&found)).await
    }

    pub(super) async fn list(&self, places: &[Place]) -> Result<()> {
        let puts = places.iter().map(|place| self.listing.put(&self.db, place));
        futures_util::future::try_join_all(puts).await.map(drop)
    }

    async fn unlist(&self, places: &[Place]) -> Result<()> {
        let takes = places.iter().map(|place| self.listing.take(&self.db, &place.owner, &place.id));
        futures_util::future::try_join_all(takes).await.map(drop)
    }

    pub(super) async fn ids(&self, owner: String) -> Result<BTreeSet<String>> {
        self.listing.ids(&self.db, &owner).await
    }

    /// The same from memory, for lists of lists.
    async fn listed(&self, owner: String) -> Result<Vec<String>> {
        let all = Ask { needle: "", keep: None, skip: 0, take: usize::MAX };
        let (_, found) = self.lists.find(self, &owner.clone(), &owner, &all).await?;
        Ok(found.iter().map(|entry| entry.id.to_string()).collect())
    }

    /// Lists of the tenant that was asked for, or of all tenants.
    pub(super) async fn owners_of_tenants(&self, list: &List, of: impl Fn(Uuid) -> String) -> Result<Vec<String>> {
        if let Some(tenant) = list.tenant {
            return Ok(vec![of(tenant)]);
        }
        let tenants = self.listed(owner::TENANTS.into()).await?;
        tenants.iter().map(|id| Ok(of(parse(id, "tenant")?))).collect()
    }

    // Children.

    pub(super) async fn delete_tenant_with_all(&self, id: Uuid) -> Result<()> {
        self.need(&[tenant(id)]).await?;
        self.delete_children_of_tenant(id).await?;
        self.delete::<Tenant>(Kind::Tenant, "tenant", id, tenant_places).await?;
        self.parents.tenants.invalidate(&id);
        self.delete_children_of_tenant(id).await
    }

    /// Rows of a list may be left of what is another's now: that stays.
    async fn delete_children_of_tenant(&self, id: Uuid) -> Result<()> {
        for application in self.ids(owner::applications(id)).await? {
            let application = parse(&application, "application")?;
            match self.application(application).await? {
                Some(found) if found.tenant_id == id => gone(self.delete_application_with_all(application).await)?,
                Some(_) => {}
                None => self.delete_devices_of_application(application).await?,
            }
        }
        for profile in self.things(Kind::DeviceProfile, owner::profiles(id), profile_places).await? {
            gone(self.delete::<DeviceProfile>(Kind::DeviceProfile, "", profile.id, profile_places).await)?;
        }
        for gateway in self.things(Kind::Gateway, owner::gateways(id), gateway_places).await? {
            gone(self.delete_gateway(gateway.eui).await)?;
        }
        for key in self.things(Kind::ApiKey, owner::api_keys(Some(id)), api_key_places).await? {
            gone(self.delete_api_key(key.id).await)?;
        }
        Ok(())
    }

    /// What a list has, as far as it is really its owner's.
    async fn things<T: DeserializeOwned>(
        &self,
        kind: Kind,
        owner: String,
        places: fn(&T) -> Vec<Place>,
    ) -> Result<Vec<T>> {
        let ids = self.ids(owner.clone()).await?;
        let reads = ids.into_iter().map(|id| async move { self.get::<T>(kind, id).await });
        let found: Vec<Option<T>> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().filter(|thing| places(thing).iter().any(|place| place.owner == owner)).collect())
    }

    pub(super) async fn delete_application_with_all(&self, id: Uuid) -> Result<()> {
        let found = self.application(id).await?.ok_or_else(|| words::missing("application", id))?;
        self.delete_devices_of_application(id).await?;
        if !self.entities.remove(&self.db, Kind::Application, &id.to_string()).await? {
            return Err(words::missing("application", id));
        }
        self.parents.applications.invalidate(&id);
        self.delete_devices_of_application(id).await?;
        self.unlist(&application_places(&found)).await
    }

    async fn delete_devices_of_application(&self, id: Uuid) -> Result<()> {
        for device in self.ids(owner::devices(id)).await? {
            let dev_eui = parse(&device, "DevEUI")?;
            match self.get::<Device>(Kind::Device, dev_eui).await? {
                Some(found) if found.application_id == id => gone(self.delete_device_with_all(dev_eui).await)?,
                Some(_) => {}
                None => self.end_device(dev_eui).await?,
            }
        }
        Ok(())
    }

    /// What belongs to the device goes first, so that whoever was interrupted finds it and goes on; and once more when it is
    /// gone, for it was alive until then. The list is last: the application's deletion goes by it.
    pub(super) async fn delete_device_with_all(&self, dev_eui: Eui64) -> Result<()> {
        let found = self.get::<Device>(Kind::Device, dev_eui).await?;
        let found = found.ok_or_else(|| words::missing("device", dev_eui))?;
        self.end_device(dev_eui).await?;
        if !self.entities.remove(&self.db, Kind::Device, &dev_eui.to_string()).await? {
            return Err(words::missing("device", dev_eui));
        }
        self.end_device(dev_eui).await?;
        self.seen.forget_device(&self.db, &dev_eui.to_string()).await?;
        self.unlist(&device_places(&found)).await
    }

    /// Sessions, joins and queue.
    async fn end_device(&self, dev_eui: Eui64) -> Result<()> {
        let (sessions, queues, db) = (&self.sessions, &self.queues, &self.db);
        let any = try_join(sessions.has_any(db, dev_eui), queues.has_any(db, dev_eui));
        let (session, item) = any.await?;
        if session {
            sessions.delete_device(db, dev_eui).await?;
        }
        if item {
            queues.delete_device(db, dev_eui).await?;
        }
        Ok(())
    }

    pub(super) async fn delete_unused_profile(&self, id: Uuid) -> Result<()> {
        self.need(&[(Kind::DeviceProfile, "device profile", id)]).await?;
        let mut users = Vec::new();
        let mut total = 0;
        for dev_eui in self.ids(owner::devices_of_profile(id)).await? {
            // A row too many, after a crash, holds nothing.
            let device: Option<Device> = self.get(Kind::Device, &dev_eui).await?;
            if device.is_some_and(|device| device.device_profile_id == id) {
                total += 1;
                users.push(dev_eui);
            }
        }
        if total > 0 {
            users.sort();
            users.truncate(words::NAMED_DEVICES);
            return Err(words::profile_in_use(id, &users, total));
        }
        self.parents.profiles.invalidate(&id);
        self.delete::<DeviceProfile>(Kind::DeviceProfile, "device profile", id, profile_places).await
    }

    // Devices.

    /// The tenant that application and profile share, or which of them is missing.
    async fn parents_of(&self, device: &Device) -> Result<Uuid> {
        let (application, profile) = (device.application_id, device.device_profile_id);
        let found = self.application(application).await?;
        let tenant = found.ok_or_else(|| words::missing("application", application))?.tenant_id;
        match self.device_profile(profile).await? {
            Some(found) if found.tenant_id == tenant => Ok(tenant),
            Some(_) => Err(words::missing_in_tenant("device profile", profile, tenant)),
            None => Err(words::missing("device profile", profile)),
        }
    }

    pub(super) async fn create_device_of_one_tenant(&self, device: &Device) -> Result<()> {
        let tenant = self.parents_of(device).await?;
        let parents = [
            (Kind::Application, "application", device.application_id),
            (Kind::DeviceProfile, "device profile", device.device_profile_id),
        ];
        if self.entities.exists(&self.db, Kind::Device, &device.dev_eui.to_string()).await? {
            return Err(words::exists(Kind::Device.name(), device.dev_eui));
        }
        // A deletion that broke off, or what was under way when the one before was deleted: nothing of it is the new owner's.
        self.end_device(device.dev_eui).await?;
        self.seen.forget_device(&self.db, &device.dev_eui.to_string()).await?;
        let quota = self.quota(Limited::Devices, tenant).await?;
        self.create_within(quota.as_ref(), Kind::Device, device.dev_eui, device, device_places, &parents).await
    }

    pub(super) async fn update_device_of_one_tenant(&self, device: &Device) -> Result<()> {
        let Some(before) = self.get::<Device>(Kind::Device, device.dev_eui).await? else {
            return Err(words::missing("device", device.dev_eui));
        };
        let tenant = self.parents_of(device).await?;
        let before = self.application(before.application_id).await?.map(|a| a.tenant_id);
        if before.is_some_and(|before| before != tenant) {
            return Err(words::missing_in_tenant("device", device.dev_eui, tenant));
        }
        let next = |old: Device| Ok(Device { app_key: old.app_key, ..device.clone() });
        self.update(Kind::Device, device.dev_eui, device_places, next).await
    }

    /// The lists of all applications of the tenant that was asked for, or of all.
    pub(super) async fn lists_of_devices(&self, list: &List) -> Result<Vec<String>> {
        let lists = self.owners_of_tenants(list, owner::applications).await?;
        let applications = stream::iter(lists.into_iter().map(|list| self.listed(list))).buffered(AT_ONCE);
        let applications: Vec<Vec<String>> = applications.try_collect().await?;
        applications.iter().flatten().map(|id| Ok(owner::devices(parse(id, "application")?))).collect()
    }

    pub(super) async fn list_devices(&self, list: &List) -> Result<Page<(Device, DeviceSeen)>> {
        let (owners, also) = match (list.application, list.device_profile) {
            (Some(application), profile) => (vec![owner::devices(application)], profile),
            (None, Some(profile)) => (vec![owner::devices_of_profile(profile)], None),
            (None, None) => (self.lists_of_devices(list).await?, None),
        };
        let of_tenant = async {
            Ok::<_, StoreError>(match (list.tenant, list.application, list.device_profile) {
                (tenant, Some(id), _) => {
                    self.application(id).await?.is_some_and(|a| tenant.is_none_or(|t| a.tenant_id == t))
                }
                (tenant, None, Some(id)) => {
                    self.device_profile(id).await?.is_some_and(|p| tenant.is_none_or(|t| p.tenant_id == t))
                }
                _ => true,
            })
        };
        let also = also.map(|id| id.to_string());
        let narrowed = |entry: &Entry| also.as_deref().is_none_or(|also| *also == *entry.also);
        let keep = also.as_ref().map(|_| &narrowed as &(dyn Fn(&Entry) -> bool + Sync));
        // At once, for a page waits for one read after the other.
        let (of_tenant, (total, found)) = try_join(of_tenant, self.find(&owners, list, keep)).await?;
        let (total, found) = if of_tenant { (total, found) } else { (0, Vec::new()) };
        let reads = found.into_iter().map(|entry| async move {
            let device = self.entities.get::<Device>(&self.db, Kind::Device, &entry.id);
            let (device, seen) = try_join(device, self.seen.device(&self.db, &entry.id)).await?;
            Ok::<_, StoreError>((entry, device.map(|device| (device, seen))))
        });
        let read: Vec<_> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        let (page, strays) = owned(&owners, total, read, |(device, _): &(Device, DeviceSeen)| device_places(device));
        self.tidy_all(Kind::Device, &owners, &strays, device_places).await;
        Ok(page)
    }
}

/// What another has deleted meanwhile is as good as deleted here.
fn gone(deleted: Result<()>) -> Result<()> {
    match deleted {
        Err(StoreError::NotFound(_)) => Ok(()),
        other => other,
    }
}
