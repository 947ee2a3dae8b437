//! Rules for `deploy/`: it can be read by what reads it, and starts Limpet with what Limpet understands.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use yaml_rust2::YamlLoader;

use crate::source::{File, line_of, problem, root};

/// Where the units expect the binary.
const INSTALLED: &str = "/usr/bin/limpet";

/// YAML and JSON that its readers can read. JSON is YAML, but not the other way round.
pub fn data_parses(file: &File) -> Vec<String> {
    let found = match file.path.rsplit_once('.') {
        Some((_, "yml" | "yaml")) => YamlLoader::load_from_str(&file.text).err().map(|e| e.to_string()),
        Some((_, "json")) => serde_json::from_str::<serde_json::Value>(&file.text).err().map(|e| e.to_string()),
        _ => None,
    };
    found.map(|error| problem(&file.path, 1, &error)).into_iter().collect()
}

/// A command line of limpet: where it stands, the words that name the command, and its flags.
#[derive(Debug, PartialEq, Eq)]
struct Invocation {
    line: usize,
    command: Vec<String>,
    flags: Vec<String>,
}

/// Command lines in scripts, units, documents and YAML lists; a line that ends in `\` goes on.
fn invocations(text: &str) -> Vec<Invocation> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, first)) = lines.next() {
        let mut whole = first.to_owned();
        while whole.ends_with('\\') {
            whole.pop();
            whole.push_str(lines.next().map_or("", |(_, next)| next));
        }
        // What ends a command in a shell, then what only surrounds words.
        for part in whole.split([';', '|', '&', '`', '#']) {
            let words: Vec<&str> =
                part.split([' ', '"', '\'', ',', '[', ']', '(', ')']).filter(|w| !w.is_empty()).collect();
            found.extend(invocation(at + 1, &words));
        }
    }
    found
}

fn invocation(line: usize, words: &[&str]) -> Option<Invocation> {
    const ROLES: [&str; 5] = ["up", "balancer", "worker", "ctl", "simulate"];
    let program = |word: &str| word == "limpet" || word.ends_with("/limpet");
    let at = words.windows(2).position(|pair| program(pair[0]) && ROLES.contains(&pair[1]))?;
    let rest = &words[at + 1..];
    let flags = rest.iter().filter(|word| word.starts_with("--") && word.len() > 2);
    let flags = flags.map(|flag| flag.split('=').next().unwrap_or(flag).to_owned()).collect();
    let mut command = vec![rest[0].to_owned()];
    if rest[0] == "ctl" {
        command.extend(ctl_command(&rest[1..]).map(str::to_owned));
    }
    Some(Invocation { line, command, flags })
}

/// The command among the words after `limpet ctl`, before which flags with a value may stand.
fn ctl_command<'a>(words: &[&'a str]) -> Option<&'a str> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--data" | "--server" | "--token" => drop(words.next()),
            flag if flag.starts_with('-') => {}
            command => return Some(command),
        }
    }
    None
}

/// Every flag and variable that `deploy/` uses, against what the binary itself says.
pub fn flags_exist(files: &[File]) -> Vec<String> {
    let mut help = Help::default();
    let mut problems = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("deploy/")) {
        for Invocation { line, command, flags } in invocations(&file.text) {
            let Some(known) = help.of(&command) else {
                problems.push(problem(&file.path, line, &format!("there is no `limpet {}`", command.join(" "))));
                continue;
            };
            for flag in flags.iter().filter(|flag| !has_word(known, flag)) {
                let what = format!("`limpet {}` does not know {flag}", command.join(" "));
                problems.push(problem(&file.path, line, &what));
            }
        }
        for (at, name) in variables(&file.text) {
            let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
            let roles = ["up", "balancer", "worker"].map(|role| vec![role.to_owned()]);
            if !roles.iter().any(|role| help.of(role).is_some_and(|known| has_word(known, &flag))) {
                let what = format!("LIMPET_{name}: no role knows {flag}");
                problems.push(problem(&file.path, line_of(&file.text, at), &what));
            }
        }
    }
    assert!(help.0.len() > 3, "no command lines are found in deploy/");
    problems
}

/// `LIMPET_<NAME>`, with their positions.
fn variables(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices("LIMPET_").filter_map(|(at, prefix)| {
        let rest = &text[at + prefix.len()..];
        let name = &rest[..rest.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(rest.len())];
        (!name.is_empty()).then_some((at, name))
    })
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|found| found == word)
}

/// What `limpet COMMAND --help` says, asked once.
#[derive(Default)]
struct Help(BTreeMap<Vec<String>, Option<String>>);

impl Help {
    fn of(&mut self, command: &[String]) -> Option<&str> {
        let answer = self.0.entry(command.to_vec()).or_insert_with(|| {
            let output = run(Command::new(env!("CARGO_BIN_EXE_limpet")).args(command).arg("--help"));
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        });
        answer.as_deref()
    }
}

