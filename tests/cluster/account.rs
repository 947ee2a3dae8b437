//! What was sent against what was told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    collector::{Collector, Told, UplinkId, ids_by_uplink},
    field::Sent,
    full,
    support::PATIENCE,
};

/// Events may still come for so long after those that are expected.
const LATECOMERS: Duration = Duration::from_secs(2);
const SLOW: Duration = Duration::from_millis(500);

/// The account of a run.
#[derive(Debug, Default)]
pub struct Account {
    pub sent: usize,
    /// Uplinks for which at least one gateway got a PUSH_ACK.
    pub acked: usize,
    /// Of those, the ones without an event.
    pub lost: Vec<UplinkId>,
    /// Uplinks that nobody acknowledged, and those of them without an event.
    pub unacked: usize,
    pub unacked_untold: Vec<UplinkId>,
    /// Uplinks told under several ids.
    pub doubled: Vec<UplinkId>,
    /// Events of uplinks that were never sent.
    pub invented: Vec<UplinkId>,
    /// First deliveries of a device that came out of order.
    pub disordered: Vec<UplinkId>,
    /// Deliveries beyond the first of each uplink: allowed, but not many.
    pub repeated: usize,
    /// Confirmed uplinks, and those of them whose device heard no ACK.
    pub confirmed: usize,
    pub unanswered: Vec<UplinkId>,
    /// PUSH_ACK after PUSH_DATA, sorted.
    pub push_acks: Vec<Duration>,
    /// How long after the last uplink the last first delivery came.
    pub settled_after: Duration,
}

/// Waits until every acknowledged uplink is told, and some more, then sums up.
pub async fn settle(sent: &[Sent], collector: &Collector) -> Account {
    wait(sent, collector).await;
    Account::of(sent, &collector.ups())
}

/// The same for a part of what was sent: events of other uplinks are not looked at.
pub async fn settle_part(sent: &[Sent], collector: &Collector) -> Account {
    wait(sent, collector).await;
    let ours: BTreeSet<UplinkId> = sent.iter().map(|sent| sent.uplink).collect();
    let ups: Vec<Told> = collector.ups().into_iter().filter(|told| ours.contains(&told.uplink)).collect();
    Account::of(sent, &ups)
}

