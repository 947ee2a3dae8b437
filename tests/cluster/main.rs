//! Clusters of real processes under load, while parts of them die: nothing that was acknowledged is lost, and nothing
//! is told under two ids. Traffic is real UDP on loopback, the store is SQLite or a real CQL engine, events go to a webhook.
//!
//! By default the counts are small, so that it all fits into a few minutes on two slow cores. With `LIMPET_FULL=1` they
//! are the counts that the promises are stated with, and the times that are promised are asserted too; give it a machine
//! of its own: `LIMPET_FULL=1 cargo test --test cluster -- --nocapture`. Each test prints its figures and the seed of
//! its moments; `LIMPET_SEED=N` repeats them. `LIMPET_LOGS=DIR` keeps what every process wrote. `LIMPET_BIN=target/release/limpet` has
//! another binary run than the one that cargo builds for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod account;
#[path = "../protocol/api.rs"]
#[allow(dead_code, reason = "the other target uses more of it")]
mod api;
mod balancer;
mod cluster;
mod collector;
mod counters;
mod cut_off;
mod field;
mod next_version;
mod revisions;
mod support;
mod watch;

mod answers;
mod any_balancer;
mod balancer_restart;
mod ca;
mod drain;
mod faults;
mod flood;
mod foreign;
mod full_disk;
mod join_line;
mod members;
mod moving;
mod neighbours;
mod on_cql;
mod refusals;
mod removed;
mod rolling;
mod side_by_side;
mod site;
mod up_kills;
mod urls;
mod webhook_away;
mod worker_kills;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::{SeedableRng, rngs::SmallRng};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Whether the promised counts are asked for, and the promised times.
pub fn full() -> bool {
    std::env::var("LIMPET_FULL").is_ok_and(|value| value == "1")
}

/// One or the other count.
pub fn sized<T>(full_count: T, reduced: T) -> T {
    if full() { full_count } else { reduced }
}

/// Uplinks per second of all devices together.
pub fn rate() -> u32 {
    sized(200, 100)
}

/// Dice for the moments at which things happen, with their seed.
pub fn moments() -> (SmallRng, u64) {
    let given = std::env::var("LIMPET_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos()));
    println!("LIMPET_SEED={seed}");
    (SmallRng::seed_from_u64(seed), seed)
}

/// How many tests run at once, most of whose time is waiting.
const AT_ONCE: u32 = 2;
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE as usize);

/// Two tests at a time; one where times are promised, which has the machine for its load.
pub async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire_many(if full() { AT_ONCE } else { 1 }).await.unwrap()
}

/// For a test of what must happen within a part of a second, such as an answer in its window: it has the machine.
pub async fn turn_alone() -> SemaphorePermit<'static> {
    TURNS.acquire_many(AT_ONCE).await.unwrap()
}

/// A part of a second, or more.
pub fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