/// Prometheus' own opinion of its configuration and rules, and of when they fire.
pub fn promtool_agrees() -> Vec<String> {
    // The binary under test is TARGET/PROFILE/limpet.
    let target = Path::new(env!("CARGO_BIN_EXE_limpet")).ancestors().nth(2).unwrap();
    let Some(promtool) = tool("promtool", target.join("tools/bin/promtool")) else { return Vec::new() };
    let folder = root().join("deploy/prometheus");
    let checks =
        [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]];
    let failed = checks.iter().map(|check| (check, run(Command::new(&promtool).args(check).current_dir(&folder))));
    failed
        .filter(|(_, output)| !output.status.success())
        .map(|(check, output)| said(&check.join(" "), &output))
        .collect()
}

/// systemd's opinion of the units, and of how much they leave open.
pub fn systemd_agrees() -> Vec<String> {
    // Not one of the tools that `make test` gets: it is there or not, with systemd itself.
    let Some(analyze) =
        ["/usr/bin/systemd-analyze", "/bin/systemd-analyze"].map(PathBuf::from).into_iter().find(|p| p.exists())
    else {
        println!("skipped: systemd-analyze is missing");
        return Vec::new();
    };
    let folder = tempfile::tempdir().unwrap();
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(root().join("deploy/systemd")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if !name.ends_with(".service") {
            continue;
        }
        let unit = std::fs::read_to_string(entry.path()).unwrap();
        assert!(unit.contains(INSTALLED), "{name} does not start {INSTALLED}");
        let copy = folder.path().join(&name);
        // It wants to see the command that a unit starts.
        std::fs::write(&copy, unit.replace(INSTALLED, env!("CARGO_BIN_EXE_limpet"))).unwrap();
        let verified = run(Command::new(&analyze).args(["verify", "--man=no"]).arg(&copy));
        if !verified.status.success() || !verified.stderr.is_empty() {
            problems.push(said(&format!("verify {name}"), &verified));
        }
        // From 0 (nothing is left open) to 10; 2.0 is "OK".
        let open =
            run(Command::new(&analyze).args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(&copy));
        if !open.status.success() {
            problems.push(said(&format!("security {name}"), &open));
        }
    }
    problems
}

/// What `make test` gets. Where a test that did not run would look like one that passed, its absence is a failure.
fn tool(name: &str, path: PathBuf) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    let missing = format!("{name} is missing at {}; `make test-tools` gets it", path.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
    println!("skipped: {missing}");
    None
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn said(what: &str, output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    format!("{what}:\n{}", String::from_utf8_lossy(&text))
}

#[test]
fn command_lines_are_found_wherever_they_stand() {
    let of = |text: &str| {
        invocations(text).into_iter().map(|i| (i.line, i.command.join(" "), i.flags.join(" "))).collect::<Vec<_>>()
    };
    let one = |line, command: &str, flags: &str| vec![(line, command.to_owned(), flags.to_owned())];
    assert_eq!(of("x\nExecStart=/usr/bin/limpet up --data /d --name %l\n"), one(2, "up", "--data --name"));
    assert_eq!(of(r#"command: ["limpet", "worker", "--http=0.0.0.0:8080"]"#), one(1, "worker", "--http"));
    assert_eq!(
        of("limpet ctl --data b join-token --uses 2 | tail -n 1 --x"),
        one(1, "ctl join-token", "--data --uses")
    );
    assert_eq!(of("limpet ctl join-token \\\n  --role worker"), one(1, "ctl join-token", "--role"));
    assert_eq!(of("a limpet sits on a rock, image: limpet"), []);
}

#[test]
fn what_limpet_does_not_know_is_found() {
    let file = |text: &str| File { path: "deploy/a.yml".into(), text: text.into() };
    let fine = "limpet up --data x\nlimpet balancer --link y\nlimpet worker --http z\nlimpet ctl servers --json\n";
    let found =
        flags_exist(&[file(&format!("{fine}limpet worker --gwmp 0.0.0.0:1700\nlimpet ctl dance\nLIMPET_HTPP=1"))]);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("deploy/a.yml:5: `limpet worker` does not know --gwmp"), "{found:#?}");
    assert!(found[1].contains("no `limpet ctl dance`") && found[2].contains("LIMPET_HTPP"), "{found:#?}");
}

#[test]
fn what_cannot_be_parsed_is_found() {
    let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
    assert_eq!(data_parses(&file("a.yml", "a: [1, 2]\n---\nb: *x")).len(), 1);
    assert_eq!(data_parses(&file("a.yml", "a: &x 1\nb: *x")), [""; 0]);
    assert_eq!(data_parses(&file("a.json", "{\"a\": 1,}")).len(), 1);
}
