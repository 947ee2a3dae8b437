//! Flags over environment over file, and every mistake in any of them.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::settings::{self, variable};
use crate::secrets::{self, Line};

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    Flag(String),
    Variable(String),
    File { path: PathBuf, line: usize, key: String },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "--{key}"),
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line, key } => write!(f, "{}, line {line}, {key}", path.display()),
        }
    }
}

/// All that is wrong with a configuration, in the order in which it is read.
#[derive(Debug, thiserror::Error)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [one] => f.write_str(one),
            all => {
                write!(f, "{} mistakes in the configuration:", all.len())?;
                all.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
            }
        }
    }
}

/// Values by key, as text.
pub type Values = BTreeMap<String, (Origin, String)>;

/// Reads settings for one role.
#[derive(Debug, Default)]
pub struct Layers {
    flags: Values,
    variables: Values,
    file: Values,
    pub mistakes: Vec<String>,
    pub warnings: Vec<String>,
}

impl Layers {
    /// Flags and environment; the file follows, once they have said where it is.
    pub fn new(flags: BTreeMap<String, String>, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let flags = flags.into_iter().map(|(key, value)| (key.clone(), (Origin::Flag(key), value))).collect();
        let mut layers = Self { flags, ..Self::default() };
        for (name, value) in environment {
            layers.variable(name, value);
        }
        layers
    }

    fn variable(&mut self, name: String, value: String) {
        let Some(key) = name.strip_prefix("LIMPET_") else { return };
        let key = key.to_lowercase().replace('_', "-");
        if settings::find(&key).is_some() && variable(&key) == name {
            // An empty variable is how shells and containers say "not set".
            if !value.is_empty() {
                self.variables.insert(key, (Origin::Variable(name), value));
            }
        } else if let Some(near) = settings::nearest(&key) {
            // No mistake: container platforms put variables of their own beside ours.
            self.warnings.push(format!("the variable {name} is no setting; did you mean {}?", variable(near)));
        }
    }

    /// Reads a secret, which is given as it is or in a file: `key` or `key-file`, not both.
    pub fn read_secret<T>(&mut self, key: &str, line: Line, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let in_file = format!("{key}-file");
        if let (Some((one, _)), Some((other, _))) = (self.get(key), self.get(&in_file)) {
            let mistake = format!("{one} and {other} are both given; allowed: one of them");
            self.mistakes.push(mistake);
            return None;
        }
        if self.get(key).is_some() {
            return self.read(key, parse);
        }
        let (value, warning) = self.read(&in_file, |path| {
            let secret = secrets::read(Path::new(path), line)?;
            Ok((parse(&secret.text).map_err(|why| format!("in the file: {why}"))?, secret.warning))
        })?;
        self.warnings.extend(warning);
        Some(value)
    }

    /// Reads the file. `explicit`: it was named, so it must exist and may say where `data` is.
    pub fn read_file(&mut self, path: &Path, explicit: bool) {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                self.file_text(path, &text, explicit);
                let mode = std::fs::File::open(path).ok().and_then(|file| secrets::exposed(&file));
                if let Some(mode) = mode.filter(|_| self.file.iter().any(|(key, (_, text))| is_secret(key, text))) {
                    self.warnings.push(secrets::too_open(path, mode));
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !explicit => {}
            Err(e) => self.mistakes.push(format!("cannot read the configuration file {}: {e}", path.display())),
        }
    }

    fn file_text(&mut self, path: &Path, text: &str, explicit: bool) {
        let line = |at: usize| text.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(e) => {
                let line = line(e.span().map_or(0, |span| span.start));
                self.mistakes.push(format!("{}, line {line}: {}", path.display(), e.message().replace('\n', "; ")));
                return;
            }
        };
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let written = key.get_ref().to_string();
            let origin = Origin::File { path: path.to_owned(), line: line(key.span().start), key: written.clone() };
            let key = written.replace('_', "-");
            if settings::find(&key).is_none() {
                let hint = settings::nearest(&key)
                    .map_or_else(|| format!("settings are {}", keys()), |near| format!("did you mean {near}?"));
                self.mistakes.push(format!("{origin}: there is no such setting; {hint}"));
            } else if key == "config" || (key == "data" && !explicit) {
                self.mistakes.push(format!("{origin}: this cannot be set in a file that is found in the data folder"));
            } else if let Some(text) = text_of(value.get_ref()) {
                self.file.insert(key, (origin, text));
            } else {
                let allowed = settings::find(&key).map_or("", |setting| setting.allowed);
                self.mistakes
                    .push(format!("{origin}: a {} is not allowed; allowed: {allowed}", value.get_ref().type_str()));
            }
        }
    }

    /// The value of a key with the highest precedence.
    pub fn get(&self, key: &str) -> Option<&(Origin, String)> {
        self.flags.get(key).or_else(|| self.variables.get(key)).or_else(|| self.file.get(key))
    }

    /// Reads a setting; a mistake is noted, and counts as not set.
    pub fn read<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (origin, text) = self.get(key)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(why) => {
                let setting = settings::find(key);
                let shown = match setting {
                    Some(setting) if !setting.secret => format!(" {text:?}"),
                    _ => String::new(),
                };
                let allowed = setting.map_or("", |setting| setting.allowed);
                let mistake = format!("{origin}:{shown} is not allowed: {why}; allowed: {allowed}");
                self.mistakes.push(mistake);
                None
            }
        }
    }
}

/// A store's URL is one if there is a password in it.
fn is_secret(key: &str, text: &str) -> bool {
    settings::find(key).is_some_and(|setting| setting.secret) && (key != "store" || text.contains('@'))
}

fn keys() -> String {
    settings::SETTINGS.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", ")
}

/// A text, number or boolean, or a list of them, as a flag would carry it.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Array(parts) => {
            let parts: Option<Vec<String>> = parts
                .iter()
                .map(|part| match part.get_ref() {
                    DeValue::Array(_) => None,
                    other => text_of(other),
                })
                .collect();
            parts.map(|parts| parts.join(","))
        }
        _ => None,
    }
}
