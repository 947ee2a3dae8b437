//! The operator's way in: questions to the driver, whoever asks them.

use std::time::Duration;

use limpet_balancer_core::Stats;
use limpet_shared::admin::{ErrorKind, Reply, Request};
use tokio::sync::{mpsc, oneshot};

use crate::driver::{Input, Whom};

/// An answer must have come after this long.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A worker that knows more must have answered after this long.
const WORKER_WITHIN: Duration = Duration::from_secs(2);

/// Asks a running balancer. Clones ask the same one.
#[derive(Clone)]
pub struct AdminHandle(pub(crate) mpsc::Sender<Input>);

impl AdminHandle {
    /// Answers any question: by itself, or through a worker that is connected.
    /// What would stop for everybody is asked about first ([`Request::second_look`]).
    pub async fn ask(&self, request: Request) -> Reply {
        if request.wants_a_second_look()
            && let Some(first) = request.second_look(&self.pass_on(Request::Servers).await)
        {
            return first;
        }
        let request = match request {
            Request::RotateCa { finish, sure, join, .. } => {
                // Whom nobody names in the beginning loses its certificate: for that this balancer's own list will not do.
                let found = if finish || join.is_some() {
                    self.pass_on(Request::Servers).await
                } else {
                    self.put(Request::Servers, Whom::ReadyWorker, ANSWER_WITHIN).await
                };
                let Reply::Servers { servers } = found else {
                    return unavailable(
                        "no worker tells now which servers there are, and those that are not known would lose their certificates",
                    );
                };
                Request::RotateCa { finish, sure, join, servers }
            }
            Request::TokenKey { finish, .. } => {
                // For a word on who has which keys, nothing more.
                let servers = match self.pass_on(Request::Servers).await {
                    Reply::Servers { servers } => servers,
                    _ => Vec::new(),
                };
                Request::TokenKey { finish, servers }
            }
            request => request,
        };
        self.pass_on(request).await
    }

    async fn pass_on(&self, request: Request) -> Reply {
        // Workers know more of these, but a balancer alone must answer too.
        let alone = matches!(request, Request::Servers | Request::Tokens | Request::TokenRevoke { .. });
        let limit = if alone { WORKER_WITHIN } else { ANSWER_WITHIN };
        match self.put(request.clone(), Whom::Anybody, limit).await {
            Reply::Error { kind: ErrorKind::Unavailable, .. } if alone => {
                self.put(request, Whom::ThisBalancer, ANSWER_WITHIN).await
            }
            reply => reply,
        }
    }

    /// What this balancer alone can say.
    pub async fn ask_here(&self, request: Request) -> Reply {
        self.put(request, Whom::ThisBalancer, ANSWER_WITHIN).await
    }

    async fn put(&self, request: Request, whom: Whom, limit: Duration) -> Reply {
        let (answer, reply) = oneshot::channel();
        let asked = async {
            self.0.send(Input::Ask { request, whom, answer }).await.ok()?;
            reply.await.ok()
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(Some(reply)) => reply,
            Ok(None) => unavailable("the balancer is stopping"),
            Err(_) => unavailable("no answer came in time"),
        }
    }

    /// Numbers for gauges; `None` when the balancer has stopped.
    pub(crate) async fn stats(&self) -> Option<Stats> {
        let (answer, stats) = oneshot::channel();
        self.0.send(Input::Stats { answer }).await.ok()?;
        stats.await.ok()
    }
}

fn unavailable(message: &str) -> Reply {
    Reply::Error { kind: ErrorKind::Unavailable, message: message.into() }
}
