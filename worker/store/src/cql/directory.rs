//! What people provision. The rules about what belongs to what are in `cascade`.

mod accounts;
mod cascade;
mod gateway_set;
mod quota;
mod restore;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, future::try_join, stream};
use limpet_shared::{AesKey, Eui64, UnixMicros};
use limpet_worker_core::model::*;
use uuid::Uuid;

pub(super) use self::gateway_set::GATEWAY_CHANGES;
use self::{cascade::owner, quota::Limited};
use super::{
    CqlStore,
    entities::Kind,
    listing::{AT_ONCE, owned},
};
use crate::{
    Directory, GatewayChanges, GatewayTags, List, Moving, Page, Result, StoreError, Totals, lists::Entry,
    moving::Identified, rows::settings, traits::NETWORK_SETTINGS, words,
};

#[async_trait]
impl Directory for CqlStore {
    async fn create_tenant(&self, tenant: &Tenant) -> Result<()> {
        self.create(Kind::Tenant, tenant.id, tenant, cascade::tenant_places, &[]).await
    }
    async fn tenant(&self, id: Uuid) -> Result<Option<Tenant>> {
        self.get(Kind::Tenant, id).await
    }
    async fn update_tenant(&self, tenant: &Tenant) -> Result<()> {
        self.parents.tenants.invalidate(&tenant.id);
        let old = |t: &Tenant| cascade::tenant_places(t);
        self.update(Kind::Tenant, tenant.id, old, |_| Ok(tenant.clone())).await
    }
    async fn delete_tenant(&self, id: Uuid) -> Result<()> {
        self.delete_tenant_with_all(id).await
    }
    async fn tenants(&self, list: &List) -> Result<Page<Tenant>> {
        let only = list.tenant.map(|id| id.to_string());
        let narrowed = |entry: &Entry| only.as_deref().is_none_or(|only| *only == *entry.id);
        let keep = only.as_ref().map(|_| &narrowed as &(dyn Fn(&Entry) -> bool + Sync));
        self.page(Kind::Tenant, vec![owner::TENANTS.into()], list, keep, cascade::tenant_places).await
    }

    async fn create_user(&self, user: &User) -> Result<()> {
        self.create_account(user).await
    }
    async fn user(&self, id: Uuid) -> Result<Option<User>> {
        self.get(Kind::Account, id).await
    }
    async fn user_by_email(&self, email: &str) -> Result<Option<User>> {
        let key = words::email_key(email);
        let Some(id) = self.entities.get::<Uuid>(&self.db, Kind::AccountEmail, &key).await? else { return Ok(None) };
        // An address may be claimed by an account that a crash kept from being made.
        Ok(self.user(id).await?.filter(|user| words::email_key(&user.email) == key))
    }
    async fn update_user(&self, was: &User, user: &User) -> Result<bool> {
        self.update_account(was, user).await
    }
    async fn delete_user(&self, id: Uuid) -> Result<()> {
        self.delete_account(id).await
    }
    async fn users(&self, list: &List) -> Result<Page<User>> {
        self.page(Kind::Account, vec![owner::USERS.into()], list, None, cascade::account_places).await
    }

    async fn create_api_key(&self, key: &ApiKey) -> Result<()> {
        let parents: Vec<_> = key.tenant_id.map(cascade::tenant).into_iter().collect();
        self.create(Kind::ApiKey, key.id, key, cascade::api_key_places, &parents).await
    }
    async fn api_key(&self, id: Uuid) -> Result<Option<ApiKey>> {
        self.get(Kind::ApiKey, id).await
    }
    async fn delete_api_key(&self, id: Uuid) -> Result<()> {
        let places = |key: &ApiKey| cascade::api_key_places(key);
        self.delete::<ApiKey>(Kind::ApiKey, "API key", id, places).await
    }
    async fn api_keys(&self, admin: bool, list: &List) -> Result<Page<ApiKey>> {
        let owners = match (admin, list.tenant) {
            (true, _) => vec![owner::api_keys(None)],
            (false, Some(tenant)) => vec![owner::api_keys(Some(tenant))],
            (false, None) => Vec::new(),
        };
        self.page(Kind::ApiKey, owners, list, None, cascade::api_key_places).await
    }

