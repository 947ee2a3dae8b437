//! `limpet ctl device add`: a device, and what it stands in where that is missing.

use limpet_shared::{
    AesKey,
    admin::{DeviceAdd, Reply},
    region::Region,
};
use limpet_store::{List, StoreError};
use limpet_worker_core::model::{Activation, Application, Device, DeviceProfile, HttpIntegration, MacVersion, Tags};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::{
    Api, ApiError,
    activation::{activate, need_room},
    clock,
    error::Result,
    fields,
    grpc::check_http,
    lists,
};

/// The application of devices that name none.
const APPLICATION: &str = "default";
/// Seconds; what ChirpStack's clients set unless told otherwise.
const UPLINK_INTERVAL: u32 = 3600;

/// Who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// At a worker.
    Operator,
    /// A machine at the edge, which knows no payload. Perhaps an operator sits there.
    Balancer,
}

/// How the device gets its session.
enum Way {
    Otaa(AesKey),
    Abp(Box<Activation>),
}

impl Way {
    fn of(wanted: &DeviceAdd) -> Result<Self> {
        match (wanted.app_key, wanted.dev_addr, wanted.nwk_s_key, wanted.app_s_key) {
            (Some(app_key), None, None, None) => Ok(Self::Otaa(app_key)),
            (None, Some(dev_addr), Some(nwk_s_key), Some(app_s_key)) => Ok(Self::Abp(Box::new(Activation {
                dev_eui: wanted.dev_eui,
                dev_addr,
                nwk_s_key,
                app_s_key,
                ..Activation::default()
            }))),
            _ => Err(ApiError::invalid(
                "keys",
                "give an AppKey for OTAA, or DevAddr, NwkSKey and AppSKey for ABP, and not both",
            )),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Otaa(_) => "OTAA",
            Self::Abp(_) => "ABP",
        }
    }

    fn app_key(&self) -> Option<AesKey> {
        match self {
            Self::Otaa(app_key) => Some(*app_key),
            Self::Abp(_) => None,
        }
    }
}

impl Api {
    /// Everything that can be refused is refused before anything is written.
    pub(super) async fn add_device(&self, wanted: DeviceAdd, asker: Asker) -> Result<Reply> {
        let way = Way::of(&wanted)?;
        let region = self.region_called(wanted.region.as_deref())?;
        let mac_version = mac_version(wanted.mac_version.as_deref().unwrap_or("1.0.3"))?;
        let name = fields::name("name", &wanted.name.unwrap_or_else(|| wanted.dev_eui.to_string()))?;
        let webhook = wanted.webhook.map(webhook).transpose()?;
        if self.store.device(wanted.dev_eui).await?.is_some() {
            return Err(ApiError::AlreadyExists(format!("device {}", wanted.dev_eui)));
        }
        let application = wanted.application.as_deref().unwrap_or(APPLICATION);
        let application = self.application_called(fields::name("application", application)?, webhook, asker).await?;
        let now = clock::now();
        let device = Device {
            dev_eui: wanted.dev_eui,
            created_at: now,
            updated_at: now,
            application_id: application.id,
            device_profile_id: self.profile_for(application.tenant_id, region, mac_version, &way).await?,
            name,
            join_eui: wanted.join_eui.unwrap_or_default(),
            app_key: way.app_key(),
            ..Device::default()
        };
        if let Way::Abp(activation) = &way {
            need_room(self.store.as_ref(), activation).await?;
        }
        self.store.create_device(&device).await?;
        if let Way::Abp(activation) = &way {
            let context = self.store.device_context(device.dev_eui).await?;
            let context = context.ok_or_else(|| ApiError::NotFound(format!("device {}", device.dev_eui)))?;
            activate(self, &context, activation).await?;
        }
        let (eui, how, region) = (device.dev_eui, way.name(), region.name());
        Ok(Reply::Done {
            message: format!("device {eui} ({how}, {region}) belongs to application {} now", application.name),
        })
    }

