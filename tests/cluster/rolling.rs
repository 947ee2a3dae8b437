//! An upgrade: every worker and both balancers are replaced one after another while devices send, and in between the
//! store is migrated for the next version. This version plays both: what a newer one adds to the messages of the link
//! is tested where those are.

use std::{sync::Arc, time::Instant};

use limpet_shared::{Eui64, admin::Request};

use crate::{
    account::{Account, settle},
    cluster::Cluster,
    collector::Collector,
    field::{Field, Load, Sent},
    millis, next_version, sized,
    support::{Limpet, eventually, free_address},
    turn_alone,
};

const WORKERS: [&str; 3] = ["alpha", "beta", "gamma"];
/// Every so many uplinks one is confirmed.
const CONFIRMED: u32 = 5;

struct Upgrade {
    cluster: Cluster,
    field: Arc<Field>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_loses_nothing() {
    let _turn = turn_alone().await;
    let collector = Collector::start().await;
    let cluster = Cluster::apart_with_two_balancers(&WORKERS).await;
    let gateways: Vec<Eui64> = cluster.gateways_of_each(1).await.concat();
    let (rate, devices) = (sized(100, 30), sized(100, 30));
    let field = Arc::new(Field::all_in_reach(&cluster, gateways, devices, &collector.url()).await);
    field.linked().await;
    let mut upgrade = Upgrade { cluster, field: field.clone() };
    let load = Load::start(&field, rate, CONFIRMED);
    tokio::time::sleep(millis(1_000)).await;

    upgrade.replace_worker(0).await;
    let version = next_version::migrate(upgrade.cluster.store()).await;
    println!("the store has schema {version}; three workers of the version before run on it");
    tokio::time::sleep(millis(1_000)).await;
    upgrade.replace_worker(1).await;
    upgrade.replace_worker(2).await;

    upgrade.replace_balancer_after_moving_its_gateways().await;
    let surprise = Instant::now();
    let what = "what was sent until then to be acknowledged without being sent again";
    eventually(what, async || load.log.acknowledged_until(surprise).then_some(())).await;
    let again = upgrade.replace_balancer_under_its_gateways().await;
    let over = Instant::now();
    tokio::time::sleep(millis(1_500)).await;

    let sent = load.stop().await;
    let account = settle(&sent, &collector).await;
    println!("upgraded: {account}");
    println!("  refused {:?}; unheard {}; {again} datagrams sent again", field.refused(), field.strays());
    println!("  {} downlink counters used, each for one downlink", field.assert_counters_used_once());
    account.assert_all_told();
    assert_eq!(account.unacked, 0, "a PUSH_ACK was not sent: {account}");
    let calm: Vec<Sent> = sent.iter().filter(|sent| sent.at < surprise || sent.at > over).cloned().collect();
    // What was on its way when its balancer went comes so late to the other one that it may miss both windows: its
    // device repeats it. Everything else is answered.
    println!("  {} without an ACK, sent when their balancer ended without notice", account.unanswered.len());
    Account::of(&calm, &collector.ups()).assert_all_answered();
    upgrade.refuses_what_it_does_not_know(version).await;
}

impl Upgrade {
    /// As an operator does it: no new frames, what it holds is finished, a newer one takes its place.
    async fn replace_worker(&mut self, index: usize) {
        let name = WORKERS[index].to_owned();
        let drain = |on| Request::drain(&name, on);
        self.cluster.done(&drain(true)).await;
        eventually(&format!("{name} to have nothing left"), async || {
            let servers = self.cluster.servers().await;
            let worker = servers.into_iter().find(|server| server.name == name)?;
            (worker.state == "draining" && worker.in_flight == 0).then_some(())
        })
        .await;
        let stopped = self.cluster.terminate_worker(index).await;
        assert!(stopped.status.success(), "{:?}: {:#?}", stopped.status, stopped.lines);
        self.cluster.start_worker(index);
        // A drain outlives the process.
        eventually(&format!("{name} to be back"), async || {
            let servers = self.cluster.servers().await;
            servers.iter().any(|server| server.name == name && server.state == "draining").then_some(())
        })
        .await;
        self.cluster.done(&drain(false)).await;
        self.cluster.linked(index).await;
    }

    /// As with an address that moves: the other balancer has the gateways before this one ends.
    async fn replace_balancer_after_moving_its_gateways(&mut self) {
        self.field.move_to(self.cluster.edges[1].gwmp).await;
        // Downlinks that were decided before leave by the way that was known then.
        tokio::time::sleep(millis(2_500)).await;
        self.restart_balancer(0).await;
    }

    /// Gateways find out by themselves, a little later, and send again what was not acknowledged. Returns how much.
    async fn replace_balancer_under_its_gateways(&mut self) -> usize {
        let stopped = self.cluster.edges[1].terminate().await;
        assert!(stopped.status.success(), "{:?}: {:#?}", stopped.status, stopped.lines);
        tokio::time::sleep(millis(300)).await;
        self.field.move_to(self.cluster.edges[0].gwmp).await;
        let again = self.field.send_again().await;
        assert!(again > 0, "nothing was on its way");
        tokio::time::sleep(millis(2_500)).await;
        self.start_balancer(1).await;
        again
    }

    async fn restart_balancer(&mut self, index: usize) {
        let stopped = self.cluster.edges[index].terminate().await;
        assert!(stopped.status.success(), "{:?}: {:#?}", stopped.status, stopped.lines);
        self.start_balancer(index).await;
    }

    async fn start_balancer(&mut self, index: usize) {
        self.cluster.edges[index].start().await;
        for worker in 0..WORKERS.len() {
            self.cluster.linked(worker).await;
        }
    }

    /// A worker of this version that finds the schema two ahead says so and ends; those that run are not disturbed.
    async fn refuses_what_it_does_not_know(&mut self, next: i64) {
        let after_next = next_version::migrate(self.cluster.store()).await;
        assert_eq!(after_next, next + 1);
        let data = self.cluster.path("late");
        let (http, store) = (free_address().to_string(), self.cluster.store().to_owned());
        let who = ["worker", "--name", "late", "--data", data.to_str().unwrap(), "--http", &http];
        let late = Limpet::start("late", &[&who[..], &["--store", &store, "--join", self.cluster.token()]].concat());
        let late = late.stopped().await;
        assert_eq!(late.status.code(), Some(1), "{:#?}", late.lines);
        let wanted = format!("has schema {after_next} (\"what version {after_next} adds\")");
        let says = |words: &str| late.lines.iter().any(|line| line.contains(words));
        assert!(says(&wanted) && says("start a newer version"), "{:#?}", late.lines);
        for (index, worker) in WORKERS.iter().enumerate() {
            assert!(self.cluster.is_ready(index).await, "{worker} was disturbed");
        }
    }
}
