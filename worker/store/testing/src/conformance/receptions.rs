use std::collections::BTreeSet;

use limpet_shared::UnixMicros;
use limpet_worker_core::model::DedupKey;

use super::{Bench, race, samples::NOON};
use limpet_store::{MOST_COPIES, Result};

pub(super) async fn the_same_reception_again_changes_nothing(Bench { store, new }: Bench) -> Result<()> {
    let reception = new.reception(new.dedup_key());
    let again = reception.clone();
    let answers = race(8, |_| {
        let (store, reception) = (store.clone(), again.clone());
        async move { store.put_reception(reception).await }
    });
    assert_eq!(answers.await, vec![Ok(()); 8]);
    assert_eq!(store.receptions(reception.key).await?, [reception]);
    Ok(())
}

pub(super) async fn a_key_gives_its_own_receptions_in_order(Bench { store, new }: Bench) -> Result<()> {
    let (key, other) = (new.dedup_key(), new.dedup_key());
    let late = new.reception(key);
    let mut early = new.reception(key);
    early.received_at = UnixMicros(NOON.0 - 5);
    let mut antenna = late.clone();
    antenna.context = late.context - 1;
    for reception in [&late, &early, &antenna, &new.reception(other)] {
        store.put_reception(reception.clone()).await?;
    }
    assert_eq!(store.receptions(key).await?, [early, antenna, late], "by time, then gateway, then context");
    assert_eq!(store.receptions(other).await?.len(), 1);
    assert_eq!(store.receptions(new.dedup_key()).await?, []);
    Ok(())
}

pub(super) async fn a_clock_years_ahead_loses_no_reception(Bench { store, new }: Bench) -> Result<()> {
    let mut reception = new.reception(new.dedup_key());
    reception.received_at = UnixMicros(NOON.0 * 2);
    store.put_reception(reception.clone()).await?;
    store.put_reception(reception.clone()).await?;
    assert_eq!(store.receptions(reception.key).await?, [reception]);
    Ok(())
}

pub(super) async fn the_sweep_walks_all_keys(Bench { store, new }: Bench) -> Result<()> {
    let keys: Vec<DedupKey> = (0..5).map(|_| new.dedup_key()).collect();
    for (n, key) in keys.iter().enumerate() {
        for copy in 0..2 {
            let mut reception = new.reception(*key);
            // The third key has one copy that is too old and one that is not; the fourth only old ones.
            let old = n == 3 || n == 2 && copy == 0;
            reception.received_at = if old { UnixMicros(NOON.0 - 1) } else { NOON };
            store.put_reception(reception).await?;
        }
    }
    let all = store.reception_keys(NOON, None, u32::MAX).await?;
    let once: BTreeSet<DedupKey> = all.iter().copied().collect();
    assert_eq!(once.len(), all.len(), "each key once");
    assert!(keys.iter().enumerate().all(|(n, key)| (n != 3) == once.contains(key)), "what is old enough is left out");
    let mut walked = Vec::new();
    while walked.len() < all.len() {
        let part = store.reception_keys(NOON, walked.last().copied(), 3).await?;
        assert!(!part.is_empty() && part.len() <= 3);
        walked.extend(part);
    }
    assert_eq!(walked, all, "in parts as in one, in the same order");
    assert_eq!(store.reception_keys(NOON, all.last().copied(), 3).await?, []);
    assert_eq!(store.reception_keys(NOON, None, 0).await?, []);
    Ok(())
}

pub(super) async fn what_has_expired_is_gone(Bench { store, new }: Bench) -> Result<()> {
    let key = new.dedup_key();
    for at in 0..1500 {
        let mut reception = new.reception(key);
        reception.received_at = UnixMicros(if at < 1200 { at % 900 } else { 1000 + at });
        store.put_reception(reception).await?;
    }
    let read = store.receptions(key).await?;
    assert_eq!(read.len(), MOST_COPIES, "one read is bounded");
    assert_eq!(read.last().map(|r| r.received_at), Some(UnixMicros(2499)), "and gives what was received last");
    let deleted = store.expire_receptions(UnixMicros(1000)).await?;
    assert!(deleted == 1200 || deleted == 0, "all of them, or none where the database deletes by itself: {deleted}");
    assert_eq!(store.expire_receptions(UnixMicros(1000)).await?, 0);
    let left = store.receptions(key).await?;
    assert_eq!(left.len(), 300);
    store.expire_receptions(UnixMicros(2200)).await?;
    let left = store.receptions(key).await?;
    assert!(left.iter().all(|r| r.received_at >= UnixMicros(2200)), "received at `before` itself stays");
    assert_eq!(left.len(), 300);
    assert_eq!(store.expire_receptions(UnixMicros(10_000)).await?, deleted / 4);
    assert_eq!(store.receptions(key).await?, []);
    Ok(())
}
