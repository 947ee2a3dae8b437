//! `export` and `import`: what people see of moving a network.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use limpet_store::{
    OpenError,
    moving::{self, Counters, Exported, Imported, MovingError, Progress, Report, Summary},
};
use serde::Serialize;

/// Why it did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum CtlMovingError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Moving(#[from] MovingError),
    #[error("- is no file: give a name, for an export is checked, and can be gone on with, in a file only")]
    NoFile,
    #[error("there is no store in {0}")]
    NoStore(String),
    #[error("cannot print the answer: {0}")]
    Print(#[from] serde_json::Error),
}

pub async fn export(file: &Path, url: &str, json: bool) -> Result<String, CtlMovingError> {
    named(file)?;
    // Opening a folder would make a store there.
    if let Some(folder) = url.strip_prefix("sqlite:").filter(|folder| !Path::new(folder).join("state.db").exists()) {
        return Err(CtlMovingError::NoStore(folder.into()));
    }
    let (store, shown, began) = (limpet_store::open(url).await?, Shown::new(), Instant::now());
    let exported = moving::export(&*store, file, &|report| shown.show(report)).await;
    shown.end();
    let exported = exported?;
    if json {
        return document(&exported);
    }
    let Exported { summary, running, .. } = exported;
    let mut text = told("exported to", file, &summary, began.elapsed());
    if !running.is_empty() {
        let names = running.join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "\nServers are at work on this store ({names}): each device is as it was when it was read. Import this file without \
             --keep-counters."
        );
    }
    text.push_str("\nThe file holds keys and password hashes: keep it as you would keep those.\n");
    Ok(text)
}

pub async fn import(file: &Path, url: &str, counters: Counters, json: bool) -> Result<String, CtlMovingError> {
    named(file)?;
    let shown = Shown::new();
    // Opening makes an empty store; nothing is made for a file that is no good.
    let checked = moving::check(file, &|report| shown.show(report)).inspect_err(|_| shown.end())?;
    let (store, began) = (limpet_store::open(url).await.inspect_err(|_| shown.end())?, Instant::now());
    let imported = moving::import(&*store, &checked, counters, &|report| shown.show(report)).await;
    shown.end();
    let imported = imported?;
    if json {
        return document(&imported);
    }
    let Imported { summary, counters, used_up, .. } = imported;
    let mut text = told("imported", file, &summary, began.elapsed());
    let _ = match counters {
        Counters::Keep => {
            writeln!(text, "\nCounters are as they were. Never start the servers of the old store again.")
        }
        Counters::Skip(by) => writeln!(text, "\nEach FCntDown and JoinNonce skipped {by} ahead."),
    };
    if used_up > 0 {
        let _ = writeln!(text, "{used_up} counters have reached their end: those devices must be activated anew.");
    }
    Ok(text)
}

fn named(file: &Path) -> Result<(), CtlMovingError> {
    if file == Path::new("-") { Err(CtlMovingError::NoFile) } else { Ok(()) }
}

fn document(of: &impl Serialize) -> Result<String, CtlMovingError> {
    Ok(format!("{}\n", serde_json::to_string_pretty(of)?))
}

/// What was done, how much of each kind, and the checksums.
fn told(what: &str, file: &Path, summary: &Summary, took: Duration) -> String {
    let mut text = format!(
        "{what} {} in {:.1} s: {} lines, {:.1} MiB\n\n",
        file.display(),
        took.as_secs_f64(),
        summary.lines,
        mebibytes(summary.bytes)
    );
    for (kind, count) in &summary.counts.0 {
        let _ = writeln!(text, "  {:<32} {count:>10}", kind.plural());
    }
    let Summary { sha256, content, .. } = summary;
    let _ = writeln!(text, "\n  sha256   {sha256}  (what sha256sum says)");
    let _ = writeln!(text, "  content  {content}  (without the counters that an import moves)");
    text
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Progress on standard error: a line that is written over on a terminal, else a line now and then.
struct Shown {
    terminal: bool,
    every: Duration,
    state: Mutex<State>,
}

struct State {
    /// The step that is going on, and when and where it began.
    step: &'static str,
    began: Instant,
    from: u64,
    last: Instant,
    /// A line stands there without an end.
    open: bool,
}

impl Shown {
    fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let every = Duration::from_secs(if terminal { 1 } else { 10 });
        let now = Instant::now();
        let state = State { step: "", began: now, from: 0, last: now, open: false };
        Self { terminal, every, state: Mutex::new(state) }
    }

    fn show(&self, report: Report) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match report {
            Report::Note(note) => {
                state.close();
                say(&format!("{note}\n"));
            }
            Report::Progress(progress) => {
                let now = Instant::now();
                if state.step != progress.step {
                    (state.step, state.began, state.from) = (progress.step, now, progress.done);
                }
                if now.duration_since(state.last) < self.every {
                    return;
                }
                state.last = now;
                let line = line(&progress, progress.done.saturating_sub(state.from), now.duration_since(state.began));
                state.open = self.terminal;
                say(&if self.terminal { format!("\r{line}\x1b[K") } else { format!("{line}\n") });
            }
        }
    }

    fn end(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).close();
    }
}

impl State {
    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            say("\n");
        }
    }
}

/// `done` of it in this run took `time`.
fn line(progress: &Progress, done: u64, time: Duration) -> String {
    let Progress { step, kind, unit, total, .. } = progress;
    let rate = done as f64 / time.as_secs_f64().max(0.001);
    if *unit == "bytes" {
        let [at, total] = [progress.done, *total].map(mebibytes);
        return format!("{step} {kind}: {at:.0} of {total:.0} MiB, {:.1} MiB/s", rate / f64::from(1 << 20));
    }
    format!("{step} {kind}: {} of {total} {unit}, {rate:.0}/s", progress.done)
}

/// Without a standard error there is nobody to tell.
fn say(text: &str) {
    let mut err = std::io::stderr();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_names_kind_done_total_and_rate() {
        let progress = Progress { step: "exporting", kind: "devices", done: 3_000, total: 9_000, unit: "records" };
        let text = line(&progress, 1_000, Duration::from_secs(4));
        assert_eq!(text, "exporting devices: 3000 of 9000 records, 250/s");
        let progress = Progress { step: "checking", unit: "bytes", done: 1 << 20, total: 3 << 20, ..progress };
        assert_eq!(line(&progress, 1 << 20, Duration::from_secs(2)), "checking devices: 1 of 3 MiB, 0.5 MiB/s");
    }
}
