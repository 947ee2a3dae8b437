//! What waits for integrations, over HTTP.

use std::sync::Arc;

use async_trait::async_trait;
use limpet_api::{Api, ClusterView};
use limpet_shared::{
    Eui64, UnixMicros,
    admin::{DeviceAdd, ErrorKind, IntegrationBacklog, IntegrationTrouble, Reply, Request},
};
use limpet_store::{IntegrationId, List, PendingEvent, SqliteStore};
use limpet_worker_core::model::{DeviceInfo, Event, EventKind, JoinEvent};
use uuid::Uuid;

use crate::{
    cluster::ctl,
    server::{Server, state},
};

const HOOK: &str = "http://user:hunter2@192.0.2.7:9000/hook?token=hunter3";

/// An application with a device and an endpoint, and its id.
async fn application(server: &Server, name: &str) -> Uuid {
    let eui = Eui64(0xaa00 + name.len() as u64);
    let device = DeviceAdd {
        dev_eui: eui,
        app_key: Some(limpet_shared::AesKey([7; 16])),
        application: Some(name.into()),
        webhook: Some(HOOK.into()),
        ..DeviceAdd::default()
    };
    let (status, reply) = ctl(server, server.token(), &Request::DeviceAdd(device)).await;
    assert_eq!(status, 200, "{reply:?}");
    let list = List { limit: 9, search: name.into(), ..List::default() };
    server.store.applications(&list).await.unwrap().items[0].id
}

async fn wait(server: &Server, application: Uuid, device: u64, slot: u64) {
    let kind = EventKind::Join(JoinEvent { dev_addr: limpet_shared::DevAddr(1), region: "eu868".into() });
    let info = DeviceInfo { device_name: format!("device {device}"), ..DeviceInfo::default() };
    let id = Uuid::from_u64_pair(device, slot);
    let event = PendingEvent {
        integration: IntegrationId(application),
        device: Eui64(device),
        session_since: UnixMicros(1),
        slot,
        part: 0,
        event: Event { id, at: UnixMicros(slot), device: info, kind },
        refusals: 0,
    };
    server.store.put_pending(event).await.unwrap();
}

#[tokio::test]
async fn what_waits_is_listed_with_its_cause_offered_and_dropped() {
    let server = Server::start().await;
    let (fine, dead) = (application(&server, "fine").await, application(&server, "dead!").await);
    for (device, slot) in [(1, 5), (1, 6), (2, 7)] {
        wait(&server, dead, device, slot).await;
    }
    let now = limpet_api::now();
    *server.balancers.failing.lock().unwrap() = vec![IntegrationTrouble {
        integration: dead.to_string(),
        reason: "dns".into(),
        since: UnixMicros(now.0 - 60),
        last: now,
        ..IntegrationTrouble::default()
    }];
    let (status, reply) = ctl(&server, server.token(), &Request::Integrations { offset: 0 }).await;
    let Reply::Integrations { integrations, .. } = reply else { panic!("{reply:?}") };
    assert_eq!((status, integrations.len()), (200, 2));
    let [failing, ok] = &integrations[..] else { panic!("{integrations:?}") };
    assert_eq!((failing.id.parse(), failing.state.as_str(), failing.waiting), (Ok(dead), "failing", 3));
    assert_eq!((failing.oldest.is_some(), failing.endpoint.as_str()), (true, "http://192.0.2.7:9000"));
    assert_eq!(failing.trouble.as_ref().map(|trouble| trouble.reason.as_str()), Some("dns"));
    assert_eq!((ok.id.parse(), ok.state.as_str(), ok.waiting, &ok.trouble), (Ok(fine), "ok", 0, &None));

    let (_, reply) = ctl(&server, server.token(), &Request::IntegrationEvents { id: "dead!".into() }).await;
    let Reply::IntegrationEvents { total: 3, events } = reply else { panic!("{reply:?}") };
    let brief: Vec<_> = events.iter().map(|e| (e.dev_eui, e.device.as_str(), e.event.as_str(), e.at)).collect();
    let line = |device: u64, name, slot| (Eui64(device), name, "join", UnixMicros(slot));
    assert_eq!(brief, [line(1, "device 1", 5), line(1, "device 1", 6), line(2, "device 2", 7)]);

    let drop = Request::IntegrationDrop { id: "dead!".into(), by: String::new(), sure: false };
    let (status, reply) = ctl(&server, server.token(), &drop).await;
    assert!(matches!(&reply, Reply::Error { kind: ErrorKind::Unconfirmed, message } if message.contains("3 events")));
    assert_eq!((status, server.balancers.asked.lock().unwrap().len()), (412, 0), "nothing is done");
    ctl(&server, server.token(), &drop.meant()).await;
    ctl(&server, server.token(), &Request::IntegrationRetry { id: dead.to_string() }).await;
    let asked = server.balancers.asked.lock().unwrap().clone();
    let by_admin = Request::IntegrationDrop { id: dead.to_string(), by: "admin".into(), sure: true };
    assert_eq!(asked, [by_admin, Request::IntegrationRetry { id: dead.to_string() }]);
    let unknown = ctl(&server, server.token(), &Request::IntegrationRetry { id: "nothing".into() }).await;
    assert_eq!(unknown.0, 404);
}

