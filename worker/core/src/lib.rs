//! The decisions of a worker, without input or output: (session, frame, receptions, now) in, outcome out.
//!
//! Nothing here reads a clock, a socket, a store or a random source: all of that is an argument.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

extern crate alloc;

pub mod adr;
pub mod copies;
pub mod down_counters;
pub mod downlink;
pub mod former;
pub mod ident;
pub mod join;
pub mod line;
pub mod load;
pub mod model;
pub mod seen;
pub mod session;
pub mod settings;
pub mod shares;
pub mod uplink;
