//! Files that must be whole or absent, and folders that only their owner may read.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::watch;

use crate::host;

/// Changes are gathered for so long before they are written.
const GATHER: Duration = Duration::from_millis(200);
/// The pause after a write that failed.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// A file or folder that could not be used, with its path and the system's word.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}", path.display())]
pub struct FileError {
    /// The verb: `read`, `write`, `make the folder`.
    pub doing: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl FileError {
    pub(crate) fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self { doing, path: path.to_owned(), source }
    }
}

/// Makes a folder (and those above it) with mode 0700; one that exists is left as it is.
pub fn private_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| FileError::new("make the folder", path, source))
}

/// Reads a text file; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::new("read", path, source)),
    }
}

/// Writes a file with mode 0600 so that a crash leaves the old content or the new, never a part.
pub fn write(path: &Path, content: &[u8]) -> Result<(), FileError> {
    replace(path, content).map_err(|source| FileError::new("write", path, source))
}

/// Removes a file; one that is not there is no error.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path, source)),
        _ => Ok(()),
    }
}

/// Keeps what changes in a file until its sender is gone: of many changes in a short time the last one. A write that failed, on
/// a full disk perhaps, is tried again. `what` completes "cannot keep".
pub async fn keep<T>(
    path: PathBuf,
    what: &'static str,
    mut changes: watch::Receiver<T>,
    text: impl Fn(&T) -> Vec<u8> + Send,
) where
    T: Send + Sync,
{
    let mut failing = false;
    while failing || changes.changed().await.is_ok() {
        let (target, bytes) = (path.clone(), text(&changes.borrow_and_update()));
        let written = host::blocking(move || write(&target, &bytes)).await;
        let failed = matches!(written, Ok(Err(_)));
        if let (Ok(Err(error)), false) = (&written, failing) {
            tracing::error!(%error, "cannot keep {what}; it is tried again");
        }
        let over = changes.has_changed().is_err();
        failing = failed && !over;
        if !over {
            tokio::time::sleep(if failed { TRY_AGAIN } else { GATHER }).await;
        }
    }
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // What an earlier crash left would keep its own mode.
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The new name is safe only when the folder is.
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_belongs_to_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        private_dir(&inner).unwrap();
        let path = inner.join("key");
        assert_eq!(read(&path).unwrap(), None);
        fs::write(inner.join("key.new"), "left by a crash").unwrap();
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1);
    }
}
