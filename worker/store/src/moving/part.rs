//! The file while it is being written, and going on with one that was left behind.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Seek, SeekFrom, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use limpet_shared::UnixMicros;
use rustix::fs::{FlockOperation, flock};

use super::{
    MovingError, Report, Reporter,
    order::{Misplaced, Order, Position, Unit},
    read::{Lines, failed},
    record::Record,
    tally::{Summary, Tally},
};

/// It holds keys and password hashes.
const MODE: u32 = 0o600;
const BUFFER: usize = 1 << 20;

/// `FILE.part`.
pub(super) struct Part {
    path: PathBuf,
    file: BufWriter<File>,
    tally: Tally,
    order: Order,
    line: Vec<u8>,
    /// The last unit that an interrupted export left whole.
    resumed: Option<Unit>,
}

/// Where an interrupted export is gone on with.
struct Left {
    offset: u64,
    tally: Tally,
    order: Order,
}

impl Part {
    /// Begins, or goes on with what is there if it is of this store (by its settings, which no two networks share) and no
    /// worker has been at work since it was begun: `quiet_since` is when the last one ended.
    pub fn open(
        file: &Path,
        settings: &[(String, Vec<u8>)],
        quiet_since: UnixMicros,
        report: Reporter<'_>,
    ) -> Result<Self, MovingError> {
        let mut name = file.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(&path);
        let mut file = lock(&path, open().map_err(failed(&path))?)?;
        let found = file.metadata().map_err(failed(&path))?.len();
        let mut left = Left { offset: 0, tally: Tally::new(), order: Order::default() };
        if found > 0 {
            match left_behind(&path, &file, settings, quiet_since) {
                Ok(usable) => left = usable,
                Err(why) => {
                    report(Report::Note(format!("{} is not gone on with: {why}", path.display())));
                    // A new file, for the time of its making counts.
                    fs::remove_file(&path).map_err(failed(&path))?;
                    file = lock(&path, open().map_err(failed(&path))?)?;
                }
            }
        }
        file.set_permissions(fs::Permissions::from_mode(MODE)).map_err(failed(&path))?;
        file.set_len(left.offset).map_err(failed(&path))?;
        file.seek(SeekFrom::Start(left.offset)).map_err(failed(&path))?;
        let resumed = left.order.last.as_ref().map(|last| last.unit.clone());
        if resumed.is_some() {
            let lines = left.tally.lines;
            report(Report::Note(format!("going on with {}, which has {lines} lines already", path.display())));
        }
        let Left { tally, order, .. } = left;
        Ok(Self { path, file: BufWriter::with_capacity(BUFFER, file), tally, order, line: Vec::new(), resumed })
    }

    /// Whether an interrupted export has written it already.
    pub fn has(&self, unit: &Unit) -> bool {
        self.resumed.as_ref().is_some_and(|last| unit <= last)
    }

    pub fn is_resumed(&self) -> bool {
        self.resumed.is_some()
    }

    /// Writes a record, unless it is there already.
    pub fn put(&mut self, record: &Record) -> Result<(), MovingError> {
        if self.has(&record.position().unit) {
            return Ok(());
        }
        self.order.add(record).map_err(|misplaced| match misplaced {
            Misplaced::Orphan { what, parent } => MovingError::Changed { what: format!("{what} or {parent}") },
            other => MovingError::File { path: self.path.clone(), what: other.to_string() },
        })?;
        let (path, broken) = (self.path.clone(), |path, what| MovingError::File { path, what });
        self.line.clear();
        record.write(&mut self.line).map_err(|what| broken(path.clone(), what))?;
        self.tally.add(record, &self.line).map_err(|what| broken(path.clone(), what))?;
        self.file.write_all(&self.line).map_err(failed(&path))
    }

    /// Writes the last line, makes it durable and gives the file its name.
    pub fn finish(mut self, name: &Path) -> Result<Summary, MovingError> {
        let trailer = self.tally.trailer();
        let mut line = Vec::new();
        let broken = |what| MovingError::File { path: self.path.clone(), what };
        Record::Trailer(trailer.clone()).write(&mut line).map_err(broken)?;
        self.file.write_all(&line).and_then(|()| self.file.flush()).map_err(failed(&self.path))?;
        self.file.get_ref().sync_all().map_err(failed(&self.path))?;
        if name.exists() {
            return Err(MovingError::FileExists(name.into()));
        }
        fs::rename(&self.path, name).map_err(failed(name))?;
        let folder = name.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))?;
        Ok(self.tally.finish(&trailer, &line))
    }

    /// Deletes it: what it holds does not go together.
    pub fn discard(self) -> Result<(), MovingError> {
        fs::remove_file(&self.path).map_err(failed(&self.path))
    }
}

fn lock(path: &Path, file: File) -> Result<File, MovingError> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(MovingError::PartInUse(path.into())),
        Err(error) => Err(failed(path)(error.into())),
    }
}

/// What can be used of it, or why nothing can.
fn left_behind(
    path: &Path,
    file: &File,
    settings: &[(String, Vec<u8>)],
    quiet_since: UnixMicros,
) -> Result<Left, String> {
    let begun = file.metadata().and_then(|metadata| metadata.created()).map_err(|e| e.to_string())?;
    let begun = begun.duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?;
    if UnixMicros(0) + begun <= quiet_since {
        return Err("servers have run since it was begun, so what it holds may be out of date".into());
    }
    let file = file.try_clone().map_err(|e| e.to_string())?;
    scan(Lines::of(path, file), settings)
}

/// Reads it up to the last unit, which may not be whole.
fn scan(mut lines: Lines, settings: &[(String, Vec<u8>)]) -> Result<Left, String> {
    let (mut order, mut tally) = (Order::default(), Tally::new());
    let mut safe: (Option<Position>, Tally) = (None, tally.clone());
    while lines.advance().map_err(|e| e.to_string())? {
        let Ok(record) = lines.record() else { break };
        if let Record::Setting(setting) = &record
            && !settings.iter().any(|(name, value)| (name, value) == (&setting.name, &setting.value))
        {
            return Err("it is of another store".into());
        }
        if order.last.as_ref().is_none_or(|last| last.unit != record.position().unit) {
            safe = (order.last.clone(), tally.clone());
        }
        if order.add(&record).is_err() || tally.add(&record, &lines.line).is_err() {
            break;
        }
    }
    let (last, tally) = safe;
    order.last = last;
    Ok(Left { offset: tally.bytes, tally, order })
}
