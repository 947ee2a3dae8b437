//! The run: join, twenty uplinks, and what must have come of them at the device, the gateways and the application.

pub mod settings;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chirpstack_api::integration::{AckEvent, JoinEvent, UplinkEvent};
use limpet_bench::Refuse;
use limpet_shared::gwmp::TxError;
use lorawan_device::{
    async_device::{Device, JoinResponse, SendResponse},
    default_crypto::DefaultFactory,
};
use lorawan_encoding::parser::{DataHeader, DataPayload, PhyPayload, parse};

use crate::{
    network::{Network, credentials},
    plan::{Band, Frame, STEPS, Step},
    radio::{DeviceClock, Exchange, FakeRadio, StackTimer, TOLERANCE_US},
    support::{Event, eventually},
};

type Stack = Device<FakeRadio, DefaultFactory, StackTimer, lorawan_device::Prng>;

/// How long after everything came it is watched that nothing more does.
const QUIET: Duration = Duration::from_secs(2);
const FPORT: u8 = 42;

/// What the run expects of the application's events.
#[derive(Default)]
struct Expected {
    /// Payloads by FCntUp.
    ups: Vec<(bool, Vec<u8>)>,
    /// Queue items that came down, and whether each was confirmed.
    items: Vec<(String, bool)>,
}

/// A network, and a device that has joined it.
async fn joined(band: &Band) -> (Network, Stack) {
    let network = Network::start(band).await;
    if !band.settings.is_empty() {
        network.ctl(&[&["region", "set", band.name], band.settings].concat());
    }
    let clock = DeviceClock::new();
    let radio = FakeRadio::new(clock.clone(), network.antennas());
    let mut stack: Stack = Device::new_with_seed(band.stack.clone(), radio, StackTimer(clock), band.seed);
    join(band, &network, &mut stack).await;
    (network, stack)
}

pub async fn run(band: Band) {
    let (network, mut stack) = joined(&band).await;
    let mut expected = Expected::default();
    let mut enqueued = Vec::new();
    let mut next_fcnt_down = 0;
    for (number, step) in STEPS.iter().enumerate() {
        for item in step.enqueue {
            enqueued.push((network.enqueue(item).await, item.confirmed));
        }
        let payload = vec![number as u8, 0xa5, step.confirmed.into()];
        let down = send(&band, &network, &mut stack, number, step, &payload).await;
        // FCntDown goes up by one with every downlink, also where RX2 took over.
        if let Some(down) = down {
            assert_eq!(down.fcnt, next_fcnt_down, "FCntDown of downlink {number}");
            next_fcnt_down += 1;
        }
        if step.comes_down.is_some() {
            expected.items.push(enqueued[expected.items.len()].clone());
        }
        expected.ups.push((step.confirmed, payload));
    }
    check_events(&band, &network, &expected, &stack_dev_addr(&mut stack)).await;
    check_air(&network, &mut stack).await;
    network.stop().await;
}

async fn join(band: &Band, network: &Network, stack: &mut Stack) {
    refuse(network, band.join_in == 2);
    let joined = stack.join(&credentials()).await.unwrap();
    refuse(network, false);
    let exchange = last(stack);
    let JoinResponse::JoinSuccess = joined else { panic!("no JoinAccept was heard: {exchange:#?}") };
    let delay = if band.join_in == 1 { 5_000_000 } else { 6_000_000 };
    check_window(band, exchange, band.join_in, delay);
}

/// Every gateway refuses what comes first, and takes it when it comes again.
fn refuse(network: &Network, refuse: bool) {
    for gateway in &network.gateways {
        gateway.refuse(if refuse { Refuse::FirstWindow(TxError::CollisionPacket) } else { Refuse::Nothing });
    }
}

fn last(stack: &mut Stack) -> &Exchange {
    stack.get_mut_radio().exchanges().last().unwrap()
}

/// What a frame's header says, read by another implementation than ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    ack: bool,
    /// FPending; of downlinks only.
    pending: bool,
    confirmed: bool,
    fcnt: u16,
}

fn header(phy: &[u8]) -> Header {
    let Ok(PhyPayload::Data(DataPayload::Encrypted(data))) = parse(phy.to_vec()) else {
        panic!("no data frame: {phy:02x?}")
    };
    let (fhdr, confirmed) = (data.fhdr(), data.is_confirmed());
    Header { ack: fhdr.fctrl().ack(), pending: fhdr.fctrl().f_pending(), confirmed, fcnt: fhdr.fcnt() }
}

