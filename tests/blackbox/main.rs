//! Black-box tests: real processes, real sockets, all on loopback. One target for all of them, as each target links
//! everything anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(dead_code, unused_imports, reason = "not every helper is used by today's tests")]

mod support;

mod console;
mod outputs;
mod pages;
mod proxies;
mod settings;
mod start;
