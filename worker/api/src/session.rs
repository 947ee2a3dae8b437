//! Log-ins of people, for the console.

use crate::{Api, auth::Caller, error::Result};

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
    pub async fn log_in(&self, user: &str, password: &str) -> Result<String> {
        self.auth.login(user, password).await
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
