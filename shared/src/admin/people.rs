//! Who may come in: users and API keys. Workers answer this at their own doors only (API, console, operator's socket):
//! over the link a balancer could make itself an administrator, and a balancer may not read what devices send.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::UnixMicros;

/// A password in plain. Its `Debug` form hides it, so that no log can hold one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

/// A user to add.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserAdd {
    /// What one logs in with: an e-mail address, or `admin`.
    pub email: String,
    /// May administrate the network.
    pub admin: bool,
    /// Default: a random one, which the answer tells.
    pub password: Option<Password>,
}

/// An API key to make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApiKeyAdd {
    pub name: String,
    /// Name or id of the tenant that it acts for. Default: it administrates the network.
    pub tenant: Option<String>,
    /// It may look, and change nothing.
    pub read_only: bool,
}

/// A user, without the password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub email: String,
    pub is_admin: bool,
    pub is_active: bool,
    pub created_at: UnixMicros,
}

/// An API key, without what it is shown with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    pub id: String,
    pub name: String,
    /// Id of the tenant that it acts for; `None`: it administrates the network.
    pub tenant: Option<String>,
    pub read_only: bool,
    pub created_at: UnixMicros,
}
