//! The operator's command line: one question to a running Limpet, and its answer for people or as JSON.

use limpet_link::admin_socket::{self, AskError};
use limpet_shared::admin::{DeviceAdd, GatewayAdd, Reply, Request, Role};

use limpet_store::{Migrated, moving::Counters};

use crate::cli::{CtlArgs, CtlCommand, CtlTask, DeviceAddArgs, DeviceCommand, GatewayCommand, JoinRole, TokenCommand};

pub mod address;
mod moving;
mod remote;
mod show;

/// Why there is no answer to print.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Remote(#[from] remote::RemoteError),
    /// What the server says.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Store(#[from] limpet_store::OpenError),
    #[error(transparent)]
    Moving(#[from] moving::CtlMovingError),
    #[error("cannot print the answer: {0}")]
    Print(#[from] serde_json::Error),
}

/// Asks, and returns what is to be printed.
pub async fn run(args: CtlArgs) -> Result<String, CtlError> {
    let request = match args.command {
        CtlTask::Migrate { store } => return migrate(&store, args.json).await,
        CtlTask::Export { file, store } => return Ok(moving::export(&file, &store, args.json).await?),
        CtlTask::Import { file, store, skip_fcnt_down, keep_counters } => {
            let counters = if keep_counters { Counters::Keep } else { Counters::Skip(skip_fcnt_down) };
            return Ok(moving::import(&file, &store, counters, args.json).await?);
        }
        CtlTask::Ask(command) => request(command),
    };
    let reply = match (&args.server, &args.token) {
        (Some(server), Some(token)) => remote::ask(server, token, &request).await?,
        _ => admin_socket::ask(&args.data, &request).await?,
    };
    if let Reply::Error { message, .. } = reply {
        return Err(CtlError::Refused(message));
    }
    if args.json {
        return Ok(format!("{}\n", serde_json::to_string_pretty(&reply)?));
    }
    Ok(show::reply(&request, &reply, limpet_link::time::now()))
}

/// Needs no running server: it is what comes before starting newer ones.
async fn migrate(store: &str, json: bool) -> Result<String, CtlError> {
    let Migrated { from, to } = limpet_store::migrate(store).await?;
    if json {
        return Ok(format!("{}\n", serde_json::json!({ "from": from, "to": to })));
    }
    Ok(match from {
        0 => format!("the store was empty; it has schema {to} now\n"),
        from if from == to => format!("the store has schema {to} already\n"),
        from => format!("the store had schema {from}; it has schema {to} now\n"),
    })
}

fn request(command: CtlCommand) -> Request {
    match command {
        CtlCommand::JoinToken { other: Some(TokenCommand::List), .. } => Request::Tokens,
        CtlCommand::JoinToken { other: Some(TokenCommand::Revoke { id }), .. } => Request::TokenRevoke { id },
        CtlCommand::JoinToken { role, expires, uses, other: None } => {
            let role = match role {
                JoinRole::Worker => Role::Worker,
                JoinRole::Balancer => Role::Balancer,
            };
            Request::JoinToken { role, expires_in_secs: expires, uses }
        }
        CtlCommand::Servers => Request::Servers,
        CtlCommand::Remove { name } => Request::Remove { name },
        CtlCommand::Ring { eui } => Request::Ring { eui },
        CtlCommand::Drain { name, off } => Request::Drain { name, on: !off },
        CtlCommand::Gateways { unknown: true } => Request::GatewaysHeard { unknown: true },
        CtlCommand::Gateways { unknown: false } => Request::Gateways,
        CtlCommand::Gateway(GatewayCommand::Add { eui, name, tenant, address }) => {
            Request::GatewayAdd(GatewayAdd { eui, name, tenant, address: address.map(|policy| policy.to_string()) })
        }
        CtlCommand::Gateway(GatewayCommand::Set { eui, address }) => {
            Request::GatewayAddress { eui, address: address.to_string() }
        }
        CtlCommand::Device(DeviceCommand::Add(args)) => Request::DeviceAdd(device(args)),
    }
}

fn device(args: DeviceAddArgs) -> DeviceAdd {
    let DeviceAddArgs {
        dev_eui,
        join_eui,
        app_key,
        dev_addr,
        nwk_s_key,
        app_s_key,
        name,
        application,
        region,
        mac_version,
        webhook,
    } = args;
    DeviceAdd {
        dev_eui,
        join_eui,
        app_key,
        dev_addr,
        nwk_s_key,
        app_s_key,
        name,
        application,
        region,
        mac_version,
        webhook,
    }
}

#[cfg(test)]
mod tests;
