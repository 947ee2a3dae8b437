//! From a file into an empty store.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Counters, IMPORT, MovingError, Progress, Report, Reporter, now,
    order::Unit,
    patience::patiently,
    plan::Plan,
    read::{Checked, Lines, is_frame},
    record::{Kind, Record},
    running,
    tally::Summary,
};
use crate::{Result as StoreResult, Store, StoreError};

/// Units that are written at one moment.
const AT_ONCE: usize = 64;
/// Records that are written in one go. A device that has more is written in several, one after the other.
const MOST_RECORDS: usize = 256;
/// How often the store is told how far it is: after this time or so many units, whatever comes first. After an interruption
/// what came later is written again, which changes nothing.
const NOTE_EVERY: Duration = Duration::from_secs(1);
const NOTE_UNITS: u32 = 256;
/// What became of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Imported {
    #[serde(flatten)]
    pub summary: Summary,
    /// It went on with an interrupted one.
    pub resumed: bool,
    pub counters: Counters,
    /// Sessions and devices whose counter has reached its end: they get no more downlinks, or JoinAccepts.
    pub used_up: u64,
}

/// The setting of an import that is not finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// Of the file.
    pub sha256: String,
    pub counters: Counters,
    /// Up to which line everything is stored.
    pub done: u64,
    /// The store was found to be empty, and holds nothing but what this import wrote.
    pub begun: bool,
}

/// The import that was begun on this store and not finished, if there is one.
pub async fn unfinished(store: &dyn Store) -> StoreResult<Option<Unfinished>> {
    store.setting(IMPORT).await?.map(|value| read(&value)).transpose()
}

fn read(value: &[u8]) -> StoreResult<Unfinished> {
    serde_json::from_slice(value).map_err(|e| StoreError::Corrupt(format!("the setting {IMPORT}: {e}")))
}

/// Writes what the file holds into the store, which must be empty or hold an unfinished import of it.
pub async fn import(
    store: &dyn Store,
    Checked { path, summary }: &Checked,
    counters: Counters,
    report: Reporter<'_>,
) -> Result<Imported, MovingError> {
    let at_work = running(&store.servers().await?, now());
    if !at_work.is_empty() {
        return Err(MovingError::Running(at_work));
    }
    let mut claim = claim(store, &summary.sha256, counters).await?;
    let resumed = claim.done > 0;
    if resumed {
        report(Report::Note(format!(
            "going on with an unfinished import, at line {} of {}",
            claim.done + 1,
            summary.lines
        )));
    }
    let mut units = Units::open(path, counters)?;
    write(store, &mut units, &mut claim, summary.lines, report).await?;
    if hex::encode(units.all.finalize()) != summary.sha256 {
        let what = "it was changed while it was being imported; the store holds parts of both".into();
        return Err(MovingError::File { path: path.clone(), what });
    }
    patiently(async || store.put_setting(IMPORT, None).await).await?;
    Ok(Imported { summary: summary.clone(), resumed, counters, used_up: units.used_up })
}

/// Takes the store for this import, or finds how far an interrupted one of the same file came.
async fn claim(store: &dyn Store, sha256: &str, counters: Counters) -> Result<Unfinished, MovingError> {
    let mut mine = Unfinished { sha256: sha256.into(), counters, done: 0, begun: false };
    if unfinished(store).await?.is_none() {
        must_be_empty(store).await?;
    }
    let found = read(&store.init_setting(IMPORT, &encode(&mine)?).await?)?;
    if found.sha256 != mine.sha256 {
        return Err(MovingError::OtherImport { sha256: found.sha256 });
    }
    if found.counters != counters {
        return Err(MovingError::OtherCounters(found.counters));
    }
    if found.begun {
        return Ok(found);
    }
    // Once more: now no server starts any more.
    if let Err(error) = must_be_empty(store).await {
        store.put_setting(IMPORT, None).await?;
        return Err(error);
    }
    mine.begun = true;
    store.put_setting(IMPORT, Some(&encode(&mine)?)).await?;
    Ok(mine)
}

