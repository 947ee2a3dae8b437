import { Buffer } from "buffer";

export function decodeUplink(input) {
  return { data: { value: Buffer.from(input.bytes).readUInt16BE(0) } };
}
export function encodeDownlink(input) {
  return { bytes: [...Buffer.from(input.data.text, "utf8")] };
}
