//! Every method of the store, passed on: the table says which of them write.

use async_trait::async_trait;
use limpet_shared::{
    AesKey, DevAddr, Eui64, UnixMicros,
    admin::{RevokedServer, Role, Server, TokenInfo},
};
use limpet_worker_core::model::*;
use uuid::Uuid;

use super::FaultStore;
use limpet_store::{
    Backlog, Candidate, Commit, Directory, FrameStore, Freshness, GatewayChanges, GatewayTags, IntegrationId, List,
    Membership, Page, PendingBounds, PendingEvent, Result, Store, StoreError, Totals, Trimmed,
    moving::{DeviceRecords, Identified, Moving, PendingAfter, Record},
};

macro_rules! pass_on {
    ($trait:ident { $($kind:ident $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)* } $($own:tt)*) => {
        #[async_trait]
        impl $trait for FaultStore {
            $($own)*
            $(async fn $name(&self, $($arg: $ty),*) -> $ret {
                self.$kind(self.inner.$name($($arg),*)).await
            })*
        }
    };
}

pass_on! {
    FrameStore {
        write put_reception(reception: Reception) -> Result<()>;
        read reception_keys(since: UnixMicros, after: Option<DedupKey>, limit: u32) -> Result<Vec<DedupKey>>;
        write expire_receptions(before: UnixMicros) -> Result<u64>;
        read sessions_by_addr(addr: DevAddr, freshness: Freshness) -> Result<Vec<SessionRow>>;
        read candidates(addr: DevAddr, freshness: Freshness, queue: u32) -> Result<Vec<Candidate>>;
        read session(key: &SessionKey, freshness: Freshness) -> Result<Option<SessionRow>>;
        write_if create_session(session: &Session) -> Result<Commit>;
        write_if commit_session(next: &Session) -> Result<Commit>;
        write delete_session(key: &SessionKey) -> Result<()>;
        write mark_out(key: &SessionKey, slot: u64, through_pending: bool) -> Result<()>;
        write mark_sent(key: &SessionKey, fcnt_down: u32) -> Result<()>;
        read device_state(dev_eui: Eui64, freshness: Freshness) -> Result<DeviceState>;
        read join_row(dev_eui: Eui64, dev_nonce: u16, freshness: Freshness) -> Result<Option<JoinRow>>;
        write_if commit_join(next: &DeviceState, join: Option<&JoinRow>) -> Result<Commit>;
        write_if shrink_join(state: &DeviceState, row: &JoinRow) -> Result<Commit>;
        write flush_dev_nonces(dev_eui: Eui64) -> Result<()>;
        write enqueue(item: QueueItem) -> Result<QueueItem>;
        read queue(dev_eui: Eui64, after: u64, limit: u32) -> Result<Vec<QueueItem>>;
        write delete_queue_item(dev_eui: Eui64, seq: u64) -> Result<()>;
        read queue_last(dev_eui: Eui64) -> Result<u64>;
        write flush_queue(dev_eui: Eui64, last: u64) -> Result<()>;
        write put_pending(event: PendingEvent) -> Result<()>;
        read has_pending(integration: IntegrationId, device: Eui64, session_since: UnixMicros, slot: u64) -> Result<bool>;
        read may_have_pending() -> Result<bool>;
        read pending_devices(integration: IntegrationId, limit: u32) -> Result<Vec<Eui64>>;
        read pending_turns(each: u32, aside: Vec<IntegrationId>) -> Result<Vec<(IntegrationId, Eui64)>>;
        read pending(integration: IntegrationId, device: Eui64, limit: u32) -> Result<Vec<PendingEvent>>;
        read next_pending(integration: IntegrationId, device: Eui64, limit: u32) -> Result<Vec<PendingEvent>>;
        write delete_pending(event: &PendingEvent) -> Result<()>;
        read pending_size(integration: IntegrationId) -> Result<(u64, u64)>;
        read pending_backlog() -> Result<Vec<Backlog>>;
        write trim_pending(integration: IntegrationId, bounds: &PendingBounds) -> Result<Trimmed>;
        write lease(name: &str, holder: &str, now: UnixMicros, until: UnixMicros) -> Result<bool>;
        write note_device(dev_eui: Eui64, seen: DeviceSeen) -> Result<()>;
        write note_gateway(eui: Eui64, seen: GatewaySeen) -> Result<()>;
    }
    async fn receptions(&self, key: DedupKey) -> Result<Vec<Reception>> {
        self.read(async {
            match *self.unreadable.lock() {
                Some(unreadable) if unreadable == key => Err(StoreError::Unavailable("not read in time".into())),
                _ => Ok(()),
            }?;
            self.inner.receptions(key).await
        })
        .await
    }
}

