//! A device's root key. For LoRaWAN 1.0.x the AppKey travels in `nwk_key`.

use chirpstack_api::api;
use limpet_shared::{AesKey, Eui64};

use super::super::Grpc;
use crate::{
    ApiError,
    auth::{Access, Caller},
    error::Result,
    fields,
};

/// The AppKey of LoRaWAN 1.0.x.
fn read(given: &api::DeviceKeys) -> Result<AesKey> {
    if given.nwk_key.is_empty() && !given.app_key.is_empty() {
        return Err(ApiError::invalid(
            "nwk_key",
            "is missing: the AppKey of LoRaWAN 1.0.x belongs here, not in app_key",
        ));
    }
    let key = fields::key("nwk_key", &given.nwk_key)?;
    fields::unused_key("app_key", &given.app_key, Some(key))?;
    fields::unused_key("gen_app_key", &given.gen_app_key, None)?;
    Ok(key)
}

fn no_keys(dev_eui: Eui64) -> ApiError {
    ApiError::NotFound(format!("a key of device {dev_eui}"))
}

impl Grpc {
    pub(super) async fn create_device_keys(&self, caller: &Caller, given: api::DeviceKeys) -> Result<()> {
        let key = read(&given)?;
        let device = self.device_of(caller, &given.dev_eui, Access::Write).await?.device;
        if device.app_key.is_some() {
            return Err(ApiError::AlreadyExists(format!("the key of device {}", device.dev_eui)));
        }
        Ok(self.0.store.set_app_key(device.dev_eui, Some(key)).await?)
    }

    /// The keys that LoRaWAN 1.0.x does not have are zeros, as ChirpStack writes them.
    pub(super) async fn get_device_keys(&self, caller: &Caller, dev_eui: &str) -> Result<api::GetDeviceKeysResponse> {
        let device = self.device_of(caller, dev_eui, Access::Read).await?.device;
        let key = device.app_key.ok_or_else(|| no_keys(device.dev_eui))?;
        let none = AesKey::default().to_hex();
        let device_keys = api::DeviceKeys {
            dev_eui: device.dev_eui.to_string(),
            nwk_key: key.to_hex(),
            app_key: none.clone(),
            gen_app_key: none,
        };
        Ok(api::GetDeviceKeysResponse { device_keys: Some(device_keys), ..Default::default() })
    }

    pub(super) async fn update_device_keys(&self, caller: &Caller, given: api::DeviceKeys) -> Result<()> {
        let key = read(&given)?;
        let device = self.device_of(caller, &given.dev_eui, Access::Write).await?.device;
        device.app_key.ok_or_else(|| no_keys(device.dev_eui))?;
        Ok(self.0.store.set_app_key(device.dev_eui, Some(key)).await?)
    }

    pub(super) async fn delete_device_keys(&self, caller: &Caller, dev_eui: &str) -> Result<()> {
        let device = self.device_of(caller, dev_eui, Access::Write).await?.device;
        device.app_key.ok_or_else(|| no_keys(device.dev_eui))?;
        Ok(self.0.store.set_app_key(device.dev_eui, None).await?)
    }
}
