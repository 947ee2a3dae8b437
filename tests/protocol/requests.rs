//! What the network asks of devices by MAC commands, when it is set or time for it.

use limpet_bench::{GatewayConfig, Received, Uplink, VirtualDevice};
use limpet_shared::{
    gwmp::Datr,
    lorawan::mac::{DownlinkCommand, UplinkCommand},
};

use crate::{
    network::Network,
    site::{QUIET, Site},
    support::eventually,
};

fn unconfirmed() -> Uplink {
    Uplink { fport: Some(5), payload: b"up".to_vec(), ..Default::default() }
}

async fn site(network: &Network) -> Site {
    Site::start(vec![GatewayConfig::new(network.gateway(), network.gwmp)]).await
}

/// An uplink, and the MAC commands of its downlink, which carries no item.
async fn commands(site: &mut Site, device: &mut VirtualDevice, uplink: &Uplink) -> Vec<DownlinkCommand> {
    let packet = device.uplink(uplink).unwrap();
    let exchange = site.exchange_with_all(device, &packet).await;
    let (_, Received::Data { commands, fport: None, .. }) = exchange.only() else { panic!("{exchange:#?}") };
    commands.clone()
}

async fn none(site: &mut Site, device: &mut VirtualDevice) {
    let packet = device.uplink(&unconfirmed()).unwrap();
    site.exchange_with_all(device, &packet).await.none();
}

