//! What operators ask of a balancer: answered here, by the link's authority, or by a worker.

use std::{collections::HashSet, time::Duration};

use limpet_balancer_core::WorkerId;
use limpet_link::{LinkServer, NameState, Newcomer, host, server::removed, time};
use limpet_shared::{
    UnixMicros,
    admin::{ErrorKind, Reply, Request, RevokedServer, Role, Server, TokenInfo},
    link::{Admin, AdminReply, Renewed, RevokedKey, to_balancer::Kind as ToBalancer, to_worker::Kind as ToWorker},
};
use tokio::sync::oneshot;

use super::{Driver, Whom, ca::outcome_unknown};

/// The longest life (s) and the most uses of a token that a worker asks for: what the console offers.
const MOST_FOR_WORKERS: (u64, u32) = (7 * 86_400, 100);
/// Revoked certificates that one answer gives back to the store.
const MOST_FORGOTTEN: usize = 1_000;
/// Keys of join tokens, as other balancers have sealed them, that are looked at in one roll call.
const MOST_TOLD_KEYS: usize = 16;
/// Questions that wait for a worker's answer.
const MAX_ASKED: usize = 1_000;

impl Driver {
    /// A message on a worker's control stream.
    pub(super) fn control(&mut self, id: WorkerId, message: ToBalancer) {
        if self.is_removed(id) && !finishes_work(&message) {
            return self.turn_down(id, message);
        }
        match message {
            ToBalancer::Admin(Admin { id: question, request }) => {
                let Some(linked) = self.workers.get(&id) else { return };
                let control = linked.outbox.outgoing.control.clone();
                // A link that has just ended needs no answer, nor does one that reads none.
                let reply = move |reply: Reply| {
                    let reply = serde_json::to_string(&reply).unwrap_or_default();
                    let _ = control.try_send(ToWorker::AdminReply(AdminReply { id: question, reply }));
                };
                match serde_json::from_str(&request) {
                    Ok(Request::RollCall { revoked, tokens, balancers, store_note, token_keys, more_token_keys }) => {
                        let told = more_token_keys.into_iter().take(MOST_TOLD_KEYS);
                        self.learn_token_keys(told.chain([token_keys]).filter(|keys| !keys.is_empty()).collect());
                        self.tell_trust_to_all();
                        reply(self.roll_call(&revoked, tokens, &balancers, store_note));
                    }
                    Ok(request) => match self.refused_to_workers(&request).map_or_else(|| self.on_disk(&request), told)
                    {
                        Some(work) => drop(host::blocking(move || reply(work()))),
                        None => reply(self.answer(&request).unwrap_or_else(not_here)),
                    },
                    Err(error) => reply(failed(ErrorKind::Invalid, format!("the question cannot be read: {error}"))),
                }
            }
            ToBalancer::AdminReply(AdminReply { id: question, reply }) => {
                let reply = serde_json::from_str(&reply)
                    .unwrap_or_else(|e| failed(ErrorKind::Internal, format!("a worker's answer cannot be read: {e}")));
                if let Some(asker) = self.asked.remove(&question) {
                    let _ = asker.send(reply);
                }
            }
            ToBalancer::Renew(renew) => self.renew(id, &renew.csr),
            message => self.parts.core.on_control(self.parts.clock.now(), id, message),
        }
    }

    /// An operator took this worker out of the cluster, and its link is still there for what it holds.
    fn is_removed(&self, id: WorkerId) -> bool {
        let linked = self.workers.get(&id);
        linked.is_some_and(|linked| self.parts.registry.name(&linked.name, Some(&linked.key)) == NameState::Revoked)
    }

    fn turn_down(&mut self, id: WorkerId, message: ToBalancer) {
        let Some(linked) = self.workers.get(&id) else { return };
        tracing::debug!(worker = linked.name, "a removed worker has asked for something that it has no right to");
        let reply = failed(ErrorKind::Invalid, removed(&linked.name));
        if let ToBalancer::Admin(Admin { id: question, .. }) = message {
            let reply = serde_json::to_string(&reply).unwrap_or_default();
            self.tell(id, ToWorker::AdminReply(AdminReply { id: question, reply }));
        }
    }

