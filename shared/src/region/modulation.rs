//! How a frame is modulated, and how GWMP writes it.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::gwmp::Datr;

/// A modulation with the parameters that make up a data rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Modulation {
    /// LoRa; always coding rate 4/5 in LoRaWAN below 2 GHz.
    Lora { spreading_factor: u8, bandwidth_khz: u16 },
    /// Bits per second.
    Fsk { bit_rate: u32 },
    /// LR-FHSS, uplinks only. `bandwidth_khz` is the occupied channel width.
    LrFhss { code_rate: CodeRate, bandwidth_khz: u16 },
}

/// Coding rate of an LR-FHSS frame, which tells its data rates apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CodeRate {
    OneThird,
    TwoThirds,
}

impl CodeRate {
    /// Reads `codr` of an rxpk: forwarders write 1/3 and 2/3 also with the denominator 6.
    pub fn from_codr(codr: &str) -> Option<Self> {
        match codr {
            "1/3" | "2/6" => Some(Self::OneThird),
            "2/3" | "4/6" => Some(Self::TwoThirds),
            _ => None,
        }
    }
}

impl Modulation {
    /// From the fields of an rxpk. None for LR-FHSS without a coding rate of LoRaWAN; a LoRa frame's is always 4/5.
    pub fn from_gwmp(datr: &Datr, codr: Option<&str>) -> Option<Self> {
        Some(match *datr {
            Datr::Lora { spreading_factor, bandwidth_khz } => Self::Lora { spreading_factor, bandwidth_khz },
            Datr::Fsk { bit_rate } => Self::Fsk { bit_rate },
            Datr::LrFhss { channel_width_khz } => {
                Self::LrFhss { code_rate: CodeRate::from_codr(codr?)?, bandwidth_khz: channel_width_khz }
            }
        })
    }

    /// How wide a channel it needs, Hz.
    pub fn width_hz(&self) -> u32 {
        match *self {
            Self::Lora { bandwidth_khz, .. } | Self::LrFhss { bandwidth_khz, .. } => u32::from(bandwidth_khz) * 1_000,
            // Carson's rule with LoRaWAN's deviation of half the bit rate.
            Self::Fsk { bit_rate } => bit_rate.saturating_mul(2),
        }
    }

    /// `modu` and `datr` of a txpk or rxpk.
    pub fn to_gwmp(&self) -> Datr {
        match *self {
            Self::Lora { spreading_factor, bandwidth_khz } => Datr::Lora { spreading_factor, bandwidth_khz },
            Self::Fsk { bit_rate } => Datr::Fsk { bit_rate },
            Self::LrFhss { bandwidth_khz, .. } => Datr::LrFhss { channel_width_khz: bandwidth_khz },
        }
    }
}

/// As `codr` of GWMP.
impl fmt::Display for CodeRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneThird => "1/3",
            Self::TwoThirds => "2/3",
        })
    }
}

/// As `datr` of GWMP: `SF7BW125`, `50000` (a JSON number there), `M0CW137`.
impl fmt::Display for Modulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lora { spreading_factor, bandwidth_khz } => write!(f, "SF{spreading_factor}BW{bandwidth_khz}"),
            Self::Fsk { bit_rate } => write!(f, "{bit_rate}"),
            Self::LrFhss { bandwidth_khz, .. } => write!(f, "M0CW{bandwidth_khz}"),
        }
    }
}
