//! Reading the tree: which files there are, and what of a Rust file is code.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders that hold no source of ours.
const SKIPPED: [&str; 6] = ["target", ".git", ".engine", "limpet-data", "corpus", "artifacts"];
/// Endings of the files that people write; everything else (seeds, pictures) is not looked into.
const TEXT: [&str; 18] = [
    "rs", "md", "toml", "sh", "yml", "yaml", "json", "html", "css", "js", "proto", "py", "sql", "txt", "xml",
    "service", "timer", "conf",
];
/// Files without an ending that people write.
const TEXT_NAMES: [&str; 7] = ["Makefile", "run", "protoc", "NOTICE", ".gitignore", ".dockerignore", "Containerfile"];

/// One text file of the checkout.
#[derive(Debug)]
pub struct File {
    /// Relative to the checkout, with `/` between folders.
    pub path: String,
    pub text: String,
}

/// Something that must not be, at a place that an editor can jump to.
pub fn problem(path: &str, line: usize, what: &str) -> String {
    format!("{path}:{line}: {what}")
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the checkout, in order of its path.
pub fn files() -> Vec<File> {
    let mut found = Vec::new();
    walk(&root(), "", &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.iter().any(|f| f.path == "Cargo.toml"), "no source tree at {}", root().display());
    found
}

fn walk(folder: &Path, prefix: &str, found: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            walk(&entry.path(), &path, found);
        } else if kind.is_file() && is_text(&name) {
            // An editor's scratch file may vanish between the listing and the reading, or be no text.
            if let Ok(text) = fs::read_to_string(entry.path()) {
                found.push(File { path, text });
            }
        }
    }
}

fn is_text(name: &str) -> bool {
    TEXT_NAMES.contains(&name) || name.rsplit_once('.').is_some_and(|(_, ending)| TEXT.contains(&ending))
}

impl File {
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// A file that is compiled into tests only, by its place.
    pub fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.path.split('/').any(|part| part == "tests") || name == "tests.rs" || name.ends_with("_tests.rs")
    }

    /// The file's code: comments, texts and test modules are blanks, and every line is where it was.
    pub fn code(&self) -> String {
        without_tests(&blank_comments_and_texts(&self.text))
    }
}

/// The line of a position, counted from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or(text).matches('\n').count() + 1
}

/// Replaces what is inside comments and literals by blanks, and leaves line ends alone. Every character becomes one
/// byte, so that a position in the result is also a count of characters.
pub fn blank_comments_and_texts(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(chars.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skipped_until(&chars, at);
        if end > at {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(if chars[at].is_ascii() { chars[at] } else { '?' });
            at += 1;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` if none begins there.
fn skipped_until(chars: &[char], at: usize) -> usize {
    let is = |offset: usize, c: char| chars.get(at + offset) == Some(&c);
    match chars[at] {
        '/' if is(1, '/') => find(chars, at, &['\n']),
        '/' if is(1, '*') => block_comment_end(chars, at),
        '"' => text_end(chars, at + 1),
        'r' if raw_hashes(chars, at).is_some() => raw_text_end(chars, at),
        '\'' if is(1, '\\') => find(chars, at + 3, &['\'']) + 1,
        '\'' if is(2, '\'') => at + 3,
        _ => at,
    }
}

fn find(chars: &[char], from: usize, wanted: &[char]) -> usize {
    (from..chars.len()).find(|&i| chars[i..].starts_with(wanted)).unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i < chars.len() {
        if chars[i..].starts_with(&['/', '*']) {
            (depth, i) = (depth + 1, i + 2);
        } else if chars[i..].starts_with(&['*', '/']) {
            (depth, i) = (depth - 1, i + 2);
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    i
}

fn text_end(chars: &[char], mut i: usize) -> usize {
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// How many `#` follow the `r` of a raw text at `at`; `None` if it is a name that only begins or ends with r.
fn raw_hashes(chars: &[char], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).and_then(|i| chars.get(i)).copied().unwrap_or(' ');
    let named = before == '_' || (before.is_alphanumeric() && !matches!(before, 'b' | 'c'));
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    (!named && chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

fn raw_text_end(chars: &[char], at: usize) -> usize {
    let hashes = raw_hashes(chars, at).unwrap_or(0);
    let mut close = vec!['"'];
    close.resize(1 + hashes, '#');
    (find(chars, at + 2 + hashes, &close) + close.len()).min(chars.len())
}

/// Blanks whatever follows a `#[cfg(test)]`: a module's or function's body, or one line.
pub fn without_tests(code: &str) -> String {
    let mut out = code.to_string();
    while let Some(at) = out.find("#[cfg(test)]") {
        let end = item_end(&out, at + "#[cfg(test)]".len());
        let blank: String = out[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(at..end, &blank);
    }
    out
}

/// Where the item that starts after `from` ends: at its `;`, or at the brace that closes its body.
pub fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[from..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' => depth -= 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return from + i + 1;
                }
            }
            ';' if depth == 0 => return from + i + 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn comments_and_texts_are_no_code() {
    let text =
        "a(\"}}\"); // {\nlet b = '{'; /* { /* } */ { */ r#\"\"{\"#; br\"{\"; 'a: loop {}\nlet é = '\\''; for_r(x)";
    let code = blank_comments_and_texts(text);
    assert_eq!(code.chars().count(), text.chars().count());
    assert_eq!(code.lines().count(), 3);
    assert_eq!(code.matches('{').count(), 1);
    assert!(code.contains("'a: loop {}") && code.contains("for_r(x)"), "{code}");
}

#[test]
fn test_modules_are_no_code() {
    let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod more;\nfn d() {}";
    let left = without_tests(code);
    assert_eq!(left.split_whitespace().collect::<Vec<_>>().join(" "), "fn a() {} fn c() {} fn d() {}");
    assert_eq!(line_of(&left, left.find("fn d").unwrap()), 9);
}