    /// What is answered only beside a balancer: a worker's certificate must not buy the keys of the cluster, nor a way in
    /// that outlasts it.
    fn refused_to_workers(&self, request: &Request) -> Option<Reply> {
        if let Request::TokenKey { .. } | Request::RotateCa { .. } = request {
            let message =
                format!("that is done beside a balancer only: run it on the machine of {}", self.parts.core.name());
            return Some(failed(ErrorKind::Invalid, message));
        }
        let Request::JoinToken { role, expires_in_secs, uses } = *request else { return None };
        let modest = expires_in_secs <= MOST_FOR_WORKERS.0 && uses <= MOST_FOR_WORKERS.1;
        let data = std::path::absolute(&self.parts.data).unwrap_or_else(|_| self.parts.data.clone());
        let command = |arguments: &str| format!("limpet ctl --data {} join-token {arguments}", data.display());
        let name = self.parts.core.name();
        let message = match role {
            Role::Balancer => format!(
                "a token for a balancer hands over the keys of the cluster, so it is made only beside a balancer: on the \
                 machine of {name} run {}",
                command("--role balancer --uses 1 --expires 1h")
            ),
            Role::Worker if modest => return None,
            Role::Worker => format!(
                "from here a token is good for at most 7d and 100 servers; for more, on the machine of {name} run {}",
                command(&format!("--uses {uses} --expires {expires_in_secs}s"))
            ),
        };
        Some(failed(ErrorKind::Invalid, message))
    }

    fn renew(&mut self, id: WorkerId, csr: &[u8]) {
        let authority = self.parts.server.authority();
        let trust = authority.trust();
        let Some(linked) = self.workers.get_mut(&id) else { return };
        let counts = linked.certified.max(linked.counted) >= trust.since || trust.known.contains(&linked.key);
        if !counts {
            return self.shut_out(id);
        }
        let since = trust.since;
        match authority.renew(csr, &linked.name, &linked.key) {
            Ok(certificate) => {
                linked.certified = since;
                self.tell(id, ToWorker::Renewed(Renewed { certificate }));
            }
            Err(error) => tracing::warn!(worker = linked.name, %error, "cannot renew a worker's certificate"),
        }
    }

    /// Answers an operator, or passes the question on to a worker.
    pub(super) fn ask(&mut self, request: Request, whom: Whom, answer: oneshot::Sender<Reply>) {
        if let Request::RotateCa { join: Some(token), .. } = &request {
            return self.adopt_ca(&token.0, answer);
        }
        let others_know_more = whom != Whom::ThisBalancer && knows_less(&request);
        if !others_know_more && let Some(work) = self.on_disk(&request) {
            host::blocking(move || answer.send(work()));
            return;
        }
        if !others_know_more && let Some(reply) = self.answer(&request) {
            let _ = answer.send(reply);
            return;
        }
        self.asked.retain(|_, asker| !asker.is_closed());
        let unready = whom != Whom::ReadyWorker && request.only_reads();
        let worker = self.parts.core.admin_worker(unready).filter(|_| self.asked.len() < MAX_ASKED);
        let Some(worker) = worker else {
            let _ = answer.send(failed(ErrorKind::Unavailable, "no worker is connected that could answer".into()));
            return;
        };
        match serde_json::to_string(&request) {
            Ok(request) => {
                self.questions += 1;
                self.asked.insert(self.questions, answer);
                self.tell(worker, ToWorker::Admin(Admin { id: self.questions, request }));
            }
            Err(error) => {
                let _ = answer.send(failed(ErrorKind::Internal, error.to_string()));
            }
        }
    }

    /// What a balancer knows by itself.
    fn answer(&mut self, request: &Request) -> Option<Reply> {
        match request {
            Request::Servers => Some(Reply::Servers { servers: self.servers() }),
            Request::Tokens => Some(Reply::Tokens { tokens: self.parts.server.ledger().known() }),
            Request::RollCall { .. } => Some(failed(ErrorKind::Invalid, "only workers call the roll".into())),
            Request::Drain { name, on, by, .. } => {
                let reply = self.parts.core.admin(self.parts.clock.now(), request);
                if !matches!(reply, Some(Reply::Error { .. })) {
                    tracing::info!(worker = name, on, by, "an operator drains a worker, or ends that");
                }
                reply
            }
            request => self.parts.core.admin(self.parts.clock.now(), request),
        }
    }

    /// The servers that this balancer sees, itself first.
    fn servers(&mut self) -> Vec<Server> {
        let Some(Reply::Servers { mut servers }) = self.parts.core.admin(self.parts.clock.now(), &Request::Servers)
        else {
            return Vec::new();
        };
        let server = &self.parts.server;
        if let Some(itself) = servers.first_mut() {
            itself.address = server.advertised().first().cloned().unwrap_or_default();
            itself.key = server.key().to_owned();
            (itself.cluster, itself.cluster_before) = server.authority().trust().names();
            itself.token_keys_since = UnixMicros(server.authority().token_keys_since());
            self.usage.fill(itself, &self.parts.data);
        }
        servers
    }

