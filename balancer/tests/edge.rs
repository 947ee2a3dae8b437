//! A balancer on loopback, with gateways and workers that are a few lines each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use limpet_balancer::{AdminHandle, BalancerConfig, BoundBalancer};
use limpet_link::{Authority, BalancerLink, dial};
use limpet_shared::{
    Eui64, UnixMicros,
    admin::{ErrorKind, Reply, Request, RevokedServer, Role},
    link::{
        Ack, AdminReply, Alive, Cluster, Downlink, Hello, KnownGateway, ToBalancer, UplinkFrame, VERSION, Weight,
        Window, to_balancer::Kind, to_worker,
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Long enough for any machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(30);
const GATEWAY: Eui64 = Eui64(0x0016_c001_ff10_a235);

struct Running {
    folder: TempDir,
    authority: Arc<Authority>,
    gwmp: SocketAddr,
    link: SocketAddr,
    http: SocketAddr,
    admin: AdminHandle,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start() -> Running {
    start_in(tempfile::tempdir().unwrap()).await
}

async fn start_in(folder: TempDir) -> Running {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let authority = Arc::new(Authority::open(&folder.path().join("cluster")).unwrap());
    let config = BalancerConfig {
        gwmp: any,
        link: any,
        admin: Some(any),
        gateway_bytes: 0,
        ..BalancerConfig::new("edge", folder.path())
    };
    let edge = BoundBalancer::bind(config, authority.clone()).await.unwrap();
    let (gwmp, link, http, admin) = (edge.gwmp(), edge.link(), edge.admin().unwrap(), edge.admin_handle());
    let stop = CancellationToken::new();
    let task = tokio::spawn(edge.run(stop.clone()));
    Running { folder, authority, gwmp, link, http, admin, stop, task }
}

impl Running {
    async fn worker(&self, name: &str, instance: u64) -> BalancerLink {
        let folder = self.folder.path().join(name);
        let identity = self.authority.identity(&folder, name, Role::Worker).unwrap();
        let weight = Some(Weight { number: 1, weight: 100, ready: true, ..Weight::default() });
        let hello = Hello { version: VERSION, name: name.into(), instance, weight, ..Hello::default() };
        timeout(PATIENCE, dial(&self.link.to_string(), &identity, hello)).await.unwrap().unwrap()
    }

    /// Waits until the balancer has taken in what was sent on the control stream before.
    async fn knows(&self, worker: &mut BalancerLink, version: u64) {
        let cluster = Cluster {
            version,
            ring_key: Bytes::from_static(&[5; 16]),
            gateways: vec![KnownGateway { eui: GATEWAY.0, ..KnownGateway::default() }],
            ..Cluster::default()
        };
        worker.control_tx.send(Kind::Cluster(cluster)).await.unwrap();
        let have = |m: &to_worker::Kind| matches!(m, to_worker::Kind::ClusterHave(have) if have.version == version);
        told(worker, have).await;
    }

    async fn until(&self, path: &str, status: u16) {
        let came = async {
            while self.get(path).await.0 != status {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, came).await.unwrap();
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split_whitespace().nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

/// The next control message that fits.
async fn told(worker: &mut BalancerLink, fits: impl Fn(&to_worker::Kind) -> bool) -> to_worker::Kind {
    loop {
        let message = timeout(PATIENCE, worker.control_rx.recv()).await.unwrap().unwrap().unwrap();
        if let Some(kind) = message.kind.filter(&fits) {
            return kind;
        }
    }
}

async fn frame(worker: &mut BalancerLink) -> UplinkFrame {
    timeout(PATIENCE, worker.frame_rx.recv()).await.unwrap().unwrap().unwrap()
}

/// Keeps a worker alive in the eyes of the balancer: its loop is well, and it holds nothing.
fn keep_alive(worker: &BalancerLink) -> JoinHandle<()> {
    let control = worker.control_tx.clone();
    tokio::spawn(async move {
        while control.send(Kind::Alive(Alive::default())).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

async fn done(worker: &BalancerLink, seq: u64) {
    let ack = Ack { received: seq, stored: vec![seq], done: vec![seq] };
    worker.ack_tx.send(ack).await.unwrap();
}

async fn gateway(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // As Semtech's forwarder does it: an answer from any other address is never seen.
    socket.connect(server).await.unwrap();
    socket
}

fn gwmp(token: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    let [t0, t1] = token.to_be_bytes();
    [&[2, t0, t1, kind][..], &GATEWAY.0.to_be_bytes(), body].concat()
}

async fn hear(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 2_000];
    let len = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    buffer.truncate(len);
    buffer
}

#[tokio::test]
async fn an_uplink_goes_up_and_a_downlink_comes_down() {
    let balancer = start().await;
    assert_eq!(balancer.get("/readyz").await.0, 503);
    assert_eq!(balancer.get("/healthz").await.0, 200);
    let mut worker = balancer.worker("w1", 1).await;
    balancer.knows(&mut worker, 1).await;
    let _alive = keep_alive(&worker);
    balancer.until("/readyz", 200).await;

    let (up, down) = (gateway(balancer.gwmp).await, gateway(balancer.gwmp).await);
    down.send(&gwmp(0x0102, 2, b"")).await.unwrap();
    assert_eq!(hear(&down).await, [2, 1, 2, 4]);
    let datagram = gwmp(0x0304, 0, br#"{"rxpk":[]}"#);
    up.send(&datagram).await.unwrap();
    let got = frame(&mut worker).await;
    assert_eq!((got.seq, got.gateway, got.attempt, &got.datagram[..]), (1, GATEWAY, 0, &datagram[..]));
    done(&worker, 1).await;
    assert_eq!(hear(&up).await, [2, 3, 4, 1]);

    let json = Bytes::from_static(br#"{"txpk":{"imme":false}}"#);
    let at = UnixMicros(got.received_at.0) + Duration::from_secs(20);
    let windows = vec![Window { number: 1, at: at.0, json: json.clone(), transmission: None }];
    let context = Bytes::from_static(b"ctx");
    let downlink = Downlink { key: 9, gateway: GATEWAY.0, windows, context, ..Downlink::default() };
    worker.control_tx.send(Kind::Downlink(downlink)).await.unwrap();
    let resp = hear(&down).await;
    assert_eq!((resp[0], resp[3], &resp[4..]), (2, 3, &json[..]));
    let token = u16::from_be_bytes([resp[1], resp[2]]);
    up.send(&gwmp(token, 5, b"")).await.unwrap();
    let to_worker::Kind::TxAck(ack) = told(&mut worker, |m| matches!(m, to_worker::Kind::TxAck(_))).await else {
        panic!()
    };
    assert_eq!((ack.key, ack.window, ack.error.as_str(), &ack.context[..]), (9, 1, "", &b"ctx"[..]));

    let (status, ring) = balancer.get(&format!("/ring/{GATEWAY}")).await;
    assert_eq!(status, 200);
    assert!(ring.contains(r#""worker":"w1""#) && ring.contains(&down.local_addr().unwrap().to_string()), "{ring}");
    assert_eq!(balancer.get("/ring/zz").await.0, 400);
    let (_, metrics) = balancer.get("/metrics").await;
    assert!(metrics.contains("limpet_balancer_push_ack_seconds_count 1"), "{metrics}");
    assert!(metrics.contains(r#"limpet_balancer_downlinks_total{result="sent"} 1"#));
    assert!(metrics.contains(r#"limpet_balancer_received_datagrams_total{type="tx_ack"} 1"#));
    balancer.stop.cancel();
    timeout(PATIENCE, balancer.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn frames_of_a_worker_that_goes_away_reach_the_other_one() {
    let balancer = start().await;
    let mut first = balancer.worker("w1", 1).await;
    balancer.knows(&mut first, 1).await;
    let gateway = gateway(balancer.gwmp).await;
    gateway.send(&gwmp(7, 0, b"{}")).await.unwrap();
    let got = frame(&mut first).await;
    let mut second = balancer.worker("w2", 2).await;
    let _alive = keep_alive(&second);
    first.link.abort("killed");
    let again = frame(&mut second).await;
    assert_eq!((again.received_at, again.datagram), (got.received_at, got.datagram));
    assert!(again.attempt > 0);
    done(&second, again.seq).await;
    assert_eq!(hear(&gateway).await, [2, 0, 7, 1]);
}

#[tokio::test]
async fn a_balancer_that_starts_alone_remembers_the_network_and_keeps_frames() {
    let balancer = start().await;
    let mut worker = balancer.worker("w1", 1).await;
    balancer.knows(&mut worker, 41).await;
    balancer.stop.cancel();
    timeout(PATIENCE, balancer.task).await.unwrap().unwrap();

    let balancer = start_in(balancer.folder).await;
    let gateway = gateway(balancer.gwmp).await;
    gateway.send(&gwmp(1, 2, b"")).await.unwrap();
    assert_eq!(hear(&gateway).await[3], 4, "a known gateway is answered without any worker");
    gateway.send(&gwmp(2, 0, b"{}")).await.unwrap();
    let mut worker = balancer.worker("w1", 2).await;
    assert_eq!(worker.welcome.cluster_version, 41);
    let got = frame(&mut worker).await;
    done(&worker, got.seq).await;
    assert_eq!(hear(&gateway).await, [2, 0, 2, 1]);
}

#[tokio::test]
async fn operators_are_answered_here_or_by_a_worker() {
    let balancer = start().await;
    let nobody = balancer.admin.ask(Request::gateways()).await;
    assert!(matches!(nobody, Reply::Error { kind: ErrorKind::Unavailable, .. }), "{nobody:?}");
    let token = balancer.admin.ask(Request::JoinToken { role: Role::Worker, expires_in_secs: 60, uses: 1 }).await;
    assert!(matches!(token, Reply::JoinToken { .. }), "{token:?}");
    let mut worker = balancer.worker("w1", 1).await;
    let _alive = keep_alive(&worker);
    let (control, admin) = (worker.control_tx.clone(), balancer.admin.clone());
    let asked = tokio::spawn(async move { admin.ask(Request::gateways()).await });
    let to_worker::Kind::Admin(question) = told(&mut worker, |m| matches!(m, to_worker::Kind::Admin(_))).await else {
        panic!()
    };
    assert_eq!(question.request, r#"{"ask":"gateways","search":"","offset":0}"#);
    let reply = r#"{"answer":"gateways","gateways":[]}"#.to_owned();
    control.send(Kind::AdminReply(AdminReply { id: question.id, reply })).await.unwrap();
    assert_eq!(asked.await.unwrap(), Reply::gateways(vec![]));
    let Reply::Servers { servers } = balancer.admin.ask(Request::Servers).await else { panic!() };
    let names: Vec<_> = servers.iter().map(|s| (s.name.as_str(), s.role.as_str())).collect();
    assert_eq!(names, [("edge", "balancer"), ("w1", "worker")]);

    let request = r#"{"ask":"servers"}"#.to_owned();
    let ask = limpet_shared::link::Admin { id: 5, request };
    control.send(ToBalancer::from(Kind::Admin(ask))).await.unwrap();
    let reply = told(&mut worker, |m| matches!(m, to_worker::Kind::AdminReply(reply) if reply.id == 5)).await;
    let to_worker::Kind::AdminReply(reply) = reply else { panic!() };
    assert!(reply.reply.contains("w1"), "a worker asks the balancer what balancers know");
}

#[tokio::test]
async fn a_name_is_refused_while_its_holder_lives_and_a_certificate_is_renewed() {
    let balancer = start().await;
    let folder = balancer.folder.path().join("w1");
    let identity = balancer.authority.identity(&folder, "w1", Role::Worker).unwrap();
    let mut worker = balancer.worker("w1", 1).await;
    let (mut alive, mut instance) = (keep_alive(&worker), 1);
    // A machine that stands still for long makes a holder look silent; then the next one is the holder.
    let refused = loop {
        instance += 1;
        let hello = Hello { version: VERSION, name: "w1".into(), instance, ..Hello::default() };
        match dial(&balancer.link.to_string(), &identity, hello).await {
            Ok(next) => worker = next,
            Err(error) => break error,
        }
        alive.abort();
        alive = keep_alive(&worker);
    };
    assert!(refused.to_string().contains("taken by another live server"), "{refused}");
    let csr = Bytes::from(identity.csr().unwrap());
    worker.control_tx.send(Kind::Renew(limpet_shared::link::Renew { csr })).await.unwrap();
    let renewed = told(&mut worker, |m| matches!(m, to_worker::Kind::Renewed(_))).await;
    let to_worker::Kind::Renewed(renewed) = renewed else { panic!() };
    assert_eq!(identity.renewed(&renewed.certificate).unwrap().name(), "w1");
}

/// Its loop runs and it acknowledges, but it leaves in the stream what it is sent.
#[tokio::test]
async fn a_worker_that_reads_too_slowly_gets_little_and_nothing_that_another_one_has_done() {
    const FRAMES: u16 = 60;
    let balancer = start().await;
    let mut slow = balancer.worker("w1", 1).await;
    balancer.knows(&mut slow, 1).await;
    balancer.until("/readyz", 200).await;
    let acks = slow.ack_tx.clone();
    let _loop = tokio::spawn(async move {
        while acks.send(Ack::default()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let gateway = gateway(balancer.gwmp).await;
    for token in 0..FRAMES {
        gateway.send(&gwmp(token, 0, &[b' '; 60_000])).await.unwrap();
        // One after the other, for the kernel's buffer may be small.
        let held = format!("limpet_balancer_retained_frames {}\n", token + 1);
        let taken = async { while !balancer.get("/metrics").await.1.contains(&held) {} };
        timeout(PATIENCE, taken).await.unwrap();
    }
    let mut quick = balancer.worker("w2", 2).await;
    let _alive = keep_alive(&quick);
    for _ in 0..FRAMES {
        let got = frame(&mut quick).await;
        done(&quick, got.seq).await;
        assert_eq!(hear(&gateway).await.len(), 4);
    }
    let mut left = 0;
    while let Ok(frame) = timeout(Duration::from_millis(300), slow.frame_rx.recv()).await {
        frame.unwrap().unwrap();
        left += 1;
    }
    // Those that the stream's window had room for.
    assert!(left < 50, "{left} frames of {FRAMES} for nothing");
}

/// What the balancer answers to a worker's question.
async fn asked(worker: &mut BalancerLink, id: u64, request: &Request) -> Reply {
    let request = serde_json::to_string(request).unwrap();
    worker.control_tx.send(Kind::Admin(limpet_shared::link::Admin { id, request })).await.unwrap();
    let mine = |m: &to_worker::Kind| matches!(m, to_worker::Kind::AdminReply(reply) if reply.id == id);
    let to_worker::Kind::AdminReply(reply) = told(worker, mine).await else { panic!() };
    serde_json::from_str(&reply.reply).unwrap()
}

fn why(reply: Reply) -> String {
    match reply {
        Reply::Error { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_workers_certificate_does_not_buy_the_keys_of_the_cluster() {
    let balancer = start().await;
    let mut worker = balancer.worker("w1", 1).await;
    let token = |role, expires_in_secs, uses| Request::JoinToken { role, expires_in_secs, uses };
    let refused = why(asked(&mut worker, 1, &token(Role::Balancer, 60, 1)).await);
    let command = format!("limpet ctl --data {} join-token --role balancer", balancer.folder.path().display());
    assert!(refused.contains("on the machine of edge") && refused.contains(&command), "{refused}");
    for (life, uses) in [(365 * 86_400, 1), (60, 10_000)] {
        let refused = why(asked(&mut worker, 2, &token(Role::Worker, life, uses)).await);
        assert!(refused.contains("at most 7d and 100 servers"), "{refused}");
    }
    let good = asked(&mut worker, 3, &token(Role::Worker, 86_400, 100)).await;
    assert!(matches!(good, Reply::JoinToken { .. }), "{good:?}");
    // Beside the balancer, and nowhere else.
    let own = balancer.admin.ask(token(Role::Balancer, 60, 1)).await;
    assert!(matches!(own, Reply::JoinToken { .. }), "{own:?}");
}

#[tokio::test]
async fn a_store_that_was_put_back_hears_of_servers_that_were_removed_since() {
    let balancer = start().await;
    let mut worker = balancer.worker("w1", 1).await;
    let _alive = keep_alive(&worker);
    let west = RevokedServer { name: "west".into(), role: Role::Balancer, key: "00ff".into(), ..Default::default() };
    let mut forgotten = async |id, revoked| match asked(&mut worker, id, &roll_call(revoked)).await {
        Reply::RollCall { revoked, .. } => revoked,
        other => panic!("{other:?}"),
    };
    assert_eq!(forgotten(1, vec![west.clone()]).await, []);
    let told = forgotten(2, vec![]).await;
    assert_eq!((told.len(), &told[0].name, told[0].role, &told[0].key), (1, &west.name, west.role, &west.key));
    assert_eq!(forgotten(3, told).await, []);
}

fn roll_call(revoked: Vec<RevokedServer>) -> Request {
    let (tokens, balancers, store_note, token_keys) = Default::default();
    Request::RollCall { revoked, tokens, balancers, store_note, token_keys, more_token_keys: Vec::new() }
}

#[tokio::test]
async fn a_removed_worker_gets_neither_a_certificate_nor_an_answer() {
    let balancer = start().await;
    let identity =
        |name: &str| balancer.authority.identity(&balancer.folder.path().join(name), name, Role::Worker).unwrap();
    let mut worker = balancer.worker("w1", 1).await;
    let _alive = keep_alive(&worker);
    let renew = |csr: Vec<u8>| Kind::Renew(limpet_shared::link::Renew { csr: csr.into() });
    // Another key than that of its certificate: what follows is the answer to the second request.
    worker.control_tx.send(renew(identity("v").csr().unwrap())).await.unwrap();
    worker.control_tx.send(renew(identity("w1").csr().unwrap())).await.unwrap();
    let renewed = told(&mut worker, |m| matches!(m, to_worker::Kind::Renewed(_))).await;
    let to_worker::Kind::Renewed(renewed) = renewed else { panic!() };
    identity("w1").renewed(&renewed.certificate).unwrap();

    let key = identity("w1").key_id().to_owned();
    let revoked = vec![RevokedServer { name: "w1".into(), key, ..RevokedServer::default() }];
    assert!(matches!(asked(&mut worker, 1, &roll_call(revoked)).await, Reply::RollCall { .. }));
    worker.control_tx.send(renew(identity("w1").csr().unwrap())).await.unwrap();
    let request = serde_json::to_string(&Request::JoinToken { role: Role::Worker, expires_in_secs: 60, uses: 1 });
    let ask = limpet_shared::link::Admin { id: 2, request: request.unwrap() };
    worker.control_tx.send(Kind::Admin(ask)).await.unwrap();
    let either = |m: &to_worker::Kind| matches!(m, to_worker::Kind::Renewed(_) | to_worker::Kind::AdminReply(_));
    let to_worker::Kind::AdminReply(reply) = told(&mut worker, either).await else { panic!("it was renewed") };
    assert!(reply.reply.contains("was removed from this cluster"), "{}", reply.reply);
}

#[tokio::test]
async fn who_was_linked_before_a_change_of_the_ca_and_is_not_known_in_it_is_let_go_and_gets_no_certificate() {
    let balancer = start().await;
    let identity =
        |name: &str| balancer.authority.identity(&balancer.folder.path().join(name), name, Role::Worker).unwrap();
    let (mut known, mut forged) = (balancer.worker("w1", 1).await, balancer.worker("w2", 2).await);
    let _alive = (keep_alive(&known), keep_alive(&forged));
    let renew = |csr: Vec<u8>| Kind::Renew(limpet_shared::link::Renew { csr: csr.into() });
    let (first, second) = (identity("w1"), identity("w2"));
    let now = limpet_link::time::now();
    assert!(balancer.authority.rotate_ca([first.key_id().to_owned()].into(), now).unwrap());

    forged.control_tx.send(renew(second.csr().unwrap())).await.unwrap();
    let ended = async {
        while let Ok(Some(message)) = forged.control_rx.recv().await {
            assert!(
                !matches!(message.kind, Some(to_worker::Kind::Renewed(_))),
                "it bought a certificate of the new CA"
            );
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("its link ends");
    known.control_tx.send(renew(first.csr().unwrap())).await.unwrap();
    assert!(matches!(
        told(&mut known, |m| matches!(m, to_worker::Kind::Renewed(_))).await,
        to_worker::Kind::Renewed(_)
    ));
}

#[tokio::test]
async fn a_stranger_to_a_change_of_the_ca_that_asks_for_nothing_is_let_go_when_another_calls_the_roll() {
    let balancer = start().await;
    let (mut known, mut forged) = (balancer.worker("w1", 1).await, balancer.worker("w2", 2).await);
    let _alive = (keep_alive(&known), keep_alive(&forged));
    let first = balancer.authority.identity(&balancer.folder.path().join("w1"), "w1", Role::Worker).unwrap();
    assert!(balancer.authority.rotate_ca([first.key_id().to_owned()].into(), limpet_link::time::now()).unwrap());
    assert!(matches!(asked(&mut known, 1, &roll_call(Vec::new())).await, Reply::RollCall { .. }));
    let ended = async { while let Ok(Some(_)) = forged.control_rx.recv().await {} };
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("its link ends");
}
