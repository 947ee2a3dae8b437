//! An endpoint that takes events, or is down.

use super::*;

#[derive(Default)]
pub(super) struct Webhook {
    pub events: Mutex<Vec<Event>>,
    /// What the payloads of some of them say.
    pub objects: Mutex<Vec<(Uuid, Object)>>,
    pub down: AtomicBool,
}
#[async_trait]
impl Deliver for Webhook {
    async fn deliver(
        &self,
        _: &HttpIntegration,
        event: &Event,
        object: Option<&Object>,
        limit: Duration,
    ) -> Result<(), DeliveryError> {
        if self.down.load(Ordering::Relaxed) {
            return Err(DeliveryError::TimedOut(limit));
        }
        self.events.lock().push(event.clone());
        self.objects.lock().extend(object.map(|object| (event.id, object.clone())));
        Ok(())
    }
}
impl Webhook {
    pub fn ups(&self) -> Vec<(Uuid, u32)> {
        let up = |e: &Event| match &e.kind {
            EventKind::Up(up) => Some((e.id, up.fcnt)),
            _ => None,
        };
        self.events.lock().iter().filter_map(up).collect()
    }
    pub fn joins(&self) -> usize {
        self.events.lock().iter().filter(|e| matches!(e.kind, EventKind::Join(_))).count()
    }
}
