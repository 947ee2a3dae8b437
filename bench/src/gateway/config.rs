//! What a virtual gateway is like.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use limpet_shared::{
    Eui64,
    gwmp::{TxError, Txpk},
};

/// How a gateway behaves. [`GatewayConfig::new`] gives Semtech's forwarder, version 2.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    pub eui: Eui64,
    pub server: SocketAddr,
    /// 1 or 2. A gateway of version 1 never sends a TX_ACK.
    pub version: u8,
    /// Between two PULL_DATA.
    pub keepalive: Duration,
    /// Between two status reports; `None` for none.
    pub status_interval: Option<Duration>,
    /// The concentrator's counter at the start, us: near `u32::MAX` to see it wrap.
    pub tmst_start: u32,
    /// Which socket TX_ACKs leave from.
    pub tx_ack: TxAckFrom,
    /// How a yes is written.
    pub tx_ack_style: TxAckStyle,
    /// Downlinks that are refused although the concentrator could take them.
    pub refuse: Refuse,
    /// How many downlinks wait at most.
    pub queue: usize,
    /// Refuse downlinks that overlap one in the queue (COLLISION_PACKET). Off, the gateway has as many transmitters as
    /// it needs, so that a load test measures the server and not the air.
    pub collisions: bool,
}

/// Which socket a gateway sends TX_ACK from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxAckFrom {
    /// The one that PULL_DATA leaves from, as Semtech's forwarder.
    PullSocket,
    /// The one that PUSH_DATA leaves from, as Tektelic's.
    PushSocket,
    Never,
}

/// The three ways to say yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxAckStyle {
    /// No body (Semtech).
    NoBody,
    /// `"error":"NONE"` (Helium).
    None,
    /// `"error":""` (ChirpStack's forwarder).
    Empty,
}

/// Says whether a downlink is refused, and with which error.
pub type Judge = Arc<dyn Fn(&Txpk) -> Option<TxError> + Send + Sync>;

/// Which downlinks a gateway refuses on purpose.
#[derive(Clone)]
pub enum Refuse {
    Nothing,
    /// All, with this error.
    All(TxError),
    /// Each PHYPayload when it comes first, which is RX1 if the server still has time for it; its repetition is taken.
    FirstWindow(TxError),
    /// Each PHYPayload when it comes again.
    SecondWindow(TxError),
    /// As the function says.
    By(Judge),
}

impl fmt::Debug for Refuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::All(error) => f.debug_tuple("All").field(error).finish(),
            Self::FirstWindow(error) => f.debug_tuple("FirstWindow").field(error).finish(),
            Self::SecondWindow(error) => f.debug_tuple("SecondWindow").field(error).finish(),
            Self::By(_) => f.write_str("By(..)"),
        }
    }
}

impl GatewayConfig {
    pub fn new(eui: Eui64, server: SocketAddr) -> Self {
        Self {
            eui,
            server,
            version: 2,
            keepalive: Duration::from_secs(10),
            status_interval: None,
            tmst_start: 1_000_000,
            tx_ack: TxAckFrom::PullSocket,
            tx_ack_style: TxAckStyle::NoBody,
            refuse: Refuse::Nothing,
            queue: 32,
            collisions: false,
        }
    }
}
