//! What can go wrong between a worker and its store.

use std::string::String;

/// The result of a store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Something with that identity or unique name exists.
    #[error("{0} already exists")]
    AlreadyExists(String),
    /// No such thing; or its parent is missing.
    #[error("{0} does not exist")]
    NotFound(String),
    /// A limit that people have set is reached.
    #[error("{0}")]
    Exhausted(String),
    /// A conditional write was not answered: it may have been applied. Read, and act on what the row says.
    #[error("the store did not say whether the write was applied: {0}")]
    Unknown(String),
    /// The store cannot be reached or does not answer in time; nothing was written.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store holds something that this version cannot read, or its schema is not ours.
    #[error("the store holds what this version cannot read: {0}")]
    Corrupt(String),
}
