//! A server whose answer to a join is lost asks again, and is let in with the same token.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use limpet_link::{
    Authority, JoinError, LinkServer, NameState, ServerConfig, Token, ensure_balancer, ensure_worker, time,
};
use limpet_shared::admin::{Role, TokenInfo};
use tempfile::TempDir;
use tokio::{net::UdpSocket, task::JoinHandle};

struct Balancer {
    server: Arc<LinkServer>,
    authority: Arc<Authority>,
    _folder: TempDir,
}

impl Balancer {
    fn start(names: impl Fn(&str, Option<&str>) -> NameState + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = folder.path().join("cluster");
        let authority = Arc::new(Authority::open(&cluster).unwrap());
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = ServerConfig { listen, name: "edge".into(), cluster, advertise: Vec::new() };
        let server = LinkServer::bind(config, authority.clone(), Arc::new(names)).unwrap();
        Self { server: Arc::new(server), authority, _folder: folder }
    }

    /// A token for one server, which leads over a line.
    fn token(&self, role: Role, line: &Line) -> Token {
        let expires_at = time::now() + Duration::from_secs(600);
        self.authority.token(role, expires_at, 1, vec![line.address.to_string()]).unwrap()
    }

    fn info(&self, token: &Token) -> TokenInfo {
        self.server.ledger().known().into_iter().find(|info| info.id == token.id).unwrap()
    }
}

/// The way to a balancer. While it is bad, nothing comes back once a token was used: the balancer notes the use before it
/// answers, so it is the answer that is lost.
struct Line {
    address: SocketAddr,
    bad: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Line {
    async fn to(balancer: &Balancer) -> Self {
        let (bad, server) = (Arc::new(AtomicBool::new(true)), balancer.server.clone());
        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (address, is_bad) = (near.local_addr().unwrap(), bad.clone());
        let task = tokio::spawn(async move {
            let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            far.connect(server.local_addr()).await.unwrap();
            let (mut out, mut back, mut client) = ([0; 65_536], [0; 65_536], None);
            loop {
                tokio::select! {
                    Ok((length, from)) = near.recv_from(&mut out) => {
                        client = Some(from);
                        let _ = far.send(&out[..length]).await;
                    }
                    Ok(length) = far.recv(&mut back) => {
                        let used = server.ledger().known().iter().any(|token| token.used() > 0);
                        if let Some(client) = client.filter(|_| !(used && is_bad.load(Ordering::SeqCst))) {
                            let _ = near.send_to(&back[..length], client).await;
                        }
                    }
                    else => {}
                }
            }
        });
        Self { address, bad, task }
    }

    fn mend(&self) {
        self.bad.store(false, Ordering::SeqCst);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The key that waits for its certificate, which nobody else may read.
fn waits(data: &Path) -> bool {
    let kept = data.join("joining.json");
    kept.exists() && kept.metadata().unwrap().permissions().mode() & 0o777 == 0o600
}

#[tokio::test]
async fn a_worker_that_got_no_answer_is_let_in_with_the_same_token_also_after_a_restart() {
    let balancer = Balancer::start(|_, _| NameState::Free);
    let line = Line::to(&balancer).await;
    let (token, data) = (balancer.token(Role::Worker, &line), tempfile::tempdir().unwrap());
    // Not a name of its own choice: the one that it was given before is kept for it.
    let lost = ensure_worker(data.path(), Some(&token), "host", false).await;
    assert!(matches!(lost, Err(JoinError::Dial(_))), "{:?}", lost.err());
    assert_eq!(balancer.info(&token).used(), 1);
    assert!(waits(data.path()));

    line.mend();
    let other = tempfile::tempdir().unwrap();
    let error = ensure_worker(other.path(), Some(&token), "other", true).await.err().unwrap().to_string();
    assert!(error.contains("used up"), "another server: {error}");

    let member = ensure_worker(data.path(), Some(&token), "host", false).await.unwrap();
    assert_eq!(member.identity.name(), "host");
    let info = balancer.info(&token);
    assert_eq!(info.used(), 1);
    assert!(info.admitted.contains_key(member.identity.key_id()), "{info:?}");
    assert!(!data.path().join("joining.json").exists());
}

#[tokio::test]
async fn a_balancer_that_got_no_answer_is_let_in_though_all_know_its_name_already() {
    let joined = Arc::new(AtomicBool::new(false));
    let known = joined.clone();
    let live = move |name: &str, _: Option<&str>| match name {
        "edge-2" if known.load(Ordering::SeqCst) => NameState::Live,
        _ => NameState::Free,
    };
    let balancer = Balancer::start(live);
    let line = Line::to(&balancer).await;
    let (token, data) = (balancer.token(Role::Balancer, &line), tempfile::tempdir().unwrap());
    let join = || ensure_balancer(data.path(), Some(&token), "edge-2", vec!["192.0.2.2:1701".into()]);
    assert!(matches!(join().await, Err(JoinError::Dial(_))));
    assert!(waits(data.path()));
    joined.store(true, Ordering::SeqCst);
    line.mend();
    let authority = join().await.unwrap();
    assert_eq!(authority.fingerprint(), token.ca);
    assert_eq!(balancer.info(&token).used(), 1);
    assert!(!data.path().join("joining.json").exists());
}

#[tokio::test]
async fn whose_key_was_revoked_gets_no_certificate_for_it() {
    let revoked = Arc::new(AtomicBool::new(false));
    let is_revoked = revoked.clone();
    let balancer = Balancer::start(move |_, key| match key {
        Some(_) if is_revoked.load(Ordering::SeqCst) => NameState::Revoked,
        _ => NameState::Free,
    });
    let line = Line::to(&balancer).await;
    let (token, data) = (balancer.token(Role::Worker, &line), tempfile::tempdir().unwrap());
    assert!(ensure_worker(data.path(), Some(&token), "w", true).await.is_err());
    revoked.store(true, Ordering::SeqCst);
    line.mend();
    let error = ensure_worker(data.path(), Some(&token), "w", true).await.err().unwrap().to_string();
    assert!(error.contains("was removed from this cluster"), "{error}");
}
