//! When devices and gateways were heard last. Nothing waits for it and only the latest counts, so it is gathered here
//! and written now and then. A crash loses the last of it.

use std::{collections::BTreeMap, mem};

use limpet_shared::Eui64;
use limpet_worker_core::model::{DeviceSeen, GatewaySeen};
use parking_lot::Mutex;

use crate::words;

/// Devices and gateways whose notes may wait. Beyond that a note is written at once, and its writer waits.
const HELD: usize = 16_384;

/// How many are written in one go, so that other writes need not wait for them.
const AT_ONCE: usize = 500;

/// What waits to be written.
#[derive(Default)]
pub(crate) struct Notes {
    waiting: Mutex<Unwritten>,
    /// There is room for none: each is written at once.
    none: bool,
}

/// Notes by what they are of.
#[derive(Default)]
pub(crate) struct Unwritten {
    pub devices: BTreeMap<Eui64, DeviceSeen>,
    pub gateways: BTreeMap<Eui64, GatewaySeen>,
}

impl Notes {
    /// Has room for none.
    pub fn none() -> Self {
        Self { none: true, ..Self::default() }
    }

    /// False if there is no room for it.
    pub fn note_device(&self, dev_eui: Eui64, seen: &DeviceSeen) -> bool {
        let mut waiting = self.waiting.lock();
        if self.none || waiting.devices.len() >= HELD && !waiting.devices.contains_key(&dev_eui) {
            return false;
        }
        let known = waiting.devices.entry(dev_eui).or_default();
        *known = words::merge_device(mem::take(known), seen.clone());
        true
    }

    /// False if there is no room for it.
    pub fn note_gateway(&self, eui: Eui64, seen: &GatewaySeen) -> bool {
        let mut waiting = self.waiting.lock();
        if self.none || waiting.gateways.len() >= HELD && !waiting.gateways.contains_key(&eui) {
            return false;
        }
        let known = waiting.gateways.entry(eui).or_default();
        *known = words::merge_gateway(mem::take(known), seen.clone());
        true
    }

    pub fn is_empty(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.devices.is_empty() && waiting.gateways.is_empty()
    }

    /// Takes some of what waits. What cannot be written then is gone: the next note brings it again.
    pub fn take_some(&self) -> Unwritten {
        let mut waiting = self.waiting.lock();
        Unwritten { devices: take_some(&mut waiting.devices), gateways: take_some(&mut waiting.gateways) }
    }
}

fn take_some<T>(waiting: &mut BTreeMap<Eui64, T>) -> BTreeMap<Eui64, T> {
    let rest = waiting.keys().nth(AT_ONCE).copied();
    let rest = rest.map(|from| waiting.split_off(&from)).unwrap_or_default();
    mem::replace(waiting, rest)
}
