//! The copies of one transmission: gateways near the device also hear it where it was not sent.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::cmp::Ordering;

use limpet_shared::Eui64;

use crate::model::Reception;

/// One transmission's receptions, all on the channel that it was sent on: that of the strongest one. A strong signal is heard on
/// other channels too, and a gateway may report all of them; of each gateway only what it heard best stays, with every antenna
/// on that channel. What a gateway heard only elsewhere keeps its counter and signal, for these are right.
pub fn on_one_channel(mut receptions: Vec<Reception>) -> Vec<Reception> {
    let Some(first) = receptions.first().map(channel) else { return receptions };
    if receptions.iter().all(|r| channel(r) == first) {
        return receptions;
    }
    receptions.sort_by(stronger);
    let Some((frequency, data_rate, region)) = receptions.first().map(channel) else { return receptions };
    let mut heard_on: BTreeMap<Eui64, Channel> = BTreeMap::new();
    receptions.retain_mut(|r| {
        let own = channel(r);
        let stays = heard_on.entry(r.gateway).or_insert_with(|| own.clone()) == &own;
        (r.frequency, r.data_rate) = (frequency, data_rate);
        r.region.clone_from(&region);
        stays
    });
    receptions
}

type Channel = (u32, u8, String);

fn channel(r: &Reception) -> Channel {
    (r.frequency, r.data_rate, r.region.clone())
}

/// By RSSI, for the SNR of a ghost is as good as that of what caused it.
fn stronger(a: &Reception, b: &Reception) -> Ordering {
    let by_signal = b.rx.rssi.cmp(&a.rx.rssi).then(b.rx.snr.total_cmp(&a.rx.snr));
    by_signal.then(a.gateway.cmp(&b.gateway)).then(a.frequency.cmp(&b.frequency))
}

#[cfg(test)]
mod tests {
    use limpet_shared::{RadioTime, UnixMicros};

    use super::*;
    use crate::model::{DedupKey, RxInfo};

    fn heard(gateway: u64, frequency: u32, rssi: i32, snr: f32, antenna: u32) -> Reception {
        Reception {
            key: DedupKey(1),
            gateway: Eui64(gateway),
            context: u64::from(frequency) + u64::from(antenna),
            received_at: UnixMicros(1),
            balancer: 0,
            region: "eu868".into(),
            frequency,
            data_rate: 5,
            phy: Vec::new(),
            rx: RxInfo {
                rssi,
                snr,
                antenna: Some(antenna),
                radio: Some(RadioTime::Counter(gateway as u32)),
                ..RxInfo::default()
            },
        }
    }

    #[test]
    fn the_strongest_copy_says_which_channel_it_was() {
        let (ghost, sent) = (867_300_000, 868_300_000);
        let all = on_one_channel(
            [
                heard(1, ghost, -100, 12.0, 0),
                heard(1, sent, -35, 7.0, 0),
                heard(1, sent, -41, 9.0, 1),
                heard(2, sent, -110, -3.0, 0),
                // Far away, and only off channel.
                heard(3, ghost, -120, -9.0, 0),
            ]
            .into(),
        );
        assert!(all.iter().all(|r| r.frequency == sent));
        let of = |r: &Reception| (r.gateway.0, r.rx.rssi, r.rx.radio.as_ref().and_then(RadioTime::counter));
        assert_eq!(
            all.iter().map(of).collect::<Vec<_>>(),
            [(1, -35, Some(1)), (1, -41, Some(1)), (2, -110, Some(2)), (3, -120, Some(3))]
        );
        assert_eq!(on_one_channel(Vec::new()), []);
    }
}
