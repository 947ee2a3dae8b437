//! The pipeline in paused time over the in-memory store: several workers, copies, races, crashes, repetitions.

mod adr;
mod answers;
mod clocks;
mod codecs;
mod copies;
mod counters;
mod crashes;
mod downlinks;
mod foreign;
mod former;
mod heard;
mod joins;
mod outages;
mod overload;
mod refusals;
mod requests;
mod settings;
mod urls;
mod waiting;
mod webhook;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use limpet_codec::{Codecs, Object};
use limpet_integration::{Deliver, DeliveryError};
use limpet_shared::{
    AesKey, DevAddr, Eui64, UnixMicros,
    gwmp::{self, Datr, Rxpk},
    link::{Downlink, TxAck, UplinkFrame},
    lorawan::{self, DataSpec, Direction, FCtrl, Frame, JoinRequest, Keys},
    region::Region,
};
use limpet_store::{Directory, FrameStore, SqliteStore};
use limpet_worker_core::{
    model::*,
    session::{Personalization, personalized},
};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;
use webhook::Webhook;

use super::{Pipeline, Stage, run_pending, sweep};
use crate::{
    DEFAULT_REPLY_DELAY,
    metrics::Metrics,
    regions::Regions,
    seams::{Link, Surroundings},
    settings::Settings,
};

const DEVICE: Eui64 = Eui64(0x70b3_d57e_d000_0001);
const APP_KEY: AesKey = AesKey([7; 16]);
const KEYS: Keys = Keys { nwk_s_key: AesKey([1; 16]), app_s_key: AesKey([2; 16]) };
const ADDR: DevAddr = DevAddr(0x0123_4567);
const EPOCH: u64 = 1_700_000_000_000_000;

/// Wall clock that follows tokio's paused time.
struct Clock(Instant, AtomicU32);
impl Surroundings for Clock {
    fn now(&self) -> UnixMicros {
        UnixMicros(EPOCH + self.0.elapsed().as_micros() as u64)
    }
    fn random(&self) -> u32 {
        self.1.fetch_add(7919, Ordering::Relaxed)
    }
}

#[derive(Default)]
struct BalancerLinks {
    downlinks: Mutex<Vec<Downlink>>,
    suspects: Mutex<Vec<String>>,
    /// Gateways that ask for downlinks.
    asking: Mutex<Vec<u64>>,
    /// The balancer's clock, if the workers know it.
    clock: Mutex<Option<Arc<Clock>>>,
}
impl Link for BalancerLinks {
    fn send(&self, downlink: Downlink, _: u64) {
        self.downlinks.lock().push(downlink);
    }
    fn now_at(&self, _: u64) -> Option<UnixMicros> {
        self.clock.lock().as_ref().map(|clock| clock.now())
    }
    fn asks(&self, gateway: Eui64) -> bool {
        self.asking.lock().contains(&gateway.0)
    }
    fn is_suspect(&self, worker: &str) -> bool {
        self.suspects.lock().iter().any(|s| s == worker)
    }
}

fn settings(reply_delay: Duration) -> NetworkSettings {
    NetworkSettings { reply_delay: Some(reply_delay.as_millis() as u32), ..NetworkSettings::default() }
}

/// A network of workers that share a store, an edge and a webhook.
pub(super) struct Net {
    pub(super) store: Arc<SqliteStore>,
    edge: Arc<BalancerLinks>,
    webhook: Arc<Webhook>,
    clock: Arc<Clock>,
    workers: Vec<Arc<Pipeline>>,
    region: &'static Region,
    /// Regions that are configured too.
    besides: Vec<&'static Region>,
    reply_delay: Duration,
    seq: AtomicU32,
}

impl Net {
    pub(super) async fn new(region: &str, workers: usize) -> Self {
        let (store, region) = (SqliteStore::in_memory().unwrap(), Region::by_name(region).unwrap());
        provision(&store, region).await;
        let mut net = Self {
            store,
            edge: Arc::default(),
            webhook: Arc::default(),
            clock: Arc::new(Clock(Instant::now(), AtomicU32::new(1))),
            workers: Vec::new(),
            region,
            besides: Vec::new(),
            reply_delay: DEFAULT_REPLY_DELAY,
            seq: AtomicU32::new(0),
        };
        net.workers = (0..workers).map(|i| net.worker(&format!("w{i}"))).collect();
        net
    }

