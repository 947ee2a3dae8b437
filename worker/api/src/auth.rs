//! Who may call: log-in with a password, tokens, API keys.

mod attempts;
mod caller;
mod password;
mod token;

use std::{sync::Arc, time::Instant};

use limpet_store::Store;
use limpet_worker_core::model::{ApiKey, User};
use tokio::sync::OnceCell;

pub(crate) use caller::{Access, Caller};
pub(crate) use password::random;

use crate::{
    clock,
    error::{ApiError, Result},
};
use attempts::Attempts;
use password::Passwords;
use token::{Claims, Kind, Tokens};

/// Where the key that signs tokens is kept: in the store, so that a log-in at one worker holds at all of them.
const TOKEN_KEY: &str = "api_token_key";

/// Checks who calls. All that lasts is in the store.
pub(crate) struct Auth {
    store: Arc<dyn Store>,
    tokens: OnceCell<Tokens>,
    attempts: Attempts,
    passwords: Passwords,
}

impl Auth {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, tokens: OnceCell::new(), attempts: Attempts::new(Instant::now()), passwords: Passwords::new() }
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
    pub async fn login(&self, email: &str, password: &str) -> Result<String> {
        if !self.attempts.take(email, Instant::now()) {
            return Err(ApiError::Exhausted("too many attempts to log in; wait a minute".into()));
        }
        let user = self.store.user_by_email(email).await?;
        let right = self.passwords.verify(password, user.as_ref().map(|u| u.password_hash.as_str())).await?;
        match user.filter(|user| right && user.is_active) {
            Some(user) => {
                self.attempts.forgive(email);
                self.tokens().await?.issue(&Claims::of_user(user.id, &user.password_hash, clock::now()))
            }
            None => {
                tracing::info!(account = %email.escape_debug().take(100).collect::<String>(), "log-in refused");
                Err(ApiError::Unauthenticated("the user or the password is wrong"))
            }
        }
    }

    /// The token of an API key, to be shown once.
    pub async fn key_token(&self, key: &ApiKey) -> Result<String> {
        self.tokens().await?.issue(&Claims::of_key(key.id, key.created_at))
    }

    /// Who shows this `authorization` header. Users and keys are looked up each time: deleting one works at once.
    pub async fn caller(&self, authorization: Option<&str>) -> Result<Caller> {
        let given = authorization.and_then(|text| text.split_once(' '));
        let token = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let token = token.ok_or(ApiError::Unauthenticated("the header `authorization: Bearer TOKEN` is missing"))?;
        self.holder(token).await
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

fn is_current(user: &User, claims: &Claims) -> bool {
    user.is_active && claims.pwd.as_deref() == Some(token::password_mark(&user.password_hash).as_str())
}
