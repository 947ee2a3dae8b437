//! The balancer alone, in virtual time, with workers that are a few lines each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;
mod downlink;
mod health;
mod load;
mod random;
mod several;
mod uplink;
mod world;
