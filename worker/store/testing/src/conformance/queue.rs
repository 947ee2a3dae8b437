use std::collections::BTreeSet;

use limpet_worker_core::model::QueueItem;

use super::{Bench, assert_exists, race};
use limpet_store::Result;

pub(super) async fn numbers_count_up_and_are_never_given_twice(Bench { store, new }: Bench) -> Result<()> {
    let dev_eui = new.eui();
    let (one, two) = (new.item(dev_eui), new.item(dev_eui));
    let first = store.enqueue(one.clone()).await?;
    assert_eq!(QueueItem { seq: 0, ..first.clone() }, one, "it comes back as it was given, numbered");
    let second = store.enqueue(two).await?;
    assert!(first.seq > 0 && second.seq > first.seq);
    store.delete_queue_item(dev_eui, second.seq).await?;
    let third = store.enqueue(new.item(dev_eui)).await?;
    assert!(third.seq > second.seq, "the number of a deleted item is not given again");
    assert_eq!(store.queue_last(dev_eui).await?, third.seq);
    store.flush_queue(dev_eui, first.seq).await?;
    assert_eq!(store.queue(dev_eui, 0, 10).await?, std::slice::from_ref(&third), "no more than that");
    store.flush_queue(dev_eui, u64::MAX).await?;
    assert_eq!(store.queue(dev_eui, 0, 10).await?, []);
    assert!(store.enqueue(new.item(dev_eui)).await?.seq > third.seq, "nor after a flush");
    Ok(())
}

pub(super) async fn many_writers_get_distinct_numbers(Bench { store, new }: Bench) -> Result<()> {
    let dev_eui = new.eui();
    let answers = race(40, |_| {
        let (store, item) = (store.clone(), new.item(dev_eui));
        async move { store.enqueue(item).await }
    })
    .await;
    let queued: Vec<QueueItem> = answers.into_iter().collect::<Result<_>>()?;
    let numbers: BTreeSet<u64> = queued.iter().map(|item| item.seq).collect();
    assert_eq!(numbers.len(), 40);
    let stored = store.queue(dev_eui, 0, 100).await?;
    assert_eq!(stored.iter().map(|item| item.seq).collect::<Vec<_>>(), numbers.into_iter().collect::<Vec<_>>());
    assert!(queued.iter().all(|item| stored.contains(item)));
    Ok(())
}

pub(super) async fn an_id_is_taken_once(Bench { store, new }: Bench) -> Result<()> {
    let dev_eui = new.eui();
    let item = new.item(dev_eui);
    let queued = store.enqueue(item.clone()).await?;
    assert_exists(store.enqueue(item.clone()).await);
    assert_eq!(store.queue(dev_eui, 0, 10).await?, [queued]);
    let elsewhere = QueueItem { dev_eui: new.eui(), ..item };
    store.enqueue(elsewhere).await?;
    Ok(())
}

pub(super) async fn one_of_many_writers_of_an_id_wins(Bench { store, new }: Bench) -> Result<()> {
    let item = new.item(new.eui());
    let answers = race(10, |_| {
        let (store, item) = (store.clone(), item.clone());
        async move { store.enqueue(item).await }
    })
    .await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    lost.into_iter().for_each(assert_exists);
    assert_eq!(store.queue(item.dev_eui, 0, 10).await?.len(), 1);
    Ok(())
}

pub(super) async fn the_queue_is_read_from_where_one_stood(Bench { store, new }: Bench) -> Result<()> {
    let dev_eui = new.eui();
    let mut items = Vec::new();
    for _ in 0..5 {
        items.push(store.enqueue(new.item(dev_eui)).await?);
    }
    store.enqueue(new.item(new.eui())).await?;
    assert_eq!(store.queue(dev_eui, 0, 100).await?, items, "also what has expired: the reader judges");
    assert_eq!(store.queue(dev_eui, items[1].seq, 2).await?, items[2..4]);
    assert_eq!(store.queue(dev_eui, items[4].seq, 2).await?, []);
    assert_eq!(store.queue(dev_eui, u64::MAX, 2).await?, []);
    assert_eq!(store.queue(dev_eui, 0, 0).await?, []);
    store.delete_queue_item(dev_eui, items[0].seq).await?;
    store.delete_queue_item(dev_eui, items[0].seq).await?;
    assert_eq!(store.queue(dev_eui, 0, 1).await?, items[1..2]);
    Ok(())
}

pub(super) async fn a_long_queue_is_flushed_up_to_a_number(Bench { store, new }: Bench) -> Result<()> {
    let dev_eui = new.eui();
    assert_eq!(store.queue_last(dev_eui).await?, 0, "nothing was ever queued");
    store.flush_queue(dev_eui, u64::MAX).await?;
    let mut items = Vec::new();
    for _ in 0..130 {
        items.push(store.enqueue(new.item(dev_eui)).await?);
    }
    store.flush_queue(dev_eui, items[119].seq).await?;
    assert_eq!(store.queue(dev_eui, 0, 1_000).await?, items[120..]);
    store.flush_queue(dev_eui, items[119].seq).await?;
    let next = store.enqueue(new.item(dev_eui)).await?;
    assert_eq!(store.queue(dev_eui, 0, 1_000).await?.len(), 11);
    store.flush_queue(dev_eui, next.seq).await?;
    assert_eq!(store.queue(dev_eui, 0, 1_000).await?, []);
    assert_eq!(store.queue_last(dev_eui).await?, next.seq, "a number is not given twice");
    Ok(())
}
