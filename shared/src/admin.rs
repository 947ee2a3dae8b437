//! What an operator can ask (`limpet ctl`, the console, the cluster's REST API) and what comes back. Any server takes
//! any question: a balancer answers what it knows and passes the rest over the link to a worker, and the other way round.

mod devices;
mod gateways;
mod integrations;
mod people;
mod regions;
mod stops;
mod tokens;

use alloc::{borrow::ToOwned, boxed::Box, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

pub use devices::{Device, DeviceAdd, DeviceDetail, DeviceSession, QueuedDownlink};
pub use gateways::{Gateway, GatewayAdd, RingReport, RingWorker};
pub use integrations::{Integration, IntegrationBacklog, IntegrationTrouble, WaitingEvent};
pub use people::{ApiKey, ApiKeyAdd, Password, User, UserAdd};
pub use regions::{RegionChange, RegionSettings, Setting};
pub use stops::what_stops;
pub use tokens::{Admitted, TokenInfo};

use crate::{Eui64, UnixMicros};

/// Entries of one answer that lists what there may be many of.
pub const PAGE: u32 = 200;

/// A question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Balancer: make a join token.
    JoinToken {
        role: Role,
        expires_in_secs: u64,
        uses: u32,
    },
    /// Worker: the servers of the cluster. A balancer that no worker is linked to answers what it sees.
    Servers,
    /// Worker: take a server out of the cluster, for good: its certificate counts no more, it drains and ends.
    Remove {
        name: String,
        /// Who asked, for the log; the door that the question came through writes it.
        #[serde(default)]
        by: String,
        /// Even if it is the last one ([`what_stops`]).
        #[serde(default)]
        sure: bool,
    },
    /// Worker: the join tokens that have not been forgotten. A balancer alone answers what it knows.
    Tokens,
    /// Worker: let nobody in any more with this token.
    TokenRevoke {
        id: String,
    },
    /// Balancer: the ring; with an EUI, which worker has it and why.
    Ring {
        eui: Option<Eui64>,
    },
    /// Balancer: let a worker drain (`on`) or come back.
    Drain {
        name: String,
        on: bool,
        /// As in [`Self::Remove`].
        #[serde(default)]
        by: String,
        #[serde(default)]
        sure: bool,
    },
    /// Balancer: gateways that it has heard; `unknown` for those it rejects.
    GatewaysHeard {
        unknown: bool,
        /// Of those that it has let in only these, if any are named.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        only: Vec<Eui64>,
    },
    /// Worker: gateways that the network knows, by name, [`PAGE`] of them. `search` is in the name or the EUI.
    Gateways {
        #[serde(default)]
        search: String,
        #[serde(default)]
        offset: u32,
    },
    /// Worker: let the network know a gateway.
    GatewayAdd(GatewayAdd),
    /// Worker: what a gateway may do with its address, an [`crate::policy::AddressPolicy`] as text.
    GatewayAddress {
        eui: Eui64,
        address: String,
    },
    /// Worker: another name for a gateway.
    GatewayRename {
        eui: Eui64,
        name: String,
    },
    /// Worker: let the network know a gateway no more.
    GatewayRemove {
        eui: Eui64,
    },
    /// Worker: devices by name, [`PAGE`] of them.
    Devices {
        #[serde(default)]
        search: String,
        #[serde(default)]
        offset: u32,
    },
    /// Worker: one device.
    Device {
        dev_eui: Eui64,
    },
    /// Worker: add a device, and what it stands in if that is missing.
    DeviceAdd(DeviceAdd),
    /// Worker: another name for a device.
    DeviceRename {
        dev_eui: Eui64,
        name: String,
    },
    /// Worker: delete a device with its sessions and its queue.
    DeviceRemove {
        dev_eui: Eui64,
    },
    /// Worker: what holds for each region of the network and for the network as a whole, or for one of them.
    Regions {
        #[serde(default)]
        id: Option<String>,
    },
    /// Worker: other settings.
    RegionSet(RegionChange),
    /// Worker: integrations, with what waits for them and why: first those for which most waits, then [`PAGE`] applications' by name.
    Integrations {
        #[serde(default)]
        offset: u32,
    },
    /// Worker: the events that wait for an integration, the longest waiting devices first, some of them. Here and below `id` is
    /// that of [`Integration`], or its application's name.
    IntegrationEvents {
        id: String,
    },
    /// Worker: offer an integration now what has waited longest, and say what came of it.
    IntegrationRetry {
        id: String,
    },
    /// Worker: give up all events that wait for an integration. Not `sure`, it answers how many there are.
    IntegrationDrop {
        id: String,
        /// As in [`Self::Remove`].
        #[serde(default)]
        by: String,
        #[serde(default)]
        sure: bool,
    },
    /// Worker, never over the link: the users.
    Users,
    UserAdd(UserAdd),
    /// A new password, by default a random one; it ends all log-ins with the old one.
    UserPassword {
        email: String,
        #[serde(default)]
        password: Option<Password>,
    },
    UserRemove {
        email: String,
    },
    /// Worker, never over the link: the API keys of the network and of all tenants.
    ApiKeys,
    ApiKeyAdd(ApiKeyAdd),
    ApiKeyRemove {
        id: String,
    },
    /// Balancer, asked by workers only, every few seconds: what they have learned from the store, for what the balancer
    /// knows. Takes the place of a talk among balancers.
    RollCall {
        revoked: Vec<RevokedServer>,
        tokens: Vec<TokenInfo>,
        /// The balancers that are not gone.
        balancers: Vec<Server>,
        /// What whoever adds a server should know of the store.
        store_note: String,
        /// Join tokens' keys as another balancer has sealed them; workers cannot read it. Empty: there is nothing to tell.
        #[serde(default)]
        token_keys: String,
        /// What other balancers have told besides: the numbers that they begin with are not proven to anybody who cannot read them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        more_token_keys: Vec<String>,
    },
    /// Balancer, beside it only: make a new key for join tokens, or (`finish`) give up the one before.
    TokenKey {
        finish: bool,
        /// The servers that there are, as the balancer's own door finds them.
        #[serde(default)]
        servers: Vec<Server>,
    },
    /// Balancer, beside it only: change the cluster's CA, or (`finish`) give up the one before, or (`join`) change it to that of
    /// another balancer, which has made this token.
    RotateCa {
        #[serde(default)]
        finish: bool,
        #[serde(default)]
        join: Option<Password>,
        #[serde(default)]
        sure: bool,
        /// The servers that there are, as the balancer's own door finds them.
        #[serde(default)]
        servers: Vec<Server>,
    },
}

