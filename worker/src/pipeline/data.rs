//! A data uplink, from its session to its event (steps 4 to 6).

use std::time::Duration;

use limpet_link::host::{self, Rule};
use limpet_shared::{DevAddr, UnixMicros, lorawan::DataFrame};
use limpet_store::{Besides, Candidate, Commit, Freshness, StoreError};
use limpet_worker_core::{
    model::{DeviceContext, QueueItem, RequestState, Session, SessionRow},
    seen::CLOCK_SKEW,
    uplink::{self, Acceptance, Heard, Uplink, Verdict, VerifiedFrame},
};

use tokio::time::Instant;

use super::{EMIT_LIMIT, Flow, Pipeline, TAKE_OVER_AFTER, lanes::Place, owners::Word, work::Transmission};

/// A worker that only seems silent has its event out by then: taken over sooner, it would be delivered twice.
pub(super) const SUSPECT_AFTER: Duration = EMIT_LIMIT.saturating_add(Duration::from_millis(50));
/// How often a slot that another worker is finishing is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Queue items read for one downlink: the one that goes, and whether more wait.
pub(super) const QUEUE_GLANCE: u32 = 16;

/// The session that a frame is of, its whole FCntUp, and what was read along with the session.
struct Found {
    row: SessionRow,
    fcnt: u32,
    besides: Option<Besides>,
}

impl Pipeline {
    /// One pass over steps 4 and 5. `again`: an earlier pass was refused or got no answer, so read what is settled.
    pub(super) async fn data(
        &self,
        copies: &Transmission,
        frame: &DataFrame<'_>,
        again: bool,
        place: &mut Place,
    ) -> Outcome {
        let freshness = if again { Freshness::Serial } else { Freshness::Quorum };
        let decides = !copies.follows;
        let Some(found) = self.find_session(copies, frame, freshness, decides).await? else { return Ok(Flow::Done) };
        let waited = place.decide(&found.row.session.key).await;
        let Some(Found { row, fcnt, besides }) = self.as_decided(copies, frame, freshness, found, waited).await? else {
            return Ok(Flow::Done);
        };
        let (confirmed, mic, received_at) = (frame.confirmed, frame.mic, copies.received_at());
        let now = self.now_of_first(copies);
        let verified = VerifiedFrame { fcnt, confirmed, mic, received_at, now, swept: copies.swept };
        if verified.finds_clocks_apart(&row.session) {
            self.note_clocks(&row, now);
        }
        let judge = |relaxed| uplink::judge(&row, &verified, relaxed);
        // Nearly all copies end here, so their device is not read; what it allows makes no difference to these.
        match judge(false) {
            Verdict::AlreadyOut => {
                self.verdict("duplicate", &row);
                return Ok(self.finish_answer(copies, &row, fcnt));
            }
            Verdict::Finish => {
                place.decided();
                return self.finish_slot(&row, copies, place).await;
            }
            Verdict::Replay | Verdict::Retransmission | Verdict::Outdated | Verdict::Accept(_) => {}
        }
        let (device, queue) = besides.map(|besides| (besides.device, besides.queue)).unzip();
        let Some(context) = self.device_or(&row, device).await? else { return Ok(Flow::Done) };
        match judge(context.device.skip_fcnt_check) {
            Verdict::Accept(how) => {
                let flow = self.accept(copies, frame, (&row, fcnt), (&context, queue), how, place).await?;
                // The ACK first. Whoever has to begin anew tells of it then.
                if how == Acceptance::AckAgain && !matches!(flow, Flow::Again | Flow::Wait(_)) {
                    self.tell_owner(copies, &context, retransmitted(fcnt)).await;
                }
                Ok(flow)
            }
            Verdict::Retransmission => {
                place.decided();
                self.tell_owner(copies, &context, retransmitted(fcnt)).await;
                Ok(self.verdict("duplicate", &row))
            }
            Verdict::Replay => {
                place.decided();
                self.tell_owner(copies, &context, counted_back(fcnt, row.session.seen.next)).await;
                Ok(self.verdict("replay", &row))
            }
            _ => {
                place.decided();
                self.tell_owner(copies, &context, outdated(fcnt, row.session.over.is_some())).await;
                Ok(self.verdict("outdated", &row))
            }
        }
    }

    /// The session as it is now that this task may decide: read again after others have decided, and after a slot that
    /// this process is just acting on is out.
    async fn as_decided(
        &self,
        copies: &Transmission,
        frame: &DataFrame<'_>,
        freshness: Freshness,
        found: Found,
        waited: bool,
    ) -> Result<Option<Found>, StoreError> {
        let found = if waited { self.find_session(copies, frame, freshness, true).await? } else { Some(found) };
        match found {
            Some(Found { row, .. }) if self.lanes.soon_out(&row.session.key, row.session.slot.number).await => {
                self.find_session(copies, frame, freshness, true).await
            }
            found => Ok(found),
        }
    }

