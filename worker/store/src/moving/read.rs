//! Reading the file: line by line, and the check that comes before anything is written.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use super::{
    MovingError, Progress, Report, Reporter,
    order::Order,
    record::{FORMAT, Header, Kind, Record, Trailer, VERSION},
    tally::{Summary, Tally},
};

/// No record is longer: a line without an end costs no memory without end.
const LONGEST: u64 = 64 << 20;
const BUFFER: usize = 1 << 20;

/// The lines of a file.
pub(super) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    /// The line that was read last, with its line break.
    pub line: Vec<u8>,
    /// Its number, from 1.
    pub number: u64,
}

impl Lines {
    pub fn open(path: &Path) -> Result<Self, MovingError> {
        let file = File::open(path).map_err(|source| MovingError::Io { path: path.into(), source })?;
        Ok(Self::of(path, file))
    }

    pub fn of(path: &Path, file: File) -> Self {
        Self { path: path.into(), reader: BufReader::with_capacity(BUFFER, file), line: Vec::new(), number: 0 }
    }

    /// Reads the next one into `line`. False at the end.
    pub fn advance(&mut self) -> Result<bool, MovingError> {
        self.line.clear();
        let read = self.reader.by_ref().take(LONGEST).read_until(b'\n', &mut self.line);
        let read = read.map_err(|source| MovingError::Io { path: self.path.clone(), source })?;
        self.number += u64::from(read > 0);
        if read as u64 == LONGEST {
            return Err(self.wrong(format!("the line is longer than {} MiB", LONGEST >> 20)));
        }
        Ok(read > 0)
    }

    /// The line as a record.
    pub fn record(&self) -> Result<Record, MovingError> {
        if !self.line.ends_with(b"\n") {
            return Err(self.wrong("the file ends within this line: it is cut off".into()));
        }
        Record::parse(&self.line).map_err(|what| match self.number {
            1 => self.wrong(format!("this is no export of Limpet ({what})")),
            _ => self.wrong(what),
        })
    }

    /// What is wrong with the line.
    pub fn wrong(&self, what: String) -> MovingError {
        MovingError::Line { path: self.path.clone(), line: self.number, what }
    }
}

/// A file that was found to be a whole export.
#[derive(Clone, Debug)]
pub struct Checked {
    pub(super) path: PathBuf,
    pub summary: Summary,
}

/// Reads the whole file and says what it is, or what is wrong with it: every line can be read, stands where it must, and
/// counts and checksums are those of the last line.
pub fn check(path: &Path, report: Reporter<'_>) -> Result<Checked, MovingError> {
    let total = path.metadata().map_err(|source| MovingError::Io { path: path.into(), source })?.len();
    let mut lines = Lines::open(path)?;
    let (mut order, mut tally) = (Order::default(), Tally::new());
    while lines.advance()? {
        let record = lines.record()?;
        if let Record::Header(header) = &record {
            known(header).map_err(|what| lines.wrong(what))?;
        }
        order.add(&record).map_err(|misplaced| lines.wrong(misplaced.to_string()))?;
        if let Record::Trailer(trailer) = &record {
            agrees(trailer, &tally.trailer()).map_err(|what| lines.wrong(what))?;
            let line = lines.line.clone();
            if lines.advance()? {
                return Err(lines.wrong("something follows the last line of the export".into()));
            }
            return Ok(Checked { path: path.into(), summary: tally.finish(trailer, &line) });
        }
        tally.add(&record, &lines.line).map_err(|what| lines.wrong(what))?;
        let kind = record.kind().plural();
        report(Report::Progress(Progress { step: "checking", kind, done: tally.bytes, total, unit: "bytes" }));
    }
    let what = match lines.number {
        0 => "the file is empty".into(),
        last => format!("the file ends after line {last} without the last line of an export: it is cut off"),
    };
    Err(MovingError::File { path: path.into(), what })
}

fn known(header: &Header) -> Result<(), String> {
    let Header { format, version } = header;
    if format != FORMAT {
        return Err(format!("the format is {format:?}, not {FORMAT:?}"));
    }
    if *version != VERSION {
        return Err(format!(
            "the export has version {version}, and this version of Limpet reads version {VERSION}: import it with the version that \
             exported it"
        ));
    }
    Ok(())
}

fn agrees(told: &Trailer, found: &Trailer) -> Result<(), String> {
    for kind in told.counts.0.keys().chain(found.counts.0.keys()) {
        let [told, found] = [told, found].map(|of| of.counts.0.get(kind).copied().unwrap_or_default());
        if told != found {
            return Err(format!("the file should have {told} {}, and has {found}: it was changed", kind.plural()));
        }
    }
    if told.sha256 != found.sha256 || told.content != found.content {
        return Err(format!(
            "the lines before have the checksum {}, not {}, which is written here: the file was changed",
            found.sha256, told.sha256
        ));
    }
    Ok(())
}

/// Something that cannot be read to its end.
pub(super) fn failed(path: &Path) -> impl Fn(io::Error) -> MovingError + use<> {
    let path = path.to_owned();
    move |source| MovingError::Io { path: path.clone(), source }
}

/// Whether a section holds nothing that is stored.
pub(super) fn is_frame(section: Kind) -> bool {
    matches!(section, Kind::Header | Kind::Trailer)
}
