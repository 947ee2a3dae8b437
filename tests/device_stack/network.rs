//! `limpet up` with three gateways, one device and a webhook, provisioned as ChirpStack's clients do it.

use std::{sync::Arc, time::Duration};

use chirpstack_api::api::{
    Application, CreateApplicationRequest, CreateDeviceKeysRequest, CreateDeviceProfileRequest, CreateDeviceRequest,
    CreateGatewayRequest, CreateHttpIntegrationRequest, Device, DeviceKeys, DeviceProfile, DeviceQueueItem, Encoding,
    EnqueueDeviceQueueItemRequest, Gateway, GetDeviceQueueItemsRequest, HttpIntegration, ListTenantsRequest,
    LoginRequest, application_service_client::ApplicationServiceClient,
    device_profile_service_client::DeviceProfileServiceClient, device_service_client::DeviceServiceClient,
    gateway_service_client::GatewayServiceClient, internal_service_client::InternalServiceClient,
    tenant_service_client::TenantServiceClient,
};
use chirpstack_api::common::{MacVersion, RegParamsRevision};
use limpet_bench::{GatewayConfig, VirtualGateway};
use limpet_shared::Eui64;
use lorawan_device::{AppEui, AppKey, DevEui, JoinMode};
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::{
    plan::{Band, Item},
    radio::Antenna,
    support::{Limpet, Webhook, ctl, eventually, free_addresses},
};

const PASSWORD: &str = "a device stack";
const DEV_EUI: Eui64 = Eui64(0x0250_0000_0000_00d1);
const JOIN_EUI: Eui64 = Eui64(0x0250_0000_0000_0001);
const APP_KEY: [u8; 16] = *b"a key to join by";

pub struct Network {
    limpet: Limpet,
    channel: Channel,
    authorization: MetadataValue<Ascii>,
    pub webhook: Webhook,
    pub gateways: Vec<Arc<VirtualGateway>>,
    folder: tempfile::TempDir,
}

