/** Channel, type, value: one after the other. */
function decodeUplink(input) {
    return { data: channelsOf(input.bytes) };
}

function encodeDownlink(input) {
    var encoded = [];
    if ("report_interval" in input.data) encoded = encoded.concat(setInterval_(input.data.report_interval));
    if ("reboot" in input.data) encoded = encoded.concat([0xff, 0x10, 0xff]);
    return { bytes: encoded };
}

function channelsOf(bytes) {
    var decoded = {};
    for (var i = 0; i < bytes.length;) {
        var channel_id = bytes[i++];
        var channel_type = bytes[i++];
        if (channel_id === 0x01 && channel_type === 0x75) {
            decoded.battery = bytes[i];
            i += 1;
        } else if (channel_id === 0x03 && channel_type === 0x67) {
            decoded.temperature = readInt16LE(bytes.slice(i, i + 2)) / 10;
            i += 2;
        } else if (channel_id === 0x04 && channel_type === 0xc8) {
            decoded.counter = readUInt32LE(bytes.slice(i, i + 4));
            i += 4;
        } else if (channel_id === 0x20 && channel_type === 0xce) {
            decoded.history = decoded.history || [];
            decoded.history.push({ timestamp: readUInt32LE(bytes.slice(i, i + 4)), temperature: readInt16LE(bytes.slice(i + 4, i + 6)) / 10 });
            i += 6;
        } else {
            break;
        }
    }
    return decoded;
}

function readUInt16LE(bytes) {
    var value = (bytes[1] << 8) + bytes[0];
    return value & 0xffff;
}
function readInt16LE(bytes) {
    var ref = readUInt16LE(bytes);
    return ref > 0x7fff ? ref - 0x10000 : ref;
}
function readUInt32LE(bytes) {
    var value = (bytes[3] << 24) + (bytes[2] << 16) + (bytes[1] << 8) + bytes[0];
    return (value & 0xffffffff) >>> 0;
}
function setInterval_(seconds) {
    if (typeof seconds !== "number") {
        throw new Error("report_interval must be a number");
    }
    return [0xff, 0x03, seconds & 0xff, seconds >> 8];
}
