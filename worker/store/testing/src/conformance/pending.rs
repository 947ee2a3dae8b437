use limpet_shared::{Eui64, UnixMicros};

use super::{Bench, race, samples::NOON};
use limpet_store::{Backlog, IntegrationId, PendingBounds, PendingEvent, Result, Store, StoreError, Trimmed};

const ALL: PendingBounds = PendingBounds { events: u64::MAX, bytes: u64::MAX, since: UnixMicros(0) };

fn keep(events: u64) -> PendingBounds {
    PendingBounds { events, ..ALL }
}

/// Whether anything waits for it.
async fn has(store: &dyn Store, integration: IntegrationId, device: Eui64) -> Result<bool> {
    store.has_pending(integration, device, UnixMicros(i64::MAX.cast_unsigned()), 1).await
}

async fn backlog(store: &dyn Store, of: IntegrationId) -> Result<Option<Backlog>> {
    Ok(store.pending_backlog().await?.into_iter().find(|backlog| backlog.integration == of))
}

pub(super) async fn the_same_event_again_changes_nothing(Bench { store, new }: Bench) -> Result<()> {
    let (integration, device) = (new.integration(), new.eui());
    assert!(!has(&*store, integration, device).await?);
    assert_eq!(store.pending_size(integration).await?, (0, 0));
    let event = PendingEvent { refusals: 1, ..new.pending(integration, device, 1) };
    store.put_pending(event.clone()).await?;
    let (_, bytes) = store.pending_size(integration).await?;
    assert!(bytes > 0);
    let another_body = PendingEvent { event: new.event(device), refusals: 0, ..event.clone() };
    store.put_pending(another_body).await?;
    assert_eq!(store.pending(integration, device, 10).await?, std::slice::from_ref(&event));
    assert_eq!(store.pending_size(integration).await?, (1, bytes));
    assert!(has(&*store, integration, device).await? && store.may_have_pending().await?);
    store.delete_pending(&event).await?;
    store.delete_pending(&event).await?;
    assert!(!has(&*store, integration, device).await?);
    assert_eq!(store.pending_size(integration).await?, (0, 0));
    Ok(())
}

pub(super) async fn events_come_in_the_order_of_their_keys(Bench { store, new }: Bench) -> Result<()> {
    let (integration, device) = (new.integration(), new.eui());
    let at = |session_since, slot, part| PendingEvent {
        session_since: UnixMicros(session_since),
        part,
        ..new.pending(integration, device, slot)
    };
    let ordered = [at(1, 900, 0), at(NOON.0, 2, 0), at(NOON.0, 2, 1), at(NOON.0, 2, 1000), at(NOON.0, 10, 0)];
    for n in [3, 0, 4, 1, 2] {
        store.put_pending(ordered[n].clone()).await?;
    }
    assert_eq!(store.pending(integration, device, 10).await?, ordered);
    assert_eq!(store.pending(integration, device, 2).await?, ordered[..2]);
    store.delete_pending(&ordered[1]).await?;
    assert_eq!(store.pending(integration, device, 2).await?, [ordered[0].clone(), ordered[2].clone()]);
    Ok(())
}

pub(super) async fn an_event_waits_behind_those_of_its_slot_and_before(Bench { store, new }: Bench) -> Result<()> {
    let (integration, device) = (new.integration(), new.eui());
    let has = async |since, slot| store.has_pending(integration, device, UnixMicros(since), slot).await;
    // Many slots, for a store need not look back for ever.
    let late = PendingEvent { session_since: UnixMicros(9_000), ..new.pending(integration, device, 0) };
    let early = PendingEvent { session_since: UnixMicros(1_000), ..new.pending(integration, device, 500) };
    store.put_pending(late.clone()).await?;
    assert!(!has(5_000, 500).await? && !has(5_000, 3).await?, "what comes after does not count");
    store.put_pending(early.clone()).await?;
    assert!(has(5_000, 3).await? && has(1_000, 500).await? && has(1_000, 501).await? && has(1_000, 550).await?);
    assert!(!has(1_000, 499).await? && !has(1_000, 3).await? && !has(500, 700).await?);
    store.delete_pending(&early).await?;
    assert!(!has(1_000, 501).await? && !has(5_000, 3).await? && has(9_000, 1).await?);
    Ok(())
}

