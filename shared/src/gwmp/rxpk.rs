//! One received packet.

use alloc::{borrow::Cow, collections::BTreeMap, string::String, vec::Vec};

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use super::{
    MAX_PHY_PAYLOAD,
    datr::{Datr, DatrError},
    loose::{Loose, base64, bytes, megahertz},
    object,
    salvage::clean,
};

/// Longest text of a descriptive field that is kept.
const MAX_TEXT: usize = 64;
/// Most antennas' signals that are read of one packet.
const MAX_RSIG: usize = 32;
/// Most entries of `meta` that are kept.
const MAX_META: usize = 16;

/// A packet as a gateway received it: the fields of protocol versions 1 and 2, of Semtech's JSON version 2 (`jver`, `brd`,
/// `rsig`), and of SX1302 forwarders. Optional fields that have no usable value are `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rxpk {
    /// UTC time of reception as the gateway wrote it.
    pub time: Option<String>,
    /// Milliseconds since the GPS epoch.
    pub tmms: Option<u64>,
    /// The concentrator's counter at the end of reception, us, wrapping. A downlink needs it.
    pub tmst: Option<u32>,
    /// Fine timestamp, ns within the second.
    pub ftime: Option<u32>,
    /// Fine timestamp as some forwarders call it, ns.
    pub fts: Option<i64>,
    /// Version of the fine timestamp.
    pub ftver: Option<u32>,
    /// Hz.
    pub freq: u32,
    /// IF channel.
    pub chan: Option<u32>,
    /// RF chain.
    pub rfch: Option<u32>,
    /// Modem.
    pub mid: Option<u32>,
    /// Concentrator board.
    pub brd: Option<u32>,
    /// Antenna.
    pub ant: Option<u32>,
    /// Antennas that heard it, of forwarders that list them.
    pub ants: Vec<u32>,
    /// CRC of the radio packet: 1 good (also if the gateway does not say), 0 none, -1 bad. The caller drops the bad.
    pub stat: i8,
    /// Modulation and data rate: `modu` and `datr`.
    pub datr: Datr,
    /// Code rate, such as `4/5`.
    pub codr: Option<String>,
    /// LR-FHSS: hopping grid, number of steps.
    pub hpw: Option<u32>,
    /// Of the channel, dBm.
    pub rssi: Option<i32>,
    /// Of the signal, dBm.
    pub rssis: Option<i32>,
    /// Standard deviation of the RSSI during the preamble, dB.
    pub rssisd: Option<u32>,
    /// dB; FSK has none.
    pub lsnr: Option<f32>,
    /// Frequency offset, Hz.
    pub foff: Option<i32>,
    /// Index of the key that encrypts `etime`.
    pub aesk: Option<u32>,
    /// Version of the JSON form.
    pub jver: Option<u32>,
    /// The signal at each antenna.
    pub rsig: Vec<RSig>,
    /// What the forwarder says of itself: an object of texts, as ChirpStack's gateway bridge takes it.
    pub meta: BTreeMap<String, String>,
    /// PHYPayload; `size` is its length.
    pub data: Vec<u8>,
}

/// How one antenna heard a packet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RSig {
    pub ant: Option<u32>,
    /// IF channel.
    pub chan: Option<u32>,
    /// Of the channel, dBm.
    pub rssic: Option<i32>,
    /// Of the signal, dBm.
    pub rssis: Option<i32>,
    /// Standard deviation of the RSSI during the preamble, dB.
    pub rssisd: Option<u32>,
    /// dB
    pub lsnr: Option<f32>,
    /// Encrypted fine timestamp, base64 as it came.
    pub etime: Option<String>,
    /// Fine timestamp, ns within the second.
    pub ftime: Option<u32>,
    /// Frequency offset, Hz.
    pub foff: Option<i32>,
    pub ftstat: Option<u32>,
    pub ftver: Option<u32>,
    pub ftdelta: Option<i32>,
    pub rfbsb: Option<i32>,
    pub rs2s1: Option<i32>,
}

