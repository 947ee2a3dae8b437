//! Users.

use chirpstack_api::api::{self, user_service_server::UserService};
use limpet_store::List;
use limpet_worker_core::model::User;
use tonic::{Request, async_trait};
use uuid::Uuid;

use super::{Grpc, Reply, reply};
use crate::{
    ApiError,
    auth::{Access, Caller},
    clock,
    error::Result,
    fields::{self, refuse, required},
    lists,
    people::NewUser,
};

pub(super) fn write(user: &User) -> api::User {
    api::User {
        id: user.id.to_string(),
        is_admin: user.is_admin,
        is_active: user.is_active,
        email: user.email.clone(),
        note: user.note.clone(),
    }
}

fn list_item(user: &User) -> api::UserListItem {
    api::UserListItem {
        id: user.id.to_string(),
        created_at: Some(clock::timestamp(user.created_at)),
        updated_at: Some(clock::timestamp(user.updated_at)),
        email: user.email.clone(),
        is_admin: user.is_admin,
        is_active: user.is_active,
    }
}

/// Nobody may lock themselves out: then nobody might be left who could let them in again.
fn not_yourself(caller: &Caller, id: Uuid, what: &str) -> Result<()> {
    match caller {
        Caller::User(user) if user.id == id => Err(ApiError::Precondition(format!("you cannot {what} yourself"))),
        _ => Ok(()),
    }
}

impl Grpc {
    async fn user(&self, field: &'static str, id: &str) -> Result<User> {
        let id = fields::id(field, id)?;
        self.0.store.user(id).await?.ok_or_else(|| ApiError::NotFound(format!("user {id}")))
    }
}

#[async_trait]
impl UserService for Grpc {
    async fn create(&self, request: Request<api::CreateUserRequest>) -> Reply<api::CreateUserResponse> {
        let (caller, request) = self.admit(request)?;
        caller.network(Access::Write)?;
        refuse("tenants", !request.tenants.is_empty(), "users of a tenant are not served yet")?;
        let given = required("user", request.user)?;
        let api::User { email, is_admin, is_active, note, .. } = given;
        let new = NewUser { email: &email, is_admin, is_active, note };
        let user = self.0.create_user(new, &request.password, &caller.name()).await?;
        reply(api::CreateUserResponse { id: user.id.to_string() })
    }

    async fn get(&self, request: Request<api::GetUserRequest>) -> Reply<api::GetUserResponse> {
        let (caller, request) = self.admit(request)?;
        if caller.user().is_err() || caller.user().is_ok_and(|u| u.id.to_string() != request.id) {
            caller.network(Access::Read)?;
        }
        let user = self.user("id", &request.id).await?;
        reply(api::GetUserResponse {
            created_at: Some(clock::timestamp(user.created_at)),
            updated_at: Some(clock::timestamp(user.updated_at)),
            user: Some(write(&user)),
        })
    }

    async fn update(&self, request: Request<api::UpdateUserRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        caller.network(Access::Write)?;
        let given = required("user", request.user)?;
        let known = self.user("user.id", &given.id).await?;
        let stays = given.is_admin && given.is_active;
        if !stays {
            not_yourself(&caller, known.id, "demote or disable")?;
        }
        let (email, note) = (fields::email("email", &given.email)?, fields::text("note", given.note)?);
        let change = |user: User| User {
            updated_at: clock::now(),
            email: email.clone(),
            is_admin: given.is_admin,
            is_active: given.is_active,
            note: note.clone(),
            ..user
        };
        if stays {
            self.0.change_user(known, change).await?
        } else {
            self.0.step_down(known, change).await?
        };
        reply(())
    }

    async fn delete(&self, request: Request<api::DeleteUserRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        caller.network(Access::Write)?;
        let user = self.user("id", &request.id).await?;
        not_yourself(&caller, user.id, "delete")?;
        self.0.delete_user(&user, &caller.name()).await?;
        reply(())
    }

    async fn list(&self, request: Request<api::ListUsersRequest>) -> Reply<api::ListUsersResponse> {
        let (caller, request) = self.admit(request)?;
        caller.network(Access::Read)?;
        let list = List { limit: request.limit.min(lists::MOST), offset: request.offset, ..List::default() };
        let page = self.0.store.users(&list).await.map_err(ApiError::from)?;
        reply(api::ListUsersResponse { total_count: page.total, result: page.items.iter().map(list_item).collect() })
    }

    /// Administrators set any password, everyone else their own.
    async fn update_password(&self, request: Request<api::UpdateUserPasswordRequest>) -> Reply<()> {
        let (caller, request) = self.admit(request)?;
        let id = fields::id("user_id", &request.user_id)?;
        if !caller.user().is_ok_and(|user| user.id == id) {
            caller.network(Access::Write)?;
        }
        let known = self.user("user_id", &request.user_id).await?;
        self.0.set_password(known, &request.password).await?;
        reply(())
    }
}
