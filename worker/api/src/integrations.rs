//! Integrations as operators see them: where events go, what waits for them and why; trying again, and giving up.

use std::collections::{BTreeSet, HashMap, hash_map::Entry};

use limpet_shared::{
    UnixMicros,
    admin::{
        ErrorKind, Integration, IntegrationBacklog, IntegrationTrouble, PAGE, Reply, Request, Server, WaitingEvent,
    },
};
use limpet_store::{Backlog, IntegrationId, List, PendingEvent, Store, application_of};
use limpet_worker_core::model::{Application, Event};
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
        let told = troubles.get(id).and_then(|trouble| Uuid::parse_str(&trouble.application).ok());
        match whose(store, *id, told).await? {
            (Some(application), _) => describe(store, one, &application, &mut tenants).await?,
            (None, Some(PendingEvent { event: Event { device, .. }, .. })) => {
                (one.application, one.tenant) = (device.application_name, device.tenant_name);
                one.application_id = device.application_id.to_string();
            }
            (None, None) => {}
        }
    }
    Ok(found.into_iter().map(|(_, one)| one).collect())
}

/// The application that an integration is of; if that is not known any more, an event that waits for it. `told`: what a worker says
/// that finds it failing, also if nothing waits.
async fn whose(store: &dyn Store, id: Uuid, told: Option<Uuid>) -> Result<(Option<Application>, Option<PendingEvent>)> {
    let found = application_of(store, IntegrationId(id)).await?;
    if found.0.is_none()
        && let Some(told) = told
        && let Some(application) = store.application(told).await?.filter(|known| known.endpoint(id).is_some())
    {
        return Ok((Some(application), None));
    }
    Ok(found)
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
    one.application.clone_from(&application.name);
    one.application_id = application.id.to_string();
    one.tenant = tenants.get(&application.tenant_id).cloned().unwrap_or_default();
    let endpoint = Uuid::parse_str(&one.id).ok().and_then(|id| application.endpoint(id));
    one.kind = endpoint.as_ref().map_or("", |_| "http").into();
    one.endpoint = endpoint.as_ref().map_or_else(String::new, |endpoint| endpoint.http.origins());
    let place = application.endpoints().iter().position(|known| known.id.to_string() == one.id);
    let is_one_of_several = one.id != one.application_id;
    one.number = place.filter(|_| is_one_of_several).map_or(0, |place| place as u32 + 1);
    Ok(())
}

