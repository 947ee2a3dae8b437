//! The parts of an event that speak of radio (`gw.proto`).

use std::str::FromStr;

use chirpstack_api::{common, gw, pbjson_types};
use limpet_shared::{
    RadioTime,
    region::{CodeRate, Modulation, Region},
};
use limpet_worker_core::model::*;
use serde::{Deserialize, de::IntoDeserializer};

use super::timestamp;

/// How one gateway heard the uplink: once for each antenna that it tells of. Metadata are the forwarder's, and the region as
/// ChirpStack adds it.
pub(super) fn rx_infos(event: &Event, up: &UpEvent, reception: &EventReception) -> Vec<gw::UplinkRxInfo> {
    let mut whole = rx_info(event, reception);
    whole.metadata = reception.rx.metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    whole.metadata.insert("region_config_id".into(), up.region.clone());
    if let Some(region) = Region::by_name(&up.region) {
        whole.metadata.insert("region_common_name".into(), region.band().into());
    }
    if reception.rx.antennas.is_empty() {
        return vec![whole];
    }
    let each = reception.rx.antennas.iter().map(|antenna| gw::UplinkRxInfo {
        uplink_id: number_of(&whole.uplink_id.to_be_bytes(), &antenna.antenna.to_be_bytes()),
        antenna: antenna.antenna,
        channel: antenna.channel,
        rssi: antenna.rssi,
        snr: antenna.snr,
        fine_time_since_gps_epoch: fine_time(reception.rx.tmms, antenna.fine_time.or(reception.rx.fine_time)),
        ..whole.clone()
    });
    each.collect()
}

/// How one gateway heard the uplink. `context` is the gateway's own time, as ChirpStack's bridges write it.
pub(super) fn rx_info(event: &Event, reception: &EventReception) -> gw::UplinkRxInfo {
    let rx = &reception.rx;
    let radio = rx.radio.as_ref().map_or_else(|| vec![0; 4], RadioTime::to_context);
    let place = [&reception.gateway.0.to_be_bytes()[..], &radio, &rx.board.unwrap_or(0).to_be_bytes()];
    gw::UplinkRxInfo {
        gateway_id: reception.gateway.to_string(),
        uplink_id: number_of(event.id.as_bytes(), &place.concat()),
        gw_time: rx.time.as_deref().and_then(parse_time),
        ns_time: Some(timestamp(reception.received_at)),
        time_since_gps_epoch: rx.tmms.map(gps_duration),
        rssi: rx.rssi,
        snr: rx.snr,
        channel: rx.channel,
        rf_chain: rx.rf_chain,
        board: rx.board.unwrap_or(0),
        antenna: rx.antenna.unwrap_or(0),
        context: rx.radio.as_ref().map(RadioTime::to_context).unwrap_or_default(),
        fine_time_since_gps_epoch: fine_time(rx.tmms, rx.fine_time),
        location: rx.location.map(location),
        crc_status: if rx.no_crc { gw::CrcStatus::NoCrc } else { gw::CrcStatus::CrcOk }.into(),
        ..Default::default()
    }
}

pub(super) fn uplink_tx_info(up: &UpEvent) -> gw::UplinkTxInfo {
    let code_rate = up.receptions.first().map_or("", |r| &r.rx.code_rate);
    gw::UplinkTxInfo { frequency: up.frequency, modulation: modulation(&up.region, up.data_rate, code_rate, false) }
}

pub(super) fn downlink_tx_info(tx: &TxAckEvent) -> gw::DownlinkTxInfo {
    let sent = Region::by_name(&tx.region).and_then(|region| region.modulation(tx.data_rate));
    let code_rate = sent.and_then(|modulation| modulation.to_gwmp().code_rate()).unwrap_or_default();
    gw::DownlinkTxInfo {
        frequency: tx.frequency,
        power: tx.power.into(),
        modulation: modulation(&tx.region, tx.data_rate, code_rate, true),
        ..Default::default()
    }
}

/// A data rate index spelled out; none if the region is not known here (any more).
fn modulation(region: &str, data_rate: u8, code_rate: &str, downlink: bool) -> Option<gw::Modulation> {
    let code_rate = gw::CodeRate::from_str(code_rate).unwrap_or(gw::CodeRate::CrUndefined).into();
    let parameters = match Region::by_name(region)?.modulation(data_rate)? {
        Modulation::Lora { spreading_factor, bandwidth_khz } => {
            gw::modulation::Parameters::Lora(gw::LoraModulationInfo {
                bandwidth: u32::from(bandwidth_khz) * 1000,
                spreading_factor: spreading_factor.into(),
                code_rate,
                polarization_inversion: downlink,
                ..Default::default()
            })
        }
        Modulation::Fsk { bit_rate } => {
            gw::modulation::Parameters::Fsk(gw::FskModulationInfo { datarate: bit_rate, ..Default::default() })
        }
        Modulation::LrFhss { code_rate, bandwidth_khz } => {
            gw::modulation::Parameters::LrFhss(gw::LrFhssModulationInfo {
                operating_channel_width: u32::from(bandwidth_khz) * 1000,
                code_rate: match code_rate {
                    CodeRate::OneThird => gw::CodeRate::Cr26.into(),
                    CodeRate::TwoThirds => gw::CodeRate::Cr46.into(),
                },
                ..Default::default()
            })
        }
    };
    Some(gw::Modulation { parameters: Some(parameters) })
}

/// A number that is the same whoever computes it (FNV-1a): it only has to tell receptions of one event apart.
pub(super) fn number_of(id: &[u8], rest: &[u8]) -> u32 {
    id.iter().chain(rest).fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// What a gateway writes as time is its own affair: what cannot be read is left out.
fn parse_time(text: &str) -> Option<pbjson_types::Timestamp> {
    let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    pbjson_types::Timestamp::deserialize(text).ok()
}

/// The whole seconds of one clock and the nanoseconds of the other: both or nothing.
fn fine_time(milliseconds: Option<u64>, nanoseconds: Option<u32>) -> Option<pbjson_types::Duration> {
    let nanos = i32::try_from(nanoseconds?).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(pbjson_types::Duration { nanos, ..gps_duration(milliseconds?) })
}

fn location(location: Location) -> common::Location {
    common::Location {
        latitude: location.latitude,
        longitude: location.longitude,
        altitude: location.altitude,
        source: location.source,
        accuracy: location.accuracy,
    }
}

fn gps_duration(milliseconds: u64) -> pbjson_types::Duration {
    let seconds = i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX);
    pbjson_types::Duration { seconds, nanos: (milliseconds % 1000) as i32 * 1_000_000 }
}
