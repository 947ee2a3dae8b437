//! The network's settings as operators write and read them: each by its name, judged before it is stored.

use alloc::{format, string::String, string::ToString, vec::Vec};

use limpet_shared::{
    admin,
    region::{MOST_EXTRA_CHANNELS, Region},
};

use crate::{
    adr::{INSTALLATION_MARGIN, most_uplink_rate},
    model::{DEFAULT_DEDUPLICATION_DELAY, DEFAULT_REPLY_DELAY, NetworkSettings, RegionSettings},
    session::RX1_DELAY,
};

/// The id under which settings of no region in particular are found.
pub const NETWORK: &str = "network";

/// The longest, in milliseconds.
const MOST_REPLY_DELAY: u32 = 10_000;
const MOST_DEDUPLICATION_DELAY: u32 = 1_000;
/// RXTimingSetupReq and RXDelay of a JoinAccept have four bits (LoRaWAN 1.0.4, 5.7).
const MOST_RX1_DELAY: u8 = 15;
/// dB.
const MOST_MARGIN: u8 = 30;
/// Three bytes.
const MOST_NET_ID: u32 = 0x00ff_ffff;
/// What ChirpStack's region files say for the band's own power.
const OWN_POWER: &str = "-1";

/// Whose settings they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Network,
    Region(&'static Region),
}

impl Scope {
    /// What it is asked for by.
    pub fn id(self) -> &'static str {
        match self {
            Self::Network => NETWORK,
            Self::Region(region) => region.name(),
        }
    }
}

/// Why a setting was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("{of} has no setting {name:?}; it has {known}")]
    Unknown { of: &'static str, name: String, known: String },
    #[error("{name}: {value:?} is not allowed for {of}; allowed is {allowed}")]
    NotAllowed { name: &'static str, value: String, of: &'static str, allowed: String },
}

/// A setting of `S`, which is of `C`.
struct Setting<S, C> {
    name: &'static str,
    /// For people, with its unit.
    allowed: fn(C) -> String,
    /// None if this text is not allowed.
    put: fn(&mut S, C, &str) -> Option<()>,
    unset: fn(&mut S),
    /// What is set.
    get: fn(&S) -> Option<String>,
    /// What holds if nothing is.
    default: fn(C) -> String,
}

static NETWORKS: [Setting<NetworkSettings, ()>; 3] = [
    Setting {
        name: "net_id",
        allowed: |()| "6 hex digits: the network's NetID, which joins take their DevAddr from".into(),
        put: |settings, (), text| {
            let digits = text.len() == 6 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
            settings.net_id = Some(u32::from_str_radix(text, 16).ok().filter(|id| digits && *id <= MOST_NET_ID)?);
            Some(())
        },
        unset: |settings| settings.net_id = None,
        get: |settings| settings.net_id.map(|id| format!("{id:06x}")),
        default: |()| "000000".into(),
    },
    Setting {
        name: "reply_delay",
        allowed: |()| format!("0ms to {}: a number with ms or s", time(MOST_REPLY_DELAY)),
        put: |settings, (), text| {
            settings.reply_delay = Some(millis(text, MOST_REPLY_DELAY)?);
            Some(())
        },
        unset: |settings| settings.reply_delay = None,
        get: |settings| settings.reply_delay.map(time),
        default: |()| time(DEFAULT_REPLY_DELAY.as_millis() as u32),
    },
    Setting {
        name: "deduplication_delay",
        allowed: |()| format!("0ms to {}: a number with ms or s", time(MOST_DEDUPLICATION_DELAY)),
        put: |settings, (), text| {
            settings.deduplication_delay = Some(millis(text, MOST_DEDUPLICATION_DELAY)?);
            Some(())
        },
        unset: |settings| settings.deduplication_delay = None,
        get: |settings| settings.deduplication_delay.map(time),
        default: |()| time(DEFAULT_DEDUPLICATION_DELAY.as_millis() as u32),
    },
];

