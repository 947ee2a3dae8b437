//! Servers of another cluster on the same store. Each would tell its balancers of the other's gateways and take the
//! other's frames for its own, so a worker that finds them alive does not start.

use std::time::Duration;

use limpet_link::time;
use limpet_shared::{UnixMicros, admin::Server};
use limpet_store::{Store, StoreError};

/// Lines older than this are of servers that went without a word; clocks may be minutes apart.
const LATELY: Duration = Duration::from_secs(600);
/// A server that lives writes a line every 2.5 s. So often, and with such pauses, it is looked whether one does.
const LOOKS: u32 = 16;
const PAUSE: Duration = Duration::from_millis(500);

/// Why a worker does not start on this store.
#[derive(Debug, thiserror::Error)]
pub enum Stranger {
    #[error(
        "the store ({store}) belongs to another cluster, whose {role} {name} works with it now: start this server with a \
         --join token of that cluster, or give it another --store. If its CA was changed while this server was away, it needs a new token"
    )]
    Alive { store: String, role: String, name: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Waits until it is clear that no server of a cluster other than this one (its CAs' fingerprints) uses the store. Where no
/// such server was there lately, that is at once.
pub async fn look_for(store: &dyn Store, cluster: &[String]) -> Result<(), Stranger> {
    let before = store.servers().await?;
    let now = time::now();
    let suspects: Vec<&Server> = before.iter().filter(|server| is_strange(server, cluster, now)).collect();
    if suspects.is_empty() {
        return Ok(());
    }
    tracing::warn!("servers of another cluster were in this store lately; waiting to see whether they still are");
    for _ in 0..LOOKS {
        tokio::time::sleep(PAUSE).await;
        let after = store.servers().await?;
        if let Some(alive) = suspects.iter().find(|suspect| has_written(suspect, &after)) {
            let (role, name) = (alive.kind().as_str().to_owned(), alive.name.clone());
            return Err(Stranger::Alive { store: store.describe(), role, name });
        }
    }
    Ok(())
}

/// Of another cluster, and perhaps alive. Its line says so itself: older versions leave the cluster out.
fn is_strange(server: &Server, cluster: &[String], now: UnixMicros) -> bool {
    let apart = now.since(server.seen_at).max(server.seen_at.since(now));
    !server.cluster.is_empty() && !server.is_of(cluster) && server.state != "gone" && apart < LATELY
}

/// Whether there is a newer line of the same server. A balancer's is written by its workers, so a line with its name that
/// belongs to our own cluster by now is no sign of it.
fn has_written(suspect: &Server, after: &[Server]) -> bool {
    let same = |server: &&Server| (server.kind(), &server.name) == (suspect.kind(), &suspect.name);
    let later = after.iter().find(same);
    later.is_some_and(|now| now.seen_at != suspect.seen_at && now.cluster == suspect.cluster && now.state != "gone")
}

#[cfg(test)]
mod tests {
    use limpet_shared::admin::Role;
    use limpet_store::{Membership, SqliteStore};

    use super::*;

    fn server(name: &str, cluster: &str, seen_at: UnixMicros) -> Server {
        let role = Role::Worker.as_str().into();
        Server { name: name.into(), role, cluster: cluster.into(), state: "ready".into(), seen_at, ..Server::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_with_living_servers_of_another_cluster_is_refused_and_a_dead_ones_is_taken() {
        let (store, us) = (SqliteStore::in_memory().unwrap(), ["us".to_owned()]);
        let (now, long_ago) = (time::now(), time::now() - 2 * LATELY);
        for line in [server("mine", "us", now), server("old", "them", long_ago), server("unsaid", "", now)] {
            store.heartbeat(&line).await.unwrap();
        }
        look_for(&*store, &us).await.unwrap();
        let gone = Server { state: "gone".into(), ..server("left", "them", now) };
        store.heartbeat(&gone).await.unwrap();
        store.heartbeat(&server("killed", "them", now)).await.unwrap();
        look_for(&*store, &us).await.unwrap();
        // It has another CA by now, and so will this one.
        let changed = Server { cluster_before: "us".into(), ..server("changed", "us-too", now) };
        store.heartbeat(&changed).await.unwrap();
        assert!(!is_strange(&changed, &us, now) && is_strange(&server("changed", "us-too", now), &us, now));

        store.heartbeat(&server("alive", "them", now)).await.unwrap();
        let writing = store.clone();
        let alive = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(2_500)).await;
                writing.heartbeat(&server("alive", "them", time::now() + PAUSE)).await.unwrap();
            }
        });
        let refused = look_for(&*store, &us).await.unwrap_err().to_string();
        assert!(refused.contains("another cluster, whose worker alive works with it now"), "{refused}");
        alive.abort();
    }
}
