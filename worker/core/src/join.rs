//! OTAA: what a JoinRequest is to its device, and the session that accepting it makes.

use alloc::vec::Vec;

use limpet_shared::{
    AesKey, DevAddr, Eui64, UnixMicros,
    lorawan::{JoinAccept, JoinRequest, session_keys},
    region::Region,
};

use crate::{
    downlink::{self, Timing, Way},
    ident,
    model::*,
    session,
};

/// The number of a join's slot in its session.
const FIRST_SLOT: u64 = 1;

/// Why a JoinRequest makes no session. Each variant is a drop reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinDrop {
    #[error("the JoinRequest was received before that of the device's current session")]
    Superseded,
    #[error("no receive window is left for the JoinAccept")]
    TooLate,
    #[error("the DevNonce is not above the highest used, as LoRaWAN 1.0.4 wants")]
    DevNonceNotAscending,
    #[error("the device has used up its 2^24 JoinNonces")]
    JoinNoncesUsedUp,
}

impl JoinDrop {
    /// The metric's label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Superseded => "join_superseded",
            Self::TooLate => "join_too_late",
            Self::DevNonceNotAscending => "dev_nonce_not_ascending",
            Self::JoinNoncesUsedUp => "join_nonces_used_up",
        }
    }
}

/// A JoinRequest whose MIC is right, and all that deciding about it needs.
#[derive(Clone, Debug)]
pub struct Join<'a> {
    pub request: &'a JoinRequest,
    pub context: &'a DeviceContext,
    pub state: &'a DeviceState,
    /// The region that it was received in.
    pub region: &'a Region,
    /// The region configuration that the device is to be in, of the same band: what its profile names, else [`Self::region`].
    pub home: &'a Region,
    /// All receptions of this transmission; at least one.
    pub receptions: &'a [Reception],
    /// The way back of each.
    pub ways: &'a [Way],
    /// As they are at this moment.
    pub settings: &'a NetworkSettings,
    /// 32 random bits: the device part of the DevAddr ([`dev_addr`]).
    pub random: u32,
    /// Items of the device's queue up to this number are not for the new session; absent if all of them stay.
    pub flush: Option<u64>,
    /// The session that the device was in so far.
    pub before: Option<&'a SessionRow>,
    /// The session before that, which ends now.
    pub ending: Option<&'a SessionRow>,
    pub worker: &'a str,
    /// On the clock of the balancer that received it first.
    pub now: UnixMicros,
}

/// Accepts a JoinRequest whose DevNonce was not used: the device's next state, and the row that holds the whole join.
pub fn accept(join: &Join<'_>) -> Result<(DeviceState, JoinRow), JoinDrop> {
    let received_at = join.receptions.iter().map(|r| r.received_at).min().unwrap_or(join.now);
    let state = join.state;
    // A session that began beyond the present did so by a clock that is, or was, ahead of this one: that says nothing.
    if state.current.is_some_and(|c| c.dev_nonce.is_some() && received_at < c.since && c.since <= join.now) {
        return Err(JoinDrop::Superseded);
    }
    let counts_up = join.context.profile.mac_version >= MacVersion::V1_0_4;
    if counts_up && state.highest_dev_nonce.is_some_and(|highest| join.request.dev_nonce <= highest) {
        return Err(JoinDrop::DevNonceNotAscending);
    }
    if state.next_join_nonce >= 1 << 24 {
        return Err(JoinDrop::JoinNoncesUsedUp);
    }
    let heard = (join.region, join.settings.of(join.region));
    let plan = downlink::plan(join.receptions, join.ways, Timing::of_join(join.region), heard);
    let mut plan = downlink::in_time(&plan, downlink::clock(join.receptions, join.ways, join.now)).into_iter();
    let first = plan.next().ok_or(JoinDrop::TooLate)?;
    let mut session = new_session(join, received_at);
    let accept = PlannedDownlink {
        key: ident::accept_key(&session.key),
        gateway: first.gateway,
        fcnt_down: 0,
        phy: accept_bytes(join, &session),
        windows: first.windows,
        balancer: first.balancer,
        item: None,
        others: plan.collect(),
    };
    session.slot = first_slot(join, &session, received_at);
    session.answer = Answer::decided(FIRST_SLOT, accept.clone());
    let current = CurrentSession { key: session.key, since: received_at, dev_nonce: Some(join.request.dev_nonce) };
    let mut next = DeviceState {
        dev_eui: state.dev_eui,
        rev: state.rev + 1,
        next_join_nonce: state.next_join_nonce + 1,
        highest_dev_nonce: state.highest_dev_nonce.max(Some(join.request.dev_nonce)),
        current: Some(current),
        previous: state.current.map(|c| c.key),
        former: state.former.clone(),
        down_counters: state.down_counters.clone(),
    };
    let forgotten = next.part_with(state.previous, received_at);
    // Keys of a join never come again.
    for row in join.before.into_iter().chain(join.ending).filter(|row| !row.session.joined) {
        next.remember_counter(row);
    }
    let (dev_eui, dev_nonce) = (state.dev_eui, join.request.dev_nonce);
    Ok((next, JoinRow { dev_eui, dev_nonce, session, accept, retired: state.previous, forgotten }))
}

