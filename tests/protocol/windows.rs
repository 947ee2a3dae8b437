//! Receive windows, and what is sent in them again.

use std::time::Duration;

use limpet_bench::{Answer, GatewayConfig, Received, Refuse, Uplink, VirtualDevice};
use limpet_shared::gwmp::{Datr, TxError};

use crate::{
    network::Network,
    site::{QUIET, Site},
    support::eventually,
};

const RX2: (u32, Datr) = (869_525_000, Datr::Lora { spreading_factor: 12, bandwidth_khz: 125 });

/// How long a device waits after its windows before it repeats.
const ACK_TIMEOUT: Duration = Duration::from_secs(1);

async fn start() -> (Network, Site, VirtualDevice) {
    let network = Network::up().await;
    let site = Site::start(vec![GatewayConfig::new(network.gateway(), network.gwmp)]).await;
    let device = network.abp();
    (network, site, device)
}

fn confirmed() -> Uplink {
    Uplink { confirmed: true, fport: Some(5), payload: b"up".to_vec(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmed_uplink_repeated_unchanged_is_acknowledged_again_and_told_once() {
    let (network, mut site, mut device) = start().await;
    let packet = device.uplink(&confirmed()).unwrap();
    // Unchanged: the same bytes, frequency and data rate, as a stack does that missed the ACK.
    for number in 0..3 {
        if number > 0 {
            tokio::time::sleep(ACK_TIMEOUT).await;
        }
        let exchange = site.exchange_with_all(&mut device, &packet).await;
        let Received::Data { ack: true, fcnt, .. } = *exchange.only().1 else { panic!("no ACK: {exchange:?}") };
        assert_eq!(fcnt, number, "each ACK has its own FCntDown");
    }
    // The next one is a new one.
    let packet = device.uplink(&confirmed()).unwrap();
    site.exchange_with_all(&mut device, &packet).await.only();
    network.ups(2).await;
    tokio::time::sleep(QUIET).await;
    let ups = network.told("up");
    assert_eq!(ups.iter().map(|up| up.f_cnt).collect::<Vec<_>>(), [0, 1], "{ups:#?}");
}

/// An unconfirmed one repeated (NbTrans) is told once and has no answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unconfirmed_uplink_repeated_is_told_once() {
    let (network, mut site, mut device) = start().await;
    let packet = device.uplink(&Uplink { confirmed: false, ..confirmed() }).unwrap();
    for _ in 0..2 {
        site.exchange_with_all(&mut device, &packet).await.none();
    }
    let elsewhere = device.repeat_elsewhere().unwrap();
    site.exchange_with_all(&mut device, &elsewhere).await.none();
    assert_eq!(network.told("up").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_downlink_refused_in_rx1_goes_out_in_rx2_with_the_same_bytes() {
    let (network, mut site, mut device) = start().await;
    for (number, error) in
        [TxError::CollisionPacket, TxError::TooLate, TxError::CollisionBeacon].into_iter().enumerate()
    {
        site.gateways[0].refuse(Refuse::FirstWindow(error.clone()));
        let id = network.api.enqueue(device.dev_eui(), 8, &[number as u8; 20]).await;
        let packet = device.uplink(&confirmed()).unwrap();
        let exchange = site.exchange_with_all(&mut device, &packet).await;
        let [first, second] = &exchange.downlinks[..] else { panic!("two PULL_RESPs: {exchange:#?}") };
        assert_eq!((&first.answer, &second.answer), (&Answer::Refused(error), &Answer::Queued));
        assert_eq!((first.txpk.freq, first.txpk.datr), (packet.frequency, packet.datr), "RX1");
        assert_eq!((second.txpk.freq, second.txpk.datr), RX2, "RX2");
        assert_eq!(second.txpk.data, first.txpk.data, "the same bytes");
        assert_eq!(second.txpk.tmst, first.txpk.tmst.map(|tmst| tmst.wrapping_add(1_000_000)));
        let (window, received) = exchange.only();
        assert_eq!(window, 2);
        let fcnt_down = number as u32;
        assert!(
            matches!(received, Received::Data { ack: true, fcnt, fport: Some(8), .. } if *fcnt == fcnt_down),
            "{received:?}"
        );
        let sent = eventually("the txack event", async || network.told("txack").get(number).cloned()).await;
        assert_eq!((&sent.body["queueItemId"], &sent.body["txInfo"]["frequency"]), (&id.into(), &RX2.0.into()));
    }
    assert_eq!(network.api.queue_length(device.dev_eui()).await, 0);
    assert_eq!(network.told("up").len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_downlink_refused_in_both_windows_is_offered_again_under_another_counter() {
    let (network, mut site, mut device) = start().await;
    let id = network.api.enqueue(device.dev_eui(), 8, b"down").await;
    site.gateways[0].refuse(Refuse::All(TxError::CollisionPacket));
    let packet = device.uplink(&confirmed()).unwrap();
    let refused = site.exchange_with_all(&mut device, &packet).await;
    assert_eq!((refused.heard.len(), refused.downlinks.len()), (0, 2), "{refused:#?}");
    let told = eventually("a log event", async || network.told("log").first().cloned()).await;
    assert_eq!((&told.body["code"], &told.body["level"]), (&"DOWNLINK_GATEWAY".into(), &"ERROR".into()));
    assert_eq!(network.api.queue_length(device.dev_eui()).await, 1);

    site.gateways[0].refuse(Refuse::Nothing);
    let packet = device.uplink(&confirmed()).unwrap();
    let exchange = site.exchange_with_all(&mut device, &packet).await;
    let (_, received) = exchange.only();
    assert!(
        matches!(received, Received::Data { fcnt: 1, fport: Some(8), payload, .. } if payload == b"down"),
        "other bytes, so another FCntDown: {received:?}"
    );
    let sent = eventually("the txack event", async || network.told("txack").first().cloned()).await;
    assert_eq!(sent.body["queueItemId"], id);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(network.told("txack").len(), 1);
}