pass_on! {
    Directory {
        write create_tenant(tenant: &Tenant) -> Result<()>;
        read tenant(id: Uuid) -> Result<Option<Tenant>>;
        write update_tenant(tenant: &Tenant) -> Result<()>;
        write delete_tenant(id: Uuid) -> Result<()>;
        read tenants(list: &List) -> Result<Page<Tenant>>;
        write create_user(user: &User) -> Result<()>;
        read user(id: Uuid) -> Result<Option<User>>;
        read user_by_email(email: &str) -> Result<Option<User>>;
        write update_user(was: &User, user: &User) -> Result<bool>;
        write delete_user(id: Uuid) -> Result<()>;
        read users(list: &List) -> Result<Page<User>>;
        write create_api_key(key: &ApiKey) -> Result<()>;
        read api_key(id: Uuid) -> Result<Option<ApiKey>>;
        write delete_api_key(id: Uuid) -> Result<()>;
        read api_keys(admin: bool, list: &List) -> Result<Page<ApiKey>>;
        write create_application(application: &Application) -> Result<()>;
        read application(id: Uuid) -> Result<Option<Application>>;
        write update_application(application: &Application) -> Result<()>;
        write delete_application(id: Uuid) -> Result<()>;
        read applications(list: &List) -> Result<Page<Application>>;
        write create_device_profile(profile: &DeviceProfile) -> Result<()>;
        read device_profile(id: Uuid) -> Result<Option<DeviceProfile>>;
        write update_device_profile(profile: &DeviceProfile) -> Result<()>;
        write delete_device_profile(id: Uuid) -> Result<()>;
        read device_profiles(list: &List) -> Result<Page<DeviceProfile>>;
        write create_gateway(gateway: &Gateway) -> Result<()>;
        read gateway(eui: Eui64) -> Result<Option<(Gateway, GatewaySeen)>>;
        write update_gateway(gateway: &Gateway) -> Result<()>;
        write delete_gateway(eui: Eui64) -> Result<()>;
        read gateways(list: &List) -> Result<Page<(Gateway, GatewaySeen)>>;
        read gateway_set() -> Result<(u64, Vec<Eui64>)>;
        read gateway_set_version() -> Result<u64>;
        read gateway_tags(tag: &str) -> Result<(u64, GatewayTags)>;
        read gateway_changes(since: u64) -> Result<GatewayChanges>;
        write raise_gateway_set_version(least: u64) -> Result<()>;
        write create_device(device: &Device) -> Result<()>;
        read device(dev_eui: Eui64) -> Result<Option<(Device, DeviceSeen)>>;
        write update_device(device: &Device) -> Result<()>;
        write set_app_key(dev_eui: Eui64, key: Option<AesKey>) -> Result<()>;
        write delete_device(dev_eui: Eui64) -> Result<()>;
        read devices(list: &List) -> Result<Page<(Device, DeviceSeen)>>;
        read device_context(dev_eui: Eui64) -> Result<Option<DeviceContext>>;
        read totals(now: UnixMicros) -> Result<Totals>;
        read setting(name: &str) -> Result<Option<Vec<u8>>>;
        write init_setting(name: &str, value: &[u8]) -> Result<Vec<u8>>;
        write replace_network_settings(was: &NetworkSettings, next: &NetworkSettings) -> Result<bool>;
    }
}

pass_on! {
    Membership {
        write heartbeat(server: &Server) -> Result<()>;
        read servers() -> Result<Vec<Server>>;
        write forget_server(role: Role, name: &str) -> Result<()>;
        write revoke_server(revoked: &RevokedServer) -> Result<()>;
        read revoked_servers() -> Result<Vec<RevokedServer>>;
        write put_token(token: &TokenInfo) -> Result<()>;
        read tokens() -> Result<Vec<TokenInfo>>;
        write revoke_token(id: &str) -> Result<()>;
        write expire_tokens(before: UnixMicros) -> Result<u64>;
        read membership_version() -> Result<u64>;
    }
}

pass_on! {
    Moving {
        read settings() -> Result<Vec<(String, Vec<u8>)>>;
        write put_setting(name: &str, value: Option<&[u8]>) -> Result<()>;
        read identities(of: Identified) -> Result<Vec<Uuid>>;
        read device_euis() -> Result<Vec<Eui64>>;
        read device_records(dev_eui: Eui64, page: u32) -> Result<Option<DeviceRecords>>;
        read joins_after(dev_eui: Eui64, after: u16, limit: u32) -> Result<Vec<JoinRow>>;
        read pending_keys() -> Result<Vec<(Eui64, IntegrationId)>>;
        read pending_after(integration: IntegrationId, device: Eui64, after: Option<PendingAfter>, limit: u32) -> Result<Vec<PendingEvent>>;
        write restore(records: &[Record]) -> Result<()>;
    }
}

#[async_trait]
impl Store for FaultStore {
    async fn ping(&self) -> Result<()> {
        self.read(self.inner.ping()).await
    }
    fn describe(&self) -> String {
        format!("{}, with faults", self.inner.describe())
    }
    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }
}
