//! Moving house: from store to store by way of a file, with interruptions, and what is refused.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use limpet_shared::{UnixMicros, admin::Server};
use limpet_store::{
    FrameStore, Freshness, SqliteStore, Store,
    moving::{self, Counters, DEFAULT_SKIP, MovingError, Report, check, export},
};
use limpet_store_testing::{
    conformance::Samples,
    fault::{FaultStore, Faults},
};

/// What an operator does.
async fn import(
    store: &dyn Store,
    file: &Path,
    counters: Counters,
    report: moving::Reporter<'_>,
) -> Result<moving::Imported, MovingError> {
    moving::import(store, &check(file, report)?, counters, report).await
}

const DEVICES: u32 = 300;

fn quiet(_: Report) {}

/// A network in memory, and a folder for files.
pub async fn network() -> (Arc<SqliteStore>, tempfile::TempDir) {
    let store = SqliteStore::in_memory().unwrap();
    Samples::new().network(&*store, DEVICES).await.unwrap();
    (store, tempfile::tempdir().unwrap())
}

pub async fn exported(store: &dyn Store, folder: &Path, name: &str) -> (PathBuf, moving::Exported) {
    let file = folder.join(name);
    let exported = export(store, &file, &quiet).await.unwrap();
    (file, exported)
}

#[tokio::test]
async fn a_moved_network_is_the_same_to_the_last_byte() {
    let (first, folder) = network().await;
    let (file, original) = exported(&*first, folder.path(), "a").await;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "it holds keys");
    assert!(original.summary.lines > u64::from(DEVICES) * 2 && !original.resumed);
    let sqlite = SqliteStore::open(&folder.path().join("store")).unwrap();
    let moved = import(&*sqlite, &file, Counters::Keep, &quiet).await.unwrap();
    assert_eq!((moved.summary, moved.used_up), (original.summary.clone(), 0));
    let (again, second) = exported(&*sqlite, folder.path(), "b").await;
    assert_eq!(second.summary, original.summary);
    assert_eq!(fs::read(&again).unwrap(), fs::read(&file).unwrap());
    let back = SqliteStore::in_memory().unwrap();
    import(&*back, &again, Counters::Keep, &quiet).await.unwrap();
    assert_eq!(exported(&*back, folder.path(), "c").await.1.summary, original.summary);
    assert_eq!(moving::unfinished(&*back).await.unwrap(), None);
}

#[tokio::test]
async fn a_restored_backup_skips_ahead_and_is_the_same_otherwise() {
    let (first, folder) = network().await;
    let (file, original) = exported(&*first, folder.path(), "a").await;
    let second = SqliteStore::in_memory().unwrap();
    import(&*second, &file, Counters::Skip(DEFAULT_SKIP), &quiet).await.unwrap();
    let (_, restored) = exported(&*second, folder.path(), "b").await;
    assert_ne!(restored.summary.sha256, original.summary.sha256);
    assert_eq!(restored.summary.content, original.summary.content);
    assert_eq!(restored.summary.counts, original.summary.counts);
    use limpet_store::Moving;
    for dev_eui in first.device_euis().await.unwrap() {
        let had = first.device_records(dev_eui, 10).await.unwrap().unwrap();
        let has = second.device_records(dev_eui, 10).await.unwrap().unwrap();
        for (had, has) in had.sessions.iter().zip(&has.sessions) {
            assert_eq!(has.session.next_fcnt_down, had.session.next_fcnt_down + DEFAULT_SKIP);
            assert!(has.session.answer.is_closed(), "no byte of the old network goes out");
            assert_eq!(has.session.seen, had.session.seen);
        }
        for (had, has) in had.joins.iter().zip(&has.joins) {
            assert_eq!(has.session.next_fcnt_down, had.session.next_fcnt_down + DEFAULT_SKIP);
        }
        if had.state.rev > 0 {
            assert_eq!(has.state.next_join_nonce, had.state.next_join_nonce + DEFAULT_SKIP);
        }
    }
}

#[tokio::test]
async fn an_interrupted_export_goes_on() {
    let (store, folder) = network().await;
    let (whole, original) = exported(&*store, folder.path(), "whole").await;
    let bytes = fs::read(&whole).unwrap();
    // Cut at many places: within the first line, between lines, within a device, within the last line.
    let cuts = (0..40).map(|n| bytes.len() * n / 40).chain([1, bytes.len() - 3, bytes.len()]);
    for (n, cut) in cuts.enumerate() {
        let name = format!("cut{n}");
        fs::write(folder.path().join(format!("{name}.part")), &bytes[..cut]).unwrap();
        let (file, again) = exported(&*store, folder.path(), &name).await;
        assert_eq!(again.summary, original.summary, "cut at {cut}");
        assert_eq!(again.resumed, cut > 1_000, "cut at {cut}");
        assert_eq!(fs::read(&file).unwrap(), bytes, "cut at {cut}");
        assert!(!folder.path().join(format!("{name}.part")).exists());
    }
}

