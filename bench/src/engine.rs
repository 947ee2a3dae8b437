//! A real CQL engine on loopback, through `scripts/cql-engine.sh`: for the tests that need one. It has ScyllaDB's limits,
//! and the tests are an ordinary role to it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// What the script says when the engine cannot be had on this machine.
const NOT_TO_BE_HAD: i32 = 3;

/// Nodes of a test's own, ended and deleted with it; or the engine that `LIMPET_TEST_CQL` names, which is left as it is.
#[derive(Debug)]
pub struct Engine {
    folder: PathBuf,
    net: String,
    url: String,
    external: bool,
    yaml: Option<PathBuf>,
}

/// What is asked of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`.
    Kill,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
    /// Starts a dead node again, and waits until it takes part.
    Restart,
}

impl Engine {
    /// Starts that many nodes (1 or 3) on the loopback addresses `net`.1 and up, with their data under `folder`, and waits
    /// until they work together. `Err` says what is missing on this machine.
    ///
    /// # Panics
    /// If the engine is here and does not start.
    #[allow(clippy::panic)] // For tests only: they end here.
    pub fn start(nodes: u8, folder: &Path, net: &str) -> Result<Self, String> {
        Self::start_with(nodes, folder, net, None)
    }

    /// The same, with the lines of a file added to Cassandra's configuration.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[allow(clippy::panic)] // For tests only: they end here.
    pub fn start_with(nodes: u8, folder: &Path, net: &str, yaml: Option<&Path>) -> Result<Self, String> {
        let external = std::env::var_os("LIMPET_TEST_CQL").is_some_and(|hosts| !hosts.is_empty());
        let mut engine = Self {
            folder: folder.into(),
            net: net.into(),
            url: String::new(),
            external,
            yaml: yaml.map(PathBuf::from),
        };
        if !external {
            let fetched = engine.script(&["fetch"]);
            if fetched.status.code() == Some(NOT_TO_BE_HAD) {
                return Err(told(&fetched));
            }
        }
        let started = engine.script(&["start", &nodes.to_string()]);
        if started.status.code() == Some(NOT_TO_BE_HAD) {
            return Err(told(&started));
        }
        assert!(started.status.success(), "the CQL engine did not start: {}", told(&started));
        let said = String::from_utf8_lossy(&started.stdout).into_owned();
        engine.url = said.lines().last().unwrap_or_default().trim().to_owned();
        Ok(engine)
    }

    /// The URL of a store in this keyspace.
    pub fn store(&self, keyspace: &str) -> String {
        format!("{}/{keyspace}", self.url.trim_end_matches('/'))
    }

    /// Whether its nodes may be killed: it is this test's own.
    pub fn is_ours(&self) -> bool {
        !self.external
    }

    /// Does that to a node, numbered from 1.
    ///
    /// # Panics
    /// If it cannot be done.
    pub fn fault(&self, fault: Fault, node: u8) {
        let word = match fault {
            Fault::Kill => "kill",
            Fault::Pause => "pause",
            Fault::Resume => "resume",
            Fault::Restart => "restart",
        };
        let done = self.script(&[word, &node.to_string()]);
        assert!(done.status.success(), "{word} {node}: {}", told(&done));
    }

    /// Requests that its nodes served since they started: `CASWrite`, `CASRead`, `Write` or `Read`.
    ///
    /// # Panics
    /// If the engine does not say.
    pub fn count(&self, scope: &str) -> u64 {
        let counted = self.script(&["count", scope]);
        let said = String::from_utf8_lossy(&counted.stdout).into_owned();
        let number = said.split_whitespace().last().and_then(|word| word.parse().ok());
        assert!(number.is_some(), "count {scope}: {}", told(&counted));
        number.unwrap_or_default()
    }

    /// Sets a limit of a node of Cassandra while it runs, by its name among the guardrails. False if this is no Cassandra of
    /// ours.
    pub fn limit(&self, name: &str, value: &str) -> bool {
        let bean = ["sjk", "mx", "-b", "org.apache.cassandra.db:type=Guardrails", "-ms", "-f", name, "-v", value];
        self.is_ours() && self.script(&[&["nodetool", "1"][..], &bean].concat()).status.success()
    }

    /// The processes of its nodes.
    pub fn pids(&self) -> Vec<u32> {
        let status = self.script(&["status"]);
        let said = String::from_utf8_lossy(&status.stdout).into_owned();
        said.lines().filter_map(|line| line.split_whitespace().last()?.parse().ok()).collect()
    }

    fn script(&self, arguments: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("scripts").join("cql-engine.sh");
        let mut command = Command::new(script);
        command.args(arguments).env("LIMPET_CQL_DIR", &self.folder).env("LIMPET_CQL_NET", &self.net);
        if let Some(yaml) = &self.yaml {
            command.env("LIMPET_CQL_YAML", yaml);
        }
        command.stdin(Stdio::null());
        match command.output() {
            Ok(output) => output,
            Err(error) => Output {
                status: std::os::unix::process::ExitStatusExt::from_raw(1 << 8),
                stdout: Vec::new(),
                stderr: error.to_string().into_bytes(),
            },
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !self.external {
            let wiped = self.script(&["wipe"]);
            if !wiped.status.success() {
                eprintln!("the CQL engine in {} is left over: {}", self.folder.display(), told(&wiped));
            }
        }
    }
}

/// Hosts with their ports, log-in (user and password) and keyspace of a store URL that [`Engine::store`] gave: for tests
/// that speak to the engine themselves.
pub fn parts(url: &str) -> (Vec<&str>, Option<(&str, &str)>, &str) {
    let rest = url.strip_prefix("cql://").unwrap_or(url);
    let (authority, keyspace) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (login.split_once(':'), hosts),
        None => (None, authority),
    };
    (hosts.split(',').collect(), login, keyspace.split('?').next().unwrap_or_default())
}

fn told(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}{}", stdout.trim(), stderr.trim())
}
