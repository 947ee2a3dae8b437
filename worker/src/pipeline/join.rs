//! OTAA: a JoinRequest, from its device to its session. A used DevNonce means: finish that join from its row.

use std::time::Duration;

use futures_util::future::try_join;
use limpet_link::host::{self, Rule};
use limpet_shared::{UnixMicros, lorawan::JoinRequest, region::Region};
use limpet_store::{Commit, Freshness, StoreError};
use limpet_worker_core::{
    down_counters::MEANWHILE,
    join::{self, Join},
    model::{DeviceContext, DeviceState, JoinRow, SessionKey, SessionRow},
    session::MOST_OF_ADDR,
    uplink::REPEAT_AFTER,
};

use super::{Flow, Pipeline, owners::Word, work::Transmission};

/// How often a session that another task of this worker is creating is looked for.
const BEING_MADE: Duration = Duration::from_millis(10);
/// A session that is to end is written anew so often, if uplinks come in between.
const RETIRE_TRIES: u32 = 8;
/// DevAddrs that are drawn for a join at most, until one has few sessions.
const DRAWS: u32 = 4;

impl Pipeline {
    /// One pass. `again`: an earlier pass was refused or got no answer, so read what is settled.
    pub(super) async fn join(
        &self,
        copies: &Transmission,
        request: &JoinRequest,
        again: bool,
    ) -> Result<Flow, StoreError> {
        let freshness = if again { Freshness::Serial } else { Freshness::Quorum };
        let region = copies.receptions.first().and_then(|r| self.regions.by_name(&r.region));
        let (Some(region), Some(context)) = (region, self.store.device_context(request.dev_eui).await?) else {
            return Ok(self.refuse("unknown_dev_eui", request));
        };
        if let Err(reason) = permitted(request, &context, region) {
            return Ok(self.refuse_and_tell(reason, request, copies, &context).await);
        }
        let Some(home) = self.home(&context, region) else { return Ok(self.refuse("region_mismatch", request)) };
        if let Some(row) = self.store.join_row(request.dev_eui, request.dev_nonce, freshness).await? {
            let anew = !copies.swept && copies.received_at() >= row.session.since + REPEAT_AFTER;
            return match self.finish_join(&row, &context, region, copies).await {
                Ok(Flow::Done) if anew => Ok(self.refuse_and_tell("dev_nonce_used", request, copies, &context).await),
                other => other,
            };
        }
        let state = self.store.device_state(request.dev_eui, freshness).await?;
        let (current, previous) = (state.current.map(|current| current.key), state.previous);
        let sessions = try_join(self.session_by(current), self.session_by(previous));
        let ((before, ending), flush) = try_join(sessions, self.flush(&context)).await?;
        let receptions = &copies.receptions;
        let random = self.drawn().await?;
        let accepted = join::accept(&Join {
            request,
            context: &context,
            state: &state,
            region,
            home,
            receptions,
            ways: &self.ways(copies),
            settings: &self.settings.now(),
            random,
            flush,
            before: before.as_ref(),
            ending: ending.as_ref(),
            worker: &self.name,
            now: self.now_of_first(copies),
        });
        match accepted {
            Err(drop) => Ok(self.refuse_and_tell(drop.reason(), request, copies, &context).await),
            Ok((mut next, row)) => {
                if !host::keeps(Rule::CountJoinNonces) {
                    next.next_join_nonce = state.next_join_nonce;
                }
                self.commit_join(&state, &next, &row, &context, region).await
            }
        }
    }

