//! Rules for manifests and for what a crate depends on.

use std::{collections::BTreeSet, process::Command};

use crate::source::{File, problem, root};

/// Crates that must stay pure, and what must not be in their normal dependencies at any depth.
const PURE: [&str; 3] = ["limpet-shared", "limpet-balancer-core", "limpet-worker-core"];
const IMPURE: [&str; 7] = ["tokio", "mio", "quinn", "rusqlite", "getrandom", "axum", "socket2"];

/// Every package that `cargo tree` lists below `package`, without build and test dependencies.
fn dependencies(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--package", package])
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree of {package} failed: {said}");
    let listed = String::from_utf8(output.stdout).unwrap();
    listed.lines().filter_map(|line| line.split(' ').next()).map(str::to_string).collect()
}

pub fn pure_crates_depend_on_pure_crates() -> Vec<String> {
    let mut problems = Vec::new();
    for package in PURE {
        let all = dependencies(package);
        assert!(all.contains(package), "cargo tree of {package} lists nothing");
        for impure in IMPURE.iter().filter(|name| all.contains(**name)) {
            problems.push(format!(
                "{package} depends on {impure}, maybe through another crate (`cargo tree -e normal -p {package} -i {impure}` \
                 tells): a pure crate takes time, randomness and bytes as arguments"
            ));
        }
    }
    problems
}

/// What every crate takes from the workspace, so that there is one place to change it.
pub fn manifests_inherit(file: &File) -> Vec<String> {
    if !file.path.ends_with("Cargo.toml") || file.path.starts_with("fuzz/") {
        return Vec::new();
    }
    let manifest: toml::Table = match file.text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![problem(&file.path, 1, &format!("no TOML: {error}"))],
    };
    let inherits = |table: Option<&toml::Value>| table.and_then(|t| t.get("workspace")?.as_bool()) == Some(true);
    let package = manifest.get("package");
    let mut problems = Vec::new();
    for key in ["version", "edition", "rust-version", "license"] {
        if !inherits(package.and_then(|p| p.get(key))) {
            problems.push(problem(&file.path, 1, &format!("a crate has `{key}.workspace = true` in [package]")));
        }
    }
    if !inherits(manifest.get("lints")) {
        problems.push(problem(&file.path, 1, "a crate has `[lints]` with `workspace = true`"));
    }
    problems
}

/// The lock names one source of packages, whatever mirror the machine that wrote it uses.
pub fn lock_names_one_source() -> Vec<String> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let usual = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let sources = lock.lines().enumerate().filter(|(_, line)| line.starts_with("source = "));
    sources
        .filter(|(_, line)| *line != usual)
        .map(|(at, line)| problem("Cargo.lock", at + 1, &format!("{line}; only cargo's own registry is allowed")))
        .collect()
}

#[test]
fn a_manifest_of_its_own_mind_is_found() {
    let text = "[package]\nname = \"a\"\nversion = \"1.0.0\"\nedition.workspace = true\nrust-version.workspace = true\n\
                license.workspace = true";
    let found = manifests_inherit(&File { path: "a/Cargo.toml".into(), text: text.into() });
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("`version.workspace = true`") && found[1].contains("[lints]"), "{found:?}");
}