/// The best signal of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signal {
    /// dBm; 0 if the gateway does not say.
    pub rssi: i32,
    /// dB; 0 if the gateway does not say.
    pub snr: f32,
    pub channel: u32,
    pub antenna: u32,
}

/// Why one packet of a PUSH_DATA is no packet; the others of the datagram stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RxpkError {
    #[error("not an rxpk object")]
    Malformed,
    #[error("freq is missing or no frequency")]
    Frequency,
    #[error("unknown modulation")]
    Modulation,
    #[error("datr is missing or no data rate of the modulation")]
    DataRate,
    #[error("data is missing or no base64")]
    Data,
    #[error("more than {MAX_PHY_PAYLOAD} bytes")]
    TooLong,
}

impl RxpkError {
    /// The label of the drop in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed => "rxpk_malformed",
            Self::Frequency => "rxpk_frequency",
            Self::Modulation => "rxpk_modulation",
            Self::DataRate => "rxpk_data_rate",
            Self::Data => "rxpk_data",
            Self::TooLong => "rxpk_too_long",
        }
    }
}

impl Rxpk {
    /// A packet of these bytes with good CRC and nothing else known of it.
    pub fn new(freq: u32, datr: Datr, data: Vec<u8>) -> Self {
        Self {
            time: None,
            tmms: None,
            tmst: None,
            ftime: None,
            fts: None,
            ftver: None,
            freq,
            chan: None,
            rfch: None,
            mid: None,
            brd: None,
            ant: None,
            ants: Vec::new(),
            stat: 1,
            datr,
            codr: None,
            hpw: None,
            rssi: None,
            rssis: None,
            rssisd: None,
            lsnr: None,
            foff: None,
            aesk: None,
            jver: None,
            rsig: Vec::new(),
            meta: BTreeMap::new(),
            data,
        }
    }

    /// The signal at the best antenna: highest SNR, then RSSI. The packet's own fields count where it lists no antennas.
    pub fn signal(&self) -> Signal {
        let best = self.rsig.iter().max_by(|a, b| {
            let of = |s: &RSig| (s.lsnr.unwrap_or(f32::MIN), s.rssic.or(s.rssis).unwrap_or(i32::MIN));
            let ((snr_a, rssi_a), (snr_b, rssi_b)) = (of(a), of(b));
            snr_a.total_cmp(&snr_b).then(rssi_a.cmp(&rssi_b))
        });
        let (own_antenna, own_channel) = (self.ant.or(self.ants.first().copied()), self.chan);
        let (rssi, snr, channel, antenna) = match best {
            Some(s) => (s.rssic.or(s.rssis), s.lsnr, s.chan.or(own_channel), s.ant.or(own_antenna)),
            None => (None, None, own_channel, own_antenna),
        };
        Signal {
            rssi: rssi.or(self.rssi).or(self.rssis).unwrap_or_default(),
            snr: snr.or(self.lsnr).unwrap_or_default(),
            channel: channel.unwrap_or_default(),
            antenna: antenna.unwrap_or_default(),
        }
    }

    /// Reads one element of the `rxpk` list.
    pub(super) fn read(json: &str) -> Result<Self, RxpkError> {
        match object(json) {
            Some(wire) => Self::from_wire(wire),
            // Whole, but with a field twice or a value that cannot be read.
            None => match clean(json).as_deref().and_then(object) {
                Some(wire) => Self::from_wire(wire),
                None => Err(RxpkError::Malformed),
            },
        }
    }

