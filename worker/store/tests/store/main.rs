//! The stores against the promises of the trait, faults, several processes and sudden death.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cql;
mod earlier;
mod faults;
mod moving;
mod opening;
mod processes;
mod tls;

use std::sync::Arc;

use limpet_store::{SqliteStore, Store};
use limpet_store_testing::{conformance, fault};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_conforms() {
    conformance::suite(|| async { SqliteStore::in_memory().unwrap() as Arc<dyn Store> }).await;
    let one: Arc<dyn Store> = SqliteStore::in_memory().unwrap();
    conformance::suite(|| async { one.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let one: Arc<dyn Store> = SqliteStore::open(dir.path()).unwrap();
    conformance::suite(|| async { one.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_without_faults_conforms_through_the_wrapper() {
    let none = fault::Faults::default();
    conformance::suite(|| async move {
        fault::FaultStore::new(SqliteStore::in_memory().unwrap(), 1, none) as Arc<dyn Store>
    })
    .await;
}
