//! Whose the integrations are that something waits for: one of several URLs of an application has an id that says nothing of it.

use limpet_worker_core::model::Application;

use crate::{IntegrationId, PendingEvent, Result, Store, StoreError};

/// Devices whose first event is looked at.
const LOOKED_AT: u32 = 2;

/// The application with the endpoint that this event waits for. `None` if that endpoint, or the whole integration, was removed.
pub async fn application_waited_for(store: &dyn Store, event: &PendingEvent) -> Result<Option<Application>> {
    let of = event.integration.0;
    let has_it = |application: &Application| application.endpoint(of).is_some();
    let told = event.event.device.application_id;
    for id in [Some(told), (of != told).then_some(of)].into_iter().flatten() {
        if let Some(found) = store.application(id).await?.filter(has_it) {
            return Ok(Some(found));
        }
    }
    // The device was given to another application after its event was made, and before it came to wait.
    let context = store.device_context(event.device).await?;
    Ok(context.map(|context| context.application).filter(has_it))
}

/// The application that an integration is of, and one of the events that wait for it, if that had to be asked.
pub async fn application_of(
    store: &dyn Store,
    of: IntegrationId,
) -> Result<(Option<Application>, Option<PendingEvent>)> {
    if let Some(found) = store.application(of.0).await? {
        return Ok((Some(found), None));
    }
    for device in store.pending_devices(of, LOOKED_AT).await? {
        let waiting = match store.pending(of, device, 1).await {
            // One damaged row does not hide what the others say.
            Err(StoreError::Corrupt(_)) => continue,
            read => read?,
        };
        if let Some(first) = waiting.into_iter().next() {
            return Ok((application_waited_for(store, &first).await?, Some(first)));
        }
    }
    Ok((None, None))
}
