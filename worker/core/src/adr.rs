//! Adaptive data rate: what a device is to send with, from how well it was heard (LoRaWAN 1.0.4, 4.3.1.1). As ChirpStack's default
//! algorithm decides it, so that a fleet that moves here goes on as it was.

use limpet_shared::region::{Modulation, Region};

use crate::model::{AdrState, HeardUplink, MacState, RegionSettings};

/// Uplinks that a session remembers, and that a loss is judged from.
pub const REMEMBERED: usize = 20;
/// dB above what a data rate needs that are not used, where nothing is set.
pub const INSTALLATION_MARGIN: u8 = 10;
/// Of a data rate or power, dB.
const STEP: i32 = 3;
/// The next number of transmissions, by the number now (1 to 3) and by the share of lost uplinks.
const REPETITIONS: [(usize, [u8; 3]); 4] = [(5, [1, 1, 2]), (10, [1, 2, 3]), (30, [2, 3, 3]), (usize::MAX, [3, 3, 3])];

/// What a device sends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    pub data_rate: u8,
    /// Its index: 0 is the highest.
    pub tx_power: u8,
    /// How often each unconfirmed uplink is sent.
    pub nb_trans: u8,
}

/// Between what ADR may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub min_data_rate: u8,
    pub max_data_rate: u8,
    pub min_power: u8,
    pub max_power: u8,
    /// dB.
    pub margin: u8,
}

impl Limits {
    /// By what is set, by the region, and by what the device has refused.
    pub fn of(region: &Region, settings: &RegionSettings, adr: &AdrState) -> Self {
        let max_data_rate =
            settings.max_dr.unwrap_or_else(|| most_uplink_rate(region)).min(adr.max_data_rate.unwrap_or(u8::MAX));
        let max_power = most_power_index(region).min(adr.max_power.unwrap_or(u8::MAX));
        Self {
            min_data_rate: settings.min_dr.unwrap_or(0).min(max_data_rate),
            max_data_rate,
            min_power: adr.min_power.min(max_power),
            max_power,
            margin: settings.installation_margin.unwrap_or(INSTALLATION_MARGIN),
        }
    }
}

/// The fastest data rate of the first channel: what others have besides, not every channel has.
pub fn most_uplink_rate(region: &Region) -> u8 {
    region.uplink_channels().first().map_or(0, |channel| channel.max_dr)
}

/// The weakest TXPower of the band that devices of all revisions have.
fn most_power_index(region: &Region) -> u8 {
    match region.band() {
        "EU868" | "RU864" => 7,
        "US915" | "AU915" => 10,
        _ => 5,
    }
}

/// SNR at which a LoRa frame is just demodulated, dB (SX1301 data sheet: 2.5 dB a spreading factor, SF7 at -7.5).
pub fn required_snr(modulation: &Modulation) -> Option<f32> {
    match modulation {
        Modulation::Lora { spreading_factor, .. } => Some(-7.5 - 2.5 * (f32::from(*spreading_factor) - 7.0)),
        _ => None,
    }
}

/// An uplink as it is remembered. `missed`: FCntUp between the one before and this one; `snr`: the best.
pub fn remember(adr: &mut AdrState, missed: u32, snr: f32) {
    let missed = if adr.heard.is_empty() { 0 } else { u8::try_from(missed).unwrap_or(u8::MAX) };
    if adr.heard.len() >= REMEMBERED {
        adr.heard.remove(0);
    }
    // A float-to-integer cast saturates and takes NaN to 0, so any reported SNR is safe.
    adr.heard.push(HeardUplink { missed, snr: (snr * 4.0) as i8 });
}

/// What the device sends with now, as far as is known.
pub fn now(mac: &MacState) -> Sending {
    Sending { data_rate: mac.data_rate, tx_power: mac.tx_power, nb_trans: mac.adr.nb_trans.max(1) }
}

/// What it is to send with. `required_snr`: of its data rate now.
pub fn decide(now: Sending, heard: &[HeardUplink], required_snr: f32, limits: &Limits) -> Sending {
    let data_rate = now.data_rate.clamp(limits.min_data_rate, limits.max_data_rate);
    let mut next = Sending { data_rate, nb_trans: repetitions(now.nb_trans, heard), ..now };
    let Some(best) = heard.iter().map(|heard| heard.snr).max() else { return next };
    // Of a data rate that was not heard nothing is known.
    if data_rate != now.data_rate {
        return next;
    }
    let spare = f32::from(best) / 4.0 - required_snr - f32::from(limits.margin);
    let steps = (spare / STEP as f32) as i32;
    // One bad uplink says less than that there was no better one of many.
    if steps < 0 && heard.len() < REMEMBERED {
        return next;
    }
    for _ in 0..steps.unsigned_abs() {
        if steps > 0 && next.data_rate < limits.max_data_rate {
            next.data_rate += 1;
        } else if steps > 0 && next.tx_power < limits.max_power {
            next.tx_power += 1;
        } else if steps < 0 && next.tx_power > limits.min_power {
            next.tx_power -= 1;
        }
    }
    next.tx_power = next.tx_power.max(limits.min_power);
    next
}

