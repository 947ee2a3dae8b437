//! The gateways that were heard: where each one is, and whether it may come in.

use alloc::{collections::BTreeMap, vec::Vec};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use limpet_shared::{Eui64, Now, UnixMicros, gwmp::UpKind, policy::AddressPolicy};

use crate::{
    action::{DropReason, Source, WorkerId},
    addresses::{Addresses, EXPIRES, MOST_PULLERS, Place, Puller},
    answers::Answers,
    bucket::Bucket,
    cluster::Knowledge,
    config::Config,
    header::Header,
    lru::Lru,
};

/// How often a worker is told that a gateway is still there.
pub const SEEN_EVERY: Duration = Duration::from_secs(30);
/// How often all workers are told that a gateway has asked for downlinks here: at each PULL_DATA of most gateways, so
/// that one which turns to another balancer and back is followed.
const ASKED_EVERY: Duration = Duration::from_secs(5);
/// How often a change of address is told: some gateways push and pull from different ones.
const MOVED_EVERY: Duration = Duration::from_secs(1);
/// Gateways without an entry in the network that are served at one time.
pub const MAX_GUESTS: usize = 10_000;
/// Rejected gateways that are remembered.
pub const MAX_REJECTED: usize = 1_000;
/// Addresses of unknown gateways whose rate is watched.
const MAX_STRANGERS: usize = 4_096;
/// Rejections per second that are told to anybody: the list has them all.
const REPORT_RATE: u32 = 20;

/// A gateway that may come in.
#[derive(Clone, Debug, Default)]
pub struct Gateway {
    /// GWMP version of its last datagram; what each of its pullers reads stands there.
    pub version: u8,
    /// Where it is, and where downlinks go.
    pub addresses: Addresses,
    /// Source of the last datagram.
    pub address: Option<SocketAddr>,
    pub last_seen: UnixMicros,
    /// Its worker, as of an epoch of the ring.
    pub choice: Option<(u64, Option<WorkerId>)>,
    /// Epoch of the ring whose choice was published last.
    pub published: Option<u64>,
    /// What its TX_ACKs have shown.
    pub answers: Answers,
    /// When a worker was told last that it is there, and under which address.
    worker_told: Option<(Duration, SocketAddr)>,
    /// When all workers were told last that it asked for downlinks here.
    all_told: Option<Duration>,
    /// What it may send: from where it pulls, from where it pushes if that is another address, and in its name from anywhere
    /// else. So who speaks in its name cannot silence it.
    limits: [Limits; 3],
}

/// How much one may send.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    packets: Bucket,
    bytes: Bucket,
}

/// What a datagram costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub packets: u32,
    pub bytes: u32,
}

/// Why a datagram is not let in, and until when its like will not be, if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: DropReason,
    pub until: Option<Duration>,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self { reason, until: None }
    }
}

/// A gateway that the network does not know.
#[derive(Clone, Debug)]
pub struct Rejected {
    pub address: SocketAddr,
    pub last_seen: UnixMicros,
}

/// What is to be done after a datagram was let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// Its worker must be told, for the first time or again.
    pub tell_worker: bool,
    /// Where it was before it moved.
    pub moved_from: Option<SocketAddr>,
    /// Its downlinks go to another address than before.
    pub rerouted: bool,
    /// All workers must be told that it has asked for downlinks.
    pub tell_all: bool,
    /// A guest that had to make room.
    pub evicted: Option<Eui64>,
    /// Another address is held for it now, or none any more.
    pub held: Option<Option<IpAddr>>,
}

/// Where a downlink goes, and what the gateway there understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via {
    /// The gateway, as far as anybody can know.
    pub puller: Puller,
    /// Who else asks in its name: it may have moved there. Each has a copy, in the version that it reads.
    pub others: [Option<Puller>; MOST_PULLERS - 1],
    pub answers: Answers,
}

/// All gateways. Known ones are bounded by the network, all others by number; no unknown gateway can make a known
/// one's entry go.
#[derive(Clone, Debug)]
pub struct Gateways {
    known: BTreeMap<Eui64, Gateway>,
    guests: Lru<Eui64, Gateway>,
    rejected: Lru<Eui64, Rejected>,
    strangers: Lru<IpAddr, Bucket>,
    /// Addresses that an earlier run of the balancer has held, until their gateways are heard, and since when they count.
    holds: BTreeMap<Eui64, (IpAddr, Duration)>,
    reports: Bucket,
}

