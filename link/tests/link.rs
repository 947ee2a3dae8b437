//! Join and link over loopback, with real endpoints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use limpet_link::{
    Authority, BalancerLink, DialError, Ended, Identity, Incoming, JoinError, LinkServer, NameState, Outgoing,
    ServerConfig, Token, WorkerLink, dial, dial_unless, ensure_balancer, ensure_worker, identity, join, outgoing, time,
    token::{Fingerprint, NewToken, TokenKey},
};
use limpet_shared::{
    Eui64, UnixMicros,
    admin::Role,
    link::{
        Ack, Alive, Cluster, Drain, Hello, KnownGateway, MAX_DATAGRAM, Refused, UplinkFrame, VERSION, Welcome,
        to_balancer, to_worker,
    },
};
use tempfile::TempDir;
use tokio::time::timeout;

/// Long enough for any machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(30);

struct Balancer {
    server: Arc<LinkServer>,
    authority: Arc<Authority>,
    address: String,
    names: Arc<Mutex<Vec<(String, NameState)>>>,
    folder: TempDir,
}

impl Balancer {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(&folder.path().join("cluster")).unwrap());
        Self::start_in(folder, authority, "127.0.0.1:0".parse().unwrap())
    }

    fn start_in(folder: TempDir, authority: Arc<Authority>, listen: SocketAddr) -> Self {
        let names = Arc::new(Mutex::new(Vec::<(String, NameState)>::new()));
        let known = names.clone();
        let look_up = move |name: &str, _: Option<&str>| {
            let known = known.lock().unwrap();
            known.iter().find(|(n, _)| n == name).map_or(NameState::Free, |(_, state)| *state)
        };
        let cluster = folder.path().join("cluster");
        let config = ServerConfig { listen, name: "edge-1".into(), cluster, advertise: Vec::new() };
        let server = LinkServer::bind(config, authority.clone(), Arc::new(look_up)).unwrap();
        let address = server.local_addr().to_string();
        Self { server: Arc::new(server), authority, address, names, folder }
    }

    fn data(&self) -> &Path {
        self.folder.path()
    }

    fn token(&self, role: Role, uses: u32) -> Token {
        self.server.token(role, Duration::from_secs(60), uses).unwrap()
    }

    fn worker(&self, name: &str) -> Identity {
        self.authority.identity(&self.data().join(name), name, Role::Worker).unwrap()
    }

    fn set_name(&self, name: &str, state: NameState) {
        self.names.lock().unwrap().push((name.into(), state));
    }

    async fn accept(&self) -> Incoming {
        timeout(PATIENCE, self.server.accept()).await.unwrap().unwrap()
    }

    async fn link(&self, name: &str) -> (WorkerLink, Outgoing, BalancerLink) {
        let identity = self.worker(name);
        let (outgoing, queues) = outgoing();
        let (incoming, dialled) = tokio::join!(
            async {
                let welcome = Welcome { name: "edge-1".into(), ..Welcome::default() };
                self.accept().await.welcome(welcome, queues).await
            },
            dial(&self.address, &identity, hello(name)),
        );
        (incoming.unwrap(), outgoing, dialled.unwrap())
    }
}

fn hello(name: &str) -> Hello {
    Hello { version: VERSION, name: name.into(), instance: 7, ..Hello::default() }
}

fn frame(seq: u64, len: usize) -> UplinkFrame {
    UplinkFrame {
        seq,
        received_at: UnixMicros(seq),
        gateway: Eui64(seq),
        attempt: 0,
        datagram: Bytes::from(vec![seq as u8; len]),
    }
}

async fn refusal(address: &str, identity: &Identity, hello: Hello) -> String {
    match timeout(PATIENCE, dial(address, identity, hello)).await.unwrap() {
        Err(error) => error.to_string(),
        Ok(_) => panic!("was let in"),
    }
}

