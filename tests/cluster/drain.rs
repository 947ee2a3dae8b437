//! A worker that is told to end while it has work.

use std::{sync::Arc, time::Duration};

use crate::{
    account::settle,
    cluster::Cluster,
    collector::Collector,
    field::{Field, Load},
    full, millis, rate, sized, turn,
};

/// Every so many uplinks one is confirmed: 20 a second are what the queues of six gateways hold with ease.
const CONFIRMED: u32 = 10;
const SLOW: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_worker_finishes_what_it_holds_and_ends_well() {
    let _turn = turn().await;
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
    let confirmed: Vec<_> = sent.iter().filter(|sent| sent.confirmed).collect();
    let unanswered: Vec<_> = confirmed.iter().filter(|sent| sent.answered.is_none()).map(|sent| sent.uplink).collect();
    println!("workers terminated: {account}");
    let (refused, strays) = (field.refused(), field.strays());
    println!(
        "  {} confirmed, {} without an ACK; refused {refused:?}; unheard {strays}",
        confirmed.len(),
        unanswered.len()
    );
    account.assert_all_told();
    assert_eq!(account.unacked, 0, "a PUSH_ACK was not sent: {account}");
    // A machine that needs this long for a PUSH_ACK may need too long for a receive window.
    let had_time = account.push_acks.last().is_some_and(|slowest| *slowest < SLOW);
    assert!(unanswered.is_empty() || !(had_time || full()), "without an ACK: {unanswered:?}; refused {refused:?}");
}
