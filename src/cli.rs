//! The command line. Values of the three roles stay text here: flag, environment and file are judged together in
//! [`crate::config`], so that all mistakes are reported at once.

mod help;
mod people;
mod regions;
mod rotate;
mod secrets;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use limpet_shared::{AesKey, DevAddr, Eui64, policy::AddressPolicy};
use limpet_store::moving::{DEFAULT_SKIP, MOST_SKIP};

use help::{EXPORT_HELP, IMPORT_HELP, MIGRATE_HELP};
pub use people::{ApiKeyArgs, ApiKeyTask, PasswordArg, StoreArg, UserArgs, UserTask};
pub use regions::{RegionArgs, RegionTask};
pub use secrets::{StoreBefore, StoreUrl};

const ROLE_HELP: &str = "\
Every flag can also be given in the environment as LIMPET_<FLAG>, such as LIMPET_LOG_LEVEL, and as a key of the
configuration file. A flag wins over the environment, the environment over the file.";

/// A LoRaWAN network server that runs as a cluster and loses nothing.
#[derive(Debug, Parser)]
#[command(name = "limpet", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process: balancer, worker(s), SQLite store and API. Start here.
    #[command(after_help = ROLE_HELP)]
    Up(Box<UpArgs>),
    /// Run the edge of a cluster: gateways send to it, workers dial it.
    #[command(after_help = ROLE_HELP)]
    Balancer(BalancerArgs),
    /// Run a worker of a cluster: it processes frames and serves the API.
    #[command(after_help = ROLE_HELP)]
    Worker(WorkerArgs),
    /// Ask or tell a running Limpet.
    Ctl(CtlArgs),
    /// Play gateways and devices against any LoRaWAN network server that speaks GWMP.
    Simulate(SimulateArgs),
}

/// What all roles understand.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Folder of everything that this process keeps [default: limpet-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Configuration file, TOML with the flags as keys [default: DIR/limpet.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Password of the user `admin`, if the store has none yet [default: a random one, printed once]
    #[arg(long, value_name = "PW")]
    pub admin_password: Option<String>,
    /// File with that password
    #[arg(long, value_name = "FILE")]
    pub admin_password_file: Option<String>,
    /// Serve gateways that nobody has added, for trying out [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub accept_unknown_gateways: Option<String>,
    /// Proxies before HTTP that are believed about whom they speak for (X-Forwarded-For) [default: none]
    #[arg(long, value_name = "CIDR,...")]
    pub trusted_proxy: Vec<String>,
    /// Threads that do the work [default: half as many as processors]
    #[arg(long, value_name = "N")]
    pub threads: Option<String>,
    /// error, warn, info, debug, trace, or a list such as info,limpet_balancer=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// What a balancer understands, alone and inside `up`.
#[derive(Debug, Args)]
pub struct EdgeArgs {
    /// UDP address for gateways (GWMP, Semtech's protocol) [default: 0.0.0.0:1700]
    #[arg(long, value_name = "ADDR")]
    pub gwmp: Option<String>,
    /// UDP address for workers (QUIC) [default: 0.0.0.0:1701]
    #[arg(long, value_name = "ADDR")]
    pub link: Option<String>,
    /// HTTP address for metrics, health and the ring [default: 127.0.0.1:1702]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// Link addresses to put into join tokens [default: the one that leads to this machine]
    #[arg(long, value_name = "ADDR,...")]
    pub advertise: Vec<String>,
    /// When to acknowledge a gateway's datagram: stored or received [default: stored]
    #[arg(long, value_name = "WHEN")]
    pub ack: Option<String>,
    /// Memory for frames that no worker has finished, MiB [default: 256]
    #[arg(long, value_name = "MIB")]
    pub retained_mib: Option<String>,
    /// Datagrams, and packets in them, per second that one gateway may send, 0 for any number [default: 2000]
    #[arg(long, value_name = "N")]
    pub gateway_rate: Option<String>,
    /// KiB per second that one gateway may send, 0 for any number [default: 1024]
    #[arg(long, value_name = "KIB")]
    pub gateway_kib: Option<String>,
    /// Datagrams, and packets in them, per second of unknown gateways from one address, 0 for any number [default: 200]
    #[arg(long, value_name = "N")]
    pub unknown_rate: Option<String>,
}