#[tokio::test]
async fn a_token_makes_a_stranger_a_worker_that_links_up() {
    let balancer = Balancer::start();
    let token = balancer.token(Role::Worker, 1);
    assert_eq!(token.addresses, [balancer.address.as_str()]);
    let data = tempfile::tempdir().unwrap();
    let member = ensure_worker(data.path(), Some(&token), "worker-1", true).await.unwrap();
    assert_eq!((member.identity.name(), member.identity.role()), ("worker-1", Role::Worker));
    assert_eq!(member.balancers, [balancer.address.as_str()]);
    assert!(!member.identity.is_due(time::now()));

    // The token is used up, but the identity is saved: the same command line works again, and without it too.
    for token in [Some(&token), None] {
        let again = ensure_worker(data.path(), token, "worker-1", true).await.unwrap();
        assert_eq!(again.identity.expires_at(), member.identity.expires_at());
        assert_eq!(again.balancers, [balancer.address.as_str()]);
    }
    let at_the_door = async {
        let worker = balancer.accept().await;
        (worker.name, worker.hello.instance)
    };
    let (worker, dialled) = tokio::join!(at_the_door, dial(&balancer.address, &member.identity, hello("worker-1")));
    assert_eq!(worker, ("worker-1".into(), 7));
    assert!(dialled.is_err(), "a balancer that drops the worker at the door lets nobody in");
}

#[tokio::test]
async fn each_bad_token_is_refused_with_its_cause() {
    let (balancer, other) = (Balancer::start(), Balancer::start());
    let try_join = async |token: &Token| join::join(token, "w").await.err().map(|e| e.to_string()).unwrap_or_default();

    let once = balancer.token(Role::Worker, 1);
    join::join(&once, "w").await.unwrap();
    assert!(try_join(&once).await.contains("used up"));

    let past =
        balancer.authority.token(Role::Worker, UnixMicros(1_000_000), 1, vec![balancer.address.clone()]).unwrap();
    assert!(try_join(&past).await.contains("expired at 1970-01-01T00:00:01Z"));

    // Signed with a key that is not the cluster's, as by someone who changed the role or the number of uses.
    let forged = NewToken {
        role: Role::Balancer,
        created_at: time::now(),
        expires_at: time::now() + Duration::from_secs(60),
        uses: 1000,
        addresses: vec![balancer.address.clone()],
        ca: balancer.authority.fingerprint(),
    };
    let forged = TokenKey::new(&[0; 32]).sign(1, forged).unwrap();
    assert!(try_join(&forged).await.contains("of another cluster, or was changed"));

    // A good token whose address now belongs to another cluster: the client sees it by the fingerprint.
    let good = other.token(Role::Worker, 1);
    let astray = TokenKey::new(&[0; 32])
        .sign(
            1,
            NewToken {
                role: Role::Worker,
                created_at: good.created_at,
                expires_at: good.expires_at,
                uses: 1,
                addresses: vec![balancer.address.clone()],
                ca: Fingerprint(other.authority.fingerprint().0),
            },
        )
        .unwrap();
    assert!(try_join(&astray).await.contains("no balancer of this cluster"));

    let no_worker = ensure_worker(other.data(), Some(&balancer.token(Role::Balancer, 1)), "w", true).await;
    assert!(no_worker.err().unwrap().to_string().contains("for a balancer, not for a worker"));
    let nothing = ensure_worker(other.data(), None, "w", true).await;
    assert!(matches!(nothing, Err(JoinError::NoToken)));
}

#[tokio::test]
async fn names_are_unique_among_live_servers() {
    let balancer = Balancer::start();
    balancer.set_name("host", NameState::Live);
    balancer.set_name("host-2", NameState::Live);
    let token = balancer.token(Role::Worker, 2);
    assert!(matches!(join::join(&token, "host").await, Err(JoinError::NameTaken(_))));
    assert!(matches!(join::join(&token, "no name").await, Err(JoinError::Name(_))));

    let data = tempfile::tempdir().unwrap();
    let chosen = ensure_worker(data.path(), Some(&token), "host", true).await;
    assert!(matches!(chosen, Err(JoinError::NameTaken(_))));
    // Not the operator's choice: another one will do, and stays at the next start. No refusal has cost a use.
    for _ in 0..2 {
        let member = ensure_worker(data.path(), Some(&token), "host", false).await.unwrap();
        assert_eq!(member.identity.name(), "host-3");
    }
    join::join(&token, "another").await.unwrap();
}

