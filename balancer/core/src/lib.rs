//! The balancer's decisions, without input or output: datagrams, link messages and the passing of time go in as method
//! calls of [`Balancer`], and what is to be done comes out as [`Action`]s. Whoever drives it owns the sockets and the
//! clock, in production as in a simulation.
//!
//! The way of one uplink: `header` reads who sends it, `gateways` lets it in, `retention` keeps it, `routing`
//! names its worker, `health` says when that worker has been silent for too long. `downlink` is the way back.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

extern crate alloc;

pub mod action;
mod addresses;
pub mod answers;
mod balancer;
mod bucket;
mod cluster;
pub mod config;
pub mod downlink;
mod drains;
pub mod gateways;
pub mod header;
pub mod health;
mod linked_network;
mod lru;
pub mod retention;
mod routing;
mod sightings;
mod workers;

pub use action::{Action, DropReason, Event, Redelivery, Route, Source, WorkerId};
pub use balancer::{Balancer, Stats};
pub use config::{AckAt, Config};
