//! What was written or read so far: how much of each kind, and the checksums.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    counters,
    record::{Kind, Record, Trailer},
};

/// How many records there are of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts(pub BTreeMap<Kind, u64>);

/// What a file is, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub counts: Counts,
    pub lines: u64,
    pub bytes: u64,
    /// Of the whole file, as `sha256sum` has it.
    pub sha256: String,
    /// Without the counters that an import may move: equal for a network and its restored copy.
    pub content: String,
}

/// See the module. A copy is a place to come back to.
#[derive(Clone)]
pub(super) struct Tally {
    all: Sha256,
    content: Sha256,
    counts: Counts,
    pub lines: u64,
    pub bytes: u64,
}

impl Tally {
    pub fn new() -> Self {
        let counts = Counts::default();
        Self { all: Sha256::new(), content: Sha256::new(), counts, lines: 0, bytes: 0 }
    }

    /// Takes in a record with its line, line break included.
    pub fn add(&mut self, record: &Record, line: &[u8]) -> Result<(), String> {
        match counters::content(record) {
            Some(content) => {
                let mut line = Vec::with_capacity(line.len());
                content.write(&mut line)?;
                self.content.update(&line);
            }
            None => self.content.update(line),
        }
        self.add_bytes(line);
        *self.counts.0.entry(record.kind()).or_default() += 1;
        Ok(())
    }

    fn add_bytes(&mut self, line: &[u8]) {
        self.all.update(line);
        self.lines += 1;
        self.bytes += line.len() as u64;
    }

    /// The last line for what was taken in. The header is not counted.
    pub fn trailer(&self) -> Trailer {
        let mut counts = self.counts.clone();
        counts.0.remove(&Kind::Header);
        let hash = |of: &Sha256| hex::encode(of.clone().finalize());
        Trailer { counts, content: hash(&self.content), sha256: hash(&self.all) }
    }

    /// What the file is once its last line is there.
    pub fn finish(mut self, trailer: &Trailer, line: &[u8]) -> Summary {
        self.add_bytes(line);
        Summary {
            counts: trailer.counts.clone(),
            lines: self.lines,
            bytes: self.bytes,
            sha256: hex::encode(self.all.finalize()),
            content: trailer.content.clone(),
        }
    }
}