#[tokio::test]
async fn a_removed_server_joins_again_only_when_somebody_asks_for_it() {
    let balancer = Balancer::start();
    let first = balancer.token(Role::Worker, 9);
    let data = tempfile::tempdir().unwrap();
    let before = ensure_worker(data.path(), Some(&first), "w", true).await.unwrap().identity;
    join::note_removal(&identity::folder(data.path(), Role::Worker)).unwrap();
    // Its own command line, with or without the token that is in it, brings nothing but the reason.
    for token in [Some(&first), None] {
        let error = ensure_worker(data.path(), token, "w", true).await.err().unwrap().to_string();
        assert!(error.contains("was removed from its cluster") && error.contains("a new --join TOKEN"), "{error}");
    }
    let again = ensure_worker(data.path(), Some(&balancer.token(Role::Worker, 1)), "w", true).await.unwrap().identity;
    assert_ne!(again.key_id(), before.key_id(), "the revocation of the old certificate must not hit the new one");
    let later = ensure_worker(data.path(), None, "w", true).await.unwrap().identity;
    assert_eq!(later.key_id(), again.key_id());
    // A renewed certificate is the same server's.
    let renewed =
        again.renewed(&balancer.authority.renew(&again.csr().unwrap(), "w", again.key_id()).unwrap()).unwrap();
    assert_eq!(renewed.key_id(), again.key_id());
}

#[tokio::test]
async fn a_revoked_token_lets_nobody_in_and_a_token_leads_to_all_balancers() {
    let balancer = Balancer::start();
    balancer.server.set_others(vec!["192.0.2.9:1701".into(), balancer.address.clone()]);
    let token = balancer.token(Role::Worker, 3);
    assert_eq!(token.addresses, [balancer.address.as_str(), "192.0.2.9:1701"]);
    join::join(&token, "w").await.unwrap();
    let known = balancer.server.ledger().known();
    let info = known.iter().find(|info| info.id == token.id).unwrap();
    assert_eq!((info.used(), info.uses, info.expires_at), (1, 3, token.expires_at));
    assert!(balancer.server.ledger().revoke(&token.id, time::now()).unwrap());
    let error = join::join(&token, "v").await.err().unwrap().to_string();
    assert!(error.contains("the join token was revoked"), "{error}");
}

#[tokio::test]
async fn servers_that_join_before_one_of_them_links_up_get_names_of_their_own() {
    let balancer = Balancer::start();
    balancer.set_name("host", NameState::Live);
    let token = balancer.token(Role::Worker, 5);
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let any = |folder: &TempDir| {
        let (folder, token) = (folder.path().to_owned(), token.clone());
        async move { ensure_worker(&folder, Some(&token), "host", false).await.unwrap().identity.name().to_owned() }
    };
    let (a, b, c) = tokio::join!(any(&folders[0]), any(&folders[1]), any(&folders[2]));
    let mut names = [a, b, c];
    names.sort();
    assert_eq!(names, ["host-2", "host-3", "host-4"]);
    // Who was told its name gets it again after it lost its folder, if nobody lives under it.
    for folder in [(); 2].map(|()| tempfile::tempdir().unwrap()) {
        let member = ensure_worker(folder.path(), Some(&token), "pod-0", true).await.unwrap();
        assert_eq!(member.identity.name(), "pod-0");
    }
}

#[tokio::test]
async fn a_balancers_token_hands_over_the_cluster_and_a_workers_does_not() {
    let balancer = Balancer::start();
    let worker = join::join(&balancer.token(Role::Worker, 1), "w").await.unwrap();
    assert!(worker.keys.is_none());

    let data = tempfile::tempdir().unwrap();
    let token = balancer.token(Role::Balancer, 1);
    let second = ensure_balancer(data.path(), Some(&token), "edge-2", vec!["192.0.2.2:1701".into()]).await.unwrap();
    assert_eq!(second.fingerprint(), balancer.authority.fingerprint());
    let own = second.identity(&identity::folder(data.path(), Role::Balancer), "edge-2", Role::Balancer).unwrap();
    let newcomers = balancer.server.newcomers(|_| false);
    let [newcomer] = &newcomers[..] else { panic!("workers must hear of it: {newcomers:?}") };
    assert_eq!((newcomer.name.as_str(), newcomer.address.as_str()), ("edge-2", "192.0.2.2:1701"));
    assert_eq!(newcomer.key, own.key_id(), "its certificate counts when the CA is changed now");
    // Each admits with tokens of the other.
    let of_second =
        second.token(Role::Worker, time::now() + Duration::from_secs(60), 1, vec![balancer.address.clone()]);
    join::join(&of_second.unwrap(), "w2").await.unwrap();
    // Loaded again without a token; another cluster's token is refused.
    ensure_balancer(data.path(), None, "edge-2", Vec::new()).await.unwrap();
    let other = Balancer::start();
    let elsewhere = ensure_balancer(data.path(), Some(&other.token(Role::Balancer, 1)), "edge-2", Vec::new()).await;
    assert!(matches!(elsewhere, Err(JoinError::OtherCluster)));
}