/// What a worker understands, alone and inside `up`.
#[derive(Debug, Args)]
pub struct ProcessingArgs {
    /// The store that all workers share: sqlite:DIR on one machine, cql://HOST,HOST/KEYSPACE on several [default: sqlite:DATA/store]
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// File whose first line is that URL
    #[arg(long, value_name = "FILE")]
    pub store_file: Option<String>,
    /// Regions, such as eu868 or us915_1; kept in the store by the first start [default: eu868]
    #[arg(long, value_name = "NAME,...")]
    pub region: Vec<String>,
    /// How many gateways a worker gets in proportion to the others, 1 to 100 [default: 100]
    #[arg(long, value_name = "N")]
    pub weight: Option<String>,
    /// How long after its event an uplink is answered, so that an application's answer goes along; 0ms: at once. Kept in the store by
    /// the first start that says it; `limpet ctl region set network reply_delay=TIME` changes it [default: 100ms]
    #[arg(long, value_name = "TIME")]
    pub reply_delay: Option<String>,
    /// Processor time that a codec may use for one payload [default: 100ms]
    #[arg(long, value_name = "TIME")]
    pub codec_time: Option<String>,
    /// Memory that it may use [default: 16]
    #[arg(long, value_name = "MIB")]
    pub codec_mib: Option<String>,
    /// HTTP address for API, console and metrics [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
}

#[derive(Debug, Args)]
pub struct UpArgs {
    /// Balancer's join token of another `up`, to share its cluster; needed at the first start, together with --balancer
    #[arg(long, value_name = "TOKEN")]
    pub join: Option<String>,
    /// File whose last line is that token, such as what `limpet ctl join-token` printed
    #[arg(long, value_name = "FILE")]
    pub join_file: Option<String>,
    /// Link addresses of further balancers, such as those of other machines that run `up` on the same store
    #[arg(long, value_name = "ADDR,...")]
    pub balancer: Vec<String>,
    #[command(flatten)]
    pub processing: ProcessingArgs,
    #[command(flatten)]
    pub edge: EdgeArgs,
    /// Workers in this process [default: 1]
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,
    /// Let virtual gateways and devices send something to look at [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub demo: Option<String>,
    /// Name of this server, unique in its cluster [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct BalancerArgs {
    /// Join token of another balancer; without one, the first start founds a cluster
    #[arg(long, value_name = "TOKEN")]
    pub join: Option<String>,
    /// File whose last line is that token, such as what `limpet ctl join-token` printed
    #[arg(long, value_name = "FILE")]
    pub join_file: Option<String>,
    #[command(flatten)]
    pub edge: EdgeArgs,
    /// Name of this server, unique in its cluster [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// Join token; needed at the first start (`limpet ctl join-token` makes one)
    #[arg(long, value_name = "TOKEN")]
    pub join: Option<String>,
    /// File whose last line is that token, such as what `limpet ctl join-token` printed
    #[arg(long, value_name = "FILE")]
    pub join_file: Option<String>,
    /// Link addresses of the balancers [default: those of the token]
    #[arg(long, value_name = "ADDR,...")]
    pub balancer: Vec<String>,
    #[command(flatten)]
    pub processing: ProcessingArgs,
    /// Name of this server, unique in its cluster [default: the host's name, with a number if it is taken]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct CtlArgs {
    /// Ask the Limpet that runs with this folder
    #[arg(long, value_name = "DIR", env = "LIMPET_DATA", default_value = "limpet-data", global = true)]
    pub data: PathBuf,
    /// Ask the API at this address instead, such as http://10.0.0.1:8080
    #[arg(long, value_name = "URL", env = "LIMPET_SERVER", global = true)]
    pub server: Option<String>,
    /// API key for --server
    #[arg(long, value_name = "KEY", env = "LIMPET_TOKEN", hide_env_values = true, global = true)]
    pub token: Option<String>,
    /// File whose last line is that key, such as what `limpet ctl api-key create` printed
    #[arg(long, value_name = "FILE", env = "LIMPET_TOKEN_FILE", global = true, conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub store: StoreBefore,
    #[command(subcommand)]
    pub command: CtlTask,
}

