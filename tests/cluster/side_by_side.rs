//! Versions N and N+1 on one link: a worker that speaks like a later version at a real balancer, and a balancer that does
//! at a real worker. Whatever they say holds what this version knows, and more.

#[path = "../../shared/tests/newer/messages.rs"]
mod messages;

use std::{net::SocketAddr, path::Path, sync::Arc};

use bytes::{Bytes, BytesMut};
use limpet_link::{Authority, Identity, Token, identity, join};
use limpet_shared::{
    Eui64, UnixMicros,
    admin::Role,
    gwmp,
    link::{
        self, ALPN, Ack, Alive, Cluster, Hello, KnownGateway, Sightings, Spare, Suspects, ToBalancer, ToWorker,
        UplinkFrame, VERSION, Weight, Welcome, to_balancer, to_worker,
    },
};
use prost::Message;
use quinn::{RecvStream, SendStream, crypto::rustls as tls};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::UdpSocket;

use crate::{millis, site::Site, support::PATIENCE, turn};

const GATEWAY: Eui64 = Eui64(0x024c_5000_0000_0001);

/// What a server shows and believes on the link.
struct Papers {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    roots: Arc<rustls::RootCertStore>,
}

impl Papers {
    /// As they lie in the folder of an identity.
    fn in_folder(folder: &Path) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap()).unwrap();
        Self {
            certificate: CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap(),
            key: PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap(),
            roots: Arc::new(roots),
        }
    }

    fn provider() -> Arc<rustls::crypto::CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    fn client(self) -> quinn::ClientConfig {
        let config = rustls::ClientConfig::builder_with_provider(Self::provider());
        let mut config = config
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots)
            .with_client_auth_cert(vec![self.certificate], self.key)
            .unwrap();
        config.alpn_protocols = vec![ALPN.to_vec()];
        quinn::ClientConfig::new(Arc::new(tls::QuicClientConfig::try_from(config).unwrap()))
    }

    fn server(self) -> quinn::ServerConfig {
        let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(self.roots, Self::provider());
        let mut config = rustls::ServerConfig::builder_with_provider(Self::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(vec![self.certificate], self.key)
            .unwrap();
        config.alpn_protocols = vec![ALPN.to_vec()];
        quinn::ServerConfig::with_crypto(Arc::new(tls::QuicServerConfig::try_from(config).unwrap()))
    }
}

/// Sends what a later version would.
struct Says(SendStream);

impl Says {
    async fn kind(&mut self, message: impl Message) {
        let (tag, content) = messages::parts(&message);
        self.0.write_all(&messages::newer_of_kind(tag, &content)).await.unwrap();
    }

    async fn tell_balancer(&mut self, kind: to_balancer::Kind) {
        self.kind(ToBalancer::from(kind)).await;
    }

    async fn tell_worker(&mut self, kind: to_worker::Kind) {
        self.kind(ToWorker::from(kind)).await;
    }

    /// Something that this version has never heard of.
    async fn unheard_of(&mut self) {
        self.0.write_all(&messages::newer_of_kind(messages::UNKNOWN, b"")).await.unwrap();
    }

    async fn ack(&mut self, ack: Ack) {
        self.0.write_all(&messages::newer(&ack.encode_to_vec())).await.unwrap();
    }
}

/// Reads whole messages.
struct Hears(RecvStream, BytesMut);

impl Hears {
    async fn body(&mut self) -> Bytes {
        loop {
            if let Some(body) = link::next_message(&mut self.1).unwrap() {
                return body;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.0.read_chunk(65_536, true)).await.expect("a message");
            self.1.extend_from_slice(&chunk.unwrap().expect("the stream goes on").bytes);
        }
    }

