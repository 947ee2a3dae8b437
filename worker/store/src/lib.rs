//! The store: what workers share, in the words of the domain.
//!
//! [`Store`] is the seam: SQLite on one machine, memory for tests and simulation, CQL for a cluster. One conformance
//! suite holds all of them to the promises written at its methods.

mod error;
mod traits;

pub use error::{Result, StoreError};
pub use traits::*;
