//! What a gateway does by itself: keep alive, report, read what the server sends, transmit.

use std::{sync::Arc, time::Duration};

use limpet_shared::gwmp::{self, DownKind, Downstream, Stat, TxAckBody, TxError, Txpk};
use tokio::{
    net::UdpSocket,
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{Answer, Downlink, Inner, OnAir, Sockets, TxAckFrom, TxAckStyle, publish};
use crate::lock;

/// How long a reader rests after an error that is not about one datagram.
const AFTER_ERROR: Duration = Duration::from_millis(20);

/// One of the two sockets.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Up,
    Down,
}

impl Side {
    fn of(self, sockets: &Sockets) -> Arc<UdpSocket> {
        match self {
            Self::Up => sockets.up.clone(),
            Self::Down => sockets.down.clone(),
        }
    }
}

/// Sends PULL_DATA, the first at once.
pub(super) async fn keep_alive(inner: Arc<Inner>) {
    let mut ticks = interval(inner.config.keepalive);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = inner.pull().await {
            tracing::debug!(gateway = %inner.config.eui, %error, "PULL_DATA not sent");
        }
    }
}

/// Sends status reports.
pub(super) async fn report(inner: Arc<Inner>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let counters = lock(&inner.counters).clone();
        let received = u32::try_from(counters.pushed).unwrap_or(u32::MAX);
        let sent = counters.downlinks.saturating_sub(counters.refused.values().sum());
        let stat = Stat {
            rxnb: Some(received),
            rxok: Some(received),
            rxfw: Some(received),
            ackr: Some(100.0 * counters.push_acked as f32 / counters.pushed.max(1) as f32),
            dwnb: u32::try_from(counters.downlinks).ok(),
            txnb: u32::try_from(sent).ok(),
            ..Stat::default()
        };
        // Nobody waits for the answer; the counters have it.
        let _ = inner.push(&gwmp::push_data_json(&[], Some(&stat))).await;
    }
}

/// Reads one socket, and the one that takes its place. After a move to another server the old one is read besides, for
/// what that server still answers.
pub(super) async fn read(inner: Arc<Inner>, side: Side) {
    let mut changes: watch::Receiver<Sockets> = inner.sockets.subscribe();
    let mut here = changes.borrow_and_update().clone();
    let mut left: Option<Sockets> = None;
    let (mut buffer, mut late) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                let fresh = changes.borrow_and_update().clone();
                let before = std::mem::replace(&mut here, fresh);
                left = (before.server != here.server).then_some(before);
            }
            got = receive(Some(&here), side, &mut buffer) => match got {
                Ok(length) => handle(&inner, &here, buffer.get(..length).unwrap_or_default()).await,
                Err(_) => tokio::time::sleep(AFTER_ERROR).await,
            },
            got = receive(left.as_ref(), side, &mut late) => match (got, &left) {
                (Ok(length), Some(there)) => handle(&inner, there, late.get(..length).unwrap_or_default()).await,
                // That server is gone.
                _ => left = None,
            },
        }
    }
}

/// The next datagram; without sockets there is none.
async fn receive(sockets: Option<&Sockets>, side: Side, buffer: &mut [u8]) -> std::io::Result<usize> {
    match sockets {
        Some(sockets) => side.of(sockets).recv(buffer).await,
        None => std::future::pending().await,
    }
}

/// Does what the server wants that is on the other end of these sockets.
async fn handle(inner: &Arc<Inner>, from: &Sockets, datagram: &[u8]) {
    match gwmp::parse_downstream(datagram) {
        Ok(Downstream { kind: DownKind::PushAck, token, .. }) => push_acked(inner, token),
        Ok(Downstream { kind: DownKind::PullAck, .. }) => lock(&inner.counters).pull_acked += 1,
        Ok(Downstream { kind: DownKind::PullResp, token, json, .. }) => match gwmp::parse_pull_resp(json) {
            Ok(txpk) => downlink(inner, from, token, txpk).await,
            Err(error) => junk(inner, &error.to_string()),
        },
        Err(error) => junk(inner, &error.to_string()),
    }
}

fn junk(inner: &Inner, error: &str) {
    lock(&inner.counters).junk += 1;
    tracing::warn!(gateway = %inner.config.eui, error, "the server sent what no forwarder takes");
}

fn push_acked(inner: &Inner, token: u16) {
    let waiting = lock(&inner.waiting).remove(&token);
    let mut counters = lock(&inner.counters);
    match waiting {
        Some(waiting) => {
            counters.push_acked += 1;
            let _ = waiting.told.send(waiting.since.elapsed());
        }
        None => counters.push_acks_unasked += 1,
    }
}

async fn downlink(inner: &Arc<Inner>, from: &Sockets, token: u16, txpk: Txpk) {
    let arrived = Instant::now();
    let now = inner.tmst(arrived);
    let lead = txpk.tmst.map_or(0, |tmst| i64::from(tmst.wrapping_sub(now) as i32));
    let taken = lock(&inner.concentrator).enqueue(now, &txpk);
    let answer = match &taken {
        Ok(_) => Answer::Queued,
        Err(error) => Answer::Refused(error.clone()),
    };
    count(inner, &answer);
    if let Err(error) = answer_with_tx_ack(inner, from, token, &answer).await {
        tracing::debug!(gateway = %inner.config.eui, %error, "TX_ACK not sent");
    }
    let gateway = inner.config.eui;
    publish(&inner.downlinks, &Downlink { gateway, token, txpk: txpk.clone(), arrived, lead, answer });
    if let Ok(tmst) = taken {
        let ahead = Duration::from_micros(tmst.wrapping_sub(now).into());
        tokio::spawn(transmit(Arc::downgrade(inner), arrived + ahead, OnAir { gateway, tmst, txpk }));
    }
}

/// Waits for its time; a gateway that was stopped meanwhile transmits nothing.
async fn transmit(inner: std::sync::Weak<Inner>, at: Instant, packet: OnAir) {
    tokio::time::sleep_until(at).await;
    if let Some(inner) = inner.upgrade() {
        publish(&inner.on_air, &packet);
    }
}

fn count(inner: &Inner, answer: &Answer) {
    let mut counters = lock(&inner.counters);
    counters.downlinks += 1;
    if let Answer::Refused(error) = answer {
        *counters.refused.entry(error.as_str().to_owned()).or_default() += 1;
    }
}

async fn answer_with_tx_ack(inner: &Inner, to: &Sockets, token: u16, answer: &Answer) -> std::io::Result<()> {
    let config = &inner.config;
    let socket = match config.tx_ack {
        _ if config.version == 1 => return Ok(()),
        TxAckFrom::Never => return Ok(()),
        TxAckFrom::PullSocket => &to.down,
        TxAckFrom::PushSocket => &to.up,
    };
    let error = |error: &str| TxAckBody { error: Some(error.into()), ..TxAckBody::default() }.to_json();
    let json = match (answer, config.tx_ack_style) {
        (Answer::Refused(refused), _) => error(TxError::as_str(refused)),
        (Answer::Queued, TxAckStyle::NoBody) => Vec::new(),
        (Answer::Queued, TxAckStyle::None) => error("NONE"),
        (Answer::Queued, TxAckStyle::Empty) => error(""),
    };
    super::ignore_refused(socket.send(&gwmp::tx_ack(config.version, token, config.eui, &json)).await)
}
