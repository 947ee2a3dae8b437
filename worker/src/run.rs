//! A worker's life: wired once, here.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use limpet_api::{Api, ApiState};
use limpet_shared::{
    UnixMicros,
    admin::{RevokedServer, Role, Server},
    link,
    region::Region,
};
use limpet_store::{Store, StoreError};
use limpet_worker_core::model::NetworkSettings;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{Feed, Network},
    cluster_view::LinkedCluster,
    config::{Started, WorkerConfig},
    http,
    links::{Introduction, LinkError, Links, Notice},
    load,
    metrics::Metrics,
    notices::{self, Around},
    outage,
    pipeline::{Pipeline, Sweep, run_pending},
    regions::Regions,
    roll::{Found, Roll},
    seams::{Machine, Surroundings},
    settings::{self, Settings},
    strangers::{self, Stranger},
};

/// Between two looks at the store for readiness; what is on this machine is there.
const READY_EVERY: Duration = Duration::from_millis(400);
const READY_EVERY_HERE: Duration = Duration::from_secs(1);
/// A store that has not answered for so long does not.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// After a drain began, frames may still be on their way for this long.
const STRAGGLERS: Duration = Duration::from_millis(300);
/// A drain ends at the latest after this: what is not done then is redelivered to another worker.
const DRAIN_LIMIT: Duration = Duration::from_secs(15);
/// Pauses between two questions to a store that does not answer at the start, doubled up to the second; and between two lines of that.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
const SAID_EVERY: Duration = Duration::from_secs(60);
/// A worker counts as started when it has a link, or after this.
const FIRST_LINK: Duration = Duration::from_secs(3);
/// Messages of balancers that wait.
const NOTICES: usize = 4096;
/// How often the certificate is looked at, and how long an answer is waited for when it is due, or of a CA that ends.
const RENEWAL_LOOK: Duration = Duration::from_secs(1);
const DUE_AGAIN: Duration = Duration::from_secs(3600);
const OTHER_CA_AGAIN: Duration = Duration::from_secs(10);

/// Why a worker could not start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot listen on {address} for HTTP: {source}; choose another --http")]
    Http { address: SocketAddr, source: std::io::Error },
    #[error(
        "--region says {asked}, but this network was set up with {have}; leave --region out, or start another network"
    )]
    Regions { asked: String, have: String },
    #[error("the network was set up with the region {0}, which this version does not know")]
    UnknownRegion(String),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("first start: {0}")]
    Bootstrap(limpet_api::ApiError),
    #[error(transparent)]
    Stranger(#[from] Stranger),
}

impl WorkerError {
    /// The store did not answer, or did not say whether it wrote: to be asked again.
    fn is_store_away(&self) -> bool {
        use StoreError::{Unavailable, Unknown};
        match self {
            Self::Store(error) | Self::Stranger(Stranger::Store(error)) => matches!(error, Unavailable(_) | Unknown(_)),
            Self::Bootstrap(error) => {
                matches!(error, limpet_api::ApiError::Unavailable(_) | limpet_api::ApiError::Unsure(_))
            }
            _ => false,
        }
    }
}

/// What a worker has to know of its network before it takes anything in.
struct Opened {
    regions: Vec<&'static Region>,
    network: Network,
    settings: NetworkSettings,
    revoked: Vec<RevokedServer>,
}

