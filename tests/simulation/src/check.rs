//! The promises of the design's first section, from what is seen outside.

mod recovery;
mod ring;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use uuid::Uuid;

use crate::{
    field::gateway_eui,
    plan::{ENOUGH, Habit, Plan, Theme, Trouble},
    seen::{Ask, Look, Seen, Serial, Told, What, reply},
};

/// An event is there within this time, if its endpoint is.
const PROMPT: Duration = Duration::from_secs(1);
/// A JoinRequest is answered within this time, in RX2 at the latest.
const JOIN_ANSWERED: Duration = Duration::from_millis(6_100);
/// A gateway that an operator has added is served from then on.
const SERVED_AFTER: Duration = Duration::from_millis(2_500);

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// Promise 1: a gateway has a PUSH_ACK for it, and no event was told.
    Lost(Serial),
    /// Promise 1: a device has joined, and no event was told.
    LostJoin(usize, u32),
    /// Promise 1: nobody was in the way, and a gateway got no PUSH_ACK.
    Unacked(Serial, usize),
    /// Promise 1: a confirmed uplink was stored in time, and got no ACK.
    Unanswered(Serial),
    /// The same for a JoinRequest, by its place among all.
    Unjoined(usize),
    /// Promise 2: one uplink under two event ids.
    TwoEvents(Serial, Uuid, Uuid),
    /// Promise 2: two uplinks under one event id.
    OneId(Uuid, Serial, Serial),
    /// Promise 2: an event again, though its endpoint took it.
    ToldTwice(Serial),
    /// Promise 2: an event does not name a gateway that heard the uplink at once.
    CopyMissing(Serial, usize),
    /// Promise 2: a gateway was asked twice for one window of one downlink.
    AskedTwice(usize),
    /// Promise 2: one uplink was answered under several FCntDowns.
    TwoAnswers(Serial),
    /// Promise 9: what an application enqueued in time did not leave in the windows of that uplink.
    LateReply(Serial),
    /// Promise 5: all troubles are over, and this uplink was not acknowledged, told or answered as by workers that had none.
    Forgotten(Serial),
    /// Promise 3: two different payloads under one DevAddr and FCntDown.
    CounterReused(u32, u16),
    /// The same, as a device has heard it.
    HeardReused(usize),
    /// Two JoinAccepts of one device with one JoinNonce.
    JoinNonceReused(usize, u32),
    /// More JoinAccepts for a device than it has used DevNonces.
    TwoSessions(usize),
    /// An event of an uplink that no device has sent.
    Invented(Serial),
    /// First deliveries of one device are not in the order of acceptance.
    OutOfOrder(Serial, Serial),
    /// Promise 8: an event came late, though its own endpoint was there.
    Late(Serial),
    /// A queue item is gone, and the application was told nothing of it.
    ItemLost(usize),
    /// Promise 4: two balancers with the same ring chose different workers for a gateway.
    Disagree(usize),
    /// Promise 4: a gateway was taken from its worker for no reason.
    Moved(usize),
    /// The ring changed though no worker went or came.
    RingChanged(usize),
    /// A worker that drains has a share of the ring.
    StillThere(String),
    /// A worker that has just come has its whole share.
    AllAtOnce(String),
    /// Promise 6: a task has panicked.
    Panicked(String),
}

