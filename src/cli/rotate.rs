//! Changing the keys of the cluster.

use std::path::PathBuf;

use clap::Args;
use limpet_shared::admin::{Password, Request};

use super::SureArg;
use crate::secrets::{Line, of};

pub const TOKEN_KEY_HELP: &str = "\
New tokens have the new key from then on, and all balancers know it within seconds: those that are away learn it when they are
back. Tokens that were made before stay good until --finish, after which they let nobody in. A balancer that was removed is not
told of the new key, but it has the cluster's CA key: if that got out, `limpet ctl rotate-ca` is the command.";

pub const CA_HELP: &str = "\
For when ca.key got out, with a balancer that was removed perhaps. Look at `limpet ctl servers` and remove whom you do not know,
then run it beside one balancer. It says which servers' certificates go on counting, and asks. From then on the old ca.key makes
nothing that balancers with the new one accept; old join tokens end. Beside each other balancer run it with --join-file and the
token that the first one prints: the new key goes by the operator's hand, since whatever servers tell each other could be read
or forged with the old one. Workers then get new certificates by themselves, without losing their links. --finish gives up the
old CA, else that is done after 24 hours. Whoever has no new certificate by then must join anew: a server that was away (it
is named), a worker of a version that does not know of this, a balancer at which it was not run.";

/// What `rotate-ca` takes.
#[derive(Debug, Args)]
pub struct RotateCaArgs {
    /// Give up the CA before
    #[arg(long, conflicts_with_all = ["join", "join_file"])]
    finish: bool,
    /// Change to the CA that another balancer has changed to: the token that it printed
    #[arg(long, value_name = "TOKEN", conflicts_with = "join_file")]
    join: Option<String>,
    /// File whose last line is that token
    #[arg(long, value_name = "FILE")]
    join_file: Option<PathBuf>,
    #[command(flatten)]
    sure: SureArg,
}

impl RotateCaArgs {
    /// # Errors
    /// The file cannot be read.
    pub fn request(self) -> Result<Request, String> {
        let join = of(self.join, self.join_file.as_deref(), "--join-file", Line::Last)?.map(Password);
        Ok(Request::RotateCa { finish: self.finish, sure: self.sure.yes, join, servers: Vec::new() })
    }
}
