//! Scripts that loop, eat memory, throw, or answer what nobody can use.

use std::{sync::Arc, time::Duration};

use limpet_codec::{CodecError, Codecs, Limits, Script};
use serde_json::{Value, json};

use super::{decode, decode_of, decoder, encode};

fn codecs() -> Codecs {
    Codecs::new(Limits { memory: 8 * 1024 * 1024, threads: 2, ..Limits::default() })
}

#[tokio::test]
async fn a_script_that_does_not_end_is_stopped_and_then_not_run_for_a_while() {
    let codecs = codecs();
    let loops = [
        "while (true) {}",
        "for (;;) { try { for (;;) {} } catch (e) {} finally { continue } }",
        "return { get data() { for (;;) {} } }",
        "return /^(a+)+$/.test('a'.repeat(40) + 'b')",
        "return { data: { then: [].concat(...new Array(3).fill(0)), x: new Array(4294967295).indexOf(1) } }",
        "throw { get message() { for (;;) {} } , toString() { for (;;) {} } }",
        "class E extends Error { get name() { for (;;) {} } } throw new E('x')",
    ];
    for (id, body) in loops.into_iter().enumerate() {
        let text = decoder(body);
        let error = decode_of(&codecs, (1, id as u128), &text, &[1]).await.unwrap_err();
        assert_eq!(error.label(), if body.starts_with("throw {") { "thrown" } else { "time" }, "{body}: {error}");
    }
    let text = decoder(loops[0]);
    for _ in 0..2 {
        assert_eq!(decode_of(&codecs, (1, 0), &text, &[1]).await.unwrap_err().label(), "time");
    }
    let paused = decode_of(&codecs, (1, 0), &text, &[1]).await.unwrap_err();
    assert_eq!(paused.label(), "paused");
    assert!(
        paused.to_string().ends_with("the script was stopped: it used more than 100ms of processor time"),
        "{paused}"
    );
    let mended = decoder("return { data: { ok: true } }");
    assert_eq!(
        decode_of(&codecs, (1, 0), &mended, &[1]).await,
        Ok(json!({"ok": true})),
        "a changed script is run at once"
    );
}

#[tokio::test]
async fn a_script_that_loops_when_it_is_loaded_is_stopped_too() {
    let await_for_ever =
        "let f = () => Promise.resolve().then(f); f(); f(); await f(); export function decodeUplink() {}";
    for text in ["for (;;) {} function decodeUplink() {}", &await_for_ever.replace("; export", ";\nexport")] {
        let error = decode(&codecs(), text).await.unwrap_err();
        assert_eq!(error.label(), "time", "{error}");
    }
    let never = "await new Promise(() => {});\nexport function decodeUplink() {}";
    assert_eq!(decode(&codecs(), never).await.unwrap_err().label(), "answer");
}

#[tokio::test]
async fn one_that_eats_memory_is_stopped() {
    let codecs = codecs();
    let eaters = [
        "let a = []; for (;;) a.push(new Array(1000).fill(a.length));",
        "let s = 'x'; for (;;) s += s;",
        "return { data: { a: new Uint8Array(1e9) } }",
        "return { data: { a: 'x'.repeat(5e8) } }",
        "let m = new Map(); for (let i = 0; ; i++) m.set(i, {});",
    ];
    for (id, body) in eaters.into_iter().enumerate() {
        let error = decode_of(&codecs, (1, id as u128), &decoder(body), &[1]).await.unwrap_err();
        // What is too long for a string is that before it is too much memory.
        let fine = matches!(error.label(), "memory" | "thrown" | "time");
        assert!(fine, "{body}: {error}");
        assert_eq!(decode_of(&codecs, (1, 99), &decoder("return { data: {} }"), &[1]).await, Ok(json!({})));
    }
    let error = decode_of(&codecs, (1, 0), &decoder(eaters[0]), &[1]).await.unwrap_err();
    assert_eq!(error.to_string(), "the script was stopped: it used more than 8388608 bytes of memory");
}

#[tokio::test]
async fn one_that_calls_itself_without_end_is_an_error_of_its_own() {
    let error = decode(&codecs(), "function f() { return f() + 1 } function decodeUplink() { return f() }").await;
    assert_eq!(error.unwrap_err().label(), "thrown");
    let deep = decoder("let a = {}; for (let i = 0; i < 1e4; i++) a = { a }; return { data: a }");
    let error = decode(&codecs(), &deep).await.unwrap_err();
    assert_eq!(error.to_string(), "'data' has more than 32 levels");
}

