//! More than can be done: what waits, and what passes it.

use std::{cell::Cell, collections::BTreeSet};

use limpet_store_testing::fault::{FaultStore, Faults};
use tokio::sync::oneshot;

use super::*;
use crate::entrance::InWork;

/// The store takes its time for everything, so that a backlog lasts.
const BUSY: Faults = Faults { delay: Duration::from_millis(5), refuse: 0, lose: 0, hide: 0, crash: 0 };

/// As a link hands it over; the receiver is told when it is done.
fn hand_over(worker: &Arc<Pipeline>, frame: UplinkFrame) -> oneshot::Receiver<()> {
    let (sender, done) = oneshot::channel();
    let copy = frame.clone();
    let begin = move |pipeline: &Arc<Pipeline>, InWork { storing, taken_up }: InWork| {
        let pipeline = pipeline.clone();
        tokio::spawn(async move {
            let storing = Cell::new(Some(storing));
            let report = move |stage| {
                if stage == Stage::Stored {
                    storing.take();
                }
            };
            pipeline.datagram(1, frame, report).await;
            drop(taken_up);
            let _ = sender.send(());
        });
    };
    worker.arrive(1, &copy, Box::new(begin));
    done
}

/// What a device's backlog and four new confirmed uplinks came to: which were told first, and how many of the new ones were answered.
async fn after_a_backlog_of(backlog: u32) -> (Vec<u32>, usize) {
    let net = Net::new("eu868", 0).await;
    net.personalize().await;
    let view = FaultStore::new(net.store.clone(), 1, BUSY);
    let worker = net.worker_over("w0", view.clone());
    let pump = tokio::spawn(worker.clone().take_up_when_there_is_room());
    let late: Vec<_> = (0..backlog).map(|fcnt| net.frame(1, CHANNEL, &uplink(fcnt, false), fcnt)).collect();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut done: Vec<_> = late.into_iter().map(|frame| hand_over(&worker, frame)).collect();
    let open = backlog..backlog + 4;
    for fcnt in open.clone() {
        done.push(hand_over(&worker, net.frame(1, CHANNEL, &uplink(fcnt, true), fcnt)));
        tokio::time::sleep(Duration::from_millis(2_500)).await;
    }
    for done in done {
        done.await.unwrap();
    }
    pump.abort();
    let ups = net.webhook.ups();
    let ids: BTreeSet<_> = ups.iter().copied().collect();
    assert_eq!(ids.len(), open.end as usize, "each under one id");
    let mut told: Vec<u32> = Vec::new();
    for (_, fcnt) in ups {
        if !told.contains(&fcnt) {
            told.push(fcnt);
        }
    }
    assert_eq!(told.len(), open.end as usize, "all of them");
    let late: Vec<u32> = told.iter().copied().filter(|fcnt| *fcnt < backlog).collect();
    assert!(late.is_sorted(), "{late:?}");
    let answers: BTreeSet<u64> = net.downlinks().iter().map(|downlink| downlink.key).collect();
    (told, answers.len())
}

#[tokio::test(start_paused = true)]
async fn what_has_a_window_passes_a_backlog_that_is_told_in_order_and_once() {
    const BACKLOG: u32 = 180;
    let (told, answers) = after_a_backlog_of(BACKLOG).await;
    let passed = told.iter().skip_while(|fcnt| **fcnt != BACKLOG).filter(|fcnt| **fcnt < BACKLOG).count();
    assert!(passed > 50, "the first open one has passed {passed} of {BACKLOG}: {told:?}");
    assert_eq!(answers, 4, "each confirmed one is answered, in a window");
}

/// It would be told from a replay no more, and be lost.
#[tokio::test(start_paused = true)]
async fn no_backlog_is_passed_by_more_than_a_session_remembers() {
    after_a_backlog_of(700).await;
}
