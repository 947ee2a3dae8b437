//! A worker that stores nothing: it says at once that a frame is stored and some 250 ms later that it is done, so that a
//! balancer can be measured at rates that no real worker on the same machine would leave it the processor for.

use std::{collections::VecDeque, path::Path, time::Duration};

use limpet_link::{BalancerLink, Token, dial, ensure_worker, host};
use limpet_shared::{
    Eui64,
    link::{Ack, Alive, Cluster, Hello, KnownGateway, ToBalancer, VERSION, Weight, to_balancer},
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::Outcome;

const ALIVE_EVERY: Duration = Duration::from_millis(100);
/// A worker's windows end together, on a grid.
const GRID: Duration = Duration::from_millis(50);
const DONE_AFTER: Duration = Duration::from_millis(225);
const BATCH: usize = 256;

/// Joins and links up; the balancer knows the gateways when this returns. It works until the task is dropped.
pub async fn start(token: &str, folder: &Path, gateways: &[Eui64]) -> Outcome<tokio::task::JoinHandle<()>> {
    let token: Token = token.parse()?;
    let member = ensure_worker(folder, Some(&token), "stub", true).await?;
    let weight = Weight { number: 1, weight: 100, ready: true, spare: true, ..Weight::default() };
    let hello = Hello {
        version: VERSION,
        name: "stub".into(),
        instance: host::random()?,
        started_at: host::now().0,
        weight: Some(weight),
        ..Hello::default()
    };
    let address = token.addresses.first().ok_or("the token names no balancer")?;
    let link = dial(address, &member.identity, hello).await?;
    let gateways = gateways.iter().map(|eui| KnownGateway { eui: eui.0, policy: String::new() }).collect();
    let cluster = Cluster { version: 1, ring_key: vec![7; 16].into(), gateways, ..Cluster::default() };
    link.control_tx.send(ToBalancer::from(to_balancer::Kind::Cluster(cluster))).await?;
    Ok(tokio::spawn(work(link)))
}

async fn work(link: BalancerLink) {
    let BalancerLink { control_tx, mut control_rx, mut frame_rx, ack_tx, link: _link, .. } = link;
    let (mut alive, mut grid) = (interval(ALIVE_EVERY), interval(GRID));
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    grid.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut undone: VecDeque<(Instant, Vec<u64>)> = VecDeque::new();
    let (mut batch, mut received) = (Vec::new(), 0);
    loop {
        let ack = tokio::select! {
            read = frame_rx.recv_many(&mut batch, BATCH) => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
                let stored: Vec<u64> = batch.drain(..).map(|frame| frame.seq).collect();
                received = stored.iter().copied().fold(received, u64::max);
                undone.push_back((Instant::now() + DONE_AFTER, stored.clone()));
                Ack { received, stored, done: Vec::new() }
            }
            _ = grid.tick() => {
                let mut done = Vec::new();
                while let Some((_, seqs)) = undone.pop_front_if(|(at, _)| *at <= Instant::now()) {
                    done.extend(seqs);
                }
                if done.is_empty() && undone.is_empty() {
                    continue;
                }
                Ack { received, stored: Vec::new(), done }
            }
            _ = alive.tick() => {
                let alive = to_balancer::Kind::Alive(Alive::default());
                if control_tx.send(ToBalancer::from(alive)).await.is_err() {
                    return;
                }
                continue;
            }
            told = control_rx.recv() => {
                if !matches!(told, Ok(Some(_))) {
                    return;
                }
                continue;
            }
        };
        if ack_tx.send(ack).await.is_err() {
            return;
        }
    }
}
