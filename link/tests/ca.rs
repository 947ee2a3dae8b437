//! Changing the CA while servers are linked: who counts, before, during and after it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use limpet_link::{
    Authority, DialError, Identity, JoinError, LinkServer, NameState, ServerConfig, dial, ensure_balancer,
    ensure_worker, join, time,
};
use limpet_shared::{
    admin::Role,
    link::{Hello, VERSION},
};
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

struct Balancer {
    server: LinkServer,
    authority: Arc<Authority>,
    address: String,
    revoked: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

impl Balancer {
    fn found(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(&folder.path().join("cluster")).unwrap();
        Self::with(name, folder, authority)
    }

    fn with(name: &str, folder: TempDir, authority: Authority) -> Self {
        let (authority, cluster) = (Arc::new(authority), folder.path().join("cluster"));
        let revoked = Arc::new(Mutex::new(Vec::<String>::new()));
        let known = revoked.clone();
        let names = move |_: &str, key: Option<&str>| match key {
            Some(key) if known.lock().unwrap().iter().any(|revoked| revoked == key) => NameState::Revoked,
            _ => NameState::Free,
        };
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = ServerConfig { listen, name: name.into(), cluster, advertise: Vec::new() };
        let server = LinkServer::bind(config, authority.clone(), Arc::new(names)).unwrap();
        let address = server.local_addr().to_string();
        Self { server, authority, address, revoked, folder }
    }

    fn worker(&self, name: &str) -> Identity {
        self.authority.identity(&self.folder.path().join(name), name, Role::Worker).unwrap()
    }

    fn change(&self, known: &[&str]) {
        let known = known.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
        assert!(self.authority.rotate_ca(known, time::now()).unwrap());
        self.server.follow_authority().unwrap();
    }

    fn finish(&self) {
        assert!(self.authority.finish_ca(time::now()).unwrap());
        self.server.follow_authority().unwrap();
    }

    fn token(&self, role: Role) -> limpet_link::Token {
        self.server.token(role, Duration::from_secs(60), 1).unwrap()
    }

