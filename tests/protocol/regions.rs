//! Every band: devices join, and frames go both ways, in both windows.

use std::{fs, rc::Rc};

use limpet_bench::{Answer, GatewayConfig, Received, Refuse, Uplink, VirtualDevice};
use limpet_shared::{gwmp::TxError, lorawan::mac::DownlinkCommand, region::Region};
use tokio::task::LocalSet;

use crate::{network::Network, site::Site, support::eventually};

/// One configuration of each band that Limpet has, and the slowest data rate that a device of it begins with.
const BANDS: [(&str, u8); 15] = [
    ("eu868", 0),
    ("eu433", 0),
    ("ru864", 0),
    ("cn779", 0),
    ("as923", 2),
    ("as923_2", 2),
    ("as923_3", 2),
    ("as923_4", 2),
    ("in865", 0),
    ("kr920", 0),
    ("ism2400", 0),
    ("us915_1", 0),
    ("au915_1", 2),
    ("cn470_1", 0),
    ("cn470_11", 0),
];

async fn network(regions: &[&str]) -> Network {
    let names: Vec<_> = regions.iter().map(|name| format!("'{name}'")).collect();
    let settings = format!("region = [{}]\n", names.join(", "));
    Network::up_on(|data, _| {
        fs::create_dir_all(data).unwrap();
        fs::write(data.join("limpet.toml"), settings).unwrap();
    })
    .await
}

/// A gateway that hears this region, among others that share its frequencies.
async fn site(network: &Network, region: &str) -> Site {
    let gateway = network.gateway();
    network.api.tag_gateway(gateway, "region", region).await.unwrap();
    Site::start(vec![GatewayConfig::new(gateway, network.gwmp)]).await
}

async fn join(site: &mut Site, device: &mut VirtualDevice) {
    let packet = device.join().unwrap();
    let exchange = site.exchange_with_all(device, &packet).await;
    assert_eq!(exchange.only().1, &Received::Joined, "{packet:?}");
}

fn confirmed() -> Uplink {
    Uplink { confirmed: true, fport: Some(2), payload: b"up".to_vec(), ..Default::default() }
}

/// A confirmed uplink with an item in the queue; both come down, in RX1 or, if the gateway refuses that, in RX2.
async fn talk(network: &Network, site: &mut Site, device: &mut VirtualDevice, window: u8) -> Vec<DownlinkCommand> {
    let refuse = if window == 2 { Refuse::FirstWindow(TxError::CollisionPacket) } else { Refuse::Nothing };
    site.gateways[0].refuse(refuse);
    network.api.enqueue(device.dev_eui(), 10, b"down").await;
    let packet = device.uplink(&confirmed()).unwrap();
    let exchange = site.exchange_with_all(device, &packet).await;
    let (heard, received) = exchange.only();
    let Received::Data { ack: true, fport: Some(10), payload, commands, .. } = received else {
        panic!("an ACK and the item: {received:?}")
    };
    // On a busy machine RX2 may carry what RX1 could have.
    assert!(payload == b"down" && heard >= window, "RX{heard} instead of RX{window}: {exchange:#?}");
    commands.clone()
}

