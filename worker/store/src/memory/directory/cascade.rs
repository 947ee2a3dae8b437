//! What belongs to what: parents that must exist, and what a deletion takes along.

use limpet_shared::Eui64;
use limpet_worker_core::model::*;
use uuid::Uuid;

use crate::{List, Result, memory::State, words};

impl State {
    fn need_tenant(&self, id: Uuid) -> Result<()> {
        if self.tenants.contains_key(&id) { Ok(()) } else { Err(words::missing("tenant", id)) }
    }

    pub(in crate::memory) fn create_tenant(&mut self, tenant: &Tenant) -> Result<()> {
        if self.tenants.contains_key(&tenant.id) {
            return Err(words::exists("tenant", tenant.id));
        }
        self.tenants.insert(tenant.id, tenant.clone());
        Ok(())
    }

    pub(super) fn update_tenant(&mut self, tenant: &Tenant) -> Result<()> {
        let known = self.tenants.get_mut(&tenant.id).ok_or_else(|| words::missing("tenant", tenant.id))?;
        *known = tenant.clone();
        Ok(())
    }

    pub(super) fn delete_tenant(&mut self, id: Uuid) -> Result<()> {
        self.tenants.remove(&id).ok_or_else(|| words::missing("tenant", id))?;
        let applications: Vec<_> = self.applications.values().filter(|a| a.tenant_id == id).map(|a| a.id).collect();
        for application in applications {
            self.delete_application(application)?;
        }
        self.profiles.retain(|_, p| p.tenant_id != id);
        self.api_keys.retain(|_, k| k.tenant_id != Some(id));
        let gateways: Vec<_> = self.gateways.values().filter(|(g, _)| g.tenant_id == id).map(|(g, _)| g.eui).collect();
        for gateway in gateways {
            self.delete_gateway(gateway)?;
        }
        Ok(())
    }

    pub(super) fn user_by_email(&self, email: &str) -> Option<&User> {
        let key = words::email_key(email);
        self.users.values().find(|user| words::email_key(&user.email) == key)
    }

    pub(in crate::memory) fn create_user(&mut self, user: &User) -> Result<()> {
        if self.users.contains_key(&user.id) {
            return Err(words::exists("user", user.id));
        }
        if self.user_by_email(&user.email).is_some() {
            return Err(words::exists("user", &user.email));
        }
        self.users.insert(user.id, user.clone());
        Ok(())
    }

    pub(super) fn update_user(&mut self, was: &User, user: &User) -> Result<bool> {
        match self.users.get(&user.id) {
            None => return Err(words::missing("user", user.id)),
            Some(now) if now != was => return Ok(false),
            Some(_) => {}
        }
        if self.user_by_email(&user.email).is_some_and(|other| other.id != user.id) {
            return Err(words::exists("user", &user.email));
        }
        self.users.insert(user.id, user.clone());
        Ok(true)
    }

    pub(in crate::memory) fn create_api_key(&mut self, key: &ApiKey) -> Result<()> {
        if let Some(tenant) = key.tenant_id {
            self.need_tenant(tenant)?;
        }
        if self.api_keys.contains_key(&key.id) {
            return Err(words::exists("API key", key.id));
        }
        self.api_keys.insert(key.id, key.clone());
        Ok(())
    }

    pub(in crate::memory) fn create_application(&mut self, application: &Application) -> Result<()> {
        self.need_tenant(application.tenant_id)?;
        if self.applications.contains_key(&application.id) {
            return Err(words::exists("application", application.id));
        }
        self.applications.insert(application.id, application.clone());
        Ok(())
    }

    pub(super) fn update_application(&mut self, application: &Application) -> Result<()> {
        let tenant = application.tenant_id;
        match self.applications.get_mut(&application.id) {
            Some(known) if known.tenant_id == tenant => *known = application.clone(),
            _ => return Err(words::missing_in_tenant("application", application.id, tenant)),
        }
        Ok(())
    }

    pub(super) fn delete_application(&mut self, id: Uuid) -> Result<()> {
        self.applications.remove(&id).ok_or_else(|| words::missing("application", id))?;
        let devices: Vec<_> =
            self.devices.values().filter(|(d, _)| d.application_id == id).map(|(d, _)| d.dev_eui).collect();
        devices.into_iter().try_for_each(|device| self.delete_device(device))
    }

    pub(in crate::memory) fn create_device_profile(&mut self, profile: &DeviceProfile) -> Result<()> {
        self.need_tenant(profile.tenant_id)?;
        if self.profiles.contains_key(&profile.id) {
            return Err(words::exists("device profile", profile.id));
        }
        self.profiles.insert(profile.id, profile.clone());
        Ok(())
    }

