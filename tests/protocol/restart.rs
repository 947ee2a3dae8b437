//! The balancer dies and comes back while devices send.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    network::Network,
    support::{Traffic, abp_devices, air, eventually, ids_by_uplink},
};

/// How long devices send in each state of the balancer.
const WHILE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq)]
enum End {
    Terminate,
    Kill,
}

async fn restart(end: End) {
    let mut network = Network::cluster(&["w1", "w2"]).await;
    let gateways = network.gateway_of_each(&["w1", "w2"]);
    let cluster = network.cluster.as_ref().unwrap();
    let devices = abp_devices(cluster, 8, &network.webhook.url());
    let air = air(cluster, &gateways).await;
    let traffic = Traffic::start(&air, devices, Duration::from_millis(400));
    tokio::time::sleep(WHILE).await;

    let balancer = network.cluster_mut().take_balancer();
    match end {
        End::Kill => balancer.kill(),
        End::Terminate => {
            balancer.terminate();
            let stopped = balancer.stopped().await;
            assert!(stopped.status.success(), "{stopped:?}");
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    network.cluster_mut().start_balancer().await;
    for name in ["w1", "w2"] {
        network.cluster.as_ref().unwrap().state(name, "ready").await;
    }
    let acked_before: u64 = air.gateways().iter().map(|gateway| gateway.counters().push_acked).sum();
    eventually("PUSH_ACKs of the balancer that came back", async || {
        let acked: u64 = air.gateways().iter().map(|gateway| gateway.counters().push_acked).sum();
        (acked > acked_before + 40).then_some(())
    })
    .await;
    let acks = traffic.stop().await;
    let acked: Vec<_> = acks.into_iter().filter(|(_, acks)| *acks > 0).map(|(id, _)| id).collect();
    eventually("an event for every uplink with a PUSH_ACK", async || {
        let told = ids_by_uplink(&network.told("up"));
        acked.iter().all(|id| told.contains_key(id)).then_some(())
    })
    .await;
    let told = ids_by_uplink(&network.told("up"));
    let twice: BTreeMap<_, _> = told.iter().filter(|(_, ids)| ids.len() > 1).collect();
    assert!(twice.is_empty(), "told under two ids: {twice:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_that_is_killed_and_comes_back_loses_no_acknowledged_uplink() {
    restart(End::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_that_is_stopped_and_comes_back_loses_no_acknowledged_uplink() {
    restart(End::Terminate).await;
}
