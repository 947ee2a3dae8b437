//! Downlinks: by a gateway that can send, on the balancer's clock, and a bounded number of times.

use limpet_store_testing::fault::{FaultStore, Faults};

use super::*;

/// This machine's clock is wrong by so many milliseconds.
struct Off(Arc<Clock>, i64);
impl Surroundings for Off {
    fn now(&self) -> UnixMicros {
        UnixMicros(self.0.now().0.saturating_add_signed(self.1 * 1_000))
    }
    fn random(&self) -> u32 {
        self.0.random()
    }
}

impl Net {
    /// What the downlink under this FCntDown says, which are counted from 0.
    fn carried(&self, fcnt: u32) -> String {
        let txpk = txpk(&self.downlinks()[fcnt as usize], 0);
        let Ok(Frame::Data(frame)) = lorawan::parse(&txpk.data) else { panic!("not a data frame") };
        String::from_utf8(frame.decrypt(&KEYS, fcnt)).unwrap()
    }

    /// A copy that the gateway heard at this SNR.
    fn copy(&self, gateway: u64, snr: f32, frequency: u32, phy: &[u8]) -> UplinkFrame {
        let mut frame = self.frame(gateway, frequency, phy, 1_000_000 * gateway as u32);
        let mut pushed = gwmp::parse_push_data(&frame.datagram[12..]).unwrap();
        let mut rxpk = pushed.rxpk.remove(0).unwrap();
        rxpk.lsnr = Some(snr);
        frame.datagram = gwmp::push_data(2, 1, Eui64(gateway), &gwmp::push_data_json(&[rxpk], None)).into();
        frame
    }

    async fn heard_at(&self, phy: &[u8], copies: &[(u64, f32)]) {
        let given: Vec<_> = copies.iter().map(|&(gateway, snr)| self.copy(gateway, snr, CHANNEL, phy)).collect();
        for done in given.into_iter().map(|frame| self.give(0, frame)).collect::<Vec<_>>() {
            assert_eq!(done.await.unwrap(), DONE);
        }
    }

    /// What the balancer tells of the downlink sent last.
    async fn told(&self, error: &str) {
        let Downlink { key, gateway, context, .. } = self.downlinks().pop().unwrap();
        let at = self.clock.now().0;
        self.workers[0]
            .tx_ack(TxAck { key, gateway, window: 1, error: error.into(), context, at, assumed: false })
            .await;
    }

    fn gateways_asked(&self) -> Vec<u64> {
        self.downlinks().iter().map(|d| d.gateway).collect()
    }

    /// Receptions in the first event.
    fn copies(&self) -> usize {
        let events = self.webhook.events.lock();
        let EventKind::Up(up) = &events[0].kind else { panic!("no up event") };
        up.receptions.len()
    }

    fn logs(&self, code: &str) -> usize {
        let logged = |e: &&Event| matches!(&e.kind, EventKind::Log(log) if log.code == code);
        self.webhook.events.lock().iter().filter(logged).count()
    }
}

#[tokio::test(start_paused = true)]
async fn the_best_gateway_that_asks_for_downlinks_sends_them() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    *net.edge.asking.lock() = vec![2, 3];
    net.heard_at(&uplink(0, true), &[(1, 9.0), (2, 1.0), (3, -4.0)]).await;
    assert_eq!(net.gateways_asked(), [2], "gateway 1 hears best and never sends PULL_DATA");
    assert_eq!(txpk(&net.downlinks()[0], 0).tmst, Some(3_000_000));
    let join = JoinRequest::build(Eui64(9), DEVICE, 1, &APP_KEY);
    net.heard_at(&join, &[(1, 9.0), (3, -4.0)]).await;
    assert_eq!(net.gateways_asked(), [2, 3], "nor does it send a JoinAccept");
}

