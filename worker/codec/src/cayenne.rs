//! Cayenne LPP: channel, type, value; one after the other, big-endian. Names and units are ChirpStack's.

use serde_json::{Number, Value};

use crate::{CodecError, Object};

/// A type of value: its number, ChirpStack's name, and of each number in it name, bytes, whether signed, steps per unit.
struct Kind {
    id: u8,
    name: &'static str,
    parts: &'static [Part],
}

struct Part {
    /// Empty where the value is one number.
    name: &'static str,
    bytes: usize,
    signed: bool,
    steps: f64,
}

const fn part(name: &'static str, bytes: usize, signed: bool, steps: f64) -> Part {
    Part { name, bytes, signed, steps }
}

/// In the order in which they are written.
const KINDS: [Kind; 12] = [
    Kind { id: 0, name: "digitalInput", parts: &[part("", 1, false, 1.0)] },
    Kind { id: 1, name: "digitalOutput", parts: &[part("", 1, false, 1.0)] },
    Kind { id: 2, name: "analogInput", parts: &[part("", 2, true, 100.0)] },
    Kind { id: 3, name: "analogOutput", parts: &[part("", 2, true, 100.0)] },
    Kind { id: 101, name: "illuminanceSensor", parts: &[part("", 2, false, 1.0)] },
    Kind { id: 102, name: "presenceSensor", parts: &[part("", 1, false, 1.0)] },
    Kind { id: 103, name: "temperatureSensor", parts: &[part("", 2, true, 10.0)] },
    Kind { id: 104, name: "humiditySensor", parts: &[part("", 1, false, 2.0)] },
    Kind { id: 113, name: "accelerometer", parts: &AXES_THOUSANDTHS },
    Kind { id: 115, name: "barometer", parts: &[part("", 2, false, 10.0)] },
    Kind { id: 134, name: "gyrometer", parts: &AXES_HUNDREDTHS },
    Kind { id: 136, name: "gpsLocation", parts: &LOCATION },
];
const AXES_THOUSANDTHS: [Part; 3] =
    [part("x", 2, true, 1000.0), part("y", 2, true, 1000.0), part("z", 2, true, 1000.0)];
const AXES_HUNDREDTHS: [Part; 3] = [part("x", 2, true, 100.0), part("y", 2, true, 100.0), part("z", 2, true, 100.0)];
const LOCATION: [Part; 3] =
    [part("latitude", 3, true, 10_000.0), part("longitude", 3, true, 10_000.0), part("altitude", 3, true, 100.0)];

fn wrong(why: impl Into<String>) -> CodecError {
    CodecError::Cayenne(why.into())
}

/// What the payload says, as `{"temperatureSensor": {"3": 27.2}}`.
pub(crate) fn decode(mut bytes: &[u8]) -> Result<Object, CodecError> {
    let mut object = Object::new();
    while let [channel, id, rest @ ..] = bytes {
        let kind = KINDS.iter().find(|kind| kind.id == *id).ok_or_else(|| wrong(format!("type {id} is not known")))?;
        bytes = rest;
        let mut value = Object::new();
        let mut single = None;
        for part in kind.parts {
            let (taken, rest) = bytes
                .split_at_checked(part.bytes)
                .ok_or_else(|| wrong(format!("the payload ends within {} of channel {channel}", kind.name)))?;
            bytes = rest;
            let number = Number::from_f64(part.read(taken)).map_or(Value::Null, Value::Number);
            if part.name.is_empty() {
                single = Some(number);
            } else {
                value.insert(part.name.into(), number);
            }
        }
        let of_kind = object.entry(kind.name).or_insert_with(|| Value::Object(Object::new()));
        if let Value::Object(channels) = of_kind {
            channels.insert(channel.to_string(), single.unwrap_or(Value::Object(value)));
        }
    }
    // ChirpStack passes over a single byte at the end.
    Ok(object)
}

/// The payload that says the same.
pub(crate) fn encode(object: &Object) -> Result<Vec<u8>, CodecError> {
    if let Some(name) = object.keys().find(|name| !KINDS.iter().any(|kind| kind.name == name.as_str())) {
        return Err(wrong(format!("{name} is no type of value")));
    }
    let mut bytes = Vec::new();
    for kind in &KINDS {
        let Some(of_kind) = object.get(kind.name) else { continue };
        let channels = of_kind.as_object().ok_or_else(|| wrong(format!("{} must have channels", kind.name)))?;
        let mut sorted = Vec::new();
        for (channel, value) in channels {
            let number: u8 =
                channel.parse().map_err(|_| wrong(format!("{}.{channel}: a channel is 0 to 255", kind.name)))?;
            sorted.push((number, value));
        }
        sorted.sort_by_key(|(channel, _)| *channel);
        for (channel, value) in sorted {
            bytes.extend([channel, kind.id]);
            for part in kind.parts {
                let at = || {
                    [kind.name, ".", &channel.to_string(), if part.name.is_empty() { "" } else { "." }, part.name]
                        .concat()
                };
                let given = if part.name.is_empty() { Some(value) } else { value.get(part.name) };
                let given = given.and_then(Value::as_f64).ok_or_else(|| wrong(format!("{} must be a number", at())))?;
                bytes.extend(part.write(given).ok_or_else(|| wrong(format!("{}: {given} is out of range", at())))?);
            }
        }
    }
    Ok(bytes)
}

