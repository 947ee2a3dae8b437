//! What the process uses of its machine, looked at when somebody scrapes.

use std::{path::PathBuf, sync::OnceLock};

use limpet_link::machine;
use prometheus::{Counter, IntGauge, IntGaugeVec, Opts, Registry};

use super::register;

pub(super) struct Process {
    cpu: Counter,
    memory: IntGauge,
    disk_free: IntGauge,
    disk_size: IntGauge,
    /// On the disk that counts.
    folder: OnceLock<PathBuf>,
}

impl Process {
    pub fn new(r: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| register(r, IntGauge::new(name, help));
        let opts = Opts::new("limpet_worker_build_info", "The software that runs.");
        let build = register(r, IntGaugeVec::new(opts, &["version"]))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let seconds = Counter::new("limpet_worker_cpu_seconds_total", "Processor time that the process has used.");
        Ok(Self {
            cpu: register(r, seconds)?,
            memory: gauge("limpet_worker_memory_bytes", "Memory that the process holds.")?,
            disk_free: gauge("limpet_worker_disk_free_bytes", "Room on the disk of the worker's folder.")?,
            disk_size: gauge("limpet_worker_disk_size_bytes", "Size of that disk.")?,
            folder: OnceLock::new(),
        })
    }

    pub fn on_disk_of(&self, folder: PathBuf) {
        // Once, when the worker starts.
        let _ = self.folder.set(folder);
    }

    pub fn look(&self) {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        if let Some(seconds) = machine::processor_seconds() {
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
        self.memory.set(bytes(machine::memory().unwrap_or_default()));
        if let Some((free, size)) = self.folder.get().and_then(|folder| machine::disk(folder)) {
            self.disk_free.set(bytes(free));
            self.disk_size.set(bytes(size));
        }
    }
}
