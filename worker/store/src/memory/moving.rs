//! Moving house, in memory.

use std::ops::Bound;

use async_trait::async_trait;
use limpet_shared::Eui64;
use limpet_worker_core::model::*;
use uuid::Uuid;

use super::{MemoryStore, State, frames};
use crate::{
    IntegrationId, PendingEvent, Result,
    moving::{DeviceRecords, Identified, Moving, PendingAfter, Record},
    words,
};

#[async_trait]
impl Moving for MemoryStore {
    async fn settings(&self) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(self.state.lock().settings.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
    }
    async fn put_setting(&self, name: &str, value: Option<&[u8]>) -> Result<()> {
        let settings = &mut self.state.lock().settings;
        match value {
            Some(value) => settings.insert(name.into(), value.into()),
            None => settings.remove(name),
        };
        Ok(())
    }
    async fn identities(&self, of: Identified) -> Result<Vec<Uuid>> {
        let state = self.state.lock();
        Ok(match of {
            Identified::Tenants => state.tenants.keys().copied().collect(),
            Identified::Users => state.users.keys().copied().collect(),
            Identified::ApiKeys => state.api_keys.keys().copied().collect(),
            Identified::Applications => state.applications.keys().copied().collect(),
            Identified::DeviceProfiles => state.profiles.keys().copied().collect(),
        })
    }
    async fn device_euis(&self) -> Result<Vec<Eui64>> {
        Ok(self.state.lock().devices.keys().copied().collect())
    }
    async fn device_records(&self, dev_eui: Eui64, page: u32) -> Result<Option<DeviceRecords>> {
        Ok(self.state.lock().device_records(dev_eui, page))
    }
    async fn joins_after(&self, dev_eui: Eui64, after: u16, limit: u32) -> Result<Vec<JoinRow>> {
        let range = (Bound::Excluded((dev_eui, after)), Bound::Included((dev_eui, u16::MAX)));
        let state = self.state.lock();
        // Behind the last DevNonce there is nothing, and the range would be upside down.
        if after == u16::MAX {
            return Ok(Vec::new());
        }
        Ok(state.joins.range(range).take(limit as usize).map(|(_, row)| row.clone()).collect())
    }
    async fn pending_keys(&self) -> Result<Vec<(Eui64, IntegrationId)>> {
        let state = self.state.lock();
        let mut keys: Vec<_> = state.pending.keys().map(|(integration, device, ..)| (*device, *integration)).collect();
        keys.dedup();
        Ok(keys)
    }
    async fn pending_after(
        &self,
        integration: IntegrationId,
        device: Eui64,
        after: Option<PendingAfter>,
        limit: u32,
    ) -> Result<Vec<PendingEvent>> {
        let state = self.state.lock();
        let waiting = state.pending_of(integration, device).map(|waiting| &waiting.event);
        let behind = |e: &&PendingEvent| after.is_none_or(|after| (e.session_since, e.slot, e.part) > after);
        Ok(waiting.filter(behind).take(limit as usize).cloned().collect())
    }
    async fn restore(&self, records: &[Record]) -> Result<()> {
        let mut state = self.state.lock();
        records.iter().try_for_each(|record| state.restore(record))
    }
}

impl State {
    fn device_records(&self, dev_eui: Eui64, page: u32) -> Option<DeviceRecords> {
        let (device, seen) = self.devices.get(&dev_eui)?.clone();
        let joins = self.joins.range((dev_eui, 0)..=(dev_eui, u16::MAX));
        Some(DeviceRecords {
            device,
            seen,
            queue_last: self.queues.get(&dev_eui).map_or(0, |queue| queue.last),
            state: self.states.get(&dev_eui).cloned().unwrap_or_else(|| DeviceState::new(dev_eui)),
            joins: joins.take(page as usize).map(|(_, row)| row.clone()).collect(),
            sessions: self.sessions.values().filter(|row| row.session.key.dev_eui == dev_eui).cloned().collect(),
            queue: self.queue(dev_eui, 0, page),
        })
    }

    fn restore(&mut self, record: &Record) -> Result<()> {
        let put = match record {
            Record::Header(_) | Record::Trailer(_) => Ok(()),
            Record::Setting(setting) => {
                self.settings.entry(setting.name.clone()).or_insert_with(|| setting.value.clone());
                Ok(())
            }
            Record::Tenant(tenant) => self.create_tenant(tenant),
            Record::User(user) => self.create_user(user),
            Record::ApiKey(key) => self.create_api_key(key),
            Record::Application(application) => self.create_application(application),
            Record::DeviceProfile(profile) => self.create_device_profile(profile),
            Record::Gateway(row) => {
                let created = self.create_gateway(&row.gateway);
                self.note_gateway(row.gateway.eui, row.seen.clone());
                created
            }
            Record::GatewaySet(set) => {
                self.gateway_changes = set.version.saturating_sub(1);
                Ok(())
            }
            Record::Device(row) => {
                let created = self.create_device(&row.device);
                let dev_eui = row.device.dev_eui;
                self.note_device(dev_eui, row.seen.clone());
                if row.queue_last > 0 {
                    let queue = self.queues.entry(dev_eui).or_default();
                    queue.last = queue.last.max(row.queue_last);
                }
                created
            }
            Record::DeviceState(state) => {
                self.states.entry(state.dev_eui).or_insert_with(|| state.clone());
                Ok(())
            }
            Record::Join(row) => {
                self.joins.entry((row.dev_eui, row.dev_nonce)).or_insert_with(|| (**row).clone());
                Ok(())
            }
            Record::Session(row) => {
                self.sessions.entry(row.session.key).or_insert_with(|| (**row).clone());
                Ok(())
            }
            Record::QueueItem(item) => {
                let queue = self.queues.entry(item.dev_eui).or_default();
                queue.last = queue.last.max(item.seq);
                queue.items.entry(item.seq).or_insert_with(|| item.clone());
                Ok(())
            }
            Record::PendingEvent(row) => {
                let event = PendingEvent::from(&**row);
                if self.pending.contains_key(&frames::pending_key(&event)) { Ok(()) } else { self.put_pending(event) }
            }
            Record::RevokedServer(server) => {
                let key = (server.name.clone(), server.key.clone());
                self.revoked.entry(key).or_insert_with(|| server.clone());
                self.count_membership_change();
                Ok(())
            }
            Record::JoinToken(token) => {
                self.tokens.entry(token.id.clone()).or_insert_with(|| token.clone());
                self.count_membership_change();
                Ok(())
            }
        };
        words::or_there(put)
    }
}
