//! Who calls, and what they may do.

use limpet_worker_core::model::{ApiKey, User};
use uuid::Uuid;

use crate::error::{ApiError, Result};

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    User(User),
    Key(ApiKey),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

const NOT_ADMIN: ApiError = ApiError::Denied("only an administrator may do this");
const NOT_YOURS: ApiError = ApiError::Denied("this belongs to another tenant");
const READ_ONLY: ApiError = ApiError::Denied("the API key may only read");

impl Caller {
    /// Of the user or the key.
    pub fn id(&self) -> Uuid {
        match self {
            Self::User(user) => user.id,
            Self::Key(key) => key.id,
        }
    }

    /// For the log: who does something.
    pub fn name(&self) -> String {
        match self {
            Self::User(user) => user.email.clone(),
            Self::Key(key) => format!("API key {} ({})", key.name, key.id),
        }
    }

    fn is_admin(&self) -> bool {
        match self {
            Self::User(user) => user.is_admin,
            Self::Key(key) => key.is_admin,
        }
    }

    fn tenant(&self) -> Option<Uuid> {
        match self {
            Self::User(_) => None,
            Self::Key(key) => key.tenant_id,
        }
    }

    fn can(&self, access: Access) -> Result<()> {
        match self {
            Self::Key(key) if key.read_only && access == Access::Write => Err(READ_ONLY),
            _ => Ok(()),
        }
    }

    /// For what concerns the whole network.
    pub fn network(&self, access: Access) -> Result<()> {
        if self.is_admin() { self.can(access) } else { Err(NOT_ADMIN) }
    }

    /// For what belongs to one tenant.
    pub fn of_tenant(&self, tenant: Uuid, access: Access) -> Result<()> {
        if self.is_admin() || self.tenant() == Some(tenant) { self.can(access) } else { Err(NOT_YOURS) }
    }

    /// Whose things a list may show, if `asked` for one tenant's or for all.
    pub fn listed_tenant(&self, asked: Option<Uuid>) -> Result<Option<Uuid>> {
        match (self.is_admin(), self.tenant(), asked) {
            (true, _, asked) => Ok(asked),
            (false, Some(own), None) => Ok(Some(own)),
            (false, Some(own), Some(asked)) if own == asked => Ok(Some(own)),
            (false, None, None) => Err(NOT_ADMIN),
            _ => Err(NOT_YOURS),
        }
    }

    /// The user who calls; an API key is no user.
    pub fn user(&self) -> Result<&User> {
        match self {
            Self::User(user) => Ok(user),
            Self::Key(_) => Err(ApiError::Denied("an API key has no user: log in for this")),
        }
    }
}
