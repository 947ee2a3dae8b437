//! The acks of one link: received, stored, done, in batches; repeated while frames are not done. Each ack costs both sides
//! more than a frame's bytes do, so that none is sent that says little.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use limpet_link::{AckSender, Alarm};
use limpet_shared::link::Ack;
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use crate::pipeline::Stage;

/// While this worker holds frames that are not stored, the balancer hears this often that its loop runs.
const REPEAT: Duration = Duration::from_millis(10);
/// The same for frames that are stored and not done: their receive windows are far away yet.
const REPEAT_STORED: Duration = Duration::from_millis(50);
/// So long is waited for more to say.
const GATHER: Duration = Duration::from_millis(5);

/// Where a link's frames report how far they are. Clones share one queue.
#[derive(Clone)]
pub(super) struct Reports {
    received: Arc<AtomicU64>,
    stages: mpsc::UnboundedSender<(u64, Option<Stage>)>,
}

impl Reports {
    pub fn received(&self, seq: u64) {
        self.received.fetch_max(seq, Ordering::Relaxed);
        let _ = self.stages.send((seq, None));
    }
    /// The queue is bounded by the frames in work: each reports twice.
    pub fn report(&self, seq: u64, stage: Stage) {
        let _ = self.stages.send((seq, Some(stage)));
    }
}

/// Starts the task that sends the acks.
pub(super) fn start(acks: AckSender) -> (Reports, JoinHandle<()>) {
    let (stages, reports) = mpsc::unbounded_channel();
    let mine = Reports { received: Arc::default(), stages };
    let task = tokio::spawn(send(reports, mine.received.clone(), acks));
    (mine, task)
}

async fn send(mut reports: mpsc::UnboundedReceiver<(u64, Option<Stage>)>, received: Arc<AtomicU64>, acks: AckSender) {
    let (mut waiting, mut alarm) = (Waiting::new(Instant::now()), Alarm::default());
    loop {
        alarm.set(waiting.due());
        let first = tokio::select! {
            biased;
            report = reports.recv() => match report {
                Some(report) => Some(report),
                None => return,
            },
            () = alarm.fires() => None,
        };
        let mut next = first;
        while let Some((seq, stage)) = next {
            waiting.note(seq, stage, Instant::now());
            next = reports.try_recv().ok();
        }
        if waiting.due().is_some_and(|due| due <= Instant::now()) {
            let ack = waiting.take(received.load(Ordering::Relaxed), Instant::now());
            if acks.send(ack).await.is_err() {
                return;
            }
        }
    }
}

/// What the next ack says, and when it goes.
struct Waiting {
    ack: Ack,
    /// When the first of it was reported.
    since: Option<Instant>,
    /// Since when there are frames that are not stored.
    unstored_since: Instant,
    last: Instant,
    unstored: u64,
    undone: u64,
}

impl Waiting {
    fn new(now: Instant) -> Self {
        Self { ack: Ack::default(), since: None, unstored_since: now, last: now, unstored: 0, undone: 0 }
    }

    fn note(&mut self, seq: u64, stage: Option<Stage>, now: Instant) {
        self.since.get_or_insert(now);
        match stage {
            None => {
                if self.unstored == 0 {
                    self.unstored_since = now;
                }
                (self.unstored, self.undone) = (self.unstored + 1, self.undone + 1);
            }
            Some(Stage::Stored) => {
                self.unstored = self.unstored.saturating_sub(1);
                self.ack.stored.push(seq);
            }
            Some(Stage::Done) => {
                self.undone = self.undone.saturating_sub(1);
                self.ack.done.push(seq);
            }
        }
    }

    /// A gateway waits for *stored*: that goes at once, and takes along what else there is. The rest has time: with
    /// frames in work an ack is due soon anyway.
    fn due(&self) -> Option<Instant> {
        if !self.ack.stored.is_empty() {
            return self.since;
        }
        match (self.unstored, self.undone) {
            (0, 0) => self.since.map(|since| since + GATHER),
            (0, _) => Some(self.last + REPEAT_STORED),
            _ => Some((self.last + REPEAT).max(self.unstored_since + GATHER)),
        }
    }

    fn take(&mut self, received: u64, now: Instant) -> Ack {
        (self.since, self.last) = (None, now);
        Ack { received, ..std::mem::take(&mut self.ack) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn stored_goes_at_once_and_takes_the_rest_along() {
        let start = Instant::now();
        let mut waiting = Waiting::new(start);
        assert_eq!(waiting.due(), None, "nothing to say");
        waiting.note(7, None, start + MS * 100);
        assert_eq!(waiting.due(), Some(start + MS * 105), "that it was read can wait for more");
        waiting.note(7, Some(Stage::Stored), start + MS * 103);
        waiting.note(3, Some(Stage::Done), start + MS * 103);
        assert!(waiting.due() <= Some(start + MS * 103));
        let ack = waiting.take(7, start + MS * 103);
        assert_eq!((ack.received, ack.stored, ack.done), (7, vec![7], vec![3]));
    }

    #[tokio::test]
    async fn it_is_repeated_while_frames_are_not_stored_and_less_often_while_they_are_not_done() {
        let start = Instant::now();
        let mut waiting = Waiting::new(start);
        waiting.note(1, None, start);
        let sent = waiting.due().unwrap();
        waiting.take(1, sent);
        assert_eq!(waiting.due(), Some(sent + REPEAT));
        waiting.note(1, Some(Stage::Stored), sent);
        waiting.take(1, sent);
        assert_eq!(waiting.due(), Some(sent + REPEAT_STORED));
        waiting.note(1, Some(Stage::Done), sent + MS);
        assert_eq!(waiting.due(), Some(sent + MS + GATHER));
        waiting.take(1, sent + MS * 9);
        assert_eq!(waiting.due(), None, "it holds nothing");
    }

    #[tokio::test]
    async fn what_is_done_waits_for_an_ack_that_goes_anyway() {
        let start = Instant::now();
        let mut waiting = Waiting::new(start);
        for seq in [1, 2] {
            waiting.note(seq, None, start);
            waiting.note(seq, Some(Stage::Stored), start);
        }
        waiting.take(2, start);
        waiting.note(1, Some(Stage::Done), start + MS * 20);
        assert_eq!(waiting.due(), Some(start + REPEAT_STORED));
        waiting.note(3, None, start + MS * 40);
        assert_eq!(waiting.due(), Some(start + MS * 40 + GATHER), "it is likely stored before");
        waiting.note(3, Some(Stage::Stored), start + MS * 41);
        assert_eq!(waiting.take(3, start + MS * 41).done, [1]);
    }
}