    fn from_wire(wire: Wire<'_>) -> Result<Self, RxpkError> {
        let freq = wire.freq.hertz().ok_or(RxpkError::Frequency)?;
        let datr = Datr::read(&wire.modu, &wire.datr).map_err(|error| match error {
            DatrError::Modulation => RxpkError::Modulation,
            DatrError::DataRate => RxpkError::DataRate,
        })?;
        let data = wire.payload()?;
        Ok(Self {
            time: wire.time.text(MAX_TEXT),
            tmms: wire.tmms.u64(),
            tmst: wire.tmst.counter(),
            ftime: wire.ftime.u32(),
            fts: wire.fts.i64(),
            ftver: wire.ftver.u32(),
            chan: wire.chan.u32(),
            rfch: wire.rfch.u32(),
            mid: wire.mid.u32(),
            brd: wire.brd.u32(),
            ant: wire.ant.u32(),
            ants: wire.ants.list(),
            stat: wire.stat.i32().map_or(1, |stat| stat.signum() as i8),
            codr: wire.codr.text(MAX_TEXT),
            hpw: wire.hpw.u32(),
            rssi: wire.rssi.i32(),
            rssis: wire.rssis.i32(),
            rssisd: wire.rssisd.u32(),
            lsnr: wire.lsnr.f32(),
            foff: wire.foff.i32(),
            aesk: wire.aesk.u32(),
            jver: wire.jver.u32(),
            rsig: wire.rsig.map(|list| antennas(list.get())).unwrap_or_default(),
            meta: wire.meta.map(|object| meta(object.get())).unwrap_or_default(),
            ..Self::new(freq, datr, data)
        })
    }
}

/// The object as it is written.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire<'a> {
    #[serde(borrow)]
    time: Loose<'a>,
    #[serde(borrow)]
    modu: Loose<'a>,
    #[serde(borrow)]
    datr: Loose<'a>,
    #[serde(borrow)]
    codr: Loose<'a>,
    #[serde(borrow)]
    data: Loose<'a>,
    tmms: Loose<'a>,
    tmst: Loose<'a>,
    ftime: Loose<'a>,
    fts: Loose<'a>,
    ftver: Loose<'a>,
    freq: Loose<'a>,
    chan: Loose<'a>,
    rfch: Loose<'a>,
    mid: Loose<'a>,
    brd: Loose<'a>,
    ant: Loose<'a>,
    ants: Loose<'a>,
    stat: Loose<'a>,
    hpw: Loose<'a>,
    rssi: Loose<'a>,
    rssis: Loose<'a>,
    #[serde(alias = "rssid")]
    rssisd: Loose<'a>,
    lsnr: Loose<'a>,
    foff: Loose<'a>,
    aesk: Loose<'a>,
    jver: Loose<'a>,
    #[serde(borrow)]
    rsig: Option<&'a RawValue>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

impl Wire<'_> {
    fn payload(&self) -> Result<Vec<u8>, RxpkError> {
        let data = self.data.str().and_then(bytes).ok_or(RxpkError::Data)?;
        if data.len() > MAX_PHY_PAYLOAD {
            return Err(RxpkError::TooLong);
        }
        // `size` says nothing that the data do not, and some forwarders write another number.
        Ok(data)
    }
}

/// Reads the elements of `rsig`, and no more of them than a gateway has antennas, whatever a datagram has room for.
fn antennas(list: &str) -> Vec<RSig> {
    let list: Vec<&RawValue> = serde_json::from_str(list).unwrap_or_default();
    list.iter().take(MAX_RSIG).filter_map(|raw| object::<WireRSig<'_>>(raw.get()).map(RSig::from)).collect()
}

/// Reads what is text in `meta`, and no more of it than [`MAX_META`].
fn meta(object_text: &str) -> BTreeMap<String, String> {
    let found: BTreeMap<Cow<'_, str>, Loose<'_>> = object(object_text).unwrap_or_default();
    let short = |(key, value): (Cow<'_, str>, Loose<'_>)| {
        let fits = !key.is_empty() && key.len() <= MAX_TEXT;
        value.text(MAX_TEXT).filter(|_| fits).map(|value| (key.into_owned(), value))
    };
    found.into_iter().filter_map(short).take(MAX_META).collect()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireRSig<'a> {
    #[serde(borrow)]
    etime: Loose<'a>,
    ant: Loose<'a>,
    chan: Loose<'a>,
    rssic: Loose<'a>,
    rssis: Loose<'a>,
    rssisd: Loose<'a>,
    lsnr: Loose<'a>,
    ftime: Loose<'a>,
    foff: Loose<'a>,
    ftstat: Loose<'a>,
    ftver: Loose<'a>,
    ftdelta: Loose<'a>,
    rfbsb: Loose<'a>,
    rs2s1: Loose<'a>,
}

impl From<WireRSig<'_>> for RSig {
    fn from(wire: WireRSig<'_>) -> Self {
        Self {
            ant: wire.ant.u32(),
            chan: wire.chan.u32(),
            rssic: wire.rssic.i32(),
            rssis: wire.rssis.i32(),
            rssisd: wire.rssisd.u32(),
            lsnr: wire.lsnr.f32(),
            etime: wire.etime.text(MAX_TEXT),
            ftime: wire.ftime.u32(),
            foff: wire.foff.i32(),
            ftstat: wire.ftstat.u32(),
            ftver: wire.ftver.u32(),
            ftdelta: wire.ftdelta.i32(),
            rfbsb: wire.rfbsb.i32(),
            rs2s1: wire.rs2s1.i32(),
        }
    }
}

