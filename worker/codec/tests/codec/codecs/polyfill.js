String.prototype.left = function (length, by) {
  var text = String(this);
  while (text.length < length) text = by + text;
  return text;
};
if (!Array.prototype.last) Array.prototype.last = function () { return this[this.length - 1]; };

function decodeUplink(input) {
  var bits = input.bytes.map(function (byte) { return byte.toString(2).left(8, "0"); });
  return { data: { bits: bits.join(" "), last: input.bytes.last() } };
}
