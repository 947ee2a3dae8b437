//! The fields of a device profile: most of what ChirpStack's has is refused by name until Limpet can do it.

use chirpstack_api::{api, common};
use limpet_codec::LONGEST_SCRIPT;
use limpet_shared::region::Region;
use limpet_worker_core::model::{CodecRuntime, DeviceProfile, MacVersion, PayloadCodec};

use crate::{
    error::{ApiError, Result},
    fields::{self, refuse},
    regions::Regions,
};

/// The one ADR algorithm that profiles may name.
pub(super) const ADR_ALGORITHM: &str = "default";

/// Once a minute, each of which takes a downlink.
const MOST_STATUS_REQUESTS: u32 = 1440;

/// What a profile is set to, besides its identity, tenant and times.
pub(super) fn read(given: api::DeviceProfile, regions: &Regions) -> Result<DeviceProfile> {
    refuse_unserved(&given)?;
    refuse_relay(&given)?;
    let region = region(&given, regions)?;
    let revision = common::RegParamsRevision::try_from(given.reg_params_revision)
        .map_err(|_| ApiError::invalid("reg_params_revision", "is no revision that is known here"))?;
    let is_of_rp002 = revision.as_str_name().starts_with("RP002");
    refuse(
        "reg_params_revision",
        is_of_rp002 && !region.is_of_rp002(),
        "CN470 is served as revisions A and B have it",
    )?;
    let profile = DeviceProfile {
        name: fields::name("name", &given.name)?,
        description: fields::text("description", given.description)?,
        region: region.band().into(),
        region_config_id: (!given.region_config_id.is_empty()).then(|| region.name().into()),
        mac_version: mac_version(given.mac_version)?,
        reg_params_revision: revision.as_str_name().into(),
        supports_otaa: given.supports_otaa,
        uplink_interval_secs: given.uplink_interval,
        flush_queue_on_activate: given.flush_queue_on_activate,
        rx1_delay: fields::byte("rx1_delay", given.rx1_delay, 0..=15)?,
        device_status_req_interval: given.device_status_req_interval,
        abp_rx1_delay: fields::byte("abp_rx1_delay", given.abp_rx1_delay, 0..=15)?,
        abp_rx1_dr_offset: fields::byte("abp_rx1_dr_offset", given.abp_rx1_dr_offset, 0..=region.max_rx1_dr_offset())?,
        abp_rx2_dr: fields::byte("abp_rx2_dr", given.abp_rx2_dr, 0..=15)?,
        abp_rx2_freq: given.abp_rx2_freq,
        codec: codec(given.payload_codec_runtime, given.payload_codec_script)?,
        tags: fields::tags("tags", given.tags)?,
        ..DeviceProfile::default()
    };
    check_rx2(&profile, region)?;
    Ok(profile)
}

/// Without a frequency, RX2 is the region's, and its data rate as well: then 0 means that nothing was set.
fn check_rx2(profile: &DeviceProfile, region: &Region) -> Result<()> {
    let (default_frequency, default_dr) = region.rx2();
    let dr = profile.abp_rx2_dr;
    if profile.abp_rx2_freq == 0 {
        return refuse("abp_rx2_dr", dr != 0 && dr != default_dr, "needs abp_rx2_freq");
    }
    refuse("abp_rx2_dr", !region.is_downlink_data_rate(dr), "is no downlink data rate of the region")?;
    let near = profile.abp_rx2_freq.abs_diff(default_frequency) <= BAND_WIDTH;
    refuse("abp_rx2_freq", !near, "is not in the region's band (Hz)")
}

/// No band is wider than this, Hz.
const BAND_WIDTH: u32 = 26_000_000;

/// The configured region that the profile names, or the first one of its band.
fn region(given: &api::DeviceProfile, regions: &Regions) -> Result<&'static Region> {
    let band = common::Region::try_from(given.region).map(|r| r.as_str_name()).unwrap_or("?");
    let not_here =
        || ApiError::invalid("region", format!("{band} is not configured; the network has {}", regions.names()));
    let first = regions.by_band(band).ok_or_else(not_here)?;
    if given.region_config_id.is_empty() {
        return Ok(first);
    }
    let named = regions.by_name(&given.region_config_id).filter(|region| region.band() == band);
    named.ok_or_else(|| {
        let why = format!("is no configured region of {band}; the network has {}", regions.names());
        ApiError::invalid("region_config_id", why)
    })
}

fn mac_version(given: i32) -> Result<MacVersion> {
    use common::MacVersion as Theirs;
    Ok(match Theirs::try_from(given) {
        Ok(Theirs::Lorawan100) => MacVersion::V1_0_0,
        Ok(Theirs::Lorawan101) => MacVersion::V1_0_1,
        Ok(Theirs::Lorawan102) => MacVersion::V1_0_2,
        Ok(Theirs::Lorawan103) => MacVersion::V1_0_3,
        Ok(Theirs::Lorawan104) => MacVersion::V1_0_4,
        Ok(Theirs::Lorawan110) => return Err(ApiError::invalid("mac_version", "LoRaWAN 1.1 is not served yet")),
        Err(_) => return Err(ApiError::invalid("mac_version", "is no version that is known here")),
    })
}

/// The script is kept whatever the runtime is, so that a codec can be turned off and on.
fn codec(runtime: i32, script: String) -> Result<PayloadCodec> {
    use api::CodecRuntime as Theirs;
    let runtime = match Theirs::try_from(runtime) {
        Ok(Theirs::None) => CodecRuntime::None,
        Ok(Theirs::CayenneLpp) => CodecRuntime::CayenneLpp,
        Ok(Theirs::Js) => CodecRuntime::Js,
        Err(_) => return Err(ApiError::invalid("payload_codec_runtime", "is no runtime that is known here")),
    };
    let longest = format!("must have at most {LONGEST_SCRIPT} bytes");
    refuse("payload_codec_script", script.len() > LONGEST_SCRIPT, &longest)?;
    Ok(PayloadCodec { runtime, script })
}

