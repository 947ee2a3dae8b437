//! One application with two URLs: each is told everything by itself, whatever becomes of the other.

use std::collections::BTreeMap;

use super::*;
use limpet_shared::admin::Reply;
use limpet_store::IntegrationId;
use limpet_worker_core::model::Application;
use tokio_util::sync::CancellationToken;

const A: &str = "http://a/hook";
const B: &str = "http://b/hook?token=secret";
const APPLICATION: Uuid = Uuid::from_u128(2);

/// What each URL does: takes events, unless it is said to hang or to refuse.
#[derive(Default)]
struct Urls {
    does: Mutex<BTreeMap<String, Does>>,
    taken: Mutex<Vec<(String, Instant, Event)>>,
}

#[derive(Clone, Copy)]
enum Does {
    Hang,
    Refuse,
}

#[async_trait]
impl Deliver for Urls {
    async fn deliver(
        &self,
        http: &HttpIntegration,
        event: &Event,
        _: Option<&Object>,
        limit: Duration,
    ) -> Result<(), DeliveryError> {
        let mut outcome = Ok(());
        for url in http.urls() {
            let does = self.does.lock().get(url).copied();
            match does {
                Some(Does::Hang) => outcome = Err(DeliveryError::TimedOut(limit)),
                Some(Does::Refuse) => outcome = Err(DeliveryError::Refused { origin: http.origins(), status: 400 }),
                None => self.taken.lock().push((url.into(), Instant::now(), event.clone())),
            }
        }
        if matches!(outcome, Err(DeliveryError::TimedOut(_))) {
            tokio::time::sleep(limit).await;
        }
        outcome
    }
}

impl Urls {
    fn set(&self, url: &str, does: Option<Does>) {
        match does {
            Some(does) => self.does.lock().insert(url.into(), does),
            None => self.does.lock().remove(url),
        };
    }

    /// The FCntUps that this URL was told, in order.
    fn told(&self, url: &str) -> Vec<u32> {
        let up = |event: &Event| match &event.kind {
            EventKind::Up(up) => Some(up.fcnt),
            _ => None,
        };
        self.taken.lock().iter().filter(|(at, ..)| at == url).filter_map(|(_, _, event)| up(event)).collect()
    }

    fn logs(&self, url: &str) -> usize {
        let is_log = |event: &Event| matches!(event.kind, EventKind::Log(_));
        self.taken.lock().iter().filter(|(at, _, event)| at == url && is_log(event)).count()
    }
}

struct Two {
    net: Net,
    urls: Arc<Urls>,
    worker: Arc<Pipeline>,
    stop: CancellationToken,
}

impl Drop for Two {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Two {
    /// A worker that hears and sends what waits.
    async fn new() -> Self {
        let net = Net::new("eu868", 0).await;
        net.personalize().await;
        let (urls, stop) = (Arc::new(Urls::default()), CancellationToken::new());
        let worker = net.worker_to("w0", urls.clone());
        worker.urls_apart.store(true, Ordering::Relaxed);
        tokio::spawn(run_pending(worker.clone(), 1, stop.clone()));
        let two = Self { net, urls, worker, stop };
        two.configure(&format!("{A}, {B}")).await;
        two
    }

    fn all_know_urls(&self, all: bool) {
        self.worker.urls_apart.store(all, Ordering::Relaxed);
    }

    async fn application(&self) -> Application {
        self.net.store.application(APPLICATION).await.unwrap().unwrap()
    }

    async fn configure(&self, urls: &str) {
        let http = HttpIntegration { json: true, url: urls.into(), ..HttpIntegration::default() };
        let application = Application { http: Some(http), ..self.application().await };
        self.net.store.update_application(&application).await.unwrap();
    }

    async fn hear(&self, fcnts: std::ops::Range<u32>) {
        for fcnt in fcnts {
            let done = give(self.worker.clone(), self.net.frame(1, CHANNEL, &uplink(fcnt, false), 5));
            tokio::time::sleep(Duration::from_secs(2)).await;
            done.await.unwrap();
        }
    }

