//! Plays gateways and OTAA devices against any server that speaks GWMP, provisioning them over ChirpStack's API if asked,
//! and says what came back. Nothing here knows Limpet: what it counts is what a network's owner would notice.

use std::{
    future::Future,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, timeout},
};

use crate::{Air, VirtualGateway};

mod api;
mod config;
mod identity;
mod play;
mod progress;
mod stats;
mod summary;

pub use api::ApiError;
pub use config::{ApiAccess, Credentials, Pace, SimulateConfig};
pub use identity::Identities;
pub use progress::{Progress, TerminalProgress};
pub use summary::{DownlinkSummary, JoinSummary, PushSummary, Summary, UplinkSummary};

use config::Plan;
use stats::Stats;

/// Why nothing could be played.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// All mistakes of the configuration.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("a gateway's sockets: {0}")]
    Socket(#[from] io::Error),
}

/// What all devices of a run share.
#[derive(Debug)]
struct Context {
    plan: Plan,
    air: Air,
    api: Option<api::Api>,
    stats: Stats,
    /// True: begin nothing new.
    stop: watch::Sender<bool>,
}

/// How long devices may take to finish what they began: a join takes six seconds.
const FINISH: Duration = Duration::from_secs(12);

/// Plays until every device has sent its uplinks, or the configured duration is over. `progress` is called once a second.
pub async fn run(config: SimulateConfig, progress: impl FnMut(&Progress)) -> Result<Summary, SimulateError> {
    run_until(config, progress, std::future::pending()).await
}

/// As [`run`], but no longer than until `stop` is done; the summary tells what happened until then.
pub async fn run_until(
    config: SimulateConfig,
    mut progress: impl FnMut(&Progress),
    stop: impl Future<Output = ()>,
) -> Result<Summary, SimulateError> {
    let plan = config.plan().await?;
    let api = match &plan.api {
        Some(access) => Some(api::Api::connect(access).await?),
        None => None,
    };
    if let Some(api) = &api {
        api.provision(&plan).await?;
    }
    let mut gateways = Vec::new();
    for config in plan.gateways() {
        gateways.push(Arc::new(VirtualGateway::start(config).await?));
    }
    let air = Air::new(gateways);
    let began = Instant::now();
    let (stopped, _) = watch::channel(false);
    let context = Arc::new(Context { air, api, stats: Stats::default(), stop: stopped, plan });
    let cut_short = play_for(&context, &mut progress, stop).await;
    progress(&context.progress(began.elapsed()));
    Ok(Summary::of(&context, began.elapsed(), cut_short))
}

/// Plays until the end, or until `stop` or the configured duration; then devices only finish what they began. True if
/// it was cut short.
async fn play_for(
    context: &Arc<Context>,
    progress: &mut impl FnMut(&Progress),
    stop: impl Future<Output = ()>,
) -> bool {
    let mut playing = std::pin::pin!(play_all(context, progress));
    tokio::select! {
        () = &mut playing => return false,
        () = sleep_at_most(context.plan.duration.unwrap_or(Duration::MAX)) => {}
        () = stop => {}
    }
    context.stop.send_replace(true);
    // Whoever takes longer is left behind; the summary counts what is known.
    let _ = timeout(FINISH, playing).await;
    true
}

/// `Duration::MAX` is never over; the timer knows no such time.
async fn sleep_at_most(limit: Duration) {
    match limit {
        Duration::MAX => std::future::pending().await,
        limit => tokio::time::sleep(limit).await,
    }
}

async fn play_all(context: &Arc<Context>, progress: &mut impl FnMut(&Progress)) {
    let began = Instant::now();
    let mut devices = JoinSet::new();
    for index in 0..context.plan.devices {
        devices.spawn(play::device(context.clone(), index));
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = devices.join_next() => match ended {
                None => return,
                Some(Err(error)) => tracing::error!(%error, "a device broke down"),
                Some(Ok(())) => {}
            },
            _ = ticks.tick() => progress(&context.progress(began.elapsed())),
        }
    }
}

impl Context {
    fn progress(&self, elapsed: Duration) -> Progress {
        let (pushed, push_acked) = self
            .air
            .gateways()
            .iter()
            .map(|g| g.counters())
            .fold((0, 0), |(pushed, acked), c| (pushed + c.pushed, acked + c.push_acked));
        let stats = self.stats.snapshot();
        Progress {
            elapsed,
            devices: self.plan.devices as u64,
            joined: stats.joins_accepted,
            uplinks: stats.uplinks,
            uplinks_planned: self.plan.devices as u64 * u64::from(self.plan.uplinks),
            pushed,
            push_acked,
            downlinks: stats.rx1 + stats.rx2,
        }
    }
}
