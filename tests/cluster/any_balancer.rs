//! A third-party balancer in front of several `limpet up` on one store: nginx with the files of `deploy/nginx`.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use limpet_bench::simulate::{ApiAccess, Credentials, Pace, SimulateConfig, Summary, run_until};
use tokio_util::sync::CancellationToken;

use crate::{
    join_line::Pasted,
    support::{Limpet, ctl, eventually, free_address, free_addresses},
    turn,
};

/// nginx as `make test` puts it into the target folder, with the folder of its modules.
fn nginx() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_limpet")).ancestors().nth(2).unwrap();
    let nginx = target.join("tools/nginx/usr/sbin/nginx");
    if nginx.exists() {
        return Some(nginx);
    }
    let missing = format!("nginx is missing at {}; `make test-tools` gets it", nginx.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
    println!("skipped: {missing}");
    None
}

/// One `limpet up`.
struct Machine {
    name: &'static str,
    addresses: [SocketAddr; 4],
    data: PathBuf,
    process: Option<Limpet>,
}

impl Machine {
    fn new(name: &'static str, folder: &Path) -> Self {
        Self { name, addresses: free_addresses(), data: folder.join(name), process: None }
    }

    fn gwmp(&self) -> SocketAddr {
        self.addresses[0]
    }

    fn link(&self) -> String {
        self.addresses[1].to_string()
    }

    fn readiness(&self) -> String {
        format!("http://{}/readyz", self.addresses[2])
    }

    /// All machines have one list of balancers, and each leaves itself out.
    async fn start(&mut self, store: &Path, balancers: &str, join: &[&str]) {
        let [gwmp, link, admin, http] = self.addresses.map(|address| address.to_string());
        let store = format!("sqlite:{}", store.display());
        let who = ["up", "--name", self.name, "--data", self.data.to_str().unwrap(), "--store", &store];
        let listen = ["--gwmp", &gwmp, "--link", &link, "--admin", &admin, "--http", &http, "--advertise", &link];
        let more = ["--balancer", balancers, "--admin-password", "any-balancer"];
        let mut process = Limpet::start(self.name, &[&who[..], &listen, &more, join].concat());
        process.line_with("Limpet is running").await;
        self.process = Some(process);
    }

    /// Waits until the machine's balancer has as many ready workers.
    async fn workers(&self, count: usize) {
        eventually(&format!("{count} workers at {}", self.name), async || {
            let said = ctl(&self.data, &["--json", "servers"]).stdout;
            let servers: serde_json::Value = serde_json::from_slice(&said).ok()?;
            // On a slow machine a worker may have all it can do, and works all the same.
            let works = |state: &serde_json::Value| state == "ready" || state == "overloaded";
            let ready = |server: &&serde_json::Value| server["role"] == "worker" && works(&server["state"]);
            (servers["servers"].as_array()?.iter().filter(ready).count() == count).then_some(())
        })
        .await;
    }

    /// The sum of this metric's series.
    async fn count(&self, role: &str, metric: &str) -> f64 {
        let address = if role == "worker" { self.addresses[3] } else { self.addresses[2] };
        let text = reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap();
        let name = format!("limpet_{role}_{metric}");
        let series = text.lines().filter_map(|line| line.strip_prefix(&name)?.rsplit(' ').next()?.parse::<f64>().ok());
        series.sum()
    }
}

/// nginx and its probe, with what `deploy/nginx` says about everything but the addresses.
struct Front {
    gwmp: SocketAddr,
    servers: PathBuf,
    _probe: Pasted,
    _nginx: Pasted,
}

