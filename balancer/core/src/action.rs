//! What the balancer wants done, and what it has to say.

use alloc::string::String;
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use limpet_shared::{
    Eui64, UnixMicros,
    link::{UplinkFrame, to_worker},
};

/// Number of a worker's connection, given by whoever drives the balancer; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// Where a datagram came from, and where an answer has to leave: a forwarder sees only what comes from the address
/// and port it has sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Number of our UDP socket.
    pub socket: u16,
    /// The gateway's address and port.
    pub address: SocketAddr,
    /// Which of this machine's addresses it was sent to, if the system says so.
    pub local: Option<IpAddr>,
}

/// Something to do, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    SendUdp {
        to: Source,
        bytes: Bytes,
    },
    SendFrame {
        worker: WorkerId,
        frame: UplinkFrame,
    },
    /// This frame is of no use to the worker any more: take it back if it is not on its way yet.
    WithdrawFrame {
        worker: WorkerId,
        seq: u64,
    },
    SendControl {
        worker: WorkerId,
        message: to_worker::Kind,
    },
    /// Close the connection, after what was sent before. The balancer has forgotten it already.
    CloseWorker {
        worker: WorkerId,
        reason: String,
    },
    /// A gateway's entry in the published registry is new or has changed.
    Publish {
        gateway: Eui64,
        route: Route,
    },
    /// The gateway is no longer in the table.
    Unpublish {
        gateway: Eui64,
    },
    /// What this gateway sends from this address would be dropped until then (monotonic), for that reason: it need not be
    /// handed in.
    Mute {
        gateway: Eui64,
        address: IpAddr,
        until: Duration,
        reason: DropReason,
    },
    /// This address is held for the gateway, or none any more: keep that.
    Hold {
        gateway: Eui64,
        address: Option<IpAddr>,
    },
    /// [`crate::Balancer::cluster`] has changed: keep it.
    PersistCluster,
    /// A datagram or a downlink ends here.
    Drop {
        reason: DropReason,
        gateway: Option<Eui64>,
        from: Option<SocketAddr>,
    },
    /// For logs and metrics.
    Event(Event),
}

/// What the world may know about a gateway's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where downlinks go: source of the last PULL_DATA; before one came, of the last PUSH_DATA.
    pub address: SocketAddr,
    /// Name of its worker; `None` while nobody has a share.
    pub worker: Option<String>,
    /// Epoch of the ring that chose it.
    pub epoch: u64,
    pub last_seen: UnixMicros,
}

/// Why something ends at the balancer. Its label is the value of the metric's `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum DropReason {
    #[error("shorter than a GWMP header")]
    TooShort,
    #[error("neither GWMP version 1 nor 2")]
    GwmpVersion,
    #[error("a GWMP type that no gateway sends")]
    GwmpType,
    #[error("the network does not know this gateway")]
    UnknownGateway,
    #[error("its address is not one that this gateway is locked to")]
    AddressLocked,
    #[error("this gateway was heard from another address, which is held for it")]
    AddressHeld,
    #[error("more datagrams or packets per second than one gateway may send")]
    GatewayRate,
    #[error("more bytes per second than one gateway may send")]
    GatewayBytes,
    #[error("more datagrams or packets per second of unknown gateways than one address may send")]
    UnknownRate,
    #[error("the memory for unfinished frames is full")]
    RetentionFull,
    #[error("this gateway has more unfinished frames in memory than there is room left")]
    RetentionShare,
    #[error("no worker was there to take it in time")]
    NoWorker,
    #[error("given up after too many workers failed with it")]
    Poison,
    #[error("the balancer is stopping")]
    Stopping,
    #[error("a TX_ACK that cannot be read")]
    TxAckMalformed,
    #[error("a TX_ACK from an address that is not this gateway's")]
    TxAckAddress,
    #[error("a TX_ACK for no downlink in flight")]
    TxAckUnmatched,
    #[error("nobody is there to hear what became of a downlink")]
    TxAckUnheard,
    #[error("a downlink without a window")]
    DownlinkMalformed,
    #[error("a downlink that is timed for another kind of gateway")]
    DownlinkOtherKind,
    #[error("too many downlinks in flight")]
    DownlinksFull,
}

