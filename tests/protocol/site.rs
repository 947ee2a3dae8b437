//! Virtual gateways and the air around them, with an ear for every PULL_RESP.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use limpet_bench::{
    Air, Caught, Coverage, Downlink, Flight, GatewayConfig, Received, Transmission, VirtualDevice, VirtualGateway,
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::support::{PATIENCE, eventually};

/// How long after everything came it is watched that nothing more does.
pub const QUIET: Duration = Duration::from_secs(2);
/// How long a device that has heard something goes on listening here.
const LINGER: Duration = Duration::from_millis(300);
/// How long a PUSH_ACK may take.
const PUSH_ACK_WITHIN: Duration = Duration::from_secs(20);

pub struct Site {
    pub gateways: Vec<Arc<VirtualGateway>>,
    air: Air,
    downlinks: Vec<UnboundedReceiver<Downlink>>,
}

/// What came of one transmission.
#[derive(Debug)]
pub struct Exchange {
    /// What the device heard, with the window's number.
    pub heard: Vec<(u8, Received)>,
    /// Every PULL_RESP that came to any gateway meanwhile.
    pub downlinks: Vec<Downlink>,
}

impl Exchange {
    /// One downlink was decided: every PULL_RESP had its bytes and was for another window of the same gateway. Says in
    /// which window the device heard it. RX2 repeats it if the gateway refused RX1, or did not answer in time, which
    /// happens on a busy machine.
    pub fn only(&self) -> (u8, &Received) {
        let bytes: BTreeSet<_> = self.downlinks.iter().map(|downlink| &downlink.txpk.data).collect();
        let windows: BTreeSet<_> = self.downlinks.iter().map(|d| (d.gateway, d.txpk.tmst)).collect();
        let gateways: BTreeSet<_> = self.downlinks.iter().map(|downlink| downlink.gateway).collect();
        let counts = (self.heard.len(), bytes.len(), gateways.len());
        assert_eq!(counts, (1, 1, 1), "heard, decided, for a gateway: {self:#?}");
        assert_eq!(windows.len(), self.downlinks.len(), "each window once: {self:#?}");
        (self.heard[0].0, &self.heard[0].1)
    }

    /// No downlink was decided.
    pub fn none(&self) {
        assert!(self.heard.is_empty() && self.downlinks.is_empty(), "no downlink was to be decided: {self:#?}");
    }
}

impl Site {
    /// Starts gateways and waits until the server knows the way to each.
    pub async fn start(configs: Vec<GatewayConfig>) -> Self {
        let mut gateways = Vec::new();
        for config in configs {
            gateways.push(Arc::new(VirtualGateway::start(config).await.unwrap()));
        }
        for gateway in &gateways {
            let what = format!("PULL_ACK at gateway {}", gateway.eui());
            eventually(&what, async || (gateway.counters().pull_acked > 0).then_some(())).await;
        }
        let downlinks = gateways.iter().map(|gateway| gateway.downlinks()).collect();
        Self { air: Air::new(gateways.clone()), gateways, downlinks }
    }

    /// Sends a packet to the gateways that hear it, waits for the PUSH_ACK of each, and listens through both windows.
    pub async fn exchange(
        &mut self,
        device: &mut VirtualDevice,
        packet: &Transmission,
        coverage: &[Coverage],
    ) -> Exchange {
        let mut flight = self.transmit(packet, coverage).await;
        let heard = hear(device, &mut flight).await;
        Exchange { heard, downlinks: self.drain() }
    }

    /// Sends a packet to the gateways that hear it, and waits for the PUSH_ACK of each.
    pub async fn transmit(&self, packet: &Transmission, coverage: &[Coverage]) -> Flight {
        let mut flight = self.air.transmit(packet, coverage).await.unwrap();
        for push in std::mem::take(&mut flight.pushes) {
            assert!(push.acked(PUSH_ACK_WITHIN).await.is_some(), "a PUSH_DATA is acknowledged");
        }
        flight
    }

    /// Sends a packet that every gateway hears well.
    pub async fn exchange_with_all(&mut self, device: &mut VirtualDevice, packet: &Transmission) -> Exchange {
        let coverage: Vec<_> = (0..self.gateways.len()).map(Coverage::good).collect();
        self.exchange(device, packet, &coverage).await
    }

    /// The PULL_RESPs that came since the last look.
    pub fn drain(&mut self) -> Vec<Downlink> {
        let mut all = Vec::new();
        for ear in &mut self.downlinks {
            while let Ok(downlink) = ear.try_recv() {
                all.push(downlink);
            }
        }
        all.sort_by_key(|downlink| downlink.arrived);
        all
    }
}

/// All that the device hears in its windows. Once it has heard something, it listens only a little longer: what may be
/// repeated is repeated by then.
async fn hear(device: &mut VirtualDevice, flight: &mut Flight) -> Vec<(u8, Received)> {
    let (mut heard, mut last) = (Vec::new(), None);
    while let Some(caught) = listen(flight, !heard.is_empty()).await {
        if last.replace(caught.phy.clone()).as_ref() != Some(&caught.phy) {
            heard.push((caught.window, device.receive(&caught.phy).unwrap()));
        }
    }
    heard
}

async fn listen(flight: &mut Flight, not_long: bool) -> Option<Caught> {
    let time = if not_long { LINGER } else { PATIENCE };
    tokio::time::timeout(time, flight.next()).await.ok()?
}
