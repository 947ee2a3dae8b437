{
  decode: typeof decodeUplink === "function" ? decodeUplink
    : typeof Decode === "function" ? (i) => ({ data: Decode(i.fPort, i.bytes, i.variables) })
    : typeof Decoder === "function" ? (i) => ({ data: Decoder(i.bytes, i.fPort) }) : undefined,
  encode: typeof encodeDownlink === "function" ? encodeDownlink
    : typeof Encode === "function" ? (i) => ({ bytes: Encode(i.fPort, i.data, i.variables) })
    : typeof Encoder === "function" ? (i) => ({ bytes: Encoder(i.data, i.fPort) }) : undefined,
}
