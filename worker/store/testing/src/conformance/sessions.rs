use limpet_shared::UnixMicros;
use limpet_worker_core::model::{Answer, Marks, Session, SessionId, SessionKey, SessionRow};

use super::{
    Bench, race,
    samples::{House, NOON},
};
use limpet_store::{Commit, Freshness, Result};

pub(super) async fn a_session_comes_back_as_it_was_written(Bench { store, new }: Bench) -> Result<()> {
    let session = new.session(new.session_key());
    assert_eq!(store.session(&session.key, Freshness::Serial).await?, None);
    assert_eq!(store.create_session(&session).await?, Commit::Applied);
    let row = SessionRow { session, marks: Marks::default() };
    assert_eq!(store.session(&row.session.key, Freshness::Quorum).await?.as_ref(), Some(&row));
    assert_eq!(store.session(&row.session.key, Freshness::Serial).await?.as_ref(), Some(&row));
    let slot = row.session.slot.number;
    let answers =
        [new.open_answer(slot), new.open_answer(slot - 1), Answer::Closed, Answer::decided(slot - 1, new.downlink())];
    for (rev, answer) in (2..).zip(answers) {
        let next = Session { rev, answer, ..row.session.clone() };
        assert_eq!(store.commit_session(&next).await?, Commit::Applied);
        let stored = store.sessions_by_addr(next.key.dev_addr, Freshness::Serial).await?;
        assert_eq!(stored, [SessionRow { session: next, marks: Marks::default() }]);
    }
    Ok(())
}

pub(super) async fn a_session_is_created_once(Bench { store, new }: Bench) -> Result<()> {
    let key = new.session_key();
    let answers = race(16, |n| {
        let (store, mut session) = (store.clone(), new.session(key));
        session.next_fcnt_down = n as u32;
        async move { (n as u32, store.create_session(&session).await) }
    })
    .await;
    let winners: Vec<_> = answers.iter().filter(|(_, a)| *a == Ok(Commit::Applied)).map(|(n, _)| *n).collect();
    assert!(answers.iter().all(|(_, a)| a.is_ok()));
    let stored = store.session(&key, Freshness::Serial).await?.map(|row| row.session.next_fcnt_down);
    assert_eq!(stored.into_iter().collect::<Vec<_>>(), winners, "one is stored: the one that was told so");
    Ok(())
}

pub(super) async fn only_the_next_revision_is_taken(Bench { store, new }: Bench) -> Result<()> {
    let mut session = new.session(new.session_key());
    session.rev = 2;
    assert_eq!(store.commit_session(&session).await?, Commit::Refused, "there is no row");
    session.rev = 1;
    assert_eq!(store.commit_session(&session).await?, Commit::Refused, "a commit never creates");
    assert_eq!(store.create_session(&session).await?, Commit::Applied);
    for wrong in [0, 1, 3, u64::MAX] {
        let mut next = new.session(session.key);
        next.rev = wrong;
        assert_eq!(store.commit_session(&next).await?, Commit::Refused, "revision {wrong}");
    }
    assert_eq!(store.session(&session.key, Freshness::Serial).await?.map(|row| row.session), Some(session.clone()));
    session.rev = 2;
    session.slot.events.clear();
    session.next_fcnt_down += 1;
    assert_eq!(store.commit_session(&session).await?, Commit::Applied);
    assert_eq!(store.commit_session(&session).await?, Commit::Refused, "the same again");
    assert_eq!(store.session(&session.key, Freshness::Serial).await?.map(|row| row.session), Some(session));
    Ok(())
}

pub(super) async fn one_writer_wins_each_revision(Bench { store, new }: Bench) -> Result<()> {
    let session = new.session(new.session_key());
    store.create_session(&session).await?;
    for rev in 2..=6 {
        let answers = race(12, |n| {
            let (store, mut next) = (store.clone(), session.clone());
            (next.rev, next.next_fcnt_down) = (rev, n as u32);
            async move { (n as u32, store.commit_session(&next).await) }
        })
        .await;
        let winners: Vec<_> = answers.iter().filter(|(_, a)| *a == Ok(Commit::Applied)).map(|(n, _)| *n).collect();
        assert!(answers.iter().all(|(_, a)| a.is_ok()));
        let row = store.session(&session.key, Freshness::Serial).await?;
        let stored = row.map(|row| (row.session.rev, row.session.next_fcnt_down));
        assert_eq!(stored.map(|(at, n)| (at, vec![n])), Some((rev, winners)), "exactly one writer wins a revision");
    }
    Ok(())
}

pub(super) async fn one_read_gives_all_sessions_of_an_address(Bench { store, new }: Bench) -> Result<()> {
    let key = new.session_key();
    let other_device = SessionKey { dev_eui: new.eui(), ..key };
    let other_session = SessionKey { id: SessionId(u64::MAX - key.id.0), ..key };
    for key in [key, other_device, other_session, new.session_key()] {
        store.create_session(&new.session(key)).await?;
    }
    store.mark_out(&other_device, 7, true).await?;
    for freshness in [Freshness::Quorum, Freshness::Serial] {
        let rows = store.sessions_by_addr(key.dev_addr, freshness).await?;
        let mut found: Vec<_> = rows.iter().map(|row| (row.session.key, row.marks.out)).collect();
        found.sort_unstable();
        let mut wanted = [(key, 0), (other_device, 7), (other_session, 0)];
        wanted.sort_unstable();
        assert_eq!(found, wanted);
    }
    assert_eq!(store.sessions_by_addr(new.addr(), Freshness::Quorum).await?, []);
    Ok(())
}

