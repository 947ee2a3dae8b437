//! Joins: what they flush, what they leave behind, and who finishes them.

use limpet_store::Freshness;
use limpet_store_testing::fault::{FaultStore, Faults};

use super::*;

impl Net {
    /// A network whose devices' queues are flushed when they join.
    async fn flushing(workers: usize) -> Self {
        let net = Self::new("eu868", workers).await;
        let mut profile = net.store.device_profile(Uuid::from_u128(3)).await.unwrap().unwrap();
        profile.flush_queue_on_activate = true;
        net.store.update_device_profile(&profile).await.unwrap();
        net
    }

    /// The device joins; returns its session.
    async fn join(&self, nonce: u16) -> SessionRow {
        let phy = JoinRequest::build(Eui64(9), DEVICE, nonce, &APP_KEY);
        assert_eq!(self.give(0, self.frame(1, CHANNEL, &phy, 7)).await.unwrap(), DONE);
        tokio::time::sleep(Duration::from_secs(10)).await;
        self.current().await
    }

    async fn current(&self) -> SessionRow {
        let state = self.store.device_state(DEVICE, Freshness::Serial).await.unwrap();
        self.session(&state.current.unwrap().key).await
    }

    /// The device's uplink in its session; returns the FRMPayload of what it is answered with, and whether that is confirmed.
    async fn answer(&self, fcnt: u32) -> Option<(Vec<u8>, bool)> {
        let session = self.current().await.session;
        let spec = DataSpec { dev_addr: session.key.dev_addr, ..hello(fcnt) };
        let keys = Keys { nwk_s_key: session.keys.nwk_s_key, app_s_key: session.keys.app_s_key };
        let before = self.downlinks().len();
        let phy = lorawan::build_data(&spec, &keys).unwrap();
        assert_eq!(self.give(0, self.frame(1, CHANNEL, &phy, 7)).await.unwrap(), DONE);
        let downlinks = self.downlinks();
        let txpk = txpk(downlinks.get(before)?, 0);
        let Ok(Frame::Data(frame)) = lorawan::parse(&txpk.data) else { panic!("not a data frame") };
        frame.fport.is_some_and(|port| port > 0).then(|| (frame.decrypt(&keys, u32::from(frame.fcnt)), frame.confirmed))
    }