#[tokio::test]
async fn what_is_thrown_is_told_with_its_place() {
    let codecs = codecs();
    let told = async |text: &str| decode(&codecs, text).await.unwrap_err().to_string();
    let line = "function decodeUplink(input) {\n  return foo;\n}";
    assert_eq!(told(line).await, "JS error: ReferenceError: foo is not defined at decodeUplink (codec:2:10)");
    assert_eq!(
        told(&decoder("throw new TypeError('no')")).await,
        "JS error: TypeError: no at decodeUplink (codec:1:42)"
    );
    assert_eq!(told(&decoder("throw 'words'")).await, "JS error: words");
    assert_eq!(told(&decoder("throw { a: 1 }")).await, "JS error: an object of type object was thrown");
    let long = told(&decoder("throw new Error('x'.repeat(100000))")).await;
    assert!(long.len() < 600, "{}", long.len());
    let syntax = told("function decodeUplink(input) {\n  return {;\n}").await;
    assert!(syntax.starts_with("JS error: SyntaxError: ") && syntax.contains("codec:2"), "{syntax}");
    assert_eq!(told("var x = 1").await, "the script has no function decodeUplink");
    assert_eq!(told(&decoder("return { errors: ['a', 'b'], data: {} }")).await, "decodeUplink returned errors: a, b");
    assert_eq!(told(&decoder("return { errors: 'one' }")).await, "decodeUplink returned errors: one");
}

#[tokio::test]
async fn what_is_no_object_is_refused() {
    let codecs = codecs();
    let told = async |body: &str| decode(&codecs, &decoder(body)).await.unwrap_err().to_string();
    assert_eq!(told("").await, "decodeUplink did not return an object");
    assert_eq!(told("return 5").await, "decodeUplink did not return an object");
    assert_eq!(told("return null").await, "decodeUplink did not return an object");
    for body in ["return {}", "return { data: [1] }", "return { data: 'x' }", "return { data: null }", "return []"] {
        assert_eq!(told(body).await, "decodeUplink did not return 'data'", "{body}");
    }
    let error = decode(&codecs, "async function decodeUplink() { return { data: {} } }").await.unwrap_err();
    assert_eq!(error.to_string(), "decodeUplink must not be async");
    assert_eq!(told("return { data: { a: new Array(6000).fill(1) } }").await, "'data' has more than 5000 values");
    assert_eq!(told("return { data: { a: 'x'.repeat(70000) } }").await, "'data' has more than 65536 bytes of text");
    assert_eq!(told("let a = {}; a.a = a; return { data: a }").await, "'data' has more than 32 levels");
}

#[tokio::test]
async fn values_without_a_word_in_json_are_null() {
    let body = "return { data: { nan: NaN, inf: -Infinity, un: undefined, f() {}, s: Symbol('x'), e: new Error('x'), \
                date: new Date(0), no: new Date(NaN), bytes: new Uint8Array([1, 2]), half: '\\ud800', map: new Map([[1, 2]]), \
                big: 2n ** 70n, ['__proto__']: { x: 1 }, constructor: 1, zero: -0, proxy: new Proxy({}, {}) } }";
    let expected = json!({
        "nan": null, "inf": null, "un": null, "f": null, "s": null, "e": null, "date": "1970-01-01T00:00:00.000Z",
        "no": null, "bytes": {"0": 1.0, "1": 2.0}, "half": "\u{FFFD}", "map": {}, "big": "1180591620717411303424",
        "__proto__": {"x": 1.0}, "constructor": 1.0, "zero": -0.0, "proxy": null,
    });
    assert_eq!(decode(&codecs(), &decoder(body)).await, Ok(expected));
}

#[tokio::test]
async fn what_is_no_payload_is_refused() {
    let codecs = codecs();
    let ask = async |body: &str| {
        encode(&codecs, &format!("function encodeDownlink(input) {{ {body} }}"), json!({"a": [1, {"b": "c"}]})).await
    };
    let told = async |body: &str| ask(body).await.unwrap_err().to_string();
    assert_eq!(told("return {}").await, "encodeDownlink did not return 'bytes'");
    assert_eq!(told("return { bytes: 'x' }").await, "encodeDownlink did not return 'bytes'");
    assert_eq!(told("return { bytes: [1, 256] }").await, "bytes[1] is 256, and no byte");
    assert_eq!(told("return { bytes: ['1'] }").await, "bytes[0] is 1, and no byte");
    assert_eq!(told("return { bytes: [NaN] }").await, "bytes[0] is NaN, and no byte");
    assert_eq!(told("return { bytes: new Array(1e6) }").await, "encodeDownlink returned more than 1024 bytes");
    assert_eq!(told("return { bytes: new Uint8Array(2000) }").await, "encodeDownlink returned more than 1024 bytes");
    let port = "encodeDownlink returned an 'fPort' that is none (1 to 255)";
    for body in
        ["return { bytes: [], fPort: 0 }", "return { bytes: [], fPort: 256 }", "return { bytes: [], fPort: 'x' }"]
    {
        assert_eq!(told(body).await, port);
    }
    assert_eq!(told("throw new Error('no')").await, "JS error: Error: no at encodeDownlink (codec:1:44)");
    let seen =
        ask("return { bytes: [input.data.a[0], input.data.a[1].b.length, input.fPort, -2, 3.9] }").await.unwrap();
    assert_eq!((seen.bytes, seen.f_port), (vec![1, 1, 10, 254, 3], 10));
}

