//! Data frames (4.2 to 4.4).

use alloc::vec::Vec;

use super::{
    FrameError, Keys, MAX_FOPTS, MAX_PHY_PAYLOAD,
    crypto::{b0, cipher_payload, mic, mic_matches},
    ftype, mhdr,
};
use crate::{AesKey, DevAddr};

const ADR: u8 = 0x80;
const ADR_ACK_REQ: u8 = 0x40;
const ACK: u8 = 0x20;
/// ClassB of an uplink, FPending of a downlink.
const CLASS_B_OR_F_PENDING: u8 = 0x10;
const FOPTS_LEN: u8 = 0x0f;

/// Which way a data frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the device.
    Up,
    /// To the device.
    Down,
}

/// The flags of FCtrl (4.3.1.1 to 4.3.1.4). A flag that the direction does not have is false and not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FCtrl {
    /// The device lets the network choose its data rate; in a downlink, the network will.
    pub adr: bool,
    /// Uplink: the device asks for any downlink, to know that it is still heard.
    pub adr_ack_req: bool,
    /// The last confirmed frame of the other side was received.
    pub ack: bool,
    /// Uplink: the device listens in class B.
    pub class_b: bool,
    /// Downlink: more data waits, so the device should send soon.
    pub f_pending: bool,
}

/// A data frame as received; its FRMPayload is still encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFrame<'a> {
    pub direction: Direction,
    /// The sender wants an ACK.
    pub confirmed: bool,
    pub dev_addr: DevAddr,
    pub fctrl: FCtrl,
    /// The low 16 bits of the frame counter.
    pub fcnt: u16,
    /// MAC commands, 0 to 15 bytes, in clear in 1.0.x.
    pub fopts: &'a [u8],
    /// 0: the payload is MAC commands.
    pub fport: Option<u8>,
    /// FRMPayload, encrypted; empty without an FPort.
    pub payload: &'a [u8],
    pub mic: [u8; 4],
    /// All that the MIC covers.
    signed: &'a [u8],
}

/// What a data frame is made of, in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataSpec<'a> {
    pub direction: Direction,
    pub confirmed: bool,
    pub dev_addr: DevAddr,
    pub fctrl: FCtrl,
    /// The whole 32-bit counter; its low half goes on air.
    pub fcnt: u32,
    /// MAC commands, at most 15 bytes; empty if `fport` is 0.
    pub fopts: &'a [u8],
    pub fport: Option<u8>,
    /// FRMPayload in clear; needs an FPort unless it is empty.
    pub payload: &'a [u8],
}

impl FCtrl {
    fn parse(byte: u8, direction: Direction) -> Self {
        let up = direction == Direction::Up;
        Self {
            adr: byte & ADR != 0,
            adr_ack_req: up && byte & ADR_ACK_REQ != 0,
            ack: byte & ACK != 0,
            class_b: up && byte & CLASS_B_OR_F_PENDING != 0,
            f_pending: !up && byte & CLASS_B_OR_F_PENDING != 0,
        }
    }

    /// The flags as FCtrl's upper half; FOptsLen is left 0.
    fn bits(self, direction: Direction) -> u8 {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let common = flag(self.adr, ADR) | flag(self.ack, ACK);
        common
            | match direction {
                Direction::Up => flag(self.adr_ack_req, ADR_ACK_REQ) | flag(self.class_b, CLASS_B_OR_F_PENDING),
                Direction::Down => flag(self.f_pending, CLASS_B_OR_F_PENDING),
            }
    }
}

impl Keys {
    /// The key that an FRMPayload of this FPort is encrypted with (4.3.3).
    fn for_port(&self, fport: Option<u8>) -> &AesKey {
        if fport == Some(0) { &self.nwk_s_key } else { &self.app_s_key }
    }
}

