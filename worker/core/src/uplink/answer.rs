//! The answer as a decision of its own: an ACK, MAC commands and a queue item in one downlink, decided once, by whoever comes to it.

use alloc::{format, string::String, vec::Vec};

use limpet_shared::{
    UnixMicros,
    lorawan::{DataSpec, Direction, FCtrl, MAX_FOPTS, build_data},
    region::Region,
};

use super::requests;
use crate::{downlink, ident, model::*};

/// MACPayload without FOpts, FPort and FRMPayload: DevAddr, FCtrl, FCnt.
const FHDR: usize = 7;
/// An item is sent so often without a sign of what became of it.
const MOST_OFFERS: u8 = 3;
/// Downlinks with it that no gateway has transmitted. More than what is busy for a while causes, and not without end: a gateway
/// that can never send it would hold up all that waits behind it.
const MOST_REFUSALS: u8 = 10;

/// An answer, and all that deciding it needs besides the session's row.
pub struct Reply<'a> {
    pub open: &'a OpenAnswer,
    /// The one that its windows are of.
    pub region: &'a Region,
    /// Those of [`Self::region`].
    pub settings: &'a RegionSettings,
    /// The device's queue, oldest first: two items that are not done are enough.
    pub queue: &'a [QueueItem],
    pub marks: Marks,
    pub now: UnixMicros,
    /// What time it is at a balancer.
    pub now_at: &'a dyn Fn(u64) -> UnixMicros,
}

/// What the answer's step comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next<'a> {
    /// There is nothing to say, or no window to say it in, or it is another uplink's turn.
    Ended,
    /// The row is older than what the caller knows: it must be read again, at SERIAL.
    Stale,
    /// It is decided, and a window may be left for its bytes.
    Send,
    /// To be decided, with what is in the queue at this moment.
    Open(&'a OpenAnswer),
}

/// The answer's step, for who waits for the answer of that slot and knows that the row has come to that revision.
pub fn next(session: &Session, slot: u64, rev: u64) -> Next<'_> {
    match &session.answer {
        _ if session.rev < rev => Next::Stale,
        Answer::Open(open) if open.slot == slot => Next::Open(open),
        Answer::Decided(decided) if decided.slot == slot => Next::Send,
        _ => Next::Ended,
    }
}

/// Decides the answer: true if there is something to say, and a window to say it in. FCntDown moves on only then.
pub fn decide(reply: &Reply<'_>, next: &mut Session) -> bool {
    let open = reply.open;
    let plan = downlink::in_time(&open.gateways, reply.now_at);
    if plan.is_empty() || next.next_fcnt_down == u32::MAX {
        return false;
    }
    let fits = |length| !downlink::fitting(&plan, length, (reply.region, reply.settings)).is_empty();
    let item = reply.item(next).filter(|item| fits(length(item)));
    if item.is_none() && !open.owes() {
        return false;
    }
    let said = MacCommands::beside(item, open, fits);
    let mut plan = downlink::fitting(&plan, said.length, (reply.region, reply.settings)).into_iter();
    let Some(first) = plan.next() else { return false };
    let more = reply.queue.iter().any(|i| i.seq > item.map_or(next.queue_done, |item| item.seq));
    let fcnt_down = next.next_fcnt_down;
    let spec = DataSpec {
        direction: Direction::Down,
        confirmed: item.is_some_and(|i| i.confirmed),
        dev_addr: next.key.dev_addr,
        fctrl: FCtrl { adr: open.adr, ack: open.ack, f_pending: more, ..FCtrl::default() },
        fcnt: fcnt_down,
        fopts: &said.fopts,
        fport: item.map(|i| i.fport).or((!said.on_port_0.is_empty()).then_some(0)),
        payload: item.map_or(&said.on_port_0, |i| &i.data),
    };
    let Ok(phy) = build_data(&spec, &next.keys.into()) else { return false };
    requests::note_sent(&mut next.mac, said.requests, next.seen.next.wrapping_sub(1), open.opened_at);
    next.next_fcnt_down += 1;
    let downlink = PlannedDownlink {
        key: ident::downlink_key(&next.key, fcnt_down),
        gateway: first.gateway,
        fcnt_down,
        phy,
        windows: first.windows,
        balancer: first.balancer,
        item: item.map(|i| SentItem { seq: i.seq, id: i.id.clone() }),
        others: plan.collect(),
    };
    next.answer = Answer::decided(open.slot, downlink);
    if let Some(item) = item {
        note_item(next, item, fcnt_down);
    }
    true
}

