//! Every downlink that was handed to any gateway, whether a device heard it or not: no FCntDown may stand for two
//! different ones.

use std::collections::{BTreeMap, BTreeSet};

use limpet_bench::{Downlink, VirtualGateway};
use limpet_shared::{
    DevAddr,
    lorawan::{Direction, Frame, parse},
};
use tokio::sync::mpsc::UnboundedReceiver;

/// Listens to gateways. Devices are ABP ones, so that a DevAddr is a session.
#[derive(Default)]
pub struct Counters {
    ears: Vec<UnboundedReceiver<Downlink>>,
    used: BTreeMap<(DevAddr, u16), BTreeSet<Vec<u8>>>,
}

impl Counters {
    pub fn listen(&mut self, gateway: &VirtualGateway) {
        self.ears.push(gateway.downlinks());
    }

    fn note(&mut self, phy: &[u8]) {
        let Ok(Frame::Data(frame)) = parse(phy) else { panic!("no downlink: {phy:02x?}") };
        assert_eq!(frame.direction, Direction::Down);
        self.used.entry((frame.dev_addr, frame.fcnt)).or_default().insert(phy.to_vec());
    }

    /// How many counters were used so far, and those of them that were used for different bytes.
    pub fn sum_up(&mut self) -> (usize, Vec<(DevAddr, u16)>) {
        let mut ears = std::mem::take(&mut self.ears);
        for ear in &mut ears {
            while let Ok(downlink) = ear.try_recv() {
                self.note(&downlink.txpk.data);
            }
        }
        self.ears = ears;
        let reused = self.used.iter().filter(|(_, bytes)| bytes.len() > 1).map(|(counter, _)| *counter);
        (self.used.len(), reused.collect())
    }
}

/// A checker that sees nothing would find nothing wrong.
#[test]
fn a_counter_that_is_used_for_other_bytes_is_seen() {
    // Unconfirmed data down, DevAddr, FCtrl, FCnt, FPort, MIC.
    let downlink = |addr, f_cnt, mic| [0x60, addr, 0, 0, 0, 0, f_cnt, 0, 1, mic, 0, 0, 0];
    let mut counters = Counters::default();
    for (addr, f_cnt, mic) in [(1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 1, 3)] {
        counters.note(&downlink(addr, f_cnt, mic));
    }
    assert_eq!(counters.sum_up(), (3, vec![]));
    counters.note(&downlink(2, 1, 4));
    assert_eq!(counters.sum_up(), (3, vec![(DevAddr(2), 1)]));
}
