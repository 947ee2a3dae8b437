//! Calls a script's functions, and reads what comes back, all of it bounded: by the engine's limits while getters of the script
//! run, and by our own.

use rquickjs::{Constructor, Ctx, FromJs, Function, Object as JsObject, Type, Value};
use serde_json::{Number, Value as Json};

use super::Fault;
use crate::{
    CodecError, Encoded, Object,
    js::{Answer, Call, Input},
};

/// What an object may have: values, bytes of text, levels.
const VALUES: usize = 5_000;
const TEXT: usize = 64 * 1024;
const LEVELS: usize = 32;
/// Bytes that an encoder may give; what a device can be sent is less, and is judged where that is known.
const PAYLOAD: usize = 1024;
/// Errors of a script that are told, and the length of a text.
const ERRORS: usize = 10;
const WORDS: usize = 500;

fn unusable<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(CodecError::Answer(why.into()).into())
}

pub(super) fn call<'js>(ctx: &Ctx<'js>, entry: Value<'js>, call: &Call) -> Result<Answer, Fault> {
    let entry = JsObject::from_value(entry)?;
    match call {
        Call::Check => Ok(Answer::Fine),
        Call::Decode(input) => {
            let answer = ask(ctx, &entry, ("decode", "decodeUplink"), input)?;
            let data: Value = answer.get("data")?;
            match (data.type_of(), data.as_object()) {
                (Type::Object, Some(data)) => {
                    Ok(Answer::Object(Reading { values: VALUES, text: TEXT }.object(data, 0)?))
                }
                _ => unusable("decodeUplink did not return 'data'"),
            }
        }
        Call::Encode(input) => {
            let answer = ask(ctx, &entry, ("encode", "encodeDownlink"), input)?;
            let bytes = bytes(&answer.get::<_, Value>("bytes")?)?;
            let f_port: Value = answer.get("fPort")?;
            let f_port = match f_port.as_number() {
                None if f_port.type_of().is_void() => input.f_port,
                Some(port) if (1.0..256.0).contains(&port) && port.fract() == 0.0 => port as u8,
                _ => return unusable("encodeDownlink returned an 'fPort' that is none (1 to 255)"),
            };
            Ok(Answer::Encoded(Encoded { bytes, f_port }))
        }
    }
}

/// Calls one of the functions; its answer is an object without errors.
fn ask<'js>(
    ctx: &Ctx<'js>,
    entry: &JsObject<'js>,
    (key, function): (&str, &'static str),
    input: &Input,
) -> Result<JsObject<'js>, Fault> {
    let Some(called) = entry.get::<_, Option<Function>>(key)? else {
        return Err(CodecError::NoFunction(function).into());
    };
    let values = JsObject::from_value(ctx.json_parse(input.values.as_str())?)?;
    if let Some(at) = input.received_at {
        let date: Constructor = ctx.globals().get("Date")?;
        values.set("recvTime", date.construct::<_, Value>((at as f64,))?)?;
    }
    let answer: Value = called.call((values,))?;
    let answer = match answer.type_of() {
        Type::Promise => return unusable(format!("{function} must not be async")),
        _ => answer.into_object(),
    };
    let Some(answer) = answer else { return unusable(format!("{function} did not return an object")) };
    let errors = errors(&answer.get("errors")?)?;
    if errors.is_empty() {
        Ok(answer)
    } else {
        Err(CodecError::Returned { function, errors: errors.join(", ") }.into())
    }
}

fn errors(value: &Value<'_>) -> Result<Vec<String>, Fault> {
    if let Some(list) = value.as_array() {
        return (0..length(list)?.min(ERRORS)).map(|at| Ok(told(&list.get(at)?))).collect();
    }
    let one = value.as_string().map(|_| told(value));
    Ok(one.filter(|text| !text.is_empty()).into_iter().collect())
}

/// What a list says of itself: the script may have made anything of it, also a number that no memory holds.
fn length(list: &JsObject<'_>) -> Result<usize, Fault> {
    let length: Value = list.get("length")?;
    match length.as_number() {
        Some(length) if length >= 0.0 => Ok(length as usize),
        _ => unusable("the length of an array is no number"),
    }
}

/// What was thrown or is wrong, in words: of an error its name, message and place.
pub(super) fn told(value: &Value<'_>) -> String {
    let mut words = match (value.type_of(), value.as_object()) {
        (Type::Exception, Some(error)) => {
            let text = |key: &str| error.get::<_, Option<String>>(key).ok().flatten().unwrap_or_default();
            let (name, message, stack) = (text("name"), text("message"), text("stack"));
            let place = stack.lines().map(str::trim).find(|line| line.contains("codec:"));
            [
                name,
                if message.is_empty() { String::new() } else { format!(": {message}") },
                place.map(|p| format!(" {p}")).unwrap_or_default(),
            ]
            .concat()
        }
        (_, Some(_)) => format!("an object of type {} was thrown", value.type_name()),
        _ => match value.as_string().map(rquickjs::String::to_string) {
            Some(text) => text.unwrap_or_default(),
            None => rquickjs::Coerced::<String>::from_js(value.ctx(), value.clone())
                .map_or_else(|_| value.type_name().into(), |c| c.0),
        },
    };
    if let Some((end, _)) = words.char_indices().nth(WORDS) {
        words.truncate(end);
    }
    words
}

