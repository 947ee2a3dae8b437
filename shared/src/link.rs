//! The messages between balancer and worker. The link is one QUIC connection, dialled by the worker, with two
//! bidirectional streams that live as long as it does:
//!
//! * the **control stream**, opened by the worker: length-prefixed [`ToBalancer`] one way, [`ToWorker`] the other;
//!   the first message is [`Hello`], answered by [`Welcome`] or [`Refused`];
//! * the **frame stream**, opened by the balancer after `Welcome`: [`UplinkFrame`]s one way, [`Ack`]s the other.
//!
//! Every message on either stream is preceded by its length as a big-endian `u32`.
//! A field is only ever added, so that versions N and N+1 understand each other.

mod network;
mod transmission;

use alloc::{string::String, vec::Vec};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{Message, Oneof};

pub use network::{Cluster, ClusterDelta, ClusterHave, KnownGateway, RevokedKey};
pub use transmission::{OtherKind, Transmission};

use crate::{Eui64, UnixMicros};

/// ALPN of the link.
pub const ALPN: &[u8] = b"limpet/1";
/// ALPN on which a join token is traded for a certificate.
pub const ALPN_JOIN: &[u8] = b"limpet-join/1";
/// Version of these messages, sent in [`Hello`] and [`Welcome`]. From 2 on a balancer writes downlinks itself, as their gateways
/// want them.
pub const VERSION: u32 = 2;
/// The longest message accepted on either stream: a `Cluster` snapshot of a few hundred thousand gateways.
pub const MAX_MESSAGE: usize = 16 << 20;
/// The largest datagram UDP over IPv4 can carry; concentrators may report 255 packets in one.
pub const MAX_DATAGRAM: usize = 65_507;

/// One datagram of a gateway on its way to a worker.
///
/// ```text
/// | u64 seq | u64 received_at (Unix, us) | u64 gateway EUI | u8 attempt | datagram as received |   all big-endian
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkFrame {
    /// Number on this connection, counted up, so that one number acknowledges all before it. One may be missing: its
    /// frame was done by somebody else before it was sent.
    pub seq: u64,
    /// When the balancer received the datagram. A redelivery keeps it.
    pub received_at: UnixMicros,
    /// Whose datagram it is.
    pub gateway: Eui64,
    /// 0 for the first delivery, counted up by each redelivery.
    pub attempt: u8,
    /// The GWMP datagram, whole.
    pub datagram: Bytes,
}

const UPLINK_HEADER: usize = 25;

impl UplinkFrame {
    /// Appends the frame with its length prefix.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(4 + UPLINK_HEADER + self.datagram.len());
        out.put_u32((UPLINK_HEADER + self.datagram.len()) as u32);
        out.put_u64(self.seq);
        out.put_u64(self.received_at.0);
        out.put_u64(self.gateway.0);
        out.put_u8(self.attempt);
        out.put_slice(&self.datagram);
    }

    /// Reads a frame whose length prefix was taken off; `None` if it is shorter than its header.
    pub fn decode(mut body: Bytes) -> Option<Self> {
        (body.len() >= UPLINK_HEADER).then(|| Self {
            seq: body.get_u64(),
            received_at: UnixMicros(body.get_u64()),
            gateway: Eui64(body.get_u64()),
            attempt: body.get_u8(),
            datagram: body,
        })
    }
}

/// Appends `message` with its length prefix.
pub fn encode(message: &impl Message, out: &mut BytesMut) {
    let len = message.encoded_len();
    out.reserve(4 + len);
    out.put_u32(len as u32);
    // A BytesMut grows as needed, so encoding into it cannot run out of space.
    let _ = message.encode(out);
}

/// What a stream's length prefix says that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {0} bytes is longer than the {MAX_MESSAGE} allowed")]
pub struct TooLong(pub usize);