impl Network {
    pub async fn start(band: &Band) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let addresses = free_addresses();
        let [gwmp, link, admin, http] = addresses.map(|a| a.to_string());
        let data = folder.path().join("data");
        let arguments = [
            &["up", "--region", band.name, "--data", data.to_str().unwrap(), "--gwmp", &gwmp, "--link", &link][..],
            &["--admin", &admin, "--http", &http, "--admin-password", PASSWORD],
        ];
        let mut limpet = Limpet::start(band.name, &arguments.concat());
        limpet.ready(addresses[3]).await;
        let channel = Endpoint::from_shared(format!("http://{http}")).unwrap().connect().await.unwrap();
        let login = LoginRequest { email: "admin".into(), password: PASSWORD.into() };
        let token = InternalServiceClient::new(channel.clone()).login(login).await.unwrap().into_inner().jwt;
        let mut network = Self {
            limpet,
            channel,
            authorization: format!("Bearer {token}").parse().unwrap(),
            webhook: Webhook::start().await,
            gateways: Vec::new(),
            folder,
        };
        network.provision(band).await;
        network.start_gateways(addresses[0]).await;
        network
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }

    async fn provision(&self, band: &Band) {
        let list = self.request(ListTenantsRequest { limit: 1, ..Default::default() });
        let tenants = TenantServiceClient::new(self.channel.clone()).list(list).await.unwrap().into_inner();
        let tenant = tenants.result[0].id.clone();
        for number in 0..3 {
            let gateway = Gateway {
                gateway_id: gateway_eui(number).to_string(),
                name: format!("gateway {number}"),
                tenant_id: tenant.clone(),
                stats_interval: 30,
                ..Default::default()
            };
            let create = self.request(CreateGatewayRequest { gateway: Some(gateway) });
            GatewayServiceClient::new(self.channel.clone()).create(create).await.unwrap();
        }
        let application = self.application(&tenant).await;
        self.device(band, &tenant, application).await;
    }

    async fn application(&self, tenant: &str) -> String {
        let mut client = ApplicationServiceClient::new(self.channel.clone());
        let application = Application { name: "stack".into(), tenant_id: tenant.into(), ..Default::default() };
        let create = self.request(CreateApplicationRequest { application: Some(application) });
        let id = client.create(create).await.unwrap().into_inner().id;
        let integration = HttpIntegration {
            application_id: id.clone(),
            encoding: Encoding::Json.into(),
            event_endpoint_url: self.webhook.url(),
            ..Default::default()
        };
        let create = self.request(CreateHttpIntegrationRequest { integration: Some(integration) });
        client.create_http_integration(create).await.unwrap();
        id
    }

    async fn device(&self, band: &Band, tenant: &str, application_id: String) {
        let profile = DeviceProfile {
            tenant_id: tenant.into(),
            name: band.name.into(),
            region: band.api.into(),
            // The stack rolls dice for its DevNonces, which 1.0.4 would forbid; and it reads both kinds of CFList.
            mac_version: MacVersion::Lorawan103.into(),
            reg_params_revision: RegParamsRevision::A.into(),
            adr_algorithm_id: "default".into(),
            uplink_interval: 3600,
            supports_otaa: true,
            ..Default::default()
        };
        let create = self.request(CreateDeviceProfileRequest { device_profile: Some(profile) });
        let profile = DeviceProfileServiceClient::new(self.channel.clone()).create(create).await.unwrap();
        let device = Device {
            dev_eui: DEV_EUI.to_string(),
            name: "stack".into(),
            application_id,
            device_profile_id: profile.into_inner().id,
            join_eui: JOIN_EUI.to_string(),
            ..Default::default()
        };
        let mut client = DeviceServiceClient::new(self.channel.clone());
        client.create(self.request(CreateDeviceRequest { device: Some(device) })).await.unwrap();
        // For LoRaWAN 1.0.x this field holds the AppKey.
        let nwk_key = APP_KEY.iter().map(|byte| format!("{byte:02x}")).collect();
        let keys = DeviceKeys { dev_eui: DEV_EUI.to_string(), nwk_key, ..Default::default() };
        client.create_keys(self.request(CreateDeviceKeysRequest { device_keys: Some(keys) })).await.unwrap();
    }

    /// Their counters start anywhere, and one of them wraps during the test.
    async fn start_gateways(&mut self, gwmp: std::net::SocketAddr) {
        for (number, tmst_start) in [5_000_000, u32::MAX - 20_000_000, 2_000_000_000].into_iter().enumerate() {
            let config = GatewayConfig { tmst_start, ..GatewayConfig::new(gateway_eui(number), gwmp) };
            self.gateways.push(Arc::new(VirtualGateway::start(config).await.unwrap()));
        }
        for gateway in &self.gateways {
            let what = format!("PULL_ACK at gateway {}", gateway.eui());
            eventually(&what, async || (gateway.counters().pull_acked > 0).then_some(())).await;
        }
    }

    /// The gateways, each with what it makes of the device: the second hears it best, the third reports late.
    pub fn antennas(&self) -> Vec<Antenna> {
        let heard = [(-101, -3.5, 12), (-64, 8.0, 0), (-95, 2.25, 35)];
        let antenna = |(gateway, (rssi, snr, delay)): (&Arc<VirtualGateway>, _)| {
            Antenna::new(gateway.clone(), rssi, snr, Duration::from_millis(delay))
        };
        self.gateways.iter().zip(heard).map(antenna).collect()
    }

    /// Puts an item into the device's queue; its id.
    pub async fn enqueue(&self, item: &Item) -> String {
        let queue_item = DeviceQueueItem {
            dev_eui: DEV_EUI.to_string(),
            confirmed: item.confirmed,
            f_port: item.fport.into(),
            data: item.data.to_vec(),
            ..Default::default()
        };
        let enqueue = self.request(EnqueueDeviceQueueItemRequest { queue_item: Some(queue_item), flush_queue: false });
        DeviceServiceClient::new(self.channel.clone()).enqueue(enqueue).await.unwrap().into_inner().id
    }

    /// How many items wait in the device's queue.
    pub async fn queue_length(&self) -> u32 {
        let get = self.request(GetDeviceQueueItemsRequest { dev_eui: DEV_EUI.to_string(), count_only: true });
        DeviceServiceClient::new(self.channel.clone()).get_queue(get).await.unwrap().into_inner().total_count
    }

    /// `limpet ctl` beside it, which has to be answered.
    pub fn ctl(&self, arguments: &[&str]) {
        let told = ctl(&self.folder.path().join("data"), arguments);
        assert!(told.status.success(), "{arguments:?}: {told:?}");
    }

    /// SIGTERM; it has to end by itself, and well.
    pub async fn stop(self) {
        self.limpet.terminate();
        let stopped = self.limpet.stopped().await;
        assert!(stopped.status.success(), "{stopped:?}");
    }
}

fn gateway_eui(number: usize) -> Eui64 {
    Eui64(0x0250_0000_0000_0a00 + number as u64)
}

/// What the device is born with; EUIs are least significant byte first in the stack.
pub fn credentials() -> JoinMode {
    JoinMode::OTAA {
        deveui: DevEui::from(DEV_EUI.0.to_le_bytes()),
        appeui: AppEui::from(JOIN_EUI.0.to_le_bytes()),
        appkey: AppKey::from(APP_KEY),
    }
}
