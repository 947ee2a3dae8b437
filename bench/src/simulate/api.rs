//! Provisioning over ChirpStack's gRPC API.

use std::sync::Arc;

use chirpstack_api::{
    api::{
        Application, CreateApplicationRequest, CreateDeviceKeysRequest, CreateDeviceProfileRequest,
        CreateDeviceRequest, CreateGatewayRequest, Device, DeviceKeys, DeviceProfile, DeviceQueueItem,
        EnqueueDeviceQueueItemRequest, FlushDevNoncesRequest, Gateway, ListApplicationsRequest,
        ListDeviceProfilesRequest, ListTenantsRequest, LoginRequest,
        application_service_client::ApplicationServiceClient,
        device_profile_service_client::DeviceProfileServiceClient, device_service_client::DeviceServiceClient,
        gateway_service_client::GatewayServiceClient, internal_service_client::InternalServiceClient,
        tenant_service_client::TenantServiceClient,
    },
    common::{MacVersion, RegParamsRevision, Region},
};
use limpet_shared::Eui64;
use tokio::{sync::Semaphore, task::JoinSet};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::config::{ApiAccess, Credentials, Plan};

/// How many calls are under way at once while devices are made.
const PARALLEL: usize = 16;
/// How many applications or profiles are searched for one of our name.
const SEARCH: u32 = 100;

/// Why the API could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("--api {url}: {}", innermost(.source))]
    Connect { url: String, source: tonic::transport::Error },
    #[error("the API key has characters that no key has")]
    BadKey,
    #[error("{what}: {} ({:?})", .status.message(), .status.code())]
    Refused { what: String, status: Box<Status> },
    #[error("the API shows no tenant to this user")]
    NoTenant,
    #[error("the API knows no region {0}")]
    UnknownRegion(String),
}

/// What the network said; the errors around it say only that there was one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A connection with the right to use it.
#[derive(Clone, Debug)]
pub(super) struct Api {
    channel: Channel,
    authorization: MetadataValue<Ascii>,
}

/// Names the call that an error came from.
fn while_doing(what: impl Into<String>) -> impl FnOnce(Status) -> ApiError {
    let what = what.into();
    move |status| ApiError::Refused { what, status: Box::new(status) }
}

/// What exists already is what was asked for: true if it is new.
fn new_or_there<T>(result: Result<T, Status>) -> Result<bool, Status> {
    match result {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::AlreadyExists => Ok(false),
        Err(status) => Err(status),
    }
}

