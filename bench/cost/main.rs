//! What Limpet costs, measured on this machine: `make bench`. It starts everything itself, on loopback, and prints tables of
//! Markdown. Absolute figures are the machine's; what is comparable is within one run. Nothing is asserted.

mod field;
mod forwarder;
mod idle;
mod load;
mod overload;
mod passing;
mod process;
mod servers;
mod sink;
mod stub;
mod uplinks;

use std::{error::Error, path::PathBuf, time::Duration};

/// Whatever goes wrong ends the run, with words.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What is asked for.
struct Plan {
    /// The binary that is measured.
    limpet: PathBuf,
    /// Where `make test-tools` puts nginx, and the CQL engine its files.
    target: PathBuf,
    /// Minutes instead of seconds for everything.
    long: bool,
    /// The part that is wanted, of `uplinks`, `overload`, `passing` and `idle`; all without.
    only: Option<String>,
}

impl Plan {
    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }

    /// For how long each figure is measured.
    fn measured(&self) -> Duration {
        Duration::from_secs(if self.long { 30 } else { 8 })
    }
}

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (limpet, only) = match words[..] {
        ["forward", listen, to] => return forwarder::run(listen.parse()?, to.parse()?),
        ["answer", listen] => return forwarder::answer(listen.parse()?),
        [limpet] => (limpet, None),
        [limpet, only @ ("uplinks" | "overload" | "passing" | "idle")] => (limpet, Some(only.to_owned())),
        _ => {
            return Err(
                "usage: limpet-cost LIMPET [uplinks|overload|passing|idle]; LIMPET_FULL=1 for the long form".into()
            );
        }
    };
    let limpet = PathBuf::from(limpet).canonicalize()?;
    let target = limpet.ancestors().nth(2).ok_or("the binary is in no target folder")?.to_owned();
    let long = std::env::var("LIMPET_FULL").as_deref() == Ok("1");
    let plan = Plan { limpet, target, long, only };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if plan.wants("uplinks") {
            uplinks::run(&plan).await?;
        }
        if plan.wants("overload") {
            overload::run(&plan).await?;
        }
        if plan.wants("passing") {
            passing::run(&plan).await?;
        }
        if plan.wants("idle") {
            idle::run(&plan).await?;
        }
        Ok(())
    })
}
