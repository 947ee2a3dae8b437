//! Adaptive data rate: devices that are heard well or badly, lose frames, refuse, or go their own way.

use limpet_shared::lorawan::mac::{self, DownlinkCommand, UplinkCommand};

use super::*;

/// A device far away or near. `snr`: dB at which it is heard at full power.
struct Sender {
    snr: f32,
    adr: bool,
    fcnt: u32,
    data_rate: u8,
    power: u8,
    nb_trans: u8,
    /// Beyond what it was made for.
    refuses_rate: u8,
    refuses_power: u8,
    /// Says that it does what it is told, and does not.
    ignores: bool,
    answers: Vec<u8>,
    heard: Vec<Vec<DownlinkCommand>>,
}

impl Sender {
    fn new(snr: f32) -> Self {
        Self {
            snr,
            adr: true,
            fcnt: 0,
            data_rate: 0,
            power: 0,
            nb_trans: 1,
            refuses_rate: 16,
            refuses_power: 16,
            ignores: false,
            answers: Vec::new(),
            heard: Vec::new(),
        }
    }

    fn uplink(&mut self) -> Vec<u8> {
        let answers = std::mem::take(&mut self.answers);
        let spec = DataSpec {
            direction: Direction::Up,
            confirmed: false,
            dev_addr: ADDR,
            fctrl: FCtrl { adr: self.adr, ..FCtrl::default() },
            fcnt: self.fcnt,
            fopts: &answers,
            fport: Some(2),
            payload: b"hello",
        };
        self.fcnt += 1;
        lorawan::build_data(&spec, &KEYS).unwrap()
    }

    fn hear(&mut self, downlink: &Downlink) {
        let sent = txpk(downlink, 0).data;
        let Ok(Frame::Data(frame)) = lorawan::parse(&sent) else { panic!("not a data frame") };
        let commands = mac::parse_downlink(frame.fopts).commands;
        for command in &commands {
            let DownlinkCommand::LinkAdrReq { data_rate, tx_power, nb_trans, ch_mask_cntl, .. } = *command else {
                panic!("{commands:?}")
            };
            assert!(nb_trans > 0 && ch_mask_cntl == 6, "{command:?}");
            let acks = [true, data_rate < self.refuses_rate, tx_power < self.refuses_power];
            if acks == [true; 3] && !self.ignores {
                assert!(data_rate >= self.data_rate, "the network never slows a device down");
                (self.data_rate, self.power, self.nb_trans) = (data_rate, tx_power, nb_trans);
            }
            let [channel_mask_ack, data_rate_ack, power_ack] = acks;
            UplinkCommand::LinkAdrAns { channel_mask_ack, data_rate_ack, power_ack }.encode(&mut self.answers);
        }
        self.heard.push(commands);
    }
}

impl Net {
    /// The device sends, and hears what is said unless that is lost.
    async fn sends(&self, device: &mut Sender, up_lost: bool, down_lost: bool) {
        let before = self.downlinks().len();
        let phy = device.uplink();
        if up_lost {
            return;
        }
        let mut rxpk = Rxpk::new(CHANNEL, self.region.modulation(device.data_rate).unwrap().into(), phy);
        (rxpk.tmst, rxpk.rssi) = (Some(1_000), Some(-80));
        rxpk.lsnr = Some(device.snr - 2.0 * f32::from(device.power));
        let datagram = gwmp::push_data(2, 1, Eui64(1), &gwmp::push_data_json(&[rxpk], None)).into();
        let frame = UplinkFrame { datagram, ..self.frame(1, CHANNEL, &[], 0) };
        self.give(0, frame).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        for downlink in self.downlinks().split_off(before) {
            if !down_lost {
                device.hear(&downlink);
            }
        }
    }

    async fn sends_often(&self, device: &mut Sender, times: u32) {
        for _ in 0..times {
            self.sends(device, false, false).await;
        }
    }
}

async fn network() -> (Net, SessionKey) {
    let net = Net::new("eu868", 1).await;
    let key = net.personalize().await;
    (net, key)
}

/// Data rate, power, transmissions.
fn state(device: &Sender) -> (u8, u8, u8) {
    (device.data_rate, device.power, device.nb_trans)
}

