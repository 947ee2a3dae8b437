//! Scripts in the styles that are found, each with examples of what it makes of what.

use std::{fs, path::Path};

use limpet_codec::{Codec, Codecs, Downlink, Script, Uplink, Variables};
use serde_json::Value;

/// All numbers as fractions: that is what they are in events.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap()),
        Value::Array(list) => list.iter().map(plain).collect(),
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        other => other.clone(),
    }
}

fn bytes_of(example: &Value) -> Vec<u8> {
    let text = example["bytes"].as_str().unwrap_or_default();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn variables_of(example: &Value) -> Variables {
    let given = example["variables"].as_object().cloned().unwrap_or_default();
    given.into_iter().map(|(key, value)| (key, value.as_str().unwrap().to_string())).collect()
}

fn port_of(example: &Value) -> u8 {
    example["fPort"].as_u64().unwrap().try_into().unwrap()
}

async fn uplink(codecs: &Codecs, script: Script<'_>, example: &Value) {
    let (bytes, variables) = (bytes_of(example), variables_of(example));
    let received_at = example["recvTime"].as_u64().unwrap_or_default();
    let uplink = Uplink { bytes: &bytes, f_port: port_of(example), received_at, variables: &variables };
    match (codecs.decode(Codec::Js(script), uplink).await, example["error"].as_str()) {
        (Ok(object), None) => assert_eq!(Value::Object(object.unwrap()), plain(&example["data"]), "{example}"),
        (Err(error), Some(wanted)) => assert!(error.to_string().starts_with(wanted), "{error}, not {wanted}"),
        (found, _) => panic!("{example}: {found:?}"),
    }
}

async fn downlink(codecs: &Codecs, script: Script<'_>, example: &Value) {
    let (data, variables) = (example["data"].as_object().unwrap(), variables_of(example));
    let downlink = Downlink { data, f_port: port_of(example), variables: &variables };
    match (codecs.encode(Codec::Js(script), downlink).await, example["error"].as_str()) {
        (Ok(encoded), None) => {
            assert_eq!(encoded.bytes, bytes_of(example), "{example}");
            assert_eq!(u64::from(encoded.f_port), example["port"].as_u64().unwrap(), "{example}");
        }
        (Err(error), Some(wanted)) => assert!(error.to_string().starts_with(wanted), "{error}, not {wanted}"),
        (found, _) => panic!("{example}: {found:?}"),
    }
}

#[tokio::test]
async fn scripts_in_the_usual_styles_read_and_write_their_examples() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/codec/codecs");
    let codecs = Codecs::default();
    let mut scripts = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "js") {
            continue;
        }
        scripts += 1;
        println!("{}", path.display());
        let text = fs::read_to_string(&path).unwrap();
        let examples: Value = serde_json::from_str(&fs::read_to_string(path.with_extension("json")).unwrap()).unwrap();
        let script = Script { owner: 1, id: scripts, text: &text };
        codecs.check(script).await.unwrap();
        let of = |kind: &str| examples[kind].as_array().cloned().unwrap_or_default();
        // More than once: the first call of a script goes another way than the later ones.
        for _ in 0..3 {
            for example in of("uplinks") {
                uplink(&codecs, script, &example).await;
            }
            for example in of("downlinks") {
                downlink(&codecs, script, &example).await;
            }
        }
    }
    assert!(scripts >= 15, "only {scripts} scripts were found");
}
