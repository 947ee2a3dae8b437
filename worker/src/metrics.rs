//! What a worker counts: `limpet_worker_…`, base units, every drop with its reason.

mod process;
mod reasons;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use limpet_http::Counters;
use limpet_store::StoreError;
use limpet_worker_core::{
    load::Advice,
    model::{EventKind, RequestState},
    uplink::Acceptance,
};
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

use self::process::Process;
use crate::load;

/// Seconds from the balancer's receipt to the event being out: the window is 0.2 s, RX1 opens at 1 s.
const LATENCY_BUCKETS: &[f64] =
    &[0.05, 0.1, 0.2, 0.21, 0.22, 0.23, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 60.0, 600.0, 3600.0];

/// Seconds; a store is slow from a tenth of one on.
const STORE_BUCKETS: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// All metrics of one worker; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    frames: IntCounter,
    rxpk: IntCounter,
    dropped: IntCounterVec,
    accepted: IntCounterVec,
    joins: IntCounter,
    lost_races: IntCounter,
    takeovers: IntCounter,
    clocks_apart: IntCounter,
    mac_requests_given_up: IntCounterVec,
    downlinks: IntCounter,
    tx_acks: IntCounterVec,
    tx_acks_lost: IntCounter,
    events: IntCounterVec,
    delivery_failures: IntCounter,
    codec_failures: IntCounterVec,
    pending: IntCounter,
    pending_dropped: IntCounterVec,
    pending_events: GaugeVec,
    pending_oldest: GaugeVec,
    integrations_failing: IntGauge,
    store_errors: IntCounterVec,
    store_seconds: HistogramVec,
    process: Arc<Process>,
    latency: Histogram,
    in_flight: IntGauge,
    waiting_datagrams: IntGauge,
    awaiting_answers: Gauge,
    links: IntGauge,
    ready: IntGauge,
    weight: IntGauge,
    overloaded: IntGauge,
    load: GaugeVec,
    connections: Counters,
}

/// While this lives, so many datagrams wait for answers only.
pub struct AwaitingAnswers(Gauge, f64);

impl Drop for AwaitingAnswers {
    fn drop(&mut self) {
        self.0.sub(self.1);
    }
}

/// Registers a metric. A name or label that is not valid is a mistake in this file, which the tests below would show.
fn register<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> prometheus::Result<M> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn store_seconds(registry: &Registry) -> prometheus::Result<HistogramVec> {
    let opts = HistogramOpts::new(
        "limpet_worker_store_seconds",
        "Time that the store took for an operation that a frame waits for, also in vain.",
    );
    register(registry, HistogramVec::new(opts.buckets(STORE_BUCKETS.to_vec()), &["operation"]))
}

fn takeovers(registry: &Registry) -> prometheus::Result<IntCounter> {
    let help = "Uplinks and joins finished for another worker or an earlier life of this one.";
    register(registry, IntCounter::new("limpet_worker_takeovers_total", help))
}

fn mac_requests_given_up(registry: &Registry) -> prometheus::Result<IntCounterVec> {
    let help = "MAC commands that ask a device for something and are asked no more: refused, or never answered.";
    register(registry, IntCounterVec::new(Opts::new("limpet_worker_mac_requests_given_up_total", help), &["reason"]))
}

fn waiting_datagrams(registry: &Registry) -> prometheus::Result<IntGauge> {
    let help = "Datagrams in work that were not begun with: more come than can be done.";
    register(registry, IntGauge::new("limpet_worker_frames_waiting", help))
}

fn awaiting_answers(registry: &Registry) -> prometheus::Result<Gauge> {
    let help = "Datagrams in work of which all events are out, and only answers may still be decided; in part, those of which some are.";
    register(registry, Gauge::new("limpet_worker_frames_awaiting_answers", help))
}

fn connections(registry: &Registry) -> prometheus::Result<Counters> {
    let refused = Opts::new(
        "limpet_worker_http_connections_refused_total",
        "HTTP connections closed at once, by what there were too many of: connections in all, of one address or of one site.",
    );
    Ok(Counters {
        open: register(registry, IntGauge::new("limpet_worker_http_connections", "HTTP connections now."))?,
        refused: register(registry, IntCounterVec::new(refused, &["reason"]))?,
    })
}

