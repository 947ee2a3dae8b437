//! Clocks that differ, or are set, cost no uplink.

use super::*;

impl Net {
    /// A balancer whose clock is ahead of the workers', which know it.
    fn ahead(&self, by: Duration) -> Arc<Clock> {
        Arc::new(Clock(self.clock.0 - by, AtomicU32::new(1)))
    }

    /// Received by the balancer with that clock just now.
    async fn hear_by(&self, clock: &Arc<Clock>, phy: &[u8]) {
        *self.edge.clock.lock() = Some(clock.clone());
        let frame = UplinkFrame { received_at: clock.now(), ..self.frame(1, CHANNEL, phy, 5) };
        assert_eq!(self.give(0, frame).await.unwrap(), DONE);
    }

    fn heard(&self) -> Vec<u32> {
        self.webhook.ups().iter().map(|up| up.1).collect()
    }
}

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_silences_no_device() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    let before = net.ahead(Duration::from_secs(41 * 60));
    for fcnt in 0..3 {
        net.hear_by(&before, &uplink(fcnt, false)).await;
    }
    for fcnt in 3..6 {
        net.hear_by(&net.clock, &uplink(fcnt, true)).await;
    }
    assert_eq!(net.heard(), (0..6).collect::<Vec<_>>());
    assert_eq!(net.downlinks().len(), 3, "each gets its ACK");
    assert!(net.workers[0].metrics.text().contains("limpet_worker_clocks_apart_total 1\n"), "the first one mends it");
}

#[tokio::test(start_paused = true)]
async fn of_two_balancers_the_one_that_is_behind_is_heard() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    let (ahead, behind) = (net.ahead(Duration::from_secs(10)), net.clock.clone());
    for fcnt in 0..10 {
        net.hear_by(if fcnt % 2 == 0 { &ahead } else { &behind }, &uplink(fcnt, false)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(net.heard(), (0..10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_device_that_joined_by_a_clock_a_day_ahead_joins_again_and_is_heard() {
    let net = Net::new("eu868", 1).await;
    net.hear_by(&net.ahead(DAY), &JoinRequest::build(Eui64(9), DEVICE, 1, &APP_KEY)).await;
    net.hear_by(&net.clock, &JoinRequest::build(Eui64(9), DEVICE, 2, &APP_KEY)).await;
    assert_eq!(net.webhook.joins(), 2);
    // The answer that its device hears is that of the second one.
    let accept = txpk(&net.downlinks()[1], 0);
    let opened = lorawan::JoinAccept::open(&accept.data, &APP_KEY).unwrap();
    let keys = lorawan::session_keys(&APP_KEY, opened.join_nonce, opened.net_id, 2);
    let spec = DataSpec { dev_addr: opened.dev_addr, payload: b"joined", ..hello(0) };
    net.hear_by(&net.clock, &lorawan::build_data(&spec, &keys).unwrap()).await;
    assert_eq!(net.heard(), [0]);
}

#[tokio::test(start_paused = true)]
async fn an_uplink_in_a_session_that_began_by_a_clock_ahead_is_heard() {
    let net = Net::new("eu868", 1).await;
    let key = net.personalize().await;
    net.store.delete_session(&key).await.unwrap();
    let keys = SessionKeys { nwk_s_key: KEYS.nwk_s_key, app_s_key: KEYS.app_s_key };
    let abp = Personalization { dev_eui: DEVICE, dev_addr: ADDR, keys, fcnt_up: 0, fcnt_down: 0, queue_done: 0 };
    let session = personalized(&abp, &DeviceProfile::default(), net.region, 9, net.clock.now() + DAY);
    net.store.create_session(&session).await.unwrap();
    for fcnt in 0..3 {
        net.hear_by(&net.clock, &uplink(fcnt, false)).await;
    }
    assert_eq!(net.heard(), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_was_accepted_by_a_clock_ahead_is_finished_for_a_dead_worker() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    let ahead = net.ahead(DAY);
    *net.edge.clock.lock() = Some(ahead.clone());
    let view = limpet_store_testing::fault::FaultStore::new(net.store.clone(), 1, Default::default());
    net.webhook.down.store(true, Ordering::Relaxed);
    let slow = limpet_store_testing::fault::Faults { delay: Duration::from_millis(20), ..Default::default() };
    view.set_faults(slow);
    let frame = UplinkFrame { received_at: ahead.now(), ..net.frame(1, CHANNEL, &uplink(0, false), 5) };
    let dying = give(net.worker_over("dead", view.clone()), frame.clone());
    let accepted = async {
        let rows = || net.store.sessions_by_addr(ADDR, limpet_store::Freshness::Serial);
        while rows().await.unwrap()[0].session.slot.number == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    accepted.await;
    view.crash();
    dying.abort();
    net.webhook.down.store(false, Ordering::Relaxed);
    // The balancer's clock is set right, and another worker gets the frame.
    *net.edge.clock.lock() = None;
    let done = tokio::time::timeout(Duration::from_secs(10), net.give(0, frame)).await;
    assert_eq!(done.unwrap().unwrap(), DONE);
    assert_eq!(net.heard(), [0]);
}
