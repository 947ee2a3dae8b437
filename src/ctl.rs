//! The operator's command line: one question to a running Limpet, and its answer for people or as JSON.

use limpet_link::admin_socket::{self, AskError};
use std::io::{BufRead, IsTerminal, Write};

use limpet_shared::admin::{DeviceAdd, ErrorKind, GatewayAdd, RegionChange, Reply, Request, Role};

use limpet_store::{Finish, Migrated, moving::Counters};

use crate::cli::{
    CtlArgs, CtlCommand, CtlTask, DeviceAddArgs, DeviceCommand, GatewayCommand, IntegrationCommand, JoinRole, PartArgs,
    RegionTask, StoreArg, StoreBefore, StoreUrl, SureArg, TokenCommand,
};
use crate::secrets::{self, Line};

pub mod address;
mod moving;
mod pages;
mod people;
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
    #[error("{1}")]
    Refused(ErrorKind, String),
    #[error(transparent)]
    Store(#[from] limpet_store::OpenError),
    #[error(transparent)]
    Moving(#[from] moving::CtlMovingError),
    #[error(transparent)]
    People(#[from] people::PeopleError),
    /// A file with a secret is no good.
    #[error("{0}")]
    Secret(String),
    #[error("--store has no effect here: a running Limpet is asked, at --data or --server")]
    NoStoreHere,
    #[error("--server needs an API key: give --token or --token-file")]
    NoKey,
    #[error("{0}; if it is stopped, say --store URL, such as --store sqlite:{data}/store", data = .1.display())]
    NotRunning(AskError, std::path::PathBuf),
    /// Nobody was there to ask, or the answer was no.
    #[error("{0}: not done; --yes does it")]
    Unconfirmed(String),
    #[error("cannot print the answer: {0}")]
    Print(#[from] serde_json::Error),
}

impl CtlError {
    /// As the API answers.
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(kind, _) => *kind,
            Self::Unconfirmed(_) => ErrorKind::Unconfirmed,
            Self::Secret(_) | Self::NoStoreHere | Self::NoKey | Self::People(_) => ErrorKind::Invalid,
            Self::Ask(_) | Self::Remote(_) | Self::NotRunning(..) | Self::Store(_) => ErrorKind::Unavailable,
            Self::Moving(_) | Self::Print(_) => ErrorKind::Internal,
        }
    }
}

/// With `--json` an error is a document too; the same words go to standard error.
pub fn error_document(json: bool, error: &CtlError) -> String {
    if !json {
        return String::new();
    }
    document(error.kind(), &error.to_string())
}

fn document(kind: ErrorKind, message: &str) -> String {
    format!("{:#}\n", serde_json::json!({ "answer": "error", "kind": kind, "message": message }))
}

/// The same for a command line that cannot be read; empty if it does not ask for JSON.
pub fn usage_document(line: &[std::ffi::OsString], error: &clap::Error) -> String {
    let has = |word: &str| line.iter().any(|given| given == word);
    if !error.use_stderr() || !has("ctl") || !has("--json") {
        return String::new();
    }
    let text = error.render().to_string();
    // What is missing stands below the first line; help follows an empty one.
    let lines: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let message = match error.kind() {
        clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => String::from("a subcommand is missing"),
        _ => lines.join(" "),
    };
    document(ErrorKind::Invalid, message.trim_start_matches("error: "))
}

/// Asks, and returns what is to be printed.
pub async fn run(args: CtlArgs) -> Result<String, CtlError> {
    let token = secrets::of(args.token, args.token_file.as_deref(), "--token-file", Line::Last);
    let server = match (args.server, token.map_err(CtlError::Secret)?) {
        (Some(_), None) => return Err(CtlError::NoKey),
        (server, token) => server.zip(token),
    };
    let asked = Asked { data: args.data, server, json: args.json };
    let before = args.store;
    let request = match args.command {
        CtlTask::Migrate { store, finish } => return migrate(&url(store, before)?, finish, asked.json).await,
        CtlTask::Export { file, store } => return Ok(moving::export(&file, &url(store, before)?, asked.json).await?),
        CtlTask::Import { file, store, skip_fcnt_down, keep_counters } => {
            let counters = if keep_counters { Counters::Keep } else { Counters::Skip(skip_fcnt_down) };
            return Ok(moving::import(&file, &url(store, before)?, counters, asked.json).await?);
        }
        CtlTask::User(user) => {
            return at_store_or_server(&asked, (user.at, before), people::about_users(user.task)?).await;
        }
        CtlTask::ApiKey(key) => {
            return at_store_or_server(&asked, (key.at, before), people::about_keys(key.task)).await;
        }
        CtlTask::Region(region) => {
            return at_store_or_server(&asked, (region.at, before), about_regions(region.task)).await;
        }
        CtlTask::Ask(_) if before.is_given() => return Err(CtlError::NoStoreHere),
        CtlTask::Ask(command) => {
            let limit = limit(&command);
            let request = request(command)?;
            if let Some(limit) = limit {
                let reply = pages::gather(&asked, request.clone(), limit).await?;
                return printed(&request, reply, asked.json);
            }
            request
        }
    };
    match asked.ask(&request).await? {
        Reply::Error { kind: ErrorKind::Unconfirmed, message } => {
            confirm(&message)?;
            let request = request.meant();
            let reply = asked.ask(&request).await?;
            printed(&request, reply, asked.json)
        }
        reply => printed(&request, reply, asked.json),
    }
}

/// Whom to ask, and how the answer is told.
struct Asked {
    data: std::path::PathBuf,
    server: Option<(String, String)>,
    json: bool,
}

impl Asked {
    async fn ask(&self, request: &Request) -> Result<Reply, CtlError> {
        Ok(match &self.server {
            Some((server, token)) => remote::ask(server, token, request).await?,
            None => admin_socket::ask(&self.data, request).await?,
        })
    }
}

/// At the store, if one is named; else of a running server.
async fn at_store_or_server(
    asked: &Asked,
    (store, before): (StoreArg, StoreBefore),
    request: Request,
) -> Result<String, CtlError> {
    let store = store.url(before).map_err(CtlError::Secret)?;
    if store.is_some() && asked.server.is_some() {
        return Err(CtlError::Secret("--store and --server exclude each other".into()));
    }
    let reply = match store {
        Some(store) => people::at_store(&store, request.clone()).await?,
        None => asked.ask(&request).await.map_err(|error| match error {
            CtlError::Ask(error @ AskError::NotRunning(_)) => CtlError::NotRunning(error, asked.data.clone()),
            error => error,
        })?,
    };
    printed(&request, reply, asked.json)
}

fn printed(request: &Request, reply: Reply, json: bool) -> Result<String, CtlError> {
    if let Reply::Error { kind, message } = reply {
        return Err(CtlError::Refused(kind, message));
    }
    if json {
        return Ok(format!("{}\n", serde_json::to_string_pretty(&reply)?));
    }
    Ok(show::reply(request, &reply, limpet_link::time::now()))
}

/// Somebody at a terminal is asked whether this is meant.
fn confirm(what: &str) -> Result<(), CtlError> {
    let no = || CtlError::Unconfirmed(what.to_owned());
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(no());
    }
    let mut answer = String::new();
    // Without a standard error there is nobody to ask, and nothing is answered.
    let _ = write!(std::io::stderr(), "{what}.\nGo on? [y/N] ");
    std::io::stdin().lock().read_line(&mut answer).map_err(|_| no())?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") { Ok(()) } else { Err(no()) }
}