fn uplink_seconds(registry: &Registry) -> prometheus::Result<Histogram> {
    let opts = HistogramOpts::new(
        "limpet_worker_uplink_seconds",
        "Time from the balancer's receipt of an uplink until its event is out (delivered, or safe in the pending table).",
    );
    register(registry, Histogram::with_opts(opts.buckets(LATENCY_BUCKETS.to_vec())))
}

const FAILING: &str =
    "Endpoints of applications that this worker has found not to take events, and not to take them again since.";

impl Metrics {
    pub fn new() -> prometheus::Result<Self> {
        let r = Registry::new();
        let counter = |name: &str, help: &str| register(&r, IntCounter::new(format!("limpet_worker_{name}"), help));
        let gauge = |name: &str, help: &str| register(&r, IntGauge::new(format!("limpet_worker_{name}"), help));
        let by = |name: &str, help: &str, label: &str| {
            register(&r, IntCounterVec::new(Opts::new(format!("limpet_worker_{name}"), help), &[label]))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(&r, GaugeVec::new(Opts::new(format!("limpet_worker_{name}"), help), labels))
        };
        let metrics = Self {
            frames: counter("frames_total", "Datagrams received from balancers, redeliveries included.")?,
            rxpk: counter("rxpk_total", "Packets in those datagrams.")?,
            dropped: by(
                "dropped_total",
                "Packets, frames and datagrams that ended without an event, by reason.",
                "reason",
            )?,
            accepted: by("uplinks_accepted_total", "Uplinks accepted by the compare-and-set, by kind.", "kind")?,
            joins: counter("joins_accepted_total", "JoinRequests accepted.")?,
            lost_races: counter("lost_races_total", "Conditional writes refused because another worker was faster.")?,
            takeovers: takeovers(&r)?,
            clocks_apart: counter(
                "clocks_apart_total",
                "Uplinks of devices that were heard or activated, by some server's clock, later than it is at the balancer now.",
            )?,
            mac_requests_given_up: mac_requests_given_up(&r)?,
            downlinks: counter("downlinks_total", "Downlinks handed to a balancer; the same bytes again count again.")?,
            tx_acks: by(
                "downlink_results_total",
                "What became of downlinks: OK, or the gateway's or balancer's error.",
                "result",
            )?,
            tx_acks_lost: counter(
                "downlink_results_lost_total",
                "Words of gateways on queue items that were not written down, as if nobody had said anything.",
            )?,
            events: by("events_delivered_total", "Events that an integration took, by kind.", "kind")?,
            delivery_failures: counter(
                "delivery_failures_total",
                "Attempts at delivery that failed; the event waits and is tried again.",
            )?,
            codec_failures: by("codec_failures_total", "Payloads that a codec could not decode, by reason.", "reason")?,
            pending: counter("events_pended_total", "Events put into the pending table.")?,
            pending_dropped: by("pending_dropped_total", "Waiting events given up, by reason.", "reason")?,
            pending_events: gauges(
                "pending_events",
                "Events that wait for an endpoint of an application; from the worker that sends them.",
                &["application", "endpoint"],
            )?,
            pending_oldest: gauges(
                "pending_oldest_seconds",
                "How long the oldest of them has waited.",
                &["application", "endpoint"],
            )?,
            integrations_failing: gauge("integrations_failing", FAILING)?,
            store_errors: by(
                "store_errors_total",
                "Store operations that failed and are tried again, by operation.",
                "operation",
            )?,
            latency: uplink_seconds(&r)?,
            in_flight: gauge("frames_in_flight", "Datagrams in work now.")?,
            waiting_datagrams: waiting_datagrams(&r)?,
            awaiting_answers: awaiting_answers(&r)?,
            links: gauge("links", "Balancers connected now.")?,
            ready: gauge("ready", "1 if the worker may receive traffic.")?,
            weight: gauge("weight", "The share of gateways that the worker asks for, 1 to 100.")?,
            overloaded: gauge("overloaded", "1 if the worker has more work than it can do well.")?,
            load: gauges("load_ratio", "Work by signal, smoothed; 1 is the limit.", &["signal"])?,
            store_seconds: store_seconds(&r)?,
            connections: connections(&r)?,
            process: Arc::new(Process::new(&r)?),
            registry: r,
        };
        metrics.begin_with_zeros();
        Ok(metrics)
    }