pub(super) async fn who_sends_misses_nothing_that_is_put_meanwhile(Bench { store, new }: Bench) -> Result<()> {
    let (integration, device) = (new.integration(), new.eui());
    let waits = async || -> Result<bool> {
        Ok(store.pending_turns(u32::MAX, Vec::new()).await?.contains(&(integration, device)))
    };
    let slots = async |limit| -> Result<Vec<u64>> {
        Ok(store.next_pending(integration, device, limit).await?.iter().map(|event| event.slot).collect())
    };
    assert!(!waits().await?);
    for slot in [5, 6, 7] {
        store.put_pending(new.pending(integration, device, slot)).await?;
    }
    assert!(waits().await?);
    assert_eq!(slots(2).await?, [5, 6]);
    store.delete_pending(&new.pending(integration, device, 5)).await?;
    assert_eq!(slots(9).await?, [6, 7]);
    // Before what was read, and behind.
    for slot in [2, 9] {
        store.put_pending(new.pending(integration, device, slot)).await?;
    }
    assert!(waits().await?);
    assert_eq!(slots(9).await?, [2, 6, 7, 9]);
    for slot in [2, 6, 7, 9] {
        store.delete_pending(&new.pending(integration, device, slot)).await?;
    }
    assert!(slots(9).await?.is_empty());
    assert!(!waits().await?);
    store.put_pending(new.pending(integration, device, 1)).await?;
    assert!(waits().await?, "also where something was before");
    assert_eq!(slots(9).await?, [1]);
    let writers = race(20, |slot| {
        let (store, event) = (store.clone(), new.pending(integration, device, 100 + slot));
        async move { store.put_pending(event).await }
    });
    writers.await.into_iter().collect::<Result<Vec<_>>>()?;
    assert!(waits().await?);
    assert_eq!(slots(99).await?.len(), 21);
    Ok(())
}

pub(super) async fn the_longest_waiting_device_comes_first(Bench { store, new }: Bench) -> Result<()> {
    let integration = new.integration();
    let (late, early, last) = (new.eui(), new.eui(), new.eui());
    let first = new.pending(integration, early, 9);
    for event in [&first, &new.pending(integration, late, 1), &new.pending(integration, early, 1)] {
        store.put_pending(event.clone()).await?;
    }
    store.put_pending(new.pending(integration, last, 1)).await?;
    store.put_pending(new.pending(new.integration(), new.eui(), 1)).await?;
    let mine = async || -> Result<Vec<_>> { store.pending_devices(integration, u32::MAX).await };
    assert_eq!(mine().await?, [early, late, last]);
    store.delete_pending(&first).await?;
    assert_eq!(mine().await?, [late, early, last], "what was delivered waits no longer");
    assert_eq!(store.pending_devices(integration, 1).await?, [late]);
    assert_eq!(store.pending_devices(integration, 0).await?, []);
    Ok(())
}

pub(super) async fn integrations_take_turns_and_some_stand_aside(Bench { store, new }: Bench) -> Result<()> {
    let (a, b, c) = (new.integration(), new.integration(), new.integration());
    let devices = [new.eui(), new.eui(), new.eui(), new.eui()];
    for (integration, device) in [(a, 0), (a, 1), (a, 2), (b, 3), (c, 3)] {
        store.put_pending(new.pending(integration, devices[device], 1)).await?;
    }
    let mine = async |each, aside: &[IntegrationId]| -> Result<Vec<_>> {
        let mut turns = store.pending_turns(each, aside.to_vec()).await?;
        turns.retain(|(integration, _)| [a, b, c].contains(integration));
        Ok(turns)
    };
    let all = [(a, devices[0]), (b, devices[3]), (c, devices[3]), (a, devices[1]), (a, devices[2])];
    assert_eq!(mine(9, &[]).await?, all);
    assert_eq!(mine(2, &[]).await?, all[..4]);
    assert_eq!(mine(1, &[b]).await?, [all[0], all[2]]);
    assert_eq!(mine(9, &[a, b, c]).await?, []);
    assert_eq!(mine(0, &[]).await?, []);
    Ok(())
}

pub(super) async fn an_integration_sees_its_own_events_only(Bench { store, new }: Bench) -> Result<()> {
    let (a, b, device) = (new.integration(), new.integration(), new.eui());
    let (of_a, of_b) = (new.pending(a, device, 1), new.pending(b, device, 1));
    store.put_pending(of_a.clone()).await?;
    store.put_pending(of_b.clone()).await?;
    store.delete_pending(&of_a).await?;
    assert_eq!(store.pending(a, device, 9).await?, []);
    assert_eq!(store.pending(b, device, 9).await?, [of_b]);
    assert!(!has(&*store, a, device).await? && has(&*store, b, device).await?);
    assert_eq!(store.trim_pending(a, &keep(0)).await?, Trimmed::default());
    assert_eq!(store.pending_size(b).await?.0, 1);
    Ok(())
}

pub(super) async fn trimming_drops_the_oldest(Bench { store, new }: Bench) -> Result<()> {
    let (integration, one, two) = (new.integration(), new.eui(), new.eui());
    // Slots count down: the oldest is what was written first, whatever its key.
    for n in 0..30 {
        store.put_pending(new.pending(integration, if n % 2 == 0 { one } else { two }, 100 - n)).await?;
    }
    assert_eq!(store.trim_pending(integration, &keep(30)).await?, Trimmed::default());
    assert_eq!(store.trim_pending(integration, &keep(4)).await?, Trimmed { too_old: 0, overflow: 26 });
    assert_eq!(store.pending_size(integration).await?.0, 4);
    let mut slots = Vec::new();
    for device in [one, two] {
        slots.extend(store.pending(integration, device, 99).await?.into_iter().map(|event| event.slot));
    }
    slots.sort_unstable();
    assert_eq!(slots, [71, 72, 73, 74]);
    assert_eq!(store.trim_pending(integration, &keep(0)).await?.overflow, 4);
    Ok(())
}