    /// Candidates by DevAddr; the MIC picks. Before "unknown", a second look at what is settled: a re-join changes keys.
    /// `decides`: most likely it is to be decided, and not done with by somebody else.
    async fn find_session(
        &self,
        copies: &Transmission,
        frame: &DataFrame<'_>,
        freshness: Freshness,
        decides: bool,
    ) -> Result<Option<Found>, StoreError> {
        for freshness in [freshness, Freshness::Serial] {
            let candidates = if decides {
                self.store.candidates(frame.dev_addr, freshness, QUEUE_GLANCE).await?
            } else {
                let rows = self.store.sessions_by_addr(frame.dev_addr, freshness).await?;
                rows.into_iter().map(|row| Candidate { row, besides: None }).collect()
            };
            let picked = uplink::pick(candidates.iter().map(|candidate| &candidate.row), frame, self.heard(copies));
            if let Some((session, fcnt)) = picked.map(|(row, fcnt)| (row.session.key, fcnt)) {
                let mut candidates = candidates.into_iter();
                let found = candidates.find(|candidate| candidate.row.session.key == session);
                return Ok(found.map(|Candidate { row, besides }| Found { row, fcnt, besides }));
            }
            // Nobody can use an address before its row is there for everyone to see.
            if candidates.is_empty() {
                self.foreign.note_unused(frame.dev_addr);
                self.drop_unknown("unknown_dev_addr", frame.dev_addr);
                return Ok(None);
            }
        }
        self.drop_unknown("bad_mic", frame.dev_addr);
        Ok(None)
    }

    pub(super) fn heard(&self, copies: &Transmission) -> Heard {
        Heard { received_at: copies.received_at(), now: self.now_of_first(copies), swept: copies.swept }
    }

    /// The device's session is of a later time than it is at the balancer: told, for old frames may be judged wrongly then.
    fn note_clocks(&self, row: &SessionRow, now: UnixMicros) {
        self.metrics.clocks_apart();
        if let Some(unsaid) = self.clocks_apart.admit(self.surroundings.now()) {
            let ahead = row.session.since.max(row.session.seen.high_at).since(now);
            tracing::warn!(
                dev_eui = %row.session.key.dev_eui, ?ahead, unsaid,
                "a device was last heard, or activated, at a time that has not come yet: clocks of servers differ, or one was set back"
            );
        }
    }

    /// Devices that will not have what is set for them.
    fn note_given_up(&self, before: &Session, now: &Session) {
        for request in uplink::given_up(before, now) {
            self.metrics.mac_request_given_up(request.state);
            if let Some(unsaid) = self.requests_given_up.admit(self.surroundings.now()) {
                let (dev_eui, asked) = (now.key.dev_eui, uplink::describe_request(request));
                let why = if request.state == RequestState::Refused { "refuses" } else { "does not answer" };
                tracing::warn!(%dev_eui, unsaid, "a device {why} {asked}: it is not asked again unless something else is set");
            }
        }
    }

    pub(super) fn drop_unknown(&self, reason: &'static str, dev_addr: DevAddr) {
        self.metrics.dropped(reason);
        tracing::debug!(%dev_addr, reason, "dropped");
    }

    pub(super) fn verdict(&self, reason: &'static str, row: &SessionRow) -> Flow {
        self.metrics.dropped(reason);
        tracing::debug!(dev_eui = %row.session.key.dev_eui, reason, "dropped");
        Flow::Done
    }

    async fn device(&self, row: &SessionRow) -> Result<Option<DeviceContext>, StoreError> {
        self.device_or(row, None).await
    }

    /// As it was read, if it was.
    async fn device_or(
        &self,
        row: &SessionRow,
        read: Option<Option<DeviceContext>>,
    ) -> Result<Option<DeviceContext>, StoreError> {
        let context = match read {
            Some(context) => context,
            None => self.store.device_context(row.session.key.dev_eui).await?,
        };
        match context {
            None => self.verdict("unknown_device", row),
            Some(context) if context.device.is_disabled => self.verdict("device_disabled", row),
            Some(context) => return Ok(Some(context)),
        };
        Ok(None)
    }

