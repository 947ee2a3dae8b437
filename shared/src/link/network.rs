//! What balancers know of the network.

use alloc::{string::String, vec::Vec};
use core::hash::Hasher;

use bytes::Bytes;
use prost::Message;
use siphasher::sip::SipHasher13;

/// All that a balancer must know, having no store. The highest version wins.
#[derive(Clone, PartialEq, Message)]
pub struct Cluster {
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// 16 bytes: the SipHash key of the ring. Never from the binary, so that nobody can choose EUIs that collide.
    #[prost(bytes = "bytes", tag = "2")]
    pub ring_key: Bytes,
    #[prost(message, repeated, tag = "3")]
    pub gateways: Vec<KnownGateway>,
    // Tags 4 and 5 were lists of names and addresses that no worker has ever filled.
    /// Certificates that count no more. They come by [`crate::admin::Request::RollCall`], whatever the version; here they
    /// are only kept.
    #[prost(message, repeated, tag = "6")]
    pub revoked_keys: Vec<RevokedKey>,
    /// Also if the balancer has this very version: what it has under that number is something else ([`ClusterHave::digest`]).
    #[prost(bool, tag = "7")]
    pub replace: bool,
}

/// A certificate that counts no more.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RevokedKey {
    #[prost(string, tag = "1")]
    pub name: String,
    /// [`crate::admin::RevokedServer::key`].
    #[prost(string, tag = "2")]
    pub key: String,
    /// It was a balancer's.
    #[prost(bool, tag = "3")]
    pub balancer: bool,
}

/// A gateway that the network knows.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct KnownGateway {
    #[prost(fixed64, tag = "1")]
    pub eui: u64,
    /// [`crate::policy::AddressPolicy`] as text; empty for the default.
    #[prost(string, tag = "2")]
    pub policy: String,
}

impl KnownGateway {
    /// Two that differ have different ones, but for chance. A set's is the sum, so that it follows each change.
    pub fn digest(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        hasher.write_u64(self.eui);
        hasher.write(self.policy.as_bytes());
        hasher.finish()
    }
}

/// What changed between two versions of [`Cluster`]. Ignored unless the balancer has exactly `from`; it then
/// answers [`ClusterHave`] with what it has, and gets a whole `Cluster`.
#[derive(Clone, PartialEq, Message)]
pub struct ClusterDelta {
    #[prost(uint64, tag = "1")]
    pub from: u64,
    #[prost(uint64, tag = "2")]
    pub to: u64,
    #[prost(message, repeated, tag = "3")]
    pub add: Vec<KnownGateway>,
    #[prost(fixed64, repeated, tag = "4")]
    pub remove: Vec<u64>,
}

/// The version of [`Cluster`] that the balancer has now.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ClusterHave {
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// The sum of [`KnownGateway::digest`] of all gateways in it: two sets under one number are told apart. A version before does
    /// not say it.
    #[prost(fixed64, optional, tag = "2")]
    pub digest: Option<u64>,
}