/// Needs no running server: it is what comes before starting newer ones.
async fn migrate(store: &str, finish: bool, json: bool) -> Result<String, CtlError> {
    let finish = if finish { Finish::Now } else { Finish::Later };
    let Migrated { from, to, unfinished } = limpet_store::migrate(store, finish).await?;
    if json {
        return Ok(format!("{}\n", serde_json::json!({ "from": from, "to": to, "unfinished": unfinished })));
    }
    let done = match from {
        0 => format!("the store was empty; it has schema {to} now\n"),
        from if from == to => format!("the store has schema {to} already\n"),
        from => format!("the store had schema {from}; it has schema {to} now\n"),
    };
    let rest = "servers of the version before still run on it; once none is left, `limpet ctl migrate --finish` lets rows be compact\n";
    Ok(if unfinished { done + rest } else { done })
}

fn url(store: StoreUrl, before: StoreBefore) -> Result<String, CtlError> {
    store.url(before).map_err(CtlError::Secret)
}

fn request(command: CtlCommand) -> Result<Request, CtlError> {
    Ok(match command {
        CtlCommand::JoinToken { other: Some(TokenCommand::List), .. } => Request::Tokens,
        CtlCommand::JoinToken { other: Some(TokenCommand::Revoke { id }), .. } => Request::TokenRevoke { id },
        CtlCommand::JoinToken { role, expires, uses, other: None } => {
            let role = match role {
                JoinRole::Worker => Role::Worker,
                JoinRole::Balancer => Role::Balancer,
            };
            Request::JoinToken { role, expires_in_secs: expires, uses }
        }
        CtlCommand::RotateTokenKey { finish } => Request::TokenKey { finish, servers: Vec::new() },
        CtlCommand::RotateCa(args) => args.request().map_err(CtlError::Secret)?,
        CtlCommand::Servers => Request::Servers,
        CtlCommand::Remove { name, sure } => meant(Request::remove(name), sure),
        CtlCommand::Ring { eui } => Request::Ring { eui },
        CtlCommand::Drain { name, off, sure } => meant(Request::drain(name, !off), sure),
        CtlCommand::Gateways { unknown: true, .. } => Request::heard(true),
        CtlCommand::Gateways { part: PartArgs { search, offset, .. }, .. } => Request::Gateways { search, offset },
        CtlCommand::Gateway(GatewayCommand::Add { eui, name, tenant, address }) => {
            Request::GatewayAdd(GatewayAdd { eui, name, tenant, address: address.map(|policy| policy.to_string()) })
        }
        CtlCommand::Gateway(GatewayCommand::Set { eui, address }) => {
            Request::GatewayAddress { eui, address: address.to_string() }
        }
        CtlCommand::Gateway(GatewayCommand::Rename { eui, name }) => Request::GatewayRename { eui, name },
        CtlCommand::Gateway(GatewayCommand::Remove { eui }) => Request::GatewayRemove { eui },
        CtlCommand::Devices(PartArgs { search, offset, .. }) => Request::Devices { search, offset },
        CtlCommand::Device(DeviceCommand::Add(args)) => Request::DeviceAdd(device(args)?),
        CtlCommand::Device(DeviceCommand::Show { dev_eui }) => Request::Device { dev_eui },
        CtlCommand::Device(DeviceCommand::Rename { dev_eui, name }) => Request::DeviceRename { dev_eui, name },
        CtlCommand::Device(DeviceCommand::Remove { dev_eui }) => Request::DeviceRemove { dev_eui },
        CtlCommand::Integrations { task: None, id: None } => Request::Integrations { offset: 0 },
        CtlCommand::Integrations { task: None, id: Some(id) } => Request::IntegrationEvents { id },
        CtlCommand::Integrations { task: Some(IntegrationCommand::Retry { id }), .. } => {
            Request::IntegrationRetry { id }
        }
        CtlCommand::Integrations { task: Some(IntegrationCommand::Drop { id, sure }), .. } => {
            meant(Request::IntegrationDrop { id, by: String::new(), sure: false }, sure)
        }
    })
}

fn about_regions(task: RegionTask) -> Request {
    match task {
        RegionTask::List => Request::Regions { id: None },
        RegionTask::Show { id } => Request::Regions { id: Some(id) },
        RegionTask::Set { id, set } => Request::RegionSet(RegionChange { id, set, unset: Vec::new() }),
        RegionTask::Unset { id, names } => Request::RegionSet(RegionChange { id, set: Vec::new(), unset: names }),
    }
}

/// How many entries are wanted of a list that comes in pages.
fn limit(command: &CtlCommand) -> Option<u32> {
    match command {
        CtlCommand::Gateways { part, unknown: false } | CtlCommand::Devices(part) => Some(part.limit),
        CtlCommand::Integrations { task: None, id: None } => Some(u32::MAX),
        _ => None,
    }
}

fn meant(request: Request, sure: SureArg) -> Request {
    if sure.yes { request.meant() } else { request }
}

fn device(mut args: Box<DeviceAddArgs>) -> Result<DeviceAdd, CtlError> {
    args.keys_from_files().map_err(CtlError::Secret)?;
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
        ..
    } = *args;
    Ok(DeviceAdd {
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
    })
}

#[cfg(test)]
mod tests;
