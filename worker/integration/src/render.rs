//! Events as ChirpStack v4 writes them (`integration.proto`), in JSON or protobuf.

mod object;
mod radio;

use std::collections::HashMap;

use chirpstack_api::{common, integration as pb, pbjson_types::Timestamp};
use limpet_codec::Object;
use limpet_shared::UnixMicros;
use limpet_worker_core::model::*;
use prost::Message;
use serde::Serialize;

/// An event, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// ChirpStack's name of the event: `up`, `join`, `ack`, `txack`, `log` or `status`.
    pub name: &'static str,
    /// `application/json` or `application/octet-stream`.
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

/// The event cannot be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("the event cannot be written as JSON: {0}")]
pub struct RenderError(#[from] serde_json::Error);

/// Writes the event as JSON (camelCase, as protobuf's JSON mapping has it) or protobuf. `object` is what an uplink's payload says.
pub fn render(event: &Event, object: Option<&Object>, json: bool) -> Result<Rendered, RenderError> {
    match &event.kind {
        EventKind::Up(up) => encode("up", &uplink(event, up, object), json),
        EventKind::Join(join) => encode("join", &joined(event, join), json),
        EventKind::Ack(ack) => encode("ack", &acknowledged(event, ack), json),
        EventKind::TxAck(tx) => encode("txack", &transmitted(event, tx), json),
        EventKind::Log(log) => encode("log", &logged(event, log), json),
        EventKind::Status(status) => encode("status", &told(event, *status), json),
    }
}

fn encode<M: Message + Serialize>(name: &'static str, message: &M, json: bool) -> Result<Rendered, RenderError> {
    Ok(if json {
        Rendered { name, content_type: "application/json", body: serde_json::to_vec(message)? }
    } else {
        Rendered { name, content_type: "application/octet-stream", body: message.encode_to_vec() }
    })
}

fn uplink(event: &Event, up: &UpEvent, object: Option<&Object>) -> pb::UplinkEvent {
    pb::UplinkEvent {
        deduplication_id: event.id.to_string(),
        time: Some(timestamp(event.at)),
        device_info: Some(device_info(&event.device)),
        dev_addr: up.dev_addr.to_string(),
        adr: up.adr,
        dr: up.data_rate.into(),
        f_cnt: up.fcnt,
        f_port: up.fport.unwrap_or(0).into(),
        confirmed: up.confirmed,
        data: up.data.clone(),
        object: object.map(object::write),
        rx_info: up.receptions.iter().flat_map(|r| radio::rx_infos(event, up, r)).collect(),
        tx_info: Some(radio::uplink_tx_info(up)),
        region_config_id: up.region.clone(),
        ..Default::default()
    }
}

fn joined(event: &Event, join: &JoinEvent) -> pb::JoinEvent {
    pb::JoinEvent {
        deduplication_id: event.id.to_string(),
        time: Some(timestamp(event.at)),
        device_info: Some(device_info(&event.device)),
        dev_addr: join.dev_addr.to_string(),
        region_config_id: join.region.clone(),
        ..Default::default()
    }
}

fn acknowledged(event: &Event, ack: &AckEvent) -> pb::AckEvent {
    pb::AckEvent {
        deduplication_id: event.id.to_string(),
        time: Some(timestamp(event.at)),
        device_info: Some(device_info(&event.device)),
        queue_item_id: ack.queue_item.clone(),
        acknowledged: ack.acknowledged,
        f_cnt_down: ack.fcnt_down,
    }
}

fn transmitted(event: &Event, tx: &TxAckEvent) -> pb::TxAckEvent {
    pb::TxAckEvent {
        downlink_id: radio::number_of(event.id.as_bytes(), &[]),
        time: Some(timestamp(event.at)),
        device_info: Some(device_info(&event.device)),
        queue_item_id: tx.queue_item.clone(),
        f_cnt_down: tx.fcnt_down,
        gateway_id: tx.gateway.to_string(),
        tx_info: Some(radio::downlink_tx_info(tx)),
    }
}

fn told(event: &Event, StatusEvent { margin, battery }: StatusEvent) -> pb::StatusEvent {
    pb::StatusEvent {
        deduplication_id: event.id.to_string(),
        time: Some(timestamp(event.at)),
        device_info: Some(device_info(&event.device)),
        margin: margin.into(),
        external_power_source: battery == 0,
        battery_level_unavailable: battery == 255,
        // 0 and 255 are no level.
        battery_level: if battery == 255 { 0.0 } else { f32::from(battery) / 254.0 * 100.0 },
    }
}

/// The log event of the protocol has no field for its id: it goes into the context, where ChirpStack puts it too.
fn logged(event: &Event, log: &LogEvent) -> pb::LogEvent {
    let level = if log.error { pb::LogLevel::Error } else { pb::LogLevel::Warning };
    let mut context = map(&log.context);
    context.insert("deduplication_id".into(), event.id.to_string());
    pb::LogEvent {
        time: Some(timestamp(event.at)),
        device_info: Some(device_info(&event.device)),
        level: level.into(),
        code: pb::LogCode::from_str_name(&log.code).unwrap_or(pb::LogCode::Unknown).into(),
        description: log.description.clone(),
        context,
    }
}

fn device_info(device: &DeviceInfo) -> pb::DeviceInfo {
    pb::DeviceInfo {
        tenant_id: device.tenant_id.to_string(),
        tenant_name: device.tenant_name.clone(),
        application_id: device.application_id.to_string(),
        application_name: device.application_name.clone(),
        device_profile_id: device.device_profile_id.to_string(),
        device_profile_name: device.device_profile_name.clone(),
        device_name: device.device_name.clone(),
        dev_eui: device.dev_eui.to_string(),
        device_class_enabled: common::DeviceClass::ClassA.into(),
        tags: map(&device.tags),
    }
}

fn map(tags: &Tags) -> HashMap<String, String> {
    tags.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// RFC 3339 ends with the year 9999; a clock beyond it must not make an event undeliverable.
const LAST_SECOND: u64 = 253_402_300_799;

fn timestamp(at: UnixMicros) -> Timestamp {
    let seconds = (at.0 / 1_000_000).min(LAST_SECOND);
    Timestamp { seconds: seconds.cast_signed(), nanos: (at.0 % 1_000_000) as i32 * 1000 }
}

#[cfg(test)]
mod tests;
