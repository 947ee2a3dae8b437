//! What an operator can set about the balancer's decisions.

use alloc::string::String;
use core::time::Duration;

use limpet_shared::{Rule, UnixMicros};

/// Settings of one balancer; they never change while it runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its own name, told to workers and operators.
    pub name: String,
    /// Random, new at each start.
    pub instance: u64,
    /// Software version, for people.
    pub software: String,
    /// Where its admin HTTP listens; empty if nowhere.
    pub admin: String,
    /// When it started.
    pub started_at: UnixMicros,
    /// Key of the ring until a first snapshot of the cluster brings the cluster's own: random, never from the binary.
    pub ring_key: [u8; 16],
    /// When a PUSH_DATA is acknowledged.
    pub ack: AckAt,
    /// Forward gateways that the network does not know; for trying out.
    pub accept_unknown_gateways: bool,
    /// Bytes of datagrams that may wait until a worker is done with them.
    pub retained_bytes: usize,
    /// Bytes of frames that a worker may have been sent and not read. A healthy one reads within milliseconds; more wait
    /// here, where they can still go to somebody else.
    pub unread_bytes: usize,
    /// Datagrams, and packets in them, per second of one gateway; 0 for no limit.
    pub gateway_rate: u32,
    /// Bytes per second of one gateway; 0 for no limit.
    pub gateway_bytes: u32,
    /// Datagrams, and packets in them, per second of unknown gateways from one address; 0 for no limit.
    pub unknown_rate: u32,
    /// A worker that holds frames which are not stored and acknowledges nothing for so long is suspect.
    pub suspect_after: Duration,
    /// The same for a worker that holds frames which are stored and not done.
    pub suspect_after_stored: Duration,
    /// A worker that is silent for so long leaves the ring.
    pub eject_after: Duration,
    /// Which rules are kept: all, unless a simulation says otherwise.
    pub keeps: fn(Rule) -> bool,
}

impl Config {
    /// Asked in builds with debug assertions only.
    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        !cfg!(debug_assertions) || (self.keeps)(rule)
    }
}

/// What a PUSH_ACK means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckAt {
    /// Every rxpk is in the store, or was judged worthless and counted.
    #[default]
    Stored,
    /// A worker has read it. It can be lost with that worker and this balancer.
    Received,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            instance: 0,
            software: String::new(),
            admin: String::new(),
            started_at: UnixMicros(0),
            ring_key: [0; 16],
            ack: AckAt::Stored,
            accept_unknown_gateways: false,
            retained_bytes: 256 << 20,
            unread_bytes: 4 << 20,
            gateway_rate: 2_000,
            gateway_bytes: 1 << 20,
            unknown_rate: 200,
            suspect_after: Duration::from_millis(30),
            suspect_after_stored: Duration::from_millis(150),
            eject_after: Duration::from_millis(500),
            keeps: |_| true,
        }
    }
}
