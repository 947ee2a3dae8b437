//! The roll of the cluster's servers. Every worker writes down every few seconds that it is there, and which balancers it
//! is linked to, since these have no store; reads what all others have written; and tells its balancers what they
//! must know of it. So every server knows all others, and no balancer talks to another.

mod access_list;
mod merge;
mod operators;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use limpet_link::{machine::Usage, time};
use limpet_shared::{
    UnixMicros,
    admin::{IntegrationBacklog, Reply, Request, RevokedServer, Role, Server, TokenInfo},
};
use limpet_store::{Store, StoreError};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::access_list::AccessList;
use crate::{
    links::Links,
    pipeline::{Counted, Pipeline, troubles::Troubles},
};

/// Between two calls.
pub const EVERY: Duration = Duration::from_millis(2_500);
/// Whose line has not changed for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// A balancer's line that another worker wrote so lately need not be written again.
const FRESH: Duration = Duration::from_secs(2);
/// Servers that went are listed for so long.
const LISTED: Duration = Duration::from_secs(3600);
/// Expired tokens are kept for so long.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// If no balancer that was named answers, those that the store knows are dialled after this.
const UNHEARD: Duration = Duration::from_secs(5);
/// A balancer has this long to answer.
const BALANCER_LIMIT: Duration = Duration::from_secs(1);
/// The store has this long for each question.
const STORE_LIMIT: Duration = Duration::from_secs(2);
/// Balancers whose keys of join tokens are passed on.
const MOST_TELLERS: usize = 16;
/// Sealed keys of join tokens are shorter, in bytes.
const MOST_KEYS: usize = 1_024;
/// Every so many calls the store is asked to forget old tokens.
const TIDY_EVERY: u32 = 1_000;

/// A balancer to link up with.
pub struct Found {
    pub address: String,
    /// Cancelled when it is to be dialled no more.
    pub stop: CancellationToken,
}

/// See the module.
pub struct Roll {
    /// What does not change of this worker.
    me: Server,
    /// Where its identity is kept.
    folder: PathBuf,
    store: Arc<dyn Store>,
    links: Arc<Links>,
    usage: Mutex<Usage>,
    known: Mutex<LastCall>,
    bell: Notify,
    /// Addresses that are dialled anyway.
    configured: HashSet<String>,
    /// The integrations that this worker finds failing.
    troubles: Arc<Troubles>,
    /// What waits, if this worker sends it.
    counted: Arc<Counted>,
    /// Whether all workers take each URL of an application for an integration of its own.
    urls_apart: Arc<AtomicBool>,
    /// Who is to know the network's settings.
    pipeline: Option<Arc<Pipeline>>,
    /// They may be others than were read last.
    settings_moved: AtomicBool,
}

/// What the last call has brought.
#[derive(Default)]
struct LastCall {
    servers: Vec<Server>,
    signs: HashMap<(Role, String), Sign>,
    access: AccessList,
    /// The keys of join tokens that each balancer has sealed for the others, by the key of its certificate.
    token_keys: HashMap<String, String>,
    /// Balancers that were found, by name, with the address and what ends the dialling.
    dialled: HashMap<String, (String, CancellationToken)>,
    /// Balancers of another cluster that were told of.
    strangers: HashSet<String>,
}

/// The last sign of life of a server, by this process's own clock: the clocks of others may be wrong.
struct Sign {
    seen_at: UnixMicros,
    /// When this line was seen first; `None` if it was old then.
    changed: Option<Instant>,
}

