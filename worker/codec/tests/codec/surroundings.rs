//! What a script finds, and that it finds nothing of an earlier call.

use limpet_codec::{Codec, Codecs, Limits, Script, Uplink, Variables};
use serde_json::json;

use super::{decode, decode_of, decoder};

fn codecs() -> Codecs {
    // One thread, so that calls meet.
    Codecs::new(Limits { threads: 1, ..Limits::default() })
}

#[tokio::test]
async fn a_decoder_gets_what_chirpstack_gives_it() {
    let body = "var buff = new Buffer(input.bytes); return { data: { f_port: input.fPort, variables: input.variables, \
                data_hex: buff.toString('hex'), data: input.bytes, recv_time: input.recvTime.toISOString(), \
                is_date: input.recvTime instanceof Date, is_array: Array.isArray(input.bytes) } }";
    let expected = json!({
        "f_port": 10.0, "variables": {"foo": "bar"}, "data_hex": "010203", "data": [1.0, 2.0, 3.0],
        "recv_time": "2014-07-08T09:10:11.000Z", "is_date": true, "is_array": true,
    });
    let codecs = codecs();
    for _ in 0..3 {
        assert_eq!(decode(&codecs, &decoder(body)).await.as_ref(), Ok(&expected));
    }
}

#[tokio::test]
async fn names_of_variables_are_only_names() {
    let codecs = codecs();
    let variables = Variables::from([("__proto__".into(), "x".into()), ("constructor".into(), "y".into())]);
    let text = decoder("return { data: { keys: Object.keys(input.variables), a: input.variables['__proto__'] } }");
    for _ in 0..3 {
        let uplink = Uplink { bytes: &[], f_port: 1, received_at: 0, variables: &variables };
        let object = codecs.decode(Codec::Js(Script { owner: 1, id: 1, text: &text }), uplink).await.unwrap().unwrap();
        assert_eq!(serde_json::Value::Object(object), json!({"keys": ["__proto__", "constructor"], "a": "x"}));
    }
}

/// Each way of keeping something that was thought of. Every call must see what the first one saw.
#[tokio::test]
async fn nothing_is_left_for_the_next_call() {
    let ways = [
        "var n = 0; function decodeUplink() { n++; return { data: { n } } }",
        "let n = 0; const decodeUplink = () => { n += 1; return { data: { n } } }",
        "function decodeUplink() { decodeUplink.n = (decodeUplink.n || 0) + 1; return { data: { n: decodeUplink.n } } }",
        "n = 0; function decodeUplink() { n++; return { data: { n } } }",
        "function decodeUplink() { n = typeof n === 'undefined' ? 1 : n + 1; return { data: { n } } }",
        "function decodeUplink() { this.n = (this.n || 0) + 1; return { data: { n: this.n } } }",
        "function decodeUplink() { globalThis.n = (globalThis.n || 0) + 1; return { data: { n: globalThis.n } } }",
        "function decodeUplink() { Math.n = (Math.n || 0) + 1; return { data: { n: Math.n } } }",
        "function decodeUplink() { var m = Math; m.n = (m.n || 0) + 1; return { data: { n: m.n || 1 } } }",
        "function decodeUplink() { var p = [].constructor.prototype; p.n = (p.n || 0) + 1; return { data: { n: p.n || 1 } } }",
        "function decodeUplink(i) { var p = Object.getPrototypeOf(i); p.n = (p.n || 0) + 1; return { data: { n: p.n || 1 } } }",
        "function* g() {} function decodeUplink() { var p = Object.getPrototypeOf(Object.getPrototypeOf(g())); \
         p.n = (p.n || 0) + 1; return { data: { n: p.n || 1 } } }",
        "var E = Error; function decodeUplink() { var k = 'prepareStackTrace'; var n = E[k] ? 2 : 1; E[k] = () => 'x'; return { data: { n } } }",
        "function decodeUplink() { var k = 'setProto' + 'typeOf', g = (function () { return this })(); var n = g.n || 1; \
         try { Object[k](g, { n: 2 }) } catch (e) {} return { data: { n } } }",
        "function decodeUplink() { var n = (0, eval)('typeof kept === \"undefined\" ? 1 : 2'); (0, eval)('let kept = 1; var kept2 = 2'); return { data: { n } } }",
        "function decodeUplink() { var F = decodeUplink.constructor; var n = F('return typeof kept === \"undefined\" ? 1 : 2')(); \
         F('kept = 1')(); return { data: { n } } }",
        "function decodeUplink() { var b = Buffer; b.n = (b.n || 0) + 1; return { data: { n: b.n || 1 } } }",
        "function decodeUplink() { var n = typeof left === 'undefined' ? 1 : 2; Promise.resolve().then(() => { left = 1 }); return { data: { n } } }",
        "function tag(t) { t.raw; return t } function decodeUplink() { var t = tag`x`; try { t.n = 1 } catch (e) {} return { data: { n: t.n ? 2 : 1 } } }",
        "}); let kept = 0; (() => { function decodeUplink() { return { data: { n: ++kept } } }",
    ];
    for (id, text) in ways.into_iter().enumerate() {
        let codecs = codecs();
        let first = decode_of(&codecs, (1, id as u128), text, &[1]).await;
        for call in 2..6 {
            assert_eq!(decode_of(&codecs, (1, id as u128), text, &[1]).await, first, "call {call} of {text}");
        }
        if let Ok(first) = &first {
            assert_eq!(first["n"], json!(1.0), "{text}");
        }
    }
}