impl Violation {
    /// Whether it is the same promise that was broken, of whatever uplink.
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(n) => write!(f, "promise 1: uplink {n} was acknowledged and never told"),
            Self::LostJoin(device, addr) => {
                write!(f, "promise 1: device {device} has joined as {addr:08x}, which was never told")
            }
            Self::Unacked(n, gateway) => write!(f, "promise 1: gateway {gateway} has no PUSH_ACK for uplink {n}"),
            Self::Unanswered(n) => write!(f, "promise 1: confirmed uplink {n} had no ACK"),
            Self::Unjoined(n) => write!(f, "promise 1: JoinRequest {n} had no JoinAccept"),
            Self::TwoEvents(n, one, other) => write!(f, "promise 2: uplink {n} was told as {one} and as {other}"),
            Self::OneId(id, one, other) => write!(f, "promise 2: uplinks {one} and {other} were both told as {id}"),
            Self::ToldTwice(n) => write!(f, "promise 2: uplink {n} was told twice though it was taken"),
            Self::CopyMissing(n, gateway) => write!(f, "promise 2: gateway {gateway} is missing in uplink {n}'s event"),
            Self::AskedTwice(gateway) => write!(f, "promise 2: gateway {gateway} was asked twice for one downlink"),
            Self::Forgotten(n) => write!(f, "promise 5: uplink {n} fares ill, though every trouble is over"),
            Self::TwoAnswers(n) => write!(f, "promise 2: uplink {n} was answered twice"),
            Self::LateReply(n) => write!(f, "promise 9: the answer to uplink {n} was not in its windows"),
            Self::CounterReused(addr, fcnt) => {
                write!(f, "promise 3: {addr:08x} was sent two payloads under FCntDown {fcnt}")
            }
            Self::HeardReused(device) => {
                write!(f, "promise 3: device {device} has heard two payloads under one FCntDown")
            }
            Self::JoinNonceReused(device, nonce) => {
                write!(f, "promise 3: device {device} was sent two JoinAccepts with JoinNonce {nonce}")
            }
            Self::TwoSessions(device) => write!(f, "promise 2: device {device} got more JoinAccepts than it asked for"),
            Self::Invented(n) => write!(f, "uplink {n} was told and never sent, or not so"),
            Self::OutOfOrder(one, other) => write!(f, "uplink {one} was told before uplink {other}"),
            Self::Late(n) => write!(f, "promise 8: uplink {n} was told late, though its endpoint was there"),
            Self::ItemLost(item) => write!(f, "queue item {item} is gone without a word"),
            Self::Disagree(gateway) => {
                write!(f, "promise 4: two balancers chose different workers for gateway {gateway}")
            }
            Self::Moved(gateway) => write!(f, "promise 4: gateway {gateway} was taken from its worker"),
            Self::RingChanged(balancer) => write!(f, "promise 4: balancer {balancer} has changed the ring"),
            Self::StillThere(worker) => write!(f, "{worker} drains and has a share of the ring"),
            Self::AllAtOnce(worker) => write!(f, "{worker} has come and had its whole share at once"),
            Self::Panicked(what) => write!(f, "promise 6: a panic: {what}"),
        }
    }
}

/// All that is known of a run when it is over.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub seen: Seen,
    pub told: Vec<Told>,
    pub looks: Vec<Look>,
    pub asks: Vec<Ask>,
    /// When an operator let a worker drain (true), or took that back; by name.
    pub drains: Vec<(Duration, String, bool)>,
    /// Queue items that were enqueued, and of these the ones that are in the queue still.
    pub items: BTreeSet<usize>,
    pub queued: BTreeSet<usize>,
    /// Devices of which events wait still: another worker, whose clock was ahead, had the right to send them.
    pub waiting: BTreeSet<usize>,
    /// Uplinks whose answers the API has taken in time.
    pub replied: BTreeSet<Serial>,
    /// When the last trouble began or ended.
    pub troubled_until: Duration,
    pub panics: Vec<String>,
}

