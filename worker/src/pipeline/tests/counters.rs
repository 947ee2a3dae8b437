//! Which frames belong to a session, and which to a time before it.

use super::*;

/// An uplink with a payload of its own.
fn saying(fcnt: u32, payload: &[u8]) -> Vec<u8> {
    lorawan::build_data(&DataSpec { payload, ..hello(fcnt) }, &KEYS).unwrap()
}

impl Net {
    async fn hear(&self, phy: &[u8]) {
        assert_eq!(self.give(0, self.frame(1, CHANNEL, phy, 5)).await.unwrap(), DONE);
    }

    fn fcnts(&self) -> Vec<u32> {
        self.webhook.ups().iter().map(|up| up.1).collect()
    }

    /// The owner puts the device into a session of the same keys, with counters from 0.
    async fn activate_again(&self, before: &SessionKey) -> SessionKey {
        let keys = SessionKeys { nwk_s_key: KEYS.nwk_s_key, app_s_key: KEYS.app_s_key };
        let abp = Personalization { dev_eui: DEVICE, dev_addr: ADDR, keys, fcnt_up: 0, fcnt_down: 100, queue_done: 0 };
        let old = self.session(before).await.session;
        let mut session = personalized(&abp, &DeviceProfile::default(), self.region, 9, self.clock.now());
        session.replaces([&old].into_iter());
        self.store.commit_session(&old.ended(self.clock.now())).await.unwrap();
        self.store.create_session(&session).await.unwrap();
        session.key
    }

