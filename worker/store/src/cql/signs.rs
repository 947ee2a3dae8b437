//! How the worker that sends gets to know of what others have put, for one small read: each writer counts what it puts,
//! and notes which events those were.

use std::collections::{HashMap, VecDeque};

use limpet_shared::Eui64;
use parking_lot::Mutex;
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

use super::{
    db::{Db, How},
    json::{decode, encode, parse},
    waiting::Note,
};
use crate::{IntegrationId, OpenError, Result, StoreError};

/// Events noted in one row at most.
const NOTED_AT_ONCE: usize = 200;
/// Events that wait to be noted at most.
const MOST_UNSIGNED: usize = 10_000;

/// An event as it is noted: integration, device, session start, slot, part, time, bytes.
type Noted = (String, String, i64, i64, i64, i64, u64);

pub(super) struct Signs {
    note: PreparedStatement,
    sign: PreparedStatement,
    signs: PreparedStatement,
    notes: PreparedStatement,
    /// This process, which counts its notes.
    writer: Uuid,
    /// The last number given. Who holds it writes.
    number: tokio::sync::Mutex<i64>,
    unsigned: Mutex<Unsigned>,
}

/// What is not noted yet; taken out once it is.
#[derive(Default)]
struct Unsigned {
    events: VecDeque<Noted>,
    /// How many there were ever.
    put: u64,
    /// Up to which of them a note has failed last, and why.
    failed: Option<(u64, StoreError)>,
}

impl Unsigned {
    /// Of too many the oldest go: looks find what nobody signed. Gives its number.
    fn add(&mut self, event: Noted) -> u64 {
        if self.events.len() >= MOST_UNSIGNED {
            self.events.pop_front();
        }
        self.events.push_back(event);
        self.put += 1;
        self.put
    }

    /// So many are noted, or were left out.
    fn done(&self) -> u64 {
        self.put - self.events.len() as u64
    }

    /// What became of one, by its number; `None` while nobody has tried.
    fn outcome(&self, number: u64) -> Option<Result<()>> {
        match &self.failed {
            _ if number <= self.done() => Some(Ok(())),
            Some((upto, error)) if number <= *upto => Some(Err(error.clone())),
            _ => None,
        }
    }

    /// For all that wait. They stay, and are noted with the next.
    fn failed(&mut self, error: StoreError) {
        self.failed = Some((self.put, error));
    }

    fn noted_to(&mut self, number: u64) {
        let noted = usize::try_from(number.saturating_sub(self.done())).unwrap_or(usize::MAX);
        self.events.drain(..noted.min(self.events.len()));
    }
}

impl Signs {
    pub async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        use How::{Read, Scan, Write};
        let note = "INSERT INTO $.pending_note (writer, seq, events) VALUES (?, ?, ?)";
        let sign = "INSERT INTO $.pending_sign (one, writer, seq) VALUES (0, ?, ?) USING TIMESTAMP ?";
        Ok(Self {
            note: db.prepare(Write, note).await?,
            sign: db.prepare(Write, sign).await?,
            signs: db.prepare(Read, "SELECT writer, seq FROM $.pending_sign WHERE one = 0").await?,
            notes: db.prepare(Scan, "SELECT seq, events FROM $.pending_note WHERE writer = ? AND seq > ?").await?,
            writer: Uuid::new_v4(),
            number: tokio::sync::Mutex::default(),
            unsigned: Mutex::default(),
        })
    }

    /// Tells of an event that was put. One writes for all that wait meanwhile, and one after the other: a number that is signed
    /// means that all notes up to it are there. If that one fails all who wait do: each would wait as long for the same.
    pub async fn raise(&self, db: &Db, note: &Note) -> Result<()> {
        let (integration, device) = (note.of.0.0.to_string(), note.of.1.to_string());
        let (since, slot, part) = note.place;
        let mine = self.unsigned.lock().add((integration, device, since, slot, part, note.at, note.bytes));
        let mut number = self.number.lock().await;
        loop {
            let (done, some) = {
                let unsigned = self.unsigned.lock();
                if let Some(outcome) = unsigned.outcome(mine) {
                    return outcome;
                }
                let some: Vec<_> = unsigned.events.iter().take(NOTED_AT_ONCE).cloned().collect();
                (unsigned.done(), some)
            };
            // Also after a failure: what became of that row is not known.
            *number += 1;
            match self.write(db, *number, &some).await {
                Ok(()) => self.unsigned.lock().noted_to(done + some.len() as u64),
                Err(error) => self.unsigned.lock().failed(error),
            }
        }
    }

    async fn write(&self, db: &Db, number: i64, some: &[Noted]) -> Result<()> {
        db.write(&self.note, (self.writer, number, encode(&some)?)).await?;
        db.write(&self.sign, (self.writer, number, number)).await
    }

    /// Up to which number each writer has signed.
    pub async fn read(&self, db: &Db) -> Result<HashMap<Uuid, i64>> {
        let rows: Vec<(Uuid, i64)> = db.rows(&self.signs, ()).await?;
        Ok(rows.into_iter().collect())
    }

    /// What a writer has noted behind a number, and the last number of that.
    pub async fn notes(&self, db: &Db, writer: Uuid, after: i64) -> Result<(i64, Vec<Note>)> {
        let (mut last, mut notes) = (after, Vec::new());
        let collect = |(seq, events): (i64, String)| {
            // A note that cannot be read is one that nobody signed: a look finds the event.
            let noted = decode::<Vec<Noted>>(&events).unwrap_or_default();
            notes.extend(noted.into_iter().filter_map(|noted| read_note(noted).ok()));
            last = last.max(seq);
            Ok(true)
        };
        db.scan(&self.notes, (writer, after), collect).await?;
        Ok((last, notes))
    }
}

fn read_note((integration, device, since, slot, part, at, bytes): Noted) -> Result<Note> {
    let integration = IntegrationId(parse(&integration, "integration")?);
    let device: Eui64 = parse(&device, "DevEUI")?;
    Ok(Note { of: (integration, device), place: (since, slot, part), at, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_the_note_fails_or_succeeds_for_all_who_wait() {
        let event = |n| (String::new(), String::new(), 0, n, 0, 0, 0);
        let mut unsigned = Unsigned::default();
        let [one, two] = [1, 2].map(|n| unsigned.add(event(n)));
        assert_eq!(unsigned.outcome(two), None);
        let away = StoreError::Unavailable("away".into());
        unsigned.failed(away.clone());
        let late = unsigned.add(event(3));
        assert_eq!([one, two, late].map(|n| unsigned.outcome(n)), [Some(Err(away.clone())), Some(Err(away)), None]);
        assert_eq!(unsigned.events.len(), 3, "they are noted with the next");
        unsigned.noted_to(late);
        assert_eq!([one, two, late].map(|n| unsigned.outcome(n)), [Some(Ok(())), Some(Ok(())), Some(Ok(()))]);
    }
}
