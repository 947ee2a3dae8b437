//! The seam itself.

use async_trait::async_trait;
use limpet_shared::{
    DevAddr, Eui64, UnixMicros,
    admin::{RevokedServer, Role, Server, TokenInfo},
};
use limpet_worker_core::model::*;
use uuid::Uuid;

use crate::{Moving, Result, rows::settings};

/// The setting that holds [`NetworkSettings`].
pub(crate) const NETWORK_SETTINGS: &str = "network_settings";

/// What became of a compare-and-set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    Applied,
    /// The row was not at the expected revision (or existed, or was gone). Nothing was written.
    Refused,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// May miss a write that is going on.
    Quorum,
    /// Sees, or settles, every conditional write begun before (SERIAL in CQL).
    Serial,
}

/// Which part of a list, and of what. `search` matches names and EUIs that contain it, case ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Entries at most; 0 gives only the count, as ChirpStack's clients expect.
    pub limit: u32,
    pub offset: u32,
    pub search: String,
    /// Only of this tenant.
    pub tenant: Option<Uuid>,
    /// Only of this application (devices).
    pub application: Option<Uuid>,
    /// Only of this device profile (devices).
    pub device_profile: Option<Uuid>,
}

/// A part of a list, ordered by name, then identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// How many match in all.
    pub total: u32,
    pub items: Vec<T>,
}

/// The integration that a pending event waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntegrationId(pub Uuid);

/// An event that an integration has not taken yet. Keyed (integration, device, session start, slot number, part):
/// that is also the order in which a device's events go out. Writing the same key again changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingEvent {
    pub integration: IntegrationId,
    pub device: Eui64,
    /// `Session::since` of the event's session: events of an older session come first.
    pub session_since: UnixMicros,
    pub slot: u64,
    /// Position among the slot's events; what comes after the slot (a txack) counts on from 1000.
    pub part: u32,
    pub event: Event,
    /// How often the integration had refused it before it came to wait.
    pub refusals: u32,
}

/// What has happened to the set of gateways since some version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayChanges {
    /// The set's version now.
    pub version: u64,
    /// Which gateway was changed at which version; `None` if that is not known for all versions since.
    pub changed: Option<Vec<(u64, Eui64)>>,
}

/// A session with what an uplink of it is decided with, as far as the store has read that along with it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub row: SessionRow,
    pub besides: Option<Besides>,
}

/// What was read along with a session, at the same moment.
#[derive(Clone, Debug)]
pub struct Besides {
    /// As [`Directory::device_context`] gives it.
    pub device: Option<DeviceContext>,
    /// As [`FrameStore::queue`] gives it, after what the session is done with.
    pub queue: Vec<QueueItem>,
}

/// Gateways, each with its value of one tag.
pub type GatewayTags = Vec<(Eui64, Option<String>)>;

/// What waits for one integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    pub integration: IntegrationId,
    pub events: u64,
    /// Of their encoded bodies.
    pub bytes: u64,
    /// When the one that waits longest was put, by the clock of who put it.
    pub oldest: UnixMicros,
}

/// What may wait for one integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingBounds {
    pub events: u64,
    pub bytes: u64,
    /// What was put before is too old.
    pub since: UnixMicros,
}

/// How many events were dropped, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    pub too_old: u64,
    /// Too many, or too large together.
    pub overflow: u64,
}

impl Trimmed {
    pub fn events(&self) -> u64 {
        self.too_old.saturating_add(self.overflow)
    }
}

/// How much a network holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub applications: u64,
    pub devices: u64,
    pub gateways: u64,
    /// Gateways that were ever heard.
    pub heard: u64,
    /// Of these, the ones that are there now.
    pub online: u64,
}

impl Totals {
    pub(crate) fn add_gateway(&mut self, gateway: &Gateway, seen: Option<UnixMicros>, now: UnixMicros) {
        self.gateways += 1;
        self.heard += u64::from(seen.is_some());
        self.online += u64::from(gateway.is_online(seen, now) == Some(true));
    }
}

