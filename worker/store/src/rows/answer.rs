//! Answers, and the downlinks in them.

use limpet_shared::{Eui64, RadioTime};
use limpet_worker_core::model::{
    Answer, DecidedAnswer, OpenAnswer, PlannedDownlink, PlannedGateway, PlannedWindow, SentItem,
};
use prost::{Message, Oneof};

use super::{Read, at, fits};

/// Of a closed one there is nothing.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum AnswerRow {
    #[prost(message, tag = "16")]
    Open(OpenRow),
    #[prost(message, tag = "17")]
    Decided(DecidedRow),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OpenRow {
    #[prost(uint64, tag = "1")]
    slot: u64,
    #[prost(fixed64, tag = "2")]
    opened_at: u64,
    #[prost(bool, tag = "3")]
    ack: bool,
    #[prost(bool, tag = "4")]
    adr: bool,
    #[prost(bool, tag = "5")]
    asked: bool,
    #[prost(bytes = "vec", tag = "6")]
    fopts: Vec<u8>,
    #[prost(message, repeated, tag = "8")]
    gateways: Vec<GatewayRow>,
    #[prost(string, tag = "9")]
    region: String,
    /// Tag 7 was of a version in between.
    #[prost(bytes = "vec", tag = "10")]
    requests: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DecidedRow {
    #[prost(uint64, tag = "1")]
    slot: u64,
    #[prost(fixed64, tag = "2")]
    key: u64,
    #[prost(uint32, tag = "3")]
    fcnt_down: u32,
    #[prost(bytes = "vec", tag = "4")]
    phy: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    item: Option<ItemRow>,
    /// The first is asked first.
    #[prost(message, repeated, tag = "6")]
    gateways: Vec<GatewayRow>,
}

#[derive(Clone, PartialEq, Message)]
struct ItemRow {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(string, tag = "2")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct GatewayRow {
    #[prost(fixed64, tag = "1")]
    gateway: u64,
    #[prost(fixed64, tag = "2")]
    balancer: u64,
    #[prost(message, repeated, tag = "3")]
    windows: Vec<WindowRow>,
}

#[derive(Clone, PartialEq, Message)]
struct WindowRow {
    #[prost(oneof = "RadioTime", tags = "1, 2, 3")]
    radio: Option<RadioTime>,
    #[prost(uint32, tag = "4")]
    number: u32,
    #[prost(fixed64, tag = "5")]
    at: u64,
    #[prost(uint32, tag = "6")]
    frequency: u32,
    #[prost(uint32, tag = "7")]
    data_rate: u32,
    #[prost(sint32, tag = "8")]
    power: i32,
    #[prost(uint32, optional, tag = "9")]
    board: Option<u32>,
    #[prost(uint32, optional, tag = "10")]
    antenna: Option<u32>,
}

pub(super) fn to_row(answer: &Answer) -> Option<AnswerRow> {
    match answer {
        Answer::Closed => None,
        Answer::Open(open) => Some(AnswerRow::Open(OpenRow {
            slot: open.slot,
            opened_at: open.opened_at.0,
            ack: open.ack,
            adr: open.adr,
            asked: open.asked,
            fopts: open.fopts.clone(),
            requests: open.requests.clone(),
            gateways: open.gateways.iter().map(gateway_row).collect(),
            region: open.region.clone(),
        })),
        Answer::Decided(decided) => Some(AnswerRow::Decided(decided_row(decided))),
    }
}

pub(super) fn from_row(row: Option<AnswerRow>) -> Read<Answer> {
    Ok(match row {
        None => Answer::Closed,
        Some(AnswerRow::Open(open)) => Answer::Open(Box::new(OpenAnswer {
            slot: open.slot,
            opened_at: at(open.opened_at),
            ack: open.ack,
            adr: open.adr,
            asked: open.asked,
            fopts: open.fopts,
            requests: open.requests,
            gateways: gateways(open.gateways)?,
            region: open.region,
        })),
        Some(AnswerRow::Decided(row)) => Answer::Decided(Box::new(decided(row)?)),
    })
}

fn decided_row(DecidedAnswer { slot, downlink }: &DecidedAnswer) -> DecidedRow {
    let first = GatewayRow {
        gateway: downlink.gateway.0,
        balancer: downlink.balancer,
        windows: downlink.windows.iter().map(window_row).collect(),
    };
    DecidedRow {
        slot: *slot,
        key: downlink.key,
        fcnt_down: downlink.fcnt_down,
        phy: downlink.phy.clone(),
        item: downlink.item.as_ref().map(|item| ItemRow { seq: item.seq, id: item.id.clone() }),
        gateways: std::iter::once(first).chain(downlink.others.iter().map(gateway_row)).collect(),
    }
}

fn decided(row: DecidedRow) -> Read<DecidedAnswer> {
    let mut gateways = gateways(row.gateways)?.into_iter();
    let PlannedGateway { gateway, balancer, windows } = gateways.next().ok_or("a downlink is for no gateway")?;
    let downlink = PlannedDownlink {
        key: row.key,
        gateway,
        fcnt_down: row.fcnt_down,
        phy: row.phy,
        windows,
        balancer,
        item: row.item.map(|item| SentItem { seq: item.seq, id: item.id }),
        others: gateways.collect(),
    };
    Ok(DecidedAnswer { slot: row.slot, downlink })
}

fn gateway_row(planned: &PlannedGateway) -> GatewayRow {
    GatewayRow {
        gateway: planned.gateway.0,
        balancer: planned.balancer,
        windows: planned.windows.iter().map(window_row).collect(),
    }
}

fn gateways(rows: Vec<GatewayRow>) -> Read<Vec<PlannedGateway>> {
    let gateway = |row: GatewayRow| {
        let windows = row.windows.into_iter().map(window).collect::<Read<_>>()?;
        Ok(PlannedGateway { gateway: Eui64(row.gateway), balancer: row.balancer, windows })
    };
    rows.into_iter().map(gateway).collect()
}

fn window_row(window: &PlannedWindow) -> WindowRow {
    WindowRow {
        radio: Some(window.radio.clone()),
        number: window.number.into(),
        at: window.at.0,
        frequency: window.frequency,
        data_rate: window.data_rate.into(),
        power: window.power.into(),
        board: window.board,
        antenna: window.antenna,
    }
}

fn window(row: WindowRow) -> Read<PlannedWindow> {
    Ok(PlannedWindow {
        number: fits(row.number)?,
        at: at(row.at),
        radio: row.radio.ok_or("a window is timed in a way that is not known here")?,
        frequency: row.frequency,
        data_rate: fits(row.data_rate)?,
        power: fits(row.power)?,
        board: row.board,
        antenna: row.antenna,
    })
}
