//! A worker: stateless, it takes frames from balancers over the link and processes each against the shared store.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cluster;
mod links;
mod metrics;
pub mod pipeline;
mod regions;
mod seams;
