//! Questions: answered here, by the link's authority, or by a worker.

use std::time::Duration;

use limpet_balancer_core::WorkerId;
use limpet_shared::{
    admin::{ErrorKind, Reply, Request, Role},
    link::{Admin, AdminReply, Renewed, to_balancer::Kind as ToBalancer, to_worker::Kind as ToWorker},
};
use tokio::sync::oneshot;

use super::Driver;

/// Questions that wait for a worker's answer.
const MAX_ASKED: usize = 1_000;

impl Driver {
    /// A message on a worker's control stream.
    pub(super) fn control(&mut self, id: WorkerId, message: ToBalancer) {
        match message {
            ToBalancer::Admin(Admin { id: question, request }) => {
                let reply = match serde_json::from_str(&request) {
                    Ok(request) => self.answer(&request).unwrap_or_else(not_here),
                    Err(error) => failed(ErrorKind::Invalid, format!("the question cannot be read: {error}")),
                };
                let reply = serde_json::to_string(&reply).unwrap_or_default();
                self.tell(id, ToWorker::AdminReply(AdminReply { id: question, reply }));
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

    fn renew(&self, id: WorkerId, csr: &[u8]) {
        let Some(linked) = self.workers.get(&id) else { return };
        match self.parts.server.authority().renew(csr, &linked.name) {
            Ok(certificate) => self.tell(id, ToWorker::Renewed(Renewed { certificate })),
            Err(error) => tracing::warn!(worker = linked.name, %error, "cannot renew a worker's certificate"),
        }
    }

    /// Answers an operator, or passes the question on to a worker.
    pub(super) fn ask(&mut self, request: Request, answer: oneshot::Sender<Reply>) {
        if let Some(reply) = self.answer(&request) {
            let _ = answer.send(reply);
            return;
        }
        self.asked.retain(|_, asker| !asker.is_closed());
        let worker = self.parts.core.admin_worker().filter(|_| self.asked.len() < MAX_ASKED);
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
            Request::JoinToken { role, expires_in_secs, uses } => Some(self.token(*role, *expires_in_secs, *uses)),
            request => self.parts.core.admin(self.parts.clock.now(), request),
        }
    }

    fn token(&self, role: Role, expires_in_secs: u64, uses: u32) -> Reply {
        match self.parts.server.token(role, Duration::from_secs(expires_in_secs), uses) {
            Ok(token) => Reply::JoinToken { token: token.as_str().to_owned(), expires_at: token.expires_at },
            Err(error) => failed(ErrorKind::Invalid, error.to_string()),
        }
    }
}

/// A worker asked what workers know; it was meant to answer itself.
fn not_here() -> Reply {
    failed(ErrorKind::Invalid, "a balancer has no store to answer that from".into())
}

fn failed(kind: ErrorKind, message: String) -> Reply {
    Reply::Error { kind, message }
}
