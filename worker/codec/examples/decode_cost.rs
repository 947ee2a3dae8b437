//! What decoding costs in processor time of all threads, the way to the script's thread and back included:
//! `cargo run --release -p limpet-codec --example decode_cost`.
#![allow(clippy::expect_used, reason = "a measurement that fails says so and ends")]

use std::time::Duration;

use limpet_codec::{Codec, Codecs, Script, Uplink, Variables};
use rustix::time::{ClockId, clock_gettime};

const CHEAP: &str = "function decodeUplink(input) {
  var bytes = input.bytes, data = {};
  data.battery = (bytes[0] << 8 | bytes[1]) / 1000;
  data.temperature = (bytes[2] << 24 >> 16 | bytes[3]) / 100;
  data.humidity = (bytes[4] << 8 | bytes[5]) / 10;
  return { data: data };
}";
const BUFFER: &str = "function decodeUplink(input) {
  var buffer = Buffer.from(input.bytes);
  return { data: { battery: buffer.readUInt16BE(0), temperature: buffer.readInt16BE(2), humidity: buffer.readUInt16BE(4) } };
}";
const POLYFILL: &str = "Array.prototype.second = function () { return this[1] };
function decodeUplink(input) { return { data: { second: input.bytes.second() } } }";

fn used() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

async fn measure(codecs: &Codecs, name: &str, codec: Codec<'_>, calls: u32) {
    let variables = Variables::from([("a".into(), "b".into())]);
    let bytes = [1, 0x67, 1, 0x10, 2, 0x67, 0, 1];
    let uplink = Uplink { bytes: &bytes, f_port: 2, received_at: 1_700_000_000_000, variables: &variables };
    for _ in 0..50 {
        codecs.decode(codec, uplink).await.expect("it decodes");
    }
    let began = used();
    for _ in 0..calls {
        codecs.decode(codec, uplink).await.expect("it decodes");
    }
    let each = (used() - began).as_secs_f64() * 1e6 / f64::from(calls);
    println!("{name:>10}: {each:.1} us of processor time a payload");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let codecs = Codecs::default();
    measure(&codecs, "cayenne", Codec::CayenneLpp, 20_000).await;
    for (id, (name, text)) in [("cheap", CHEAP), ("buffer", BUFFER), ("polyfill", POLYFILL)].into_iter().enumerate() {
        let script = Script { owner: 1, id: id as u128, text };
        measure(&codecs, name, Codec::Js(script), if name == "polyfill" { 1_000 } else { 20_000 }).await;
    }
}
