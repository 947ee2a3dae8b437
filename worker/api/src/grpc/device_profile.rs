//! Device profiles.

mod fields_of;

use chirpstack_api::api::{self, device_profile_service_server::DeviceProfileService};
use limpet_store::{List, StoreError};
use limpet_worker_core::model::DeviceProfile;
use tonic::{Request, async_trait};
use uuid::Uuid;

use super::{Grpc, Reply, reply, unserved};
use crate::{
    ApiError,
    auth::{Access, Caller},
    clock,
    error::Result,
    fields::{self, refuse, required},
    lists, quota,
};

fn list_item(profile: &DeviceProfile) -> api::DeviceProfileListItem {
    let whole = fields_of::write(profile);
    api::DeviceProfileListItem {
        id: whole.id,
        created_at: Some(clock::timestamp(profile.created_at)),
        updated_at: Some(clock::timestamp(profile.updated_at)),
        name: whole.name,
        region: whole.region,
        mac_version: whole.mac_version,
        reg_params_revision: whole.reg_params_revision,
        supports_otaa: whole.supports_otaa,
        ..Default::default()
    }
}

impl Grpc {
    async fn profile_of(
        &self,
        caller: &Caller,
        field: &'static str,
        id: &str,
        access: Access,
    ) -> Result<DeviceProfile> {
        let id = fields::id(field, id)?;
        let found = self.0.store.device_profile(id).await?;
        let profile = found.ok_or_else(|| ApiError::NotFound(format!("device profile {id}")))?;
        caller.of_tenant(profile.tenant_id, access)?;
        Ok(profile)
    }
}

#[async_trait]
impl DeviceProfileService for Grpc {
    async fn create(
        &self,
        request: Request<api::CreateDeviceProfileRequest>,
    ) -> Reply<api::CreateDeviceProfileResponse> {
        let (caller, request) = self.admit(request)?;
        let given = required("device_profile", request.device_profile)?;
        let tenant_id = fields::id("tenant_id", &given.tenant_id)?;
        caller.of_tenant(tenant_id, Access::Write)?;
        let tenant_id = quota::tenant(self.0.store.as_ref(), tenant_id).await?.id;
        let now = clock::now();
        let wanted = fields_of::read(given, &self.0.regions)?;
        let profile = DeviceProfile { id: Uuid::new_v4(), created_at: now, updated_at: now, tenant_id, ..wanted };
        self.0.check_codec(&profile).await?;
        self.0.store.create_device_profile(&profile).await.map_err(ApiError::from)?;
        reply(api::CreateDeviceProfileResponse { id: profile.id.to_string() })
    }

    async fn get(&self, request: Request<api::GetDeviceProfileRequest>) -> Reply<api::GetDeviceProfileResponse> {
        let (caller, request) = self.admit(request)?;
        let profile = self.profile_of(&caller, "id", &request.id, Access::Read).await?;
        reply(api::GetDeviceProfileResponse {
            created_at: Some(clock::timestamp(profile.created_at)),
            updated_at: Some(clock::timestamp(profile.updated_at)),
            device_profile: Some(fields_of::write(&profile)),
        })
    }

    async fn update(&self, request: Request<api::UpdateDeviceProfileRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let given = required("device_profile", request.device_profile)?;
        let known = self.profile_of(&caller, "device_profile.id", &given.id, Access::Write).await?;
        let tenant = fields::optional_id("tenant_id", &given.tenant_id)?;
        refuse("tenant_id", tenant.is_some_and(|t| t != known.tenant_id), "a device profile keeps its tenant")?;
        let profile = DeviceProfile {
            id: known.id,
            created_at: known.created_at,
            updated_at: clock::now(),
            tenant_id: known.tenant_id,
            ..fields_of::read(given, &self.0.regions)?
        };
        self.0.check_codec(&profile).await?;
        self.0.store.update_device_profile(&profile).await.map_err(ApiError::from)?;
        reply(())
    }

    /// A profile that devices use stays.
    async fn delete(&self, request: Request<api::DeleteDeviceProfileRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let profile = self.profile_of(&caller, "id", &request.id, Access::Write).await?;
        self.0.store.delete_device_profile(profile.id).await.map_err(|error| match error {
            StoreError::AlreadyExists(users) => ApiError::Precondition(format!("there is {users}")),
            error => error.into(),
        })?;
        reply(())
    }

    /// There are no global profiles, so a list of those alone is empty.
    async fn list(&self, request: Request<api::ListDeviceProfilesRequest>) -> Reply<api::ListDeviceProfilesResponse> {
        let (caller, request) = self.admit(request)?;
        let tenant = caller.listed_tenant(fields::optional_id("tenant_id", &request.tenant_id)?)?;
        if request.global_only {
            return reply(api::ListDeviceProfilesResponse::default());
        }
        refuse("device_id", !request.device_id.is_empty(), "needs global_only")?;
        let list = List {
            limit: request.limit.min(lists::MOST),
            offset: request.offset,
            search: request.search,
            tenant,
            ..List::default()
        };
        let page = self.0.store.device_profiles(&list).await.map_err(ApiError::from)?;
        reply(api::ListDeviceProfilesResponse {
            total_count: page.total,
            result: page.items.iter().map(list_item).collect(),
        })
    }

    async fn list_adr_algorithms(&self, request: Request<()>) -> Reply<api::ListDeviceProfileAdrAlgorithmsResponse> {
        self.admit(request)?;
        let default = api::AdrAlgorithmListItem {
            id: fields_of::ADR_ALGORITHM.into(),
            name: "Default ADR algorithm (LoRa only)".into(),
        };
        reply(api::ListDeviceProfileAdrAlgorithmsResponse { total_count: 1, result: vec![default] })
    }

    unserved! { "DeviceProfileService":
        get_by_profile_id(GetDeviceProfileByProfileIdRequest) -> api::GetDeviceProfileByProfileIdResponse;
        list_vendors(ListDeviceProfileVendorsRequest) -> api::ListDeviceProfileVendorsResponse;
        get_vendor(GetDeviceProfileVendorRequest) -> api::GetDeviceProfileVendorResponse;
        delete_vendor(DeleteDeviceProfileVendorRequest) -> ();
        list_devices(ListDeviceProfileDevicesRequest) -> api::ListDeviceProfileDevicesResponse;
        get_device(GetDeviceProfileDeviceRequest) -> api::GetDeviceProfileDeviceResponse;
        delete_device(DeleteDeviceProfileDeviceRequest) -> ();
    }
}