impl Api {
    pub(crate) async fn answer_about_integrations(&self, request: Request) -> Result<Reply> {
        match request {
            Request::Integrations { offset } => self.integrations(offset).await,
            Request::IntegrationEvents { id } => self.waiting_events(&self.integrations_called(&id).await?).await,
            Request::IntegrationRetry { id } => {
                let retry = |id: &Uuid| Request::IntegrationRetry { id: id.to_string() };
                Ok(self.ask_each(self.integrations_called(&id).await?.ids.iter().map(retry)).await)
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
            for id in application.endpoints().into_iter().map(|endpoint| endpoint.id.to_string()) {
                if waiting.iter().any(|one| one.id == id) {
                    continue;
                }
                let mut one = match rest.iter().position(|one| one.id == id) {
                    Some(at) => rest.swap_remove(at),
                    None => Integration { id, state: "ok".into(), ..Integration::default() },
                };
                describe(self.store.as_ref(), &mut one, &application, &mut tenants).await?;
                others.push(one);
            }
        }
        let mut integrations = if offset == 0 { waiting } else { Vec::new() };
        integrations.extend(others);
        Ok(Reply::Integrations { integrations, next: (shown < page.total).then_some(shown) })
    }

    async fn waiting_events(&self, called: &Called) -> Result<Reply> {
        let (mut events, mut total) = (Vec::new(), 0);
        for id in called.ids.iter().map(|id| IntegrationId(*id)) {
            total += self.store.pending_size(id).await?.0;
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
        }
        events.truncate(EVENTS);
        Ok(Reply::IntegrationEvents { total, events })
    }

    async fn drop_waiting(&self, called: &str, by: String, sure: bool) -> Result<Reply> {
        let called = self.integrations_called(called).await?;
        if !sure {
            let waiting = called.waiting;
            if waiting == 0 {
                return Ok(Reply::Done { message: "nothing waits for this integration".into() });
            }
            let events = if waiting == 1 { "1 event that waits".into() } else { format!("{waiting} events that wait") };
            let message = format!("{events} for {} would be lost for good", called.name);
            return Ok(Reply::Error { kind: ErrorKind::Unconfirmed, message });
        }
        let drop = |id: &Uuid| Request::IntegrationDrop { id: id.to_string(), by: by.clone(), sure };
        Ok(self.ask_each(called.ids.iter().map(drop)).await)
    }

    /// Asks for all of it, and gives what was said as one: an error if there was one.
    async fn ask_each(&self, requests: impl Iterator<Item = Request>) -> Reply {
        let mut said: Option<Reply> = None;
        for request in requests {
            let reply = self.cluster.ask(request).await;
            said = Some(match (said, reply) {
                (None, reply) => reply,
                (Some(Reply::Done { message: one }), Reply::Done { message: other }) => {
                    Reply::Done { message: format!("{one}; {other}") }
                }
                (
                    Some(Reply::Error { kind, message: one }),
                    Reply::Error { message: other, .. } | Reply::Done { message: other },
                )
                | (Some(Reply::Done { message: one }), Reply::Error { kind, message: other }) => {
                    Reply::Error { kind, message: format!("{one}; {other}") }
                }
                (Some(_), reply) => reply,
            });
        }
        said.unwrap_or_else(|| Reply::Done { message: "nothing waits for this integration".into() })
    }

    /// By an application's name or id, for all of its endpoints; or by the id of one of them, which may be that of something that is
    /// gone.
    async fn integrations_called(&self, called: &str) -> Result<Called> {
        if let Ok(id) = Uuid::parse_str(called) {
            if let Some(application) = self.store.application(id).await? {
                return self.all_of(&application).await;
            }
            let application = whose(self.store.as_ref(), id, None).await?.0;
            let endpoint = application.as_ref().and_then(|application| application.endpoint(id));
            let name = match (&application, &endpoint) {
                (Some(application), Some(endpoint)) => format!("{} at {}", application.name, endpoint.http.origins()),
                _ => id.to_string(),
            };
            return Ok(Called { ids: vec![id], name, waiting: self.waiting_for(&[id]).await?[0] });
        }
        let list = List { limit: lists::MOST, search: called.to_owned(), ..List::default() };
        let mut found = self.store.applications(&list).await?.items;
        found.retain(|application| application.name == called);
        match found.as_slice() {
            [one] => self.all_of(one).await,
            [] => Err(ApiError::NotFound(format!("an application called {called}"))),
            several => {
                let ids: Vec<String> = several.iter().map(|application| application.id.to_string()).collect();
                Err(ApiError::invalid("id", format!("several applications are called {called}: {}", ids.join(", "))))
            }
        }
    }

    async fn all_of(&self, application: &Application) -> Result<Called> {
        let all = application.waiting_ids();
        let waiting = self.waiting_for(&all).await?;
        let mut ids: Vec<Uuid> =
            all.into_iter().zip(&waiting).filter(|(_, events)| **events > 0).map(|(id, _)| id).collect();
        if ids.is_empty() {
            ids.push(application.id);
        }
        Ok(Called { ids, name: application.name.clone(), waiting: waiting.iter().sum() })
    }

    /// How many events wait for each, as they were counted last: they are counted anew, which takes long where many wait, only
    /// where that says none.
    async fn waiting_for(&self, integrations: &[Uuid]) -> Result<Vec<u64>> {
        let counted = backlog(self.store.as_ref(), self.cluster.as_ref()).await?;
        let mut waiting = Vec::new();
        for id in integrations {
            waiting.push(match counted.get(id) {
                Some(waits) => waits.events,
                None => self.store.pending_size(IntegrationId(*id)).await?.0,
            });
        }
        Ok(waiting)
    }
}

/// What somebody means by a name or an id.
struct Called {
    /// Of the endpoints for which something waits; at least one.
    ids: Vec<Uuid>,
    name: String,
    waiting: u64,
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

#[cfg(test)]
mod tests {
    use super::*;

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
