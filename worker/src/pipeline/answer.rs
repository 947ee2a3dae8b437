//! The answer as a decision of its own (step 7): after `reply_delay`, or as soon as an item is enqueued.

use std::time::Duration;

use limpet_link::host::{self, Rule};
use limpet_shared::{UnixMicros, region::Region};
use limpet_store::{Commit, Freshness, StoreError};
use limpet_worker_core::{
    downlink,
    model::{Answer, OpenAnswer, PlannedGateway, PlannedWindow, QueueItem, Session, SessionKey, SessionRow},
    seen::CLOCK_SKEW,
    uplink::{self, Next, Reply},
};
use tokio::time::Instant;

use super::{Flow, Pause, Pipeline, data::QUEUE_GLANCE, data::SUSPECT_AFTER, work::Transmission};

/// Deciding takes so long at most, as a rule: who waits for the end of `reply_delay` leaves this much before the last window.
const DECIDING: Duration = Duration::from_millis(100);

/// Taking an item in costs the store so many times what a write costs it.
const ENQUEUE_OPERATIONS: u32 = 4;

/// Somebody waits to decide an answer, or to see it decided.
pub(crate) struct Waiting {
    session: SessionKey,
    /// The slot that it was opened with.
    slot: u64,
    /// The row has come so far: what is older is a stale read.
    rev: u64,
    /// Queue items up to this number are done.
    queue_done: u64,
    /// Something is to be said, with an item or without.
    owes: bool,
    /// From when on it is decided.
    from: Instant,
    /// After that no window is left.
    until: Instant,
    /// Whether what was decided by another is sent once more: by whom the others rely on, and not by all who have a copy.
    sends: bool,
    /// The row, if it was just read.
    row: Option<Box<SessionRow>>,
}

/// Passes over row and queue that follow each other at once.
const AT_ONCE: u32 = 3;
/// Between those that follow.
const BETWEEN: Duration = Duration::from_millis(10);

impl Pipeline {
    /// `None` if no window is left.
    fn waiting(&self, session: &Session, open: &OpenAnswer, from: Instant, deciding: Duration) -> Option<Waiting> {
        let left = self.time_left(open, |_| true)?;
        let until = Instant::now() + left;
        let from = match self.before_rx1(session, open, deciding) {
            // What is owed is not put off past RX1, however long telling the event took.
            Some(rx1) if open.owes() => from.min(Instant::now() + rx1),
            _ => from,
        };
        Some(Waiting {
            session: session.key,
            slot: open.slot,
            rev: session.rev,
            queue_done: session.queue_done,
            owes: open.owes(),
            from: from.min(Instant::now() + left.saturating_sub(deciding)),
            until,
            sends: true,
            row: None,
        })
    }

    /// How long deciding can wait and still meet RX1. `None` if it is over, or if `reply_delay` is longer than its delay by intent.
    fn before_rx1(&self, session: &Session, open: &OpenAnswer, deciding: Duration) -> Option<Duration> {
        let delay = Duration::from_secs(u64::from(session.mac.rx1_delay.max(1)));
        let left = self.time_left(open, |window| window.number == 1)?;
        (self.reply_delay(session) + downlink::LEAD + deciding <= delay).then(|| left.saturating_sub(deciding))
    }

    /// How long after its acceptance an answer is decided, at most, if each event is told in time.
    pub(super) fn replies_after(&self, session: &Session) -> Option<Duration> {
        (!self.settings.reply_delay().is_zero()).then(|| self.reply_delay(session) + DECIDING)
    }

    /// Until the last of these windows can be met no more.
    fn time_left(&self, open: &OpenAnswer, which: impl Fn(&PlannedWindow) -> bool) -> Option<Duration> {
        let left = |balancer, at: UnixMicros| at.since(self.now_at(balancer) + downlink::LEAD);
        let of = |to: &PlannedGateway| to.windows.iter().filter(|w| which(w)).map(|w| left(to.balancer, w.at)).max();
        open.gateways.iter().filter_map(of).max().filter(|left| !left.is_zero())
    }

    /// How long an application has for its answer, from the moment its event is told.
    fn reply_delay(&self, session: &Session) -> Duration {
        self.settings.reply_delay() + Duration::from_secs(u64::from(session.mac.rx1_delay.saturating_sub(1)))
    }

    /// After the event is told: who accepted the uplink answers it at the end of `reply_delay`, and somewhat later where the
    /// store needs that for an item that was given in time. `operation`: what the store takes for a write now.
    pub(super) fn await_reply(&self, session: &Session, operation: Duration) -> Flow {
        if !host::keeps(Rule::AnswerAfterTheEvent) {
            return Flow::Done;
        }
        let Some(open) = session.answer.as_open() else { return Flow::Done };
        let from = Instant::now() + self.reply_delay(session);
        // Queue, row, and the row's write.
        let deciding = DECIDING.max(operation * 3);
        // But not for the price of RX1.
        let rx1 = self.time_left(open, |window| window.number == 1).unwrap_or_default().saturating_sub(deciding);
        let with_grace = (from + operation * ENQUEUE_OPERATIONS).min(Instant::now() + rx1);
        let waiting = self.waiting(session, open, from.max(with_grace), deciding);
        waiting.map_or(Flow::Done, |waiting| Flow::Answer(Box::new(waiting)))
    }

