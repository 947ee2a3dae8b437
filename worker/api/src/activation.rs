//! Activation by personalization (ABP), and its end.

use limpet_shared::region::Region;
use limpet_store::{Commit, Freshness, IntegrationId, PendingEvent, Store, StoreError};
use limpet_worker_core::{
    model::{Activation, CurrentSession, DeviceContext, DeviceProfile, DeviceState, Session, SessionKeys, SessionRow},
    session::{MOST_OF_ADDR, Personalization, has_room, personalized},
};

use crate::{
    Api, clock,
    error::{ApiError, Result},
    queue,
};

/// How often a compare-and-set is tried again when a join or another activation comes in between.
const ATTEMPTS: u32 = 8;

/// Puts the device into a session of these keys and counters, in place of any it had.
pub(crate) async fn activate(api: &Api, context: &DeviceContext, wanted: &Activation) -> Result<()> {
    let store = api.store.as_ref();
    let region = region_of(api, &context.profile)?;
    let had = store.sessions_by_addr(wanted.dev_addr, Freshness::Quorum).await?;
    room_among(&had, wanted)?;
    if context.profile.flush_queue_on_activate {
        store.flush_queue(wanted.dev_eui, u64::MAX).await?;
    }
    let keys = SessionKeys { nwk_s_key: wanted.nwk_s_key, app_s_key: wanted.app_s_key };
    let session = replace_current(store, context, |next, old, queue_done| {
        let abp = Personalization {
            dev_eui: wanted.dev_eui,
            dev_addr: wanted.dev_addr,
            keys,
            fcnt_up: wanted.fcnt_up,
            // Keys that were in use go on counting: what was sent under them must not be sent again with other content.
            fcnt_down: wanted.n_fcnt_down.max(next.unused_fcnt_down(&keys)),
            queue_done,
        };
        let mut session = personalized(&abp, &context.profile, region, next.rev, clock::now());
        session.replaces(old.iter().map(|row| &row.session));
        Some(session)
    })
    .await?;
    let Some(session) = session else { return Ok(()) };
    begin(store, &session).await?;
    // Others may have taken the last places at the same time.
    let now = store.sessions_by_addr(wanted.dev_addr, Freshness::Serial).await?;
    let is_own = |row: &SessionRow| row.session.key.dev_eui == wanted.dev_eui && row.session.over.is_none();
    let others: Vec<_> = now.into_iter().filter(|row| row.session.key.dev_eui != wanted.dev_eui).collect();
    match room_among(&others, wanted) {
        Err(full) if !had.iter().any(is_own) => {
            deactivate(store, context).await?;
            Err(full)
        }
        _ => Ok(()),
    }
}

/// Refuses a DevAddr that too many other devices have.
pub(crate) async fn need_room(store: &dyn Store, wanted: &Activation) -> Result<()> {
    room_among(&store.sessions_by_addr(wanted.dev_addr, Freshness::Quorum).await?, wanted)
}

fn room_among(rows: &[SessionRow], wanted: &Activation) -> Result<()> {
    if has_room(rows, wanted.dev_eui) {
        return Ok(());
    }
    Err(ApiError::Exhausted(format!(
        "DevAddr {} has {MOST_OF_ADDR} devices that were activated with it, as many as may be: give device {} another one",
        wanted.dev_addr, wanted.dev_eui
    )))
}

/// Writes the session's row, and takes it back if another activation or a join has replaced the session meanwhile: that
/// one looked for rows to delete when this one was not there yet.
async fn begin(store: &dyn Store, session: &Session) -> Result<()> {
    let dev_eui = session.key.dev_eui;
    if store.create_session(session).await? == Commit::Refused {
        return Err(ApiError::Conflict(format!("the session of device {dev_eui}")));
    }
    let state = store.device_state(dev_eui, Freshness::Serial).await?;
    let is_in_use = [state.current.map(|c| c.key), state.previous].contains(&Some(session.key));
    if !is_in_use {
        store.delete_session(&session.key).await?;
    }
    Ok(())
}

/// Takes the device out of its session.
pub(crate) async fn deactivate(store: &dyn Store, context: &DeviceContext) -> Result<()> {
    replace_current(store, context, |_, _, _| None).await.map(drop)
}

/// The session that the device should be in.
pub(crate) async fn current(store: &dyn Store, dev_eui: limpet_shared::Eui64) -> Result<Option<SessionRow>> {
    let state = store.device_state(dev_eui, Freshness::Quorum).await?;
    Ok(match state.current {
        Some(current) => store.session(&current.key, Freshness::Quorum).await?,
        None => None,
    })
}

/// The region that an ABP device of this profile lives in: what the profile names, else the first configured one of
/// its band.
pub(crate) fn region_of(api: &Api, profile: &DeviceProfile) -> Result<&'static Region> {
    let named = profile.region_config_id.as_deref().and_then(|id| api.regions.by_name(id));
    named.or_else(|| api.regions.by_band(&profile.region)).ok_or_else(|| {
        ApiError::Precondition(format!("the network is not configured for the profile's region {}", profile.region))
    })
}

