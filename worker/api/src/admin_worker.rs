//! The operator's questions that a worker answers, whoever carries them: `limpet ctl` over HTTP, or a balancer over the
//! link. Who asks has been let in before.

mod device_add;
mod devices;
mod regions;

use std::{collections::HashMap, time::Duration};

use limpet_shared::{
    Eui64,
    admin::{self, ErrorKind, GatewayAdd, PAGE, Reply, Request},
    policy::{self, AddressPolicy},
};
use limpet_store::List;
use limpet_worker_core::model::{Gateway, Tenant};
use uuid::Uuid;

use device_add::Asker;
pub use devices::DeviceKeys;
pub use regions::regions_of;

use crate::{Api, ApiError, bootstrap, clock, error::Result, fields, grpc::STATS_INTERVAL, lists};

/// A balancer has this long to say which worker has which gateway.
const HEARD_LIMIT: Duration = Duration::from_secs(1);

/// Whether a worker answers this; else a balancer does.
pub(crate) fn is_for_worker(request: &Request) -> bool {
    use Request::{
        Device, DeviceAdd, DeviceRemove, DeviceRename, Devices, GatewayAdd, GatewayAddress, GatewayRemove,
        GatewayRename, Gateways, RegionSet, Regions,
    };
    let gateways = matches!(
        request,
        Gateways { .. } | GatewayAdd(_) | GatewayAddress { .. } | GatewayRename { .. } | GatewayRemove { .. }
    );
    let devices =
        matches!(request, Devices { .. } | Device { .. } | DeviceAdd(_) | DeviceRename { .. } | DeviceRemove { .. });
    let regions = matches!(request, Regions { .. } | RegionSet(_));
    gateways || devices || regions || is_about_integrations(request) || is_of_roll(request)
}

fn is_about_integrations(request: &Request) -> bool {
    use Request::{IntegrationDrop, IntegrationEvents, IntegrationRetry, Integrations};
    matches!(request, Integrations { .. } | IntegrationEvents { .. } | IntegrationRetry { .. } | IntegrationDrop { .. })
}

/// Whether the roll of the cluster's servers answers this, which every worker keeps.
fn is_of_roll(request: &Request) -> bool {
    use Request::{Remove, Servers, TokenRevoke, Tokens};
    matches!(request, Servers | Remove { .. } | Tokens | TokenRevoke { .. })
}

impl Api {
    /// Answers a balancer, over the link: as anybody, but for what would show it what devices send.
    pub async fn answer_a_balancer(&self, request: Request) -> Reply {
        match request {
            Request::DeviceAdd(wanted) => self.add_device(wanted, Asker::Balancer).await.unwrap_or_else(refusal),
            request => self.answer(request).await,
        }
    }

    /// Answers what a worker can answer.
    pub async fn answer(&self, request: Request) -> Reply {
        let answered = match request {
            Request::Gateways { search, offset } => self.known_gateways(search, offset).await,
            Request::GatewayAdd(wanted) => self.add_gateway(wanted).await,
            Request::GatewayAddress { eui, address } => self.set_address_policy(eui, &address).await,
            Request::GatewayRename { eui, name } => self.rename_gateway(eui, &name).await,
            Request::GatewayRemove { eui } => self.remove_gateway(eui).await,
            Request::Devices { search, offset } => self.listed_devices(search, offset).await,
            Request::Device { dev_eui } => self.one_device(dev_eui).await,
            Request::DeviceAdd(wanted) => self.add_device(wanted, Asker::Operator).await,
            Request::DeviceRename { dev_eui, name } => self.rename_device(dev_eui, &name).await,
            Request::DeviceRemove { dev_eui } => self.remove_device(dev_eui).await,
            Request::Regions { id } => self.shown_regions(id).await,
            Request::RegionSet(wanted) => self.change_settings(wanted).await,
            request if request.is_about_people() => Err(ApiError::invalid(
                "ask",
                "users and API keys are not dealt with from a balancer: ask a worker (--data of a `limpet worker` or \
                 `limpet up`, or --server), or the store itself (--store)",
            )),
            request if is_about_integrations(&request) => self.answer_about_integrations(request).await,
            request if is_of_roll(&request) => Ok(self.cluster.ask(request).await),
            _ => Err(ApiError::invalid("ask", "a balancer answers this, not a worker")),
        };
        answered.unwrap_or_else(refusal)
    }

