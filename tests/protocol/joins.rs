//! OTAA: which DevNonces make a session, and which sessions live on.

use limpet_bench::{Coverage, GatewayConfig, Received, Transmission, Uplink, VirtualDevice};
use limpet_shared::DevAddr;

use crate::{
    network::Network,
    site::{QUIET, Site},
    support::eventually,
};

struct Joining {
    network: Network,
    site: Site,
}

impl Joining {
    async fn start() -> Self {
        let network = Network::up().await;
        let site = Site::start(vec![GatewayConfig::new(network.gateway(), network.gwmp)]).await;
        Self { network, site }
    }

    /// Joins with this DevNonce: the new DevAddr if there is a JoinAccept.
    async fn join(&self, device: &mut VirtualDevice, dev_nonce: u16) -> Option<DevAddr> {
        let packet = device.join_with(dev_nonce).unwrap();
        self.join_by(device, &packet).await
    }

    async fn join_by(&self, device: &mut VirtualDevice, packet: &Transmission) -> Option<DevAddr> {
        let mut flight = self.site.transmit(packet, &[Coverage::good(0)]).await;
        let caught = flight.next().await?;
        assert_eq!(device.receive(&caught.phy), Ok(Received::Joined));
        let dev_addr = device.session().unwrap().dev_addr;
        let activation = self.network.api.activation(device.dev_eui()).await.unwrap();
        assert_eq!(activation.dev_addr, dev_addr.to_string());
        Some(dev_addr)
    }

    /// A confirmed uplink is acknowledged and told.
    async fn talk(&self, device: &mut VirtualDevice, told_before: usize) {
        let uplink = Uplink { confirmed: true, fport: Some(2), payload: vec![1, 2], ..Default::default() };
        let packet = device.uplink(&uplink).unwrap();
        let mut flight = self.site.transmit(&packet, &[Coverage::good(0)]).await;
        let caught = flight.next().await.expect("an ACK");
        let received = device.receive(&caught.phy).unwrap();
        assert!(matches!(received, Received::Data { ack: true, .. }), "{received:?}");
        let eui = device.dev_eui().to_string();
        eventually("the uplink", async || {
            let told = self.network.told("up").into_iter().filter(|up| up.dev_eui == eui).count();
            (told > told_before).then_some(())
        })
        .await;
    }

    async fn joins(&self, device: &VirtualDevice, count: usize) {
        let eui = device.dev_eui().to_string();
        let told = || self.network.told("join").into_iter().filter(|join| join.dev_eui == eui).count();
        eventually("the join events", async || (told() >= count).then_some(())).await;
        assert_eq!(told(), count, "one join event for each session");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_nonces_of_1_0_3_come_in_any_order_but_once() {
    let joining = Joining::start().await;
    let mut device = joining.network.otaa("1.0.3");
    let first = joining.join(&mut device, 100).await.expect("a new DevNonce");
    joining.talk(&mut device, 0).await;
    // Used: no JoinAccept, and the session goes on.
    assert_eq!(joining.join(&mut device, 100).await, None, "a used DevNonce");
    joining.talk(&mut device, 1).await;
    let second = joining.join(&mut device, 50).await.expect("a lower DevNonce is new as well");
    assert_ne!(first, second);
    joining.talk(&mut device, 2).await;
    assert_eq!(joining.join(&mut device, 100).await, None, "a DevNonce used two sessions ago");
    joining.talk(&mut device, 3).await;
    joining.joins(&device, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_nonces_of_1_0_4_ascend() {
    let joining = Joining::start().await;
    let mut device = joining.network.otaa("1.0.4");
    joining.join(&mut device, 10).await.expect("a first DevNonce");
    assert_eq!(joining.join(&mut device, 10).await, None, "a used DevNonce");
    assert_eq!(joining.join(&mut device, 9).await, None, "a lower DevNonce");
    joining.talk(&mut device, 0).await;
    joining.join(&mut device, 11).await.expect("a higher DevNonce");
    joining.talk(&mut device, 1).await;
    joining.joins(&device, 2).await;
}

/// The device did not hear the JoinAccept, and goes on in the session that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_accept_that_is_not_heard_does_not_end_the_session_before() {
    let joining = Joining::start().await;
    let mut device = joining.network.otaa("1.0.2");
    joining.join(&mut device, 1).await.expect("a first join");
    joining.talk(&mut device, 0).await;
    let packet = device.join_with(2).unwrap();
    let mut flight = joining.site.transmit(&packet, &[Coverage::good(0)]).await;
    let unheard = flight.next().await.expect("a JoinAccept");
    joining.talk(&mut device, 1).await;
    drop(unheard);
    joining.join(&mut device, 3).await.expect("the next join");
    joining.talk(&mut device, 2).await;
    joining.joins(&device, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_forgers_do_not_join() {
    let mut joining = Joining::start().await;
    let mut device = joining.network.otaa("1.0.3");
    let mut forged = device.join_with(7).unwrap();
    forged.phy[22] ^= 1;
    let mut strange = device.join_with(8).unwrap();
    strange.phy[9] ^= 1;
    for packet in [forged, strange] {
        drop(joining.site.transmit(&packet, &[Coverage::good(0)]).await);
    }
    // A DevNonce that only a forger has used is not used up.
    joining.join(&mut device, 7).await.expect("a new DevNonce");
    tokio::time::sleep(QUIET).await;
    assert_eq!(joining.site.drain().len(), 1, "one JoinAccept");
    joining.joins(&device, 1).await;
    for reason in ["bad_mic", "unknown_dev_eui"] {
        let series = format!("limpet_worker_dropped_total{{reason=\"{reason}\"}}");
        assert_eq!(joining.network.metric(joining.network.http, &series).await, 1, "{reason}");
    }
}
