//! Changing the cluster's CA: what an operator asks for beside this balancer, and what its workers are told of it.

use std::{collections::BTreeSet, time::Duration};

use limpet_balancer_core::WorkerId;
use limpet_link::{LinkServer, NameState, Token, authority::CHANGE_LASTS, time};
use limpet_shared::{
    admin::{ErrorKind, Reply, Role, Server},
    link::to_worker::Kind as ToWorker,
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Driver,
    operators::{Work, done, failed},
};

/// The token that the other balancers get the new CA with is good for so long.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// A linked worker has this long for a new certificate once the CA before is given up. One of this version needs a moment.
const GRACE: Duration = Duration::from_secs(20);

/// What a worker has been told of the CA, and when.
pub(super) type Told = ((u64, bool), Instant);

/// What is wanted, and the servers that there are.
pub(super) struct Wanted {
    pub finish: bool,
    pub sure: bool,
    pub servers: Vec<Server>,
    /// Those whose certificates nobody knows: they cannot go on counting.
    pub unknown: Vec<Server>,
    /// This balancer's.
    pub name: String,
}

impl Driver {
    /// Tells all workers whose certificates count. Also those that ask for nothing: one whose own does not is linked no longer.
    pub(super) fn tell_trust_to_all(&mut self) {
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            self.tell_trust(id);
        }
    }

    /// Tells a worker whose certificates count, if it was not told yet; one whose own does not by now loses its link.
    fn tell_trust(&mut self, id: WorkerId) {
        let trust = self.parts.server.authority().trust();
        let Some(linked) = self.workers.get_mut(&id).filter(|_| trust.since > 0) else { return };
        if trust.former.is_some() && linked.certified < trust.since {
            // Linked before the change, perhaps with what somebody made with a copy of the key.
            if linked.counted < trust.since && !trust.known.contains(&linked.key) {
                return self.shut_out(id);
            }
            linked.counted = trust.since;
        }
        match linked.told {
            Some((mark, since)) if mark == trust.mark() => {
                let shut_out = trust.former.is_none() && linked.certified < trust.since && since.elapsed() > GRACE;
                if shut_out {
                    self.shut_out(id);
                }
            }
            _ => {
                linked.told = Some((trust.mark(), Instant::now()));
                self.tell(id, ToWorker::Trust(trust.message()));
            }
        }
    }

    pub(super) fn shut_out(&mut self, id: WorkerId) {
        let Some(linked) = self.workers.remove(&id) else { return };
        let why = "its certificate is of a CA that was given up: it must join anew (`limpet ctl join-token`)";
        tracing::warn!(worker = linked.name, "closing a worker's link: {why}");
        let _ = linked.outbox.close.send(why.into());
        self.parts.core.on_worker_closed(self.parts.clock.now(), id);
    }

    /// Another balancer's token leads to the CA that the cluster changes to.
    pub(super) fn adopt_ca(&self, token: &str, answer: oneshot::Sender<Reply>) {
        let server = self.parts.server.clone();
        let token = match token.parse::<Token>() {
            Ok(token) => token,
            Err(error) => return drop(answer.send(failed(ErrorKind::Invalid, error.to_string()))),
        };
        tokio::spawn(async move {
            let reply = match server.adopt(&token).await {
                Ok(true) => done(
                    "this balancer has the cluster's new CA. Workers have new certificates within seconds once all balancers have it; \
                     then `limpet ctl rotate-ca --finish` at any of them"
                        .into(),
                ),
                Ok(false) => done("this balancer has had that CA already".into()),
                Err(error) => failed(ErrorKind::Invalid, error.to_string()),
            };
            answer.send(reply)
        });
    }

    /// Those whose certificates may count: not of who was removed.
    pub(super) fn change_ca(&self, finish: bool, sure: bool, mut servers: Vec<Server>) -> Work {
        let removed = |server: &Server| self.parts.registry.name(&server.name, Some(&server.key)) == NameState::Revoked;
        with_newcomers(&mut servers, self.newcomers(&[]), &self.parts.server.authority().trust().known);
        servers.retain(|server| !removed(server));
        let (unknown, mut servers): (Vec<_>, Vec<_>) = servers.into_iter().partition(|server| server.key.is_empty());
        // A worker has told of them. It cannot leave out who is linked here.
        for linked in self.workers.values() {
            let mine = Server {
                name: linked.name.clone(),
                key: linked.key.clone(),
                state: "ready".into(),
                ..Server::default()
            };
            if !removed(&mine) && servers.iter().all(|server| server.key != mine.key) {
                servers.push(mine);
            }
        }
        let wanted = Wanted { finish, sure, servers, unknown, name: self.parts.core.name().to_owned() };
        let server = self.parts.server.clone();
        Box::new(move || if wanted.finish { end(&server, &wanted) } else { begin(&server, &wanted) })
    }
}