/// Takes the next whole message (without its length) off the front of `buffer`; `None` until it is complete.
pub fn next_message(buffer: &mut BytesMut) -> Result<Option<Bytes>, TooLong> {
    let Some(prefix) = buffer.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_be_bytes(*prefix) as usize;
    if len > MAX_MESSAGE {
        return Err(TooLong(len));
    }
    if buffer.len() < 4 + len {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(len).freeze()))
}

/// Worker to balancer, on the frame stream. A worker that holds frames which are not done repeats it every 10 ms.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Ack {
    /// All frames up to this number were read: the worker's loop is alive.
    #[prost(uint64, tag = "1")]
    pub received: u64,
    /// Frames whose every rxpk is in the store, or was judged worthless and counted.
    #[prost(uint64, repeated, tag = "2")]
    pub stored: Vec<u64>,
    /// Frames that need nothing more (step 8 in docs/ARCHITECTURE.md).
    #[prost(uint64, repeated, tag = "3")]
    pub done: Vec<u64>,
    // Tag 4 was a list that no worker has ever filled.
}

/// Worker to balancer, on the control stream.
#[derive(Clone, PartialEq, Message)]
pub struct ToBalancer {
    #[prost(oneof = "to_balancer::Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub kind: Option<to_balancer::Kind>,
}
pub mod to_balancer {
    use super::*;
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        #[prost(message, tag = "1")]
        Hello(Hello),
        #[prost(message, tag = "2")]
        Cluster(Cluster),
        #[prost(message, tag = "3")]
        ClusterDelta(ClusterDelta),
        #[prost(message, tag = "4")]
        Weight(Weight),
        #[prost(message, tag = "5")]
        Alive(Alive),
        #[prost(message, tag = "6")]
        Downlink(Downlink),
        #[prost(message, tag = "7")]
        Drain(Drain),
        #[prost(message, tag = "8")]
        Renew(Renew),
        #[prost(message, tag = "9")]
        Admin(Admin),
        #[prost(message, tag = "10")]
        AdminReply(AdminReply),
    }
}

/// Balancer to worker, on the control stream.
#[derive(Clone, PartialEq, Message)]
pub struct ToWorker {
    #[prost(oneof = "to_worker::Kind", tags = "1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16")]
    pub kind: Option<to_worker::Kind>,
}
pub mod to_worker {
    use super::*;
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        #[prost(message, tag = "1")]
        Welcome(Welcome),
        #[prost(message, tag = "2")]
        Refused(Refused),
        #[prost(message, tag = "3")]
        ClusterHave(ClusterHave),
        #[prost(message, tag = "4")]
        GatewaySeen(GatewaySeen),
        // Tag 5 told of an unknown gateway, and no worker has listened: balancers list them.
        #[prost(message, tag = "6")]
        TxAck(TxAck),
        #[prost(message, tag = "7")]
        Drain(Drain),
        #[prost(message, tag = "8")]
        Remove(Remove),
        #[prost(message, tag = "9")]
        Suspects(Suspects),
        #[prost(message, tag = "10")]
        Renewed(Renewed),
        #[prost(message, tag = "11")]
        Admin(Admin),
        #[prost(message, tag = "12")]
        AdminReply(AdminReply),
        #[prost(message, tag = "13")]
        Sightings(Sightings),
        #[prost(message, tag = "14")]
        Spare(Spare),
        #[prost(message, tag = "15")]
        Clock(Clock),
        #[prost(message, tag = "16")]
        Trust(Trust),
    }
}

impl From<to_balancer::Kind> for ToBalancer {
    fn from(kind: to_balancer::Kind) -> Self {
        Self { kind: Some(kind) }
    }
}
impl From<to_worker::Kind> for ToWorker {
    fn from(kind: to_worker::Kind) -> Self {
        Self { kind: Some(kind) }
    }
}

