//! Gateways and devices as operators list, rename and remove them.

use std::collections::{HashMap, hash_map::Entry};

use limpet_shared::{
    Eui64,
    admin::{self, Reply},
};
use limpet_store::List;
use limpet_worker_core::model::{Device, Gateway};

use crate::{Api, ApiError, clock, error::Result, fields};

/// Devices in one answer.
const PAGE: u32 = 200;

impl Api {
    pub(super) async fn rename_gateway(&self, eui: Eui64, name: &str) -> Result<Reply> {
        let name = fields::name("name", name)?;
        let (gateway, _) = self.store.gateway(eui).await?.ok_or_else(|| no_gateway(eui))?;
        let message = format!("gateway {eui} is called {name} now");
        self.store.update_gateway(&Gateway { name, updated_at: clock::now(), ..gateway }).await?;
        self.tell_balancers().await;
        Ok(Reply::Done { message })
    }

    pub(super) async fn remove_gateway(&self, eui: Eui64) -> Result<Reply> {
        self.store.gateway(eui).await?.ok_or_else(|| no_gateway(eui))?;
        self.store.delete_gateway(eui).await?;
        self.tell_balancers().await;
        Ok(Reply::Done { message: format!("gateway {eui} was removed: what it sends is rejected from now on") })
    }

    pub(super) async fn listed_devices(&self, search: String, offset: u32) -> Result<Reply> {
        let page = self.store.devices(&List { limit: PAGE, offset, search, ..List::default() }).await?;
        let (mut applications, mut profiles) = (HashMap::new(), HashMap::new());
        let (mut devices, now) = (Vec::new(), clock::now());
        for (device, seen) in page.items {
            let (application, profile) = (device.application_id, device.device_profile_id);
            if let Entry::Vacant(unnamed) = applications.entry(application) {
                let found = self.store.application(application).await?;
                unnamed.insert(found.map(|found| found.name).unwrap_or_default());
            }
            if let Entry::Vacant(unnamed) = profiles.entry(profile) {
                let found = self.store.device_profile(profile).await?;
                unnamed.insert(found.unwrap_or_default());
            }
            let profile = profiles.get(&profile).cloned().unwrap_or_default();
            devices.push(admin::Device {
                dev_eui: device.dev_eui,
                name: device.name,
                application: applications.get(&application).cloned().unwrap_or_default(),
                active: profile.is_active(seen.last_seen_at, now),
                profile: profile.name,
                last_seen: seen.last_seen_at,
                is_disabled: device.is_disabled,
            });
        }
        Ok(Reply::Devices { total: page.total, devices })
    }

    pub(super) async fn rename_device(&self, dev_eui: Eui64, name: &str) -> Result<Reply> {
        let name = fields::name("name", name)?;
        let (device, _) = self.store.device(dev_eui).await?.ok_or_else(|| no_device(dev_eui))?;
        let message = format!("device {dev_eui} is called {name} now");
        self.store.update_device(&Device { name, updated_at: clock::now(), ..device }).await?;
        Ok(Reply::Done { message })
    }

    pub(super) async fn remove_device(&self, dev_eui: Eui64) -> Result<Reply> {
        self.store.device(dev_eui).await?.ok_or_else(|| no_device(dev_eui))?;
        self.store.delete_device(dev_eui).await?;
        Ok(Reply::Done { message: format!("device {dev_eui} was removed, with its sessions and its queue") })
    }
}

fn no_gateway(eui: Eui64) -> ApiError {
    ApiError::NotFound(format!("gateway {eui}"))
}

fn no_device(eui: Eui64) -> ApiError {
    ApiError::NotFound(format!("device {eui}"))
}
