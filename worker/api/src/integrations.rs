//! Integrations as operators see them: where events go, what waits for them and why; trying again, and giving up.

use std::collections::{BTreeSet, HashMap, hash_map::Entry};

use limpet_shared::{
    UnixMicros,
    admin::{
        ErrorKind, Integration, IntegrationBacklog, IntegrationTrouble, PAGE, Reply, Request, Server, WaitingEvent,
    },
};
use limpet_store::{Backlog, IntegrationId, List, Store};
use limpet_worker_core::model::Application;
use uuid::Uuid;

use crate::{Api, ApiError, ClusterView, clock, error::Result, lists};

/// Waiting events in one answer.
const EVENTS: usize = 200;
/// Of these, of one device.
const EVENTS_OF_ONE: u32 = 50;
/// An integration whose last failure is older than this (s) is tried only now and then, or has recovered.
const LATELY: u64 = 60;

/// By integration; those for which nothing waits are left out.
pub(crate) async fn backlog(store: &dyn Store, cluster: &dyn ClusterView) -> Result<HashMap<Uuid, Backlog>> {
    let told = cluster.backlog();
    let is_all = told.as_ref().is_some_and(|told| told.len() < IntegrationBacklog::TOLD);
    let own = if is_all { Vec::new() } else { store.pending_backlog().await? };
    let told = told.unwrap_or_default().into_iter().filter_map(|told| {
        let integration = IntegrationId(Uuid::parse_str(&told.integration).ok()?);
        Some(Backlog { integration, events: told.events, bytes: told.bytes, oldest: told.oldest })
    });
    let waits = own.into_iter().chain(told).filter(|waits| waits.events > 0);
    Ok(waits.map(|waits| (waits.integration.0, waits)).collect())
}

/// The last failure of each integration, as all workers that are there have it.
pub(crate) fn troubles(servers: &[Server]) -> HashMap<Uuid, IntegrationTrouble> {
    let mut all: HashMap<Uuid, IntegrationTrouble> = HashMap::new();
    for told in servers.iter().filter(|server| server.state != "gone").flat_map(|server| &server.failing) {
        let Ok(id) = Uuid::parse_str(&told.integration) else { continue };
        let known = all.entry(id).or_insert_with(|| told.clone());
        let since = known.since.min(told.since);
        if told.last > known.last {
            *known = told.clone();
        }
        known.since = since;
    }
    all
}

/// Those for which something waits, also of applications that were removed, and those that refuse events: the failing ones first, then
/// those for which most waits. Behind the first [`PAGE`] nobody looks up what they are called.
pub(crate) async fn not_well(store: &dyn Store, cluster: &dyn ClusterView) -> Result<Vec<Integration>> {
    let mut backlog = backlog(store, cluster).await?;
    let troubles = match cluster.ask(Request::Servers).await {
        Reply::Servers { servers } => troubles(&servers),
        _ => HashMap::new(),
    };
    let now = clock::now();
    let refusing = troubles.iter().filter(|(_, trouble)| trouble.refuses() && is_of_late(trouble, now));
    let ids: BTreeSet<Uuid> = backlog.keys().copied().chain(refusing.map(|(id, _)| *id)).collect();
    let found = ids.into_iter().map(|id| {
        let mut one = Integration { id: id.to_string(), ..Integration::default() };
        fill(&mut one, backlog.remove(&id), troubles.get(&id), now);
        (id, one)
    });
    let mut found: Vec<(Uuid, Integration)> = found.collect();
    found.sort_by(|(_, a), (_, b)| (rank(a), b.waiting, &a.id).cmp(&(rank(b), a.waiting, &b.id)));
    let mut tenants = HashMap::new();
    for (id, one) in found.iter_mut().take(PAGE as usize) {
        if let Some(application) = store.application(*id).await? {
            describe(store, one, &application, &mut tenants).await?;
        }
    }
    Ok(found.into_iter().map(|(_, one)| one).collect())
}

