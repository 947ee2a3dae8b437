//! A server's machine: its clock, its chance, its place in the network; and the runtime that its process is.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use limpet_link::host::{self, Host, Rule};
use limpet_shared::UnixMicros;
use parking_lot::Mutex;
use quinn::AsyncUdpSocket;
use rand::{RngCore, SeedableRng, rngs::SmallRng};
use tokio::runtime::{Builder, Runtime};

use crate::{net::Network, system};

/// When the simulation begins, on a right clock (2026-01-01).
pub const BEGIN: UnixMicros = UnixMicros(1_767_225_600_000_000);
/// The same on a steady clock, which counts from a moment of its own.
const BEGIN_STEADY: Duration = Duration::from_secs(100_000);
/// Time passes in steps of this length.
pub const TICK: Duration = Duration::from_millis(1);
/// Who hears nothing gets a turn only after this: as if the machine had been busy for so long.
const LAZY: Duration = Duration::from_millis(5);

/// What is left of a machine when its process is gone.
#[derive(Debug)]
pub struct Machine {
    pub ip: IpAddr,
    network: Network,
    clock: Mutex<Wall>,
    chance: Mutex<SmallRng>,
    broken: Option<Rule>,
}

/// A wall clock that is off, and goes wrong.
#[derive(Clone, Copy, Debug, Default)]
struct Wall {
    /// Microseconds ahead; behind if negative.
    ahead: i64,
    /// Microseconds gained each second.
    drift: i64,
}

impl Machine {
    pub fn new(ip: IpAddr, network: Network, seed: u64, (ahead, drift): (i64, i64), broken: Option<Rule>) -> Arc<Self> {
        let chance = Mutex::new(SmallRng::seed_from_u64(seed));
        Arc::new(Self { ip, network, clock: Mutex::new(Wall { ahead, drift }), chance, broken })
    }

    /// What this thread does from now on, it does as this machine; until [`host::simulate`] says otherwise.
    pub fn enter(self: &Arc<Self>) {
        system::set_time(Duration::from_micros(self.now().0), BEGIN_STEADY + self.network.now());
        host::simulate(Some(self.clone()));
    }

    /// Sets the clock forward, or back.
    pub fn step_clock(&self, micros: i64) {
        self.clock.lock().ahead += micros;
    }
}

impl Host for Machine {
    fn now(&self) -> UnixMicros {
        let (passed, wall) = (self.network.now(), *self.clock.lock());
        let gained = wall.ahead + wall.drift * i64::try_from(passed.as_secs()).unwrap_or_default();
        UnixMicros((BEGIN + passed).0.saturating_add_signed(gained))
    }

    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.chance.lock().fill_bytes(bytes);
        Ok(())
    }

    fn broken(&self) -> Option<Rule> {
        self.broken
    }

    fn cpu_time(&self) -> Duration {
        Duration::ZERO
    }

    fn udp(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let ip = if address.ip().is_unspecified() { self.ip } else { address.ip() };
        Ok(Arc::new(self.network.bind(SocketAddr::new(ip, address.port()))?))
    }
}

/// A running process on a machine. Dropping it is `kill -9`.
#[derive(Debug)]
pub struct Process {
    machine: Arc<Machine>,
    runtime: Option<Runtime>,
    /// What of the time that passed it has not lived through yet.
    behind: Duration,
    /// Stopped, as by SIGSTOP.
    pub paused: bool,
}

impl Process {
    pub fn start(machine: Arc<Machine>, main: impl Future<Output = ()> + Send + 'static) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        runtime.spawn(main);
        Ok(Self { machine, runtime: Some(runtime), behind: Duration::ZERO, paused: false })
    }

    /// Something more for it to do.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(task);
        }
    }

    /// One [`TICK`] has passed. A paused process wakes up later, and finds that time has passed.
    pub fn tick(&mut self, woken: &BTreeSet<IpAddr>) {
        self.behind += TICK;
        if self.paused || self.behind < LAZY && !woken.contains(&self.machine.ip) {
            return;
        }
        let Some(runtime) = &self.runtime else { return };
        self.machine.enter();
        let behind = std::mem::take(&mut self.behind);
        runtime.block_on(async {
            if behind > LAZY {
                tokio::time::advance(behind - LAZY).await;
            }
            tokio::time::sleep(behind.min(LAZY)).await;
        });
        host::simulate(None);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.machine.enter();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        host::simulate(None);
    }
}
