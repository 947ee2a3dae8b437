//! The store is away, and comes back with much to do at once.

use limpet_store_testing::fault::{FaultStore, Faults};

use super::*;

const AWAY: Faults = Faults { delay: Duration::ZERO, refuse: 1000, lose: 0, hide: 0, crash: 0 };

impl Net {
    /// Frame counters of `up` events in the order that integrations get them.
    async fn in_the_end(&self) -> Vec<u32> {
        let stop = tokio_util::sync::CancellationToken::new();
        let pending = tokio::spawn(run_pending(self.worker("sender"), 1, stop.clone()));
        tokio::time::sleep(Duration::from_secs(10)).await;
        stop.cancel();
        pending.await.unwrap();
        self.webhook.ups().iter().map(|up| up.1).collect()
    }
}

/// Its gateway was not heard of late, so that the store is asked for its region too.
#[tokio::test(start_paused = true)]
async fn a_devices_uplinks_come_in_order_after_an_outage_that_began_before_its_gateway_was_known() {
    let net = Net::new("eu868", 0).await;
    net.personalize().await;
    let view = FaultStore::new(net.store.clone(), 1, AWAY);
    let worker = net.worker_over("w0", view.clone());
    let mut frames = Vec::new();
    for fcnt in 0..30 {
        frames.push(give(worker.clone(), net.frame(1, CHANNEL, &uplink(fcnt, false), fcnt)));
        tokio::time::sleep(Duration::from_millis(1130)).await;
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    view.set_faults(Faults::default());
    for frame in frames {
        assert_eq!(frame.await.unwrap(), DONE);
    }
    assert_eq!(net.in_the_end().await, (0..30).collect::<Vec<_>>());
}

/// What no region takes has its place in the line of its device until that is known, and gives it to those before it.
#[tokio::test(start_paused = true)]
async fn what_is_refused_after_an_outage_lets_no_uplink_of_its_device_overtake_another() {
    let net = Net::new("eu868", 0).await;
    net.personalize().await;
    let view = FaultStore::new(net.store.clone(), 1, AWAY);
    let worker = net.worker_over("w0", view.clone());
    let mut frames = Vec::new();
    for fcnt in 0..30 {
        frames.push(give(worker.clone(), net.frame(1, CHANNEL, &uplink(fcnt, false), fcnt)));
        frames.push(give(worker.clone(), net.frame(1, 915_000_000, &uplink(fcnt, false), fcnt)));
        tokio::time::sleep(Duration::from_millis(1130)).await;
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    view.set_faults(Faults::default());
    for frame in frames {
        assert_eq!(frame.await.unwrap(), DONE);
    }
    assert_eq!(net.in_the_end().await, (0..30).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_uplink_heard_twice_in_an_outage_costs_none_of_those_in_between() {
    let net = Net::new("eu868", 0).await;
    net.personalize().await;
    let view = FaultStore::new(net.store.clone(), 1, AWAY);
    let worker = net.worker_over("w0", view.clone());
    let mut frames = Vec::new();
    // The last one is replayed by somebody, or flushed by a gateway that had kept it.
    for fcnt in (5..20).chain([5]) {
        frames.push(give(worker.clone(), net.frame(1, CHANNEL, &uplink(fcnt, false), fcnt)));
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    view.set_faults(Faults::default());
    for frame in frames {
        assert_eq!(frame.await.unwrap(), DONE);
    }
    assert_eq!(net.in_the_end().await, (5..20).collect::<Vec<_>>());
}

/// A full disk answers at once: a try that followed at once would keep a processor busy, and fill the log.
#[tokio::test(start_paused = true)]
async fn a_store_that_never_says_what_it_did_is_asked_now_and_then() {
    let net = Net::new("eu868", 0).await;
    net.personalize().await;
    let view = FaultStore::new(net.store.clone(), 1, Faults::default());
    let given = give(net.worker_over("w0", view.clone()), net.frame(1, CHANNEL, &uplink(0, false), 0));
    // It is stored by then, and its copies are waited for.
    tokio::time::sleep(Duration::from_millis(100)).await;
    view.set_faults(Faults { delay: Duration::from_millis(1), lose: 1000, ..Faults::default() });
    let before = view.asked();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let tries = view.asked().writes - before.writes;
    assert!((2..100).contains(&tries), "{tries} writes in 10 s");
    view.set_faults(Faults::default());
    assert_eq!(given.await.unwrap(), DONE);
    assert_eq!(net.webhook.ups().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_keeps_the_sweep_from_nothing_else() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    let store = FaultStore::new(net.store.clone(), 1, Faults::default());
    let mut keys = Vec::new();
    for fcnt in 0..3 {
        let frame = net.frame(1, CHANNEL, &uplink(fcnt, false), 1_000_000 * fcnt);
        for (reception, _) in net.workers[0].parse(1, &frame).await {
            keys.push(reception.key);
            net.store.put_reception(reception).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    store.make_unreadable(keys[1]);
    assert_eq!(sweep(&net.worker_over("w1", store.clone())).await, Some(2));
    assert_eq!(net.webhook.ups().iter().map(|up| up.1).collect::<Vec<_>>(), [0, 2]);
    // All of them: the store is away, and nothing is given up.
    store.set_faults(AWAY);
    let stop = tokio_util::sync::CancellationToken::new();
    assert!(net.worker_over("w2", store).sweep(UnixMicros(0), sweep::SETTLED_AFTER, &stop).await.is_err());
}