    async fn create_application(&self, application: &Application) -> Result<()> {
        let (places, parents) = (cascade::application_places, [cascade::tenant(application.tenant_id)]);
        self.create(Kind::Application, application.id, application, places, &parents).await
    }
    async fn application(&self, id: Uuid) -> Result<Option<Application>> {
        self.get(Kind::Application, id).await
    }
    async fn update_application(&self, application: &Application) -> Result<()> {
        self.parents.applications.invalidate(&application.id);
        let (id, places) = (application.id, cascade::application_places);
        self.update_within_tenant(Kind::Application, id, application, |a| a.tenant_id, places).await
    }
    async fn delete_application(&self, id: Uuid) -> Result<()> {
        self.delete_application_with_all(id).await
    }
    async fn applications(&self, list: &List) -> Result<Page<Application>> {
        let owners = self.owners_of_tenants(list, owner::applications).await?;
        self.page(Kind::Application, owners, list, None, cascade::application_places).await
    }

    async fn create_device_profile(&self, profile: &DeviceProfile) -> Result<()> {
        let (places, parents) = (cascade::profile_places, [cascade::tenant(profile.tenant_id)]);
        self.create(Kind::DeviceProfile, profile.id, profile, places, &parents).await
    }
    async fn device_profile(&self, id: Uuid) -> Result<Option<DeviceProfile>> {
        self.get(Kind::DeviceProfile, id).await
    }
    async fn update_device_profile(&self, profile: &DeviceProfile) -> Result<()> {
        self.parents.profiles.invalidate(&profile.id);
        let (id, places) = (profile.id, cascade::profile_places);
        self.update_within_tenant(Kind::DeviceProfile, id, profile, |p| p.tenant_id, places).await
    }
    async fn delete_device_profile(&self, id: Uuid) -> Result<()> {
        self.delete_unused_profile(id).await
    }
    async fn device_profiles(&self, list: &List) -> Result<Page<DeviceProfile>> {
        let owners = self.owners_of_tenants(list, owner::profiles).await?;
        self.page(Kind::DeviceProfile, owners, list, None, cascade::profile_places).await
    }

    async fn create_gateway(&self, gateway: &Gateway) -> Result<()> {
        let (places, parents) = (cascade::gateway_places, [cascade::tenant(gateway.tenant_id)]);
        let eui = gateway.eui.to_string();
        if self.entities.exists(&self.db, Kind::Gateway, &eui).await? {
            return Err(words::exists(Kind::Gateway.name(), eui));
        }
        // Before and after: nobody sees what was heard of the one before, whatever breaks off.
        self.seen.forget_gateway(&self.db, &eui).await?;
        let quota = self.quota(Limited::Gateways, gateway.tenant_id).await?;
        self.create_within(quota.as_ref(), Kind::Gateway, &eui, gateway, places, &parents).await?;
        self.seen.forget_gateway(&self.db, &eui).await?;
        self.count_gateway_change(gateway.eui).await
    }
    async fn gateway(&self, eui: Eui64) -> Result<Option<(Gateway, GatewaySeen)>> {
        let Some(gateway) = self.get(Kind::Gateway, eui).await? else { return Ok(None) };
        Ok(Some((gateway, self.seen.gateway(&self.db, &eui.to_string()).await?)))
    }
    async fn update_gateway(&self, gateway: &Gateway) -> Result<()> {
        let (eui, places) = (gateway.eui, cascade::gateway_places);
        self.update_within_tenant(Kind::Gateway, eui, gateway, |g| g.tenant_id, places).await?;
        self.count_gateway_change(eui).await
    }
    async fn delete_gateway(&self, eui: Eui64) -> Result<()> {
        self.delete::<Gateway>(Kind::Gateway, "gateway", eui, cascade::gateway_places).await?;
        self.seen.forget_gateway(&self.db, &eui.to_string()).await?;
        self.count_gateway_change(eui).await
    }
    async fn gateways(&self, list: &List) -> Result<Page<(Gateway, GatewaySeen)>> {
        let owners = match list.tenant {
            Some(tenant) => vec![owner::gateways(tenant)],
            None => vec![owner::GATEWAYS.into()],
        };
        let (total, found) = self.find(&owners, list, None).await?;
        let reads = found.into_iter().map(|entry| async move {
            let gateway = self.entities.get::<Gateway>(&self.db, Kind::Gateway, &entry.id);
            let (gateway, seen) = try_join(gateway, self.seen.gateway(&self.db, &entry.id)).await?;
            Ok::<_, StoreError>((entry, gateway.map(|gateway| (gateway, seen))))
        });
        let read: Vec<_> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        let places = |(gateway, _): &(Gateway, GatewaySeen)| cascade::gateway_places(gateway);
        let (page, strays) = owned(&owners, total, read, places);
        self.tidy_all(Kind::Gateway, &owners, &strays, cascade::gateway_places).await;
        Ok(page)
    }
    async fn gateway_set(&self) -> Result<(u64, Vec<Eui64>)> {
        // The version first: what is read after it is at least as new.
        let version = self.gateway_set_version().await?;
        Ok((version, self.all_gateways().await?))
    }
    async fn gateway_set_version(&self) -> Result<u64> {
        Ok(self.entities.get::<u64>(&self.db, Kind::Setting, gateway_set::GATEWAY_CHANGES).await?.unwrap_or_default()
            + 1)
    }
    async fn gateway_tags(&self, tag: &str) -> Result<(u64, GatewayTags)> {
        // The version first: what is read after it is at least as new.
        let version = self.gateway_set_version().await?;
        let all: Vec<Gateway> = self.entities.all(&self.db, Kind::Gateway).await?;
        Ok((version, all.into_iter().map(|mut gateway| (gateway.eui, gateway.tags.remove(tag))).collect()))
    }
    async fn gateway_changes(&self, since: u64) -> Result<GatewayChanges> {
        self.gateways_changed(since).await
    }

