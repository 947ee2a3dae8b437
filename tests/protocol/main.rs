//! What gateways and devices see of Limpet: real processes, real UDP, virtual gateways and devices, and an application's
//! webhook. Each test shows one thing that a peer of the protocol relies on: one event, one downlink decision, one session.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod addresses;
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod api;
mod balancers;
mod codecs;
mod copies;
mod counters;
mod earlier;
mod gateways;
mod joins;
mod junk;
mod mac;
mod metrics;
mod moving;
mod network;
mod raw;
mod regions;
mod requests;
mod restart;
mod site;
#[allow(dead_code, unused_imports, reason = "shared with tests that use more of it")]
mod support;
mod unknown;
mod windows;