    /// A worker by name: called again for a name, it is that worker restarted without memory.
    pub(super) fn worker(&self, name: &str) -> Arc<Pipeline> {
        self.worker_over(name, self.store.clone())
    }

    /// A worker with its own view of the store.
    pub(super) fn worker_over(&self, name: &str, store: Arc<dyn limpet_store::Store>) -> Arc<Pipeline> {
        self.worker_of(name, store, self.webhook.clone(), self.clock.clone())
    }

    /// A worker that knows these endpoints.
    fn worker_to(&self, name: &str, deliver: Arc<dyn Deliver>) -> Arc<Pipeline> {
        self.worker_of(name, self.store.clone(), deliver, self.clock.clone())
    }

    fn worker_of(
        &self,
        name: &str,
        store: Arc<dyn limpet_store::Store>,
        deliver: Arc<dyn Deliver>,
        surroundings: Arc<dyn Surroundings>,
    ) -> Arc<Pipeline> {
        Pipeline::new(
            store,
            deliver,
            self.edge.clone(),
            surroundings,
            Regions::new([&[self.region][..], &self.besides].concat(), false),
            Metrics::new().unwrap(),
            name.into(),
            Settings::new(settings(self.reply_delay)),
            Codecs::default(),
        )
    }

    fn frame(&self, gateway: u64, frequency: u32, phy: &[u8], tmst: u32) -> UplinkFrame {
        let datr = self.region.modulation(0).unwrap().into();
        let mut rxpk = Rxpk::new(frequency, datr, phy.to_vec());
        (rxpk.tmst, rxpk.rssi, rxpk.lsnr) = (Some(tmst), Some(-80 - gateway as i32), Some(5.0));
        rxpk.codr = Some("4/5".into());
        let json = gwmp::push_data_json(&[rxpk], None);
        UplinkFrame {
            seq: u64::from(self.seq.fetch_add(1, Ordering::Relaxed)),
            received_at: self.clock.now(),
            gateway: Eui64(gateway),
            attempt: 0,
            datagram: gwmp::push_data(2, 1, Eui64(gateway), &json).into(),
        }
    }

    /// Hands the frame to a worker; the result is awaited until *done*.
    fn give(&self, worker: usize, frame: UplinkFrame) -> tokio::task::JoinHandle<Vec<Stage>> {
        give(self.workers[worker].clone(), frame)
    }

    async fn personalize(&self) -> SessionKey {
        let abp = Personalization {
            dev_eui: DEVICE,
            dev_addr: ADDR,
            keys: SessionKeys { nwk_s_key: KEYS.nwk_s_key, app_s_key: KEYS.app_s_key },
            fcnt_up: 0,
            fcnt_down: 0,
            queue_done: 0,
        };
        let mut session = personalized(&abp, &DeviceProfile::default(), self.region, 1, UnixMicros(EPOCH));
        session.mac.channels_set = true;
        self.store.create_session(&session).await.unwrap();
        session.key
    }

    async fn session(&self, key: &SessionKey) -> SessionRow {
        self.store.session(key, limpet_store::Freshness::Serial).await.unwrap().unwrap()
    }

    fn downlinks(&self) -> Vec<Downlink> {
        self.edge.downlinks.lock().clone()
    }

    async fn enqueue(&self, id: &str, data: &[u8]) {
        let item = QueueItem { dev_eui: DEVICE, id: id.into(), fport: 5, data: data.to_vec(), ..QueueItem::default() };
        self.store.enqueue(item).await.unwrap();
    }
}

fn give(worker: Arc<Pipeline>, frame: UplinkFrame) -> tokio::task::JoinHandle<Vec<Stage>> {
    tokio::spawn(async move {
        let stages = Mutex::new(Vec::new());
        worker.datagram(1, frame, |stage| stages.lock().push(stage)).await;
        stages.into_inner()
    })
}

async fn provision(store: &SqliteStore, region: &Region) {
    let (tenant, application, profile) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    store.create_tenant(&Tenant { id: tenant, name: "t".into(), ..Tenant::default() }).await.unwrap();
    let http = Some(HttpIntegration { json: true, url: "http://[::1]:1/".into(), ..HttpIntegration::default() });
    let application =
        Application { id: application, tenant_id: tenant, name: "a".into(), http, ..Application::default() };
    store.create_application(&application).await.unwrap();
    let profile = DeviceProfile {
        id: profile,
        tenant_id: tenant,
        name: "p".into(),
        region: region.band().into(),
        supports_otaa: true,
        ..DeviceProfile::default()
    };
    store.create_device_profile(&profile).await.unwrap();
    let device = Device {
        dev_eui: DEVICE,
        application_id: application.id,
        device_profile_id: profile.id,
        name: "d".into(),
        app_key: Some(APP_KEY),
        ..Device::default()
    };
    store.create_device(&device).await.unwrap();
    for eui in 1..=4 {
        let gateway = Gateway { eui: Eui64(eui), tenant_id: tenant, name: "g".into(), ..Gateway::default() };
        store.create_gateway(&gateway).await.unwrap();
    }
}