/// One uplink, and what the device must have heard of it.
async fn send(
    band: &Band,
    network: &Network,
    stack: &mut Stack,
    number: usize,
    step: &Step,
    payload: &[u8],
) -> Option<Header> {
    let (data_rate, datr) = band.data_rates[number % band.data_rates.len()];
    stack.set_datarate(data_rate);
    refuse(network, step.refuse_rx1);
    let response = stack.send(payload, FPORT, step.confirmed).await.unwrap();
    refuse(network, false);
    let received = stack.take_downlink();
    let exchange = last(stack);
    assert_eq!(exchange.datr, datr, "uplink {number}");
    assert!(band.channels.contains(&exchange.frequency), "uplink {number} on {} Hz", exchange.frequency);
    let up = header(&exchange.phy);
    assert_eq!((usize::from(up.fcnt), up.confirmed), (number, step.confirmed), "{up:?}");
    let answered = step.confirmed || step.comes_down.is_some() || number < band.asked;
    if !answered {
        assert!(matches!(response, SendResponse::RxComplete), "uplink {number}: {response:?}, {exchange:#?}");
        assert!(exchange.heard.is_none() && exchange.refused.is_empty(), "uplink {number}: {exchange:#?}");
        return None;
    }
    assert!(matches!(response, SendResponse::DownlinkReceived(_)), "uplink {number}: {response:?}, {exchange:#?}");
    let window = if step.refuse_rx1 { 2 } else { 1 };
    check_window(band, exchange, window, u32::from(window) * 1_000_000);
    let down = header(&exchange.heard.as_ref().unwrap().downlink.txpk.data);
    assert_eq!(down.ack, step.confirmed, "ACK of uplink {number}: {down:?}");
    assert_eq!(down.confirmed, step.comes_down.is_some_and(|item| item.confirmed), "downlink {number}: {down:?}");
    let more = step.enqueue.len() > 1;
    assert_eq!(down.pending, more, "FPending of downlink {number}: {down:?}");
    let received = received.map(|r| (r.fport, r.data.to_vec()));
    assert_eq!(received, step.comes_down.map(|item| (item.fport, item.data.to_vec())), "downlink {number}");
    Some(down)
}

/// The downlink was heard in this window, where the regional parameters have it, after exactly this time, as the only
/// one; and if it is RX2, after the same bytes were refused for RX1.
fn check_window(band: &Band, exchange: &Exchange, window: u8, delay_us: u32) {
    let heard = exchange.heard.as_ref().unwrap();
    assert_eq!(heard.window.number, window, "{exchange:#?}");
    let off_us = i64::from(heard.after_us) - i64::from(delay_us);
    assert!(off_us.abs() <= TOLERANCE_US, "{off_us} us from where RX{window} is: {exchange:#?}");
    let uplink = Frame { frequency: exchange.frequency, datr: exchange.datr };
    let [rx1, rx2] = [(band.rx1)(uplink), band.rx2];
    let txpk = &heard.downlink.txpk;
    let got = Frame { frequency: txpk.freq, datr: txpk.datr };
    assert_eq!(got, if window == 1 { rx1 } else { rx2 }, "RX{window} after {uplink:?}");
    let refused: Vec<_> = exchange.refused.iter().map(|d| (d.txpk.freq, d.txpk.datr, &d.txpk.data)).collect();
    if window == 1 {
        assert!(refused.is_empty(), "{exchange:#?}");
    } else {
        assert_eq!(refused, [(rx1.frequency, rx1.datr, &txpk.data)], "RX2 repeats what RX1 was refused");
    }
    assert_eq!(exchange.unheard(), Vec::<String>::new(), "on air, but not for this device");
}

fn stack_dev_addr(stack: &mut Stack) -> String {
    let address = stack.get_session().unwrap().devaddr().as_ref().try_into().unwrap();
    format!("{:08x}", u32::from_le_bytes(address))
}

