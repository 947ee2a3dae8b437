//! Why there is no object, or no payload.

use std::time::Duration;

/// Why a payload could not be read or made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// An object is given, and the profile says nothing of how it is written.
    #[error("the device profile has no codec")]
    NoCodec,
    /// Cayenne LPP that is none, or an object that has no such form.
    #[error("Cayenne LPP: {0}")]
    Cayenne(String),
    #[error("a script has at most {} bytes", crate::LONGEST_SCRIPT)]
    TooLong,
    /// The script threw, or does not compile: its own words, with the line.
    #[error("JS error: {0}")]
    Thrown(String),
    /// What the script says is wrong.
    #[error("{function} returned errors: {errors}")]
    Returned { function: &'static str, errors: String },
    #[error("the script has no function {0}")]
    NoFunction(&'static str),
    /// What came back cannot be used.
    #[error("{0}")]
    Answer(String),
    #[error("the script was stopped: it used more than {0:?} of processor time")]
    Time(Duration),
    #[error("the script was stopped: it used more than {0} bytes of memory")]
    Memory(usize),
    /// It was stopped again and again.
    #[error("the script is not run for {0} s, as it was stopped several times: {1}")]
    Paused(u64, Box<CodecError>),
    /// It is in a place where the engine cannot stop it.
    #[error("a script of this tenant does not end, and cannot be stopped")]
    Hangs,
    /// More wait than may. The same may be tried again.
    #[error("too many payloads wait for codecs")]
    Busy,
    /// A fault of this program.
    #[error("the script engine failed")]
    Engine,
}

impl CodecError {
    /// The reason as a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoCodec => "no_codec",
            Self::Cayenne(_) => "cayenne",
            Self::TooLong => "too_long",
            Self::Thrown(_) => "thrown",
            Self::Returned { .. } => "returned_errors",
            Self::NoFunction(_) => "no_function",
            Self::Answer(_) => "answer",
            Self::Time(_) => "time",
            Self::Memory(_) => "memory",
            Self::Paused(..) => "paused",
            Self::Hangs => "hangs",
            Self::Busy => "busy",
            Self::Engine => "engine",
        }
    }

    /// Nothing is said about script or payload: another try may end otherwise.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy)
    }

    /// The script did not end by itself.
    pub(crate) fn is_stop(&self) -> bool {
        matches!(self, Self::Time(_) | Self::Memory(_) | Self::Hangs | Self::Engine)
    }
}