/// What is kept of the join of this session when a newer one has come: it is never finished, so neither keys nor bytes.
pub fn over(session: &CurrentSession, region: &Region) -> Option<JoinRow> {
    let none = AesKey([0; 16]);
    let keys = SessionKeys { nwk_s_key: none, app_s_key: none };
    let mut kept = session::begin(session.key, session.since, true, region, keys);
    kept.slot.number = FIRST_SLOT;
    let accept = PlannedDownlink {
        key: 0,
        gateway: Eui64(0),
        fcnt_down: 0,
        phy: Vec::new(),
        windows: Vec::new(),
        balancer: 0,
        item: None,
        others: Vec::new(),
    };
    let (dev_eui, dev_nonce) = (session.key.dev_eui, session.dev_nonce?);
    Some(JoinRow { dev_eui, dev_nonce, session: kept, accept, retired: None, forgotten: Vec::new() })
}

fn new_session(join: &Join<'_>, received_at: UnixMicros) -> Session {
    let (state, request) = (join.state, join.request);
    let key = SessionKey {
        dev_addr: dev_addr(join.settings.net_id(), join.random),
        dev_eui: state.dev_eui,
        id: ident::joined_session(state.dev_eui, request.dev_nonce, state.next_join_nonce, received_at),
    };
    let app_key = join.context.device.app_key.unwrap_or_default();
    let keys = session_keys(&app_key, state.next_join_nonce, join.settings.net_id(), request.dev_nonce);
    let keys = SessionKeys { nwk_s_key: keys.nwk_s_key, app_s_key: keys.app_s_key };
    let mut session = session::begin(key, received_at, true, join.home, keys);
    session.mac = session::told_at_join(join.home, join.settings.of(join.home), &join.context.profile);
    // Flushing is this number, so that it is written with the session and by nobody else.
    session.queue_done = join.before.map_or(0, queue_done).max(join.flush.unwrap_or_default());
    // A device that took the CFList knows its channels; the others are told by LinkADRReq.
    session.mac.channels_set = cf_list(join, &session).is_some();
    session
}

/// The channels that the session has, for a device that reads them.
fn cf_list(join: &Join<'_>, session: &Session) -> Option<[u8; 16]> {
    let list = match &session.mac.extra_channels {
        Some(extra) => join.home.cf_list_of(extra),
        None => join.home.cf_list(),
    };
    list.filter(|_| takes_cf_list(join))
}

/// A fixed plan's CFList (type 1) came with the regional parameters of LoRaWAN 1.0.3.
fn takes_cf_list(join: &Join<'_>) -> bool {
    let dynamic_plan = join.home.channel_mask_requests(0).is_empty();
    dynamic_plan || join.context.profile.mac_version >= MacVersion::V1_0_3
}

fn accept_bytes(join: &Join<'_>, session: &Session) -> Vec<u8> {
    let accept = JoinAccept {
        join_nonce: join.state.next_join_nonce,
        net_id: join.settings.net_id(),
        dev_addr: session.key.dev_addr,
        rx1_dr_offset: session.mac.rx1_dr_offset,
        rx2_data_rate: session.mac.rx2_data_rate,
        rx_delay: session.mac.rx1_delay,
        cf_list: cf_list(join, session),
    };
    accept.build(&join.context.device.app_key.unwrap_or_default())
}

