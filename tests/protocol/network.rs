//! A network to test against: `limpet up`, or a balancer with workers, with a webhook and devices.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use limpet_bench::{DeviceConfig, VirtualDevice};
use limpet_shared::{AesKey, DevAddr, Eui64, lorawan::Keys, region::Region};
use serde_json::Value;

use crate::{
    api::{Api, PASSWORD},
    support::{Cluster, Event, Limpet, Webhook, ctl, eventually, free_addresses},
};

/// `limpet up` that listens for gateways, workers, operators and users there, until it is ready.
async fn start([gwmp, link, admin, http]: [SocketAddr; 4], data: &Path, store: Option<&str>) -> Limpet {
    let listen = [gwmp, link, admin, http].map(|address| address.to_string());
    let store: Vec<_> = store.into_iter().flat_map(|store| ["--store", store]).collect();
    let arguments = [
        &["up", "--data", data.to_str().unwrap(), "--gwmp", &listen[0], "--link", &listen[1]][..],
        &["--admin", &listen[2], "--http", &listen[3], "--admin-password", PASSWORD],
        &store,
    ];
    let mut up = Limpet::start("up", &arguments.concat());
    up.ready(http).await;
    up.ready(admin).await;
    up
}

/// Whom `ctl` talks to, and where gateways send to.
pub struct Network {
    pub gwmp: SocketAddr,
    /// The balancer's pages.
    pub admin: SocketAddr,
    /// The pages and the API of one worker.
    pub http: SocketAddr,
    pub api: Api,
    pub webhook: Webhook,
    pub cluster: Option<Cluster>,
    pub data: PathBuf,
    numbers: AtomicU32,
    // The process is gone before its folder.
    up: Option<Limpet>,
    /// Where `limpet up` listens for workers.
    link: Option<SocketAddr>,
    _folder: Option<tempfile::TempDir>,
}

impl Network {
    /// `limpet up` in EU868.
    pub async fn up() -> Self {
        Self::up_on(|_, _| {}).await
    }

    /// The same on what is put into its folder before it starts; the webhook is there already.
    pub async fn up_on(put: impl FnOnce(&Path, &Webhook)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [gwmp, link, admin, http] = free_addresses();
        let data = folder.path().join("data");
        let webhook = Webhook::start().await;
        put(&data, &webhook);
        let up = start([gwmp, link, admin, http], &data, None).await;
        let api = Api::log_in(http).await;
        Self {
            gwmp,
            admin,
            http,
            api,
            webhook,
            cluster: None,
            data,
            numbers: AtomicU32::new(1),
            up: Some(up),
            link: Some(link),
            _folder: Some(folder),
        }
    }

    /// The folder of `limpet up`; its store is in there.
    pub fn folder(&self) -> &Path {
        &self.data
    }

    /// Ends `limpet up`.
    pub async fn stop(&mut self) {
        let up = self.up.take().expect("limpet up runs");
        up.terminate();
        assert!(up.stopped().await.status.success());
    }

    /// Starts `limpet up` again where it was, on this store.
    pub async fn start_on(&mut self, store: &str) {
        let link = self.link.expect("a limpet up");
        self.up = Some(start([self.gwmp, link, self.admin, self.http], &self.data, Some(store)).await);
    }

    /// A balancer and workers of these names, which have their whole share of the ring.
    pub async fn cluster(names: &[&str]) -> Self {
        Self::around(Cluster::start(names).await, names).await
    }

    /// The same with two balancers, both of which every worker has a link to.
    pub async fn with_two_balancers(names: &[&str]) -> Self {
        Self::around(Cluster::start_with_two_balancers(names).await, names).await
    }

    /// Where gateways send to, at the first and at the second balancer.
    pub fn balancers(&self) -> [SocketAddr; 2] {
        [self.gwmp, self.cluster.as_ref().and_then(Cluster::second_gwmp).expect("a second balancer")]
    }

    async fn around(cluster: Cluster, names: &[&str]) -> Self {
        eventually("each worker's whole share of the ring", async || {
            let ring = cluster.ctl(&["ring"]);
            let workers = ring["workers"].as_array()?;
            let whole = workers.len() == names.len() && workers.iter().all(|worker| worker["weight"] == 100);
            whole.then_some(())
        })
        .await;
        let http = cluster.http(names[0]);
        Self {
            gwmp: cluster.gwmp,
            admin: cluster.admin,
            http,
            api: Api::log_in(http).await,
            webhook: Webhook::start().await,
            data: cluster.data(),
            cluster: Some(cluster),
            numbers: AtomicU32::new(1),
            up: None,
            link: None,
            _folder: None,
        }
    }

    pub fn cluster_mut(&mut self) -> &mut Cluster {
        self.cluster.as_mut().expect("a cluster")
    }

