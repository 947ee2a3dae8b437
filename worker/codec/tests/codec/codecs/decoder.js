function Decoder(bytes, port) {
  var decoded = {};
  if (port === 1) decoded.doorOpen = bytes[0] & 0x80 ? 1 : 0;
  decoded.minutes = (bytes[1] << 16) + (bytes[2] << 8) + bytes[3];
  return decoded;
}
function Encoder(object, port) {
  return [object.led === true ? 1 : 0];
}
