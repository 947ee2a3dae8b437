//! Whose events are being sent now, and with what luck. Who is next is decided in [`limpet_worker_core::shares`].

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use limpet_integration::DeliveryError;
use limpet_link::host::{self, Rule};
use limpet_shared::Eui64;
use limpet_store::{IntegrationId, PendingEvent, StoreError, application_of, application_waited_for};
use limpet_worker_core::{
    model::Application,
    shares::{Asking, Health, Shares},
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Lease,
    addresses::Address,
    parting::part,
    refusal::{Refusal, set_aside, tells_of_one},
};
use crate::pipeline::Pipeline;

/// Events of one device sent in one turn.
const BATCH: u32 = 32;
/// An integration has this long to take a waiting event.
const LIMIT: Duration = Duration::from_secs(5);
/// Pauses after an integration failed: doubled up to the second number.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// What is known of an integration is forgotten when it had no turn for so long, or when so many are known.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
const KNOWN: usize = 50_000;
/// Tenants looked up at one moment.
const LOOKS: usize = 16;

type Device = (IntegrationId, Eui64);

/// What is known of an integration.
struct Standing {
    tenant: Uuid,
    health: Health,
    /// While it fails: the pause, and when it is tried again.
    pause: Duration,
    until: Instant,
    /// When a turn of it ended.
    last: Instant,
}

/// How a device's turn ended.
enum Ended {
    /// With all of it sent, or by losing the lease.
    Well { delivered: bool },
    /// The integration takes nothing now; it may have taken some before.
    Failed { delivered: bool },
    /// The integration does not want the first event that waits.
    Refused(Refusal),
    /// Nobody knows yet what the first event that waits says.
    NotYet(Refusal),
}

pub(super) struct Sending {
    pipeline: Arc<Pipeline>,
    lease: Arc<Lease>,
    stop: CancellationToken,
    turns: JoinSet<(Device, Result<Ended, StoreError>)>,
    shares: Shares,
    under_way: HashMap<Device, Asking>,
    known: HashMap<IntegrationId, Standing>,
    refused: HashMap<Device, Refusal>,
    /// Those that had no turn yet, in order.
    waiting: Vec<(IntegrationId, VecDeque<Eui64>)>,
}

impl Sending {
    pub fn new(pipeline: Arc<Pipeline>, lease: Arc<Lease>, stop: CancellationToken) -> Self {
        let (turns, shares, under_way, known, refused, waiting) = Default::default();
        Self { pipeline, lease, stop, turns, shares, under_way, known, refused, waiting }
    }

    /// For whom the next turn of the integration would be; `None` while it pauses.
    fn asking(&self, of: IntegrationId) -> Option<Asking> {
        let (tenant, health) = match self.known.get(&of) {
            Some(known) if known.health == Health::Failing && Instant::now() < known.until => return None,
            Some(known) => (known.tenant, known.health),
            None => (Uuid::nil(), Health::Unproven),
        };
        Some(Asking { tenant, integration: of.0, health })
    }

    pub fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    /// Integrations that get no turn now.
    pub fn aside(&self) -> Vec<IntegrationId> {
        let no_room = |of: &IntegrationId| !self.asking(*of).is_some_and(|asking| self.shares.has_room(&asking));
        self.known.keys().copied().filter(no_room).collect()
    }

    /// What a look has found besides the integrations that were aside: it begins with as many as there is room for, and
    /// goes on as turns end.
    pub async fn begin(&mut self, found: Vec<Device>, aside: Vec<IntegrationId>) {
        let now = Instant::now();
        self.refused.retain(|_, refusal| now < refusal.until + PAUSE.1);
        if self.known.len() > KNOWN {
            self.known.clear();
        }
        self.known.retain(|_, known| now < known.last + FORGOTTEN_AFTER);
        let aside: HashSet<_> = aside.into_iter().collect();
        self.waiting.retain(|(of, _)| aside.contains(of));
        let mut places = HashMap::new();
        for (of, device) in found {
            let place = *places.entry(of).or_insert_with(|| {
                self.waiting.push((of, VecDeque::new()));
                self.waiting.len() - 1
            });
            self.waiting[place].1.push_back(device);
        }
        self.meet().await;
        self.fill();
    }