    /// An uplink that is accepted, and whose event is out. Its answer may be left to whoever comes: of what is open and owes
    /// something, all who have its copies see to it that it is decided; of the rest, who has the frame from somebody who fell silent.
    pub(super) fn finish_answer(&self, copies: &Transmission, row: &SessionRow, fcnt: u32) -> Flow {
        let session = &row.session;
        if !session.seen.is_highest(fcnt) {
            return Flow::Done;
        }
        match &session.answer {
            Answer::Open(open) if open.owes() || copies.is_left() => {
                // When it was told is not known: at the latest when its worker would be taken for dead.
                let now = self.now_of_first(copies);
                let opened = if open.opened_at > now + CLOCK_SKEW { Duration::MAX } else { now.since(open.opened_at) };
                let whole = SUSPECT_AFTER + self.reply_delay(session);
                // Whose worker lives decides by itself: others come later than it.
                let rest = if copies.is_left() { whole.saturating_sub(opened) } else { whole };
                let waiting = self.waiting(session, open, Instant::now() + rest, DECIDING);
                waiting.map_or(Flow::Done, |mut waiting| {
                    waiting.sends = copies.is_left();
                    Flow::Answer(Box::new(waiting))
                })
            }
            Answer::Decided(_) if copies.is_left() => {
                self.send_again(row);
                Flow::Done
            }
            _ => Flow::Done,
        }
    }

    /// Whether somebody must still see to what the answer owes: for the sweep.
    pub(super) fn is_unanswered(&self, session: &Session, fcnt: u32) -> bool {
        let is_left = |balancer, at| at > self.now_at(balancer);
        session.seen.is_highest(fcnt)
            && match &session.answer {
                Answer::Closed => false,
                Answer::Open(open) => {
                    let has_window = |to: &PlannedGateway| to.windows.iter().any(|w| is_left(to.balancer, w.at));
                    open.owes() && open.gateways.iter().any(has_window)
                }
                Answer::Decided(decided) => {
                    let downlink = &decided.downlink;
                    downlink.windows.iter().any(|window| is_left(downlink.balancer, window.at))
                }
            }
    }

    /// An item is in the queue: it goes out in a window of the last uplink, if that one's answer is open.
    pub async fn item_enqueued(&self, session: &SessionKey) {
        // An older row would say that nothing is open.
        let row = match self.store.session(session, Freshness::Serial).await {
            Ok(Some(row)) => row,
            Ok(None) => return,
            Err(error) => return self.metrics.store_error("item_enqueued", &error),
        };
        let open = row.session.answer.as_open();
        let Some(mut waiting) = open.and_then(|open| self.waiting(&row.session, open, Instant::now(), DECIDING)) else {
            return;
        };
        waiting.row = Some(Box::new(row));
        self.answer(waiting).await;
    }

    /// Waits, and takes the answer to its end: decided and sent, or nothing to say, or no window left.
    pub(super) async fn answer(&self, mut waiting: Waiting) {
        tokio::time::sleep_until(waiting.from).await;
        let (mut freshness, mut pause, mut passes) = (Freshness::Quorum, Pause::default(), 0);
        while Instant::now() < waiting.until {
            passes += 1;
            if passes > AT_ONCE {
                tokio::time::sleep(BETWEEN).await;
            }
            match self.decide(&mut waiting, freshness).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error @ StoreError::Unknown(_)) if pause.count == 0 => {
                    self.metrics.store_error("answer", &error);
                    pause.count += 1;
                    // What is decided now may be its own.
                    waiting.sends = true;
                }
                Err(error) => self.store_failed("answer", &error, &mut pause).await,
            }
            freshness = Freshness::Serial;
        }
    }

    /// One pass, with what is in row and queue at this moment. False: to be read again.
    async fn decide(&self, waiting: &mut Waiting, freshness: Freshness) -> Result<bool, StoreError> {
        let queue = self.store.queue(waiting.session.dev_eui, waiting.queue_done, QUEUE_GLANCE).await?;
        if queue.is_empty() && !waiting.owes {
            return Ok(true);
        }
        let row = match waiting.row.take() {
            Some(row) => Some(*row),
            None => self.store.session(&waiting.session, freshness).await?,
        };
        let Some(row) = row else { return Ok(true) };
        let open = match uplink::next(&row.session, waiting.slot, waiting.rev) {
            Next::Stale => return Ok(false),
            Next::Ended => return Ok(true),
            Next::Send => {
                if waiting.sends {
                    self.send_again(&row);
                }
                return Ok(true);
            }
            Next::Open(open) => open,
        };
        let Some(region) = self.regions.by_name(&open.region) else { return Ok(true) };
        let Some(mut next) = self.decided(&row, open, region, &queue) else { return Ok(true) };
        if !host::keeps(Rule::CountDown) {
            next.next_fcnt_down = row.session.next_fcnt_down;
        }
        if !host::keeps(Rule::ItemUntilTxAck) {
            next.queue_done = next.item.take().map_or(next.queue_done, |item| item.seq);
        }
        let written =
            if host::keeps(Rule::WriteTheAnswer) { self.store.commit_session(&next).await? } else { Commit::Applied };
        match written {
            Commit::Applied => {
                if let Some(decided) = next.answer.as_decided() {
                    self.send_downlink(&next, decided, region);
                }
                Ok(true)
            }
            Commit::Refused => {
                self.metrics.lost_race();
                Ok(false)
            }
        }
    }

    /// The row with the answer; `None` if there is nothing to say.
    fn decided(&self, row: &SessionRow, open: &OpenAnswer, region: &Region, queue: &[QueueItem]) -> Option<Session> {
        let mut next = row.session.clone();
        next.rev += 1;
        let now_at = |balancer| self.now_at(balancer);
        let now = open.gateways.first().map_or_else(|| self.surroundings.now(), |to| self.now_at(to.balancer));
        let settings = self.settings.now();
        let settings = settings.of(region);
        let reply = Reply { open, region, settings, queue, marks: row.marks, now, now_at: &now_at };
        uplink::decide(&reply, &mut next).then_some(next)
    }
}
