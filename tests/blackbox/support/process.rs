//! Processes of the binary under test: started, watched, stopped and killed, each by its own id.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::eventually;

/// A running `limpet`. It is killed when this is dropped, and its last lines are shown if the test is failing then.
#[derive(Debug)]
pub struct Limpet {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

/// How a process ended.
#[derive(Debug)]
pub struct Stopped {
    pub status: ExitStatus,
    pub lines: Vec<String>,
}

/// The binary under test: what cargo has built beside the tests, or what `LIMPET_BIN` names, such as an optimised one for figures.
fn binary() -> OsString {
    std::env::var_os("LIMPET_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_limpet").into())
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments);
    bare(command)
}

/// A command that gets nothing from whoever runs the test.
fn bare(mut command: Command) -> Command {
    command.stdin(Stdio::null());
    // What the developer has set for a server of their own is not meant for ours.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LIMPET_")) {
        command.env_remove(name);
    }
    command
}

/// Runs `limpet ctl --data DATA ...` to its end.
pub fn ctl(data: &Path, arguments: &[&str]) -> Output {
    let data = data.to_str().unwrap();
    command(&[&["ctl", "--data", data], arguments].concat()).output().unwrap()
}

impl Limpet {
    /// Starts the binary with these arguments. `name` stands before its lines when they are shown.
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        Self::start_with(name, arguments, &[])
    }

    /// The same, with these variables in its environment.
    pub fn start_with(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = command(arguments);
        command.envs(variables.iter().copied());
        Self::watch(name, command)
    }

    /// The same, with outputs that lead where `outputs` says; lines are kept of those that it leaves alone.
    pub fn start_at(name: &str, arguments: &[&str], outputs: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        outputs(&mut command);
        Self::run(name, command)
    }

    /// The same as a user of the machine, by id; only root can.
    pub fn start_as(user: u32, name: &str, arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        std::os::unix::process::CommandExt::uid(&mut command, user);
        Self::watch(name, command)
    }

    /// Pastes a line that starts it into a shell, in this folder.
    pub fn pasted(name: &str, line: &str, folder: &Path) -> Self {
        let mut shell = Command::new("sh");
        // The shell becomes what it runs, so that its id is the process'.
        shell.args(["-c", &format!("exec {line}")]).current_dir(folder);
        Self::watch(name, bare(shell))
    }

    fn watch(name: &str, mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::run(name, command)
    }

    fn run(name: &str, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = Arc::default();
        let out = child.stdout.take().map(|out| read_into(&lines, out));
        let err = child.stderr.take().map(|err| read_into(&lines, err));
        let readers = out.into_iter().chain(err).collect();
        Self { name: name.into(), child, lines, readers }
    }

    /// Everything it has written so far, to both outputs.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line that contains `text`. Fails if the process ends before.
    pub async fn line_with(&mut self, text: &str) -> String {
        let what = format!("{} to write {text:?}", self.name);
        eventually(&what, async || {
            // Asked first: what it wrote before it ended is among its lines then.
            let ended = self.ended();
            let found = self.lines().into_iter().find(|line| line.contains(text));
            assert!(found.is_some() || ended.is_none(), "{} ended before it wrote {text:?}: {ended:?}", self.name);
            found
        })
        .await
    }

    /// Waits until `/readyz` at this address answers 200. Fails if the process ends before.
    pub async fn ready(&mut self, http: SocketAddr) {
        self.answers(http, "/readyz").await;
    }

    /// Waits until this path answers 200. Fails if the process ends before.
    pub async fn answers(&mut self, http: SocketAddr, path: &str) {
        let client = reqwest::Client::new();
        let url = format!("http://{http}{path}");
        let what = format!("{} to answer 200 at {url}", self.name);
        eventually(&what, async || {
            assert!(self.ended().is_none(), "{} ended before it answered", self.name);
            let answer = client.get(&url).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Processor time that it has used so far, its own and the kernel's for it.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // proc(5): after the name in parentheses utime is the 12th field and stime the 13th, in ticks of 10 ms.
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(10 * ticks)
    }

    /// The most memory that it had resident at once, in MiB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
    }

    /// SIGTERM: asks it to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGSTOP: it stands still until [`Self::thaw`].
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    /// How it ended, if it has; all that it wrote is among its lines by then.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap()?;
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Some(status)
    }

    /// Waits until it has ended by itself, or by what it was told.
    pub async fn stopped(mut self) -> Stopped {
        let what = format!("{} to end", self.name);
        let status = eventually(&what, async || self.ended()).await;
        Stopped { status, lines: self.lines() }
    }
}

/// A terminal of our own: what is written to its end can be read where it is shown.
pub struct Terminal {
    pub shown: std::fs::File,
    pub end: std::fs::File,
}

impl Terminal {
    pub fn open() -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let shown = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&shown).unwrap();
        unlockpt(&shown).unwrap();
        let name = ptsname(&shown, Vec::new()).unwrap().into_string().unwrap();
        let end = std::fs::File::options().read(true).write(true).open(name).unwrap();
        Self { shown: shown.into(), end }
    }
}

impl Drop for Limpet {
    fn drop(&mut self) {
        // It may have ended already; both calls then fail, which is all right.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let lines = self.lines();
            let from = lines.len().saturating_sub(80);
            for line in &lines[from..] {
                println!("{} | {line}", self.name);
            }
        }
    }
}

/// Reads lines until the process closes its end; a pipe that nobody reads would stop it.
fn read_into(lines: &Arc<Mutex<Vec<String>>>, from: impl Read + Send + 'static) -> JoinHandle<()> {
    let lines = lines.clone();
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}