    pub(super) fn update_device_profile(&mut self, profile: &DeviceProfile) -> Result<()> {
        let tenant = profile.tenant_id;
        match self.profiles.get_mut(&profile.id) {
            Some(known) if known.tenant_id == tenant => *known = profile.clone(),
            _ => return Err(words::missing_in_tenant("device profile", profile.id, tenant)),
        }
        Ok(())
    }

    pub(super) fn delete_device_profile(&mut self, id: Uuid) -> Result<()> {
        if !self.profiles.contains_key(&id) {
            return Err(words::missing("device profile", id));
        }
        let users: Vec<_> = self.devices.values().filter(|(d, _)| d.device_profile_id == id).collect();
        if !users.is_empty() {
            let some: Vec<_> = users.iter().take(words::NAMED_DEVICES).map(|(d, _)| d.dev_eui.to_string()).collect();
            return Err(words::profile_in_use(id, &some, u32::try_from(users.len()).unwrap_or(u32::MAX)));
        }
        self.profiles.remove(&id);
        Ok(())
    }

    pub(in crate::memory) fn create_gateway(&mut self, gateway: &Gateway) -> Result<()> {
        self.need_tenant(gateway.tenant_id)?;
        if self.gateways.contains_key(&gateway.eui) {
            return Err(words::exists("gateway", gateway.eui));
        }
        self.gateways.insert(gateway.eui, (gateway.clone(), GatewaySeen::default()));
        self.count_gateway_change(gateway.eui);
        Ok(())
    }

    pub(super) fn update_gateway(&mut self, gateway: &Gateway) -> Result<()> {
        let tenant = gateway.tenant_id;
        match self.gateways.get_mut(&gateway.eui) {
            Some((known, _)) if known.tenant_id == tenant => *known = gateway.clone(),
            _ => return Err(words::missing_in_tenant("gateway", gateway.eui, tenant)),
        }
        self.count_gateway_change(gateway.eui);
        Ok(())
    }

    fn count_gateway_change(&mut self, eui: Eui64) {
        self.gateway_changes += 1;
        self.gateways_changed.push((self.gateway_changes + 1, eui));
    }

    pub(super) fn delete_gateway(&mut self, eui: Eui64) -> Result<()> {
        self.gateways.remove(&eui).ok_or_else(|| words::missing("gateway", eui))?;
        self.count_gateway_change(eui);
        Ok(())
    }

    /// Application and profile must exist, and belong to one tenant: else deleting that tenant would leave half a device.
    fn need_parents(&self, device: &Device) -> Result<()> {
        let (application, profile) = (device.application_id, device.device_profile_id);
        let tenant =
            self.applications.get(&application).ok_or_else(|| words::missing("application", application))?.tenant_id;
        match self.profiles.get(&profile) {
            Some(found) if found.tenant_id == tenant => Ok(()),
            _ => Err(words::missing_in_tenant("device profile", profile, tenant)),
        }
    }

    pub(in crate::memory) fn create_device(&mut self, device: &Device) -> Result<()> {
        self.need_parents(device)?;
        if self.devices.contains_key(&device.dev_eui) {
            return Err(words::exists("device", device.dev_eui));
        }
        self.devices.insert(device.dev_eui, (device.clone(), DeviceSeen::default()));
        Ok(())
    }

    pub(super) fn update_device(&mut self, device: &Device) -> Result<()> {
        if !self.devices.contains_key(&device.dev_eui) {
            return Err(words::missing("device", device.dev_eui));
        }
        self.need_parents(device)?;
        if let Some((known, _)) = self.devices.get_mut(&device.dev_eui) {
            *known = Device { app_key: known.app_key, ..device.clone() };
        }
        Ok(())
    }

    pub(super) fn delete_device(&mut self, dev_eui: Eui64) -> Result<()> {
        self.devices.remove(&dev_eui).ok_or_else(|| words::missing("device", dev_eui))?;
        self.sessions.retain(|key, _| key.dev_eui != dev_eui);
        self.states.remove(&dev_eui);
        self.joins.retain(|(device, _), _| *device != dev_eui);
        self.queues.remove(&dev_eui);
        Ok(())
    }

    pub(super) fn is_listed(&self, device: &Device, list: &List) -> bool {
        let tenant = || self.applications.get(&device.application_id).map(|a| a.tenant_id);
        list.application.is_none_or(|id| id == device.application_id)
            && list.device_profile.is_none_or(|id| id == device.device_profile_id)
            && list.tenant.is_none_or(|id| tenant() == Some(id))
    }

    pub(super) fn device_context(&self, dev_eui: Eui64) -> Option<DeviceContext> {
        let (device, _) = self.devices.get(&dev_eui)?.clone();
        let profile = self.profiles.get(&device.device_profile_id)?.clone();
        let application = self.applications.get(&device.application_id)?.clone();
        let tenant_name = self.tenants.get(&application.tenant_id)?.name.clone();
        Some(DeviceContext { device, profile, application, tenant_name })
    }
}