#[tokio::test(start_paused = true)]
async fn what_one_gateway_refuses_another_sends_with_the_same_bytes_while_a_window_is_left() {
    let net = Net::new("eu868", 1).await;
    let key = net.personalize().await;
    net.enqueue("one", b"first").await;
    *net.edge.asking.lock() = vec![1, 2, 3];
    net.heard_at(&uplink(0, false), &[(3, -4.0), (1, 9.0), (2, 1.0)]).await;
    for error in ["TX_FREQ", "NO_ROUTE"] {
        net.told(error).await;
    }
    let downlinks = net.downlinks();
    assert_eq!(net.gateways_asked(), [1, 2, 3]);
    assert_eq!(downlinks.iter().map(|downlink| downlink.others).collect::<Vec<_>>(), [true, true, false]);
    for (downlink, tmst) in downlinks.iter().zip([2_000_000, 3_000_000, 4_000_000]) {
        assert_eq!(downlink.key, downlinks[0].key);
        let (rx1, rx2) = (txpk(downlink, 0), txpk(downlink, 1));
        assert_eq!((rx1.tmst, rx2.tmst), (Some(tmst), Some(tmst + 1_000_000)), "each on its own counter");
        assert_eq!((&rx1.data, &rx2.data), (&txpk(&downlinks[0], 0).data, &rx1.data));
    }
    assert_eq!(net.logs("DOWNLINK_GATEWAY"), 0, "nothing has failed yet");
    net.told("").await;
    assert_eq!(net.session(&key).await.marks.sent, 1, "the third gateway has transmitted the item");
}

#[tokio::test(start_paused = true)]
async fn nobody_else_is_asked_after_silence_or_when_the_windows_are_over() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.heard_at(&uplink(0, true), &[(1, 9.0), (2, 1.0)]).await;
    net.told("NO_ANSWER").await;
    assert_eq!(net.gateways_asked(), [1], "the bytes may have been on air");
    tokio::time::sleep(Duration::from_secs(2)).await;
    net.told("COLLISION_PACKET").await;
    assert_eq!(net.gateways_asked(), [1]);
}

#[tokio::test(start_paused = true)]
async fn an_item_of_which_nothing_is_heard_goes_out_three_times_and_a_refused_one_until_it_is_sent() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    for item in ["one", "two", "three"] {
        net.enqueue(item, item.as_bytes()).await;
    }
    let mut carried = Vec::new();
    for fcnt in 0..11 {
        net.heard_at(&uplink(fcnt, false), &[(1, 9.0)]).await;
        let txpk = txpk(&net.downlinks()[fcnt as usize], 0);
        let Ok(Frame::Data(frame)) = lorawan::parse(&txpk.data) else { panic!("not a data frame") };
        let text = String::from_utf8(frame.decrypt(&KEYS, fcnt)).unwrap();
        if text == "two" {
            net.told("COLLISION_PACKET").await;
            // Another worker is told too.
            net.told("COLLISION_PACKET").await;
        } else {
            net.told("NO_ANSWER").await;
        }
        if fcnt == 7 {
            net.told("").await;
        }
        carried.push(text);
    }
    assert_eq!(carried[..3], ["one"; 3], "three times without a word");
    assert_eq!(carried[3..8], ["two"; 5], "a refusal is a word: it certainly was not on air");
    assert_eq!(carried[8..], ["three"; 3]);
    net.heard_at(&uplink(11, false), &[(1, 9.0)]).await;
    assert_eq!((net.downlinks().len(), net.logs("DOWNLINK_GATEWAY")), (11, 2), "both are told of, and nothing waits");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_answers_after_it_was_given_up_has_sent_the_item() {
    // Whether the event of the first word is out before the second one comes, or both wait for the integration.
    for webhook_is_away in [false, true] {
        let net = Net::new("eu868", 1).await;
        net.personalize().await;
        for item in ["one", "two"] {
            net.enqueue(item, item.as_bytes()).await;
        }
        let stop = tokio_util::sync::CancellationToken::new();
        let pending = tokio::spawn(run_pending(net.workers[0].clone(), 0, stop.clone()));
        net.webhook.down.store(webhook_is_away, Ordering::Relaxed);
        net.heard_at(&uplink(0, false), &[(1, 9.0)]).await;
        net.told("NO_ANSWER").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        net.told("").await;
        net.webhook.down.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(30)).await;
        let kinds: Vec<&str> = net.webhook.events.lock().iter().map(|event| event.kind.name()).collect();
        assert_eq!(kinds, ["up", "log", "txack"], "webhook away: {webhook_is_away}");
        net.heard_at(&uplink(1, false), &[(1, 9.0)]).await;
        let txpk = txpk(&net.downlinks()[1], 0);
        let Ok(Frame::Data(frame)) = lorawan::parse(&txpk.data) else { panic!("not a data frame") };
        assert_eq!(frame.decrypt(&KEYS, 1), b"two", "the first is not offered again");
        stop.cancel();
        pending.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_gateway_says_while_the_store_is_away_is_told_and_counted_when_it_is_back() {
    for (error, event, offers) in [("", "txack", None), ("TX_FREQ", "log", Some(0)), ("NO_ANSWER", "log", Some(1))] {
        let mut net = Net::new("eu868", 1).await;
        let store = FaultStore::new(net.store.clone(), 1, Faults::default());
        net.workers = vec![net.worker_over("w0", store.clone())];
        let key = net.personalize().await;
        net.enqueue("one", b"one").await;
        net.heard_at(&uplink(0, false), &[(1, 9.0)]).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        store.set_faults(Faults { refuse: 1000, ..Faults::default() });
        let back = async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            // Of two writes one is not answered, done or not.
            store.set_faults(Faults { lose: 300, hide: 200, ..Faults::default() });
        };
        futures_util::future::join(net.told(error), back).await;
        let integration = limpet_store::IntegrationId(Uuid::from_u128(2));
        let waiting = net.store.pending(integration, DEVICE, 9).await.unwrap();
        let kinds: Vec<_> = waiting.iter().map(|waiting| waiting.event.kind.name()).collect();
        assert_eq!(kinds, [event], "{error:?}");
        let row = net.session(&key).await;
        let offered = row.session.item.filter(|_| row.marks.sent == 0).map(|item| item.offers);
        assert_eq!(offered, offers, "{error:?}");
    }
}

