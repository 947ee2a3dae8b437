//! From a worker's downlink to the gateway, and back with what became of it.

use alloc::vec::Vec;

use limpet_shared::{
    Eui64, Now,
    link::{Downlink, TxAck, to_worker::Kind as ToWorker},
};

use super::Balancer;
use crate::{
    action::{Action, DropReason, Event, Source, WorkerId},
    downlink::{Answer, Output},
    header::Header,
    health::Verdict,
};

impl Balancer {
    pub(super) fn downlink(&mut self, now: Now, worker: WorkerId, downlink: Downlink) {
        let via = self.gateways.via(Eui64(downlink.gateway), now.mono);
        let mut out = Vec::new();
        self.downlinks.on_downlink(now, worker, downlink, via, &mut out);
        self.carry_out(out);
    }

    pub(super) fn tx_ack(&mut self, now: Now, header: &Header, source: Source, body: &[u8]) -> Result<(), DropReason> {
        let (gateway, address) = (header.gateway, source.address.ip());
        let addresses = self.gateways.get(gateway).map(|entry| &entry.addresses);
        let addresses = addresses.filter(|addresses| addresses.answers_from(address, now.mono));
        let at_home = addresses.ok_or(DropReason::TxAckAddress)?.pulls_from(address, now.mono);
        let via = self.gateways.via(gateway, now.mono);
        let answer = Answer { gateway, token: header.token, at_home, body };
        let mut out = Vec::new();
        let answered = self.downlinks.on_tx_ack(now, &answer, via, &mut out);
        if let Some(entry) = self.gateways.get_mut(gateway) {
            match answered {
                Ok(Some(time)) => entry.answers.matched(time),
                // Whoever else speaks in its name says nothing of how it answers.
                Err(DropReason::TxAckUnmatched) if at_home => entry.answers.unmatched(),
                _ => {}
            }
        }
        answered?;
        self.carry_out(out);
        Ok(())
    }

    pub(super) fn downlinks_due(&mut self, now: Now) {
        let mut out = Vec::new();
        let gateways = &self.gateways;
        self.downlinks.on_timeout(now, |gateway| gateways.via(gateway, now.mono), &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send { gateway, window, to, bytes } => {
                    self.push(Action::SendUdp { to, bytes });
                    self.event(Event::DownlinkSent { gateway, window });
                }
                Output::Copy { to, bytes } => self.push(Action::SendUdp { to, bytes }),
                Output::Settled { worker, ack } => self.report(worker, ack),
                Output::Drop { gateway, reason } => self.dropped(reason, Some(gateway), None),
            }
        }
    }

    /// Any worker can act on a TX_ACK: the one that asked, if it can hear, else the gateway's, else anyone.
    fn report(&mut self, asked: WorkerId, ack: TxAck) {
        let gateway = Eui64(ack.gateway);
        self.event(Event::DownlinkSettled { gateway, window: ack.window, error: ack.error.clone() });
        let hears = |id: &WorkerId| self.workers.get(*id).is_some_and(|w| w.vitals.verdict == Verdict::Well);
        let hearer = Some(asked)
            .filter(hears)
            .or_else(|| self.routing.choose(gateway).filter(hears))
            .or_else(|| self.workers.iter().map(|(id, _)| id).find(hears))
            .or_else(|| self.workers.get(asked).map(|_| asked));
        match hearer {
            Some(worker) => self.control(worker, ToWorker::TxAck(ack)),
            None => self.dropped(DropReason::TxAckUnheard, Some(gateway), None),
        }
    }
}