async fn check_events(band: &Band, network: &Network, expected: &Expected, dev_addr: &str) {
    let confirmed: Vec<_> = expected.items.iter().filter(|(_, confirmed)| *confirmed).map(|(id, _)| id).collect();
    for (kind, count) in [("up", expected.ups.len()), ("ack", confirmed.len()), ("txack", expected.items.len())] {
        let told = async || (distinct(&network.webhook.of(kind)) >= count).then_some(());
        eventually(&format!("{count} {kind} events"), told).await;
    }
    tokio::time::sleep(QUIET).await;
    assert_eq!(network.queue_length().await, 0, "everything that was enqueued came down");

    let joins: Vec<JoinEvent> = once(network.webhook.of("join"));
    assert_eq!(joins.iter().map(|join| join.dev_addr.as_str()).collect::<Vec<_>>(), [dev_addr]);
    let ups: Vec<UplinkEvent> = once(network.webhook.of("up"));
    let got: Vec<_> = ups.iter().map(|up| (up.f_cnt as usize, up.confirmed, up.data.clone())).collect();
    let numbered = expected.ups.iter().enumerate();
    let wanted: Vec<_> = numbered.map(|(fcnt, (confirmed, data))| (fcnt, *confirmed, data.clone())).collect();
    assert_eq!(got, wanted, "one event per uplink, in order, with its payload");
    for up in &ups {
        assert_eq!((up.f_port, up.dev_addr.as_str()), (FPORT.into(), dev_addr));
        assert_eq!(up.region_config_id, band.name);
        let gateways: BTreeSet<_> = up.rx_info.iter().map(|rx| rx.gateway_id.as_str()).collect();
        assert!(gateways.len() == up.rx_info.len() && !gateways.is_empty(), "{up:?}");
    }
    assert!(ups.iter().any(|up| up.rx_info.len() == 3), "three gateways heard it: {ups:#?}");
    let acks: Vec<AckEvent> = once(network.webhook.of("ack"));
    assert!(acks.iter().all(|ack| ack.acknowledged), "{acks:#?}");
    assert_eq!(acks.iter().map(|ack| &ack.queue_item_id).collect::<Vec<_>>(), confirmed);
    let sent = network.webhook.of("txack");
    let sent: BTreeSet<_> = sent.iter().map(|event| event.body["queueItemId"].as_str().unwrap()).collect();
    assert_eq!(sent, expected.items.iter().map(|(id, _)| id.as_str()).collect(), "each item was on air");
    assert_eq!(distinct(&network.webhook.of("txack")), sent.len(), "each item was on air once");
    // What a device never answers its owner is told.
    let logs = network.webhook.of("log");
    let told: BTreeSet<_> = logs.iter().map(|event| event.body["context"]["mac_command"].as_str()).collect();
    let given_up = (band.asked > 0).then_some(Some("TxParamSetupReq"));
    assert_eq!(told, given_up.into_iter().collect(), "{logs:#?}");
}

/// How many different events there are. A txack has no deduplicationId but its downlinkId.
fn distinct(events: &[Event]) -> usize {
    events.iter().map(|event| (&event.id, event.body["downlinkId"].to_string())).collect::<BTreeSet<_>>().len()
}

/// The events, each deduplicationId once: delivery is at least once, and a repetition has the same id and content.
fn once<E: serde::de::DeserializeOwned>(events: Vec<Event>) -> Vec<E> {
    let mut bodies = BTreeMap::new();
    let mut first = Vec::new();
    for event in events {
        assert!(!event.id.is_empty(), "{event:?}");
        let known = bodies.entry(event.id.clone()).or_insert_with(|| {
            first.push(serde_json::from_value(event.body.clone()).unwrap());
            event.body.clone()
        });
        assert_eq!(*known, event.body, "two events under one id");
    }
    first
}

/// What the gateways saw in all.
async fn check_air(network: &Network, stack: &mut Stack) {
    let radio = stack.get_mut_radio();
    let exchanges = radio.exchanges();
    let uplinks = exchanges.len();
    assert_eq!(uplinks, 1 + STEPS.len());
    let unheard: Vec<_> = exchanges.iter().flat_map(Exchange::unheard).collect();
    assert_eq!(unheard, Vec::<String>::new(), "on air, but not for the device");
    let refused = exchanges.iter().map(|exchange| exchange.refused.len() as u64).sum::<u64>();
    assert_eq!(radio.push_acks().await, (3 * uplinks, 0), "PUSH_ACKs that came, and that did not");
    let mut collisions = 0;
    for counters in network.gateways.iter().map(|gateway| gateway.counters()) {
        assert_eq!(counters.junk, 0, "{counters:?}");
        assert_eq!(counters.push_acks_unasked, 0, "{counters:?}");
        for (word, count) in &counters.refused {
            assert_eq!(word, "COLLISION_PACKET", "{counters:?}");
            collisions += count;
        }
    }
    assert_eq!(collisions, refused, "refused on purpose, and nothing else");
}
