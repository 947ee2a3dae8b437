//! Where the events go that wait, as it was when they were offered last: for numbers and lines that are about many.

use std::collections::HashMap;

use limpet_store::IntegrationId;
use limpet_worker_core::model::{Application, Endpoint};
use parking_lot::Mutex;
use uuid::Uuid;

/// Remembered at most.
const MOST: usize = 50_000;

#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<IntegrationId, Address>>);

#[derive(Clone, Debug, Default)]
pub(super) struct Address {
    /// Of the application.
    pub application_id: Uuid,
    pub application: String,
    /// Without what may be a secret.
    pub endpoint: String,
}

impl Addresses {
    pub(super) fn learn(&self, application: &Application, endpoint: &Endpoint<'_>) {
        let mut known = self.0.lock();
        if known.len() >= MOST {
            known.clear();
        }
        let address = known.entry(IntegrationId(endpoint.id)).or_default();
        address.application_id = application.id;
        // As a rule it is as it was.
        if address.application != application.name {
            address.application.clone_from(&application.name);
        }
        let origins = endpoint.http.origins();
        if address.endpoint != origins {
            address.endpoint = origins;
        }
    }

    /// Of one that was not offered anything yet: its id.
    pub(super) fn of(&self, integration: IntegrationId) -> Address {
        let known = self.0.lock().get(&integration).cloned();
        known.unwrap_or_else(|| Address { application_id: integration.0, ..Address::default() })
    }
}