impl LastCall {
    fn learn(&mut self, servers: Vec<Server>, access: Option<AccessList>) {
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.signs);
        for server in &servers {
            let key = (server.kind(), server.name.clone());
            let sign = match before.remove(&key) {
                Some(sign) if sign.seen_at == server.seen_at => sign,
                Some(_) => Sign { seen_at: server.seen_at, changed: Some(now) },
                None => {
                    let written = time::now();
                    let apart = written.since(server.seen_at).max(server.seen_at.since(written));
                    Sign { seen_at: server.seen_at, changed: (apart < GONE_AFTER).then_some(now) }
                }
            };
            self.signs.insert(key, sign);
        }
        self.servers = servers;
        if let Some(access) = access {
            self.access = access;
        }
    }

    /// Each balancer's own word counts for it alone, by the key of the certificate that it has shown: the number that keys begin with
    /// says which are later, but only who can open them knows whether it is true.
    fn learn_token_keys(&mut self, teller: &str, told: String) {
        let is_revoked = self.access.revoked.iter().any(|revoked| revoked.key == teller);
        let has_room = self.token_keys.len() < MOST_TELLERS || self.token_keys.contains_key(teller);
        if !is_revoked && !teller.is_empty() && !told.is_empty() && told.len() <= MOST_KEYS && has_room {
            self.token_keys.insert(teller.to_owned(), told);
        }
    }

    /// For the balancers: the latest by their number, and all others. What one told that was removed since is not passed on, and what
    /// one told that is not listed any more is forgotten.
    fn token_keys(&mut self) -> (String, Vec<String>) {
        let number = |keys: &str| keys.split_once('.').and_then(|(number, _)| number.parse::<u64>().ok()).unwrap_or(0);
        let revoked: HashSet<&str> = self.access.revoked.iter().map(|revoked| revoked.key.as_str()).collect();
        let listed: HashSet<&str> = self.servers.iter().map(|server| server.key.as_str()).collect();
        self.token_keys.retain(|teller, _| !revoked.contains(teller.as_str()) && listed.contains(teller.as_str()));
        let mut all: Vec<String> = self.token_keys.values().cloned().collect();
        all.sort_by_key(|keys| number(keys));
        (all.pop().unwrap_or_default(), all)
    }

    /// How long ago there was a sign of this server; `None` if none was seen since this process started.
    fn silence(&self, role: Role, name: &str) -> Option<Duration> {
        Some(self.signs.get(&(role, name.to_owned()))?.changed?.elapsed())
    }

    fn is_alive(&self, server: &Server) -> bool {
        server.state != "gone" && self.silence(server.kind(), &server.name).is_some_and(|silence| silence < GONE_AFTER)
    }

    fn is_revoked(&self, server: &Server) -> bool {
        !server.key.is_empty() && self.access.revoked.iter().any(|revoked| revoked.key == server.key)
    }

    /// As [`Self::is_revoked`]; of one without a key, which no worker has been linked to yet, it is its name that was removed.
    fn is_removed(&self, server: &Server) -> bool {
        let same = |gone: &RevokedServer| gone.name == server.name && gone.role == server.kind();
        self.is_revoked(server) || server.key.is_empty() && self.access.revoked.iter().any(same)
    }

    /// Whether the other workers that are there take each URL of an application for an integration of its own. One that fell silent
    /// without a word may be there again.
    fn others_take_urls_apart(&self, me: &str) -> bool {
        let is_there = |worker: &&Server| {
            let silence = self.silence(Role::Worker, &worker.name);
            worker.state != "gone" && silence.is_some_and(|silence| silence < LISTED)
        };
        let others = self.servers.iter().filter(|server| server.kind() == Role::Worker && server.name != me);
        others.filter(is_there).all(|worker| worker.urls_apart)
    }

    /// The balancers that are there.
    fn balancers(&self) -> impl Iterator<Item = &Server> {
        let balancers = self.servers.iter().filter(|server| server.kind() == Role::Balancer);
        balancers.filter(|server| self.is_alive(server) && !self.is_revoked(server))
    }
}

impl Roll {
    pub fn new(me: Server, folder: PathBuf, store: Arc<dyn Store>, links: Arc<Links>) -> Self {
        let (usage, known, bell, configured, troubles, counted, urls_apart, pipeline) = Default::default();
        Self {
            me,
            folder,
            store,
            links,
            usage,
            known,
            bell,
            configured,
            troubles,
            counted,
            urls_apart,
            pipeline,
            settings_moved: AtomicBool::new(false),
        }
    }

    /// Whose integrations that fail, and what waits for them, are written down too.
    pub(crate) fn telling(mut self, troubles: Arc<Troubles>, counted: Arc<Counted>) -> Self {
        (self.troubles, self.counted) = (troubles, counted);
        self
    }

    /// What the others take for an integration is written there.
    pub(crate) fn setting(mut self, urls_apart: Arc<AtomicBool>) -> Self {
        self.urls_apart = urls_apart;
        self
    }

    /// The network's settings are read for it when they have changed.
    pub(crate) fn following(mut self, pipeline: Arc<Pipeline>) -> Self {
        self.pipeline = Some(pipeline);
        self
    }

