//! `limpet up` that is killed: balancer and worker together.

use std::sync::Arc;

use limpet_shared::Eui64;
use rand::Rng;

use crate::{
    account::settle,
    cluster::Cluster,
    collector::Collector,
    field::{Field, Load},
    millis, moments, rate, sized, turn,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_limpet_up_acknowledged_is_told_once() {
    let _turn = turn().await;
    let (mut dice, _) = moments();
    let collector = Collector::start().await;
    let mut cluster = Cluster::up().await;
    let gateways: Vec<Eui64> = (1..=6).map(|number| Eui64(0x024c_5000_0000_0000 + number)).collect();
    let halves: Vec<Vec<Eui64>> = gateways.chunks(3).map(<[Eui64]>::to_vec).collect();
    let field = Arc::new(Field::new(&cluster, &halves, rate(), &collector.url()).await);
    field.linked().await;
    let load = Load::start(&field, rate(), 0);
    for _ in 0..sized(10, 3) {
        tokio::time::sleep(millis(dice.random_range(500..4_000))).await;
        cluster.kill_edge();
        tokio::time::sleep(millis(dice.random_range(0..500))).await;
        cluster.start_edge().await;
    }
    tokio::time::sleep(millis(1_000)).await;
    let sent = load.stop().await;
    let account = settle(&sent, &collector).await;
    println!("`limpet up` killed: {account}");
    account.assert_nothing_lost_or_doubled();
}
