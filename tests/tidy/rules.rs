//! Rules for source text. Each takes files and returns what breaks it, so that each can be shown a flaw.

use crate::source::{File, item_end, line_of, problem};

/// The folders of the crates that decide and never do.
pub const CORES: [&str; 3] = ["shared/src/", "balancer/core/src/", "worker/core/src/"];
pub const FILE_LINES: usize = 600;
pub const FUNCTION_LINES: usize = 80;

/// What the core crates must not name, with what they do instead.
const BANNED_IN_CORES: [(&str, &str); 16] = [
    ("std::", "core:: and alloc:: are allowed; what needs std belongs into the crate around it"),
    ("extern crate std", "core and alloc are allowed"),
    ("tokio", "the crate around it drives tasks and timers"),
    ("Instant", "the time is an argument: shared::time::Now"),
    ("SystemTime", "the time is an argument: shared::time::Now"),
    ("async", "return an action, and let the crate around it wait"),
    (".await", "return an action, and let the crate around it wait"),
    ("Mutex", "the caller owns the value: take &mut self"),
    ("RwLock", "the caller owns the value: take &mut self"),
    ("thread_local!", "no global state: pass the value"),
    ("static mut", "no global state: pass the value"),
    ("print!", "return what is to be told; the crate around it logs"),
    ("println!", "return what is to be told; the crate around it logs"),
    ("eprintln!", "return what is to be told; the crate around it logs"),
    ("rand::", "randomness is an argument"),
    ("getrandom", "randomness is an argument"),
];

/// Positions of `word` where it stands alone. A word that ends in punctuation may be followed by anything.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let named = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let starts = word.starts_with(named) && before.is_some_and(named);
        let ends = word.ends_with(named) && after.is_some_and(named);
        !starts && !ends
    })
}

pub fn cores_only_decide(file: &File) -> Vec<String> {
    if !CORES.iter().any(|folder| file.path.starts_with(folder)) || !file.is_rust() || file.is_test() {
        return Vec::new();
    }
    let code = file.code();
    let mut problems = Vec::new();
    for (word, instead) in BANNED_IN_CORES {
        for at in words(&code, word) {
            let what = format!("a core crate must not use `{word}`: {instead}");
            problems.push(problem(&file.path, line_of(&code, at), &what));
        }
    }
    if file.path.ends_with("src/lib.rs") && !code.contains("no_std") {
        problems.push(problem(&file.path, 1, "a core crate starts with `#![no_std]`"));
    }
    problems
}

pub fn files_fit(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    if !file.is_rust() || lines <= FILE_LINES {
        return Vec::new();
    }
    let what = format!("{lines} lines; at most {FILE_LINES} are allowed: split it into modules, `foo.rs` and `foo/`");
    vec![problem(&file.path, lines, &what)]
}

pub fn functions_fit(file: &File) -> Vec<String> {
    if !file.is_rust() || file.is_test() {
        return Vec::new();
    }
    let code = file.code();
    let mut problems = Vec::new();
    for at in words(&code, "fn") {
        let name: String =
            code[at + 2..].trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        // `fn(u8) -> u8` is a type.
        if name.is_empty() {
            continue;
        }
        let lines = code[at..item_end(&code, at)].lines().count();
        if lines > FUNCTION_LINES {
            let what = format!("fn {name} has {lines} lines; at most {FUNCTION_LINES} are allowed: name its steps");
            problems.push(problem(&file.path, line_of(&code, at), &what));
        }
    }
    problems
}

/// Reminders and stubs that were meant to go before a commit. Put together here, so that this file holds none.
pub fn nothing_is_left_over(file: &File) -> Vec<String> {
    let left_over = [
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("TO", "DO"),
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
    ];
    let mut problems = Vec::new();
    for word in left_over {
        for at in words(&file.text, word) {
            let what = format!("`{word}` is left over: do it now, or file an issue");
            problems.push(problem(&file.path, line_of(&file.text, at), &what));
        }
    }
    problems
}

pub fn one_module_style(file: &File) -> Vec<String> {
    if !file.path.ends_with("/mod.rs") {
        return Vec::new();
    }
    vec![problem(&file.path, 1, "a module `foo` is `foo.rs`, its children are in `foo/`; no `mod.rs`")]
}

/// Names that hold on one machine only: absolute paths of a checkout, and the hosts that packages come from there.
pub fn nothing_local(file: &File) -> Vec<String> {
    let paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let hosts = [
        concat!("index.crates", ".io"),
        concat!("static.crates", ".io"),
        concat!("pypi", ".org"),
        concat!("pythonhosted", ".org"),
        concat!("npmjs", ".org"),
        concat!("maven", ".org"),
        concat!("proxy.golang", ".org"),
        concat!("deb.debian", ".org"),
    ];
    let mut problems = Vec::new();
    for path in paths {
        for (at, _) in file.text.match_indices(path) {
            let before = file.text[..at].chars().next_back().unwrap_or(' ');
            // `docs/work/` is a relative path, and `https://host/work/` an address.
            if !before.is_alphanumeric() && !matches!(before, '_' | '-' | '.' | '}') {
                let what = format!("the path {path} exists on one machine only: write it relative to the checkout");
                problems.push(problem(&file.path, line_of(&file.text, at), &what));
            }
        }
    }
    for host in hosts {
        for (at, _) in file.text.match_indices(host) {
            let what = format!("{host} is a registry's host: name the package, its client knows where to ask");
            problems.push(problem(&file.path, line_of(&file.text, at), &what));
        }
    }
    problems
}

/// Tests that wait a fixed time pass or fail by chance; `thread::sleep` in async code stops a whole worker thread.
pub fn nobody_sleeps_on_a_worker_thread(file: &File) -> Vec<String> {
    if !file.is_rust() || file.is_test() {
        return Vec::new();
    }
    let code = file.code();
    words(&code, "thread::sleep")
        .map(|at| {
            let what = "`thread::sleep` stops every task of its thread: `tokio::time::sleep` is allowed";
            problem(&file.path, line_of(&code, at), what)
        })
        .collect()
}

/// A lint is allowed where there is no other way, and then it says why.
pub fn every_exception_has_a_reason(file: &File) -> Vec<String> {
    if !file.is_rust() || file.is_test() {
        return Vec::new();
    }
    let lines: Vec<&str> = file.text.lines().collect();
    let mut problems = Vec::new();
    for (i, code) in file.code().lines().enumerate() {
        let code = code.trim_start();
        if !["#[allow(", "#![allow(", "#[expect("].iter().any(|start| code.starts_with(start)) {
            continue;
        }
        let above = i > 0 && lines[i - 1].trim_start().starts_with("//");
        if !above && !lines[i].contains("//") && !lines[i].contains("reason") {
            let what = "an allowed lint says why: `reason = \"...\"`, or a comment above it";
            problems.push(problem(&file.path, i + 1, what));
        }
    }
    problems
}
