//! The acks of one link: received, stored, done, in batches; repeated while frames are not done.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use limpet_link::AckSender;
use limpet_shared::link::Ack;
use tokio::{sync::mpsc, task::JoinHandle, time::MissedTickBehavior};

use crate::pipeline::Stage;

/// While this worker holds frames that are not done, the balancer hears this often that its loop runs.
const REPEAT: Duration = Duration::from_millis(10);

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
    let received = Arc::new(AtomicU64::new(0));
    let task = tokio::spawn(send(reports, received.clone(), acks));
    (Reports { received, stages }, task)
}

async fn send(mut reports: mpsc::UnboundedReceiver<(u64, Option<Stage>)>, received: Arc<AtomicU64>, acks: AckSender) {
    let mut undone: u64 = 0;
    let mut repeat = tokio::time::interval(REPEAT);
    repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let first = tokio::select! {
            report = reports.recv() => match report {
                Some(report) => Some(report),
                None => return,
            },
            _ = repeat.tick(), if undone > 0 => None,
        };
        let mut ack = Ack::default();
        let mut next = first;
        while let Some((seq, stage)) = next {
            match stage {
                None => undone += 1,
                Some(Stage::Stored) => ack.stored.push(seq),
                Some(Stage::Done) => {
                    undone = undone.saturating_sub(1);
                    ack.done.push(seq);
                }
            }
            next = reports.try_recv().ok();
        }
        ack.received = received.load(Ordering::Relaxed);
        if acks.send(ack).await.is_err() {
            return;
        }
    }
}