    /// Balancers that joined here and that no worker has told of yet.
    pub(super) fn newcomers(&self, told: &[Server]) -> impl Iterator<Item = Server> {
        let server = &self.parts.server;
        let (cluster, cluster_before) = server.authority().trust().names();
        let newcomers = server.newcomers(|name| told.iter().any(|balancer| balancer.name == name));
        newcomers.into_iter().map(move |Newcomer { name, address, key }| Server {
            name,
            address,
            key,
            role: Role::Balancer.as_str().into(),
            state: "joining".into(),
            reason: "no worker is linked to it yet".into(),
            cluster: cluster.clone(),
            cluster_before: cluster_before.clone(),
            ..Server::default()
        })
    }

    /// A worker tells what the store knows, and takes back what this balancer knows.
    fn roll_call(
        &mut self,
        revoked: &[RevokedServer],
        tokens: Vec<TokenInfo>,
        balancers: &[Server],
        store_note: String,
    ) -> Reply {
        self.store_note = store_note;
        let server = self.parts.server.clone();
        let mut others: Vec<Server> = balancers.to_vec();
        others.retain(|other| other.key != server.key());
        server.set_others(others.iter().map(|other| other.address.clone()).filter(|a| !a.is_empty()).collect());
        self.parts.registry.balancers(&others);
        let told = revoked.iter().map(|server| RevokedKey {
            name: server.name.clone(),
            key: server.key.clone(),
            balancer: server.role == Role::Balancer,
        });
        self.parts.core.revoke(self.parts.clock.now(), told);
        let revoked = self.forgotten(revoked);
        let mut servers = self.servers();
        servers.extend(self.newcomers(balancers));
        let token_keys = server.authority().sealed_token_keys();
        let reply = Reply::RollCall { servers, tokens: server.ledger().known(), token_keys, revoked };
        host::blocking(move || {
            if let Err(error) = server.ledger().learn(&tokens, time::now()) {
                tracing::warn!(%error, "cannot keep what is known of join tokens");
            }
        });
        reply
    }

    /// What the store does not know of revoked certificates: it was put back from a backup that is older than they are.
    fn forgotten(&self, told: &[RevokedServer]) -> Vec<RevokedServer> {
        let told: HashSet<&str> = told.iter().map(|server| server.key.as_str()).collect();
        let missing = self.parts.core.revoked().filter(|server| !told.contains(server.key.as_str()));
        let missing = missing.map(|server| RevokedServer {
            name: server.name.clone(),
            role: if server.balancer { Role::Balancer } else { Role::Worker },
            key: server.key.clone(),
            at: time::now(),
        });
        missing.take(MOST_FORGOTTEN).collect()
    }

    /// Another balancer has changed the key of join tokens.
    fn learn_token_keys(&self, sealed: Vec<String>) {
        if sealed.is_empty() {
            return;
        }
        let server = self.parts.server.clone();
        let learn = move |sealed: &String| match server.authority().learn_token_keys(sealed) {
            Ok(true) => {
                tracing::info!("another balancer has changed the key of join tokens; it counts here too");
                if let Err(error) = server.follow_authority() {
                    tracing::warn!(%error, "cannot follow a change of the cluster's CA");
                }
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "cannot keep the new key of join tokens"),
        };
        host::blocking(move || sealed.iter().for_each(learn));
    }

    /// What waits for the disk, which the driver must not: to be run elsewhere.
    fn on_disk(&self, request: &Request) -> Option<Work> {
        let (server, note) = (self.parts.server.clone(), self.store_note.clone());
        match request.clone() {
            Request::JoinToken { role, expires_in_secs, uses } => {
                Some(Box::new(move || token(&server, role, expires_in_secs, uses, note)))
            }
            Request::TokenKey { finish, servers } => {
                let name = self.parts.core.name().to_owned();
                Some(Box::new(move || token_key(&server, &name, finish, &servers)))
            }
            Request::RotateCa { finish, sure, servers, .. } => Some(self.change_ca(finish, sure, servers)),
            Request::TokenRevoke { id } => Some(Box::new(move || revoke_token(&server, &id))),
            _ => None,
        }
    }
}

/// What is done to answer.
pub(super) type Work = Box<dyn FnOnce() -> Reply + Send>;

/// Nothing to be done: the answer is there.
fn told(reply: Reply) -> Option<Work> {
    Some(Box::new(move || reply))
}

/// What a worker still may send while it finishes what it holds.
fn finishes_work(message: &ToBalancer) -> bool {
    use ToBalancer::{Admin, AdminReply, Cluster, ClusterDelta, Renew};
    !matches!(message, Admin(_) | AdminReply(_) | Cluster(_) | ClusterDelta(_) | Renew(_))
}

