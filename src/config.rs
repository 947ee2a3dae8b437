//! What the roles are started with: everything is read and judged before anything starts.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use limpet_balancer::AckAt;
use limpet_codec::Limits;
use limpet_http::Proxies;
use limpet_link::Token;
use limpet_shared::admin::Role;

pub mod layers;
pub mod parse;
pub mod settings;

use crate::secrets::Line;
use layers::{Layers, Mistakes};

/// A text that no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// What all roles have.
#[derive(Clone, Debug)]
pub struct Common {
    pub data: PathBuf,
    /// The server's name.
    pub name: String,
    /// The operator chose the name; else it is the host's.
    pub name_chosen: bool,
    pub admin_password: Option<Secret>,
    /// Filter of the log, such as `info`.
    pub log_level: String,
    pub log_json: bool,
    /// Of the runtime.
    pub threads: usize,
    /// Before HTTP.
    pub trusted_proxies: Proxies,
}

/// The edge: a balancer, or that part of `up`.
#[derive(Clone, Debug)]
pub struct Edge {
    pub gwmp: SocketAddr,
    pub link: SocketAddr,
    pub admin: SocketAddr,
    pub advertise: Vec<String>,
    pub accept_unknown_gateways: bool,
    /// When a PUSH_ACK is sent.
    pub ack: AckAt,
    pub retained_bytes: usize,
    /// Datagrams per second; 0 for any number.
    pub gateway_rate: u32,
    /// Bytes per second.
    pub gateway_bytes: u32,
    /// Datagrams per second; 0 for any number.
    pub unknown_rate: u32,
}

/// Processing: a worker, or that part of `up`.
#[derive(Clone, Debug)]
pub struct Processing {
    /// `sqlite:DIR`.
    pub store: String,
    /// Names of regions; empty when nobody said so, and the store or the default decides.
    pub regions: Vec<String>,
    /// 1 to 100.
    pub weight: u32,
    /// At an RX1 delay of 1 s; for a network that nobody has set it for.
    pub reply_delay: Option<Duration>,
    pub http: SocketAddr,
    pub accept_unknown_gateways: bool,
    /// What a codec may use for one payload.
    pub codec: Limits,
}

#[derive(Clone, Debug)]
pub struct Up {
    pub common: Common,
    pub edge: Edge,
    pub processing: Processing,
    pub join: Option<Token>,
    /// Link addresses of further balancers.
    pub balancers: Vec<String>,
    pub workers: u32,
    pub demo: bool,
}

#[derive(Clone, Debug)]
pub struct Balancer {
    pub common: Common,
    pub edge: Edge,
    pub join: Option<Token>,
}

#[derive(Clone, Debug)]
pub struct Worker {
    pub common: Common,
    pub processing: Processing,
    pub join: Option<Token>,
    /// Link addresses; empty: those of the token, or of the last start.
    pub balancers: Vec<String>,
}

/// A configuration with what is worth a warning.
pub type Loaded<T> = Result<(T, Vec<String>), Mistakes>;

/// Flags that were given, by key.
pub type Flags = BTreeMap<String, String>;
/// The process's environment.
pub type Environment = Vec<(String, String)>;

/// The flags of a role's subcommand that were given; lists are joined by commas.
pub fn flags(matches: &clap::ArgMatches) -> Flags {
    let mut flags = Flags::new();
    for id in matches.ids() {
        if let Ok(Some(values)) = matches.try_get_many::<String>(id.as_str()) {
            let text = values.map(String::as_str).collect::<Vec<_>>().join(",");
            flags.insert(id.as_str().replace('_', "-"), text);
        }
    }
    flags
}

impl Up {
    pub fn load(flags: Flags, environment: Environment) -> Loaded<Self> {
        let mut layers = open(flags, environment);
        let common = common(&mut layers);
        let edge = edge(&mut layers);
        let processing = processing(&mut layers, &common.data);
        let join = join(&mut layers, &common.data, Role::Balancer);
        shared_store(&mut layers, join.is_some());
        let balancers = further_balancers(&mut layers, &edge, join.is_some());
        let workers = layers.read("workers", parse::number(1, 64)).unwrap_or(1);
        let demo = layers.read("demo", parse::boolean).unwrap_or(false);
        finish(layers, Self { common, edge, processing, join, balancers, workers, demo })
    }
}

