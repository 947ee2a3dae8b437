//! MAC commands, FPending, and what fits into a window.

use std::time::{Duration, SystemTime};

use limpet_bench::{GatewayConfig, Received, Refuse, Uplink, VirtualDevice};
use limpet_shared::{
    gwmp::TxError,
    lorawan::{
        DataSpec, Direction, FCtrl, build_data,
        mac::{DownlinkCommand, UplinkCommand},
    },
};

use crate::{
    network::Network,
    site::{QUIET, Site},
    support::eventually,
};

/// Seconds between 1970 and the GPS epoch, less the leap seconds since.
const GPS_EPOCH: u64 = 315_964_800 - 18;

async fn site(network: &Network) -> Site {
    Site::start(vec![GatewayConfig::new(network.gateway(), network.gwmp)]).await
}

fn unconfirmed() -> Uplink {
    Uplink { fport: Some(5), payload: b"up".to_vec(), ..Default::default() }
}

/// The GPS time now, in 1/256 s.
fn gps_now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    (since_1970 - Duration::from_secs(GPS_EPOCH)).as_millis() as u64 * 256 / 1000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_asks_for_link_and_time_is_answered() {
    let network = Network::up().await;
    let (mut site, mut device) = (site(&network).await, network.abp());
    let asked = vec![UplinkCommand::LinkCheckReq, UplinkCommand::DeviceTimeReq];
    let mut alone = Vec::new();
    asked.iter().for_each(|command| command.encode(&mut alone));
    let in_fopts = Uplink { commands: asked, ..unconfirmed() };
    let on_port_0 = Uplink { fport: Some(0), payload: alone, ..Default::default() };
    for uplink in [in_fopts, on_port_0] {
        let packet = device.uplink(&uplink).unwrap();
        let before = gps_now();
        let exchange = site.exchange_with_all(&mut device, &packet).await;
        let (_, Received::Data { ack: false, commands, fport: None, .. }) = exchange.only() else {
            panic!("an answer without an ACK: {exchange:?}")
        };
        let [
            DownlinkCommand::LinkCheckAns { margin, gateways },
            DownlinkCommand::DeviceTimeAns { gps_seconds, fraction },
        ] = commands[..]
        else {
            panic!("two answers: {commands:?}")
        };
        // Heard with 9.5 dB, and SF7 needs -7.5 dB.
        assert_eq!((margin, gateways), (17, 1));
        let told = u64::from(gps_seconds) * 256 + u64::from(fraction);
        assert!((before - 1..=gps_now() + 1).contains(&told), "the time of the uplink: {told}, sent at {before}");
    }
    network.ups(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_asks_for_any_answer_gets_one() {
    let network = Network::up().await;
    let (mut site, mut device) = (site(&network).await, network.abp());
    let mut packet = device.uplink(&unconfirmed()).unwrap();
    packet.phy = with_adr_ack_req(&device);
    let exchange = site.exchange_with_all(&mut device, &packet).await;
    let (_, received) = exchange.only();
    assert!(
        matches!(received, Received::Data { ack: false, fport: None, fcnt: 0, f_pending: false, .. }),
        "{received:?}"
    );
    network.ups(1).await;
}

/// The device's last uplink, with ADR and ADRACKReq set.
fn with_adr_ack_req(device: &VirtualDevice) -> Vec<u8> {
    let session = device.session().unwrap();
    let spec = DataSpec {
        direction: Direction::Up,
        confirmed: false,
        dev_addr: session.dev_addr,
        fctrl: FCtrl { adr: true, adr_ack_req: true, ..Default::default() },
        fcnt: session.fcnt_up - 1,
        fopts: &[],
        fport: Some(5),
        payload: b"up",
    };
    build_data(&spec, &session.keys).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f_pending_says_that_more_is_queued() {
    let network = Network::up().await;
    let (mut site, mut device) = (site(&network).await, network.abp());
    let mut ids = Vec::new();
    for number in 0..3 {
        let confirmed = number == 1;
        ids.push(network.api.enqueue_item(device.dev_eui(), 20 + number, &[number as u8], confirmed).await);
    }
    for number in 0..3 {
        let packet = device.uplink(&unconfirmed()).unwrap();
        let exchange = site.exchange_with_all(&mut device, &packet).await;
        let (_, Received::Data { confirmed, f_pending, fport, payload, .. }) = exchange.only() else {
            panic!("no downlink: {exchange:?}")
        };
        assert_eq!((*fport, payload.as_slice()), (Some(20 + number), &[number][..]), "in the order of the queue");
        assert_eq!((*f_pending, *confirmed), (number < 2, number == 1));
    }
    let packet = device.uplink(&unconfirmed()).unwrap();
    site.exchange_with_all(&mut device, &packet).await.none();
    let ack = eventually("the ack event", async || network.told("ack").first().cloned()).await;
    assert_eq!((&ack.body["queueItemId"], &ack.body["acknowledged"]), (&ids[1].clone().into(), &true.into()));
    eventually("three txack events", async || (network.told("txack").len() >= 3).then_some(())).await;
    let told: Vec<_> = network.told("txack").iter().map(|sent| sent.body["queueItemId"].clone()).collect();
    assert_eq!(told, ids, "each item is transmitted once, in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_too_long_for_the_data_rate_is_dropped_and_told() {
    let network = Network::up().await;
    let (mut site, mut device) = (site(&network).await, network.abp_at(Some(0)));
    // 51 bytes are what a frame of SF12 takes in EU868.
    let too_long = network.api.enqueue(device.dev_eui(), 3, &[0xee; 52]).await;
    let fits = network.api.enqueue(device.dev_eui(), 4, &[0xdd; 51]).await;
    let packet = device.uplink(&unconfirmed()).unwrap();
    let exchange = site.exchange_with_all(&mut device, &packet).await;
    let (_, received) = exchange.only();
    assert!(
        matches!(received, Received::Data { fport: Some(4), payload, f_pending: false, .. } if payload.len() == 51),
        "{received:?}"
    );
    let log = eventually("a log event", async || network.told("log").first().cloned()).await;
    assert_eq!((&log.body["code"], &log.body["level"]), (&"DOWNLINK_PAYLOAD_SIZE".into(), &"ERROR".into()));
    assert_eq!(log.body["context"]["queue_item_id"], too_long);
    let sent = eventually("the txack event", async || network.told("txack").first().cloned()).await;
    assert_eq!(sent.body["queueItemId"], fits);
    assert_eq!(network.api.queue_length(device.dev_eui()).await, 0);
    assert_eq!(network.told("log").len(), 1);
}

/// RX1 at SF7 takes it, RX2 at SF12 does not: it is not cut, and not sent there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_too_long_for_rx2_is_sent_in_rx1_only() {
    let network = Network::up().await;
    let (mut site, mut device) = (site(&network).await, network.abp_at(Some(5)));
    network.api.enqueue(device.dev_eui(), 3, &[0xee; 222]).await;
    site.gateways[0].refuse(Refuse::All(TxError::CollisionPacket));
    let packet = device.uplink(&unconfirmed()).unwrap();
    let refused = site.exchange_with_all(&mut device, &packet).await;
    assert_eq!((refused.heard.len(), refused.downlinks.len()), (0, 1), "{refused:#?}");
    site.gateways[0].refuse(Refuse::Nothing);
    let packet = device.uplink(&unconfirmed()).unwrap();
    let exchange = site.exchange_with_all(&mut device, &packet).await;
    let (window, received) = exchange.only();
    assert_eq!(window, 1);
    assert!(matches!(received, Received::Data { fport: Some(3), payload, .. } if payload.len() == 222));
    tokio::time::sleep(QUIET).await;
    assert_eq!(network.told("txack").len(), 1);
}
