//! Devices that send without pause, and what became of each uplink on the gateways' side.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use limpet_bench::{Air, Coverage, DeviceConfig, GatewayConfig, Uplink, VirtualDevice, VirtualGateway};
use limpet_shared::{AesKey, DevAddr, Eui64, lorawan::Keys, region::Region};
use tokio::task::JoinSet;

use super::Cluster;

/// An uplink: DevEUI as events write it, FCntUp.
pub type UplinkId = (String, u64);

/// Devices (ABP, so that they send at once), added to the network with their webhook.
pub fn abp_devices(cluster: &Cluster, count: u32, webhook: &str) -> Vec<VirtualDevice> {
    (1..=count).map(|number| abp_device(cluster, number, webhook)).collect()
}

fn abp_device(cluster: &Cluster, number: u32, webhook: &str) -> VirtualDevice {
    let dev_eui = Eui64(0x70b3_d57e_d000_0000 + u64::from(number));
    let dev_addr = DevAddr(0x0100_0000 + number);
    let keys = Keys { nwk_s_key: AesKey([number as u8; 16]), app_s_key: AesKey([0x5a; 16]) };
    cluster.ctl(
        &[
            &["device", "add", "--dev-eui", &dev_eui.to_string(), "--dev-addr", &dev_addr.to_string()][..],
            &["--nwk-s-key", &keys.nwk_s_key.to_hex(), "--app-s-key", &keys.app_s_key.to_hex(), "--webhook", webhook],
        ]
        .concat(),
    );
    let config = DeviceConfig {
        dev_eui,
        join_eui: Eui64(1),
        app_key: AesKey([0; 16]),
        region: Region::by_name("eu868").expect("a region"),
        dev_nonce: 0,
        data_rate: None,
        adr: false,
        seed: u64::from(number),
    };
    VirtualDevice::abp(config, dev_addr, keys)
}

/// Gateways on the air. All of them hear every device.
pub async fn air(cluster: &Cluster, gateways: &[Eui64]) -> Arc<Air> {
    let mut started = Vec::new();
    for &eui in gateways {
        let gateway = VirtualGateway::start(GatewayConfig::new(eui, cluster.gwmp)).await.unwrap();
        started.push(Arc::new(gateway));
    }
    Arc::new(Air::new(started))
}

/// Devices that send, until told to stop.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    /// Per uplink, how many gateways got a PUSH_ACK for it.
    acks: Arc<Mutex<BTreeMap<UplinkId, usize>>>,
    tasks: JoinSet<()>,
}

impl Traffic {
    /// Lets each device send every `period`, spread over it.
    pub fn start(air: &Arc<Air>, devices: Vec<VirtualDevice>, period: Duration) -> Self {
        let (stop, acks) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut tasks = JoinSet::new();
        let count = devices.len() as u32;
        for (number, device) in devices.into_iter().enumerate() {
            let offset = period * number as u32 / count;
            tasks.spawn(send(air.clone(), device, (offset, period), stop.clone(), Arc::clone(&acks)));
        }
        Self { stop, acks, tasks }
    }

    /// Stops, waits for the last PUSH_ACKs, and says for each uplink that was sent how many came.
    pub async fn stop(mut self) -> BTreeMap<UplinkId, usize> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.acks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn send(
    air: Arc<Air>,
    mut device: VirtualDevice,
    (offset, period): (Duration, Duration),
    stop: Arc<AtomicBool>,
    acks: Arc<Mutex<BTreeMap<UplinkId, usize>>>,
) {
    let coverage: Vec<Coverage> = (0..air.gateways().len()).map(Coverage::good).collect();
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + offset, period);
    let mut waiting = JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let f_cnt = device.session().map_or(0, |session| u64::from(session.fcnt_up));
        let uplink = Uplink { fport: Some(1), payload: f_cnt.to_be_bytes().to_vec(), ..Uplink::default() };
        let packet = device.uplink(&uplink).unwrap();
        let mut flight = air.transmit(&packet, &coverage).await.unwrap();
        let id = (device.dev_eui().to_string(), f_cnt);
        let (acks, pushes) = (acks.clone(), std::mem::take(&mut flight.pushes));
        waiting.spawn(async move {
            let mut acked = 0;
            for push in pushes {
                acked += usize::from(push.acked(Duration::from_secs(5)).await.is_some());
            }
            acks.lock().unwrap_or_else(PoisonError::into_inner).insert(id, acked);
        });
    }
    while let Some(ended) = waiting.join_next().await {
        ended.unwrap();
    }
}