    fn region_called(&self, name: Option<&str>) -> Result<&'static Region> {
        let region = match name {
            Some(name) => self.regions.by_name(name),
            None => self.regions.all().first().copied(),
        };
        region.ok_or_else(|| ApiError::invalid("region", format!("the network has {}", self.regions.names())))
    }

    /// The first tenant's application of this name, with this webhook.
    async fn application_called(
        &self,
        name: String,
        http: Option<HttpIntegration>,
        asker: Asker,
    ) -> Result<Application> {
        let tenant = self.tenant_called(None).await?;
        let list = List { limit: lists::MOST, search: name.clone(), tenant: Some(tenant.id), ..List::default() };
        let found = self.store.applications(&list).await?.items.into_iter().find(|a| a.name == name);
        let Some(application) = found else {
            let now = clock::now();
            let id = made_id(&["application", &tenant.id.to_string(), &name]);
            let made = Application {
                id,
                created_at: now,
                updated_at: now,
                tenant_id: tenant.id,
                name,
                http,
                ..Default::default()
            };
            self.store.create_application(&made).await?;
            return Ok(made);
        };
        match (&application.http, http) {
            (_, None) => Ok(application),
            (Some(has), Some(wanted)) if has.url == wanted.url => Ok(application),
            (Some(_), Some(_)) => {
                Err(ApiError::AlreadyExists(format!("another webhook of application {}", application.name)))
            }
            (None, Some(wanted)) => {
                if asker == Asker::Balancer {
                    self.need_no_devices(&application).await?;
                }
                let changed = Application { http: Some(wanted), updated_at: clock::now(), ..application };
                self.store.update_application(&changed).await?;
                Ok(changed)
            }
        }
    }

    /// What an application's devices send goes nowhere new by a balancer's word.
    async fn need_no_devices(&self, application: &Application) -> Result<()> {
        let count = List { application: Some(application.id), ..List::default() };
        if self.store.devices(&count).await?.total == 0 {
            return Ok(());
        }
        let why = format!(
            "application {} has devices already: where their events go is not set from a balancer; ask a worker \
             (--data of a `limpet worker`, or --server)",
            application.name
        );
        Err(ApiError::invalid("webhook", why))
    }

    /// A profile of the tenant for devices like this one; the same for all of them.
    async fn profile_for(&self, tenant_id: Uuid, region: &Region, mac_version: MacVersion, way: &Way) -> Result<Uuid> {
        let name = format!("{} {} {}", region.name(), mac_name(mac_version), way.name());
        let id = made_id(&["device profile", &tenant_id.to_string(), &name]);
        let now = clock::now();
        let profile = DeviceProfile {
            id,
            created_at: now,
            updated_at: now,
            tenant_id,
            name,
            region: region.band().into(),
            region_config_id: Some(region.name().into()),
            mac_version,
            reg_params_revision: if region.is_of_rp002() { "RP002_1_0_4" } else { "B" }.into(),
            supports_otaa: matches!(way, Way::Otaa(_)),
            uplink_interval_secs: UPLINK_INTERVAL,
            ..DeviceProfile::default()
        };
        match self.store.create_device_profile(&profile).await {
            Ok(()) | Err(StoreError::AlreadyExists(_)) => Ok(id),
            Err(error) => Err(error.into()),
        }
    }
}

fn webhook(url: String) -> Result<HttpIntegration> {
    let http = HttpIntegration { headers: Tags::new(), json: true, url };
    check_http("webhook", &http)?;
    Ok(http)
}

const VERSIONS: [(&str, MacVersion); 5] = [
    ("1.0.0", MacVersion::V1_0_0),
    ("1.0.1", MacVersion::V1_0_1),
    ("1.0.2", MacVersion::V1_0_2),
    ("1.0.3", MacVersion::V1_0_3),
    ("1.0.4", MacVersion::V1_0_4),
];

fn mac_version(text: &str) -> Result<MacVersion> {
    let known = VERSIONS.iter().find(|(name, _)| *name == text).map(|(_, version)| *version);
    known.ok_or_else(|| ApiError::invalid("mac_version", "must be 1.0.0 to 1.0.4"))
}

fn mac_name(version: MacVersion) -> &'static str {
    VERSIONS.iter().find(|(_, v)| *v == version).map_or("", |(name, _)| name)
}

/// The id of something that is made when it is first needed: two that need it at once make one.
fn made_id(parts: &[&str]) -> Uuid {
    let digest = Sha256::digest(parts.join("\n"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}