/// All of it may be done again.
async fn open(
    store: &dyn Store,
    clusters: &[String],
    regions: &[&'static Region],
    reply_delay: Option<Duration>,
) -> Result<Opened, WorkerError> {
    strangers::look_for(store, clusters).await?;
    Ok(Opened {
        regions: network_regions(store, regions).await?,
        network: Network::open(store, &Machine).await?,
        settings: settings::open(store, reply_delay).await?,
        revoked: store.revoked_servers().await?,
    })
}

/// Asks the store until it has answered, however long that takes, and says so now and then; `None` if this worker is to stop first.
async fn answered<T, F>(stop: &CancellationToken, ask: impl Fn() -> F) -> Result<Option<T>, WorkerError>
where
    F: Future<Output = Result<T, WorkerError>>,
{
    let (mut pause, mut said) = (ASK_AGAIN.0, None::<tokio::time::Instant>);
    loop {
        match stop.run_until_cancelled(ask()).await {
            None => return Ok(None),
            Some(Err(error)) if error.is_store_away() => {
                if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
                    said = Some(tokio::time::Instant::now());
                    tracing::warn!(%error, "the store does not answer; this worker starts when it does");
                }
            }
            Some(answer) => {
                if said.is_some() {
                    tracing::info!("the store answers");
                }
                return answer.map(Some);
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(None);
        }
        pause = (pause * 2).min(ASK_AGAIN.1);
    }
}

/// Runs a worker until `stop` is cancelled, then drains: what it holds is finished, what it has to send is out.
pub async fn run(config: WorkerConfig, stop: CancellationToken) -> Result<(), WorkerError> {
    let clusters = config.identity.trust().clusters();
    let opened = answered(&stop, || open(&*config.store, &clusters, &config.regions, config.reply_delay)).await?;
    let Some(opened) = opened else { return Ok(()) };
    let listener = listen(config.http).await?;
    let http = listener.as_ref().and_then(|l| l.local_addr().ok());
    let (notices, notice_rx) = mpsc::channel(NOTICES);
    let around = wire(&config, opened, http, notices)?;
    let first_start = limpet_api::FirstStart::default();
    let first = answered(&stop, || {
        let run = first_start.run(&config.store, config.admin_password.clone());
        async { run.await.map_err(WorkerError::Bootstrap) }
    });
    let Some(first) = first.await? else { return Ok(()) };
    if first.without_effect {
        tracing::warn!(
            "--admin-password has no effect: the network has its users already, and this is not the password of admin; \
             `limpet ctl user password admin` gives a new one"
        );
    }
    let sweep = Sweep::default();
    if config.sweep_at_start {
        around.pipeline.recover().await;
        sweep.ask();
    }
    // Two tokens: `stop` ends taking in, `end` ends everything after the drain.
    let end = CancellationToken::new();
    let mut links: JoinSet<Result<(), LinkError>> = JoinSet::new();
    let keep = |links: &mut JoinSet<_>, addresses: Vec<String>, stop: CancellationToken| {
        links.spawn(around.links.clone().keep_all(addresses, around.pipeline.clone(), sweep.clone(), stop));
    };
    keep(&mut links, config.balancers.clone(), end.clone());
    let (found, mut newly_found) = mpsc::channel(NOTICES);
    let roll_call = tokio::spawn(around.roll.clone().run(found, end.clone()));
    let server = listener.map(|l| http::serve(l, &around, config.trusted_proxies.clone(), end.clone()));
    let mut helpers = helpers(&around, sweep.clone(), notice_rx, &stop, &end);
    let metrics = around.pipeline.metrics.clone();
    // SQLite writes on a thread of its own.
    let store_threads = usize::from(!config.store.is_shared());
    helpers.push(tokio::spawn(load::run(around.links.clone(), metrics, config.weight, store_threads, end.clone())));
    let report = Started {
        name: around.pipeline.name.clone(),
        http,
        api: around.api.clone(),
        new_admin: first.created.is_some(),
        new_password: first.created.filter(|_| config.admin_password.is_none()),
    };
    let up = async {
        linked(&around.links).await;
        if let Some(started) = config.started {
            // Whoever started the worker may not care.
            let _ = started.send(report);
        }
        stop.cancelled().await;
    };
    let outcome = tokio::select! {
        biased;
        () = up => Ok(()),
        outcome = first_failure(&mut links, &mut newly_found, keep) => outcome,
    };
    match &outcome {
        Ok(()) => drain(&around.links, &around.pipeline).await,
        Err(LinkError::Removed(_)) => notices::note_removal(&around.identity_folder),
        Err(_) => {}
    }
    end.cancel();
    while links.join_next().await.is_some() {}
    for helper in helpers.into_iter().chain(server).chain([roll_call]) {
        stopped(helper).await;
    }
    outcome.map_err(WorkerError::from)
}

/// Puts the parts together.
fn wire(
    config: &WorkerConfig,
    Opened { regions, network, settings, revoked }: Opened,
    http: Option<SocketAddr>,
    notices: mpsc::Sender<Notice>,
) -> Result<Around, WorkerError> {
    let (store, name) = (config.store.clone(), config.identity.name().to_owned());
    let metrics = Metrics::new()?;
    metrics.on_disk_of(config.identity_folder.clone());
    let me = introduction(config, http, network);
    let links = Links::new(me, config.identity.clone(), metrics.clone(), notices);
    // Before the first dial.
    links.revoke(&revoked);
    let pipeline = Pipeline::new(
        store.clone(),
        config.deliver.clone(),
        links.clone(),
        Arc::new(Machine),
        Regions::new(regions.clone(), config.accept_unknown_gateways),
        metrics,
        name.clone(),
        Settings::new(settings),
        config.codecs.clone(),
    );
    let feed = Arc::new(Feed::new(store.clone(), links.clone(), pipeline.clone()));
    let roll = Roll::new(myself(config, http, &links), config.identity_folder.clone(), store.clone(), links.clone())
        .besides(&config.balancers)
        .telling(pipeline.troubles.clone(), pipeline.counted.clone())
        .setting(pipeline.urls_apart.clone())
        .following(pipeline.clone());
    let roll = Arc::new(roll);
    let view =
        LinkedCluster { links: links.clone(), feed: feed.clone(), pipeline: pipeline.clone(), roll: roll.clone() };
    let api = Api::new(api_state(config, view, &regions));
    Ok(Around {
        store,
        links,
        feed,
        pipeline,
        api,
        roll,
        join: config.join.clone(),
        identity_folder: config.identity_folder.clone(),
    })
}

/// What goes on beside the links.
fn helpers(
    around: &Around,
    sweep: Sweep,
    notices: mpsc::Receiver<Notice>,
    stop: &CancellationToken,
    end: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let Around { store, links, feed, pipeline, .. } = around.clone();
    let fed = {
        let end = end.clone();
        async move { feed.run(end).await }
    };
    let looked_back = {
        let (end, look) = (end.clone(), outage::look_back(store.clone(), links.instance(), sweep.clone()));
        async move { end.run_until_cancelled(look).await.unwrap_or_default() }
    };
    let taken_up = {
        let (end, pipeline) = (end.clone(), pipeline.clone());
        async move { end.run_until_cancelled(pipeline.take_up_when_there_is_room()).await.unwrap_or_default() }
    };
    vec![
        tokio::spawn(fed),
        tokio::spawn(taken_up),
        tokio::spawn(sweep.clone().run(pipeline.clone(), end.clone())),
        tokio::spawn(looked_back),
        tokio::spawn(run_pending(pipeline, links.instance(), end.clone())),
        tokio::spawn(readiness(store, links.clone(), stop.clone())),
        tokio::spawn(renewal(links, end.clone())),
        tokio::spawn(notices::run(notices, around.clone(), stop.clone(), end.clone())),
    ]
}

/// Until the first balancer has let this worker in; not for long, for the API serves without one too.
async fn linked(links: &Links) {
    let began = tokio::time::Instant::now();
    while !links.is_linked() && began.elapsed() < FIRST_LINK {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn stopped(helper: JoinHandle<()>) {
    let abort = helper.abort_handle();
    if tokio::time::timeout(Duration::from_secs(2), helper).await.is_err() {
        abort.abort();
    }
}

/// Also links up with the balancers that are found.
async fn first_failure(
    tasks: &mut JoinSet<Result<(), LinkError>>,
    found: &mut mpsc::Receiver<Found>,
    keep: impl Fn(&mut JoinSet<Result<(), LinkError>>, Vec<String>, CancellationToken),
) -> Result<(), LinkError> {
    loop {
        tokio::select! {
            biased;
            Some(balancer) = found.recv() => keep(tasks, vec![balancer.address], balancer.stop),
            Some(ended) = tasks.join_next() => if let Ok(Err(error)) = ended {
                return Err(error);
            },
            // No balancer to link up with: the API alone goes on.
            else => std::future::pending().await,
        }
    }
}

/// What this worker tells of itself that does not change.
fn myself(config: &WorkerConfig, http: Option<SocketAddr>, links: &Links) -> Server {
    let me = links.introduction();
    Server {
        reads_rows: limpet_store::READS_ROWS,
        name: me.name.clone(),
        role: Role::Worker.as_str().into(),
        http: http.map(|address| address.to_string()).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").into(),
        started_at: UnixMicros(me.started_at),
        instance: me.instance,
        key: config.identity.key_id().to_owned(),
        combined: config.combined,
        urls_apart: true,
        cluster: config.identity.ca_fingerprint().to_string(),
        ..Server::default()
    }
}

/// No new frames; then until nothing is in work.
async fn drain(links: &Links, pipeline: &Pipeline) {
    let (metrics, outcomes) = (&pipeline.metrics, &pipeline.outcomes);
    links.drain(true);
    let began = tokio::time::Instant::now();
    tokio::time::sleep(STRAGGLERS).await;
    while (metrics.in_flight().get() > 0 || outcomes.count() > 0) && began.elapsed() < DRAIN_LIMIT {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = metrics.in_flight().get();
    if left > 0 {
        tracing::warn!(left, "frames are not done after the time for draining; another worker gets them");
    } else {
        tracing::info!(took_ms = began.elapsed().as_millis() as u64, "drained");
    }
    let lost = outcomes.count();
    if lost > 0 {
        metrics.tx_acks_lost(lost as u64);
        tracing::warn!(
            lost,
            "TX_ACKs were not written down: their queue items count as not answered for, and are offered again"
        );
    }
}

async fn listen(address: Option<SocketAddr>) -> Result<Option<TcpListener>, WorkerError> {
    let Some(address) = address else { return Ok(None) };
    TcpListener::bind(address).await.map(Some).map_err(|source| WorkerError::Http { address, source })
}

fn introduction(config: &WorkerConfig, http: Option<SocketAddr>, network: Network) -> Introduction {
    Introduction {
        name: config.identity.name().to_owned(),
        instance: u64::from(Machine.random()) << 32 | u64::from(Machine.random()),
        http: http.map(|a| a.to_string()).unwrap_or_default(),
        started_at: Machine.now().0,
        weight: config.weight,
        network,
        store: config.store.describe(),
    }
}

/// Regions are the network's: the first worker's are written down, and every other's must be the same.
async fn network_regions(store: &dyn Store, asked: &[&'static Region]) -> Result<Vec<&'static Region>, WorkerError> {
    let names = |regions: &[&'static Region]| regions.iter().map(|r| r.name()).collect::<Vec<_>>().join(",");
    let have = if asked.is_empty() {
        let eu868 = b"eu868";
        match store.setting("regions").await? {
            Some(have) => have,
            None => store.init_setting("regions", eu868).await?,
        }
    } else {
        store.init_setting("regions", names(asked).as_bytes()).await?
    };
    let have = String::from_utf8_lossy(&have).into_owned();
    if !asked.is_empty() && names(asked) != have {
        return Err(WorkerError::Regions { asked: names(asked), have });
    }
    have.split(',').map(|n| Region::by_name(n).ok_or_else(|| WorkerError::UnknownRegion(n.to_owned()))).collect()
}

/// Tells the balancers whether the store answers.
async fn readiness(store: Arc<dyn Store>, links: Arc<Links>, stop: CancellationToken) {
    let every = if store.is_shared() { READY_EVERY } else { READY_EVERY_HERE };
    while !stop.is_cancelled() {
        match tokio::time::timeout(READY_WITHIN, store.ping()).await {
            Ok(Ok(())) => links.set_ready(true, ""),
            Ok(Err(error)) => links.set_ready(false, &error.to_string()),
            Err(_) => links.set_ready(false, "the store does not answer"),
        }
        tokio::select! {
            biased;
            () = links.beat.every(every) => {}
            () = stop.cancelled() => {}
        }
    }
    links.set_ready(false, "stopping");
}

/// Asks for a new certificate before the old one ends, or when the cluster has another CA.
async fn renewal(links: Arc<Links>, end: CancellationToken) {
    let mut asked: Option<tokio::time::Instant> = None;
    while !end.is_cancelled() {
        let identity = links.identity();
        let (other_ca, due) = (links.wants_new_ca(&identity), identity.is_due(Machine.now()));
        let again = if other_ca { OTHER_CA_AGAIN } else { DUE_AGAIN };
        if (other_ca || due)
            && asked.is_none_or(|at| at.elapsed() >= again)
            && let Ok(csr) = identity.csr()
        {
            asked = Some(tokio::time::Instant::now());
            links.broadcast(link::to_balancer::Kind::Renew(link::Renew { csr: csr.into() }));
        }
        tokio::select! {
            biased;
            () = links.beat.every(RENEWAL_LOOK) => {}
            () = end.cancelled() => {}
        }
    }
}

fn api_state(config: &WorkerConfig, view: LinkedCluster, regions: &[&'static Region]) -> ApiState {
    ApiState {
        store: config.store.clone(),
        codecs: config.codecs.clone(),
        cluster: Arc::new(view),
        regions: regions.iter().map(|r| r.name().to_owned()).collect(),
        default_region: regions.first().map(|r| r.name().to_owned()).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").into(),
        server: config.identity.name().to_owned(),
        gwmp: config.gwmp.clone(),
    }
}

#[cfg(test)]
mod tests {
    use limpet_store::SqliteStore;
    use limpet_store_testing::fault::{FaultStore, Faults};

    use super::*;

    /// Its first write is not answered, nor are those that follow for an hour.
    #[tokio::test(start_paused = true)]
    async fn a_worker_starts_when_its_store_answers_however_long_that_takes() {
        let store = FaultStore::new(SqliteStore::in_memory().unwrap(), 1, Faults::default());
        let (stop, regions) = (CancellationToken::new(), Vec::from_iter(Region::by_name("eu868")));
        let opening = || answered(&stop, || open(&*store, &[], &regions, None));
        for faults in [Faults { lose: 1_000, ..Faults::default() }, Faults { hide: 700, ..Faults::default() }] {
            store.set_faults(faults);
            let later = async {
                tokio::time::sleep(Duration::from_secs(3_600)).await;
                store.set_faults(Faults::default());
            };
            let (opened, ()) = tokio::join!(opening(), later);
            assert_eq!(opened.unwrap().expect("it has answered").regions, regions);
        }
        assert!(store.asked().writes < 2_000, "{:?}", store.asked());
        store.set_faults(Faults { refuse: 1_000, ..Faults::default() });
        let asked = store.asked();
        let stopped = async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            stop.cancel();
        };
        let (opened, ()) = tokio::join!(opening(), stopped);
        assert!(opened.unwrap().is_none() && store.asked() != asked);
    }

    /// What no time mends is said at once.
    #[tokio::test(start_paused = true)]
    async fn a_store_of_other_regions_is_refused() {
        let (store, stop) = (SqliteStore::in_memory().unwrap(), CancellationToken::new());
        let of = |name: &str| Vec::from_iter(Region::by_name(name));
        let us915 = of("us915");
        open(&*store, &[], &of("eu868"), None).await.unwrap();
        let other = answered(&stop, || open(&*store, &[], &us915, None)).await;
        assert!(matches!(other, Err(WorkerError::Regions { .. })));
    }
}
