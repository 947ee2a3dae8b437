//! What to play, and whether it can be played.

use std::{net::SocketAddr, time::Duration};

use limpet_shared::region::Region;

use super::{SimulateError, identity::Identities};
use crate::GatewayConfig;

/// A class A device listens for two seconds and a little more before it sends again.
const LEAST_INTERVAL: Duration = Duration::from_millis(2_600);
/// JoinAccepts wait five seconds in a gateway's queue of 32, and other downlinks need room too.
const JOINS_PER_GATEWAY: f64 = 4.0;
/// Where servers listen for GWMP.
const GWMP_PORT: u16 = 1700;
const MAX_GATEWAYS: usize = 10_000;
const MAX_DEVICES: usize = 100_000;

/// What `limpet simulate` was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulateConfig {
    /// Where gateways send to: `host:port`, or `host` for port 1700.
    pub server: String,
    /// Where to provision gateways and devices; without it the server must know them already.
    pub api: Option<ApiAccess>,
    pub gateways: usize,
    pub devices: usize,
    /// How many gateways hear each uplink.
    pub copies: usize,
    /// How many each device sends.
    pub uplinks: u32,
    pub pace: Pace,
    /// How many of a hundred uplinks are confirmed.
    pub confirmed: u8,
    /// Before how many of a hundred uplinks a downlink is enqueued over the API.
    pub downlinks: u8,
    /// Name of a region, such as `eu868`.
    pub region: String,
    /// Ends early after this time.
    pub duration: Option<Duration>,
    /// Decides EUIs, keys and timing; `None` takes one from the clock.
    pub seed: Option<u64>,
}

/// How fast devices send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Uplinks per second of all devices together.
    Rate(f64),
    /// Between two uplinks of a device.
    Interval(Duration),
}

/// An API and the right to use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiAccess {
    /// Such as `http://127.0.0.1:8080`.
    pub url: String,
    pub credentials: Credentials,
}

/// The right to use an API.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Password { user: String, password: String },
    ApiKey(String),
}

/// No log shall hold a secret.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => f.debug_struct("Password").field("user", user).finish_non_exhaustive(),
            Self::ApiKey(_) => f.write_str("ApiKey(hidden)"),
        }
    }
}

impl Default for SimulateConfig {
    /// Ten devices behind three gateways, one uplink a second, for a server on this machine.
    fn default() -> Self {
        Self {
            server: "127.0.0.1:1700".into(),
            api: None,
            gateways: 3,
            devices: 10,
            copies: 2,
            uplinks: 10,
            pace: Pace::Rate(1.0),
            confirmed: 20,
            downlinks: 0,
            region: "eu868".into(),
            duration: None,
            seed: None,
        }
    }
}

/// A configuration without mistakes.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) server: SocketAddr,
    pub(super) api: Option<ApiAccess>,
    pub(super) gateways: usize,
    pub(super) devices: usize,
    pub(super) copies: usize,
    pub(super) uplinks: u32,
    /// Between two uplinks of a device.
    pub(super) interval: Duration,
    pub(super) confirmed: u8,
    pub(super) downlinks: u8,
    pub(super) region: &'static Region,
    pub(super) duration: Option<Duration>,
    pub(super) seed: u64,
    pub(super) identities: Identities,
}

impl SimulateConfig {
    /// Checks everything and reports all mistakes together.
    pub(super) async fn plan(self) -> Result<Plan, SimulateError> {
        let mut mistakes = Vec::new();
        let server = resolve(&self.server).await.map_err(|mistake| mistakes.push(mistake)).ok();
        let region = Region::by_name(&self.region);
        if region.is_none() {
            mistakes.push(format!("--region {}: unknown; one of {}", self.region, Region::names().join(", ")));
        }
        self.check_numbers(&mut mistakes);
        let interval = self.interval(&mut mistakes);
        let (Some(server), Some(region), true) = (server, region, mistakes.is_empty()) else {
            return Err(SimulateError::Config(mistakes));
        };
        let seed = self.seed.unwrap_or_else(|| u64::from(clock_seed()));
        Ok(Plan {
            server,
            api: self.api,
            gateways: self.gateways,
            devices: self.devices,
            copies: self.copies.min(self.gateways),
            uplinks: self.uplinks,
            interval,
            confirmed: self.confirmed,
            downlinks: self.downlinks,
            region,
            duration: self.duration,
            seed,
            identities: Identities::new(seed),
        })
    }