    /// The answer of `limpet ctl`, which must succeed.
    pub fn ctl(&self, arguments: &[&str]) -> Value {
        let output = ctl(&self.data, &[&["--json"], arguments].concat());
        assert!(output.status.success(), "limpet ctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// A gateway that the network knows.
    pub fn gateway(&self) -> Eui64 {
        let eui = Eui64(0x0250_0000_0000_0000 + u64::from(self.number()));
        self.ctl(&["gateway", "add", &eui.to_string()]);
        eui
    }

    /// One gateway of each of these workers, which the network knows.
    pub fn gateway_of_each(&self, names: &[&str]) -> Vec<Eui64> {
        let share: Vec<_> = names.iter().map(|name| (*name, 1)).collect();
        let cluster = self.cluster.as_ref().expect("a cluster");
        let gateways = cluster.gateways(&share);
        for (eui, name) in gateways.iter().zip(names) {
            assert_eq!(cluster.worker_of(*eui), *name, "gateway {eui}");
        }
        gateways
    }

    /// What a device is born with.
    pub fn config(number: u32) -> DeviceConfig {
        DeviceConfig {
            dev_eui: Eui64(0x70b3_d57e_d000_0000 + u64::from(number)),
            join_eui: Eui64(0x70b3_d57e_d0ff_ffff),
            app_key: AesKey([number as u8; 16]),
            region: Region::by_name("eu868").unwrap(),
            dev_nonce: 1,
            data_rate: None,
            adr: false,
            seed: u64::from(number),
        }
    }

    fn add_device(&self, dev_eui: Eui64, keys: &[&str]) {
        let (eui, webhook) = (dev_eui.to_string(), self.webhook.url());
        self.ctl(&[&["device", "add", "--dev-eui", &eui, "--webhook", &webhook][..], keys].concat());
    }

    /// A device of LoRaWAN 1.0.3 with a session by ABP, at the fastest data rate.
    pub fn abp(&self) -> VirtualDevice {
        self.abp_at(None)
    }

    /// The same, at one data rate.
    pub fn abp_at(&self, data_rate: Option<u8>) -> VirtualDevice {
        let number = self.number();
        let config = DeviceConfig { data_rate, ..Self::config(number) };
        self.activated(config, DevAddr(0x0100_0000 + number))
    }

    /// The same, that lets the network choose its data rate from then on.
    pub fn abp_with_adr(&self, data_rate: u8) -> VirtualDevice {
        let number = self.number();
        let config = DeviceConfig { data_rate: Some(data_rate), adr: true, ..Self::config(number) };
        self.activated(config, DevAddr(0x0100_0000 + number))
    }

    /// Another device with the address of this one.
    pub fn abp_beside(&self, other: &VirtualDevice) -> VirtualDevice {
        self.activated(Self::config(self.number()), other.session().unwrap().dev_addr)
    }

    fn activated(&self, config: DeviceConfig, dev_addr: DevAddr) -> VirtualDevice {
        let number = config.seed;
        let keys = Keys { nwk_s_key: AesKey([number as u8; 16]), app_s_key: AesKey([0x5a; 16]) };
        let [nwk_s_key, app_s_key] = [keys.nwk_s_key, keys.app_s_key].map(|key| key.to_hex());
        let dev_addr_text = dev_addr.to_string();
        let arguments = ["--dev-addr", &dev_addr_text, "--nwk-s-key", &nwk_s_key, "--app-s-key", &app_s_key];
        self.add_device(config.dev_eui, &arguments);
        VirtualDevice::abp(config, dev_addr, keys)
    }

    /// A device that has to join, of this LoRaWAN version.
    pub fn otaa(&self, version: &str) -> VirtualDevice {
        self.otaa_in("eu868", version, None)
    }

    /// The same in a region that the network has, at one data rate.
    pub fn otaa_in(&self, region: &str, version: &str, data_rate: Option<u8>) -> VirtualDevice {
        let region = Region::by_name(region).unwrap();
        let config = DeviceConfig { region, data_rate, ..Self::config(self.number()) };
        let (app_key, join_eui) = (config.app_key.to_hex(), config.join_eui.to_string());
        let born = ["--app-key", &app_key, "--join-eui", &join_eui, "--mac-version", version];
        self.add_device(config.dev_eui, &[&born[..], &["--region", region.name()]].concat());
        VirtualDevice::otaa(config)
    }

    /// The events of one kind. Delivery is at least once: one that came again, with the same content, is one event.
    pub fn told(&self, kind: &str) -> Vec<Event> {
        let mut told: Vec<Event> = Vec::new();
        for event in self.webhook.of(kind) {
            if told.iter().all(|before| before.body != event.body) {
                told.push(event);
            }
        }
        told
    }

    /// Waits until there are that many `up` events.
    pub async fn ups(&self, count: usize) -> Vec<Event> {
        eventually(&format!("{count} uplinks to be told"), async || {
            Some(self.told("up")).filter(|ups| ups.len() >= count)
        })
        .await
    }

    /// The metrics of a role, as text.
    pub async fn metrics(&self, of: SocketAddr) -> String {
        reqwest::get(format!("http://{of}/metrics")).await.unwrap().text().await.unwrap()
    }

    /// The value of one series, such as `limpet_worker_rxpk_total`, or 0 if there is none.
    pub async fn metric(&self, of: SocketAddr, series: &str) -> u64 {
        let text = self.metrics(of).await;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }
}
