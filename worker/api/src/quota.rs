//! What a tenant may have: whether gateways at all. How many of what, the store holds to.

use limpet_store::Store;
use limpet_worker_core::model::{Gateway, Tenant};
use uuid::Uuid;

use crate::{
    Api,
    error::{ApiError, Result},
};

/// The tenant, or that it is missing.
pub(crate) async fn tenant(store: &dyn Store, id: Uuid) -> Result<Tenant> {
    store.tenant(id).await?.ok_or_else(|| ApiError::NotFound(format!("tenant {id}")))
}

impl Api {
    /// Creates a gateway if its tenant may have one, and tells the balancers.
    pub(crate) async fn create_gateway(&self, gateway: &Gateway) -> Result<()> {
        let tenant = tenant(self.store.as_ref(), gateway.tenant_id).await?;
        if !tenant.can_have_gateways {
            return Err(ApiError::Precondition(format!("tenant {} cannot have gateways", tenant.name)));
        }
        self.store.create_gateway(gateway).await?;
        self.tell_balancers().await;
        Ok(())
    }
}