/// Frames, sessions, events: the way of an uplink.
#[async_trait]
pub trait FrameStore: Send + Sync + 'static {
    /// Durable when it returns. The same (key, gateway, context) again changes nothing.
    async fn put_reception(&self, reception: Reception) -> Result<()>;
    /// The receptions of a key that have not expired, ordered by `received_at`, then gateway, then context: all of them, or
    /// the [`crate::MOST_COPIES`] received last, so that a frame replayed without end costs no memory without end.
    async fn receptions(&self, key: DedupKey) -> Result<Vec<Reception>>;
    /// For the sweep: keys that have a reception received at or after `since`, at most `limit`, each once. The order is the
    /// store's own, and the same each time; `after` goes on behind that key.
    async fn reception_keys(&self, since: UnixMicros, after: Option<DedupKey>, limit: u32) -> Result<Vec<DedupKey>>;
    /// Forgets receptions received before `before`: they are given no more. Returns how many were deleted by this call; 0
    /// from a database that deletes them by itself.
    async fn expire_receptions(&self, before: UnixMicros) -> Result<u64>;

    /// All sessions of a DevAddr with their marks, from one read (in pages, if there are many).
    async fn sessions_by_addr(&self, addr: DevAddr, freshness: Freshness) -> Result<Vec<SessionRow>>;
    /// The same, with what deciding an uplink takes besides where that costs no further question: of each queue at most `queue` items.
    async fn candidates(&self, addr: DevAddr, freshness: Freshness, queue: u32) -> Result<Vec<Candidate>> {
        let _ = queue;
        let rows = self.sessions_by_addr(addr, freshness).await?;
        Ok(rows.into_iter().map(|row| Candidate { row, besides: None }).collect())
    }
    async fn session(&self, key: &SessionKey, freshness: Freshness) -> Result<Option<SessionRow>>;
    /// IF NOT EXISTS.
    async fn create_session(&self, session: &Session) -> Result<Commit>;
    /// Replaces the row if it is at `next.rev - 1`.
    async fn commit_session(&self, next: &Session) -> Result<Commit>;
    async fn delete_session(&self, key: &SessionKey) -> Result<()>;
    /// `out`: the slot's events are out. A lower number than the mark's changes nothing; an equal one ors `through_pending`.
    /// The mark of a session that does not exist is no error, and makes no session.
    async fn mark_out(&self, key: &SessionKey, slot: u64, through_pending: bool) -> Result<()>;
    /// `sent`: FCntDown was transmitted. A lower one than the mark's changes nothing.
    async fn mark_sent(&self, key: &SessionKey, fcnt_down: u32) -> Result<()>;

    /// A device's joins; a fresh [`DeviceState`] with `rev` 0 if it has none.
    async fn device_state(&self, dev_eui: Eui64, freshness: Freshness) -> Result<DeviceState>;
    async fn join_row(&self, dev_eui: Eui64, dev_nonce: u16, freshness: Freshness) -> Result<Option<JoinRow>>;
    /// One batch: `next` replaces the state at `next.rev - 1`, and `join` (if any) is inserted. Both or neither;
    /// refused also if the DevNonce is there already.
    async fn commit_join(&self, next: &DeviceState, join: Option<&JoinRow>) -> Result<Commit>;
    /// Puts `row` in the place of what is kept of a used DevNonce, if the device's state is (still) `state`.
    async fn shrink_join(&self, state: &DeviceState, row: &JoinRow) -> Result<Commit>;
    /// Forgets the DevNonces of a device (conditional like [`Self::commit_join`]).
    async fn flush_dev_nonces(&self, dev_eui: Eui64) -> Result<()>;

    /// Appends to the device's queue and gives the item its `seq`. The same `id` again is [`crate::StoreError::AlreadyExists`],
    /// as long as that item is in the queue. A number is never given twice, also when its item is gone.
    async fn enqueue(&self, item: QueueItem) -> Result<QueueItem>;
    /// Items after `after`, oldest first; also those that have expired: the reader judges.
    async fn queue(&self, dev_eui: Eui64, after: u64, limit: u32) -> Result<Vec<QueueItem>>;
    async fn delete_queue_item(&self, dev_eui: Eui64, seq: u64) -> Result<()>;
    /// The last number that was given to an item of the device's queue; 0 before the first.
    async fn queue_last(&self, dev_eui: Eui64) -> Result<u64>;
    /// Deletes the items up to number `last`.
    async fn flush_queue(&self, dev_eui: Eui64, last: u64) -> Result<()>;

    async fn put_pending(&self, event: PendingEvent) -> Result<()>;
    /// Whether the device has an event waiting for this integration that comes before what follows that slot of the session.
    async fn has_pending(
        &self,
        integration: IntegrationId,
        device: Eui64,
        session_since: UnixMicros,
        slot: u64,
    ) -> Result<bool>;
    /// False if nothing waits for any integration. Costs next to nothing; true may also mean that nobody knows who does not ask
    /// for turns.
    async fn may_have_pending(&self) -> Result<bool>;
    /// Devices that have events waiting for this integration, at most `limit`, the longest waiting first. For operators, whichever
    /// worker they ask.
    async fn pending_devices(&self, integration: IntegrationId, limit: u32) -> Result<Vec<Eui64>>;
    /// Whose events may be sent next: of each integration that is not `aside` at most `each` devices, the longest waiting
    /// first. The first of each integration come before the second of any; [`crate::MOST_TURNS`] at most. For the one worker that
    /// sends, several times a second: a store may know more of what waits the longer the same worker asks.
    async fn pending_turns(&self, each: u32, aside: Vec<IntegrationId>) -> Result<Vec<(IntegrationId, Eui64)>>;
    /// A device's waiting events, in the order of their keys.
    async fn pending(&self, integration: IntegrationId, device: Eui64, limit: u32) -> Result<Vec<PendingEvent>>;
    /// The same for the worker that sends, after [`Self::pending_turns`] gave the device: a store may leave out what comes before
    /// the first that it gave the last time, unless something was put there since.
    async fn next_pending(&self, integration: IntegrationId, device: Eui64, limit: u32) -> Result<Vec<PendingEvent>> {
        self.pending(integration, device, limit).await
    }
    /// Deletes by key.
    async fn delete_pending(&self, event: &PendingEvent) -> Result<()>;
    /// How many events wait, and how many bytes they are, of one integration.
    async fn pending_size(&self, integration: IntegrationId) -> Result<(u64, u64)>;
    /// What waits, of each integration that something waits for, in no order. For the worker that sends, several times a minute; a
    /// store may also look for what [`Self::pending_turns`] cannot know, and its numbers may be some minutes old.
    async fn pending_backlog(&self) -> Result<Vec<Backlog>>;
    /// Whether that is right for whoever asks. Else only the worker that sends knows what has been sent, and any other one counts
    /// what is long gone.
    fn counts_pending_for_all(&self) -> bool {
        true
    }
    /// Drops the oldest waiting events of an integration until what is left is within the bounds.
    async fn trim_pending(&self, integration: IntegrationId, bounds: &PendingBounds) -> Result<Trimmed>;

    /// Takes or renews the lease `name` until `until`, some seconds from now. True if `holder` has it now. A holder that has two
    /// thirds of the time from `now` to `until` left may be told yes with nothing written. An end that lies ahead and has not moved
    /// for half a minute, as seen by who asks, is over: a clock that was ahead has written it.
    async fn lease(&self, name: &str, holder: &str, now: UnixMicros, until: UnixMicros) -> Result<bool>;

    /// When a device was heard last, for people; the latest wins, and what it leaves out (`None`) stays as it was. Nothing
    /// waits for it: it may be written later, and the last of it may be lost with the process. Of an unknown device: nothing.
    async fn note_device(&self, dev_eui: Eui64, seen: DeviceSeen) -> Result<()>;
    async fn note_gateway(&self, eui: Eui64, seen: GatewaySeen) -> Result<()>;
}