fn bytes(value: &Value<'_>) -> Result<Vec<u8>, Fault> {
    let Some(list) = value.as_object() else { return unusable("encodeDownlink did not return 'bytes'") };
    if !value.is_array() && list.as_typed_array::<u8>().is_none() {
        return unusable("encodeDownlink did not return 'bytes'");
    }
    let length = length(list)?;
    if length > PAYLOAD {
        return unusable(format!("encodeDownlink returned more than {PAYLOAD} bytes"));
    }
    let byte = |at: usize| {
        let value: Value = list.get(at as u32)?;
        match value.as_number().map(f64::trunc) {
            // Of a negative one the low eight bits, as in an array of bytes.
            Some(number) if (-128.0..256.0).contains(&number) => Ok(number as i16 as u8),
            _ => unusable(format!("bytes[{at}] is {}, and no byte", told(&value))),
        }
    };
    (0..length).map(byte).collect()
}

/// What may still be read.
struct Reading {
    values: usize,
    text: usize,
}

impl Reading {
    fn object(&mut self, object: &JsObject<'_>, level: usize) -> Result<Object, Fault> {
        let mut all = Object::new();
        for property in object.props::<String, Value>() {
            let (key, value) = property?;
            self.take_text(key.len())?;
            all.insert(key, self.value(&value, level + 1)?);
        }
        Ok(all)
    }

    /// As ChirpStack has it: what JSON has no word for is null.
    fn value(&mut self, value: &Value<'_>, level: usize) -> Result<Json, Fault> {
        self.values = match self.values.checked_sub(1) {
            Some(left) if level <= LEVELS => left,
            Some(_) => return unusable(format!("'data' has more than {LEVELS} levels")),
            None => return unusable(format!("'data' has more than {VALUES} values")),
        };
        Ok(match value.type_of() {
            Type::Bool => value.as_bool().map_or(Json::Null, Json::Bool),
            Type::Int | Type::Float => number(value.as_number()),
            Type::String => Json::String(self.text(value)?),
            Type::BigInt => self.big(value)?,
            Type::Array => match value.as_array() {
                Some(list) => {
                    let length = length(list)?;
                    if length > self.values {
                        return unusable(format!("'data' has more than {VALUES} values"));
                    }
                    let all: Result<_, Fault> = (0..length).map(|at| self.value(&list.get(at)?, level + 1)).collect();
                    Json::Array(all?)
                }
                None => Json::Null,
            },
            Type::Object => match value.as_object() {
                Some(object) => self.thing(object, level)?,
                None => Json::Null,
            },
            _ => Json::Null,
        })
    }

    /// An object, or a moment, which ChirpStack shows as an empty one.
    fn thing(&mut self, object: &JsObject<'_>, level: usize) -> Result<Json, Fault> {
        let date: Value = object.ctx().globals().get("Date")?;
        if date.is_function() && object.is_instance_of(&date) {
            let text: Function = object.get("toJSON")?;
            let text: Value = text.call((rquickjs::function::This(object.clone()),))?;
            return if text.is_string() { Ok(Json::String(self.text(&text)?)) } else { Ok(Json::Null) };
        }
        Ok(Json::Object(self.object(object, level)?))
    }

    fn text(&mut self, value: &Value<'_>) -> Result<String, Fault> {
        // Half a character, as strings of arbitrary 16-bit units have it, has no place in JSON.
        let text = value.as_string().and_then(|text| text.to_string().ok()).unwrap_or_else(|| "\u{FFFD}".into());
        self.take_text(text.len())?;
        Ok(text)
    }

    /// A number where that is exact.
    fn big(&mut self, value: &Value<'_>) -> Result<Json, Fault> {
        let digits = rquickjs::Coerced::<String>::from_js(value.ctx(), value.clone())?.0;
        self.take_text(digits.len())?;
        let small = digits.parse::<i64>().ok().filter(|small| small.unsigned_abs() <= 1 << 53);
        Ok(small.map_or(Json::String(digits), |small| number(Some(small as f64))))
    }

    fn take_text(&mut self, length: usize) -> Result<(), Fault> {
        match self.text.checked_sub(length) {
            Some(left) => self.text = left,
            None => return unusable(format!("'data' has more than {TEXT} bytes of text")),
        }
        Ok(())
    }
}

/// NaN and the infinities are null, as in JSON.
fn number(value: Option<f64>) -> Json {
    value.and_then(Number::from_f64).map_or(Json::Null, Json::Number)
}