/// The MAC commands of a downlink.
struct MacCommands<'a> {
    fopts: Vec<u8>,
    /// FRMPayload of port 0, for what FOpts cannot hold; then these are empty (LoRaWAN 1.0.4, 4.3.1.6).
    on_port_0: Vec<u8>,
    /// Those of them that ask the device for something.
    requests: &'a [u8],
    /// Of the MACPayload.
    length: usize,
}

impl<'a> MacCommands<'a> {
    /// What leaves room for the item waits for another time; without an item port 0 is free.
    fn beside(item: Option<&QueueItem>, open: &'a OpenAnswer, fits: impl Fn(usize) -> bool) -> Self {
        let header = item.map_or(FHDR, length);
        let answers = if item.is_some() && !fits(header + open.fopts.len()) { &[] } else { &open.fopts[..] };
        let with = |requests: usize| match answers.len() + requests {
            commands @ 0..=MAX_FOPTS => Some(header + commands),
            commands => item.is_none().then_some(header + 1 + commands),
        };
        let requests = requests::whole(&open.requests, |length| with(length).is_some_and(&fits));
        let commands = [answers, requests].concat();
        let length = with(requests.len()).unwrap_or(header);
        if commands.len() > MAX_FOPTS {
            return Self { fopts: Vec::new(), on_port_0: commands, requests, length };
        }
        Self { fopts: commands, on_port_0: Vec::new(), requests, length }
    }
}

impl<'a> Reply<'a> {
    /// The item whose turn it is. One that is on air, or must be dropped, is left to the next uplink, which settles it.
    fn item(&self, next: &Session) -> Option<&'a QueueItem> {
        let item = self.queue.iter().find(|i| i.seq > next.queue_done)?;
        let is_over = |sent: ItemInFlight| {
            sent.seq == item.seq && (self.marks.sent > u64::from(sent.first_fcnt_down) || hopeless(sent).is_some())
        };
        let has_expired = item.expires_at.is_some_and(|at| at <= self.now);
        (!has_expired && !next.item.is_some_and(is_over)).then_some(item)
    }
}

/// Remembers that the item is on its way. An item offered again keeps the FCntDown it was first sent under: a TX_ACK
/// for any of its downlinks settles it.
fn note_item(next: &mut Session, item: &QueueItem, fcnt_down: u32) {
    let again = next.item.filter(|i| i.seq == item.seq);
    let offered = again.map(|item| ItemInFlight { offers: item.offers.saturating_add(1), ..item });
    next.item = Some(offered.unwrap_or(ItemInFlight::new(item.seq, fcnt_down)));
    if item.confirmed {
        next.awaiting_ack = Some(AwaitingAck { queue_item: item.id.clone(), fcnt_down });
    }
}

/// Of a MACPayload that carries the item and no commands.
pub(super) fn length(item: &QueueItem) -> usize {
    FHDR + 1 + item.data.len()
}

/// Why an item is offered no more: it was sent often enough, and nobody knows whether it was transmitted; or nobody did.
pub(super) fn hopeless(sent: ItemInFlight) -> Option<String> {
    if sent.refusals >= MOST_REFUSALS {
        return Some(format!("gateways did not transmit it {MOST_REFUSALS} times: it is given up"));
    }
    let unknown = sent.offers >= MOST_OFFERS;
    unknown.then(|| format!("sent {MOST_OFFERS} times, and no gateway has said whether it was transmitted"))
}
