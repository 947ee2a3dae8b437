//! Devices behind gateways, against a small network server that the test plays itself.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use limpet_bench::{
    Air, Coverage, DeviceConfig, GatewayConfig, ReceiveError, Received, Refuse, Uplink, VirtualDevice, VirtualGateway,
    simulate::{self, Identities, Pace, SimulateConfig},
};
use limpet_shared::{
    AesKey, DevAddr, Eui64,
    gwmp::{
        Datr, Rxpk, TxAckResult, TxError, Txpk, UpKind, parse_push_data, parse_tx_ack, parse_upstream, pull_ack,
        pull_resp, push_ack,
    },
    lorawan::{
        DataSpec, Direction, FCtrl, Frame, JoinAccept, Keys, build_data,
        mac::{DownlinkCommand, UplinkCommand, parse_uplink},
        parse, session_keys,
    },
    region::Region,
};
use tokio::{net::UdpSocket, task::JoinHandle};

/// Knows the AppKey of each device by its DevEUI, answers each JoinRequest and each first copy of a confirmed uplink in RX1, and in RX2 what a gateway
/// refused. With RxDelay 2 its answers are never late, however busy the machine is.
struct Network {
    socket: UdpSocket,
    region: &'static Region,
    app_keys: HashMap<Eui64, AesKey>,
    routes: HashMap<Eui64, SocketAddr>,
    sessions: HashMap<DevAddr, (Keys, u32)>,
    seen: Vec<Vec<u8>>,
    /// By token: where RX2 goes if RX1 is refused.
    second: HashMap<u16, (SocketAddr, Txpk)>,
    token: u16,
}

struct Running {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Network {
    async fn start(region: &'static Region, app_keys: impl IntoIterator<Item = (Eui64, AesKey)>) -> Running {
        Self::start_with(region, app_keys, []).await
    }

    /// With sessions that were activated by hand.
    async fn start_with(
        region: &'static Region,
        app_keys: impl IntoIterator<Item = (Eui64, AesKey)>,
        sessions: impl IntoIterator<Item = (DevAddr, (Keys, u32))>,
    ) -> Running {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let network = Self {
            socket,
            region,
            app_keys: app_keys.into_iter().collect(),
            routes: HashMap::new(),
            sessions: sessions.into_iter().collect(),
            seen: Vec::new(),
            second: HashMap::new(),
            token: 0,
        };
        Running { addr, task: tokio::spawn(network.serve()) }
    }

    async fn serve(mut self) {
        let mut buffer = vec![0; 65_536];
        loop {
            let (length, from) = self.socket.recv_from(&mut buffer).await.unwrap();
            let up = parse_upstream(&buffer[..length]).unwrap();
            match up.kind {
                UpKind::PullData => {
                    self.routes.insert(up.gateway, from);
                    self.socket.send_to(&pull_ack(2, up.token), from).await.unwrap();
                }
                UpKind::TxAck => self.tx_ack(up.token, up.json).await,
                UpKind::PushData => {
                    self.socket.send_to(&push_ack(2, up.token), from).await.unwrap();
                    for rxpk in parse_push_data(up.json).unwrap().rxpk {
                        self.uplink(up.gateway, &rxpk.unwrap()).await;
                    }
                }
            }
        }
    }

    async fn tx_ack(&mut self, token: u16, json: &[u8]) {
        let second = self.second.remove(&token);
        if let (Ok(TxAckResult::Refused(_)), Some((to, txpk))) = (parse_tx_ack(json), second) {
            self.socket.send_to(&pull_resp(2, token, &txpk.to_json()), to).await.unwrap();
        }
    }