pub(super) async fn a_deleted_session_is_gone_with_its_marks(Bench { store, new }: Bench) -> Result<()> {
    let mut session = new.session(new.session_key());
    store.create_session(&session).await?;
    store.mark_out(&session.key, 3, false).await?;
    store.delete_session(&session.key).await?;
    assert_eq!(store.session(&session.key, Freshness::Serial).await?, None);
    session.rev = 2;
    assert_eq!(store.commit_session(&session).await?, Commit::Refused);
    store.mark_out(&session.key, 4, false).await?;
    assert_eq!(store.sessions_by_addr(session.key.dev_addr, Freshness::Serial).await?, [], "a mark is no session");
    store.delete_session(&session.key).await?;
    Ok(())
}

pub(super) async fn the_mark_out_only_grows(Bench { store, new }: Bench) -> Result<()> {
    let session = new.session(new.session_key());
    store.create_session(&session).await?;
    let steps = [
        ((5, false), (5, false)),
        ((4, true), (5, false)),
        ((5, true), (5, true)),
        ((5, false), (5, true)),
        ((6, false), (6, false)),
        ((u64::from(u32::MAX) + 9, true), (u64::from(u32::MAX) + 9, true)),
    ];
    for ((slot, through_pending), wanted) in steps {
        store.mark_out(&session.key, slot, through_pending).await?;
        let marks = store.session(&session.key, Freshness::Quorum).await?.map(|row| row.marks).unwrap_or_default();
        assert_eq!((marks.out, marks.out_through_pending), wanted, "after ({slot}, {through_pending})");
    }
    Ok(())
}

pub(super) async fn the_mark_sent_only_grows(Bench { store, new }: Bench) -> Result<()> {
    let session = new.session(new.session_key());
    store.create_session(&session).await?;
    for (fcnt_down, wanted) in [(0, 1), (9, 10), (3, 10), (u32::MAX, 1 << 32)] {
        store.mark_sent(&session.key, fcnt_down).await?;
        let marks = store.session(&session.key, Freshness::Quorum).await?.map(|row| row.marks).unwrap_or_default();
        assert_eq!((marks.sent, marks.out), (wanted, 0));
    }
    Ok(())
}

pub(super) async fn marks_leave_the_row_alone(Bench { store, new }: Bench) -> Result<()> {
    let mut session = new.session(new.session_key());
    store.create_session(&session).await?;
    store.mark_out(&session.key, 9, true).await?;
    store.mark_sent(&session.key, 4).await?;
    (session.rev, session.since) = (2, UnixMicros(NOON.0 + 1));
    assert_eq!(store.commit_session(&session).await?, Commit::Applied, "marks do not move the revision");
    let row = store.session(&session.key, Freshness::Serial).await?;
    let marks = Marks { out: 9, out_through_pending: true, sent: 5 };
    assert_eq!(row, Some(SessionRow { session, marks }), "and a commit keeps them");
    Ok(())
}

pub(super) async fn candidates_are_the_sessions_with_what_belongs_to_them(Bench { store, new }: Bench) -> Result<()> {
    let device = House::build(&*store, &new).await?.device(&*store, &new).await?;
    let key = SessionKey { dev_eui: device.dev_eui, ..new.session_key() };
    let of_nobody = SessionKey { dev_eui: new.eui(), ..key };
    let first = store.enqueue(new.item(device.dev_eui)).await?;
    for key in [key, of_nobody] {
        store.create_session(&Session { queue_done: first.seq, ..new.session(key) }).await?;
    }
    store.mark_out(&key, 7, false).await?;
    for _ in 0..3 {
        store.enqueue(new.item(device.dev_eui)).await?;
    }
    for freshness in [Freshness::Quorum, Freshness::Serial] {
        let candidates = store.candidates(key.dev_addr, freshness, 2).await?;
        let mut rows: Vec<SessionRow> = candidates.iter().map(|candidate| candidate.row.clone()).collect();
        rows.sort_by_key(|row| row.session.key);
        let mut wanted = store.sessions_by_addr(key.dev_addr, freshness).await?;
        wanted.sort_by_key(|row| row.session.key);
        assert_eq!(rows, wanted);
        // A store may leave it to further questions; what it gives along is what they would answer.
        for (row, besides) in candidates.into_iter().filter_map(|of| Some((of.row, of.besides?))) {
            let dev_eui = row.session.key.dev_eui;
            assert_eq!(besides.device, store.device_context(dev_eui).await?);
            assert_eq!(besides.queue, store.queue(dev_eui, row.session.queue_done, 2).await?);
        }
    }
    assert!(store.candidates(new.addr(), Freshness::Quorum, 2).await?.is_empty());
    Ok(())
}
