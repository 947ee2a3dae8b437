//! The balancer's side of joining.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use limpet_shared::{UnixMicros, admin::Role, link};
use prost::Message;
use quinn::Connection;
use serde::Serialize;

use super::{JoinReply, JoinRequest};
use crate::{
    authority::Authority,
    connection::{CODE_REFUSED, Ended},
    host,
    name::{self, NameState},
    server::{Names, removed},
    stream::Receiver,
    time,
    token::{Token, ledger::Ledger, role_name},
};

/// The longest request: a token, a name and a certificate request.
const REQUEST_MAX: usize = 16 << 10;
/// Balancers that joined of late and are remembered.
const NEWCOMERS: usize = 16;
/// Between joining and linking up a server is not connected, and its name is kept for it so long. Only from servers that
/// would take any name: one that was told its name must have it, also when it lost its folder and joins again.
const KEPT: Duration = Duration::from_secs(60);

/// A balancer that has joined, and that workers must hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    pub name: String,
    /// Where workers can dial it.
    pub address: String,
    /// The key of its certificate ([`crate::identity::PeerName::key`]).
    pub key: String,
}

/// Serves servers that join.
pub(crate) struct Joins {
    pub authority: Arc<Authority>,
    pub ledger: Arc<Ledger>,
    pub names: Names,
    /// The balancer's own name, which nobody else may have.
    pub own: String,
    /// Balancers that joined here: the last few.
    pub newcomers: Mutex<VecDeque<Newcomer>>,
    /// Names given out of late. Bounded by the joins that tokens allow in that time.
    pub given: Mutex<HashMap<String, Instant>>,
}

/// Why a server was not let in; what it is told.
struct No {
    reason: String,
    name_taken: bool,
}

impl<E: std::error::Error> From<E> for No {
    fn from(error: E) -> Self {
        Self { reason: error.to_string(), name_taken: false }
    }
}

fn json(value: &impl Serialize) -> Result<String, No> {
    Ok(serde_json::to_string(value)?)
}