    async fn relax(&self) {
        let mut device = self.store.device(DEVICE).await.unwrap().unwrap().0;
        device.skip_fcnt_check = true;
        self.store.update_device(&device).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_revives_nothing_of_the_time_before_an_activation() {
    let net = Net::new("eu868", 1).await;
    let key = net.personalize().await;
    for fcnt in 50..60 {
        net.hear(&uplink(fcnt, false)).await;
    }
    net.activate_again(&key).await;
    for fcnt in 0..3 {
        net.hear(&uplink(fcnt, false)).await;
    }
    assert_eq!(sweep(&net.workers[0]).await, Some(0));
    for fcnt in 3..6 {
        net.hear(&uplink(fcnt, false)).await;
    }
    assert_eq!(net.fcnts(), (50..60).chain(0..6).collect::<Vec<_>>());
}

/// The bytes are those of an uplink before the activation, so the stored copies of both have one key.
#[tokio::test(start_paused = true)]
async fn a_sweep_finds_an_uplink_whose_bytes_were_sent_before_the_activation_too() {
    let net = Net::new("eu868", 1).await;
    let key = net.personalize().await;
    net.hear(&uplink(0, false)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    net.activate_again(&key).await;
    let view = limpet_store_testing::fault::FaultStore::new(net.store.clone(), 1, Default::default());
    let dying = give(net.worker_over("w0", view.clone()), net.frame(1, CHANNEL, &uplink(0, false), 5));
    tokio::time::sleep(Duration::from_millis(100)).await;
    view.crash();
    dying.abort();
    assert_eq!(sweep(&net.worker("w0")).await, Some(1));
    assert_eq!(net.fcnts(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_frame_heard_before_the_first_activation_stays_unheard() {
    let net = Net::new("eu868", 1).await;
    let key = net.personalize().await;
    let row = net.session(&key).await;
    net.store.delete_session(&key).await.unwrap();
    // Its session is only looked for; the reception may be kept.
    let view = limpet_store_testing::fault::FaultStore::new(net.store.clone(), 1, Default::default());
    let dying = give(net.worker_over("w0", view.clone()), net.frame(1, CHANNEL, &uplink(59, false), 5));
    tokio::time::sleep(Duration::from_millis(100)).await;
    view.crash();
    dying.abort();
    net.store.create_session(&row.session).await.unwrap();
    net.activate_again(&key).await;
    sweep(&net.workers[0]).await;
    net.hear(&uplink(0, false)).await;
    assert_eq!(net.fcnts(), [0]);
}

/// A worker was stopped with the old frame in its hands.
#[tokio::test(start_paused = true)]
async fn a_frame_above_the_highest_that_was_received_before_it_is_outdated() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.relax().await;
    net.hear(&uplink(50, false)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let kept_back = net.frame(1, CHANNEL, &uplink(59, false), 5);
    tokio::time::sleep(Duration::from_secs(5)).await;
    net.hear(&uplink(0, false)).await;
    net.give(0, kept_back).await.unwrap();
    net.hear(&uplink(1, false)).await;
    assert_eq!(net.fcnts(), [50, 0, 1]);
    assert!(net.workers[0].metrics.text().contains("limpet_worker_dropped_total{reason=\"outdated\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn a_sweep_revives_nothing_of_the_time_before_a_restart() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.relax().await;
    for fcnt in (0..5).chain(50..55) {
        net.hear(&uplink(fcnt, false)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    // 0 to 2 after the restart were not heard: those before it must not stand for them.
    for fcnt in 3..5 {
        net.hear(&saying(fcnt, b"after")).await;
    }
    assert_eq!(sweep(&net.workers[0]).await, Some(0));
    net.hear(&saying(5, b"after")).await;
    assert_eq!(net.fcnts(), (0..5).chain(50..55).chain(3..6).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_device_that_counts_from_0_at_every_start_is_heard_each_time() {
    let net = Net::new("eu868", 2).await;
    net.personalize().await;
    net.relax().await;
    for start in 0..4u8 {
        let phy = saying(0, &[start]);
        let copies = [net.give(0, net.frame(1, CHANNEL, &phy, 5)), net.give(1, net.frame(2, CHANNEL, &phy, 5))];
        for copy in copies {
            copy.await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        // Sent again by its device: no restart.
        net.hear(&phy).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    assert_eq!(net.fcnts(), [0; 4]);
    let ids: std::collections::HashSet<_> = net.webhook.ups().iter().map(|up| up.0).collect();
    assert_eq!(ids.len(), 4, "each has an id of its own");
    assert_eq!(sweep(&net.workers[0]).await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_strict_device_that_counts_from_0_again_is_not_taken() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.hear(&saying(0, b"one")).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    net.hear(&saying(0, b"two")).await;
    assert_eq!(net.fcnts(), [0]);
}

/// The balancer's clock is a second behind that of the worker whose API was asked.
#[tokio::test(start_paused = true)]
async fn a_frame_just_after_an_activation_is_taken_though_clocks_differ() {
    let net = Net::new("eu868", 1).await;
    let key = net.personalize().await;
    net.activate_again(&key).await;
    let mut frame = net.frame(1, CHANNEL, &uplink(0, false), 5);
    frame.received_at = frame.received_at - Duration::from_secs(1);
    net.give(0, frame).await.unwrap();
    assert_eq!(net.fcnts(), [0]);
}

/// Its frames are overtaken by their successors, as by another worker.
async fn accept_the_second_first(net: &Net, confirmed: bool) -> Vec<u8> {
    let first = net.frame(1, CHANNEL, &uplink(0, false), 5);
    let highest = uplink(1, confirmed);
    net.hear(&highest).await;
    net.give(0, first).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    highest
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_uplink_sent_again_is_acknowledged_also_after_one_that_it_overtook() {
    for relaxed in [false, true] {
        let net = Net::new("eu868", 1).await;
        net.personalize().await;
        if relaxed {
            net.relax().await;
        }
        let highest = accept_the_second_first(&net, true).await;
        for again in 2..5 {
            net.hear(&highest).await;
            assert_eq!(net.downlinks().len(), again, "relaxed: {relaxed}");
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        assert_eq!(net.fcnts(), [1, 0], "no second event");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unconfirmed_uplink_sent_again_after_one_that_it_overtook_is_no_lost_counter() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.relax().await;
    let highest = accept_the_second_first(&net, false).await;
    net.hear(&highest).await;
    assert_eq!(net.fcnts(), [1, 0]);
    assert!(net.workers[0].metrics.text().contains("limpet_worker_dropped_total{reason=\"replay\"} 0\n"));
}

/// It keeps no counter, and its owner does not allow that: an ACK would tell it that its data has arrived.
#[tokio::test(start_paused = true)]
async fn another_confirmed_frame_under_the_last_counter_is_not_acknowledged() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    net.hear(&uplink(0, true)).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let spec = DataSpec { confirmed: true, payload: b"other", ..hello(0) };
    net.hear(&lorawan::build_data(&spec, &KEYS).unwrap()).await;
    assert_eq!((net.fcnts(), net.downlinks().len()), (vec![0], 1));
    let waiting = net.store.pending(limpet_store::IntegrationId(Uuid::from_u128(2)), DEVICE, 100).await.unwrap();
    let told = |e: &Event| matches!(&e.kind, EventKind::Log(log) if log.code == "UPLINK_F_CNT_RESET");
    assert!(waiting.iter().any(|waiting| told(&waiting.event)), "its owner is told");
}

/// Its worker looks at it after the activation: it is of the session before.
#[tokio::test(start_paused = true)]
async fn a_frame_on_its_way_when_its_device_is_activated_anew_is_told_and_locks_nobody_out() {
    let net = Net::new("eu868", 1).await;
    let key = net.personalize().await;
    net.hear(&uplink(59, false)).await;
    let on_its_way = net.give(0, net.frame(1, CHANNEL, &uplink(60, false), 5));
    tokio::time::sleep(Duration::from_millis(100)).await;
    net.activate_again(&key).await;
    on_its_way.await.unwrap();
    for fcnt in 0..3 {
        net.hear(&uplink(fcnt, false)).await;
    }
    assert_eq!(net.fcnts(), [59, 60, 0, 1, 2]);
}

/// A device falls back to its keys of before a join, and joins again.
#[tokio::test(start_paused = true)]
async fn keys_that_were_used_beside_a_join_go_on_counting() {
    let net = Net::new("eu868", 1).await;
    let key = net.personalize().await;
    let current = Some(CurrentSession { key, since: UnixMicros(EPOCH), dev_nonce: None });
    net.store.commit_join(&DeviceState { rev: 1, current, ..DeviceState::new(DEVICE) }, None).await.unwrap();
    let join = |nonce| JoinRequest::build(Eui64(9), DEVICE, nonce, &APP_KEY);
    net.hear(&join(1)).await;
    for fcnt in 0..5 {
        net.hear(&uplink(fcnt, true)).await;
    }
    net.hear(&join(2)).await;
    let state = net.store.device_state(DEVICE, limpet_store::Freshness::Serial).await.unwrap();
    for [nwk_s_key, app_s_key] in [[KEYS.nwk_s_key, AesKey([9; 16])], [AesKey([9; 16]), KEYS.app_s_key]] {
        assert_eq!(state.unused_fcnt_down(&SessionKeys { nwk_s_key, app_s_key }), 5);
    }
}
