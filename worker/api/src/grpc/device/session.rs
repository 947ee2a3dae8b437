//! A device's session.

use chirpstack_api::api;
use limpet_worker_core::{join::dev_addr, model::Activation};

use super::super::Grpc;
use crate::{
    ApiError,
    activation::{activate, current},
    auth::{Access, Caller, random},
    error::Result,
    fields::{self, refuse},
    quota,
};

/// LoRaWAN 1.0.x has one network session key, and clients write it into all three fields of 1.1; and one FCntDown.
fn read(given: &api::DeviceActivation) -> Result<Activation> {
    let nwk_s_key = fields::key("nwk_s_enc_key", &given.nwk_s_enc_key)?;
    fields::unused_key("s_nwk_s_int_key", &given.s_nwk_s_int_key, Some(nwk_s_key))?;
    fields::unused_key("f_nwk_s_int_key", &given.f_nwk_s_int_key, Some(nwk_s_key))?;
    let other_counter = given.a_f_cnt_down != 0 && given.a_f_cnt_down != given.n_f_cnt_down;
    refuse("a_f_cnt_down", other_counter, "LoRaWAN 1.0.x has one counter: n_f_cnt_down")?;
    Ok(Activation {
        dev_eui: fields::eui("dev_eui", &given.dev_eui)?,
        dev_addr: fields::dev_addr("dev_addr", &given.dev_addr)?,
        nwk_s_key,
        app_s_key: fields::key("app_s_key", &given.app_s_key)?,
        fcnt_up: given.f_cnt_up,
        n_fcnt_down: given.n_f_cnt_down,
    })
}

impl Grpc {
    pub(super) async fn activate_device(&self, caller: &Caller, given: api::DeviceActivation) -> Result<()> {
        let wanted = read(&given)?;
        let context = self.device_of(caller, &given.dev_eui, Access::Write).await?;
        activate(&self.0, &context, &wanted).await
    }

    /// Empty for a device without a session.
    pub(super) async fn get_device_activation(
        &self,
        caller: &Caller,
        dev_eui: &str,
    ) -> Result<api::GetDeviceActivationResponse> {
        let device = self.device_of(caller, dev_eui, Access::Read).await?.device;
        let row = current(self.0.store.as_ref(), device.dev_eui).await?;
        let device_activation = row.map(|row| {
            let session = row.session;
            let nwk_s_key = session.keys.nwk_s_key.to_hex();
            api::DeviceActivation {
                dev_eui: device.dev_eui.to_string(),
                dev_addr: session.key.dev_addr.to_string(),
                app_s_key: session.keys.app_s_key.to_hex(),
                nwk_s_enc_key: nwk_s_key.clone(),
                s_nwk_s_int_key: nwk_s_key.clone(),
                f_nwk_s_int_key: nwk_s_key,
                f_cnt_up: session.seen.next,
                n_f_cnt_down: session.next_fcnt_down,
                a_f_cnt_down: session.next_fcnt_down,
            }
        });
        Ok(api::GetDeviceActivationResponse { device_activation, join_server_context: None })
    }

    pub(super) async fn next_fcnt_down(
        &self,
        caller: &Caller,
        dev_eui: &str,
    ) -> Result<api::GetDeviceNextFCntDownResponse> {
        let device = self.device_of(caller, dev_eui, Access::Read).await?.device;
        let row = current(self.0.store.as_ref(), device.dev_eui).await?;
        let row = row.ok_or_else(|| ApiError::NotFound(format!("a session of device {}", device.dev_eui)))?;
        Ok(api::GetDeviceNextFCntDownResponse { f_cnt_down: row.session.next_fcnt_down })
    }

    /// For a device or a tenant; it is the same range for all.
    pub(super) async fn random_dev_addr(
        &self,
        caller: &Caller,
        request: &api::GetRandomDevAddrRequest,
    ) -> Result<api::GetRandomDevAddrResponse> {
        match fields::optional_id("tenant_id", &request.tenant_id)? {
            Some(tenant) if request.dev_eui.is_empty() => {
                quota::tenant(self.0.store.as_ref(), tenant).await?;
                caller.of_tenant(tenant, Access::Read)?;
            }
            _ => {
                self.device_of(caller, &request.dev_eui, Access::Read).await?;
            }
        }
        let settings = self.0.store.network_settings().await.map_err(ApiError::from)?;
        let dev_addr = dev_addr(settings.net_id(), u32::from_be_bytes(random()?));
        Ok(api::GetRandomDevAddrResponse { dev_addr: dev_addr.to_string() })
    }
}
