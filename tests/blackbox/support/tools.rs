//! What is not Rust: `make test` puts it into the target folder. Without it a test is skipped, and says so; with
//! `CI=true` it fails by name, because there a test that did not run would look like one that passed.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Python with ChirpStack's official client.
#[allow(dead_code, reason = "not every target needs it")]
pub fn python() -> Option<PathBuf> {
    // Written when everything is in the folder; without it there may be an interpreter that lacks the client.
    let filled = tool("python3 with chirpstack-api", "venv/requirements.txt")?;
    Some(filled.with_file_name("bin").join("python"))
}

/// Prometheus' own checker.
#[allow(dead_code, reason = "not every target needs it")]
pub fn promtool() -> Option<PathBuf> {
    tool("promtool", "tools/bin/promtool")
}

/// Debian's Chromium and its WebDriver: the browser and the driver.
#[allow(dead_code, reason = "not every target needs it")]
pub fn chromium() -> Option<(PathBuf, PathBuf)> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let command = |name: &str| env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.exists());
    let found = command("chromium").zip(command("chromedriver"));
    if found.is_none() {
        missing("chromium or chromedriver is missing; `make test-tools` installs them as root on Debian");
    }
    found
}

/// Debian's libfaketime, which gives a process another clock.
#[allow(dead_code, reason = "not every target needs it")]
pub fn faketime() -> Option<PathBuf> {
    tool("libfaketime", "tools/lib/libfaketimeMT.so.1")
}

fn tool(name: &str, place: &str) -> Option<PathBuf> {
    // The binary under test is TARGET/PROFILE/limpet.
    let target = Path::new(env!("CARGO_BIN_EXE_limpet")).ancestors().nth(2).unwrap();
    let path = target.join(place);
    if path.exists() {
        return Some(path);
    }
    missing(&format!("{name} is missing at {}; `make test-tools` gets it", path.display()));
    None
}

fn missing(what: &str) {
    assert!(env::var("CI").as_deref() != Ok("true"), "{what}");
    println!("skipped: {what}");
}
