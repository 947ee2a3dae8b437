//! What tests ask over ChirpStack's API: the queue, activations, gateways.

use std::net::SocketAddr;

use chirpstack_api::{
    api::{
        ActivateDeviceRequest, CodecRuntime, DeviceActivation, DeviceProfile, DeviceQueueItem,
        EnqueueDeviceQueueItemRequest, GetDeviceActivationRequest, GetDeviceProfileRequest, GetDeviceQueueItemsRequest,
        GetDeviceRequest, GetDeviceResponse, GetGatewayRequest, LoginRequest, UpdateDeviceProfileRequest,
        UpdateGatewayRequest, device_profile_service_client::DeviceProfileServiceClient,
        device_service_client::DeviceServiceClient, gateway_service_client::GatewayServiceClient,
        internal_service_client::InternalServiceClient,
    },
    prost_types::{Struct, Value, value::Kind},
};
use limpet_bench::{Session, VirtualDevice};
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
        Self::log_in_with(http, PASSWORD).await
    }

    pub async fn log_in_with(http: SocketAddr, password: &str) -> Self {
        let channel = Endpoint::from_shared(format!("http://{http}")).unwrap().connect().await.unwrap();
        let login = LoginRequest { email: "admin".into(), password: password.into() };
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

    /// The same under an id of the caller's, for one who does not know whether it was taken before.
    pub async fn enqueue_as(&self, id: &str, dev_eui: Eui64, data: &[u8]) -> Result<(), tonic::Status> {
        let (id, dev_eui, data) = (id.to_owned(), dev_eui.to_string(), data.to_vec());
        let item = DeviceQueueItem { id, dev_eui, f_port: 10, data, ..Default::default() };
        let enqueue = EnqueueDeviceQueueItemRequest { queue_item: Some(item), flush_queue: false };
        match self.devices().enqueue(self.request(enqueue)).await {
            Err(status) if status.code() != tonic::Code::AlreadyExists => Err(status),
            _ => Ok(()),
        }
    }

    /// Gives the device's profile, which others may have too, another RX1 delay; it counts from the next activation on.
    pub async fn set_rx1_delay(&self, dev_eui: Eui64, seconds: u32) {
        self.change_profile(dev_eui, |profile| profile.abp_rx1_delay = seconds).await;
    }

    /// A device with what is known of it.
    pub async fn device(&self, dev_eui: Eui64) -> GetDeviceResponse {
        let get = GetDeviceRequest { dev_eui: dev_eui.to_string() };
        self.devices().get(self.request(get)).await.unwrap().into_inner()
    }

    /// Changes the device's profile, which others may have too.
    pub async fn change_profile(&self, dev_eui: Eui64, change: impl FnOnce(&mut DeviceProfile)) {
        let device = self.device(dev_eui).await.device.unwrap();
        let mut profiles = DeviceProfileServiceClient::new(self.channel.clone());
        let get = GetDeviceProfileRequest { id: device.device_profile_id };
        let mut profile = profiles.get(self.request(get)).await.unwrap().into_inner().device_profile.unwrap();
        change(&mut profile);
        let update = UpdateDeviceProfileRequest { device_profile: Some(profile) };
        profiles.update(self.request(update)).await.unwrap();
    }

    /// Gives the device's profile a script.
    pub async fn set_codec(&self, dev_eui: Eui64, script: &str) {
        let get = GetDeviceRequest { dev_eui: dev_eui.to_string() };
        let device = self.devices().get(self.request(get)).await.unwrap().into_inner().device.unwrap();
        let mut profiles = DeviceProfileServiceClient::new(self.channel.clone());
        let get = GetDeviceProfileRequest { id: device.device_profile_id };
        let mut profile = profiles.get(self.request(get)).await.unwrap().into_inner().device_profile.unwrap();
        (profile.payload_codec_runtime, profile.payload_codec_script) = (CodecRuntime::Js.into(), script.into());
        let update = UpdateDeviceProfileRequest { device_profile: Some(profile) };
        profiles.update(self.request(update)).await.unwrap();
    }

    /// Puts an object of texts into the queue.
    pub async fn enqueue_object(
        &self,
        dev_eui: Eui64,
        f_port: u32,
        fields: &[(&str, &str)],
    ) -> Result<(), tonic::Status> {
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.into())) };
        let fields = fields.iter().map(|(key, value)| ((*key).into(), text(value))).collect();
        let dev_eui = dev_eui.to_string();
        let item = DeviceQueueItem { dev_eui, f_port, object: Some(Struct { fields }), ..Default::default() };
        let enqueue = EnqueueDeviceQueueItemRequest { queue_item: Some(item), flush_queue: false };
        self.devices().enqueue(self.request(enqueue)).await.map(|_| ())
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
        self.activate_as(device.dev_eui(), device.session().unwrap()).await;
    }

    /// The same, as this session has it.
    pub async fn activate_as(&self, dev_eui: Eui64, session: &Session) {
        let nwk_s_key = session.keys.nwk_s_key.to_hex();
        let activation = DeviceActivation {
            dev_eui: dev_eui.to_string(),
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