/// Those with a session are asked for it, one that joins later is told by its JoinAccept, and what that has no room for afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_windows_reach_devices_without_a_join_and_none_misses_a_downlink() {
    let network = Network::up().await;
    let (mut site, mut abp, mut joined) = (site(&network).await, network.abp(), network.otaa("1.0.3"));
    let packet = joined.join().unwrap();
    site.exchange_with_all(&mut joined, &packet).await.only();
    none(&mut site, &mut joined).await;
    let confirmed = Uplink { confirmed: true, ..unconfirmed() };
    network.ctl(&["region", "set", "eu868", "rx1_delay=3", "rx1_dr_offset=1", "rx2_dr=3", "rx2_frequency=868525000"]);
    let wanted = [
        DownlinkCommand::RxParamSetupReq { rx1_dr_offset: 1, rx2_data_rate: 3, frequency_hz: 868_525_000 },
        DownlinkCommand::RxTimingSetupReq { delay: 3 },
    ];
    for device in [&mut abp, &mut joined] {
        assert_eq!(
            commands(&mut site, device, &unconfirmed()).await,
            wanted,
            "a change is reason enough for a downlink"
        );
        // The device hears it, for it listens where it was told: after three seconds.
        assert_eq!(commands(&mut site, device, &confirmed).await, [], "and the answer is for another one");
        let session = device.session().unwrap();
        let windows =
            (session.rx1_delay.as_secs(), session.rx1_dr_offset, session.rx2_data_rate, session.rx2_frequency);
        assert_eq!(windows, (3, 1, 3, 868_525_000));
        // RX1 is refused, so that it is RX2 that is heard.
        site.gateways[0].refuse(limpet_bench::Refuse::FirstWindow(limpet_shared::gwmp::TxError::CollisionPacket));
        let packet = device.uplink(&confirmed).unwrap();
        let exchange = site.exchange_with_all(device, &packet).await;
        assert_eq!(exchange.only().0, 2);
        let sent = exchange.downlinks.last().unwrap();
        let rx2 = Datr::Lora { spreading_factor: 9, bandwidth_khz: 125 };
        assert_eq!((sent.txpk.freq, sent.txpk.datr), (868_525_000, rx2));
        site.gateways[0].refuse(limpet_bench::Refuse::Nothing);
        assert_eq!(commands(&mut site, device, &confirmed).await, [], "wherever it is heard on a busy machine");
    }
    let mut late = network.otaa("1.0.4");
    let packet = late.join().unwrap();
    site.exchange_with_all(&mut late, &packet).await.only();
    assert_eq!((late.session().unwrap().rx1_delay.as_secs(), late.session().unwrap().rx2_data_rate), (3, 3));
    assert_eq!(commands(&mut site, &mut late, &unconfirmed()).await, wanted[..1], "a JoinAccept tells no frequency");
    network.ups(10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_asked_for_its_status_and_its_answer_is_told() {
    let network = Network::up().await;
    let (mut site, mut device) = (site(&network).await, network.abp());
    assert!(network.api.device(device.dev_eui()).await.device_status.is_none());
    network.api.change_profile(device.dev_eui(), |profile| profile.device_status_req_interval = 1).await;
    assert_eq!(commands(&mut site, &mut device, &unconfirmed()).await, [DownlinkCommand::DevStatusReq]);
    none(&mut site, &mut device).await;
    let told = eventually("the status event", async || network.told("status").first().cloned()).await;
    let body = &told.body;
    assert_eq!((&body["margin"], &body["deviceInfo"]["devEui"]), (&10.into(), &device.dev_eui().to_string().into()));
    assert!((body["batteryLevel"].as_f64().unwrap() - 200.0 / 254.0 * 100.0).abs() < 0.001, "{body}");
    let status =
        eventually("the status over the API", async || network.api.device(device.dev_eui()).await.device_status).await;
    assert_eq!((status.margin, status.external_power_source), (10, false));
    assert!((status.battery_level - 78.74).abs() < 0.01, "{status:?}");
    none(&mut site, &mut device).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(network.told("status").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_channels_reach_a_device_and_leave_its_default_ones_alone() {
    let network = Network::up().await;
    let (mut site, mut device) = (site(&network).await, network.otaa("1.0.3"));
    let packet = device.join().unwrap();
    site.exchange_with_all(&mut device, &packet).await.only();
    network.ctl(&["region", "set", "eu868", "extra_channels=867100000,864300000,867500000,867700000"]);
    let asked = commands(&mut site, &mut device, &unconfirmed()).await;
    let channel = |index, frequency_hz| DownlinkCommand::NewChannelReq {
        index,
        frequency_hz,
        min_data_rate: 0,
        max_data_rate: 5,
    };
    assert_eq!(asked, [channel(4, 864_300_000), channel(7, 0)], "of the five that it had");
    none(&mut site, &mut device).await;
    none(&mut site, &mut device).await;
    network.ups(3).await;
}

/// What a device asks for and what follows is not read, for nobody knows its length; the frame is one all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_command_ends_the_list_and_not_the_frame() {
    let network = Network::up().await;
    let (mut site, mut device) = (site(&network).await, network.abp());
    let mut payload = Vec::new();
    UplinkCommand::LinkCheckReq.encode(&mut payload);
    payload.extend([0x80, 0x02]);
    let on_port_0 = Uplink { fport: Some(0), payload, ..Default::default() };
    let answers = commands(&mut site, &mut device, &on_port_0).await;
    assert!(matches!(answers[..], [DownlinkCommand::LinkCheckAns { .. }]), "{answers:?}");
    let unknown_first = Uplink { fport: Some(0), payload: vec![0x80, 0x02], ..Default::default() };
    let packet = device.uplink(&unknown_first).unwrap();
    site.exchange_with_all(&mut device, &packet).await.none();
    network.ups(2).await;
}

/// Two places for MAC commands in one frame are none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fopts_together_with_port_0_are_no_frame() {
    let network = Network::up().await;
    let (mut site, mut device) = (site(&network).await, network.abp());
    let asks = Uplink { commands: vec![UplinkCommand::LinkCheckReq], ..unconfirmed() };
    let mut packet = device.uplink(&asks).unwrap();
    // Behind MHDR, DevAddr, FCtrl, FCnt and one byte of FOpts.
    assert_eq!(std::mem::replace(&mut packet.phy[9], 0), 5);
    site.exchange_with_all(&mut device, &packet).await.none();
    let dropped = "limpet_worker_dropped_total{reason=\"fopts_with_port0\"}";
    assert_eq!(network.metric(network.http, dropped).await, 1);
    let packet = device.uplink(&unconfirmed()).unwrap();
    site.exchange_with_all(&mut device, &packet).await.none();
    assert_eq!(network.ups(1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_lets_the_network_choose_is_made_faster_and_then_left_alone() {
    let network = Network::up().await;
    let (mut site, mut device) = (site(&network).await, network.abp_with_adr(0));
    let asked = commands(&mut site, &mut device, &unconfirmed()).await;
    // Heard with 9.5 dB, and SF12 needs -20 dB.
    let [DownlinkCommand::LinkAdrReq { data_rate: 5, tx_power: 1, nb_trans: 1, .. }] = asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!(device.data_rate(), 5);
    let mut told = 0;
    for _ in 0..12 {
        let packet = device.uplink(&unconfirmed()).unwrap();
        assert_eq!(packet.data_rate, 5);
        told += site.exchange_with_all(&mut device, &packet).await.heard.len();
    }
    // Its signal is as strong with any power, so that it is made quieter until it can do no more.
    assert!((1..=4).contains(&told), "{told} downlinks");
}