impl Joins {
    /// Answers the one request of a connection. The error is for the log.
    pub async fn serve(self: &Arc<Self>, connection: Connection) -> Result<(), String> {
        let ended = |e: quinn::ConnectionError| Ended::from(e).to_string();
        let (mut send, receive) = connection.accept_bi().await.map_err(ended)?;
        let body = Receiver::<link::Ack>::with_limit(receive, REQUEST_MAX).body().await.map_err(|e| e.to_string())?;
        let Some(request) = body.and_then(|body| JoinRequest::decode(body).ok()) else {
            connection.close(CODE_REFUSED, b"the join request cannot be read");
            return Err("its join request cannot be read".into());
        };
        let joins = self.clone();
        // Counting the use waits for the disk.
        let decided = host::blocking(move || joins.decide(&request)).await.map_err(|e| e.to_string())?;
        let (reply, refused) = match decided {
            Ok(reply) => (reply, None),
            Err(No { reason, name_taken }) => {
                let now = time::now().0;
                (JoinReply { refused: reason.clone(), name_taken, now, ..JoinReply::default() }, Some(reason))
            }
        };
        let mut buffer = BytesMut::new();
        link::encode(&reply, &mut buffer);
        send.write_all(&buffer).await.map_err(|e| e.to_string())?;
        if send.finish().is_ok() {
            let _ = send.stopped().await;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Issued before the use is counted, so that a request that cannot be used costs none.
    fn issue(&self, request: &JoinRequest, token: &Token, key: &str, now: UnixMicros) -> Result<String, No> {
        let certificate = self.authority.issue(&request.csr, &request.name, token.role)?;
        self.ledger.take(token, key, &request.name, now)?;
        Ok(certificate)
    }

    /// Whether the name is kept for who asks as of now; an error if another has it. `again`: it was given this very name
    /// before, and asks once more. Then only a worker that is linked can be another server: it is not linked itself, while a
    /// balancer that has joined is known to all before it has its certificate.
    fn name(&self, request: &JoinRequest, role: Role, again: bool) -> Result<bool, No> {
        let taken = |reason| Err(No { reason, name_taken: true });
        let itself = again && role == Role::Balancer;
        let live = !itself && (self.names)(&request.name, None) == NameState::Live;
        if request.name == self.own || live {
            return taken(format!("another server of the cluster is called {:?}", request.name));
        }
        let kept = self.keep(&request.name);
        if request.any_name && !kept && !again {
            return taken(format!("another server has just joined as {:?}", request.name));
        }
        Ok(kept)
    }

    fn given(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the name for who asks now; false if it is kept for another already.
    fn keep(&self, name: &str) -> bool {
        let mut given = self.given();
        given.retain(|_, at| at.elapsed() < KEPT);
        let free = !given.contains_key(name);
        given.entry(name.to_owned()).or_insert_with(Instant::now);
        free
    }

    /// To a balancer that is one already, for an operator has given it a token.
    fn hand_over_change(
        &self,
        request: &JoinRequest,
        token: &Token,
        key: &str,
        now: UnixMicros,
    ) -> Result<JoinReply, No> {
        let no = |reason: &str| No { reason: reason.to_owned(), name_taken: false };
        let change = self.authority.change().filter(|_| token.role == Role::Balancer);
        let change = change.ok_or_else(|| no("the cluster's CA is not being changed here"))?;
        let reply = JoinReply { change: json(&change)?, ..JoinReply::default() };
        self.ledger.take(token, key, &request.name, now)?;
        tracing::info!(name = request.name, token = token.id, "a balancer gets the cluster's new CA");
        Ok(reply)
    }

    fn decide(&self, request: &JoinRequest) -> Result<JoinReply, No> {
        let now = time::now();
        let token = self.authority.verify(&request.token, now)?;
        name::check(&request.name)?;
        let key = Authority::key_of(&request.csr)?;
        if (self.names)(&request.name, Some(&key)) == NameState::Revoked {
            return Err(No { reason: removed(&request.name), name_taken: false });
        }
        if request.adopts {
            return self.hand_over_change(request, &token, &key, now);
        }
        let before = self.ledger.admitted(&token.id, &key);
        if let Some(name) = before.as_ref().filter(|name| **name != request.name) {
            // It has another one now. So no token keeps more names than it lets servers in.
            self.given().remove(name);
        }
        let kept = self.name(request, token.role, before.as_ref() == Some(&request.name))?;
        let certificate = match self.issue(request, &token, &key, now) {
            Ok(certificate) => certificate,
            Err(no) => {
                if kept {
                    self.given().remove(&request.name);
                }
                return Err(no);
            }
        };
        tracing::info!(
            name = request.name,
            role = role_name(token.role),
            token = token.id,
            again = before.is_some(),
            "a server joins the cluster"
        );
        if let (Role::Balancer, Some(link)) = (token.role, request.link.first()) {
            let mut newcomers = self.newcomers.lock().unwrap_or_else(PoisonError::into_inner);
            newcomers.retain(|newcomer| newcomer.name != request.name);
            newcomers.truncate(NEWCOMERS - 1);
            let address = link.chars().take(300).collect();
            newcomers.push_front(Newcomer { name: request.name.clone(), address, key });
        }
        let keys = self.authority.keys();
        let mut reply = JoinReply { certificate, ca: keys.ca_pem.clone(), ..JoinReply::default() };
        let change = self.authority.change();
        reply.trust = change.as_ref().map(|change| json(&change.trust)).transpose()?.unwrap_or_default();
        if token.role == Role::Balancer {
            reply.change = change.as_ref().map(json).transpose()?.unwrap_or_default();
            reply.ca_key = keys.ca_key_pem.clone();
            reply.token_key = keys.token_key.clone();
        }
        Ok(reply)
    }
}
