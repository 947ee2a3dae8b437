// A pulse meter that sends floating-point numbers and a serial number in text.
function decodeUplink(input) {
  const buffer = Buffer.from(input.bytes);
  return {
    data: {
      flow: Number(buffer.readFloatBE(0).toFixed(3)),
      volume: buffer.readDoubleLE(4),
      pulses: buffer.readUInt32BE(12),
      offset: buffer.readInt16LE(16),
      serial: buffer.slice(18, 22).toString("ascii"),
      raw: buffer.toString("hex", 0, 4),
      check: buffer.toString("base64", 18),
    },
  };
}

function encodeDownlink(input) {
  const buffer = Buffer.alloc(7);
  buffer.writeUInt8(1, 0);
  buffer.writeFloatLE(input.data.factor, 1);
  buffer.writeInt16BE(input.data.offset, 5);
  return { fPort: 20, bytes: buffer };
}
