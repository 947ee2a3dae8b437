//! Lists of devices.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, btree_map::Entry},
};

use chirpstack_api::api::{self, list_devices_request::OrderBy};
use limpet_store::{List, Page};
use limpet_worker_core::model::{Device, DeviceSeen};
use uuid::Uuid;

use super::super::Grpc;
use crate::{
    ApiError,
    auth::{Access, Caller},
    clock,
    error::Result,
    fields::{self, refuse},
    lists,
};

type Known = (Device, DeviceSeen);
type ProfileNames = BTreeMap<Uuid, String>;

fn order(by: OrderBy, names: &ProfileNames) -> impl Fn(&Known, &Known) -> Ordering {
    move |(a, a_seen), (b, b_seen)| {
        let first = match by {
            OrderBy::Name => a.name.cmp(&b.name),
            OrderBy::DevEui => Ordering::Equal,
            OrderBy::LastSeenAt => a_seen.last_seen_at.cmp(&b_seen.last_seen_at),
            OrderBy::DeviceProfileName => names.get(&a.device_profile_id).cmp(&names.get(&b.device_profile_id)),
        };
        first.then(a.dev_eui.cmp(&b.dev_eui))
    }
}

fn list_item((device, seen): &Known, names: &ProfileNames) -> api::DeviceListItem {
    api::DeviceListItem {
        dev_eui: device.dev_eui.to_string(),
        created_at: Some(clock::timestamp(device.created_at)),
        updated_at: Some(clock::timestamp(device.updated_at)),
        last_seen_at: seen.last_seen_at.map(clock::timestamp),
        name: device.name.clone(),
        description: device.description.clone(),
        device_profile_id: device.device_profile_id.to_string(),
        device_profile_name: names.get(&device.device_profile_id).cloned().unwrap_or_default(),
        device_status: super::item::status(seen),
        tags: fields::map(&device.tags),
    }
}

impl Grpc {
    pub(super) async fn list_devices(
        &self,
        caller: &Caller,
        request: api::ListDevicesRequest,
    ) -> Result<api::ListDevicesResponse> {
        let list = self.asked_devices(caller, &request).await?;
        let by = OrderBy::try_from(request.order_by)
            .map_err(|_| ApiError::invalid("order_by", "is no order that is known here"))?;
        let tags = fields::tags("tags", request.tags)?;
        let (page, names) = if by == OrderBy::Name && !request.order_by_desc && tags.is_empty() {
            let page = self.0.store.devices(&list).await?;
            let names = self.profile_names(&page).await?;
            (page, names)
        } else {
            let all = self.0.store.devices(&lists::everything(&list)).await?;
            let names = self.profile_names(&all).await?;
            let tagged = |(device, _): &Known| tags.iter().all(|(key, value)| device.tags.get(key) == Some(value));
            (lists::part(all, &list, tagged, order(by, &names), request.order_by_desc)?, names)
        };
        Ok(api::ListDevicesResponse {
            total_count: page.total,
            result: page.items.iter().map(|known| list_item(known, &names)).collect(),
        })
    }

    /// Which devices are asked for, and whether the caller may see them.
    async fn asked_devices(&self, caller: &Caller, request: &api::ListDevicesRequest) -> Result<List> {
        refuse("multicast_group_id", !request.multicast_group_id.is_empty(), "multicast is not served yet")?;
        let application = fields::optional_id("application_id", &request.application_id)?;
        if application.is_some() {
            self.application(caller, "application_id", &request.application_id, Access::Read).await?;
        }
        Ok(List {
            limit: request.limit.min(lists::MOST),
            offset: request.offset,
            search: request.search.clone(),
            tenant: caller.listed_tenant(None)?,
            application,
            device_profile: fields::optional_id("device_profile_id", &request.device_profile_id)?,
        })
    }

    /// The names of the profiles of these devices.
    async fn profile_names(&self, page: &Page<Known>) -> Result<ProfileNames> {
        let mut names = ProfileNames::new();
        for (device, _) in &page.items {
            if let Entry::Vacant(name) = names.entry(device.device_profile_id) {
                let profile = self.0.store.device_profile(device.device_profile_id).await?;
                name.insert(profile.map(|p| p.name).unwrap_or_default());
            }
        }
        Ok(names)
    }
}