    async fn known_gateways(&self, search: String, offset: u32) -> Result<Reply> {
        let page = self.store.gateways(&List { limit: PAGE, offset, search, ..List::default() }).await?;
        let shown = offset.saturating_add(u32::try_from(page.items.len()).unwrap_or(u32::MAX));
        let heard = self.heard(page.items.iter().map(|(gateway, _)| gateway.eui).collect()).await;
        let note = heard.as_ref().err().cloned().unwrap_or_default();
        let (heard, now) = (heard.unwrap_or_default(), clock::now());
        let gateways = page.items.into_iter().map(|(gateway, seen)| {
            let fresh = heard.get(&gateway.eui);
            let last_seen = seen.last_seen_at.max(fresh.and_then(|fresh| fresh.last_seen));
            admin::Gateway {
                eui: gateway.eui,
                known: true,
                address: fresh.and_then(|fresh| fresh.address.clone()).or(seen.address),
                last_seen,
                online: gateway.is_online(last_seen, now),
                worker: fresh.and_then(|fresh| fresh.worker.clone()),
                epoch: fresh.and_then(|fresh| fresh.epoch),
                policy: gateway.tags.get(policy::TAG).cloned(),
                name: gateway.name,
            }
        });
        Ok(Reply::Gateways { gateways: gateways.collect(), more: page.total.saturating_sub(shown), note })
    }

    /// What a balancer knows of these gateways at the moment; else why that is not known.
    async fn heard(&self, only: Vec<Eui64>) -> std::result::Result<HashMap<Eui64, admin::Gateway>, String> {
        if only.is_empty() {
            return Ok(HashMap::new());
        }
        let asked = self.cluster.ask(Request::GatewaysHeard { unknown: false, only });
        let why = match tokio::time::timeout(HEARD_LIMIT, asked).await {
            Ok(Reply::Gateways { gateways, .. }) => {
                return Ok(gateways.into_iter().map(|gateway| (gateway.eui, gateway)).collect());
            }
            Ok(Reply::Error { message, .. }) => message,
            Ok(_) => "the answer is of another version".into(),
            Err(_) => "no balancer answered in time".into(),
        };
        Err(format!("who serves which gateway is not known at the moment: {why}"))
    }

    async fn add_gateway(&self, wanted: GatewayAdd) -> Result<Reply> {
        let GatewayAdd { eui, name, tenant, address } = wanted;
        let address = address.map(|text| address_policy(&text)).transpose()?;
        let tenant = self.tenant_called(tenant).await?;
        let now = clock::now();
        let gateway = Gateway {
            eui,
            created_at: now,
            updated_at: now,
            tenant_id: tenant.id,
            name: fields::name("name", &name.unwrap_or_else(|| eui.to_string()))?,
            stats_interval_secs: STATS_INTERVAL,
            tags: address.into_iter().map(|policy| (policy::TAG.into(), policy.to_string())).collect(),
            ..Gateway::default()
        };
        self.create_gateway(&gateway).await?;
        Ok(Reply::Done { message: format!("gateway {eui} belongs to tenant {} now", tenant.name) })
    }

    async fn set_address_policy(&self, eui: Eui64, address: &str) -> Result<Reply> {
        let policy = address_policy(address)?;
        let known = self.store.gateway(eui).await?;
        let (mut gateway, _) = known.ok_or_else(|| ApiError::NotFound(format!("gateway {eui}")))?;
        gateway.tags.insert(policy::TAG.into(), policy.to_string());
        gateway.updated_at = clock::now();
        self.store.update_gateway(&gateway).await?;
        self.tell_balancers().await;
        Ok(Reply::Done { message: format!("gateway {eui} has the address policy {policy} now") })
    }

    /// The tenant of this id or name; the network's first one if none is given.
    pub(crate) async fn tenant_called(&self, called: Option<String>) -> Result<Tenant> {
        let Some(called) = called else {
            let first = bootstrap::first_tenant(&self.store).await?;
            return first.ok_or_else(|| ApiError::NotFound("a tenant".into()));
        };
        if let Ok(id) = Uuid::parse_str(&called) {
            return crate::quota::tenant(self.store.as_ref(), id).await;
        }
        let list = List { limit: lists::MOST, search: called.clone(), ..List::default() };
        let found = self.store.tenants(&list).await?.items.into_iter().find(|tenant| tenant.name == called);
        found.ok_or_else(|| ApiError::NotFound(format!("tenant {called:?}")))
    }
}

fn address_policy(text: &str) -> Result<AddressPolicy> {
    text.parse().map_err(|why: policy::PolicyError| ApiError::invalid("address", why.to_string()))
}

pub(crate) fn refusal(error: ApiError) -> Reply {
    let kind = match &error {
        ApiError::NotFound(_) => ErrorKind::NotFound,
        ApiError::AlreadyExists(_) => ErrorKind::AlreadyExists,
        ApiError::Conflict(_) | ApiError::Unavailable(_) | ApiError::Unsure(_) => ErrorKind::Unavailable,
        ApiError::Internal(_) => ErrorKind::Internal,
        _ => ErrorKind::Invalid,
    };
    Reply::Error { kind, message: error.to_string() }
}