    /// Step 5: keep the event before, then one compare-and-set; then act on what was written.
    async fn accept(
        &self,
        copies: &Transmission,
        frame: &DataFrame<'_>,
        (row, fcnt): (&SessionRow, u32),
        (context, queue): (&DeviceContext, Option<Vec<QueueItem>>),
        how: Acceptance,
        place: &Place,
    ) -> Outcome {
        let Some(region) = copies.receptions.first().and_then(|r| self.regions.by_name(&r.region)) else {
            return Ok(self.verdict("no_region", row));
        };
        if how == Acceptance::AckAgain && !host::keeps(Rule::AnswerRepeats) {
            return Ok(self.verdict("duplicate", row));
        }
        self.keep_slot(row, context).await?;
        let queue = match how {
            Acceptance::Overtaken | Acceptance::AckAgain => Vec::new(),
            _ if row.session.over.is_some() => Vec::new(),
            // What comes in from now on finds the answer open, or its accepting worker looks again.
            _ => match queue {
                Some(queue) => queue,
                None => self.store.queue(row.session.key.dev_eui, row.session.queue_done, QUEUE_GLANCE).await?,
            },
        };
        let receptions = &copies.receptions;
        let (now, ways, worker) = (self.now_of_first(copies), self.ways(copies), &self.name);
        let home = self.regions.by_name(&row.session.region).filter(|home| home.band() == region.band());
        let (home, ways, queue) = (home.unwrap_or(region), &ways, &queue);
        let settings = self.settings.now();
        let (reply_after, telling) = (self.replies_after(&row.session), EMIT_LIMIT);
        let uplink = Uplink {
            row,
            context,
            region,
            settings: settings.of(region),
            home,
            home_settings: settings.of(home),
            frame,
            fcnt,
            receptions,
            ways,
            queue,
            worker,
            now,
            reply_after,
            telling,
        };
        let mut next = uplink::accept(&uplink, how);
        if !host::keeps(Rule::CountDown) {
            next.next_fcnt_down = row.session.next_fcnt_down;
        }
        if !host::keeps(Rule::NoteCounters) {
            next.seen = row.session.seen;
        }
        place.act(&next.key, next.slot.number);
        let asked = Instant::now();
        let committed = match self.store.commit_session(&next).await {
            Ok(Commit::Refused) if !host::keeps(Rule::HeedRefusal) => Ok(Commit::Applied),
            Err(_) if !host::keeps(Rule::ReadAfterUnknown) => Ok(Commit::Applied),
            committed => committed,
        };
        let took = asked.elapsed();
        // What follows may take an integration's time, which the device's next uplink need not wait for.
        place.decided();
        match committed {
            Ok(Commit::Applied) => {
                self.metrics.accepted(how);
                self.note_given_up(&row.session, &next);
                tracing::debug!(dev_eui = %next.key.dev_eui, fcnt, ?how, answered = next.slot_answer().is_some(), "uplink accepted");
                self.act(&next, context, region).await;
                Ok(if how == Acceptance::Overtaken { Flow::Done } else { self.await_reply(&next, took) })
            }
            Ok(Commit::Refused) => {
                self.metrics.lost_race();
                Ok(Flow::Again)
            }
            Err(error) => Err(error),
        }
    }

    /// Case a of step 4: the slot holds this uplink (or join), unfinished. Bytes that a window can still take go out at
    /// once; its event too, if nobody else is at it.
    pub(super) async fn finish_slot(&self, row: &SessionRow, copies: &Transmission, place: &Place) -> Outcome {
        let slot = &row.session.slot;
        if self.lanes.is_acting(&row.session.key, slot.number) {
            return Ok(Flow::Wait(LOOK_AGAIN / 4));
        }
        if row.session.slot_answer().is_some() {
            self.send_again(row);
        }
        let now = self.now_of_first(copies);
        // By a clock that is ahead it would never get old.
        let age = if slot.accepted_at > now + CLOCK_SKEW { TAKE_OVER_AFTER } else { now.since(slot.accepted_at) };
        let gone = age >= SUSPECT_AFTER && self.link.is_suspect(&slot.worker);
        if slot.worker != self.name && !host::keeps(Rule::TakeOver) {
            return Ok(Flow::Done);
        }
        if !(age >= TAKE_OVER_AFTER || gone || slot.worker == self.name) {
            return Ok(Flow::Wait(LOOK_AGAIN));
        }
        let Some(context) = self.device(row).await? else { return Ok(Flow::Done) };
        if !place.act_alone(&row.session.key, slot.number) {
            return Ok(Flow::Wait(LOOK_AGAIN / 4));
        }
        self.metrics.taken_over();
        self.emit_slot(&row.session, &context).await;
        // Told just now: its answer has the time that it would have had.
        let opened = row.session.answer.as_open().is_some_and(|open| open.slot == slot.number);
        Ok(if opened { self.await_reply(&row.session, Duration::ZERO) } else { Flow::Again })
    }
}

fn retransmitted(fcnt: u32) -> Word {
    let description = format!("the device sent the uplink with frame counter {fcnt} again");
    Word { cause: "retransmission", code: "UPLINK_F_CNT_RETRANSMISSION", error: false, description }
}

fn outdated(fcnt: u32, is_over: bool) -> Word {
    let why = if is_over {
        "its session was over when it was received: the device has not heard what took its place, or somebody replays its frames"
    } else {
        "it was received before the session began or the device counted anew, and was late"
    };
    let description = format!("an uplink with frame counter {fcnt} was dropped: {why}");
    Word { cause: "outdated", code: "UPLINK_F_CNT_RESET", error: true, description }
}

fn counted_back(fcnt: u32, next: u32) -> Word {
    let description = format!(
        "an uplink with frame counter {fcnt} was dropped, since {next} is next: the device has lost its counter and must join or be activated again, or somebody replays its frames"
    );
    Word { cause: "replay", code: "UPLINK_F_CNT_RESET", error: true, description }
}

type Outcome = Result<Flow, StoreError>;
