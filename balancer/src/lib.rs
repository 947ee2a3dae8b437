//! The balancer: gateways on one side, workers on the other, and [`limpet_balancer_core`] to decide between them. This
//! crate owns the sockets and the clock.
//!
//! ```text
//! udp ──────► driver (owns the core) ◄──────► worker_links (one task per worker)
//!                  ▲        │
//!    admin, http ──┘        └──► registry (routes, names), metrics, logs, keep (cluster.bin), holds (holds.txt)
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod admin_handle;
mod bound;
mod clock;
mod config;
mod driver;
mod holds;
mod http;
mod keep;
mod logs;
mod metrics;
mod muted;
mod pace;
mod registry;
mod udp;
mod worker_links;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use admin_handle::AdminHandle;
pub use bound::{BalancerError, BoundBalancer};
pub use config::{AckAt, BalancerConfig};
pub use limpet_balancer_core::Route;
pub use registry::Registry;

/// Binds and runs a balancer until `stop`. To know its ports, or to ask it, use [`BoundBalancer`] itself.
pub async fn run(
    config: BalancerConfig,
    authority: Arc<limpet_link::Authority>,
    stop: CancellationToken,
) -> Result<(), BalancerError> {
    BoundBalancer::bind(config, authority).await?.run(stop).await;
    Ok(())
}