    /// Why the worker does not come in; `None` if it does.
    async fn refuses(&self, worker: &Identity) -> Option<DialError> {
        let name = worker.name().to_owned();
        let hello = Hello { version: VERSION, name: name.clone(), instance: 7, ..Hello::default() };
        // Who is let in is at the door; there nobody welcomes it, so that the dial ends.
        tokio::select! {
            incoming = self.server.accept() => {
                assert_eq!(incoming.unwrap().name, name);
                None
            }
            dialled = timeout(PATIENCE, dial(&self.address, worker, hello)) => dialled.unwrap().err(),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Somebody with a copy of the cluster's keys, who may make any server with them.
fn thief(of: &Balancer) -> Balancer {
    let folder = tempfile::tempdir().unwrap();
    copy(&of.folder.path().join("cluster"), &folder.path().join("cluster"));
    let authority = Authority::load(&folder.path().join("cluster")).unwrap().unwrap();
    Balancer::with("thief", folder, authority)
}

#[tokio::test]
async fn a_copy_of_the_old_key_is_worth_nothing_from_the_change_on() {
    let balancer = Balancer::found("east");
    let (thief, worker) = (thief(&balancer), balancer.worker("w"));
    let forged = thief.worker("x");
    assert!(balancer.refuses(&forged).await.is_none() && thief.refuses(&worker).await.is_none());

    balancer.change(&[worker.key_id(), balancer.server.key()]);
    assert!(balancer.refuses(&worker).await.is_none(), "it was known");
    let refused = balancer.refuses(&forged).await.unwrap().to_string();
    assert!(refused.contains("not known when that began"), "{refused}");
    // What a worker is told.
    let told = worker.trusting(balancer.authority.trust()).unwrap();
    assert!(!told.is_of_present_ca() && balancer.refuses(&told).await.is_none());
    assert!(matches!(thief.refuses(&told).await, Some(DialError::FormerCa { name, .. }) if name == "thief"));
    let renewed = balancer.authority.renew(&worker.csr().unwrap(), "w", worker.key_id()).unwrap();
    let renewed = told.renewed(&renewed).unwrap();
    assert!(renewed.is_of_present_ca() && renewed.key_id() == worker.key_id());
    assert!(balancer.refuses(&renewed).await.is_none());
    let back = thief.authority.renew(&worker.csr().unwrap(), "w", worker.key_id()).unwrap();
    assert!(renewed.renewed(&back).is_err(), "no way back");
    assert!(!balancer.authority.rotate_ca(BTreeSet::new(), time::now()).unwrap(), "one change at a time");

    balancer.finish();
    let finished = renewed.trusting(balancer.authority.trust()).unwrap();
    assert!(balancer.refuses(&finished).await.is_none());
    for late in [&worker, &forged] {
        let refused = balancer.refuses(late).await.unwrap().to_string();
        assert!(
            refused.contains("its CA was changed while this server was away")
                || refused.contains("the cluster's CA was changed"),
            "{refused}"
        );
    }
    assert!(thief.refuses(&finished).await.is_some());
    assert!(!balancer.authority.finish_ca(time::now()).unwrap());
}

#[tokio::test]
async fn old_tokens_end_and_new_ones_let_in_while_the_ca_is_changed() {
    let balancer = Balancer::found("east");
    let [old, again] = [(); 2].map(|()| balancer.token(Role::Worker));
    let data = tempfile::tempdir().unwrap();
    ensure_worker(data.path(), Some(&old), "w", true).await.unwrap();
    balancer.change(&[balancer.server.key()]);
    assert!(join::join(&again, "v").await.is_err());
    // The command line of a server that is in still holds its old token.
    ensure_worker(data.path(), Some(&old), "w", true).await.unwrap();
    let member = join::join(&balancer.token(Role::Worker), "v").await.unwrap();
    assert!(member.identity.is_of_present_ca());
    assert!(balancer.refuses(&member.identity).await.is_none());
    assert!(
        member.identity.trust().former.is_some(),
        "its other balancers may still show a certificate of the CA before"
    );

    // A balancer that joins now can tell the same, and give out certificates.
    let folder = tempfile::tempdir().unwrap();
    let token = balancer.token(Role::Balancer);
    let joined = ensure_balancer(folder.path(), Some(&token), "west", Vec::new()).await.unwrap();
    assert_eq!(joined.trust(), balancer.authority.trust());
    balancer.finish();
    assert!(joined.learn_token_keys(&balancer.authority.sealed_token_keys()).unwrap());
    assert_eq!(joined.trust(), balancer.authority.trust(), "the end of it comes by way of workers");
    ensure_balancer(folder.path(), Some(&token), "west", Vec::new()).await.unwrap();
    let identity = data.path().join("identity");
    let saved = Identity::load(&identity).unwrap().unwrap().trusting(balancer.authority.trust()).unwrap();
    let renewed = balancer.authority.renew(&saved.csr().unwrap(), "w", saved.key_id()).unwrap();
    saved.renewed(&renewed).unwrap().save(&identity).unwrap();
    let again = ensure_worker(data.path(), Some(&old), "w", true).await.unwrap();
    assert!(again.identity.is_of_present_ca() && balancer.refuses(&again.identity).await.is_none());
}

#[tokio::test]
async fn another_balancer_changes_with_a_token_and_a_removed_one_does_not() {
    let (east, stranger) = (Balancer::found("east"), Balancer::found("stranger"));
    let join_as = async |name: &str| {
        let folder = tempfile::tempdir().unwrap();
        let authority =
            ensure_balancer(folder.path(), Some(&east.token(Role::Balancer)), name, Vec::new()).await.unwrap();
        Balancer::with(name, folder, authority)
    };
    let (west, removed, late) = (join_as("west").await, join_as("removed").await, join_as("late").await);
    let worker = west.worker("w");
    east.revoked.lock().unwrap().push(removed.server.key().to_owned());
    east.change(&[worker.key_id(), west.server.key(), east.server.key()]);
    assert!(!west.authority.learn_token_keys(&east.authority.sealed_token_keys()).unwrap(), "sealed with the new key");
    let refused = removed.server.adopt(&east.token(Role::Balancer)).await.unwrap_err().to_string();
    assert!(refused.contains("was removed from this cluster"), "{refused}");
    let refused = west.server.adopt(&east.token(Role::Worker)).await.unwrap_err().to_string();
    assert!(refused.contains("is for a worker, not for a balancer"), "{refused}");
    let refused = stranger.server.adopt(&east.token(Role::Balancer)).await.unwrap_err();
    assert!(matches!(refused, JoinError::Authority(_)), "{refused}");

    assert!(west.server.adopt(&east.token(Role::Balancer)).await.unwrap());
    assert!(!west.server.adopt(&east.token(Role::Balancer)).await.unwrap(), "it has it");
    let renewed = west.authority.renew(&worker.csr().unwrap(), "w", worker.key_id()).unwrap();
    let renewed = worker.trusting(west.authority.trust()).unwrap().renewed(&renewed).unwrap();
    for balancer in [&east, &west] {
        assert!(balancer.refuses(&renewed).await.is_none());
    }
    east.finish();
    assert!(west.authority.learn_token_keys(&east.authority.sealed_token_keys()).unwrap());
    west.server.follow_authority().unwrap();
    assert_eq!(west.authority.trust(), east.authority.trust());
    for balancer in [&east, &west] {
        assert!(balancer.refuses(&renewed).await.is_none() && balancer.refuses(&worker).await.is_some());
    }
    assert!(late.server.adopt(&east.token(Role::Balancer)).await.is_err(), "it was away");
}

#[test]
fn a_balancer_that_ends_in_the_midst_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = folder.path().join("cluster");
    let authority = Authority::open(&cluster).unwrap();
    let before = tempfile::tempdir().unwrap();
    copy(&cluster, before.path());
    let file = |name: &str| cluster.join(name);
    assert!(authority.rotate_ca(BTreeSet::from(["k".to_owned()]), time::now()).unwrap());
    let (amid, keys) = (authority.trust(), authority.sealed_token_keys());
    let change = fs::read(file("ca-change.json")).unwrap();
    assert!(amid.former.is_some() && amid.since > 0);
    let load = || Authority::load(&cluster).unwrap().unwrap();
    assert_eq!(load().trust(), amid);
    // It ended after the first file was written.
    fs::remove_file(file("token-keys.json")).unwrap();
    for name in ["ca.pem", "ca.key", "token.key"] {
        fs::copy(before.path().join(name), file(name)).unwrap();
    }
    let loaded = load();
    assert_eq!((loaded.trust(), loaded.ca_pem()), (amid, authority.ca_pem()));
    assert!(!loaded.learn_token_keys(&keys).unwrap(), "it has the key for join tokens");
    assert_eq!(fs::read_to_string(file("ca.pem")).unwrap(), authority.ca_pem());

    assert!(loaded.finish_ca(time::now()).unwrap());
    assert!(!file("ca-change.json").exists());
    let over = loaded.trust();
    assert!(over.former.is_none() && over.known.is_empty());
    assert_eq!(load().trust(), over);
    // It ended before the last file was removed.
    fs::write(file("ca-change.json"), change).unwrap();
    assert_eq!(load().trust(), over);
    assert!(!file("ca-change.json").exists());
    assert!(load().rotate_ca(BTreeSet::new(), time::now()).unwrap(), "the next change");
}
