//! An application with two URLs, one of which is dead: the other is told everything once, and in time.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use limpet_shared::{Eui64, admin::Reply, admin::Request};

use crate::{
    account::settle,
    cluster::Cluster,
    collector::Collector,
    field::{Devices, Field, Load},
    millis,
    on_cql::engine_if_full,
    support::eventually,
    turn,
};

const DEVICES: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_url_repeats_and_delays_nothing_at_its_neighbour() {
    let _turn = turn().await;
    one_of_two_is_dead(Cluster::up().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_url_repeats_and_delays_nothing_at_its_neighbour_on_cql() {
    let _turn = turn().await;
    let Some(engine) = engine_if_full(1, "127.0.29") else { return };
    one_of_two_is_dead(Cluster::apart_on(&["alpha", "beta"], engine.store("urls")).await).await;
}

async fn one_of_two_is_dead(cluster: Cluster) {
    let (fine, mut dead) = (Collector::start().await, Collector::start().await);
    let both = format!("{},{}", dead.url(), fine.url());
    let numbers = 1..DEVICES + 1;
    let devices = Devices { numbers, application: Some("two"), webhook: &both, collisions: true };
    let field = Field::of_application(&cluster, vec![Eui64(0x024c_5000_0000_0001)], devices).await;
    field.linked().await;
    let field = Arc::new(field);
    dead.close().await;
    let load = Load::start(&field, 20, 0);
    tokio::time::sleep(millis(4_000)).await;
    dead.answer(StatusCode::NOT_FOUND);
    dead.listen().await;
    tokio::time::sleep(millis(4_000)).await;
    let sent = load.stop().await;
    let account = settle(&sent, &fine).await;
    println!("beside a dead URL: {account}");
    account.assert_all_told();
    account.assert_in_order();
    // What takes longer than an event as it comes is waited for comes again; nothing else does.
    let acked = sent.iter().filter(|sent| sent.is_acked()).count();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let told = fine.count();
    assert!(told < acked + acked / 2, "{acked} uplinks were told {told} times");
    let listed = eventually("the dead URL to be listed as failing", async || {
        let Reply::Integrations { integrations, .. } = cluster.ask(&Request::Integrations { offset: 0 }).await else {
            return None;
        };
        integrations.into_iter().find(|one| one.state == "failing" && one.waiting > 0)
    })
    .await;
    assert_eq!((listed.number, listed.application.as_str()), (1, "two"));
    assert!(dead.url().starts_with(&listed.endpoint) && !listed.endpoint.contains("events"), "{listed:?}");
    assert_eq!(dead.count(), 0);
    dead.answer(StatusCode::OK);
    let account = settle(&sent, &dead).await;
    println!("at the dead one, when it is back: {account}");
    account.assert_all_told();
    account.assert_in_order();
    assert_eq!(fine.count(), told, "nothing comes again at the other");
}