    async fn uplink(&mut self, gateway: Eui64, rxpk: &Rxpk) {
        if self.seen.contains(&rxpk.data) {
            return;
        }
        self.seen.push(rxpk.data.clone());
        let (delay, phy) = match parse(&rxpk.data).unwrap() {
            Frame::JoinRequest(request) => {
                let Some(app_key) = self.app_keys.get(&request.dev_eui) else { return };
                assert!(request.verify(app_key));
                let dev_addr = DevAddr(0x2600_0000 + self.sessions.len() as u32);
                let accept = JoinAccept {
                    join_nonce: self.sessions.len() as u32 + 1,
                    net_id: 0,
                    dev_addr,
                    rx1_dr_offset: 0,
                    rx2_data_rate: self.region.rx2().1,
                    rx_delay: 2,
                    cf_list: self.region.cf_list(),
                };
                let keys = session_keys(app_key, accept.join_nonce, 0, request.dev_nonce);
                self.sessions.insert(dev_addr, (keys, 0));
                (5, accept.build(app_key))
            }
            Frame::Data(frame) => {
                let (keys, fcnt_down) = self.sessions.get_mut(&frame.dev_addr).unwrap();
                assert!(frame.verify(&keys.nwk_s_key, frame.fcnt.into()));
                if !frame.confirmed {
                    return;
                }
                *fcnt_down += 1;
                (2, ack(frame.dev_addr, keys, *fcnt_down - 1, b"hello"))
            }
            other => panic!("{other:?}"),
        };
        self.answer(gateway, rxpk, delay, phy).await;
    }

