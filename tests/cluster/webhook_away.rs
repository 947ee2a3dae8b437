//! A webhook that is away while a worker dies.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use rand::Rng;

use crate::{
    account::settle,
    cluster::Cluster,
    collector::Collector,
    field::{Field, Load},
    millis, moments, sized, turn,
};

const DEVICES: u32 = 50;

/// In which way it is away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Away {
    RefusesConnections,
    Answers503,
    /// Takes the request and says nothing.
    Hangs,
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_a_webhook_that_refuses_connections_and_come_in_order() {
    away(Away::RefusesConnections).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_a_webhook_that_answers_503_and_come_in_order() {
    away(Away::Answers503).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_a_webhook_that_never_answers_and_come_in_order() {
    away(Away::Hangs).await;
}

async fn away(how: Away) {
    let _turn = turn().await;
    let (mut dice, _) = moments();
    let mut collector = Collector::start().await;
    let mut cluster = Cluster::apart(&["alpha", "beta"]).await;
    let gateways = cluster.gateways_of_each(3).await;
    let field = Arc::new(Field::new(&cluster, &gateways, DEVICES, &collector.url()).await);
    field.linked().await;
    // Each device sends once a second, or four times.
    let load = Load::start(&field, sized(200, DEVICES), 0);
    tokio::time::sleep(millis(2_000)).await;
    match how {
        Away::RefusesConnections => collector.close().await,
        Away::Answers503 => collector.answer(StatusCode::SERVICE_UNAVAILABLE),
        Away::Hangs => collector.hang(),
    }
    let told_before = collector.count();
    let down_for = Duration::from_secs(sized(30, 8));
    let before = millis(dice.random_range(1_000..3_000));
    tokio::time::sleep(before).await;
    let victim = dice.random_range(0..2);
    cluster.kill_worker(victim);
    let dead_for = millis(dice.random_range(1_000..4_000));
    tokio::time::sleep(dead_for).await;
    cluster.start_worker(victim);
    tokio::time::sleep(down_for - before - dead_for).await;
    match how {
        Away::RefusesConnections => {
            assert_eq!(collector.count(), told_before, "it was not away");
            collector.listen().await;
        }
        Away::Answers503 | Away::Hangs => {
            assert!(collector.refused() > 0, "nobody tried");
            collector.answer(StatusCode::OK);
        }
    }
    tokio::time::sleep(millis(2_000)).await;
    let sent = load.stop().await;
    let account = settle(&sent, &collector).await;
    println!("webhook away ({how:?}): {account}");
    account.assert_all_told();
    account.assert_in_order();
}
