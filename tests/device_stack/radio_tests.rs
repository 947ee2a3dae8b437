//! The radio alone, behind a gateway whose server is a socket of the test.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use limpet_bench::{Answer, GatewayConfig, VirtualGateway};
use limpet_shared::{
    Eui64,
    gwmp::{self, Rxpk, TxError, Txpk, UpKind, parse_push_data, parse_upstream},
};
use lorawan_device::{
    AppSKey, DevAddr, JoinMode, NewSKey,
    async_device::{DR, Device, SendResponse},
    default_crypto::DefaultFactory,
    region,
};
use tokio::net::UdpSocket;

use crate::{
    plan::lora,
    radio::{Antenna, DeviceClock, FakeRadio, Mismatch, StackTimer, Window},
    support::eventually,
};

const FREQUENCY: u32 = 868_300_000;
/// From the end of the uplink to the window.
const DELAY_US: u32 = 1_000_000;

/// A downlink as the device wants it, `DELAY_US` after `end`.
fn right(end: u32) -> Txpk {
    Txpk::at(end.wrapping_add(DELAY_US), FREQUENCY, 14, lora(9, 125), vec![7; 20])
}

#[test]
fn a_window_takes_what_fits_and_says_what_does_not() {
    let delay = Duration::from_micros(DELAY_US.into());
    let window = Window { number: 1, delay, frequency: FREQUENCY, datr: lora(9, 125) };
    for end in [0, 1_000_000, u32::MAX - 1000] {
        let mismatch = |change: fn(&mut Txpk)| {
            let mut txpk = right(end);
            change(&mut txpk);
            window.mismatch(&txpk, end)
        };
        assert_eq!(mismatch(|_| ()), None);
        assert_eq!(mismatch(|t| t.tmst = t.tmst.map(|at| at.wrapping_add(20))), None);
        let off = |off_us| Some(Mismatch::Time { off_us });
        assert_eq!(mismatch(|t| t.tmst = t.tmst.map(|at| at.wrapping_add(21))), off(21));
        assert_eq!(mismatch(|t| t.tmst = t.tmst.map(|at| at.wrapping_sub(1_000_000))), off(-1_000_000));
        assert_eq!(mismatch(|t| (t.imme, t.tmst) = (true, None)), Some(Mismatch::NoTime));
        let frequency = Mismatch::Frequency { wanted: FREQUENCY, got: 869_525_000 };
        assert_eq!(mismatch(|t| t.freq = 869_525_000), Some(frequency));
        let data_rate = Mismatch::DataRate { wanted: lora(9, 125), got: lora(9, 500) };
        assert_eq!(mismatch(|t| t.datr = lora(9, 500)), Some(data_rate));
        assert_eq!(mismatch(|t| t.codr = Some("4/6".into())), Some(Mismatch::CodeRate(Some("4/6".into()))));
        assert_eq!(mismatch(|t| t.ipol = false), Some(Mismatch::NotInverted));
        assert_eq!(mismatch(|t| t.ncrc = None), Some(Mismatch::Crc));
    }
}

/// A server that answers an uplink with these downlinks.
async fn answer_with(socket: UdpSocket, downlinks: fn(Rxpk) -> Vec<Txpk>) {
    let mut pull: Option<SocketAddr> = None;
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let datagram = parse_upstream(&buffer[..length]).unwrap();
        match datagram.kind {
            UpKind::PullData => pull = Some(from),
            UpKind::PushData => {
                socket.send_to(&gwmp::push_ack(2, datagram.token), from).await.unwrap();
                let rxpk = parse_push_data(datagram.json).unwrap().rxpk.remove(0).unwrap();
                for txpk in downlinks(rxpk) {
                    let datagram = gwmp::pull_resp(2, 1, &txpk.to_json());
                    socket.send_to(&datagram, pull.unwrap()).await.unwrap();
                }
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn it_hears_the_one_downlink_that_is_for_its_window() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let serving = tokio::spawn(answer_with(server, |rxpk| {
        let right = Txpk { freq: rxpk.freq, ..right(rxpk.tmst.unwrap()) };
        let elsewhere = Txpk { freq: rxpk.freq + 100_000, ..right.clone() };
        let in_the_past = Txpk { tmst: rxpk.tmst.map(|end| end.wrapping_sub(1_000_000)), ..right.clone() };
        vec![elsewhere, in_the_past, right]
    }));
    let gateway = VirtualGateway::start(GatewayConfig::new(Eui64(1), address)).await.unwrap();
    let pulled = async || (gateway.counters().pulled > 0).then_some(());
    eventually("the first PULL_DATA", pulled).await;
    let antenna = Antenna::new(Arc::new(gateway), -80, 7.0, Duration::ZERO);
    let clock = DeviceClock::new();
    let radio = FakeRadio::new(clock.clone(), vec![antenna]);
    let eu868 = region::Configuration::new(region::Region::EU868);
    let mut stack: Device<_, DefaultFactory, _, _> = Device::new_with_seed(eu868, radio, StackTimer(clock), 1);
    let session = JoinMode::ABP {
        newskey: NewSKey::from([1; 16]),
        appskey: AppSKey::from([2; 16]),
        devaddr: DevAddr::from([1, 2, 3, 4]),
    };
    stack.join(&session).await.unwrap();
    stack.set_datarate(DR::_3);

    let response = stack.send(b"up", 1, false).await.unwrap();

    assert!(matches!(response, SendResponse::RxComplete), "what was heard is for no one: {response:?}");
    let exchange = stack.get_mut_radio().exchanges().last().unwrap();
    let (rx1, rx2) = (Duration::from_secs(1), Duration::from_secs(2));
    let windows = [
        Window { number: 1, delay: rx1, frequency: exchange.frequency, datr: lora(9, 125) },
        Window { number: 2, delay: rx2, frequency: 869_525_000, datr: lora(12, 125) },
    ];
    assert_eq!(exchange.windows, windows);
    let heard = exchange.heard.as_ref().map(|heard| (heard.window.number, heard.after_us));
    assert_eq!(heard, Some((1, DELAY_US)));
    let [refused] = exchange.refused.as_slice() else { panic!("{exchange:#?}") };
    assert_eq!(refused.answer, Answer::Refused(TxError::TooEarly));
    let [unheard] = &exchange.unheard()[..] else { panic!("{exchange:#?}") };
    assert!(unheard.ends_with("RX2: it starts -1000000 us after the window opens"), "{unheard}");
    assert!(unheard.contains("RX1: it is on "), "{unheard}");
    assert_eq!(stack.get_mut_radio().push_acks().await, (1, 0));
    serving.abort();
}