#[tokio::test]
async fn what_is_out_of_date_or_of_another_network_is_not_gone_on_with() {
    let (store, folder) = network().await;
    let (whole, original) = exported(&*store, folder.path(), "whole").await;
    let bytes = fs::read(&whole).unwrap();
    let part = folder.path().join("file.part");
    let notes = std::sync::Mutex::new(Vec::new());
    let report = |report| {
        if let Report::Note(note) = report {
            notes.lock().unwrap().push(note);
        }
    };
    let (other, _) = network().await;
    fs::write(&part, &bytes[..bytes.len() / 2]).unwrap();
    let of_other = export(&*other, &folder.path().join("file"), &report).await.unwrap();
    assert!(!of_other.resumed && of_other.summary.content != original.summary.content);
    assert!(notes.lock().unwrap().pop().unwrap().contains("of another store"));
    fs::remove_file(folder.path().join("file")).unwrap();

    fs::write(&part, &bytes[..bytes.len() / 2]).unwrap();
    let server = Server { name: "w1".into(), seen_at: now(), ..Server::default() };
    limpet_store::Membership::heartbeat(&*store, &server).await.unwrap();
    let anew = export(&*store, &folder.path().join("file"), &report).await.unwrap();
    assert_eq!((anew.resumed, anew.running, anew.summary), (false, vec!["w1".to_owned()], original.summary));
    assert!(notes.lock().unwrap().pop().unwrap().contains("servers have run since"));
}

fn now() -> UnixMicros {
    UnixMicros(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64)
}

#[tokio::test]
async fn what_was_changed_or_cut_off_is_refused_before_anything_is_written() {
    let (store, folder) = network().await;
    let (file, _) = exported(&*store, folder.path(), "a").await;
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let joined = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let device = lines.iter().position(|line| line.starts_with("{\"kind\":\"device\"")).unwrap();
    let tenant = lines.iter().position(|line| line.starts_with("{\"kind\":\"tenant\"")).unwrap();
    let without = |at: usize| joined(&[&lines[..at], &lines[at + 1..]].concat());
    let replaced = |at: usize, line: &str| joined(&[&lines[..at], &[line], &lines[at + 1..]].concat());
    let last = lines.len();
    let cases = [
        ("empty", String::new(), "the file is empty".to_owned()),
        ("of something else", "{\"a\":1}\n".into(), "line 1 of".into()),
        ("no export", "hello\n".into(), "this is no export of Limpet".into()),
        ("cut in a line", text[..text.len() - 10].into(), format!("line {last} of")),
        ("cut between lines", joined(&lines[..last - 1]), "it is cut off".into()),
        ("longer", format!("{text}{}\n", lines[0]), format!("line {} of", last + 1)),
        ("newer", text.replacen("\"version\":1", "\"version\":2", 1), "the export has version 2".into()),
        ("a line gone", without(device), format!("line {} of", device + 1)),
        ("a tenant gone", without(tenant), "which is not in the lines before".into()),
        ("a line twice", joined(&[&lines[..=tenant], &lines[tenant..]].concat()), format!("line {} of", tenant + 2)),
        ("a value changed", replaced(device, &lines[device].replacen("third", "fifth", 1)), "was changed".into()),
        ("not JSON", replaced(device, &lines[device][..30]), format!("line {} of", device + 1)),
        (
            "a new field",
            replaced(device, &lines[device].replacen("{\"kind\"", "{\"wings\":2,\"kind\"", 1)),
            "wings".into(),
        ),
    ];
    let empty = SqliteStore::in_memory().unwrap();
    for (what, text, why) in cases {
        let bad = folder.path().join("bad");
        fs::write(&bad, text).unwrap();
        let refused = import(&*empty, &bad, Counters::Keep, &quiet).await.unwrap_err().to_string();
        assert!(refused.contains(&why) && refused.contains("bad"), "{what}: {refused}");
        assert_eq!(moving::unfinished(&*empty).await.unwrap(), None, "{what}");
        assert!(matches!(export(&*empty, &folder.path().join("x"), &quiet).await, Err(MovingError::NothingToExport)));
    }
    assert!(check(&file, &quiet).is_ok());
}

#[tokio::test]
async fn a_store_that_is_in_use_is_refused() {
    let (store, folder) = network().await;
    let (file, _) = exported(&*store, folder.path(), "a").await;
    let refused = import(&*store, &file, Counters::Keep, &quiet).await.unwrap_err().to_string();
    assert!(
        refused.contains("not empty") && refused.contains("300 devices") && refused.contains("ring_key"),
        "{refused}"
    );
    assert_eq!(moving::unfinished(&*store).await.unwrap(), None);
    assert!(matches!(export(&*store, &file, &quiet).await, Err(MovingError::FileExists(_))));

    // A first start has seeded it, and nothing else.
    let seeded = SqliteStore::in_memory().unwrap();
    limpet_store::Directory::init_setting(&*seeded, "first_start_done", b"yes").await.unwrap();
    let refused = import(&*seeded, &file, Counters::Keep, &quiet).await.unwrap_err().to_string();
    assert!(refused.contains("first_start_done") && refused.contains("DROP KEYSPACE"), "{refused}");

    let alive = SqliteStore::in_memory().unwrap();
    let server = Server { name: "w1".into(), seen_at: now(), ..Server::default() };
    limpet_store::Membership::heartbeat(&*alive, &server).await.unwrap();
    let refused = import(&*alive, &file, Counters::Keep, &quiet).await.unwrap_err().to_string();
    assert!(refused.contains("servers are running on this store (w1)"), "{refused}");
}