#[tokio::test]
async fn messages_of_any_size_cross_in_both_directions() {
    let balancer = Balancer::start();
    let (mut server, outgoing, mut client) = balancer.link("w").await;
    assert_eq!(client.welcome.name, "edge-1");

    let sizes = [0, 1, 300, MAX_DATAGRAM];
    for (seq, size) in (1..).zip(sizes) {
        assert!(outgoing.frames.send(frame(seq, size)));
    }
    let mut frames = Vec::new();
    while frames.len() < sizes.len() {
        assert!(timeout(PATIENCE, client.frame_rx.recv_many(&mut frames, 100)).await.unwrap().unwrap() > 0);
    }
    for (got, (seq, size)) in frames.iter().zip((1..).zip(sizes)) {
        assert_eq!(*got, frame(seq, size));
    }

    client.ack_tx.try_send(Ack { received: 4, stored: vec![1, 2], ..Ack::default() }).unwrap();
    let ack = timeout(PATIENCE, server.ack_rx.recv()).await.unwrap().unwrap().unwrap();
    assert_eq!((ack.received, ack.stored), (4, vec![1, 2]));

    // A snapshot of many gateways is far longer than any buffer on the way.
    let gateways = (0..200_000).map(|eui| KnownGateway { eui, ..KnownGateway::default() }).collect();
    let cluster = Cluster { version: 3, gateways, ..Cluster::default() };
    client.control_tx.try_send(to_balancer::Kind::Cluster(cluster.clone())).unwrap();
    client.control_tx.try_send(to_balancer::Kind::Alive(Alive { in_flight: 5, asked_at: 0 })).unwrap();
    let got = timeout(PATIENCE, server.control_rx.recv()).await.unwrap().unwrap().unwrap();
    assert!(got.kind == Some(to_balancer::Kind::Cluster(cluster)));
    let got = timeout(PATIENCE, server.control_rx.recv()).await.unwrap().unwrap().unwrap();
    assert_eq!(got.kind, Some(to_balancer::Kind::Alive(Alive { in_flight: 5, asked_at: 0 })));

    outgoing.control.try_send(to_worker::Kind::Drain(Drain { on: true, remembered: false })).unwrap();
    let got = timeout(PATIENCE, client.control_rx.recv()).await.unwrap().unwrap().unwrap();
    assert_eq!(got.kind, Some(to_worker::Kind::Drain(Drain { on: true, remembered: false })));
}