/// Writes a field if it has a value.
pub(super) fn put<M: SerializeMap, T: Serialize>(map: &mut M, name: &str, value: &Option<T>) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(name, value),
        None => Ok(()),
    }
}

/// Writes `modu` and `datr`.
pub(super) fn put_datr<M: SerializeMap>(map: &mut M, datr: &Datr) -> Result<(), M::Error> {
    map.serialize_entry("modu", datr.modu())?;
    match datr {
        Datr::Fsk { bit_rate } => map.serialize_entry("datr", bit_rate),
        _ => put(map, "datr", &datr.text()),
    }
}

impl Serialize for Rxpk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        put(&mut map, "jver", &self.jver)?;
        put(&mut map, "tmst", &self.tmst)?;
        put(&mut map, "time", &self.time)?;
        put(&mut map, "tmms", &self.tmms)?;
        put(&mut map, "ftime", &self.ftime)?;
        put(&mut map, "fts", &self.fts)?;
        put(&mut map, "ftver", &self.ftver)?;
        put(&mut map, "chan", &self.chan)?;
        put(&mut map, "rfch", &self.rfch)?;
        map.serialize_entry("freq", &megahertz(self.freq))?;
        put(&mut map, "mid", &self.mid)?;
        put(&mut map, "brd", &self.brd)?;
        put(&mut map, "ant", &self.ant)?;
        put(&mut map, "ants", &some_list(&self.ants))?;
        map.serialize_entry("stat", &self.stat)?;
        put_datr(&mut map, &self.datr)?;
        put(&mut map, "codr", &self.codr)?;
        put(&mut map, "hpw", &self.hpw)?;
        put(&mut map, "rssi", &self.rssi)?;
        put(&mut map, "rssis", &self.rssis)?;
        put(&mut map, "rssisd", &self.rssisd)?;
        put(&mut map, "lsnr", &self.lsnr)?;
        put(&mut map, "foff", &self.foff)?;
        put(&mut map, "aesk", &self.aesk)?;
        put(&mut map, "rsig", &some_list(&self.rsig))?;
        put(&mut map, "meta", &Some(&self.meta).filter(|meta| !meta.is_empty()))?;
        map.serialize_entry("size", &self.data.len())?;
        map.serialize_entry("data", &base64(&self.data))?;
        map.end()
    }
}

fn some_list<T>(list: &[T]) -> Option<&[T]> {
    Some(list).filter(|list| !list.is_empty())
}

impl Serialize for RSig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        put(&mut map, "ant", &self.ant)?;
        put(&mut map, "chan", &self.chan)?;
        put(&mut map, "rssic", &self.rssic)?;
        put(&mut map, "rssis", &self.rssis)?;
        put(&mut map, "rssisd", &self.rssisd)?;
        put(&mut map, "lsnr", &self.lsnr)?;
        put(&mut map, "etime", &self.etime)?;
        put(&mut map, "ftime", &self.ftime)?;
        put(&mut map, "foff", &self.foff)?;
        put(&mut map, "ftstat", &self.ftstat)?;
        put(&mut map, "ftver", &self.ftver)?;
        put(&mut map, "ftdelta", &self.ftdelta)?;
        put(&mut map, "rfbsb", &self.rfbsb)?;
        put(&mut map, "rs2s1", &self.rs2s1)?;
        map.end()
    }
}
