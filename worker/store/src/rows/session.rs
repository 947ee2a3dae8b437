//! Sessions.

use limpet_shared::{DevAddr, Eui64};
use limpet_worker_core::model::{
    AdrState, AwaitingAck, DwellTime, HeardUplink, ItemInFlight, MacState, Over, Request, RequestState, Seen, Session,
    SessionId, SessionKey, SessionKeys, Slot, SlotKind,
};
use prost::Message;

use super::{
    Read,
    answer::{self, AnswerRow},
    at, event, fits, fits_option, key,
    settings::{ChannelsRow, channels, channels_row},
};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SessionRow {
    #[prost(fixed32, tag = "1")]
    dev_addr: u32,
    #[prost(fixed64, tag = "2")]
    dev_eui: u64,
    #[prost(fixed64, tag = "3")]
    id: u64,
    #[prost(uint64, tag = "4")]
    rev: u64,
    #[prost(fixed64, tag = "5")]
    since: u64,
    #[prost(uint32, optional, tag = "6")]
    replaced_at: Option<u32>,
    #[prost(bool, tag = "7")]
    joined: bool,
    #[prost(string, tag = "8")]
    region: String,
    #[prost(bytes = "vec", tag = "9")]
    nwk_s_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    app_s_key: Vec<u8>,
    #[prost(message, optional, tag = "11")]
    seen: Option<SeenRow>,
    #[prost(uint32, tag = "12")]
    resets: u32,
    #[prost(uint32, tag = "13")]
    next_fcnt_down: u32,
    #[prost(message, optional, tag = "14")]
    mac: Option<MacRow>,
    #[prost(message, optional, tag = "15")]
    slot: Option<SlotRow>,
    #[prost(oneof = "AnswerRow", tags = "16, 17")]
    answer: Option<AnswerRow>,
    #[prost(message, optional, tag = "18")]
    item: Option<ItemRow>,
    #[prost(uint64, tag = "19")]
    queue_done: u64,
    #[prost(message, optional, tag = "20")]
    awaiting_ack: Option<AwaitingRow>,
    #[prost(message, optional, tag = "30")]
    over: Option<OverRow>,
}

