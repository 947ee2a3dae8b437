//! Uplinks that were acknowledged in a session that is over by now.

use limpet_store::{Commit, Freshness};
use limpet_store_testing::fault::{FaultStore, Faults};

use super::*;

/// An uplink of the session's device.
fn uplink_in(session: &Session, fcnt: u32, confirmed: bool) -> Vec<u8> {
    let spec = DataSpec { confirmed, dev_addr: session.key.dev_addr, ..hello(fcnt) };
    lorawan::build_data(&spec, &session.device_keys().into()).unwrap()
}

impl Net {
    /// The device joins; its session as it was made.
    async fn joins_anew(&self, nonce: u16) -> Session {
        let phy = JoinRequest::build(Eui64(9), DEVICE, nonce, &APP_KEY);
        assert_eq!(self.give(0, self.frame(1, CHANNEL, &phy, 7)).await.unwrap(), DONE);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let state = self.store.device_state(DEVICE, Freshness::Serial).await.unwrap();
        self.session(&state.current.unwrap().key).await.session
    }

    /// It is stored, and then all servers are dead.
    async fn stored_only(&self, phy: &[u8]) {
        let view = FaultStore::new(self.store.clone(), 1, Faults::default());
        let dying = give(self.worker_over("dead", view.clone()), self.frame(1, CHANNEL, phy, 5));
        tokio::time::sleep(Duration::from_millis(100)).await;
        view.crash();
        dying.abort();
    }

    fn up_counters(&self) -> Vec<u32> {
        self.webhook.ups().iter().map(|up| up.1).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn an_uplink_is_told_whose_device_has_joined_twice_before_anybody_looked_for_it() {
    let net = Net::new("eu868", 1).await;
    let first = net.joins_anew(1).await;
    assert_eq!(net.give(0, net.frame(1, CHANNEL, &uplink_in(&first, 0, true), 5)).await.unwrap(), DONE);
    for fcnt in 1..4 {
        net.stored_only(&uplink_in(&first, fcnt, true)).await;
    }
    net.joins_anew(2).await;
    let current = net.joins_anew(3).await;
    let downlinks = net.downlinks().len();
    assert_eq!(sweep(&net.worker("w1")).await, Some(3));
    assert_eq!(net.up_counters(), [0, 1, 2, 3]);
    assert_eq!(net.downlinks().len(), downlinks, "nobody listens any more");
    assert_eq!(sweep(&net.worker("w2")).await, Some(0), "nothing is left");
    assert_eq!(net.give(0, net.frame(1, CHANNEL, &uplink_in(&current, 0, false), 5)).await.unwrap(), DONE);
    assert_eq!(net.up_counters(), [0, 1, 2, 3, 0], "and the device goes on");
}

/// Its worker has it, and does not reach the store while the device joins elsewhere.
#[tokio::test(start_paused = true)]
async fn an_uplink_is_told_whose_worker_was_cut_off_from_the_store_while_its_device_has_joined_twice() {
    let net = Net::new("eu868", 1).await;
    let first = net.joins_anew(1).await;
    let view = FaultStore::new(net.store.clone(), 1, Faults::default());
    let given = give(net.worker_over("w1", view.clone()), net.frame(1, CHANNEL, &uplink_in(&first, 0, false), 5));
    tokio::time::sleep(Duration::from_millis(100)).await;
    view.set_faults(Faults { refuse: 1_000, ..Faults::default() });
    for nonce in 2..5 {
        net.joins_anew(nonce).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    view.set_faults(Faults::default());
    assert_eq!(given.await.unwrap(), DONE);
    assert_eq!(net.up_counters(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_over_takes_nothing_that_comes_later_and_answers_nothing() {
    let net = Net::new("eu868", 1).await;
    let first = net.joins_anew(1).await;
    assert_eq!(net.give(0, net.frame(1, CHANNEL, &uplink_in(&first, 0, true), 5)).await.unwrap(), DONE);
    net.joins_anew(2).await;
    net.joins_anew(3).await;
    let (row, downlinks) = (net.session(&first.key).await, net.downlinks().len());
    let over = row.session.over.unwrap();
    assert_eq!((over.keys, row.session.answer.is_closed()), (first.keys, true));
    assert!(row.session.keys != first.keys, "nobody decides a downlink with them");
    net.enqueue("one", b"hello").await;
    // Also the one that was accepted before, repeated by its device or by somebody.
    for fcnt in [0, 1] {
        assert_eq!(net.give(0, net.frame(1, CHANNEL, &uplink_in(&first, fcnt, true), 5)).await.unwrap(), DONE);
    }
    assert_eq!((net.up_counters(), net.downlinks().len()), (vec![0], downlinks));
    assert_eq!(net.session(&first.key).await.session, row.session, "nothing is written");
}

#[tokio::test(start_paused = true)]
async fn a_session_is_over_for_good_when_receptions_of_its_time_are() {
    let net = Net::new("eu868", 1).await;
    let first = net.joins_anew(1).await.key;
    let second = net.joins_anew(2).await.key;
    net.joins_anew(3).await;
    tokio::time::sleep(RECEPTIONS_KEPT - Duration::from_secs(60)).await;
    net.joins_anew(4).await;
    let is_there = async |key| net.store.session(&key, Freshness::Serial).await.unwrap().is_some();
    assert_eq!((is_there(first).await, is_there(second).await), (true, true));
    tokio::time::sleep(Duration::from_secs(60)).await;
    net.joins_anew(5).await;
    assert_eq!((is_there(first).await, is_there(second).await), (false, true));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_joins_without_end_keeps_few_sessions() {
    let net = Net::new("eu868", 1).await;
    let mut keys = Vec::new();
    for nonce in 1..40 {
        keys.push(net.joins_anew(nonce).await.key);
    }
    let mut kept = 0;
    for key in &keys {
        kept += usize::from(net.store.session(key, Freshness::Serial).await.unwrap().is_some());
    }
    assert_eq!(kept, 10, "the current one, the one before, and 8 that are over");
}

/// It was activated by hand, with keys that may come again.
#[tokio::test(start_paused = true)]
async fn what_an_activated_session_has_counted_outlives_its_row() {
    let net = Net::new("eu868", 1).await;
    let first = net.joins_anew(1).await.key;
    net.joins_anew(2).await;
    net.joins_anew(3).await;
    // As if it was no join, and had counted on between being read by the join that replaced it and being ended.
    let mut session = net.session(&first).await.session;
    (session.rev, session.joined, session.next_fcnt_down) = (session.rev + 1, false, 700);
    assert_eq!(net.store.commit_session(&session).await.unwrap(), Commit::Applied);
    tokio::time::sleep(RECEPTIONS_KEPT).await;
    net.joins_anew(4).await;
    assert!(net.store.session(&first, Freshness::Serial).await.unwrap().is_none(), "it had its time");
    let state = net.store.device_state(DEVICE, Freshness::Serial).await.unwrap();
    assert_eq!(state.unused_fcnt_down(&session.device_keys()), 700, "no FCntDown under these keys comes again");
}
