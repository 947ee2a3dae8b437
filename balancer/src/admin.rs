//! The operator's way in: questions to the driver, whoever asks them.

use std::time::Duration;

use limpet_balancer_core::Stats;
use limpet_shared::admin::{ErrorKind, Reply, Request};
use tokio::sync::{mpsc, oneshot};

use crate::driver::Input;

/// An answer must have come after this long.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Asks a running balancer. Clones ask the same one.
#[derive(Clone)]
pub struct AdminHandle(pub(crate) mpsc::Sender<Input>);

impl AdminHandle {
    /// Answers any question: by itself, or through a worker that is connected.
    pub async fn ask(&self, request: Request) -> Reply {
        let (answer, reply) = oneshot::channel();
        let asked = async {
            self.0.send(Input::Ask { request, answer }).await.ok()?;
            reply.await.ok()
        };
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
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