#[tokio::test]
async fn an_integration_that_refuses_events_is_failing_though_nothing_waits_for_it() {
    let server = Server::start().await;
    let (_, refusing) = (application(&server, "fine").await, application(&server, "fussy").await);
    let trouble = IntegrationTrouble {
        integration: refusing.to_string(),
        reason: "refused".into(),
        error: "http://a refused the event with 422".into(),
        last: limpet_api::now(),
        ..IntegrationTrouble::default()
    };
    *server.balancers.failing.lock().unwrap() = vec![trouble.clone()];
    let (_, reply) = ctl(&server, server.token(), &Request::Integrations { offset: 0 }).await;
    let Reply::Integrations { integrations, .. } = reply else { panic!("{reply:?}") };
    let states: Vec<_> = integrations.iter().map(|one| (one.application.as_str(), one.state.as_str())).collect();
    assert_eq!(states, [("fussy", "failing"), ("fine", "ok")]);
    assert_eq!(integrations[0].trouble.as_ref(), Some(&trouble));
    let overview = server.api.overview().await;
    let [one] = overview.waiting.as_deref().unwrap() else { panic!("{overview:?}") };
    assert_eq!((one.application.as_str(), one.waiting, one.trouble.as_ref()), ("fussy", 0, Some(&trouble)));
}

/// This worker's store knows what was put, and another worker has sent it.
#[tokio::test]
async fn what_waits_is_what_the_worker_that_sends_it_has_counted() {
    let server = Server::start().await;
    let (sent, left) = (application(&server, "sent").await, application(&server, "left over").await);
    for slot in 1..4 {
        wait(&server, sent, 1, slot).await;
        wait(&server, left, 2, slot).await;
    }
    let waiting = async || {
        let (_, reply) = ctl(&server, server.token(), &Request::Integrations { offset: 0 }).await;
        let Reply::Integrations { integrations, .. } = reply else { panic!("{reply:?}") };
        [sent, left].map(|id| integrations.iter().find(|one| one.id == id.to_string()).unwrap().waiting)
    };
    assert_eq!(waiting().await, [3, 3]);
    let one = |id: Uuid| IntegrationBacklog { integration: id.to_string(), events: 1, ..IntegrationBacklog::default() };
    *server.balancers.backlog.lock().unwrap() = Some(vec![one(left)]);
    assert_eq!(waiting().await, [0, 1]);
    let overview = server.api.overview().await;
    assert_eq!(overview.waiting.as_deref().unwrap().iter().map(|one| one.waiting).collect::<Vec<_>>(), [1]);
    // It tells of those for which most waits: what is behind them is taken from the store.
    let many = (0..IntegrationBacklog::TOLD as u128 - 1).map(|n| one(Uuid::from_u128(n)));
    *server.balancers.backlog.lock().unwrap() = Some(many.chain([one(left)]).collect());
    assert_eq!(waiting().await, [3, 1]);
}

/// A cluster that never answers.
struct Silent;

#[async_trait]
impl ClusterView for Silent {
    async fn gateways_changed(&self) {}
    async fn ask(&self, _: Request) -> Reply {
        std::future::pending().await
    }
}

#[tokio::test]
async fn the_overview_says_that_the_store_is_away_only_if_it_is() {
    let api = Api::new(state(SqliteStore::in_memory().unwrap(), Arc::new(Silent)));
    let overview = api.overview().await;
    assert!(overview.store_answers, "that nobody tells of integrations says nothing of it");
    assert!(overview.waiting.is_none());
}
