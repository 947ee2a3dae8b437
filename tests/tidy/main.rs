//! Keeps the house tidy: reads the source and says, with file and line, what breaks its rules and what is allowed.
//! The rules are few, because each stands for something that would otherwise be asked for in every review.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod crates;
mod deploy;
mod docs;
mod rules;
mod source;

use source::File;

/// Fails with every problem at once, so that one run is enough to mend them.
fn none(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} to mend:\n  {}\n", problems.len(), problems.join("\n  "));
}

fn every_file(rule: impl Fn(&File) -> Vec<String>) {
    none(source::files().iter().flat_map(rule).collect());
}

#[test]
fn core_crates_decide_and_never_do() {
    every_file(rules::cores_only_decide);
}

#[test]
fn core_crates_depend_on_nothing_that_does() {
    none(crates::pure_crates_depend_on_pure_crates());
}

#[test]
fn files_fit_in_a_head() {
    every_file(rules::files_fit);
}

#[test]
fn functions_fit_on_a_screen() {
    every_file(rules::functions_fit);
}

#[test]
fn nothing_is_left_over() {
    every_file(rules::nothing_is_left_over);
}

#[test]
fn one_module_style() {
    every_file(rules::one_module_style);
}

#[test]
fn nothing_holds_on_one_machine_only() {
    every_file(rules::nothing_local);
}

#[test]
fn nobody_sleeps_on_a_worker_thread() {
    every_file(rules::nobody_sleeps_on_a_worker_thread);
}

#[test]
fn every_exception_has_a_reason() {
    every_file(rules::every_exception_has_a_reason);
}

#[test]
fn manifests_inherit_from_the_workspace() {
    every_file(crates::manifests_inherit);
}

#[test]
fn packages_come_from_one_source() {
    none(crates::lock_names_one_source());
}

#[test]
fn documents_lead_somewhere() {
    let files = source::files();
    let root = source::root();
    none(files.iter().flat_map(|file| docs::links_lead_somewhere(file, &root, &files)).collect());
    none(files.iter().flat_map(|file| docs::named_files_exist(file, &root)).collect());
    none(files.iter().flat_map(|file| docs::named_metrics_exist(file, &files)).collect());
}

#[test]
fn data_files_parse() {
    every_file(deploy::data_parses);
}

#[test]
fn deployments_use_what_limpet_understands() {
    none(deploy::flags_exist(&source::files()));
}

#[test]
fn prometheus_takes_its_rules() {
    none(deploy::promtool_agrees());
}

#[test]
fn systemd_takes_the_units() {
    none(deploy::systemd_agrees());
}

/// A rule that finds nothing may be blind: each is shown one flaw.
mod shown_a_flaw {
    use super::{rules::*, source::File};

    fn finds(rule: fn(&File) -> Vec<String>, path: &str, text: &str, at: &str) {
        let found = rule(&File { path: path.into(), text: text.into() });
        assert!(found.len() == 1 && found[0].starts_with(at), "{path}: wanted {at}, found {found:?}");
    }

    #[test]
    fn in_a_core_crate() {
        let fine = "#![no_std]\n// std::time is banned\n#[cfg(test)]\nmod tests { use std::time::Instant; }\nfn a() {}";
        assert_eq!(cores_only_decide(&File { path: "shared/src/lib.rs".into(), text: fine.into() }), [""; 0]);
        finds(
            cores_only_decide,
            "shared/src/a.rs",
            "fn a() {}\nfn b() -> u8 { std::mem::take(c) }",
            "shared/src/a.rs:2:",
        );
        finds(cores_only_decide, "worker/core/src/a.rs", "fn a(at: Instant) {}", "worker/core/src/a.rs:1:");
        finds(cores_only_decide, "balancer/core/src/lib.rs", "fn a() {}", "balancer/core/src/lib.rs:1:");
        assert_eq!(cores_only_decide(&File { path: "link/src/a.rs".into(), text: "async fn a() {}".into() }), [""; 0]);
    }

    #[test]
    fn in_size() {
        finds(files_fit, "a.rs", &"\n".repeat(FILE_LINES + 1), "a.rs:601:");
        let long = format!("fn a() {{}}\nfn b(x: fn(u8) -> u8) {{{}}}", "\n".repeat(FUNCTION_LINES));
        finds(functions_fit, "a.rs", &long, "a.rs:2: fn b has 81 lines");
    }

    #[test]
    fn in_words() {
        finds(nothing_is_left_over, "a.rs", concat!("fn a() {\n    // FIX", "ME: later\n}"), "a.rs:2:");
        finds(nothing_local, "a.md", concat!("at docs/work/x and\n/wo", "rk/x"), "a.md:2:");
        finds(nothing_local, "a.toml", concat!("https://pypi", ".org/simple"), "a.toml:1:");
        finds(one_module_style, "a/src/b/mod.rs", "", "a/src/b/mod.rs:1:");
        finds(nobody_sleeps_on_a_worker_thread, "a.rs", "fn a() { std::thread::sleep(b) }", "a.rs:1:");
        finds(every_exception_has_a_reason, "a.rs", "// Because.\n#[allow(b)]\n#[allow(c)]\nfn d() {}", "a.rs:3:");
    }
}