    async fn answer(&mut self, gateway: Eui64, rxpk: &Rxpk, delay: u32, phy: Vec<u8>) {
        let up_rate = self.region.uplink_data_rate(&rxpk.modulation().unwrap()).unwrap();
        let datr = |rate| Datr::from(self.region.modulation(rate).unwrap());
        let (frequency, rate) = self.region.rx1_of((rxpk.freq, up_rate), 0, Some(false)).unwrap();
        let tmst = rxpk.tmst.unwrap().wrapping_add(delay * 1_000_000);
        let rx1 = Txpk::at(tmst, frequency, 14, datr(rate), phy.clone());
        let (frequency, rate) = self.region.rx2();
        let rx2 = Txpk::at(tmst.wrapping_add(1_000_000), frequency, 14, datr(rate), phy);
        let to = self.routes[&gateway];
        self.token += 1;
        self.second.insert(self.token, (to, rx2));
        self.socket.send_to(&pull_resp(2, self.token, &rx1.to_json()), to).await.unwrap();
    }
}

fn ack(dev_addr: DevAddr, keys: &Keys, fcnt: u32, payload: &[u8]) -> Vec<u8> {
    let spec = DataSpec {
        direction: Direction::Down,
        confirmed: false,
        dev_addr,
        fctrl: FCtrl { ack: true, ..FCtrl::default() },
        fcnt,
        fopts: &[],
        fport: Some(10),
        payload,
    };
    build_data(&spec, keys).unwrap()
}

fn config(region: &'static Region) -> DeviceConfig {
    DeviceConfig {
        dev_eui: Eui64(1),
        join_eui: Eui64(2),
        app_key: AesKey([3; 16]),
        region,
        dev_nonce: 1,
        data_rate: None,
        adr: true,
        seed: 1,
    }
}

async fn air(server: SocketAddr, gateways: u64, change: impl Fn(&mut GatewayConfig)) -> Air {
    let mut all = Vec::new();
    for eui in 0..gateways {
        let mut config = GatewayConfig::new(Eui64(eui), server);
        config.tmst_start = u32::MAX - 3_000_000;
        change(&mut config);
        let gateway = VirtualGateway::start(config).await.unwrap();
        while gateway.counters().pull_acked == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        all.push(Arc::new(gateway));
    }
    Air::new(all)
}

/// Joins, sends a confirmed uplink, and says in which windows the answers came.
async fn join_and_confirm(region: &str, change: impl Fn(&mut GatewayConfig)) -> (u8, u8) {
    let region = Region::by_name(region).unwrap();
    let network = Network::start(region, [(Eui64(1), AesKey([3; 16]))]).await;
    let air = air(network.addr, 2, change).await;
    let heard_by = [Coverage::good(0), Coverage { delay: Duration::from_millis(20), ..Coverage::good(1) }];
    let mut device = VirtualDevice::otaa(config(region));
    let mut flight = air.transmit(&device.join().unwrap(), &heard_by).await.unwrap();
    let accept = flight.next().await.unwrap();
    assert_eq!(device.receive(&accept.phy), Ok(Received::Joined));
    for push in flight.pushes.drain(..) {
        assert!(push.acked(Duration::from_secs(20)).await.is_some());
    }
    let uplink = Uplink { confirmed: true, fport: Some(1), payload: b"up".to_vec(), commands: Vec::new() };
    let mut flight = air.transmit(&device.uplink(&uplink).unwrap(), &heard_by).await.unwrap();
    let caught = flight.next().await.unwrap();
    let Ok(Received::Data { ack: true, fcnt: 0, fport: Some(10), payload, .. }) = device.receive(&caught.phy) else {
        panic!("no ACK")
    };
    assert_eq!(payload, b"hello");
    assert_eq!(air.strays().0, 0);
    (accept.window, caught.window)
}

#[tokio::test]
async fn a_device_joins_and_is_answered_in_its_first_window() {
    let (eu868, us915) = tokio::join!(join_and_confirm("eu868", |_| ()), join_and_confirm("us915_1", |_| ()));
    assert_eq!((eu868, us915), ((1, 1), (1, 1)));
}

#[tokio::test]
async fn what_gateways_refuse_first_comes_in_the_second_window() {
    let refuse = |config: &mut GatewayConfig| config.refuse = Refuse::FirstWindow(TxError::CollisionPacket);
    assert_eq!(join_and_confirm("eu868", refuse).await, (2, 2));
}

#[tokio::test]
async fn a_downlink_beside_the_windows_is_heard_by_nobody() {
    let region = Region::by_name("eu868").unwrap();
    let keys = Keys { nwk_s_key: AesKey([4; 16]), app_s_key: AesKey([5; 16]) };
    let addr = DevAddr(0x2601_1234);
    let network = Network::start_with(region, [], [(addr, (keys, 0))]).await;
    let air = air(network.addr, 1, |_| ()).await;
    // This network answers after two seconds, on the frequency of RX1; the device has moved on to that of RX2.
    let mut device = VirtualDevice::abp(config(region), addr, keys);
    let packet = device.uplink(&Uplink { confirmed: true, ..Uplink::default() }).unwrap();
    let mut flight = air.transmit(&packet, &[Coverage::good(0)]).await.unwrap();
    assert_eq!(flight.next().await, None);
    let (count, strays) = air.strays();
    assert_eq!((count, strays.len(), strays[0].in_time), (1, 1, true));
}

#[test]
fn a_device_tells_a_repetition_from_a_counter_used_twice() {
    let region = Region::by_name("eu868").unwrap();
    let keys = Keys { nwk_s_key: AesKey([4; 16]), app_s_key: AesKey([5; 16]) };
    let addr = DevAddr(0x2601_1234);
    let mut device = VirtualDevice::abp(config(region), addr, keys);
    device.session_mut().unwrap().next_fcnt_down = 0xffff;
    let one = ack(addr, &keys, 0xffff, b"one");
    assert!(matches!(device.receive(&one), Ok(Received::Data { fcnt: 0xffff, .. })));
    assert_eq!(device.receive(&one), Err(ReceiveError::Repeated));
    assert_eq!(device.receive(&ack(addr, &keys, 0xffff, b"two")), Err(ReceiveError::CounterReused));
    // The low half starts again, the counter goes on.
    assert!(matches!(device.receive(&ack(addr, &keys, 0x1_0000, b"")), Ok(Received::Data { fcnt: 0x1_0000, .. })));
    assert_eq!(device.receive(&ack(addr, &keys, 5, b"old")), Err(ReceiveError::BadMic));
    assert_eq!(device.receive(&ack(DevAddr(1), &keys, 0x1_0001, b"")), Err(ReceiveError::NotForUs));
}

#[test]
fn a_device_obeys_mac_commands_and_answers_them() {
    let region = Region::by_name("us915").unwrap();
    let keys = Keys { nwk_s_key: AesKey([4; 16]), app_s_key: AesKey([5; 16]) };
    let addr = DevAddr(0x2601_1234);
    let mut device = VirtualDevice::abp(config(region), addr, keys);
    let mut fopts = Vec::new();
    let sub_band = Region::by_name("us915_1").unwrap();
    for command in sub_band.channel_mask_requests(2) {
        command.encode(&mut fopts);
    }
    DownlinkCommand::RxTimingSetupReq { delay: 3 }.encode(&mut fopts);
    let spec = DataSpec {
        direction: Direction::Down,
        confirmed: true,
        dev_addr: addr,
        fctrl: FCtrl::default(),
        fcnt: 0,
        fopts: &fopts,
        fport: None,
        payload: &[],
    };
    assert!(device.receive(&build_data(&spec, &keys).unwrap()).is_ok());
    for round in 0..20 {
        let packet = device.uplink(&Uplink::default()).unwrap();
        assert!(sub_band.accepts(packet.frequency, packet.data_rate), "{}", packet.frequency);
        assert_eq!((packet.data_rate, packet.windows[0].delay), (2, Duration::from_secs(3)));
        let Ok(Frame::Data(frame)) = parse(&packet.phy) else { panic!() };
        assert_eq!((frame.fcnt, frame.fctrl.ack), (round, round == 0));
        let answers = parse_uplink(frame.fopts).commands;
        let adr = answers
            .iter()
            .filter(|a| matches!(a, UplinkCommand::LinkAdrAns { channel_mask_ack: true, data_rate_ack: true, .. }));
        assert_eq!(adr.count(), if round == 0 { sub_band.channel_mask_requests(2).len() } else { 0 });
        assert!(answers.contains(&UplinkCommand::RxTimingSetupAns), "repeated until a downlink comes");
    }
}

fn two_devices(network: &Running) -> SimulateConfig {
    SimulateConfig {
        server: network.addr.to_string(),
        gateways: 2,
        devices: 2,
        uplinks: 1,
        confirmed: 100,
        pace: Pace::Interval(Duration::from_secs(3)),
        seed: Some(7),
        ..SimulateConfig::default()
    }
}

#[tokio::test]
async fn simulate_plays_to_the_end_and_counts_what_comes_back() {
    let region = Region::by_name("eu868").unwrap();
    let who = Identities::new(7);
    let network = Network::start(region, (0..2).map(|i| (who.device(i), who.app_key(i)))).await;
    let mut lines = 0;
    let summary = simulate::run(two_devices(&network), |_| lines += 1).await.unwrap();
    assert!(lines > 0);
    assert_eq!(summary.missing, Vec::<String>::new(), "{summary}");
    assert_eq!((summary.seed, summary.joins.accepted, summary.cut_short), (7, 2, false));
    assert_eq!((summary.uplinks.sent, summary.uplinks.acknowledged), (2, 2));
    assert_eq!(summary.downlinks.rx1 + summary.downlinks.rx2, 4);
    assert_eq!(summary.push_acks.received, 2 * (summary.joins.tried + 2 + summary.uplinks.repeated));
    assert!(summary.to_string().contains("2 acknowledged of 2"));
}

#[tokio::test]
async fn simulate_says_what_is_missing() {
    let network = Network::start(Region::by_name("eu868").unwrap(), []).await;
    let stop = tokio::time::sleep(Duration::from_millis(300));
    let summary = simulate::run_until(two_devices(&network), |_| (), stop).await.unwrap();
    assert_eq!((summary.joins.accepted, summary.cut_short), (0, true));
    let acked = summary.push_acks.received;
    assert_eq!((acked, summary.push_acks.missing), (2 * summary.joins.tried, 0));
}

#[tokio::test]
async fn simulate_reports_all_mistakes_together() {
    let config = SimulateConfig {
        server: "127.0.0.1:port:1".into(),
        devices: 0,
        confirmed: 101,
        downlinks: 5,
        region: "mars1".into(),
        ..SimulateConfig::default()
    };
    let mistakes = simulate::run(config, |_| ()).await.unwrap_err().to_string();
    for flag in ["--server", "--devices", "--confirmed", "--downlinks", "--region"] {
        assert!(mistakes.contains(flag), "{flag}: {mistakes}");
    }
    let config = SimulateConfig { devices: 100, pace: Pace::Rate(200.0), ..SimulateConfig::default() };
    assert!(simulate::run(config, |_| ()).await.unwrap_err().to_string().contains("--devices 520"));
}
