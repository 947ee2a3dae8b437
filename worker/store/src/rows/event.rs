//! Events: those in a slot, and those that wait.

use std::collections::BTreeMap;

use limpet_shared::{DevAddr, Eui64};
use limpet_worker_core::model::{
    AckEvent, DeviceInfo, Event, EventKind, JoinEvent, LogEvent, StatusEvent, TxAckEvent, UpEvent,
};
use prost::{Message, Oneof};

use super::{Read, at, fits, fits_option, heard, uuid, uuid_bytes, uuid_or_none};
use crate::waiting_body::WaitingBody;

/// An event that waits.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WaitingRow {
    #[prost(message, optional, tag = "1")]
    event: Option<EventRow>,
    #[prost(uint32, tag = "2")]
    refusals: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EventRow {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(fixed64, tag = "2")]
    at: u64,
    /// Absent where it stands beside.
    #[prost(message, optional, tag = "3")]
    device: Option<DeviceRow>,
    #[prost(oneof = "KindRow", tags = "4, 5, 6, 7, 8, 9")]
    kind: Option<KindRow>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeviceRow {
    #[prost(bytes = "vec", tag = "1")]
    tenant_id: Vec<u8>,
    #[prost(string, tag = "2")]
    tenant_name: String,
    #[prost(bytes = "vec", tag = "3")]
    application_id: Vec<u8>,
    #[prost(string, tag = "4")]
    application_name: String,
    #[prost(bytes = "vec", tag = "5")]
    device_profile_id: Vec<u8>,
    #[prost(string, tag = "6")]
    device_profile_name: String,
    #[prost(string, tag = "7")]
    device_name: String,
    #[prost(fixed64, tag = "8")]
    dev_eui: u64,
    #[prost(btree_map = "string, string", tag = "9")]
    tags: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Oneof)]
enum KindRow {
    #[prost(message, tag = "4")]
    Up(UpRow),
    #[prost(message, tag = "5")]
    Join(JoinRow),
    #[prost(message, tag = "6")]
    Ack(AckRow),
    #[prost(message, tag = "7")]
    TxAck(TxAckRow),
    #[prost(message, tag = "8")]
    Log(LogRow),
    #[prost(message, tag = "9")]
    Status(StatusRow),
}

#[derive(Clone, PartialEq, Message)]
struct UpRow {
    #[prost(fixed32, tag = "1")]
    dev_addr: u32,
    #[prost(bool, tag = "2")]
    adr: bool,
    #[prost(uint32, tag = "3")]
    data_rate: u32,
    #[prost(uint32, tag = "4")]
    fcnt: u32,
    #[prost(uint32, optional, tag = "5")]
    fport: Option<u32>,
    #[prost(bool, tag = "6")]
    confirmed: bool,
    #[prost(bytes = "vec", tag = "7")]
    data: Vec<u8>,
    #[prost(string, tag = "8")]
    region: String,
    #[prost(uint32, tag = "9")]
    frequency: u32,
    #[prost(message, repeated, tag = "10")]
    receptions: Vec<heard::HeardRow>,
}

#[derive(Clone, PartialEq, Message)]
struct JoinRow {
    #[prost(fixed32, tag = "1")]
    dev_addr: u32,
    #[prost(string, tag = "2")]
    region: String,
}

#[derive(Clone, PartialEq, Message)]
struct AckRow {
    #[prost(string, tag = "1")]
    queue_item: String,
    #[prost(bool, tag = "2")]
    acknowledged: bool,
    #[prost(uint32, tag = "3")]
    fcnt_down: u32,
}

#[derive(Clone, PartialEq, Message)]
struct TxAckRow {
    #[prost(string, tag = "1")]
    queue_item: String,
    #[prost(uint32, tag = "2")]
    fcnt_down: u32,
    #[prost(fixed64, tag = "3")]
    gateway: u64,
    #[prost(uint32, tag = "4")]
    frequency: u32,
    #[prost(uint32, tag = "5")]
    data_rate: u32,
    #[prost(sint32, tag = "6")]
    power: i32,
    #[prost(string, tag = "7")]
    region: String,
}

#[derive(Clone, PartialEq, Message)]
struct LogRow {
    #[prost(bool, tag = "1")]
    error: bool,
    #[prost(string, tag = "2")]
    code: String,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(btree_map = "string, string", tag = "4")]
    context: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct StatusRow {
    #[prost(sint32, tag = "1")]
    margin: i32,
    #[prost(uint32, tag = "2")]
    battery: u32,
}

pub(super) fn waiting_row(body: &WaitingBody) -> WaitingRow {
    WaitingRow { event: Some(to_row(&body.event, None)), refusals: body.refusals }
}

pub(super) fn waiting(row: WaitingRow) -> Read<WaitingBody> {
    let event = from_row(row.event.ok_or("a waiting event is missing")?, None)?;
    Ok(WaitingBody { event, refusals: row.refusals })
}

