//! What the network has asked of a device by MAC commands, as its session remembers it.

use alloc::vec::Vec;

use limpet_shared::lorawan::mac::{self, DownlinkCommand};
use serde::{Deserialize, Serialize};

/// A request that the device has not answered, or has not granted. There is one of each [`Subject`] at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// As it goes on air: one command, or the LinkADRReqs that are judged as one.
    pub commands: Vec<u8>,
    /// How many downlinks have carried it.
    pub tries: u8,
    /// FCntUp of the uplink whose answer carried it last.
    pub asked_at: u32,
    pub state: RequestState,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    /// It is asked again, unchanged, until it is answered: the device may have done it already.
    Waiting,
    /// The device will not do it. It is not asked again unless something else is wanted.
    Refused,
    /// It was asked often enough. Not asked again either, but an answer still counts.
    Unanswered,
}

/// What a request is about, which its answer tells too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// LinkADRReq: channels, data rate, power, repetitions.
    LinkAdr,
    RxParam,
    RxTiming,
    DevStatus,
    /// TxParamSetupReq: limits to the length of transmissions.
    TxParam,
    /// NewChannelReq of the channel with this index.
    Channel(u8),
}

impl Subject {
    /// `None` for what is no request.
    pub fn of(command: &DownlinkCommand) -> Option<Self> {
        match *command {
            DownlinkCommand::LinkAdrReq { .. } => Some(Self::LinkAdr),
            DownlinkCommand::RxParamSetupReq { .. } => Some(Self::RxParam),
            DownlinkCommand::RxTimingSetupReq { .. } => Some(Self::RxTiming),
            DownlinkCommand::DevStatusReq => Some(Self::DevStatus),
            DownlinkCommand::TxParamSetupReq { .. } => Some(Self::TxParam),
            DownlinkCommand::NewChannelReq { index, .. } => Some(Self::Channel(index)),
            _ => None,
        }
    }

    /// The command's name in the specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::LinkAdr => "LinkADRReq",
            Self::RxParam => "RXParamSetupReq",
            Self::RxTiming => "RXTimingSetupReq",
            Self::DevStatus => "DevStatusReq",
            Self::TxParam => "TxParamSetupReq",
            Self::Channel(_) => "NewChannelReq",
        }
    }
}

impl Request {
    /// The same, to be read.
    pub fn read(&self) -> Vec<DownlinkCommand> {
        mac::parse_downlink(&self.commands).commands
    }

    /// `None` only in a row that somebody else made up.
    pub fn subject(&self) -> Option<Subject> {
        self.read().first().and_then(Subject::of)
    }

    /// Whether an answer to it counts.
    pub fn is_open(&self) -> bool {
        self.state != RequestState::Refused
    }
}
