//! A server, and clients of every service that show a token.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use chirpstack_api::api::{
    self, application_service_client::ApplicationServiceClient,
    device_profile_service_client::DeviceProfileServiceClient, device_service_client::DeviceServiceClient,
    gateway_service_client::GatewayServiceClient, internal_service_client::InternalServiceClient,
    tenant_service_client::TenantServiceClient, user_service_client::UserServiceClient,
};
use limpet_api::{Api, ApiState, ClusterView, bootstrap};
use limpet_http::{Counters, Limits, Proxies, Service};
use limpet_shared::{
    Eui64,
    admin::{self, IntegrationBacklog, IntegrationTrouble, Reply, Request as Ask, Server as Peer},
};
use limpet_store::{SqliteStore, Store};
use prometheus::{IntCounterVec, IntGauge, Opts};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, metadata::MetadataValue, transport::Channel};

pub const PASSWORD: &str = "correct horse";
pub const GATEWAY: &str = "0016c001ff10a235";
pub const DEVICE: &str = "0102030405060708";
pub const KEY: &str = "000102030405060708090a0b0c0d0e0f";
pub const OTHER_KEY: &str = "ffeeddccbbaa99887766554433221100";

/// A cluster that counts how often it was told of gateways, and knows one worker.
#[derive(Default)]
pub struct Balancers {
    pub told: AtomicUsize,
    /// What that worker finds failing.
    pub failing: Mutex<Vec<IntegrationTrouble>>,
    /// What it has counted of what waits, if the store does not count for all.
    pub backlog: Mutex<Option<Vec<IntegrationBacklog>>>,
    /// What it was asked about integrations.
    pub asked: Mutex<Vec<Ask>>,
    /// Which gateways it was asked about, each time.
    pub heard: Mutex<Vec<Vec<Eui64>>>,
}

#[async_trait]
impl ClusterView for Balancers {
    async fn gateways_changed(&self) {
        self.told.fetch_add(1, Ordering::SeqCst);
    }
    async fn ask(&self, request: Ask) -> Reply {
        match request {
            Ask::Servers => Reply::Servers {
                servers: vec![Peer {
                    name: "w1".into(),
                    role: "worker".into(),
                    state: "ready".into(),
                    failing: self.failing.lock().unwrap().clone(),
                    ..Peer::default()
                }],
            },
            Ask::IntegrationDrop { .. } | Ask::IntegrationRetry { .. } => {
                self.asked.lock().unwrap().push(request);
                Reply::Done { message: "done".into() }
            }
            Ask::GatewaysHeard { only, .. } => {
                self.heard.lock().unwrap().push(only.clone());
                let of = |eui| admin::Gateway { eui, worker: Some("w1".into()), ..admin::Gateway::default() };
                Reply::gateways(only.into_iter().map(of).collect())
            }
            _ => Reply::gateways(Vec::new()),
        }
    }
    fn backlog(&self) -> Option<Vec<IntegrationBacklog>> {
        self.backlog.lock().unwrap().clone()
    }
}

/// One worker's API.
pub struct Server {
    pub url: String,
    pub store: Arc<dyn Store>,
    pub balancers: Arc<Balancers>,
    pub api: Arc<Api>,
    pub tenant: String,
    token: String,
}

pub fn state(store: Arc<dyn Store>, cluster: Arc<dyn ClusterView>) -> ApiState {
    ApiState {
        store,
        codecs: limpet_codec::Codecs::default(),
        cluster,
        regions: vec!["eu868".into(), "us915_1".into()],
        default_region: "eu868".into(),
        version: "0.1.0-test".into(),
        server: "test".into(),
        gwmp: Some("127.0.0.1:1700".into()),
    }
}

impl Server {
    /// A new network, with the first tenant's id and an administrator's token at hand.
    pub async fn start() -> Self {
        let store: Arc<dyn Store> = SqliteStore::in_memory().unwrap();
        bootstrap(&store, Some(PASSWORD.into())).await.unwrap();
        Self::over(store).await
    }

    /// One more worker of a network.
    pub async fn over(store: Arc<dyn Store>) -> Self {
        Self::with(store, PASSWORD).await
    }

