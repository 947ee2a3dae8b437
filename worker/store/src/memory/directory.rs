//! What people provision, in memory: the trait's methods on the maps. The rules about what belongs to what are in
//! `cascade`.

mod cascade;

use async_trait::async_trait;
use limpet_shared::{AesKey, Eui64, UnixMicros};
use limpet_worker_core::model::*;
use uuid::Uuid;

use super::MemoryStore;
use crate::{Directory, GatewayChanges, GatewayTags, List, Page, Result, Totals, words};

/// The part of a list that was asked for, of all that `keep` and whose text holds the search.
fn page<T: Clone>(
    all: impl Iterator<Item = T>,
    list: &List,
    keep: impl Fn(&T) -> bool,
    named: impl Fn(&T) -> (String, Option<String>),
) -> Page<T> {
    let needle = list.search.to_lowercase();
    let mut found: Vec<(String, T)> = all
        .filter(keep)
        .map(|item| (named(&item), item))
        .filter(|((name, identity), _)| words::search_text(name, identity.as_deref()).contains(&needle))
        .map(|((name, _), item)| (name, item))
        .collect();
    // The maps give them by identity, and the sort is stable.
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    let total = u32::try_from(found.len()).unwrap_or(u32::MAX);
    let items = found.into_iter().skip(list.offset as usize).take(list.limit as usize).map(|(_, item)| item).collect();
    Page { total, items }
}

#[async_trait]
impl Directory for MemoryStore {
    async fn create_tenant(&self, tenant: &Tenant) -> Result<()> {
        self.state.lock().create_tenant(tenant)
    }
    async fn tenant(&self, id: Uuid) -> Result<Option<Tenant>> {
        Ok(self.state.lock().tenants.get(&id).cloned())
    }
    async fn update_tenant(&self, tenant: &Tenant) -> Result<()> {
        self.state.lock().update_tenant(tenant)
    }
    async fn delete_tenant(&self, id: Uuid) -> Result<()> {
        self.state.lock().delete_tenant(id)
    }
    async fn tenants(&self, list: &List) -> Result<Page<Tenant>> {
        let state = self.state.lock();
        let mine = |t: &Tenant| list.tenant.is_none_or(|id| id == t.id);
        Ok(page(state.tenants.values().cloned(), list, mine, |t| (t.name.clone(), None)))
    }

    async fn create_user(&self, user: &User) -> Result<()> {
        self.state.lock().create_user(user)
    }
    async fn user(&self, id: Uuid) -> Result<Option<User>> {
        Ok(self.state.lock().users.get(&id).cloned())
    }
    async fn user_by_email(&self, email: &str) -> Result<Option<User>> {
        Ok(self.state.lock().user_by_email(email).cloned())
    }
    async fn update_user(&self, was: &User, user: &User) -> Result<bool> {
        self.state.lock().update_user(was, user)
    }
    async fn delete_user(&self, id: Uuid) -> Result<()> {
        self.state.lock().users.remove(&id).map(drop).ok_or_else(|| words::missing("user", id))
    }
    async fn users(&self, list: &List) -> Result<Page<User>> {
        let state = self.state.lock();
        Ok(page(state.users.values().cloned(), list, |_| true, |u| (u.email.clone(), None)))
    }

    async fn create_api_key(&self, key: &ApiKey) -> Result<()> {
        self.state.lock().create_api_key(key)
    }
    async fn api_key(&self, id: Uuid) -> Result<Option<ApiKey>> {
        Ok(self.state.lock().api_keys.get(&id).cloned())
    }
    async fn delete_api_key(&self, id: Uuid) -> Result<()> {
        self.state.lock().api_keys.remove(&id).map(drop).ok_or_else(|| words::missing("API key", id))
    }
    async fn api_keys(&self, admin: bool, list: &List) -> Result<Page<ApiKey>> {
        let state = self.state.lock();
        let mine = |k: &ApiKey| match k.tenant_id {
            None => admin,
            tenant => !admin && tenant == list.tenant,
        };
        Ok(page(state.api_keys.values().cloned(), list, mine, |k| (k.name.clone(), None)))
    }

    async fn create_application(&self, application: &Application) -> Result<()> {
        self.state.lock().create_application(application)
    }
    async fn application(&self, id: Uuid) -> Result<Option<Application>> {
        Ok(self.state.lock().applications.get(&id).cloned())
    }
    async fn update_application(&self, application: &Application) -> Result<()> {
        self.state.lock().update_application(application)
    }
    async fn delete_application(&self, id: Uuid) -> Result<()> {
        self.state.lock().delete_application(id)
    }
    async fn applications(&self, list: &List) -> Result<Page<Application>> {
        let state = self.state.lock();
        let mine = |a: &Application| list.tenant.is_none_or(|id| id == a.tenant_id);
        Ok(page(state.applications.values().cloned(), list, mine, |a| (a.name.clone(), None)))
    }

