//! A device's session: one row that changes by compare-and-set only, and the marks beside it.

use alloc::{boxed::Box, string::String, vec::Vec};

use limpet_shared::{AesKey, DevAddr, Eui64, RadioTime, UnixMicros, lorawan::Keys};
use serde::{Deserialize, Serialize};

use super::{AdrState, Answer, DwellTime, Event, Request};

/// Identity of a session: a hash of the device and of the join (or activation) that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// Where a session is stored. Sessions of one DevAddr share a partition, so that one read gives all candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionKey {
    pub dev_addr: DevAddr,
    pub dev_eui: Eui64,
    pub id: SessionId,
}

/// The row. `rev` is the revision that a compare-and-set expects. Its stored form: `model/answer.rs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Session {
    pub key: SessionKey,
    /// Counted up by each accepted write; the first row has 1.
    pub rev: u64,
    /// When the session's JoinRequest was received, or when it was activated by hand.
    pub since: UnixMicros,
    /// The FCntUp that would have come next in the session that an activation has replaced by this one, if both verify with one key
    /// and this one began lower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_at: Option<u32>,
    /// Made by OTAA; false for ABP.
    pub joined: bool,
    /// Region that the session lives in.
    pub region: String,
    pub keys: SessionKeys,
    pub seen: Seen,
    /// How often a device with relaxed counters started again from a lower FCntUp; part of the event id.
    pub resets: u32,
    /// The FCntDown that the next downlink will have.
    pub next_fcnt_down: u32,
    pub mac: MacState,
    /// The uplink accepted last.
    pub slot: Slot,
    /// What the highest uplink is answered, or the join.
    #[serde(default, skip_serializing_if = "Answer::is_closed")]
    pub answer: Answer,
    /// A queue item that was sent but not confirmed sent: offered again, under a new FCntDown, until it is.
    pub item: Option<ItemInFlight>,
    /// Items of the downlink queue up to this number need nothing more.
    pub queue_done: u64,
    /// A confirmed downlink that the device has not acknowledged.
    pub awaiting_ack: Option<AwaitingAck>,
    /// Another session, or none, has taken its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Over>,
}

/// What is left of a session that is over ([`Session::ended`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    /// What was received after that is not of it.
    pub at: UnixMicros,
    /// Those that its device had.
    pub keys: SessionKeys,
}

/// Session keys of LoRaWAN 1.0.x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionKeys {
    pub nwk_s_key: AesKey,
    pub app_s_key: AesKey,
}

impl From<SessionKeys> for Keys {
    fn from(SessionKeys { nwk_s_key, app_s_key }: SessionKeys) -> Self {
        Self { nwk_s_key, app_s_key }
    }
}

/// Which FCntUp were accepted: the highest, and a bitmap of the 512 up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The FCntUp that must be expected next: the highest accepted plus 1, or where the session starts.
    pub next: u32,
    /// Bit i, of the first word first: FCntUp `next - 1 - i` was accepted. More than the 255 packets that one datagram
    /// may bring of one device, which are accepted in any order.
    pub bits: [u64; 8],
    /// `received_at` of the highest.
    pub high_at: UnixMicros,
    /// MIC of the highest, by which another frame under its FCntUp is known. `None` in rows of versions that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_mic: Option<[u8; 4]>,
    /// A frame received up to then counts as before the device last started its counter again; 0 if it never did.
    #[serde(default, skip_serializing_if = "is_never")]
    pub restarted_after: UnixMicros,
}

fn is_never(at: &UnixMicros) -> bool {
    at.0 == 0
}

/// A queue item on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemInFlight {
    /// Its sequence number in the queue.
    pub seq: u64,
    /// The FCntDown it was first sent under: a mark `sent` at or above it means it was transmitted.
    pub first_fcnt_down: u32,
    /// How often it was sent without a word of what became of it.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub offers: u8,
    /// The last FCntDown whose bytes a gateway has certainly not transmitted: that was no offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<u32>,
    /// How many downlinks with it nobody has transmitted.
    #[serde(default, skip_serializing_if = "is_none")]
    pub refusals: u8,
}

fn is_none(count: &u8) -> bool {
    *count == 0
}

fn once() -> u8 {
    1
}

fn is_once(offers: &u8) -> bool {
    *offers == 1
}

impl ItemInFlight {
    /// An item that goes out for the first time.
    pub fn new(seq: u64, fcnt_down: u32) -> Self {
        Self { seq, first_fcnt_down: fcnt_down, offers: 1, refused: None, refusals: 0 }
    }

    /// Takes back the offer under that FCntDown, whoever says how often that nobody transmitted it. False if that is no news.
    pub fn take_back(&mut self, fcnt_down: u32) -> bool {
        let news = self.offers > 0 && self.refused.is_none_or(|last| last < fcnt_down);
        if news {
            self.offers -= 1;
            self.refused = Some(fcnt_down);
            self.refusals = self.refusals.saturating_add(1);
        }
        news
    }
}

/// A confirmed downlink that waits for the device's ACK bit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitingAck {
    /// Id of the queue item.
    pub queue_item: String,
    pub fcnt_down: u32,
}