impl Default for Gateways {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            guests: Lru::new(MAX_GUESTS),
            rejected: Lru::new(MAX_REJECTED),
            strangers: Lru::new(MAX_STRANGERS),
            holds: BTreeMap::new(),
            reports: Bucket::default(),
        }
    }
}

impl Gateways {
    /// Lets a datagram in, or says why not. Before the first snapshot everybody comes in and workers judge.
    pub fn hear(
        &mut self,
        now: Now,
        (header, cost): (&Header, Cost),
        source: Source,
        knowledge: &Knowledge,
        config: &Config,
    ) -> Result<Admitted, Refusal> {
        let policy = knowledge.policy(header.gateway);
        let known = policy.is_some();
        let mut admitted = Admitted::default();
        let gateway = if known {
            let holds = &mut self.holds;
            self.known.entry(header.gateway).or_insert_with(|| {
                let held = holds.remove(&header.gateway).map(|(address, at)| Addresses::held_at(address, at));
                Gateway { addresses: held.unwrap_or_default(), ..Gateway::default() }
            })
        } else {
            if !self.stranger_within_rate(source.address.ip(), now.mono, config.unknown_rate, cost.packets) {
                return Err(DropReason::UnknownRate.into());
            }
            if knowledge.version() > 0 && !config.accept_unknown_gateways {
                return Err(DropReason::UnknownGateway.into());
            }
            if self.guests.touch(&header.gateway).is_none() {
                admitted.evicted = self.guests.insert(header.gateway, Gateway::default()).map(|(eui, _)| eui);
            }
            self.guests.peek_mut(&header.gateway).ok_or(DropReason::UnknownGateway)?
        };
        let address = source.address.ip();
        if let Some(policy) = policy {
            gateway.addresses.permit(policy, address, now.mono)?;
        }
        let place = gateway.addresses.place(address, header.kind, now.mono);
        gateway.within_limits(now.mono, place, cost, config)?;
        admitted.held = gateway.addresses.hold(policy, address, now.mono);
        gateway.hear(now, header, source, &mut admitted);
        if policy == Some(&AddressPolicy::Off) {
            admitted.moved_from = None;
        }
        Ok(admitted)
    }

    /// An address that an earlier run has held: as if the gateway had been heard there now.
    pub fn hold(&mut self, gateway: Eui64, address: IpAddr, now: Duration) {
        self.holds.insert(gateway, (address, now));
    }

    fn stranger_within_rate(&mut self, address: IpAddr, now: Duration, rate: u32, packets: u32) -> bool {
        if let Some(bucket) = self.strangers.touch(&address) {
            return bucket.take(now, rate, packets);
        }
        let mut bucket = Bucket::default();
        let within = bucket.take(now, rate, packets);
        self.strangers.insert(address, bucket);
        within
    }

    /// Remembers a rejected gateway: whether it is new here, and people should be told.
    pub fn reject(&mut self, now: Now, gateway: Eui64, address: SocketAddr) -> bool {
        if let Some(rejected) = self.rejected.touch(&gateway) {
            rejected.address = address;
            rejected.last_seen = now.unix;
            return false;
        }
        self.rejected.insert(gateway, Rejected { address, last_seen: now.unix });
        self.reports.take(now.mono, REPORT_RATE, 1)
    }

    /// Settles who is who after the network's knowledge has changed; the gateways that are out now.
    pub fn reconcile(&mut self, knowledge: &Knowledge, accept_unknown: bool) -> Vec<Eui64> {
        let mut out: Vec<Eui64> = self.known.keys().copied().filter(|&eui| !knowledge.knows(eui)).collect();
        self.known.retain(|&eui, _| knowledge.knows(eui));
        self.holds.retain(|&eui, _| knowledge.knows(eui));
        let guests: Vec<Eui64> = self.guests.iter().map(|(&eui, _)| eui).collect();
        for eui in guests {
            if knowledge.knows(eui) {
                // Whoever was let in while nobody knew better has not taken the place of the address that is held.
                match (self.guests.remove(&eui), self.holds.contains_key(&eui)) {
                    (Some(gateway), false) => drop(self.known.insert(eui, gateway)),
                    _ => out.push(eui),
                }
            } else if !accept_unknown {
                self.guests.remove(&eui);
                out.push(eui);
            }
        }
        let added: Vec<Eui64> = self.rejected.iter().map(|(&eui, _)| eui).filter(|&eui| knowledge.knows(eui)).collect();
        for eui in added {
            self.rejected.remove(&eui);
        }
        out
    }