/// First message of a worker.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// [`VERSION`] of the worker.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The worker's unique name; must be the one in its certificate.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Random, new at each start: tells a restarted worker from its earlier self.
    #[prost(uint64, tag = "3")]
    pub instance: u64,
    /// Software version, for people.
    #[prost(string, tag = "4")]
    pub software: String,
    /// Where its API listens.
    #[prost(string, tag = "5")]
    pub http: String,
    /// When it started (Unix, us).
    #[prost(uint64, tag = "6")]
    pub started_at: u64,
    /// Its first weight and readiness.
    #[prost(message, optional, tag = "7")]
    pub weight: Option<Weight>,
    /// Instances of the balancers that it has a link to now. One that finds itself here was dialled at another of its
    /// addresses, and refuses the second link.
    #[prost(fixed64, repeated, tag = "8")]
    pub linked: Vec<u64>,
    /// The key of its certificate ([`crate::admin::RevokedServer::key`]), as the balancer's side of the link found it;
    /// what the worker writes here is not looked at.
    #[prost(string, tag = "9")]
    pub key: String,
    /// Which network its store holds, as hex. All workers of a cluster share one store.
    #[prost(string, tag = "10")]
    pub network: String,
    /// When that network began (Unix, s).
    #[prost(uint64, tag = "11")]
    pub network_began: u64,
    /// What its store is, without secrets; for people.
    #[prost(string, tag = "12")]
    pub store: String,
}

/// Answer to [`Hello`]: the worker is in.
#[derive(Clone, PartialEq, Message)]
pub struct Welcome {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The balancer's name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Random, new at each start of the balancer.
    #[prost(uint64, tag = "3")]
    pub instance: u64,
    /// The version of the [`Cluster`] that it has; 0 for none.
    #[prost(uint64, tag = "4")]
    pub cluster_version: u64,
    #[prost(string, tag = "5")]
    pub software: String,
    /// Where its admin HTTP listens.
    #[prost(string, tag = "6")]
    pub admin: String,
    /// The balancer's clock (Unix, us): the worker compares its own with it.
    #[prost(uint64, tag = "7")]
    pub now: u64,
    /// As in [`ClusterHave`].
    #[prost(fixed64, optional, tag = "8")]
    pub cluster_digest: Option<u64>,
}

/// Answer to [`Hello`]: the worker is not let in. The connection is closed after it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Refused {
    /// For people, naming the cause.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// Trying again later can help (the name is taken by a server that may be on its way out).
    #[prost(bool, tag = "2")]
    pub retry: bool,
    /// Not 0: this balancer's instance, to which the worker has a link already.
    #[prost(fixed64, tag = "3")]
    pub linked: u64,
    /// The worker's certificate is revoked: it must join anew.
    #[prost(bool, tag = "4")]
    pub removed: bool,
    /// Not 0: the worker's store is not that of this cluster, whose network began then (Unix, s).
    #[prost(uint64, tag = "5")]
    pub network_began: u64,
}

/// A weight that changes counts at every balancer from the next multiple of this on, in seconds of Unix time: so load
/// moves no gateway more than twice in a minute, however many workers change how much.
pub const WEIGHT_SLOT_SECS: u64 = 40;

/// How much of the ring the worker wants, and whether it may get frames at all. All but the weight counts at once, and
/// so does the weight of a worker that gets no frames.
#[derive(Clone, PartialEq, Message)]
pub struct Weight {
    /// Counted up with each change, so that all balancers settle on the same vector.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// 0 to 100; 100 is a full share.
    #[prost(uint32, tag = "2")]
    pub weight: u32,
    /// Its store answers and it is not shutting down.
    #[prost(bool, tag = "3")]
    pub ready: bool,
    /// Why it is not ready, or overloaded; for people.
    #[prost(string, tag = "4")]
    pub reason: String,
    /// Whether an operator wants it to get no frames. A worker tells all balancers what one of them was asked for.
    #[prost(bool, optional, tag = "5")]
    pub drained: Option<bool>,
    /// It has more work than it can do well.
    #[prost(bool, tag = "6")]
    pub overloaded: bool,
    /// It has its whole weight, and room for more work.
    #[prost(bool, tag = "7")]
    pub spare: bool,
}

