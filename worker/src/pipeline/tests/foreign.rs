//! Frames that are nobody's here, and gateways that the store cannot be asked about.

use limpet_store_testing::fault::{Asked, FaultStore, Faults};

use super::*;

/// Two configured regions have the channel: only the gateway's tag tells which it is.
#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_makes_no_region_ambiguous() {
    let mut net = Net::new("us915_1", 0).await;
    net.personalize().await;
    let mut gateway = net.store.gateway(Eui64(1)).await.unwrap().unwrap().0;
    gateway.tags.insert("region".into(), "us915_1".into());
    net.store.update_gateway(&gateway).await.unwrap();
    let away = FaultStore::new(net.store.clone(), 1, Faults { refuse: 1000, ..Faults::default() });
    // First the one that it is not.
    (net.region, net.besides) = (Region::by_name("us915").unwrap(), vec![net.region]);
    let worker = net.worker_over("w0", away.clone());
    let given = give(worker.clone(), net.frame(1, 903_900_000, &uplink(0, false), 5));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!given.is_finished(), "nothing can be said of it yet");
    away.set_faults(Faults::default());
    assert_eq!(given.await.unwrap(), DONE);
    assert_eq!(net.webhook.ups().len(), 1);
}

/// The frame of a device of another network.
fn stranger(number: u32) -> Vec<u8> {
    let spec = DataSpec { dev_addr: DevAddr(0x2700_0000 + number), ..hello(1) };
    lorawan::build_data(&spec, &Keys { nwk_s_key: AesKey([8; 16]), app_s_key: AesKey([9; 16]) }).unwrap()
}

/// What our own uplinks ask of the store is the same whether nine in ten frames are foreign or none; a foreign one costs one read,
/// its copies nothing, and nothing is written of it.
#[tokio::test(start_paused = true)]
async fn a_foreign_frame_costs_one_read_and_ours_no_more_than_without_it() {
    let net = Net::new("eu868", 0).await;
    net.personalize().await;
    let store = FaultStore::new(net.store.clone(), 1, Faults::default());
    let worker = net.worker_over("w0", store.clone());
    let mut spent = Vec::new();
    let mut asked = store.asked();
    for (round, foreign) in [0, 0, 9].into_iter().enumerate() {
        for n in 0..20 {
            let own = uplink(round as u32 * 20 + n, false);
            let strangers = (0..foreign).map(|i| stranger(round as u32 * 1_000 + n * foreign + i));
            let given = give(worker.clone(), net.frame(1, CHANNEL, &own, n));
            for phy in strangers {
                for gateway in [1, 2] {
                    give(worker.clone(), net.frame(gateway, CHANNEL, &phy, n)).await.unwrap();
                }
            }
            given.await.unwrap();
        }
        let now = store.asked();
        spent.push(Asked { reads: now.reads - asked.reads, writes: now.writes - asked.writes, ..Asked::default() });
        asked = now;
    }
    println!("20 own uplinks: {:?}; with 180 foreign frames, each heard twice: {:?}", spent[1], spent[2]);
    assert_eq!(net.webhook.ups().len(), 60);
    // What is noted of devices and gateways now and then falls into one round or another.
    assert!(spent[2].writes <= spent[1].writes + 10, "nothing is written of 180 strangers");
    let reads = spent[2].reads - spent[1].reads;
    assert!((170..=190).contains(&reads), "{reads} reads for 180 foreign frames");
}
