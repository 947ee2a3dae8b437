//! Activation by personalization (ABP), and its end.

use limpet_shared::region::Region;
use limpet_store::{Commit, Freshness, Store, StoreError};
use limpet_worker_core::{
    model::{Activation, CurrentSession, DeviceContext, DeviceProfile, DeviceState, Session, SessionKeys, SessionRow},
    session::{Personalization, personalized},
};

use crate::{
    Api, clock,
    error::{ApiError, Result},
    queue,
};

/// How often a compare-and-set is tried again when a join or another activation comes in between.
const ATTEMPTS: u32 = 5;

/// Puts the device into a session of these keys and counters, in place of any it had.
pub(crate) async fn activate(api: &Api, context: &DeviceContext, wanted: &Activation) -> Result<()> {
    let store = api.store.as_ref();
    let region = region_of(api, &context.profile)?;
    if context.profile.flush_queue_on_activate {
        store.flush_queue(wanted.dev_eui).await?;
    }
    let (before, session) = replace_current(store, wanted.dev_eui, |state, queue_done| {
        let abp = Personalization {
            dev_eui: wanted.dev_eui,
            dev_addr: wanted.dev_addr,
            keys: SessionKeys { nwk_s_key: wanted.nwk_s_key, app_s_key: wanted.app_s_key },
            fcnt_up: wanted.fcnt_up,
            fcnt_down: wanted.n_fcnt_down,
            queue_done,
        };
        Some(personalized(&abp, &context.profile, region, state.rev + 1, clock::now()))
    })
    .await?;
    if let Some(session) = &session {
        begin(store, session).await?;
    }
    forget_sessions(store, &before, session.as_ref()).await
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
pub(crate) async fn deactivate(store: &dyn Store, dev_eui: limpet_shared::Eui64) -> Result<()> {
    let (before, _) = replace_current(store, dev_eui, |_, _| None).await?;
    forget_sessions(store, &before, None).await
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

/// Changes the device's state by compare-and-set to the session that `make` gives for it (and for how far the queue is
/// done). First the state, then the session row: the state's revision is in the session's identity, so only the winner
/// of a race has a row to write. Returns the state before.
async fn replace_current(
    store: &dyn Store,
    dev_eui: limpet_shared::Eui64,
    make: impl Fn(&DeviceState, u64) -> Option<Session> + Send + Sync,
) -> Result<(DeviceState, Option<Session>)> {
    for _ in 0..ATTEMPTS {
        let before = store.device_state(dev_eui, Freshness::Serial).await?;
        let session = match &before.current {
            Some(current) => store.session(&current.key, Freshness::Serial).await?,
            None => None,
        };
        let done = queue::progress(session.as_ref()).done;
        let session = make(&before, done);
        let current = session.as_ref().map(|s| CurrentSession { key: s.key, since: s.since, dev_nonce: None });
        let next = DeviceState { rev: before.rev + 1, current, previous: None, ..before.clone() };
        let applied = match store.commit_join(&next, None).await {
            Ok(commit) => commit == Commit::Applied,
            Err(StoreError::Unknown(_)) => {
                let now = store.device_state(dev_eui, Freshness::Serial).await?;
                now.rev == next.rev && now.current == current
            }
            Err(error) => return Err(error.into()),
        };
        if applied {
            queue::forget_done(store, dev_eui, done).await?;
            return Ok((before, session));
        }
    }
    Err(ApiError::Conflict(format!("device {dev_eui}")))
}

async fn forget_sessions(store: &dyn Store, before: &DeviceState, keep: Option<&Session>) -> Result<()> {
    let old = before.current.map(|c| c.key).into_iter().chain(before.previous);
    for key in old.filter(|key| keep.is_none_or(|session| session.key != *key)) {
        store.delete_session(&key).await?;
    }
    Ok(())
}
