//! Devices and gateways in the field, sending without pause, and what became of each uplink on the gateways' side.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use limpet_bench::{
    Air, Coverage, DeviceConfig, Flight, GatewayConfig, Received, Uplink, VirtualDevice, VirtualGateway,
};
use limpet_shared::{
    AesKey, DevAddr, Eui64,
    admin::{DeviceAdd, GatewayAdd, Request},
    lorawan::Keys,
    region::Region,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{cluster::Cluster, collector::UplinkId, counters::Counters};

/// How long PUSH_ACKs are waited for after the last uplink.
const LAST_ACKS: Duration = Duration::from_secs(5);

/// Gateways and ABP devices that a network knows.
pub struct Field {
    pub gateways: Vec<Eui64>,
    air: Arc<Air>,
    devices: Vec<Arc<Mutex<VirtualDevice>>>,
    coverage: Vec<Vec<Coverage>>,
    counters: Mutex<Counters>,
}

/// An uplink and what came back.
#[derive(Clone, Debug)]
pub struct Sent {
    pub uplink: UplinkId,
    pub at: Instant,
    pub confirmed: bool,
    /// The gateways that heard it, and how long after the PUSH_DATA each got its PUSH_ACK.
    pub heard_by: Vec<(Eui64, Option<Duration>)>,
    /// When the device got an ACK in one of its windows.
    pub answered: Option<Instant>,
}

impl Sent {
    pub fn is_acked(&self) -> bool {
        self.heard_by.iter().any(|(_, acked)| acked.is_some())
    }
}

impl Field {
    /// Adds gateways and devices to the network and starts them. `gateways_of` are the gateways of each worker: of
    /// three devices, one is heard by gateways of the first worker only, one by those of the last only, one by both.
    pub async fn new(cluster: &Cluster, gateways_of: &[Vec<Eui64>], devices: u32, webhook: &str) -> Self {
        let gateways: Vec<Eui64> = gateways_of.concat();
        let (first, last) = (gateways_of[0].len(), gateways.len());
        let near_first: Vec<usize> = (0..first).collect();
        let near_last: Vec<usize> = (last - gateways_of[gateways_of.len() - 1].len()..last).collect();
        let between = [near_first[0], near_last[0], near_first[near_first.len() - 1]].to_vec();
        Self::placed(cluster, gateways, &[near_first, near_last, between], Devices::first(devices, webhook)).await
    }

    /// Devices of an application of their own, with these numbers, at these gateways; all of them hear each.
    pub async fn of_application(cluster: &Cluster, gateways: Vec<Eui64>, devices: Devices<'_>) -> Self {
        let everywhere = (0..gateways.len()).collect();
        Self::placed(cluster, gateways, &[everywhere], devices).await
    }

    /// The same, with every device heard by all gateways.
    pub async fn all_in_reach(cluster: &Cluster, gateways: Vec<Eui64>, devices: u32, webhook: &str) -> Self {
        let everywhere = (0..gateways.len()).collect();
        Self::placed(cluster, gateways, &[everywhere], Devices::first(devices, webhook)).await
    }

    /// The same, with every device heard by one gateway.
    pub async fn one_in_reach(cluster: &Cluster, gateways: Vec<Eui64>, devices: u32, webhook: &str) -> Self {
        let each: Vec<_> = (0..gateways.len()).map(|gateway| vec![gateway]).collect();
        Self::placed(cluster, gateways, &each, Devices::first(devices, webhook)).await
    }

    /// The same with gateways that transmit everything at once: what is looked at is the server and not the air.
    pub async fn in_wide_air(cluster: &Cluster, gateways: Vec<Eui64>, devices: u32, webhook: &str) -> Self {
        let everywhere = (0..gateways.len()).collect();
        let devices = Devices { collisions: false, ..Devices::first(devices, webhook) };
        Self::placed(cluster, gateways, &[everywhere], devices).await
    }

    /// Devices take turns at the places, each of which is a list of gateways.
    async fn placed(cluster: &Cluster, gateways: Vec<Eui64>, places: &[Vec<usize>], devices: Devices<'_>) -> Self {
        let (mut started, mut counters) = (Vec::new(), Counters::default());
        for &eui in &gateways {
            cluster.done(&Request::GatewayAdd(GatewayAdd { eui, ..GatewayAdd::default() })).await;
            let config = GatewayConfig::new(eui, cluster.edges[0].gwmp);
            let queue = if devices.collisions { config.queue } else { 1_000 };
            let config = GatewayConfig { collisions: devices.collisions, queue, ..config };
            let gateway = VirtualGateway::start(config).await.unwrap();
            counters.listen(&gateway);
            started.push(Arc::new(gateway));
        }
        let coverage = (0..devices.numbers.len()).map(|number| heard(&places[number % places.len()])).collect();
        let mut made = Vec::new();
        for number in devices.numbers.clone() {
            made.push(Arc::new(Mutex::new(device(cluster, number, &devices).await)));
        }
        let counters = Mutex::new(counters);
        Self { gateways, air: Arc::new(Air::new(started)), devices: made, coverage, counters }
    }

    /// How many devices there are.
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// For tests that set up a device in another way.
    pub fn device(&self, which: usize) -> MutexGuard<'_, VirtualDevice> {
        self.devices[which].lock().unwrap()
    }

    /// One uplink of that device, told whose it is before it is sent, and what the device heard in its windows: whether it was
    /// acknowledged, and each payload.
    pub async fn exchange(&self, which: usize, confirmed: bool, sends: impl FnOnce(UplinkId)) -> (bool, Vec<Vec<u8>>) {
        let (packet, uplink) = {
            let mut device = self.device(which);
            let f_cnt = device.session().unwrap().fcnt_up;
            let payload = f_cnt.to_be_bytes().to_vec();
            let uplink = Uplink { confirmed, fport: Some(10), payload, ..Uplink::default() };
            (device.uplink(&uplink).unwrap(), (device.dev_eui(), f_cnt))
        };
        sends(uplink);
        let mut flight = self.air.transmit(&packet, &self.coverage[which]).await.unwrap();
        let (mut acknowledged, mut payloads) = (false, Vec::new());
        while let Some(caught) = flight.next().await {
            if let Ok(Received::Data { ack, payload, .. }) = self.device(which).receive(&caught.phy) {
                acknowledged |= ack;
                payloads.extend(Some(payload).filter(|payload| !payload.is_empty()));
            }
        }
        (acknowledged, payloads)
    }

    /// Waits until every gateway can get downlinks and has been heard.
    pub async fn linked(&self) {
        for gateway in self.air.gateways() {
            let what = format!("gateway {} to get a PULL_ACK", gateway.eui());
            crate::support::eventually(&what, async || {
                gateway.pull().await.unwrap();
                (gateway.counters().pull_acked > 0).then_some(())
            })
            .await;
        }
    }

    /// Every gateway sends to this server from now on, and has heard from it when this returns.
    pub async fn move_to(&self, server: SocketAddr) {
        for gateway in self.air.gateways() {
            gateway.move_to(server).await.unwrap();
        }
        for gateway in self.air.gateways() {
            let before = gateway.counters().pull_acked;
            let what = format!("gateway {} to get a PULL_ACK after its move", gateway.eui());
            crate::support::eventually(&what, async || {
                gateway.pull().await.unwrap();
                (gateway.counters().pull_acked > before).then_some(())
            })
            .await;
        }
    }

    /// Every gateway sends again what got no PUSH_ACK. Returns how many datagrams these were.
    pub async fn send_again(&self) -> usize {
        let mut datagrams = 0;
        for gateway in self.air.gateways() {
            datagrams += gateway.send_again().await.unwrap();
        }
        datagrams
    }

    /// No FCntDown of any device was used for two different downlinks. Returns how many were used.
    pub fn assert_counters_used_once(&self) -> usize {
        let (used, reused) = self.counters.lock().unwrap().sum_up();
        assert!(reused.is_empty(), "used for different downlinks: {reused:?}");
        used
    }

    /// Downlinks that no device could hear.
    pub fn strays(&self) -> u64 {
        self.air.strays().0
    }

    /// What a gateway refused, and by which word.
    pub fn refused(&self) -> Vec<(String, u64)> {
        self.air.gateways().iter().flat_map(|gateway| gateway.counters().refused).collect()
    }
}

