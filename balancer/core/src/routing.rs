//! The ring as it is now, numbered.

use alloc::{string::String, vec::Vec};

use limpet_shared::{Eui64, ring::Ring};

use crate::action::WorkerId;

/// A worker's place in the ring: name, weight and connection.
pub type Member = (String, u32, WorkerId);

/// The ring of the workers that may get frames. A choice is valid for one epoch, so it can be kept with its gateway.
#[derive(Clone, Debug)]
pub struct Routing {
    key: [u8; 16],
    ring: Ring,
    /// In the order of names.
    members: Vec<Member>,
    epoch: u64,
}

impl Routing {
    /// A ring without workers.
    pub fn new(key: [u8; 16]) -> Self {
        Self { key, ring: Ring::new::<&str>(&key, &[]), members: Vec::new(), epoch: 0 }
    }

    /// Rebuilds the ring if anything differs. `members` are in the order of names.
    pub fn update(&mut self, key: [u8; 16], members: Vec<Member>) -> bool {
        if key == self.key && members == self.members {
            return false;
        }
        let weights: Vec<(&str, u32)> = members.iter().map(|(name, weight, _)| (name.as_str(), *weight)).collect();
        self.ring = Ring::new(&key, &weights);
        self.key = key;
        self.members = members;
        self.epoch += 1;
        true
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The gateway's worker.
    pub fn choose(&self, gateway: Eui64) -> Option<WorkerId> {
        self.id(self.ring.choose(gateway)?)
    }

    /// The gateway's worker on a ring without those in `avoid`.
    pub fn choose_avoiding(&self, gateway: Eui64, avoid: &[WorkerId]) -> Option<WorkerId> {
        let names: Vec<&str> =
            self.members.iter().filter(|(_, _, id)| avoid.contains(id)).map(|(name, _, _)| name.as_str()).collect();
        self.id(self.ring.choose_avoiding(gateway, &names)?)
    }

    /// Whether anybody has a share.
    pub fn is_empty(&self) -> bool {
        self.members.iter().all(|(_, weight, _)| *weight == 0)
    }

    fn id(&self, name: &str) -> Option<WorkerId> {
        let at = self.members.binary_search_by(|(member, _, _)| member.as_str().cmp(name)).ok()?;
        self.members.get(at).map(|(_, _, id)| *id)
    }
}
