//! What tests ask over ChirpStack's API: the queue, activations, gateways.

use std::net::SocketAddr;

use chirpstack_api::api::{
    ActivateDeviceRequest, DeviceActivation, DeviceQueueItem, EnqueueDeviceQueueItemRequest,
    GetDeviceActivationRequest, GetDeviceQueueItemsRequest, GetGatewayRequest, LoginRequest, UpdateGatewayRequest,
    device_service_client::DeviceServiceClient, gateway_service_client::GatewayServiceClient,
    internal_service_client::InternalServiceClient,
};
use limpet_bench::VirtualDevice;
use limpet_shared::Eui64;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

/// The password of the black-box tests' servers.
pub const PASSWORD: &str = "black-box";

/// A logged-in client.
#[derive(Clone)]
pub struct Api {
    channel: Channel,
    authorization: MetadataValue<Ascii>,
}

impl Api {
    pub async fn log_in(http: SocketAddr) -> Self {
        let channel = Endpoint::from_shared(format!("http://{http}")).unwrap().connect().await.unwrap();
        let login = LoginRequest { email: "admin".into(), password: PASSWORD.into() };
        let token = InternalServiceClient::new(channel.clone()).login(login).await.unwrap().into_inner().jwt;
        Self { channel, authorization: format!("Bearer {token}").parse().unwrap() }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }

    fn devices(&self) -> DeviceServiceClient<Channel> {
        DeviceServiceClient::new(self.channel.clone())
    }

    /// Gives a gateway a tag.
    pub async fn tag_gateway(&self, eui: Eui64, tag: &str, value: &str) -> Result<(), tonic::Status> {
        let mut gateways = GatewayServiceClient::new(self.channel.clone());
        let get = GetGatewayRequest { gateway_id: eui.to_string() };
        let mut gateway = gateways.get(self.request(get)).await?.into_inner().gateway.unwrap();
        gateway.tags.insert(tag.into(), value.into());
        gateways.update(self.request(UpdateGatewayRequest { gateway: Some(gateway) })).await.map(|_| ())
    }

    /// Puts an unconfirmed item into the device's queue; its id.
    pub async fn enqueue(&self, dev_eui: Eui64, f_port: u32, data: &[u8]) -> String {
        self.enqueue_item(dev_eui, f_port, data, false).await
    }

    pub async fn enqueue_item(&self, dev_eui: Eui64, f_port: u32, data: &[u8], confirmed: bool) -> String {
        let item = DeviceQueueItem {
            dev_eui: dev_eui.to_string(),
            confirmed,
            f_port,
            data: data.to_vec(),
            ..Default::default()
        };
        let enqueue = EnqueueDeviceQueueItemRequest { queue_item: Some(item), flush_queue: false };
        self.devices().enqueue(self.request(enqueue)).await.unwrap().into_inner().id
    }

    /// How many items wait in the device's queue.
    pub async fn queue_length(&self, dev_eui: Eui64) -> u32 {
        let get = GetDeviceQueueItemsRequest { dev_eui: dev_eui.to_string(), count_only: true };
        self.devices().get_queue(self.request(get)).await.unwrap().into_inner().total_count
    }

    /// The device's session, as the server has it.
    pub async fn activation(&self, dev_eui: Eui64) -> Option<DeviceActivation> {
        let get = GetDeviceActivationRequest { dev_eui: dev_eui.to_string() };
        self.devices().get_activation(self.request(get)).await.unwrap().into_inner().device_activation
    }

    /// Activates an ABP device anew, with the counters that it has.
    pub async fn activate(&self, device: &VirtualDevice) {
        let session = device.session().unwrap();
        let nwk_s_key = session.keys.nwk_s_key.to_hex();
        let activation = DeviceActivation {
            dev_eui: device.dev_eui().to_string(),
            dev_addr: session.dev_addr.to_string(),
            app_s_key: session.keys.app_s_key.to_hex(),
            nwk_s_enc_key: nwk_s_key.clone(),
            s_nwk_s_int_key: nwk_s_key.clone(),
            f_nwk_s_int_key: nwk_s_key,
            f_cnt_up: session.fcnt_up,
            n_f_cnt_down: session.next_fcnt_down,
            a_f_cnt_down: 0,
        };
        let activate = ActivateDeviceRequest { device_activation: Some(activation) };
        self.devices().activate(self.request(activate)).await.unwrap();
    }
}