async fn must_be_empty(store: &dyn Store) -> Result<(), MovingError> {
    let mut contents = vec![Plan::make(store).await?.contents()];
    let servers = store.servers().await?.len();
    if servers > 0 {
        contents.push(format!("signs of {servers} servers"));
    }
    contents.retain(|what| !what.is_empty());
    if contents.is_empty() { Ok(()) } else { Err(MovingError::NotEmpty(contents.join(", "))) }
}

fn encode(claim: &Unfinished) -> StoreResult<Vec<u8>> {
    serde_json::to_vec(claim).map_err(|e| StoreError::Corrupt(e.to_string()))
}

/// Section after section: what a thing belongs to is there before it.
async fn write(
    store: &dyn Store,
    units: &mut Units,
    claim: &mut Unfinished,
    total: u64,
    report: Reporter<'_>,
) -> Result<(), MovingError> {
    let (mut noted, mut since) = (Instant::now(), 0);
    let stored = claim.done;
    while let Some(section) = units.next_section()? {
        let mut failed = None;
        let batch = std::iter::from_fn(|| {
            units.next_of(section).unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        });
        let put = async |batch: Batch| {
            if batch.last_line > stored && !is_frame(batch.unit.section) {
                patiently(async || store.restore(&batch.records).await).await?;
            }
            Ok::<_, StoreError>(batch.last_line)
        };
        let mut writes = stream::iter(batch).map(put).buffered(AT_ONCE);
        while let Some(done) = writes.next().await {
            claim.done = claim.done.max(done?);
            let (kind, done) = (section.plural(), claim.done);
            report(Report::Progress(Progress { step: "importing", kind, done, total, unit: "lines" }));
            since += 1;
            if claim.done > stored && (since >= NOTE_UNITS || noted.elapsed() > NOTE_EVERY) {
                let note = encode(claim)?;
                patiently(async || store.put_setting(IMPORT, Some(&note)).await).await?;
                (noted, since) = (Instant::now(), 0);
            }
        }
        drop(writes);
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}

/// Records of one thing that are written together.
struct Batch {
    unit: Unit,
    records: Vec<Record>,
    last_line: u64,
}

/// Reads the file unit by unit.
struct Units {
    lines: Lines,
    all: Sha256,
    counters: Counters,
    began: u64,
    used_up: u64,
    /// The record that was read last and not given yet, with its unit.
    ahead: Option<(Record, Unit)>,
    /// The unit that was given last was cut in two: its rest waits until it is written.
    waits: Option<Unit>,
}

impl Units {
    fn open(file: &Path, counters: Counters) -> Result<Self, MovingError> {
        let began = now().0 / 1_000_000;
        let lines = Lines::open(file)?;
        Ok(Self { lines, all: Sha256::new(), counters, began, used_up: 0, ahead: None, waits: None })
    }

    fn read(&mut self) -> Result<(), MovingError> {
        if self.ahead.is_none() && self.lines.advance()? {
            let mut record = self.lines.record()?;
            self.all.update(&self.lines.line);
            self.used_up += u64::from(self.counters.apply(&mut record, self.began));
            let unit = record.position().unit;
            self.ahead = Some((record, unit));
        }
        Ok(())
    }

    /// Whether something is left, and of which section; all that was given before is stored by now.
    fn next_section(&mut self) -> Result<Option<Kind>, MovingError> {
        self.waits = None;
        self.read()?;
        Ok(self.ahead.as_ref().map(|(_, unit)| unit.section))
    }

    /// The next that may be written beside those before it.
    fn next_of(&mut self, section: Kind) -> Result<Option<Batch>, MovingError> {
        self.read()?;
        let fits = |ahead: &(Record, Unit), waits: &Option<Unit>| {
            ahead.1.section == section && waits.as_ref() != Some(&ahead.1)
        };
        let Some((record, unit)) = self.ahead.take_if(|ahead| fits(ahead, &self.waits)) else { return Ok(None) };
        let mut batch = Batch { unit, records: vec![record], last_line: self.lines.number };
        self.waits = None;
        while batch.records.len() < MOST_RECORDS {
            self.read()?;
            let Some((record, _)) = self.ahead.take_if(|(_, unit)| *unit == batch.unit) else { return Ok(Some(batch)) };
            batch.records.push(record);
            batch.last_line = self.lines.number;
        }
        self.waits = Some(batch.unit.clone());
        Ok(Some(batch))
    }
}