    /// What waits, as the worker that sends it has written it down.
    pub(crate) fn backlog(&self) -> Option<Vec<IntegrationBacklog>> {
        let known = self.known.lock();
        let tells = known.servers.iter().filter(|server| server.backlog.is_some() && known.is_alive(server));
        // One that has just given the lease back may still be heard: it is the later one that sends.
        let sends = tells.max_by_key(|server| server.seen_at);
        sends.and_then(|server| server.backlog.clone())
    }

    /// These addresses are dialled by others.
    pub fn besides(mut self, configured: &[String]) -> Self {
        self.configured = configured.iter().cloned().collect();
        self
    }

    /// Calls the roll until `end`. Balancers that are found are sent to `found`.
    pub async fn run(self: Arc<Self>, found: mpsc::Sender<Found>, end: CancellationToken) {
        let (mut calls, began, mut heard) = (0_u32, Instant::now(), false);
        while !end.is_cancelled() {
            heard |= self.call().await > 0;
            // Whom the store names may have been removed since the store was backed up: a balancer knows.
            if heard || began.elapsed() > UNHEARD {
                self.dial(&found, &end);
            }
            if calls.is_multiple_of(TIDY_EVERY) {
                // What is not forgotten today is forgotten tomorrow.
                let _ = within(self.store.expire_tokens(time::now() - KEPT)).await;
            }
            calls = calls.wrapping_add(1);
            tokio::select! {
                biased;
                () = tokio::time::sleep(EVERY) => {}
                () = self.bell.notified() => {}
                () = end.cancelled() => {}
            }
        }
        let gone = Server { state: "gone".into(), reason: "it left".into(), seen_at: time::now(), ..self.me.clone() };
        let _ = within(self.store.heartbeat(&gone)).await;
    }

    /// Something has changed: the next call need not wait.
    pub fn call_soon(&self) {
        self.bell.notify_one();
    }

    /// Reads what others have written, tells the balancers, and writes down what is new. Returns how many balancers have answered.
    async fn call(&self) -> usize {
        self.read().await;
        let request = {
            let mut known = self.known.lock();
            // A balancer that was removed does not get the new ones.
            let (token_keys, more_token_keys) =
                if self.links.has_revoked() { Default::default() } else { known.token_keys() };
            Request::RollCall {
                revoked: known.access.revoked.clone(),
                tokens: known.access.tokens.clone(),
                balancers: known.balancers().cloned().collect(),
                store_note: self.store_note(),
                token_keys,
                more_token_keys,
            }
        };
        let mut reports = Vec::new();
        for (key, reply) in self.links.ask_each(&request, BALANCER_LIMIT).await {
            if let Reply::RollCall { servers, tokens, token_keys, revoked } = reply {
                self.put_back(servers.first(), revoked).await;
                self.known.lock().learn_token_keys(&key, token_keys);
                self.note_tokens(tokens).await;
                reports.push(servers);
            }
        }
        self.write(&reports).await;
        reports.len()
    }

    async fn read(&self) {
        let mark = self.known.lock().access.mark();
        let read = async { Ok((AccessList::read(&*self.store, mark).await?, self.store.servers().await?)) };
        match within(read).await {
            Some((access, servers)) => {
                if let Some(access) = &access {
                    self.links.revoke(&access.revoked);
                }
                // The same number moves with the settings.
                self.settings_moved.fetch_or(access.is_some(), Ordering::Relaxed);
                let mut known = self.known.lock();
                known.learn(servers, access);
                self.urls_apart.store(known.others_take_urls_apart(&self.me.name), Ordering::Relaxed);
            }
            None => tracing::debug!("the store does not tell of the other servers now"),
        }
        self.read_settings().await;
    }

    /// By itself: whatever becomes of it, revoked servers are known.
    async fn read_settings(&self) {
        let Some(pipeline) = &self.pipeline else { return };
        if !self.settings_moved.swap(false, Ordering::Relaxed) {
            return;
        }
        match tokio::time::timeout(STORE_LIMIT, pipeline.read_settings()).await {
            Ok(Ok(())) => {}
            // Read again when the number has moved, or in a minute.
            Ok(Err(StoreError::Corrupt(why))) => {
                tracing::warn!(why, "the network's settings cannot be read; those known last hold");
            }
            Ok(Err(_)) | Err(_) => self.settings_moved.store(true, Ordering::Relaxed),
        }
    }

