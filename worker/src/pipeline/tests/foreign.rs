//! Frames that are nobody's here, and gateways that the store cannot be asked about.

use limpet_store::fault::{FaultStore, Faults};

use super::*;

/// Two configured regions have the channel: only the gateway's tag tells which it is.
#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_makes_no_region_ambiguous() {
    let net = Net::new("us915_1", 0).await;
    net.personalize().await;
    let mut gateway = net.store.gateway(Eui64(1)).await.unwrap().unwrap().0;
    gateway.tags.insert("region".into(), "us915_1".into());
    net.store.update_gateway(&gateway).await.unwrap();
    let away = FaultStore::new(net.store.clone(), 1, Faults { refuse: 1000, ..Faults::default() });
    let regions = Regions::new(["us915", "us915_1"].map(|name| Region::by_name(name).unwrap()).into(), false);
    let worker = Pipeline::new(
        away.clone(),
        net.webhook.clone(),
        net.edge.clone(),
        net.clock.clone(),
        regions,
        Metrics::new().unwrap(),
        "w0".into(),
        0,
    );
    let given = give(worker.clone(), net.frame(1, 903_900_000, &uplink(0, false), 5));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!given.is_finished(), "nothing can be said of it yet");
    away.set_faults(Faults::default());
    assert_eq!(given.await.unwrap(), DONE);
    assert_eq!(net.webhook.ups().len(), 1);
}
