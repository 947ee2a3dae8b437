//! The regions of the network, and what is set for them and for the network as a whole.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

/// What holds for a region configuration, or for the network as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegionSettings {
    /// Such as `us915_1`; `network` for what is of no region.
    pub id: String,
    /// The band's common name, such as `US915`; empty for the network.
    pub band: String,
    pub settings: Vec<Setting>,
}

/// A setting, by the name that ChirpStack gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Setting {
    pub name: String,
    /// What holds.
    pub value: String,
    /// Somebody has set it; else the default holds.
    pub is_set: bool,
    pub default: String,
    /// What it may be, with the unit, for people.
    pub allowed: String,
}

/// Settings to change, all or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegionChange {
    /// As in [`RegionSettings::id`].
    pub id: String,
    /// Names with their new values.
    pub set: Vec<(String, String)>,
    /// Names of those whose default is to hold again.
    pub unset: Vec<String>,
}
