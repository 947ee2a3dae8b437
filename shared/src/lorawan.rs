//! LoRaWAN 1.0.x on air: PHYPayload in and out, message integrity codes, encryption, MAC commands.
//!
//! A frame is checked once, in [`parse`]; what comes out holds its shape and needs no further checks. Nothing is
//! authentic before `verify` (or [`JoinAccept::open`]) said so. Clauses refer to LoRaWAN 1.0.4 (TS001-1.0.4).

use alloc::vec::Vec;

mod crypto;
mod data;
mod join;
pub mod mac;

pub use crypto::{Keys, session_keys};
pub use data::{DataFrame, DataSpec, Direction, FCtrl, build_data};
pub use join::{JoinAccept, JoinRequest};

/// The shortest PHYPayload that this server reads: MHDR, FHDR without FOpts, MIC (4.1).
pub const MIN_PHY_PAYLOAD: usize = 12;
/// The longest PHYPayload that a LoRa radio carries; no region allows more.
pub const MAX_PHY_PAYLOAD: usize = 255;
/// FOpts holds at most 15 bytes of MAC commands (4.3.1.6).
pub const MAX_FOPTS: usize = 15;

const JOIN_REQUEST_LEN: usize = 23;
const JOIN_ACCEPT_LEN: usize = 17;
const JOIN_ACCEPT_CF_LIST_LEN: usize = 33;

/// MHDR of a frame of type `mtype`, Major 0 (LoRaWAN R1).
const fn mhdr(mtype: u8) -> u8 {
    mtype << 5
}

/// The Major bits of the MHDR (4.2.2); 0 is LoRaWAN R1.
pub(crate) const MAJOR: u8 = 0b11;

/// FType of the MHDR (4.2.1).
pub(crate) mod ftype {
    pub const JOIN_REQUEST: u8 = 0;
    pub const JOIN_ACCEPT: u8 = 1;
    pub const UNCONFIRMED_UP: u8 = 2;
    pub const UNCONFIRMED_DOWN: u8 = 3;
    pub const CONFIRMED_UP: u8 = 4;
    pub const CONFIRMED_DOWN: u8 = 5;
    pub const REJOIN_REQUEST: u8 = 6;
    pub const PROPRIETARY: u8 = 7;
}

/// A PHYPayload whose shape is right. Nothing in it is authentic yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A device asks to join (6.2.4).
    JoinRequest(JoinRequest),
    /// Data in either direction, confirmed or not.
    Data(DataFrame<'a>),
    /// The whole PHYPayload, 17 or 33 bytes, still encrypted; see [`JoinAccept::open`].
    JoinAccept(&'a [u8]),
    /// A LoRaWAN 1.1 Rejoin-request, which 1.0.x reserves.
    Rejoin,
    /// A frame of no standard format.
    Proprietary,
}

/// Why bytes are no frame, or why no frame can be made of what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than [`MIN_PHY_PAYLOAD`].
    #[error("a PHYPayload has at least {MIN_PHY_PAYLOAD} bytes")]
    TooShort,
    /// More bytes than [`MAX_PHY_PAYLOAD`].
    #[error("a PHYPayload has at most {MAX_PHY_PAYLOAD} bytes")]
    TooLong,
    /// The Major bits name a version other than LoRaWAN R1 (4.2.2).
    #[error("the MHDR names a major version other than LoRaWAN R1")]
    UnknownMajor,
    /// A Join-request of a length other than 23 bytes.
    #[error("a Join-request has {JOIN_REQUEST_LEN} bytes")]
    JoinRequestLength,
    /// A Join-accept of a length other than 17 or 33 bytes.
    #[error("a Join-accept has {JOIN_ACCEPT_LEN} or {JOIN_ACCEPT_CF_LIST_LEN} bytes")]
    JoinAcceptLength,
    /// FOptsLen points beyond the frame, or more than [`MAX_FOPTS`] bytes were given.
    #[error("FOpts is longer than the frame, or than {MAX_FOPTS} bytes")]
    FOptsTooLong,
    /// MAC commands in FOpts and in an FRMPayload with FPort 0 (4.3.1.6 forbids it).
    #[error("a frame has FOpts and FPort 0")]
    FOptsWithPort0,
    /// An FRMPayload was given without an FPort (4.3.2).
    #[error("an FRMPayload needs an FPort")]
    PayloadWithoutPort,
    /// A frame of another type than the one that was to be opened.
    #[error("the frame is of another type")]
    OtherType,
    /// The message integrity code is not the one that this key gives.
    #[error("the MIC does not match")]
    BadMic,
}

impl FrameError {
    /// The reason as a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::UnknownMajor => "unknown_major",
            Self::JoinRequestLength => "join_request_length",
            Self::JoinAcceptLength => "join_accept_length",
            Self::FOptsTooLong => "fopts_too_long",
            Self::FOptsWithPort0 => "fopts_with_port0",
            Self::PayloadWithoutPort => "payload_without_port",
            Self::OtherType => "other_type",
            Self::BadMic => "bad_mic",
        }
    }
}

/// Reads a PHYPayload. A downlink is read like an uplink: whoever asks sees the direction.
/// RFU bits are ignored, as 1.0.4 demands of a receiver.
pub fn parse(phy: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (&header, _) = phy.split_first().ok_or(FrameError::TooShort)?;
    if phy.len() < MIN_PHY_PAYLOAD {
        return Err(FrameError::TooShort);
    }
    if phy.len() > MAX_PHY_PAYLOAD {
        return Err(FrameError::TooLong);
    }
    let ftype = header >> 5;
    if ftype != ftype::PROPRIETARY && header & MAJOR != 0 {
        return Err(FrameError::UnknownMajor);
    }
    match ftype {
        ftype::JOIN_REQUEST => JoinRequest::parse(phy).map(Frame::JoinRequest),
        ftype::JOIN_ACCEPT if matches!(phy.len(), JOIN_ACCEPT_LEN | JOIN_ACCEPT_CF_LIST_LEN) => {
            Ok(Frame::JoinAccept(phy))
        }
        ftype::JOIN_ACCEPT => Err(FrameError::JoinAcceptLength),
        ftype::UNCONFIRMED_UP => DataFrame::parse(phy, Direction::Up, false).map(Frame::Data),
        ftype::CONFIRMED_UP => DataFrame::parse(phy, Direction::Up, true).map(Frame::Data),
        ftype::UNCONFIRMED_DOWN => DataFrame::parse(phy, Direction::Down, false).map(Frame::Data),
        ftype::CONFIRMED_DOWN => DataFrame::parse(phy, Direction::Down, true).map(Frame::Data),
        ftype::REJOIN_REQUEST => Ok(Frame::Rejoin),
        _ => Ok(Frame::Proprietary),
    }
}

/// Appends the low 24 bits of `value`, least significant byte first.
fn put_u24(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes()[..3]);
}

/// The 24-bit number of three bytes, least significant byte first.
fn u24(bytes: [u8; 3]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0])
}
