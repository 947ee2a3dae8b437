//! Processes, ports and the webhook: the black-box tests' own files.

#[path = "../blackbox/support/listener.rs"]
mod listener;
#[path = "../blackbox/support/ports.rs"]
mod ports;
#[path = "../blackbox/support/process.rs"]
mod process;
#[path = "../blackbox/support/webhook.rs"]
mod webhook;

pub use ports::{free_address, free_addresses};
pub use process::{Limpet, ctl};
pub use webhook::{Event, Webhook};

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up.
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