/// The device of LoRaWAN 1.0.3 joins, and talks at its fastest and its slowest data rate.
async fn join_and_talk(network: &Network, region: &'static str, slowest: u8) {
    let mut site = site(network, region).await;
    let mut told = Vec::new();
    for data_rate in [None, Some(slowest)] {
        let mut device = network.otaa_in(region, "1.0.3", data_rate);
        join(&mut site, &mut device).await;
        for window in [1, 2] {
            told.extend(talk(network, &mut site, &mut device, window).await);
        }
        let (eui, ups) = (device.dev_eui().to_string(), network.told("up"));
        assert!(ups.iter().filter(|up| up.dev_eui == eui).all(|up| up.body["regionConfigId"] == region), "{ups:#?}");
    }
    // Both devices were told the limits of the band once, if it knows any, and have their channels from the JoinAccept.
    let limits = |command: &&DownlinkCommand| matches!(command, DownlinkCommand::TxParamSetupReq { .. });
    let expected = if Region::by_name(region).unwrap().has_dwell_time() { 2 } else { 0 };
    assert_eq!((told.iter().filter(limits).count(), told.len()), (expected, expected), "{region}: {told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_join_and_talk_in_every_band() {
    let names = BANDS.map(|(name, _)| name);
    let network = Rc::new(network(&names).await);
    let here = LocalSet::new();
    let bands = BANDS.map(|(name, slowest)| {
        let network = Rc::clone(&network);
        here.spawn_local(async move { join_and_talk(&network, name, slowest).await })
    });
    here.await;
    for band in bands {
        band.await.unwrap();
    }
    network.ups(2 * 2 * BANDS.len()).await;
}

/// The limits of what a device was told hold, from when it has said so; and what is set later it is told later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_400_ms_hold_from_when_the_device_has_them() {
    let network = network(&["as923"]).await;
    let mut site = site(&network, "as923").await;
    let mut device = network.otaa_in("as923", "1.0.3", Some(5));
    join(&mut site, &mut device).await;
    let request = |uplink_dwell_time, downlink_dwell_time| {
        vec![DownlinkCommand::TxParamSetupReq { downlink_dwell_time, uplink_dwell_time, max_eirp: 5 }]
    };
    assert_eq!(talk(&network, &mut site, &mut device, 1).await, request(false, false), "none, as nothing is set");
    assert_eq!(talk(&network, &mut site, &mut device, 1).await, [], "it has said so");

    let limits = ["uplink_dwell_time_400ms=true", "downlink_dwell_time_400ms=true"];
    network.ctl(&[&["region", "set", "as923"], &limits[..]].concat());
    assert_eq!(talk(&network, &mut site, &mut device, 2).await, request(true, true));
    assert!(device.session().unwrap().downlink_limited);
    assert_eq!(talk(&network, &mut site, &mut device, 1).await, []);

    // SF10 takes 11 bytes under the limit, and 115 without: the longer item waits no longer than that is known.
    let mut slow = network.otaa_in("as923", "1.0.3", Some(2));
    join(&mut site, &mut slow).await;
    network.api.enqueue(slow.dev_eui(), 4, &[0xee; 12]).await;
    network.api.enqueue(slow.dev_eui(), 5, &[0xdd; 9]).await;
    let packet = slow.uplink(&confirmed()).unwrap();
    let exchange = site.exchange_with_all(&mut slow, &packet).await;
    let (_, received) = exchange.only();
    assert!(
        matches!(received, Received::Data { fport: Some(5), commands, .. } if *commands == request(true, true)),
        "{received:?}"
    );
    let log = eventually("a log event", async || network.told("log").first().cloned()).await;
    assert_eq!(log.body["code"], "DOWNLINK_PAYLOAD_SIZE");
}

/// A device that does not answer is asked with each downlink for some time, and answered where both kinds listen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_of_as923_that_says_nothing_of_limits_is_answered_where_it_listens_anyway() {
    let network = network(&["as923"]).await;
    let mut site = site(&network, "as923").await;
    let mut device = network.otaa_in("as923", "1.0.3", Some(0));
    join(&mut site, &mut device).await;
    // It keeps to no limit, whatever it is told.
    device.session_mut().unwrap().uplink_limited = false;
    let mut asked = 0;
    for _ in 0..5 {
        let packet = device.uplink(&confirmed()).unwrap();
        let exchange = site.exchange_with_all(&mut device, &packet).await;
        let (window, received) = exchange.only();
        let Received::Data { ack: true, commands, .. } = received else { panic!("an ACK: {received:?}") };
        // RX1 would be SF12 or SF10, by a limit that nobody knows of.
        assert_eq!(window, 2, "{exchange:#?}");
        assert!(exchange.downlinks.iter().all(|downlink| downlink.answer == Answer::Queued));
        asked += commands.len();
        device.forget_answers();
    }
    assert_eq!(asked, 5);
}