/// Promise 8: one codec costs the others nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_decode_while_one_tenant_loops() {
    let codecs = Arc::new(codecs());
    let greedy: Vec<_> = (0..40_u128)
        .map(|id| {
            let codecs = codecs.clone();
            tokio::spawn(async move { decode_of(&codecs, (666, id), &decoder("for (;;) {}"), &[1]).await })
        })
        .collect();
    let mut fair = 0;
    for number in 0..50 {
        let text = decoder("return { data: { sum: input.bytes[0] + 1 } }");
        let answer = decode_of(&codecs, (7, 1000), &text, &[number]).await;
        assert_eq!(answer, Ok(json!({"sum": f64::from(number) + 1.0})));
        fair += greedy.iter().filter(|task| task.is_finished()).count().min(1);
    }
    let finished = greedy.iter().filter(|task| task.is_finished()).count();
    assert!(finished < 40, "the others waited for all of the loops ({fair})");
    for task in greedy {
        assert_eq!(task.await.unwrap().unwrap_err().label(), "time");
    }
}

/// The engine has built-in functions that it does not interrupt: this one takes minutes.
#[tokio::test]
async fn what_cannot_be_stopped_costs_one_thread_and_its_tenant() {
    let limits = Limits { time: Duration::from_millis(10), threads: 2, ..Limits::default() };
    let codecs = Codecs::new(limits);
    let hangs = decoder("let a = []; a.length = 4294967295; a.reverse(); return { data: {} }");
    let call = |owner| tokio::time::timeout(Duration::from_secs(60), decode_of(&codecs, (owner, owner), &hangs, &[1]));
    let first = async { call(1).await };
    let other = async {
        for _ in 0..20 {
            let answer: Result<Value, CodecError> =
                decode_of(&codecs, (2, 2), &decoder("return { data: {} }"), &[1]).await;
            assert_eq!(answer, Ok(json!({})));
        }
    };
    let (first, ()) = tokio::join!(first, other);
    let error = first.expect("who asks is told").unwrap_err();
    // On an engine that interrupts it this is an ordinary stop.
    if error.label() == "time" {
        return;
    }
    assert_eq!(error, CodecError::Hangs);
    assert_eq!(decode_of(&codecs, (2, 2), &decoder("return { data: {} }"), &[1]).await, Ok(json!({})));
    let mended = decoder("return { data: {} }");
    assert_eq!(decode_of(&codecs, (1, 5), &mended, &[1]).await, Err(CodecError::Hangs));
    let mended = Script { owner: 1, id: 5, text: &mended };
    assert_eq!(codecs.check(mended).await, Ok(()), "a script that was mended can be saved");
}

/// Lengths are what the script says that they are.
#[tokio::test]
async fn lengths_that_are_none_are_refused() {
    let codecs = codecs();
    let long = "let a = []; a.length = 4294967295;";
    let odd = "let a = new Uint8Array(1); Object.defineProperty(a, 'length', ";
    let throws = "let a = new Uint8Array(1); Object.defineProperty(a, 'length', { get() { throw new Error('no') } });";
    let told = async |body: &str| decode(&codecs, &decoder(body)).await.unwrap_err().to_string();
    for _ in 0..3 {
        assert_eq!(told(&format!("{long} return {{ data: {{ a }} }}")).await, "'data' has more than 5000 values");
        let errors = told(&format!("{long} a[0] = 'x'; return {{ errors: a }}")).await;
        assert!(errors.starts_with("decodeUplink returned errors: x, undefined"), "{errors}");
    }
    let told = async |body: &str| {
        let text = format!("function encodeDownlink(input) {{ {body}; return {{ bytes: a }} }}");
        encode(&codecs, &text, json!({})).await.unwrap_err().to_string()
    };
    for _ in 0..3 {
        assert_eq!(told(long).await, "encodeDownlink returned more than 1024 bytes");
        for value in ["'x'.repeat(7e6)", "-1", "NaN", "{}", "undefined"] {
            let told = told(&format!("{odd}{{ value: {value} }})")).await;
            assert_eq!(told, "the length of an array is no number", "{value}");
        }
        assert!(told(&format!("{odd}{{ value: Infinity }})")).await.ends_with("more than 1024 bytes"));
        assert!(told(throws).await.starts_with("JS error: Error: no"));
    }
}

#[tokio::test]
async fn what_waits_is_bounded_in_bytes() {
    let codecs = Arc::new(codecs());
    let filler = format!("//{}\n", "x".repeat(200_000));
    let text =
        format!("{filler}{}", decoder("for (let end = Date.now() + 20; Date.now() < end;); return { data: {} }"));
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let (codecs, text) = (codecs.clone(), text.clone());
            tokio::spawn(async move { decode_of(&codecs, (1, 1), &text, &[1]).await })
        })
        .collect();
    let mut refused = 0;
    for call in calls {
        refused += usize::from(call.await.unwrap() == Err(CodecError::Busy));
    }
    assert!(refused >= 50, "{refused} of 100 were refused");
}

#[tokio::test]
async fn words_of_memory_are_no_lack_of_it() {
    let told = decode(&codecs(), &decoder("throw new Error('my out of memory')")).await.unwrap_err();
    assert_eq!(told.label(), "thrown");
}
