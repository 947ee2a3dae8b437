//! How the worker that sends gets to know what waits: by signs; by looks for what nobody signed; and by counts. What fails for one
//! device or integration costs no other.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use limpet_shared::Eui64;
use tokio::time::Instant;
use uuid::Uuid;

use super::{AT_ONCE, Count, Db, LIST_PAGE, Listed, Pending, Waiter, read_of};
use crate::{Backlog, IntegrationId, Result, StoreError, cql::waiting::MOST};

/// How often it is looked for what nobody signed: in the list, and in the table itself, for the list may lack what a writer
/// wrote whose clock is behind, or that died between two writes. After failures it is looked less often, see [`Due`].
const LIST_EVERY: Duration = Duration::from_secs(10);
const SEARCH_EVERY: Duration = Duration::from_secs(60);
/// Where nobody asks for the backlog, which looks too.
const LATE: Duration = Duration::from_secs(35);
/// Who has not read signs for so long begins anew: notes end after an hour.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1_200);
/// What was read of a writer that is not among those who sign is remembered for so long: it may sign again.
const WRITER_GONE_AFTER: Duration = Duration::from_secs(4 * 3600);
/// How often a device's events are counted, and how many devices' in one go: between that, signs and deletions are.
const COUNT_EVERY: Duration = Duration::from_secs(600);
const COUNTED_AT_ONCE: usize = 2_000;
/// Integrations whose room is filled up in one go.
const FILLED_AT_ONCE: usize = 8;
/// Comes after all devices in the list.
const LAST_DEVICE: &str = "~";

/// What was read of the signs.
#[derive(Default)]
pub(super) struct Followed {
    /// By writer: up to which number, and when it was among those who sign.
    signed: HashMap<Uuid, (i64, Instant)>,
    read_at: Option<Instant>,
}

/// When it is looked for what nobody signed.
#[derive(Default)]
pub(super) struct Looks {
    list: Due,
    search: Due,
}

/// When something is tried again: each failure in a row doubles the time, up to 16 times.
#[derive(Default)]
struct Due {
    at: Option<Instant>,
    failures: u32,
}

impl Due {
    fn is_over(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| now >= at)
    }

    fn tried(&mut self, now: Instant, every: Duration, is_ok: bool) {
        self.failures = if is_ok { 0 } else { (self.failures + 1).min(4) };
        self.at = Some(now + every * 2_u32.pow(self.failures));
    }
}