/// The importer dies after one of its writes, again and again, and each time another one goes on.
#[tokio::test(start_paused = true)]
async fn an_interrupted_import_goes_on() {
    let (store, folder) = network().await;
    let (file, original) = exported(&*store, folder.path(), "a").await;
    for seed in 0..4 {
        let target = SqliteStore::in_memory().unwrap();
        let faults = Faults { crash: 4, lose: 20, hide: 20, refuse: 20, ..Faults::default() };
        let mut crashes = 0;
        loop {
            let view = FaultStore::new(target.clone(), seed * 1_000 + crashes, faults);
            // What fails for good after many tries is begun anew like what died.
            let alive = tokio::select! {
                done = import(&*view, &file, Counters::Keep, &quiet) => done.is_ok(),
                () = view.crashed() => false,
            };
            if alive {
                break;
            }
            crashes += 1;
            assert!(crashes < 50, "it never ends");
            let unfinished = moving::unfinished(&*target).await.unwrap();
            if unfinished.is_some_and(|claim| claim.begun) {
                let refused = export(&*target, &folder.path().join("x"), &quiet).await.unwrap_err().to_string();
                assert!(refused.contains("unfinished import"), "{refused}");
                let otherwise = import(&*target, &file, Counters::Skip(7), &quiet).await.unwrap_err().to_string();
                assert!(otherwise.contains("--keep-counters"), "{otherwise}");
            }
        }
        assert!(crashes > 0, "nothing was interrupted");
        let (again, summary) = exported(&*target, folder.path(), &format!("again{seed}")).await;
        assert_eq!(summary.summary, original.summary);
        assert_eq!(fs::read(again).unwrap(), fs::read(&file).unwrap());
    }
}

#[tokio::test]
async fn an_unfinished_import_of_another_file_is_named() {
    let (store, folder) = network().await;
    let (file, summary) = exported(&*store, folder.path(), "a").await;
    let (other_store, _) = network().await;
    let (other, _) = exported(&*other_store, folder.path(), "b").await;
    let target = SqliteStore::in_memory().unwrap();
    let view = FaultStore::new(target.clone(), 1, Faults { crash: 100, ..Faults::default() });
    tokio::select! {
        done = import(&*view, &file, Counters::Keep, &quiet) => panic!("it should have died: {done:?}"),
        () = view.crashed() => {}
    }
    let refused = import(&*target, &other, Counters::Keep, &quiet).await.unwrap_err().to_string();
    assert!(refused.contains("another file") && refused.contains(&summary.summary.sha256), "{refused}");
}

/// Progress counts up to its total, and every line is told of.
#[tokio::test]
async fn progress_is_told() {
    let (store, folder) = network().await;
    let last = AtomicU64::new(0);
    let report = |report| {
        if let Report::Progress(progress) = report {
            assert!(progress.done <= progress.total, "{progress:?}");
            last.store(progress.total - progress.done, Ordering::Relaxed);
        }
    };
    let file = folder.path().join("a");
    export(&*store, &file, &report).await.unwrap();
    assert_eq!(last.load(Ordering::Relaxed), 0);
    import(&*SqliteStore::in_memory().unwrap(), &file, Counters::Keep, &report).await.unwrap();
    assert_eq!(last.load(Ordering::Relaxed), 0);
}

/// A device with more joins and items than are read or written in one go.
#[tokio::test]
async fn a_device_of_many_records_is_moved() {
    let (store, folder) = network().await;
    use limpet_store::Moving;
    let new = Samples::new();
    let dev_eui = store.device_euis().await.unwrap()[0];
    let had = store.device_state(dev_eui, Freshness::Serial).await.unwrap();
    for n in 0..1_000_u16 {
        let mut next = had.clone();
        next.rev += u64::from(n) + 1;
        store.commit_join(&next, Some(&new.join(dev_eui, n * 65))).await.unwrap();
        store.enqueue(new.item(dev_eui)).await.unwrap();
    }
    let integration = new.integration();
    for slot in 0..500 {
        store.put_pending(new.pending(integration, dev_eui, slot)).await.unwrap();
    }
    let (file, original) = exported(&*store, folder.path(), "a").await;
    let sqlite = SqliteStore::open(&folder.path().join("store")).unwrap();
    import(&*sqlite, &file, Counters::Keep, &quiet).await.unwrap();
    assert_eq!(exported(&*sqlite, folder.path(), "b").await.1.summary, original.summary);
}