    async fn until<M: Message + Default, T>(&mut self, wanted: impl Fn(M) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(M::decode(self.body().await).unwrap()) {
                return found;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_works_with_a_worker_of_the_next_version() {
    let _turn = turn().await;
    let site = Site::new();
    let edge = site.balancer("east", None).await;
    let token: Token = site.token("east", &[]).parse().unwrap();
    let folder = site.data("next");
    join::join(&token, "next").await.unwrap().identity.save(&folder).unwrap();
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    endpoint.set_default_client_config(Papers::in_folder(&folder).client());
    let connection = endpoint.connect(edge.link, "east").unwrap().await.unwrap();
    let (send, receive) = connection.open_bi().await.unwrap();
    let (mut control, mut answers) = (Says(send), Hears(receive, BytesMut::new()));
    let weight = Some(Weight { number: 1, weight: 100, ready: true, ..Weight::default() });
    let hello = Hello { version: VERSION + 1, name: "next".into(), instance: 7, weight, ..Hello::default() };
    control.tell_balancer(to_balancer::Kind::Hello(hello)).await;
    let welcome = answers.until(|message: ToWorker| match message.kind? {
        to_worker::Kind::Welcome(welcome) => Some(welcome),
        other => panic!("no welcome: {other:?}"),
    });
    assert_eq!(welcome.await.version, VERSION);
    let (acks, frames) = connection.accept_bi().await.unwrap();
    let (mut acks, mut frames) = (Says(acks), Hears(frames, BytesMut::new()));
    assert!(frames.body().await.is_empty(), "an empty message opens the stream");

    let known = KnownGateway { eui: GATEWAY.0, ..KnownGateway::default() };
    let cluster = Cluster { version: 1, ring_key: vec![5; 16].into(), gateways: vec![known], ..Cluster::default() };
    control.tell_balancer(to_balancer::Kind::Cluster(cluster)).await;
    let alive = tokio::spawn(async move {
        loop {
            control.unheard_of().await;
            control.tell_balancer(to_balancer::Kind::Alive(Alive::default())).await;
            tokio::time::sleep(millis(100)).await;
        }
    });
    site.sees("east", &[("east", "ready"), ("next", "ready")]).await;

    let gateway = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    gateway.connect(edge.gwmp).await.unwrap();
    for number in 1..=3 {
        gateway.send(&gwmp::push_data(2, number, GATEWAY, br#"{"rxpk":[]}"#)).await.unwrap();
        let frame = UplinkFrame::decode(frames.body().await).unwrap();
        assert_eq!((frame.seq, frame.gateway), (u64::from(number), GATEWAY));
        let seq = frame.seq;
        acks.ack(Ack { received: seq, stored: vec![seq], done: vec![seq] }).await;
        let mut answer = [0; 64];
        let length = tokio::time::timeout(PATIENCE, gateway.recv(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer[..length], gwmp::push_ack(2, number));
    }
    alive.abort();
}

/// Of the cluster in this folder, without a balancer that would let anybody in.
fn member(authority: &Authority, folder: &Path, name: &str, role: Role) -> Identity {
    authority.identity(folder, name, role).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_works_with_a_balancer_of_the_next_version() {
    let _turn = turn().await;
    let site = Site::new();
    let authority = Authority::open(&site.data("next").join("cluster")).unwrap();
    let folder = identity::folder(&site.data("next"), Role::Balancer);
    member(&authority, &folder, "next", Role::Balancer);
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = quinn::Endpoint::server(Papers::in_folder(&folder).server(), listen).unwrap();
    let address = endpoint.local_addr().unwrap().to_string();
    member(&authority, &identity::folder(&site.data("w1"), Role::Worker), "w1", Role::Worker);
    let mut worker = site.worker("w1", &["--balancer", &address]);

    let incoming = tokio::time::timeout(PATIENCE, endpoint.accept()).await.unwrap().unwrap();
    let connection = incoming.await.unwrap();
    let (send, receive) = connection.accept_bi().await.unwrap();
    let (mut control, mut says) = (Says(send), Hears(receive, BytesMut::new()));
    let hello = says.until(|message: ToBalancer| match message.kind? {
        to_balancer::Kind::Hello(hello) => Some(hello),
        other => panic!("no hello: {other:?}"),
    });
    let hello = hello.await;
    assert_eq!((hello.version, hello.name.as_str()), (VERSION, "w1"));
    let welcome = Welcome { version: VERSION + 1, name: "next".into(), instance: 9, ..Welcome::default() };
    control.tell_worker(to_worker::Kind::Welcome(welcome)).await;
    let (frames, acks) = connection.open_bi().await.unwrap();
    let (mut frames, mut acks) = (frames, Hears(acks, BytesMut::new()));
    frames.write_all(&0_u32.to_be_bytes()).await.unwrap();
    worker.line_with("the worker is running").await;
    // The network as this worker knows it, which it would not tell to a link that it does not trust.
    says.until(|message: ToBalancer| matches!(message.kind?, to_balancer::Kind::Cluster(_)).then_some(())).await;

    for seq in 1..=3 {
        control.unheard_of().await;
        control.tell_worker(to_worker::Kind::Suspects(Suspects { names: vec!["w2".into()] })).await;
        control.tell_worker(to_worker::Kind::Spare(Spare { names: vec!["w2".into()] })).await;
        control.tell_worker(to_worker::Kind::Sightings(Sightings { gateways: vec![GATEWAY.0], ages: vec![5] })).await;
        let question = link::Admin { id: seq, request: r#"{"ask":"unheard_of","words":[1]}"#.into() };
        control.tell_worker(to_worker::Kind::Admin(question)).await;
        let mut frame = BytesMut::new();
        let datagram = gwmp::push_data(2, 1, GATEWAY, br#"{"rxpk":[]}"#).into();
        let received_at = UnixMicros(limpet_link::time::now().0);
        UplinkFrame { seq, received_at, gateway: GATEWAY, attempt: 0, datagram }.encode(&mut frame);
        frames.write_all(&frame).await.unwrap();
        acks.until(|ack: Ack| ack.done.contains(&seq).then_some(())).await;
    }
    // It answers a question that it knows, whatever stands beside it.
    let question = link::Admin { id: 99, request: r#"{"ask":"gateways","since":5}"#.into() };
    control.tell_worker(to_worker::Kind::Admin(question)).await;
    let reply = says.until(|message: ToBalancer| match message.kind? {
        to_balancer::Kind::AdminReply(reply) if reply.id == 99 => Some(reply.reply),
        _ => None,
    });
    assert_eq!(reply.await, r#"{"answer":"gateways","gateways":[]}"#);
    control.tell_worker(to_worker::Kind::Remove(link::Remove {})).await;
    let ended = worker.stopped().await;
    assert!(ended.status.success(), "{:?}: {:#?}", ended.status, ended.lines);
}