    /// What a balancer knows of revoked servers and the store does not: it was put back from an older backup. It counts here before
    /// anybody else is dialled, and for good once it is in the store.
    async fn put_back(&self, teller: Option<&Server>, revoked: Vec<RevokedServer>) {
        let heeded = teller.is_some_and(|balancer| !self.known.lock().is_revoked(balancer));
        for server in revoked.into_iter().filter(|_| heeded) {
            if self.known.lock().access.revoked.iter().any(|known| known.key == server.key) {
                continue;
            }
            self.links.revoke(std::slice::from_ref(&server));
            if within(self.store.revoke_server(&server)).await.is_some() {
                tracing::warn!(
                    name = server.name,
                    "the store did not know of a removed server, so it was put back from an older backup: it is removed there too"
                );
                self.known.lock().access.revoked.push(server);
            }
        }
    }

    /// What a balancer knows of tokens and the store does not.
    async fn note_tokens(&self, tokens: Vec<TokenInfo>) {
        for token in tokens {
            let news = {
                let known = self.known.lock();
                let mine = known.access.tokens.iter().find(|mine| mine.id == token.id);
                mine.is_none_or(|mine| {
                    let mut merged = mine.clone();
                    merged.merge(&token);
                    merged != *mine
                })
            };
            let kept = token.expires_at + KEPT > time::now();
            if news && kept {
                let _ = within(self.store.put_token(&token)).await;
            }
        }
    }

    /// Writes down this worker, its balancers, and that others are to be forgotten.
    async fn write(&self, reports: &[Vec<Server>]) {
        let now = time::now();
        let me = self.present(reports);
        let mut lines = vec![me];
        let mut forgotten = Vec::new();
        {
            let known = self.known.lock();
            for balancer in reports.iter().filter_map(|report| report.first()) {
                let fresh = known.silence(Role::Balancer, &balancer.name).is_some_and(|silence| silence < FRESH);
                if !fresh && !known.is_revoked(balancer) {
                    lines.push(balancer.clone());
                }
            }
            let others = reports.iter().flat_map(|report| report.iter().skip(1));
            for newcomer in others.filter(|server| server.kind() == Role::Balancer) {
                if known.servers.iter().all(|row| row.kind() != Role::Balancer || row.name != newcomer.name) {
                    lines.push(newcomer.clone());
                }
            }
            for server in known.servers.iter().filter(|server| !known.is_alive(server)) {
                if known.is_revoked(server) || server.seen_at + LISTED < now {
                    forgotten.push((server.kind(), server.name.clone()));
                }
            }
        }
        for mut line in lines {
            line.seen_at = now;
            let _ = within(self.store.heartbeat(&line)).await;
        }
        for (role, name) in forgotten {
            let _ = within(self.store.forget_server(role, &name)).await;
        }
    }

    /// This worker, as it and its balancers see it now.
    fn present(&self, reports: &[Vec<Server>]) -> Server {
        let (cluster, cluster_before) = self.links.identity().clusters();
        let mut me = Server { cluster, cluster_before, ..self.me.clone() };
        let (ready, reason) = self.links.readiness();
        me.state = match (self.links.is_draining() || self.links.is_drained(), ready) {
            (true, _) => "draining",
            (false, true) => "ready",
            (false, false) => "joining",
        }
        .into();
        me.reason = reason;
        me.in_flight = self.links.in_flight();
        merge::sighted(&mut me, reports);
        if let Some(skew) = self.links.skew() {
            me.reason = merge::sentences(&skew, &me.reason);
        }
        me.failing = self.troubles.told(time::now());
        me.backlog = self.counted.told();
        self.usage.lock().fill(&mut me, &self.folder);
        me
    }