async fn wait(sent: &[Sent], collector: &Collector) {
    let acked: BTreeSet<UplinkId> = sent.iter().filter(|sent| sent.is_acked()).map(|sent| sent.uplink).collect();
    let start = Instant::now();
    loop {
        let told: BTreeSet<UplinkId> = collector.ups().iter().map(|told| told.uplink).collect();
        if acked.is_subset(&told) || start.elapsed() > PATIENCE {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    tokio::time::sleep(LATECOMERS).await;
}

impl Account {
    pub fn of(sent: &[Sent], ups: &[Told]) -> Self {
        let ids = ids_by_uplink(ups);
        let all: BTreeSet<UplinkId> = sent.iter().map(|sent| sent.uplink).collect();
        let told = |sent: &&Sent| ids.contains_key(&sent.uplink);
        let (acked, unacked): (Vec<&Sent>, Vec<&Sent>) = sent.iter().partition(|sent| sent.is_acked());
        let untold = |of: &[&Sent]| of.iter().filter(|sent| !told(sent)).map(|sent| sent.uplink).collect();
        let mut push_acks: Vec<Duration> =
            sent.iter().flat_map(|s| s.heard_by.iter().filter_map(|(_, a)| *a)).collect();
        push_acks.sort();
        let last_sent = sent.iter().map(|sent| sent.at).max().unwrap_or_else(Instant::now);
        let mut first = BTreeMap::new();
        for told in ups {
            first.entry(told.uplink).or_insert(told.at);
        }
        Self {
            sent: sent.len(),
            acked: acked.len(),
            lost: untold(&acked),
            unacked: unacked.len(),
            unacked_untold: untold(&unacked),
            doubled: ids.iter().filter(|(_, ids)| ids.len() > 1).map(|(uplink, _)| *uplink).collect(),
            invented: ids.keys().filter(|uplink| !all.contains(uplink)).copied().collect(),
            disordered: disordered(ups),
            repeated: ups.len() - ids.len(),
            confirmed: sent.iter().filter(|sent| sent.confirmed).count(),
            unanswered: sent.iter().filter(|s| s.confirmed && s.answered.is_none()).map(|s| s.uplink).collect(),
            push_acks,
            settled_after: first.values().max().map_or(Duration::ZERO, |at| at.saturating_duration_since(last_sent)),
        }
    }

    /// Nothing that was acknowledged is lost, nothing is told under two ids, nothing comes from nowhere.
    pub fn assert_nothing_lost_or_doubled(&self) {
        assert!(self.acked > 0, "nothing was acknowledged: {self}");
        assert!(self.lost.is_empty(), "acknowledged and lost: {:?}\n{self}", self.lost);
        assert!(self.doubled.is_empty(), "told under several ids: {:?}\n{self}", self.doubled);
        assert!(self.invented.is_empty(), "told but never sent: {:?}\n{self}", self.invented);
    }

    /// Also what was not acknowledged is told: its balancer lived.
    pub fn assert_all_told(&self) {
        self.assert_nothing_lost_or_doubled();
        assert!(self.unacked_untold.is_empty(), "sent and lost: {:?}\n{self}", self.unacked_untold);
    }

    /// Every confirmed uplink got its ACK in one of its windows.
    pub fn assert_all_answered(&self) {
        // A machine that needs this long for a PUSH_ACK may need too long for a receive window.
        let had_time = self.push_acks.last().is_some_and(|slowest| *slowest < SLOW);
        assert!(self.unanswered.is_empty() || !(had_time || full()), "without an ACK: {:?}\n{self}", self.unanswered);
    }

    pub fn assert_in_order(&self) {
        assert!(self.disordered.is_empty(), "first told after a later one: {:?}\n{self}", self.disordered);
    }
}

/// How long after its uplink each event came, sorted.
pub fn latencies(sent: &[Sent], collector: &Collector) -> Vec<Duration> {
    let at: BTreeMap<_, _> = sent.iter().map(|sent| (sent.uplink, sent.at)).collect();
    let ups = collector.ups();
    let mut all: Vec<_> = ups.iter().filter_map(|told| Some(told.at - *at.get(&told.uplink)?)).collect();
    all.sort_unstable();
    all
}

fn disordered(ups: &[Told]) -> Vec<UplinkId> {
    let (mut told, mut highest, mut found) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
    for up in ups.iter().filter(|up| told.insert(up.uplink)) {
        let (device, f_cnt) = up.uplink;
        let before = highest.entry(device).or_insert(f_cnt);
        if *before > f_cnt {
            found.push(up.uplink);
        }
        *before = f_cnt.max(*before);
    }
    found
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let quantile = |of: usize| self.push_acks.get((self.push_acks.len().max(1) - 1) * of / 1000).copied();
        let ms = |of| quantile(of).map_or(0.0, |time: Duration| time.as_secs_f64() * 1e3);
        write!(
            f,
            "{} uplinks, {} acknowledged, {} of them lost; {} not acknowledged, {} of them not told; {} doubled, {} told again, \
             {} out of order; {} confirmed, {} without an ACK; PUSH_ACK p50 {:.1} ms, p99 {:.1} ms, max {:.0} ms; settled {:.1} s after the last",
            self.sent,
            self.acked,
            self.lost.len(),
            self.unacked,
            self.unacked_untold.len(),
            self.doubled.len(),
            self.repeated,
            self.disordered.len(),
            self.confirmed,
            self.unanswered.len(),
            ms(500),
            ms(990),
            ms(1000),
            self.settled_after.as_secs_f64(),
        )
    }
}

/// A checker that sees nothing would find nothing wrong.
#[test]
fn the_account_sees_what_is_wrong() {
    let uplink = |f_cnt| (limpet_shared::Eui64(1), f_cnt);
    let at = Instant::now();
    let sent = |f_cnt, acked: bool| {
        let acked = acked.then_some(Duration::from_millis(1));
        let heard_by = vec![(limpet_shared::Eui64(9), None), (limpet_shared::Eui64(8), acked)];
        Sent { uplink: uplink(f_cnt), at, confirmed: false, heard_by, answered: None }
    };
    let told = |f_cnt, id: &str| Told { id: id.into(), uplink: uplink(f_cnt), at };
    let all = [sent(0, true), sent(1, true), sent(2, false), sent(3, true)];
    let account =
        Account::of(&all, &[told(1, "b"), told(0, "a"), told(0, "a"), told(3, "d"), told(3, "x"), told(7, "?")]);
    assert_eq!((account.acked, account.unacked, account.repeated), (3, 1, 2));
    assert!(account.lost.is_empty() && account.unacked_untold == [uplink(2)]);
    assert_eq!((account.doubled, account.invented), (vec![uplink(3)], vec![uplink(7)]));
    assert_eq!(account.disordered, [uplink(0)]);
    let account = Account::of(&all, &[told(0, "a")]);
    assert_eq!(account.lost, [uplink(1), uplink(3)]);
}