/// Sent every 200 ms by a worker: with no frame to acknowledge, this shows that its loop is alive.
#[derive(Clone, PartialEq, Message)]
pub struct Alive {
    /// Frames in work.
    #[prost(uint32, tag = "1")]
    pub in_flight: u32,
    /// Not 0: the worker asks what time it is, at this moment of a clock of its own. Answered by [`Clock`].
    #[prost(uint64, tag = "2")]
    pub asked_at: u64,
}

/// Answer to a worker's question what time it is: from question, answer and what passed between them it knows how far its
/// clock is from the balancer's, whose times are in frames and windows.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Clock {
    /// [`Alive::asked_at`].
    #[prost(uint64, tag = "1")]
    pub asked_at: u64,
    /// The balancer's clock (Unix, us).
    #[prost(uint64, tag = "2")]
    pub now: u64,
}

/// A downlink, with every window that could carry it. The balancer sends the first window in time, and the next
/// one when a gateway refuses it. It forwards each (`key`, window) once, whoever sends it again.
#[derive(Clone, PartialEq, Message)]
pub struct Downlink {
    /// Identity of the bytes: equal for equal bytes under one FCntDown of one session.
    #[prost(fixed64, tag = "1")]
    pub key: u64,
    #[prost(fixed64, tag = "2")]
    pub gateway: u64,
    /// In order of preference.
    #[prost(message, repeated, tag = "3")]
    pub windows: Vec<Window>,
    /// Handed back in [`TxAck`]: all that any worker needs to act on it.
    #[prost(bytes = "bytes", tag = "4")]
    pub context: Bytes,
    /// Another gateway is asked if this one refuses, while there is time.
    #[prost(bool, tag = "5")]
    pub others: bool,
    /// PHYPayload of the windows' transmissions.
    #[prost(bytes = "bytes", tag = "6")]
    pub phy: Bytes,
}

/// One chance to transmit a downlink.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Window {
    /// 1 for RX1, 2 for RX2; 0 for at once.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// When transmission starts, on the clock of the balancer that received the uplink (Unix, us).
    #[prost(uint64, tag = "2")]
    pub at: u64,
    /// The PULL_RESP's JSON, whole: `{"txpk":{...}}`. Written by the worker for balancers of version 1; those of later
    /// ones get a transmission instead.
    #[prost(bytes = "bytes", tag = "3")]
    pub json: Bytes,
    #[prost(message, optional, tag = "4")]
    pub transmission: Option<Transmission>,
}

/// What became of a [`Downlink`]: sent once, when it is settled.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TxAck {
    #[prost(fixed64, tag = "1")]
    pub key: u64,
    #[prost(fixed64, tag = "2")]
    pub gateway: u64,
    /// The window that was used, or tried last.
    #[prost(uint32, tag = "3")]
    pub window: u32,
    /// Empty: the gateway has said that it transmits. Otherwise its word (TOO_LATE, COLLISION_PACKET, ...), or ours:
    /// NO_ROUTE (no PULL_DATA seen), NO_ANSWER (no TX_ACK in time; it may have been sent), OTHER_KIND (timed for another kind).
    #[prost(string, tag = "4")]
    pub error: String,
    #[prost(bytes = "bytes", tag = "5")]
    pub context: Bytes,
    /// When it was settled (Unix, us).
    #[prost(uint64, tag = "6")]
    pub at: u64,
    /// With NO_ANSWER: this gateway has never sent a TX_ACK, so that its silence says nothing. Taken as transmitted.
    #[prost(bool, tag = "7")]
    pub assumed: bool,
}

/// To a balancer: send me nothing new; I go when what I hold is done. To a worker: please drain.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Drain {
    /// False ends a drain that was asked for before.
    #[prost(bool, tag = "1")]
    pub on: bool,
    /// To a worker that has just linked up: an earlier run of it was asked to drain. Whoever has ended that since, at
    /// another balancer, knows better.
    #[prost(bool, tag = "2")]
    pub remembered: bool,
}

