//! What the pipeline is written over, so that it runs whole in a simulation: the link and the surroundings.
//! (The store and the integrations are traits of their own crates.)

use limpet_link::host;
use limpet_shared::{Eui64, UnixMicros, link};

/// The way back to the gateways.
pub trait Link: Send + Sync + 'static {
    /// Sends it by the balancer that saw the gateway last. The balancer reports what became of it. `clock`: the balancer
    /// that the times of its windows are of.
    fn send(&self, downlink: link::Downlink, clock: u64);
    /// What time it is at that balancer, or at another one if there is no link to it; `None` without any link.
    fn now_at(&self, balancer: u64) -> Option<UnixMicros>;
    /// Whether the gateway asks a balancer that is linked for downlinks.
    fn asks(&self, gateway: Eui64) -> bool;
    /// A balancer finds that worker silent at the moment.
    fn is_suspect(&self, worker: &str) -> bool;
}

/// Time and chance.
pub trait Surroundings: Send + Sync + 'static {
    fn now(&self) -> UnixMicros;
    fn random(&self) -> u32;
}

/// The machine's clock and random source.
#[derive(Debug, Default)]
pub struct Machine;

impl Surroundings for Machine {
    fn now(&self) -> UnixMicros {
        host::now()
    }
    fn random(&self) -> u32 {
        host::random().unwrap_or_else(|_| self.now().0) as u32
    }
}
