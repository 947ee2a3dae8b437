//! What operators ask of the roll.

use limpet_link::time;
use limpet_shared::admin::{ErrorKind, Reply, Request, RevokedServer, Role, Server};
use limpet_store::StoreError;

use super::{BALANCER_LIMIT, Roll, STORE_LIMIT, merge};

fn refused(kind: ErrorKind, message: impl Into<String>) -> Reply {
    Reply::Error { kind, message: message.into() }
}

fn done(message: String) -> Reply {
    Reply::Done { message }
}

impl Roll {
    /// All servers as they are now, and those that went.
    pub async fn servers(&self) -> Vec<Server> {
        let replies = self.links.ask_all(&Request::Servers, BALANCER_LIMIT).await;
        let reports: Vec<Vec<Server>> = replies
            .into_iter()
            .filter_map(|reply| match reply {
                Reply::Servers { servers } => Some(servers),
                _ => None,
            })
            .collect();
        let me = self.present(&reports);
        let known = self.known.lock();
        let is_me = |server: &Server| server.name == me.name && server.kind() == Role::Worker;
        let others = known.servers.iter().filter(|server| !is_me(server));
        let mut rows: Vec<(Server, bool)> = others.map(|server| (server.clone(), known.is_alive(server))).collect();
        rows.push((me.clone(), true));
        let mut servers = merge::roll(&rows, &reports, |server| known.is_removed(server));
        // Balancers cannot know what is wrong with this worker's clock.
        if let Some(mine) = servers.iter_mut().find(|server| is_me(server)) {
            mine.reason.clone_from(&me.reason);
        }
        servers
    }

    /// Takes a server out of the cluster. What is in the store lasts: balancers that are away learn it later.
    pub async fn remove(&self, name: &str, by: &str) -> Reply {
        let servers = self.servers().await;
        let Some(server) = servers.iter().find(|server| server.name == name) else {
            let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
            let message = format!("no server is called {name}; there are: {}", names.join(", "));
            return refused(ErrorKind::NotFound, message);
        };
        if let Some(why) = objection(server, &servers) {
            return refused(ErrorKind::Invalid, why);
        }
        let revoked =
            RevokedServer { name: name.to_owned(), role: server.kind(), key: server.key.clone(), at: time::now() };
        match self.ask_store(self.store.revoke_server(&revoked)).await {
            Ok(()) => {}
            Err(reply) => return reply,
        }
        // The balancers that are connected know it when this is answered.
        self.call().await;
        tracing::info!(name, role = server.role, by, "a server was removed from the cluster");
        done(removal(server))
    }

    pub async fn tokens(&self) -> Reply {
        match self.ask_store(self.store.tokens()).await {
            Ok(tokens) => Reply::Tokens { tokens },
            Err(reply) => reply,
        }
    }

    /// Lets nobody in any more with this token.
    pub async fn revoke_token(&self, id: &str) -> Reply {
        // One that was made a moment ago may not be in the store yet.
        self.call().await;
        match self.ask_store(self.store.revoke_token(id)).await {
            Ok(()) => {}
            Err(reply) => return reply,
        }
        self.call().await;
        done(format!("nobody joins with the token {id} any more"))
    }

    /// Drains a worker, or ends that, at all balancers.
    pub async fn drain(&self, request: &Request) -> Reply {
        let mut replies = self.links.ask_all(request, BALANCER_LIMIT).await;
        match replies.iter().position(|reply| matches!(reply, Reply::Done { .. })) {
            Some(at) => replies.swap_remove(at),
            None => {
                let none = || refused(ErrorKind::Unavailable, "no balancer is connected");
                replies.pop().unwrap_or_else(none)
            }
        }
    }

    async fn ask_store<T>(&self, operation: impl Future<Output = limpet_store::Result<T>>) -> Result<T, Reply> {
        match tokio::time::timeout(STORE_LIMIT, operation).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(StoreError::NotFound(what))) => Err(refused(ErrorKind::NotFound, format!("{what} does not exist"))),
            Ok(Err(error)) => Err(refused(ErrorKind::Unavailable, error.to_string())),
            Err(_) => Err(refused(ErrorKind::Unavailable, "the store does not answer")),
        }
    }
}

/// Why this server cannot be removed.
fn objection(server: &Server, servers: &[Server]) -> Option<String> {
    let name = &server.name;
    // What is gone of one may be removed: a folder that was deleted, a machine that died, fewer --workers than before.
    if server.combined && server.state != "gone" {
        return Some(format!("{name} is part of a `limpet up` and ends only with it: stop that process"));
    }
    if server.key.is_empty() {
        return Some(format!("the certificate of {name} is not known yet: try again in a few seconds"));
    }
    server
        .is_only_balancer(servers)
        .then(|| format!("{name} is the only balancer: without it no gateway reaches this cluster; add another first"))
}

fn removal(server: &Server) -> String {
    let name = &server.name;
    match (server.state.as_str(), server.kind()) {
        ("gone", _) => format!("{name} was removed: its certificate is revoked; it was not running"),
        (_, Role::Worker) => {
            format!("{name} was removed: its certificate is revoked, it finishes what it holds, and its process ends")
        }
        (_, Role::Balancer) => format!(
            "{name} was removed: its certificate is revoked, it answers what it holds, and its process ends. Gateways \
             cannot be moved from here: those that send to it must be pointed at another balancer. It still holds the \
             cluster's keys: delete its data folder, and if others may have it, change them (`limpet ctl rotate-ca`)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_of_an_up_can_be_removed_and_what_runs_cannot() {
        let part = |state: &str| Server {
            name: "up-2".into(),
            role: Role::Worker.as_str().into(),
            state: state.into(),
            key: "k".into(),
            combined: true,
            ..Server::default()
        };
        assert!(objection(&part("ready"), &[]).unwrap().contains("part of a `limpet up`"));
        assert_eq!(objection(&part("gone"), &[]), None);
    }
}