impl Request {
    /// All gateways that a balancer has heard, or those that it rejects.
    pub fn heard(unknown: bool) -> Self {
        Self::GatewaysHeard { unknown, only: Vec::new() }
    }

    /// The first gateways of the network.
    pub fn gateways() -> Self {
        Self::Gateways { search: String::new(), offset: 0 }
    }

    pub fn drain(name: impl Into<String>, on: bool) -> Self {
        Self::Drain { name: name.into(), on, by: String::new(), sure: false }
    }

    pub fn remove(name: impl Into<String>) -> Self {
        Self::Remove { name: name.into(), by: String::new(), sure: false }
    }

    /// Whether it is about who may come in: see [`people`](UserAdd).
    pub fn is_about_people(&self) -> bool {
        use Request::{ApiKeyAdd, ApiKeyRemove, ApiKeys, UserAdd, UserPassword, UserRemove, Users};
        matches!(
            self,
            Users | UserAdd(_) | UserPassword { .. } | UserRemove { .. } | ApiKeys | ApiKeyAdd(_) | ApiKeyRemove { .. }
        )
    }

    /// Whether a worker in the same process answers it rather than one behind the link, which refuses all or some of these: a
    /// balancer stands at the edge, and must have no say in who comes in, or in who is told what devices send.
    pub fn shuns_the_link(&self) -> bool {
        self.is_about_people() || matches!(self, Self::DeviceAdd(DeviceAdd { webhook: Some(_), .. }))
    }

    /// Whether nothing is another thing after it.
    pub fn only_reads(&self) -> bool {
        use Request::{
            ApiKeys, Device, Devices, Gateways, GatewaysHeard, IntegrationEvents, Integrations, Regions, Ring, Servers,
            Tokens, Users,
        };
        matches!(
            self,
            Servers
                | Tokens
                | Ring { .. }
                | GatewaysHeard { .. }
                | Gateways { .. }
                | Devices { .. }
                | Device { .. }
                | Regions { .. }
                | Integrations { .. }
                | IntegrationEvents { .. }
                | Users
                | ApiKeys
        )
    }

    /// Whether it adds, changes or removes a gateway or a device, or changes settings: whoever lets it in logs who that was.
    pub fn changes_things(&self) -> bool {
        use Request::{
            DeviceAdd, DeviceRemove, DeviceRename, GatewayAdd, GatewayAddress, GatewayRemove, GatewayRename, RegionSet,
        };
        matches!(
            self,
            GatewayAdd(_)
                | GatewayAddress { .. }
                | GatewayRename { .. }
                | GatewayRemove { .. }
                | DeviceAdd(_)
                | DeviceRename { .. }
                | DeviceRemove { .. }
                | RegionSet(_)
        )
    }

    /// The same question, with who asks it where that is written down.
    pub fn signed(mut self, who: &str) -> Self {
        if let Self::Remove { by, .. } | Self::Drain { by, .. } | Self::IntegrationDrop { by, .. } = &mut self {
            *by = who.to_owned();
        }
        self
    }
}

/// What a server is in its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    #[default]
    Worker,
    Balancer,
}

