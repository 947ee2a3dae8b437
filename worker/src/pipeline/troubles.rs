//! Which applications' integrations do not take events, and saying so: once when it begins and once a minute, with the
//! reason, and when it is over.

use std::{collections::HashMap, time::Duration};

use limpet_integration::DeliveryError;
use limpet_worker_core::model::DeviceInfo;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

/// How often the same is said again.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// A failure that nobody has met again for so long is not known to last.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// By application.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<HashMap<Uuid, Trouble>>);

#[derive(Debug)]
struct Trouble {
    since: Instant,
    last: Instant,
    said: Instant,
    failures: u64,
}

impl Troubles {
    /// The integration did not take an event.
    pub fn failed(&self, of: &DeviceInfo, error: &DeliveryError) {
        let now = Instant::now();
        let mut all = self.0.lock();
        let mut say = false;
        let trouble = all.entry(of.application_id).or_insert_with(|| {
            say = true;
            Trouble { since: now, last: now, said: now, failures: 0 }
        });
        trouble.failures += 1;
        trouble.last = now;
        if say || now >= trouble.said + SAID_EVERY {
            trouble.said = now;
            let (seconds, failures) = (now.duration_since(trouble.since).as_secs(), trouble.failures);
            tracing::warn!(
                application = of.application_name, application_id = %of.application_id, tenant = of.tenant_name,
                %error, reason = error.label(), needs_operator = error.needs_operator(), failures, seconds,
                "an integration does not take events: they wait"
            );
        }
    }

    /// It took one.
    pub fn took(&self, of: &DeviceInfo) {
        if let Some(trouble) = self.0.lock().remove(&of.application_id) {
            let seconds = trouble.since.elapsed().as_secs();
            tracing::info!(
                application = of.application_name, application_id = %of.application_id, failures = trouble.failures, seconds,
                "an integration takes events again"
            );
        }
    }

    /// How many fail.
    pub fn count(&self) -> usize {
        let mut all = self.0.lock();
        all.retain(|_, trouble| trouble.last.elapsed() < FORGOTTEN_AFTER);
        all.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failing_integration_is_known_until_it_takes_an_event() {
        let (troubles, of) = (Troubles::default(), DeviceInfo::default());
        let other = DeviceInfo { application_id: Uuid::from_u128(1), ..DeviceInfo::default() };
        let error = DeliveryError::TimedOut(Duration::from_secs(5));
        assert_eq!(troubles.count(), 0);
        for of in [&of, &of, &other] {
            troubles.failed(of, &error);
        }
        assert_eq!(troubles.count(), 2);
        troubles.took(&of);
        assert_eq!(troubles.count(), 1);
        tokio::time::sleep(FORGOTTEN_AFTER).await;
        assert_eq!(troubles.count(), 0, "nobody knows any more");
    }
}
