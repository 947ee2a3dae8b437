// T=21.5;H=40;S=OK
function decodeUplink(input) {
  var text = String.fromCharCode.apply(null, input.bytes), data = {}, found;
  var pattern = /([A-Z])=([^;]*)/g;
  while ((found = pattern.exec(text)) !== null) {
    data[found[1].toLowerCase()] = /^-?[0-9.]+$/.test(found[2]) ? parseFloat(found[2]) : found[2];
  }
  return { data: data };
}
