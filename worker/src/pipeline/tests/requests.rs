//! What the network asks of devices by MAC commands: with which downlink, in which windows, and what the answers change.

use limpet_shared::lorawan::mac::{self, DownlinkCommand};
use limpet_store_testing::fault::{FaultStore, Faults};

use super::*;

/// An uplink with MAC commands in FOpts, or on port 0.
fn with_commands(fcnt: u32, commands: &[u8], fport: u8) -> Vec<u8> {
    let (fopts, payload) = if fport == 0 { (&[][..], commands) } else { (commands, &b"hello"[..]) };
    lorawan::build_data(&DataSpec { fopts, fport: Some(fport), payload, ..hello(fcnt) }, &KEYS).unwrap()
}

/// A downlink as the device hears it.
#[derive(Debug, PartialEq)]
struct Heard {
    /// Seconds from the uplink to RX1, and frequency and data rate of RX2.
    rx1_delay: u32,
    rx2: (u32, Datr),
    fopts: Vec<u8>,
    fport: Option<u8>,
    payload: Vec<u8>,
}

impl Net {
    /// One uplink; what is said in its windows.
    async fn speaks(&self, fcnt: u32, commands: &[u8], fport: u8) -> Option<Heard> {
        let before = self.downlinks().len();
        let frame = self.frame(1, CHANNEL, &with_commands(fcnt, commands, fport), 1_000);
        self.give(0, frame).await.unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
        let downlinks = self.downlinks().split_off(before);
        assert!(downlinks.len() <= 1, "one downlink at most: {downlinks:?}");
        let downlink = downlinks.first()?;
        let (rx1, rx2) = (txpk(downlink, 0), txpk(downlink, 1));
        let Ok(Frame::Data(frame)) = lorawan::parse(&rx1.data) else { panic!("not a data frame") };
        Some(Heard {
            rx1_delay: (rx1.tmst.unwrap() - 1_000) / 1_000_000,
            rx2: (rx2.freq, rx2.datr),
            fopts: frame.fopts.to_vec(),
            fport: frame.fport,
            payload: frame.decrypt(&KEYS, frame.fcnt.into()),
        })
    }

    async fn profile(&self, change: impl FnOnce(&mut DeviceProfile)) {
        let mut profile = self.store.device_profile(Uuid::from_u128(3)).await.unwrap().unwrap();
        change(&mut profile);
        self.store.update_device_profile(&profile).await.unwrap();
    }

    fn events_of(&self, name: &str) -> Vec<EventKind> {
        let events = self.webhook.events.lock();
        events.iter().filter(|event| event.kind.name() == name).map(|event| event.kind.clone()).collect()
    }
}

const SF12: Datr = Datr::Lora { spreading_factor: 12, bandwidth_khz: 125 };
const RX2: (u32, Datr) = (869_525_000, SF12);

fn empty(rx1_delay: u32, rx2: (u32, Datr)) -> Option<Heard> {
    Some(Heard { rx1_delay, rx2, fopts: vec![], fport: None, payload: vec![] })
}

