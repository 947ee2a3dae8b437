//! Regions and their settings on the command line.

use clap::{Args, Subcommand};

use super::StoreArg;

const REGION_HELP: &str = "\
ID is a region of the network, such as eu868 or us915_1, or `network` for what is of no region. A change holds for devices that
join from then on; sessions that there are keep what their devices were told. Every worker takes it up within seconds.
Asks the server that runs with --data, or a worker's API with --server; if no server runs, --store does the same on the store itself.";

/// `limpet ctl region`.
#[derive(Debug, Args)]
#[command(after_help = REGION_HELP)]
pub struct RegionArgs {
    #[command(flatten)]
    pub at: StoreArg,
    #[command(subcommand)]
    pub task: RegionTask,
}

#[derive(Debug, Subcommand)]
pub enum RegionTask {
    /// List the regions of the network, with what is set for them
    List,
    /// Show all settings of a region, or of the network as a whole
    Show {
        /// Such as eu868, or network
        id: String,
    },
    /// Change settings, all or none
    Set {
        /// Such as eu868, or network
        id: String,
        /// Such as rx1_delay=5
        #[arg(value_name = "NAME=VALUE", required = true, value_parser = assignment)]
        set: Vec<(String, String)>,
    },
    /// Let defaults hold again
    Unset {
        /// Such as eu868, or network
        id: String,
        /// Such as rx1_delay
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE, such as rx1_delay=5")?;
    Ok((name.trim().into(), value.trim().into()))
}