/// Something to do on a store, or a question to a running Limpet.
#[derive(Debug, Subcommand)]
pub enum CtlTask {
    /// Bring the tables of a store up to date; asks no running server
    #[command(after_help = MIGRATE_HELP)]
    Migrate {
        #[command(flatten)]
        store: StoreUrl,
        /// Take also the step after which the version before does not run on the store any more
        #[arg(long)]
        finish: bool,
    },
    /// Write all that makes a network into a file: a backup, or the first half of a move to another store
    #[command(after_help = EXPORT_HELP)]
    Export {
        /// The file, which must not exist; until it is whole it is called FILE.part
        file: PathBuf,
        #[command(flatten)]
        store: StoreUrl,
    },
    /// Check an exported file, and write what it holds into an empty store, a folder or keyspace that does not exist yet
    #[command(after_help = IMPORT_HELP)]
    Import {
        /// The file that `ctl export` wrote
        file: PathBuf,
        #[command(flatten)]
        store: StoreUrl,
        /// How far FCntDowns and JoinNonces skip ahead, 0 to 16383
        #[arg(long, value_name = "N", default_value_t = DEFAULT_SKIP, conflicts_with = "keep_counters",
              value_parser = clap::value_parser!(u32).range(0..=i64::from(MOST_SKIP)))]
        skip_fcnt_down: u32,
        /// Leave the counters as they are: for a move, when the servers of the exported network were stopped before the export
        #[arg(long)]
        keep_counters: bool,
    },
    /// Add and delete users, and give them passwords
    User(UserArgs),
    /// Make and delete API keys, for --server and for programs
    ApiKey(ApiKeyArgs),
    /// Show and change the settings of the network and its regions, while it runs
    Region(RegionArgs),
    #[command(flatten)]
    Ask(CtlCommand),
}

