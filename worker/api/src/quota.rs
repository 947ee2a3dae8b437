//! What a tenant may have, asked before it gets more.

use limpet_store::{List, Store};
use limpet_worker_core::model::{Device, Gateway, Tenant};
use uuid::Uuid;

use crate::{
    Api,
    error::{ApiError, Result},
};

/// Asks for the total only.
fn of(tenant: Uuid) -> List {
    List { tenant: Some(tenant), ..List::default() }
}

/// The tenant, or that it is missing.
pub(crate) async fn tenant(store: &dyn Store, id: Uuid) -> Result<Tenant> {
    store.tenant(id).await?.ok_or_else(|| ApiError::NotFound(format!("tenant {id}")))
}

impl Api {
    /// Creates a gateway if its tenant may have one more, and tells the balancers.
    pub(crate) async fn create_gateway(&self, gateway: &Gateway) -> Result<()> {
        let tenant = tenant(self.store.as_ref(), gateway.tenant_id).await?;
        if !tenant.can_have_gateways {
            return Err(ApiError::Precondition(format!("tenant {} cannot have gateways", tenant.name)));
        }
        let limit = tenant.max_gateway_count;
        if limit != 0 && self.store.gateways(&of(tenant.id)).await?.total >= limit {
            return Err(ApiError::Exhausted(format!("tenant {} has {limit} gateways, as many as it may", tenant.name)));
        }
        self.store.create_gateway(gateway).await?;
        self.tell_balancers().await;
        Ok(())
    }

    /// Creates a device of an application of this tenant, if that may have one more.
    pub(crate) async fn create_device(&self, tenant_id: Uuid, device: &Device) -> Result<()> {
        let tenant = tenant(self.store.as_ref(), tenant_id).await?;
        let limit = tenant.max_device_count;
        if limit != 0 && self.store.devices(&of(tenant.id)).await?.total >= limit {
            return Err(ApiError::Exhausted(format!("tenant {} has {limit} devices, as many as it may", tenant.name)));
        }
        Ok(self.store.create_device(device).await?)
    }
}
