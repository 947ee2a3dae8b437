const TYPE_TEMP = 0x01, TYPE_RH = 0x02, TYPE_LIGHT = 0x04, TYPE_VDD = 0x07, TYPE_EXT_DIGITAL = 0x0d, TYPE_ACC = 0x03;

function bin16dec(bin) {
  let num = bin & 0xffff;
  if (0x8000 & num) num = -(0x010000 - num);
  return num;
}
function bin8dec(bin) {
  let num = bin & 0xff;
  if (0x80 & num) num = -(0x0100 - num);
  return num;
}

const reading = {
  [TYPE_TEMP]: [2, (o, d, i) => { o.temperature = bin16dec((d[i] << 8) | d[i + 1]) / 10; }],
  [TYPE_RH]: [1, (o, d, i) => { o.humidity = d[i]; }],
  [TYPE_ACC]: [3, (o, d, i) => { [o.x, o.y, o.z] = [d[i], d[i + 1], d[i + 2]].map(bin8dec); }],
  [TYPE_LIGHT]: [2, (o, d, i) => { o.light = (d[i] << 8) | d[i + 1]; }],
  [TYPE_VDD]: [2, (o, d, i) => { o.vdd = (d[i] << 8) | d[i + 1]; }],
  [TYPE_EXT_DIGITAL]: [1, (o, d, i) => { o.digital = !!d[i]; }],
};

function decodeUplink({ bytes }) {
  const data = {}, warnings = [];
  for (let i = 0; i < bytes.length; ) {
    const [length, read] = reading[bytes[i]] ?? [0, null];
    if (!read) {
      warnings.push(`type ${bytes[i]} at ${i} is not known`);
      break;
    }
    read(data, bytes, i + 1);
    i += 1 + length;
  }
  return { data, warnings };
}
