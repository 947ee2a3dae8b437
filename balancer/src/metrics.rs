//! What the balancer counts. Names are `limpet_balancer_…`, in base units.

use std::{sync::Arc, time::Duration};

use limpet_balancer_core::{DropReason, Redelivery, Stats};
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Upper bounds of the PUSH_ACK histogram. A forwarder gives up after 100 ms.
const ACK_SECONDS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0];
/// What a downlink can come to: success, our own words, and those that forwarders have.
const RESULTS: [&str; 14] = [
    "sent",
    "NO_ROUTE",
    "NO_ANSWER",
    "QUEUE_FULL",
    "TOO_LATE",
    "TOO_EARLY",
    "COLLISION_PACKET",
    "COLLISION_BEACON",
    "TX_FREQ",
    "TX_POWER",
    "GPS_UNLOCKED",
    "DUTY_CYCLE_OVERFLOW",
    "INTERNAL_ERROR",
    "other",
];
const STATES: [&str; 6] = ["joining", "ready", "overloaded", "draining", "suspect", "ejected"];
const KINDS: [&str; 3] = ["push_data", "pull_data", "tx_ack"];

/// All metrics of one balancer; clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    counters: Arc<Counters>,
}

struct Counters {
    /// By kind, and by reason: looked up once, not for each datagram.
    received: [(&'static str, IntCounter); KINDS.len()],
    dropped: Vec<(DropReason, IntCounter)>,
    kernel_dropped: IntCounter,
    send_failed: IntCounter,
    push_ack: Histogram,
    push_ack_withheld: IntCounter,
    redelivered: IntCounterVec,
    spilled: IntCounter,
    pull_resp: IntCounter,
    downlinks: IntCounterVec,
    ring_changes: IntCounter,
    refused_workers: IntCounter,
    verdicts_held: IntCounter,
    stalls: IntCounter,
    moves: IntCounter,
    retained_bytes: IntGauge,
    retained_frames: IntGauge,
    in_flight: IntGauge,
    gateways: IntGaugeVec,
    workers: IntGaugeVec,
    ring_epoch: IntGauge,
    cluster_version: IntGauge,
    http: limpet_http::Counters,
}

impl Metrics {
    /// Fails only if two metrics have one name.
    pub fn new(software: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = Arc::new(Counters::register(&Register(&registry))?);
        let build = Register(&registry).gauges("build_info", "The software that runs.", "version")?;
        build.with_label_values(&[software]).set(1);
        // Each series is there from the start, so that its first event is an increase.
        RESULTS.iter().for_each(|result| counters.downlinks.with_label_values(&[result]).inc_by(0));
        for why in [Redelivery::Silent, Redelivery::Closed, Redelivery::Slow] {
            counters.redelivered.with_label_values(&[why.label()]).inc_by(0);
        }
        Ok(Self { registry, counters })
    }

    pub fn received(&self, kind: &str) {
        self.counters.received.iter().filter(|(known, _)| *known == kind).for_each(|(_, counter)| counter.inc());
    }
    pub fn dropped(&self, reason: DropReason) {
        self.counters.dropped.iter().filter(|(known, _)| *known == reason).for_each(|(_, counter)| counter.inc());
    }
    pub fn send_failed(&self) {
        self.counters.send_failed.inc();
    }
    pub fn push_acked(&self, after: Duration) {
        self.counters.push_ack.observe(after.as_secs_f64());
    }
    pub fn push_ack_withheld(&self) {
        self.counters.push_ack_withheld.inc();
    }
    pub fn redelivered(&self, why: Redelivery) {
        self.counters.redelivered.with_label_values(&[why.label()]).inc();
    }
    pub fn spilled(&self) {
        self.counters.spilled.inc();
    }
    pub fn pull_resp(&self) {
        self.counters.pull_resp.inc();
    }
    /// `error` is a gateway's word, so it is no label before it is known to be one of few.
    pub fn downlink(&self, error: &str) {
        let result = if error.is_empty() { "sent" } else { error };
        let result = RESULTS.iter().copied().find(|known| *known == result).unwrap_or("other");
        self.counters.downlinks.with_label_values(&[result]).inc();
    }
    pub fn ring_changed(&self) {
        self.counters.ring_changes.inc();
    }
    pub fn worker_refused(&self) {
        self.counters.refused_workers.inc();
    }
    pub fn verdicts_held(&self) {
        self.counters.verdicts_held.inc();
    }
    pub fn gateway_moved(&self) {
        self.counters.moves.inc();
    }
    pub fn connections(&self) -> limpet_http::Counters {
        self.counters.http.clone()
    }
    pub fn stalled(&self) {
        self.counters.stalls.inc();
    }

    /// Everything as Prometheus reads it.
    pub fn render(&self, stats: &Stats, kernel_drops: Option<u64>) -> Result<String, prometheus::Error> {
        self.counters.set_gauges(stats);
        if let Some(drops) = kernel_drops {
            let counter = &self.counters.kernel_dropped;
            counter.inc_by(drops.saturating_sub(counter.get()));
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Counters {
    fn register(r: &Register<'_>) -> Result<Self, prometheus::Error> {
        let push_ack = HistogramOpts::new(
            "limpet_balancer_push_ack_seconds",
            "Time from receiving a PUSH_DATA to sending its PUSH_ACK.",
        );
        let push_ack = Histogram::with_opts(push_ack.buckets(ACK_SECONDS.to_vec()))?;
        r.0.register(Box::new(push_ack.clone()))?;
        let received = r.counters("received_datagrams_total", "Datagrams of gateways that were let in.", "type")?;
        let dropped = r.counters("dropped_total", "Datagrams and downlinks that ended here.", "reason")?;
        let by_reason = |reason: &DropReason| (*reason, dropped.with_label_values(&[reason.label()]));
        Ok(Self {
            push_ack,
            push_ack_withheld: r.counter(
                "push_acks_withheld_total",
                "PUSH_DATAs without a PUSH_ACK, since they were stored more than 2 s after they came.",
            )?,
            received: KINDS.map(|kind| (kind, received.with_label_values(&[kind]))),
            dropped: DropReason::ALL.iter().map(by_reason).collect(),
            kernel_dropped: r.counter(
                "kernel_dropped_datagrams_total",
                "Datagrams that the kernel dropped because its buffer was full.",
            )?,
            send_failed: r.counter("send_failures_total", "Datagrams that the kernel did not take.")?,
            redelivered: r.counters("redeliveries_total", "Frames given to another worker.", "reason")?,
            spilled: r.counter(
                "spilled_frames_total",
                "Frames that went past their worker because it leaves too much unread.",
            )?,
            pull_resp: r.counter("pull_resp_total", "PULL_RESPs sent to gateways.")?,
            downlinks: r.counters("downlinks_total", "Downlinks that are settled.", "result")?,
            ring_changes: r.counter("ring_changes_total", "Changes of the ring.")?,
            refused_workers: r.counter("refused_workers_total", "Workers that were not let in.")?,
            verdicts_held: r.counter(
                "verdicts_held_total",
                "Times that more than half of the workers fell silent at once and were not believed at first.",
            )?,
            moves: r.counter(
                "gateway_moves_total",
                "Times that a gateway spoke from another address, unless its policy is off.",
            )?,
            stalls: r.counter("stalls_total", "Times that the balancer itself did not run when it should have.")?,
            retained_bytes: r.gauge("retained_bytes", "Memory of frames that no worker is done with.")?,
            retained_frames: r.gauge("retained_frames", "Frames that no worker is done with.")?,
            in_flight: r.gauge("downlinks_in_flight", "Downlinks that are not settled.")?,
            gateways: r.gauges("gateways", "Gateways: known to the network, heard, rejected.", "state")?,
            workers: r.gauges("workers", "Connected workers.", "state")?,
            ring_epoch: r.gauge("ring_epoch", "Number of the ring, counted up with each change.")?,
            cluster_version: r.gauge("cluster_version", "Version of the cluster's snapshot; 0 before the first.")?,
            http: limpet_http::Counters {
                open: r.gauge("http_connections", "HTTP connections now.")?,
                refused: r.counters(
                    "http_connections_refused_total",
                    "HTTP connections closed at once, by what there were too many of: connections in all, of one address or of one site.",
                    "reason",
                )?,
            },
        })
    }

    fn set_gauges(&self, stats: &Stats) {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.retained_bytes.set(number(stats.retained_bytes));
        self.retained_frames.set(number(stats.retained_frames));
        self.in_flight.set(number(stats.downlinks));
        self.gateways.with_label_values(&["known"]).set(number(stats.known_gateways));
        self.gateways.with_label_values(&["heard"]).set(number(stats.gateways));
        self.gateways.with_label_values(&["rejected"]).set(number(stats.rejected_gateways));
        for state in STATES {
            let count = stats.workers.get(state).copied().unwrap_or_default();
            self.workers.with_label_values(&[state]).set(number(count));
        }
        self.ring_epoch.set(i64::try_from(stats.ring_epoch).unwrap_or(i64::MAX));
        self.cluster_version.set(i64::try_from(stats.cluster_version).unwrap_or(i64::MAX));
    }
}

/// Makes metrics and registers them.
struct Register<'a>(&'a Registry);

impl Register<'_> {
    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("limpet_balancer_{name}"), help)
    }
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let metric = IntCounter::with_opts(Self::opts(name, help))?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
    fn counters(&self, name: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
        let metric = IntCounterVec::new(Self::opts(name, help), &[label])?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let metric = IntGauge::with_opts(Self::opts(name, help))?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
    fn gauges(&self, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, prometheus::Error> {
        let metric = IntGaugeVec::new(Self::opts(name, help), &[label])?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_every_reason() {
        let page = include_str!("../../docs/operations/scraping.md");
        let (_, section) = page.split_once("#### Reasons of `limpet_balancer_dropped_total`\n").unwrap();
        let rows = section.lines().take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with("| `"));
        let mut documented: Vec<&str> =
            rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2)).collect();
        let mut reasons: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.label()).collect();
        documented.sort_unstable();
        reasons.sort_unstable();
        assert_eq!(documented, reasons);
    }

    #[test]
    fn every_series_is_there_from_the_start_and_follows_the_conventions() {
        let metrics = Metrics::new("1.2.3").unwrap();
        metrics.downlink("ANYTHING_A_GATEWAY_SAYS");
        metrics.push_acked(Duration::from_millis(3));
        let text = metrics.render(&Stats::default(), Some(7)).unwrap();
        for line in [
            r#"limpet_balancer_dropped_total{reason="unknown_gateway"} 0"#,
            r#"limpet_balancer_downlinks_total{result="other"} 1"#,
            r#"limpet_balancer_push_ack_seconds_bucket{le="0.005"} 1"#,
            "limpet_balancer_kernel_dropped_datagrams_total 7",
            r#"limpet_balancer_workers{state="ready"} 0"#,
            r#"limpet_balancer_build_info{version="1.2.3"} 1"#,
            "limpet_balancer_http_connections 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        for line in text.lines().filter(|l| l.starts_with("# TYPE") && l.ends_with(" counter")) {
            assert!(line.contains("_total "), "{line}");
        }
    }
}
