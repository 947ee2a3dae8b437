//! A network that an earlier version has left: this one starts on its store, and its devices go on as if nothing had happened.

use std::fs;

use limpet_bench::{GatewayConfig, Received, Uplink, VirtualDevice};
use limpet_shared::{AesKey, DevAddr, Eui64, lorawan::Keys};
use rusqlite::Connection;

use crate::{network::Network, site::Site, support::eventually};

/// What commit e024af5 had written when it was stopped.
const STORE: &str = include_str!("../fixtures/e024af5.sql");
/// Where its application's events went, which was away at the end.
const WEBHOOK: &str = "http://127.0.0.1:28878/events";
const GATEWAY: Eui64 = Eui64(0x0250_0000_0000_0001);

/// A device where it was: its next FCntUp is 4, and it has heard FCntDown 1.
fn device(number: u32, dev_addr: u32, keys: [&str; 2]) -> VirtualDevice {
    let [nwk_s_key, app_s_key] = keys.map(|key| key.parse::<AesKey>().unwrap());
    let mut device = VirtualDevice::abp(Network::config(number), DevAddr(dev_addr), Keys { nwk_s_key, app_s_key });
    let session = device.session_mut().unwrap();
    (session.fcnt_up, session.next_fcnt_down) = (4, 2);
    device
}

async fn exchange(site: &mut Site, device: &mut VirtualDevice, confirmed: bool) -> Received {
    let uplink = Uplink { confirmed, fport: Some(5), payload: b"on".to_vec(), ..Default::default() };
    let packet = device.uplink(&uplink).unwrap();
    let exchange = site.exchange_with_all(device, &packet).await;
    exchange.only().1.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_of_a_store_of_an_earlier_version_go_on_without_a_join() {
    let network = Network::up_on(|data, webhook| {
        let store = data.join("store");
        fs::create_dir_all(&store).unwrap();
        let statements = STORE.replace(WEBHOOK, &webhook.url());
        Connection::open(store.join("state.db")).unwrap().execute_batch(&statements).unwrap();
    })
    .await;
    // What waited is told first, as it was.
    eventually("what waited", async || {
        (network.told("up").len() == 2 && network.told("txack").len() == 1).then_some(())
    })
    .await;
    for up in network.told("up") {
        assert_eq!((up.f_cnt, up.body["data"].as_str()), (3, Some("d2FpdHM=")), "{up:?}");
    }
    let mut site = Site::start(vec![GatewayConfig::new(GATEWAY, network.gwmp)]).await;
    let mut abp = device(2, 0x0100_0002, ["02020202020202020202020202020202", "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"]);
    let mut otaa = device(3, 0x01b9_758d, ["ba870e0fcbea868da153c9c82914e1a5", "614ba31aa6f0c1e97aa9956771454ffd"]);
    // Its queue goes down, in order, and no FCntDown comes again: the device takes none twice.
    for data in [&b"two"[..], b"three"] {
        let heard = exchange(&mut site, &mut abp, false).await;
        assert!(matches!(&heard, Received::Data { fport: Some(7), payload, .. } if payload == data), "{heard:?}");
    }
    eventually("an empty queue", async || (network.api.queue_length(abp.dev_eui()).await == 0).then_some(())).await;
    let heard = exchange(&mut site, &mut otaa, true).await;
    assert!(matches!(heard, Received::Data { ack: true, fcnt: 2, .. }), "{heard:?}");
    let told = network.ups(5).await;
    let of = |device: &VirtualDevice| {
        let eui = device.dev_eui().to_string();
        told.iter().filter(|up| up.dev_eui == eui).map(|up| up.f_cnt).collect::<Vec<_>>()
    };
    assert_eq!((of(&abp), of(&otaa)), (vec![3, 4, 5], vec![3, 4]));
    assert!(network.told("join").is_empty(), "nobody had to join");
}