impl Balancer {
    pub fn load(flags: Flags, environment: Environment) -> Loaded<Self> {
        let mut layers = open(flags, environment);
        let common = common(&mut layers);
        let join = join(&mut layers, &common.data, Role::Balancer);
        let edge = edge(&mut layers);
        finish(layers, Self { common, edge, join })
    }
}

impl Worker {
    pub fn load(flags: Flags, environment: Environment) -> Loaded<Self> {
        let mut layers = open(flags, environment);
        let common = common(&mut layers);
        let join = join(&mut layers, &common.data, Role::Worker);
        let balancers = layers.read("balancer", parse::list(parse::host_port)).unwrap_or_default();
        let processing = processing(&mut layers, &common.data);
        finish(layers, Self { common, processing, join, balancers })
    }
}

fn finish<T>(layers: Layers, config: T) -> Loaded<T> {
    if layers.mistakes.is_empty() { Ok((config, layers.warnings)) } else { Err(Mistakes(layers.mistakes)) }
}

/// Flags, environment, and the file that they or the data folder point to.
fn open(flags: Flags, environment: Environment) -> Layers {
    let mut layers = Layers::new(flags, environment);
    match layers.read("config", parse::path) {
        Some(file) => layers.read_file(&file, true),
        None => {
            let data = layers.get("data").map_or("limpet-data", |(_, text)| text.as_str()).to_owned();
            layers.read_file(&Path::new(&data).join("limpet.toml"), false);
        }
    }
    layers
}

fn common(layers: &mut Layers) -> Common {
    let data = layers.read("data", parse::path).unwrap_or_else(|| PathBuf::from("limpet-data"));
    let name = layers.read("name", parse::name);
    Common {
        data,
        name_chosen: name.is_some(),
        name: name.unwrap_or_else(host_name),
        admin_password: admin_password(layers),
        threads: layers.read("threads", parse::number(1, 1024)).map_or_else(half_the_processors, |n| n as usize),
        log_level: layers.read("log-level", parse::log_filter).unwrap_or_else(|| "info".into()),
        log_json: layers.read("log-format", log_format).unwrap_or(false),
        trusted_proxies: Proxies::new(layers.read("trusted-proxy", parse::list(parse::network)).unwrap_or_default()),
    }
}

/// Handing work from thread to thread costs more than a second thread gains as long as a server is not busy, and it rarely
/// is; and it is seldom alone on its machine.
fn half_the_processors() -> usize {
    std::thread::available_parallelism().map_or(1, |all| (all.get() / 2).max(1))
}

fn log_format(text: &str) -> Result<bool, String> {
    match text {
        "text" => Ok(false),
        "json" => Ok(true),
        _ => Err("it is neither".into()),
    }
}

fn admin_password(layers: &mut Layers) -> Option<Secret> {
    layers.read_secret("admin-password", Line::First, |text| match text.chars().count() {
        0 => Err("it is empty".into()),
        n if n < limpet_api::SHORTEST_PASSWORD => Err(format!("it has only {n} characters")),
        _ => Ok(Secret(text.to_owned())),
    })
}

/// A token is needed once: its file may be gone when the server has joined, but not before, when a balancer would found a
/// cluster of its own.
fn join(layers: &mut Layers, data: &Path, role: Role) -> Option<Token> {
    if layers.get("join-file").is_some_and(|(_, path)| is_gone(path))
        && limpet_link::identity::folder(data, role).exists()
    {
        return None;
    }
    layers.read_secret("join", Line::Last, |text| text.parse::<Token>().map_err(|e| e.to_string()))
}

/// `-` is standard input, which is no file.
fn is_gone(path: &str) -> bool {
    path != "-" && !Path::new(path).exists()
}

