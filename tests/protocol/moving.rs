//! A network that is restored from a backup, as its devices see it.

use std::collections::BTreeSet;

use limpet_bench::{GatewayConfig, Received, Uplink, VirtualDevice};
use limpet_shared::Eui64;

use crate::{
    network::Network,
    site::Site,
    support::{ctl, eventually},
};

/// What an import skips unless it is told otherwise.
const SKIP: u32 = 1_000;

/// Sends a confirmed uplink and gives the FCntDown of its ACK.
async fn acknowledged(site: &mut Site, device: &mut VirtualDevice) -> u32 {
    let uplink = Uplink { confirmed: true, fport: Some(5), payload: b"up".to_vec(), ..Default::default() };
    let packet = device.uplink(&uplink).unwrap();
    let exchange = site.exchange_with_all(device, &packet).await;
    // The device takes no FCntDown twice.
    let Received::Data { ack: true, fcnt, .. } = *exchange.only().1 else { panic!("no ACK: {exchange:?}") };
    fcnt
}

async fn site(network: &Network, gateway: Eui64) -> Site {
    Site::start(vec![GatewayConfig::new(gateway, network.gwmp)]).await
}

/// The network went on after the backup; what it sent then is not known to the restored one, and never repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_repeats_no_downlink_counter() {
    let mut network = Network::up().await;
    let gateway = network.gateway();
    let mut before = site(&network, gateway).await;
    let mut device = network.abp();
    let mut joins = network.otaa("1.0.4");
    let request = joins.join().unwrap();
    before.exchange_with_all(&mut joins, &request).await.only();
    let mut used = BTreeSet::new();
    for _ in 0..2 {
        assert!(used.insert(acknowledged(&mut before, &mut device).await));
        acknowledged(&mut before, &mut joins).await;
    }
    let (file, new) = (network.folder().join("backup"), network.folder().join("restored"));
    let (file, old) = (file.to_str().unwrap(), format!("sqlite:{}", network.folder().join("store").display()));
    let new = format!("sqlite:{}", new.display());
    // It runs meanwhile.
    let said = network.ctl(&["export", file, "--store", &old]);
    assert_eq!(said["counts"]["device"], 2, "{said}");
    assert!(!said["running"].as_array().unwrap().is_empty(), "{said}");
    for _ in 0..3 {
        assert!(used.insert(acknowledged(&mut before, &mut device).await));
        acknowledged(&mut before, &mut joins).await;
    }
    let refused = ctl(network.folder(), &["import", file, "--store", &old]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("stop them first"));
    network.stop().await;
    drop(before);

    network.ctl(&["import", file, "--store", &new]);
    network.start_on(&new).await;
    let mut after = site(&network, gateway).await;
    let fcnt = acknowledged(&mut after, &mut device).await;
    assert_eq!(fcnt, 2 + SKIP, "from where the backup was made");
    assert!(used.iter().all(|before| *before < fcnt), "{used:?}");
    assert_eq!(acknowledged(&mut after, &mut joins).await, 2 + SKIP);
    assert_eq!(acknowledged(&mut after, &mut device).await, fcnt + 1);
    // Joining works too: neither DevNonce nor JoinNonce is one that was used.
    let request = joins.join().unwrap();
    after.exchange_with_all(&mut joins, &request).await.only();
    acknowledged(&mut after, &mut joins).await;
    eventually("every uplink to be told", async || (network.told("up").len() == 14).then_some(())).await;
}