pub(super) async fn trimming_holds_to_bytes_and_age(Bench { store, new }: Bench) -> Result<()> {
    let (integration, other, device) = (new.integration(), new.integration(), new.eui());
    for slot in 1..=250 {
        store.put_pending(new.pending(integration, device, slot)).await?;
    }
    store.put_pending(new.pending(other, device, 1)).await?;
    assert_eq!(store.trim_pending(integration, &ALL).await?, Trimmed::default());
    // All events are about as large.
    let (_, bytes) = store.pending_size(integration).await?;
    let dropped = store.trim_pending(integration, &PendingBounds { bytes: bytes / 2, ..ALL }).await?;
    assert_eq!(dropped.too_old, 0);
    assert!((110..140).contains(&dropped.overflow), "{dropped:?}");
    let (left, left_bytes) = store.pending_size(integration).await?;
    assert!(left == 250 - dropped.overflow && left_bytes <= bytes / 2);
    assert_eq!(store.pending(integration, device, 1).await?[0].slot, dropped.overflow + 1, "the oldest went");
    let oldest = backlog(&*store, integration).await?.map_or(UnixMicros(0), |backlog| backlog.oldest);
    assert_eq!(store.trim_pending(integration, &PendingBounds { since: oldest, ..ALL }).await?, Trimmed::default());
    let all_too_old = PendingBounds { since: UnixMicros(i64::MAX.cast_unsigned()), ..keep(3) };
    let dropped = store.trim_pending(integration, &all_too_old).await?;
    assert_eq!(dropped, Trimmed { too_old: left, overflow: 0 });
    assert_eq!(store.pending_size(integration).await?, (0, 0));
    assert_eq!(store.pending_size(other).await?.0, 1, "another integration's stay");
    Ok(())
}

pub(super) async fn the_backlog_tells_what_waits_for_whom(Bench { store, new }: Bench) -> Result<()> {
    let (a, b, none) = (new.integration(), new.integration(), new.integration());
    let (one, two) = (new.eui(), new.eui());
    for event in [new.pending(a, one, 1), new.pending(a, one, 2), new.pending(a, two, 1), new.pending(b, one, 1)] {
        store.put_pending(event.clone()).await?;
        store.put_pending(event).await?;
    }
    let nothing = || StoreError::NotFound("what waits".into());
    let of_a = backlog(&*store, a).await?.ok_or_else(nothing)?;
    let of_b = backlog(&*store, b).await?.ok_or_else(nothing)?;
    assert_eq!((of_a.events, of_a.bytes), store.pending_size(a).await?);
    assert_eq!((of_a.events, of_b.events), (3, 1));
    assert!(of_a.oldest > UnixMicros(0) && of_a.oldest <= of_b.oldest);
    assert_eq!(backlog(&*store, none).await?, None);
    for event in store.pending(a, one, 9).await?.iter().chain(&store.pending(a, two, 9).await?) {
        store.delete_pending(event).await?;
    }
    assert_eq!(backlog(&*store, a).await?, None);
    assert_eq!(backlog(&*store, b).await?.map(|of| of.events), Some(1));
    Ok(())
}

pub(super) async fn a_lease_has_one_holder(Bench { store, new }: Bench) -> Result<()> {
    let name = new.word();
    let t = UnixMicros;
    assert!(store.lease(&name, "a", t(100), t(200)).await?);
    assert!(!store.lease(&name, "b", t(199), t(300)).await?, "while it lasts");
    assert!(store.lease(&name, "a", t(150), t(250)).await?, "its holder renews it");
    assert!(!store.lease(&name, "b", t(249), t(300)).await?);
    assert!(store.lease(&name, "b", t(250), t(300)).await?, "it ends at `until`");
    assert!(!store.lease(&name, "a", t(260), t(400)).await?, "who lost it knows");
    assert!(store.lease(&new.word(), "a", t(260), t(400)).await?, "another name is another lease");
    assert!(store.lease(&name, "b", t(270), t(270)).await?, "given back");
    assert!(store.lease(&name, "a", t(270), t(400)).await?);
    Ok(())
}

pub(super) async fn one_of_many_takes_a_lease(Bench { store, new }: Bench) -> Result<()> {
    let name = new.word();
    let answers = race(10, |n| {
        let (store, name) = (store.clone(), name.clone());
        async move { store.lease(&name, &format!("worker {n}"), UnixMicros(1), UnixMicros(2)).await }
    })
    .await;
    let taken = answers.into_iter().collect::<Result<Vec<_>>>()?;
    assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1);
    Ok(())
}

pub(super) async fn who_asks_for_a_lease_many_times_at_once_has_it(Bench { store, new }: Bench) -> Result<()> {
    let name = new.word();
    for round in 0..5 {
        // Each until a little later, as by a clock that goes on.
        let answers = race(16, |n| {
            let (store, name, now) = (store.clone(), name.clone(), 1_000 * round + n);
            async move { store.lease(&name, "worker", UnixMicros(now), UnixMicros(now + 500)).await }
        });
        assert!(answers.await.into_iter().collect::<Result<Vec<_>>>()?.into_iter().all(|has| has), "round {round}");
    }
    Ok(())
}