    /// The same, where the administrator has this password.
    pub async fn with(store: Arc<dyn Store>, password: &str) -> Self {
        let balancers = Arc::new(Balancers::default());
        let api = Api::new(state(store.clone(), balancers.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = Service {
            router: api.router(),
            proxies: Proxies::new(["127.0.0.2".parse().unwrap()]),
            limits: Limits::default(),
            counters: Counters {
                open: IntGauge::new("open", "Open.").unwrap(),
                refused: IntCounterVec::new(Opts::new("refused", "Refused."), &["reason"]).unwrap(),
            },
        };
        tokio::spawn(limpet_http::serve(listener, service, CancellationToken::new()));
        let mut server = Self { url, store, balancers, api, tenant: String::new(), token: String::new() };
        server.token = server.login("admin", password).await.unwrap();
        let list = api::ListTenantsRequest { limit: 1, ..Default::default() };
        let tenants = server.tenants().await.list(server.ask(list)).await.unwrap().into_inner();
        server.tenant = tenants.result[0].id.clone();
        server
    }

    pub async fn login(&self, email: &str, password: &str) -> Result<String, Status> {
        let request = api::LoginRequest { email: email.into(), password: password.into() };
        Ok(self.internal().await.login(request).await?.into_inner().jwt)
    }

    /// A request of the administrator.
    pub fn ask<T>(&self, message: T) -> Request<T> {
        with_token(message, &self.token)
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(self.url.clone()).unwrap().connect().await.unwrap()
    }
    pub async fn internal(&self) -> InternalServiceClient<Channel> {
        InternalServiceClient::new(self.channel().await)
    }
    pub async fn users(&self) -> UserServiceClient<Channel> {
        UserServiceClient::new(self.channel().await)
    }
    pub async fn tenants(&self) -> TenantServiceClient<Channel> {
        TenantServiceClient::new(self.channel().await)
    }
    pub async fn applications(&self) -> ApplicationServiceClient<Channel> {
        ApplicationServiceClient::new(self.channel().await)
    }
    pub async fn profiles(&self) -> DeviceProfileServiceClient<Channel> {
        DeviceProfileServiceClient::new(self.channel().await)
    }
    pub async fn gateways(&self) -> GatewayServiceClient<Channel> {
        GatewayServiceClient::new(self.channel().await)
    }
    pub async fn devices(&self) -> DeviceServiceClient<Channel> {
        DeviceServiceClient::new(self.channel().await)
    }

    /// An application of the first tenant.
    pub async fn application(&self, name: &str) -> String {
        let application = api::Application { name: name.into(), tenant_id: self.tenant.clone(), ..Default::default() };
        let request = api::CreateApplicationRequest { application: Some(application) };
        self.applications().await.create(self.ask(request)).await.unwrap().into_inner().id
    }

    /// What ChirpStack's own web interface sends for a new profile.
    pub fn usual_profile(&self) -> api::DeviceProfile {
        api::DeviceProfile {
            name: "class A".into(),
            tenant_id: self.tenant.clone(),
            mac_version: chirpstack_api::common::MacVersion::Lorawan103.into(),
            adr_algorithm_id: "default".into(),
            payload_codec_script: "function decodeUplink(input) {}".into(),
            supports_otaa: true,
            uplink_interval: 3600,
            device_status_req_interval: 1,
            flush_queue_on_activate: true,
            auto_detect_measurements: true,
            class_b_timeout: 30,
            class_c_timeout: 5,
            ..Default::default()
        }
    }

    pub async fn profile(&self, profile: api::DeviceProfile) -> Result<String, Status> {
        let request = api::CreateDeviceProfileRequest { device_profile: Some(profile) };
        Ok(self.profiles().await.create(self.ask(request)).await?.into_inner().id)
    }

    /// A device with application and profile of its own, and their ids.
    pub async fn device(&self, dev_eui: &str) -> api::Device {
        let device = api::Device {
            dev_eui: dev_eui.into(),
            name: format!("device {dev_eui}"),
            application_id: self.application("app").await,
            device_profile_id: self.profile(self.usual_profile()).await.unwrap(),
            ..Default::default()
        };
        self.create_device(device.clone()).await.unwrap();
        device
    }

    pub async fn create_device(&self, device: api::Device) -> Result<Response<()>, Status> {
        let request = api::CreateDeviceRequest { device: Some(device) };
        self.devices().await.create(self.ask(request)).await
    }
}

pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// The status of a call that must fail; its message must not be empty.
pub fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    let status = answer.expect_err("must be refused");
    assert!(!status.message().is_empty(), "{status:?}");
    status.code()
}

/// An `InvalidArgument` names the field.
pub fn refused_field<T: std::fmt::Debug>(answer: Result<T, Status>) -> String {
    let status = answer.expect_err("must be refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    status.message().split(':').next().unwrap().to_owned()
}
