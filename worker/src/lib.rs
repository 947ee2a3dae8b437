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
pub mod settings;
mod strangers;

pub use config::{Started, WorkerConfig};
pub use limpet_worker_core::model::DEFAULT_REPLY_DELAY;
pub use run::{WorkerError, run};
