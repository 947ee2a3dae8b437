MANTISSA_BITS = 23;
EXPONENT_BITS = 8;

function decodeUplink(input) {
  value = 0;
  for (i = 0; i < 4; i++) value = value * 256 + input.bytes[i];
  sign = value >= Math.pow(2, 31) ? -1 : 1;
  exponent = Math.floor(value / Math.pow(2, MANTISSA_BITS)) % Math.pow(2, EXPONENT_BITS);
  mantissa = value % Math.pow(2, MANTISSA_BITS);
  calls = typeof calls === "undefined" ? 1 : calls + 1;
  return { data: { level: sign * (1 + mantissa / Math.pow(2, 23)) * Math.pow(2, exponent - 127), calls: calls } };
}
