//! A gateway by hand: single sockets, single datagrams, every answer looked at.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Mutex,
    time::Duration,
};

use limpet_shared::{
    Eui64,
    gwmp::{self, DownKind, Rxpk, Txpk},
};
use tokio::{net::UdpSocket, time::timeout};

use crate::support::PATIENCE;

/// How long it is listened for what must not come.
const SILENCE: Duration = Duration::from_millis(400);

/// One socket of a gateway.
pub struct Socket {
    socket: UdpSocket,
    pub eui: Eui64,
    pub version: u8,
    /// PHYPayloads that came. RX2 repeats one that was not answered in time, which happens on a busy machine.
    seen: Mutex<Vec<Vec<u8>>>,
}

/// A datagram of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub version: u8,
    pub token: u16,
    pub kind: DownKind,
    pub txpk: Option<Txpk>,
}

impl Socket {
    pub async fn open(server: SocketAddr, eui: Eui64, version: u8) -> Self {
        Self::open_from(Ipv4Addr::LOCALHOST, server, eui, version).await
    }

    /// A socket at another of this machine's addresses.
    pub async fn open_from(address: Ipv4Addr, server: SocketAddr, eui: Eui64, version: u8) -> Self {
        let socket = UdpSocket::bind((address, 0)).await.unwrap();
        // As forwarders do: what comes from another address is never seen.
        socket.connect(server).await.unwrap();
        Self { socket, eui, version, seen: Mutex::default() }
    }

    pub async fn send(&self, datagram: &[u8]) {
        self.socket.send(datagram).await.unwrap();
    }

    pub async fn pull(&self, token: u16) {
        self.send(&gwmp::pull_data(self.version, token, self.eui)).await;
    }

    pub async fn push(&self, token: u16, json: &[u8]) {
        self.send(&gwmp::push_data(self.version, token, self.eui, json)).await;
    }

    pub async fn push_packets(&self, token: u16, packets: &[Rxpk]) {
        self.push(token, &gwmp::push_data_json(packets, None)).await;
    }

    pub async fn tx_ack(&self, token: u16, json: &[u8]) {
        self.send(&gwmp::tx_ack(self.version, token, self.eui, json)).await;
    }

    /// The next datagram of the server, but for PULL_RESPs that repeat one.
    pub async fn answer(&self) -> Answer {
        self.answer_within(PATIENCE).await.expect("an answer of the server")
    }

    async fn answer_within(&self, time: Duration) -> Option<Answer> {
        timeout(time, async {
            loop {
                let answer = self.any_answer().await;
                let Some(txpk) = &answer.txpk else { return answer };
                let mut seen = self.seen.lock().unwrap();
                if !seen.contains(&txpk.data) {
                    seen.push(txpk.data.clone());
                    return answer;
                }
            }
        })
        .await
        .ok()
    }

    async fn any_answer(&self) -> Answer {
        let mut buffer = vec![0; 65_536];
        let length = self.socket.recv(&mut buffer).await.unwrap();
        let read = gwmp::parse_downstream(&buffer[..length]).unwrap();
        let txpk = (read.kind == DownKind::PullResp).then(|| gwmp::parse_pull_resp(read.json).unwrap());
        Answer { version: read.version, token: read.token, kind: read.kind, txpk }
    }

    /// What comes within a moment.
    pub async fn answer_soon(&self) -> Option<Answer> {
        self.answer_within(SILENCE).await
    }

    /// Nothing comes here for a while.
    pub async fn silent(&self) {
        let answer = self.answer_within(SILENCE).await;
        assert!(answer.is_none(), "nothing was to come here: {answer:?}");
    }

    /// Nothing comes here for a while, no repetition either.
    pub async fn strictly_silent(&self) {
        let answer = timeout(SILENCE, self.any_answer()).await;
        assert!(answer.is_err(), "nothing was to come here: {answer:?}");
    }

    /// Sends PULL_DATA and waits for its PULL_ACK.
    pub async fn open_route(&self, token: u16) {
        self.pull(token).await;
        assert_eq!(self.answer().await, Answer::ack(self.version, token, DownKind::PullAck));
    }

    /// Reports packets and waits for the PUSH_ACK.
    pub async fn report(&self, token: u16, packets: &[Rxpk]) {
        self.push_packets(token, packets).await;
        assert_eq!(self.answer().await, Answer::ack(self.version, token, DownKind::PushAck));
    }

    /// The next datagram, which must be a PULL_RESP: its token, and what it asks for.
    pub async fn pull_resp(&self) -> (u16, Txpk) {
        let answer = self.answer().await;
        assert_eq!((answer.version, answer.kind), (self.version, DownKind::PullResp), "{answer:?}");
        (answer.token, answer.txpk.unwrap())
    }

    /// The PULL_RESP that repeats this one for another window.
    pub async fn pull_resp_again(&self, first: &Txpk) -> (u16, Txpk) {
        let again = timeout(PATIENCE, self.any_answer()).await.expect("an answer of the server");
        assert_eq!((again.version, again.kind), (self.version, DownKind::PullResp), "{again:?}");
        let txpk = again.txpk.unwrap();
        assert_eq!(txpk.data, first.data, "the same bytes");
        (again.token, txpk)
    }
}

impl Answer {
    pub fn ack(version: u8, token: u16, kind: DownKind) -> Self {
        Self { version, token, kind, txpk: None }
    }
}
