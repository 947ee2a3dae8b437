//! One transmission reaches several workers. Whatever the interleaving, there is one event, one downlink decision, one
//! session.

use std::{collections::BTreeSet, time::Duration};

use limpet_bench::{Coverage, GatewayConfig, Received, Transmission, Uplink, VirtualDevice};
use limpet_shared::Eui64;

use crate::{
    network::Network,
    site::{QUIET, Site},
    support::{eventually, ids_by_uplink},
};

const WORKERS: [&str; 3] = ["w1", "w2", "w3"];

async fn site(network: &Network, gateways: &[Eui64]) -> Site {
    Site::start(gateways.iter().map(|&eui| GatewayConfig::new(eui, network.gwmp)).collect()).await
}

/// Heard by three gateways, each with its delay in ms; by one of them best.
fn coverage(delays: [u64; 3], best: usize) -> Vec<Coverage> {
    let heard = |(gateway, delay): (usize, u64)| Coverage {
        gateway,
        rssi: -90,
        snr: if gateway == best { 8.0 } else { -2.0 },
        delay: Duration::from_millis(delay),
    };
    delays.into_iter().enumerate().map(heard).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_frame_at_three_workers_is_one_event_and_one_downlink() {
    let network = Network::cluster(&WORKERS).await;
    let gateways = network.gateway_of_each(&WORKERS);
    let mut site = site(&network, &gateways).await;
    let mut device = network.abp();
    // At once, one after the other in both orders, at the end of the window, and after the verdict.
    let all_delays = [[0, 0, 0], [0, 3, 7], [60, 30, 0], [0, 190, 190], [0, 0, 700], [0, 0, 0]];
    for (number, delays) in all_delays.into_iter().enumerate() {
        let uplink = Uplink { confirmed: true, fport: Some(7), payload: vec![number as u8; 9], ..Default::default() };
        let packet = device.uplink(&uplink).unwrap();
        let exchange = site.exchange(&mut device, &packet, &coverage(delays, number % 3)).await;
        let Received::Data { ack: true, fcnt, .. } = *exchange.only().1 else { panic!("no ACK: {exchange:?}") };
        assert_eq!(fcnt, number as u32, "each uplink has one downlink, so FCntDown goes up by one");
    }
    network.ups(all_delays.len()).await;
    tokio::time::sleep(QUIET).await;
    let ups = network.told("up");
    assert!(ids_by_uplink(&ups).values().all(|ids| ids.len() == 1), "one event each: {ups:#?}");
    let told: BTreeSet<_> = ups.iter().map(|up| up.f_cnt).collect();
    assert_eq!(told, (0..all_delays.len() as u64).collect());
    let most = ups.iter().map(|up| up.body["rxInfo"].as_array().unwrap().len()).max();
    assert_eq!(most, Some(3), "three gateways heard it: {ups:#?}");
    for name in WORKERS {
        let http = network.cluster.as_ref().unwrap().http(name);
        assert!(network.metric(http, "limpet_worker_frames_total").await > 0, "{name} had copies");
    }
    assert!(site.drain().is_empty(), "no downlink came afterwards");
}

/// The repetition is heard by the gateway of another worker than the first transmission.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_at_another_worker_has_another_ack_and_no_event() {
    let network = Network::cluster(&WORKERS[..2]).await;
    let gateways = network.gateway_of_each(&WORKERS[..2]);
    let mut site = site(&network, &gateways).await;
    let mut device = network.abp();
    let packet = device.uplink(&Uplink { confirmed: true, fport: Some(7), ..Default::default() }).unwrap();
    for number in 0..3 {
        let exchange = site.exchange(&mut device, &packet, &[Coverage::good(number % 2)]).await;
        let Received::Data { ack: true, fcnt, .. } = *exchange.only().1 else { panic!("no ACK: {exchange:?}") };
        assert_eq!(fcnt, number as u32, "another ACK has another FCntDown");
        // The device waits before it repeats.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(QUIET).await;
    let ups = network.told("up");
    assert_eq!(ids_by_uplink(&ups).len(), 1, "{ups:#?}");
    assert!(ids_by_uplink(&ups).values().all(|ids| ids.len() == 1), "one event: {ups:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_join_on_two_frequencies_at_two_workers_is_one_session() {
    let network = Network::cluster(&WORKERS[..2]).await;
    let gateways = network.gateway_of_each(&WORKERS[..2]);
    let mut site = site(&network, &gateways).await;
    // How much later the copy on the other frequency is reported, ms.
    let delays = [0, 0, 0, 20, 150, 450];
    let mut devices: Vec<_> = delays.iter().map(|_| network.otaa("1.0.3")).collect();
    let mut joining = Vec::new();
    for (number, device) in devices.iter_mut().enumerate() {
        joining.push(join_on_two_frequencies(&site, device, number, delays[number]));
    }
    at_once(joining).await;
    let downlinks = site.drain();
    let accepts: BTreeSet<_> = downlinks.iter().map(|downlink| &downlink.txpk.data).collect();
    let gateways: BTreeSet<_> = downlinks.iter().map(|downlink| (&downlink.txpk.data, downlink.gateway)).collect();
    let counts = (accepts.len(), gateways.len());
    assert_eq!(counts, (delays.len(), delays.len()), "one JoinAccept each, at one gateway: {downlinks:#?}");
    let joins =
        eventually("the join events", async || Some(network.told("join")).filter(|joins| joins.len() >= delays.len()))
            .await;
    for device in &devices {
        let dev_addr = device.session().expect("a session").dev_addr.to_string();
        let activation = network.api.activation(device.dev_eui()).await.expect("a session");
        assert_eq!(activation.dev_addr, dev_addr, "the server is in the session that the device is in");
        let eui = device.dev_eui().to_string();
        let told: Vec<_> = joins.iter().filter(|join| join.dev_eui == eui).map(|join| &join.body["devAddr"]).collect();
        assert_eq!(told, [&serde_json::json!(dev_addr)]);
    }
    use_sessions(&mut site, &mut devices).await;
    network.ups(delays.len()).await;
    assert_eq!(network.told("join").len(), delays.len(), "one join event each");
}

async fn join_on_two_frequencies(site: &Site, device: &mut VirtualDevice, number: usize, delay: u64) {
    // No two devices listen at the very same time.
    tokio::time::sleep(Duration::from_millis(20 * number as u64)).await;
    let packet = device.join().unwrap();
    let elsewhere = if packet.frequency == 868_100_000 { 868_300_000 } else { 868_100_000 };
    let mut copy: Transmission = packet.clone();
    copy.frequency = elsewhere;
    copy.windows[0].frequency = elsewhere;
    let late = Coverage { delay: Duration::from_millis(delay), ..Coverage::good(1) };
    let (first, second) = ([Coverage::good(0)], [late]);
    let flights = tokio::join!(site.transmit(&packet, &first), site.transmit(&copy, &second));
    let mut heard = BTreeSet::new();
    for mut flight in <[_; 2]>::from(flights) {
        while let Some(caught) = flight.next().await {
            heard.insert((caught.gateway, caught.phy));
        }
    }
    assert_eq!(heard.len(), 1, "one JoinAccept by one gateway, {delay} ms apart: {heard:?}");
    for (_, phy) in heard {
        assert_eq!(device.receive(&phy), Ok(Received::Joined));
    }
}

/// Waits for all of them at once.
async fn at_once<F: Future<Output = ()>>(all: Vec<F>) {
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

async fn use_sessions(site: &mut Site, devices: &mut [VirtualDevice]) {
    for device in devices {
        let packet = device.uplink(&Uplink { fport: Some(1), payload: vec![1], ..Default::default() }).unwrap();
        drop(site.transmit(&packet, &[Coverage::good(0), Coverage::good(1)]).await);
    }
}
