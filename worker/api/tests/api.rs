//! The API as its clients meet it: real gRPC over the loopback interface, on a store in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "api/access.rs"]
mod access;
#[path = "api/bodies.rs"]
mod bodies;
#[path = "api/cluster.rs"]
mod cluster;
#[path = "api/codecs.rs"]
mod codecs;
#[path = "api/devices.rs"]
mod devices;
#[path = "api/fields.rs"]
mod fields;
#[path = "api/gateways.rs"]
mod gateways;
#[path = "api/integrations.rs"]
mod integrations;
#[path = "api/lists.rs"]
mod lists;
#[path = "api/people.rs"]
mod people;
#[path = "api/provisioning.rs"]
mod provisioning;
#[path = "api/server.rs"]
mod server;
#[path = "api/settings.rs"]
mod settings;
