var commands = { open: 1, close: 2, test: 3 };

function decodeUplink(input) {
  return { data: { open: (input.bytes[0] & 1) === 1, leak: (input.bytes[0] & 2) !== 0, turns: input.bytes[1] << 24 >> 24 } };
}

function encodeDownlink(input) {
  var command = commands[input.data.command];
  if (!command) return { bytes: [], errors: ["no such command: " + input.data.command] };
  return { bytes: [command, input.data.percent / 2, -1], fPort: command + 10, warnings: [] };
}