    async fn raise_gateway_set_version(&self, least: u64) -> Result<()> {
        self.raise_gateway_changes(least.saturating_sub(1)).await
    }

    async fn create_device(&self, device: &Device) -> Result<()> {
        self.create_device_of_one_tenant(device).await?;
        self.seen.forget_device(&self.db, &device.dev_eui.to_string()).await
    }
    async fn device(&self, dev_eui: Eui64) -> Result<Option<(Device, DeviceSeen)>> {
        let Some(device) = self.get(Kind::Device, dev_eui).await? else { return Ok(None) };
        Ok(Some((device, self.seen.device(&self.db, &dev_eui.to_string()).await?)))
    }
    async fn update_device(&self, device: &Device) -> Result<()> {
        self.update_device_of_one_tenant(device).await
    }
    async fn set_app_key(&self, dev_eui: Eui64, key: Option<AesKey>) -> Result<()> {
        let set = |device: Device| Ok(Device { app_key: key, ..device });
        self.update(Kind::Device, dev_eui, cascade::device_places, set).await
    }
    async fn delete_device(&self, dev_eui: Eui64) -> Result<()> {
        self.delete_device_with_all(dev_eui).await
    }
    async fn devices(&self, list: &List) -> Result<Page<(Device, DeviceSeen)>> {
        self.list_devices(list).await
    }
    async fn device_context(&self, dev_eui: Eui64) -> Result<Option<DeviceContext>> {
        let device = self.flow.through(self.get::<Device>(Kind::Device, dev_eui)).await?;
        let Some(device) = device else { return Ok(None) };
        let profile = self.parents.profile(self, device.device_profile_id);
        let application = self.parents.application(self, device.application_id);
        let (Some(profile), Some(application)) = futures_util::future::try_join(profile, application).await? else {
            return Ok(None);
        };
        let tenant_name = self.parents.tenant(self, application.tenant_id).await?.unwrap_or_default();
        Ok(Some(DeviceContext { device, profile, application, tenant_name }))
    }

    async fn totals(&self, now: UnixMicros) -> Result<Totals> {
        let devices = self.device_euis().await?.len() as u64;
        let applications = self.identities(Identified::Applications).await?.len() as u64;
        let mut totals = Totals { applications, devices, ..Totals::default() };
        let (gateways, seen) = futures_util::future::try_join(
            self.entities.all::<Gateway>(&self.db, Kind::Gateway),
            self.seen.all_gateways(&self.db),
        )
        .await?;
        for gateway in &gateways {
            totals.add_gateway(gateway, seen.get(&gateway.eui).copied(), now);
        }
        Ok(totals)
    }

    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.entities.get(&self.db, Kind::Setting, name).await
    }
    async fn init_setting(&self, name: &str, value: &[u8]) -> Result<Vec<u8>> {
        if let Some(set) = self.setting(name).await? {
            return Ok(set);
        }
        if self.entities.insert(&self.db, Kind::Setting, name, &value).await? {
            return Ok(value.to_vec());
        }
        Ok(self.setting(name).await?.unwrap_or_else(|| value.to_vec()))
    }
    async fn replace_network_settings(&self, was: &NetworkSettings, next: &NetworkSettings) -> Result<bool> {
        let (value, mut replaced) = (settings::write(next), true);
        let replace = |now: Vec<u8>| {
            let found = settings::read(Some(&now))?;
            // What is there already is what an earlier try has written, whose answer was lost.
            replaced = found == *was || found == *next;
            Ok(if replaced { value.clone() } else { now })
        };
        let row = self.entities.change(&self.db, Kind::Setting, NETWORK_SETTINGS, replace).await?;
        if row.is_none() {
            replaced = *was == NetworkSettings::default()
                && self.entities.insert(&self.db, Kind::Setting, NETWORK_SETTINGS, &value).await?;
        }
        if replaced {
            self.count_membership_change().await?;
        }
        Ok(replaced)
    }
}
