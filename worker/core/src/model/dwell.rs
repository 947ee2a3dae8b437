//! Limits to how long a transmission may be, of bands that know them.

use serde::{Deserialize, Serialize};

/// Whether each transmission is limited to 400 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DwellTime {
    pub uplink: bool,
    pub downlink: bool,
}
