//! Between GWMP's words for a modulation and the regions'.

use super::{Datr, Rxpk};
use crate::region::Modulation;

impl Rxpk {
    /// The modulation; `None` for LR-FHSS without a code rate that LoRaWAN has.
    pub fn modulation(&self) -> Option<Modulation> {
        Modulation::from_gwmp(&self.datr, self.codr.as_deref())
    }
}

impl From<Modulation> for Datr {
    fn from(modulation: Modulation) -> Self {
        modulation.to_gwmp()
    }
}
