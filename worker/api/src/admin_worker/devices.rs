//! Gateways and devices as operators list, rename and remove them.

use std::collections::{HashMap, hash_map::Entry};

use limpet_shared::{
    AesKey, Eui64,
    admin::{self, PAGE, Reply},
};
use limpet_store::List;
use limpet_worker_core::model::{Device, Gateway};

use crate::{Api, ApiError, activation::current, clock, error::Result, fields, queue};

/// Downlinks that are told of one device.
const QUEUED: usize = 20;

/// A device's keys.
#[derive(Clone, Copy, Debug)]
pub struct DeviceKeys {
    pub app_key: Option<AesKey>,
    /// Of its session.
    pub nwk_s_key: Option<AesKey>,
    pub app_s_key: Option<AesKey>,
}

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

    pub(super) async fn one_device(&self, dev_eui: Eui64) -> Result<Reply> {
        let (device, seen) = self.store.device(dev_eui).await?.ok_or_else(|| no_device(dev_eui))?;
        let application = self.store.application(device.application_id).await?.map(|found| found.name);
        let profile = self.store.device_profile(device.device_profile_id).await?.unwrap_or_default();
        let row = current(self.store.as_ref(), dev_eui).await?;
        let progress = queue::progress(row.as_ref());
        let waiting = queue::waiting(self.store.as_ref(), dev_eui, progress).await?;
        let session = row.map(|row| admin::DeviceSession {
            dev_addr: row.session.key.dev_addr,
            joined: row.session.joined,
            region: row.session.region,
            since: row.session.since,
            fcnt_up: row.session.seen.next,
            fcnt_down: row.session.next_fcnt_down,
            rx1_delay: row.session.mac.rx1_delay,
            rx1_dr_offset: row.session.mac.rx1_dr_offset,
            rx2_dr: row.session.mac.rx2_data_rate,
            rx2_frequency: row.session.mac.rx2_frequency,
        });
        let queue = waiting.iter().take(QUEUED).map(|item| admin::QueuedDownlink {
            id: item.id.clone(),
            fport: item.fport,
            bytes: u32::try_from(item.data.len()).unwrap_or(u32::MAX),
            confirmed: item.confirmed,
            is_pending: progress.in_flight.is_some_and(|in_flight| in_flight.seq == item.seq),
            created_at: item.created_at,
        });
        Ok(Reply::Device(Box::new(admin::DeviceDetail {
            description: device.description,
            join_eui: device.join_eui,
            has_app_key: device.app_key.is_some(),
            session,
            queued: u32::try_from(waiting.len()).unwrap_or(u32::MAX),
            queue: queue.collect(),
            device: admin::Device {
                dev_eui,
                name: device.name,
                application: application.unwrap_or_default(),
                active: profile.is_active(seen.last_seen_at, clock::now()),
                profile: profile.name,
                last_seen: seen.last_seen_at,
                is_disabled: device.is_disabled,
            },
        })))
    }

    /// For an administrator who asks for them in so many words; `by` is who that is, for the log. They never go over the link.
    pub async fn device_keys(&self, dev_eui: Eui64, by: &str) -> Result<DeviceKeys> {
        let (device, _) = self.store.device(dev_eui).await?.ok_or_else(|| no_device(dev_eui))?;
        let session = current(self.store.as_ref(), dev_eui).await?.map(|row| row.session.keys);
        tracing::info!(%dev_eui, by, "the keys of a device were shown");
        Ok(DeviceKeys {
            app_key: device.app_key,
            nwk_s_key: session.map(|keys| keys.nwk_s_key),
            app_s_key: session.map(|keys| keys.app_s_key),
        })
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
