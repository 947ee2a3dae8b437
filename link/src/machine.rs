//! What a process uses of its machine, for people who look at the list of servers. Zero where the system does not say.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use limpet_shared::admin::Server;

/// Between two looks at the system: who asks more often gets the last answer.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Remembers the last look, since processor time is a difference between two.
#[derive(Debug, Default)]
pub struct Usage {
    last: Option<Look>,
    cpu: f64,
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
        server.disk_free = disk_free(folder).unwrap_or_default();
    }
}

/// User and system time: fields 14 and 15 of proc(5)'s stat, counted after the name, which may hold anything.
fn processor_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    Some((user + system) as f64 / ticks as f64)
}

/// Bytes of memory that the process holds.
fn memory() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// Bytes that an ordinary user may still write there.
fn disk_free(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
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
}
