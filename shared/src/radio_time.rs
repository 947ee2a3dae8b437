//! When something is at a gateway's radio, in the terms of that kind of gateway.

use alloc::vec::Vec;
use core::time::Duration;

use prost::{Message, Oneof};
use serde::{Deserialize, Serialize};

/// A moment as a gateway tells it with a reception, and takes it back with a downlink. One type for all kinds of gateways: it is in
/// receptions, planned windows, the link's messages, stored rows and exports.
///
/// As JSON the counter is a number, as it was when there was nothing else; the others are objects.
#[derive(Clone, PartialEq, Eq, Oneof, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RadioTime {
    /// A concentrator's counter, us, wrapping (GWMP's `tmst`).
    #[prost(uint32, tag = "1")]
    Counter(u32),
    /// A Basics Station's.
    #[prost(message, tag = "2")]
    Station(StationTime),
    /// One that only the gateway understands.
    #[prost(message, tag = "3")]
    Context(ContextTime),
}

/// `xtime` and `rctx` of an uplink, as its Station wrote them, and how long after it.
#[derive(Clone, Copy, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StationTime {
    #[prost(sfixed64, tag = "1")]
    pub xtime: i64,
    #[prost(sfixed64, tag = "2")]
    pub rctx: i64,
    /// us.
    #[prost(uint32, tag = "3")]
    pub delay: u32,
}

/// The context of an uplink, as its gateway wrote it, and how long after it.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextTime {
    #[prost(bytes = "vec", tag = "1")]
    pub context: Vec<u8>,
    /// us.
    #[prost(uint32, tag = "2")]
    pub delay: u32,
}

impl RadioTime {
    /// So long after. A delay that no receive window has ends at the longest that is told.
    pub fn after(&self, delay: Duration) -> Self {
        let delay = u32::try_from(delay.as_micros()).unwrap_or(u32::MAX);
        match self {
            Self::Counter(counter) => Self::Counter(counter.wrapping_add(delay)),
            Self::Station(at) => Self::Station(StationTime { delay: at.delay.saturating_add(delay), ..*at }),
            Self::Context(at) => {
                Self::Context(ContextTime { delay: at.delay.saturating_add(delay), context: at.context.clone() })
            }
        }
    }

    /// The concentrator's counter, if that is what the gateway has.
    pub fn counter(&self) -> Option<u32> {
        if let Self::Counter(counter) = self { Some(*counter) } else { None }
    }

    /// As bytes, which ChirpStack's gateway bridges call an uplink's context.
    pub fn to_context(&self) -> Vec<u8> {
        match self {
            Self::Counter(counter) => counter.to_be_bytes().into(),
            Self::Station(at) => [at.rctx.to_be_bytes(), at.xtime.to_be_bytes()].concat(),
            Self::Context(at) => at.context.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn all() -> [RadioTime; 3] {
        let station = StationTime { xtime: i64::MIN + 5, rctx: i64::MAX, delay: 0 };
        let context = ContextTime { context: vec![0, 255], delay: 7 };
        [RadioTime::Counter(u32::MAX - 1), RadioTime::Station(station), RadioTime::Context(context)]
    }

    #[test]
    fn a_window_is_so_long_after_its_uplink() {
        let later = all().map(|at| at.after(SECOND).after(SECOND));
        assert_eq!(later[0].counter(), Some(1_999_998), "the counter wraps");
        assert!(matches!(&later[1], RadioTime::Station(at) if at.delay == 2_000_000 && at.rctx == i64::MAX));
        assert!(matches!(&later[2], RadioTime::Context(at) if at.delay == 2_000_007 && at.context == [0, 255]));
        assert_eq!((later[1].counter(), later[2].counter()), (None, None));
    }

    #[test]
    fn every_kind_comes_back_from_json_and_a_counter_is_a_number_as_ever() {
        let texts = all().map(|at| serde_json::to_string(&at).unwrap());
        for (text, at) in texts.iter().zip(all()) {
            assert_eq!(serde_json::from_str::<RadioTime>(text).unwrap(), at, "{text}");
        }
        assert_eq!(texts[0], (u32::MAX - 1).to_string());
        for wrong in ["-1", "{}", "[]", "4294967296", r#"{"xtime":1,"rctx":2,"delay":0,"context":[]}"#] {
            assert!(serde_json::from_str::<RadioTime>(wrong).is_err(), "{wrong}");
        }
    }
}