    fn check_numbers(&self, mistakes: &mut Vec<String>) {
        let mut within = |flag: &str, value: usize, most: usize| {
            if !(1..=most).contains(&value) {
                mistakes.push(format!("--{flag} {value}: must be 1 to {most}"));
            }
        };
        within("gateways", self.gateways, MAX_GATEWAYS);
        within("devices", self.devices, MAX_DEVICES);
        within("copies", self.copies, MAX_GATEWAYS);
        for (flag, percent) in [("confirmed", self.confirmed), ("downlinks", self.downlinks)] {
            if percent > 100 {
                mistakes.push(format!("--{flag} {percent}: a percentage, 0 to 100"));
            }
        }
        if self.downlinks > 0 && self.api.is_none() {
            mistakes.push("--downlinks needs --api: downlinks are enqueued there".into());
        }
    }

    fn interval(&self, mistakes: &mut Vec<String>) -> Duration {
        let interval = match self.pace {
            Pace::Interval(interval) => interval,
            Pace::Rate(rate) if rate > 0.0 && rate.is_finite() => {
                let seconds = self.devices as f64 / rate;
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }
            Pace::Rate(rate) => {
                mistakes.push(format!("--rate {rate}: must be above 0"));
                return Duration::ZERO;
            }
        };
        if interval < LEAST_INTERVAL {
            let least = LEAST_INTERVAL.as_secs_f64();
            mistakes.push(match self.pace {
                Pace::Interval(_) => format!("--interval: at least {least} s, for a device listens that long"),
                Pace::Rate(rate) => format!(
                    "--rate {rate} needs --devices {} or more: a device sends at most once in {least} s",
                    (rate * least).ceil()
                ),
            });
        }
        interval
    }
}

/// Short enough to type again.
fn clock_seed() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_secs() as u32 ^ now.subsec_nanos()
}

/// `host:port`, `[v6]:port`, or either without its port.
async fn resolve(server: &str) -> Result<SocketAddr, String> {
    if let Ok(addr) = server.parse() {
        return Ok(addr);
    }
    if let Ok(ip) = server.parse() {
        return Ok(SocketAddr::new(ip, GWMP_PORT));
    }
    let (host, port) = server.rsplit_once(':').unwrap_or((server, ""));
    let port = if port.is_empty() { Some(GWMP_PORT) } else { port.parse().ok() };
    // A name has no colon: what else has one would only keep the resolver waiting.
    let (Some(port), false) = (port, host.contains(':') || host.is_empty()) else {
        return Err(format!("--server {server}: must be HOST or HOST:PORT"));
    };
    let found = tokio::net::lookup_host((host, port)).await;
    let mut found = found.map_err(|error| format!("--server {server}: {error}"))?;
    found.next().ok_or_else(|| format!("--server {server}: no address"))
}

impl Plan {
    /// When a device asks to join, counted from the start: spread over one interval, so that the rate is even from the
    /// first uplink on, and no faster than the gateways' queues take JoinAccepts.
    pub(super) fn begin(&self, index: usize) -> Duration {
        let by_interval = self.interval / u32::try_from(self.devices).unwrap_or(u32::MAX);
        let by_queues = Duration::from_secs(1).div_f64(JOINS_PER_GATEWAY * self.gateways as f64);
        by_interval.max(by_queues).saturating_mul(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The gateways, each with a counter of its own.
    pub(super) fn gateways(&self) -> Vec<GatewayConfig> {
        (0..self.gateways)
            .map(|index| GatewayConfig {
                tmst_start: self.identities.tmst_start(index),
                status_interval: Some(Duration::from_secs(30)),
                ..GatewayConfig::new(self.identities.gateway(index), self.server)
            })
            .collect()
    }
}