/// Adds who joined here a moment ago, before any worker has told of it, or before it has said its key. `known`: whose certificates
/// were of the CA before; nobody has told whether one of these has another by now.
fn with_newcomers(servers: &mut Vec<Server>, newcomers: impl Iterator<Item = Server>, known: &BTreeSet<String>) {
    for newcomer in newcomers {
        match servers.iter_mut().find(|server| server.kind() == Role::Balancer && server.name == newcomer.name) {
            Some(server) if server.key.is_empty() => server.key = newcomer.key,
            Some(_) => {}
            None => {
                let is_told = !newcomer.key.is_empty() && !known.contains(&newcomer.key);
                let cluster = if is_told { newcomer.cluster } else { String::new() };
                servers.push(Server { cluster, ..newcomer });
            }
        }
    }
}

/// A change goes on already; perhaps whoever began it has not had the answer, with the token that it ended with.
fn is_under_way(server: &LinkServer, wanted: &Wanted) -> Reply {
    let since = time::rfc3339(limpet_shared::UnixMicros(server.authority().trust().since));
    let missing = missing(server, &wanted.servers);
    let balancers: Vec<&Server> = missing.iter().copied().filter(|one| is_other_balancer(one, &wanted.name)).collect();
    let without = names(&missing).unwrap_or_else(|| "none".into());
    let token = names(&balancers).map(|named| {
        format!(
            ". {named} must get it with a token (`limpet ctl rotate-ca --join-file FILE` there); if that was lost, {}",
            ANOTHER
        )
    });
    failed(
        ErrorKind::Invalid,
        format!(
            "the CA was changed at {since}, and that is not finished. Without a certificate of the new one are: {without}{}. \
             `limpet ctl rotate-ca --finish` gives up the one before",
            token.unwrap_or_default()
        ),
    )
}

fn begin(server: &LinkServer, wanted: &Wanted) -> Reply {
    let authority = server.authority();
    if authority.trust().former.is_some() {
        return is_under_way(server, wanted);
    }
    let unknown = names(&wanted.unknown.iter().collect::<Vec<_>>()).map(|names| {
        format!(". Of these no certificate is known yet, so they must join anew, unless you wait until it is: {names}")
    });
    let unknown = unknown.unwrap_or_default();
    let all = names(&wanted.servers.iter().collect::<Vec<_>>()).unwrap_or_else(|| "none".into());
    if !wanted.sure {
        let message = format!(
            "the cluster gets a new CA and a new key for join tokens; all tokens that were made before end. Certificates of these \
             servers count until they have new ones, of no others: {all}. Is there one that you do not know, remove it first{unknown}"
        );
        return failed(ErrorKind::Unconfirmed, message);
    }
    let known: BTreeSet<String> = wanted.servers.iter().map(|server| server.key.clone()).collect();
    match authority.rotate_ca(known, time::now()) {
        Ok(true) => {}
        // Somebody else was faster, and it is theirs that counts.
        Ok(false) => return is_under_way(server, wanted),
        Err(error) => return failed(ErrorKind::Internal, outcome_unknown(&error, "rotate-ca")),
    }
    if let Err(error) = server.follow_authority() {
        return failed(
            ErrorKind::Internal,
            format!(
                "the CA was changed, but this balancer cannot show its own new certificate: {error}; start it again. {ANOTHER}"
            ),
        );
    }
    // They would let nobody in; nobody shall think that they do.
    let since = limpet_shared::UnixMicros(authority.trust().since);
    if let Err(error) = server.ledger().revoke_made_before(since, time::now()) {
        tracing::warn!(%error, "join tokens of the CA before are still listed as good");
    }
    tracing::warn!(known = all, without = unknown, "an operator changes the cluster's CA");
    let others: Vec<&Server> = wanted.servers.iter().filter(|one| is_other_balancer(one, &wanted.name)).collect();
    let hours = CHANGE_LASTS.as_secs() / 3600;
    let last = format!(
        "`limpet ctl rotate-ca --finish` gives up the CA before; else that is done after {hours} h. Servers that have no new \
         certificate by then must join anew. Make a backup of this balancer's folder"
    );
    let uses = u32::try_from(others.len()).unwrap_or(u32::MAX);
    let Some(named) = names(&others) else {
        return done(format!("the cluster has a new CA; workers have new certificates within seconds. {last}"));
    };
    match server.token(Role::Balancer, TOKEN_LIFE, uses) {
        Ok(token) => done(format!(
            "the cluster has a new CA. Within an hour run beside each other balancer ({named}): limpet ctl --data DIR rotate-ca \
             --join-file FILE, where the file holds the token below, which is a secret. Workers have new certificates within seconds \
             after that. {last}:\n{}",
            token.as_str()
        )),
        Err(error) => failed(
            ErrorKind::Internal,
            format!(
                "the cluster has a new CA, but there is no token for the other balancers ({named}): {error}. {ANOTHER}. {last}"
            ),
        ),
    }
}

