//! Receptions, pending events, leases and notes in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use limpet_shared::{Eui64, UnixMicros};
use limpet_worker_core::model::*;

use super::{PendingKey, State, Waiting};
use crate::{Backlog, IntegrationId, MOST_COPIES, PendingBounds, PendingEvent, Result, StoreError, Trimmed, words};

/// What a pending event is keyed by.
pub(super) fn pending_key(event: &PendingEvent) -> PendingKey {
    (event.integration, event.device, event.session_since, event.slot, event.part)
}

impl State {
    pub(super) fn put_reception(&mut self, reception: Reception) {
        let key = (reception.key, reception.gateway, reception.context);
        self.receptions.entry(key).or_insert(reception);
    }

    pub(super) fn receptions(&self, key: DedupKey) -> Vec<Reception> {
        let range = (key, Eui64(0), 0)..=(key, Eui64(u64::MAX), u64::MAX);
        let mut found: Vec<_> = self.receptions.range(range).map(|(_, r)| r.clone()).collect();
        found.sort_by_key(|r| (r.received_at, r.gateway, r.context));
        found.split_off(found.len().saturating_sub(MOST_COPIES))
    }

    pub(super) fn reception_keys(&self, since: UnixMicros, after: Option<DedupKey>, limit: u32) -> Vec<DedupKey> {
        let from = match after {
            Some(key) => Bound::Excluded((key, Eui64(u64::MAX), u64::MAX)),
            None => Bound::Unbounded,
        };
        let mut keys = BTreeSet::new();
        for (&(key, ..), reception) in self.receptions.range((from, Bound::Unbounded)) {
            if reception.received_at < since || keys.contains(&key) {
                continue;
            }
            if keys.len() >= limit as usize {
                break;
            }
            keys.insert(key);
        }
        keys.into_iter().collect()
    }

    pub(super) fn expire_receptions(&mut self, before: UnixMicros) -> u64 {
        let had = self.receptions.len();
        self.receptions.retain(|_, r| r.received_at >= before);
        (had - self.receptions.len()) as u64
    }

    pub(super) fn put_pending(&mut self, event: PendingEvent) -> Result<()> {
        let bytes = serde_json::to_vec(&event.event).map_err(|e| StoreError::Corrupt(e.to_string()))?.len() as u64;
        let written = self.pending_written;
        self.pending_written += 1;
        self.pending.entry(pending_key(&event)).or_insert(Waiting { written, bytes, at: words::now(), event });
        Ok(())
    }

    pub(super) fn pending_of(&self, integration: IntegrationId, device: Eui64) -> impl Iterator<Item = &Waiting> {
        let first = (integration, device, UnixMicros(0), 0, 0);
        let last = (integration, device, UnixMicros(u64::MAX), u64::MAX, u32::MAX);
        self.pending.range(first..=last).map(|(_, waiting)| waiting)
    }

    fn pending_for(&self, integration: IntegrationId) -> impl Iterator<Item = (&PendingKey, &Waiting)> {
        let first = (integration, Eui64(0), UnixMicros(0), 0, 0);
        let last = (integration, Eui64(u64::MAX), UnixMicros(u64::MAX), u64::MAX, u32::MAX);
        self.pending.range(first..=last)
    }

    pub(super) fn pending_devices(&self, limit: u32) -> Vec<(IntegrationId, Eui64)> {
        let mut waiting: Vec<_> = self.pending.values().collect();
        waiting.sort_by_key(|w| w.written);
        let mut listed = BTreeSet::new();
        let devices = waiting.into_iter().map(|w| (w.event.integration, w.event.device));
        devices.filter(|d| listed.insert(*d)).take(limit as usize).collect()
    }

    pub(super) fn pending_turns(&self, each: u32, aside: &[IntegrationId]) -> Vec<(IntegrationId, Eui64)> {
        let devices =
            self.pending_devices(u32::MAX).into_iter().filter(|(integration, _)| !aside.contains(integration));
        crate::words::in_turn(devices, |(integration, _)| *integration, each)
    }

    pub(super) fn pending_size(&self, integration: IntegrationId) -> (u64, u64) {
        self.pending_for(integration).fold((0, 0), |(count, bytes), (_, w)| (count + 1, bytes + w.bytes))
    }

    pub(super) fn pending_backlog(&self) -> Vec<Backlog> {
        let mut all = BTreeMap::new();
        for Waiting { event, bytes, at, .. } in self.pending.values() {
            let integration = event.integration;
            let backlog = all.entry(integration).or_insert(Backlog { integration, events: 0, bytes: 0, oldest: *at });
            backlog.events += 1;
            backlog.bytes += bytes;
            backlog.oldest = backlog.oldest.min(*at);
        }
        all.into_values().collect()
    }

    pub(super) fn trim_pending(&mut self, integration: IntegrationId, bounds: &PendingBounds) -> Trimmed {
        let mut oldest: Vec<_> =
            self.pending_for(integration).map(|(key, w)| (w.written, (w.at, w.bytes), *key)).collect();
        oldest.sort_unstable();
        let beyond = words::beyond(oldest.iter().map(|(_, of, _)| *of), self.pending_size(integration), bounds);
        for (.., key) in oldest.iter().take(usize::try_from(beyond.events()).unwrap_or(usize::MAX)) {
            self.pending.remove(key);
        }
        beyond
    }

    pub(super) fn lease(&mut self, name: &str, holder: &str, now: UnixMicros, until: UnixMicros) -> bool {
        if let Some((other, ends)) = self.leases.get(name)
            && other != holder
            && *ends > now
        {
            return false;
        }
        self.leases.insert(name.into(), (holder.into(), until));
        true
    }

    pub(super) fn note_device(&mut self, dev_eui: Eui64, seen: DeviceSeen) {
        if let Some((_, known)) = self.devices.get_mut(&dev_eui) {
            *known = words::merge_device(known.clone(), seen);
        }
    }

    pub(super) fn note_gateway(&mut self, eui: Eui64, seen: GatewaySeen) {
        if let Some((_, known)) = self.gateways.get_mut(&eui) {
            *known = words::merge_gateway(known.clone(), seen);
        }
    }
}
