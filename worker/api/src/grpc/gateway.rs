//! Gateways. A change is answered once the balancers know it, or half a second later.

use std::{cmp::Ordering, collections::HashMap};

use chirpstack_api::{
    api::{self, gateway_service_server::GatewayService, list_gateways_request::OrderBy},
    common,
};
use limpet_shared::{
    UnixMicros,
    policy::{self, AddressPolicy},
};
use limpet_store::{List, Page};
use limpet_worker_core::model::{Gateway, GatewaySeen, Location, Tags};
use tonic::{Request, async_trait};

use super::{Grpc, Reply, reply, unserved};
use crate::{
    ApiError,
    auth::{Access, Caller},
    clock,
    error::Result,
    fields::{self, refuse, required},
    lists,
    regions::Regions,
};

/// Seconds between two stats of a gateway that says nothing else: the default of ChirpStack's clients.
pub(crate) const STATS_INTERVAL: u32 = Gateway::STATS_INTERVAL;

/// What ChirpStack's clients send for a gateway that is like all others.
const USUAL_PRIORITY: u32 = 10;
/// The tag that ties a gateway's frames to one region.
const REGION_TAG: &str = "region";

/// What a gateway is set to, besides its tenant and times.
fn read(given: api::Gateway, regions: &Regions) -> Result<Gateway> {
    let usual = matches!(given.downlink_priority, 0 | USUAL_PRIORITY);
    refuse("downlink_priority", !usual, &format!("all gateways have the same: use 0 or {USUAL_PRIORITY}"))?;
    Ok(Gateway {
        eui: fields::eui("gateway_id", &given.gateway_id)?,
        name: fields::name("name", &given.name)?,
        description: fields::text("description", given.description)?,
        location: given.location.map(read_location).transpose()?,
        stats_interval_secs: given.stats_interval,
        tags: read_tags(given.tags, regions)?,
        metadata: fields::tags("metadata", given.metadata)?,
        downlink_priority: given.downlink_priority,
        ..Gateway::default()
    })
}

/// Tags, of which one is no mere remark.
fn read_tags(given: HashMap<String, String>, regions: &Regions) -> Result<Tags> {
    if let Some(policy) = given.get(policy::TAG) {
        let refused = |why| ApiError::invalid("tags", format!("{}: {why}", policy::TAG));
        policy.parse::<AddressPolicy>().map_err(refused)?;
    }
    if let Some(name) = given.get(REGION_TAG).filter(|name| regions.by_name(name).is_none()) {
        let why = format!("{REGION_TAG}: {name:?} is no region of this network, which has {}", regions.names());
        return Err(ApiError::invalid("tags", why));
    }
    fields::tags("tags", given)
}

fn read_location(given: common::Location) -> Result<Location> {
    let on_earth = (-90.0..=90.0).contains(&given.latitude) && (-180.0..=180.0).contains(&given.longitude);
    let numbers = given.altitude.is_finite() && given.accuracy.is_finite();
    refuse("location", !on_earth || !numbers, "is no place on Earth in degrees")?;
    Ok(Location {
        latitude: given.latitude,
        longitude: given.longitude,
        altitude: given.altitude,
        source: given.source,
        accuracy: given.accuracy,
    })
}

fn write_location(location: Location) -> common::Location {
    common::Location {
        latitude: location.latitude,
        longitude: location.longitude,
        altitude: location.altitude,
        source: location.source,
        accuracy: location.accuracy,
    }
}

fn location(gateway: &Gateway, seen: &GatewaySeen) -> Option<common::Location> {
    gateway.place(seen).or(gateway.location).map(write_location)
}

fn write(gateway: &Gateway, seen: &GatewaySeen) -> api::Gateway {
    api::Gateway {
        gateway_id: gateway.eui.to_string(),
        name: gateway.name.clone(),
        description: gateway.description.clone(),
        location: location(gateway, seen),
        tenant_id: gateway.tenant_id.to_string(),
        tags: fields::map(&gateway.tags),
        metadata: fields::map(&gateway.metadata),
        stats_interval: gateway.stats_interval_secs,
        downlink_priority: gateway.downlink_priority,
    }
}

/// Online until two of its stats are missing.
fn state(gateway: &Gateway, seen: &GatewaySeen, now: UnixMicros) -> api::GatewayState {
    match gateway.is_online(seen.last_seen_at, now) {
        None => api::GatewayState::NeverSeen,
        Some(true) => api::GatewayState::Online,
        Some(false) => api::GatewayState::Offline,
    }
}

fn list_item((gateway, seen): &(Gateway, GatewaySeen), now: UnixMicros) -> api::GatewayListItem {
    api::GatewayListItem {
        tenant_id: gateway.tenant_id.to_string(),
        gateway_id: gateway.eui.to_string(),
        name: gateway.name.clone(),
        description: gateway.description.clone(),
        location: location(gateway, seen),
        properties: fields::map(&gateway.metadata),
        created_at: Some(clock::timestamp(gateway.created_at)),
        updated_at: Some(clock::timestamp(gateway.updated_at)),
        last_seen_at: seen.last_seen_at.map(clock::timestamp),
        state: state(gateway, seen, now).into(),
        downlink_priority: gateway.downlink_priority,
    }
}

type Known = (Gateway, GatewaySeen);

