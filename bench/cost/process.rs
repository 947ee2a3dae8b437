//! A process that is measured, and what the system says of it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::Outcome;

/// Ended when it is dropped.
pub struct Process {
    child: Child,
    pub name: &'static str,
}

/// What a process has used until a moment.
#[derive(Clone, Debug)]
pub struct Used {
    at: Instant,
    ticks: u64,
    /// By thread: ns on a processor, context switches.
    threads: BTreeMap<u64, (u64, u64)>,
}

/// What it used between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub over: Duration,
    pub cpu: Duration,
    /// How often one of its threads stopped running, which is how often one was woken.
    pub switches: u64,
}

impl Spent {
    /// Of one core, percent.
    pub fn share(&self) -> f64 {
        100.0 * self.cpu.as_secs_f64() / self.over.as_secs_f64().max(1e-9)
    }

    pub fn switches_a_second(&self) -> f64 {
        self.switches as f64 / self.over.as_secs_f64().max(1e-9)
    }
}

impl std::ops::Add for Spent {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { over: self.over.max(other.over), cpu: self.cpu + other.cpu, switches: self.switches + other.switches }
    }
}

impl Process {
    /// Starts it; what it logs goes to a file beside its data.
    pub fn start(name: &'static str, command: &mut Command, log: &Path) -> Outcome<Self> {
        let log = File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Self { child, name })
    }

    pub fn used(&self) -> Outcome<Used> {
        let root = format!("/proc/{}", self.child.id());
        let stat = fs::read_to_string(format!("{root}/stat"))?;
        // proc(5): utime and stime are fields 14 and 15, counted after the name, which may hold anything.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("{root}/task"))? {
            let folder = entry?.path();
            let Some(id) = folder.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
            // A thread may end meanwhile.
            let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
            let ran = read("schedstat").split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
            let status = read("status");
            let switches = status.lines().filter(|line| line.contains("ctxt_switches:"));
            let switches = switches.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum();
            threads.insert(id, (ran, switches));
        }
        Ok(Used { at: Instant::now(), ticks, threads })
    }

    /// What it used since then.
    pub fn since(&self, before: &Used) -> Outcome<Spent> {
        let now = self.used()?;
        let start = |id: &u64| before.threads.get(id).copied().unwrap_or_default();
        let ran: u64 = now.threads.iter().map(|(id, (ran, _))| ran.saturating_sub(start(id).0)).sum();
        let switches = now.threads.iter().map(|(id, (_, count))| count.saturating_sub(start(id).1)).sum();
        let ticks = now.ticks.saturating_sub(before.ticks);
        let by_ticks = Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64);
        // The sum over threads is exact, and misses those that have ended; the system's counts in steps of 10 ms.
        let cpu = if by_ticks > Duration::from_secs(1) { by_ticks } else { Duration::from_nanos(ran) };
        Ok(Spent { over: now.at.duration_since(before.at), cpu, switches })
    }

    /// Memory that it holds, MB.
    pub fn memory(&self) -> f64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap_or_default();
        let pages: f64 = statm.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0.0);
        pages * rustix::param::page_size() as f64 / 1e6
    }

    /// Counts system calls from now on, until it is told to stop; `None` where strace is not to be had.
    pub fn trace(&self) -> Option<Trace> {
        let pid = self.child.id().to_string();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-p", &pid]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Some(Trace { strace: strace.spawn().ok()? })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// strace, attached to a process.
pub struct Trace {
    strace: Child,
}

impl Trace {
    /// Calls by name, most first.
    pub fn stop(mut self) -> Vec<(String, u64)> {
        let pid = rustix::process::Pid::from_child(&self.strace);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let mut said = String::new();
        if let Some(mut pipe) = self.strace.stderr.take() {
            let _ = pipe.read_to_string(&mut said);
        }
        let _ = self.strace.wait();
        let mut calls: Vec<(String, u64)> = said.lines().filter_map(call).collect();
        calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        calls
    }
}

/// `% time, seconds, usecs/call, calls, (errors,) syscall`.
fn call(line: &str) -> Option<(String, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, count) = (*words.last()?, words.get(3)?.parse().ok()?);
    (words.first()?.parse::<f64>().is_ok() && name != "total").then(|| (name.to_owned(), count))
}

/// Runs a command to its end; the last line that it printed.
pub fn last_line(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let last = BufReader::new(&output.stdout[..]).lines().map_while(Result::ok).last();
    last.ok_or_else(|| "it printed nothing".into())
}

/// Addresses that nobody has now.
pub fn free_addresses<const N: usize>() -> Outcome<[SocketAddr; N]> {
    let mut held = Vec::new();
    let mut free = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for address in &mut free {
        let (datagrams, stream) = loop {
            let datagrams = UdpSocket::bind("127.0.0.1:0")?;
            // Both protocols, for nobody says here which one it is for.
            if let Ok(stream) = std::net::TcpListener::bind(datagrams.local_addr()?) {
                break (datagrams, stream);
            }
        };
        *address = datagrams.local_addr()?;
        held.push((datagrams, stream));
    }
    Ok(free)
}

/// A folder for one measurement, deleted with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(target: &Path, name: &str) -> Outcome<Self> {
        let folder = target.join("cost").join(format!("{name}-{}", std::process::id()));
        // What an earlier run has left that was killed.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