#[tokio::test]
async fn a_worker_is_refused_with_the_cause() {
    let (balancer, other) = (Balancer::start(), Balancer::start());
    let worker = balancer.worker("w");

    let other_name = refusal(&balancer.address, &worker, hello("v")).await;
    assert!(other_name.contains(r#"the certificate is for "w", not for "v""#), "{other_name}");

    let future = Hello { version: VERSION + 2, ..hello("w") };
    let future = refusal(&balancer.address, &worker, future).await;
    assert!(future.contains("upgrade in steps"), "{future}");

    balancer.set_name("w", NameState::Revoked);
    let revoked = dial(&balancer.address, &worker, hello("w")).await.err().unwrap();
    assert!(matches!(&revoked, DialError::Removed { .. }), "{revoked}");
    assert!(revoked.to_string().contains("was removed from this cluster"), "{revoked}");

    let stranger = refusal(&balancer.address, &other.worker("w"), hello("w")).await;
    assert!(stranger.contains("no balancer of this cluster"), "{stranger}");

    let no_worker = balancer.authority.identity(&balancer.data().join("b"), "b", Role::Balancer).unwrap();
    let no_worker = refusal(&balancer.address, &no_worker, hello("b")).await;
    assert!(no_worker.contains("only workers link up"), "{no_worker}");

    // The balancer's own reason, with whether to try again.
    let second = balancer.worker("x");
    let (_, refused) = tokio::join!(
        async {
            let refused = Refused { reason: "the name is taken".into(), retry: true, ..Refused::default() };
            balancer.accept().await.refuse(refused).await
        },
        dial(&balancer.address, &second, hello("x")),
    );
    assert!(matches!(refused, Err(DialError::Refused { reason, retry: true, .. }) if reason == "the name is taken"));
}

#[tokio::test]
async fn a_workers_certificate_cannot_play_a_balancer() {
    let balancer = Balancer::start();
    // A worker that puts its own certificate where a balancer's should be.
    let folder = tempfile::tempdir().unwrap();
    let worker = balancer.worker("w");
    worker.save(&folder.path().join("cluster/identity")).unwrap();
    let issued = Identity::load(&folder.path().join("cluster/identity")).unwrap().unwrap();
    assert_eq!(issued.role(), Role::Worker);
    let fake = fake_server(&issued).await;
    let refused = refusal(&fake, &balancer.worker("v"), hello("v")).await;
    assert!(!refused.contains("in time"), "{refused}");
}

/// A QUIC server that shows the certificate of `identity`.
async fn fake_server(identity: &Identity) -> String {
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let folder = tempfile::tempdir().unwrap();
    identity.save(folder.path()).unwrap();
    let certificate = CertificateDer::from_pem_file(folder.path().join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.path().join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![limpet_shared::link::ALPN.to_vec()];
    let config = quinn::crypto::rustls::QuicServerConfig::try_from(config).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(config));
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = endpoint.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let _ = incoming.await;
        }
    });
    address
}

#[tokio::test]
async fn the_link_without_a_certificate_is_closed() {
    let balancer = Balancer::start();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    roots.add(CertificateDer::from_pem_slice(balancer.authority.ca_pem().as_bytes()).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![limpet_shared::link::ALPN.to_vec()];
    let config = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(config));
    let connection = endpoint.connect_with(config, balancer.server.local_addr(), "edge-1").unwrap().await.unwrap();
    let ended = timeout(PATIENCE, connection.closed()).await.unwrap().to_string();
    assert!(ended.contains("the link needs a certificate of this cluster"), "{ended}");
}

