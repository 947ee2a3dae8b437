//! One packet to transmit.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

use super::{
    JsonError, MAX_PHY_PAYLOAD,
    datr::Datr,
    loose::{Loose, base64, bytes, megahertz},
    object,
    rxpk::{put, put_datr},
    to_json, trim_json,
};

/// A packet for a gateway to transmit. Written so that every known forwarder takes it: `imme`, `rfch`, `powe`, `codr` (for
/// LoRa), `ipol`, `size` and `data` are always there.
#[derive(Clone, Debug, PartialEq)]
pub struct Txpk {
    /// At once. Written as `false` whenever `tmst` is given.
    pub imme: bool,
    /// When, on the concentrator's counter, us.
    pub tmst: Option<u32>,
    /// When, in milliseconds since the GPS epoch.
    pub tmms: Option<u64>,
    /// Hz.
    pub freq: u32,
    /// RF chain.
    pub rfch: u32,
    /// dBm, before the antenna's gain; the field has no sign.
    pub powe: u32,
    /// Modulation and data rate: `modu` and `datr`.
    pub datr: Datr,
    /// Code rate; FSK has none.
    pub codr: Option<String>,
    /// FSK: frequency deviation, Hz.
    pub fdev: Option<u32>,
    /// Inverted polarisation: true for what devices are to hear.
    pub ipol: bool,
    /// Length of the preamble.
    pub prea: Option<u32>,
    /// No CRC: downlinks have none (LoRaWAN 1.0.4, 4.1).
    pub ncrc: Option<bool>,
    /// Board and antenna, for gateways with more than one.
    pub brd: Option<u32>,
    pub ant: Option<u32>,
    /// PHYPayload.
    pub data: Vec<u8>,
}

impl Txpk {
    /// A LoRaWAN downlink at a time of the concentrator's counter, with what all of them have in common.
    pub fn at(tmst: u32, freq: u32, powe: u32, datr: Datr, data: Vec<u8>) -> Self {
        let lora = matches!(datr, Datr::Lora { .. });
        Self {
            imme: false,
            tmst: Some(tmst),
            tmms: None,
            freq,
            rfch: 0,
            powe,
            datr,
            codr: datr.code_rate().map(Into::into),
            // LoRaWAN's FSK channel: 50 kbit/s with 25 kHz deviation, 5 bytes of preamble (RP002-1.0.4, 4.2).
            fdev: (!lora).then_some(25_000),
            ipol: lora,
            prea: (!lora).then_some(5),
            ncrc: lora.then_some(true),
            brd: None,
            ant: None,
            data,
        }
    }

    /// The JSON of a PULL_RESP: `{"txpk":{...}}`.
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Root<'a> {
            txpk: &'a Txpk,
        }
        to_json(&Root { txpk: self })
    }
}

impl Serialize for Txpk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("imme", &(self.imme && self.tmst.is_none()))?;
        put(&mut map, "tmst", &self.tmst)?;
        put(&mut map, "tmms", &self.tmms)?;
        map.serialize_entry("freq", &megahertz(self.freq))?;
        map.serialize_entry("rfch", &self.rfch)?;
        map.serialize_entry("powe", &self.powe)?;
        put_datr(&mut map, &self.datr)?;
        put(&mut map, "codr", &self.codr)?;
        put(&mut map, "fdev", &self.fdev)?;
        map.serialize_entry("ipol", &self.ipol)?;
        put(&mut map, "prea", &self.prea)?;
        put(&mut map, "ncrc", &self.ncrc)?;
        put(&mut map, "brd", &self.brd)?;
        put(&mut map, "ant", &self.ant)?;
        map.serialize_entry("size", &self.data.len())?;
        map.serialize_entry("data", &base64(&self.data))?;
        map.end()
    }
}

#[derive(Deserialize)]
struct Root<'a> {
    #[serde(borrow)]
    txpk: Wire<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire<'a> {
    #[serde(borrow)]
    imme: Loose<'a>,
    #[serde(borrow)]
    modu: Loose<'a>,
    #[serde(borrow)]
    datr: Loose<'a>,
    #[serde(borrow)]
    codr: Loose<'a>,
    #[serde(borrow)]
    data: Loose<'a>,
    tmst: Loose<'a>,
    tmms: Loose<'a>,
    freq: Loose<'a>,
    rfch: Loose<'a>,
    powe: Loose<'a>,
    fdev: Loose<'a>,
    ipol: Loose<'a>,
    prea: Loose<'a>,
    ncrc: Loose<'a>,
    brd: Loose<'a>,
    ant: Loose<'a>,
    size: Loose<'a>,
}

impl Wire<'_> {
    fn payload(&self) -> Result<Vec<u8>, JsonError> {
        let data = self.data.str().and_then(bytes).filter(|data| data.len() <= MAX_PHY_PAYLOAD);
        let data = data.ok_or(JsonError::Field("data"))?;
        if self.size.u32().map(|size| size as usize) == Some(data.len()) {
            Ok(data)
        } else {
            Err(JsonError::Field("size"))
        }
    }
}

/// Reads the JSON of a PULL_RESP as strictly as the forwarders do: Semtech's drops a packet without `rfch`, `codr` (for
/// LoRa), `size` or `data` and says nothing; others drop one without `imme`, `powe` or `ipol`.
pub fn parse_pull_resp(json: &[u8]) -> Result<Txpk, JsonError> {
    let text = core::str::from_utf8(trim_json(json)).map_err(|_| JsonError::Malformed)?;
    let Root { txpk: wire } = object(text).ok_or(JsonError::Malformed)?;
    let missing = JsonError::Field;
    let imme = wire.imme.bool().ok_or(missing("imme"))?;
    let (tmst, tmms) = (wire.tmst.u32(), wire.tmms.u64());
    if !imme && tmst.is_none() && tmms.is_none() {
        return Err(missing("tmst"));
    }
    let datr = Datr::read(&wire.modu, &wire.datr).map_err(|_| missing("datr"))?;
    let lora = matches!(datr, Datr::Lora { .. });
    let codr = wire.codr.text(8);
    if lora && codr.is_none() {
        return Err(missing("codr"));
    }
    // The sign and a fraction are refused by forwarders that read an unsigned integer.
    let powe = wire.powe.number().filter(|powe| *powe >= 0.0 && powe % 1.0 == 0.0);
    Ok(Txpk {
        imme,
        tmst,
        tmms,
        freq: wire.freq.hertz().ok_or(missing("freq"))?,
        rfch: wire.rfch.u32().ok_or(missing("rfch"))?,
        powe: powe.ok_or(missing("powe"))? as u32,
        datr,
        codr,
        fdev: wire.fdev.u32(),
        ipol: wire.ipol.bool().ok_or(missing("ipol"))?,
        prea: wire.prea.u32(),
        ncrc: wire.ncrc.bool(),
        brd: wire.brd.u32(),
        ant: wire.ant.u32(),
        data: wire.payload()?,
    })
}
