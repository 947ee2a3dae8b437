//! How fast the store takes writes on this machine, by how many are under way at once.
//!
//! `cargo run -p limpet-store --example store_load [URL] [SECONDS]`; without a URL it uses a temporary folder.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use limpet_store::{Commit, Freshness, Store, open};
use limpet_store_testing::conformance::Samples;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One uplink's worth of each: a reception is put; a session is read and committed.
#[derive(Clone, Copy)]
enum Load {
    Receptions,
    Sessions,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let folder = std::env::temp_dir().join(format!("limpet-store-load-{}", std::process::id()));
    let url = args.next().unwrap_or_else(|| format!("sqlite:{}", folder.display()));
    let seconds = args.next().map_or(Ok(3.0), |text| text.parse())?;
    let store = open(&url).await?;
    println!("{}", store.describe());
    println!("{:>12} {:>16} {:>16} {:>8} {:>8}", "at once", "receptions/s", "sessions/s", "p50 ms", "p99 ms");
    for at_once in [1, 4, 16, 64, 256, 1024] {
        let (receptions, _) = run(&store, Load::Receptions, at_once, seconds).await?;
        let (sessions, mut times) = run(&store, Load::Sessions, at_once, seconds).await?;
        times.sort_unstable();
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).map_or(0.0, |t| t.as_secs_f64() * 1e3);
        println!("{at_once:>12} {receptions:>16.0} {sessions:>16.0} {:>8.1} {:>8.1}", at(0.5), at(0.99));
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

/// Operations a second, and how long each took.
async fn run(store: &Arc<dyn Store>, load: Load, at_once: u64, seconds: f64) -> Result<(f64, Vec<Duration>), Failure> {
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let new = Samples::new();
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            let (store, done, stop, new) = (store.clone(), done.clone(), stop.clone(), new.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                let session = new.session(new.session_key());
                store.create_session(&session).await?;
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    match load {
                        Load::Receptions => store.put_reception(new.reception(new.dedup_key())).await?,
                        Load::Sessions => {
                            let rows = store.sessions_by_addr(session.key.dev_addr, Freshness::Quorum).await?;
                            for mut next in rows.into_iter().map(|row| row.session) {
                                next.rev += 1;
                                assert_eq!(store.commit_session(&next).await?, Commit::Applied);
                            }
                        }
                    }
                    times.push(start.elapsed());
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Failure>(times)
            })
        })
        .collect();
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let rate = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    Ok((rate, times))
}
