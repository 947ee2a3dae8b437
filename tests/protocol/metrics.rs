//! What Prometheus makes of `/metrics`.

use std::{io::Write, net::SocketAddr, path::Path, process::Command};

use limpet_bench::{GatewayConfig, Uplink};

use crate::{network::Network, raw::Socket, site::Site, support::promtool};

async fn check(promtool: &Path, network: &Network, role: &str, address: SocketAddr) {
    let text = network.metrics(address).await;
    assert!(text.contains(&format!("\nlimpet_{role}_")), "{role} has no metrics of its own:\n{text}");
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let checked = Command::new(promtool).args(["check", "metrics"]).stdin(file).output().unwrap();
    assert!(checked.status.success(), "{role}: {}", String::from_utf8_lossy(&checked.stderr));
}

/// Each role in a process of its own, with something to count: joins, uplinks, downlinks, drops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_of_a_busy_balancer_and_worker_pass_promtool() {
    let Some(promtool) = promtool() else { return };
    let network = Network::cluster(&["w1"]).await;
    let mut site = Site::start(vec![GatewayConfig::new(network.gateway(), network.gwmp)]).await;
    let mut device = network.abp();
    let packet = device.uplink(&Uplink { confirmed: true, fport: Some(1), ..Default::default() }).unwrap();
    site.exchange_with_all(&mut device, &packet).await.only();
    let socket = Socket::open(network.gwmp, network.gateway(), 2).await;
    socket.report(1, &[]).await;
    socket.push(2, b"{").await;
    socket.answer().await;
    socket.send(b"junk").await;
    check(&promtool, &network, "balancer", network.admin).await;
    check(&promtool, &network, "worker", network.http).await;
}