#[tokio::test(start_paused = true)]
async fn other_windows_hold_from_the_answer_on() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    assert_eq!(net.speaks(0, &[], 2).await, None);
    net.set(&[("rx1_delay", Some("5")), ("rx2_frequency", Some("868525000")), ("rx2_dr", Some("3"))]).await;
    let fopts = vec![0x05, 0x03, 0xc2, 0x86, 0x84, 0x08, 5];
    let asked = Some(Heard { fopts, ..empty(1, RX2).unwrap() });
    assert_eq!(net.speaks(1, &[], 2).await, asked, "in the windows of before");
    assert_eq!(net.speaks(2, &[], 2).await, asked, "again, for nothing was answered");
    let rx2 = (868_525_000, Datr::Lora { spreading_factor: 9, bandwidth_khz: 125 });
    assert_eq!(net.speaks(3, &[0x05, 7, 0x08], 2).await, empty(5, rx2), "so that the device stops repeating");
    assert_eq!(net.speaks(4, &[0x05, 7, 0x08], 2).await, empty(5, rx2), "which it did not hear");
    assert_eq!(net.speaks(5, &[], 2).await, None);
    net.set(&[("rx1_delay", None), ("rx2_frequency", None), ("rx2_dr", None)]).await;
    assert_eq!(net.speaks(6, &[], 2).await, None, "an ABP device keeps what it has where nothing is set");
    net.set(&[("rx1_delay", Some("1")), ("rx2_frequency", Some("869525000")), ("rx2_dr", Some("0"))]).await;
    let fopts = vec![0x05, 0x00, 0xd2, 0xad, 0x84, 0x08, 1];
    assert_eq!(net.speaks(7, &[], 2).await, Some(Heard { fopts, ..empty(5, rx2).unwrap() }));
    assert_eq!(net.speaks(8, &[0x05, 7, 0x08], 0).await, empty(1, RX2), "an answer may be on port 0");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_part_of_the_answer_and_costs_no_write_of_its_own() {
    let net = Net::new("eu868", 0).await;
    net.personalize().await;
    let view = FaultStore::new(net.store.clone(), 1, Faults::default());
    let worker = net.worker_over("w0", view.clone());
    for (fcnt, delay, answer, writes) in [(0, None, &[][..], 1), (1, Some("5"), &[], 2), (2, None, &[0x08], 2)] {
        if let Some(delay) = delay {
            net.set(&[("rx1_delay", Some(delay))]).await;
            worker.read_settings().await.unwrap();
        }
        let before = view.asked().conditional;
        give(worker.clone(), net.frame(1, CHANNEL, &with_commands(fcnt, answer, 2), 1_000)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(view.asked().conditional - before, writes, "uplink {fcnt}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_goes_before_requests_and_takes_along_what_fits() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.set(&[("rx1_delay", Some("5")), ("rx2_dr", Some("3"))]).await;
    // DR0 carries 51 bytes with empty FOpts.
    for (item, fopts) in [(51, 0), (46, 5), (45, 5), (44, 7)] {
        net.enqueue(&format!("item {item}"), &vec![7; item]).await;
        let heard = net.speaks(52 - item as u32, &[], 2).await.unwrap();
        assert_eq!((heard.payload.len(), heard.fopts.len(), heard.fport), (item, fopts, Some(5)));
        let Downlink { key, gateway, context, .. } = net.downlinks().pop().unwrap();
        let ack = TxAck { key, gateway, window: 1, context, at: net.clock.now().0, ..TxAck::default() };
        net.workers[0].tx_ack(ack).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_fopts_cannot_hold_moves_on_and_a_block_goes_to_port_0() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.set(&[("extra_channels", Some("")), ("rx1_delay", Some("5"))]).await;
    let mut told = Vec::new();
    for (fcnt, answers) in [(0, 0), (1, 2), (2, 2)] {
        let answers = if fcnt == 1 { [vec![0x08], [0x07, 3].repeat(2)].concat() } else { [0x07, 3].repeat(answers) };
        let heard = net.speaks(fcnt, &answers, 2).await.unwrap();
        assert!(heard.fopts.len() <= 15 && heard.fport.is_none());
        told.extend(mac::parse_downlink(&heard.fopts).commands);
    }
    let removed = (3..8).map(|index| DownlinkCommand::NewChannelReq {
        index,
        frequency_hz: 0,
        min_data_rate: 0,
        max_data_rate: 5,
    });
    let mut wanted = vec![DownlinkCommand::RxTimingSetupReq { delay: 5 }];
    wanted.extend(removed);
    assert_eq!(told, wanted);
    assert_eq!(net.speaks(3, &[0x07, 3], 2).await, None);

    let net = Net::new("us915_1", 1).await;
    let key = net.personalize().await;
    let mut session = net.session(&key).await.session;
    (session.rev, session.mac.channels_set) = (session.rev + 1, false);
    net.store.commit_session(&session).await.unwrap();
    // LinkCheckReq and DeviceTimeReq leave six bytes of FOpts.
    let frame = net.frame(1, 903_900_000, &with_commands(0, &[0x02, 0x0d], 2), 1_000);
    net.give(0, frame).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let sent = txpk(&net.downlinks()[0], 0).data;
    let Ok(Frame::Data(frame)) = lorawan::parse(&sent) else { panic!("not a data frame") };
    let commands = mac::parse_downlink(&frame.decrypt(&KEYS, 0)).commands;
    assert_eq!((frame.fopts.len(), frame.fport, commands.len()), (0, Some(0), 4), "{commands:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_device_refuses_is_told_and_not_asked_again() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.set(&[("rx2_dr", Some("3"))]).await;
    assert!(net.speaks(0, &[], 2).await.is_some());
    assert_eq!(net.speaks(1, &[0x05, 5], 2).await, empty(1, RX2));
    for fcnt in 2..10 {
        assert_eq!(net.speaks(fcnt, &[], 2).await, None);
    }
    let [EventKind::Log(log)] = &net.events_of("log")[..] else { panic!("one log event") };
    let why = "the device refuses (its data rate) RXParamSetupReq (RX1 at offset 0, RX2 at DR3 on 869525000 Hz): it is not asked again";
    assert!(log.description.starts_with(why) && !log.error, "{}", log.description);
    assert_eq!(log.context["mac_command"], "RXParamSetupReq");
    let refused = "limpet_worker_mac_requests_given_up_total{reason=\"refused\"} 1\n";
    assert!(net.workers[0].metrics.text().contains(refused));
    net.set(&[("rx2_dr", Some("4"))]).await;
    assert!(net.speaks(10, &[], 2).await.is_some(), "something else is");
}

#[tokio::test(start_paused = true)]
async fn a_status_is_told_wherever_the_answer_stands() {
    for fport in [2, 0] {
        let net = Net::new("eu868", 1).await;
        net.personalize().await;
        net.profile(|profile| profile.device_status_req_interval = 24).await;
        assert_eq!(net.speaks(0, &[0x06, 1, 1], fport).await.unwrap().fopts, [0x06]);
        assert_eq!(net.events_of("status"), [], "an answer to nothing");
        assert_eq!(net.speaks(1, &[0x06, 0xfe, 0x3f], fport).await, None);
        let status = StatusEvent { margin: -1, battery: 254 };
        assert_eq!(net.events_of("status"), [EventKind::Status(status)]);
        assert_eq!(net.speaks(2, &[], fport.max(1)).await, None, "once an hour");
        let device = net.store.device(DEVICE).await.unwrap();
        let seen = device.map(|(_, seen)| (seen.battery, seen.margin));
        assert_eq!(seen, Some((Some(254), Some(-1))));
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(net.speaks(3, &[], 2).await.unwrap().fopts, [0x06]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_starts_again_from_the_factory_is_where_it_was_made() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    let mut device = net.store.device(DEVICE).await.unwrap().unwrap().0;
    device.skip_fcnt_check = true;
    net.store.update_device(&device).await.unwrap();
    net.set(&[("rx1_delay", Some("5"))]).await;
    assert!(net.speaks(10, &[], 2).await.is_some());
    assert_eq!(net.speaks(11, &[0x08], 2).await, empty(5, RX2));
    let asked = net.speaks(0, &[], 2).await.unwrap();
    assert_eq!((asked.rx1_delay, asked.fopts), (1, vec![0x08, 5]));
}

/// A device with an address of its own, and what it has in its memory.
struct Follower {
    addr: DevAddr,
    fcnt: u32,
    rx1_delay: u32,
    answers: bool,
}

impl Net {
    async fn follower(&self, number: u32) -> Follower {
        let (dev_eui, dev_addr) = (Eui64(DEVICE.0 + 1 + u64::from(number)), DevAddr(ADDR.0 + 1 + number));
        let device = self.store.device(DEVICE).await.unwrap().unwrap().0;
        self.store.create_device(&Device { dev_eui, name: format!("d{number}"), ..device }).await.unwrap();
        let keys = SessionKeys { nwk_s_key: KEYS.nwk_s_key, app_s_key: KEYS.app_s_key };
        let abp = Personalization { dev_eui, dev_addr, keys, fcnt_up: 0, fcnt_down: 0, queue_done: 0 };
        let session = personalized(&abp, &DeviceProfile::default(), self.region, 1, UnixMicros(EPOCH));
        self.store.create_session(&session).await.unwrap();
        Follower { addr: dev_addr, fcnt: 0, rx1_delay: 1, answers: false }
    }
}

impl Follower {
    fn uplink(&mut self) -> Vec<u8> {
        let fopts: &[u8] = if self.answers { &[0x08] } else { &[] };
        let spec = DataSpec { confirmed: true, dev_addr: self.addr, fopts, ..hello(self.fcnt) };
        self.fcnt += 1;
        lorawan::build_data(&spec, &KEYS).unwrap()
    }

    fn hear(&mut self, fopts: &[u8]) {
        self.answers = false;
        for command in mac::parse_downlink(fopts).commands {
            if let DownlinkCommand::RxTimingSetupReq { delay } = command {
                (self.rx1_delay, self.answers) = (delay.into(), true);
            }
        }
    }
}

/// Each uplink is confirmed: its ACK must come where the device listens. Some of both directions are lost.
#[tokio::test(start_paused = true)]
async fn many_devices_follow_a_delay_and_none_misses_a_downlink() {
    const DEVICES: u32 = 1_000;
    let net = Net::new("eu868", 2).await;
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        devices.push(net.follower(number).await);
    }
    let mut chance = 1_u32;
    let mut lost = || {
        chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        chance >> 24 < 40
    };
    for round in 0..8 {
        if round == 1 {
            net.set(&[("rx1_delay", Some("5"))]).await;
        }
        let before = net.downlinks().len();
        let sent: Vec<_> = devices
            .iter_mut()
            .enumerate()
            .map(|(at, device)| (device.uplink(), at))
            .filter(|_| !lost())
            .map(|(phy, at)| (net.give(at % 2, net.frame(1, CHANNEL, &phy, 1_000)), at))
            .collect();
        let mut heard = vec![false; devices.len()];
        for (given, at) in sent {
            given.await.unwrap();
            heard[at] = true;
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        for downlink in net.downlinks().split_off(before) {
            let rx1 = txpk(&downlink, 0);
            let Ok(Frame::Data(frame)) = lorawan::parse(&rx1.data) else { panic!("not a data frame") };
            let at = (frame.dev_addr.0 - ADDR.0 - 1) as usize;
            let after = (rx1.tmst.unwrap() - 1_000) / 1_000_000;
            assert_eq!(after, devices[at].rx1_delay, "device {at} in round {round}");
            assert!(frame.fctrl.ack && std::mem::take(&mut heard[at]), "the ACK of each");
            if !lost() {
                devices[at].hear(frame.fopts);
            }
        }
        assert!(!heard.contains(&true), "round {round}: an uplink without its ACK");
    }
    let follow = devices.iter().filter(|device| device.rx1_delay == 5).count();
    assert!(follow as u32 > DEVICES * 99 / 100, "{follow} follow");
}