    /// Each series is there from the start, so that its first event is an increase.
    fn begin_with_zeros(&self) {
        reasons::DROPS.iter().for_each(|reason| self.dropped.with_label_values(&[*reason]).inc_by(0));
        for reason in ["refused", "unanswered"] {
            self.mac_requests_given_up.with_label_values(&[reason]).inc_by(0);
        }
        reasons::PENDING.iter().for_each(|reason| self.pending_dropped.with_label_values(&[*reason]).inc_by(0));
    }

    /// The folder whose disk counts.
    pub fn on_disk_of(&self, folder: PathBuf) {
        self.process.on_disk_of(folder);
    }

    /// The exposition that Prometheus scrapes.
    pub fn text(&self) -> String {
        self.process.look();
        let mut out = Vec::new();
        // Encoding into memory fails only for an inconsistent registry, which `new` would have refused.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        String::from_utf8(out).unwrap_or_default()
    }

    pub fn frame(&self) {
        self.frames.inc();
    }
    pub fn rxpk(&self) {
        self.rxpk.inc();
    }
    pub fn dropped(&self, reason: &'static str) {
        self.dropped.with_label_values(&[reasons::known(reason)]).inc();
    }
    pub fn accepted(&self, how: Acceptance) {
        let kind = match how {
            Acceptance::New => "new",
            Acceptance::Overtaken => "overtaken",
            Acceptance::AckAgain => "ack_again",
            Acceptance::Restarted => "restarted",
        };
        self.accepted.with_label_values(&[kind]).inc();
    }
    pub fn joined(&self) {
        self.joins.inc();
    }
    pub fn lost_race(&self) {
        self.lost_races.inc();
    }
    pub fn taken_over(&self) {
        self.takeovers.inc();
    }
    pub fn clocks_apart(&self) {
        self.clocks_apart.inc();
    }
    pub fn mac_request_given_up(&self, state: RequestState) {
        let reason = if state == RequestState::Refused { "refused" } else { "unanswered" };
        self.mac_requests_given_up.with_label_values(&[reason]).inc();
    }
    pub fn downlink(&self) {
        self.downlinks.inc();
    }
    pub fn tx_ack(&self, result: &str) {
        /// A gateway's error is text from outside: only words of the protocol become labels, or a hostile gateway could
        /// grow the metric without bound.
        const KNOWN: [&str; 13] = [
            "OK",
            "TOO_LATE",
            "TOO_EARLY",
            "COLLISION_PACKET",
            "COLLISION_BEACON",
            "TX_FREQ",
            "TX_POWER",
            "GPS_UNLOCKED",
            "NO_ROUTE",
            "NO_ANSWER",
            "OTHER_KIND",
            "QUEUE_FULL",
            "ASSUMED",
        ];
        let label = KNOWN.iter().find(|k| **k == result).unwrap_or(&"OTHER");
        self.tx_acks.with_label_values(&[*label]).inc();
    }
    pub fn tx_acks_lost(&self, count: u64) {
        self.tx_acks_lost.inc_by(count);
    }
    pub fn delivered(&self, kind: &EventKind) {
        self.events.with_label_values(&[kind.name()]).inc();
    }
    pub fn delivery_failed(&self) {
        self.delivery_failures.inc();
    }
    pub fn codec_failed(&self, reason: &str) {
        self.codec_failures.with_label_values(&[reason]).inc();
    }
    pub fn pending(&self) {
        self.pending.inc();
    }
    pub fn pending_dropped(&self, reason: &str, count: u64) {
        self.pending_dropped.with_label_values(&[reason]).inc_by(count);
    }
    /// What waits: ((application, endpoint), events, seconds that the oldest has waited). The hundred endpoints
    /// that most waits for have series of their own, all others one together.
    pub fn waiting(&self, backlog: Vec<((String, String), u64, f64)>) {
        const SERIES: usize = 100;
        // Two URLs may differ in what is not told of them.
        let mut by_label: BTreeMap<(String, String), (u64, f64)> = BTreeMap::new();
        for (label, events, oldest) in backlog {
            let sum = by_label.entry(label).or_default();
            *sum = (sum.0 + events, f64::max(sum.1, oldest));
        }
        let mut backlog: Vec<_> =
            by_label.into_iter().map(|(label, (events, oldest))| (label, events, oldest)).collect();
        backlog.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let rest = backlog.split_off(backlog.len().min(SERIES));
        if !rest.is_empty() {
            let (events, oldest) =
                rest.iter().fold((0, 0.0), |(events, oldest), of| (events + of.1, f64::max(oldest, of.2)));
            backlog.push((("other".into(), String::new()), events, oldest));
        }
        self.pending_events.reset();
        self.pending_oldest.reset();
        for ((application, endpoint), events, oldest) in backlog {
            self.pending_events.with_label_values(&[&application, &endpoint]).set(events as f64);
            self.pending_oldest.with_label_values(&[&application, &endpoint]).set(oldest);
        }
    }
    pub fn integrations_failing(&self, count: usize) {
        self.integrations_failing.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    pub fn store_error(&self, operation: &str, _error: &StoreError) {
        self.store_errors.with_label_values(&[operation]).inc();
    }
    /// An operation of the store that a frame waits for, once.
    pub fn store_took(&self, operation: &str, time: Duration) {
        self.store_seconds.with_label_values(&[operation]).observe(time.as_secs_f64());
    }
    pub fn out(&self, after: Duration) {
        self.latency.observe(after.as_secs_f64());
    }
    pub fn connections(&self) -> Counters {
        self.connections.clone()
    }
    /// So many datagrams cost nothing but time for now.
    pub fn awaiting_answers(&self, datagrams: f64) -> AwaitingAnswers {
        self.awaiting_answers.add(datagrams);
        AwaitingAnswers(self.awaiting_answers.clone(), datagrams)
    }
    /// Datagrams that there is something to do for.
    pub fn busy_with(&self) -> f64 {
        (self.in_flight.get() as f64 - self.awaiting_answers.get()).max(0.0)
    }
    /// Datagrams that were read and are not begun with.
    pub fn waiting_datagrams(&self, count: usize) {
        self.waiting_datagrams.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    pub fn in_flight(&self) -> &IntGauge {
        &self.in_flight
    }
    pub fn links(&self) -> &IntGauge {
        &self.links
    }
    /// What was measured, and what the balancers are told.
    pub fn load(&self, loads: &[f64; 4], advice: Advice) {
        for (signal, load) in load::labelled(loads) {
            self.load.with_label_values(&[signal]).set(load);
        }
        self.weight.set(advice.weight.into());
        self.overloaded.set(advice.overloaded.is_some().into());
    }
    pub fn set_ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_has_a_hundred_series_and_one_for_the_rest() {
        let metrics = Metrics::new().unwrap();
        metrics.waiting((0..150).map(|n| ((format!("app-{n}"), "http://a".into()), n, n as f64)).collect());
        let text = metrics.text();
        let series = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(series("limpet_worker_pending_events{"), 101);
        assert!(text.contains("limpet_worker_pending_events{application=\"app-149\",endpoint=\"http://a\"} 149\n"));
        assert!(text.contains("limpet_worker_pending_events{application=\"other\",endpoint=\"\"} 1225\n"), "0 to 49");
        assert!(text.contains("limpet_worker_pending_oldest_seconds{application=\"other\",endpoint=\"\"} 49\n"));
        // Two URLs of one host.
        metrics.waiting([3, 5].map(|n| (("app".into(), "http://a".into()), n, n as f64)).into());
        assert!(metrics.text().contains("limpet_worker_pending_events{application=\"app\",endpoint=\"http://a\"} 8\n"));
        metrics.waiting(Vec::new());
        assert!(!metrics.text().contains("application="), "nothing waits, or another worker tells");
    }

    #[test]
    fn words_of_gateways_do_not_become_labels() {
        let metrics = Metrics::new().unwrap();
        metrics.tx_ack("TOO_LATE");
        metrics.tx_ack("\"}evil 1\n");
        metrics.on_disk_of("/".into());
        metrics.store_took("put_reception", Duration::from_millis(3));
        let text = metrics.text();
        for there in [
            "limpet_worker_dropped_total{reason=\"bad_mic\"} 0",
            "limpet_worker_pending_dropped_total{reason=\"refused\"} 0",
            "limpet_worker_store_seconds_bucket{operation=\"put_reception\",le=\"0.005\"} 1",
            "limpet_worker_build_info{version=",
        ] {
            assert!(text.contains(there), "{there} is missing");
        }
        assert!(
            !text.contains("\nlimpet_worker_disk_size_bytes 0\n") && !text.contains("\nlimpet_worker_memory_bytes 0\n")
        );
        assert!(text.contains("limpet_worker_downlink_results_total{result=\"TOO_LATE\"} 1"));
        assert!(text.contains("limpet_worker_downlink_results_total{result=\"OTHER\"} 1"));
        assert!(!text.contains("evil"));
    }
}