/// Copies leave the gateways a few milliseconds apart.
fn heard(gateways: &[usize]) -> Vec<Coverage> {
    let copies = gateways.iter().zip(0..);
    copies.map(|(&gateway, n)| Coverage { delay: Duration::from_millis(2 * n), ..Coverage::good(gateway) }).collect()
}

/// Devices that the network is told of.
#[derive(Clone, Debug)]
pub struct Devices<'a> {
    pub numbers: Range<u32>,
    /// The network's own, or one of this name.
    pub application: Option<&'a str>,
    pub webhook: &'a str,
    /// Their gateways transmit one downlink at a time, and keep a few.
    pub collisions: bool,
}

impl<'a> Devices<'a> {
    fn first(count: u32, webhook: &'a str) -> Self {
        Self { numbers: 1..count + 1, application: None, webhook, collisions: true }
    }
}

/// The DevEUI of the device with this number.
pub fn dev_eui(number: u32) -> Eui64 {
    Eui64(0x024c_5000_1000_0000 + u64::from(number))
}

async fn device(cluster: &Cluster, number: u32, of: &Devices<'_>) -> VirtualDevice {
    let dev_eui = dev_eui(number);
    let dev_addr = DevAddr(0x0001_0000 + number);
    let key = |kind: u8| AesKey((u128::from(number) << 8 | u128::from(kind)).to_be_bytes());
    let keys = Keys { nwk_s_key: key(1), app_s_key: key(2) };
    let add = DeviceAdd {
        dev_eui,
        dev_addr: Some(dev_addr),
        nwk_s_key: Some(keys.nwk_s_key),
        app_s_key: Some(keys.app_s_key),
        application: of.application.map(str::to_owned),
        webhook: Some(of.webhook.into()),
        ..DeviceAdd::default()
    };
    cluster.done(&Request::DeviceAdd(add)).await;
    let config = DeviceConfig {
        dev_eui,
        join_eui: Eui64(1),
        app_key: key(0),
        region: Region::by_name("eu868").unwrap(),
        dev_nonce: 0,
        data_rate: None,
        adr: false,
        seed: number.into(),
    };
    VirtualDevice::abp(config, dev_addr, keys)
}