/// An uplink that says hello; a test writes beside it what it has otherwise.
fn hello(fcnt: u32) -> DataSpec<'static> {
    DataSpec {
        direction: Direction::Up,
        confirmed: false,
        dev_addr: ADDR,
        fctrl: FCtrl::default(),
        fcnt,
        fopts: &[],
        fport: Some(2),
        payload: b"hello",
    }
}

fn uplink(fcnt: u32, confirmed: bool) -> Vec<u8> {
    lorawan::build_data(&DataSpec { confirmed, ..hello(fcnt) }, &KEYS).unwrap()
}

/// What the loss of a balancer asks for.
async fn sweep(worker: &Arc<Pipeline>) -> Option<u64> {
    let stop = tokio_util::sync::CancellationToken::new();
    worker.sweep(UnixMicros(0), sweep::SETTLED_AFTER, &stop).await.unwrap()
}

const DONE: [Stage; 2] = [Stage::Stored, Stage::Done];
const CHANNEL: u32 = 868_100_000;

fn txpk(downlink: &Downlink, window: usize) -> gwmp::Txpk {
    let transmission = downlink.windows[window].transmission.as_ref().unwrap();
    gwmp::parse_pull_resp(&transmission.pull_resp_json(&downlink.phy).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn copies_at_three_workers_are_one_event_and_one_downlink() {
    let net = Net::new("eu868", 3).await;
    let key = net.personalize().await;
    for fcnt in 0..20 {
        let phy = uplink(fcnt, true);
        let copies: Vec<_> = (0..3).map(|w| net.give(w, net.frame(w as u64 + 1, CHANNEL, &phy, 1000))).collect();
        for copy in copies {
            assert_eq!(copy.await.unwrap(), DONE);
        }
    }
    let ups = net.webhook.ups();
    assert_eq!(ups.iter().map(|u| u.1).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    let mut keys: Vec<u64> = net.downlinks().iter().map(|d| d.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 20, "one set of bytes for each confirmed uplink");
    assert_eq!(net.session(&key).await.session.next_fcnt_down, 20);
}

#[tokio::test(start_paused = true)]
async fn an_event_lists_each_gateway_once_and_the_best_first() {
    let net = Net::new("eu868", 2).await;
    net.personalize().await;
    let phy = uplink(0, false);
    let copies = [net.give(0, net.frame(2, CHANNEL, &phy, 9)), net.give(1, net.frame(1, CHANNEL, &phy, 9))];
    for copy in copies {
        copy.await.unwrap();
    }
    let events = net.webhook.events.lock();
    let EventKind::Up(up) = &events[0].kind else { panic!("no up event") };
    assert_eq!(up.receptions.iter().map(|r| r.gateway.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(up.data, b"hello");
    assert!(net.downlinks().is_empty(), "nothing to say, so nothing is sent");
}

#[tokio::test(start_paused = true)]
async fn a_repeated_confirmed_uplink_gets_a_second_ack_and_no_second_event() {
    let net = Net::new("eu868", 2).await;
    net.personalize().await;
    let phy = uplink(0, true);
    net.give(0, net.frame(1, CHANNEL, &phy, 1_000_000)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    net.give(1, net.frame(1, CHANNEL, &phy, 3_200_000)).await.unwrap();
    assert_eq!(net.webhook.ups().len(), 1);
    let downlinks = net.downlinks();
    assert_eq!(downlinks.len(), 2);
    assert_ne!(downlinks[0].key, downlinks[1].key, "another FCntDown");
    for (downlink, tmst, fcnt) in [(&downlinks[0], 2_000_000, 0), (&downlinks[1], 4_200_000, 1)] {
        let txpk = txpk(downlink, 0);
        assert_eq!((txpk.tmst, txpk.freq), (Some(tmst), CHANNEL));
        let Ok(Frame::Data(frame)) = lorawan::parse(&txpk.data) else { panic!("not a data frame") };
        assert!(frame.fctrl.ack && frame.verify(&KEYS.nwk_s_key, fcnt));
    }
    // An old copy that comes late is no repetition: the transmission it belongs to was answered.
    tokio::time::sleep(Duration::from_millis(100)).await;
    net.give(0, net.frame(2, CHANNEL, &phy, 3_200_000)).await.unwrap();
    assert_eq!(net.downlinks().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_second_window_carries_the_same_bytes_one_second_later() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    // Just before the counter wraps.
    net.give(0, net.frame(1, CHANNEL, &uplink(0, true), u32::MAX - 500_000)).await.unwrap();
    let downlink = net.downlinks().remove(0);
    let (rx1, rx2) = (txpk(&downlink, 0), txpk(&downlink, 1));
    assert_eq!(rx1.data, rx2.data);
    assert_eq!((rx1.tmst, rx2.tmst), (Some(499_999), Some(1_499_999)));
    assert_eq!((rx2.freq, rx2.datr), (869_525_000, Datr::Lora { spreading_factor: 12, bandwidth_khz: 125 }));
    assert_eq!(downlink.windows[1].at - downlink.windows[0].at, 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_queue_item_is_offered_until_a_gateway_has_sent_it() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.enqueue("one", b"first").await;
    net.enqueue("two", b"second").await;
    let carried = |n: usize| {
        let txpk = txpk(&net.downlinks()[n], 0);
        let Ok(Frame::Data(frame)) = lorawan::parse(&txpk.data) else { panic!("not a data frame") };
        (frame.decrypt(&KEYS, n as u32), frame.fctrl.f_pending)
    };
    net.give(0, net.frame(1, CHANNEL, &uplink(0, false), 5)).await.unwrap();
    assert_eq!(carried(0), (b"first".to_vec(), true));
    // No TX_ACK came: offered again, under the next FCntDown.
    net.give(0, net.frame(1, CHANNEL, &uplink(1, false), 5)).await.unwrap();
    assert_eq!(carried(1), (b"first".to_vec(), true));
    let Downlink { key, gateway, context, .. } = net.downlinks()[1].clone();
    let ack = TxAck { key, gateway, window: 1, context, at: net.clock.now().0, ..TxAck::default() };
    net.workers[0].tx_ack(ack).await;
    net.give(0, net.frame(1, CHANNEL, &uplink(2, false), 5)).await.unwrap();
    assert_eq!(carried(2), (b"second".to_vec(), false));
}

#[tokio::test(start_paused = true)]
async fn an_item_that_no_window_can_carry_is_dropped_with_a_word() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.enqueue("big", &[0; 200]).await;
    net.enqueue("small", b"ok").await;
    // DR0 carries 51 bytes of application payload in both windows.
    net.give(0, net.frame(1, CHANNEL, &uplink(0, false), 5)).await.unwrap();
    let txpk = txpk(&net.downlinks()[0], 0);
    let Ok(Frame::Data(frame)) = lorawan::parse(&txpk.data) else { panic!("not a data frame") };
    assert_eq!(frame.decrypt(&KEYS, 0), b"ok");
    let logged = |e: &Event| matches!(&e.kind, EventKind::Log(log) if log.code == "DOWNLINK_PAYLOAD_SIZE");
    assert!(net.webhook.events.lock().iter().any(logged));
}

#[tokio::test(start_paused = true)]
async fn events_of_a_device_stay_in_order_through_an_outage() {
    let net = Net::new("eu868", 2).await;
    net.personalize().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let drainers: Vec<_> =
        (0..2).map(|w| tokio::spawn(run_pending(net.workers[w].clone(), w as u64, stop.clone()))).collect();
    for fcnt in 0..60 {
        net.webhook.down.store((10..40).contains(&fcnt), Ordering::Relaxed);
        net.give(fcnt as usize % 2, net.frame(1, CHANNEL, &uplink(fcnt, false), 5)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    stop.cancel();
    for drainer in drainers {
        drainer.await.unwrap();
    }
    let mut firsts = net.webhook.ups();
    let mut seen = std::collections::HashSet::new();
    firsts.retain(|(id, _)| seen.insert(*id));
    assert_eq!(firsts.iter().map(|u| u.1).collect::<Vec<_>>(), (0..60).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn replays_junk_and_strangers_end_in_a_verdict() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    for fcnt in [5, 6] {
        net.give(0, net.frame(1, CHANNEL, &uplink(fcnt, false), 5)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut forged = uplink(7, false);
    *forged.last_mut().unwrap() ^= 1;
    for phy in [uplink(5, false), uplink(3, false), forged, vec![0xff; 12], vec![0x40; 3]] {
        assert_eq!(net.give(0, net.frame(1, CHANNEL, &phy, 5)).await.unwrap(), DONE);
    }
    assert_eq!(net.give(0, net.frame(99, CHANNEL, &uplink(8, false), 5)).await.unwrap(), DONE);
    assert_eq!(net.webhook.ups().iter().map(|u| u.1).collect::<Vec<_>>(), [5, 6]);
    let text = net.workers[0].metrics.text();
    for reason in ["replay", "bad_mic", "unknown_gateway"] {
        assert!(text.contains(&format!("limpet_worker_dropped_total{{reason=\"{reason}\"}} ")), "{reason} in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_overtaken_uplink_keeps_its_event() {
    let net = Net::new("eu868", 2).await;
    net.personalize().await;
    let late = net.frame(1, CHANNEL, &uplink(0, false), 5);
    tokio::time::sleep(Duration::from_millis(50)).await;
    net.give(1, net.frame(2, CHANNEL, &uplink(1, false), 5)).await.unwrap();
    net.give(0, late).await.unwrap();
    assert_eq!(net.webhook.ups().iter().map(|u| u.1).collect::<Vec<_>>(), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_join_on_two_frequencies_at_two_workers_is_one_session() {
    let net = Net::new("eu868", 2).await;
    let phy = JoinRequest::build(Eui64(9), DEVICE, 0x1234, &APP_KEY);
    let both = [net.give(0, net.frame(1, CHANNEL, &phy, 7)), net.give(1, net.frame(2, 868_300_000, &phy, 7))];
    for one in both {
        assert_eq!(one.await.unwrap(), DONE);
    }
    let downlinks = net.downlinks();
    let accept = txpk(&downlinks[0], 0);
    for downlink in &downlinks {
        assert_eq!((downlink.key, txpk(downlink, 0).data), (downlinks[0].key, accept.data.clone()), "one JoinAccept");
    }
    assert_eq!(accept.tmst, Some(5_000_007));
    assert_eq!(net.webhook.joins(), 1);
    let opened = lorawan::JoinAccept::open(&accept.data, &APP_KEY).unwrap();
    let rows = net.store.sessions_by_addr(opened.dev_addr, limpet_store::Freshness::Serial).await.unwrap();
    assert_eq!(rows.len(), 1);
    let keys = lorawan::session_keys(&APP_KEY, opened.join_nonce, opened.net_id, 0x1234);
    assert_eq!(rows[0].session.keys.nwk_s_key, keys.nwk_s_key);
    // The same JoinRequest again, later: a replay makes nothing.
    tokio::time::sleep(Duration::from_secs(20)).await;
    net.give(0, net.frame(1, CHANNEL, &phy, 7)).await.unwrap();
    assert_eq!((net.downlinks().len(), net.webhook.joins()), (downlinks.len(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_join_draws_no_crowded_dev_addr() {
    let net = Net::new("eu868", 1).await;
    let key = net.personalize().await;
    let session = net.session(&key).await.session;
    // What is drawn first is known here.
    let dev_addr = DevAddr(net.clock.1.load(Ordering::Relaxed));
    for n in 0..64 {
        let key = SessionKey { dev_addr, dev_eui: Eui64(n), ..key };
        net.store.create_session(&Session { key, ..session.clone() }).await.unwrap();
    }
    let phy = JoinRequest::build(Eui64(9), DEVICE, 1, &APP_KEY);
    net.give(0, net.frame(1, CHANNEL, &phy, 7)).await.unwrap();
    let opened = lorawan::JoinAccept::open(&txpk(&net.downlinks()[0], 0).data, &APP_KEY).unwrap();
    assert_ne!(opened.dev_addr, dev_addr);
    assert_eq!(net.store.sessions_by_addr(opened.dev_addr, limpet_store::Freshness::Serial).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fixed_plan_tells_its_sub_band() {
    let net = Net::new("us915_1", 1).await;
    let phy = JoinRequest::build(Eui64(9), DEVICE, 1, &APP_KEY);
    net.give(0, net.frame(1, 903_900_000, &phy, 7)).await.unwrap();
    let accept = txpk(&net.downlinks()[0], 0);
    assert_eq!((accept.freq, accept.datr), (923_300_000, Datr::Lora { spreading_factor: 10, bandwidth_khz: 500 }));
    let opened = lorawan::JoinAccept::open(&accept.data, &APP_KEY).unwrap();
    let list = opened.cf_list.unwrap();
    assert_eq!((&list[..10], list[15]), (&[0, 0xff, 0, 0, 0, 0, 0, 0, 2, 0][..], 1), "channels 8 to 15 and 65");
}

#[tokio::test(start_paused = true)]
async fn a_device_is_told_the_sub_band_of_its_profile_wherever_it_was_heard() {
    let mut net = Net::new("us915_0", 0).await;
    net.besides.push(Region::by_name("us915_1").unwrap());
    let mut profile = net.store.device_profile(Uuid::from_u128(3)).await.unwrap().unwrap();
    profile.region_config_id = Some("us915_1".into());
    net.store.update_device_profile(&profile).await.unwrap();
    net.workers = vec![net.worker("w0")];
    let phy = JoinRequest::build(Eui64(9), DEVICE, 1, &APP_KEY);
    net.give(0, net.frame(1, 902_300_000, &phy, 7)).await.unwrap();
    let accept = txpk(&net.downlinks()[0], 0);
    assert_eq!(accept.freq, 923_300_000, "the window of the channel that it was heard on");
    let list = lorawan::JoinAccept::open(&accept.data, &APP_KEY).unwrap().cf_list.unwrap();
    assert_eq!((&list[..10], list[15]), (&[0, 0xff, 0, 0, 0, 0, 0, 0, 2, 0][..], 1), "channels 8 to 15 and 65");
}

/// It is heard where the other sub-band is the network's, and must not be told that one.
#[tokio::test(start_paused = true)]
async fn a_device_without_a_cf_list_is_told_the_sub_band_that_it_lives_in_wherever_it_was_heard() {
    let mut net = Net::new("us915_1", 0).await;
    let key = net.personalize().await;
    let row = net.session(&key).await.session;
    let mac = MacState { channels_set: false, ..row.mac };
    net.store.commit_session(&Session { rev: row.rev + 1, mac, ..row }).await.unwrap();
    net.besides.push(Region::by_name("us915_0").unwrap());
    net.workers = vec![net.worker("w0")];
    net.give(0, net.frame(1, 902_300_000, &uplink(0, false), 7)).await.unwrap();
    let told = txpk(&net.downlinks()[0], 0);
    let Ok(Frame::Data(frame)) = lorawan::parse(&told.data) else { panic!("not a data frame") };
    let mut wanted = Vec::new();
    net.region.channel_mask_requests(0).iter().for_each(|request| request.encode(&mut wanted));
    assert_eq!(frame.fopts, wanted);
}

#[tokio::test(start_paused = true)]
async fn the_sweep_picks_up_what_died_with_its_balancer() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    let frame = net.frame(1, CHANNEL, &uplink(0, false), 5);
    // Its worker dies with its view of the store, right after the reception was written.
    let view = limpet_store_testing::fault::FaultStore::new(net.store.clone(), 1, Default::default());
    let dying = give(net.worker_over("w0", view.clone()), frame);
    tokio::time::sleep(Duration::from_millis(100)).await;
    view.crash();
    dying.abort();
    let reborn = net.worker("w0");
    let picked_up = sweep(&reborn).await;
    assert_eq!((net.webhook.ups().len(), picked_up), (1, Some(1)));
    assert_eq!(sweep(&reborn).await, Some(0), "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn a_devices_uplinks_are_accepted_in_the_order_received_by_a_slow_store() {
    let net = Net::new("eu868", 0).await;
    net.personalize().await;
    // A look at the store takes longer than the pause between two uplinks.
    let slow = limpet_store_testing::fault::Faults { delay: Duration::from_millis(40), ..Default::default() };
    let worker = net.worker_over("w0", limpet_store_testing::fault::FaultStore::new(net.store.clone(), 5, slow));
    let mut frames = Vec::new();
    for burst in 0..10 {
        for fcnt in [2 * burst, 2 * burst + 1] {
            frames.push(give(worker.clone(), net.frame(1, CHANNEL, &uplink(fcnt, false), fcnt)));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for frame in frames {
        frame.await.unwrap();
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let pending = tokio::spawn(run_pending(net.worker("w1"), 1, stop.clone()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    stop.cancel();
    pending.await.unwrap();
    assert_eq!(net.webhook.ups().iter().map(|u| u.1).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
}
