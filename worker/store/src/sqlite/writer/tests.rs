use std::path::Path;

use super::*;
use crate::sqlite::{error::execute, folder::Folder, schema};

/// A writer on a new store in this folder, and a lock like another process's.
fn writer(dir: &Path) -> (Mailbox, WriteLock) {
    let folder = Folder::prepare(dir).unwrap();
    let mut conn = schema::connect_writer(&folder.database).unwrap();
    schema::migrate(&folder.database, &mut conn, crate::Finish::Later).unwrap();
    let writer =
        Mailbox::start(conn, WriteLock::open(&folder).unwrap(), Arc::new(Notes::default()), Letters::default())
            .unwrap();
    (writer, WriteLock::open(&folder).unwrap())
}

fn set(name: &str, value: Vec<u8>) -> impl FnOnce(&Connection) -> Result<()> + Send + 'static {
    let name = name.to_owned();
    move |conn| execute(conn, "INSERT INTO setting (name, value) VALUES (?1, ?2)", (name, value)).map(drop)
}

const A_MOMENT: Duration = Duration::from_millis(20);

/// What is stored, read as another process would.
fn names(dir: &Path) -> Vec<String> {
    let conn = Connection::open(dir.join("state.db")).unwrap();
    let mut statement = conn.prepare("SELECT name FROM setting ORDER BY name").unwrap();
    statement.query_map((), |row| row.get(0)).unwrap().map(|name| name.unwrap()).collect()
}

#[tokio::test]
async fn a_write_that_fails_takes_no_other_along() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, other) = writer(dir.path());
    // While another process has its turn, all of these come together.
    let turn = other.take().unwrap();
    let half = |conn: &Connection| {
        set("half", vec![1])(conn)?;
        Err::<(), _>(StoreError::NotFound("the other half".into()))
    };
    let writes =
        async { tokio::join!(writer.write(set("a", vec![1])), writer.write(half), writer.write(set("b", vec![2]))) };
    let free = async {
        tokio::task::yield_now().await;
        drop(turn);
    };
    let ((a, half, b), ()) = tokio::join!(writes, free);
    assert_eq!((a, half, b), (Ok(()), Err(StoreError::NotFound("the other half".into())), Ok(())));
    assert_eq!(names(dir.path()), ["a", "b"]);
    assert_eq!(writer.check().await, Ok(()), "what the caller did wrong is no illness");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_nobody_waits_for_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, other) = writer(dir.path());
    let turn = other.take().unwrap();
    let answer = writer.write(set("late", vec![1])).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "nothing was written: {answer:?}");
    drop(turn);
    tokio::time::resume();
    writer.write(set("next", vec![1])).await.unwrap();
    assert_eq!(names(dir.path()), ["next"]);
}

#[tokio::test]
async fn a_full_disk_is_told_and_outlived() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = writer(dir.path());
    writer.well_after = Duration::ZERO;
    let pages = |count: u32| move |conn: &Connection| Ok(conn.pragma_update(None, "max_page_count", count)?);
    writer.write(pages(80)).await.unwrap();
    let mut stored = Vec::new();
    let failure = loop {
        let name = format!("{:04}", stored.len());
        match writer.write(set(&name, vec![7; 20_000])).await {
            Ok(()) => stored.push(name),
            Err(failure) => break failure,
        }
    };
    assert!(matches!(&failure, StoreError::Unavailable(why) if why.contains("full")), "{failure:?}");
    assert_eq!(names(dir.path()), stored, "what was acknowledged is there, and nothing else");
    writer.write(pages(10_000)).await.unwrap();
    assert_eq!(writer.check().await, Ok(()));
    writer.write(set("again", vec![7; 20_000])).await.unwrap();
}

/// A disk that has room for so many more pages.
async fn room(writer: &Mailbox, pages: i64) {
    let set = move |conn: &Connection| {
        let used: i64 = conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        conn.query_row(&format!("PRAGMA max_page_count = {}", used + pages), [], |row| row.get::<_, i64>(0)).unwrap();
        Ok(())
    };
    writer.write(set).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_not_well_because_something_small_still_fits() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = writer(dir.path());
    room(&writer, 8).await;
    assert_eq!(writer.check().await, Ok(()), "nothing has failed yet");
    assert!(writer.write(set("large", vec![1; 1 << 20])).await.is_err());
    for n in 0..3 {
        writer.write(set(&format!("small {n}"), vec![1])).await.unwrap();
        assert!(writer.check().await.is_err(), "a large one would fail again");
    }
    room(&writer, 10_000).await;
    assert!(writer.check().await.is_err(), "it was full a moment ago");
    writer.well_after = Duration::ZERO;
    assert_eq!(writer.check().await, Ok(()));
    assert_eq!(writer.check().await, Ok(()));
    writer.write(set("large", vec![1; 1 << 20])).await.unwrap();
}

#[tokio::test]
async fn what_goes_along_is_written_with_the_next_transaction_or_in_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, _other) = writer(dir.path());
    assert_eq!(writer.write_along(A_MOMENT, set("alone", vec![1])).await, Ok(()));
    assert_eq!(names(dir.path()), ["alone"]);
    let (along, other) =
        tokio::join!(writer.write_along(A_MOMENT, set("along", vec![1])), writer.write(set("other", vec![1])));
    assert_eq!((along, other), (Ok(()), Ok(())));
    let twice = writer.write_along(A_MOMENT, set("along", vec![1])).await;
    assert!(twice.is_err(), "it fails like any other: {twice:?}");
    assert_eq!(names(dir.path()), ["alone", "along", "other"]);
}

/// Reads that somebody at rest does, and those that are given back.
#[tokio::test]
async fn a_read_finds_the_writer_at_rest_or_is_given_back_and_never_waits_for_a_write() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, other) = writer(dir.path());
    writer.write(set("before", vec![1])).await.unwrap();
    let (told, mut read) = tokio::sync::mpsc::unbounded_channel();
    let count = |told: &tokio::sync::mpsc::UnboundedSender<i64>| -> Read {
        let told = told.clone();
        Box::new(move |conn: &Connection| -> Letter {
            let count = conn.query_row("SELECT count(*) FROM setting", [], |row| row.get(0)).unwrap();
            Box::new(move || told.send(count).unwrap())
        })
    };
    let mut given_back = 0;
    for _ in 0..100 {
        match writer.queue.read(count(&told)) {
            None => assert_eq!(read.recv().await, Some(1)),
            Some(_) => {
                given_back += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    assert!(given_back < 50, "{given_back}");
    // Another process has its turn, and this one waits for it.
    let turn = other.take().unwrap();
    let write = writer.write(set("after", vec![1]));
    let reads = async {
        while writer.queue.read(count(&told)).is_none() {
            assert_eq!(read.recv().await, Some(1));
        }
        drop(turn);
    };
    let (written, ()) = tokio::join!(write, reads);
    assert_eq!(written, Ok(()));
    assert_eq!(names(dir.path()), ["after", "before"]);
}
