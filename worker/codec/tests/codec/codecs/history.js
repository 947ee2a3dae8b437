// The newest value first, one for each quarter of an hour before.
function decodeUplink(input) {
  var step = Number(input.variables.step_minutes || 15) * 60000;
  return {
    data: {
      received: input.recvTime,
      values: input.bytes.map(function (byte, i) {
        return { at: new Date(input.recvTime.getTime() - i * step).toISOString(), level: byte === 0xff ? NaN : byte / 2 };
      }),
    },
  };
}