static REGIONS: [Setting<RegionSettings, &'static Region>; 13] = [
    Setting {
        name: "rx1_delay",
        allowed: |_| format!("1 to {MOST_RX1_DELAY} (seconds)"),
        put: |settings, _, text| {
            settings.rx1_delay = Some(number(text).filter(|delay| (1..=MOST_RX1_DELAY).contains(delay))?);
            Some(())
        },
        unset: |settings| settings.rx1_delay = None,
        get: |settings| settings.rx1_delay.map(|delay| delay.to_string()),
        default: |_| RX1_DELAY.to_string(),
    },
    Setting {
        name: "rx1_dr_offset",
        allowed: |region| format!("0 to {}", region.max_rx1_dr_offset()),
        put: |settings, region, text| {
            settings.rx1_dr_offset = Some(number(text).filter(|offset| *offset <= region.max_rx1_dr_offset())?);
            Some(())
        },
        unset: |settings| settings.rx1_dr_offset = None,
        get: |settings| settings.rx1_dr_offset.map(|offset| offset.to_string()),
        default: |_| "0".into(),
    },
    Setting {
        name: "rx2_dr",
        allowed: |region| format!("a downlink data rate of {}: {}", region.band(), list(region.downlink_data_rates())),
        put: |settings, region, text| {
            settings.rx2_dr = Some(number(text).filter(|rate| region.is_downlink_data_rate(*rate))?);
            Some(())
        },
        unset: |settings| settings.rx2_dr = None,
        get: |settings| settings.rx2_dr.map(|rate| rate.to_string()),
        default: |region| region.rx2().1.to_string(),
    },
    Setting {
        name: "rx2_frequency",
        allowed: rx2_frequencies,
        put: |settings, region, text| {
            settings.rx2_frequency = Some(number(text).filter(|hz| region.takes_rx2_frequency(*hz))?);
            Some(())
        },
        unset: |settings| settings.rx2_frequency = None,
        get: |settings| settings.rx2_frequency.map(|hz| hz.to_string()),
        default: |region| region.rx2().0.to_string(),
    },
    Setting {
        name: "downlink_tx_power",
        allowed: |region| {
            format!("0 to {} (dBm EIRP), or {OWN_POWER} for the band's own on each frequency", region.most_power())
        },
        put: |settings, region, text| {
            let wanted = |text: &str| number(text).filter(|power| (0..=region.most_power()).contains(power));
            settings.downlink_tx_power = if text == OWN_POWER { None } else { Some(wanted(text)?) };
            Some(())
        },
        unset: |settings| settings.downlink_tx_power = None,
        get: |settings| settings.downlink_tx_power.map(|power| power.to_string()),
        default: |_| OWN_POWER.into(),
    },
    Setting {
        name: "adr_disabled",
        allowed: |_| "true or false".into(),
        put: |settings, _, text| {
            settings.adr_disabled = Some(text.parse().ok()?);
            Some(())
        },
        unset: |settings| settings.adr_disabled = None,
        get: |settings| settings.adr_disabled.map(|disabled| disabled.to_string()),
        default: |_| false.to_string(),
    },
    Setting {
        name: "min_dr",
        allowed: |region| format!("0 to {}", most_uplink_rate(region)),
        put: |settings, region, text| {
            settings.min_dr = Some(number(text).filter(|rate| *rate <= most_uplink_rate(region))?);
            Some(())
        },
        unset: |settings| settings.min_dr = None,
        get: |settings| settings.min_dr.map(|rate| rate.to_string()),
        default: |_| "0".into(),
    },
    Setting {
        name: "max_dr",
        allowed: |region| format!("0 to {}", most_uplink_rate(region)),
        put: |settings, region, text| {
            settings.max_dr = Some(number(text).filter(|rate| *rate <= most_uplink_rate(region))?);
            Some(())
        },
        unset: |settings| settings.max_dr = None,
        get: |settings| settings.max_dr.map(|rate| rate.to_string()),
        default: |region| most_uplink_rate(region).to_string(),
    },
    Setting {
        name: "installation_margin",
        allowed: |_| format!("0 to {MOST_MARGIN} (dB)"),
        put: |settings, _, text| {
            settings.installation_margin = Some(number(text).filter(|margin| *margin <= MOST_MARGIN)?);
            Some(())
        },
        unset: |settings| settings.installation_margin = None,
        get: |settings| settings.installation_margin.map(|margin| margin.to_string()),
        default: |_| INSTALLATION_MARGIN.to_string(),
    },
    Setting {
        name: "uplink_dwell_time_400ms",
        allowed: allowed_dwell_time,
        put: |settings, region, text| {
            settings.uplink_dwell_time_400ms = Some(dwell_time(region, text)?);
            Some(())
        },
        unset: |settings| settings.uplink_dwell_time_400ms = None,
        get: |settings| settings.uplink_dwell_time_400ms.map(|limited| limited.to_string()),
        default: |_| false.to_string(),
    },
    Setting {
        name: "downlink_dwell_time_400ms",
        allowed: allowed_dwell_time,
        put: |settings, region, text| {
            settings.downlink_dwell_time_400ms = Some(dwell_time(region, text)?);
            Some(())
        },
        unset: |settings| settings.downlink_dwell_time_400ms = None,
        get: |settings| settings.downlink_dwell_time_400ms.map(|limited| limited.to_string()),
        default: |_| false.to_string(),
    },
    Setting {
        name: "repeater_compatible",
        allowed: |_| "true or false".into(),
        put: |settings, _, text| {
            settings.repeater_compatible = Some(text.parse().ok()?);
            Some(())
        },
        unset: |settings| settings.repeater_compatible = None,
        get: |settings| settings.repeater_compatible.map(|compatible| compatible.to_string()),
        default: |_| false.to_string(),
    },
    Setting {
        name: "extra_channels",
        allowed: |region| match region.extra_channel_range() {
            None => format!("none: the channels of {} are fixed", region.band()),
            Some((low, high)) => format!(
                "up to {MOST_EXTRA_CHANNELS} frequencies (Hz) from {low} to {high}, multiples of 100, separated by commas, none twice \
                 and none that every device knows, or within 10 kHz of one of the plan; empty for none"
            ),
        },
        put: |settings, region, text| {
            settings.extra_channels = Some(extra_channels(region, text)?);
            Some(())
        },
        unset: |settings| settings.extra_channels = None,
        get: |settings| settings.extra_channels.as_ref().map(list),
        default: |region| region.extra_channels().map(list).unwrap_or_default(),
    },
];

