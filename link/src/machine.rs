//! What a process uses of its machine, for people who look at the list of servers. Zero where the system does not say.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use limpet_shared::admin::Server;

use crate::host;

/// Between two looks at the system: who asks more often gets the last answer.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A disk with less room than a twentieth of it, and less than this many bytes, is said to be nearly full.
const LITTLE: u64 = 1 << 30;

/// Remembers the last look, since processor time is a difference between two.
#[derive(Debug, Default)]
pub struct Usage {
    last: Option<Look>,
    cpu: f64,
    nearly_full: bool,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    /// Processor seconds used until then.
    busy: f64,
}

impl Usage {
    /// Part of the machine's processor time since the look before, 0 to 1.
    pub fn cpu(&mut self) -> f64 {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last.at) < LOOK_EVERY) {
            return self.cpu;
        }
        let look = Look { at: now, busy: processor_seconds().unwrap_or_default() };
        if let Some(last) = self.last.replace(look) {
            let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
            let possible = look.at.duration_since(last.at).as_secs_f64() * cores;
            self.cpu = ((look.busy - last.busy) / possible).clamp(0.0, 1.0);
        }
        self.cpu
    }

    /// Writes what is used into a server's line; `folder` is on the disk that counts.
    pub fn fill(&mut self, server: &mut Server, folder: &Path) {
        server.cpu = self.cpu();
        server.memory = memory().unwrap_or_default();
        let disk = disk(folder);
        // A full disk is not one that nobody knows of.
        server.disk_free = disk.map_or(0, |(free, _)| free.max(1));
        if let Some((free, size)) = disk {
            self.tell_of_little_room(free, size, folder);
        }
    }

    /// Once each time it becomes so: before nothing can be stored any more.
    fn tell_of_little_room(&mut self, free: u64, size: u64, folder: &Path) {
        let nearly_full = free < LITTLE.min(size / 20);
        match (std::mem::replace(&mut self.nearly_full, nearly_full), nearly_full) {
            (false, true) => tracing::warn!(free, size, folder = %folder.display(), "the disk is nearly full (bytes)"),
            (true, false) => tracing::info!(free, folder = %folder.display(), "the disk has room again (bytes)"),
            _ => {}
        }
    }
}

/// User and system time: fields 14 and 15 of proc(5)'s stat, counted after the name, which may hold anything.
pub fn processor_seconds() -> Option<f64> {
    let stat = of_system("/proc/self/stat")?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    Some((user + system) as f64 / ticks as f64)
}

/// Bytes of memory that the process holds.
pub fn memory() -> Option<u64> {
    let statm = of_system("/proc/self/statm")?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// A file in which the system tells of this process. A simulated machine has no such system.
fn of_system(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().filter(|_| host::simulated().is_none())
}

/// Bytes that an ordinary user may still write there, and of how many.
pub fn disk(folder: &Path) -> Option<(u64, u64)> {
    let found = rustix::fs::statvfs(folder).ok().filter(|_| host::simulated().is_none())?;
    Some((found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_running_process_uses_something() {
        let (mut usage, mut server) = (Usage::default(), Server::default());
        usage.fill(&mut server, Path::new("/"));
        assert!(server.memory > 0 && server.disk_free > 0);
        assert!((0.0..=1.0).contains(&server.cpu));
        assert!(processor_seconds().is_some());
    }

    #[test]
    fn little_room_is_told_of_once_until_there_is_more() {
        let mut usage = Usage::default();
        let mut said = |free| {
            let before = usage.nearly_full;
            usage.tell_of_little_room(free, 1 << 34, Path::new("/"));
            before != usage.nearly_full
        };
        assert_eq!([1 << 33, 1 << 29, 0, 1 << 33].map(&mut said), [false, true, false, true]);
    }
}
