//! Frame counters: 32 bits of which 16 are on air, replays, forgeries.

use std::time::Duration;

use limpet_bench::{GatewayConfig, Received, Uplink, VirtualDevice};

use crate::{
    network::Network,
    site::{QUIET, Site},
    support::eventually,
};

async fn start() -> (Network, Site, VirtualDevice) {
    let network = Network::up().await;
    let site = Site::start(vec![GatewayConfig::new(network.gateway(), network.gwmp)]).await;
    let device = network.abp();
    (network, site, device)
}

fn uplink(confirmed: bool) -> Uplink {
    Uplink { confirmed, fport: Some(5), payload: b"up".to_vec(), ..Default::default() }
}

async fn dropped(network: &Network, reason: &str) -> u64 {
    network.metric(network.http, &format!("limpet_worker_dropped_total{{reason=\"{reason}\"}}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_go_on_where_sixteen_bits_end() {
    let (network, mut site, mut device) = start().await;
    let session = device.session_mut().unwrap();
    (session.fcnt_up, session.next_fcnt_down) = (0xfffe, 0x1_ffff);
    network.api.activate(&device).await;
    let fcnts = [0xfffe, 0xffff, 0x1_0000, 0x1_0001];
    for (number, fcnt_up) in fcnts.into_iter().enumerate() {
        assert_eq!(device.session().unwrap().fcnt_up, fcnt_up);
        let packet = device.uplink(&uplink(true)).unwrap();
        let exchange = site.exchange_with_all(&mut device, &packet).await;
        // The device checks the MIC, which covers all 32 bits.
        let Received::Data { ack: true, fcnt, .. } = *exchange.only().1 else { panic!("no ACK: {exchange:?}") };
        assert_eq!(fcnt, 0x1_ffff + number as u32);
    }
    let ups = network.ups(fcnts.len()).await;
    assert_eq!(ups.iter().map(|up| up.f_cnt).collect::<Vec<_>>(), fcnts.map(u64::from));
    let activation = network.api.activation(device.dev_eui()).await.unwrap();
    assert_eq!((activation.f_cnt_up, activation.n_f_cnt_down), (0x1_0002, 0x2_0003));
}

/// Nobody heard it for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_crossed_also_over_the_end_of_sixteen_bits() {
    let (network, mut site, mut device) = start().await;
    let fcnts = [0, 10_000, 40_000, 0x1_0005, 0x1_0006];
    for fcnt_up in fcnts {
        device.session_mut().unwrap().fcnt_up = fcnt_up;
        let packet = device.uplink(&uplink(false)).unwrap();
        site.exchange_with_all(&mut device, &packet).await.none();
    }
    let ups = network.ups(fcnts.len()).await;
    assert_eq!(ups.iter().map(|up| up.f_cnt).collect::<Vec<_>>(), fcnts.map(u64::from));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replays_and_forgeries_have_no_event_and_no_answer() {
    let (network, mut site, mut device) = start().await;
    let mut packets = Vec::new();
    for _ in 0..3 {
        let packet = device.uplink(&uplink(false)).unwrap();
        drop(site.transmit(&packet, &[limpet_bench::Coverage::good(0)]).await);
        network.ups(packets.len() + 1).await;
        packets.push(packet);
    }
    // Confirmed frames would be answered if they were taken.
    let confirmed = device.uplink(&uplink(true)).unwrap();
    site.exchange_with_all(&mut device, &confirmed).await.only();
    network.ups(4).await;
    let last = device.uplink(&uplink(false)).unwrap();
    site.exchange_with_all(&mut device, &last).await.none();
    network.ups(5).await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    packets.push(confirmed.clone());
    for packet in &packets {
        site.exchange_with_all(&mut device, packet).await.none();
    }
    eventually("the replays to be counted", async || (dropped(&network, "replay").await == 4).then_some(())).await;

    let mut forged = device.uplink(&uplink(true)).unwrap();
    *forged.phy.last_mut().unwrap() ^= 1;
    site.exchange_with_all(&mut device, &forged).await.none();
    assert_eq!(dropped(&network, "bad_mic").await, 1);
    // Another device's address.
    let mut strange = forged.clone();
    strange.phy[1] ^= 0x80;
    site.exchange_with_all(&mut device, &strange).await.none();
    assert_eq!(dropped(&network, "unknown_dev_addr").await, 1);
    tokio::time::sleep(QUIET).await;
    assert_eq!(network.told("up").len(), 5);
    // The session has not suffered.
    device.session_mut().unwrap().fcnt_up -= 1;
    let good = device.uplink(&uplink(true)).unwrap();
    site.exchange_with_all(&mut device, &good).await.only();
    network.ups(6).await;
}

/// The MIC tells them apart, and each has its own counters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_of_one_address_are_two_devices() {
    let (network, mut site, mut device) = start().await;
    let mut other = network.abp_beside(&device);
    for number in 0..2 {
        for device in [&mut device, &mut other] {
            let packet = device.uplink(&uplink(true)).unwrap();
            let exchange = site.exchange_with_all(device, &packet).await;
            let Received::Data { ack: true, fcnt, .. } = *exchange.only().1 else { panic!("no ACK: {exchange:?}") };
            assert_eq!(fcnt, number);
        }
    }
    let ups = network.ups(4).await;
    for device in [&device, &other] {
        let eui = device.dev_eui().to_string();
        let told: Vec<_> = ups.iter().filter(|up| up.dev_eui == eui).map(|up| up.f_cnt).collect();
        assert_eq!(told, [0, 1], "{eui}");
    }
}

/// Activated anew, a device starts at 0 again, and what it sent before is worth nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activation_begins_new_counters() {
    let (network, mut site, mut device) = start().await;
    let before = device.uplink(&uplink(true)).unwrap();
    site.exchange_with_all(&mut device, &before).await.only();
    let session = device.session_mut().unwrap();
    (session.fcnt_up, session.next_fcnt_down) = (0, 0);
    // Both keys: the counter of one that was used before goes on.
    session.keys.nwk_s_key.0[0] ^= 1;
    session.keys.app_s_key.0[0] ^= 1;
    network.api.activate(&device).await;
    let packet = device.uplink(&uplink(true)).unwrap();
    let exchange = site.exchange_with_all(&mut device, &packet).await;
    let Received::Data { ack: true, fcnt: 0, .. } = *exchange.only().1 else { panic!("no ACK: {exchange:?}") };
    let ups = network.ups(2).await;
    assert_eq!(ups.iter().map(|up| up.f_cnt).collect::<Vec<_>>(), [0, 0]);
    assert_ne!(ups[0].id, ups[1].id, "another session, another event");
    site.exchange_with_all(&mut device, &before).await.none();
    assert_eq!(network.told("up").len(), 2);
}