fn rx2_frequencies(region: &'static Region) -> String {
    match region.extra_channel_range() {
        Some((low, high)) => format!("{low} to {high} (Hz), multiples of 100"),
        None => format!("{} (Hz), or the frequency of another downlink channel of {}", region.rx2().0, region.band()),
    }
}

fn allowed_dwell_time(region: &Region) -> String {
    if region.has_dwell_time() {
        return "true or false".into();
    }
    format!("false: {} knows no such limit", region.band())
}

fn dwell_time(region: &Region, text: &str) -> Option<bool> {
    text.parse().ok().filter(|limited| !limited || region.has_dwell_time())
}

fn extra_channels(region: &Region, text: &str) -> Option<Vec<u32>> {
    region.extra_channel_range()?;
    let words = text.split(',').map(str::trim).filter(|_| !text.trim().is_empty());
    let channels: Vec<u32> = words.map(number).collect::<Option<_>>()?;
    let once = |(at, channel): (usize, &u32)| !channels[..at].contains(channel);
    let fit =
        channels.len() <= MOST_EXTRA_CHANNELS && channels.iter().all(|channel| region.takes_extra_channel(*channel));
    (fit && channels.iter().enumerate().all(once)).then_some(channels)
}

/// Digits alone: no sign, which Rust's numbers would take.
fn number<T: core::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|digit| digit.is_ascii_digit()))
}

fn millis(text: &str, most: u32) -> Option<u32> {
    let (digits, factor) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s')?, 1_000),
    };
    number::<u32>(digits)?.checked_mul(factor).filter(|millis| *millis <= most)
}

fn time(millis: u32) -> String {
    if millis > 0 && millis.is_multiple_of(1_000) { format!("{}s", millis / 1_000) } else { format!("{millis}ms") }
}

fn list(numbers: impl IntoIterator<Item = impl ToString>) -> String {
    numbers.into_iter().map(|number| number.to_string()).collect::<Vec<_>>().join(",")
}

impl<S, C: Copy> Setting<S, C> {
    fn shown(&self, settings: &S, of: C) -> admin::Setting {
        let (set, default) = ((self.get)(settings), (self.default)(of));
        admin::Setting {
            name: self.name.into(),
            is_set: set.is_some(),
            value: set.unwrap_or_else(|| default.clone()),
            default,
            allowed: (self.allowed)(of),
        }
    }

    fn change(&self, settings: &mut S, of: C, scope: Scope, value: Option<&str>) -> Result<(), SettingError> {
        let Some(text) = value else {
            (self.unset)(settings);
            return Ok(());
        };
        (self.put)(settings, of, text.trim()).ok_or_else(|| SettingError::NotAllowed {
            name: self.name,
            value: text.into(),
            of: scope.id(),
            allowed: (self.allowed)(of),
        })
    }
}

fn find<'a, S, C>(all: &'a [Setting<S, C>], scope: Scope, name: &str) -> Result<&'a Setting<S, C>, SettingError> {
    all.iter().find(|setting| setting.name == name).ok_or_else(|| {
        let known = all.iter().map(|setting| setting.name).collect::<Vec<_>>().join(", ");
        SettingError::Unknown { of: scope.id(), name: name.into(), known }
    })
}

/// All settings of the network or of a region, with what holds.
pub fn shown(settings: &NetworkSettings, scope: Scope) -> Vec<admin::Setting> {
    match scope {
        Scope::Network => NETWORKS.iter().map(|setting| setting.shown(settings, ())).collect(),
        Scope::Region(region) => REGIONS.iter().map(|setting| setting.shown(settings.of(region), region)).collect(),
    }
}

/// Sets one, or with no value lets its default hold again.
pub fn change(
    settings: &mut NetworkSettings,
    scope: Scope,
    name: &str,
    value: Option<&str>,
) -> Result<(), SettingError> {
    match scope {
        Scope::Network => find(&NETWORKS, scope, name)?.change(settings, (), scope, value),
        Scope::Region(region) => {
            let mut of_region = settings.of(region).clone();
            find(&REGIONS, scope, name)?.change(&mut of_region, region, scope, value)?;
            // A region that nothing is set for has no record.
            if of_region == RegionSettings::default() {
                settings.regions.remove(region.name());
            } else {
                settings.regions.insert(region.name().into(), of_region);
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