#[tokio::test(start_paused = true)]
async fn a_device_is_made_as_fast_and_quiet_as_it_can_be_and_then_left_alone() {
    for (snr, wanted) in [(-9.0, (0, 0, 1)), (-2.0, (3, 0, 1)), (5.0, (5, 0, 1)), (12.5, (5, 4, 1)), (40.0, (5, 7, 1))]
    {
        let (net, key) = network().await;
        let mut device = Sender::new(snr);
        net.sends_often(&mut device, 60).await;
        assert_eq!(state(&device), wanted, "{snr} dB: {:?}", device.heard);
        let session = net.session(&key).await.session.mac;
        assert_eq!((session.data_rate, session.tx_power), (wanted.0, wanted.1));
        let heard = device.heard.len();
        assert!(heard <= 4, "{snr} dB: {:?}", device.heard);
        net.sends_often(&mut device, 100).await;
        assert_eq!(device.heard.len(), heard, "left alone at {snr} dB: {:?}", device.heard.last());
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_keeps_its_data_rate_for_itself_is_asked_nothing() {
    for disabled in [false, true] {
        let (net, key) = network().await;
        net.set(&[("adr_disabled", Some(if disabled { "true" } else { "false" }))]).await;
        let mut device = Sender { adr: disabled, ..Sender::new(20.0) };
        net.sends_often(&mut device, 30).await;
        assert_eq!(device.heard, Vec::<Vec<_>>::new());
        assert!(net.session(&key).await.session.mac.adr.heard.is_empty(), "nor is anything remembered");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_set_limits_it() {
    let (net, _) = network().await;
    net.set(&[("max_dr", Some("3")), ("installation_margin", Some("0"))]).await;
    let mut device = Sender::new(-4.0);
    net.sends_often(&mut device, 40).await;
    // SF9 needs -12.5 dB: at -10 dB no step of 3 dB is left.
    assert_eq!(state(&device), (3, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_device_cannot_do_is_asked_once() {
    for (refuses_rate, refuses_power, wanted) in [(4, 16, (3, 7, 1)), (16, 5, (5, 4, 1)), (2, 2, (1, 1, 1))] {
        let (net, _) = network().await;
        let mut device = Sender { refuses_rate, refuses_power, ..Sender::new(40.0) };
        net.sends_often(&mut device, 100).await;
        assert_eq!(state(&device), wanted, "{:?}", device.heard);
        let mut asked = device.heard.clone();
        asked.dedup();
        assert_eq!(asked.len(), device.heard.len(), "the same twice: {asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_goes_its_own_way_is_followed() {
    let (net, key) = network().await;
    let mut device = Sender::new(20.0);
    net.sends_often(&mut device, 30).await;
    assert_eq!(state(&device), (5, 7, 1));
    // As it does when it has heard nothing for long: full power first, then slower.
    (device.data_rate, device.power, device.snr) = (4, 0, -9.0);
    net.sends(&mut device, false, false).await;
    let session = net.session(&key).await.session.mac;
    assert_eq!((session.data_rate, session.tx_power, session.adr.heard.len()), (4, 0, 1));
    net.sends_often(&mut device, 30).await;
    assert_eq!(device.data_rate, 4, "too far for more");

    let mut stubborn = Sender { ignores: true, fcnt: device.fcnt, ..Sender::new(20.0) };
    net.sends_often(&mut stubborn, 100).await;
    assert!(stubborn.heard.len() < 12, "what it never does it is not told for ever: {}", stubborn.heard.len());
}

/// Where frames of both directions get lost, the session knows in the end what its device sends with.
#[tokio::test(start_paused = true)]
async fn losses_make_no_device_misjudged() {
    for seed in 1..12_u32 {
        let (net, key) = network().await;
        let mut chance = seed;
        let mut draw = |below: u32| {
            chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (chance >> 16) % below
        };
        let mut device = Sender::new(draw(40) as f32 - 15.0);
        let loss = draw(50);
        for _ in 0..60 {
            let lost = [draw(100) < loss, draw(100) < loss];
            if draw(30) == 0 {
                device.snr += draw(13) as f32 - 6.0;
            }
            net.sends(&mut device, lost[0], lost[1]).await;
        }
        net.sends_often(&mut device, 300).await;
        let session = net.session(&key).await.session.mac;
        let knows = (session.data_rate, session.tx_power, session.adr.nb_trans.max(1));
        assert_eq!(knows, state(&device), "seed {seed}: {:?}", session.requests);
        let heard = device.heard.len();
        net.sends_often(&mut device, 20).await;
        assert_eq!(device.heard.len(), heard, "seed {seed}");
    }
}
