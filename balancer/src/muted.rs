//! Who sends too much is not even handed to the driver, which has said until when: what a flood costs then is its reading.

use std::{net::IpAddr, sync::Arc, time::Duration};

use dashmap::DashMap;
use limpet_balancer_core::{DropReason, header::Header};
use limpet_shared::Eui64;

use crate::metrics::Metrics;

/// So many are remembered; all others the driver refuses one by one.
const MOST: usize = 4_096;

/// A gateway, as heard from one address.
type Sender = (Eui64, IpAddr);

/// Until when (monotonic) which senders are not listened to. The driver writes it, the socket's reader asks.
#[derive(Debug, Default)]
pub struct Mutes(DashMap<Sender, (Duration, DropReason)>);

impl Mutes {
    pub fn add(&self, sender: Sender, until: Duration, reason: DropReason, now: Duration) {
        if self.0.len() >= MOST {
            self.0.retain(|_, (until, _)| *until > now);
        }
        if self.0.len() < MOST {
            self.0.insert(sender, (until, reason));
        }
    }

    fn reason(&self, sender: &Sender, now: Duration) -> Option<DropReason> {
        let (until, reason) = self.0.get(sender).map(|entry| *entry)?;
        if now < until {
            return Some(reason);
        }
        self.0.remove(sender);
        None
    }
}

/// The reader's side: what it drops is counted as the driver counts it.
#[derive(Clone)]
pub struct Muted {
    mutes: Arc<Mutes>,
    metrics: Metrics,
}

impl Muted {
    pub fn new(mutes: Arc<Mutes>, metrics: Metrics) -> Self {
        Self { mutes, metrics }
    }

    /// Whether this datagram ends here.
    pub fn drops(&self, datagram: &[u8], from: IpAddr, now: Duration) -> bool {
        let Ok(header) = Header::parse(datagram) else { return false };
        let Some(reason) = self.mutes.reason(&(header.gateway, from), now) else { return false };
        self.metrics.dropped(reason);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn who_is_muted_is_dropped_and_counted_until_its_time_is_up() {
        let (mutes, metrics) = (Arc::<Mutes>::default(), Metrics::new("1").unwrap());
        let muted = Muted::new(mutes.clone(), metrics.clone());
        let (flood, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        mutes.add((Eui64(7), flood), MS * 10, DropReason::GatewayBytes, MS);
        let datagram = |eui: u64| [&[2, 0, 0, 0][..], &eui.to_be_bytes()].concat();
        assert!(muted.drops(&datagram(7), flood, MS * 9));
        assert!(!muted.drops(&datagram(7), other, MS * 9), "the gateway itself, somewhere else");
        assert!(!muted.drops(&datagram(8), flood, MS * 9));
        assert!(!muted.drops(&datagram(7)[..11], flood, MS * 9), "junk is the driver's to count");
        assert!(!muted.drops(&datagram(7), flood, MS * 10));
        let text = metrics.render(&Default::default(), None).unwrap();
        assert!(text.contains(r#"limpet_balancer_dropped_total{reason="gateway_bytes"} 1"#), "{text}");
    }

    #[test]
    fn no_number_of_addresses_makes_it_grow() {
        let mutes = Mutes::default();
        for n in 0..3 * MOST as u32 {
            mutes.add((Eui64(1), IpAddr::from(n.to_be_bytes())), MS * (n + 1), DropReason::GatewayRate, MS * n);
        }
        assert!(mutes.0.len() <= MOST);
        assert!(mutes.reason(&(Eui64(1), IpAddr::from((3 * MOST as u32 - 1).to_be_bytes())), MS).is_some());
    }
}
