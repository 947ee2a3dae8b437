//! Integrations as operators see them: where events go, what waits for them and why; trying again, and giving up.

use std::collections::HashMap;

use limpet_shared::{
    UnixMicros,
    admin::{ErrorKind, Integration, IntegrationTrouble, Reply, Request, Server, WaitingEvent},
};
use limpet_store::{Backlog, IntegrationId, List, Store};
use limpet_worker_core::model::Application;
use uuid::Uuid;

use crate::{Api, ApiError, clock, error::Result, lists};

/// Waiting events in one answer.
const EVENTS: usize = 200;
/// Of these, of one device.
const EVENTS_OF_ONE: u32 = 50;
/// An integration whose last failure is older than this (s) is tried only now and then, or has recovered.
const LATELY: u64 = 60;

/// By integration; those for which nothing waits are left out.
pub(crate) async fn backlog(store: &dyn Store) -> Result<HashMap<Uuid, Backlog>> {
    let waits = store.pending_backlog().await?.into_iter().filter(|waits| waits.events > 0);
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

impl Api {
    pub(crate) async fn answer_about_integrations(&self, request: Request) -> Result<Reply> {
        match request {
            Request::Integrations => Ok(Reply::Integrations { integrations: self.integrations().await? }),
            Request::IntegrationEvents { id } => self.waiting_events(self.integration_called(&id).await?.0).await,
            Request::IntegrationRetry { id } => {
                let id = self.integration_called(&id).await?.0.to_string();
                Ok(self.cluster.ask(Request::IntegrationRetry { id }).await)
            }
            Request::IntegrationDrop { id, by, sure } => self.drop_waiting(&id, by, sure).await,
            _ => Err(ApiError::invalid("ask", "this is not about integrations")),
        }
    }

    /// All that applications have, and those that were removed while something waited.
    pub(crate) async fn integrations(&self) -> Result<Vec<Integration>> {
        let mut backlog = backlog(self.store.as_ref()).await?;
        let troubles = match self.cluster.ask(Request::Servers).await {
            Reply::Servers { servers } => troubles(&servers),
            _ => HashMap::new(),
        };
        let now = clock::now();
        let all = List { limit: lists::MOST, ..List::default() };
        let tenants: HashMap<Uuid, String> =
            self.store.tenants(&all).await?.items.into_iter().map(|tenant| (tenant.id, tenant.name)).collect();
        let mut integrations = Vec::new();
        for application in self.store.applications(&all).await?.items {
            let waiting = backlog.remove(&application.id);
            if application.http.is_none() && waiting.is_none() {
                continue;
            }
            let tenant = tenants.get(&application.tenant_id).cloned().unwrap_or_default();
            let mut one = described(&application, tenant);
            fill(&mut one, waiting, troubles.get(&application.id), now);
            integrations.push(one);
        }
        for (id, waiting) in backlog {
            let mut one = Integration { id: id.to_string(), ..Integration::default() };
            fill(&mut one, Some(waiting), None, now);
            integrations.push(one);
        }
        // Failing ones first, then those for which something waits, each by name.
        let rank = |one: &Integration| STATES.iter().position(|state| *state == one.state);
        integrations.sort_by(|a, b| (rank(a), &a.application, &a.id).cmp(&(rank(b), &b.application, &b.id)));
        Ok(integrations)
    }

    async fn waiting_events(&self, integration: Uuid) -> Result<Reply> {
        let id = IntegrationId(integration);
        let total = self.store.pending_size(id).await?.0;
        let mut events = Vec::new();
        let others = self.store.pending_turns(1, Vec::new()).await?.into_iter().map(|(other, _)| other);
        let aside: Vec<IntegrationId> = others.filter(|other| *other != id).collect();
        for (of, device) in self.store.pending_turns(EVENTS as u32, aside).await? {
            if of != id || events.len() >= EVENTS {
                continue;
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
        let waiting = self.store.pending_size(IntegrationId(id)).await?.0;
        if waiting == 0 {
            return Ok(Reply::Done { message: "nothing waits for this integration".into() });
        }
        if !sure {
            let events = if waiting == 1 { "1 event that waits".into() } else { format!("{waiting} events that wait") };
            let message = format!("{events} for {name} would be lost for good");
            return Ok(Reply::Error { kind: ErrorKind::Unconfirmed, message });
        }
        Ok(self.cluster.ask(Request::IntegrationDrop { id: id.to_string(), by, sure }).await)
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

const STATES: [&str; 3] = ["failing", "waiting", "ok"];

fn fill(one: &mut Integration, waiting: Option<Backlog>, trouble: Option<&IntegrationTrouble>, now: UnixMicros) {
    let lately = trouble.is_some_and(|trouble| now.since(trouble.last).as_secs() < LATELY);
    one.state = match &waiting {
        Some(_) if lately => "failing",
        Some(_) => "waiting",
        None => "ok",
    }
    .into();
    if let Some(waiting) = waiting {
        (one.waiting, one.bytes, one.oldest) = (waiting.events, waiting.bytes, Some(waiting.oldest));
        one.trouble = trouble.cloned();
    }
}

fn described(application: &Application, tenant: String) -> Integration {
    let http = application.http.as_ref();
    Integration {
        id: application.id.to_string(),
        application: application.name.clone(),
        tenant,
        kind: http.map_or("", |_| "http").into(),
        endpoint: http.map_or_else(String::new, |http| origins(&http.url)),
        ..Integration::default()
    }
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