/// What people provision. Every `create` says [`crate::StoreError::AlreadyExists`] for a taken identity or unique name, and
/// [`crate::StoreError::NotFound`] for a missing parent; `update` and `delete` say `NotFound`. A gateway or a device of
/// a tenant that has as many as it may is [`crate::StoreError::Exhausted`], however many are created at once; where two want the last
/// place on CQL, both may be refused, and what a crash there has left in a list counts until the list is looked at. Deleting takes what belongs to
/// it along: tenant -> applications, device profiles, gateways, API keys; application -> devices; device -> its
/// sessions, joins, queue. Of its state stays [`DeviceState::ended`], for the next device of that DevEUI, whoever adds it. A device profile that devices use is not deleted: [`crate::StoreError::AlreadyExists`] names them.
/// Names may repeat. A device's application and profile are of one tenant, and an update moves nothing to another tenant:
/// otherwise it is `NotFound` in that tenant.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    async fn create_tenant(&self, tenant: &Tenant) -> Result<()>;
    async fn tenant(&self, id: Uuid) -> Result<Option<Tenant>>;
    async fn update_tenant(&self, tenant: &Tenant) -> Result<()>;
    async fn delete_tenant(&self, id: Uuid) -> Result<()>;
    async fn tenants(&self, list: &List) -> Result<Page<Tenant>>;

    /// The e-mail is unique, case ignored.
    async fn create_user(&self, user: &User) -> Result<()>;
    async fn user(&self, id: Uuid) -> Result<Option<User>>;
    async fn user_by_email(&self, email: &str) -> Result<Option<User>>;
    /// Replaces what was read; false, and nothing is written, if it is another one by now. So what two change at the same time, a
    /// password and who may do what, both holds.
    async fn update_user(&self, was: &User, user: &User) -> Result<bool>;
    async fn delete_user(&self, id: Uuid) -> Result<()>;
    async fn users(&self, list: &List) -> Result<Page<User>>;

    async fn create_api_key(&self, key: &ApiKey) -> Result<()>;
    async fn api_key(&self, id: Uuid) -> Result<Option<ApiKey>>;
    async fn delete_api_key(&self, id: Uuid) -> Result<()>;
    /// `admin`: keys without a tenant; else `list.tenant`'s, and none without one.
    async fn api_keys(&self, admin: bool, list: &List) -> Result<Page<ApiKey>>;

    async fn create_application(&self, application: &Application) -> Result<()>;
    async fn application(&self, id: Uuid) -> Result<Option<Application>>;
    async fn update_application(&self, application: &Application) -> Result<()>;
    async fn delete_application(&self, id: Uuid) -> Result<()>;
    async fn applications(&self, list: &List) -> Result<Page<Application>>;

    async fn create_device_profile(&self, profile: &DeviceProfile) -> Result<()>;
    async fn device_profile(&self, id: Uuid) -> Result<Option<DeviceProfile>>;
    async fn update_device_profile(&self, profile: &DeviceProfile) -> Result<()>;
    async fn delete_device_profile(&self, id: Uuid) -> Result<()>;
    async fn device_profiles(&self, list: &List) -> Result<Page<DeviceProfile>>;

    async fn create_gateway(&self, gateway: &Gateway) -> Result<()>;
    async fn gateway(&self, eui: Eui64) -> Result<Option<(Gateway, GatewaySeen)>>;
    async fn update_gateway(&self, gateway: &Gateway) -> Result<()>;
    async fn delete_gateway(&self, eui: Eui64) -> Result<()>;
    async fn gateways(&self, list: &List) -> Result<Page<(Gateway, GatewaySeen)>>;
    /// Version of the set of gateways (counted up by each create, update and delete, from 1 for the empty store), with the
    /// set itself, in order.
    async fn gateway_set(&self) -> Result<(u64, Vec<Eui64>)>;
    async fn gateway_set_version(&self) -> Result<u64>;
    /// The same version, and each gateway with its tag of this name, in no order: one walk through what gateways are.
    async fn gateway_tags(&self, tag: &str) -> Result<(u64, GatewayTags)>;
    /// The version, and what has changed after `since` to come to it: gateways that were created, updated or deleted, with the
    /// version that each change made (or a later one), in order. Perhaps more than that, never less: `None` if not all of it
    /// is known any more. Cheap when nothing has changed.
    async fn gateway_changes(&self, since: u64) -> Result<GatewayChanges>;
    /// From now on the version is at least this one, and counts on from there: a store that was put back from a backup must
    /// not give numbers a second time.
    async fn raise_gateway_set_version(&self, least: u64) -> Result<()>;

    async fn create_device(&self, device: &Device) -> Result<()>;
    async fn device(&self, dev_eui: Eui64) -> Result<Option<(Device, DeviceSeen)>>;
    /// Never changes `app_key`: that is [`Self::set_app_key`].
    async fn update_device(&self, device: &Device) -> Result<()>;
    async fn set_app_key(&self, dev_eui: Eui64, key: Option<limpet_shared::AesKey>) -> Result<()>;
    async fn delete_device(&self, dev_eui: Eui64) -> Result<()>;
    async fn devices(&self, list: &List) -> Result<Page<(Device, DeviceSeen)>>;
    /// Device, profile, application and tenant. What many devices share may be as it was a second ago, if it was changed at
    /// another worker.
    async fn device_context(&self, dev_eui: Eui64) -> Result<Option<DeviceContext>>;

    /// How much there is, of the whole network. It walks through all of it: nothing to ask often.
    async fn totals(&self, now: UnixMicros) -> Result<Totals>;

    /// A setting of the network (token key, ring key, regions), if it is set.
    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>>;
    /// Sets it if it is not set. Returns what holds now: the first writer's value.
    async fn init_setting(&self, name: &str, value: &[u8]) -> Result<Vec<u8>>;

    /// What operators have set for the network and its regions; nothing before they do.
    async fn network_settings(&self) -> Result<NetworkSettings> {
        settings::read(self.setting(NETWORK_SETTINGS).await?.as_deref())
    }
    /// Replaces what was read; false, and nothing is written, if it is another by now. Moves [`Membership::membership_version`].
    async fn replace_network_settings(&self, was: &NetworkSettings, next: &NetworkSettings) -> Result<bool>;
}