    /// Learns whose the integrations are that nothing is known of.
    async fn meet(&mut self) {
        let strange: HashSet<_> =
            self.waiting.iter().map(|(of, _)| *of).filter(|of| !self.known.contains_key(of)).collect();
        let store = self.pipeline.store.clone();
        let looks = strange.into_iter().map(|of| {
            let store = store.clone();
            async move { (of, application_of(&*store, of).await) }
        });
        let found: Vec<_> = stream::iter(looks).buffer_unordered(LOOKS).collect().await;
        let now = Instant::now();
        for (of, found) in found {
            // What was removed is nobody's. What cannot be read now is looked up again with the next look.
            let Ok((found, _)) = found else { continue };
            let tenant = found.map(|application| application.tenant_id).unwrap_or_default();
            let known = Standing { tenant, health: Health::Unproven, pause: Duration::ZERO, until: now, last: now };
            self.known.insert(of, known);
        }
    }

    fn fill(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut open: Vec<_> = (0..waiting.len()).filter_map(|at| Some((at, self.asking(waiting[at].0)?))).collect();
        while let Some(next) = self.shares.next(open.iter().map(|(_, asking)| *asking)) {
            let (at, asking) = open[next];
            let (of, devices) = &mut waiting[at];
            match devices.pop_front() {
                Some(device) => self.start((*of, device), asking),
                None => drop(open.remove(next)),
            }
        }
        waiting.retain(|(_, devices)| !devices.is_empty());
        self.waiting = waiting;
    }

    /// Unless it has a turn, or waits for the next try of an event that was refused: then the next look finds it again.
    fn start(&mut self, device: Device, asking: Asking) {
        let aside = self.refused.get(&device).is_some_and(|refusal| Instant::now() < refusal.until);
        if aside || self.under_way.contains_key(&device) {
            return;
        }
        self.under_way.insert(device, asking);
        self.shares.begin(asking);
        let turn = DeviceTurn {
            pipeline: self.pipeline.clone(),
            lease: self.lease.clone(),
            stop: self.stop.clone(),
            device,
            refused: self.refused.get(&device).cloned(),
        };
        self.turns.spawn(async move { (device, turn.run().await) });
    }

    /// Waits until a turn has ended; for ever if there is none.
    pub async fn one_ended(&mut self) {
        match self.turns.join_next().await {
            Some(Ok((device, ended))) => {
                self.note(device, ended);
                self.fill();
            }
            Some(Err(error)) => {
                // Whose turn it was is not known: they all begin anew.
                tracing::error!(%error, "sending events broke off");
                self.turns.abort_all();
                while self.turns.join_next().await.is_some() {}
                self.under_way.clear();
                self.shares = Shares::default();
            }
            None => std::future::pending().await,
        }
    }

    fn note(&mut self, device: Device, ended: Result<Ended, StoreError>) {
        if let Some(asking) = self.under_way.remove(&device) {
            self.shares.end(&asking);
        }
        let Some(known) = self.known.get_mut(&device.0) else { return };
        known.last = Instant::now();
        match ended {
            Ok(Ended::Well { delivered }) => {
                self.refused.remove(&device);
                if delivered {
                    known.works();
                }
            }
            Ok(Ended::Failed { delivered }) => {
                if delivered {
                    known.works();
                }
                known.backs_off();
            }
            Ok(Ended::Refused(refusal)) => {
                // It answers, so it is there.
                known.works();
                self.refused.insert(device, refusal);
            }
            // That says nothing of the integration, and stops no other device.
            Ok(Ended::NotYet(pause)) => drop(self.refused.insert(device, pause)),
            Err(error) => self.pipeline.metrics.store_error("pending", &error),
        }
    }

    /// Turns end after the event that they are at.
    pub async fn end(mut self) {
        while self.turns.join_next().await.is_some() {}
    }
}

impl Standing {
    fn works(&mut self) {
        (self.health, self.pause) = (Health::Working, Duration::ZERO);
    }

    fn backs_off(&mut self) {
        let now = Instant::now();
        // Turns that were under way when the pause began fail with it; they do not lengthen it.
        if self.health == Health::Failing && now < self.until {
            return;
        }
        self.pause = (self.pause * 2).clamp(PAUSE.0, PAUSE.1);
        (self.health, self.until) = (Health::Failing, now + self.pause);
    }
}

/// A device's turn: its events in order, each deleted by its key once it was taken.
struct DeviceTurn {
    pipeline: Arc<Pipeline>,
    lease: Arc<Lease>,
    stop: CancellationToken,
    device: Device,
    /// What is known of the first one from an earlier turn.
    refused: Option<Refusal>,
}