/// Fields that would change what the network does, if it could do it. Left as their clients' defaults they pass.
/// Parameters of a feature that the profile itself turns off (class B and C, relay) have no effect in ChirpStack
/// either, and pass with any value.
fn refuse_unserved(given: &api::DeviceProfile) -> Result<()> {
    let adr = given.adr_algorithm_id.as_str();
    refuse("adr_algorithm_id", !matches!(adr, "" | ADR_ALGORITHM), "only \"default\" is known")?;
    let often = given.device_status_req_interval > MOST_STATUS_REQUESTS;
    refuse("device_status_req_interval", often, &format!("is more than {MOST_STATUS_REQUESTS} times a day"))?;
    refuse("supports_class_b", given.supports_class_b, "class B is not served yet")?;
    refuse("supports_class_c", given.supports_class_c, "class C is not served yet")?;
    refuse("class_b_downlink_only", given.class_b_downlink_only, "class B is not served yet")?;
    refuse("measurements", !given.measurements.is_empty(), "measurements are not served yet")?;
    refuse("allow_roaming", given.allow_roaming, "roaming is not served yet")?;
    let app = given.app_layer_params.unwrap_or_default();
    let app = app.ts003_version != 0 || app.ts004_version != 0 || app.ts005_version != 0;
    refuse("app_layer_params", app, "application layer packages (TS003, TS004, TS005) are not served yet")?;
    let vendor = !given.device_id.is_empty() || !given.firmware_version.is_empty();
    refuse("device_id", vendor, "profiles of vendors' devices are not served yet")?;
    let rates = !given.supported_uplink_data_rates.is_empty();
    refuse("supported_uplink_data_rates", rates, "is not served yet: leave it empty")
}

fn refuse_relay(given: &api::DeviceProfile) -> Result<()> {
    let why = "relays (TS011) are not served yet";
    refuse("is_relay", given.is_relay, why)?;
    refuse("is_relay_ed", given.is_relay_ed, why)?;
    refuse("relay_ed_relay_only", given.relay_ed_relay_only, why)?;
    refuse("relay_enabled", given.relay_enabled, why)
}

/// A profile as the protocol has it.
pub(super) fn write(profile: &DeviceProfile) -> api::DeviceProfile {
    let region = common::Region::from_str_name(&profile.region).unwrap_or_default();
    let revision = common::RegParamsRevision::from_str_name(&profile.reg_params_revision).unwrap_or_default();
    let mac_version = match profile.mac_version {
        MacVersion::V1_0_0 => common::MacVersion::Lorawan100,
        MacVersion::V1_0_1 => common::MacVersion::Lorawan101,
        MacVersion::V1_0_2 => common::MacVersion::Lorawan102,
        MacVersion::V1_0_3 => common::MacVersion::Lorawan103,
        MacVersion::V1_0_4 => common::MacVersion::Lorawan104,
    };
    api::DeviceProfile {
        id: profile.id.to_string(),
        tenant_id: profile.tenant_id.to_string(),
        name: profile.name.clone(),
        description: profile.description.clone(),
        region: region.into(),
        region_config_id: profile.region_config_id.clone().unwrap_or_default(),
        mac_version: mac_version.into(),
        reg_params_revision: revision.into(),
        adr_algorithm_id: ADR_ALGORITHM.into(),
        supports_otaa: profile.supports_otaa,
        uplink_interval: profile.uplink_interval_secs,
        flush_queue_on_activate: profile.flush_queue_on_activate,
        rx1_delay: profile.rx1_delay.into(),
        device_status_req_interval: profile.device_status_req_interval,
        abp_rx1_delay: profile.abp_rx1_delay.into(),
        abp_rx1_dr_offset: profile.abp_rx1_dr_offset.into(),
        abp_rx2_dr: profile.abp_rx2_dr.into(),
        abp_rx2_freq: profile.abp_rx2_freq,
        payload_codec_runtime: match profile.codec.runtime {
            CodecRuntime::None => api::CodecRuntime::None,
            CodecRuntime::CayenneLpp => api::CodecRuntime::CayenneLpp,
            CodecRuntime::Js => api::CodecRuntime::Js,
        }
        .into(),
        payload_codec_script: profile.codec.script.clone(),
        tags: fields::map(&profile.tags),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_band_has_a_name_in_chirpstacks_api() {
        for name in Region::names() {
            let band = Region::by_name(name).unwrap().band();
            assert_eq!(common::Region::from_str_name(band).map(|region| region.as_str_name()), Some(band), "{name}");
        }
    }

    #[test]
    fn cn470_is_of_the_regional_parameters_before_rp002() {
        let regions = Regions::new(&["eu868".into(), "cn470_3".into()], "eu868");
        for (region, revision, passes) in [
            (common::Region::Cn470, common::RegParamsRevision::A, true),
            (common::Region::Cn470, common::RegParamsRevision::B, true),
            (common::Region::Cn470, common::RegParamsRevision::Rp002100, false),
            (common::Region::Cn470, common::RegParamsRevision::Rp002104, false),
            (common::Region::Eu868, common::RegParamsRevision::Rp002104, true),
        ] {
            let given = api::DeviceProfile {
                name: "profile".into(),
                region: region.into(),
                reg_params_revision: revision.into(),
                ..Default::default()
            };
            let refused = read(given, &regions).err().map(|error| error.to_string());
            assert_eq!(refused.is_none(), passes, "{region:?}, {revision:?}: {refused:?}");
            assert!(refused.is_none_or(|why| why.contains("reg_params_revision")));
        }
    }
}
