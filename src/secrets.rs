//! Secrets in files: what stands on a command line can be read by everyone on the machine, a file need not be.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

/// No secret is longer, in bytes.
const LONGEST: u64 = 64 << 10;

/// Which line of a file is the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Passwords and URLs.
    First,
    /// What `limpet ctl` makes: it prints tokens and keys alone on the last line, so that its output can be kept as it is.
    Last,
}

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub struct SecretFile {
    pub text: String,
    /// Others can read the file too.
    pub warning: Option<String>,
}

/// Reads the secret in a file; `-` is standard input. Spaces and line ends around it are no part of it.
///
/// # Errors
/// What is wrong with the file, in words that follow its name.
pub fn read(path: &Path, line: Line) -> Result<SecretFile, String> {
    let unreadable = |e: io::Error| format!("it cannot be read: {e}");
    let (text, warning) = if path == Path::new("-") {
        (bounded(io::stdin()).map_err(unreadable)?, None)
    } else {
        let file = File::open(path).map_err(unreadable)?;
        let warning = exposed(&file).map(|mode| too_open(path, mode));
        (bounded(file).map_err(unreadable)?, warning)
    };
    let mut lines = text.lines().map(str::trim);
    let found = match line {
        Line::First => lines.next(),
        Line::Last => lines.rfind(|line| !line.is_empty()),
    };
    match found {
        Some(text) if !text.is_empty() => Ok(SecretFile { text: text.to_owned(), warning }),
        _ => Err(match line {
            Line::First => "its first line is empty".into(),
            Line::Last => "it is empty".into(),
        }),
    }
}

/// The secret of a flag that has two forms, of which the command line allows one; `flag` is the one with the file.
///
/// # Errors
/// The file cannot be read.
pub fn of(given: Option<String>, file: Option<&Path>, flag: &str, line: Line) -> Result<Option<String>, String> {
    let Some(file) = file else { return Ok(given) };
    let SecretFile { text, warning } = read(file, line).map_err(|why| format!("{flag} {}: {why}", file.display()))?;
    if let Some(warning) = warning {
        // Without a standard error there is nobody to warn.
        let _ = io::Write::write_all(&mut io::stderr(), format!("limpet: warning: {warning}\n").as_bytes());
    }
    Ok(Some(text))
}

/// What a file that others can read is told.
pub fn too_open(path: &Path, mode: u32) -> String {
    format!("others can read {}, which holds a secret (mode {mode:04o}): chmod 600", path.display())
}

/// The mode of a file that more people can read than need to. One that is not ours, and that we read through our group, is
/// how containers are handed their secrets.
pub fn exposed(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    let mode = metadata.mode() & 0o7777;
    let too_much = if ours { 0o077 } else { 0o037 };
    (mode & too_much != 0).then_some(mode)
}

fn bounded(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(LONGEST + 1).read_to_string(&mut text)?;
    match text.len() as u64 {
        n if n > LONGEST => Err(io::Error::other(format!("it is longer than {LONGEST} bytes"))),
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn a_secret_is_a_line_without_its_end() {
        for (text, line, secret) in [
            ("pw\n", Line::First, "pw"),
            ("pw\r\nmore\n", Line::First, "pw"),
            ("pw", Line::Last, "pw"),
            ("One worker may join with this token:\nlimpet1.a\n\n", Line::Last, "limpet1.a"),
        ] {
            let (_folder, path) = file(text, 0o600);
            assert_eq!(read(&path, line), Ok(SecretFile { text: secret.into(), warning: None }), "{text:?}");
        }
    }

    #[test]
    fn a_file_without_a_secret_is_told_and_a_huge_one_is_not_read() {
        for (text, line, why) in [
            ("\npw\n", Line::First, "its first line is empty"),
            ("\n\n", Line::Last, "it is empty"),
            (&*"x".repeat(70_000), Line::First, "longer than 65536 bytes"),
        ] {
            let (_folder, path) = file(text, 0o600);
            assert!(read(&path, line).unwrap_err().contains(why), "{why}");
        }
        assert!(read(Path::new("/nowhere/pw"), Line::First).unwrap_err().contains("it cannot be read"));
    }

    #[test]
    fn a_file_that_others_can_read_is_warned_about() {
        for (mode, warned) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o620, true)] {
            let (_folder, path) = file("pw\n", mode);
            let warning = read(&path, Line::First).unwrap().warning;
            assert_eq!(warning.is_some(), warned, "{mode:o}: {warning:?}");
            assert!(warning.is_none_or(|text| text.contains("others can read") && !text.contains("pw")));
        }
    }
}
