//! The first start of a network: a user who may do everything, and a tenant.

use std::sync::Arc;

use limpet_store::{Store, StoreError};
use limpet_worker_core::model::{Tenant, User};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    auth::{Auth, random},
    clock,
    error::{ApiError, Result},
};

/// What the first administrator logs in with.
pub const ADMIN: &str = "admin";
/// The tenant that exists from the start, as ChirpStack's clients expect one.
pub const FIRST_TENANT: &str = "Limpet";

/// Setting: the id of the user [`ADMIN`], chosen by the first of several workers that start at once: of those that make the
/// user with this id one is told that it did, so that no second password is shown.
const ADMIN_ID: &str = "first_admin_id";
/// Setting: the id of the first tenant, chosen by the first of several workers that start at once.
const TENANT_ID: &str = "first_tenant_id";
/// Setting: the first start is over; what an operator deletes later does not come back.
const DONE: &str = "first_start_done";

/// What the start of a worker did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bootstrap {
    /// The password of the user `admin`, if this call made that user.
    pub created: Option<String>,
    /// A password was given, which is not that of `admin`: the users are there already, so it has no effect.
    pub without_effect: bool,
}

/// Makes the user `admin` and the tenant `Limpet` if the network is new. Any number of workers may do so at once: one
/// of them makes the user, and only that one returns its password. Without `admin_password` it is a random one.
pub async fn bootstrap(store: &Arc<dyn Store>, admin_password: Option<String>) -> Result<Bootstrap> {
    FirstStart::default().run(store, admin_password).await
}

/// The same for whoever tries until the store has answered everything: the store may have made the user and not have said so, and
/// the password must be that user's then.
#[derive(Default)]
pub struct FirstStart {
    /// The user that was to be made, with its password.
    tried: Mutex<Option<(User, String)>>,
}

impl FirstStart {
    /// Once more, after an error.
    pub async fn run(&self, store: &Arc<dyn Store>, admin_password: Option<String>) -> Result<Bootstrap> {
        start(store, admin_password, &mut *self.tried.lock().await).await
    }
}

async fn start(
    store: &Arc<dyn Store>,
    admin_password: Option<String>,
    tried: &mut Option<(User, String)>,
) -> Result<Bootstrap> {
    if store.setting(DONE).await?.is_some() {
        // Its own try may have been the one; nobody is made by a second.
        if let (Some(_), Some(found)) = (&tried, store.user_by_email(ADMIN).await?) {
            return Ok(Bootstrap { created: is_made(tried.as_ref(), &found), without_effect: false });
        }
        let without_effect = match admin_password {
            Some(given) => !is_admins(store, &given).await?,
            None => false,
        };
        return Ok(Bootstrap { created: None, without_effect });
    }
    let created = make_admin(store, admin_password, tried).await?;
    make_tenant(store).await?;
    store.init_setting(DONE, b"yes").await?;
    Ok(Bootstrap { created, without_effect: false })
}

async fn is_admins(store: &Arc<dyn Store>, password: &str) -> Result<bool> {
    match store.user_by_email(ADMIN).await? {
        Some(admin) => Auth::new(store.clone()).is_password(&admin, password).await,
        None => Ok(false),
    }
}

/// Whether the store has the user that was tried: of equal passwords no two hashes are equal.
fn is_made(tried: Option<&(User, String)>, found: &User) -> Option<String> {
    tried.filter(|(user, _)| user.password_hash == found.password_hash).map(|(_, password)| password.clone())
}

async fn make_admin(
    store: &Arc<dyn Store>,
    password: Option<String>,
    tried: &mut Option<(User, String)>,
) -> Result<Option<String>> {
    if let Some(found) = store.user_by_email(ADMIN).await? {
        return Ok(is_made(tried.as_ref(), &found));
    }
    if let Some((user, password)) = tried.as_ref() {
        return create_admin(store, user, password).await;
    }
    let password = match password {
        Some(password) => password,
        None => random_password()?,
    };
    let password_hash = Auth::new(store.clone()).hash(&password).await?;
    let now = clock::now();
    let user = User {
        id: chosen_id(store, ADMIN_ID).await?,
        created_at: now,
        updated_at: now,
        email: ADMIN.into(),
        is_admin: true,
        is_active: true,
        note: String::new(),
        password_hash,
    };
    let (user, password) = tried.insert((user, password));
    create_admin(store, user, password).await
}

async fn create_admin(store: &Arc<dyn Store>, user: &User, password: &str) -> Result<Option<String>> {
    match store.create_user(user).await {
        Ok(()) => return Ok(Some(password.to_owned())),
        Err(StoreError::AlreadyExists(_)) => {}
        Err(error) => return Err(error.into()),
    }
    // Perhaps by this very call, before it was told that it is not known whether it was made.
    if store.user_by_email(ADMIN).await?.is_some_and(|found| found.password_hash == user.password_hash) {
        return Ok(Some(password.to_owned()));
    }
    tracing::info!("another worker has started this network at the same time, and has told the password of admin");
    Ok(None)
}

/// The id that holds for all: the first one's.
async fn chosen_id(store: &Arc<dyn Store>, setting: &str) -> Result<Uuid> {
    let id = store.init_setting(setting, Uuid::new_v4().as_bytes()).await?;
    Uuid::from_slice(&id).map_err(|_| ApiError::Internal(format!("the setting {setting} is no UUID")))
}

async fn make_tenant(store: &Arc<dyn Store>) -> Result<()> {
    let now = clock::now();
    let tenant = Tenant {
        id: chosen_id(store, TENANT_ID).await?,
        created_at: now,
        updated_at: now,
        name: FIRST_TENANT.into(),
        can_have_gateways: true,
        ..Tenant::default()
    };
    match store.create_tenant(&tenant).await {
        Ok(()) | Err(StoreError::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The tenant that the network began with, or else any; none if all were deleted.
pub(crate) async fn first_tenant(store: &Arc<dyn Store>) -> Result<Option<Tenant>> {
    if let Some(id) = store.setting(TENANT_ID).await?.and_then(|id| Uuid::from_slice(&id).ok())
        && let Some(tenant) = store.tenant(id).await?
    {
        return Ok(Some(tenant));
    }
    let any = limpet_store::List { limit: 1, ..Default::default() };
    Ok(store.tenants(&any).await?.items.into_iter().next())
}

/// 80 random bits in four groups, without letters that look alike.
pub(crate) fn random_password() -> Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let letters = random::<16>()?.map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
    Ok(letters.chunks(4).map(String::from_iter).collect::<Vec<_>>().join("-"))
}