    async fn waits(&self) -> u64 {
        let mut all = 0;
        for id in self.application().await.waiting_ids() {
            all += self.net.store.pending_size(IntegrationId(id)).await.unwrap().0;
        }
        all
    }
}

async fn a_while() {
    tokio::time::sleep(Duration::from_secs(20)).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_url_neither_repeats_nor_delays_anything_at_the_other() {
    let two = Two::new().await;
    two.urls.set(B, Some(Does::Hang));
    let began = Instant::now();
    two.hear(1..11).await;
    assert_eq!(two.urls.told(A), (1..11).collect::<Vec<_>>());
    for (n, (_, at, _)) in two.urls.taken.lock().iter().enumerate() {
        let heard = began + Duration::from_secs(2 * n as u64);
        assert!(at.duration_since(heard) < Duration::from_millis(300), "{n}: {:?}", at.duration_since(heard));
    }
    assert_eq!(two.waits().await, 10, "for the dead one alone");
    let metrics = two.worker.metrics.text();
    assert!(metrics.contains(&format!("pending_events{{application=\"{APPLICATION}\",endpoint=\"http://b\"}}")));
    assert!(!metrics.contains("secret") && !metrics.contains("endpoint=\"http://a\""), "{metrics}");
    a_while().await;
    two.urls.set(B, None);
    a_while().await;
    assert_eq!(two.urls.told(B), (1..11).collect::<Vec<_>>());
    assert_eq!((two.urls.told(A).len(), two.waits().await), (10, 0), "nothing comes twice");
}

#[tokio::test(start_paused = true)]
async fn a_url_that_refuses_events_costs_the_other_nothing() {
    let two = Two::new().await;
    two.urls.set(B, Some(Does::Refuse));
    two.hear(1..4).await;
    a_while().await;
    assert_eq!((two.urls.told(A), two.urls.logs(A)), (vec![1, 2, 3], 0));
    let told = two.worker.troubles.told(two.worker.surroundings.now());
    let [trouble] = &told[..] else { panic!("{told:?}") };
    let refusing = two.application().await.endpoints()[1].id;
    assert_eq!((trouble.integration.parse(), trouble.application.parse()), (Ok(refusing), Ok(APPLICATION)));
    two.urls.set(B, None);
    two.hear(4..5).await;
    assert_eq!((two.urls.told(A), two.urls.told(B)), (vec![1, 2, 3, 4], vec![4]));
}

#[tokio::test(start_paused = true)]
async fn a_url_that_changes_its_place_gets_what_waits_and_one_that_is_taken_out_does_not() {
    let two = Two::new().await;
    two.urls.set(A, Some(Does::Hang));
    two.urls.set(B, Some(Does::Hang));
    two.hear(1..4).await;
    two.configure(&format!("http://c/,{B},{A}")).await;
    two.urls.set(A, None);
    a_while().await;
    assert_eq!((two.urls.told(A), two.urls.told("http://c/")), (vec![1, 2, 3], vec![]));
    let b = two.application().await.endpoints()[1].id;
    two.configure(&format!("{A},http://c/")).await;
    a_while().await;
    let left = two.net.store.pending_size(IntegrationId(b)).await.unwrap().0;
    assert_eq!((left, two.urls.told(B)), (0, vec![]));
    assert!(two.worker.metrics.text().contains("pending_dropped_total{reason=\"integration_removed\"} 3"));
    assert_eq!(two.urls.told(A), [1, 2, 3], "nothing comes twice");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_only_url_goes_to_whichever_takes_its_place() {
    let two = Two::new().await;
    two.configure(A).await;
    two.urls.set(A, Some(Does::Hang));
    two.hear(1..4).await;
    two.configure(B).await;
    a_while().await;
    assert_eq!((two.urls.told(A), two.urls.told(B)), (vec![], vec![1, 2, 3]));
}

#[tokio::test(start_paused = true)]
async fn when_one_of_several_is_left_what_waits_for_it_comes_before_what_is_new() {
    let two = Two::new().await;
    two.urls.set(B, Some(Does::Hang));
    two.hear(1..4).await;
    two.configure(&format!(" {B}")).await;
    two.hear(4..6).await;
    two.urls.set(B, None);
    two.hear(6..7).await;
    a_while().await;
    two.hear(7..8).await;
    assert_eq!(two.urls.told(B), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((two.urls.told(A), two.waits().await), (vec![1, 2, 3], 0));
}

/// It would take what waits for one URL for what waits for an application that was removed.
#[tokio::test(start_paused = true)]
async fn beside_a_worker_that_takes_all_urls_for_one_nothing_waits_for_one_alone_and_all_is_told() {
    let two = Two::new().await;
    two.all_know_urls(false);
    two.urls.set(B, Some(Does::Hang));
    two.hear(1..4).await;
    let together = two.net.store.pending_size(IntegrationId(APPLICATION)).await.unwrap().0;
    assert_eq!((together, two.waits().await), (3, 3));
    let told = two.urls.told(A);
    assert!(told.len() > 1 && told.iter().all(|fcnt| *fcnt == 1), "again with each try, and those behind it wait");
    two.all_know_urls(true);
    two.hear(4..6).await;
    a_while().await;
    let told_by_then = two.urls.told(A);
    let mut once = told_by_then.clone();
    once.dedup();
    assert_eq!(once, [1, 2, 3, 4, 5]);
    assert_eq!((two.net.store.pending_size(IntegrationId(APPLICATION)).await.unwrap().0, two.waits().await), (0, 5));
    two.urls.set(B, None);
    a_while().await;
    assert_eq!(two.urls.told(B), [1, 2, 3, 4, 5]);
    assert_eq!((two.urls.told(A), two.waits().await), (told_by_then, 0));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_one_url_is_offered_and_dropped_by_itself() {
    let two = Two::new().await;
    for url in [A, B] {
        two.urls.set(url, Some(Does::Hang));
    }
    two.hear(1..4).await;
    let [a, b] = [0, 1];
    let id = async |at: usize| two.application().await.endpoints()[at].id;
    let reply = two.worker.retry_waiting(id(b).await).await;
    assert!(matches!(&reply, Reply::Error { message, .. } if message.contains("was not taken")), "{reply:?}");
    let reply = two.worker.drop_waiting(id(b).await, "ann").await;
    assert_eq!(reply, Reply::Done { message: "3 waiting events were dropped".into() });
    for url in [A, B] {
        two.urls.set(url, None);
    }
    let _ = two.worker.retry_waiting(id(a).await).await;
    a_while().await;
    assert_eq!((two.urls.told(B), two.waits().await), (vec![], 0));
    two.urls.taken.lock().dedup_by_key(|(_, _, event)| event.id);
    assert_eq!(two.urls.told(A), [1, 2, 3]);
}

/// The event was made while the device belonged to another application, and came to wait later.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_device_of_another_application_by_now_is_told() {
    let two = Two::new().await;
    two.urls.set(B, Some(Does::Hang));
    two.hear(1..2).await;
    let b = IntegrationId(two.application().await.endpoints()[1].id);
    let waiting = two.net.store.pending(b, DEVICE, 1).await.unwrap().remove(0);
    let mut elsewhere = waiting.clone();
    elsewhere.event.device.application_id = Uuid::from_u128(77);
    elsewhere.part += 1;
    two.net.store.put_pending(elsewhere).await.unwrap();
    two.net.store.delete_pending(&waiting).await.unwrap();
    two.urls.set(B, None);
    a_while().await;
    assert_eq!(two.urls.told(B), [1]);
}
