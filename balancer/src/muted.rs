//! Who sends too much is not even handed to the driver, which has said until when: what a flood costs then is its reading.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use limpet_balancer_core::{DropReason, header::Header};
use limpet_shared::Eui64;

use crate::metrics::Metrics;

/// So many are remembered; all others the driver refuses one by one.
const MOST: usize = 4_096;

/// How often room is made, which is a walk through all of them.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// A gateway, as heard from one address.
type Sender = (Eui64, IpAddr);

/// Until when (monotonic) which senders are not listened to. The driver writes it, the socket's reader asks.
#[derive(Debug, Default)]
pub struct Mutes {
    until: DashMap<Sender, (Duration, DropReason)>,
    /// When room was made last (monotonic, ms).
    swept: AtomicU64,
}

impl Mutes {
    pub fn add(&self, sender: Sender, until: Duration, reason: DropReason, now: Duration) {
        if self.until.len() >= MOST && self.may_sweep(now) {
            self.until.retain(|_, (until, _)| *until > now);
        }
        if self.until.len() < MOST {
            self.until.insert(sender, (until, reason));
        }
    }

    /// Many addresses that send too much fill the table again at once: who is not in it is refused one by one, for less.
    fn may_sweep(&self, now: Duration) -> bool {
        let (now, swept) = (now.as_millis() as u64, self.swept.load(Ordering::Relaxed));
        let due = swept == 0 || now >= swept.saturating_add(SWEEP_EVERY.as_millis() as u64);
        if due {
            self.swept.store(now.max(1), Ordering::Relaxed);
        }
        due
    }

    fn reason(&self, sender: &Sender, now: Duration) -> Option<DropReason> {
        let (until, reason) = self.until.get(sender).map(|entry| *entry)?;
        if now < until {
            return Some(reason);
        }
        self.until.remove(sender);
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
        let add = |n: u32, at: Duration| {
            mutes.add((Eui64(1), IpAddr::from(n.to_be_bytes())), at + MS, DropReason::GatewayRate, at);
        };
        (0..3 * MOST as u32).for_each(|n| add(n, MS * (1 + n / 1_000)));
        assert_eq!(mutes.until.len(), MOST);
        // Those have had their time; now there is room again.
        add(u32::MAX, MS * 500);
        assert_eq!(mutes.until.len(), 1);
        assert!(mutes.reason(&(Eui64(1), IpAddr::from(u32::MAX.to_be_bytes())), MS * 500).is_some());
    }
}