/// To a worker: you are removed; drain, then end with status 0.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Remove {}

/// A known gateway was heard: at its first datagram, when its address changes, and every 30 s.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GatewaySeen {
    #[prost(fixed64, tag = "1")]
    pub eui: u64,
    /// Address of the last datagram, as text.
    #[prost(string, tag = "2")]
    pub address: String,
    /// When (Unix, us).
    #[prost(uint64, tag = "3")]
    pub at: u64,
    /// GWMP version, 1 or 2.
    #[prost(uint32, tag = "4")]
    pub version: u32,
}

/// To every worker: gateways that have asked this balancer for downlinks (PULL_DATA), each at most every 5 s; after
/// `Welcome` all that are within the last 90 s. A downlink leaves by the balancer that was asked last.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Sightings {
    #[prost(fixed64, repeated, tag = "1")]
    pub gateways: Vec<u64>,
    /// How long ago each of them asked (ms): an age, since the clocks of two balancers may differ.
    #[prost(uint32, repeated, tag = "2")]
    pub ages: Vec<u32>,
}

/// Names of the workers that have room for more work, as of now: who is overloaded sheds gateways only if somebody is
/// there to take them.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Spare {
    #[prost(string, repeated, tag = "1")]
    pub names: Vec<String>,
}

/// Names of the workers that this balancer finds silent now.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Suspects {
    #[prost(string, repeated, tag = "1")]
    pub names: Vec<String>,
}

/// Asks for a new certificate for the same name.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Renew {
    /// PKCS#10, DER.
    #[prost(bytes = "bytes", tag = "1")]
    pub csr: Bytes,
}
/// Answer to [`Renew`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Renewed {
    /// The certificate, PEM.
    #[prost(string, tag = "1")]
    pub certificate: String,
}

/// To a worker, once the cluster's CA was changed: whose certificates count. It asks for a new one ([`Renew`]) when all its balancers
/// have told it this. A worker of a version before knows nothing of it, and is shut out when the CA before is given up.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Trust {
    /// When it was changed (Unix, us). The latest holds, and its end (without `former`) after its beginning.
    #[prost(uint64, tag = "1")]
    pub since: u64,
    /// PEM.
    #[prost(string, tag = "2")]
    pub ca: String,
    /// The one before; empty once it is given up.
    #[prost(string, tag = "3")]
    pub former: String,
    /// Keys of the servers whose certificates of the one before count.
    #[prost(string, repeated, tag = "4")]
    pub known: Vec<String>,
}

/// A question of an operator, passed to the side that knows the answer; `request` is [`crate::admin::Request`] as JSON.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Admin {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub request: String,
}
/// Answer to [`Admin`]; `reply` is [`crate::admin::Reply`] as JSON.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AdminReply {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub reply: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_the_stream_in_any_pieces() {
        let frame = UplinkFrame {
            seq: 7,
            received_at: UnixMicros(9),
            gateway: Eui64(3),
            attempt: 2,
            datagram: Bytes::from_static(b"hello"),
        };
        let mut wire = BytesMut::new();
        frame.encode(&mut wire);
        encode(&Ack { received: 7, stored: alloc::vec![7], ..Ack::default() }, &mut wire);
        let mut buffer = BytesMut::new();
        let mut bodies = Vec::new();
        for byte in wire {
            buffer.put_u8(byte);
            while let Some(body) = next_message(&mut buffer).unwrap() {
                bodies.push(body);
            }
        }
        assert_eq!(UplinkFrame::decode(bodies.remove(0)), Some(frame));
        assert_eq!(Ack::decode(bodies.remove(0)).unwrap().stored, [7]);
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_awaited() {
        let mut buffer = BytesMut::from(&[0xff; 4][..]);
        assert_eq!(next_message(&mut buffer), Err(TooLong(u32::MAX as usize)));
        assert_eq!(UplinkFrame::decode(Bytes::from_static(&[0; 24])), None);
    }
}
