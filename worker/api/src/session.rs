//! Log-ins of people, for the console.

use crate::{
    Api, ApiError,
    auth::{Caller, Client},
    error::Result,
};

/// Who is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// What they log in with.
    pub name: String,
    /// May administrate the network.
    pub is_admin: bool,
}

impl Api {
    /// A token for whoever knows the password: good for a day, at every worker of the network.
    ///
    /// # Errors
    /// [`crate::ApiError::Unauthenticated`] for a wrong account or password, [`crate::ApiError::Exhausted`] after too
    /// many attempts, [`crate::ApiError::Unavailable`] if the store is away.
    pub async fn log_in(&self, user: &str, password: &str, client: &Client) -> Result<String> {
        self.auth.login(user, password, client).await
    }

    /// A new password of one's own, for who knows the old one. It ends all log-ins with the old one; the token of a new
    /// log-in is returned.
    ///
    /// # Errors
    /// Those of [`Self::session`] and [`Self::log_in`]; [`crate::ApiError::Invalid`] for a password that is too short.
    pub async fn change_own_password(&self, token: &str, old: &str, new: &str, client: &Client) -> Result<String> {
        let user = self.auth.holder(token).await?.user()?.clone();
        self.auth.login(&user.email, old, client).await.map_err(|error| match error {
            ApiError::Unauthenticated(_) => ApiError::invalid("password", "the old one is not right"),
            error => error,
        })?;
        let user = self.set_password(user, new).await?;
        self.auth.user_token(&user).await
    }

    /// Who holds this token. An API key logs nobody in.
    ///
    /// # Errors
    /// [`crate::ApiError::Unauthenticated`] for a token that is not, or no longer, good; [`crate::ApiError::Denied`] for
    /// an API key; [`crate::ApiError::Unavailable`] if the store is away.
    pub async fn session(&self, token: &str) -> Result<Session> {
        let caller: Caller = self.auth.holder(token).await?;
        let user = caller.user()?;
        Ok(Session { name: user.email.clone(), is_admin: user.is_admin })
    }
}
