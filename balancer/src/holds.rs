//! The addresses that are held for gateways, kept so that a restart lets nobody else in.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use limpet_link::files;
use limpet_shared::Eui64;
use tokio::sync::watch;

/// As many as there are gateways with that policy.
#[derive(Clone, Default)]
struct Table(Arc<Mutex<BTreeMap<Eui64, IpAddr>>>);

impl Table {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Eui64, IpAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        self.lock().iter().fold(String::new(), |mut text, (gateway, address)| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{gateway} {address}");
            text
        })
    }
}

/// The driver's side.
pub struct Holds {
    table: Table,
    changed: watch::Sender<()>,
}

/// Writes the file until the driver's side is gone.
pub struct HoldsWriter {
    path: PathBuf,
    table: Table,
    changed: watch::Receiver<()>,
}

/// What an earlier run has kept below `data`: a line for each gateway, EUI and address.
pub fn load(data: &Path) -> (Holds, HoldsWriter) {
    let (path, table) = (data.join("holds.txt"), Table::default());
    match fs::read_to_string(&path) {
        Ok(text) => {
            let lines = text.lines().filter(|line| !line.is_empty());
            let read: Vec<Option<(Eui64, IpAddr)>> = lines.map(parse).collect();
            if read.contains(&None) {
                tracing::warn!(path = %path.display(), "some of the addresses that were held for gateways cannot be read");
            }
            table.lock().extend(read.into_iter().flatten());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read which addresses were held for gateways");
        }
    }
    let (changed, changes) = watch::channel(());
    (Holds { table: table.clone(), changed }, HoldsWriter { path, table, changed: changes })
}

fn parse(line: &str) -> Option<(Eui64, IpAddr)> {
    let (gateway, address) = line.split_once(' ')?;
    Some((gateway.parse().ok()?, address.parse().ok()?))
}

impl Holds {
    pub fn all(&self) -> BTreeMap<Eui64, IpAddr> {
        self.table.lock().clone()
    }

    /// This address is held for the gateway now, or none.
    pub fn set(&self, gateway: Eui64, address: Option<IpAddr>) {
        let before = match address {
            Some(address) => self.table.lock().insert(gateway, address),
            None => self.table.lock().remove(&gateway),
        };
        if before != address {
            self.changed.send_replace(());
        }
    }
}

impl HoldsWriter {
    pub async fn run(self) {
        let table = self.table;
        files::keep(self.path, "which addresses are held for gateways", self.changed, |()| table.text().into_bytes())
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_outlives_a_restart_and_a_damaged_line_costs_itself_only() {
        let folder = tempfile::tempdir().unwrap();
        let (holds, keeper) = load(folder.path());
        let keeper = tokio::spawn(keeper.run());
        let (one, two) = (IpAddr::from([192, 0, 2, 1]), "2001:db8::2".parse::<IpAddr>().unwrap());
        holds.set(Eui64(1), Some(two));
        holds.set(Eui64(1), Some(one));
        holds.set(Eui64(2), Some(two));
        holds.set(Eui64(3), Some(two));
        holds.set(Eui64(3), None);
        let held = holds.all();
        drop(holds);
        keeper.await.unwrap();
        assert_eq!(load(folder.path()).0.all(), held);
        assert_eq!(held, BTreeMap::from([(Eui64(1), one), (Eui64(2), two)]));
        let text = fs::read_to_string(folder.path().join("holds.txt")).unwrap();
        fs::write(folder.path().join("holds.txt"), format!("what is this\n{text}")).unwrap();
        assert_eq!(load(folder.path()).0.all(), held);
    }
}
