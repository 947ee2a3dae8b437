//! Users and API keys as the operator's questions deal with them. What ends with a password: every log-in with the old
//! one, at every worker, at once. API keys belong to nobody and stay: they are deleted one by one.

use std::time::Duration;

use limpet_shared::admin::{self, ApiKeyAdd, Password, Reply, Request, UserAdd};
use limpet_store::{List, StoreError};
use limpet_worker_core::model::{ApiKey, User};
use uuid::Uuid;

use crate::{Api, ApiError, auth::random, bootstrap::random_password, clock, error::Result, fields, lists};

/// How often a change begins anew because another one was faster.
const CHANGES: u32 = 10;
/// Those who keep each other from stepping down wait, each for another time, of this for each try.
const AGAIN: Duration = Duration::from_millis(20);

impl Api {
    /// Answers what [`Request::is_about_people`]. `by` is for the log.
    pub(crate) async fn answer_about_people(&self, request: Request, by: &str) -> Result<Reply> {
        match request {
            Request::Users => self.users().await,
            Request::UserAdd(wanted) => self.add_user(wanted, by).await,
            Request::UserPassword { email, password } => self.give_password(&email, password, by).await,
            Request::UserRemove { email } => self.remove_user(&email, by).await,
            Request::ApiKeys => self.api_keys().await,
            Request::ApiKeyAdd(wanted) => self.add_api_key(wanted, by).await,
            Request::ApiKeyRemove { id } => self.remove_api_key(&id, by).await,
            _ => Err(ApiError::invalid("ask", "this is not about users or API keys")),
        }
    }

    async fn users(&self) -> Result<Reply> {
        let page = self.store.users(&everybody()).await?;
        let users = page.items.into_iter().map(|user| admin::User {
            email: user.email,
            is_admin: user.is_admin,
            is_active: user.is_active,
            created_at: user.created_at,
        });
        Ok(Reply::Users { users: users.collect() })
    }

    async fn add_user(&self, wanted: UserAdd, by: &str) -> Result<Reply> {
        let (password, given) = given_or_random(wanted.password)?;
        let new = NewUser { email: &wanted.email, is_admin: wanted.admin, is_active: true, note: String::new() };
        let user = self.create_user(new, &password.0, by).await?;
        let may = if user.is_admin { "administrate the network" } else { "log in, and administrates nothing" };
        Ok(told(format!("{} may {may}", user.email), password, given))
    }

    /// Whoever asks has been let in.
    pub(crate) async fn create_user(&self, new: NewUser<'_>, password: &str, by: &str) -> Result<User> {
        let now = clock::now();
        let user = User {
            id: Uuid::new_v4(),
            created_at: now,
            updated_at: now,
            email: fields::email("email", new.email)?,
            is_admin: new.is_admin,
            is_active: new.is_active,
            note: fields::text("note", new.note)?,
            password_hash: self.auth.hash(password).await?,
        };
        self.store.create_user(&user).await?;
        tracing::info!(user = user.email, admin = user.is_admin, by, "a user was added");
        Ok(user)
    }

    async fn give_password(&self, email: &str, password: Option<Password>, by: &str) -> Result<Reply> {
        let user = self.user_called(email).await?;
        let (password, given) = given_or_random(password)?;
        let user = self.set_password(user, &password.0).await?;
        tracing::info!(user = user.email, by, "a user has a new password");
        let but = if user.is_active { "" } else { "; the user is disabled and cannot log in all the same" };
        let message = format!("{} has a new password, and every log-in with the old one has ended{but}", user.email);
        Ok(told(message, password, given))
    }

    /// Every token of a log-in names the password that it was given for, so all of the old one's end with this write.
    pub(crate) async fn set_password(&self, user: User, password: &str) -> Result<User> {
        let password_hash = self.auth.hash(password).await?;
        let change = |user: User| User { updated_at: clock::now(), password_hash: password_hash.clone(), ..user };
        self.change_user(user, change).await
    }

    /// Changes what it says and nothing else, whatever others change of the user at the same time.
    pub(crate) async fn change_user(&self, mut user: User, change: impl Fn(User) -> User) -> Result<User> {
        for _ in 0..CHANGES {
            let changed = change(user.clone());
            if self.store.update_user(&user, &changed).await? {
                return Ok(changed);
            }
            let again = self.store.user(user.id).await?;
            user = again.ok_or_else(|| ApiError::NotFound(format!("user {}", user.email)))?;
        }
        Err(ApiError::Exhausted(format!("{} is being changed by others; try again", user.email)))
    }

    async fn remove_user(&self, email: &str, by: &str) -> Result<Reply> {
        let user = self.user_called(email).await?;
        self.delete_user(&user, by).await?;
        Ok(Reply::Done { message: format!("{} was deleted, and is logged out", user.email) })
    }

    /// Whoever asks has been let in.
    pub(crate) async fn delete_user(&self, user: &User, by: &str) -> Result<()> {
        if administrates(user) {
            // What is read of others counts only until this is written; a deletion could not tell.
            self.step_down(user.clone(), |user| User { is_admin: false, is_active: false, ..user }).await?;
        }
        self.store.delete_user(user.id).await?;
        tracing::info!(user = user.email, by, "a user was deleted");
        Ok(())
    }