#[derive(Clone, PartialEq, Message)]
struct OverRow {
    #[prost(fixed64, tag = "1")]
    at: u64,
    #[prost(bytes = "vec", tag = "2")]
    nwk_s_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    app_s_key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct SeenRow {
    #[prost(uint32, tag = "1")]
    next: u32,
    /// Words of the bitmap, without those at its end that are 0.
    #[prost(fixed64, repeated, tag = "2")]
    bits: Vec<u64>,
    #[prost(fixed64, tag = "3")]
    high_at: u64,
    #[prost(fixed32, optional, tag = "4")]
    high_mic: Option<u32>,
    #[prost(fixed64, tag = "5")]
    restarted_after: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MacRow {
    #[prost(uint32, tag = "1")]
    rx1_delay: u32,
    #[prost(uint32, tag = "2")]
    rx1_dr_offset: u32,
    #[prost(uint32, tag = "3")]
    rx2_data_rate: u32,
    #[prost(uint32, tag = "4")]
    rx2_frequency: u32,
    #[prost(uint32, tag = "5")]
    data_rate: u32,
    #[prost(bool, tag = "6")]
    channels_set: bool,
    #[prost(uint32, tag = "7")]
    channels_tried: u32,
    #[prost(uint32, optional, tag = "8")]
    battery: Option<u32>,
    #[prost(sint32, optional, tag = "9")]
    margin: Option<i32>,
    #[prost(message, optional, tag = "10")]
    extra_channels: Option<ChannelsRow>,
    #[prost(uint32, tag = "11")]
    tx_power: u32,
    #[prost(uint64, tag = "12")]
    status_asked_at: u64,
    #[prost(message, repeated, tag = "13")]
    requests: Vec<RequestRow>,
    #[prost(message, optional, tag = "14")]
    adr: Option<AdrRow>,
    #[prost(message, optional, tag = "20")]
    dwell: Option<DwellRow>,
}

/// Limits of 400 ms.
#[derive(Clone, PartialEq, Message)]
struct DwellRow {
    #[prost(bool, tag = "1")]
    uplink: bool,
    #[prost(bool, tag = "2")]
    downlink: bool,
}

#[derive(Clone, PartialEq, Message)]
struct AdrRow {
    #[prost(uint32, tag = "1")]
    nb_trans: u32,
    #[prost(uint32, optional, tag = "2")]
    max_data_rate: Option<u32>,
    #[prost(uint32, tag = "3")]
    min_power: u32,
    #[prost(uint32, optional, tag = "4")]
    max_power: Option<u32>,
    #[prost(uint32, tag = "5")]
    ignored: u32,
    /// Two bytes of each uplink.
    #[prost(bytes = "vec", tag = "6")]
    heard: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RequestRow {
    #[prost(bytes = "vec", tag = "1")]
    commands: Vec<u8>,
    #[prost(uint32, tag = "2")]
    tries: u32,
    #[prost(uint32, tag = "3")]
    asked_at: u32,
    /// 0 waiting, 1 refused, 2 unanswered.
    #[prost(uint32, tag = "4")]
    state: u32,
}

#[derive(Clone, PartialEq, Message)]
struct SlotRow {
    #[prost(uint64, tag = "1")]
    number: u64,
    /// 0 empty, 1 join, 2 uplink, 3 an uplink heard again.
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(uint32, tag = "3")]
    fcnt: u32,
    #[prost(fixed64, tag = "4")]
    received_at: u64,
    #[prost(string, tag = "5")]
    worker: String,
    #[prost(fixed64, tag = "6")]
    accepted_at: u64,
    /// Whose its events are: once, for all of them.
    #[prost(message, optional, tag = "7")]
    device: Option<event::DeviceRow>,
    #[prost(message, repeated, tag = "8")]
    events: Vec<event::EventRow>,
    #[prost(bool, tag = "9")]
    behind_pending: bool,
    #[prost(fixed32, optional, tag = "10")]
    mic: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct ItemRow {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(uint32, tag = "2")]
    first_fcnt_down: u32,
    #[prost(uint32, tag = "3")]
    offers: u32,
    #[prost(uint32, optional, tag = "4")]
    refused: Option<u32>,
    #[prost(uint32, tag = "5")]
    refusals: u32,
}

#[derive(Clone, PartialEq, Message)]
struct AwaitingRow {
    #[prost(string, tag = "1")]
    queue_item: String,
    #[prost(uint32, tag = "2")]
    fcnt_down: u32,
}

pub(super) fn to_row(session: &Session) -> SessionRow {
    SessionRow {
        dev_addr: session.key.dev_addr.0,
        dev_eui: session.key.dev_eui.0,
        id: session.key.id.0,
        rev: session.rev,
        since: session.since.0,
        replaced_at: session.replaced_at,
        joined: session.joined,
        region: session.region.clone(),
        nwk_s_key: session.keys.nwk_s_key.0.into(),
        app_s_key: session.keys.app_s_key.0.into(),
        seen: Some(seen_row(&session.seen)),
        resets: session.resets,
        next_fcnt_down: session.next_fcnt_down,
        mac: Some(mac_row(&session.mac)),
        slot: Some(slot_row(&session.slot)),
        answer: answer::to_row(&session.answer),
        item: session.item.map(item_row),
        queue_done: session.queue_done,
        awaiting_ack: session
            .awaiting_ack
            .as_ref()
            .map(|waits| AwaitingRow { queue_item: waits.queue_item.clone(), fcnt_down: waits.fcnt_down }),
        over: session.over.map(|over| OverRow {
            at: over.at.0,
            nwk_s_key: over.keys.nwk_s_key.0.into(),
            app_s_key: over.keys.app_s_key.0.into(),
        }),
    }
}

pub(super) fn from_row(row: SessionRow) -> Read<Session> {
    let key_of_row = SessionKey { dev_addr: DevAddr(row.dev_addr), dev_eui: Eui64(row.dev_eui), id: SessionId(row.id) };
    Ok(Session {
        key: key_of_row,
        rev: row.rev,
        since: at(row.since),
        replaced_at: row.replaced_at,
        joined: row.joined,
        region: row.region,
        keys: SessionKeys { nwk_s_key: key(&row.nwk_s_key)?, app_s_key: key(&row.app_s_key)? },
        seen: seen(row.seen.ok_or("a session does not say what it has seen")?)?,
        resets: row.resets,
        next_fcnt_down: row.next_fcnt_down,
        mac: mac(row.mac.ok_or("a session has no receive windows")?)?,
        slot: slot(row.slot.ok_or("a session has no slot")?)?,
        answer: answer::from_row(row.answer)?,
        item: row.item.map(item).transpose()?,
        queue_done: row.queue_done,
        awaiting_ack: row
            .awaiting_ack
            .map(|waits| AwaitingAck { queue_item: waits.queue_item, fcnt_down: waits.fcnt_down }),
        over: row.over.map(over).transpose()?,
    })
}

fn over(row: OverRow) -> Read<Over> {
    let keys = SessionKeys { nwk_s_key: key(&row.nwk_s_key)?, app_s_key: key(&row.app_s_key)? };
    Ok(Over { at: at(row.at), keys })
}

fn seen_row(seen: &Seen) -> SeenRow {
    let used = seen.bits.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
    SeenRow {
        next: seen.next,
        bits: seen.bits[..used].into(),
        high_at: seen.high_at.0,
        high_mic: seen.high_mic.map(u32::from_be_bytes),
        restarted_after: seen.restarted_after.0,
    }
}

fn seen(row: SeenRow) -> Read<Seen> {
    let mut bits = [0; 8];
    bits.get_mut(..row.bits.len()).ok_or("a session has seen more than it can remember")?.copy_from_slice(&row.bits);
    Ok(Seen {
        next: row.next,
        bits,
        high_at: at(row.high_at),
        high_mic: row.high_mic.map(u32::to_be_bytes),
        restarted_after: at(row.restarted_after),
    })
}

fn mac_row(mac: &MacState) -> MacRow {
    MacRow {
        rx1_delay: mac.rx1_delay.into(),
        rx1_dr_offset: mac.rx1_dr_offset.into(),
        rx2_data_rate: mac.rx2_data_rate.into(),
        rx2_frequency: mac.rx2_frequency,
        data_rate: mac.data_rate.into(),
        channels_set: mac.channels_set,
        channels_tried: mac.channels_tried.into(),
        battery: mac.battery.map(u32::from),
        margin: mac.margin.map(i32::from),
        extra_channels: mac.extra_channels.as_deref().map(channels_row),
        tx_power: mac.tx_power.into(),
        status_asked_at: mac.status_asked_at.0,
        requests: mac.requests.iter().map(request_row).collect(),
        adr: (!mac.adr.is_empty()).then(|| adr_row(&mac.adr)),
        dwell: mac.dwell.map(|limits| DwellRow { uplink: limits.uplink, downlink: limits.downlink }),
    }
}

fn mac(row: MacRow) -> Read<MacState> {
    Ok(MacState {
        rx1_delay: fits(row.rx1_delay)?,
        rx1_dr_offset: fits(row.rx1_dr_offset)?,
        rx2_data_rate: fits(row.rx2_data_rate)?,
        rx2_frequency: row.rx2_frequency,
        data_rate: fits(row.data_rate)?,
        channels_set: row.channels_set,
        channels_tried: fits(row.channels_tried)?,
        battery: fits_option(row.battery)?,
        margin: fits_option(row.margin)?,
        extra_channels: row.extra_channels.map(channels),
        tx_power: fits(row.tx_power)?,
        status_asked_at: at(row.status_asked_at),
        requests: row.requests.into_iter().map(request).collect::<Read<_>>()?,
        adr: row.adr.map(adr).transpose()?.unwrap_or_default(),
        dwell: row.dwell.map(|limits| DwellTime { uplink: limits.uplink, downlink: limits.downlink }),
    })
}

fn adr_row(adr: &AdrState) -> AdrRow {
    AdrRow {
        nb_trans: adr.nb_trans.into(),
        max_data_rate: adr.max_data_rate.map(u32::from),
        min_power: adr.min_power.into(),
        max_power: adr.max_power.map(u32::from),
        ignored: adr.ignored.into(),
        heard: adr.heard.iter().flat_map(|heard| [heard.missed, heard.snr.cast_unsigned()]).collect(),
    }
}

fn adr(row: AdrRow) -> Read<AdrState> {
    let (pairs, []) = row.heard.as_chunks::<2>() else { return Err("an uplink was heard in half") };
    Ok(AdrState {
        nb_trans: fits(row.nb_trans)?,
        max_data_rate: fits_option(row.max_data_rate)?,
        min_power: fits(row.min_power)?,
        max_power: fits_option(row.max_power)?,
        ignored: fits(row.ignored)?,
        heard: pairs.iter().map(|&[missed, snr]| HeardUplink { missed, snr: snr.cast_signed() }).collect(),
    })
}

fn request_row(request: &Request) -> RequestRow {
    let state = match request.state {
        RequestState::Waiting => 0,
        RequestState::Refused => 1,
        RequestState::Unanswered => 2,
    };
    let Request { commands, tries, asked_at, .. } = request;
    RequestRow { commands: commands.clone(), tries: (*tries).into(), asked_at: *asked_at, state }
}

fn request(row: RequestRow) -> Read<Request> {
    let state = match row.state {
        0 => RequestState::Waiting,
        1 => RequestState::Refused,
        2 => RequestState::Unanswered,
        _ => return Err("a request to a device is in a state that is not known here"),
    };
    Ok(Request { commands: row.commands, tries: fits(row.tries)?, asked_at: row.asked_at, state })
}

fn slot_row(slot: &Slot) -> SlotRow {
    let (kind, fcnt) = match slot.kind {
        SlotKind::Empty => (0, 0),
        SlotKind::Join => (1, 0),
        SlotKind::Up(fcnt) => (2, fcnt),
        SlotKind::AckAgain(fcnt) => (3, fcnt),
    };
    let device = slot.events.first().map(|event| &event.device);
    SlotRow {
        number: slot.number,
        kind,
        fcnt,
        received_at: slot.received_at.0,
        worker: slot.worker.clone(),
        accepted_at: slot.accepted_at.0,
        device: device.map(event::device_row),
        events: slot.events.iter().map(|event| event::to_row(event, device)).collect(),
        behind_pending: slot.behind_pending,
        mic: slot.mic.map(u32::from_be_bytes),
    }
}

fn slot(row: SlotRow) -> Read<Slot> {
    let device = row.device.map(event::device).transpose()?;
    let kind = match row.kind {
        0 => SlotKind::Empty,
        1 => SlotKind::Join,
        2 => SlotKind::Up(row.fcnt),
        3 => SlotKind::AckAgain(row.fcnt),
        _ => return Err("a slot is of a kind that is not known here"),
    };
    let events = row.events.into_iter().map(|event| event::from_row(event, device.as_ref()));
    let mut slot = Slot::empty();
    (slot.number, slot.kind, slot.received_at) = (row.number, kind, at(row.received_at));
    (slot.worker, slot.accepted_at) = (row.worker, at(row.accepted_at));
    slot.events = events.collect::<Read<_>>()?;
    (slot.behind_pending, slot.mic) = (row.behind_pending, row.mic.map(u32::to_be_bytes));
    Ok(slot)
}

fn item_row(item: ItemInFlight) -> ItemRow {
    ItemRow {
        seq: item.seq,
        first_fcnt_down: item.first_fcnt_down,
        offers: item.offers.into(),
        refused: item.refused,
        refusals: item.refusals.into(),
    }
}

fn item(row: ItemRow) -> Read<ItemInFlight> {
    Ok(ItemInFlight {
        seq: row.seq,
        first_fcnt_down: row.first_fcnt_down,
        offers: fits(row.offers)?,
        refused: row.refused,
        refusals: fits(row.refusals)?,
    })
}