/// How an operator gets a token of the new CA once more.
const ANOTHER: &str = "`limpet ctl join-token --role balancer --uses N --expires 1h` beside this balancer makes another token for \
                       the other balancers";

/// Something failed on the disk after the first of several writes, perhaps.
pub(super) fn outcome_unknown(error: &dyn std::fmt::Display, command: &str) -> String {
    format!(
        "{error}. Whether it counts is not certain: once the disk is well, start this balancer again and run `limpet ctl {command}` \
         once more, which says how things stand"
    )
}

fn end(server: &LinkServer, wanted: &Wanted) -> Reply {
    let mut missing = missing(server, &wanted.servers);
    missing.extend(&wanted.unknown);
    let missing = names(&missing);
    let nothing = || failed(ErrorKind::Invalid, "the CA is not being changed here: nothing to finish".into());
    if server.authority().trust().former.is_none() {
        return nothing();
    }
    if let (Some(missing), false) = (&missing, wanted.sure) {
        return failed(
            ErrorKind::Unconfirmed,
            format!(
                "these have no certificate of the new CA, and those that are not linked now must join anew: {missing}"
            ),
        );
    }
    match server.authority().finish_ca(time::now()) {
        Ok(true) => {}
        // It was finished elsewhere a moment ago.
        Ok(false) => return nothing(),
        Err(error) => return failed(ErrorKind::Internal, outcome_unknown(&error, "rotate-ca --finish")),
    }
    if let Err(error) = server.follow_authority() {
        return failed(
            ErrorKind::Internal,
            format!("the CA before counts no more, but this balancer cannot follow: {error}"),
        );
    }
    let without = missing.as_deref().unwrap_or("none");
    tracing::warn!(without, "the CA before counts no more; those without a new certificate must join anew");
    let anew = missing.map(|names| format!(". Must join anew, if they were not linked: {names}")).unwrap_or_default();
    done(format!("the CA before counts no more, at all balancers within seconds{anew}"))
}

/// Those that have no certificate of the present CA.
fn missing<'a>(server: &LinkServer, servers: &'a [Server]) -> Vec<&'a Server> {
    let present = server.authority().fingerprint().to_string();
    servers.iter().filter(|server| server.cluster != present).collect()
}

fn is_other_balancer(server: &Server, own: &str) -> bool {
    server.kind() == Role::Balancer && server.name != own
}

/// `None` if there are none.
fn names(servers: &[&Server]) -> Option<String> {
    let away = |server: &Server| if server.state == "gone" { " (away)" } else { "" };
    let named: Vec<String> =
        servers.iter().map(|server| format!("{} {}{}", server.kind().as_str(), server.name, away(server))).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_of_before_the_change_is_without_a_new_certificate_until_a_worker_tells_otherwise() {
        let balancer = |name: &str, key: &str| Server {
            name: name.into(),
            key: key.into(),
            role: Role::Balancer.as_str().into(),
            cluster: "new".into(),
            ..Server::default()
        };
        let mut servers = vec![balancer("told", "1"), balancer("keyless", "")];
        let newcomers =
            [balancer("told", "1"), balancer("keyless", "2"), balancer("before", "3"), balancer("after", "4")];
        with_newcomers(&mut servers, newcomers.into_iter(), &BTreeSet::from(["1".into(), "3".into()]));
        let brief: Vec<_> = servers.iter().map(|s| (s.name.as_str(), s.key.as_str(), s.cluster.as_str())).collect();
        assert_eq!(brief, [("told", "1", "new"), ("keyless", "2", "new"), ("before", "3", ""), ("after", "4", "new")]);
    }
}
