//! The answer as a decision of its own: in the windows of its uplink, once, whoever dies between the two.

use limpet_store_testing::fault::{FaultStore, Faults};

use super::*;

/// A device whose RX1 opens so many seconds after its uplinks.
async fn network(workers: usize, rx1_delay: u8) -> (Net, SessionKey) {
    let net = Net::new("eu868", workers).await;
    let key = net.personalize().await;
    let mut profile = net.store.device_profile(Uuid::from_u128(3)).await.unwrap().unwrap();
    profile.abp_rx1_delay = rx1_delay;
    net.store.update_device_profile(&profile).await.unwrap();
    let mut session = net.session(&key).await.session;
    (session.rev, session.mac.rx1_delay) = (session.rev + 1, rx1_delay);
    net.store.commit_session(&session).await.unwrap();
    (net, key)
}

impl Net {
    /// What the downlink says: ACK, and the item it carries.
    fn said(&self, downlink: usize, fcnt_down: u32) -> (bool, Vec<u8>) {
        let txpk = txpk(&self.downlinks()[downlink], 0);
        let Ok(Frame::Data(frame)) = lorawan::parse(&txpk.data) else { panic!("not a data frame") };
        assert!(frame.verify(&KEYS.nwk_s_key, fcnt_down), "FCntDown {fcnt_down}");
        (frame.fctrl.ack, frame.decrypt(&KEYS, fcnt_down))
    }