    fn acks(&self) -> Vec<(String, bool)> {
        let ack = |e: &Event| match &e.kind {
            EventKind::Ack(ack) => Some((ack.queue_item.clone(), ack.acknowledged)),
            _ => None,
        };
        self.webhook.events.lock().iter().filter_map(ack).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_flushed_by_the_join_itself_and_what_comes_after_it_stays() {
    let net = Net::flushing(1).await;
    for id in ["one", "two", "three"] {
        net.enqueue(id, b"before").await;
    }
    net.join(1).await;
    assert_eq!(net.store.queue(DEVICE, 0, 9).await.unwrap(), []);
    net.enqueue("four", b"after").await;
    assert_eq!(net.answer(0).await.map(|(data, _)| data), Some(b"after".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_join_accept_waits_for_no_flush() {
    let mut net = Net::flushing(0).await;
    net.enqueue("one", b"before").await;
    let slow = Faults { delay: Duration::from_millis(10), ..Faults::default() };
    let store = FaultStore::new(net.store.clone(), 1, slow);
    net.workers = vec![net.worker_over("w0", store.clone())];
    let join = JoinRequest::build(Eui64(9), DEVICE, 1, &APP_KEY);
    let given = net.give(0, net.frame(1, CHANNEL, &join, 7));
    // As soon as the JoinAccept is out, nothing is written any more.
    while net.downlinks().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.crash();
    assert_eq!(net.store.queue(DEVICE, 0, 9).await.unwrap().len(), 1, "the item still stands there");
    given.abort();
    net.workers = vec![net.worker("w1")];
    assert_eq!(net.answer(0).await, None, "and is offered no more");
}

#[tokio::test(start_paused = true)]
async fn who_takes_over_a_join_skips_neither_the_flush_nor_the_old_session() {
    for seed in 0..8 {
        let net = Net::flushing(2).await;
        let first = net.join(1).await.session.key;
        net.join(2).await;
        net.enqueue("one", b"before").await;
        let store = FaultStore::new(net.store.clone(), seed, Faults::default());
        let mortal = net.worker_over("mortal", store.clone());
        let join = JoinRequest::build(Eui64(9), DEVICE, 3, &APP_KEY);
        let frame = net.frame(1, CHANNEL, &join, 7);
        let given = give(mortal, frame.clone());
        // It is stored by then; the next write is the join, of which its worker does not hear any more.
        tokio::time::sleep(Duration::from_millis(100)).await;
        store.set_faults(Faults { crash: 1_000, ..Faults::default() });
        store.crashed().await;
        given.abort();
        let again = UplinkFrame { attempt: 1, ..frame };
        assert_eq!(net.give(1, again).await.unwrap(), DONE, "seed {seed}");
        let accepts: std::collections::BTreeSet<u64> = net.downlinks().iter().map(|downlink| downlink.key).collect();
        assert_eq!(accepts.len(), 3, "seed {seed}: each join has its JoinAccept");
        assert!(net.session(&first).await.session.over.is_some(), "seed {seed}");
        assert_eq!(net.answer(0).await, None, "seed {seed}: nothing is offered");
    }
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_item_whose_device_joins_anew_is_said_not_to_be_acknowledged() {
    for (flush, transmitted) in [(true, false), (true, true), (false, true), (false, false)] {
        let net = if flush { Net::flushing(1).await } else { Net::new("eu868", 1).await };
        net.join(1).await;
        let item = QueueItem {
            dev_eui: DEVICE,
            id: "one".into(),
            fport: 5,
            data: b"one".to_vec(),
            confirmed: true,
            ..QueueItem::default()
        };
        net.store.enqueue(item).await.unwrap();
        assert_eq!(net.answer(0).await, Some((b"one".to_vec(), true)));
        if transmitted {
            let Downlink { key, gateway, context, .. } = net.downlinks().pop().unwrap();
            let at = net.clock.now().0;
            let ack = TxAck { key, gateway, window: 1, error: String::new(), context, at, assumed: false };
            net.workers[0].tx_ack(ack).await;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        net.join(2).await;
        let (nacked, again) = (net.acks(), net.answer(0).await.is_some());
        let case = format!("flush {flush}, transmitted {transmitted}");
        if flush || transmitted {
            assert_eq!((nacked, again), (vec![("one".into(), false)], false), "{case}");
        } else {
            assert_eq!((nacked, again), (vec![], true), "{case}: nobody heard it, so it is offered again");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_used_nonce_keeps_no_keys_once_a_newer_join_came() {
    let net = Net::new("eu868", 2).await;
    let first = net.join(1).await;
    let row = async |nonce| net.store.join_row(DEVICE, nonce, Freshness::Serial).await.unwrap().unwrap();
    let kept = row(1).await;
    assert!(!kept.is_over() && kept.session.keys == first.session.keys, "all that finishing it needs");
    let second = net.join(2).await;
    let (old, new) = (row(1).await, row(2).await);
    assert!(old.is_over() && !new.is_over());
    assert_ne!(old.session.keys, first.session.keys);
    let bytes = |row: &JoinRow| serde_json::to_vec(row).unwrap().len();
    assert!(bytes(&old) * 2 < bytes(&kept), "{} of {} bytes", bytes(&old), bytes(&kept));

    // A repetition of either request makes no session, at whichever worker.
    let joins = net.webhook.joins();
    for nonce in [1, 2] {
        let phy = JoinRequest::build(Eui64(9), DEVICE, nonce, &APP_KEY);
        for worker in 0..2 {
            assert_eq!(net.give(worker, net.frame(1, CHANNEL, &phy, 7)).await.unwrap(), DONE);
        }
    }
    assert_eq!(net.current().await.session.key, second.session.key);
    assert_eq!((net.webhook.joins(), net.downlinks().len()), (joins, 2));
}
