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
    /// Of the cluster, 24 bits.
    pub net_id: u32,
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
    let plan = downlink::plan(join.receptions, join.ways, Timing::of_join(join.region), join.region);
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
        down_counters: state.down_counters.clone(),
    };
    // Keys of a join never come again.
    for row in join.before.into_iter().chain(join.ending).filter(|row| !row.session.joined) {
        next.remember_counter(row);
    }
    let (dev_eui, dev_nonce) = (state.dev_eui, join.request.dev_nonce);
    Ok((next, JoinRow { dev_eui, dev_nonce, session, accept, retired: state.previous }))
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
    Some(JoinRow { dev_eui, dev_nonce, session: kept, accept, retired: None })
}

fn new_session(join: &Join<'_>, received_at: UnixMicros) -> Session {
    let (state, request) = (join.state, join.request);
    let key = SessionKey {
        dev_addr: dev_addr(join.net_id, join.random),
        dev_eui: state.dev_eui,
        id: ident::joined_session(state.dev_eui, request.dev_nonce, state.next_join_nonce, received_at),
    };
    let app_key = join.context.device.app_key.unwrap_or_default();
    let keys = session_keys(&app_key, state.next_join_nonce, join.net_id, request.dev_nonce);
    let keys = SessionKeys { nwk_s_key: keys.nwk_s_key, app_s_key: keys.app_s_key };
    let mut session = session::begin(key, received_at, true, join.home, keys);
    // Flushing is this number, so that it is written with the session and by nobody else.
    session.queue_done = join.before.map_or(0, queue_done).max(join.flush.unwrap_or_default());
    // A device that took the CFList knows its channels; the others are told by LinkADRReq.
    session.mac.channels_set = takes_cf_list(join) && join.home.cf_list().is_some();
    session
}

/// A fixed plan's CFList (type 1) came with the regional parameters of LoRaWAN 1.0.3.
fn takes_cf_list(join: &Join<'_>) -> bool {
    let dynamic_plan = join.home.channel_mask_requests(0).is_empty();
    dynamic_plan || join.context.profile.mac_version >= MacVersion::V1_0_3
}

fn accept_bytes(join: &Join<'_>, session: &Session) -> Vec<u8> {
    let accept = JoinAccept {
        join_nonce: join.state.next_join_nonce,
        net_id: join.net_id,
        dev_addr: session.key.dev_addr,
        rx1_dr_offset: session.mac.rx1_dr_offset,
        rx2_data_rate: session.mac.rx2_data_rate,
        rx_delay: session.mac.rx1_delay,
        cf_list: join.home.cf_list().filter(|_| takes_cf_list(join)),
    };
    accept.build(&join.context.device.app_key.unwrap_or_default())
}

/// A type 0 NetID has 6 bits of NwkID above 25 bits for the device (LoRaWAN Backend Interfaces, 12.2).
pub fn dev_addr(net_id: u32, random: u32) -> DevAddr {
    DevAddr((net_id & 0x3f) << 25 | random & 0x01ff_ffff)
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