/// Everything that was broken.
pub fn check(plan: &Plan, facts: &Facts) -> Vec<Violation> {
    let owed = plan.theme.owes();
    let mut found: Vec<Violation> = facts.panics.iter().cloned().map(Violation::Panicked).collect();
    found.extend(losses(plan, facts));
    found.extend(identities(plan, facts));
    found.extend(downlinks(plan, facts));
    found.extend(joins(plan, facts));
    found.extend(
        facts.items.iter().filter(|item| !is_accounted_for(plan, facts, **item)).map(|item| Violation::ItemLost(*item)),
    );
    found.extend(ring::check(plan, facts));
    found.extend(recovery::check(plan, facts));
    // The copy of the only gateway that would transmit may come late, by way of a worker whose store is slow.
    let asks_in_vain = plan.theme == Theme::Slow && plan.gateways.iter().any(|g| g.habit == Habit::RefusesAll);
    if owed.answers && !asks_in_vain {
        found.extend(unanswered(plan, &facts.seen));
    }
    if owed.order {
        found.extend(out_of_order(facts));
    }
    if owed.once || plan.theme == Theme::Endpoints && !plan.hears_no_thanks() {
        found.extend(twice(plan, facts));
    }
    if owed.copies {
        found.extend(copies(plan, facts));
    }
    if owed.prompt {
        found.extend(late(plan, facts));
    }
    found
}

/// The first time that each uplink was told, in order.
fn first_told(facts: &Facts) -> Vec<(Serial, &Told)> {
    let mut known = BTreeSet::new();
    let ups = facts.told.iter().filter_map(|told| match told.what {
        What::Up { serial, .. } => Some((serial, told)),
        _ => None,
    });
    ups.filter(|(serial, _)| known.insert(*serial)).collect()
}

fn losses(plan: &Plan, facts: &Facts) -> Vec<Violation> {
    let told: BTreeSet<Serial> = first_told(facts).into_iter().map(|(serial, _)| serial).collect();
    let lost = facts.seen.acked.iter().filter(|(serial, by)| {
        let Some(sent) = facts.seen.sent.get(serial) else { return false };
        // Later than its successor by more than clocks differ, it cannot be told from a replay.
        let at_once = by.iter().any(|gateway| !sent.late.contains(gateway));
        !told.contains(serial) && at_once && !may_be_of_before(plan, sent.device)
    });
    let mut found: Vec<Violation> = lost.map(|(serial, _)| Violation::Lost(*serial)).collect();
    let joined = |device: usize, addr: u32| {
        facts.told.iter().any(|told| told.device == device && told.what == What::Join { dev_addr: addr })
    };
    let entered = facts.seen.sessions.iter().filter(|(device, _)| plan.devices.get(*device).is_some_and(|d| d.joins));
    found.extend(entered.filter(|(d, addr)| !joined(*d, *addr)).map(|(d, addr)| Violation::LostJoin(*d, *addr)));
    found
}

/// Where frames come late or again, those of a device that counts anew may be of the time before for all that anybody knows, or of now.
fn may_be_of_before(plan: &Plan, device: usize) -> bool {
    let tells_restarts = !matches!(plan.theme, Theme::Everything | Theme::Gateways | Theme::Stalls | Theme::Aimed);
    let counts_anew = plan.devices.get(device).is_some_and(|d| !d.joins && d.starts_again_at.is_some());
    counts_anew && !tells_restarts
}

fn identities(plan: &Plan, facts: &Facts) -> Vec<Violation> {
    let (mut ids, mut serials, mut found) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for told in &facts.told {
        let What::Up { serial, dev_addr, fcnt, .. } = told.what else { continue };
        let sent = facts.seen.sent.get(&serial);
        if sent.is_none_or(|sent| (sent.device, sent.dev_addr, sent.fcnt) != (told.device, dev_addr, fcnt)) {
            found.push(Violation::Invented(serial));
        }
        let id = *ids.entry(serial).or_insert(told.id);
        if id != told.id && !may_be_of_before(plan, told.device) {
            found.push(Violation::TwoEvents(serial, id, told.id));
        }
        let known = *serials.entry(told.id).or_insert(serial);
        if known != serial {
            found.push(Violation::OneId(told.id, known, serial));
        }
    }
    found.sort();
    found.dedup();
    found
}

