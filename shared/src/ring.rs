//! The ring that decides which worker has which gateway. It depends on nothing but the cluster's key, the workers'
//! names and their weights, so that two balancers which see the same workers agree on every gateway.
//!
//! # Encoding (fixed: changing it moves every gateway of every running cluster)
//!
//! Positions are SipHash-1-3 under the cluster's 16-byte key (Aumasson and Bernstein, 2012):
//!
//! ```text
//! point i of a worker   SipHash( 0x01 | u32 i, big-endian | name, UTF-8 )    for i < 512 * weight / 100
//! gateway               SipHash( 0x02 | EUI, 8 bytes, big-endian )
//! ```
//!
//! A gateway belongs to the first point at or after its own position, wrapping at the end. The points of a lower weight
//! are a subset of those of a higher one, so a change of one worker's weight moves gateways to or from that worker only.
//! Should two points ever share a position, the worker whose name sorts first has it.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::hash::{BuildHasher, Hash, Hasher};

use hashring::HashRing;
use siphasher::sip::SipHasher13;

use crate::Eui64;

#[cfg(test)]
mod tests;

/// The weight of a full share.
pub const FULL_WEIGHT: u32 = 100;
/// Points on the ring of a worker with [`FULL_WEIGHT`]: with fewer, some fleets move more than 1.2/N of the gateways
/// when a worker comes or goes.
pub const POINTS: u32 = 512;

/// Workers on a ring, for one key and one vector of weights. It is rebuilt, never changed.
#[derive(Clone, Debug)]
pub struct Ring {
    key: [u8; 16],
    /// In the order of their names.
    workers: Vec<Member>,
    points: HashRing<Point, PassThrough>,
}

#[derive(Clone, Debug)]
struct Member {
    name: String,
    weight: u32,
    share: f64,
}

/// Where a worker stands on the ring.
#[derive(Clone, Copy, Debug)]
struct Point {
    at: u64,
    worker: usize,
}

/// A position to look up.
struct Position(u64);

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.at);
    }
}
impl Hash for Position {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Hands positions to `hashring` as they are. They are computed here, by the encoding above: the derived `Hash` of a
/// type is no stable format, and a walk along the ring needs to look up "just after that point".
#[derive(Clone, Copy, Debug, Default)]
struct PassThrough(u64);

impl BuildHasher for PassThrough {
    type Hasher = Self;
    fn build_hasher(&self) -> Self {
        Self::default()
    }
}
impl Hasher for PassThrough {
    fn write(&mut self, bytes: &[u8]) {
        // Demanded by the trait; our positions come as u64.
        self.0 = bytes.iter().fold(self.0, |acc, &byte| acc.rotate_left(8) ^ u64::from(byte));
    }
    fn write_u64(&mut self, position: u64) {
        self.0 = position;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

impl Ring {
    /// A ring of `workers`: name and weight, 0 (no share) to [`FULL_WEIGHT`]. Their order does not matter; of a name
    /// that comes twice the last weight counts.
    pub fn new<N: AsRef<str>>(key: &[u8; 16], workers: &[(N, u32)]) -> Self {
        let weights: BTreeMap<&str, u32> =
            workers.iter().map(|(name, weight)| (name.as_ref(), (*weight).min(FULL_WEIGHT))).collect();
        let mut workers: Vec<Member> =
            weights.into_iter().map(|(name, weight)| Member { name: name.into(), weight, share: 0.0 }).collect();
        let members = workers.iter().enumerate();
        let mut taken: Vec<(u64, usize)> = members
            .flat_map(|(worker, member)| {
                let count = POINTS * member.weight / FULL_WEIGHT;
                (0..count).map(move |index| (point_position(key, &member.name, index), worker))
            })
            .collect();
        // A ring of many workers is made while frames wait: sorting at once takes a fraction of what a tree does.
        taken.sort_unstable();
        taken.dedup_by_key(|(at, _)| *at);
        measure_shares(&taken, &mut workers);
        let mut points = HashRing::with_hasher(PassThrough::default());
        points.batch_add(taken.into_iter().map(|(at, worker)| Point { at, worker }).collect());
        Self { key: *key, workers, points }
    }

    /// The worker that has the gateway; `None` if nobody has a share.
    pub fn choose(&self, gateway: Eui64) -> Option<&str> {
        let point = self.points.get(&Position(self.position(gateway)))?;
        self.workers.get(point.worker).map(|m| m.name.as_str())
    }

    /// The worker that would have the gateway on a ring without those in `avoid`.
    pub fn choose_avoiding(&self, gateway: Eui64, avoid: &[&str]) -> Option<&str> {
        let remain = self.workers.iter().any(|m| m.weight > 0 && !avoid.contains(&m.name.as_str()));
        if !remain {
            return None;
        }
        self.walk(gateway).find(|name| !avoid.contains(name))
    }

    /// The first `n` different workers from the gateway's position on: its own, then who would follow.
    pub fn order(&self, gateway: Eui64, n: usize) -> Vec<&str> {
        let with_share = self.workers.iter().filter(|m| m.weight > 0).count();
        let mut order: Vec<&str> = Vec::new();
        for name in self.walk(gateway) {
            if order.len() >= n.min(with_share) {
                break;
            }
            if !order.contains(&name) {
                order.push(name);
            }
        }
        order
    }

    /// Every worker with its weight and its exact share of the ring, 0 to 1, in the order of names.
    pub fn shares(&self) -> impl Iterator<Item = (&str, u32, f64)> {
        self.workers.iter().map(|m| (m.name.as_str(), m.weight, m.share))
    }

    /// The worker of each point, once around from the gateway's position.
    fn walk(&self, gateway: Eui64) -> impl Iterator<Item = &str> {
        let mut position = self.position(gateway);
        (0..self.points.len()).filter_map(move |_| {
            let point = self.points.get(&Position(position))?;
            position = point.at.wrapping_add(1);
            self.workers.get(point.worker).map(|m| m.name.as_str())
        })
    }

    fn position(&self, gateway: Eui64) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(&[2]);
        hasher.write(&gateway.0.to_be_bytes());
        hasher.finish()
    }
}

fn point_position(key: &[u8; 16], name: &str, index: u32) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write(&[1]);
    hasher.write(&index.to_be_bytes());
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// A point has the arc from the point before it, exclusive, to itself; the first one also what follows the last.
fn measure_shares(points: &[(u64, usize)], workers: &mut [Member]) {
    let Some(&(last, _)) = points.last() else { return };
    let mut before = last;
    for &(at, worker) in points {
        let arc = if points.len() == 1 { u64::MAX } else { at.wrapping_sub(before) };
        if let Some(member) = workers.get_mut(worker) {
            // 2^64 as a float; an arc is exact to 53 bits, which is more than a share is good for.
            member.share += arc as f64 / 18_446_744_073_709_551_616.0;
        }
        before = at;
    }
}