/// What people call it, and where its events go.
async fn describe(
    store: &dyn Store,
    one: &mut Integration,
    application: &Application,
    tenants: &mut HashMap<Uuid, String>,
) -> Result<()> {
    if let Entry::Vacant(unnamed) = tenants.entry(application.tenant_id) {
        let found = store.tenant(application.tenant_id).await?;
        unnamed.insert(found.map(|tenant| tenant.name).unwrap_or_default());
    }
    let http = application.http.as_ref();
    one.application.clone_from(&application.name);
    one.tenant = tenants.get(&application.tenant_id).cloned().unwrap_or_default();
    one.kind = http.map_or("", |_| "http").into();
    one.endpoint = http.map_or_else(String::new, |http| origins(&http.url));
    Ok(())
}

impl Api {
    pub(crate) async fn answer_about_integrations(&self, request: Request) -> Result<Reply> {
        match request {
            Request::Integrations { offset } => self.integrations(offset).await,
            Request::IntegrationEvents { id } => self.waiting_events(self.integration_called(&id).await?.0).await,
            Request::IntegrationRetry { id } => {
                let id = self.integration_called(&id).await?.0.to_string();
                Ok(self.cluster.ask(Request::IntegrationRetry { id }).await)
            }
            Request::IntegrationDrop { id, by, sure } => self.drop_waiting(&id, by, sure).await,
            _ => Err(ApiError::invalid("ask", "this is not about integrations")),
        }
    }

    async fn integrations(&self, offset: u32) -> Result<Reply> {
        let mut waiting = not_well(self.store.as_ref(), self.cluster.as_ref()).await?;
        // Those behind the first ones stand among the others, in the place that their name gives them.
        let mut rest = waiting.split_off(waiting.len().min(PAGE as usize));
        let page = self.store.applications(&List { limit: PAGE, offset, ..List::default() }).await?;
        let shown = offset.saturating_add(u32::try_from(page.items.len()).unwrap_or(u32::MAX));
        let (mut others, mut tenants) = (Vec::new(), HashMap::new());
        for application in page.items {
            let id = application.id.to_string();
            if waiting.iter().any(|one| one.id == id) {
                continue;
            }
            let mut one = match rest.iter().position(|one| one.id == id) {
                Some(at) => rest.swap_remove(at),
                None if application.http.is_none() => continue,
                None => Integration { id, state: "ok".into(), ..Integration::default() },
            };
            describe(self.store.as_ref(), &mut one, &application, &mut tenants).await?;
            others.push(one);
        }
        let mut integrations = if offset == 0 { waiting } else { Vec::new() };
        integrations.extend(others);
        Ok(Reply::Integrations { integrations, next: (shown < page.total).then_some(shown) })
    }

    async fn waiting_events(&self, integration: Uuid) -> Result<Reply> {
        let id = IntegrationId(integration);
        let total = self.store.pending_size(id).await?.0;
        let mut events = Vec::new();
        for device in self.store.pending_devices(id, EVENTS as u32).await? {
            if events.len() >= EVENTS {
                break;
            }
            let waiting = self.store.pending(id, device, EVENTS_OF_ONE).await?.into_iter();
            events.extend(waiting.map(|waiting| WaitingEvent {
                id: waiting.event.id.to_string(),
                event: waiting.event.kind.name().into(),
                dev_eui: device,
                device: waiting.event.device.device_name,
                at: waiting.event.at,
            }));
        }
        events.truncate(EVENTS);
        Ok(Reply::IntegrationEvents { total, events })
    }

    async fn drop_waiting(&self, called: &str, by: String, sure: bool) -> Result<Reply> {
        let (id, name) = self.integration_called(called).await?;
        if !sure {
            let waiting = self.waiting_for(id).await?;
            if waiting == 0 {
                return Ok(Reply::Done { message: "nothing waits for this integration".into() });
            }
            let events = if waiting == 1 { "1 event that waits".into() } else { format!("{waiting} events that wait") };
            let message = format!("{events} for {name} would be lost for good");
            return Ok(Reply::Error { kind: ErrorKind::Unconfirmed, message });
        }
        Ok(self.cluster.ask(Request::IntegrationDrop { id: id.to_string(), by, sure }).await)
    }