/// `beside`: a device that stands beside the event, and is not repeated in it.
pub(super) fn to_row(event: &Event, beside: Option<&DeviceInfo>) -> EventRow {
    let device = (beside != Some(&event.device)).then(|| device_row(&event.device));
    EventRow { id: event.id.as_bytes().to_vec(), at: event.at.0, device, kind: Some(kind_row(&event.kind)) }
}

pub(super) fn from_row(row: EventRow, beside: Option<&DeviceInfo>) -> Read<Event> {
    let device = match (row.device, beside) {
        (Some(own), _) => device(own)?,
        (None, Some(beside)) => beside.clone(),
        (None, None) => return Err("an event is of no device"),
    };
    let kind = row.kind.ok_or("an event is of a kind that is not known here")?;
    Ok(Event { id: uuid(&row.id)?, at: at(row.at), device, kind: kind_of(kind)? })
}

pub(super) fn device_row(device: &DeviceInfo) -> DeviceRow {
    DeviceRow {
        tenant_id: uuid_bytes(device.tenant_id),
        tenant_name: device.tenant_name.clone(),
        application_id: uuid_bytes(device.application_id),
        application_name: device.application_name.clone(),
        device_profile_id: uuid_bytes(device.device_profile_id),
        device_profile_name: device.device_profile_name.clone(),
        device_name: device.device_name.clone(),
        dev_eui: device.dev_eui.0,
        tags: device.tags.clone(),
    }
}

pub(super) fn device(row: DeviceRow) -> Read<DeviceInfo> {
    Ok(DeviceInfo {
        tenant_id: uuid_or_none(&row.tenant_id)?,
        tenant_name: row.tenant_name,
        application_id: uuid_or_none(&row.application_id)?,
        application_name: row.application_name,
        device_profile_id: uuid_or_none(&row.device_profile_id)?,
        device_profile_name: row.device_profile_name,
        device_name: row.device_name,
        dev_eui: Eui64(row.dev_eui),
        tags: row.tags,
    })
}

fn kind_row(kind: &EventKind) -> KindRow {
    match kind {
        EventKind::Up(up) => KindRow::Up(UpRow {
            dev_addr: up.dev_addr.0,
            adr: up.adr,
            data_rate: up.data_rate.into(),
            fcnt: up.fcnt,
            fport: up.fport.map(u32::from),
            confirmed: up.confirmed,
            data: up.data.clone(),
            region: up.region.clone(),
            frequency: up.frequency,
            receptions: up.receptions.iter().map(heard::heard_row).collect(),
        }),
        EventKind::Join(join) => KindRow::Join(JoinRow { dev_addr: join.dev_addr.0, region: join.region.clone() }),
        EventKind::Ack(ack) => KindRow::Ack(AckRow {
            queue_item: ack.queue_item.clone(),
            acknowledged: ack.acknowledged,
            fcnt_down: ack.fcnt_down,
        }),
        EventKind::TxAck(tx) => KindRow::TxAck(TxAckRow {
            queue_item: tx.queue_item.clone(),
            fcnt_down: tx.fcnt_down,
            gateway: tx.gateway.0,
            frequency: tx.frequency,
            data_rate: tx.data_rate.into(),
            power: tx.power.into(),
            region: tx.region.clone(),
        }),
        EventKind::Log(log) => KindRow::Log(LogRow {
            error: log.error,
            code: log.code.clone(),
            description: log.description.clone(),
            context: log.context.clone(),
        }),
        EventKind::Status(status) => {
            KindRow::Status(StatusRow { margin: status.margin.into(), battery: status.battery.into() })
        }
    }
}

fn kind_of(row: KindRow) -> Read<EventKind> {
    Ok(match row {
        KindRow::Up(up) => EventKind::Up(UpEvent {
            dev_addr: DevAddr(up.dev_addr),
            adr: up.adr,
            data_rate: fits(up.data_rate)?,
            fcnt: up.fcnt,
            fport: fits_option(up.fport)?,
            confirmed: up.confirmed,
            data: up.data,
            region: up.region,
            frequency: up.frequency,
            receptions: up.receptions.into_iter().map(heard::heard).collect(),
        }),
        KindRow::Join(join) => EventKind::Join(JoinEvent { dev_addr: DevAddr(join.dev_addr), region: join.region }),
        KindRow::Ack(AckRow { queue_item, acknowledged, fcnt_down }) => {
            EventKind::Ack(AckEvent { queue_item, acknowledged, fcnt_down })
        }
        KindRow::TxAck(tx) => EventKind::TxAck(TxAckEvent {
            queue_item: tx.queue_item,
            fcnt_down: tx.fcnt_down,
            gateway: Eui64(tx.gateway),
            frequency: tx.frequency,
            data_rate: fits(tx.data_rate)?,
            power: fits(tx.power)?,
            region: tx.region,
        }),
        KindRow::Log(LogRow { error, code, description, context }) => {
            EventKind::Log(LogEvent { error, code, description, context })
        }
        KindRow::Status(StatusRow { margin, battery }) => {
            EventKind::Status(StatusEvent { margin: fits(margin)?, battery: fits(battery)? })
        }
    })
}