fn downlinks(plan: &Plan, facts: &Facts) -> Vec<Violation> {
    let seen = &facts.seen;
    let reused = seen.downlinks.iter().filter(|(_, bytes)| bytes.len() > 1).map(|((addr, fcnt), _)| (*addr, *fcnt));
    let mut found: Vec<Violation> = reused.map(|(addr, fcnt)| Violation::CounterReused(addr, fcnt)).collect();
    found.extend(seen.reused.iter().map(|device| Violation::HeardReused(*device)));
    // A copy that comes a second late, or once more then, looks like one that the device has sent again, which is acknowledged again.
    let comes_late = |trouble: &Trouble| {
        matches!(trouble, Trouble::PauseBalancer(_) | Trouble::Backhaul(..) | Trouble::Junk(_) | Trouble::Replay(_))
    };
    let may_repeat = plan.troubles.iter().flatten().any(|(_, trouble)| comes_late(trouble));
    let twice = seen.heard.iter().filter(|(serial, (counters, _))| **serial > 0 && counters.len() > 1 && !may_repeat);
    found.extend(twice.map(|(serial, _)| Violation::TwoAnswers(*serial)));
    if plan.theme == Theme::Calm {
        let carries = |serial: &Serial| seen.heard.get(serial).is_some_and(|(_, said)| said.contains(&reply(*serial)));
        found
            .extend(facts.replied.iter().filter(|serial| !carries(serial)).map(|serial| Violation::LateReply(*serial)));
    }
    // A balancer that has lost its gateway, or itself, may not know what went out before.
    let knows = [Theme::Calm, Theme::Endpoints, Theme::Kills, Theme::Operators, Theme::Slow, Theme::Aimed];
    if knows.contains(&plan.theme) {
        found.extend(seen.asked_twice.iter().map(|gateway| Violation::AskedTwice(*gateway)));
    }
    found
}

fn joins(plan: &Plan, facts: &Facts) -> Vec<Violation> {
    let (mut bytes, mut found) = (BTreeMap::<(usize, u32), BTreeSet<&[u8]>>::new(), Vec::new());
    for accept in &facts.seen.accepts {
        bytes.entry((accept.device, accept.join_nonce)).or_default().insert(&accept.phy);
    }
    let reused = bytes.iter().filter(|(_, bytes)| bytes.len() > 1);
    found.extend(reused.map(|((device, nonce), _)| Violation::JoinNonceReused(*device, *nonce)));
    for device in 0..plan.devices.len() {
        let asked: BTreeSet<u16> =
            facts.seen.joins.iter().filter(|asked| asked.device == device).map(|asked| asked.dev_nonce).collect();
        let accepts: usize = bytes.iter().filter(|((of, _), _)| *of == device).map(|(_, bytes)| bytes.len()).sum();
        if accepts > asked.len() {
            found.push(Violation::TwoSessions(device));
        }
    }
    found
}

/// It waits, or the application has heard of its end, or will.
fn is_accounted_for(plan: &Plan, facts: &Facts, item: usize) -> bool {
    let will_hear = plan.items.get(item).is_some_and(|(_, device)| facts.waiting.contains(device));
    will_hear || facts.queued.contains(&item) || facts.told.iter().any(|told| told.what == What::Item(item))
}

fn unanswered(plan: &Plan, seen: &Seen) -> Vec<Violation> {
    let missed = seen.sent.iter().filter(|(serial, sent)| {
        sent.confirmed
            && sent.can_be_answered
            && seen.acked.contains_key(serial)
            && seen.listened.contains(serial)
            && !seen.answered.contains(serial)
    });
    let mut found: Vec<Violation> = missed.map(|(serial, _)| Violation::Unanswered(*serial)).collect();
    let joins = seen.joins.iter().enumerate().filter(|(_, asked)| {
        // What was asked last may be answered after the end.
        asked.can_be_answered && asked.acked && !asked.accepted && asked.at + JOIN_ANSWERED < plan.uplinks_end + ENOUGH
    });
    found.extend(joins.map(|(at, _)| Violation::Unjoined(at)));
    found
}