    async fn create_device_profile(&self, profile: &DeviceProfile) -> Result<()> {
        self.state.lock().create_device_profile(profile)
    }
    async fn device_profile(&self, id: Uuid) -> Result<Option<DeviceProfile>> {
        Ok(self.state.lock().profiles.get(&id).cloned())
    }
    async fn update_device_profile(&self, profile: &DeviceProfile) -> Result<()> {
        self.state.lock().update_device_profile(profile)
    }
    async fn delete_device_profile(&self, id: Uuid) -> Result<()> {
        self.state.lock().delete_device_profile(id)
    }
    async fn device_profiles(&self, list: &List) -> Result<Page<DeviceProfile>> {
        let state = self.state.lock();
        let mine = |p: &DeviceProfile| list.tenant.is_none_or(|id| id == p.tenant_id);
        Ok(page(state.profiles.values().cloned(), list, mine, |p| (p.name.clone(), None)))
    }

    async fn create_gateway(&self, gateway: &Gateway) -> Result<()> {
        self.state.lock().create_gateway(gateway)
    }
    async fn gateway(&self, eui: Eui64) -> Result<Option<(Gateway, GatewaySeen)>> {
        Ok(self.state.lock().gateways.get(&eui).cloned())
    }
    async fn update_gateway(&self, gateway: &Gateway) -> Result<()> {
        self.state.lock().update_gateway(gateway)
    }
    async fn delete_gateway(&self, eui: Eui64) -> Result<()> {
        self.state.lock().delete_gateway(eui)
    }
    async fn gateways(&self, list: &List) -> Result<Page<(Gateway, GatewaySeen)>> {
        let state = self.state.lock();
        let mine = |(g, _): &(Gateway, GatewaySeen)| list.tenant.is_none_or(|id| id == g.tenant_id);
        Ok(page(state.gateways.values().cloned(), list, mine, |(g, _)| (g.name.clone(), Some(g.eui.to_string()))))
    }
    async fn gateway_set(&self) -> Result<(u64, Vec<Eui64>)> {
        let state = self.state.lock();
        Ok((state.gateway_changes + 1, state.gateways.keys().copied().collect()))
    }
    async fn gateway_set_version(&self) -> Result<u64> {
        Ok(self.state.lock().gateway_changes + 1)
    }
    async fn gateway_tags(&self, tag: &str) -> Result<(u64, GatewayTags)> {
        let state = self.state.lock();
        let tags = state.gateways.iter().map(|(eui, (gateway, _))| (*eui, gateway.tags.get(tag).cloned()));
        Ok((state.gateway_changes + 1, tags.collect()))
    }
    async fn gateway_changes(&self, since: u64) -> Result<GatewayChanges> {
        let state = self.state.lock();
        let version = state.gateway_changes + 1;
        let changed: Vec<_> =
            state.gateways_changed.iter().filter(|(n, _)| *n > since && *n <= version).copied().collect();
        let known = words::are_all(since, version, &changed);
        Ok(GatewayChanges { version, changed: known.then_some(changed) })
    }

    async fn raise_gateway_set_version(&self, least: u64) -> Result<()> {
        let mut state = self.state.lock();
        state.gateway_changes = state.gateway_changes.max(least.saturating_sub(1));
        Ok(())
    }

    async fn create_device(&self, device: &Device) -> Result<()> {
        self.state.lock().create_device(device)
    }
    async fn device(&self, dev_eui: Eui64) -> Result<Option<(Device, DeviceSeen)>> {
        Ok(self.state.lock().devices.get(&dev_eui).cloned())
    }
    async fn update_device(&self, device: &Device) -> Result<()> {
        self.state.lock().update_device(device)
    }
    async fn set_app_key(&self, dev_eui: Eui64, key: Option<AesKey>) -> Result<()> {
        let mut state = self.state.lock();
        let (device, _) = state.devices.get_mut(&dev_eui).ok_or_else(|| words::missing("device", dev_eui))?;
        device.app_key = key;
        Ok(())
    }
    async fn delete_device(&self, dev_eui: Eui64) -> Result<()> {
        self.state.lock().delete_device(dev_eui)
    }
    async fn devices(&self, list: &List) -> Result<Page<(Device, DeviceSeen)>> {
        let state = self.state.lock();
        let mine = |(d, _): &(Device, DeviceSeen)| state.is_listed(d, list);
        Ok(page(state.devices.values().cloned(), list, mine, |(d, _)| (d.name.clone(), Some(d.dev_eui.to_string()))))
    }
    async fn device_context(&self, dev_eui: Eui64) -> Result<Option<DeviceContext>> {
        Ok(self.state.lock().device_context(dev_eui))
    }

    async fn totals(&self, now: UnixMicros) -> Result<Totals> {
        let state = self.state.lock();
        let (applications, devices) = (state.applications.len() as u64, state.devices.len() as u64);
        let mut totals = Totals { applications, devices, ..Totals::default() };
        for (gateway, seen) in state.gateways.values() {
            totals.add_gateway(gateway, seen.last_seen_at, now);
        }
        Ok(totals)
    }

    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.state.lock().settings.get(name).cloned())
    }
    async fn init_setting(&self, name: &str, value: &[u8]) -> Result<Vec<u8>> {
        Ok(self.state.lock().settings.entry(name.into()).or_insert_with(|| value.into()).clone())
    }
}