/// Changes the device's state by compare-and-set to the session that `make` gives for it (for the sessions that it replaces, and for
/// how far the queue is done), and ends the sessions that it had; their rows stay, for what was acknowledged and not accepted yet. First the
/// state, then the session row: the state's revision is in the session's identity, so only the winner of a race has a row to write. How far
/// the old keys have counted is written down before they go.
async fn replace_current(
    store: &dyn Store,
    context: &DeviceContext,
    make: impl Fn(&DeviceState, &[SessionRow], u64) -> Option<Session> + Send + Sync,
) -> Result<Option<Session>> {
    let dev_eui = context.device.dev_eui;
    for _ in 0..ATTEMPTS {
        let before = store.device_state(dev_eui, Freshness::Serial).await?;
        let all = sessions_of(store, &before).await?;
        let old: Vec<_> = all.iter().filter(|row| row.session.over.is_none()).cloned().collect();
        let done = old.iter().map(|row| queue::progress(Some(row)).done).max().unwrap_or_default();
        // If this is broken off, the next activation finds the session that still has a row.
        let previous = old.first().map(|row| row.session.key);
        let mut next = DeviceState { rev: before.rev + 1, current: None, previous, ..before.clone() };
        all.iter().for_each(|row| next.remember_counter(row));
        let over = before.current.map(|current| current.key).into_iter().chain(before.previous);
        let gone = next.part_with(over, clock::now());
        let session = make(&next, &old, done);
        next.current = session.as_ref().map(|s| CurrentSession { key: s.key, since: s.since, dev_nonce: None });
        if !commit_state(store, &next).await? {
            continue;
        }
        // These have had their time, and how far they have counted is written down now.
        for key in gone {
            for row in all.iter().filter(|row| row.session.key == key) {
                keep_events(store, context, row).await?;
            }
            store.delete_session(&key).await?;
        }
        // Another activation's row may have come since they were read, and have been found in use.
        let mut late = sessions_of(store, &before).await?;
        late.retain(|row| row.session.over.is_none() && old.iter().all(|known| known.session.key != row.session.key));
        if end_all(store, context, &old).await? && end_all(store, context, &late).await? {
            queue::forget_done(store, dev_eui, done).await?;
            return Ok(session);
        }
    }
    Err(ApiError::Conflict(format!("device {dev_eui}")))
}

async fn commit_state(store: &dyn Store, next: &DeviceState) -> Result<bool> {
    match store.commit_join(next, None).await {
        Ok(commit) => Ok(commit == Commit::Applied),
        Err(StoreError::Unknown(_)) => Ok(store.device_state(next.dev_eui, Freshness::Serial).await? == *next),
        Err(error) => Err(error.into()),
    }
}

/// The sessions that a device may be in, the one that it should be in first; and those that are over, unless ending them was broken off.
async fn sessions_of(store: &dyn Store, state: &DeviceState) -> Result<Vec<SessionRow>> {
    let mut rows: Vec<SessionRow> = Vec::new();
    let former = state.former.iter().map(|former| former.key);
    for key in state.current.map(|c| c.key).into_iter().chain(state.previous).chain(former) {
        if rows.iter().all(|row| row.session.key != key) {
            rows.extend(store.session(&key, Freshness::Serial).await?);
        }
    }
    Ok(rows)
}

async fn end_all(store: &dyn Store, context: &DeviceContext, old: &[SessionRow]) -> Result<bool> {
    for row in old {
        if !end(store, context, row).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Ends a session as it was read: false if an uplink was faster, whose downlink has counted on. Its last event is kept, and
/// nothing is decided in it any more.
async fn end(store: &dyn Store, context: &DeviceContext, row: &SessionRow) -> Result<bool> {
    keep_events(store, context, row).await?;
    let ended = row.session.ended(clock::now());
    match store.commit_session(&ended).await {
        Ok(Commit::Applied) => Ok(true),
        // A session's keys do not change: with others, or without a row, another activation or a join has ended it.
        Ok(Commit::Refused) | Err(StoreError::Unknown(_)) => {
            let now = store.session(&ended.key, Freshness::Serial).await?;
            Ok(now.is_none_or(|now| now.session.keys != row.session.keys))
        }
        Err(error) => Err(error.into()),
    }
}

async fn keep_events(store: &dyn Store, context: &DeviceContext, row: &SessionRow) -> Result<()> {
    if row.slot_is_out() || context.application.http.is_none() {
        return Ok(());
    }
    for (part, event) in (0..).zip(&row.session.slot.events) {
        let pending = PendingEvent {
            integration: IntegrationId(context.application.id),
            device: row.session.key.dev_eui,
            session_since: row.session.since,
            slot: row.session.slot.number,
            part,
            event: event.clone(),
            refusals: 0,
        };
        store.put_pending(pending).await?;
    }
    store.mark_out(&row.session.key, row.session.slot.number, true).await?;
    Ok(())
}
