//! The line that adds a server when it is pasted as it is.

use std::path::{Path, PathBuf};

/// What a new server of this network has to be told, besides a token.
#[derive(Clone, Debug)]
pub struct JoinLine {
    program: String,
    store: String,
    data: PathBuf,
}

impl JoinLine {
    /// For a process that has this store and this data folder.
    ///
    /// # Errors
    /// The system does not say where the program is, or in which folder it runs.
    pub fn new(store: &str, data: &Path) -> std::io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?.display().to_string(),
            store: absolute_store(store)?,
            data: std::path::absolute(data)?,
        })
    }

    /// Whether only workers on this machine can use the store.
    pub fn stays_here(&self) -> bool {
        self.store.starts_with("sqlite:")
    }

    /// A worker on this machine, with a folder and a port of its own.
    pub fn here(&self, token: &str) -> String {
        let data = free_neighbour(&self.data).display().to_string();
        let words = [&self.program, "worker", "--join", token, "--store", &self.store, "--data", &data, "--http"];
        format!("{} 127.0.0.1:0", words.map(quoted).join(" "))
    }

    /// The same without any secret, for what journals keep: the token is made when it is pasted, on this machine, by whoever may
    /// use the operator's socket. A password of the store is left out ([`Self::hides_password`]).
    pub fn asking(&self) -> String {
        let (own, data) = (self.data.display().to_string(), free_neighbour(&self.data).display().to_string());
        let ask = [&self.program, "ctl", "--data", &own, "join-token", "--uses", "1", "--expires", "1h"].map(quoted);
        let store = without_password(&self.store);
        let run = [&self.program, "worker", "--join-file", "-", "--store", &store, "--data", &data].map(quoted);
        format!("{} | {} --http 127.0.0.1:0", ask.join(" "), run.join(" "))
    }

    /// A worker where the store allows it: on this machine if only that has the store, else on any. The store's password
    /// is left out ([`Self::hides_password`]).
    pub fn worker(&self, token: &str) -> String {
        if self.stays_here() {
            return self.here(token);
        }
        ["limpet", "worker", "--join", token, "--store", &without_password(&self.store)].map(quoted).join(" ")
    }

    /// Whether [`Self::worker`] has the word `PASSWORD` where the store's belongs.
    pub fn hides_password(&self) -> bool {
        without_password(&self.store) != self.store
    }

    /// A balancer, on any machine.
    pub fn balancer(token: &str) -> String {
        format!("limpet balancer --join {}", quoted(token))
    }
}

/// The store's URL as it works from any folder.
fn absolute_store(url: &str) -> std::io::Result<String> {
    match url.strip_prefix("sqlite:") {
        Some(folder) => Ok(format!("sqlite:{}", std::path::absolute(folder)?.display())),
        None => Ok(url.to_owned()),
    }
}

/// `scheme://user:PASSWORD@rest`.
fn without_password(url: &str) -> String {
    let hidden = || {
        let (scheme, rest) = url.split_once("://")?;
        // Up to the options, not to the first `/`: a password may hold one that nobody has escaped.
        let (login, _) = rest.split('?').next()?.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:PASSWORD{}", &rest[login.len()..]))
    };
    hidden().unwrap_or_else(|| url.to_owned())
}

/// `DATA-2`, or the first number that is not in use.
fn free_neighbour(data: &Path) -> PathBuf {
    let with = |number: u32| {
        let mut path = data.as_os_str().to_owned();
        path.push(format!("-{number}"));
        PathBuf::from(path)
    };
    (2..1_000).map(with).find(|path| !path.exists()).unwrap_or_else(|| with(2))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quoted("./target/debug/limpet"), "./target/debug/limpet");
        assert_eq!(quoted("sqlite:/a b"), "'sqlite:/a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn the_next_worker_gets_a_folder_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("limpet-data");
        assert_eq!(free_neighbour(&data), folder.path().join("limpet-data-2"));
        std::fs::create_dir(folder.path().join("limpet-data-2")).unwrap();
        assert_eq!(free_neighbour(&data), folder.path().join("limpet-data-3"));
        let line = JoinLine::new("sqlite:x", &data).unwrap();
        assert!(line.stays_here() && !line.hides_password());
        assert!(line.worker("T").contains(" worker --join T --store sqlite:/"), "{}", line.worker("T"));
        let asking = line.asking();
        assert!(asking.contains("/limpet-data join-token --uses 1 --expires 1h | "), "{asking}");
        assert!(asking.contains(" worker --join-file - --store sqlite:/"), "{asking}");
        assert!(line.worker("T").ends_with("limpet-data-3 --http 127.0.0.1:0"), "{}", line.worker("T"));
    }

    #[test]
    fn a_shared_stores_line_is_for_any_machine_and_hides_the_password() {
        let url = "cql://limpet:p@ss/:w@db1,db2/limpet?replication=dc1:3";
        let line = JoinLine::new(url, Path::new("data")).unwrap();
        assert!(!line.stays_here() && line.hides_password());
        let told = "limpet worker --join T --store 'cql://limpet:PASSWORD@db1,db2/limpet?replication=dc1:3'";
        assert_eq!(line.worker("T"), told);
        assert!(line.asking().contains("PASSWORD") && !line.asking().contains("p@ss"), "{}", line.asking());
        assert_eq!(without_password("cql://db1/limpet"), "cql://db1/limpet");
        assert_eq!(without_password("cql://limpet@db1/limpet?x=a:b@c"), "cql://limpet@db1/limpet?x=a:b@c");
    }
}
