//! Which endpoints of applications do not take events, or refuse them, and saying so: once when it begins and once a minute, with
//! the reason, and when it is over.

use std::{collections::HashMap, time::Duration};

use limpet_integration::DeliveryError;
use limpet_shared::{UnixMicros, admin::IntegrationTrouble};
use limpet_worker_core::model::{DeviceInfo, Endpoint};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

/// How often the same is said again.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// So many refusals with nothing taken in between are worth saying: one event may be refused for what it is.
const REFUSALS_SAID: u64 = 3;
/// A failure that nobody has met again for so long is not known to last.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);
/// Told to the other workers at most, those that fail for longest: it is written down every few seconds.
const TOLD: usize = 50;

/// By what events wait under for them.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    failing: HashMap<Uuid, Trouble>,
    /// When the log told of each last. It outlives the failure, which may come and go all the time.
    said: HashMap<Uuid, Instant>,
}

#[derive(Debug)]
struct Trouble {
    application: Uuid,
    since: Instant,
    last: Instant,
    /// Whether the log has told of it.
    said: bool,
    failures: u64,
    /// Of the last one.
    reason: &'static str,
    error: String,
    needs_operator: bool,
}

impl Troubles {
    /// The endpoint did not take an event of this device, or refused it.
    pub fn failed(&self, of: &DeviceInfo, endpoint: &Endpoint<'_>, error: &DeliveryError) {
        let now = Instant::now();
        let mut known = self.0.lock();
        let Known { failing, said } = &mut *known;
        let trouble = failing.entry(endpoint.id).or_insert_with(|| {
            let (application, reason, needs_operator) = (of.application_id, error.label(), error.needs_operator());
            let (since, last, said, failures, error) = (now, now, false, 0, String::new());
            Trouble { application, since, last, said, failures, reason, error, needs_operator }
        });
        trouble.failures += 1;
        trouble.last = now;
        (trouble.reason, trouble.needs_operator) = (error.label(), error.needs_operator());
        trouble.error = error.to_string();
        let (enough, what) = if error.is_verdict() {
            (REFUSALS_SAID, "an integration refuses events: each is given up after three tries")
        } else {
            (1, "an integration does not take events: they wait")
        };
        said.retain(|_, at| now < *at + SAID_EVERY);
        if trouble.failures >= enough && !said.contains_key(&endpoint.id) {
            said.insert(endpoint.id, now);
            trouble.said = true;
            let (seconds, failures) = (now.duration_since(trouble.since).as_secs(), trouble.failures);
            tracing::warn!(
                application = of.application_name, application_id = %of.application_id, tenant = of.tenant_name,
                endpoint = endpoint.http.origins(), %error, reason = error.label(), needs_operator = error.needs_operator(), failures, seconds,
                "{what}"
            );
        }
    }

    /// It took one.
    pub fn took(&self, of: &DeviceInfo, endpoint: &Endpoint<'_>) {
        if let Some(trouble) = self.0.lock().failing.remove(&endpoint.id).filter(|trouble| trouble.said) {
            let seconds = trouble.since.elapsed().as_secs();
            tracing::info!(
                application = of.application_name, application_id = %of.application_id, endpoint = endpoint.http.origins(),
                failures = trouble.failures, seconds,
                "an integration takes events again"
            );
        }
    }

    /// How many fail.
    pub fn count(&self) -> usize {
        let failing = &mut self.0.lock().failing;
        failing.retain(|_, trouble| trouble.last.elapsed() < FORGOTTEN_AFTER);
        failing.len()
    }

    /// For operators, wherever they ask. `now` is the time of day.
    pub fn told(&self, now: UnixMicros) -> Vec<IntegrationTrouble> {
        let known = self.0.lock();
        let mut failing: Vec<_> =
            known.failing.iter().filter(|(_, trouble)| trouble.last.elapsed() < FORGOTTEN_AFTER).collect();
        failing.sort_by_key(|(endpoint, trouble)| (trouble.since, **endpoint));
        let told = failing.into_iter().take(TOLD).map(|(endpoint, trouble)| IntegrationTrouble {
            integration: endpoint.to_string(),
            application: trouble.application.to_string(),
            reason: trouble.reason.into(),
            error: trouble.error.clone(),
            needs_operator: trouble.needs_operator,
            since: now - trouble.since.elapsed(),
            last: now - trouble.last.elapsed(),
            failures: trouble.failures,
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use limpet_worker_core::model::HttpIntegration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failing_integration_is_known_until_it_takes_an_event() {
        let (troubles, of) = (Troubles::default(), DeviceInfo::default());
        let endpoint = |id| Endpoint {
            id: Uuid::from_u128(id),
            apart: Uuid::from_u128(id),
            http: Cow::Owned(HttpIntegration::default()),
        };
        let (one, other) = (endpoint(0), endpoint(1));
        let error = DeliveryError::TimedOut(Duration::from_secs(5));
        assert_eq!(troubles.count(), 0);
        for endpoint in [&one, &one, &other] {
            troubles.failed(&of, endpoint, &error);
        }
        assert_eq!(troubles.count(), 2);
        let told = troubles.told(UnixMicros(9_000_000));
        let brief: Vec<_> = told.iter().map(|t| (t.reason.as_str(), t.failures, t.since.0)).collect();
        assert_eq!(brief, [("timed_out", 2, 9_000_000), ("timed_out", 1, 9_000_000)]);
        troubles.took(&of, &one);
        assert_eq!(troubles.count(), 1);
        tokio::time::sleep(FORGOTTEN_AFTER).await;
        assert_eq!((troubles.told(UnixMicros(0)), troubles.count()), (vec![], 0), "nobody knows any more");
    }
}
