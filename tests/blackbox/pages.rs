//! What the pages tell people to type: each `limpet ctl` in them is one that there is, and blocks marked as tested are run, as
//! they stand, beside a running `limpet up`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{
    start::Up,
    support::{ctl, eventually},
};

/// Before a block that the test runs.
const MARK: &str = "<!-- tested -->";
/// Stands for an application's name.
const APPLICATION: &str = "APPLICATION";

struct Block {
    page: String,
    line: usize,
    text: String,
    tested: bool,
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("deploy/README.md")];
    for folder in ["docs", "docs/operations"] {
        let found = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(found.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    pages.sort();
    pages
}

/// Of a page, what is to be typed into a shell.
fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let (mut blocks, mut open, mut before) = (Vec::new(), None::<Block>, "");
    for (number, line) in text.lines().enumerate() {
        let bare = line.trim();
        open = match open {
            None if bare == "```sh" => {
                let page = page.file_name().unwrap().to_string_lossy().into_owned();
                Some(Block { page, line: number + 1, text: String::new(), tested: before == MARK })
            }
            Some(block) if bare == "```" => {
                blocks.push(block);
                None
            }
            Some(mut block) => {
                block.text.push_str(&line.replace("cargo run --release -- ", "limpet "));
                block.text.push('\n');
                Some(block)
            }
            None => None,
        };
        before = bare;
    }
    blocks
}

/// The arguments after `limpet` of each call of `limpet ctl` in a block.
fn calls(block: &Block) -> Vec<Vec<String>> {
    let joined = block.text.replace("\\\n", " ");
    // A comment may speak of commands too.
    let typed = joined.lines().map(|line| line.split('#').next().unwrap_or_default());
    let calls = typed.flat_map(|line| line.split("limpet ctl ").skip(1));
    let ends = |c: char| matches!(c, '>' | ')' | '|' | ';');
    let words = |call: &str| {
        let call = call.split(ends).next().unwrap_or_default();
        call.split_whitespace().map(|word| word.trim_matches(['\'', '"']).to_owned()).collect()
    };
    calls.map(words).collect()
}

fn limpet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_limpet")).args(arguments).output().unwrap()
}

#[test]
fn every_command_in_the_pages_is_one_that_there_is() {
    let mut seen = 0;
    for block in pages().iter().flat_map(|page| blocks(page)) {
        for call in calls(&block) {
            let shown: Vec<&str> = call.iter().map(|word| if word.starts_with('$') { "1h" } else { word }).collect();
            // Everything up to there is read first.
            let ran = limpet(&[&["ctl"], &shown[..], &["--help"]].concat());
            let said = String::from_utf8_lossy(&ran.stderr);
            let placeholder = said.contains("invalid value '1h'");
            assert!(ran.status.success() || placeholder, "{}:{}: {shown:?}\n{said}", block.page, block.line);
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} were found");
}

/// A folder with a running server, as somebody has it who follows the pages: `limpet` on the path, `limpet-data` beside.
struct Desk {
    up: Up,
}

impl Desk {
    async fn new() -> Self {
        let up = Up::start(&["--name", "edge"]).await;
        let here = up.folder.path();
        std::os::unix::fs::symlink(up.data(), here.join("limpet-data")).unwrap();
        let (bin, command) = (here.join("bin"), here.join("bin/limpet"));
        fs::create_dir(&bin).unwrap();
        fs::write(&command, format!("#!/bin/sh\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_limpet"))).unwrap();
        fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
        Self { up }
    }

    fn types(&self, text: &str) -> Output {
        let here = self.up.folder.path();
        let path = format!("{}:{}", here.join("bin").display(), std::env::var("PATH").unwrap());
        Command::new("sh").args(["-ec", text]).current_dir(here).env_clear().env("PATH", path).output().unwrap()
    }
}

#[tokio::test]
async fn what_the_pages_say_works_as_it_stands() {
    let mut run = 0;
    for page in pages() {
        let tested: Vec<Block> = blocks(&page).into_iter().filter(|block| block.tested).collect();
        if tested.is_empty() {
            continue;
        }
        let desk = Desk::new().await;
        let device = "limpet ctl device add --dev-eui 0000000000000001 --app-key 00000000000000000000000000000001 \
                      --webhook http://127.0.0.1:9000/events";
        assert!(desk.types(device).status.success());
        for block in tested {
            let ran = desk.types(&block.text.replace(APPLICATION, "default"));
            let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            assert!(ran.status.success(), "{}:{}:\n{}\n{said}", block.page, block.line, block.text);
            run += 1;
        }
    }
    assert!(run > 4, "only {run} blocks were run");
}

#[tokio::test]
async fn a_gateway_is_listed_with_its_worker_and_errors_are_documents() {
    let up = Up::start(&["--name", "edge"]).await;
    let json = |arguments: &[&str]| -> serde_json::Value {
        let answer = ctl(&up.data(), &[&["--json"], arguments].concat());
        serde_json::from_slice(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    };
    json(&["gateway", "add", "0016c001ff10a235"]);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let pull = [&[2, 0, 1, 2][..], &hex::decode("0016c001ff10a235").unwrap()].concat();
    eventually("the gateway's worker", async || {
        socket.send_to(&pull, up.gwmp).unwrap();
        let listed = json(&["gateways"]);
        let gateway = listed["gateways"][0].clone();
        (gateway["worker"] == "edge-1" && gateway["online"] == true).then_some(())
    })
    .await;
    let refused = json(&["gateway", "rename", "0000000000000009", "nobody"]);
    assert_eq!(refused["answer"], "error");
    assert!(refused["message"].as_str().unwrap().contains("0000000000000009"), "{refused}");
    let lacking = ctl(&up.data(), &["device", "add", "--dev-eui", "0000000000000009"]);
    assert!(String::from_utf8_lossy(&lacking.stderr).contains("--app-key"), "{lacking:?}");
}
