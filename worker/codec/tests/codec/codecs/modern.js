"use strict";
class Reader {
  #at = 0;
  constructor(bytes) { this.bytes = bytes; }
  u8() { return this.bytes[this.#at++]; }
  u16() { return (this.u8() << 8) | this.u8(); }
  get done() { return this.#at >= this.bytes.length; }
  *records() { while (!this.done) yield { kind: this.u8(), value: this.u16() }; }
}
const names = new Map([[1, "co2"], [2, "voc"], [3, "pressure"]]);
const decodeUplink = ({ bytes, fPort }) => {
  const data = Object.fromEntries([...new Reader(bytes).records()].map(({ kind, value }) => [names.get(kind) ?? `kind${kind}`, value]));
  return { data: { ...data, port: fPort, empty: undefined, text: `${Object.keys(data).length} values`, big: 12345678901234567890n, small: 7n } };
};
