//! Workers on the link: each has a task that carries messages between its streams and the driver.

use std::{sync::Arc, time::Duration};

use limpet_balancer_core::WorkerId;
use limpet_link::{AckReceiver, ControlReceiver, Incoming, LinkServer, Outgoing, WorkerLink, outgoing};
use limpet_shared::link::{Refused, ToBalancer, to_worker};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::driver::Input;

/// Acks taken at once.
const BATCH: usize = 256;
/// How long what is queued for a worker may take when its link is closed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The driver's way to one worker. Frames are limited by the core, which knows what the worker has read; a worker that
/// does not read its control messages loses its link.
pub struct Outbox {
    pub outgoing: Outgoing,
    /// Closes the link after the control messages that were sent before, with a reason.
    pub close: oneshot::Sender<String>,
}

/// Brings every worker that introduces itself before the driver, until the balancer has stopped; then waits a moment
/// for what is still to be told.
pub async fn accept_all(server: Arc<LinkServer>, inputs: mpsc::Sender<Input>, stopped: CancellationToken) {
    let (mut number, mut links) = (0, JoinSet::new());
    loop {
        tokio::select! {
            biased;
            () = stopped.cancelled() => break,
            Some(_) = links.join_next() => {}
            incoming = server.accept() => {
                let Some(incoming) = incoming else { break };
                number += 1;
                links.spawn(serve(WorkerId(number), incoming, inputs.clone()));
            }
        }
    }
    let _ = tokio::time::timeout(LAST_WORDS, async { while links.join_next().await.is_some() {} }).await;
}

async fn serve(id: WorkerId, incoming: Incoming, inputs: mpsc::Sender<Input>) {
    let (outgoing, mut queues) = outgoing();
    let (close, closing) = oneshot::channel();
    let outbox = Outbox { outgoing, close };
    let (address, hello, issuer) = (incoming.address, incoming.hello.clone(), incoming.issuer().to_vec());
    if inputs.send(Input::Hello { id, address, hello, issuer, outbox }).await.is_err() {
        return incoming.refuse(stopping()).await;
    }
    let welcome = match queues.first().await {
        Some(to_worker::Kind::Welcome(welcome)) => welcome,
        Some(to_worker::Kind::Refused(refused)) => return incoming.refuse(refused).await,
        _ => return incoming.refuse(stopping()).await,
    };
    match incoming.welcome(welcome, queues).await {
        Ok(link) => carry(id, link, closing, &inputs).await,
        Err(ended) => {
            let _ = inputs.send(Input::Closed { id, why: ended.to_string() }).await;
        }
    }
}

fn stopping() -> Refused {
    Refused { reason: "this balancer is stopping".into(), retry: true, ..Refused::default() }
}

async fn carry(id: WorkerId, worker: WorkerLink, closing: oneshot::Receiver<String>, inputs: &mpsc::Sender<Input>) {
    let WorkerLink { control_rx, ack_rx, link } = worker;
    let why = tokio::select! {
        biased;
        reason = closing => {
            // The driver has let go of the queues, so the writers end after what is in them.
            return link.close(reason.as_deref().unwrap_or("the balancer has stopped")).await;
        }
        ended = link.closed() => ended.to_string(),
        why = read_control(id, control_rx, inputs) => why,
        why = read_acks(id, ack_rx, inputs) => why,
    };
    link.abort(&why);
    let _ = inputs.send(Input::Closed { id, why }).await;
}

async fn read_control(id: WorkerId, mut messages: ControlReceiver<ToBalancer>, inputs: &mpsc::Sender<Input>) -> String {
    loop {
        match messages.recv().await {
            // A kind that this version does not know has no `kind`; it is none of our business.
            Ok(Some(ToBalancer { kind: None })) => {}
            Ok(Some(ToBalancer { kind: Some(message) })) => {
                if inputs.send(Input::Control { id, message: Box::new(message) }).await.is_err() {
                    return "the balancer has stopped".into();
                }
            }
            Ok(None) => return "the worker ended its control stream".into(),
            Err(error) => return error.to_string(),
        }
    }
}

async fn read_acks(id: WorkerId, mut messages: AckReceiver, inputs: &mpsc::Sender<Input>) -> String {
    loop {
        let mut acks = Vec::new();
        match messages.recv_many(&mut acks, BATCH).await {
            Ok(0) => return "the worker ended its frame stream".into(),
            Ok(_) => {
                if inputs.send(Input::Acks { id, acks }).await.is_err() {
                    return "the balancer has stopped".into();
                }
            }
            Err(error) => return error.to_string(),
        }
    }
}
