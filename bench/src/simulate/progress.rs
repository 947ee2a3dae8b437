//! How far a run is.

use std::{
    fmt,
    io::{IsTerminal, Write, stderr},
    time::Duration,
};

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub elapsed: Duration,
    pub devices: u64,
    /// Devices that joined.
    pub joined: u64,
    /// Different uplinks sent.
    pub uplinks: u64,
    pub uplinks_planned: u64,
    /// PUSH_DATA sent by all gateways.
    pub pushed: u64,
    /// PUSH_ACKs received.
    pub push_acked: u64,
    /// Downlinks that a device understood.
    pub downlinks: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { elapsed, devices, joined, uplinks, uplinks_planned, pushed, push_acked, downlinks } = self;
        let seconds = elapsed.as_secs();
        write!(
            f,
            "{seconds:>4} s  {joined}/{devices} joined  {uplinks}/{uplinks_planned} uplinks  \
             {push_acked}/{pushed} PUSH_ACKs  {downlinks} downlinks"
        )
    }
}

/// Writes the line to stderr: rewritten in place on a terminal; elsewhere a new one, every ten seconds.
#[derive(Debug)]
pub struct TerminalProgress {
    terminal: bool,
    shown: Option<Duration>,
}

impl TerminalProgress {
    pub fn new() -> Self {
        Self { terminal: stderr().is_terminal(), shown: None }
    }

    pub fn show(&mut self, progress: &Progress) {
        let mut out = stderr().lock();
        // A line of progress that can't be written is no reason to stop.
        let _ = if self.terminal {
            write!(out, "\r\x1b[2K{progress}").and_then(|()| out.flush())
        } else if self.shown.is_none_or(|last| progress.elapsed >= last + Duration::from_secs(10)) {
            self.shown = Some(progress.elapsed);
            writeln!(out, "{progress}")
        } else {
            Ok(())
        };
    }

    /// Ends the line that was rewritten.
    pub fn finish(&mut self) {
        if self.terminal {
            let _ = writeln!(stderr().lock());
        }
    }
}

impl Default for TerminalProgress {
    fn default() -> Self {
        Self::new()
    }
}
