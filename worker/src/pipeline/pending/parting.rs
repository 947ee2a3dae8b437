//! What waits under the id of an application that has several URLs: for each of them. It was put there by a worker of a version
//! that knew all URLs of an application as one, or while there was one; by the API; or before there were several.

use limpet_shared::Eui64;
use limpet_store::{IntegrationId, PendingEvent, StoreError};
use limpet_worker_core::model::Application;

use tokio_util::sync::CancellationToken;

use super::Lease;
use crate::pipeline::Pipeline;

/// Events that are read at once.
const BATCH: u32 = 32;

/// Lets it wait for each URL by itself, where its key gives it its place before what is later. If that breaks off, it is done anew.
/// Returns whether there was any. With the lease it ends.
pub(super) async fn part(
    pipeline: &Pipeline,
    application: &Application,
    device: Eui64,
    (stop, lease): (&CancellationToken, &Lease),
) -> Result<bool, StoreError> {
    let together = IntegrationId(application.id);
    let apart = pipeline.waiting_under(application);
    if apart.len() < 2 {
        return Ok(false);
    }
    let mut any = false;
    while lease.goes_on(pipeline, stop).await? {
        let waiting = pipeline.store.pending(together, device, BATCH).await?;
        any |= !waiting.is_empty();
        for event in &waiting {
            for integration in &apart {
                pipeline.store.put_pending(PendingEvent { integration: *integration, ..event.clone() }).await?;
            }
            pipeline.store.delete_pending(event).await?;
        }
        if waiting.len() < BATCH as usize {
            break;
        }
    }
    Ok(any)
}