impl Role {
    /// `worker` or `balancer`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Balancer => "balancer",
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Reply {
    JoinToken {
        token: String,
        expires_at: UnixMicros,
        /// What whoever adds a server should know of the store; empty if nothing is known.
        #[serde(default)]
        note: String,
    },
    Tokens {
        tokens: Vec<TokenInfo>,
    },
    /// What one balancer sees (itself first), and the tokens it knows.
    RollCall {
        servers: Vec<Server>,
        tokens: Vec<TokenInfo>,
        /// As in the question.
        #[serde(default)]
        token_keys: String,
        /// What the question left out of the revoked certificates that this balancer knows.
        #[serde(default)]
        revoked: Vec<RevokedServer>,
    },
    Servers {
        servers: Vec<Server>,
    },
    Ring(RingReport),
    Gateways {
        gateways: Vec<Gateway>,
        /// How many more there are behind the last one.
        #[serde(default, skip_serializing_if = "is_none")]
        more: u32,
        /// What could not be found out of them; empty if there is nothing to say.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    Devices {
        /// How many there are in all.
        total: u32,
        devices: Vec<Device>,
    },
    Device(Box<DeviceDetail>),
    Regions {
        regions: Vec<RegionSettings>,
    },
    Integrations {
        integrations: Vec<Integration>,
        /// The offset to go on from, if there are more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<u32>,
    },
    IntegrationEvents {
        /// How many wait in all.
        total: u64,
        events: Vec<WaitingEvent>,
    },
    Users {
        users: Vec<User>,
    },
    ApiKeys {
        api_keys: Vec<ApiKey>,
    },
    /// A user has this password now. It is told once.
    Password {
        message: String,
        password: Password,
    },
    /// An API key was made. Its token is told once.
    ApiKey {
        message: String,
        id: String,
        token: String,
    },
    /// Done; `message` says what, in one sentence.
    Done {
        message: String,
    },
    Error {
        kind: ErrorKind,
        message: String,
    },
}

impl Reply {
    /// All the gateways that there are.
    pub fn gateways(gateways: Vec<Gateway>) -> Self {
        Self::Gateways { gateways, more: 0, note: String::new() }
    }
}

/// Why a question was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    NotFound,
    AlreadyExists,
    Invalid,
    /// Something would stop by it ([`what_stops`]): to be asked again with `sure`.
    Unconfirmed,
    /// No server that could answer is connected, or it took too long.
    Unavailable,
    Internal,
}

/// A server of the cluster: as one balancer sees it, as it tells of itself through the store, or both together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    pub name: String,
    /// `worker` or `balancer`.
    pub role: String,
    /// `joining`, `ready`, `overloaded`, `draining`, `suspect`, `ejected` or `gone`.
    pub state: String,
    /// A worker: where balancers see it. A balancer: where workers dial it.
    pub address: String,
    pub http: String,
    pub version: String,
    pub started_at: UnixMicros,
    /// 0 to 100.
    pub weight: u32,
    /// Share of the ring, 0 to 1.
    pub share: f64,
    pub in_flight: u32,
    /// Why it is in this state; empty if there is nothing to say.
    pub reason: String,
    /// Random, new at each start.
    pub instance: u64,
    /// The key of its certificate ([`RevokedServer::key`]).
    pub key: String,
    /// Part of the machine's processor time that its process uses, 0 to 1.
    pub cpu: f64,
    /// Bytes of memory that its process holds.
    pub memory: u64,
    /// Bytes free on the file system of its folder.
    pub disk_free: u64,
    /// It is part of a `limpet up`, and ends only with it.
    pub combined: bool,
    /// Fingerprint of the cluster's CA: two clusters on one store are a mistake.
    pub cluster: String,
    /// That of the CA before, while it is being changed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_before: String,
    /// A balancer: when the keys of join tokens were changed last that it has (Unix, us); 0 if they never were.
    #[serde(skip_serializing_if = "is_never")]
    pub token_keys_since: UnixMicros,
    /// A worker: the integrations that it finds failing, some of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<IntegrationTrouble>,
    /// The worker that sends the events that wait: how much that is, some of the integrations. No other worker tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<Vec<IntegrationBacklog>>,
    /// A worker: each URL of an application is an integration of its own for it.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub urls_apart: bool,
    /// A worker: up to which form it reads rows in the store; 0 if it reads JSON only.
    #[serde(skip_serializing_if = "is_none")]
    pub reads_rows: u32,
    /// When this was written down, by the clock of who did.
    pub seen_at: UnixMicros,
}

impl Server {
    /// [`Self::role`] as the code has it.
    pub fn kind(&self) -> Role {
        if self.role == Role::Balancer.as_str() { Role::Balancer } else { Role::Worker }
    }

    /// Whether it is of the cluster with these CAs' fingerprints.
    pub fn is_of(&self, clusters: &[String]) -> bool {
        clusters.contains(&self.cluster) || !self.cluster_before.is_empty() && clusters.contains(&self.cluster_before)
    }
}

fn is_never(at: &UnixMicros) -> bool {
    at.0 == 0
}

/// What versions before did not know is left out where there is none of it.
fn is_none(count: &u32) -> bool {
    *count == 0
}

/// A certificate that counts no more. Another server may get the name, with a certificate of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevokedServer {
    pub name: String,
    pub role: Role,
    /// SHA-256 of the certificate's public key, hex: it stays the same when the certificate is renewed.
    pub key: String,
    pub at: UnixMicros,
}
