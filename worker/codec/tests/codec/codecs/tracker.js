function decodeUplink(input) {
  let b = input.bytes;
  let int32 = (i) => (b[i] << 24) | (b[i + 1] << 16) | (b[i + 2] << 8) | b[i + 3];
  if (b.length < 10) return { data: {}, errors: [`${b.length} bytes are too few`] };
  let position = { latitude: int32(0) / 1e6, longitude: int32(4) / 1e6 };
  let accuracy = b[8] === 0 ? 1 / 0 : b[8];
  return { data: { position, accuracy, moving: Boolean(b[9] & 1), satellites: b[9] >> 1, nothing: null, list: [1, [2, ["x"]]] } };
}