/// What the network and the device have agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacState {
    /// Seconds, 1 to 15.
    pub rx1_delay: u8,
    pub rx1_dr_offset: u8,
    pub rx2_data_rate: u8,
    /// Hz.
    pub rx2_frequency: u32,
    /// The channels (Hz) that it was told of beside those which every device knows. `None`: those that its region adds by itself; also of
    /// sessions made before a network could choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra_channels: Option<Vec<u32>>,
    /// Data rate of the last uplink, or the one that the device was told since.
    pub data_rate: u8,
    /// The TXPower (its index: 0 is the highest) that the device was last told.
    #[serde(default, skip_serializing_if = "is_highest")]
    pub tx_power: u8,
    /// The device knows the channels of its sub-band (by CFList, or by an accepted LinkADRReq).
    pub channels_set: bool,
    /// Only in the stored form, for versions that counted there how often they had told the channels.
    #[serde(default)]
    pub channels_tried: u8,
    /// The limits that it has acknowledged, in bands that know some. `None`: nobody knows, for a device may begin with either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dwell: Option<DwellTime>,
    /// Battery level and margin of the last DevStatusAns.
    pub battery: Option<u8>,
    pub margin: Option<i8>,
    /// `received_at` of the uplink that was last answered with a DevStatusReq; 0 if none was.
    #[serde(default, skip_serializing_if = "is_never")]
    pub status_asked_at: UnixMicros,
    /// What the network knows where it chooses the data rate.
    #[serde(default, skip_serializing_if = "AdrState::is_empty")]
    pub adr: AdrState,
    /// What the device was asked and has not granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Request>,
}

/// Where a class A device listens after an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Seconds.
    pub rx1_delay: u8,
    pub rx1_dr_offset: u8,
    pub rx2_data_rate: u8,
    /// Hz.
    pub rx2_frequency: u32,
}

impl MacState {
    pub fn windows(&self) -> Windows {
        let Self { rx1_delay, rx1_dr_offset, rx2_data_rate, rx2_frequency, .. } = *self;
        Windows { rx1_delay, rx1_dr_offset, rx2_data_rate, rx2_frequency }
    }

    pub fn set_windows(&mut self, to: Windows) {
        (self.rx1_delay, self.rx1_dr_offset) = (to.rx1_delay, to.rx1_dr_offset);
        (self.rx2_data_rate, self.rx2_frequency) = (to.rx2_data_rate, to.rx2_frequency);
    }
}

fn is_highest(tx_power: &u8) -> bool {
    *tx_power == 0
}

/// The uplink (or join) accepted last, with all that a worker needs to finish it for a dead one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// 1, 2, ...; 0 before anything was accepted.
    pub number: u64,
    pub kind: SlotKind,
    /// The earliest `received_at` of its transmission.
    pub received_at: UnixMicros,
    /// Name of the worker that accepted it.
    pub worker: String,
    /// When that worker accepted it, on the clock that `received_at` is on: two workers' own clocks may differ.
    pub accepted_at: UnixMicros,
    /// Its events, in order. Empty for a repeated ACK.
    pub events: Vec<Event>,
    /// Only in the stored form: its answer, once decided.
    #[serde(rename = "downlink")]
    pub(crate) stored: Option<Box<PlannedDownlink>>,
    /// The event before this one may be in the pending table (`p` in the model).
    pub behind_pending: bool,
    /// The uplink's MIC, by which another frame under its FCntUp is known. `None` after a join, and in rows of versions
    /// that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mic: Option<[u8; 4]>,
}

/// What stands in the slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotKind {
    #[default]
    Empty,
    Join,
    /// An uplink with this FCntUp.
    Up(u32),
    /// A confirmed uplink with this FCntUp was heard again, after its event was out: an ACK, no event.
    AckAgain(u32),
}

/// A downlink as it was decided: sent again, never computed again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedDownlink {
    /// Identity of the bytes (session and FCntDown, or join).
    pub key: u64,
    pub gateway: Eui64,
    pub fcnt_down: u32,
    /// PHYPayload.
    pub phy: Vec<u8>,
    /// In order of preference; at least one.
    pub windows: Vec<PlannedWindow>,
    /// The balancer whose clock the windows are on ([`super::Reception::balancer`]).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub balancer: u64,
    /// The queue item that it carries.
    pub item: Option<SentItem>,
    /// Gateways that are asked one after the other if this one does not transmit the bytes, while a window is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<PlannedGateway>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A gateway that can transmit a downlink, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedGateway {
    pub gateway: Eui64,
    /// The balancer whose clock the windows are on.
    pub balancer: u64,
    /// In order of preference; at least one.
    pub windows: Vec<PlannedWindow>,
}

/// The queue item in a downlink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentItem {
    pub seq: u64,
    pub id: String,
}

/// One receive window that can carry the downlink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedWindow {
    /// 1 or 2.
    pub number: u8,
    /// When it opens, on the receiving balancer's clock.
    pub at: UnixMicros,
    /// The same in the gateway's own terms. The stored name is that of the first kind there was.
    #[serde(rename = "tmst")]
    pub radio: RadioTime,
    /// Hz.
    pub frequency: u32,
    pub data_rate: u8,
    /// dBm EIRP.
    pub power: i8,
    /// As the gateway named them; given back with a downlink.
    pub board: Option<u32>,
    pub antenna: Option<u32>,
}

/// The marks beside the row, written plainly; the highest number wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Number of the last slot whose events are out.
    pub out: u64,
    /// Whether they went through the pending table.
    pub out_through_pending: bool,
    /// 1 + the last FCntDown whose TX_ACK said that it was transmitted; 0 for none.
    pub sent: u64,
}

/// A session as it is read: row and marks of one partition read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionRow {
    pub session: Session,
    pub marks: Marks,
}

impl Slot {
    /// Before anything was accepted.
    pub fn empty() -> Self {
        Self {
            number: 0,
            kind: SlotKind::Empty,
            received_at: UnixMicros(0),
            worker: String::new(),
            accepted_at: UnixMicros(0),
            events: Vec::new(),
            stored: None,
            behind_pending: false,
            mic: None,
        }
    }
}

impl SessionRow {
    /// The events of the slot are known to be out (an empty slot has none to wait for).
    pub fn slot_is_out(&self) -> bool {
        self.session.slot.events.is_empty() || self.marks.out >= self.session.slot.number
    }
}
