//! What a worker is started with: parsed and checked before anything is opened.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use limpet_api::Api;
use limpet_codec::Codecs;
use limpet_console::JoinLine;
use limpet_http::Proxies;
use limpet_integration::Deliver;
use limpet_link::Identity;
use limpet_shared::region::Region;
use limpet_store::Store;
use tokio::sync::oneshot;

/// A worker's configuration.
pub struct WorkerConfig {
    /// Its certificate; the name in it is the worker's unique name.
    pub identity: Identity,
    /// Where the identity is kept, for renewals.
    pub identity_folder: PathBuf,
    /// Link addresses of the balancers (`host:port`); each gets a link.
    pub balancers: Vec<String>,
    pub store: Arc<dyn Store>,
    /// Who hands events to integrations.
    pub deliver: Arc<dyn Deliver>,
    /// Read and write payloads.
    pub codecs: Codecs,
    /// API, console, metrics and health; `None` for the second and further workers of one process.
    pub http: Option<SocketAddr>,
    /// Regions that the operator named; the network's, if this is not the first worker, must be the same. Empty: the network's.
    pub regions: Vec<&'static Region>,
    /// How many gateways this worker should have in proportion to others, 1 to 100.
    pub weight: u32,
    /// For the admin of a network that has none yet; random if not given.
    pub admin_password: Option<String>,
    /// What an application has to answer an uplink in its own windows, at an RX1 delay of 1 s: for a network that nobody has set
    /// that for.
    pub reply_delay: Option<Duration>,
    /// Take frames of gateways that the network does not know.
    pub accept_unknown_gateways: bool,
    /// The process holds its own balancer, whose retained frames died with it: sweep at the start.
    pub sweep_at_start: bool,
    /// It is part of a process with a balancer, and ends only with it.
    pub combined: bool,
    /// Where gateways send to, if this process knows: for the page.
    pub gwmp: Option<String>,
    /// Proxies before HTTP that are believed about whom they speak for.
    pub trusted_proxies: Proxies,
    /// What a further worker is started with: for the console.
    pub join: JoinLine,
    /// Told when the worker is up.
    pub started: Option<oneshot::Sender<Started>>,
}

/// What a worker reports once it listens and its network is set up.
#[derive(Clone)]
pub struct Started {
    pub name: String,
    /// Where HTTP listens.
    pub http: Option<SocketAddr>,
    /// For questions of operators beside the process.
    pub api: Arc<Api>,
    /// The admin's password, if this start made the admin and the password.
    pub new_password: Option<String>,
    /// This start made the admin.
    pub new_admin: bool,
}
