//! What a balancer must be told to start.

use std::{net::SocketAddr, path::PathBuf};

pub use limpet_balancer_core::AckAt;
use limpet_http::Proxies;

/// Settings of one balancer. Port 0 takes any free port; [`crate::BoundBalancer`] says which.
#[derive(Clone, Debug)]
pub struct BalancerConfig {
    /// Unique in the cluster.
    pub name: String,
    /// Folder of `cluster/` (keys) and `cluster.bin` (what is known of the network).
    pub data: PathBuf,
    /// UDP for gateways.
    pub gwmp: SocketAddr,
    /// UDP for the link to workers.
    pub link: SocketAddr,
    /// TCP for metrics, health and ring; `None` for no admin HTTP.
    pub admin: Option<SocketAddr>,
    /// Proxies before the admin HTTP that may have any number of connections.
    pub trusted_proxies: Proxies,
    /// Link addresses for join tokens; empty: the one under which this machine is reached.
    pub advertise: Vec<String>,
    pub accept_unknown_gateways: bool,
    pub ack: AckAt,
    /// Bytes of datagrams that may wait until a worker is done with them.
    pub retained_bytes: usize,
    /// Datagrams, and packets in them, per second of one gateway; 0 for no limit.
    pub gateway_rate: u32,
    /// Bytes per second of one gateway; 0 for no limit.
    pub gateway_bytes: u32,
    /// Datagrams, and packets in them, per second of unknown gateways from one address; 0 for no limit.
    pub unknown_rate: u32,
}

impl BalancerConfig {
    /// The defaults, on the usual ports.
    pub fn new(name: impl Into<String>, data: impl Into<PathBuf>) -> Self {
        let core = limpet_balancer_core::Config::default();
        Self {
            name: name.into(),
            data: data.into(),
            gwmp: SocketAddr::from(([0, 0, 0, 0], 1700)),
            link: SocketAddr::from(([0, 0, 0, 0], 1701)),
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 1702))),
            trusted_proxies: Proxies::default(),
            advertise: Vec::new(),
            accept_unknown_gateways: core.accept_unknown_gateways,
            ack: core.ack,
            retained_bytes: core.retained_bytes,
            gateway_rate: core.gateway_rate,
            gateway_bytes: core.gateway_bytes,
            unknown_rate: core.unknown_rate,
        }
    }
}
