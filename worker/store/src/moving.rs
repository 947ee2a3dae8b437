//! Moving house: everything that makes a network, out of one store into a file and from there into another.
//!
//! The file is JSON Lines: one record a line, each thing after what it belongs to and things of a kind in the order of their
//! identities, so that two stores that hold the same give the same bytes. A store offers what this needs as the trait
//! [`Moving`]; everything else is written once, over that trait.

mod counters;
mod error;
mod export;
mod import;
mod order;
mod part;
mod patience;
mod plan;
mod read;
mod record;
mod tally;

use async_trait::async_trait;
use limpet_shared::{
    Eui64, UnixMicros,
    admin::{Role, Server},
};
use limpet_worker_core::model::{
    Device, DeviceSeen, DeviceState, Gateway, GatewaySeen, JoinRow, QueueItem, SessionRow,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use counters::{Counters, DEFAULT_SKIP, MOST_SKIP};
pub use error::MovingError;
pub use export::{Exported, export};
pub use import::{Imported, Unfinished, import, unfinished};
pub use read::{Checked, check};
pub use record::{DeviceRecord, GatewaySet, Kind, PendingRecord, Record, Setting, VERSION};
pub use tally::{Counts, Summary};

use crate::{IntegrationId, PendingEvent, Result, words::now};

/// The setting that an import holds until it is finished. No server starts on a store that has it.
pub(crate) const IMPORT: &str = "import";
/// The setting with the second in which the network began: above the version of the set of gateways in what balancers
/// are told, so that they take what a network that began anew says for newer than all that they know.
pub const NETWORK_BEGAN: &str = "network_began";

/// Kinds whose things have UUIDs and stand on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identified {
    Tenants,
    Users,
    ApiKeys,
    Applications,
    DeviceProfiles,
}

/// A device with the beginning of all that is its own.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceRecords {
    pub device: Device,
    pub seen: DeviceSeen,
    /// The last number that its downlink queue gave; 0 for none.
    pub queue_last: u64,
    /// With `rev` 0 if it has none.
    pub state: DeviceState,
    /// The first of them, by DevNonce.
    pub joins: Vec<JoinRow>,
    /// All, by key.
    pub sessions: Vec<SessionRow>,
    /// The first of them, by number.
    pub queue: Vec<QueueItem>,
}

/// A gateway with what was heard of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewayRecord {
    pub gateway: Gateway,
    pub seen: GatewaySeen,
}

/// Behind which of a device's pending events to go on: session start, slot number, part.
pub type PendingAfter = (UnixMicros, u64, u32);

/// What moving needs beyond the ordinary ways of reading and writing. Nothing else uses it.
#[async_trait]
pub trait Moving: Send + Sync + 'static {
    /// All settings by name, without those that a store keeps for itself.
    async fn settings(&self) -> Result<Vec<(String, Vec<u8>)>>;
    /// Writes a setting over what is there, or takes it away.
    async fn put_setting(&self, name: &str, value: Option<&[u8]>) -> Result<()>;
    /// Identities of all things of a kind, ascending.
    async fn identities(&self, of: Identified) -> Result<Vec<Uuid>>;
    /// All devices, ascending.
    async fn device_euis(&self) -> Result<Vec<Eui64>>;
    /// A device, with at most `page` of its joins and of its queue's items. As far as the store can, from one moment.
    async fn device_records(&self, dev_eui: Eui64, page: u32) -> Result<Option<DeviceRecords>>;
    /// A device's joins behind a DevNonce, by DevNonce.
    async fn joins_after(&self, dev_eui: Eui64, after: u16, limit: u32) -> Result<Vec<JoinRow>>;
    /// Devices with the integrations that they have pending events for; in no order.
    async fn pending_keys(&self) -> Result<Vec<(Eui64, IntegrationId)>>;
    /// A device's pending events behind one of them, in the order of their keys.
    async fn pending_after(
        &self,
        integration: IntegrationId,
        device: Eui64,
        after: Option<PendingAfter>,
        limit: u32,
    ) -> Result<Vec<PendingEvent>>;
    /// Writes records as they are, with their revisions and numbers, in order. They are of one thing, and what that belongs
    /// to is there. The same again changes nothing, also after a crash in between.
    async fn restore(&self, records: &[Record]) -> Result<()>;
}

/// A worker that wrote down no longer ago than this that it is there counts as running.
const ALIVE: std::time::Duration = std::time::Duration::from_secs(15);

/// Workers are the servers that use the store. What is written of balancers is written by workers.
fn workers(servers: &[Server]) -> impl Iterator<Item = &Server> {
    servers.iter().filter(|server| server.kind() == Role::Worker)
}

/// Names of the workers that run on this store.
fn running(servers: &[Server], now: UnixMicros) -> Vec<String> {
    workers(servers).filter(|worker| at_work_until(worker) > now).map(|worker| worker.name.clone()).collect()
}

/// Names of those that read rows in no other form than JSON.
pub(crate) fn behind(servers: &[Server]) -> Vec<String> {
    let behind: Vec<_> = servers.iter().filter(|server| server.reads_rows < crate::READS_ROWS).cloned().collect();
    running(&behind, now())
}

/// Until when a worker may have been at work: one that ended says so.
fn at_work_until(worker: &Server) -> UnixMicros {
    if worker.state == "gone" { worker.seen_at } else { worker.seen_at + ALIVE }
}

/// How far it is; told often, to be shown now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done: `checking`, `exporting` or `importing`.
    pub step: &'static str,
    /// Plural, for people: what is on its way now.
    pub kind: &'static str,
    pub done: u64,
    pub total: u64,
    /// What `done` and `total` count.
    pub unit: &'static str,
}

/// What is said while it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    Progress(Progress),
    /// Something that people should know.
    Note(String),
}

/// Where that is said.
pub type Reporter<'a> = &'a (dyn Fn(Report) + Sync);
