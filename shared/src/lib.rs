//! What every part of Limpet agrees on, without input or output: identifiers, the Semtech UDP protocol (GWMP),
//! LoRaWAN frames and cryptography, regions as data, the ring, and the messages of the link between balancer and worker.
//!
//! Nothing here reads a clock, a socket or a random source: time, randomness and keys are arguments.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

extern crate alloc;

pub mod admin;
pub mod gwmp;
pub mod id;
pub mod link;
pub mod log_limit;
pub mod lorawan;
pub mod policy;
mod radio_time;
pub mod region;
pub mod ring;
pub mod rule;
pub mod time;

pub use id::{AesKey, DevAddr, Eui64};
pub use log_limit::LogLimit;
pub use radio_time::{ContextTime, RadioTime, StationTime};
pub use rule::Rule;
pub use time::{Now, UnixMicros};
