//! Who may call: log-in with a password, tokens, API keys.

mod attempts;
mod caller;
mod client;
mod password;
mod token;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::http::{HeaderMap, header::AUTHORIZATION};
use limpet_store::Store;
use limpet_worker_core::model::{ApiKey, User};
use tokio::sync::OnceCell;

pub(crate) use caller::{Access, Caller};
pub use client::Client;
pub use password::SHORTEST as SHORTEST_PASSWORD;
pub(crate) use password::random;

use crate::{
    clock,
    error::{ApiError, Result},
};
use attempts::Attempts;
use password::{Passwords, Whose};
use token::{Claims, Kind, Tokens};

/// Where the key that signs tokens is kept: in the store, so that a log-in at one worker holds at all of them.
const TOKEN_KEY: &str = "api_token_key";

/// Nobody says who calls.
pub(crate) const NOBODY: ApiError = ApiError::Unauthenticated("the header `authorization: Bearer TOKEN` is missing");

/// Checks who calls. All that lasts is in the store.
pub(crate) struct Auth {
    store: Arc<dyn Store>,
    tokens: OnceCell<Tokens>,
    attempts: Attempts,
    passwords: Passwords,
    /// The second (Unix) in which the last attempt was told of that was one too many.
    held_up_at: AtomicU64,
}

impl Auth {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            tokens: OnceCell::new(),
            attempts: Attempts::new(Instant::now()),
            passwords: Passwords::new(),
            held_up_at: AtomicU64::new(0),
        }
    }

    /// The signing key of the network; made by whoever needs it first.
    async fn tokens(&self) -> Result<&Tokens> {
        let load = async || {
            let secret = self.store.init_setting(TOKEN_KEY, &random::<32>()?).await?;
            Ok(Tokens::new(&secret))
        };
        self.tokens.get_or_try_init(load).await
    }

    /// The token of whoever knows the password. An unknown account, a wrong password and a disabled user look alike.
    pub async fn login(&self, email: &str, password: &str, client: &Client) -> Result<String> {
        let known = self.may_try(email, client).await?;
        let user = self.store.user_by_email(email).await?;
        let right = self.passwords.verify(known, password, user.as_ref().map(|u| u.password_hash.as_str())).await?;
        match user.filter(|user| right && user.is_active) {
            Some(user) => {
                self.attempts.forgive(email, client.address);
                self.user_token(&user).await
            }
            None => {
                refused(email, client.address, "the user or the password is wrong");
                Err(ApiError::Unauthenticated("the user or the password is wrong"))
            }
        }
    }

    /// Whoever shows a good token, of a log-in or an API key, is held up by nobody else's attempts, only by its own.
    async fn may_try(&self, email: &str, client: &Client) -> Result<Whose> {
        let holder = match &client.token {
            Some(token) => self.holder(token).await.ok().map(|caller| caller.id().to_string()),
            None => None,
        };
        let known = holder.is_some() || self.attempts.knows(email, client.address);
        let free = match holder {
            Some(id) => self.attempts.take_own(&id, Instant::now()),
            None => self.attempts.take(email, client.address, Instant::now()),
        };
        if !free {
            // Strangers decide how often: one line a second.
            let second = clock::now().0 / 1_000_000;
            if self.held_up_at.swap(second, Ordering::Relaxed) != second {
                refused(email, client.address, "too many attempts");
            }
            return Err(ApiError::Exhausted("too many attempts to log in; wait a minute".into()));
        }
        Ok(if known { Whose::Known } else { Whose::Stranger })
    }

    /// The token of a log-in of this user.
    pub async fn user_token(&self, user: &User) -> Result<String> {
        self.tokens().await?.issue(&Claims::of_user(user.id, &user.password_hash, clock::now()))
    }

    /// Whether it is the user's password.
    pub async fn is_password(&self, user: &User, password: &str) -> Result<bool> {
        self.passwords.verify(Whose::Known, password, Some(&user.password_hash)).await
    }

    /// The token of an API key, to be shown once.
    pub async fn key_token(&self, key: &ApiKey) -> Result<String> {
        self.tokens().await?.issue(&Claims::of_key(key.id, key.created_at))
    }

    /// Who shows the `authorization` header among these. Users and keys are looked up each time: deleting one works at once.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller> {
        self.holder(bearer(headers).ok_or(NOBODY)?).await
    }

    /// Whose token this is.
    pub async fn holder(&self, token: &str) -> Result<Caller> {
        let claims = self.tokens().await?.verify(token, clock::now())?;
        match claims.typ {
            Kind::Key => {
                let key = self.store.api_key(claims.sub).await?;
                key.map(Caller::Key).ok_or(ApiError::Unauthenticated("the API key was deleted"))
            }
            Kind::User => {
                let user = self.store.user(claims.sub).await?.filter(|user| is_current(user, &claims));
                user.map(Caller::User).ok_or(ApiError::Unauthenticated("the log-in ended; log in again"))
            }
        }
    }

    /// A new password as it is stored.
    pub async fn hash(&self, password: &str) -> Result<String> {
        self.passwords.hash(password).await
    }
}

/// The token in an `authorization` header.
fn of_bearer(text: &str) -> Option<&str> {
    let given = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    given.map(|(_, token)| token.trim())
}

/// The token that a request shows, whether good or not.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    of_bearer(headers.get(AUTHORIZATION)?.to_str().ok()?)
}

fn refused(email: &str, address: Option<IpAddr>, why: &str) {
    let account = email.escape_debug().take(100).collect::<String>();
    let address = address.map_or_else(|| "unknown".into(), |address| address.to_string());
    tracing::info!(account, address, why, "log-in refused");
}

fn is_current(user: &User, claims: &Claims) -> bool {
    user.is_active && claims.pwd.as_deref() == Some(token::password_mark(&user.password_hash).as_str())
}
