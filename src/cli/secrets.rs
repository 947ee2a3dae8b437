//! Flags that take a secret, and the file that it may stand in.

use std::path::{Path, PathBuf};

use clap::Args;
use limpet_shared::AesKey;

use crate::secrets::{Line, of};

/// The store of a command that opens it itself.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct StoreUrl {
    /// The store, such as sqlite:limpet-data/store or cql://host1,host2/limpet
    #[arg(long, value_name = "URL", env = "LIMPET_STORE", hide_env_values = true)]
    store: Option<String>,
    /// File whose first line is that URL
    #[arg(long, value_name = "FILE", env = "LIMPET_STORE_FILE")]
    store_file: Option<PathBuf>,
}

impl StoreUrl {
    /// # Errors
    /// The file cannot be read, or no store is named, here or before the command.
    pub fn url(self, before: StoreBefore) -> Result<String, String> {
        // What stands nearest counts: here it may also be from the environment.
        let named = before.url()?.or(of(self.store, self.store_file.as_deref(), "--store-file", Line::First)?);
        named.ok_or_else(|| "which store? Give --store URL, or --store-file FILE".into())
    }
}

/// The same flags before the command that they are for.
#[derive(Debug, Args)]
pub struct StoreBefore {
    #[arg(long = "store", id = "store_before", value_name = "URL", hide = true)]
    store: Option<String>,
    #[arg(
        long = "store-file",
        id = "store_file_before",
        value_name = "FILE",
        hide = true,
        conflicts_with = "store_before"
    )]
    store_file: Option<PathBuf>,
}

impl StoreBefore {
    pub fn is_given(&self) -> bool {
        self.store.is_some() || self.store_file.is_some()
    }

    /// # Errors
    /// The file cannot be read.
    pub fn url(self) -> Result<Option<String>, String> {
        of(self.store, self.store_file.as_deref(), "--store-file", Line::First)
    }
}

/// Reads a device's key from its file, if one is named.
///
/// # Errors
/// The file cannot be read, or holds no key.
pub fn key(key: &mut Option<AesKey>, file: Option<&Path>, flag: &str) -> Result<(), String> {
    if let Some(text) = of(None, file, flag, Line::First)? {
        // The text is not repeated: it may be a key with a slip in it.
        *key = Some(text.parse().map_err(|_| format!("{flag}: the file's first line is no key of 32 hex digits"))?);
    }
    Ok(())
}
