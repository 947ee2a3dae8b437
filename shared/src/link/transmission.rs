//! How a downlink is transmitted, for gateways of every kind.

use alloc::vec::Vec;

use prost::Message;

use super::Downlink;
use crate::{
    RadioTime,
    gwmp::{Datr, Txpk},
    region::Modulation,
};

/// All that a gateway must know besides the bytes. What its kind does not ask for is not written.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Transmission {
    #[prost(oneof = "RadioTime", tags = "1, 2, 3")]
    pub time: Option<RadioTime>,
    /// Hz.
    #[prost(uint32, tag = "4")]
    pub frequency: u32,
    /// The region's index of it.
    #[prost(uint32, tag = "5")]
    pub data_rate: u32,
    /// dBm EIRP.
    #[prost(sint32, tag = "6")]
    pub power: i32,
    /// As the gateway named them.
    #[prost(uint32, optional, tag = "7")]
    pub board: Option<u32>,
    #[prost(uint32, optional, tag = "8")]
    pub antenna: Option<u32>,
    /// LoRa; 0 if it is FSK.
    #[prost(uint32, tag = "9")]
    pub spreading_factor: u32,
    #[prost(uint32, tag = "10")]
    pub bandwidth_khz: u32,
    /// FSK, bits per second; 0 if it is LoRa.
    #[prost(uint32, tag = "11")]
    pub bit_rate: u32,
}

/// The transmission is for another kind of gateway, or makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transmission is timed for another kind of gateway")]
pub struct OtherKind;

impl Transmission {
    /// With this modulation; LR-FHSS is for uplinks only.
    pub fn modulated(self, modulation: Modulation) -> Option<Self> {
        match modulation {
            Modulation::Lora { spreading_factor, bandwidth_khz } => {
                Some(Self { spreading_factor: spreading_factor.into(), bandwidth_khz: bandwidth_khz.into(), ..self })
            }
            Modulation::Fsk { bit_rate } => Some(Self { bit_rate, ..self }),
            Modulation::LrFhss { .. } => None,
        }
    }

    /// The JSON of a PULL_RESP: for a gateway that speaks GWMP, and is timed by its concentrator's counter.
    pub fn pull_resp_json(&self, phy: &[u8]) -> Result<Vec<u8>, OtherKind> {
        let tmst = self.time.as_ref().and_then(RadioTime::counter).ok_or(OtherKind)?;
        let datr = match (self.spreading_factor, self.bit_rate) {
            (0, 0) => return Err(OtherKind),
            (0, bit_rate) => Datr::Fsk { bit_rate },
            (factor, _) => Datr::Lora {
                spreading_factor: u8::try_from(factor).map_err(|_| OtherKind)?,
                bandwidth_khz: u16::try_from(self.bandwidth_khz).map_err(|_| OtherKind)?,
            },
        };
        // The field has no sign.
        let power = u32::try_from(self.power).unwrap_or_default();
        let mut txpk = Txpk::at(tmst, self.frequency, power, datr, phy.to_vec());
        (txpk.brd, txpk.ant) = (self.board, self.antenna);
        Ok(txpk.to_json())
    }
}

impl Downlink {
    /// Writes each window's transmission for a gateway that speaks GWMP. A window that is for another kind of gateway goes; one
    /// without a transmission was written before, by a worker of version 1.
    pub fn write_pull_resps(&mut self) {
        let phy = core::mem::take(&mut self.phy);
        self.windows.retain_mut(|window| {
            if let Some(transmission) = window.transmission.take() {
                window.json = transmission.pull_resp_json(&phy).unwrap_or_default().into();
            }
            !window.json.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::{ContextTime, StationTime, gwmp, link::Window};

    fn timed(time: RadioTime) -> Transmission {
        let of = Transmission { time: Some(time), frequency: 869_525_000, power: 27, ..Transmission::default() };
        of.modulated(Modulation::Lora { spreading_factor: 9, bandwidth_khz: 125 }).unwrap()
    }

    #[test]
    fn a_counter_is_written_for_the_semtech_protocol_and_nothing_else_is() {
        let counter = Transmission { board: Some(1), antenna: Some(2), ..timed(RadioTime::Counter(7)) };
        let read = gwmp::parse_pull_resp(&counter.pull_resp_json(&[1, 2]).unwrap()).unwrap();
        assert_eq!((read.tmst, read.freq, read.powe, read.data), (Some(7), 869_525_000, 27, vec![1, 2]));
        assert_eq!(
            (read.datr, read.brd, read.ant),
            (Datr::Lora { spreading_factor: 9, bandwidth_khz: 125 }, Some(1), Some(2))
        );
        let others = [
            timed(RadioTime::Station(StationTime { xtime: 1, rctx: 2, delay: 1_000_000 })),
            timed(RadioTime::Context(ContextTime { context: vec![9], delay: 1_000_000 })),
            Transmission { time: None, ..counter.clone() },
            Transmission { spreading_factor: 0, ..counter.clone() },
            Transmission { spreading_factor: 256, ..counter },
        ];
        for other in others {
            assert_eq!(other.pull_resp_json(&[1]), Err(OtherKind), "{other:?}");
            let bytes = other.encode_to_vec();
            assert_eq!(Transmission::decode(&*bytes), Ok(other), "but it arrives as it was");
        }
    }

    #[test]
    fn what_is_written_for_version_1_is_whole_and_without_what_it_cannot_say() {
        let station = timed(RadioTime::Station(StationTime { xtime: 1, rctx: 2, delay: 0 }));
        let window = |number, transmission| Window { number, transmission: Some(transmission), ..Window::default() };
        let windows = vec![window(1, station), window(2, timed(RadioTime::Counter(7)))];
        let mut downlink = Downlink { windows, phy: vec![3].into(), ..Downlink::default() };
        downlink.write_pull_resps();
        let once = downlink.clone();
        assert_eq!((once.windows.len(), once.windows[0].number, &once.windows[0].transmission), (1, 2, &None));
        assert_eq!(gwmp::parse_pull_resp(&once.windows[0].json).unwrap().data, [3]);
        downlink.write_pull_resps();
        assert_eq!(downlink, once, "what was written is passed on");
    }

    #[test]
    fn fsk_is_told_too_and_what_only_devices_send_is_not() {
        let fsk = Transmission { time: Some(RadioTime::Counter(1)), frequency: 868_800_000, ..Transmission::default() };
        let fsk = fsk.modulated(Modulation::Fsk { bit_rate: 50_000 }).unwrap();
        let read = gwmp::parse_pull_resp(&fsk.pull_resp_json(&[1]).unwrap()).unwrap();
        assert_eq!((read.datr, read.codr), (Datr::Fsk { bit_rate: 50_000 }, None));
        let code_rate = crate::region::CodeRate::OneThird;
        assert_eq!(Transmission::default().modulated(Modulation::LrFhss { code_rate, bandwidth_khz: 137 }), None);
    }
}