    /// The region configuration that the device's profile names; without one, the one it was heard in. `None`: the network
    /// has it no more.
    fn home(&self, context: &DeviceContext, heard: &'static Region) -> Option<&'static Region> {
        match &context.profile.region_config_id {
            Some(id) => self.regions.by_name(id).filter(|home| home.band() == heard.band()),
            None => Some(heard),
        }
    }

    /// Random bits that make a DevAddr with few sessions: the device's frames are compared with all of them.
    async fn drawn(&self) -> Result<u32, StoreError> {
        let mut best = (usize::MAX, 0);
        for _ in 0..DRAWS {
            let random = self.surroundings.random();
            let addr = join::dev_addr(self.settings.net_id(), random);
            let sessions = self.store.sessions_by_addr(addr, Freshness::Quorum).await?.len();
            best = best.min((sessions, random));
            if sessions < MOST_OF_ADDR {
                break;
            }
        }
        Ok(best.1)
    }

    async fn commit_join(
        &self,
        state: &DeviceState,
        next: &DeviceState,
        row: &JoinRow,
        context: &DeviceContext,
        region: &Region,
    ) -> Result<Flow, StoreError> {
        match self.store.commit_join(next, Some(row)).await {
            Ok(Commit::Applied) => {}
            Ok(Commit::Refused) if !host::keeps(Rule::HeedJoinRefusal) => {}
            Ok(Commit::Refused) => {
                self.metrics.lost_race();
                return Ok(Flow::Again);
            }
            Err(error) => return Err(error),
        }
        self.metrics.joined();
        self.note_joined(row);
        let session = &row.session;
        let place = self.lanes.beside(session.key.dev_addr);
        place.act(&session.key, session.slot.number);
        if self.create(row).await? {
            self.act(session, context, region).await;
        }
        // The JoinAccept waits for none of this.
        self.clear_up(row, context, Freshness::Serial).await?;
        if let Some(over) = state.current.and_then(|current| join::over(&current, region)) {
            self.store.shrink_join(next, &over).await?;
        }
        Ok(Flow::Done)
    }

    /// Up to where the device's queue is flushed, if its profile wants that.
    async fn flush(&self, context: &DeviceContext) -> Result<Option<u64>, StoreError> {
        if !context.profile.flush_queue_on_activate {
            return Ok(None);
        }
        self.store.queue_last(context.device.dev_eui).await.map(Some)
    }

    /// Ends the session before the one before, and deletes what the join has made useless: sessions that were over for long, and flushed
    /// items, which are offered no more.
    async fn clear_up(&self, row: &JoinRow, context: &DeviceContext, freshness: Freshness) -> Result<(), StoreError> {
        if let Some(old) = &row.retired {
            self.retire(old, row.session.since, context, freshness).await?;
        }
        for old in &row.forgotten {
            self.forget(old, context, freshness).await?;
        }
        if context.profile.flush_queue_on_activate && row.session.queue_done > 0 {
            self.store.flush_queue(row.dev_eui, row.session.queue_done).await?;
        }
        Ok(())
    }

    /// The join was accepted, by whomever: what is missing of it is done from its row, with the same bytes.
    async fn finish_join(
        &self,
        row: &JoinRow,
        context: &DeviceContext,
        region: &Region,
        copies: &Transmission,
    ) -> Result<Flow, StoreError> {
        let session = &row.session;
        let flow = match self.store.session(&session.key, Freshness::Serial).await? {
            Some(stored) if stored.slot_is_out() => self.verdict("duplicate", &stored),
            Some(stored) if stored.session.slot.number == session.slot.number => {
                self.finish_slot(&stored, copies, &self.lanes.beside(session.key.dev_addr)).await?
            }
            Some(stored) => self.verdict("duplicate", &stored),
            None if self.lanes.is_acting(&session.key, session.slot.number) => Flow::Wait(BEING_MADE),
            None => {
                if !row.is_over() && self.is_current(row).await? && self.create(row).await? {
                    return Ok(Flow::Again);
                }
                tracing::debug!(dev_eui = %row.dev_eui, region = region.name(), "another session came before this join's");
                self.metrics.dropped("join_superseded");
                Flow::Done
            }
        };
        // Whoever decided the join may have died before it came to this.
        if matches!(flow, Flow::Done) && !self.lanes.is_acting(&session.key, session.slot.number) {
            self.clear_up(row, context, Freshness::Quorum).await?;
        }
        Ok(flow)
    }

    async fn is_current(&self, row: &JoinRow) -> Result<bool, StoreError> {
        let state = self.store.device_state(row.dev_eui, Freshness::Serial).await?;
        Ok(state.current.is_some_and(|c| c.key == row.session.key))
    }

    /// Writes the join's session row. False if an activation by hand replaced the join meanwhile: then no row is left,
    /// for nobody would know of it.
    async fn create(&self, row: &JoinRow) -> Result<bool, StoreError> {
        let created = self.store.create_session(&row.session).await?;
        let state = self.store.device_state(row.dev_eui, Freshness::Serial).await?;
        let known = [state.current.map(|c| c.key), state.previous].contains(&Some(row.session.key));
        let known = known || !host::keeps(Rule::HeedJoinRefusal);
        // A row that was there already is its maker's to look after, or over.
        if !known && created == Commit::Applied {
            self.store.delete_session(&row.session.key).await?;
        }
        Ok(known)
    }

    /// The session before the one before: nobody can be in it any more. Its last event is kept, and so is the row, for what was
    /// acknowledged and not accepted yet.
    async fn retire(
        &self,
        key: &SessionKey,
        at: UnixMicros,
        context: &DeviceContext,
        mut freshness: Freshness,
    ) -> Result<(), StoreError> {
        if !host::keeps(Rule::KeepFormerSessions) {
            return self.forget(key, context, freshness).await;
        }
        for _ in 0..RETIRE_TRIES {
            let Some(row) = self.store.session(key, freshness).await?.filter(|row| row.session.over.is_none()) else {
                return Ok(());
            };
            if !row.slot_is_out() {
                self.keep_slot(&row, context).await?;
                self.store.mark_out(key, row.session.slot.number, true).await?;
            }
            if self.store.commit_session(&row.session.ended(at)).await? == Commit::Applied {
                return Ok(());
            }
            // An uplink was faster.
            freshness = Freshness::Serial;
        }
        // It goes on like the one before, until it is forgotten.
        Ok(())
    }

    /// Deletes a session that was over for so long that nothing waits for it any more, or that makes room for others.
    async fn forget(&self, key: &SessionKey, context: &DeviceContext, freshness: Freshness) -> Result<(), StoreError> {
        if let Some(row) = self.store.session(key, freshness).await? {
            self.keep_slot(&row, context).await?;
            // Keys of a join never come again.
            if !row.session.joined {
                self.note_counter(row).await?;
            }
            self.store.delete_session(key).await?;
        }
        Ok(())
    }

    /// Writes down how far a session has counted that is about to be deleted. The join that replaced it did that too, with what it read then; it
    /// may have gone on until it was ended, or until now if nobody came to that.
    async fn note_counter(&self, mut row: SessionRow) -> Result<(), StoreError> {
        if row.session.over.is_none() {
            row.session.next_fcnt_down = row.session.next_fcnt_down.saturating_add(MEANWHILE);
        }
        for _ in 0..RETIRE_TRIES {
            let state = self.store.device_state(row.session.key.dev_eui, Freshness::Serial).await?;
            let mut next = DeviceState { rev: state.rev + 1, ..state.clone() };
            next.remember_counter(&row);
            if next.down_counters == state.down_counters {
                return Ok(());
            }
            match self.store.commit_join(&next, None).await {
                Ok(Commit::Applied) => return Ok(()),
                Ok(Commit::Refused) | Err(StoreError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unavailable("a device's state changes all the time".into()))
    }

    async fn session_by(&self, key: Option<SessionKey>) -> Result<Option<SessionRow>, StoreError> {
        match key {
            Some(key) => self.store.session(&key, Freshness::Quorum).await,
            None => Ok(None),
        }
    }

    async fn refuse_and_tell(
        &self,
        reason: &'static str,
        request: &JoinRequest,
        copies: &Transmission,
        context: &DeviceContext,
    ) -> Flow {
        if let Some(word) = word(reason, request) {
            self.tell_owner(copies, context, word).await;
        }
        self.refuse(reason, request)
    }

    fn note_joined(&self, row: &JoinRow) {
        if let Some(unsaid) = self.accepted_joins.admit(self.surroundings.now()) {
            let (dev_eui, dev_nonce) = (row.dev_eui, row.dev_nonce);
            let (dev_addr, gateway) = (row.session.key.dev_addr, row.accept.gateway);
            let region = &row.session.region;
            tracing::info!(%dev_eui, dev_nonce, %dev_addr, %gateway, region, unsaid, "join accepted");
        }
    }

    pub(super) fn refuse(&self, reason: &'static str, request: &JoinRequest) -> Flow {
        self.metrics.dropped(reason);
        let JoinRequest { dev_eui, join_eui, dev_nonce, .. } = request;
        if let Some(unsaid) = self.refused_joins.admit(self.surroundings.now()) {
            tracing::info!(%dev_eui, %join_eui, dev_nonce, reason, unsaid, "join refused");
        }
        Flow::Done
    }
}

/// What its owner can do something about.
fn word(cause: &'static str, request: &JoinRequest) -> Option<Word> {
    let nonce = request.dev_nonce;
    let (code, description) = match cause {
        "bad_mic" => {
            ("UPLINK_MIC", "a JoinRequest has a wrong MIC: the device's AppKey is not the one entered here".into())
        }
        "no_app_key" => ("OTAA", "a JoinRequest came, but no AppKey is entered for the device".into()),
        "dev_nonce_used" => ("OTAA", format!("a JoinRequest has DevNonce {nonce}, which was used before")),
        "dev_nonce_not_ascending" => {
            ("OTAA", format!("a JoinRequest has DevNonce {nonce}, which is not above the highest used"))
        }
        "join_superseded" => {
            ("OTAA", "a JoinRequest came late: it was received before that of the device's present session".into())
        }
        "join_nonces_used_up" => ("OTAA", "the device has used up its 2^24 JoinNonces".into()),
        "otaa_unsupported" => ("OTAA", "a JoinRequest came, but the device's profile does not support OTAA".into()),
        "region_mismatch" => {
            ("OTAA", "a JoinRequest was heard in a region other than that of the device's profile".into())
        }
        _ => return None,
    };
    Some(Word { cause, code, error: true, description })
}

/// What a JoinRequest must satisfy before its DevNonce is looked at.
fn permitted(request: &JoinRequest, context: &DeviceContext, region: &Region) -> Result<(), &'static str> {
    let app_key = context.device.app_key.as_ref().ok_or("no_app_key")?;
    if !request.verify(app_key) {
        return Err("bad_mic");
    }
    if context.device.is_disabled {
        return Err("device_disabled");
    }
    if !context.profile.supports_otaa {
        return Err("otaa_unsupported");
    }
    if !context.profile.region.eq_ignore_ascii_case(region.band()) {
        return Err("region_mismatch");
    }
    Ok(())
}
