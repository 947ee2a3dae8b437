//! `limpet simulate`: the command line of [`limpet_bench::simulate`].

use std::time::Duration;

use limpet_bench::simulate::{
    ApiAccess, Credentials, Pace, SimulateConfig, SimulateError, Summary, TerminalProgress, run_until,
};

use crate::{
    ToldError,
    cli::SimulateArgs,
    secrets::{Line, of},
};

/// Plays gateways and devices until all is sent or someone interrupts, and returns the summary. If something that was
/// asked for did not come back, that is an error after the summary.
pub async fn run(args: SimulateArgs) -> Result<String, ToldError> {
    let json = args.json;
    let mut progress = TerminalProgress::new();
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without the signal it plays to its end.
            std::future::pending::<()>().await;
        }
    };
    let played = run_until(config(args)?, |now| progress.show(now), interrupted).await;
    progress.finish();
    let summary = played.map_err(|e| ToldError::new(told(e)))?;
    let text = text(&summary, json)?;
    if summary.is_complete() { Ok(text) } else { Err(ToldError::after(text, summary.missing.join(", "))) }
}

/// All mistakes, in the form that the roles have.
fn told(error: SimulateError) -> String {
    match error {
        SimulateError::Config(mistakes) => crate::config::layers::Mistakes(mistakes).to_string(),
        other => other.to_string(),
    }
}

fn text(summary: &Summary, json: bool) -> Result<String, ToldError> {
    if !json {
        return Ok(summary.to_string());
    }
    let text = serde_json::to_string_pretty(summary).map_err(|e| ToldError::new(e.to_string()))?;
    Ok(format!("{text}\n"))
}

fn config(args: SimulateArgs) -> Result<SimulateConfig, ToldError> {
    let password = of(args.password, args.password_file.as_deref(), "--password-file", Line::First);
    let api_key = of(args.api_key, args.api_key_file.as_deref(), "--api-key-file", Line::Last);
    let credentials = match (password.map_err(ToldError::new)?, api_key.map_err(ToldError::new)?) {
        (_, Some(key)) => Some(Credentials::ApiKey(key)),
        (Some(password), None) => Some(Credentials::Password { user: args.user, password }),
        (None, None) => None,
    };
    let api = match (args.api, credentials) {
        (Some(url), Some(credentials)) => Some(ApiAccess { url, credentials }),
        (Some(_), None) => {
            return Err(ToldError::new(
                "--api needs --password or --api-key, or the file of one: --password-file, --api-key-file",
            ));
        }
        (None, _) => None,
    };
    Ok(SimulateConfig {
        server: args.server,
        api,
        gateways: args.gateways,
        devices: args.devices,
        copies: args.copies,
        uplinks: args.uplinks,
        pace: args.interval.map_or(Pace::Rate(args.rate), |seconds| Pace::Interval(Duration::from_secs(seconds))),
        confirmed: args.confirmed,
        downlinks: args.downlinks,
        region: args.region,
        duration: args.duration.map(Duration::from_secs),
        seed: args.seed,
    })
}