impl Pending {
    /// A clock that does not jump (us).
    fn steady(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// Some of the list, behind that device of that integration.
    async fn listed(&self, db: &Db, integration: &str, device: &str) -> Result<Vec<Listed>> {
        db.rows(&self.listed, (integration, device, LIST_PAGE)).await
    }

    /// An integration's devices in the list, with when each was written; `ended` if there are no more.
    async fn listed_of(&self, db: &Db, of: IntegrationId, after: Option<Eui64>) -> Result<(Vec<(Eui64, i64)>, bool)> {
        let (of, after) = (of.0.to_string(), after.map(|device| device.to_string()).unwrap_or_default());
        let rows: Vec<Listed> = db.rows(&self.listed_of, (of, after, LIST_PAGE)).await?;
        let ended = rows.len() < LIST_PAGE as usize;
        let rows = rows.into_iter().filter_map(|(_, device, _, written)| Some((device.parse().ok()?, written)));
        let rows: Vec<_> = rows.collect();
        let ended = ended || rows.is_empty();
        Ok((rows, ended))
    }

    /// All of an integration's devices in the list.
    pub(super) async fn of_integration(&self, db: &Db, integration: IntegrationId) -> Result<Vec<String>> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (rows, ended) = self.listed_of(db, integration, after).await?;
            after = rows.last().map(|(device, _)| *device);
            all.extend(rows.into_iter().map(|(device, _)| device.to_string()));
            if ended {
                return Ok(all);
            }
        }
    }

    async fn all_listed(&self, db: &Db) -> Result<Vec<Listed>> {
        let mut all = Vec::<Listed>::new();
        loop {
            let (integration, device) = all.last().map_or(("", ""), |(integration, device, ..)| (integration, device));
            let page = self.listed(db, integration, device).await?;
            let ended = page.len() < LIST_PAGE as usize;
            all.extend(page);
            if ended {
                return Ok(all);
            }
        }
    }

    /// Whether anything waits for it.
    async fn is_waiting(&self, db: &Db, integration: &str, device: &str) -> Result<bool> {
        let mut any = false;
        let one = |_: (i64, i64)| {
            any = true;
            Ok(false)
        };
        db.scan(&self.sizes, (integration, device), one).await?;
        Ok(any)
    }

    /// Devices with the integrations that something waits for: those of the list, and what a search finds besides.
    pub async fn keys(&self, db: &Db) -> Result<Vec<(Eui64, IntegrationId)>> {
        let listed = self.all_listed(db).await?.into_iter();
        let mut known: BTreeSet<(String, String)> =
            listed.map(|(integration, device, ..)| (integration, device)).collect();
        let collect = |of: (String, String)| {
            known.insert(of);
            Ok(true)
        };
        if let Err(error) = db.scan(&self.search, (), collect).await {
            tracing::warn!(%error, "waiting events were not searched for to the end; those of all devices in the list are known");
        }
        let looks = known.into_iter().map(|(integration, device)| async move {
            // What cannot be looked at now is read again, with patience.
            let waits = self.is_waiting(db, &integration, &device).await.unwrap_or(true);
            waits.then(|| read_of(&integration, &device)).transpose()
        });
        let looked: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
        let keys = looked.into_iter().filter_map(Result::transpose);
        keys.map(|of| of.map(|(integration, device)| (device, integration))).collect()
    }

    /// Learns what others have put since the last time; at the first time, and after a long while, what waits at all.
    async fn follow(&self, db: &Db) -> Result<()> {
        let mut followed = self.followed.lock().await;
        let now = Instant::now();
        let signed = self.signs.read(db).await?;
        if followed.read_at.is_none_or(|read| now - read >= FORGOTTEN_AFTER) {
            // What is signed from now on is read as notes; what was signed before is found.
            followed.signed = signed.into_iter().map(|(writer, number)| (writer, (number, now))).collect();
            followed.read_at = Some(now);
            let mut looks = self.looks.lock().await;
            *looks = Looks::default();
            return self.look(db, &mut looks).await;
        }
        for (writer, number) in signed {
            let after = followed.signed.get(&writer).map(|(after, _)| *after).unwrap_or_default();
            let mut last = after;
            if number > after {
                let (read, notes) = self.signs.notes(db, writer, after).await?;
                let mut waiting = self.waiting.lock();
                notes.iter().for_each(|note| waiting.note(note));
                last = read.max(number);
            }
            followed.signed.insert(writer, (last, now));
        }
        followed.signed.retain(|_, (_, there)| now - *there < WRITER_GONE_AFTER);
        followed.read_at = Some(now);
        Ok(())
    }

    /// Looks for what nobody signed: a writer of an earlier version, or one that died between two writes. Through the list often,
    /// through the table now and then. Fails if nothing could be looked at.
    async fn look(&self, db: &Db, looks: &mut Looks) -> Result<()> {
        let now = Instant::now();
        let (mut failed, mut looked) = (None, !looks.list.is_over(now));
        if looks.list.is_over(now) {
            let listed = self.look_at_the_list(db).await;
            looks.list.tried(now, LIST_EVERY, listed.is_ok());
            looked = listed.is_ok();
            failed = listed.err();
        }
        if looks.search.is_over(now) {
            let searched = self.search(db).await;
            looks.search.tried(now, SEARCH_EVERY, searched.is_ok());
            looked |= searched.is_ok();
            failed = failed.or(searched.err());
            self.take_out_idle(db).await;
        }
        match failed {
            Some(error) if !looked => Err(error),
            Some(error) => {
                tracing::debug!(%error, "could not look for all that waits");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// As much of each integration as there is room for.
    async fn look_at_the_list(&self, db: &Db) -> Result<()> {
        let (mut integration, mut device) = (String::new(), String::new());
        loop {
            let mut page = self.listed(db, &integration, &device).await?;
            let Some((last, last_device, ..)) = page.last().cloned() else { return Ok(()) };
            let ended = page.len() < LIST_PAGE as usize;
            page.sort_by_key(|(.., since, _)| *since);
            let mut waiting = self.waiting.lock();
            for (integration, device, _, written) in &page {
                if let Some(of) = readable(integration, device) {
                    waiting.listed(of, *written);
                }
            }
            if ended {
                return Ok(());
            }
            let has_room = readable(&last, &last_device).is_none_or(|(of, _)| waiting.may_have_more(of));
            device = if has_room { last_device } else { LAST_DEVICE.into() };
            integration = last;
        }
    }

    async fn search(&self, db: &Db) -> Result<()> {
        let found = |(integration, device): (String, String)| {
            if let Some(of) = readable(&integration, &device) {
                self.waiting.lock().searched(of);
            }
            Ok(true)
        };
        db.scan(&self.search, (), found).await
    }

    /// Devices that have had nothing waiting for a while.
    async fn take_out_idle(&self, db: &Db) {
        let idle = self.waiting.lock().idle(COUNTED_AT_ONCE);
        let looks = idle.into_iter().map(|(of, signs)| async move {
            match self.is_waiting(db, &of.0.0.to_string(), &of.1.to_string()).await {
                Ok(true) => self.waiting.lock().found(of),
                Ok(false) => {
                    let listed = self.waiting.lock().forget(of, signs);
                    self.unlist(db, of, listed.unwrap_or_default()).await;
                }
                Err(error) => tracing::debug!(device = %of.1, %error, "could not look at a device without events"),
            }
        });
        stream::iter(looks).buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    /// While others follow what is signed. What fails is tried again later: what is signed goes out meanwhile.
    async fn look_around(&self, db: &Db) {
        let Ok(mut looks) = self.looks.try_lock() else { return };
        if let Err(error) = self.look(db, &mut looks).await {
            tracing::debug!(%error, "could not look for what waits");
        }
    }

    /// What there was no room for before.
    async fn fill_up(&self, db: &Db) {
        let wanting = self.waiting.lock().to_be_filled(FILLED_AT_ONCE);
        for (of, after) in wanting {
            match self.listed_of(db, of, after).await {
                Ok((rows, ended)) => self.waiting.lock().fill(of, after, &rows, ended),
                Err(error) => tracing::debug!(integration = %of.0, %error, "could not read on what waits"),
            }
        }
    }

    /// Of more devices than are asked for, those that were listed first are looked at.
    pub async fn devices(&self, db: &Db, of: IntegrationId, limit: u32) -> Result<Vec<Eui64>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let (rows, ended) = self.listed_of(db, of, after).await?;
            after = rows.last().map(|(device, _)| *device);
            listed.extend(rows);
            if ended {
                break;
            }
        }
        listed.sort_by_key(|(_, written)| *written);
        listed.truncate((limit as usize).saturating_mul(2).max(64));
        let integration = &of.0.to_string();
        let looks = listed.into_iter().map(|(device, _)| async move {
            let count = self.count(db, integration, &device.to_string()).await?;
            Ok::<_, StoreError>((count.events > 0).then_some((count.oldest, device)))
        });
        let looked: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
        let mut waiting = looked.into_iter().filter_map(Result::transpose).collect::<Result<Vec<_>>>()?;
        waiting.sort_unstable();
        waiting.truncate(limit as usize);
        Ok(waiting.into_iter().map(|(_, device)| device).collect())
    }

    /// As far as it was signed, or found by a look.
    pub async fn turns(&self, db: &Db, each: u32, aside: &[IntegrationId]) -> Result<Vec<Waiter>> {
        self.follow(db).await?;
        self.fill_up(db).await;
        // Whoever asks without sending, as operators do, has nobody else to look.
        let late = self.looks.try_lock().is_ok_and(|looks| looks.list.at.is_some_and(|at| Instant::now() > at + LATE));
        if late {
            self.look_around(db).await;
        }
        Ok(self.waiting.lock().turns(each, aside))
    }

    /// What waits. Looks for what nobody signed, too, and counts some of the devices anew.
    pub async fn backlog(&self, db: &Db) -> Result<Vec<Backlog>> {
        self.follow(db).await?;
        self.look_around(db).await;
        let (now, long) = (self.steady(), COUNT_EVERY.as_micros() as i64);
        let uncounted = self.waiting.lock().uncounted(now - long, COUNTED_AT_ONCE);
        let counts = uncounted.into_iter().map(|(of, signs)| async move {
            let count = self.count(db, &of.0.0.to_string(), &of.1.to_string()).await;
            self.waiting.lock().counted(of, signs, now, count.ok());
        });
        stream::iter(counts).buffer_unordered(AT_ONCE).collect::<()>().await;
        let lists = self.waiting.lock().uncounted_lists(now - long);
        for (of, after) in lists.into_iter().take(COUNTED_AT_ONCE / MOST + 1) {
            if let Err(error) = self.count_list(db, of, after, now).await {
                tracing::debug!(integration = %of.0, %error, "could not count what waits");
            }
        }
        Ok(self.waiting.lock().backlog())
    }

    /// Some devices of an integration that has more than are remembered. One that cannot be counted counts as nothing.
    async fn count_list(&self, db: &Db, of: IntegrationId, after: Option<Eui64>, now: i64) -> Result<()> {
        let (rows, ended) = self.listed_of(db, of, after).await?;
        let last = rows.last().map(|(device, _)| *device).filter(|_| !ended);
        let integration = &of.0.to_string();
        let counts = rows.into_iter().map(|(device, _)| async move {
            self.count(db, integration, &device.to_string()).await.unwrap_or_default()
        });
        let mut sum = Count::default();
        let counts: Vec<_> = stream::iter(counts).buffer_unordered(AT_ONCE).collect().await;
        counts.into_iter().for_each(|count| sum.add(count));
        self.waiting.lock().list_counted(of, sum, last, now);
        Ok(())
    }
}

/// A row that cannot be read hides no other.
fn readable(integration: &str, device: &str) -> Option<Waiter> {
    let of = read_of(integration, device);
    of.inspect_err(|error| tracing::debug!(integration, device, %error, "a device in the list is none")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_less_and_less_often() {
        let (mut due, now) = (Due::default(), Instant::now());
        assert!(due.is_over(now));
        for (is_ok, seconds) in
            [(true, 10), (false, 20), (false, 40), (false, 80), (false, 160), (false, 160), (true, 10)]
        {
            due.tried(now, Duration::from_secs(10), is_ok);
            assert!(
                !due.is_over(now + Duration::from_secs(seconds - 1)) && due.is_over(now + Duration::from_secs(seconds))
            );
        }
    }
}
