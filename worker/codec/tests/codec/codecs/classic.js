function Bits(bytes) {
  this.bytes = bytes;
  this.at = 0;
}
Bits.prototype.take = function (count) {
  var value = 0;
  while (count-- > 0) {
    value = (value << 1) | ((this.bytes[this.at >> 3] >> (7 - (this.at & 7))) & 1);
    this.at += 1;
  }
  return value;
};
Bits.prototype.signed = function (count) {
  var value = this.take(count);
  return value >= 1 << (count - 1) ? value - (1 << count) : value;
};

function decodeUplink(input) {
  var bits = new Bits(input.bytes);
  var data = { kind: bits.take(4), temperature: bits.signed(12) / 10, open: Boolean(bits.take(1)), battery: bits.take(7) };
  if (Object.prototype.hasOwnProperty.call(input.variables, "zone")) data.zone = input.variables.zone;
  return { data: data };
}
