//! What waits, and for whom: one application's endpoint is no other's trouble.

use super::*;
use limpet_shared::admin::Reply;
use limpet_store::{IntegrationId, PendingEvent};
use limpet_store_testing::fault::{FaultStore, Faults};
use limpet_worker_core::model::{Application, DeviceInfo, JoinEvent, LogEvent};

const FIRST: u128 = 2;
const SECOND: u128 = 12;
/// Of another tenant than those two: takes every second event that it is offered.
const HALF: u128 = 13;
/// From here on: applications of the first tenant whose endpoints never answer.
const DEAD: u128 = 100_000;
/// Refused for good, in tests where one event is.
const UNWANTED: u128 = 7_000;

/// The first application's endpoint answers as it is told to, the second's takes 0.4 s for each event.
#[derive(Default)]
struct Endpoints {
    first_hangs: bool,
    /// The first refuses whatever it is offered.
    first_refuses: AtomicBool,
    tries: Mutex<Vec<Uuid>>,
    taken: Mutex<Vec<(Instant, Event)>>,
}

#[async_trait]
impl Deliver for Endpoints {
    async fn deliver(
        &self,
        http: &HttpIntegration,
        event: &Event,
        _: Option<&Object>,
        limit: Duration,
    ) -> Result<(), DeliveryError> {
        let origin = http.url.clone();
        if event.device.application_id < Uuid::from_u128(DEAD) {
            self.tries.lock().push(event.id);
        }
        if event.device.application_id >= Uuid::from_u128(DEAD) {
            tokio::time::sleep(limit).await;
            return Err(DeliveryError::TimedOut(limit));
        }
        if event.device.application_id == Uuid::from_u128(HALF) && self.tries.lock().len().is_multiple_of(2) {
            return Err(DeliveryError::NotNow { origin, status: 503 });
        }
        let refuses = self.first_refuses.load(Ordering::Relaxed);
        if event.id == Uuid::from_u128(UNWANTED) || refuses && event.device.application_id == Uuid::from_u128(FIRST) {
            return Err(DeliveryError::Refused { origin, status: 400 });
        }
        if event.device.application_id == Uuid::from_u128(SECOND) {
            tokio::time::sleep(Duration::from_millis(400)).await;
        } else if self.first_hangs {
            tokio::time::sleep(limit).await;
            return Err(DeliveryError::TimedOut(limit));
        } else if event.id < Uuid::from_u128(UNWANTED) {
            return Err(DeliveryError::NotNow { origin, status: 404 });
        }
        self.taken.lock().push((Instant::now(), event.clone()));
        Ok(())
    }
}

fn waiting(application: u128, device: u64, id: u128, slot: u64) -> PendingEvent {
    let id = Uuid::from_u128(id);
    let application = Uuid::from_u128(application);
    let device_info = DeviceInfo { application_id: application, dev_eui: Eui64(device), ..DeviceInfo::default() };
    let kind = EventKind::Join(JoinEvent { dev_addr: ADDR, region: "eu868".into() });
    PendingEvent {
        integration: IntegrationId(application),
        device: Eui64(device),
        session_since: UnixMicros(1),
        slot,
        part: 0,
        event: Event { id, at: UnixMicros(1), device: device_info, kind },
        refusals: 0,
    }
}

async fn add_application(net: &Net, id: u128, tenant: u128) {
    let http = Some(HttpIntegration { json: true, url: "http://[::1]:3/".into(), ..HttpIntegration::default() });
    let (id, tenant_id) = (Uuid::from_u128(id), Uuid::from_u128(tenant));
    net.store.create_application(&Application { id, tenant_id, http, ..Application::default() }).await.unwrap();
}

/// A worker that sends what waits to these endpoints, in a network of two applications.
async fn sending(net: &Net, endpoints: Arc<Endpoints>) -> tokio_util::sync::CancellationToken {
    let http = Some(HttpIntegration { json: true, url: "http://[::1]:2/".into(), ..HttpIntegration::default() });
    let (id, tenant_id) = (Uuid::from_u128(SECOND), Uuid::from_u128(1));
    let second = Application { id, tenant_id, name: "b".into(), http, ..Application::default() };
    net.store.create_application(&second).await.unwrap();
    let worker = net.worker_to("w0", endpoints);
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(run_pending(worker, 1, stop.clone()));
    stop
}

