//! From a store into a file.

use std::{future::Future, path::Path};

use futures_util::{StreamExt, stream};
use limpet_shared::Eui64;
use serde::Serialize;
use uuid::Uuid;

use super::{
    DeviceRecords, GatewayRecord, MovingError, PendingAfter, Progress, Report, Reporter, at_work_until, now,
    order::Unit,
    part::Part,
    patience::patiently,
    plan::Plan,
    record::{DeviceRecord, GatewaySet, Kind, Record, Setting},
    running,
    tally::Summary,
    unfinished, workers,
};
use crate::{IntegrationId, PendingEvent, Result as StoreResult, Store};

/// Things that are read at one moment.
const AT_ONCE: usize = 64;
/// Joins, queue items or pending events of one device that are read at once: this bounds the memory.
const PAGE: u32 = 64;

/// What became of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    #[serde(flatten)]
    pub summary: Summary,
    /// It went on with what an interrupted one had written.
    pub resumed: bool,
    /// Servers that were at work meanwhile: then each thing is as it was when it was read.
    pub running: Vec<String>,
}

/// Writes everything into `file`, which must not exist. Until it is whole it is called `FILE.part`.
pub async fn export(store: &dyn Store, file: &Path, report: Reporter<'_>) -> Result<Exported, MovingError> {
    if let Some(unfinished) = unfinished(store).await? {
        return Err(MovingError::Unfinished { sha256: unfinished.sha256 });
    }
    if file.exists() {
        return Err(MovingError::FileExists(file.into()));
    }
    let servers = store.servers().await?;
    let (running, quiet_since) = (running(&servers, now()), workers(&servers).map(at_work_until).max());
    let plan = Plan::make(store).await?;
    if plan.contents().is_empty() {
        return Err(MovingError::NothingToExport);
    }
    let part = Part::open(file, &plan.settings, quiet_since.unwrap_or_default(), report)?;
    let resumed = part.is_resumed();
    let mut writing = Writing { store, plan: &plan, part, report, done: 0 };
    match writing.everything().await {
        Ok(()) => Ok(Exported { summary: writing.part.finish(file)?, resumed, running }),
        Err(changed @ MovingError::Changed { .. }) => {
            writing.part.discard()?;
            Err(changed)
        }
        Err(error) => Err(error),
    }
}

struct Writing<'a> {
    store: &'a dyn Store,
    plan: &'a Plan,
    part: Part,
    report: Reporter<'a>,
    done: u64,
}

