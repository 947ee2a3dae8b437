//! What balancers tell besides frames.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use limpet_api::Api;
use limpet_console::JoinLine;
use limpet_link::{Identity, Trust};
use limpet_shared::{Eui64, UnixMicros, link};
use limpet_store::Store;
use limpet_worker_core::model::GatewaySeen;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::Feed,
    links::{Links, Notice},
    pipeline::Pipeline,
    roll::Roll,
};

/// The parts of a worker, wired; cheap to clone.
#[derive(Clone)]
pub struct Around {
    pub store: Arc<dyn Store>,
    pub links: Arc<Links>,
    pub feed: Arc<Feed>,
    pub pipeline: Arc<Pipeline>,
    pub api: Arc<Api>,
    /// What a further worker is started with.
    pub join: JoinLine,
    pub roll: Arc<Roll>,
    /// Where a renewed certificate is kept.
    pub identity_folder: PathBuf,
}

/// Acts on what comes, until `end`. `stop` is cancelled when an operator removes this worker.
pub async fn run(mut notices: mpsc::Receiver<Notice>, around: Around, stop: CancellationToken, end: CancellationToken) {
    while let Some(Some(notice)) = end.run_until_cancelled(notices.recv()).await {
        let Around { store, feed, pipeline, api, .. } = &around;
        match notice {
            Notice::TxAck(ack) => {
                let pipeline = pipeline.clone();
                tokio::spawn(async move { pipeline.tx_ack(ack).await });
            }
            Notice::GatewaySeen(seen) => {
                tokio::spawn(note_gateway(store.clone(), seen));
            }
            Notice::Linked { address } => {
                let feed = feed.clone();
                around.roll.call_soon();
                tokio::spawn(async move { feed.greet(&address).await });
            }
            Notice::Ask { request, answer } => {
                let api = api.clone();
                // Whoever asked may have gone.
                tokio::spawn(async move { answer.send(api.answer_a_balancer(request).await) });
            }
            Notice::Drain(on) => tracing::info!(on, "an operator drains this worker, or ends that"),
            Notice::Remove => {
                tracing::info!("this worker was removed from the cluster; it drains and ends");
                note_removal(&around.identity_folder);
                stop.cancel();
            }
            Notice::Renewed(certificate) => renewed(&around, &certificate),
            Notice::Trust(trust) => trusted(&around, trust),
        }
    }
}

/// So that the next start says at once what happened.
pub fn note_removal(identity_folder: &Path) {
    if let Err(error) = limpet_link::join::note_removal(identity_folder) {
        tracing::warn!(%error, "cannot keep in mind that this worker was removed");
    }
}

fn renewed(around: &Around, certificate: &str) {
    let identity: Result<Identity, _> = around.links.identity().renewed(certificate);
    match identity.and_then(|i| i.save(&around.identity_folder).map(|()| i)) {
        Ok(identity) => {
            tracing::info!(expires_at = ?identity.expires_at(), "the certificate was renewed");
            around.links.set_identity(identity);
        }
        Err(error) => tracing::warn!(%error, "a renewed certificate cannot be used"),
    }
}

/// The latest counts: a balancer at which nobody has changed the CA yet says nothing of it.
fn trusted(around: &Around, told: link::Trust) {
    let Some(trust) = Trust::told(told) else {
        return tracing::warn!("what a balancer says of the cluster's CA cannot be read");
    };
    let identity = around.links.identity();
    if !trust.is_later_than(identity.trust()) {
        return;
    }
    let over = trust.former.is_none();
    match identity.trusting(trust).and_then(|i| i.save(&around.identity_folder).map(|()| i)) {
        Ok(identity) if over => {
            tracing::info!("the change of the cluster's CA is finished: certificates of the one before count no more");
            around.links.set_identity(identity);
        }
        Ok(identity) => {
            tracing::info!(
                "the cluster changes its CA: this worker asks for a new certificate when all its balancers know of it"
            );
            around.links.set_identity(identity);
        }
        Err(error) => tracing::warn!(%error, "cannot keep what a balancer says of the cluster's CA"),
    }
}

async fn note_gateway(store: Arc<dyn Store>, seen: link::GatewaySeen) {
    let (eui, at) = (Eui64(seen.eui), UnixMicros(seen.at));
    let seen = GatewaySeen { last_seen_at: Some(at), address: Some(seen.address), location: None };
    if let Err(error) = store.note_gateway(eui, seen).await {
        tracing::debug!(gateway = %eui, %error, "could not note when a gateway was seen");
    }
}