async fn the_second_is_served_while_the_first_fails(first_hangs: bool) {
    let net = Net::new("eu868", 0).await;
    for device in 0..300 {
        net.store.put_pending(waiting(FIRST, 1_000 + device, u128::from(device), 1)).await.unwrap();
    }
    let endpoints = Arc::new(Endpoints { first_hangs, ..Endpoints::default() });
    let stop = sending(&net, endpoints.clone()).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    for round in 0..5_u64 {
        let put = Instant::now();
        for device in 0..3 {
            let id = 10_000 + u128::from(10 * round + device);
            net.store.put_pending(waiting(SECOND, 5_000 + device, id, round)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let taken: Vec<_> = std::mem::take(&mut *endpoints.taken.lock());
        assert_eq!(taken.len(), 3, "in round {round}");
        assert!(taken.iter().all(|(at, _)| at.duration_since(put) < Duration::from_secs(1)));
    }
    assert_eq!(net.store.pending_size(IntegrationId(Uuid::from_u128(FIRST))).await.unwrap().0, 300, "they wait");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_answers_404_costs_no_other_a_moment() {
    the_second_is_served_while_the_first_fails(false).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_costs_no_other_a_moment() {
    the_second_is_served_while_the_first_fails(true).await;
}

#[tokio::test(start_paused = true)]
async fn many_devices_of_one_application_do_not_wait_for_the_next_look() {
    let net = Net::new("eu868", 0).await;
    for device in 0..1_000 {
        net.store.put_pending(waiting(FIRST, 1_000 + device, 10_000 + u128::from(device), 1)).await.unwrap();
    }
    let endpoints = Arc::new(Endpoints::default());
    let stop = sending(&net, endpoints.clone()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(endpoints.taken.lock().len(), 1_000);
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn five_hundred_dead_applications_of_one_tenant_cost_anothers_that_half_works_nothing() {
    let net = Net::new("eu868", 0).await;
    let tenant = Tenant { id: Uuid::from_u128(9), name: "other".into(), ..Tenant::default() };
    net.store.create_tenant(&tenant).await.unwrap();
    add_application(&net, HALF, 9).await;
    for n in 0..500 {
        add_application(&net, DEAD + n, 1).await;
        for device in 0..3 {
            net.store.put_pending(waiting(DEAD + n, 10 * n as u64 + device, 20_000 + n, 1)).await.unwrap();
        }
    }
    let endpoints = Arc::new(Endpoints::default());
    let stop = sending(&net, endpoints.clone()).await;
    for seconds in [1, 30, 300] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        for slot in 0..10 {
            net.store.put_pending(waiting(HALF, 1, 10_000 + u128::from(slot), slot)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(15)).await;
        let taken = std::mem::take(&mut *endpoints.taken.lock());
        let taken: Vec<_> = taken.iter().map(|(_, event)| event.id.as_u128()).collect();
        assert_eq!(taken, (10_000..10_010).collect::<Vec<_>>(), "after {seconds} s");
    }
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_gives_way_to_those_behind_it_and_is_told_of() {
    let net = Net::new("eu868", 0).await;
    for (id, slot) in [(UNWANTED, 1), (UNWANTED + 1, 2), (UNWANTED + 2, 3)] {
        net.store.put_pending(waiting(FIRST, 1_000, id, slot)).await.unwrap();
    }
    let endpoints = Arc::new(Endpoints::default());
    let stop = sending(&net, endpoints.clone()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let unwanted = Uuid::from_u128(UNWANTED);
    assert_eq!(endpoints.tries.lock().iter().filter(|id| **id == unwanted).count(), 3);
    let told = |event: &Event| match &event.kind {
        EventKind::Log(LogEvent { error: true, context, .. }) => context.get("refused_id").cloned(),
        _ => None,
    };
    let taken: Vec<_> = endpoints.taken.lock().iter().map(|(_, event)| (told(event), event.id)).collect();
    assert_eq!(taken[0].0, Some(unwanted.to_string()), "in the place of the refused one");
    assert_eq!(taken[1..].iter().map(|(_, id)| id.as_u128()).collect::<Vec<_>>(), [UNWANTED + 1, UNWANTED + 2]);
    assert!(!net.store.may_have_pending().await.unwrap());
    stop.cancel();
}

/// Also where another worker tries it the second time.
#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_as_it_comes_is_offered_three_times_in_all() {
    let net = Net::new("eu868", 0).await;
    net.personalize().await;
    let endpoints = Arc::new(Endpoints::default());
    endpoints.first_refuses.store(true, Ordering::Relaxed);
    let (hears, sends) = (net.worker_to("w0", endpoints.clone()), net.worker_to("w0", endpoints.clone()));
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(run_pending(sends, 1, stop.clone()));
    give(hears, net.frame(1, CHANNEL, &uplink(1, false), 5)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let tries = endpoints.tries.lock().clone();
    let refused = tries[0];
    assert_eq!(tries.iter().filter(|id| **id == refused).count(), 3);
    assert_eq!(tries.len(), 4, "and what tells of it once");
    assert!(!net.store.may_have_pending().await.unwrap());
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_refuses_every_event_is_known_to_fail_until_it_takes_one() {
    let net = Net::new("eu868", 0).await;
    let endpoints = Arc::new(Endpoints::default());
    endpoints.first_refuses.store(true, Ordering::Relaxed);
    for slot in 1..4 {
        net.store.put_pending(waiting(FIRST, 1_000, UNWANTED + u128::from(slot), slot)).await.unwrap();
    }
    let (worker, stop) = (net.worker_to("w0", endpoints.clone()), tokio_util::sync::CancellationToken::new());
    tokio::spawn(run_pending(worker.clone(), 1, stop.clone()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!net.store.may_have_pending().await.unwrap(), "all are given up, and nothing waits");
    assert_eq!(endpoints.tries.lock().len(), 3 * (3 + 1), "what tells of a refusal is offered once");
    let told = worker.troubles.told(worker.surroundings.now());
    let [trouble] = &told[..] else { panic!("{told:?}") };
    assert_eq!((trouble.reason.as_str(), trouble.needs_operator), ("refused", true));
    assert!(trouble.error.contains("400") && trouble.refuses(), "{trouble:?}");
    endpoints.first_refuses.store(false, Ordering::Relaxed);
    net.store.put_pending(waiting(FIRST, 1_000, UNWANTED + 9, 9)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((endpoints.taken.lock().len(), worker.troubles.count()), (1, 0));
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_operator_offers_what_waits_or_gives_it_up() {
    let net = Net::new("eu868", 0).await;
    // The endpoint answers 404 to the first, and takes the second.
    for (id, slot) in [(1, 1), (UNWANTED + 1, 2), (UNWANTED + 2, 3)] {
        net.store.put_pending(waiting(FIRST, 1_000, id, slot)).await.unwrap();
    }
    let endpoints = Arc::new(Endpoints::default());
    let worker = net.worker_to("w0", endpoints.clone());
    let (first, left) = (Uuid::from_u128(FIRST), async || {
        net.store.pending_size(IntegrationId(Uuid::from_u128(FIRST))).await.unwrap().0
    });
    let retried = worker.retry_waiting(first).await;
    assert!(matches!(&retried, Reply::Error { message, .. } if message.contains("answered 404")), "{retried:?}");
    assert_eq!((left().await, worker.troubles.count()), (3, 1));
    net.store.delete_pending(&waiting(FIRST, 1_000, 1, 1)).await.unwrap();
    let retried = worker.retry_waiting(first).await;
    assert!(matches!(&retried, Reply::Done { message } if message.contains("was taken")), "{retried:?}");
    assert_eq!((left().await, worker.troubles.count()), (1, 0));
    let dropped = worker.drop_waiting(first, "me").await;
    assert!(matches!(&dropped, Reply::Done { message } if message.starts_with("1 waiting event")), "{dropped:?}");
    assert_eq!((left().await, endpoints.taken.lock().len()), (0, 1));
    assert!(matches!(worker.retry_waiting(first).await, Reply::Done { message } if message.contains("nothing waits")));
}

#[tokio::test(start_paused = true)]
async fn a_drop_goes_on_to_its_end_when_nobody_waits_for_it_any_more() {
    let net = Net::new("eu868", 0).await;
    for slot in 1..10 {
        net.store.put_pending(waiting(FIRST, 1_000, u128::from(slot), slot)).await.unwrap();
    }
    let slow = Faults { delay: Duration::from_secs(1), ..Faults::default() };
    let worker = net.worker_over("w0", FaultStore::new(net.store.clone(), 1, slow));
    let first = Uuid::from_u128(FIRST);
    let asked = tokio::time::timeout(Duration::ZERO, worker.drop_waiting(first, "me")).await;
    assert!(asked.is_err(), "who asked is gone");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(net.store.pending_size(IntegrationId(first)).await.unwrap().0, 0);
    let counted = worker.metrics.text();
    assert!(counted.contains(r#"pending_dropped_total{reason="operator"} 9"#), "{counted}");
}

/// More integrations than one look for whose turn it is gives.
#[tokio::test(start_paused = true)]
async fn what_waits_is_offered_however_many_integrations_there_are() {
    let net = Net::new("eu868", 0).await;
    let worker = net.worker_to("w0", Arc::new(Endpoints::default()));
    for n in 0..1_100 {
        net.store.put_pending(waiting(DEAD + n, 1, 1, 1)).await.unwrap();
    }
    let last = DEAD + 1_099;
    add_application(&net, SECOND, 1).await;
    net.store.put_pending(waiting(SECOND, 1, UNWANTED + 1, 1)).await.unwrap();
    let reply = worker.retry_waiting(Uuid::from_u128(SECOND)).await;
    assert!(matches!(&reply, Reply::Done { message } if message.contains("was taken")), "{reply:?}");
    assert!(!net.store.pending_devices(IntegrationId(Uuid::from_u128(last)), 1).await.unwrap().is_empty());
    let reply = worker.retry_waiting(Uuid::from_u128(SECOND)).await;
    assert!(matches!(&reply, Reply::Done { message } if message.contains("nothing waits")), "{reply:?}");
}
