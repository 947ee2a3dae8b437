//! How long a packet is on air.

use std::time::Duration;

use limpet_shared::gwmp::Datr;

/// Time on air of a LoRaWAN packet of `bytes` (PHYPayload): explicit header, 8 symbols of preamble, code rate 4/5, with
/// CRC for uplinks only (SX1276 data sheet, 4.1.1.7). FSK: 5 bytes of preamble, 3 of sync word, length and CRC.
pub fn time_on_air(datr: Datr, bytes: usize, uplink: bool) -> Duration {
    let bits = 8 * bytes as u64;
    match datr {
        Datr::Lora { spreading_factor, bandwidth_khz } => {
            let sf = u64::from(spreading_factor);
            let symbol_us = (1000 << sf) / u64::from(bandwidth_khz.max(1));
            let low_rate = symbol_us >= 16_000;
            let header_and_crc = if uplink { 28 + 16 } else { 28 };
            let coded = (bits + header_and_crc).saturating_sub(4 * sf);
            let per_block = 4 * (sf - if low_rate { 2 } else { 0 });
            let payload_symbols = 8 + 5 * coded.div_ceil(per_block.max(1));
            // The preamble has 12.25 symbols: counted in quarters.
            Duration::from_micros((49 + 4 * payload_symbols) * symbol_us / 4)
        }
        Datr::Fsk { bit_rate } => Duration::from_micros((bits + 8 * 11) * 1_000_000 / u64::from(bit_rate.max(1))),
        // 488.28125 bit/s per hop at code rate 2/3, header repeated three times; gateways only receive it.
        Datr::LrFhss { .. } => Duration::from_millis(700 + bits * 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_data_sheets_calculator_has_it() {
        let lora = |spreading_factor, bandwidth_khz| Datr::Lora { spreading_factor, bandwidth_khz };
        // 23 bytes (a JoinRequest): 61.7 ms at SF7, 1482.8 ms at SF12; 33 bytes without CRC at SF12/500: 395.3 ms.
        assert_eq!(time_on_air(lora(7, 125), 23, true).as_micros(), 61_696);
        assert_eq!(time_on_air(lora(12, 125), 23, true).as_micros(), 1_482_752);
        assert_eq!(time_on_air(Datr::Fsk { bit_rate: 50_000 }, 14, false).as_micros(), 4_000);
    }
}