/// The worker that is told of a TX_ACK dies with its first write done, or before any.
#[tokio::test(start_paused = true)]
async fn an_application_hears_of_an_item_on_air_whenever_the_worker_that_was_told_of_it_dies() {
    for (faults, offers) in
        [(Faults { crash: 1000, ..Faults::default() }, 1), (Faults { refuse: 1000, ..Faults::default() }, 2)]
    {
        let net = Net::new("eu868", 1).await;
        net.personalize().await;
        net.enqueue("one", b"one").await;
        net.heard_at(&uplink(0, false), &[(1, 9.0)]).await;
        let store = FaultStore::new(net.store.clone(), 1, faults);
        let (dying, Downlink { key, gateway, context, .. }) =
            (net.worker_over("w1", store), net.downlinks()[0].clone());
        let told = tokio::spawn(async move {
            dying.tx_ack(TxAck { key, gateway, window: 1, context, ..TxAck::default() }).await;
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        told.abort();
        for fcnt in 1..4 {
            net.heard_at(&uplink(fcnt, false), &[(1, 9.0)]).await;
            if net.downlinks().len() > fcnt as usize {
                net.told("").await;
            }
        }
        let waiting = net.store.pending(limpet_store::IntegrationId(Uuid::from_u128(2)), DEVICE, 99).await.unwrap();
        let events = net.webhook.events.lock().clone().into_iter().chain(waiting.into_iter().map(|w| w.event));
        let told =
            events.filter(|event| matches!(&event.kind, EventKind::TxAck(ack) if ack.queue_item == "one")).count();
        assert!(told >= 1 && net.downlinks().len() >= offers, "{faults:?}: {told}");
        assert_eq!(net.store.queue(DEVICE, 0, 9).await.unwrap(), [], "{faults:?}: and it is done");
    }
}

#[tokio::test(start_paused = true)]
async fn tx_acks_that_wait_for_the_store_are_bounded_and_those_beyond_are_counted() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.enqueue("one", b"one").await;
    net.heard_at(&uplink(0, false), &[(1, 9.0)]).await;
    let store = FaultStore::new(net.store.clone(), 1, Faults { refuse: 1000, ..Faults::default() });
    let (worker, Downlink { key, gateway, context, .. }) = (net.worker_over("w1", store), net.downlinks()[0].clone());
    let ack = TxAck { key, gateway, window: 1, context, ..TxAck::default() };
    let told: Vec<_> = (0..4100)
        .map(|_| {
            let (worker, ack) = (worker.clone(), ack.clone());
            tokio::spawn(async move { worker.tx_ack(ack).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(worker.outcomes.count(), 4096);
    assert!(worker.metrics.text().contains("limpet_worker_downlink_results_lost_total 4\n"));
    told.iter().for_each(tokio::task::JoinHandle::abort);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(worker.outcomes.count(), 0);
}

/// A gateway that makes words up says no more than a silent one: it may have transmitted.
#[tokio::test(start_paused = true)]
async fn an_item_that_is_answered_for_with_a_word_nobody_defined_is_offered_three_times() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    for item in ["one", "two"] {
        net.enqueue(item, item.as_bytes()).await;
    }
    for fcnt in 0..6 {
        net.heard_at(&uplink(fcnt, false), &[(1, 9.0)]).await;
        net.told("SOMETHING_NEW").await;
    }
    let carried: Vec<_> = (0..6).map(|fcnt| net.carried(fcnt)).collect();
    assert_eq!(carried, ["one", "one", "one", "two", "two", "two"]);
}

#[tokio::test(start_paused = true)]
async fn an_item_that_every_gateway_refuses_is_told_of_each_time_and_given_up_after_ten() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    for item in ["one", "two"] {
        net.enqueue(item, item.as_bytes()).await;
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let pending = tokio::spawn(run_pending(net.workers[0].clone(), 0, stop.clone()));
    let mut carried = Vec::new();
    for fcnt in 0..12 {
        net.heard_at(&uplink(fcnt, false), &[(1, 9.0)]).await;
        carried.push(net.carried(fcnt));
        net.told("TX_FREQ").await;
    }
    assert_eq!(carried[..10], ["one"; 10]);
    assert_eq!(carried[10..], ["two"; 2], "what waits behind it is not held up for ever");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let events = net.webhook.events.lock().clone();
    let told = |queue_item: &str, text: &str| {
        let of = |log: &LogEvent| log.context.get("queue_item_id").is_some_and(|id| id == queue_item);
        let is = |e: &&Event| matches!(&e.kind, EventKind::Log(log) if of(log) && log.description.contains(text));
        events.iter().filter(is).count()
    };
    assert_eq!((told("one", "TX_FREQ"), told("one", "given up"), told("two", "TX_FREQ")), (10, 1, 2));
    stop.cancel();
    pending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_item_for_which_rx2_is_too_slow_waits_for_an_rx1_that_can_be_met() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.enqueue("one", &[7; 100]).await;
    // At SF7, so that RX1 takes 222 bytes and RX2, at SF12, 51.
    let heard = async |fcnt, ago: u64| {
        let mut frame = net.frame(1, CHANNEL, &uplink(fcnt, true), 5);
        let mut rxpk = gwmp::parse_push_data(&frame.datagram[12..]).unwrap().rxpk.remove(0).unwrap();
        rxpk.datr = Datr::Lora { spreading_factor: 7, bandwidth_khz: 125 };
        frame.datagram = gwmp::push_data(2, 1, Eui64(1), &gwmp::push_data_json(&[rxpk], None)).into();
        frame.received_at = frame.received_at - Duration::from_millis(ago);
        net.give(0, frame).await.unwrap();
        let windows: Vec<u32> = net.downlinks()[fcnt as usize].windows.iter().map(|w| w.number).collect();
        let txpk = txpk(&net.downlinks()[fcnt as usize], 0);
        let Ok(Frame::Data(down)) = lorawan::parse(&txpk.data) else { panic!("not a data frame") };
        (windows, down.fctrl.ack, down.fctrl.f_pending, down.decrypt(&KEYS, fcnt).len())
    };
    assert_eq!(heard(0, 900).await, (vec![2], true, true, 0), "RX1 is over: the ACK alone");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(heard(1, 0).await, (vec![1], true, false, 100));
    assert_eq!(net.logs("DOWNLINK_PAYLOAD_SIZE"), 0, "it was never too long for the device");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_is_no_try_to_tell_a_device_its_channels() {
    let net = Net::new("us915_1", 1).await;
    let key = net.personalize().await;
    let mut session = net.session(&key).await.session;
    (session.rev, session.mac.channels_set) = (session.rev + 1, false);
    net.store.commit_session(&session).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    for fcnt in 0..5 {
        // By the time that it comes here its windows are over.
        let mut frame = net.frame(1, 903_900_000, &uplink(fcnt, false), 7);
        frame.received_at = frame.received_at - Duration::from_secs(3);
        net.give(0, frame).await.unwrap();
    }
    assert_eq!((net.webhook.ups().len(), net.downlinks().len()), (5, 0));
    net.give(0, net.frame(1, 903_900_000, &uplink(5, false), 7)).await.unwrap();
    let txpk = txpk(&net.downlinks()[0], 0);
    let Ok(Frame::Data(down)) = lorawan::parse(&txpk.data) else { panic!("not a data frame") };
    assert_eq!(down.fopts.first(), Some(&3), "LinkADRReq");
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_clock_is_off_meets_both_windows_and_waits_for_copies() {
    for off in [-20_000, -650, 650, 20_000] {
        let mut net = Net::new("eu868", 1).await;
        *net.edge.clock.lock() = Some(net.clock.clone());
        let clock = Arc::new(Off(net.clock.clone(), off));
        net.workers = vec![net.worker_of("off", net.store.clone(), net.webhook.clone(), clock)];
        net.personalize().await;
        let phy = uplink(0, true);
        let first = net.give(0, net.frame(1, CHANNEL, &phy, 5));
        tokio::time::sleep(Duration::from_millis(120)).await;
        let second = net.give(0, net.frame(2, CHANNEL, &phy, 5));
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (DONE.to_vec(), DONE.to_vec()));
        let downlinks = net.downlinks();
        let windows: Vec<u32> = downlinks.iter().flat_map(|d| d.windows.iter().map(|w| w.number)).collect();
        assert_eq!(windows, [1, 2], "{off} ms");
        assert_eq!(net.copies(), 2, "{off} ms: a copy that came 120 ms later belongs to it");
        let join = JoinRequest::build(Eui64(9), DEVICE, 1, &APP_KEY);
        net.heard_at(&join, &[(1, 9.0)]).await;
        assert_eq!(net.downlinks()[1].windows.len(), 2, "{off} ms: JoinAccept");
    }
}

#[tokio::test(start_paused = true)]
async fn a_frequency_that_is_a_32_bit_float_is_answered_on_its_channel() {
    let net = Net::new("us915_1", 1).await;
    net.personalize().await;
    let phy = uplink(0, true);
    // 903.9 MHz as one gateway writes it, and as the other does.
    let copies = [net.give(0, net.frame(1, 903_900_024, &phy, 7)), net.give(0, net.frame(2, 903_900_000, &phy, 7))];
    for copy in copies {
        assert_eq!(copy.await.unwrap(), DONE);
    }
    assert_eq!((net.copies(), txpk(&net.downlinks()[0], 0).freq), (2, 923_300_000));
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_item_that_was_sent_once_and_then_refused_ends_with_a_word() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    let item = QueueItem { dev_eui: DEVICE, id: "one".into(), fport: 5, confirmed: true, ..QueueItem::default() };
    net.store.enqueue(item).await.unwrap();
    for fcnt in 0..2 {
        net.give(0, net.frame(1, CHANNEL, &uplink(fcnt, false), 5)).await.unwrap();
    }
    for (sent, error) in [(0, ""), (1, "TOO_LATE")] {
        let Downlink { key, gateway, context, .. } = net.downlinks()[sent].clone();
        let ack = TxAck { key, gateway, window: 1, context, error: error.into(), ..TxAck::default() };
        net.workers[0].tx_ack(ack).await;
    }
    // The device does not acknowledge it either.
    net.give(0, net.frame(1, CHANNEL, &uplink(2, false), 5)).await.unwrap();
    assert_eq!(net.downlinks().len(), 2, "it is not offered again");
    let waiting = net.store.pending(limpet_store::IntegrationId(Uuid::from_u128(2)), DEVICE, 100).await.unwrap();
    let told = [net.webhook.events.lock().clone(), waiting.into_iter().map(|waiting| waiting.event).collect()].concat();
    let nack = |e: &&Event| matches!(&e.kind, EventKind::Ack(ack) if ack.queue_item == "one" && !ack.acknowledged);
    assert_eq!(told.iter().filter(nack).count(), 1);
}
