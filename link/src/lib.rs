//! The link between balancers and workers: QUIC with mutual TLS under the cluster's own CA, the join tokens that let a
//! server in, and the message streams. A balancer offers [`server::LinkServer`]; a worker [`client::dial`]s it, with an
//! identity from [`join::ensure_worker`]. [`admin_socket`] is how `limpet ctl` reaches the process beside it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod admin_socket;
mod alarm;
pub mod authority;
pub mod client;
pub mod connection;
mod door;
pub mod endpoint;
pub mod files;
pub mod host;
pub mod identity;
pub mod join;
pub mod machine;
pub mod name;
mod outgoing;
pub mod quic;
pub mod server;
pub mod stream;
pub mod time;
mod tls;
pub mod token;
pub mod trust;
pub mod watched;

pub use alarm::Alarm;
pub use authority::Authority;
pub use client::{BalancerLink, DialError, dial, dial_unless};
pub use connection::{Ended, Link};
pub use identity::Identity;
pub use join::{JoinError, Membership, ensure_balancer, ensure_worker, server::Newcomer};
pub use name::NameState;
pub use outgoing::{FrameSender, Outgoing, Queues, outgoing};
pub use server::{Incoming, LinkServer, Names, ServerConfig, ServerError, WorkerLink};
pub use stream::{
    AckReceiver, AckSender, ControlReceiver, ControlSender, FrameReceiver, Receiver, RecvError, SendError, Sender,
};
pub use token::Token;
pub use trust::Trust;
