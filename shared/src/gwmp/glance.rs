//! A glance at a PUSH_DATA: which devices its packets are of, without reading the JSON. Good enough for deciding what is
//! read first; nothing else follows from it.

use alloc::vec::Vec;

use super::MAX_RXPK;
use crate::{
    DevAddr,
    lorawan::{self, ftype},
};

/// What the first bytes of a packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// An uplink of a device, with the lower half of its FCntUp.
    Data {
        dev_addr: DevAddr,
        fcnt: u16,
    },
    JoinRequest,
}

const NAME: &[u8] = b"\"data\"";
/// MHDR, DevAddr, FCtrl and FCnt, in whole groups of base64.
const TEXT: usize = 12;

/// The packets of a datagram that name their device where forwarders write it.
pub fn glance(datagram: &[u8]) -> Vec<Glance> {
    let mut found = Vec::new();
    let mut rest = datagram;
    while found.len() < MAX_RXPK
        && let Some(at) = rest.windows(NAME.len()).position(|window| window == NAME)
    {
        rest = rest.get(at + NAME.len()..).unwrap_or_default();
        found.extend(text(rest).and_then(packet));
    }
    found
}

/// The first characters of the text that is this name's value.
fn text(behind_name: &[u8]) -> Option<[u8; TEXT]> {
    let value = behind_name.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    value.first_chunk().copied()
}

fn packet(text: [u8; TEXT]) -> Option<Glance> {
    let mut bytes = [0; TEXT / 4 * 3];
    for (group, bytes) in text.chunks(4).zip(bytes.chunks_mut(3)) {
        let bits = group.iter().try_fold(0, |bits: u32, c| Some(bits << 6 | u32::from(digit(*c)?)))?;
        bytes.copy_from_slice(&bits.to_be_bytes()[1..]);
    }
    let [mhdr, a, b, c, d, _, low, high, _] = bytes;
    match mhdr >> 5 {
        ftype::JOIN_REQUEST => Some(Glance::JoinRequest),
        ftype::UNCONFIRMED_UP | ftype::CONFIRMED_UP if mhdr & lorawan::MAJOR == 0 => Some(Glance::Data {
            dev_addr: DevAddr(u32::from_le_bytes([a, b, c, d])),
            fcnt: u16::from_le_bytes([low, high]),
        }),
        _ => None,
    }
}

/// Of either alphabet.
fn digit(c: u8) -> Option<u8> {
    match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        AesKey, Eui64,
        gwmp::{Datr, Rxpk, push_data, push_data_json},
        lorawan::{DataSpec, Direction, FCtrl, Keys, build_data},
    };

    fn uplink(dev_addr: DevAddr, fcnt: u32) -> Vec<u8> {
        let spec = DataSpec {
            direction: Direction::Up,
            confirmed: fcnt.is_multiple_of(2),
            dev_addr,
            fctrl: FCtrl::default(),
            fcnt,
            fopts: &[],
            fport: Some(1),
            payload: &[7; 5],
        };
        build_data(&spec, &Keys { nwk_s_key: AesKey([1; 16]), app_s_key: AesKey([2; 16]) }).unwrap()
    }

    #[test]
    fn it_sees_what_forwarders_write() {
        let join = [&[0_u8][..], &[9; 22]].concat();
        let phys = [uplink(DevAddr(0x0102_0304), 7), join, uplink(DevAddr(0xffff_fffe), 0x1_0203), vec![0xe0; 20]];
        let datr = Datr::Lora { spreading_factor: 7, bandwidth_khz: 125 };
        let rxpk: Vec<_> = phys.into_iter().map(|phy| Rxpk::new(868_100_000, datr, phy)).collect();
        let datagram = push_data(2, 1, Eui64(1), &push_data_json(&rxpk, None));
        let seen = [
            Glance::Data { dev_addr: DevAddr(0x0102_0304), fcnt: 7 },
            Glance::JoinRequest,
            Glance::Data { dev_addr: DevAddr(0xffff_fffe), fcnt: 0x0203 },
        ];
        assert_eq!(glance(&datagram), seen);
        assert_eq!(glance(br#"{"rxpk":[{ "data" : "QAQDAgEABwAB" }]}"#), seen[..1]);
        assert_eq!(glance(br#"{"data":1,"data":"QAQ","data":"QA*DAgEABwAB""#), []);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0_usize..400) {
            let mut bytes = bytes;
            let at = at.min(bytes.len());
            bytes.splice(at..at, NAME.iter().copied());
            prop_assert!(glance(&bytes).len() <= MAX_RXPK);
        }
    }
}