impl DeviceTurn {
    async fn run(self) -> Result<Ended, StoreError> {
        let (pipeline, (integration, device)) = (&self.pipeline, self.device);
        let (mut delivered, mut removed, mut codec) = (false, 0, None);
        let mut waiting = pipeline.store.next_pending(integration, device, BATCH).await?;
        let application = self.application(&waiting).await?;
        if let Some(application) = &application
            && self.part(application).await?
        {
            if integration.0 == application.id {
                return Ok(Ended::Well { delivered });
            }
            waiting = pipeline.store.pending(integration, device, BATCH).await?;
        }
        if let Some(application) = application.as_ref().filter(|application| application.id == integration.0)
            && self.is_behind(application).await?
        {
            return Ok(Ended::Well { delivered });
        }
        let endpoint = application.as_ref().and_then(|application| application.endpoint(integration.0));
        for waiting in waiting {
            // Asked before each event: a pause of this process must not make two senders for longer than one event.
            if !self.lease.goes_on(pipeline, &self.stop).await? {
                break;
            }
            let Some(endpoint) = &endpoint else {
                // It was removed: there is nobody to tell.
                pipeline.metrics.pending_dropped("integration_removed", 1);
                pipeline.store.delete_pending(&waiting).await?;
                removed += 1;
                continue;
            };
            if !host::keeps(Rule::DeleteWhenTaken) {
                pipeline.store.delete_pending(&waiting).await?;
            }
            match pipeline.offer_waiting(&endpoint.http, &waiting, &mut codec, LIMIT).await? {
                Ok(complains) => {
                    pipeline.metrics.delivered(&waiting.event.kind);
                    // That an endpoint takes the word of a refusal does not mean that it takes events again.
                    if !tells_of_one(&waiting) {
                        pipeline.troubles.took(&waiting.event.device, endpoint);
                    }
                    delivered = true;
                    pipeline.store.delete_pending(&waiting).await?;
                    if complains {
                        break;
                    }
                }
                Err(DeliveryError::Undecoded(why)) => {
                    tracing::debug!(dev_eui = %device, why, "an event goes on waiting");
                    return Ok(Ended::NotYet(Refusal::not_yet(self.refused.as_ref(), &waiting)));
                }
                Err(error) if error.is_verdict() => {
                    pipeline.metrics.delivery_failed();
                    pipeline.troubles.failed(&waiting.event.device, endpoint, &error);
                    let refusal = Refusal::again(self.refused.as_ref(), &waiting);
                    // What only tells of a refusal is not worth the wait of those behind it.
                    if !refusal.is_final() && !tells_of_one(&waiting) {
                        return Ok(Ended::Refused(refusal));
                    }
                    set_aside(pipeline, &waiting, &error).await?;
                    // What tells of it stands in its place now, and was not read.
                    break;
                }
                Err(error) => {
                    pipeline.metrics.delivery_failed();
                    pipeline.troubles.failed(&waiting.event.device, endpoint, &error);
                    tracing::debug!(dev_eui = %device, %error, "an event goes on waiting");
                    return Ok(Ended::Failed { delivered });
                }
            }
        }
        if removed > 0 {
            self.tell_removed(removed);
        }
        Ok(Ended::Well { delivered })
    }

    /// With the endpoint that the first event waits for; `None` if that was removed, or nothing waits.
    async fn application(&self, waiting: &[PendingEvent]) -> Result<Option<Application>, StoreError> {
        let Some(first) = waiting.first() else { return Ok(None) };
        let application = application_waited_for(&*self.pipeline.store, first).await?;
        if let Some((application, endpoint)) =
            application.as_ref().and_then(|a| Some((a, a.endpoint(self.device.0.0)?)))
        {
            self.pipeline.addresses.learn(application, &endpoint);
        }
        Ok(application)
    }

    /// Whether something of this device waited for all URLs of the application together.
    async fn part(&self, application: &Application) -> Result<bool, StoreError> {
        part(&self.pipeline, application, self.device.1, (&self.stop, &self.lease)).await
    }

    /// Whether something waits for one of its URLs from when there were several: that goes first.
    async fn is_behind(&self, application: &Application) -> Result<bool, StoreError> {
        for endpoint in application.endpoints() {
            let apart = IntegrationId(endpoint.apart);
            if !self.pipeline.store.pending(apart, self.device.1, 1).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn tell_removed(&self, dropped: u64) {
        let (pipeline, (integration, device)) = (&self.pipeline, self.device);
        if let Some(unsaid) = pipeline.removed_endpoints.admit(pipeline.surroundings.now()) {
            let Address { application, application_id, endpoint } = pipeline.addresses.of(integration);
            tracing::warn!(
                application, %application_id, endpoint, integration = %integration.0, dev_eui = %device, dropped, unsaid,
                "events were dropped that waited for an integration, or a URL of one, that was removed"
            );
        }
    }
}
