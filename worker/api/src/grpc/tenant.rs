//! Tenants.

use chirpstack_api::api::{self, tenant_service_server::TenantService};
use limpet_store::List;
use limpet_worker_core::model::Tenant;
use tonic::{Request, async_trait};
use uuid::Uuid;

use super::{Grpc, Reply, reply, unserved};
use crate::{
    auth::Access,
    clock,
    error::Result,
    fields::{self, refuse, required},
    lists, quota,
};

/// What a tenant is set to, besides its identity and times.
fn read(given: api::Tenant) -> Result<Tenant> {
    let private = "private gateways are not served yet: every gateway serves every tenant";
    refuse("private_gateways_up", given.private_gateways_up, private)?;
    refuse("private_gateways_down", given.private_gateways_down, private)?;
    refuse("dev_addr_prefixes", !given.dev_addr_prefixes.is_empty(), "prefixes per tenant are not served yet")?;
    Ok(Tenant {
        name: fields::name("name", &given.name)?,
        description: fields::text("description", given.description)?,
        can_have_gateways: given.can_have_gateways,
        max_gateway_count: given.max_gateway_count,
        max_device_count: given.max_device_count,
        tags: fields::tags("tags", given.tags)?,
        ..Tenant::default()
    })
}

fn write(tenant: &Tenant) -> api::Tenant {
    api::Tenant {
        id: tenant.id.to_string(),
        name: tenant.name.clone(),
        description: tenant.description.clone(),
        can_have_gateways: tenant.can_have_gateways,
        max_gateway_count: tenant.max_gateway_count,
        max_device_count: tenant.max_device_count,
        tags: fields::map(&tenant.tags),
        ..Default::default()
    }
}

fn list_item(tenant: &Tenant) -> api::TenantListItem {
    api::TenantListItem {
        id: tenant.id.to_string(),
        created_at: Some(clock::timestamp(tenant.created_at)),
        updated_at: Some(clock::timestamp(tenant.updated_at)),
        name: tenant.name.clone(),
        can_have_gateways: tenant.can_have_gateways,
        max_gateway_count: tenant.max_gateway_count,
        max_device_count: tenant.max_device_count,
        ..Default::default()
    }
}

#[async_trait]
impl TenantService for Grpc {
    async fn create(&self, request: Request<api::CreateTenantRequest>) -> Reply<api::CreateTenantResponse> {
        let (caller, request) = self.admit(request)?;
        caller.network(Access::Write)?;
        let now = clock::now();
        let wanted = read(required("tenant", request.tenant)?)?;
        let tenant = Tenant { id: Uuid::new_v4(), created_at: now, updated_at: now, ..wanted };
        self.0.store.create_tenant(&tenant).await.map_err(crate::ApiError::from)?;
        reply(api::CreateTenantResponse { id: tenant.id.to_string() })
    }

    async fn get(&self, request: Request<api::GetTenantRequest>) -> Reply<api::GetTenantResponse> {
        let (caller, request) = self.admit(request)?;
        let tenant = quota::tenant(self.0.store.as_ref(), fields::id("id", &request.id)?).await?;
        caller.of_tenant(tenant.id, Access::Read)?;
        reply(api::GetTenantResponse {
            created_at: Some(clock::timestamp(tenant.created_at)),
            updated_at: Some(clock::timestamp(tenant.updated_at)),
            tenant: Some(write(&tenant)),
        })
    }

    async fn update(&self, request: Request<api::UpdateTenantRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        caller.network(Access::Write)?;
        let given = required("tenant", request.tenant)?;
        let known = quota::tenant(self.0.store.as_ref(), fields::id("tenant.id", &given.id)?).await?;
        let tenant = Tenant { id: known.id, created_at: known.created_at, updated_at: clock::now(), ..read(given)? };
        self.0.store.update_tenant(&tenant).await.map_err(crate::ApiError::from)?;
        reply(())
    }

    async fn delete(&self, request: Request<api::DeleteTenantRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        caller.network(Access::Write)?;
        self.0.store.delete_tenant(fields::id("id", &request.id)?).await.map_err(crate::ApiError::from)?;
        self.0.tell_balancers().await;
        reply(())
    }

    /// Users belong to no tenant yet, so the tenants of a user are none; who is no administrator sees none.
    async fn list(&self, request: Request<api::ListTenantsRequest>) -> Reply<api::ListTenantsResponse> {
        let (caller, request) = self.admit(request)?;
        let of_user = fields::optional_id("user_id", &request.user_id)?.is_some();
        let nobodys = caller.user().is_ok_and(|user| !user.is_admin);
        if of_user || nobodys {
            return reply(api::ListTenantsResponse::default());
        }
        let list = List {
            limit: request.limit.min(lists::MOST),
            offset: request.offset,
            search: request.search,
            tenant: caller.listed_tenant(None)?,
            ..List::default()
        };
        let page = self.0.store.tenants(&list).await.map_err(crate::ApiError::from)?;
        reply(api::ListTenantsResponse { total_count: page.total, result: page.items.iter().map(list_item).collect() })
    }

    unserved! { "TenantService":
        list_by_dev_addr_prefix_overlap(ListTenantsByDevAddrPrefixOverlapRequest) -> api::ListTenantsResponse;
        add_user(AddTenantUserRequest) -> ();
        get_user(GetTenantUserRequest) -> api::GetTenantUserResponse;
        update_user(UpdateTenantUserRequest) -> ();
        delete_user(DeleteTenantUserRequest) -> ();
        list_users(ListTenantUsersRequest) -> api::ListTenantUsersResponse;
    }
}