fn order(by: OrderBy) -> fn(&Known, &Known) -> Ordering {
    match by {
        OrderBy::Name => |(a, _), (b, _)| (&a.name, a.eui).cmp(&(&b.name, b.eui)),
        OrderBy::GatewayId => |(a, _), (b, _)| a.eui.cmp(&b.eui),
        OrderBy::LastSeenAt => {
            |(a, a_seen), (b, b_seen)| (a_seen.last_seen_at, a.eui).cmp(&(b_seen.last_seen_at, b.eui))
        }
    }
}

impl Grpc {
    /// A gateway that the caller may use.
    async fn gateway_of(&self, caller: &Caller, field: &'static str, id: &str, access: Access) -> Result<Known> {
        let eui = fields::eui(field, id)?;
        let found = self.0.store.gateway(eui).await?.ok_or_else(|| ApiError::NotFound(format!("gateway {eui}")))?;
        caller.of_tenant(found.0.tenant_id, access)?;
        Ok(found)
    }

    async fn list_gateways(&self, list: &List, by: OrderBy, descending: bool) -> Result<Page<Known>> {
        if by == OrderBy::Name && !descending {
            return Ok(self.0.store.gateways(list).await?);
        }
        let all = self.0.store.gateways(&lists::everything(list)).await?;
        lists::part(all, list, |_| true, order(by), descending)
    }
}

#[async_trait]
impl GatewayService for Grpc {
    async fn create(&self, request: Request<api::CreateGatewayRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let given = required("gateway", request.gateway)?;
        let tenant_id = fields::id("tenant_id", &given.tenant_id)?;
        caller.of_tenant(tenant_id, Access::Write)?;
        let now = clock::now();
        let gateway = Gateway { created_at: now, updated_at: now, tenant_id, ..read(given, &self.0.regions)? };
        self.0.create_gateway(&gateway).await?;
        reply(())
    }

    async fn get(&self, request: Request<api::GetGatewayRequest>) -> Reply<api::GetGatewayResponse> {
        let (caller, request) = self.admit(request)?;
        let (gateway, seen) = self.gateway_of(&caller, "gateway_id", &request.gateway_id, Access::Read).await?;
        reply(api::GetGatewayResponse {
            gateway: Some(write(&gateway, &seen)),
            created_at: Some(clock::timestamp(gateway.created_at)),
            updated_at: Some(clock::timestamp(gateway.updated_at)),
            last_seen_at: seen.last_seen_at.map(clock::timestamp),
        })
    }

    async fn update(&self, request: Request<api::UpdateGatewayRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let given = required("gateway", request.gateway)?;
        let (known, _) = self.gateway_of(&caller, "gateway_id", &given.gateway_id, Access::Write).await?;
        let tenant = fields::optional_id("tenant_id", &given.tenant_id)?;
        refuse("tenant_id", tenant.is_some_and(|t| t != known.tenant_id), "a gateway keeps its tenant")?;
        let gateway = Gateway {
            created_at: known.created_at,
            updated_at: clock::now(),
            tenant_id: known.tenant_id,
            ..read(given, &self.0.regions)?
        };
        self.0.store.update_gateway(&gateway).await.map_err(ApiError::from)?;
        self.0.tell_balancers().await;
        reply(())
    }

    async fn delete(&self, request: Request<api::DeleteGatewayRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let (known, _) = self.gateway_of(&caller, "gateway_id", &request.gateway_id, Access::Write).await?;
        self.0.store.delete_gateway(known.eui).await.map_err(ApiError::from)?;
        self.0.tell_balancers().await;
        reply(())
    }

    async fn list(&self, request: Request<api::ListGatewaysRequest>) -> Reply<api::ListGatewaysResponse> {
        let (caller, request) = self.admit(request)?;
        let multicast = !request.multicast_group_id.is_empty();
        refuse("multicast_group_id", multicast, "multicast is not served yet")?;
        let by = OrderBy::try_from(request.order_by)
            .map_err(|_| ApiError::invalid("order_by", "is no order that is known here"))?;
        let list = List {
            limit: request.limit.min(lists::MOST),
            offset: request.offset,
            search: request.search,
            tenant: caller.listed_tenant(fields::optional_id("tenant_id", &request.tenant_id)?)?,
            ..List::default()
        };
        let page = self.list_gateways(&list, by, request.order_by_desc).await?;
        let now = clock::now();
        reply(api::ListGatewaysResponse {
            total_count: page.total,
            result: page.items.iter().map(|known| list_item(known, now)).collect(),
        })
    }

    unserved! { "GatewayService":
        generate_client_certificate(GenerateGatewayClientCertificateRequest)
            -> api::GenerateGatewayClientCertificateResponse;
        get_metrics(GetGatewayMetricsRequest) -> api::GetGatewayMetricsResponse;
        get_duty_cycle_metrics(GetGatewayDutyCycleMetricsRequest) -> api::GetGatewayDutyCycleMetricsResponse;
        get_relay_gateway(GetRelayGatewayRequest) -> api::GetRelayGatewayResponse;
        list_relay_gateways(ListRelayGatewaysRequest) -> api::ListRelayGatewaysResponse;
        update_relay_gateway(UpdateRelayGatewayRequest) -> ();
        delete_relay_gateway(DeleteRelayGatewayRequest) -> ();
    }
}