#[tokio::test]
async fn the_end_of_a_link_is_noticed_and_says_why() {
    let balancer = Balancer::start();
    let (mut server, outgoing, client) = balancer.link("w").await;
    // Dropped, as by a task that died.
    drop(client);
    assert_eq!(timeout(PATIENCE, server.link.closed()).await.unwrap(), Ended::ByPeer("stopped".into()));
    assert!(timeout(PATIENCE, server.ack_rx.recv()).await.unwrap().is_err());
    let closed = async {
        while outgoing.frames.send(frame(1, 1)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, closed).await.unwrap();

    // In good order: what was queued arrives before the end.
    let (server, _outgoing, client) = balancer.link("w").await;
    let BalancerLink { control_tx, control_rx, frame_rx, ack_tx, link, .. } = client;
    let mut ack_rx = server.ack_rx;
    for number in 1..=1000 {
        ack_tx.send(Ack { received: number, ..Ack::default() }).await.unwrap();
    }
    drop((control_tx, control_rx, frame_rx, ack_tx));
    let (_, last) = tokio::join!(link.close("drained"), async {
        let mut last = 0;
        while let Ok(Some(ack)) = timeout(PATIENCE, ack_rx.recv()).await.unwrap() {
            last = ack.received;
        }
        last
    });
    assert_eq!(last, 1000);
    assert_eq!(timeout(PATIENCE, server.link.closed()).await.unwrap(), Ended::ByPeer("drained".into()));

    balancer.server.close("going down").await;
    assert!(balancer.server.accept().await.is_none());
}

/// Carries datagrams between one worker and a balancer that can be exchanged or cut off.
struct Relay {
    address: String,
    to: Arc<Mutex<Option<SocketAddr>>>,
}

impl Relay {
    async fn start(to: SocketAddr) -> Self {
        let (front, back) = (udp().await, udp().await);
        let address = front.local_addr().unwrap().to_string();
        let to = Arc::new(Mutex::new(Some(to)));
        let target = to.clone();
        tokio::spawn(async move {
            let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
            let mut worker = None;
            loop {
                tokio::select! {
                    Ok((len, from)) = front.recv_from(&mut up) => {
                        worker = Some(from);
                        let target = *target.lock().unwrap();
                        if let Some(target) = target {
                            let _ = back.send_to(&up[..len], target).await;
                        }
                    }
                    Ok((len, from)) = back.recv_from(&mut down) => {
                        let target = *target.lock().unwrap();
                        if let (Some(worker), true) = (worker, target == Some(from)) {
                            let _ = front.send_to(&down[..len], worker).await;
                        }
                    }
                }
            }
        });
        Self { address, to }
    }
}

async fn udp() -> tokio::net::UdpSocket {
    tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

/// A killed balancer that starts again has the same identity, so the worker believes the reset with which it answers
/// a connection that it does not know.
#[tokio::test]
async fn a_restarted_balancer_is_noticed_by_its_reset() {
    let balancer = Balancer::start();
    let relay = Relay::start(balancer.server.local_addr()).await;
    let worker = balancer.worker("w");
    let (_outgoing, queues) = outgoing();
    let (_server, client) = tokio::join!(
        async { balancer.accept().await.welcome(Welcome::default(), queues).await },
        dial(&relay.address, &worker, hello("w"))
    );
    let client = client.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let saved = Identity::load(&identity::folder(balancer.data(), Role::Balancer)).unwrap().unwrap();
    saved.save(&identity::folder(folder.path(), Role::Balancer)).unwrap();
    let restarted = Balancer::start_in(folder, balancer.authority.clone(), "127.0.0.1:0".parse().unwrap());
    *relay.to.lock().unwrap() = Some(restarted.server.local_addr());
    client.control_tx.send(to_balancer::Kind::Alive(Alive { in_flight: 0, asked_at: 0 })).await.unwrap();
    assert_eq!(timeout(PATIENCE, client.link.closed()).await.unwrap(), Ended::Reset);
}

#[tokio::test]
async fn a_cut_cable_is_noticed_by_silence() {
    let balancer = Balancer::start();
    let relay = Relay::start(balancer.server.local_addr()).await;
    let worker = balancer.worker("w");
    let (_outgoing, queues) = outgoing();
    let (server, client) = tokio::join!(
        async { balancer.accept().await.welcome(Welcome::default(), queues).await },
        dial(&relay.address, &worker, hello("w"))
    );
    let (server, client) = (server.unwrap(), client.unwrap());
    *relay.to.lock().unwrap() = None;
    let both = async { tokio::join!(server.link.closed(), client.link.closed()) };
    assert_eq!(timeout(PATIENCE, both).await.unwrap(), (Ended::Silent, Ended::Silent));
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_same_name_only() {
    let balancer = Balancer::start();
    let worker = balancer.worker("w");
    let renew = |csr: &[u8], name: &str| balancer.authority.renew(csr, name, worker.key_id());
    let renewed = renew(&worker.csr().unwrap(), "w").unwrap();
    let renewed = worker.renewed(&renewed).unwrap();
    assert_eq!(renewed.name(), "w");
    let (name, _) = tokio::join!(async { balancer.accept().await.name }, dial(&balancer.address, &renewed, hello("w")));
    assert_eq!(name, "w");
    let other = renew(&worker.csr().unwrap(), "v").unwrap();
    assert!(worker.renewed(&other).is_err());
    assert!(renew(b"no request", "w").is_err());
    // A key of its own choice would outlive the revocation of the one that it has.
    let refused = renew(&balancer.worker("v").csr().unwrap(), "w").unwrap_err().to_string();
    assert!(refused.contains("another key"), "{refused}");
}

#[tokio::test]
async fn a_revoked_balancer_is_not_even_greeted() {
    let balancer = Balancer::start();
    let worker = balancer.worker("w");
    let key = balancer.server.key().to_owned();
    let refused = dial_unless(&balancer.address, &worker, hello("w"), |peer| peer.key == key).await.err().unwrap();
    assert!(matches!(&refused, DialError::Revoked { name, .. } if name == "edge-1"), "{refused}");
    // The next one at its door is another worker: the first has said nothing.
    let second = balancer.worker("v");
    let dialled = dial_unless(&balancer.address, &second, hello("v"), |peer| peer.key == "another");
    let (name, _) = tokio::join!(async { balancer.accept().await.name }, dialled);
    assert_eq!(name, "v");
}