    pub fn get(&self, gateway: Eui64) -> Option<&Gateway> {
        self.known.get(&gateway).or_else(|| self.guests.peek(&gateway))
    }

    pub fn get_mut(&mut self, gateway: Eui64) -> Option<&mut Gateway> {
        match self.known.get_mut(&gateway) {
            Some(found) => Some(found),
            None => self.guests.peek_mut(&gateway),
        }
    }

    /// Where its downlinks go, if it has asked for them lately.
    pub fn via(&self, gateway: Eui64, now: Duration) -> Option<Via> {
        let entry = self.get(gateway)?;
        let mut pullers = entry.addresses.pullers(now);
        let puller = pullers.next()?;
        Some(Via { puller, others: core::array::from_fn(|_| pullers.next()), answers: entry.answers })
    }

    /// Gateways whose downlinks can go out, and when they asked for them.
    pub fn asking(&self, now: Duration) -> impl Iterator<Item = (Eui64, Duration)> {
        let asked = self.heard().filter_map(|(eui, gateway, _)| Some((eui, gateway.addresses.asked_at()?)));
        asked.filter(move |(_, at)| now < *at + EXPIRES)
    }

    /// Gateways that were let in, and whether the network knows them.
    pub fn heard(&self) -> impl Iterator<Item = (Eui64, &Gateway, bool)> {
        let known = self.known.iter().map(|(&eui, gateway)| (eui, gateway, true));
        known.chain(self.guests.iter().map(|(&eui, gateway)| (eui, gateway, false)))
    }

    /// One of them.
    pub fn heard_of(&self, eui: Eui64) -> Option<(Eui64, &Gateway, bool)> {
        let known = self.known.get(&eui).map(|gateway| (eui, gateway, true));
        known.or_else(|| self.guests.peek(&eui).map(|gateway| (eui, gateway, false)))
    }

    /// Gateways that were rejected.
    pub fn rejected(&self) -> impl Iterator<Item = (Eui64, &Rejected)> {
        self.rejected.iter().map(|(&eui, rejected)| (eui, rejected))
    }

    /// How many entries there are: let in, and rejected.
    pub fn counts(&self) -> (usize, usize) {
        (self.known.len() + self.guests.len(), self.rejected.len())
    }
}

impl Gateway {
    fn within_limits(&mut self, now: Duration, place: Place, cost: Cost, config: &Config) -> Result<(), Refusal> {
        let [pull, push, elsewhere] = &mut self.limits;
        let limits = match place {
            Place::Pull => pull,
            Place::Push => push,
            Place::Elsewhere => elsewhere,
        };
        let full = |until| Refusal { reason: DropReason::GatewayRate, until: Some(until) };
        if let Some(until) = limits.packets.full_until(now, config.gateway_rate) {
            return Err(full(until));
        }
        if let Some(until) = limits.bytes.full_until(now, config.gateway_bytes) {
            return Err(Refusal { reason: DropReason::GatewayBytes, ..full(until) });
        }
        limits.packets.add(now, config.gateway_rate, cost.packets);
        limits.bytes.add(now, config.gateway_bytes, cost.bytes);
        Ok(())
    }

    fn hear(&mut self, now: Now, header: &Header, source: Source, admitted: &mut Admitted) {
        let (told_at, told) = self.worker_told.unwrap_or((now.mono, source.address));
        let moved = told.ip() != source.address.ip() && now.mono >= told_at + MOVED_EVERY;
        admitted.moved_from = moved.then_some(told);
        admitted.tell_worker = self.worker_told.is_none() || moved || now.mono >= told_at + SEEN_EVERY;
        if admitted.tell_worker {
            self.worker_told = Some((now.mono, source.address));
        }
        if header.kind == UpKind::PushData {
            self.addresses.pushed(source.address.ip(), now.mono);
        }
        if header.kind == UpKind::PullData {
            admitted.rerouted = self.addresses.pulled(source, header.version, now.mono);
            let pause = if admitted.rerouted { MOVED_EVERY } else { ASKED_EVERY };
            admitted.tell_all = self.all_told.is_none_or(|at| now.mono >= at + pause);
            if admitted.tell_all {
                self.all_told = Some(now.mono);
            }
        }
        self.version = header.version;
        self.address = Some(source.address);
        self.last_seen = now.unix;
    }
}
