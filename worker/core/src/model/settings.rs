//! What operators have set for the network and for each of its regions, by ChirpStack's names. What is not set is as it always was.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::time::Duration;

use limpet_shared::region::Region;

use super::DwellTime;

/// How long after its event an uplink is answered, at an RX1 delay of 1 s: time for an application to enqueue its answer.
pub const DEFAULT_REPLY_DELAY: Duration = Duration::from_millis(100);
/// How long copies of one transmission are waited for.
pub const DEFAULT_DEDUPLICATION_DELAY: Duration = Duration::from_millis(200);

/// The record of the network as a whole, and one for each region configuration that anything is set for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSettings {
    /// 24 bits.
    pub net_id: Option<u32>,
    /// Milliseconds.
    pub reply_delay: Option<u32>,
    /// Milliseconds.
    pub deduplication_delay: Option<u32>,
    /// By the region's id, such as `us915_1`.
    pub regions: BTreeMap<String, RegionSettings>,
}

/// What devices are told, and how they are sent to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionSettings {
    /// Seconds, 1 to 15.
    pub rx1_delay: Option<u8>,
    pub rx1_dr_offset: Option<u8>,
    pub rx2_dr: Option<u8>,
    /// Hz.
    pub rx2_frequency: Option<u32>,
    /// dBm EIRP.
    pub downlink_tx_power: Option<i8>,
    /// ADR leaves all devices alone.
    pub adr_disabled: Option<bool>,
    /// Between these ADR chooses.
    pub min_dr: Option<u8>,
    pub max_dr: Option<u8>,
    /// dB above what a data rate needs that ADR does not use.
    pub installation_margin: Option<u8>,
    /// Hz. Set and empty: none but those that every device knows.
    pub extra_channels: Option<Vec<u32>>,
    /// Transmissions of devices are limited to 400 ms.
    pub uplink_dwell_time_400ms: Option<bool>,
    /// Those to devices are.
    pub downlink_dwell_time_400ms: Option<bool>,
    /// Downlinks leave room for what a repeater adds.
    pub repeater_compatible: Option<bool>,
}

static AS_EVER: RegionSettings = RegionSettings {
    rx1_delay: None,
    rx1_dr_offset: None,
    rx2_dr: None,
    rx2_frequency: None,
    downlink_tx_power: None,
    adr_disabled: None,
    min_dr: None,
    max_dr: None,
    installation_margin: None,
    extra_channels: None,
    uplink_dwell_time_400ms: None,
    downlink_dwell_time_400ms: None,
    repeater_compatible: None,
};

impl NetworkSettings {
    /// The NetID, 24 bits; 000000 is that of private networks.
    pub fn net_id(&self) -> u32 {
        self.net_id.unwrap_or_default()
    }

    pub fn reply_delay(&self) -> Duration {
        self.reply_delay.map_or(DEFAULT_REPLY_DELAY, |millis| Duration::from_millis(millis.into()))
    }

    pub fn deduplication_delay(&self) -> Duration {
        self.deduplication_delay.map_or(DEFAULT_DEDUPLICATION_DELAY, |millis| Duration::from_millis(millis.into()))
    }

    /// Those of a region configuration.
    pub fn of(&self, region: &Region) -> &RegionSettings {
        self.regions.get(region.name()).unwrap_or(&AS_EVER)
    }
}

impl RegionSettings {
    /// The limits that hold for devices and for downlinks.
    pub fn dwell_time(&self) -> DwellTime {
        DwellTime {
            uplink: self.uplink_dwell_time_400ms.unwrap_or_default(),
            downlink: self.downlink_dwell_time_400ms.unwrap_or_default(),
        }
    }

    /// The longest MACPayload that may be sent at this data rate; none if nothing may.
    pub fn max_downlink(&self, region: &Region, data_rate: u8) -> Option<usize> {
        region.max_downlink(data_rate, self.dwell_time().downlink, self.repeater_compatible.unwrap_or_default())
    }

    /// What a gateway is told to send with, dBm.
    pub fn power(&self, region: &Region, frequency: u32) -> i8 {
        match self.downlink_tx_power {
            Some(wanted) => region.allowed_power(frequency, wanted),
            None => region.downlink_power(frequency),
        }
    }
}