impl Part {
    fn read(&self, bytes: &[u8]) -> f64 {
        let fill = if self.signed && bytes.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
        let steps = bytes.iter().fold(fill, |all: i64, byte| all << 8 | i64::from(*byte));
        steps as f64 / self.steps
    }

    /// To the nearest step.
    fn write(&self, value: f64) -> Option<impl Iterator<Item = u8>> {
        let steps = (value * self.steps).round();
        let values = 1_i64 << (8 * self.bytes);
        let (least, most) = if self.signed { (-values / 2, values / 2 - 1) } else { (0, values - 1) };
        if !(least as f64..=most as f64).contains(&steps) {
            return None;
        }
        let bytes = (steps as i64).to_be_bytes();
        Some(bytes.into_iter().skip(8 - self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        value.as_object().unwrap().clone()
    }

    /// Bytes and what they say. Those of temperature, accelerometer and location are the examples of the format's description.
    fn examples() -> Vec<(Vec<u8>, Value)> {
        vec![
            (vec![3, 0, 100, 5, 0, 10], json!({"digitalInput": {"3": 100.0, "5": 10.0}})),
            (vec![3, 1, 100], json!({"digitalOutput": {"3": 100.0}})),
            (vec![3, 2, 4, 5, 5, 2, 0xFC, 0], json!({"analogInput": {"3": 10.29, "5": -10.24}})),
            (vec![1, 3, 0, 27], json!({"analogOutput": {"1": 0.27}})),
            (vec![3, 101, 0, 100, 5, 101, 0xFF, 0xFF], json!({"illuminanceSensor": {"3": 100.0, "5": 65535.0}})),
            (vec![3, 102, 1], json!({"presenceSensor": {"3": 1.0}})),
            (vec![3, 0x67, 0x01, 0x10, 5, 0x67, 0x00, 0xFF], json!({"temperatureSensor": {"3": 27.2, "5": 25.5}})),
            (vec![1, 0x67, 0xFF, 0xD7], json!({"temperatureSensor": {"1": -4.1}})),
            (vec![3, 104, 41, 5, 104, 255], json!({"humiditySensor": {"3": 20.5, "5": 127.5}})),
            (
                vec![6, 0x71, 0x04, 0xD2, 0xFB, 0x2E, 0x00, 0x00],
                json!({"accelerometer": {"6": {"x": 1.234, "y": -1.234, "z": 0.0}}}),
            ),
            (vec![3, 115, 4, 31], json!({"barometer": {"3": 105.5}})),
            (vec![3, 134, 0, 1, 0, 2, 0xFF, 0xFD], json!({"gyrometer": {"3": {"x": 0.01, "y": 0.02, "z": -0.03}}})),
            (
                vec![1, 0x88, 0x06, 0x76, 0x5F, 0xF2, 0x96, 0x0A, 0x00, 0x03, 0xE8],
                json!({"gpsLocation": {"1": {"latitude": 42.3519, "longitude": -87.9094, "altitude": 10.0}}}),
            ),
        ]
    }

    #[test]
    fn examples_are_read_and_written() {
        for (bytes, said) in examples() {
            assert_eq!(decode(&bytes).unwrap(), object(said.clone()), "{bytes:02x?}");
            assert_eq!(encode(&object(said)).unwrap(), bytes);
        }
    }

    #[test]
    fn whatever_is_read_is_written_alike() {
        for kind in &KINDS {
            let size: usize = kind.parts.iter().map(|part| part.bytes).sum();
            for first in 0..=255 {
                let mut bytes = vec![9, kind.id];
                bytes.extend((0..size).map(|at| (first as u8).wrapping_add((at as u8).wrapping_mul(85))));
                assert_eq!(encode(&decode(&bytes).unwrap()).unwrap(), bytes, "{}", kind.name);
            }
        }
    }

    #[test]
    fn what_is_no_cayenne_is_refused_by_name() {
        let read = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
        assert_eq!(read(&[1, 99, 0]), "Cayenne LPP: type 99 is not known");
        assert_eq!(read(&[1, 0x67, 0]), "Cayenne LPP: the payload ends within temperatureSensor of channel 1");
        assert_eq!(decode(&[1, 0, 1, 7]).unwrap(), object(json!({"digitalInput": {"1": 1.0}})));
        assert_eq!(decode(&[]).unwrap(), Object::new());
        let write = |value: Value| encode(&object(value)).unwrap_err().to_string();
        assert_eq!(write(json!({"warmth": {}})), "Cayenne LPP: warmth is no type of value");
        assert_eq!(write(json!({"digitalInput": 3})), "Cayenne LPP: digitalInput must have channels");
        assert_eq!(write(json!({"digitalInput": {"256": 1}})), "Cayenne LPP: digitalInput.256: a channel is 0 to 255");
        assert_eq!(write(json!({"digitalInput": {"1": "x"}})), "Cayenne LPP: digitalInput.1 must be a number");
        assert_eq!(write(json!({"digitalInput": {"1": 256}})), "Cayenne LPP: digitalInput.1: 256 is out of range");
        let half = json!({"gpsLocation": {"1": {"latitude": 1.0, "longitude": 2}}});
        assert_eq!(write(half), "Cayenne LPP: gpsLocation.1.altitude must be a number");
    }
}
