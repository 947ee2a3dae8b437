//! Log-in, API keys, and what the network is.

use std::pin::Pin;

use chirpstack_api::{
    api::{self, internal_service_server::InternalService},
    common,
};
use limpet_shared::region::{Channel, Region};
use limpet_store::List;
use limpet_worker_core::{
    model::{ApiKey, DeviceProfile, RegionSettings},
    session::{default_windows, wanted_windows},
};
use tokio_stream::Stream;
use tonic::{Request, Status, async_trait};
use uuid::Uuid;

use super::{Grpc, Reply, reply, unserved, user};
use crate::{
    ApiError,
    auth::{Access, Client, bearer},
    clock,
    error::Result,
    fields::{self, required},
    lists, quota,
};

type LogStream = Pin<Box<dyn Stream<Item = std::result::Result<api::LogItem, Status>> + Send>>;

fn write_key(key: &ApiKey) -> api::ApiKey {
    api::ApiKey {
        id: key.id.to_string(),
        name: key.name.clone(),
        is_admin: key.is_admin,
        tenant_id: key.tenant_id.map(|id| id.to_string()).unwrap_or_default(),
        is_read_only: key.read_only,
    }
}

/// A key is the network's or one tenant's.
fn read_key(given: &api::ApiKey) -> Result<ApiKey> {
    let tenant_id = fields::optional_id("tenant_id", &given.tenant_id)?;
    if given.is_admin == tenant_id.is_some() {
        return Err(ApiError::invalid("tenant_id", "must be set unless is_admin is, and only then"));
    }
    Ok(ApiKey {
        id: Uuid::new_v4(),
        created_at: clock::now(),
        name: fields::name("name", &given.name)?,
        is_admin: given.is_admin,
        tenant_id,
        read_only: given.is_read_only,
    })
}

/// The band in ChirpStack's numbers.
pub(super) fn band(region: &Region) -> i32 {
    common::Region::from_str_name(region.band()).unwrap_or_default().into()
}

fn describe(region: &Region) -> String {
    match region.uplink_channels().as_slice() {
        [first, .., last] => {
            format!("{}, channels {} to {}", region.band(), first.index, last.index)
        }
        _ => region.band().into(),
    }
}

/// What devices are to have.
fn region_details(region: &Region, settings: &RegionSettings) -> api::GetRegionResponse {
    let windows = wanted_windows(settings, &DeviceProfile::default(), default_windows(region));
    let channel = |channel: &Channel| api::RegionChannel {
        frequency: channel.frequency,
        data_rates: (channel.min_dr..=channel.max_dr).map(u32::from).collect(),
    };
    let channels = match &settings.extra_channels {
        Some(extra) => region.channels_with(extra),
        None => region.uplink_channels(),
    };
    api::GetRegionResponse {
        id: region.name().into(),
        region: band(region),
        uplink_channels: channels.iter().map(channel).collect(),
        rx1_delay: windows.rx1_delay.into(),
        rx1_dr_offset: windows.rx1_dr_offset.into(),
        rx2_dr: windows.rx2_data_rate.into(),
        rx2_frequency: windows.rx2_frequency,
        description: describe(region),
        ..Default::default()
    }
}

#[async_trait]
impl InternalService for Grpc {
    type StreamGatewayFramesStream = LogStream;
    type StreamDeviceFramesStream = LogStream;
    type StreamDeviceEventsStream = LogStream;

    async fn login(&self, request: Request<api::LoginRequest>) -> Reply<api::LoginResponse> {
        let (metadata, extensions, request) = request.into_parts();
        let headers = metadata.into_headers();
        let client = Client::of(&extensions, bearer(&headers));
        reply(api::LoginResponse { jwt: self.0.auth.login(&request.email, &request.password, &client).await? })
    }

    async fn profile(&self, request: Request<()>) -> Reply<api::ProfileResponse> {
        let (caller, ()) = self.admit(request)?;
        reply(api::ProfileResponse { user: Some(user::write(caller.user()?)), ..Default::default() })
    }

