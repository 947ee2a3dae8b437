//! A process that cannot reach the database any more: packets of its user to these addresses are dropped, on loopback only.

use std::process::{Command, Stdio};

/// The first of the users that workers run as; nobody has these ids.
const USERS: u32 = 64_001;
/// Where a CQL engine listens.
const PORT: &str = "9042";

/// Users of their own for workers, if they can be cut off here; or what is missing.
pub fn users() -> Result<u32, String> {
    if !rustix::process::getuid().is_root() {
        return Err("only root can start a worker as another user".into());
    }
    Table::add("limpet_probe").map(|_| USERS)
}

/// While this lives, the user is cut off.
pub struct CutOff {
    _table: Table,
}

impl CutOff {
    /// From a CQL engine on the loopback addresses `net`.1 and up.
    pub fn of(user: u32, net: &str) -> Self {
        let table = Table::add(&format!("limpet_cut_{user}_{}", std::process::id())).unwrap();
        let name = &table.0;
        nft(&format!("add chain inet {name} out {{ type filter hook output priority 0; }}")).unwrap();
        nft(&format!("add rule inet {name} out meta skuid {user} ip daddr {net}.0/24 tcp dport {PORT} drop")).unwrap();
        Self { _table: table }
    }
}

/// A table of rules, deleted with this.
struct Table(String);

impl Table {
    fn add(name: &str) -> Result<Self, String> {
        nft(&format!("add table inet {name}"))?;
        Ok(Self(name.into()))
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Err(error) = nft(&format!("delete table inet {}", self.0)) {
            eprintln!("{error}");
        }
    }
}

fn nft(rule: &str) -> Result<(), String> {
    let done = Command::new("nft").arg(rule).stdin(Stdio::null()).output();
    match done {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(format!("nft {rule}: {}", String::from_utf8_lossy(&done.stderr).trim())),
        Err(error) => Err(format!("nft (Debian's package nftables): {error}")),
    }
}
