//! Users and API keys on the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::StoreBefore;
use crate::secrets::{Line, of};

const USER_HELP: &str = "\
Asks the server that runs with --data, which must be a `limpet up` or a `limpet worker`, or a worker's API with --server.
If no server runs, or nobody can get in any more, --store does the same on the store itself.";

/// Where a question about users or API keys can be answered besides.
#[derive(Debug, Args)]
pub struct StoreArg {
    /// Do it on this store itself, whether a server runs or not, such as sqlite:limpet-data/store
    #[arg(
        long,
        value_name = "URL",
        env = "LIMPET_STORE",
        hide_env_values = true,
        global = true,
        conflicts_with = "server"
    )]
    store: Option<String>,
    /// File whose first line is that URL
    #[arg(
        long,
        value_name = "FILE",
        env = "LIMPET_STORE_FILE",
        global = true,
        conflicts_with_all = ["server", "store"]
    )]
    store_file: Option<PathBuf>,
}

impl StoreArg {
    /// # Errors
    /// The file cannot be read.
    pub fn url(self, before: StoreBefore) -> Result<Option<String>, String> {
        Ok(before.url()?.or(of(self.store, self.store_file.as_deref(), "--store-file", Line::First)?))
    }
}

/// `limpet ctl user`.
#[derive(Debug, Args)]
#[command(after_help = USER_HELP)]
pub struct UserArgs {
    #[command(flatten)]
    pub at: StoreArg,
    #[command(subcommand)]
    pub task: UserTask,
}

#[derive(Debug, Subcommand)]
pub enum UserTask {
    /// List the users
    List,
    /// Add a user; the password is printed alone on the last line
    Add {
        /// What the user logs in with
        email: String,
        /// May administrate the network
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        password: PasswordArg,
    },
    /// Give a user a new password, printed alone on the last line; every log-in with the old one ends
    Password {
        /// What the user logs in with; `admin` is the one of the first start
        email: String,
        #[command(flatten)]
        password: PasswordArg,
    },
    /// Delete a user, who is logged out with that
    Remove {
        /// What the user logs in with
        email: String,
    },
}

#[derive(Debug, Args)]
pub struct PasswordArg {
    /// File whose first line is the password, - for standard input [default: a random one, printed once]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// `limpet ctl api-key`.
#[derive(Debug, Args)]
#[command(after_help = USER_HELP)]
pub struct ApiKeyArgs {
    #[command(flatten)]
    pub at: StoreArg,
    #[command(subcommand)]
    pub task: ApiKeyTask,
}

#[derive(Debug, Subcommand)]
pub enum ApiKeyTask {
    /// List the API keys of the network and of all tenants
    List,
    /// Make an API key; it is printed alone on the last line, and shown only once
    Create {
        /// Its name, for the list
        name: String,
        /// The tenant that it acts for, by id or name [default: it administrates the network]
        #[arg(long, value_name = "ID")]
        tenant: Option<String>,
        /// It may look, and change nothing
        #[arg(long)]
        read_only: bool,
    },
    /// Delete an API key: it counts no more, at once
    Remove {
        /// Its id, from the list
        id: String,
    },
}
