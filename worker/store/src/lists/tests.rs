use std::sync::atomic::AtomicBool;

use super::*;
use crate::StoreError;

/// A list of a name that changes one row at a time.
#[derive(Default)]
struct Log {
    rows: Mutex<Vec<Row>>,
    loads: AtomicUsize,
    away: AtomicBool,
}

impl Log {
    fn add(&self, count: usize) {
        let mut rows = self.rows.lock();
        for _ in 0..count {
            let id = format!("{:06}", rows.len());
            rows.push(Row { name: "x".into(), search: format!("x\n{id}"), also: String::new(), id });
        }
    }
}

#[async_trait]
impl Source for Log {
    type Key = ();
    type Mark = usize;
    async fn load(&self, (): &()) -> Result<(usize, Vec<Row>)> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let rows = self.rows.lock().clone();
        Ok((rows.len(), rows))
    }
    async fn changes(&self, (): &(), mark: &usize, most: usize) -> Result<Option<(usize, Changes)>> {
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("away".into()));
        }
        let rows = self.rows.lock();
        let new: Changes = rows[*mark..].iter().map(|row| (row.id.clone(), Some(row.clone()))).collect();
        Ok((new.len() <= most).then_some((rows.len(), new)))
    }
}

const ALL: Ask<'static> = Ask { needle: "", keep: None, skip: 0, take: 0 };

async fn total<S: Source<Key = (), Mark = usize>>(lists: &Lists<usize>, log: &S, name: &str) -> usize {
    lists.find(log, name, &(), &ALL).await.unwrap().0
}

#[tokio::test]
async fn a_list_is_read_once_and_followed_as_long_as_little_changes() {
    let (lists, log) = (Lists::default(), Log::default());
    log.add(10_000);
    for step in 1..50 {
        log.add(1);
        assert_eq!(total(&lists, &log, "a").await, 10_000 + step, "each answer holds what was written before");
    }
    assert_eq!(log.loads.load(Ordering::Relaxed), 1);
    log.away.store(true, Ordering::Relaxed);
    assert!(lists.find(&log, "a", &(), &ALL).await.is_err(), "an old answer would be none");
    log.away.store(false, Ordering::Relaxed);
    assert_eq!(total(&lists, &log, "a").await, 10_049);
    assert_eq!(log.loads.load(Ordering::Relaxed), 1, "and a failed question costs no list");
    log.add(5_000);
    assert_eq!(total(&lists, &log, "a").await, 15_049);
    assert_eq!(log.loads.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_was_asked_for_the_longest_time_ago_makes_room() {
    let one = 1_000 * (OVERHEAD_OF_A_ROW + 20);
    let lists = Lists { most_bytes: 3 * one, ..Lists::default() };
    let log = Log::default();
    log.add(1_000);
    for name in ["a", "b", "a", "c", "d", "a"] {
        assert_eq!(total(&lists, &log, name).await, 1_000);
    }
    let mut held: Vec<String> = lists.held.lock().keys().cloned().collect();
    held.sort();
    assert!(held.contains(&"a".to_owned()) && !held.contains(&"b".to_owned()), "{held:?}");
    assert!(held.len() < 4, "{held:?}");
}

#[tokio::test]
async fn several_lists_are_one_in_order() {
    let lists = Lists::default();
    let (log, keys) = (Log::default(), [("a".to_owned(), ()), ("b".to_owned(), ())]);
    log.add(30);
    let (total, found) = lists.find_in(&log, &keys, &Ask { skip: 25, take: 4, ..ALL }).await.unwrap();
    let ids: Vec<&str> = found.iter().map(|entry| &*entry.id).collect();
    assert_eq!((total, ids), (60, vec!["000012", "000013", "000013", "000014"]));
}

/// About what a row of these tests takes.
const OVERHEAD_OF_A_ROW: usize = 160;
