//! A device's downlink queue, as callers see it.

use limpet_shared::Eui64;
use limpet_store::Store;
use limpet_worker_core::model::{ItemInFlight, QueueItem, SessionRow};

use crate::{
    Api,
    activation::current,
    error::{ApiError, Result},
};

/// Items that may wait for one device.
pub(crate) const LONGEST: u32 = 1000;
/// The longest FRMPayload that any region has at any data rate.
pub(crate) const PAYLOAD: usize = 242;

/// How far a device's queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Items up to this number need nothing more.
    pub done: u64,
    /// Sent, but not known to be transmitted: it will be offered again if need be.
    pub in_flight: Option<ItemInFlight>,
}

/// What the session says about the queue. A mark `sent` beyond the FCntDown that the item was first sent under means
/// that a gateway transmitted it, which the session's row learns with the next uplink only.
pub(crate) fn progress(row: Option<&SessionRow>) -> Progress {
    let Some(row) = row else { return Progress::default() };
    match row.session.item {
        Some(item) if row.marks.sent > u64::from(item.first_fcnt_down) => {
            Progress { done: row.session.queue_done.max(item.seq), in_flight: None }
        }
        in_flight => Progress { done: row.session.queue_done, in_flight },
    }
}

/// The items that are not done, oldest first.
pub(crate) async fn waiting(store: &dyn Store, dev_eui: Eui64, progress: Progress) -> Result<Vec<QueueItem>> {
    Ok(store.queue(dev_eui, progress.done, LONGEST).await?)
}

impl Api {
    /// Appends to the device's queue, unless that is full. Where the last uplink's answer is open the item goes out at once.
    pub async fn enqueue(&self, item: QueueItem) -> Result<QueueItem> {
        let (store, dev_eui) = (self.store.as_ref(), item.dev_eui);
        let session = current(store, dev_eui).await?;
        if waiting(store, dev_eui, progress(session.as_ref())).await?.len() >= LONGEST as usize {
            return Err(ApiError::Exhausted(format!("{LONGEST} downlinks wait for device {dev_eui} already")));
        }
        let item = store.enqueue(item).await?;
        if let Some(row) = session {
            self.cluster.item_enqueued(row.session.key).await;
        }
        Ok(item)
    }
}

/// Deletes what is done. A session that ends takes with it how far the queue was.
pub(crate) async fn forget_done(store: &dyn Store, dev_eui: Eui64, done: u64) -> Result<()> {
    for item in store.queue(dev_eui, 0, LONGEST).await?.iter().take_while(|item| item.seq <= done) {
        store.delete_queue_item(dev_eui, item.seq).await?;
    }
    Ok(())
}