impl Writing<'_> {
    async fn everything(&mut self) -> Result<(), MovingError> {
        let (store, plan) = (self.store, self.plan);
        self.part.put(&Record::header())?;
        for (name, value) in &plan.settings {
            self.put(Record::Setting(Setting { name: name.clone(), value: value.clone() }))?;
        }
        self.things(Kind::Tenant, &plan.tenants, |id| store.tenant(id), Record::Tenant).await?;
        self.things(Kind::User, &plan.users, |id| store.user(id), Record::User).await?;
        self.things(Kind::ApiKey, &plan.api_keys, |id| store.api_key(id), Record::ApiKey).await?;
        self.things(Kind::Application, &plan.applications, |id| store.application(id), Record::Application).await?;
        let profile = |profile| Record::DeviceProfile(Box::new(profile));
        self.things(Kind::DeviceProfile, &plan.profiles, |id| store.device_profile(id), profile).await?;
        let gateway = |(gateway, seen)| Record::Gateway(Box::new(GatewayRecord { gateway, seen }));
        self.things(Kind::Gateway, &plan.gateways, |eui| store.gateway(eui), gateway).await?;
        self.put(Record::GatewaySet(GatewaySet { version: plan.gateway_set }))?;
        self.devices().await?;
        self.pending().await?;
        for server in &plan.revoked {
            self.put(Record::RevokedServer(server.clone()))?;
        }
        for token in &plan.tokens {
            self.put(Record::JoinToken(token.clone()))?;
        }
        Ok(())
    }

    fn put(&mut self, record: Record) -> Result<(), MovingError> {
        self.part.put(&record)?;
        self.step(record.kind(), 1);
        Ok(())
    }

    fn step(&mut self, kind: Kind, units: u64) {
        self.done += units;
        let (kind, done, total) = (kind.plural(), self.done, self.plan.units());
        (self.report)(Report::Progress(Progress { step: "exporting", kind, done, total, unit: "records" }));
    }

    /// The part of a list that is not in the file yet.
    fn left<'l, T>(&mut self, kind: Kind, all: &'l [T], unit: impl Fn(&T) -> Unit) -> &'l [T] {
        let there = all.partition_point(|item| self.part.has(&unit(item)));
        self.step(kind, there as u64);
        all.get(there..).unwrap_or_default()
    }

    /// One record for each identity; what was deleted meanwhile has none.
    async fn things<'s, I: Identity, T, F>(
        &mut self,
        kind: Kind,
        all: &[I],
        read: impl Fn(I) -> F + 's,
        record: impl Fn(T) -> Record,
    ) -> Result<(), MovingError>
    where
        F: Future<Output = StoreResult<Option<T>>> + 's,
    {
        let left = self.left(kind, all, |id| Unit::new(kind, id.bytes()));
        let mut reads = stream::iter(left).map(|id| patiently(async || read(*id).await)).buffered(AT_ONCE);
        while let Some(found) = reads.next().await {
            if let Some(found) = found? {
                self.part.put(&record(found))?;
            }
            self.step(kind, 1);
        }
        Ok(())
    }

    async fn devices(&mut self) -> Result<(), MovingError> {
        let (store, plan) = (self.store, self.plan);
        let left = self.left(Kind::Device, &plan.devices, |eui| Unit::new(Kind::Device, eui.bytes()));
        let reads = stream::iter(left);
        let mut reads = reads.map(|eui| patiently(async || store.device_records(*eui, PAGE).await)).buffered(AT_ONCE);
        while let Some(found) = reads.next().await {
            if let Some(found) = found? {
                self.device(found).await?;
            }
            self.step(Kind::Device, 1);
        }
        Ok(())
    }

    async fn device(&mut self, records: DeviceRecords) -> Result<(), MovingError> {
        let DeviceRecords { device, seen, queue_last, state, mut joins, sessions, mut queue } = records;
        let dev_eui = device.dev_eui;
        self.part.put(&Record::Device(Box::new(DeviceRecord { device, seen, queue_last })))?;
        if state.rev > 0 {
            self.part.put(&Record::DeviceState(state))?;
        }
        loop {
            let next = full(&joins).map(|last| last.dev_nonce);
            for join in joins {
                self.part.put(&Record::Join(Box::new(join)))?;
            }
            let Some(after) = next else { break };
            joins = patiently(async || self.store.joins_after(dev_eui, after, PAGE).await).await?;
        }
        for row in sessions {
            self.part.put(&Record::Session(Box::new(row)))?;
        }
        loop {
            let next = full(&queue).map(|last| last.seq);
            for item in queue {
                self.part.put(&Record::QueueItem(item))?;
            }
            let Some(after) = next else { break };
            queue = patiently(async || self.store.queue(dev_eui, after, PAGE).await).await?;
        }
        Ok(())
    }

    async fn pending(&mut self) -> Result<(), MovingError> {
        let (store, plan) = (self.store, self.plan);
        let unit = |key: &(Eui64, IntegrationId)| {
            Unit::new(Kind::PendingEvent, [&key.0.bytes()[..], key.1.0.as_bytes()].concat())
        };
        let left = self.left(Kind::PendingEvent, &plan.pending, unit);
        let page = async |&(device, integration): &(Eui64, IntegrationId)| {
            let read = async || store.pending_after(integration, device, None, PAGE).await;
            let events = patiently(read).await?;
            Ok::<_, MovingError>((integration, device, events))
        };
        let mut reads = stream::iter(left).map(page).buffered(AT_ONCE);
        while let Some(found) = reads.next().await {
            let (integration, device, mut events) = found?;
            loop {
                let next = full(&events).map(after);
                for event in events {
                    self.part.put(&Record::PendingEvent(Box::new(event.into())))?;
                }
                let Some(next) = next else { break };
                let read = async || store.pending_after(integration, device, Some(next), PAGE).await;
                events = patiently(read).await?;
            }
            self.step(Kind::PendingEvent, 1);
        }
        Ok(())
    }
}

/// The last of a page that is full: more may follow.
fn full<T>(page: &[T]) -> Option<&T> {
    page.last().filter(|_| page.len() >= PAGE as usize)
}

fn after(event: &PendingEvent) -> PendingAfter {
    (event.session_since, event.slot, event.part)
}

/// What things are ordered by.
trait Identity: Copy {
    fn bytes(&self) -> Vec<u8>;
}

impl Identity for Uuid {
    fn bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl Identity for Eui64 {
    fn bytes(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
}