#[tokio::test]
async fn two_scripts_do_not_meet() {
    let codecs = codecs();
    let one = "shared = 1; Array.prototype.mine = 1; function decodeUplink() { return { data: { shared } } }";
    let other = decoder("return { data: { shared: typeof shared, mine: typeof [].mine } }");
    for _ in 0..3 {
        assert_eq!(decode_of(&codecs, (1, 1), one, &[]).await, Ok(json!({"shared": 1.0})));
        let expected = json!({"shared": "undefined", "mine": "undefined"});
        assert_eq!(decode_of(&codecs, (1, 2), &other, &[]).await, Ok(expected));
    }
}

#[tokio::test]
async fn a_changed_script_is_the_one_that_runs() {
    let codecs = codecs();
    for version in [1.0, 2.0, 1.0, 3.0] {
        let text = decoder(&format!("return {{ data: {{ version: {version} }} }}"));
        for _ in 0..2 {
            assert_eq!(decode_of(&codecs, (1, 1), &text, &[]).await, Ok(json!({"version": version})));
        }
    }
}

#[tokio::test]
async fn buffers_read_and_write() {
    let text = decoder(
        "const b = Buffer.alloc(24); b.writeUInt16LE(0x1234, 0); b.writeInt32BE(-5, 2); b.writeDoubleBE(1.5, 6); \
         b.writeBigInt64LE(-2n, 14); b.writeUIntBE(0x010203, 0, 3); b.writeIntLE(-3, 21, 3); \
         return { data: { hex: b.toString('hex'), i24: b.readIntLE(21, 3), u40: b.readUIntBE(0, 5), f: b.readDoubleBE(6), \
         big: b.readBigInt64LE(14), utf8: Buffer.from('h\\u00e9\\u20ac\\ud83d\\ude00').toString('hex'), \
         back: Buffer.from('68c3a9e282acf09f9880ff', 'hex').toString(), b64: Buffer.from('aGk_-w', 'base64').toString('latin1'), \
         to64: Buffer.from([255, 254, 253, 252]).toString('base64'), url: Buffer.from([255, 254]).toString('base64url'), \
         cat: Buffer.concat([Buffer.from([1]), Buffer.from([2, 3])]).toJSON(), is: Buffer.isBuffer(b) && b instanceof Uint8Array, \
         eq: Buffer.from('ab').equals(Buffer.from([97, 98])), at: Buffer.from('hello').indexOf('ll'), len: Buffer.byteLength('\\u20ac'), \
         sub: Buffer.from([1, 2, 3, 4]).slice(1, -1).readUInt16BE(), swap: Buffer.from([1, 2, 3, 4]).swap16().toString('hex'), \
         ucs2: Buffer.from('hi', 'utf16le').toString('hex'), map: Buffer.from([1, 2]).map((x) => x * 2).toString('hex'), \
         old: Buffer('xyz').fill('ab').toString(), shared: (() => { const c = Buffer.from([9, 9]); c.slice(0, 1)[0] = 1; return c[0] })() } }",
    );
    let expected = json!({
        "hex": "010203fffffb3ff8000000000000fefffffffffffffdffff", "i24": -3.0, "u40": 0x01_0203_FFFF_u64 as f64,
        "f": 1.5, "big": "-144115188075855874", "utf8": "68c3a9e282acf09f9880", "back": "h\u{e9}\u{20ac}\u{1f600}\u{fffd}", "b64": "hi?\u{fb}",
        "to64": "//79/A==", "url": "__4", "cat": {"type": "Buffer", "data": [1.0, 2.0, 3.0]}, "is": true, "eq": true,
        "at": 2.0, "len": 3.0, "sub": 0x0203 as f64, "swap": "02010403", "ucs2": "68006900", "map": "0204", "old": "aba",
        "shared": 1.0,
    });
    let codecs = codecs();
    for _ in 0..3 {
        assert_eq!(decode(&codecs, &text).await.as_ref(), Ok(&expected));
    }
}