impl DropReason {
    /// All reasons, so that a metric can show each from the start.
    pub const ALL: [Self; 21] = [
        Self::TooShort,
        Self::GwmpVersion,
        Self::GwmpType,
        Self::UnknownGateway,
        Self::AddressLocked,
        Self::AddressHeld,
        Self::GatewayRate,
        Self::GatewayBytes,
        Self::UnknownRate,
        Self::RetentionFull,
        Self::RetentionShare,
        Self::NoWorker,
        Self::Poison,
        Self::Stopping,
        Self::TxAckMalformed,
        Self::TxAckAddress,
        Self::TxAckUnmatched,
        Self::TxAckUnheard,
        Self::DownlinkMalformed,
        Self::DownlinkOtherKind,
        Self::DownlinksFull,
    ];

    /// The metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::GwmpVersion => "gwmp_version",
            Self::GwmpType => "gwmp_type",
            Self::UnknownGateway => "unknown_gateway",
            Self::AddressLocked => "address_locked",
            Self::AddressHeld => "address_held",
            Self::GatewayRate => "gateway_rate",
            Self::GatewayBytes => "gateway_bytes",
            Self::UnknownRate => "unknown_rate",
            Self::RetentionFull => "retention_full",
            Self::RetentionShare => "retention_share",
            Self::NoWorker => "no_worker",
            Self::Poison => "poison",
            Self::Stopping => "stopping",
            Self::TxAckMalformed => "tx_ack_malformed",
            Self::TxAckAddress => "tx_ack_address",
            Self::TxAckUnmatched => "tx_ack_unmatched",
            Self::TxAckUnheard => "tx_ack_unheard",
            Self::DownlinkMalformed => "downlink_malformed",
            Self::DownlinkOtherKind => "downlink_other_kind",
            Self::DownlinksFull => "downlinks_full",
        }
    }
}

/// Why a frame went to another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redelivery {
    /// Its worker fell silent.
    Silent,
    /// Its worker's link closed.
    Closed,
    /// Its worker has read it, but not stored it in time.
    Slow,
}

impl Redelivery {
    /// The metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Closed => "closed",
            Self::Slow => "slow",
        }
    }
}

/// Something that happened, for people and dashboards.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A datagram of a known or accepted gateway came in.
    Received { kind: &'static str },
    /// A PUSH_ACK was sent, so long after its PUSH_DATA came.
    PushAcked { after: Duration },
    /// A PUSH_DATA was stored so late after it came that its gateway waits for no answer: none was sent.
    PushAckWithheld { after: Duration },
    /// A frame went to another worker; `attempt` counts its deliveries before this one.
    Redelivered { gateway: Eui64, attempt: u8, why: Redelivery },
    /// A frame went past its worker, which leaves too much unread.
    Spilled { gateway: Eui64 },
    /// A worker's state changed.
    Worker { name: String, state: &'static str, reason: String },
    /// A worker was not let in.
    WorkerRefused { name: String, reason: String },
    /// Gateways may have other workers now.
    RingChanged { epoch: u64 },
    /// The first datagram of a gateway that the network does not know.
    UnknownGateway { gateway: Eui64, address: SocketAddr },
    /// A gateway speaks from another address.
    GatewayMoved { gateway: Eui64, from: SocketAddr, to: SocketAddr },
    /// A downlink was handed to its gateway.
    DownlinkSent { gateway: Eui64, window: u32 },
    /// A downlink is settled; an empty error is success.
    DownlinkSettled { gateway: Eui64, window: u32, error: String },
    /// The cluster's snapshot has this version now.
    ClusterChanged { version: u64, gateways: usize },
    /// More than half of the workers fell silent at once: that is more likely our own trouble.
    VerdictsHeld { silent: usize, of: usize },
    /// The balancer itself did not run for so long.
    Stalled { late: Duration },
}
