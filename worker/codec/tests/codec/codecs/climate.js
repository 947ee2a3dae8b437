// Temperature and humidity, the battery in the upper bits.
function decodeUplink(input) {
  var bytes = input.bytes;
  var data = {};
  switch (input.fPort) {
    case 2:
      data.BatV = ((bytes[0] << 8 | bytes[1]) & 0x3FFF) / 1000;
      data.TempC_SHT = parseFloat(((bytes[2] << 24 >> 16 | bytes[3]) / 100).toFixed(2));
      data.Hum_SHT = parseFloat(((bytes[4] << 8 | bytes[5]) / 10).toFixed(1));
      data.Alarm = (bytes[6] & 0x01) === 1 ? "TRUE" : "FALSE";
      return { data: data };
    case 5:
      return { data: { firmware: "v" + (bytes[1] & 0x0f) + "." + (bytes[2] >> 4 & 0x0f) + "." + (bytes[2] & 0x0f) } };
    default:
      return { errors: ["unknown FPort"] };
  }
}
