//! Devices: what they are here, in the modules below their keys, sessions and queues.

mod item;
mod keys;
mod listing;
mod queue;
mod session;

use chirpstack_api::api::{self, device_service_server::DeviceService};
use limpet_worker_core::model::{Device, DeviceContext};
use tonic::{Request, async_trait};

use super::{Grpc, Reply, reply, unserved};
use crate::{
    ApiError,
    auth::{Access, Caller},
    clock,
    error::Result,
    fields::{self, required},
};

impl Grpc {
    /// A device that the caller may use, with what it belongs to.
    async fn device_of(&self, caller: &Caller, dev_eui: &str, access: Access) -> Result<DeviceContext> {
        let dev_eui = fields::eui("dev_eui", dev_eui)?;
        let found = self.0.store.device_context(dev_eui).await?;
        let context = found.ok_or_else(|| ApiError::NotFound(format!("device {dev_eui}")))?;
        caller.of_tenant(context.application.tenant_id, access)?;
        Ok(context)
    }

    /// The profile exists, and its tenant is the application's.
    async fn check_profile(&self, device: &Device, tenant: uuid::Uuid) -> Result<()> {
        let id = device.device_profile_id;
        let found = self.0.store.device_profile(id).await?;
        let profile = found.ok_or_else(|| ApiError::NotFound(format!("device profile {id}")))?;
        fields::refuse("device_profile_id", profile.tenant_id != tenant, "belongs to another tenant")
    }
}

/// What each method does is in the modules of this one.
#[async_trait]
impl DeviceService for Grpc {
    async fn create(&self, request: Request<api::CreateDeviceRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let given = required("device", request.device)?;
        let now = clock::now();
        let device = Device { created_at: now, updated_at: now, ..item::read(&given)? };
        let application = self.application(&caller, "application_id", &given.application_id, Access::Write).await?;
        self.check_profile(&device, application.tenant_id).await?;
        self.0.store.create_device(&device).await.map_err(ApiError::from)?;
        reply(())
    }

    async fn get(&self, request: Request<api::GetDeviceRequest>) -> Reply<api::GetDeviceResponse> {
        let (caller, request) = self.admit(request)?;
        let context = self.device_of(&caller, &request.dev_eui, Access::Read).await?;
        let eui = context.device.dev_eui;
        let found = self.0.store.device(eui).await.map_err(ApiError::from)?;
        let (device, seen) = found.ok_or_else(|| ApiError::NotFound(format!("device {eui}")))?;
        reply(api::GetDeviceResponse {
            device: Some(item::write(&device)),
            created_at: Some(clock::timestamp(device.created_at)),
            updated_at: Some(clock::timestamp(device.updated_at)),
            last_seen_at: seen.last_seen_at.map(clock::timestamp),
            device_status: item::status(&seen),
            class_enabled: chirpstack_api::common::DeviceClass::ClassA.into(),
        })
    }

    async fn update(&self, request: Request<api::UpdateDeviceRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let given = required("device", request.device)?;
        let known = self.device_of(&caller, &given.dev_eui, Access::Write).await?;
        let application = self.application(&caller, "application_id", &given.application_id, Access::Write).await?;
        let other_tenant = application.tenant_id != known.application.tenant_id;
        fields::refuse("application_id", other_tenant, "belongs to another tenant")?;
        let device = Device { created_at: known.device.created_at, updated_at: clock::now(), ..item::read(&given)? };
        self.check_profile(&device, application.tenant_id).await?;
        self.0.store.update_device(&device).await.map_err(ApiError::from)?;
        reply(())
    }

    async fn delete(&self, request: Request<api::DeleteDeviceRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let known = self.device_of(&caller, &request.dev_eui, Access::Write).await?;
        self.0.store.delete_device(known.device.dev_eui).await.map_err(ApiError::from)?;
        reply(())
    }

    async fn list(&self, request: Request<api::ListDevicesRequest>) -> Reply<api::ListDevicesResponse> {
        let (caller, request) = self.admit(request)?;
        reply(self.list_devices(&caller, request).await?)
    }

    async fn create_keys(&self, request: Request<api::CreateDeviceKeysRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        reply(self.create_device_keys(&caller, required("device_keys", request.device_keys)?).await?)
    }

    async fn get_keys(&self, request: Request<api::GetDeviceKeysRequest>) -> Reply<api::GetDeviceKeysResponse> {
        let (caller, request) = self.admit(request)?;
        reply(self.get_device_keys(&caller, &request.dev_eui).await?)
    }

    async fn update_keys(&self, request: Request<api::UpdateDeviceKeysRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        reply(self.update_device_keys(&caller, required("device_keys", request.device_keys)?).await?)
    }

    async fn delete_keys(&self, request: Request<api::DeleteDeviceKeysRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        reply(self.delete_device_keys(&caller, &request.dev_eui).await?)
    }

    async fn flush_dev_nonces(&self, request: Request<api::FlushDevNoncesRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let device = self.device_of(&caller, &request.dev_eui, Access::Write).await?.device;
        self.0.store.flush_dev_nonces(device.dev_eui).await.map_err(ApiError::from)?;
        reply(())
    }

    async fn activate(&self, request: Request<api::ActivateDeviceRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        reply(self.activate_device(&caller, required("device_activation", request.device_activation)?).await?)
    }

    async fn deactivate(&self, request: Request<api::DeactivateDeviceRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let context = self.device_of(&caller, &request.dev_eui, Access::Write).await?;
        reply(crate::activation::deactivate(self.0.store.as_ref(), &context).await?)
    }

    async fn get_activation(
        &self,
        request: Request<api::GetDeviceActivationRequest>,
    ) -> Reply<api::GetDeviceActivationResponse> {
        let (caller, request) = self.admit(request)?;
        reply(self.get_device_activation(&caller, &request.dev_eui).await?)
    }

    async fn get_random_dev_addr(
        &self,
        request: Request<api::GetRandomDevAddrRequest>,
    ) -> Reply<api::GetRandomDevAddrResponse> {
        let (caller, request) = self.admit(request)?;
        reply(self.random_dev_addr(&caller, &request).await?)
    }

    async fn enqueue(
        &self,
        request: Request<api::EnqueueDeviceQueueItemRequest>,
    ) -> Reply<api::EnqueueDeviceQueueItemResponse> {
        let (caller, request) = self.admit(request)?;
        reply(self.enqueue_item(&caller, request).await?)
    }

    async fn flush_queue(&self, request: Request<api::FlushDeviceQueueRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let device = self.device_of(&caller, &request.dev_eui, Access::Write).await?.device;
        self.0.store.flush_queue(device.dev_eui, u64::MAX).await.map_err(ApiError::from)?;
        reply(())
    }

    async fn get_queue(
        &self,
        request: Request<api::GetDeviceQueueItemsRequest>,
    ) -> Reply<api::GetDeviceQueueItemsResponse> {
        let (caller, request) = self.admit(request)?;
        reply(self.queue_items(&caller, &request).await?)
    }

    async fn get_next_f_cnt_down(
        &self,
        request: Request<api::GetDeviceNextFCntDownRequest>,
    ) -> Reply<api::GetDeviceNextFCntDownResponse> {
        let (caller, request) = self.admit(request)?;
        reply(self.next_fcnt_down(&caller, &request.dev_eui).await?)
    }

    unserved! { "DeviceService":
        get_metrics(GetDeviceMetricsRequest) -> api::GetDeviceMetricsResponse;
        get_link_metrics(GetDeviceLinkMetricsRequest) -> api::GetDeviceLinkMetricsResponse;
    }
}
