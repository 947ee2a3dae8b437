//! What operators have set.

use limpet_worker_core::model::{NetworkSettings, RegionSettings};
use prost::Message;

use super::{Read, compact, fits, fits_option, message};
use crate::Result;

#[derive(Clone, PartialEq, Message)]
struct NetworkRow {
    #[prost(uint32, optional, tag = "1")]
    net_id: Option<u32>,
    #[prost(uint32, optional, tag = "2")]
    reply_delay: Option<u32>,
    #[prost(uint32, optional, tag = "3")]
    deduplication_delay: Option<u32>,
    #[prost(message, repeated, tag = "4")]
    regions: Vec<RegionRow>,
}

#[derive(Clone, PartialEq, Message)]
struct RegionRow {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint32, optional, tag = "2")]
    rx1_delay: Option<u32>,
    #[prost(uint32, optional, tag = "3")]
    rx1_dr_offset: Option<u32>,
    #[prost(uint32, optional, tag = "4")]
    rx2_dr: Option<u32>,
    #[prost(sint32, optional, tag = "5")]
    downlink_tx_power: Option<i32>,
    #[prost(message, optional, tag = "6")]
    extra_channels: Option<ChannelsRow>,
    #[prost(uint32, optional, tag = "7")]
    rx2_frequency: Option<u32>,
    #[prost(bool, optional, tag = "8")]
    adr_disabled: Option<bool>,
    #[prost(uint32, optional, tag = "9")]
    min_dr: Option<u32>,
    #[prost(uint32, optional, tag = "10")]
    max_dr: Option<u32>,
    #[prost(uint32, optional, tag = "11")]
    installation_margin: Option<u32>,
    #[prost(bool, optional, tag = "20")]
    uplink_dwell_time_400ms: Option<bool>,
    #[prost(bool, optional, tag = "21")]
    downlink_dwell_time_400ms: Option<bool>,
    #[prost(bool, optional, tag = "22")]
    repeater_compatible: Option<bool>,
}

/// Channels that may be none, which is another thing than not to be told.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ChannelsRow {
    #[prost(message, repeated, tag = "1")]
    channels: Vec<ChannelRow>,
}

#[derive(Clone, PartialEq, Message)]
struct ChannelRow {
    #[prost(uint32, tag = "1")]
    frequency: u32,
}

pub(super) fn channels_row(frequencies: &[u32]) -> ChannelsRow {
    ChannelsRow { channels: frequencies.iter().map(|&frequency| ChannelRow { frequency }).collect() }
}

pub(super) fn channels(row: ChannelsRow) -> Vec<u32> {
    row.channels.into_iter().map(|channel| channel.frequency).collect()
}

/// The value of the setting that holds them.
pub(crate) fn write(settings: &NetworkSettings) -> Vec<u8> {
    compact(&NetworkRow {
        net_id: settings.net_id,
        reply_delay: settings.reply_delay,
        deduplication_delay: settings.deduplication_delay,
        regions: settings.regions.iter().map(|(id, region)| region_row(id, region)).collect(),
    })
}

/// Without a row nothing is set.
pub(crate) fn read(value: Option<&[u8]>) -> Result<NetworkSettings> {
    let Some(value) = value else { return Ok(NetworkSettings::default()) };
    let row: NetworkRow = message(value)?;
    let regions = row.regions.into_iter().map(|row| Ok((row.id.clone(), region(row)?)));
    Ok(NetworkSettings {
        net_id: row.net_id,
        reply_delay: row.reply_delay,
        deduplication_delay: row.deduplication_delay,
        regions: regions.collect::<Read<_>>().map_err(super::corrupt)?,
    })
}

fn region_row(id: &str, region: &RegionSettings) -> RegionRow {
    RegionRow {
        id: id.into(),
        rx1_delay: region.rx1_delay.map(u32::from),
        rx1_dr_offset: region.rx1_dr_offset.map(u32::from),
        rx2_dr: region.rx2_dr.map(u32::from),
        rx2_frequency: region.rx2_frequency,
        adr_disabled: region.adr_disabled,
        min_dr: region.min_dr.map(u32::from),
        max_dr: region.max_dr.map(u32::from),
        installation_margin: region.installation_margin.map(u32::from),
        downlink_tx_power: region.downlink_tx_power.map(i32::from),
        extra_channels: region.extra_channels.as_deref().map(channels_row),
        uplink_dwell_time_400ms: region.uplink_dwell_time_400ms,
        downlink_dwell_time_400ms: region.downlink_dwell_time_400ms,
        repeater_compatible: region.repeater_compatible,
    }
}

fn region(row: RegionRow) -> Read<RegionSettings> {
    Ok(RegionSettings {
        rx1_delay: fits_option(row.rx1_delay)?,
        rx1_dr_offset: fits_option(row.rx1_dr_offset)?,
        rx2_dr: fits_option(row.rx2_dr)?,
        rx2_frequency: row.rx2_frequency,
        adr_disabled: row.adr_disabled,
        min_dr: fits_option(row.min_dr)?,
        max_dr: fits_option(row.max_dr)?,
        installation_margin: fits_option(row.installation_margin)?,
        downlink_tx_power: row.downlink_tx_power.map(fits).transpose()?,
        extra_channels: row.extra_channels.map(channels),
        uplink_dwell_time_400ms: row.uplink_dwell_time_400ms,
        downlink_dwell_time_400ms: row.downlink_dwell_time_400ms,
        repeater_compatible: row.repeater_compatible,
    })
}
