//! `limpet ctl export` and `import` as an operator runs them: between stores, killed midway, and with a hundred thousand
//! devices. What each promises is held by tests of the store; here it is processes, files and figures.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use limpet_bench::engine::Engine;
use limpet_store_testing::conformance::Samples;
use serde_json::Value;

use crate::{full, sized, support::Limpet, support::free_addresses, turn};

/// How a command ended, and what it took.
struct Ran {
    ok: bool,
    told: Value,
    said: String,
    took: Duration,
    /// The most memory that it had, MiB.
    peak: u64,
}

fn start(what: &str, file: &Path, store: &str, more: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limpet"));
    command.args(["ctl", "--json", what]).arg(file).args(["--store", store]).args(more).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The peak of its memory so far, kB: `VmHWM` of proc(5).
fn peak(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or_default()
}

fn run(what: &str, file: &Path, store: &str, more: &[&str]) -> Ran {
    let began = Instant::now();
    let mut child = start(what, file, store, more);
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        most = most.max(peak(&child));
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = began.elapsed();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ran { ok: output.status.success(), told, said, took, peak: most / 1024 }
}

/// The same, which must succeed; prints what it took.
fn done(what: &str, file: &Path, store: &str, more: &[&str]) -> Value {
    let ran = run(what, file, store, more);
    assert!(ran.ok, "{what}: {}", ran.said);
    let (lines, bytes) = (&ran.told["lines"], ran.told["bytes"].as_u64().unwrap() >> 20);
    let (took, peak, kind) = (ran.took.as_secs_f64(), ran.peak, store.split(':').next().unwrap_or_default());
    println!("{what:6} {kind:6}: {took:7.1} s, {peak:4} MiB at most; {lines} lines, {bytes} MiB");
    ran.told
}

/// Kills it as soon as `when` says so. True if it was still at work.
fn killed(mut child: Child, when: impl Fn() -> bool) -> bool {
    while !when() {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

fn size(file: &Path) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

async fn network(folder: &Path, devices: u32) -> String {
    let url = format!("sqlite:{}", folder.join("first").display());
    let store = limpet_store::open(&url).await.unwrap();
    Samples::new().network(&*store, devices).await.unwrap();
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_killed_midway_goes_on_and_no_server_starts_meanwhile() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let first = network(folder.path(), sized(20_000, 4_000)).await;
    let whole = done("export", &at("whole"), &first, &[]);
    let part = at("again.part");
    assert!(
        killed(start("export", &at("again"), &first, &[]), || size(&part) >= 2 << 20),
        "it was too fast to be killed"
    );
    assert!(!at("again").exists());
    let resumed = run("export", &at("again"), &first, &[]);
    assert!(resumed.ok && resumed.said.contains("going on with"), "{}", resumed.said);
    assert_eq!((&resumed.told["sha256"], &resumed.told["resumed"]), (&whole["sha256"], &Value::Bool(true)));

    let second = format!("sqlite:{}", at("second").display());
    let log = at("second").join("state.db-wal");
    let import = start("import", &at("again"), &second, &["--keep-counters"]);
    assert!(killed(import, || size(&log) >= 4 << 20), "it was too fast to be killed");
    let [gwmp, link, admin, http] = free_addresses().map(|address| address.to_string());
    let (data, listen) = (at("data"), ["--gwmp", &gwmp, "--link", &link, "--admin", &admin, "--http", &http]);
    let up = ["up", "--data", data.to_str().unwrap(), "--store", &second];
    let refused = Limpet::start("up", &[&up[..], &listen].concat()).stopped().await;
    assert!(!refused.status.success());
    assert!(refused.lines.iter().any(|line| line.contains("unfinished import")), "{:#?}", refused.lines);
    let resumed = run("import", &at("again"), &second, &["--keep-counters"]);
    assert!(resumed.ok, "{}", resumed.said);
    let moved = done("export", &at("moved"), &second, &[]);
    assert_eq!(moved["sha256"], whole["sha256"]);
    assert_eq!(std::fs::read(at("moved")).unwrap(), std::fs::read(at("whole")).unwrap());

    let third = format!("sqlite:{}", at("third").display());
    done("import", &at("moved"), &third, &[]);
    let restored = done("export", &at("restored"), &third, &[]);
    assert_eq!(restored["content"], whole["content"]);
    assert_ne!(restored["sha256"], whole["sha256"], "counters skipped ahead");
}

/// SQLite to a CQL engine and back, equal by checksum. `LIMPET_FULL=1` asks for it, and a release build gives the figures
/// of docs/operations/moving.md.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_devices_move_to_a_database_and_back() {
    let _turn = turn().await;
    if !full() {
        return println!("skipped: LIMPET_FULL=1 asks for it");
    }
    let engine = match Engine::start(1, &Path::new(env!("CARGO_TARGET_TMPDIR")).join("cql-moving"), "127.0.25") {
        Ok(engine) => engine,
        Err(missing) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
            return println!("skipped: {missing}");
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let devices = std::env::var("LIMPET_DEVICES").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let first = network(folder.path(), devices).await;
    let (cql, last) = (engine.store("moved"), format!("sqlite:{}", at("last").display()));
    let original = done("export", &at("a"), &first, &[]);
    let moved = done("import", &at("a"), &cql, &["--keep-counters"]);
    let from_cql = done("export", &at("b"), &cql, &[]);
    done("import", &at("b"), &last, &["--keep-counters"]);
    let back = done("export", &at("c"), &last, &[]);
    println!("{original:#}");
    for other in [&moved, &from_cql, &back] {
        assert_eq!((&other["sha256"], &other["content"]), (&original["sha256"], &original["content"]));
    }
}
