//! The devices, which the network gets to know through its API, and what they send.

use std::{net::SocketAddr, time::Duration};

use chirpstack_api::{
    api::{
        ActivateDeviceRequest, Application, CreateApplicationRequest, CreateDeviceProfileRequest, CreateDeviceRequest,
        CreateGatewayRequest, CreateHttpIntegrationRequest, Device, DeviceActivation, DeviceProfile, Encoding, Gateway,
        HttpIntegration, ListTenantsRequest, LoginRequest, application_service_client::ApplicationServiceClient,
        device_profile_service_client::DeviceProfileServiceClient, device_service_client::DeviceServiceClient,
        gateway_service_client::GatewayServiceClient, internal_service_client::InternalServiceClient,
        tenant_service_client::TenantServiceClient,
    },
    common::{MacVersion, RegParamsRevision, Region},
};
use limpet_shared::{
    AesKey, DevAddr, Eui64,
    gwmp::{self, Datr, Rxpk},
    lorawan::{DataSpec, Direction, FCtrl, Keys, build_data},
};
use tokio::task::JoinSet;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::{Outcome, load::Shot, servers::PASSWORD, sink::Uplink};

/// How many neighbouring gateways hear a device.
const COPIES: usize = 3;
/// Between two copies of an uplink, unless there is less time.
const APART: Duration = Duration::from_millis(1);
/// Calls that go on at once while devices are made.
const PARALLEL: usize = 8;
/// With header and MIC, a PHYPayload of 40 bytes.
const PAYLOAD: [u8; 27] = [0x5a; 27];
/// The three channels that every device of EU868 has, Hz.
const CHANNELS: [u32; 3] = [868_100_000, 868_300_000, 868_500_000];

/// How uplinks are heard, and which one of how many is confirmed.
#[derive(Clone, Copy)]
pub struct Shape {
    pub copies: usize,
    pub confirmed: Option<u32>,
}

impl Default for Shape {
    fn default() -> Self {
        Self { copies: COPIES, confirmed: None }
    }
}

/// Devices with their counters.
pub struct Field {
    fcnt: Vec<u32>,
    next: usize,
    tokens: Vec<u16>,
}

/// An uplink that was written, and which of the shots is its first copy.
pub struct Written {
    pub uplink: Uplink,
    pub device: DevAddr,
    pub first: usize,
}

fn dev_eui(number: usize) -> Eui64 {
    Eui64(0x024c_5100_0000_0000 + number as u64)
}

fn dev_addr(number: usize) -> DevAddr {
    DevAddr(0x0100_0000 + number as u32)
}

fn keys(number: usize) -> Keys {
    let key = |what: u128| AesKey((what << 64 | number as u128).to_be_bytes());
    Keys { nwk_s_key: key(1), app_s_key: key(2) }
}

impl Field {
    /// So many devices and these gateways, made known to the network; events go to the webhook.
    pub async fn provision(http: SocketAddr, devices: usize, gateways: &[Eui64], webhook: SocketAddr) -> Outcome<Self> {
        let api = Api::connect(http).await?;
        let (tenant, application, profile) = api.places(webhook).await?;
        for eui in gateways {
            api.gateway(&tenant, *eui).await?;
        }
        let mut calls = JoinSet::new();
        for lane in 0..PARALLEL {
            let (api, application, profile) = (api.clone(), application.clone(), profile.clone());
            calls.spawn(async move {
                for number in (lane..devices).step_by(PARALLEL) {
                    api.device(number, &application, &profile).await?;
                }
                Outcome::Ok(())
            });
        }
        while let Some(done) = calls.join_next().await {
            done??;
        }
        Ok(Self { fcnt: vec![0; devices], next: 0, tokens: vec![0; gateways.len()] })
    }

    /// What they send at that rate for so long: each device in turn, heard by neighbouring gateways.
    pub fn shots(&mut self, rate: u32, length: Duration, shape: Shape) -> Outcome<(Vec<Shot>, Vec<Written>)> {
        let uplinks = (length.as_secs_f64() * f64::from(rate)) as usize;
        let apart = APART.min(Duration::from_secs(1) / rate / shape.copies as u32);
        let (mut shots, mut written) = (Vec::with_capacity(uplinks * shape.copies), Vec::with_capacity(uplinks));
        for number in 0..uplinks {
            let at = Duration::from_secs_f64(number as f64 / f64::from(rate));
            let confirmed = shape.confirmed.is_some_and(|one_in| number % one_in as usize == 0);
            let (uplink, device, phy) = self.uplink(confirmed)?;
            written.push(Written { uplink, device: dev_addr(device), first: shots.len() });
            for copy in 0..shape.copies {
                let gateway = (device + copy) % self.tokens.len();
                let at = at + apart * copy as u32;
                shots.push(Shot { at, gateway, datagram: self.heard(gateway, at, number, &phy) });
            }
        }
        Ok((shots, written))
    }

