//! A device's downlink queue.

use chirpstack_api::api;
use limpet_shared::Eui64;
use limpet_worker_core::model::{DeviceContext, QueueItem};
use uuid::Uuid;

use super::super::Grpc;
use crate::{
    activation::current,
    auth::{Access, Caller},
    clock,
    error::Result,
    fields::{self, refuse, required},
    queue::{self, PAYLOAD, Progress},
};

/// A downlink to append.
fn read(given: api::DeviceQueueItem) -> Result<QueueItem> {
    refuse("is_encrypted", given.is_encrypted, "the payload is encrypted here: give it in plain")?;
    refuse("is_pending", given.is_pending, "is set by the network")?;
    refuse("f_cnt_down", given.f_cnt_down != 0, "is set by the network")?;
    refuse("data", given.data.len() > PAYLOAD, &format!("must have at most {PAYLOAD} bytes"))?;
    let id = match fields::optional_id("id", &given.id)? {
        Some(id) => id,
        None => Uuid::new_v4(),
    };
    Ok(QueueItem {
        dev_eui: fields::eui("dev_eui", &given.dev_eui)?,
        id: id.to_string(),
        created_at: clock::now(),
        confirmed: given.confirmed,
        fport: fields::byte("f_port", given.f_port, 1..=u8::MAX)?,
        data: given.data,
        expires_at: given.expires_at.as_ref().map(|at| clock::unix("expires_at", at)).transpose()?,
        ..QueueItem::default()
    })
}

fn write(item: &QueueItem, progress: &Progress) -> api::DeviceQueueItem {
    let in_flight = progress.in_flight.filter(|in_flight| in_flight.seq == item.seq);
    api::DeviceQueueItem {
        id: item.id.clone(),
        dev_eui: item.dev_eui.to_string(),
        confirmed: item.confirmed,
        f_port: item.fport.into(),
        data: item.data.clone(),
        is_pending: in_flight.is_some(),
        f_cnt_down: in_flight.map_or(0, |in_flight| in_flight.first_fcnt_down),
        expires_at: item.expires_at.map(clock::timestamp),
        ..Default::default()
    }
}

impl Grpc {
    /// With a payload instead of an object.
    async fn encoded(&self, context: &DeviceContext, mut given: api::DeviceQueueItem) -> Result<api::DeviceQueueItem> {
        let Some(object) = given.object.take() else { return Ok(given) };
        refuse("object", !given.data.is_empty(), "give either object or data")?;
        let encoded = self.0.encode(context, &object, fields::byte("f_port", given.f_port, 0..=u8::MAX)?).await?;
        Ok(api::DeviceQueueItem { data: encoded.bytes, f_port: encoded.f_port.into(), ..given })
    }

    async fn progress(&self, dev_eui: Eui64) -> Result<Progress> {
        Ok(queue::progress(current(self.0.store.as_ref(), dev_eui).await?.as_ref()))
    }

    pub(super) async fn enqueue_item(
        &self,
        caller: &Caller,
        request: api::EnqueueDeviceQueueItemRequest,
    ) -> Result<api::EnqueueDeviceQueueItemResponse> {
        let given = required("queue_item", request.queue_item)?;
        let context = self.device_of(caller, &given.dev_eui, Access::Write).await?;
        let item = read(self.encoded(&context, given).await?)?;
        let dev_eui = context.device.dev_eui;
        if request.flush_queue {
            self.0.store.flush_queue(dev_eui, u64::MAX).await?;
        }
        let item = self.0.enqueue(item).await?;
        Ok(api::EnqueueDeviceQueueItemResponse { id: item.id })
    }

    pub(super) async fn queue_items(
        &self,
        caller: &Caller,
        request: &api::GetDeviceQueueItemsRequest,
    ) -> Result<api::GetDeviceQueueItemsResponse> {
        let device = self.device_of(caller, &request.dev_eui, Access::Read).await?.device;
        let progress = self.progress(device.dev_eui).await?;
        let items = queue::waiting(self.0.store.as_ref(), device.dev_eui, progress).await?;
        let total_count = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let shown = if request.count_only { &[][..] } else { &items[..] };
        Ok(api::GetDeviceQueueItemsResponse {
            total_count,
            result: shown.iter().map(|item| write(item, &progress)).collect(),
        })
    }
}