/// By device and session: what counts anew begins anew.
fn out_of_order(facts: &Facts) -> Vec<Violation> {
    let (mut last, mut found) = (BTreeMap::<(usize, u32), Serial>::new(), Vec::new());
    for (serial, _) in first_told(facts) {
        let Some(sent) = facts.seen.sent.get(&serial) else { continue };
        let before = last.entry((sent.device, sent.dev_addr)).or_insert(serial);
        if *before > serial {
            found.push(Violation::OutOfOrder(*before, serial));
        }
        *before = (*before).max(serial);
    }
    found
}

/// The device's next uplink was sent before this one was told, by a worker whose store is slow: who accepts that one may not see yet that
/// the events of this one are out, and has them wait as well. To tell them twice is what is left then, under one id.
fn may_wait_too(plan: &Plan, facts: &Facts, serial: Serial) -> bool {
    let (Some(sent), Some((_, told))) =
        (facts.seen.sent.get(&serial), first_told(facts).into_iter().find(|(first, _)| *first == serial))
    else {
        return false;
    };
    let next = facts.seen.sent.range(serial + 1..).map(|(_, next)| next).find(|next| next.device == sent.device);
    plan.theme == Theme::Slow && next.is_some_and(|next| next.at < told.at)
}

fn twice(plan: &Plan, facts: &Facts) -> Vec<Violation> {
    let mut times = BTreeMap::<Serial, usize>::new();
    for told in &facts.told {
        if let What::Up { serial, .. } = told.what
            && !may_be_of_before(plan, told.device)
        {
            *times.entry(serial).or_default() += 1;
        }
    }
    let twice = times.into_iter().filter(|(_, times)| *times > 1).map(|(serial, _)| serial);
    twice.filter(|serial| !may_wait_too(plan, facts, *serial)).map(Violation::ToldTwice).collect()
}

fn copies(plan: &Plan, facts: &Facts) -> Vec<Violation> {
    let mut found = Vec::new();
    let is_served = |gateway: usize, at: Duration| {
        let added = plan.gateways.get(gateway).and_then(|gateway| gateway.added_at);
        added.is_none_or(|added| added + SERVED_AFTER < at)
    };
    for (serial, sent) in &facts.seen.sent {
        let heard = sent.heard.iter().copied().filter(|gateway| is_served(*gateway, sent.at));
        let acked = facts.seen.acked.get(serial);
        let silent = heard.filter(|gateway| !acked.is_some_and(|acked| acked.contains(gateway)));
        found.extend(silent.map(|gateway| Violation::Unacked(*serial, gateway)));
    }
    for (serial, told) in first_told(facts) {
        let (What::Up { gateways, .. }, Some(sent)) = (&told.what, facts.seen.sent.get(&serial)) else { continue };
        let is_deaf = plan.devices.get(sent.device).is_some_and(|device| device.is_deaf);
        let missing = sent
            .heard
            .iter()
            .filter(|gateway| is_served(**gateway, sent.at) && !gateways.contains(&gateway_eui(**gateway)));
        // What was sent twice was heard by one gateway once, and by another the second time.
        found.extend(missing.filter(|_| !is_deaf).map(|gateway| Violation::CopyMissing(serial, *gateway)));
    }
    found
}

/// Of applications whose endpoint was there all the time.
fn late(plan: &Plan, facts: &Facts) -> Vec<Violation> {
    let told = first_told(facts);
    let late = told.into_iter().filter(|(serial, told)| {
        let sent = facts.seen.sent.get(serial);
        // What a device sends again may have been heard only then.
        let device = plan.devices.get(told.device).filter(|device| !device.is_deaf);
        let application = device.map(|device| device.application);
        let is_there = application.is_some_and(|application| !plan.troubles_of_endpoint(application));
        is_there && sent.is_some_and(|sent| told.at > sent.at + PROMPT)
    });
    late.map(|(serial, _)| Violation::Late(serial)).collect()
}