    /// Lets balancers be dialled that nobody named, and lets go of those that are gone.
    fn dial(&self, found: &mpsc::Sender<Found>, end: &CancellationToken) {
        let known = &mut *self.known.lock();
        let clusters = self.links.identity().trust().clusters();
        // Also those without a sign of life: perhaps no worker was there to write it down.
        let listed = known.servers.iter().filter(|server| server.kind() == Role::Balancer && !known.is_revoked(server));
        let mut balancers: Vec<Server> = listed.cloned().collect();
        for balancer in &balancers {
            if !balancer.is_of(&clusters) && known.strangers.insert(balancer.name.clone()) {
                tracing::warn!(
                    balancer = balancer.name,
                    "a balancer in this store belongs to another cluster, with a certificate authority of its own: \
                     start it with a --join token of this cluster, or give it a store of its own"
                );
            }
        }
        balancers.retain(|balancer| balancer.is_of(&clusters) && !balancer.address.is_empty());
        known.dialled.retain(|name, (address, stop)| {
            let there = balancers.iter().any(|balancer| balancer.name == *name && balancer.address == *address);
            // A link that is up is left alone, whatever the store says.
            let keep = there || self.links.is_linked_by_name(name);
            if !keep {
                stop.cancel();
            }
            keep
        });
        for Server { name, address, instance, .. } in balancers {
            let dialled = known.dialled.contains_key(&name) || self.configured.contains(&address);
            if dialled || self.links.is_linked_to(instance) {
                continue;
            }
            let stop = end.child_token();
            let new = Found { address: address.clone(), stop: stop.clone() };
            if found.try_send(new).is_ok() {
                tracing::info!(balancer = name, %address, "found a balancer");
                known.dialled.insert(name, (address, stop));
            }
        }
    }

    /// What whoever adds a server should know of the store.
    fn store_note(&self) -> String {
        match self.store.is_shared() {
            true => "Give a worker the --store of this cluster, with its password.".into(),
            false => format!(
                "The store is {}: give workers on this machine the same --store. Servers on other machines need a shared \
                 store (--store cql://...), which this cluster does not have.",
                self.store.describe()
            ),
        }
    }
}

/// What the store says, if it does so in time.
async fn within<T>(operation: impl Future<Output = limpet_store::Result<T>>) -> Option<T> {
    match tokio::time::timeout(STORE_LIMIT, operation).await {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the store did not do its part of the roll call");
            None
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_is_there_and_takes_all_urls_for_one_holds_the_others_to_that() {
        let worker = |name: &str, urls_apart| {
            let (role, seen_at) = (Role::Worker.as_str().into(), time::now());
            Server { name: name.into(), role, urls_apart, seen_at, ..Server::default() }
        };
        let apart = |servers: &[Server]| {
            let mut known = LastCall::default();
            known.learn(servers.to_vec(), None);
            known.others_take_urls_apart("me")
        };
        assert!(apart(&[]) && apart(&[worker("me", false), worker("a", true)]));
        assert!(!apart(&[worker("a", true), worker("b", false)]));
        let gone = Server { state: "gone".into(), ..worker("b", false) };
        let long_ago = Server { seen_at: UnixMicros(1), ..worker("c", false) };
        assert!(apart(&[worker("a", true), gone, long_ago, balancer("d")]));
    }

    fn balancer(key: &str) -> Server {
        Server { key: key.into(), role: Role::Balancer.as_str().into(), ..Server::default() }
    }

    /// What nobody can open begins with any number.
    #[test]
    fn no_balancers_keys_of_join_tokens_hide_anothers() {
        let mut known = LastCall { servers: ["a", "b", "c"].map(balancer).into(), ..LastCall::default() };
        known.learn_token_keys("a", "5.true".into());
        known.learn_token_keys("b", "99999999999999999999.junk".into());
        known.learn_token_keys("c", "999.junk".into());
        assert_eq!(known.token_keys(), ("999.junk".into(), vec!["99999999999999999999.junk".into(), "5.true".into()]));
        known.learn_token_keys("a", "6.later".into());
        known.access.revoked.push(RevokedServer { key: "c".into(), ..RevokedServer::default() });
        assert_eq!(known.token_keys(), ("6.later".into(), vec!["99999999999999999999.junk".into()]));
        known.learn_token_keys("c", "7.again".into());
        known.learn_token_keys("", "7.nobody".into());
        for n in 0..100 {
            known.servers.push(balancer(&n.to_string()));
            known.learn_token_keys(&n.to_string(), "8.many".into());
        }
        assert_eq!(known.token_keys().1.len(), MOST_TELLERS - 1);
        // Those that went make room for those that come.
        known.servers = vec![balancer("new")];
        assert_eq!(known.token_keys(), (String::new(), vec![]));
        known.learn_token_keys("new", "9.new".into());
        assert_eq!(known.token_keys(), ("9.new".into(), vec![]));
    }
}
