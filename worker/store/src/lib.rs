//! The store: what workers share, in the words of the domain.
//!
//! [`Store`] is the seam: SQLite on one machine, the same in memory for tests and simulation, CQL for a cluster. One conformance
//! suite holds both to the promises written at its methods.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod counted;
mod cql;
mod error;
mod lease_ends;
mod lists;
pub mod moving;
mod notes;
mod open;
mod rows;
mod sqlite;
mod traits;
mod waiting_body;
mod whose;
mod words;

pub use cql::CqlStore;
pub use error::{Result, StoreError};
pub use moving::Moving;
pub use open::{Finish, Migrated, OpenError, migrate, open};
pub use rows::READS_ROWS;
pub use sqlite::SqliteStore;
pub use traits::*;
pub use whose::{application_of, application_waited_for};
pub use words::{MOST_COPIES, MOST_TURNS};
