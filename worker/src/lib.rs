//! A worker: stateless, it takes frames from balancers over the link and processes each against the shared store.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod beat;
mod cluster;
mod cluster_view;
mod config;
mod entrance;
mod http;
mod links;
mod load;
mod metrics;
mod notices;
mod outage;
pub mod pipeline;
mod regions;
mod roll;
mod run;
mod seams;
mod strangers;

pub use config::{DEFAULT_REPLY_DELAY, Started, WorkerConfig};
pub use run::{WorkerError, run};
