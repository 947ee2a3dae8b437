//! The balancer beside what people would use instead: the same datagrams pass through nginx's stream module, and through
//! the least forwarder that there can be. Processor time is that of the process in the middle alone.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use limpet_shared::gwmp::{self, Datr, Rxpk};

use crate::{
    Outcome, Plan,
    load::{Gateways, Shot, percentiles},
    process::{Folder, Process, free_addresses},
    servers::Servers,
    stub,
};

const GATEWAYS: usize = 200;
const WARM: Duration = Duration::from_secs(1);
/// All datagrams have so many bytes, as one with a frame of 40 bytes and a few fields more.
const LENGTH: usize = 299;

/// Something that stands between gateways and a server.
struct Passage<'a> {
    name: &'static str,
    process: &'a Process,
    address: SocketAddr,
}

pub async fn run(plan: &Plan) -> Outcome<()> {
    let folder = Folder::new(&plan.target, "passing")?;
    let [bare, nginx, server] = free_addresses()?;
    let me = std::env::current_exe()?;
    let log = |name: &str| folder.path().join(name);
    let _server =
        Process::start("server", Command::new(&me).args(["answer", &server.to_string()]), &log("server.log"))?;
    let forward = ["forward", &bare.to_string(), &server.to_string()];
    let forwarder = Process::start("forwarder", Command::new(&me).args(forward), &log("forwarder.log"))?;
    let front = start_nginx(plan, &folder, nginx, server)?;
    let mut gateways = Gateways::new(GATEWAYS)?;
    let limpet = Servers::balancer(plan).await?;
    // It must not wait for a processor behind the load, which is on other threads.
    let euis = gateways.euis.clone();
    let (token, data) = (limpet.token.clone(), limpet.folder().join("stub"));
    let (ready, readied) = tokio::sync::oneshot::channel();
    let (done, end) = tokio::sync::oneshot::channel::<()>();
    let stub = std::thread::spawn(move || -> Outcome<()> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let _work = stub::start(&token, &data, &euis).await?;
            let _ = ready.send(());
            let _ = end.await;
            Ok(())
        })
    });
    readied.await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut passages = vec![Passage { name: "forwarder", process: &forwarder, address: bare }];
    passages.extend(front.as_ref().map(|process| Passage { name: "nginx stream", process, address: nginx }));
    passages.push(Passage { name: "Limpet's balancer", process: &limpet.balancer, address: limpet.gwmp });
    println!("\n### A datagram of {LENGTH} bytes and its PUSH_ACK, from {GATEWAYS} gateways\n");
    if front.is_none() {
        println!("nginx is missing: `make test-tools` gets it.\n");
    }
    println!(
        "| through | datagrams/s | CPU us a round trip | context switches a round trip | p50 / p99 us | not acknowledged |"
    );
    println!("|---|---|---|---|---|---|");
    for rate in [1_000, 4_000, 10_000] {
        for passage in &passages {
            passage.measure(plan, rate, &mut gateways).await?;
        }
    }
    drop(done);
    stub.join().map_err(|_| "the stub broke down")?
}

impl Passage<'_> {
    async fn measure(&self, plan: &Plan, rate: u32, gateways: &mut Gateways) -> Outcome<()> {
        let length = if plan.long { plan.measured() } else { Duration::from_secs(5) };
        gateways.connect(self.address)?;
        let shots = shots(rate, WARM + length, gateways);
        let began = Instant::now();
        let playing = gateways.play(shots)?;
        tokio::time::sleep_until((began + WARM).into()).await;
        let before = self.process.used()?;
        tokio::time::sleep_until((began + WARM + length).into()).await;
        let spent = self.process.since(&before)?;
        let played =
            tokio::task::spawn_blocking(move || playing.join()).await?.map_err(|_| "the gateways broke down")??;
        let times: Vec<Duration> = played.acked.iter().copied().flatten().collect();
        let missing = played.acked.len() - times.len();
        let trips = f64::from(rate) * length.as_secs_f64();
        let [half, most] = percentiles(times).map(|time| time.as_micros());
        println!(
            "| {} | {rate} | {:.1} | {:.2} | {half} / {most} | {missing} |",
            self.name,
            spent.cpu.as_secs_f64() * 1e6 / trips,
            spent.switches as f64 / trips
        );
        Ok(())
    }
}

/// Each gateway in turn. No token comes again for a long time, so that the forwarder needs nothing else.
fn shots(rate: u32, length: Duration, gateways: &Gateways) -> Vec<Shot> {
    let datr = Datr::Lora { spreading_factor: 7, bandwidth_khz: 125 };
    let packet = Rxpk { tmst: Some(1), ..Rxpk::new(868_100_000, datr, vec![0x40; 40]) };
    let mut json = gwmp::push_data_json(&[packet], None);
    // JSON may end with white space.
    json.resize(LENGTH - 12, b' ');
    let count = (length.as_secs_f64() * f64::from(rate)) as usize;
    let shot = |number: usize| {
        let gateway = number % gateways.euis.len();
        let eui = gateways.euis.get(gateway).copied().unwrap_or_default();
        let at = Duration::from_secs_f64(number as f64 / f64::from(rate));
        Shot { at, gateway, datagram: gwmp::push_data(2, number as u16, eui, &json) }
    };
    (0..count).map(shot).collect()
}

/// As `make test-tools` has put it into the target folder.
fn start_nginx(plan: &Plan, folder: &Folder, listen: SocketAddr, server: SocketAddr) -> Outcome<Option<Process>> {
    let tools: PathBuf = plan.target.join("tools/nginx");
    let binary = tools.join("usr/sbin/nginx");
    if !binary.exists() {
        return Ok(None);
    }
    let (place, module) = (folder.path().display(), tools.join("usr/lib/nginx/modules/ngx_stream_module.so"));
    let configuration = folder.path().join("nginx.conf");
    fs::write(
        &configuration,
        format!(
            "load_module {};\npid {place}/nginx.pid;\nerror_log {place}/error.log;\nworker_processes 1;\nmaster_process off;\n\
             events {{ worker_connections 4096; }}\nstream {{\n server {{\n listen {listen} udp;\n proxy_pass {server};\n proxy_timeout 120s;\n }}\n}}\n",
            module.display()
        ),
    )?;
    let mut command = Command::new(binary);
    command.args(["-p", &place.to_string(), "-e", &format!("{place}/error.log"), "-g", "daemon off;", "-c"]);
    command.arg(&configuration);
    Ok(Some(Process::start("nginx", &mut command, &folder.path().join("nginx.log"))?))
}
