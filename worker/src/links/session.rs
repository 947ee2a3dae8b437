//! One link from Welcome to its end.

use std::{cell::Cell, collections::HashSet, sync::Arc, time::Duration};

use limpet_link::{BalancerLink, ControlReceiver, ControlSender, FrameReceiver, identity::PeerName, time};
use limpet_shared::{
    UnixMicros,
    admin::{ErrorKind, Reply},
    link::{AdminReply, Alive, ToBalancer, ToWorker, UplinkFrame, to_balancer, to_worker},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{Links, Notice, Peer, acks};
use crate::{
    beat::BEAT,
    entrance::{Begin, InWork},
    pipeline::{Pipeline, Stage},
};

/// This shows that the worker's loop runs, also when there is no frame to acknowledge. A balancer ejects who is silent for 500 ms.
const ALIVE_EVERY: Duration = BEAT;
/// So often it also asks for the balancer's time.
const ASKS_EVERY: u32 = 5;
/// Frames taken at once.
const BATCH: usize = 256;
/// While there is no room for more, it is looked for this often.
const NO_ROOM: Duration = Duration::from_millis(10);

/// Runs the link; returns why it ended.
pub(super) async fn run(
    links: &Arc<Links>,
    address: &str,
    link: BalancerLink,
    pipeline: &Arc<Pipeline>,
    stop: &CancellationToken,
) -> String {
    let BalancerLink { welcome, peer: PeerName { key, .. }, control_tx, control_rx, frame_rx, ack_tx, link } = link;
    let (have, _) = watch::channel(welcome.cluster_version);
    let skew = Some(welcome.now).filter(|now| *now > 0).and_then(|now| time::skew(time::now(), UnixMicros(now)));
    if let Some(skew) = &skew {
        tracing::warn!(balancer = welcome.name, "{skew}: set the clocks, as with NTP");
    }
    let (balancer, name) = (welcome.instance, welcome.name.clone());
    let peer = Peer {
        instance: balancer,
        version: welcome.version,
        name,
        key: key.clone(),
        skew,
        control: control_tx.clone(),
        have,
        digest: welcome.cluster_digest,
        differs: None,
        replaced: None,
        fed: None,
        suspects: HashSet::new(),
        spare: Vec::new(),
        trust: 0,
    };
    links.clocks.lock().welcomed(balancer, UnixMicros(welcome.now));
    links.peers.lock().insert(address.to_owned(), peer);
    links.metrics.links().set(links.peers.lock().len() as i64);
    links.catch_up(&control_tx);
    let _ = links.notices.send(Notice::Linked { address: address.to_owned() }).await;
    let (reports, acks) = acks::start(ack_tx);
    let alive = alive(links, &control_tx);
    let frames = frames(links.clone(), balancer, frame_rx, reports, pipeline.clone());
    let ended = tokio::select! {
        biased;
        ended = link.closed() => ended.to_string(),
        ended = frames => ended,
        ended = control(links, (address, balancer, &key), control_rx, &control_tx) => ended,
        () = links.removal(&key) => "the balancer was removed from the cluster, and has not ended by itself".into(),
        () = alive => "the link's queue is gone".into(),
        () = stop.cancelled() => "this worker stops".into(),
    };
    links.peers.lock().remove(address);
    links.clocks.lock().forget(balancer);
    links.metrics.links().set(links.peers.lock().len() as i64);
    drop(control_tx);
    acks.abort();
    if stop.is_cancelled() {
        link.close("the worker stops").await
    } else {
        link.abort("ended")
    }
    ended
}

/// Reads frames, whether they can be worked on now or not: which of them goes first is decided where all are.
async fn frames(
    links: Arc<Links>,
    balancer: u64,
    mut frame_rx: FrameReceiver,
    reports: acks::Reports,
    pipeline: Arc<Pipeline>,
) -> String {
    let mut batch: Vec<UplinkFrame> = Vec::with_capacity(BATCH);
    loop {
        let room = pipeline.has_room();
        tokio::select! {
            biased;
            read = frame_rx.recv_many(&mut batch, BATCH), if room => match read {
                Ok(0) => return "the balancer ended the frame stream".into(),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            },
            () = tokio::time::sleep(NO_ROOM), if !room => {}
        }
        for frame in batch.drain(..) {
            reports.received(frame.seq);
            links.metrics.frame();
            links.routes.lock().frame(balancer, frame.gateway);
            links.metrics.in_flight().inc();
            let datagram = frame.clone();
            pipeline.arrive(balancer, &datagram, begin(&links, balancer, frame, &reports));
        }
    }
}

/// The way of a frame through the pipeline, when it is taken up.
fn begin(links: &Arc<Links>, balancer: u64, frame: UplinkFrame, reports: &acks::Reports) -> Begin {
    let (links, reports, read) = (links.clone(), reports.clone(), Instant::now());
    Box::new(move |pipeline, InWork { storing, taken_up }| {
        let pipeline = pipeline.clone();
        tokio::spawn(async move {
            let (seq, storing) = (frame.seq, Cell::new(Some(storing)));
            let in_flight = links.metrics.in_flight().clone();
            let report = move |stage| {
                if stage == Stage::Stored {
                    links.stored_after.note(read.elapsed());
                    storing.take();
                }
                reports.report(seq, stage);
            };
            pipeline.datagram(balancer, frame, report).await;
            in_flight.dec();
            drop(taken_up);
        });
    })
}

async fn alive(links: &Links, control: &ControlSender<ToBalancer>) {
    for count in 0_u32.. {
        let asked_at = if count.is_multiple_of(ASKS_EVERY) { links.clocks.lock().question() } else { 0 };
        let alive = ToBalancer::from(to_balancer::Kind::Alive(Alive { in_flight: links.in_flight(), asked_at }));
        if matches!(control.try_send(alive), Err(limpet_link::SendError::Closed)) {
            return;
        }
        links.beat.every(ALIVE_EVERY).await;
    }
}

async fn control(
    links: &Arc<Links>,
    (address, balancer, key): (&str, u64, &str),
    mut control_rx: ControlReceiver<ToWorker>,
    control_tx: &ControlSender<ToBalancer>,
) -> String {
    loop {
        let message = match control_rx.recv().await {
            Ok(Some(message)) => message,
            Ok(None) => return "the balancer ended the control stream".into(),
            Err(error) => return error.to_string(),
        };
        // A kind that this version does not know is left alone: the balancer may be newer.
        let Some(kind) = message.kind else { continue };
        if commands(&kind) && links.is_revoked(key) {
            tracing::warn!(%address, "a balancer that was removed from the cluster has asked for something: ignored");
            continue;
        }
        if let Some(notice) = take(links, (address, balancer), kind, control_tx) {
            forward(&links.notices, notice).await;
        }
    }
}

/// Whether it wants something of this worker besides the work on frames.
fn commands(kind: &to_worker::Kind) -> bool {
    use to_worker::Kind::{Admin, Drain, Remove, Renewed, Trust};
    matches!(kind, Admin(_) | Drain(_) | Remove(_) | Renewed(_) | Trust(_))
}

/// What concerns the link is dealt with here; the rest is passed on.
fn take(
    links: &Arc<Links>,
    (address, balancer): (&str, u64),
    kind: to_worker::Kind,
    control: &ControlSender<ToBalancer>,
) -> Option<Notice> {
    use to_worker::Kind;
    match kind {
        Kind::TxAck(ack) => links.spread.lock().counts(&ack).then_some(Notice::TxAck(ack)),
        Kind::GatewaySeen(seen) => Some(Notice::GatewaySeen(seen)),
        Kind::Sightings(sightings) => {
            links.routes.lock().sightings(balancer, &sightings, Instant::now());
            None
        }
        Kind::Clock(clock) => {
            links.clocks.lock().answered(balancer, clock.asked_at, UnixMicros(clock.now));
            None
        }
        Kind::ClusterHave(have) => {
            if let Some(peer) = links.peers.lock().get_mut(address) {
                peer.have.send_replace(have.version);
                peer.digest = have.digest;
            }
            None
        }
        Kind::Suspects(suspects) => {
            if let Some(peer) = links.peers.lock().get_mut(address) {
                peer.suspects = suspects.names.into_iter().collect();
            }
            None
        }
        Kind::Spare(spare) => {
            if let Some(peer) = links.peers.lock().get_mut(address) {
                peer.spare = spare.names;
            }
            None
        }
        Kind::AdminReply(reply) => {
            let waiting = links.answers.lock().remove(&reply.id);
            if let Some(waiting) = waiting {
                let _ = waiting.send(serde_json::from_str(&reply.reply).unwrap_or_else(unread_answer));
            }
            None
        }
        Kind::Admin(admin) => {
            let (answer, answered) = oneshot::channel();
            tokio::spawn(answer_to(admin.id, answered, control.clone()));
            match serde_json::from_str(&admin.request) {
                Ok(request) => Some(Notice::Ask { request, answer }),
                Err(error) => {
                    // A balancer of a newer version may ask what this one does not know.
                    let _ = answer.send(failed(ErrorKind::Invalid, format!("the question cannot be read: {error}")));
                    None
                }
            }
        }
        Kind::Drain(drain) => links.drained_by_operator(&drain).then_some(Notice::Drain(drain.on)),
        Kind::Remove(_) => Some(Notice::Remove),
        Kind::Trust(trust) => {
            if let Some(peer) = links.peers.lock().get_mut(address) {
                peer.trust = trust.since;
            }
            Some(Notice::Trust(trust))
        }
        Kind::Renewed(renewed) => Some(Notice::Renewed(renewed.certificate)),
        // They come only once, before this.
        Kind::Welcome(_) | Kind::Refused(_) => None,
    }
}

fn unread_answer(error: serde_json::Error) -> Reply {
    failed(ErrorKind::Internal, format!("a balancer's answer cannot be read: {error}"))
}

fn failed(kind: ErrorKind, message: String) -> Reply {
    Reply::Error { kind, message }
}

async fn answer_to(id: u64, answered: oneshot::Receiver<Reply>, control: ControlSender<ToBalancer>) {
    let Ok(reply) = answered.await else { return };
    let Ok(reply) = serde_json::to_string(&reply) else { return };
    let _ = control.send(ToBalancer::from(to_balancer::Kind::AdminReply(AdminReply { id, reply }))).await;
}

async fn forward(notices: &mpsc::Sender<Notice>, notice: Notice) {
    if notices.send(notice).await.is_err() {
        tracing::debug!("a balancer's message came after the end");
    }
}
