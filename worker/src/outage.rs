//! After a time in which no worker was there: what balancers retained went with them, and nobody saw them go.

use std::{sync::Arc, time::Duration};

use limpet_shared::admin::{Role, Server};
use limpet_store::Store;

use crate::{pipeline::Sweep, roll};

/// A worker that lives has been seen again by then.
const LOOK_AGAIN: Duration = roll::EVERY.saturating_mul(3);

/// Asks for a sweep if none of the workers that were there before this one is there still. One that is has swept whenever a link of
/// its own has ended.
pub async fn look_back(store: Arc<dyn Store>, me: u64, sweep: Sweep) {
    let before = servers(&*store).await;
    tokio::time::sleep(LOOK_AGAIN).await;
    if !has_survivor(&before, &servers(&*store).await, me) {
        tracing::info!("no other worker has been there all the time: what was stored before is looked through");
        sweep.ask();
    }
}

async fn servers(store: &dyn Store) -> Vec<Server> {
    loop {
        match store.servers().await {
            Ok(servers) => return servers,
            Err(error) => tracing::debug!(%error, "the store does not tell which servers there were"),
        }
        tokio::time::sleep(roll::EVERY).await;
    }
}

fn has_survivor(before: &[Server], now: &[Server], me: u64) -> bool {
    let others = now.iter().filter(|server| server.kind() == Role::Worker && server.instance != me);
    others.into_iter().any(|server| {
        before
            .iter()
            .any(|old| old.kind() == Role::Worker && old.instance == server.instance && old.seen_at < server.seen_at)
    })
}

#[cfg(test)]
mod tests {
    use limpet_shared::UnixMicros;

    use super::*;

    #[test]
    fn only_a_worker_that_goes_on_in_the_same_run_was_there_all_the_time() {
        let worker =
            |instance, seen| Server { role: "worker".into(), instance, seen_at: UnixMicros(seen), ..Server::default() };
        let before = [worker(1, 10), worker(2, 10)];
        assert!(has_survivor(&before, &[worker(1, 20), worker(2, 10), worker(9, 20)], 9));
        assert!(
            !has_survivor(&before, &[worker(1, 10), worker(3, 20), worker(9, 20)], 9),
            "a restart, and one that is gone"
        );
        assert!(!has_survivor(&[worker(9, 10)], &[worker(9, 20)], 9), "itself");
        let balancer = |seen| Server { role: "balancer".into(), ..worker(4, seen) };
        assert!(!has_survivor(&[balancer(10)], &[balancer(20)], 9));
    }
}
