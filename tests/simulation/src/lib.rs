//! The production code under a simulated network, simulated clocks and a seeded chance.
//!
//! Balancers and workers are whole: the balancer's driver and core, QUIC with its TLS, the worker's links, pipeline, sender of
//! waiting events, sweep and roll. Each is a process of its own with an asynchronous runtime whose time is paused; they take
//! turns of a millisecond on one thread. What they share is the [`net::Network`], which loses, doubles and delays datagrams, and
//! the SQLite store in memory. Killing one is dropping its runtime.
//!
//! One seed decides what happens ([`plan`]); what was promised is checked from outside only ([`check`]): PUSH_ACKs, events,
//! frames on the air.

pub mod check;
pub mod field;
pub mod machine;
pub mod net;
pub mod plan;
pub mod seen;
pub mod shrink;
pub mod system;
pub mod world;

pub use check::Violation;
pub use plan::Plan;
pub use shrink::shrink;
pub use world::run;