/// Bits of the NwkID in a DevAddr, by the NetID's type, its highest three bits (LoRaWAN Backend Interfaces, 12.2).
const NWK_ID_BITS: [u32; 8] = [6, 6, 9, 11, 12, 13, 15, 17];

/// A DevAddr of that network: as many ones as the NetID's type says and a zero, the lowest bits of the NetID as NwkID, and the rest of
/// `random`.
pub fn dev_addr(net_id: u32, random: u32) -> DevAddr {
    let kind = net_id >> 21 & 0b111;
    let id_bits = NWK_ID_BITS[kind as usize];
    let device_bits = 31 - kind - id_bits;
    let ones = (1_u32 << kind) - 1;
    let prefix = ones << 1 << (31 - kind);
    let id = (net_id & ((1 << id_bits) - 1)) << device_bits;
    DevAddr(prefix | id | random & ((1 << device_bits) - 1))
}

/// Which queue items the session so far has seen to.
fn queue_done(row: &SessionRow) -> u64 {
    let sent = |first: u32| row.marks.sent > u64::from(first);
    let item = row.session.item.filter(|i| sent(i.first_fcnt_down)).map_or(0, |i| i.seq);
    row.session.queue_done.max(item)
}

/// A confirmed downlink that was transmitted in the session so far: a device that has started anew acknowledges it no more.
/// One of which that is not known is offered again, unless the queue is flushed.
fn unacknowledged(join: &Join<'_>, session: &Session, at: UnixMicros) -> Option<Event> {
    let row = join.before?;
    let awaiting = row
        .session
        .awaiting_ack
        .as_ref()
        .filter(|a| join.flush.is_some() || row.marks.sent > u64::from(a.fcnt_down))?;
    let AwaitingAck { queue_item, fcnt_down } = awaiting.clone();
    Some(Event {
        id: ident::event_id("ack at join", &session.key, 0, fcnt_down),
        at,
        device: join.context.info(),
        kind: EventKind::Ack(AckEvent { queue_item, acknowledged: false, fcnt_down }),
    })
}

fn first_slot(join: &Join<'_>, session: &Session, received_at: UnixMicros) -> Slot {
    let event = Event {
        id: ident::event_id("join", &session.key, 0, 0),
        at: received_at,
        device: join.context.info(),
        kind: EventKind::Join(JoinEvent { dev_addr: session.key.dev_addr, region: join.home.name().into() }),
    };
    Slot {
        number: FIRST_SLOT,
        kind: SlotKind::Join,
        received_at,
        worker: join.worker.into(),
        accepted_at: join.now,
        events: core::iter::once(event).chain(unacknowledged(join, session, received_at)).collect(),
        ..Slot::empty()
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    /// The prefixes are those of LoRaWAN Backend Interfaces 1.0, table 3: NetIDs of each type with all their bits set.
    #[test]
    fn an_address_begins_as_the_type_of_the_net_id_says() {
        let types = [
            (0x00_0000, "00000000", "01ffffff"),
            (0x00_003f, "7e000000", "7fffffff"),
            (0x00_0013, "26000000", "27ffffff"),
            (0x20_003f, "bf000000", "bfffffff"),
            (0x40_01ff, "dff00000", "dfffffff"),
            (0x60_07ff, "effe0000", "efffffff"),
            (0x60_002d, "e05a0000", "e05bffff"),
            (0x80_0fff, "f7ff8000", "f7ffffff"),
            (0xa0_1fff, "fbffe000", "fbffffff"),
            (0xc0_7fff, "fdfffc00", "fdffffff"),
            (0xe1_ffff, "feffff80", "feffffff"),
            (0xff_ffff, "feffff80", "feffffff"),
        ];
        for (net_id, lowest, highest) in types {
            assert_eq!(dev_addr(net_id, 0).to_string(), lowest, "{net_id:06x}");
            assert_eq!(dev_addr(net_id, u32::MAX).to_string(), highest, "{net_id:06x}");
        }
    }
}