    /// Changes a user who may be no administrator after it, and leaves one who is. Of two that step down at once each would count
    /// on the other. So the one who stays is written first, as it was read: that makes the other's own change fail, and look anew.
    pub(crate) async fn step_down(&self, mut user: User, change: impl Fn(User) -> User) -> Result<User> {
        for tries in 0..CHANGES {
            if !administrates(&user) || self.another_stays(&user).await? {
                let changed = change(user.clone());
                if self.store.update_user(&user, &changed).await? {
                    return Ok(changed);
                }
            }
            let [luck] = random()?;
            tokio::time::sleep(AGAIN * tries * u32::from(luck) / 255).await;
            let again = self.store.user(user.id).await?;
            user = again.ok_or_else(|| ApiError::NotFound(format!("user {}", user.email)))?;
        }
        Err(ApiError::Exhausted(format!("{} is being changed by others; try again", user.email)))
    }

    /// Writes down anew an administrator besides this one; false if somebody else has changed that one meanwhile.
    async fn another_stays(&self, user: &User) -> Result<bool> {
        let all = self.store.users(&everybody()).await?.items;
        let Some(other) = all.into_iter().find(|other| administrates(other) && other.id != user.id) else {
            let why = format!("{} is the last administrator: add another one first", user.email);
            return Err(ApiError::Precondition(why));
        };
        let later = clock::now().max(other.updated_at + Duration::from_micros(1));
        match self.store.update_user(&other, &User { updated_at: later, ..other.clone() }).await {
            Err(StoreError::NotFound(_)) => Ok(false),
            written => Ok(written?),
        }
    }

    async fn user_called(&self, email: &str) -> Result<User> {
        if let Some(user) = self.store.user_by_email(email).await? {
            return Ok(user);
        }
        let known: Vec<String> =
            self.store.users(&some(NAMED)).await?.items.into_iter().map(|user| user.email).collect();
        let known =
            if known.is_empty() { "there is none yet".into() } else { format!("there are: {}", known.join(", ")) };
        Err(ApiError::NotFound(format!("user {email} ({known})")))
    }

    /// The network's first, then those of each tenant.
    async fn api_keys(&self) -> Result<Reply> {
        let mut keys = self.store.api_keys(true, &everybody()).await?.items;
        for tenant in self.store.tenants(&everybody()).await?.items {
            let list = List { tenant: Some(tenant.id), ..everybody() };
            keys.extend(self.store.api_keys(false, &list).await?.items);
        }
        let api_keys = keys.into_iter().map(|key| admin::ApiKey {
            id: key.id.to_string(),
            name: key.name,
            tenant: key.tenant_id.map(|id| id.to_string()),
            read_only: key.read_only,
            created_at: key.created_at,
        });
        Ok(Reply::ApiKeys { api_keys: api_keys.collect() })
    }

    async fn add_api_key(&self, wanted: ApiKeyAdd, by: &str) -> Result<Reply> {
        let tenant = match wanted.tenant {
            Some(called) => Some(self.tenant_called(Some(called)).await?),
            None => None,
        };
        let key = ApiKey {
            id: Uuid::new_v4(),
            created_at: clock::now(),
            name: fields::name("name", &wanted.name)?,
            is_admin: tenant.is_none(),
            tenant_id: tenant.as_ref().map(|tenant| tenant.id),
            read_only: wanted.read_only,
        };
        self.store.create_api_key(&key).await?;
        tracing::info!(key = %key.id, name = key.name, read_only = key.read_only, by, "an API key was made");
        let may = if key.read_only { "look at" } else { "do" };
        let whose =
            tenant.map_or_else(|| "everything".into(), |tenant| format!("everything of tenant {}", tenant.name));
        let message = format!("The API key {} may {may} {whose} until it is deleted", key.name);
        Ok(Reply::ApiKey { message, id: key.id.to_string(), token: self.auth.key_token(&key).await? })
    }

    async fn remove_api_key(&self, id: &str, by: &str) -> Result<Reply> {
        let id = fields::id("id", id)?;
        let key = self.store.api_key(id).await?.ok_or_else(|| ApiError::NotFound(format!("API key {id}")))?;
        self.store.delete_api_key(id).await?;
        tracing::info!(key = %id, name = key.name, by, "an API key was deleted");
        Ok(Reply::Done { message: format!("the API key {} ({id}) counts no more", key.name) })
    }
}

/// A user to be.
pub(crate) struct NewUser<'a> {
    pub email: &'a str,
    pub is_admin: bool,
    pub is_active: bool,
    pub note: String,
}

/// Whether this user may do everything.
fn administrates(user: &User) -> bool {
    user.is_admin && user.is_active
}

/// Users named when one is not found.
const NAMED: u32 = 20;

fn some(limit: u32) -> List {
    List { limit, ..List::default() }
}

fn everybody() -> List {
    some(lists::MOST)
}

/// The password, and whether it was given: then there is no need to tell it.
fn given_or_random(password: Option<Password>) -> Result<(Password, bool)> {
    match password {
        Some(password) => Ok((password, true)),
        None => Ok((Password(random_password()?), false)),
    }
}

fn told(message: String, password: Password, given: bool) -> Reply {
    if given { Reply::Done { message } } else { Reply::Password { message, password } }
}