    /// Waits until the event of that uplink is told.
    async fn until_told(&self, fcnt: u32) {
        while !self.webhook.ups().iter().any(|(_, told)| *told == fcnt) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// An application at this worker's API.
    async fn enqueue_at(&self, worker: &Arc<Pipeline>, key: &SessionKey, id: &str) {
        self.enqueue(id, id.as_bytes()).await;
        worker.item_enqueued(key).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_enqueued_after_an_event_leaves_in_the_windows_of_its_uplink() {
    for (rx1_delay, after) in [(1, 60), (1, 99), (5, 60), (5, 3_900)] {
        for confirmed in [false, true] {
            let (net, key) = network(2, rx1_delay).await;
            let view = FaultStore::new(net.store.clone(), 1, Faults::default());
            let (acceptor, other) = (net.worker_over("w0", view.clone()), net.worker_over("w1", view.clone()));
            let sent = net.clock.now();
            let given = give(acceptor, net.frame(1, CHANNEL, &uplink(0, confirmed), 1_000));
            net.until_told(0).await;
            tokio::time::sleep(Duration::from_millis(after)).await;
            assert_eq!(net.downlinks().len(), 0, "nothing is decided before");
            net.enqueue_at(&other, &key, "echo").await;
            assert_eq!(net.said(0, 0), (confirmed, b"echo".to_vec()), "at once, and in one downlink");
            let windows: Vec<_> = net.downlinks()[0].windows.iter().map(|w| (w.number, w.at - sent.0)).collect();
            let rx1 = u64::from(rx1_delay) * 1_000_000;
            assert_eq!(windows, [(1, rx1), (2, rx1 + 1_000_000)], "RX1 {rx1_delay} s, after {after} ms");
            assert_eq!(given.await.unwrap(), DONE);
            let keys: std::collections::BTreeSet<u64> = net.downlinks().iter().map(|d| d.key).collect();
            assert_eq!((keys.len(), view.asked().conditional), (1, 2), "an answered uplink: two conditional writes");
        }
    }
}

/// A gateway that tells no counter can transmit nothing in a window; that says nothing of what waits.
#[tokio::test(start_paused = true)]
async fn where_no_gateway_can_answer_the_queue_is_left_alone() {
    for reply_delay in [Duration::ZERO, DEFAULT_REPLY_DELAY] {
        let mut net = Net::new("eu868", 1).await;
        net.reply_delay = reply_delay;
        net.personalize().await;
        net.enqueue("one", b"one").await;
        let worker = net.worker("w0");
        let frame = net.frame(1, CHANNEL, &uplink(0, true), 5);
        let json = String::from_utf8(frame.datagram[12..].to_vec()).unwrap().replacen("\"tmst\":5,", "", 1);
        assert!(!json.contains("tmst"), "{json}");
        let datagram = gwmp::push_data(2, 1, Eui64(1), json.as_bytes()).into();
        give(worker.clone(), UplinkFrame { datagram, ..frame }).await.unwrap();
        assert_eq!((net.webhook.ups().len(), net.downlinks().len()), (1, 0));
        give(worker, net.frame(1, CHANNEL, &uplink(1, false), 5)).await.unwrap();
        assert_eq!(net.said(0, 0), (false, b"one".to_vec()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_uplink_with_nothing_to_say_costs_one_conditional_write() {
    for reply_delay in [Duration::ZERO, DEFAULT_REPLY_DELAY] {
        let mut net = Net::new("eu868", 0).await;
        net.reply_delay = reply_delay;
        net.personalize().await;
        let view = FaultStore::new(net.store.clone(), 1, Faults::default());
        let worker = net.worker_over("w0", view.clone());
        assert_eq!(give(worker.clone(), net.frame(1, CHANNEL, &uplink(0, false), 5)).await.unwrap(), DONE);
        assert_eq!((net.downlinks().len(), view.asked().conditional), (0, 1));
        // Without a delay an answer is a part of accepting, and so it is where an item waits already.
        give(worker.clone(), net.frame(1, CHANNEL, &uplink(1, true), 5)).await.unwrap();
        let answered = view.asked().conditional - 1;
        assert_eq!((net.downlinks().len(), answered), (1, if reply_delay.is_zero() { 1 } else { 2 }));
        net.enqueue("one", b"one").await;
        give(worker, net.frame(1, CHANNEL, &uplink(2, true), 5)).await.unwrap();
        assert_eq!((net.said(1, 1), view.asked().conditional - answered), ((true, b"one".to_vec()), 2));
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_uplink_waits_for_nobodys_answer_and_ends_it() {
    let (net, key) = network(1, 5).await;
    let first = net.give(0, net.frame(1, CHANNEL, &uplink(0, true), 1_000));
    net.until_told(0).await;
    let began = net.clock.now();
    let second = net.give(0, net.frame(1, CHANNEL, &uplink(1, true), 2_000));
    net.until_told(1).await;
    assert!(net.clock.now().since(began) < Duration::from_millis(300), "a window for copies, and no more");
    net.enqueue_at(&net.workers[0], &key, "echo").await;
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (DONE.to_vec(), DONE.to_vec()));
    assert_eq!(net.said(0, 0), (true, b"echo".to_vec()), "the second's answer");
    assert_eq!(net.downlinks().last().map(|d| d.key), Some(net.downlinks()[0].key), "the first has none any more");
}

#[tokio::test(start_paused = true)]
async fn who_gets_the_frame_of_a_dead_worker_answers_in_the_same_windows() {
    for fault in ["before deciding", "after deciding", "never written"] {
        let (net, key) = network(1, 1).await;
        let view = FaultStore::new(net.store.clone(), 1, Faults::default());
        let frame = net.frame(1, CHANNEL, &uplink(0, true), 1_000);
        let given = give(net.worker_over("mortal", view.clone()), frame.clone());
        net.until_told(0).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        match fault {
            "before deciding" => view.crash(),
            "after deciding" => {
                view.set_faults(Faults { crash: 1_000, ..Faults::default() });
                view.crashed().await;
            }
            _ => {
                view.set_faults(Faults { lose: 1_000, ..Faults::default() });
                tokio::time::sleep(Duration::from_millis(80)).await;
                view.crash();
            }
        }
        given.abort();
        assert_eq!(net.downlinks().len(), 0, "{fault}");
        let again = UplinkFrame { attempt: 1, ..frame.clone() };
        assert_eq!(net.give(0, again).await.unwrap(), DONE, "{fault}");
        assert_eq!((net.downlinks().len(), net.said(0, 0)), (1, (true, Vec::new())), "{fault}");
        let windows: Vec<u32> = net.downlinks()[0].windows.iter().map(|w| w.number).collect();
        assert_eq!((windows, net.session(&key).await.session.next_fcnt_down), (vec![1, 2], 1), "{fault}");
        assert_eq!(net.webhook.ups().len(), 1, "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_at_another_worker_sees_to_the_ack_of_one_that_died() {
    let (net, _) = network(1, 1).await;
    let phy = uplink(0, true);
    let view = FaultStore::new(net.store.clone(), 1, Faults::default());
    let first = give(net.worker_over("mortal", view.clone()), net.frame(1, CHANNEL, &phy, 1_000));
    let second = net.give(0, net.frame(2, CHANNEL, &phy, 7_000));
    net.until_told(0).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    view.crash();
    first.abort();
    assert_eq!(second.await.unwrap(), DONE);
    assert_eq!((net.downlinks().len(), net.said(0, 0)), (1, (true, Vec::new())));
    assert_eq!(net.downlinks()[0].windows.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn when_the_balancer_dies_too_the_sweep_answers_while_a_window_is_left() {
    let (net, _) = network(0, 5).await;
    let view = FaultStore::new(net.store.clone(), 1, Faults::default());
    let given = give(net.worker_over("w0", view.clone()), net.frame(1, CHANNEL, &uplink(0, true), 1_000));
    net.until_told(0).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    view.crash();
    given.abort();
    let restarted = net.worker("w0");
    assert_eq!(sweep(&restarted).await, Some(1));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((net.downlinks().len(), net.said(0, 0)), (1, (true, Vec::new())));
    assert_eq!((net.downlinks()[0].windows.len(), sweep(&restarted).await), (2, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn an_enqueuer_and_the_end_of_the_delay_decide_once() {
    for after in 95..106 {
        let (net, key) = network(2, 1).await;
        let given = net.give(0, net.frame(1, CHANNEL, &uplink(0, true), 1_000));
        net.until_told(0).await;
        tokio::time::sleep(Duration::from_millis(after)).await;
        net.enqueue_at(&net.workers[1], &key, "echo").await;
        given.await.unwrap();
        net.give(0, net.frame(1, CHANNEL, &uplink(1, false), 2_000)).await.unwrap();
        // Bytes that were decided may be handed over twice.
        net.edge.downlinks.lock().dedup_by_key(|downlink| downlink.key);
        assert!(net.said(0, 0).0, "{after} ms");
        // Without a TX_ACK it is offered again.
        assert_eq!(net.said(1, 1), (false, b"echo".to_vec()), "{after} ms");
        let next = net.session(&key).await.session.next_fcnt_down;
        assert_eq!((net.downlinks().len(), next), (2, 2), "{after} ms: one answer each");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_too_late_goes_with_the_next_uplink() {
    let (net, key) = network(1, 1).await;
    net.give(0, net.frame(1, CHANNEL, &uplink(0, false), 1_000)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    net.enqueue_at(&net.workers[0], &key, "late").await;
    assert_eq!(net.downlinks().len(), 0);
    net.give(0, net.frame(1, CHANNEL, &uplink(1, false), 1_000)).await.unwrap();
    assert_eq!(net.said(0, 0), (false, b"late".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn an_overtaken_uplink_leaves_the_answer_of_the_one_above_it() {
    let (net, key) = network(2, 1).await;
    net.give(0, net.frame(1, CHANNEL, &uplink(0, false), 1_000)).await.unwrap();
    let late = net.frame(1, CHANNEL, &uplink(1, true), 2_000);
    let above = net.give(0, net.frame(1, CHANNEL, &uplink(2, true), 3_000));
    net.until_told(2).await;
    let late = UplinkFrame { received_at: late.received_at - Duration::from_millis(200), ..late };
    let overtaken = net.give(1, late);
    net.until_told(1).await;
    assert!(net.session(&key).await.session.answer.as_open().is_some_and(|open| open.slot == 2));
    assert_eq!((above.await.unwrap(), overtaken.await.unwrap()), (DONE.to_vec(), DONE.to_vec()));
    assert_eq!((net.downlinks().len(), net.said(0, 0)), (1, (true, Vec::new())));
}