/// The servers of the cluster, and who may become one. Servers meet here: no balancer talks to another, no worker to
/// another.
#[async_trait]
pub trait Membership: Send + Sync + 'static {
    /// What a server is and does now, as it says itself or as a worker says of its balancer. Keyed (role, name); the
    /// last one written holds, whatever its `seen_at`: clocks differ.
    async fn heartbeat(&self, server: &Server) -> Result<()>;
    /// All servers, also those that went, by role (workers first), then name.
    async fn servers(&self) -> Result<Vec<Server>>;
    /// One that is not there is no error.
    async fn forget_server(&self, role: Role, name: &str) -> Result<()>;

    /// From now on the certificate with this key counts no more. The same again changes nothing.
    async fn revoke_server(&self, revoked: &RevokedServer) -> Result<()>;
    /// By name, then key. Never forgotten: a certificate may be renewed for ever.
    async fn revoked_servers(&self) -> Result<Vec<RevokedServer>>;

    /// What is known of a join token, merged into what is there ([`TokenInfo::merge`]): it may be written again, in any
    /// order, by any number of workers.
    async fn put_token(&self, token: &TokenInfo) -> Result<()>;
    /// By `created_at`, then id.
    async fn tokens(&self) -> Result<Vec<TokenInfo>>;
    /// `NotFound` if there is no such token.
    async fn revoke_token(&self, id: &str) -> Result<()>;
    /// Forgets tokens that expired before `before`. Returns how many.
    async fn expire_tokens(&self, before: UnixMicros) -> Result<u64>;

    /// Another number after each change of revoked servers, tokens or network settings, which is cheap to ask for. It moves when the
    /// change can be read, so ask before reading. A server of a version before this changes them without it.
    async fn membership_version(&self) -> Result<u64>;
}

/// The whole store.
#[async_trait]
pub trait Store: FrameStore + Directory + Membership + Moving {
    /// Whether it answers now; cheap, for readiness.
    async fn ping(&self) -> Result<()>;
    /// What it is, without secrets: for logs and the console.
    fn describe(&self) -> String;
    /// Whether servers on several machines can use it.
    fn is_shared(&self) -> bool {
        false
    }
}
