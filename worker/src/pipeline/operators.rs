//! What operators do about events that wait.

use std::{sync::Arc, time::Duration};

use limpet_integration::DeliveryError;
use limpet_shared::{
    UnixMicros,
    admin::{ErrorKind, Reply},
};
use limpet_store::{IntegrationId, PendingBounds, PendingEvent, StoreError, application_of, application_waited_for};
use uuid::Uuid;

use super::Pipeline;

/// The endpoint has this long to take what is offered at an operator's wish.
const LIMIT: Duration = Duration::from_secs(3);
/// Devices of an integration that are looked at for an event that waits.
const DEVICES: u32 = 16;
/// How often the store is asked to drop what there is: what comes while it does is dropped as well, but not for ever.
const DROPS: u32 = 1_000;

impl Pipeline {
    /// Offers the event that has waited longest, whoever is about to send it: in the worst case it goes out twice, with the same
    /// id. The others follow by themselves.
    pub async fn retry_waiting(&self, integration: Uuid) -> Reply {
        match self.offer_first(IntegrationId(integration)).await {
            Ok(message) => Reply::Done { message },
            Err(reply) => reply,
        }
    }

    async fn offer_first(&self, integration: IntegrationId) -> Result<String, Reply> {
        let Some(first) = self.first_waiting(integration).await.map_err(store_away)? else {
            return match self.store.pending_size(integration).await.map_err(store_away)? {
                (0, _) => Ok("nothing waits for this integration".into()),
                // Its devices may have sent all that they had a moment ago, and others have more.
                (events, _) => Ok(format!("what waits for this integration ({events}) is being sent now")),
            };
        };
        let application = application_waited_for(&*self.store, &first).await.map_err(store_away)?;
        let Some(endpoint) = application.as_ref().and_then(|application| application.endpoint(integration.0)) else {
            return Err(refused("this integration was removed: what waits for it is dropped when its turn comes"));
        };
        let device = first.device;
        let what = format!("the event {} of device {device}", first.event.kind.name());
        match self.offer_waiting(&endpoint.http, &first, &mut None, LIMIT).await.map_err(store_away)? {
            Ok(_) => {
                self.metrics.delivered(&first.event.kind);
                self.troubles.took(&first.event.device, &endpoint);
                self.store.delete_pending(&first).await.map_err(store_away)?;
                Ok(format!("{what} was taken; what else waits follows within seconds"))
            }
            Err(error @ DeliveryError::Undecoded(_)) => {
                Err(Reply::Error { kind: ErrorKind::Unavailable, message: format!("{what} was not offered: {error}") })
            }
            Err(error) => {
                self.metrics.delivery_failed();
                self.troubles.failed(&first.event.device, &endpoint, &error);
                Err(Reply::Error { kind: ErrorKind::Unavailable, message: format!("{what} was not taken: {error}") })
            }
        }
    }

    async fn first_waiting(&self, integration: IntegrationId) -> Result<Option<PendingEvent>, StoreError> {
        for device in self.store.pending_devices(integration, DEVICES).await? {
            if let Some(first) = self.store.pending(integration, device, 1).await?.into_iter().next() {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    /// Gives up all that waits for an integration, to the end: also if whoever asked for it waits no longer.
    pub async fn drop_waiting(self: &Arc<Self>, integration: Uuid, by: &str) -> Reply {
        let (pipeline, by) = (self.clone(), by.to_owned());
        let dropping = tokio::spawn(async move { pipeline.drop_all(IntegrationId(integration), &by).await });
        dropping.await.unwrap_or_else(|error| Reply::Error { kind: ErrorKind::Internal, message: error.to_string() })
    }

    /// A store drops so much in one go, and more may be put meanwhile.
    async fn drop_all(&self, integration: IntegrationId, by: &str) -> Reply {
        // For their names alone.
        let (application, _) = application_of(&*self.store, integration).await.unwrap_or_default();
        let endpoint = application.as_ref().and_then(|application| application.endpoint(integration.0));
        let endpoint = endpoint.map(|endpoint| endpoint.http.origins()).unwrap_or_default();
        let name = application.map(|application| application.name).unwrap_or_default();
        let none = PendingBounds { events: 0, bytes: 0, since: UnixMicros(0) };
        let mut all = 0;
        for _ in 0..DROPS {
            match self.store.trim_pending(integration, &none).await.map(|trimmed| trimmed.events()) {
                Ok(0) => break,
                Ok(dropped) => {
                    all += dropped;
                    self.metrics.pending_dropped("operator", dropped);
                    tracing::warn!(application = name, endpoint, integration = %integration.0, dropped, by, "waiting events were dropped at an operator's wish");
                }
                Err(error) if all == 0 => return store_away(error),
                Err(error) => {
                    let message = format!("{}, then the store failed: {error}", dropped_in_words(all));
                    return Reply::Error { kind: ErrorKind::Unavailable, message };
                }
            }
        }
        Reply::Done { message: dropped_in_words(all) }
    }
}

fn dropped_in_words(dropped: u64) -> String {
    let what = if dropped == 1 { "waiting event was" } else { "waiting events were" };
    format!("{dropped} {what} dropped")
}

fn refused(message: &str) -> Reply {
    Reply::Error { kind: ErrorKind::Invalid, message: message.into() }
}

fn store_away(error: StoreError) -> Reply {
    Reply::Error { kind: ErrorKind::Unavailable, message: error.to_string() }
}
