//! The folder that a store lives in: who may read it, whether its file system can be trusted, and the locks by which
//! processes share it.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock, fsync};

use crate::OpenError;

/// File systems of other machines, by their `statfs` magic. FUSE is among them: what is behind it cannot be known.
const NETWORK: [(u32, &str); 17] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x564c, "NCP"),
    (0x786f_4256, "a folder shared by the VM's host"),
];

/// Name of a network file system with this magic.
fn network_name(magic: u32) -> Option<&'static str> {
    NETWORK.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}

/// The files of a store.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub dir: PathBuf,
    pub database: PathBuf,
}

impl Folder {
    /// Makes what is missing, readable by its owner only.
    pub fn prepare(dir: &Path) -> Result<Self, OpenError> {
        refuse_network(dir)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
        let database = dir.join("state.db");
        // Never opened if it exists: closing any descriptor of it would drop the locks that SQLite holds in this process.
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&database) {
            Ok(_) => File::open(dir).and_then(|d| Ok(fsync(d)?)).map_err(failed(dir))?,
            Err(exists) if exists.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(OpenError::Io { path: database, source }),
        }
        Ok(Self { dir: dir.into(), database })
    }

    /// A lock file of this name.
    pub fn lock_file(&self, name: &str) -> Result<File, OpenError> {
        let path = self.dir.join(name);
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        opened.map_err(|source| OpenError::Io { path, source })
    }
}

/// Looks at the nearest folder that exists, before anything is made.
fn refuse_network(dir: &Path) -> Result<(), OpenError> {
    let absolute = std::path::absolute(dir).map_err(|source| OpenError::Io { path: dir.into(), source })?;
    let Some(existing) = absolute.ancestors().find(|path| path.exists()) else { return Ok(()) };
    let kind = file_system(existing).map_err(|source| OpenError::Io { path: existing.into(), source })?;
    match kind {
        Some(kind) => Err(OpenError::NetworkFileSystem { path: dir.into(), kind }),
        None => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn file_system(path: &Path) -> io::Result<Option<&'static str>> {
    // The magic is 32 bits wide; the field's width and sign differ between platforms.
    Ok(network_name(rustix::fs::statfs(path)?.f_type as u32))
}

#[cfg(not(target_os = "linux"))]
fn file_system(_: &Path) -> io::Result<Option<&'static str>> {
    Ok(None)
}

/// One write transaction at a time among all processes, each in turn.
///
/// `flock` alone is not fair: who releases it is running and takes it again before a waiting process wakes up. So there
/// are two: one waits for `turn` while holding `next`, and only then lets the one behind it stand there.
pub(super) struct WriteLock {
    next: File,
    turn: File,
}

/// Holds the lock.
pub(super) struct FolderTurn<'a>(&'a File);

impl WriteLock {
    pub fn open(folder: &Folder) -> Result<Self, OpenError> {
        Ok(Self { next: folder.lock_file("state.next")?, turn: folder.lock_file("state.lock")? })
    }

    /// Waits until no other holds it. A process that was stopped while it held it makes all wait until it goes on.
    pub fn take(&self) -> io::Result<FolderTurn<'_>> {
        lock(&self.next)?;
        let turn = lock(&self.turn).map(|()| FolderTurn(&self.turn));
        flock(&self.next, FlockOperation::Unlock)?;
        turn
    }
}

impl Drop for FolderTurn<'_> {
    fn drop(&mut self) {
        // Unlocking an open file does not fail; if it did, the lock would go with the process.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

fn lock(file: &File) -> io::Result<()> {
    loop {
        match flock(file, FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

/// Takes the lock if nobody has it; it is held until the file is closed.
pub(super) fn try_lock(file: &File) -> bool {
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_told_from_local_ones() {
        for (magic, name) in [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0x6573_5546, "FUSE"), (0x0102_1997, "9p")] {
            assert_eq!(network_name(magic), Some(name));
        }
        for local in [0xef53, 0x0102_1994, 0x5846_5342, 0x9123_683e, 0x794c_7630, 0x2fc1_2fc1] {
            assert_eq!(network_name(local), None, "{local:x}");
        }
        assert_eq!(file_system(Path::new("/proc")).unwrap(), None);
    }
}