    fn uplink(&mut self, confirmed: bool) -> Outcome<(Uplink, usize, Vec<u8>)> {
        let device = self.next;
        self.next = (self.next + 1) % self.fcnt.len();
        let fcnt = self.fcnt.get_mut(device).ok_or("no devices")?;
        *fcnt += 1;
        let spec = DataSpec {
            direction: Direction::Up,
            confirmed,
            dev_addr: dev_addr(device),
            fctrl: FCtrl::default(),
            fcnt: *fcnt,
            fopts: &[],
            fport: Some(10),
            payload: &PAYLOAD,
        };
        Ok(((dev_eui(device), *fcnt), device, build_data(&spec, &keys(device))?))
    }

    fn heard(&mut self, gateway: usize, at: Duration, number: usize, phy: &[u8]) -> Vec<u8> {
        let datr = Datr::Lora { spreading_factor: 7, bandwidth_khz: 125 };
        let channel = number % CHANNELS.len();
        let packet = Rxpk {
            tmst: Some(1_000_000 + at.as_micros() as u32),
            chan: Some(channel as u32),
            rfch: Some(1),
            codr: Some("4/5".into()),
            rssi: Some(-80 - gateway as i32 % 30),
            lsnr: Some(7.5),
            time: Some("2026-01-01T00:00:00.000000Z".into()),
            ..Rxpk::new(CHANNELS.get(channel).copied().unwrap_or_default(), datr, phy.to_vec())
        };
        let token = self.tokens.get_mut(gateway).map_or(0, |token| {
            *token = token.wrapping_add(1);
            *token
        });
        let eui = Eui64(0x024c_5000_0000_0000 + gateway as u64);
        gwmp::push_data(2, token, eui, &gwmp::push_data_json(&[packet], None))
    }
}

/// A log-in.
#[derive(Clone)]
struct Api {
    channel: Channel,
    authorization: MetadataValue<Ascii>,
}

impl Api {
    async fn connect(http: SocketAddr) -> Outcome<Self> {
        let channel = Endpoint::from_shared(format!("http://{http}"))?.connect().await?;
        let login = LoginRequest { email: "admin".into(), password: PASSWORD.into() };
        let token = InternalServiceClient::new(channel.clone()).login(login).await?.into_inner().jwt;
        Ok(Self { channel, authorization: format!("Bearer {token}").parse()? })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }

    /// Ids of the tenant, an application with the webhook, and a profile.
    async fn places(&self, webhook: SocketAddr) -> Outcome<(String, String, String)> {
        let list = self.request(ListTenantsRequest { limit: 1, ..Default::default() });
        let tenants = TenantServiceClient::new(self.channel.clone()).list(list).await?.into_inner();
        let tenant = tenants.result.into_iter().next().ok_or("no tenant")?.id;
        let application = Application { name: "cost".into(), tenant_id: tenant.clone(), ..Default::default() };
        let mut applications = ApplicationServiceClient::new(self.channel.clone());
        let create = self.request(CreateApplicationRequest { application: Some(application) });
        let application = applications.create(create).await?.into_inner().id;
        let integration = HttpIntegration {
            application_id: application.clone(),
            encoding: Encoding::Json.into(),
            event_endpoint_url: format!("http://{webhook}/"),
            ..Default::default()
        };
        let create = self.request(CreateHttpIntegrationRequest { integration: Some(integration) });
        applications.create_http_integration(create).await?;
        let profile = DeviceProfile {
            tenant_id: tenant.clone(),
            name: "cost".into(),
            region: Region::Eu868.into(),
            mac_version: MacVersion::Lorawan104.into(),
            reg_params_revision: RegParamsRevision::Rp002104.into(),
            adr_algorithm_id: "default".into(),
            uplink_interval: 3600,
            ..Default::default()
        };
        let create = self.request(CreateDeviceProfileRequest { device_profile: Some(profile) });
        let profile = DeviceProfileServiceClient::new(self.channel.clone()).create(create).await?.into_inner().id;
        Ok((tenant, application, profile))
    }

    async fn gateway(&self, tenant: &str, eui: Eui64) -> Outcome<()> {
        let gateway = Gateway {
            gateway_id: eui.to_string(),
            name: eui.to_string(),
            tenant_id: tenant.into(),
            stats_interval: 30,
            ..Default::default()
        };
        let create = self.request(CreateGatewayRequest { gateway: Some(gateway) });
        GatewayServiceClient::new(self.channel.clone()).create(create).await?;
        Ok(())
    }

    async fn device(&self, number: usize, application: &str, profile: &str) -> Outcome<()> {
        let mut devices = DeviceServiceClient::new(self.channel.clone());
        let (dev_eui, keys) = (dev_eui(number).to_string(), keys(number));
        let device = Device {
            dev_eui: dev_eui.clone(),
            name: dev_eui.clone(),
            application_id: application.into(),
            device_profile_id: profile.into(),
            ..Default::default()
        };
        devices.create(self.request(CreateDeviceRequest { device: Some(device) })).await?;
        let network = keys.nwk_s_key.to_hex();
        let activation = DeviceActivation {
            dev_eui,
            dev_addr: dev_addr(number).to_string(),
            app_s_key: keys.app_s_key.to_hex(),
            nwk_s_enc_key: network.clone(),
            s_nwk_s_int_key: network.clone(),
            f_nwk_s_int_key: network,
            ..Default::default()
        };
        let activate = ActivateDeviceRequest { device_activation: Some(activation) };
        devices.activate(self.request(activate)).await?;
        Ok(())
    }
}