/// A machine that joins has the store of those that are there, never one of its own.
fn shared_store(layers: &mut Layers, joins: bool) {
    if joins && layers.get("store").is_none() && layers.get("store-file").is_none() {
        let mistake = "join is given without store; allowed: both, since all machines of a cluster share one store: give it \
                       the --store of the others";
        layers.mistakes.push(mistake.into());
    }
}

/// The balancers besides this process's own, which may be in the list, so that all machines can have the same one.
fn further_balancers(layers: &mut Layers, edge: &Edge, joins: bool) -> Vec<String> {
    let listed = layers.read("balancer", parse::list(parse::host_port)).unwrap_or_default();
    let further: Vec<String> = listed.into_iter().filter(|address| !edge.advertise.contains(address)).collect();
    if joins && further.is_empty() {
        let mistake =
            "join is given without balancer; allowed: both, so that this worker dials the other balancers too";
        layers.mistakes.push(mistake.into());
    }
    further
}

fn edge(layers: &mut Layers) -> Edge {
    let mut address = |key: &str, default: SocketAddr| layers.read(key, parse::address).unwrap_or(default);
    let gwmp = address("gwmp", ([0, 0, 0, 0], 1700).into());
    let link = address("link", ([0, 0, 0, 0], 1701).into());
    let admin = address("admin", ([127, 0, 0, 1], 1702).into());
    if gwmp.port() != 0 && gwmp == link {
        layers.mistakes.push(format!("gwmp and link are both {gwmp}; allowed: two addresses"));
    }
    Edge {
        gwmp,
        link,
        admin,
        advertise: layers.read("advertise", parse::list(parse::host_port)).unwrap_or_default(),
        accept_unknown_gateways: accept_unknown_gateways(layers),
        ack: layers.read("ack", ack).unwrap_or_default(),
        retained_bytes: (layers.read("retained-mib", parse::number(1, 65_536)).unwrap_or(256) as usize) << 20,
        gateway_rate: layers.read("gateway-rate", parse::number(0, 1_000_000)).unwrap_or(2_000),
        gateway_bytes: layers.read("gateway-kib", parse::number(0, 1_000_000)).unwrap_or(1_024) << 10,
        unknown_rate: layers.read("unknown-rate", parse::number(0, 1_000_000)).unwrap_or(200),
    }
}

/// Balancers reject unknown gateways once they know the network; until then, and by themselves, workers do.
fn accept_unknown_gateways(layers: &mut Layers) -> bool {
    layers.read("accept-unknown-gateways", parse::boolean).unwrap_or(false)
}

fn ack(text: &str) -> Result<AckAt, String> {
    match text {
        "stored" => Ok(AckAt::Stored),
        "received" => Ok(AckAt::Received),
        _ => Err("it is neither".into()),
    }
}

fn processing(layers: &mut Layers, data: &Path) -> Processing {
    Processing {
        store: layers
            .read_secret("store", Line::First, parse::store)
            .unwrap_or_else(|| format!("sqlite:{}", data.join("store").display())),
        regions: layers.read("region", parse::list(parse::region)).unwrap_or_default(),
        weight: layers.read("weight", parse::number(1, 100)).unwrap_or(100),
        reply_delay: layers.read("reply-delay", parse::short_time),
        http: layers.read("http", parse::address).unwrap_or_else(|| ([127, 0, 0, 1], 8080).into()),
        accept_unknown_gateways: accept_unknown_gateways(layers),
        codec: codec_limits(layers),
    }
}

fn codec_limits(layers: &mut Layers) -> Limits {
    let default = Limits::default();
    Limits {
        time: layers.read("codec-time", parse::some_time).unwrap_or(default.time),
        memory: layers.read("codec-mib", parse::number(1, 1024)).map_or(default.memory, |mib| (mib as usize) << 20),
        ..default
    }
}

/// The host's name, fit to be a server's.
fn host_name() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let fit: String = name
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(50)
        .collect();
    if fit.is_empty() { "limpet".into() } else { fit }
}

#[cfg(test)]
mod tests;