fn token(server: &LinkServer, role: Role, expires_in_secs: u64, uses: u32, note: String) -> Reply {
    match server.token(role, Duration::from_secs(expires_in_secs), uses) {
        Ok(token) => Reply::JoinToken { token: token.as_str().to_owned(), expires_at: token.expires_at, note },
        Err(error) => failed(ErrorKind::Invalid, error.to_string()),
    }
}

/// The other balancers that have older keys than those of that time, in a sentence; empty if all have them, as far as is known.
fn behind(servers: &[Server], own: &str, since: UnixMicros) -> String {
    let is_behind =
        |server: &&Server| server.kind() == Role::Balancer && server.name != own && server.token_keys_since < since;
    let names: Vec<&str> = servers.iter().filter(is_behind).map(|server| server.name.as_str()).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(
        ". Not yet everywhere: {} had older keys when last heard of, until a worker links to them",
        names.join(", ")
    )
}

fn token_key(server: &LinkServer, own: &str, finish: bool, servers: &[Server]) -> Reply {
    let authority = server.authority();
    let now = time::now();
    let behind = behind(servers, own, UnixMicros(authority.token_keys_since()));
    let changed = match finish {
        true => authority.finish_token_key().map(|changed_at| {
            // They would let nobody in; nobody shall think that they do.
            if let Some(changed_at) = changed_at
                && let Err(error) = server.ledger().revoke_made_before(changed_at, now)
            {
                tracing::warn!(%error, "join tokens of the old key are still listed as good");
            }
            changed_at.is_some()
        }),
        false => authority.rotate_token_key(),
    };
    let open = server.ledger().known().into_iter().filter(|t| !t.revoked && t.expires_at > now && t.used() < t.uses);
    let open: Vec<String> = open.map(|token| token.id).collect();
    let named = if open.is_empty() { "none is open".into() } else { format!("open are: {}", open.join(", ")) };
    match (changed, finish) {
        (Ok(true), false) => done(format!(
            "new join tokens have a new key, at all balancers within seconds. Those that were made before are good until \
             `limpet ctl rotate-token-key --finish`; {named}{behind}"
        )),
        (Ok(true), true) => done(format!(
            "the old key counts no more, at all balancers within seconds: join tokens that were made with it let nobody in. \
             Of all that are listed {named}{behind}"
        )),
        (Ok(false), false) => failed(
            ErrorKind::Invalid,
            format!(
                "the last change is not finished, and its old key still counts: first `limpet ctl rotate-token-key --finish`{behind}"
            ),
        ),
        (Ok(false), true) => failed(ErrorKind::Invalid, "there is no old key: nothing to finish".into()),
        (Err(error), true) => failed(ErrorKind::Internal, outcome_unknown(&error, "rotate-token-key --finish")),
        (Err(error), false) => failed(ErrorKind::Internal, outcome_unknown(&error, "rotate-token-key")),
    }
}

pub(super) fn done(message: String) -> Reply {
    Reply::Done { message }
}

fn revoke_token(server: &LinkServer, id: &str) -> Reply {
    match server.ledger().revoke(id, time::now()) {
        Ok(true) => Reply::Done { message: format!("nobody joins with the token {id} any more") },
        Ok(false) => failed(ErrorKind::NotFound, format!("no join token {id} is known")),
        Err(error) => failed(ErrorKind::Internal, error.to_string()),
    }
}

/// Whether workers, who have the store, know more of this than one balancer does.
fn knows_less(request: &Request) -> bool {
    matches!(request, Request::Servers | Request::Tokens | Request::TokenRevoke { .. })
}

/// A worker asked what workers know; it was meant to answer itself.
fn not_here() -> Reply {
    failed(ErrorKind::Invalid, "a balancer has no store to answer that from".into())
}

pub(super) fn failed(kind: ErrorKind, message: String) -> Reply {
    Reply::Error { kind, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balancers_that_have_older_keys_of_join_tokens_are_named() {
        let server = |name: &str, role: Role, since| Server {
            name: name.into(),
            role: role.as_str().into(),
            token_keys_since: UnixMicros(since),
            ..Server::default()
        };
        let servers = [
            server("own", Role::Balancer, 0),
            server("behind", Role::Balancer, 6),
            server("before", Role::Balancer, 0),
            server("level", Role::Balancer, 7),
            server("ahead", Role::Balancer, 8),
            server("worker", Role::Worker, 0),
        ];
        let said = behind(&servers, "own", UnixMicros(7));
        assert!(said.contains("Not yet everywhere: behind, before had"), "{said}");
        assert_eq!(behind(&servers[3..], "own", UnixMicros(7)), "");
        assert_eq!(behind(&servers, "own", UnixMicros(0)), "", "they never were changed");
    }
}
