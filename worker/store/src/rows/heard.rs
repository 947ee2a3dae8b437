//! Receptions, and what events tell of them.

use std::collections::BTreeMap;

use limpet_shared::{Eui64, RadioTime};
use limpet_worker_core::model::{AntennaSignal, DedupKey, EventReception, Location, Reception, RxInfo};
use prost::Message;

use super::{Read, at, fits};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReceptionRow {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(fixed64, tag = "2")]
    gateway: u64,
    #[prost(fixed64, tag = "3")]
    context: u64,
    #[prost(fixed64, tag = "4")]
    received_at: u64,
    #[prost(fixed64, tag = "5")]
    balancer: u64,
    #[prost(string, tag = "6")]
    region: String,
    #[prost(uint32, tag = "7")]
    frequency: u32,
    #[prost(uint32, tag = "8")]
    data_rate: u32,
    #[prost(bytes = "vec", tag = "9")]
    phy: Vec<u8>,
    #[prost(message, optional, tag = "10")]
    rx: Option<RxRow>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RxRow {
    #[prost(oneof = "RadioTime", tags = "1, 2, 3")]
    radio: Option<RadioTime>,
    #[prost(string, optional, tag = "4")]
    time: Option<String>,
    #[prost(uint64, optional, tag = "5")]
    tmms: Option<u64>,
    #[prost(sint32, tag = "6")]
    rssi: i32,
    #[prost(float, tag = "7")]
    snr: f32,
    #[prost(uint32, tag = "8")]
    channel: u32,
    #[prost(uint32, tag = "9")]
    rf_chain: u32,
    #[prost(uint32, optional, tag = "10")]
    board: Option<u32>,
    #[prost(uint32, optional, tag = "11")]
    antenna: Option<u32>,
    #[prost(string, tag = "12")]
    code_rate: String,
    #[prost(bool, tag = "13")]
    no_crc: bool,
    #[prost(uint32, optional, tag = "14")]
    fine_time: Option<u32>,
    #[prost(message, repeated, tag = "15")]
    antennas: Vec<AntennaRow>,
    #[prost(message, optional, tag = "16")]
    location: Option<LocationRow>,
    #[prost(btree_map = "string, string", tag = "17")]
    metadata: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct AntennaRow {
    #[prost(uint32, tag = "1")]
    antenna: u32,
    #[prost(uint32, tag = "2")]
    channel: u32,
    #[prost(sint32, tag = "3")]
    rssi: i32,
    #[prost(float, tag = "4")]
    snr: f32,
    #[prost(uint32, optional, tag = "5")]
    fine_time: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct LocationRow {
    #[prost(double, tag = "1")]
    latitude: f64,
    #[prost(double, tag = "2")]
    longitude: f64,
    #[prost(double, tag = "3")]
    altitude: f64,
    #[prost(int32, tag = "4")]
    source: i32,
    #[prost(float, tag = "5")]
    accuracy: f32,
}

/// How one gateway heard an uplink, in its event.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HeardRow {
    #[prost(fixed64, tag = "1")]
    gateway: u64,
    #[prost(fixed64, tag = "2")]
    received_at: u64,
    #[prost(message, optional, tag = "3")]
    rx: Option<RxRow>,
}

pub(super) fn to_row(reception: &Reception) -> ReceptionRow {
    ReceptionRow {
        key: reception.key.0.to_be_bytes().into(),
        gateway: reception.gateway.0,
        context: reception.context,
        received_at: reception.received_at.0,
        balancer: reception.balancer,
        region: reception.region.clone(),
        frequency: reception.frequency,
        data_rate: reception.data_rate.into(),
        phy: reception.phy.clone(),
        rx: Some(rx_row(&reception.rx)),
    }
}

pub(super) fn from_row(row: ReceptionRow) -> Read<Reception> {
    let key = row.key.try_into().map_err(|_| "a deduplication key is not of 16 bytes")?;
    Ok(Reception {
        key: DedupKey(u128::from_be_bytes(key)),
        gateway: Eui64(row.gateway),
        context: row.context,
        received_at: at(row.received_at),
        balancer: row.balancer,
        region: row.region,
        frequency: row.frequency,
        data_rate: fits(row.data_rate)?,
        phy: row.phy,
        rx: rx(row.rx.unwrap_or_default()),
    })
}

pub(super) fn heard_row(heard: &EventReception) -> HeardRow {
    HeardRow { gateway: heard.gateway.0, received_at: heard.received_at.0, rx: Some(rx_row(&heard.rx)) }
}

pub(super) fn heard(row: HeardRow) -> EventReception {
    EventReception { gateway: Eui64(row.gateway), received_at: at(row.received_at), rx: rx(row.rx.unwrap_or_default()) }
}

fn rx_row(rx: &RxInfo) -> RxRow {
    RxRow {
        radio: rx.radio.clone(),
        time: rx.time.clone(),
        tmms: rx.tmms,
        rssi: rx.rssi,
        snr: rx.snr,
        channel: rx.channel,
        rf_chain: rx.rf_chain,
        board: rx.board,
        antenna: rx.antenna,
        code_rate: rx.code_rate.clone(),
        no_crc: rx.no_crc,
        fine_time: rx.fine_time,
        antennas: rx.antennas.iter().map(antenna_row).collect(),
        location: rx.location.as_ref().map(location_row),
        metadata: rx.metadata.clone(),
    }
}

fn rx(row: RxRow) -> RxInfo {
    RxInfo {
        radio: row.radio,
        time: row.time,
        tmms: row.tmms,
        rssi: row.rssi,
        snr: row.snr,
        channel: row.channel,
        rf_chain: row.rf_chain,
        board: row.board,
        antenna: row.antenna,
        code_rate: row.code_rate,
        no_crc: row.no_crc,
        fine_time: row.fine_time,
        antennas: row.antennas.into_iter().map(antenna).collect(),
        location: row.location.map(location),
        metadata: row.metadata,
    }
}

fn antenna_row(&AntennaSignal { antenna, channel, rssi, snr, fine_time }: &AntennaSignal) -> AntennaRow {
    AntennaRow { antenna, channel, rssi, snr, fine_time }
}

fn antenna(AntennaRow { antenna, channel, rssi, snr, fine_time }: AntennaRow) -> AntennaSignal {
    AntennaSignal { antenna, channel, rssi, snr, fine_time }
}

fn location_row(&Location { latitude, longitude, altitude, source, accuracy }: &Location) -> LocationRow {
    LocationRow { latitude, longitude, altitude, source, accuracy }
}

fn location(LocationRow { latitude, longitude, altitude, source, accuracy }: LocationRow) -> Location {
    Location { latitude, longitude, altitude, source, accuracy }
}