    /// Asked for before the log-in: how one may log in.
    async fn settings(&self, _: Request<()>) -> Reply<api::SettingsResponse> {
        reply(api::SettingsResponse {
            openid_connect: Some(api::OpenIdConnect::default()),
            oauth2: Some(api::OAuth2::default()),
            ..Default::default()
        })
    }

    async fn create_api_key(&self, request: Request<api::CreateApiKeyRequest>) -> Reply<api::CreateApiKeyResponse> {
        let (caller, request) = self.admit(request)?;
        caller.network(Access::Write)?;
        let key = read_key(&required("api_key", request.api_key)?)?;
        if let Some(tenant) = key.tenant_id {
            quota::tenant(self.0.store.as_ref(), tenant).await?;
        }
        self.0.store.create_api_key(&key).await.map_err(ApiError::from)?;
        reply(api::CreateApiKeyResponse { id: key.id.to_string(), token: self.0.auth.key_token(&key).await? })
    }

    async fn delete_api_key(&self, request: Request<api::DeleteApiKeyRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        caller.network(Access::Write)?;
        self.0.store.delete_api_key(fields::id("id", &request.id)?).await.map_err(ApiError::from)?;
        reply(())
    }

    async fn list_api_keys(&self, request: Request<api::ListApiKeysRequest>) -> Reply<api::ListApiKeysResponse> {
        let (caller, request) = self.admit(request)?;
        let asked = fields::optional_id("tenant_id", &request.tenant_id)?;
        let tenant = if request.is_admin { None } else { caller.listed_tenant(asked)? };
        if tenant.is_none() {
            caller.network(Access::Read)?;
        }
        let list = List { limit: request.limit.min(lists::MOST), offset: request.offset, tenant, ..List::default() };
        let page = self.0.store.api_keys(request.is_admin, &list).await.map_err(ApiError::from)?;
        reply(api::ListApiKeysResponse { total_count: page.total, result: page.items.iter().map(write_key).collect() })
    }

    async fn list_regions(&self, request: Request<()>) -> Reply<api::ListRegionsResponse> {
        self.admit(request)?;
        let item = |region: &&Region| api::RegionListItem {
            id: region.name().into(),
            region: band(region),
            description: describe(region),
        };
        reply(api::ListRegionsResponse { regions: self.0.regions.all().iter().map(item).collect() })
    }

    async fn get_region(&self, request: Request<api::GetRegionRequest>) -> Reply<api::GetRegionResponse> {
        let (_, request) = self.admit(request)?;
        let region = self.0.regions.by_name(&request.id);
        let region = region.ok_or_else(|| ApiError::NotFound(format!("region {:?}", request.id)))?;
        let settings = self.0.store.network_settings().await.map_err(ApiError::from)?;
        reply(region_details(region, settings.of(region)))
    }

    async fn get_version(&self, request: Request<()>) -> Reply<api::GetVersionResponse> {
        self.admit(request)?;
        reply(api::GetVersionResponse { version: self.0.about.version.clone() })
    }

    unserved! { "InternalService":
        global_search(GlobalSearchRequest) -> api::GlobalSearchResponse;
        open_id_connect_login(OpenIdConnectLoginRequest) -> api::OpenIdConnectLoginResponse;
        o_auth2_login(OAuth2LoginRequest) -> api::OAuth2LoginResponse;
        get_devices_summary(GetDevicesSummaryRequest) -> api::GetDevicesSummaryResponse;
        get_gateways_summary(GetGatewaysSummaryRequest) -> api::GetGatewaysSummaryResponse;
        stream_gateway_frames(StreamGatewayFramesRequest) -> Self::StreamGatewayFramesStream;
        stream_device_frames(StreamDeviceFramesRequest) -> Self::StreamDeviceFramesStream;
        stream_device_events(StreamDeviceEventsRequest) -> Self::StreamDeviceEventsStream;
    }
}
