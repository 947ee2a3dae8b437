//! The data rate as GWMP writes it: `modu` and `datr` together.

use alloc::{format, string::String};

use super::loose::Loose;

/// The width that LoRa has at 2.4 GHz and nowhere else, where its code rate is another one.
const ISM2400_KHZ: u16 = 812;

/// How a packet is modulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Datr {
    /// `"modu":"LORA","datr":"SF7BW125"`
    Lora {
        /// 5 to 12.
        spreading_factor: u8,
        bandwidth_khz: u16,
    },
    /// `"modu":"FSK","datr":50000`
    Fsk {
        /// Bits per second.
        bit_rate: u32,
    },
    /// `"modu":"LR-FHSS","datr":"M0CW137"`
    LrFhss {
        /// Operating channel width.
        channel_width_khz: u16,
    },
}

/// Why `modu` and `datr` name no data rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DatrError {
    Modulation,
    DataRate,
}

impl Datr {
    /// The word in `modu`.
    pub fn modu(&self) -> &'static str {
        match self {
            Self::Lora { .. } => "LORA",
            Self::Fsk { .. } => "FSK",
            Self::LrFhss { .. } => "LR-FHSS",
        }
    }

    /// The text in `datr`; `None` for FSK, whose `datr` is a number.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Lora { spreading_factor, bandwidth_khz } => Some(format!("SF{spreading_factor}BW{bandwidth_khz}")),
            Self::LrFhss { channel_width_khz } => Some(format!("M0CW{channel_width_khz}")),
            Self::Fsk { .. } => None,
        }
    }

    /// From the two fields. Without `modu`, the form of `datr` tells.
    /// The code rate that LoRaWAN has with it, as `codr` of a txpk; FSK has none, and of LR-FHSS it says more than the data rate.
    pub fn code_rate(&self) -> Option<&'static str> {
        match self {
            Self::Lora { bandwidth_khz: ISM2400_KHZ, .. } => Some("4/8LI"),
            Self::Lora { .. } => Some("4/5"),
            Self::Fsk { .. } | Self::LrFhss { .. } => None,
        }
    }

    pub(super) fn read(modu: &Loose<'_>, datr: &Loose<'_>) -> Result<Self, DatrError> {
        let read = match modu.str() {
            None if modu.is_nothing() => lora(datr).or_else(|| lr_fhss(datr)).or_else(|| fsk(datr)),
            Some(m) if m.eq_ignore_ascii_case("LORA") => lora(datr),
            Some(m) if m.eq_ignore_ascii_case("FSK") => fsk(datr),
            Some(m) if m.eq_ignore_ascii_case("LR-FHSS") => lr_fhss(datr),
            _ => return Err(DatrError::Modulation),
        };
        read.ok_or(DatrError::DataRate)
    }
}

fn lora(datr: &Loose<'_>) -> Option<Datr> {
    let (sf, bw) = numbers(datr.str()?, "SF", "BW")?;
    let spreading_factor = digits(sf).filter(|sf| (5..=12).contains(sf))? as u8;
    Some(Datr::Lora { spreading_factor, bandwidth_khz: digits(bw)? })
}

fn lr_fhss(datr: &Loose<'_>) -> Option<Datr> {
    let (mode, width) = numbers(datr.str()?, "M", "CW")?;
    mode.parse::<u8>().ok()?;
    Some(Datr::LrFhss { channel_width_khz: digits(width)? })
}

/// What follows each of these two, whose case does not matter.
fn numbers<'a>(text: &'a str, first: &str, second: &str) -> Option<(&'a str, &'a str)> {
    let after = |text: &'a str, word: &str| {
        let (begin, rest) = text.split_at_checked(word.len())?;
        begin.eq_ignore_ascii_case(word).then_some(rest)
    };
    let rest = after(text, first)?;
    let (one, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
    Some((one, after(rest, second)?))
}

fn fsk(datr: &Loose<'_>) -> Option<Datr> {
    datr.u32().filter(|rate| *rate > 0).map(|bit_rate| Datr::Fsk { bit_rate })
}

/// A positive number of digits alone: `parse` would take a sign too.
fn digits(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten().filter(|n| *n > 0)
}
