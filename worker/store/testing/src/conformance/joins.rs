use limpet_worker_core::model::{CurrentSession, DeviceState};

use super::{Bench, race, samples::NOON};
use limpet_store::{Commit, Freshness, Result};

pub(super) async fn a_device_that_never_joined_has_a_fresh_state(Bench { store, new }: Bench) -> Result<()> {
    let dev_eui = new.eui();
    for freshness in [Freshness::Quorum, Freshness::Serial] {
        assert_eq!(store.device_state(dev_eui, freshness).await?, DeviceState::new(dev_eui));
        assert_eq!(store.join_row(dev_eui, 7, freshness).await?, None);
    }
    Ok(())
}

pub(super) async fn a_join_is_taken_whole_or_not_at_all(Bench { store, new }: Bench) -> Result<()> {
    let dev_eui = new.eui();
    let join = new.join(dev_eui, u16::MAX);
    let mut first = DeviceState::new(dev_eui);
    first.rev = 1;
    first.next_join_nonce = 2;
    first.highest_dev_nonce = Some(u16::MAX);
    first.current = Some(CurrentSession { key: join.session.key, since: NOON, dev_nonce: Some(u16::MAX) });
    first.previous = Some(new.session_key());
    for rev in [0, 2] {
        let wrong = DeviceState { rev, ..first.clone() };
        assert_eq!(store.commit_join(&wrong, Some(&join)).await?, Commit::Refused, "revision {rev}");
    }
    assert_eq!(store.join_row(dev_eui, u16::MAX, Freshness::Serial).await?, None, "nothing of a refused join stays");
    assert_eq!(store.commit_join(&first, Some(&join)).await?, Commit::Applied);
    assert_eq!(store.device_state(dev_eui, Freshness::Serial).await?, first);
    assert_eq!(store.join_row(dev_eui, u16::MAX, Freshness::Quorum).await?.as_ref(), Some(&join));

    let second = DeviceState { rev: 2, next_join_nonce: 3, ..first.clone() };
    let same_nonce = new.join(dev_eui, u16::MAX);
    assert_eq!(store.commit_join(&second, Some(&same_nonce)).await?, Commit::Refused, "the DevNonce is used");
    assert_eq!(store.device_state(dev_eui, Freshness::Serial).await?, first, "and the state stays with it");
    assert_eq!(store.join_row(dev_eui, u16::MAX, Freshness::Serial).await?, Some(join));
    assert_eq!(store.commit_join(&second, None).await?, Commit::Applied, "a state alone");
    assert_eq!(store.device_state(dev_eui, Freshness::Serial).await?, second);
    Ok(())
}

pub(super) async fn one_of_many_joins_wins(Bench { store, new }: Bench) -> Result<()> {
    let dev_eui = new.eui();
    let answers = race(12, |n| {
        let (store, join) = (store.clone(), new.join(dev_eui, n as u16));
        let next = DeviceState { rev: 1, highest_dev_nonce: Some(n as u16), ..DeviceState::new(dev_eui) };
        async move { (n as u16, store.commit_join(&next, Some(&join)).await) }
    })
    .await;
    let winners: Vec<_> = answers.iter().filter(|(_, a)| *a == Ok(Commit::Applied)).map(|(n, _)| *n).collect();
    assert!(answers.iter().all(|(_, a)| a.is_ok()));
    let state = store.device_state(dev_eui, Freshness::Serial).await?;
    assert_eq!(state.highest_dev_nonce.into_iter().collect::<Vec<_>>(), winners);
    for n in 0..12 {
        let stored = store.join_row(dev_eui, n, Freshness::Serial).await?.is_some();
        assert_eq!(stored, winners.contains(&n), "DevNonce {n}");
    }
    Ok(())
}

pub(super) async fn flushed_nonces_may_be_used_again(Bench { store, new }: Bench) -> Result<()> {
    let (dev_eui, other) = (new.eui(), new.eui());
    store.flush_dev_nonces(dev_eui).await?;
    for device in [dev_eui, other] {
        let state = DeviceState { rev: 1, next_join_nonce: 8, highest_dev_nonce: Some(5), ..DeviceState::new(device) };
        store.commit_join(&state, Some(&new.join(device, 5))).await?;
    }
    store.flush_dev_nonces(dev_eui).await?;
    assert_eq!(store.join_row(dev_eui, 5, Freshness::Serial).await?, None);
    assert!(store.join_row(other, 5, Freshness::Serial).await?.is_some(), "of that device only");
    let state = store.device_state(dev_eui, Freshness::Serial).await?;
    assert_eq!((state.highest_dev_nonce, state.next_join_nonce), (None, 8), "a JoinNonce is never used twice");
    let planned_before = DeviceState { rev: 2, ..state.clone() };
    assert_eq!(store.commit_join(&planned_before, None).await?, Commit::Refused, "a flush is a write to the row");
    let next = DeviceState { rev: state.rev + 1, ..state };
    assert_eq!(store.commit_join(&next, Some(&new.join(dev_eui, 5))).await?, Commit::Applied);
    Ok(())
}

pub(super) async fn what_is_kept_of_a_join_shrinks_while_the_state_stays(Bench { store, new }: Bench) -> Result<()> {
    let dev_eui = new.eui();
    let state = |rev| DeviceState { rev, ..DeviceState::new(dev_eui) };
    let (first, second, less) = (new.join(dev_eui, 5), new.join(dev_eui, 6), new.join(dev_eui, 5));
    assert_eq!(store.shrink_join(&state(1), &less).await?, Commit::Refused, "there is no state");
    store.commit_join(&state(1), Some(&first)).await?;
    store.commit_join(&state(2), Some(&second)).await?;
    assert_eq!(store.shrink_join(&state(1), &less).await?, Commit::Refused, "the state has gone on");
    assert_eq!(store.join_row(dev_eui, 5, Freshness::Serial).await?.as_ref(), Some(&first));
    assert_eq!(store.shrink_join(&state(2), &less).await?, Commit::Applied);
    assert_eq!(store.join_row(dev_eui, 5, Freshness::Serial).await?, Some(less));
    assert_eq!(store.join_row(dev_eui, 6, Freshness::Serial).await?, Some(second));
    assert_eq!(store.device_state(dev_eui, Freshness::Serial).await?, state(2));
    let unused = new.join(dev_eui, 7);
    assert_eq!(store.shrink_join(&state(2), &unused).await?, Commit::Refused, "that DevNonce was not used");
    assert_eq!(store.join_row(dev_eui, 7, Freshness::Serial).await?, None);
    Ok(())
}

pub(super) async fn many_nonces_are_flushed_whole(Bench { store, new }: Bench) -> Result<()> {
    let dev_eui = new.eui();
    for nonce in 0..120_u16 {
        let rev = u64::from(nonce) + 1;
        let state = DeviceState { rev, highest_dev_nonce: Some(nonce), ..DeviceState::new(dev_eui) };
        assert_eq!(store.commit_join(&state, Some(&new.join(dev_eui, nonce))).await?, Commit::Applied);
    }
    store.flush_dev_nonces(dev_eui).await?;
    for nonce in 0..120 {
        assert_eq!(store.join_row(dev_eui, nonce, Freshness::Quorum).await?, None, "DevNonce {nonce}");
    }
    Ok(())
}
