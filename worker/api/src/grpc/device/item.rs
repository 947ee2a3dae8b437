//! A device as the protocol has it.

use chirpstack_api::api;
use limpet_shared::Eui64;
use limpet_worker_core::model::{Device, DeviceSeen};

use crate::{error::Result, fields};

/// DevStatusAns (LoRaWAN 1.0.4, 5.5): powered from outside.
const EXTERNAL_POWER: u8 = 0;
/// DevStatusAns: the device could not measure its battery.
const NOT_MEASURED: u8 = 255;

/// What a device is set to, besides its times and keys.
pub(super) fn read(given: &api::Device) -> Result<Device> {
    let join_eui = if given.join_eui.is_empty() { Eui64::default() } else { fields::eui("join_eui", &given.join_eui)? };
    Ok(Device {
        dev_eui: fields::eui("dev_eui", &given.dev_eui)?,
        application_id: fields::id("application_id", &given.application_id)?,
        device_profile_id: fields::id("device_profile_id", &given.device_profile_id)?,
        name: fields::name("name", &given.name)?,
        description: fields::text("description", given.description.clone())?,
        join_eui,
        skip_fcnt_check: given.skip_fcnt_check,
        is_disabled: given.is_disabled,
        variables: fields::tags("variables", given.variables.clone())?,
        tags: fields::tags("tags", given.tags.clone())?,
        ..Device::default()
    })
}

pub(super) fn write(device: &Device) -> api::Device {
    api::Device {
        dev_eui: device.dev_eui.to_string(),
        name: device.name.clone(),
        description: device.description.clone(),
        application_id: device.application_id.to_string(),
        device_profile_id: device.device_profile_id.to_string(),
        skip_fcnt_check: device.skip_fcnt_check,
        is_disabled: device.is_disabled,
        variables: fields::map(&device.variables),
        tags: fields::map(&device.tags),
        join_eui: device.join_eui.to_string(),
    }
}

/// What the device last said about itself; none if it never did.
pub(super) fn status(seen: &DeviceSeen) -> Option<api::DeviceStatus> {
    let battery = seen.battery?;
    Some(api::DeviceStatus {
        margin: seen.margin.unwrap_or(0).into(),
        external_power_source: battery == EXTERNAL_POWER,
        battery_level: match battery {
            EXTERNAL_POWER | NOT_MEASURED => -1.0,
            level => f32::from(level) / 254.0 * 100.0,
        },
    })
}
