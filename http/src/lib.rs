//! HTTP as both roles offer it: one port, HTTP/1 and HTTP/2 without TLS. What a stranger can hold is bounded in number and
//! in time ([`serve`]), and whoever is behind a proxy is known by the address that the proxy tells ([`Proxies`]).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod activity;
mod client;
mod entrance;
mod serve;
mod status;

pub use client::{ClientAddress, Proxies, network};
pub use entrance::{Counters, Limits};
pub use serve::{Service, serve};
pub use status::status;
