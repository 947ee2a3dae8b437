// Of the days before decodeUplink.
function Decode(fPort, bytes, variables) {
  return { "port": fPort, "sum": bytes.reduce(function (a, b) { return a + b; }, 0), "place": variables["place"] };
}
function Encode(fPort, obj, variables) {
  return [fPort, obj.level, variables.place.length];
}