impl<'a> DataFrame<'a> {
    pub(super) fn parse(phy: &'a [u8], direction: Direction, confirmed: bool) -> Result<Self, FrameError> {
        let (signed, &mic) = phy.split_last_chunk().ok_or(FrameError::TooShort)?;
        let (&header, rest) = signed.split_first_chunk().ok_or(FrameError::TooShort)?;
        let [_mhdr, a0, a1, a2, a3, fctrl, c0, c1] = header;
        let (fopts, rest) = rest.split_at_checked(usize::from(fctrl & FOPTS_LEN)).ok_or(FrameError::FOptsTooLong)?;
        let (fport, payload) = match rest.split_first() {
            Some((&fport, payload)) => (Some(fport), payload),
            None => (None, rest),
        };
        if fport == Some(0) && !fopts.is_empty() {
            return Err(FrameError::FOptsWithPort0);
        }
        Ok(Self {
            direction,
            confirmed,
            dev_addr: DevAddr(u32::from_le_bytes([a0, a1, a2, a3])),
            fctrl: FCtrl::parse(fctrl, direction),
            fcnt: u16::from_le_bytes([c0, c1]),
            fopts,
            fport,
            payload,
            mic,
            signed,
        })
    }

    /// Whether the MIC is right for this key and whole frame counter, whose low half the frame carries (4.4).
    /// Compares in constant time.
    pub fn verify(&self, nwk_s_key: &AesKey, fcnt32: u32) -> bool {
        let b0 = b0(self.direction, self.dev_addr, fcnt32, self.signed.len());
        mic_matches(nwk_s_key, &[&b0, self.signed], &self.mic)
    }

    /// The FRMPayload in clear (4.3.3): with FPort 0 it is MAC commands. Meaningful only once `verify` agreed
    /// to the same counter.
    pub fn decrypt(&self, keys: &Keys, fcnt32: u32) -> Vec<u8> {
        let mut clear = self.payload.to_vec();
        cipher_payload(keys.for_port(self.fport), self.direction, self.dev_addr, fcnt32, &mut clear);
        clear
    }
}

impl DataSpec<'_> {
    fn check(&self) -> Result<(), FrameError> {
        if self.fopts.len() > MAX_FOPTS {
            return Err(FrameError::FOptsTooLong);
        }
        if self.fport == Some(0) && !self.fopts.is_empty() {
            return Err(FrameError::FOptsWithPort0);
        }
        if self.fport.is_none() && !self.payload.is_empty() {
            return Err(FrameError::PayloadWithoutPort);
        }
        let len = 12 + self.fopts.len() + usize::from(self.fport.is_some()) + self.payload.len();
        if len > MAX_PHY_PAYLOAD { Err(FrameError::TooLong) } else { Ok(()) }
    }

    fn mhdr(&self) -> u8 {
        mhdr(match (self.direction, self.confirmed) {
            (Direction::Up, false) => ftype::UNCONFIRMED_UP,
            (Direction::Up, true) => ftype::CONFIRMED_UP,
            (Direction::Down, false) => ftype::UNCONFIRMED_DOWN,
            (Direction::Down, true) => ftype::CONFIRMED_DOWN,
        })
    }
}

/// Encrypts and signs a data frame: the PHYPayload, at most 255 bytes. The data rate's own limit
/// ([`crate::region::Region::max_mac_payload`]) is the caller's to keep.
pub fn build_data(spec: &DataSpec<'_>, keys: &Keys) -> Result<Vec<u8>, FrameError> {
    spec.check()?;
    let mut phy = Vec::with_capacity(MAX_PHY_PAYLOAD);
    phy.push(spec.mhdr());
    phy.extend_from_slice(&spec.dev_addr.0.to_le_bytes());
    phy.push(spec.fctrl.bits(spec.direction) | spec.fopts.len() as u8);
    phy.extend_from_slice(&spec.fcnt.to_le_bytes()[..2]);
    phy.extend_from_slice(spec.fopts);
    phy.extend(spec.fport);
    let payload_at = phy.len();
    phy.extend_from_slice(spec.payload);
    if let Some(payload) = phy.get_mut(payload_at..) {
        cipher_payload(keys.for_port(spec.fport), spec.direction, spec.dev_addr, spec.fcnt, payload);
    }
    let b0 = b0(spec.direction, spec.dev_addr, spec.fcnt, phy.len());
    let mic = mic(&keys.nwk_s_key, &[&b0, &phy]);
    phy.extend_from_slice(&mic);
    Ok(phy)
}
