//! What payloads say, in what an application hears and sends.

use limpet_bench::{GatewayConfig, Received, Uplink};
use serde_json::{Value, json};

use crate::{network::Network, site::Site, support::eventually};

const SCRIPT: &str = r#"
var seen = 0;
function decodeUplink(input) {
  seen += 1;
  if (input.bytes[0] === 0xff) for (;;) {}
  return { data: { level: input.bytes[0] / 2, port: input.fPort, text: Buffer.from(input.bytes).toString("hex"), seen: seen } };
}
function encodeDownlink(input) {
  if (!input.data.text) return { bytes: [], errors: ["no text"] };
  return { bytes: Buffer.from(input.data.text, "hex"), fPort: 21 };
}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_hears_and_says_in_words_what_devices_have_in_bytes() {
    let network = Network::up().await;
    let mut device = network.abp();
    let mut site = Site::start(vec![GatewayConfig::new(network.gateway(), network.gwmp)]).await;
    let dev_eui = device.dev_eui();
    network.api.set_codec(dev_eui, SCRIPT).await;
    let refused = network.api.enqueue_object(dev_eui, 3, &[]).await.unwrap_err();
    assert_eq!(refused.message(), "object: encodeDownlink returned errors: no text");

    let object = |payload: &[u8]| json!({"level": f64::from(payload[0]) / 2.0, "port": 5.0, "text": hex::encode(payload), "seen": 1.0});
    let payloads = [&[42, 1][..], &[43], &[0xff, 7], &[44]];
    for (number, payload) in payloads.into_iter().enumerate() {
        network.api.enqueue_object(dev_eui, 3, &[("text", "01fe")]).await.unwrap();
        let packet =
            device.uplink(&Uplink { fport: Some(5), payload: payload.to_vec(), ..Default::default() }).unwrap();
        let exchange = site.exchange_with_all(&mut device, &packet).await;
        let (_, received) = exchange.only();
        assert!(
            matches!(received, Received::Data { fport: Some(21), payload, .. } if payload == &[1, 0xfe]),
            "{received:?}"
        );
        let up = eventually("its event", async || network.told("up").get(number).cloned()).await;
        if payload[0] == 0xff {
            assert_eq!(up.body.get("object"), None, "it cannot be told in words, and is told");
            let is_of_codec = |code: &Value| code == "UPLINK_CODEC";
            let told = async || network.told("log").into_iter().find(|log| is_of_codec(&log.body["code"]));
            let log = eventually("why", told).await;
            assert_eq!(
                (&log.body["level"], &log.body["context"]["deduplication_id"]),
                (&json!("ERROR"), &json!(up.id))
            );
            let why = "the script was stopped: it used more than 100ms of processor time";
            assert_eq!(log.body["description"], why);
        } else {
            assert_eq!(up.body["object"], object(payload));
        }
    }
}