fn repetitions(now: u8, heard: &[HeardUplink]) -> u8 {
    let now = now.clamp(1, 3);
    if heard.len() < REMEMBERED {
        return now;
    }
    let missed: usize = heard.iter().map(|heard| usize::from(heard.missed)).sum();
    let lost = missed * 100 / heard.len();
    let row = REPETITIONS.iter().find(|(below, _)| lost < *below);
    row.and_then(|(_, by_now)| by_now.get(usize::from(now - 1))).copied().unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::*;

    const LIMITS: Limits = Limits { min_data_rate: 0, max_data_rate: 5, min_power: 0, max_power: 7, margin: 10 };

    fn sending(data_rate: u8, tx_power: u8, nb_trans: u8) -> Sending {
        Sending { data_rate, tx_power, nb_trans }
    }

    fn heard(count: usize, snr: f32) -> Vec<HeardUplink> {
        vec![HeardUplink { missed: 0, snr: (snr * 4.0) as i8 }; count]
    }

    /// What a data rate of EU868 needs.
    fn needs(data_rate: u8) -> f32 {
        required_snr(&Region::by_name("eu868").unwrap().modulation(data_rate).unwrap()).unwrap()
    }

    #[test]
    fn spare_signal_goes_into_the_data_rate_and_then_into_less_power() {
        for (now, snr, count, then) in [
            // SF12 needs -20 dB: 12.5 spare at 2.5 dB, of which 10 are kept.
            (sending(0, 0, 1), -7.6, 1, sending(0, 0, 1)),
            (sending(0, 0, 1), -7.0, 1, sending(1, 0, 1)),
            (sending(0, 0, 1), 5.0, 1, sending(5, 0, 1)),
            (sending(0, 0, 1), 10.0, 1, sending(5, 1, 1)),
            (sending(5, 0, 1), 12.0, 1, sending(5, 3, 1)),
            (sending(5, 0, 1), 30.0, 1, sending(5, 7, 1)),
            (sending(5, 7, 1), 30.0, 20, sending(5, 7, 1)),
            // Too little: more power after enough uplinks, and never a slower data rate.
            (sending(5, 3, 1), -4.0, 19, sending(5, 3, 1)),
            (sending(5, 3, 1), -4.0, 20, sending(5, 1, 1)),
            (sending(5, 0, 1), -20.0, 20, sending(5, 0, 1)),
            (sending(3, 1, 1), -20.0, 20, sending(3, 0, 1)),
        ] {
            assert_eq!(decide(now, &heard(count, snr), needs(now.data_rate), &LIMITS), then, "{now:?} at {snr} dB");
        }
        let none = decide(sending(2, 1, 1), &[], needs(2), &LIMITS);
        assert_eq!(none, sending(2, 1, 1), "nothing was heard");
    }

    #[test]
    fn the_best_of_the_uplinks_counts() {
        let mut uplinks = heard(19, -19.0);
        uplinks.push(HeardUplink { missed: 0, snr: -6 * 4 });
        assert_eq!(decide(sending(0, 0, 1), &uplinks, needs(0), &LIMITS).data_rate, 1);
    }

    #[test]
    fn limits_hold() {
        let limits = Limits { min_data_rate: 2, max_data_rate: 3, min_power: 1, max_power: 2, margin: 5 };
        assert_eq!(decide(sending(5, 1, 1), &heard(1, 20.0), needs(5), &limits), sending(3, 1, 1));
        assert_eq!(decide(sending(0, 0, 1), &heard(1, -19.0), needs(0), &limits).data_rate, 2);
        assert_eq!(decide(sending(3, 1, 1), &heard(1, 20.0), needs(3), &limits), sending(3, 2, 1));
        assert_eq!(decide(sending(3, 2, 1), &heard(20, -30.0), needs(3), &limits), sending(3, 1, 1));
    }

    #[test]
    fn losses_are_met_by_repetitions() {
        for (lost, by_now) in [(0, [1, 1, 2]), (1, [1, 2, 3]), (3, [2, 3, 3]), (6, [3, 3, 3]), (255, [3, 3, 3])] {
            for (now, wanted) in (1..).zip(by_now) {
                let mut uplinks = heard(20, 0.0);
                uplinks[3].missed = lost;
                let snr = needs(5) + 10.0;
                uplinks.iter_mut().for_each(|heard| heard.snr = (snr * 4.0) as i8);
                let next = decide(sending(5, 3, now), &uplinks, needs(5), &LIMITS);
                assert_eq!(next, sending(5, 3, wanted), "{lost} lost, {now} now");
                uplinks.pop();
                assert_eq!(decide(sending(5, 3, now), &uplinks, needs(5), &LIMITS).nb_trans, now, "too few to say");
            }
        }
    }

    #[test]
    fn no_more_is_remembered_than_is_needed() {
        let mut adr = AdrState::default();
        for number in 0..50_u32 {
            remember(&mut adr, number * 10, f32::NAN);
        }
        assert_eq!((adr.heard.len(), adr.heard[19]), (REMEMBERED, HeardUplink { missed: 255, snr: 0 }));
        remember(&mut adr, 3, 1e9);
        assert_eq!(adr.heard[19], HeardUplink { missed: 3, snr: 127 });
    }
}
