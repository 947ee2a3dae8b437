//! A worker that is told to end while it has work.

use std::sync::Arc;

use limpet_shared::Eui64;

use crate::{
    account::settle,
    cluster::Cluster,
    collector::Collector,
    field::{Field, Load},
    millis, rate, sized, turn_alone,
};

/// Every so many uplinks one is confirmed: 20 a second are what the queues of six gateways hold with ease.
const CONFIRMED: u32 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_worker_finishes_what_it_holds_and_ends_well() {
    let _turn = turn_alone().await;
    let collector = Collector::start().await;
    let mut cluster = Cluster::apart(&["alpha", "beta"]).await;
    let gateways = cluster.gateways_of_each(3).await;
    let field = Arc::new(Field::new(&cluster, &gateways, rate(), &collector.url()).await);
    field.linked().await;
    let load = Load::start(&field, rate(), CONFIRMED);
    for round in 0..sized(4, 2) {
        tokio::time::sleep(millis(3_000)).await;
        let stopped = cluster.terminate_worker(round % 2).await;
        assert!(stopped.status.success(), "{:?}: {:#?}", stopped.status, stopped.lines);
        tokio::time::sleep(millis(1_000)).await;
        cluster.start_worker(round % 2);
        cluster.ready(round % 2).await;
    }
    tokio::time::sleep(millis(3_000)).await;
    let sent = load.stop().await;
    let account = settle(&sent, &collector).await;
    println!("workers terminated: {account}");
    println!("  refused {:?}; unheard {}", field.refused(), field.strays());
    account.assert_all_told();
    assert_eq!(account.unacked, 0, "a PUSH_ACK was not sent: {account}");
    account.assert_all_answered();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_limpet_up_answers_what_it_took_and_ends_well() {
    let _turn = turn_alone().await;
    let collector = Collector::start().await;
    let mut cluster = Cluster::up().await;
    let halves: Vec<Vec<Eui64>> = [1, 4].map(|from| (from..from + 3).map(Eui64).collect()).to_vec();
    let field = Arc::new(Field::new(&cluster, &halves, rate(), &collector.url()).await);
    field.linked().await;
    let load = Load::start(&field, rate(), CONFIRMED);
    for _ in 0..sized(3, 1) {
        tokio::time::sleep(millis(3_000)).await;
        let stopped = cluster.terminate_edge().await;
        assert!(stopped.status.success(), "{:?}: {:#?}", stopped.status, stopped.lines);
        cluster.start_edge().await;
    }
    tokio::time::sleep(millis(2_000)).await;
    let sent = load.stop().await;
    let account = settle(&sent, &collector).await;
    println!("`limpet up` terminated: {account}");
    account.assert_nothing_lost_or_doubled();
}
