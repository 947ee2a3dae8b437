//! A balancer that is killed and started again with what it kept.

use std::sync::Arc;

use rand::Rng;

use crate::{
    account::settle,
    cluster::Cluster,
    collector::Collector,
    field::{Field, Load},
    millis, moments, rate, sized, turn,
};

#[tokio::test(flavor = "multi_thread")]
async fn workers_find_a_balancer_again_that_was_killed_and_nothing_acknowledged_is_lost() {
    let _turn = turn().await;
    let (mut dice, _) = moments();
    let collector = Collector::start().await;
    let mut cluster = Cluster::apart(&["alpha", "beta"]).await;
    let gateways = cluster.gateways_of_each(3).await;
    let field = Arc::new(Field::new(&cluster, &gateways, rate(), &collector.url()).await);
    field.linked().await;
    let load = Load::start(&field, rate(), 0);
    for _ in 0..sized(5, 2) {
        tokio::time::sleep(millis(dice.random_range(1_000..4_000))).await;
        cluster.kill_edge();
        tokio::time::sleep(millis(dice.random_range(0..1_000))).await;
        cluster.start_edge().await;
        cluster.ready(0).await;
        cluster.ready(1).await;
        // Known gateways are served, each by its own worker, without a word from anybody.
        assert_eq!(cluster.ring(gateways[0][0]).await, "alpha");
        assert_eq!(cluster.ring(gateways[1][0]).await, "beta");
    }
    tokio::time::sleep(millis(1_000)).await;
    let last = load.log.len();
    tokio::time::sleep(millis(1_000)).await;
    let sent = load.stop().await;
    let account = settle(&sent, &collector).await;
    println!("balancer killed: {account}");
    account.assert_nothing_lost_or_doubled();
    assert!(sent[last..].iter().all(|sent| sent.is_acked()), "not all is acknowledged again");
}
