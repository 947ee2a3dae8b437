//! What a store is tested with: one suite that holds every implementation to the promises of the trait, and a wrapper that
//! misbehaves. In a crate of its own, so that it is not a part of what is installed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod conformance;
pub mod fault;