impl Front {
    fn start(nginx: &Path, folder: &Path, machines: &[&Machine]) -> Self {
        let gwmp = SocketAddr::from((Ipv4Addr::LOCALHOST, free_address().port()));
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/nginx");
        let stream = fs::read_to_string(deploy.join("limpet.conf")).unwrap();
        let listening = stream.replace("listen 1700 udp", &format!("listen {gwmp} udp"));
        assert_ne!(stream, listening);
        let (configuration, list) = (folder.join("nginx.conf"), folder.join("limpet-machines"));
        let servers = folder.join("limpet-servers.conf");
        let module = nginx.ancestors().nth(3).unwrap().join("usr/lib/nginx/modules/ngx_stream_module.so");
        let main = "worker_processes 2;\nworker_shutdown_timeout 10s;\nevents {}\n";
        let (module, place) = (module.display(), folder.display());
        let head = format!("load_module {module};\npid {place}/nginx.pid;\nerror_log {place}/error.log info;\n{main}");
        fs::write(&configuration, head + &listening).unwrap();
        let lines = machines.iter().map(|m| format!("{} {}\n", m.gwmp(), m.readiness()));
        fs::write(&list, lines.collect::<String>()).unwrap();
        let all = machines.iter().map(|m| format!("server {} max_fails=1 fail_timeout=5s;\n", m.gwmp()));
        fs::write(&servers, all.collect::<String>()).unwrap();
        let arguments = format!("-p {place} -e {place}/error.log -c {}", configuration.display());
        let run = format!("exec {} {arguments} -g 'daemon off;'", nginx.display());
        let path = format!("PATH={}:$PATH", nginx.parent().unwrap().display());
        let files = format!("{} {}", list.display(), servers.display());
        let probe = format!("{path} exec {} {files} {arguments}", deploy.join("probe.sh").display());
        Self { gwmp, servers, _nginx: Pasted::start(&run, folder), _probe: Pasted::start(&probe, folder) }
    }

    /// Waits until the probe has told nginx so of this machine.
    async fn told(&self, machine: &Machine, down: bool) {
        let what = format!("nginx to be told that {} is {}", machine.name, if down { "down" } else { "up" });
        eventually(&what, async || {
            let text = fs::read_to_string(&self.servers).ok()?;
            let line = text.lines().find(|line| line.contains(&format!(" {}", machine.gwmp())))?.to_owned();
            (line.ends_with(" down;") == down).then_some(())
        })
        .await;
    }
}

/// Forty gateways, so that no ring gives all of them to one worker. Every one of them has the same address: one machine
/// is their edge.
async fn traffic(front: &Front, api: SocketAddr, seed: u64) -> Summary {
    let credentials = Credentials::Password { user: "admin".into(), password: "any-balancer".into() };
    let plan = SimulateConfig {
        server: front.gwmp.to_string(),
        api: Some(ApiAccess { url: format!("http://{api}"), credentials }),
        gateways: 40,
        devices: 40,
        copies: 1,
        uplinks: 2,
        pace: Pace::Rate(10.0),
        confirmed: 100,
        seed: Some(seed),
        ..SimulateConfig::default()
    };
    run_until(plan, |_| {}, CancellationToken::new().cancelled_owned()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_behind_nginx_are_one_network_and_one_of_them_may_die() {
    let Some(nginx) = nginx() else { return };
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let [mut a, mut b] = ["a", "b"].map(|name| Machine::new(name, folder.path()));
    let balancers = [a.link(), b.link()].join(",");
    a.start(&store, &balancers, &[]).await;
    let made = ctl(&a.data, &["join-token", "--role", "balancer", "--uses", "1"]);
    let token = String::from_utf8(made.stdout).unwrap().lines().last().unwrap().to_owned();
    b.start(&store, &balancers, &["--join", &token]).await;
    a.workers(2).await;
    b.workers(2).await;

    let front = Front::start(&nginx, folder.path(), &[&a, &b]);
    let summary = traffic(&front, a.addresses[3], 1).await;
    assert_eq!((summary.missing.as_slice(), summary.uplinks.acknowledged), (&[][..], 80), "{summary}");
    let heard =
        [a.count("balancer", "received_datagrams_total").await, b.count("balancer", "received_datagrams_total").await];
    assert!(heard.contains(&0.0), "one address has one machine: {heard:?}");
    for machine in [&a, &b] {
        assert!(machine.count("worker", "uplinks_accepted_total").await > 0.0, "the ring goes by the EUI");
    }

    // The machine that nginx chose dies; the other one goes on alone, and takes the first one's back when it returns.
    let (edge, other) = if heard[0] > 0.0 { (&mut a, &b) } else { (&mut b, &a) };
    edge.process.take().unwrap().kill();
    front.told(edge, true).await;
    other.workers(1).await;
    let summary = traffic(&front, other.addresses[3], 2).await;
    assert_eq!((summary.missing.as_slice(), summary.uplinks.acknowledged), (&[][..], 80), "{summary}");
    edge.start(&store, &balancers, &[]).await;
    front.told(edge, false).await;
    edge.workers(2).await;
}