/// Which part of a list.
#[derive(Debug, Args)]
pub struct PartArgs {
    /// Those whose name or EUI contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub search: String,
    /// Leave out so many
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub offset: u32,
    /// List at most so many
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

#[derive(Debug, Subcommand)]
pub enum CtlCommand {
    /// Make a join token; it is printed alone on the last line
    #[command(args_conflicts_with_subcommands = true)]
    JoinToken {
        #[command(subcommand)]
        other: Option<TokenCommand>,
        /// What the token lets in: worker or balancer
        #[arg(long, value_enum, default_value = "worker")]
        role: JoinRole,
        /// How long it is good: a number with s, m, h or d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = crate::config::parse::seconds)]
        expires: u64,
        /// How many servers it lets in
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
    },
    /// Change the key that signs join tokens, beside a balancer and while the cluster runs
    #[command(after_help = rotate::TOKEN_KEY_HELP)]
    RotateTokenKey {
        /// Give up the old key
        #[arg(long)]
        finish: bool,
    },
    /// Change the cluster's CA, beside a balancer and while the cluster runs
    #[command(after_help = rotate::CA_HELP)]
    RotateCa(rotate::RotateCaArgs),
    /// List the servers of the cluster
    Servers,
    /// Take a server out of the cluster: it drains and ends, and its certificate counts no more
    Remove {
        name: String,
        #[command(flatten)]
        sure: SureArg,
    },
    /// Show the ring; with an EUI, which worker has that gateway and why
    Ring { eui: Option<Eui64> },
    /// Send a worker no new frames
    Drain {
        name: String,
        /// End the drain
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        sure: SureArg,
    },
    /// List the gateways of the network, by name
    Gateways {
        /// List those that were rejected because nobody has added them
        #[arg(long, conflicts_with_all = ["search", "offset", "limit"])]
        unknown: bool,
        #[command(flatten)]
        part: PartArgs,
    },
    /// Add, change or remove a gateway
    #[command(subcommand)]
    Gateway(GatewayCommand),
    /// List the devices of the network, by name. Inactive ones were not heard for one and a half uplink intervals of their profile
    Devices(PartArgs),
    /// Add, show, rename or remove a device
    #[command(subcommand)]
    Device(DeviceCommand),
    /// List where events go, what does not take them and why; with an application, the events that wait for it
    #[command(args_conflicts_with_subcommands = true)]
    Integrations {
        #[command(subcommand)]
        task: Option<IntegrationCommand>,
        /// An application's name or id, or the id of one of its endpoints: list the events that wait
        #[arg(value_name = "APPLICATION")]
        id: Option<String>,
    },
}

/// `limpet ctl integrations`.
#[derive(Debug, Subcommand)]
pub enum IntegrationCommand {
    /// Offer what has waited longest now, and say what came of it; the rest follows by itself
    Retry {
        /// Its application's name or id, for all of its endpoints, or the id of one of them
        id: String,
    },
    /// Give up all events that wait for it
    Drop {
        /// Its application's name or id, for all of its endpoints, or the id of one of them
        id: String,
        #[command(flatten)]
        sure: SureArg,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub struct SureArg {
    /// Do it without asking, also if something stops or is lost by it
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// List the join tokens, how often each was used, and until when it is good
    List,
    /// Let nobody in any more with a token
    Revoke {
        /// Its id, from the list
        id: String,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum JoinRole {
    Worker,
    Balancer,
}

#[derive(Debug, Subcommand)]
pub enum GatewayCommand {
    /// Add a gateway: from now on the network serves it
    Add {
        /// Its EUI, 16 hex digits
        eui: Eui64,
        /// Its name [default: its EUI]
        #[arg(long)]
        name: Option<String>,
        /// Its tenant, by name or id [default: the first one]
        #[arg(long)]
        tenant: Option<String>,
        /// Which addresses it may have: alert, off, lock=CIDR,... or hold=TIME [default: alert]
        #[arg(long, value_name = "POLICY", value_parser = crate::ctl::address::parse)]
        address: Option<AddressPolicy>,
    },
    /// Change a gateway that the network knows
    Set {
        /// Its EUI, 16 hex digits
        eui: Eui64,
        /// Which addresses it may have: alert, off, lock=CIDR,... or hold=TIME
        #[arg(long, value_name = "POLICY", value_parser = crate::ctl::address::parse)]
        address: AddressPolicy,
    },
    /// Give a gateway another name
    Rename {
        /// Its EUI, 16 hex digits
        eui: Eui64,
        name: String,
    },
    /// Remove a gateway: what it sends is rejected from then on
    Remove {
        /// Its EUI, 16 hex digits
        eui: Eui64,
    },
}

#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Add a device, and its application and device profile if they are missing
    Add(Box<DeviceAddArgs>),
    /// Show a device: its session, counters and queue, without keys
    Show {
        /// DevEUI, 16 hex digits
        dev_eui: Eui64,
    },
    /// Give a device another name
    Rename {
        /// DevEUI, 16 hex digits
        dev_eui: Eui64,
        name: String,
    },
    /// Remove a device, with its sessions and its queue
    Remove {
        /// DevEUI, 16 hex digits
        dev_eui: Eui64,
    },
}

/// By OTAA with --app-key, or by ABP with --dev-addr, --nwk-s-key and --app-s-key.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("activation").args(["app_key", "app_key_file", "dev_addr"]).required(true))]
#[command(group = clap::ArgGroup::new("network").args(["nwk_s_key", "nwk_s_key_file"]))]
#[command(group = clap::ArgGroup::new("application_session").args(["app_s_key", "app_s_key_file"]))]
pub struct DeviceAddArgs {
    /// DevEUI, 16 hex digits
    #[arg(long, value_name = "EUI")]
    pub dev_eui: Eui64,
    /// JoinEUI (AppEUI), 16 hex digits
    #[arg(long, value_name = "EUI")]
    pub join_eui: Option<Eui64>,
    /// OTAA: AppKey, 32 hex digits
    #[arg(long, value_name = "KEY", conflicts_with_all = ["dev_addr", "network", "application_session"])]
    pub app_key: Option<AesKey>,
    /// File whose first line is the AppKey
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dev_addr", "network", "application_session"])]
    pub app_key_file: Option<PathBuf>,
    /// ABP: DevAddr, 8 hex digits
    #[arg(long, value_name = "ADDR", requires_all = ["network", "application_session"])]
    pub dev_addr: Option<DevAddr>,
    /// ABP: NwkSKey, 32 hex digits
    #[arg(long, value_name = "KEY", requires = "dev_addr")]
    pub nwk_s_key: Option<AesKey>,
    /// File whose first line is the NwkSKey
    #[arg(long, value_name = "FILE", requires = "dev_addr")]
    pub nwk_s_key_file: Option<PathBuf>,
    /// ABP: AppSKey, 32 hex digits
    #[arg(long, value_name = "KEY", requires = "dev_addr")]
    pub app_s_key: Option<AesKey>,
    /// File whose first line is the AppSKey
    #[arg(long, value_name = "FILE", requires = "dev_addr")]
    pub app_s_key_file: Option<PathBuf>,
    /// Its name [default: its DevEUI]
    #[arg(long)]
    pub name: Option<String>,
    /// Its application, made if it is missing [default: default]
    #[arg(long, value_name = "NAME")]
    pub application: Option<String>,
    /// Its region, such as eu868 or us915_1 [default: the first one configured]
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// LoRaWAN version: 1.0.2, 1.0.3 or 1.0.4 [default: 1.0.3]
    #[arg(long, value_name = "VERSION", value_parser = ["1.0.2", "1.0.3", "1.0.4"])]
    pub mac_version: Option<String>,
    /// URL that gets the application's events by HTTP POST
    #[arg(long, value_name = "URL")]
    pub webhook: Option<String>,
}

impl DeviceAddArgs {
    /// Reads the keys that stand in files.
    ///
    /// # Errors
    /// A file cannot be read, or holds no key.
    pub fn keys_from_files(&mut self) -> Result<(), String> {
        secrets::key(&mut self.app_key, self.app_key_file.as_deref(), "--app-key-file")?;
        secrets::key(&mut self.nwk_s_key, self.nwk_s_key_file.as_deref(), "--nwk-s-key-file")?;
        secrets::key(&mut self.app_s_key, self.app_s_key_file.as_deref(), "--app-s-key-file")
    }
}

#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Where gateways send to: HOST:PORT, or HOST for port 1700
    #[arg(long, value_name = "ADDR", env = "LIMPET_SERVER")]
    pub server: String,
    /// API of the server, such as http://127.0.0.1:8080: gateways and devices are added there first
    #[arg(long, value_name = "URL", env = "LIMPET_API")]
    pub api: Option<String>,
    /// User of the API
    #[arg(long, value_name = "NAME", env = "LIMPET_USER", default_value = "admin")]
    pub user: String,
    /// Password of that user
    #[arg(long, value_name = "PW", env = "LIMPET_PASSWORD", hide_env_values = true, requires = "api")]
    pub password: Option<String>,
    /// File whose first line is that password
    #[arg(long, value_name = "FILE", env = "LIMPET_PASSWORD_FILE", requires = "api", conflicts_with = "password")]
    pub password_file: Option<PathBuf>,
    /// API key, instead of user and password
    #[arg(
        long,
        value_name = "KEY",
        env = "LIMPET_API_KEY",
        hide_env_values = true,
        requires = "api",
        conflicts_with_all = ["password", "password_file"]
    )]
    pub api_key: Option<String>,
    /// File whose last line is that key
    #[arg(
        long,
        value_name = "FILE",
        env = "LIMPET_API_KEY_FILE",
        requires = "api",
        conflicts_with_all = ["api_key", "password", "password_file"]
    )]
    pub api_key_file: Option<PathBuf>,
    /// Virtual gateways
    #[arg(long, value_name = "N", env = "LIMPET_GATEWAYS", default_value_t = 3)]
    pub gateways: usize,
    /// Virtual devices (OTAA)
    #[arg(long, value_name = "N", env = "LIMPET_DEVICES", default_value_t = 10)]
    pub devices: usize,
    /// How many gateways hear each uplink
    #[arg(long, value_name = "N", env = "LIMPET_COPIES", default_value_t = 2)]
    pub copies: usize,
    /// Uplinks that each device sends
    #[arg(long, value_name = "N", env = "LIMPET_UPLINKS", default_value_t = 10)]
    pub uplinks: u32,
    /// Uplinks per second of all devices together
    #[arg(long, value_name = "N", env = "LIMPET_RATE", default_value_t = 1.0)]
    pub rate: f64,
    /// Time between two uplinks of a device, such as 10s, instead of --rate
    #[arg(long, value_name = "TIME", env = "LIMPET_INTERVAL", value_parser = crate::config::parse::seconds, conflicts_with = "rate")]
    pub interval: Option<u64>,
    /// How many of a hundred uplinks are confirmed
    #[arg(long, value_name = "PERCENT", env = "LIMPET_CONFIRMED", default_value_t = 20)]
    pub confirmed: u8,
    /// Before how many of a hundred uplinks a downlink is enqueued; needs --api
    #[arg(long, value_name = "PERCENT", env = "LIMPET_DOWNLINKS", default_value_t = 0)]
    pub downlinks: u8,
    /// Region, such as eu868 or us915_1
    #[arg(long, value_name = "NAME", env = "LIMPET_REGION", default_value = "eu868")]
    pub region: String,
    /// End after this time, such as 5m, even if not all uplinks are sent
    #[arg(long, value_name = "TIME", env = "LIMPET_DURATION", value_parser = crate::config::parse::seconds)]
    pub duration: Option<u64>,
    /// Decides EUIs, keys and timing; the same one plays the same devices again [default: a new one]
    #[arg(long, value_name = "N", env = "LIMPET_SEED")]
    pub seed: Option<u64>,
    /// Print the summary as one JSON document
    #[arg(long)]
    pub json: bool,
}
