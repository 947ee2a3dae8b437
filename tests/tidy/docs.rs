//! Rules for documents: a link leads somewhere, and a file that is named exists.

use std::path::Path;

use crate::source::{File, line_of, problem};

/// Endings by which a name in backquotes is known to be a file.
const NAMED: [&str; 8] = [".rs", ".md", ".toml", ".sh", ".yml", ".json", ".proto", ".svg"];

pub fn links_lead_somewhere(file: &File, root: &Path, files: &[File]) -> Vec<String> {
    if !file.path.ends_with(".md") {
        return Vec::new();
    }
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut problems = Vec::new();
    for (at, target) in links(&file.text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let path = if path.is_empty() { file.path.clone() } else { join(folder, path) };
        if !root.join(&path).exists() && !files.iter().any(|file| file.path == path) {
            let what = format!("the link leads to {path}, which does not exist");
            problems.push(problem(&file.path, line_of(&file.text, at), &what));
        } else if !anchor.is_empty() && !has_heading(files, &path, anchor) {
            let what = format!("{path} has no heading for #{anchor}");
            problems.push(problem(&file.path, line_of(&file.text, at), &what));
        }
    }
    problems
}

/// Files named in backquotes that begin with one of our folders.
pub fn named_files_exist(file: &File, root: &Path) -> Vec<String> {
    if !file.path.ends_with(".md") {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (line, text) in file.text.lines().enumerate() {
        for name in text.split('`').skip(1).step_by(2) {
            let Some((folder, _)) = name.split_once('/') else { continue };
            let is_file = NAMED.iter().any(|ending| name.ends_with(ending));
            let ours = !folder.is_empty() && root.join(folder).is_dir();
            if is_file && ours && !name.contains(['*', '<', ' ', '{']) && !root.join(name).exists() {
                problems.push(problem(&file.path, line + 1, &format!("{name} is named, but does not exist")));
            }
        }
    }
    problems
}

/// Metrics that a document, an alert or a dashboard names must be registered, by the role that their name begins with.
pub fn named_metrics_exist(file: &File, files: &[File]) -> Vec<String> {
    if !file.path.ends_with(".md") && !file.path.starts_with("deploy/") {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for role in ["balancer", "worker"] {
        let source = format!("{role}/src/metrics.rs");
        let inside = format!("{role}/src/metrics/");
        let of_metrics = files.iter().filter(|file| file.path == source || file.path.starts_with(&inside));
        let registered: String = of_metrics.map(|file| file.text.as_str()).collect();
        if registered.is_empty() {
            continue;
        }
        let prefix = format!("limpet_{role}_");
        for (at, _) in file.text.match_indices(&prefix) {
            let rest = &file.text[at + prefix.len()..];
            let name = &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())];
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
            let known = |name: &str| {
                registered.contains(&format!("\"{name}\"")) || registered.contains(&format!("\"{prefix}{name}\""))
            };
            if !name.is_empty() && !known(name) && !known(base) {
                let what = format!("{prefix}{name} is named, but {source} does not register it");
                problems.push(problem(&file.path, line_of(&file.text, at), &what));
            }
        }
    }
    problems
}

/// Targets of `[text](target)`, with their positions.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices("](").filter_map(|(at, _)| {
        let target = &text[at + 2..];
        let end = target.find([')', ' ', '\n'])?;
        Some((at, &target[..end]))
    })
}

fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Whether a heading of `path` has that anchor, as forges make them: lower case, blanks to dashes, no punctuation.
fn has_heading(files: &[File], path: &str, anchor: &str) -> bool {
    let Some(file) = files.iter().find(|file| file.path == path) else { return true };
    file.text.lines().filter(|line| line.starts_with('#')).any(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>() == anchor
    })
}

#[test]
fn a_link_to_nowhere_is_found() {
    let text =
        "# A page, of `two`\n[a](b.md)\n[c](#a-page-of-two) [d](#no) [e](../README.md#none) [f](https://x.test/y)";
    let page = || File { path: "docs/a.md".into(), text: text.into() };
    let found = links_lead_somewhere(&page(), &crate::source::root(), &[page()]);
    assert_eq!(
        found,
        [
            "docs/a.md:2: the link leads to docs/b.md, which does not exist",
            "docs/a.md:3: docs/a.md has no heading for #no"
        ]
    );
}

#[test]
fn a_named_file_that_is_gone_is_found() {
    let page =
        File { path: "a.md".into(), text: "`tests/tidy/docs.rs`, `tests/gone.rs` and `shared/<name>.rs`".into() };
    assert_eq!(
        named_files_exist(&page, &crate::source::root()),
        ["a.md:1: tests/gone.rs is named, but does not exist"]
    );
}

#[test]
fn a_metric_that_is_gone_is_found() {
    let text = "# `limpet_worker_`\n`limpet_worker_a_total` limpet_worker_b_seconds_bucket\nlimpet_worker_c";
    let page = File { path: "a.md".into(), text: text.into() };
    let source = r#"counter("a_total"), histogram("limpet_worker_b_seconds")"#;
    let metrics = File { path: "worker/src/metrics.rs".into(), text: source.into() };
    let found = named_metrics_exist(&page, &[metrics]);
    assert_eq!(found, ["a.md:3: limpet_worker_c is named, but worker/src/metrics.rs does not register it"]);
}