    /// How many events wait, as they were counted last: it is counted anew, which takes long where many do, only if that says none.
    async fn waiting_for(&self, integration: Uuid) -> Result<u64> {
        match backlog(self.store.as_ref(), self.cluster.as_ref()).await?.remove(&integration) {
            Some(waits) => Ok(waits.events),
            None => Ok(self.store.pending_size(IntegrationId(integration)).await?.0),
        }
    }

    /// By id, which may be that of an application that is gone, or by an application's name; with what to call it.
    async fn integration_called(&self, called: &str) -> Result<(Uuid, String)> {
        if let Ok(id) = Uuid::parse_str(called) {
            let application = self.store.application(id).await?;
            return Ok((id, application.map_or_else(|| id.to_string(), |application| application.name)));
        }
        let list = List { limit: lists::MOST, search: called.to_owned(), ..List::default() };
        let mut found = self.store.applications(&list).await?.items;
        found.retain(|application| application.name == called);
        match found.as_slice() {
            [one] => Ok((one.id, one.name.clone())),
            [] => Err(ApiError::NotFound(format!("an application called {called}"))),
            several => {
                let ids: Vec<String> = several.iter().map(|application| application.id.to_string()).collect();
                Err(ApiError::invalid("id", format!("several applications are called {called}: {}", ids.join(", "))))
            }
        }
    }
}

const STATES: [&str; 2] = ["failing", "waiting"];

/// Failing ones before those that only wait.
fn rank(one: &Integration) -> usize {
    STATES.iter().position(|state| *state == one.state).unwrap_or(STATES.len())
}

fn fill(one: &mut Integration, waiting: Option<Backlog>, trouble: Option<&IntegrationTrouble>, now: UnixMicros) {
    let lately = trouble.is_some_and(|trouble| is_of_late(trouble, now));
    one.state = if lately { "failing" } else { "waiting" }.into();
    one.trouble = trouble.cloned();
    // What is refused does not wait.
    if let Some(waiting) = waiting {
        (one.waiting, one.bytes, one.oldest) = (waiting.events, waiting.bytes, Some(waiting.oldest));
    }
}

fn is_of_late(trouble: &IntegrationTrouble, now: UnixMicros) -> bool {
    now.since(trouble.last).as_secs() < LATELY
}

/// Of each URL scheme, host and port: user, path and query may hold secrets.
fn origins(urls: &str) -> String {
    let origin = |url: &str| {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Some(format!("{scheme}://{host}"))
    };
    urls.split(',').filter_map(|url| origin(url.trim())).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_endpoint_only_what_is_no_secret_is_told() {
        let urls = "https://user:hunter2@example.org:8443/hook/hunter3?token=hunter4, http://[::1]:9000?x=/@hunter5";
        assert_eq!(origins(urls), "https://example.org:8443,http://[::1]:9000");
    }

    #[test]
    fn the_last_failure_holds_and_the_first_ones_beginning() {
        let told = |since, last, reason: &str| IntegrationTrouble {
            integration: Uuid::from_u128(1).to_string(),
            reason: reason.into(),
            since: UnixMicros(since),
            last: UnixMicros(last),
            ..IntegrationTrouble::default()
        };
        let server = |state: &str, failing| Server { state: state.into(), failing, ..Server::default() };
        let servers = [
            server("ready", vec![told(5, 8, "tls")]),
            server("draining", vec![told(3, 7, "dns")]),
            server("gone", vec![told(1, 9, "url")]),
        ];
        let merged = troubles(&servers);
        let one = &merged[&Uuid::from_u128(1)];
        assert_eq!((one.reason.as_str(), one.since, one.last), ("tls", UnixMicros(3), UnixMicros(8)));
    }
}