impl Api {
    /// Connects, and logs in unless there is a key.
    pub(super) async fn connect(access: &ApiAccess) -> Result<Self, ApiError> {
        let failed = |source| ApiError::Connect { url: access.url.clone(), source };
        let endpoint = Endpoint::from_shared(access.url.clone()).map_err(failed)?;
        let channel = endpoint.connect().await.map_err(failed)?;
        let token = match &access.credentials {
            Credentials::ApiKey(key) => key.clone(),
            Credentials::Password { user, password } => {
                let login = LoginRequest { email: user.clone(), password: password.clone() };
                let reply = InternalServiceClient::new(channel.clone()).login(login).await;
                reply.map_err(while_doing(format!("log in as {user}")))?.into_inner().jwt
            }
        };
        let mut authorization: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| ApiError::BadKey)?;
        authorization.set_sensitive(true);
        Ok(Self { channel, authorization })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }

    /// Makes all that the plan needs, in the first tenant. What is there already stays as it is.
    pub(super) async fn provision(&self, plan: &Plan) -> Result<(), ApiError> {
        let list = self.request(ListTenantsRequest { limit: 1, ..Default::default() });
        let tenants = TenantServiceClient::new(self.channel.clone()).list(list).await;
        let tenants = tenants.map_err(while_doing("list tenants"))?.into_inner();
        let tenant = tenants.result.into_iter().next().ok_or(ApiError::NoTenant)?.id;
        for index in 0..plan.gateways {
            self.create_gateway(&tenant, plan.identities.gateway(index)).await?;
        }
        let application = self.application(&tenant).await?;
        let profile = self.device_profile(&tenant, plan).await?;
        self.create_devices(plan, &application, &profile).await
    }

    async fn create_gateway(&self, tenant: &str, eui: Eui64) -> Result<(), ApiError> {
        let gateway = Gateway {
            gateway_id: eui.to_string(),
            name: format!("simulated {eui}"),
            tenant_id: tenant.into(),
            stats_interval: 30,
            ..Default::default()
        };
        let request = self.request(CreateGatewayRequest { gateway: Some(gateway) });
        let created = GatewayServiceClient::new(self.channel.clone()).create(request).await;
        new_or_there(created).map_err(while_doing(format!("create gateway {eui}")))?;
        Ok(())
    }

    async fn application(&self, tenant: &str) -> Result<String, ApiError> {
        let name = "Simulated";
        let mut client = ApplicationServiceClient::new(self.channel.clone());
        let list = ListApplicationsRequest {
            limit: SEARCH,
            search: name.into(),
            tenant_id: tenant.into(),
            ..Default::default()
        };
        let found = client.list(self.request(list)).await.map_err(while_doing("list applications"))?.into_inner();
        if let Some(there) = found.result.into_iter().find(|application| application.name == name) {
            return Ok(there.id);
        }
        let application = Application { name: name.into(), tenant_id: tenant.into(), ..Default::default() };
        let create = self.request(CreateApplicationRequest { application: Some(application) });
        Ok(client.create(create).await.map_err(while_doing("create the application"))?.into_inner().id)
    }

    async fn device_profile(&self, tenant: &str, plan: &Plan) -> Result<String, ApiError> {
        let band = plan.region.band();
        let name = format!("Simulated {band}");
        let mut client = DeviceProfileServiceClient::new(self.channel.clone());
        let list = ListDeviceProfilesRequest {
            limit: SEARCH,
            search: name.clone(),
            tenant_id: tenant.into(),
            ..Default::default()
        };
        let found = client.list(self.request(list)).await.map_err(while_doing("list device profiles"))?.into_inner();
        if let Some(there) = found.result.into_iter().find(|profile| profile.name == name) {
            return Ok(there.id);
        }
        let region = Region::from_str_name(band).ok_or_else(|| ApiError::UnknownRegion(band.into()))?;
        let profile = DeviceProfile {
            tenant_id: tenant.into(),
            name,
            region: region.into(),
            mac_version: MacVersion::Lorawan104.into(),
            reg_params_revision: RegParamsRevision::Rp002104.into(),
            adr_algorithm_id: "default".into(),
            uplink_interval: 3600,
            supports_otaa: true,
            ..Default::default()
        };
        let create = self.request(CreateDeviceProfileRequest { device_profile: Some(profile) });
        Ok(client.create(create).await.map_err(while_doing("create the device profile"))?.into_inner().id)
    }

    async fn create_devices(&self, plan: &Plan, application: &str, profile: &str) -> Result<(), ApiError> {
        let places = Arc::new(Semaphore::new(PARALLEL));
        let mut calls = JoinSet::new();
        for index in 0..plan.devices {
            let (api, places) = (self.clone(), places.clone());
            let device = Device {
                dev_eui: plan.identities.device(index).to_string(),
                name: format!("simulated {index}"),
                application_id: application.into(),
                device_profile_id: profile.into(),
                join_eui: plan.identities.join_eui().to_string(),
                ..Default::default()
            };
            let key = plan.identities.app_key(index).to_hex();
            calls.spawn(async move {
                let _place = places.acquire().await;
                api.create_device(device, key).await
            });
        }
        while let Some(done) = calls.join_next().await {
            match done {
                Ok(result) => result?,
                Err(error) => tracing::error!(%error, "a call broke down"),
            }
        }
        Ok(())
    }

    async fn create_device(&self, device: Device, app_key: String) -> Result<(), ApiError> {
        let mut client = DeviceServiceClient::new(self.channel.clone());
        let dev_eui = device.dev_eui.clone();
        let create = self.request(CreateDeviceRequest { device: Some(device) });
        let new = new_or_there(client.create(create).await).map_err(while_doing(format!("create device {dev_eui}")))?;
        // For LoRaWAN 1.0.x this field holds the AppKey.
        let keys = DeviceKeys { dev_eui: dev_eui.clone(), nwk_key: app_key, ..Default::default() };
        let create = self.request(CreateDeviceKeysRequest { device_keys: Some(keys) });
        new_or_there(client.create_keys(create).await).map_err(while_doing(format!("set the key of {dev_eui}")))?;
        if !new {
            // DevNonces start again with the clock; a server that does not forget old ones may refuse them.
            let flush = self.request(FlushDevNoncesRequest { dev_eui: dev_eui.clone() });
            if let Err(status) = client.flush_dev_nonces(flush).await {
                tracing::warn!(%dev_eui, %status, "DevNonces not flushed");
            }
        }
        Ok(())
    }

    /// Puts an unconfirmed downlink into a device's queue.
    pub(super) async fn enqueue(&self, dev_eui: Eui64, fport: u8, data: &[u8]) -> Result<(), ApiError> {
        let item = DeviceQueueItem {
            dev_eui: dev_eui.to_string(),
            f_port: fport.into(),
            data: data.to_vec(),
            ..Default::default()
        };
        let request = self.request(EnqueueDeviceQueueItemRequest { queue_item: Some(item), flush_queue: false });
        let done = DeviceServiceClient::new(self.channel.clone()).enqueue(request).await;
        done.map_err(while_doing(format!("enqueue for {dev_eui}")))?;
        Ok(())
    }
}
