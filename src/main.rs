//! The one binary of Limpet: reads the command line, and starts a role.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cli;
mod config;
mod ctl;
mod logging;
mod roles;
mod secrets;
mod simulate;

use std::{io::Write, process::ExitCode};

use clap::{CommandFactory, FromArgMatches};

use cli::{Cli, Command};

/// Frames are many small things that live for a moment; the system's allocator takes a tenth of what they cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong flags, variables or files; clap's own code for it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let line: Vec<_> = std::env::args_os().collect();
    let matches = Cli::command().try_get_matches_from(&line).unwrap_or_else(|error| {
        print(&ctl::usage_document(&line, &error));
        error.exit()
    });
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    // Every command is a subcommand, so there is one; without it there are no flags.
    let flags = matches.subcommand().map(|(_, given)| config::flags(given)).unwrap_or_default();
    let environment = variables();
    match cli.command {
        Command::Up(_) => role(config::Up::load(flags, environment), |up| &up.common, roles::up),
        Command::Balancer(_) => role(config::Balancer::load(flags, environment), |b| &b.common, roles::balancer),
        Command::Worker(_) => role(config::Worker::load(flags, environment), |w| &w.common, roles::worker),
        Command::Ctl(args) => once(async {
            let json = args.json;
            ctl::run(args).await.map_err(|e| ToldError::after(ctl::error_document(json, &e), e.to_string()))
        }),
        Command::Simulate(args) => once(simulate::run(args)),
    }
}

/// The environment; what is no UTF-8 cannot be a setting of ours.
fn variables() -> config::Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Runs a role until it ends; its configuration must be without mistakes.
fn role<C, F>(loaded: config::Loaded<C>, common: fn(&C) -> &config::Common, start: fn(C) -> F) -> ExitCode
where
    F: Future<Output = Result<(), roles::RoleError>>,
{
    let (config, warnings) = match loaded {
        Ok(loaded) => loaded,
        Err(mistakes) => return fail(&mistakes, USAGE),
    };
    let settings = common(&config);
    logging::start(&settings.log_level, settings.log_json);
    let threads = settings.threads;
    roles::open_files();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let ended = match block_on(threads, start(config)) {
        Ok(ended) => ended.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let code = match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::say_last(&format!("limpet: {error}\n"));
            ExitCode::from(1)
        }
    };
    logging::finish();
    code
}

/// Runs a command that prints a text and ends.
fn once(command: impl Future<Output = Result<String, ToldError>>) -> ExitCode {
    match block_on(std::thread::available_parallelism().map_or(1, usize::from), command) {
        Ok(Ok(text)) => print(&text),
        Ok(Err(error)) => {
            print(&error.printed);
            fail(&error.message, 1)
        }
        Err(error) => fail(&error, 1),
    }
}

/// Why a command failed, and what it has to print all the same.
#[derive(Debug, PartialEq, Eq)]
struct ToldError {
    printed: String,
    message: String,
}

impl ToldError {
    fn new(message: impl Into<String>) -> Self {
        Self::after(String::new(), message)
    }
    fn after(printed: String, message: impl Into<String>) -> Self {
        Self { printed, message: message.into() }
    }
}

fn block_on<T>(threads: usize, future: impl Future<Output = T>) -> std::io::Result<T> {
    let mut runtime = match threads {
        // Knows that nobody else is there, so it wakes nobody and locks less.
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.worker_threads(threads).enable_all().build()?;
    let result = runtime.block_on(future);
    // Whatever still runs has no one to answer to.
    runtime.shutdown_background();
    Ok(result)
}

fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // As when piped into `head`: nobody wants the rest.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => fail(&format_args!("what is printed here got lost: {e}"), 1),
    }
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "limpet: {error}");
    ExitCode::from(code)
}
