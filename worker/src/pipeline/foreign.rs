//! Frames of other networks, which most of what a gateway hears may be. They end before anything is stored: one read of a
//! partition that has no rows, and no second one at SERIAL, for a session's row is written before its device can use it. No frame
//! is judged by the network in its DevAddr, since devices by ABP may have any.

use std::collections::{HashMap, HashSet};

use limpet_shared::{
    DevAddr, UnixMicros,
    lorawan::{self, Frame},
};
use limpet_store::Freshness;
use limpet_worker_core::model::{DedupKey, Reception};
use parking_lot::Mutex;

use super::{Pipeline, work::APART};

/// DevAddrs with sessions, and frames of strangers, that are remembered.
const OURS: usize = 200_000;
const STRANGERS: usize = 20_000;

#[derive(Default)]
pub(crate) struct Foreign {
    /// DevAddrs that had a session when they were looked up: their frames are stored at once.
    ours: Mutex<HashSet<DevAddr>>,
    /// When a copy was received of frames that are nobody's. Its other copies are not looked up; a later frame of the same
    /// device is, for it may have been added meanwhile.
    frames: Mutex<HashMap<DedupKey, UnixMicros>>,
}

impl Foreign {
    fn is_ours(&self, addr: DevAddr) -> bool {
        self.ours.lock().contains(&addr)
    }

    fn note_ours(&self, addr: DevAddr) {
        let mut ours = self.ours.lock();
        if ours.len() >= OURS {
            ours.clear();
        }
        ours.insert(addr);
    }

    /// The DevAddr has no session any more.
    pub fn note_unused(&self, addr: DevAddr) {
        self.ours.lock().remove(&addr);
    }

    fn is_copy(&self, reception: &Reception) -> bool {
        let at = reception.received_at;
        self.frames.lock().get(&reception.key).is_some_and(|seen| at.since(*seen) < APART && seen.since(at) < APART)
    }

    fn note_frame(&self, reception: &Reception) {
        let mut frames = self.frames.lock();
        if frames.len() >= STRANGERS {
            frames.clear();
        }
        frames.insert(reception.key, reception.received_at);
    }
}

impl Pipeline {
    /// Whether somebody here may have sent it. If not, it is counted.
    pub(super) async fn may_be_ours(&self, reception: &Reception) -> bool {
        let Ok(frame) = lorawan::parse(&reception.phy) else { return true };
        let known = match &frame {
            Frame::Data(data) if self.foreign.is_ours(data.dev_addr) => return true,
            _ if self.foreign.is_copy(reception) => false,
            Frame::Data(data) => self.has_session(data.dev_addr).await,
            Frame::JoinRequest(request) => {
                let device = || self.store.device_context(request.dev_eui);
                self.until_stored("device_context", device).await.is_some()
            }
            _ => return true,
        };
        if known {
            return true;
        }
        self.foreign.note_frame(reception);
        match &frame {
            Frame::Data(data) => self.drop_unknown("unknown_dev_addr", data.dev_addr),
            Frame::JoinRequest(request) => drop(self.refuse("unknown_dev_eui", request)),
            _ => {}
        }
        false
    }

    async fn has_session(&self, addr: DevAddr) -> bool {
        let rows = self.until_stored("sessions_by_addr", || self.store.sessions_by_addr(addr, Freshness::Quorum)).await;
        if !rows.is_empty() {
            self.foreign.note_ours(addr);
        }
        !rows.is_empty()
    }
}
