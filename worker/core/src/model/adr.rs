//! What a session knows of how its device is heard, where the network chooses the data rate.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// See the module. Empty for a device that keeps its data rate for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdrState {
    /// How often the device sends each unconfirmed uplink, as it was last told; 0: once, as it was made.
    pub nb_trans: u8,
    /// It has refused any faster data rate, or does not use it.
    pub max_data_rate: Option<u8>,
    /// It has refused TXPower 0.
    pub min_power: u8,
    /// It has refused any weaker TXPower.
    pub max_power: Option<u8>,
    /// How often it has said that it goes on with another data rate, and has not.
    pub ignored: u8,
    /// Its last uplinks with what it sends with now, oldest first.
    pub heard: Vec<HeardUplink>,
}

/// How one uplink was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeardUplink {
    /// FCntUp that are missing before it; 255 stands for more.
    pub missed: u8,
    /// Of the gateway that heard it best, quarters of a dB.
    pub snr: i8,
}

impl AdrState {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
