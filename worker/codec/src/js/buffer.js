// Node's Buffer, as far as codecs use it: a Uint8Array that reads and writes numbers and text.
(function () {
  "use strict";

  const HEX = "0123456789abcdef";
  const STANDARD = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const URL_SAFE = STANDARD.slice(0, 62) + "-_";
  const REPLACEMENT = "\ufffd";

  function Buffer(value, encodingOrOffset, length) {
    if (typeof value === "number") return alloc(value);
    return from(value, encodingOrOffset, length);
  }

  function as(array) {
    return Object.setPrototypeOf(array, Buffer.prototype);
  }

  function alloc(size, fill, encoding) {
    if (typeof size !== "number" || !(size >= 0)) throw new RangeError("the size of a Buffer must be a number from 0");
    const buffer = as(new Uint8Array(size));
    return fill === undefined || fill === 0 ? buffer : buffer.fill(fill, 0, buffer.length, encoding);
  }

  function from(value, encodingOrOffset, length) {
    if (typeof value === "string") return as(bytesOf(value, encodingOrOffset));
    if (value instanceof ArrayBuffer) return as(new Uint8Array(value, encodingOrOffset, length));
    if (value === null || typeof value !== "object") {
      throw new TypeError("a Buffer is made from a string, an array, a Buffer or an ArrayBuffer");
    }
    if (value.type === "Buffer" && Array.isArray(value.data)) return as(Uint8Array.from(value.data));
    if (typeof value.length === "number" || typeof value[Symbol.iterator] === "function") {
      return as(Uint8Array.from(value));
    }
    return as(new Uint8Array(0));
  }

  function nameOf(encoding) {
    const name = encoding === undefined || encoding === null ? "utf8" : String(encoding).toLowerCase();
    switch (name) {
      case "utf8": case "utf-8": return "utf8";
      case "hex": case "ascii": case "base64": case "base64url": return name;
      case "latin1": case "binary": return "latin1";
      case "ucs2": case "ucs-2": case "utf16le": case "utf-16le": return "utf16le";
      default: throw new TypeError("Unknown encoding: " + encoding);
    }
  }

  function bytesOf(text, encoding) {
    switch (nameOf(encoding)) {
      case "hex": return hexBytes(text);
      case "base64": case "base64url": return base64Bytes(text);
      case "ascii": case "latin1": return Uint8Array.from(text, (c) => c.charCodeAt(0) & 0xff);
      case "utf16le": {
        const bytes = new Uint8Array(text.length * 2);
        for (let i = 0; i < text.length; i++) {
          bytes[2 * i] = text.charCodeAt(i) & 0xff;
          bytes[2 * i + 1] = text.charCodeAt(i) >> 8;
        }
        return bytes;
      }
      default: return utf8Bytes(text);
    }
  }

  function hexBytes(text) {
    const bytes = [];
    for (let i = 0; i + 1 < text.length; i += 2) {
      const high = HEX.indexOf(text[i].toLowerCase());
      const low = HEX.indexOf(text[i + 1].toLowerCase());
      if (high < 0 || low < 0) break;
      bytes.push(high * 16 + low);
    }
    return Uint8Array.from(bytes);
  }

  function base64Bytes(text) {
    const bytes = [];
    let bits = 0, held = 0;
    for (const c of text) {
      if (c === "=") break;
      let value = STANDARD.indexOf(c);
      if (value < 0) value = URL_SAFE.indexOf(c);
      if (value < 0) continue;
      held = ((held << 6) | value) & 0xffff;
      bits += 6;
      if (bits >= 8) {
        bits -= 8;
        bytes.push((held >> bits) & 0xff);
      }
    }
    return Uint8Array.from(bytes);
  }

  function utf8Bytes(text) {
    const bytes = [];
    for (const c of text) {
      let code = c.codePointAt(0);
      if (code >= 0xd800 && code <= 0xdfff) code = 0xfffd;
      if (code < 0x80) bytes.push(code);
      else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
      else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
      else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    }
    return Uint8Array.from(bytes);
  }

  function utf8Text(bytes, start, end) {
    let text = "";
    for (let i = start; i < end; ) {
      const first = bytes[i++];
      const more = first < 0x80 ? 0 : first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2
        : first >= 0xf0 && first < 0xf5 ? 3 : -1;
      if (more < 0) {
        text += REPLACEMENT;
        continue;
      }
      let code = more === 0 ? first : first & (63 >> more);
      let read = 0;
      while (read < more && i < end && (bytes[i] & 0xc0) === 0x80) {
        code = (code << 6) | (bytes[i++] & 63);
        read++;
      }
      const least = [0, 0x80, 0x800, 0x10000][more];
      const whole = read === more && code >= least && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
      text += whole ? String.fromCodePoint(code) : REPLACEMENT;
    }
    return text;
  }

  function base64Text(bytes, start, end, letters, padding) {
    let text = "";
    for (let i = start; i < end; i += 3) {
      const have = Math.min(3, end - i);
      const three = (bytes[i] << 16) | ((have > 1 ? bytes[i + 1] : 0) << 8) | (have > 2 ? bytes[i + 2] : 0);
      text += letters[three >> 18] + letters[(three >> 12) & 63];
      text += have > 1 ? letters[(three >> 6) & 63] : padding;
      text += have > 2 ? letters[three & 63] : padding;
    }
    return text;
  }

  function codesText(bytes, start, end, mask) {
    let text = "";
    for (let i = start; i < end; i++) text += String.fromCharCode(bytes[i] & mask);
    return text;
  }

  function within(value, fallback, length) {
    if (value === undefined) return fallback;
    const at = Math.trunc(Number(value)) || 0;
    return Math.min(Math.max(at < 0 ? 0 : at, 0), length);
  }

  function check(buffer, offset, bytes) {
    if (typeof offset !== "number" || !Number.isInteger(offset)) throw new TypeError("The offset must be an integer");
    if (offset < 0 || offset + bytes > buffer.length) {
      throw new RangeError("Attempt to access memory outside buffer bounds");
    }
  }

  function view(buffer) {
    return new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  }

  const methods = {
    toString(encoding, start, end) {
      const from = within(start, 0, this.length);
      const to = within(end, this.length, this.length);
      switch (nameOf(encoding)) {
        case "hex": {
          let text = "";
          for (let i = from; i < to; i++) text += HEX[this[i] >> 4] + HEX[this[i] & 15];
          return text;
        }
        case "base64": return base64Text(this, from, to, STANDARD, "=");
        case "base64url": return base64Text(this, from, to, URL_SAFE, "");
        case "ascii": return codesText(this, from, to, 0x7f);
        case "latin1": return codesText(this, from, to, 0xff);
        case "utf16le": {
          let text = "";
          for (let i = from; i + 1 < to; i += 2) text += String.fromCharCode(this[i] | (this[i + 1] << 8));
          return text;
        }
        default: return utf8Text(this, from, to);
      }
    },
    toJSON() {
      return { type: "Buffer", data: Array.from(this) };
    },
    equals(other) {
      return Buffer.compare(this, other) === 0;
    },
    compare(other) {
      return Buffer.compare(this, other);
    },
    slice(start, end) {
      return as(Uint8Array.prototype.subarray.call(this, start, end));
    },
    subarray(start, end) {
      return as(Uint8Array.prototype.subarray.call(this, start, end));
    },
    copy(target, targetStart, start, end) {
      const at = within(targetStart, 0, target.length);
      const part = this.subarray(within(start, 0, this.length), within(end, this.length, this.length));
      const fits = part.subarray(0, Math.max(0, target.length - at));
      target.set(fits, at);
      return fits.length;
    },
    fill(value, start, end, encoding) {
      if (typeof start === "string") [encoding, start, end] = [start, 0, this.length];
      const from = within(start, 0, this.length);
      const to = within(end, this.length, this.length);
      const bytes = typeof value === "number" ? [value & 0xff] : typeof value === "string" ? bytesOf(value, encoding) : value;
      for (let i = from; i < to; i++) this[i] = bytes.length ? bytes[(i - from) % bytes.length] : 0;
      return this;
    },
    write(text, offset, length, encoding) {
      if (typeof offset === "string") [encoding, offset, length] = [offset, 0, undefined];
      else if (typeof length === "string") [encoding, length] = [length, undefined];
      const at = within(offset, 0, this.length);
      const room = Math.min(this.length - at, length === undefined ? Infinity : length);
      const bytes = bytesOf(text, encoding).subarray(0, room);
      this.set(bytes, at);
      return bytes.length;
    },
    indexOf(value, start, encoding) {
      const sought = typeof value === "number" ? [value & 0xff] : typeof value === "string" ? bytesOf(value, encoding) : value;
      for (let i = within(start, 0, this.length); i + sought.length <= this.length; i++) {
        let same = 0;
        while (same < sought.length && this[i + same] === sought[same]) same++;
        if (same === sought.length) return i;
      }
      return -1;
    },
    includes(value, start, encoding) {
      return this.indexOf(value, start, encoding) >= 0;
    },
    readUIntBE(offset, bytes) {
      check(this, offset, bytes);
      let value = 0;
      for (let i = 0; i < bytes; i++) value = value * 256 + this[offset + i];
      return value;
    },
    readUIntLE(offset, bytes) {
      check(this, offset, bytes);
      let value = 0;
      for (let i = bytes - 1; i >= 0; i--) value = value * 256 + this[offset + i];
      return value;
    },
    readIntBE(offset, bytes) {
      const value = this.readUIntBE(offset, bytes);
      return this[offset] & 0x80 ? value - 2 ** (8 * bytes) : value;
    },
    readIntLE(offset, bytes) {
      const value = this.readUIntLE(offset, bytes);
      return this[offset + bytes - 1] & 0x80 ? value - 2 ** (8 * bytes) : value;
    },
    writeUIntBE(value, offset, bytes) {
      check(this, offset, bytes);
      for (let i = bytes - 1, rest = value; i >= 0; i--, rest = Math.floor(rest / 256)) this[offset + i] = rest % 256;
      return offset + bytes;
    },
    writeUIntLE(value, offset, bytes) {
      check(this, offset, bytes);
      for (let i = 0, rest = value; i < bytes; i++, rest = Math.floor(rest / 256)) this[offset + i] = rest % 256;
      return offset + bytes;
    },
    writeIntBE(value, offset, bytes) {
      return this.writeUIntBE(value < 0 ? value + 2 ** (8 * bytes) : value, offset, bytes);
    },
    writeIntLE(value, offset, bytes) {
      return this.writeUIntLE(value < 0 ? value + 2 ** (8 * bytes) : value, offset, bytes);
    },
  };

  function swap(bytes) {
    return function () {
      if (this.length % bytes) throw new RangeError("Buffer size must be a multiple of " + 8 * bytes + "-bits");
      for (let i = 0; i < this.length; i += bytes) this.subarray(i, i + bytes).reverse();
      return this;
    };
  }

  const numbers = [
    ["UInt8", "Uint8", 1], ["Int8", "Int8", 1], ["UInt16", "Uint16", 2], ["Int16", "Int16", 2], ["UInt32", "Uint32", 4],
    ["Int32", "Int32", 4], ["Float", "Float32", 4], ["Double", "Float64", 8], ["BigUInt64", "BigUint64", 8],
    ["BigInt64", "BigInt64", 8],
  ];
  for (const [name, type, bytes] of numbers) {
    for (const order of bytes === 1 ? [""] : ["BE", "LE"]) {
      const read = "get" + type, write = "set" + type, little = order === "LE";
      const reader = function (offset = 0) {
        check(this, offset, bytes);
        return view(this)[read](offset, little);
      };
      const writer = function (value, offset = 0) {
        check(this, offset, bytes);
        view(this)[write](offset, value, little);
        return offset + bytes;
      };
      for (const alias of name.includes("UInt") ? [name, name.replace("UInt", "Uint")] : [name]) {
        methods["read" + alias + order] = reader;
        methods["write" + alias + order] = writer;
      }
    }
  }
  for (const order of ["BE", "LE"]) {
    methods["readUint" + order] = methods["readUInt" + order];
    methods["writeUint" + order] = methods["writeUInt" + order];
  }
  methods.swap16 = swap(2);
  methods.swap32 = swap(4);
  methods.swap64 = swap(8);

  const statics = {
    from,
    alloc,
    allocUnsafe: (size) => alloc(size),
    allocUnsafeSlow: (size) => alloc(size),
    of: (...bytes) => from(bytes),
    isBuffer: (value) => value instanceof Buffer,
    isEncoding(encoding) {
      try {
        return typeof encoding === "string" && nameOf(encoding) !== "";
      } catch (_) {
        return false;
      }
    },
    byteLength: (value, encoding) => (typeof value === "string" ? bytesOf(value, encoding).length : value.byteLength),
    concat(list, length) {
      const all = length === undefined ? list.reduce((sum, part) => sum + part.length, 0) : length;
      const joined = alloc(all);
      let at = 0;
      for (const part of list) {
        joined.set(Uint8Array.prototype.subarray.call(part, 0, Math.max(0, all - at)), at);
        at = Math.min(all, at + part.length);
      }
      return joined;
    },
    compare(one, other) {
      const shared = Math.min(one.length, other.length);
      for (let i = 0; i < shared; i++) if (one[i] !== other[i]) return one[i] < other[i] ? -1 : 1;
      return Math.sign(one.length - other.length);
    },
  };

  function hidden(target, members) {
    for (const name of Object.keys(members)) {
      Object.defineProperty(target, name, { value: members[name], writable: true, configurable: true });
    }
  }
  Buffer.prototype = Object.create(Uint8Array.prototype);
  hidden(Buffer.prototype, { constructor: Buffer });
  hidden(Buffer.prototype, methods);
  Object.setPrototypeOf(Buffer, Uint8Array);
  hidden(Buffer, statics);
  hidden(globalThis, { Buffer });
})();
