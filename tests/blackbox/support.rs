//! What the black-box tests share: real processes of the binary under test, and what stands around them.

mod browser;
mod cluster;
mod listener;
mod ports;
mod process;
mod tools;
mod traffic;
mod webhook;

pub use browser::Browser;
pub use cluster::Cluster;
pub use ports::{free_address, free_addresses};
pub use process::{Limpet, Stopped, Terminal, ctl};
pub use tools::{promtool, python};
pub use traffic::{Traffic, UplinkId, abp_devices, air};
pub use webhook::{Event, Webhook, assert_once_and_in_order, ids_by_uplink};

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: machines that run tests are slow, and a test that waits for
/// something that comes does not wait longer for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` finds something, and says what was waited for if it never does.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