/// What was sent so far.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Sent>>>);

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<Sent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether a gateway got a PUSH_ACK for every uplink that was sent before `moment`.
    pub fn acknowledged_until(&self, moment: Instant) -> bool {
        self.lock().iter().all(|sent| sent.at >= moment || sent.is_acked())
    }

    /// When the first PUSH_ACK came for anything that this gateway sent after `moment`; looks at uplinks from `from` on.
    pub fn first_ack(&self, gateway: Eui64, moment: Instant, from: usize) -> Option<Instant> {
        let sent = self.lock();
        let later = sent[from..].iter().filter(|sent| sent.at >= moment);
        let acks = later.filter_map(|sent| {
            let (_, acked) = sent.heard_by.iter().find(|(eui, _)| *eui == gateway)?;
            Some(sent.at + (*acked)?)
        });
        acks.min()
    }
}

/// Uplinks under way.
pub struct Load {
    pub log: Log,
    stop: CancellationToken,
    sender: tokio::task::JoinHandle<JoinSet<()>>,
}

impl Load {
    /// Lets the devices send in turn, `rate` uplinks a second together; every `confirmed`-th uplink is a confirmed one
    /// (0 for none).
    pub fn start(field: &Arc<Field>, rate: u32, confirmed: u32) -> Self {
        let (log, stop) = (Log::default(), CancellationToken::new());
        let sender = tokio::spawn(send(field.clone(), rate, confirmed, log.clone(), stop.clone()));
        Self { log, stop, sender }
    }

    /// Ends it, waits a little for what is still to come back, and tells all that was sent.
    pub async fn stop(self) -> Vec<Sent> {
        self.stop.cancel();
        let mut flights = self.sender.await.unwrap();
        let all = async { while flights.join_next().await.is_some() {} };
        // What is not acknowledged by then never will be.
        let _ = tokio::time::timeout(LAST_ACKS, all).await;
        self.log.lock().clone()
    }
}

async fn send(field: Arc<Field>, rate: u32, confirmed: u32, log: Log, stop: CancellationToken) -> JoinSet<()> {
    let mut flights = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut number = 0;
    while !stop.is_cancelled() {
        ticks.tick().await;
        let is_confirmed = confirmed > 0 && number % confirmed as usize == 0;
        let (field, log, which) = (field.clone(), log.clone(), number % field.devices.len());
        flights.spawn(async move { fly(&field, which, is_confirmed, &log).await });
        while flights.try_join_next().is_some() {}
        number += 1;
    }
    flights
}

/// One uplink, until all that comes back has come.
async fn fly(field: &Field, which: usize, confirmed: bool, log: &Log) {
    let (device, coverage) = (&field.devices[which], &field.coverage[which]);
    let (packet, f_cnt, dev_eui) = {
        let mut device = device.lock().unwrap();
        let f_cnt = device.session().unwrap().fcnt_up;
        let payload = f_cnt.to_be_bytes().to_vec();
        let uplink = Uplink { confirmed, fport: Some(10), payload, ..Uplink::default() };
        (device.uplink(&uplink).unwrap(), f_cnt, device.dev_eui())
    };
    let heard_by = coverage.iter().map(|copy| (field.gateways[copy.gateway], None)).collect();
    let at = Instant::now();
    let place = {
        let mut sent = log.lock();
        sent.push(Sent { uplink: (dev_eui, f_cnt), at, confirmed, heard_by, answered: None });
        sent.len() - 1
    };
    let mut flight = field.air.transmit(&packet, coverage).await.unwrap();
    let mut acks = JoinSet::new();
    for (copy, push) in std::mem::take(&mut flight.pushes).into_iter().enumerate() {
        let log = log.clone();
        acks.spawn(async move {
            if let Some(after) = push.acked(Duration::from_secs(60)).await {
                log.lock()[place].heard_by[copy].1 = Some(after);
            }
        });
    }
    if confirmed && answered(&mut flight, device).await {
        log.lock()[place].answered = Some(Instant::now());
    }
    drop(flight);
    while acks.join_next().await.is_some() {}
}

/// Whether the device hears an ACK in one of its windows.
async fn answered(flight: &mut Flight, device: &Mutex<VirtualDevice>) -> bool {
    while let Some(caught) = flight.next().await {
        if let Ok(Received::Data { ack: true, .. }) = device.lock().unwrap().receive(&caught.phy) {
            return true;
        }
    }
    false
}
