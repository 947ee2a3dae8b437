//! The decisions of a worker, without input or output: (session, frame, receptions, now) in, outcome out.
//!
//! Nothing here reads a clock, a socket, a store or a random source: all of that is an argument.
#![no_std]

extern crate alloc;

pub mod model;
