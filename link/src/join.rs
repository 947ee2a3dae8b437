//! Trading a join token for a certificate, over its own ALPN on the link's port: one request, one answer. The client
//! knows the cluster by the fingerprint in its token; the server knows the client by the token.

use std::path::Path;

use limpet_shared::{UnixMicros, admin::Role, link};
use prost::Message;
use rcgen::KeyPair;

use crate::{
    authority::{Authority, AuthorityError, CaChange, ClusterKeys},
    client::{self, DialError},
    connection::{CODE_DONE, Ended},
    endpoint,
    files::{self, FileError},
    identity::{self, Identity, IdentityError},
    name::{self, NameError},
    stream::Receiver,
    time::{self, rfc3339},
    tls,
    token::{Token, TokenError},
};

mod pending;
pub mod server;

/// How many other names are tried for a server that did not choose its own.
const OTHER_NAMES: u32 = 50;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct JoinRequest {
    #[prost(string, tag = "1")]
    pub token: String,
    #[prost(string, tag = "2")]
    pub name: String,
    /// PKCS#10, DER.
    #[prost(bytes = "vec", tag = "3")]
    pub csr: Vec<u8>,
    /// Of a balancer: where workers will dial it, so that those that are there learn of it.
    #[prost(string, repeated, tag = "5")]
    pub link: Vec<String>,
    /// Any other name would do as well: two such servers that join at once must not get the same one.
    #[prost(bool, tag = "4")]
    pub any_name: bool,
    /// Of a balancer that is one already: it wants to have the CA to which the cluster is changing.
    #[prost(bool, tag = "6")]
    pub adopts: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct JoinReply {
    #[prost(string, tag = "1")]
    pub certificate: String,
    #[prost(string, tag = "2")]
    pub ca: String,
    /// For a balancer only.
    #[prost(string, tag = "3")]
    pub ca_key: String,
    /// For a balancer only.
    #[prost(string, tag = "4")]
    pub token_key: String,
    /// Not empty: refused, and why.
    #[prost(string, tag = "5")]
    pub refused: String,
    /// Refused because another server that is connected has this name.
    #[prost(bool, tag = "6")]
    pub name_taken: bool,
    /// The balancer's clock (Unix, us).
    #[prost(uint64, tag = "7")]
    pub now: u64,
    /// While the CA is being changed, [`Trust`] as JSON.
    #[prost(string, tag = "8")]
    pub trust: String,
    /// The same for a balancer, with all keys: [`CaChange`] as JSON.
    #[prost(string, tag = "9")]
    pub change: String,
}

/// Why a server could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("cannot join: {0}")]
    Dial(#[from] DialError),
    #[error("{address} refuses to let this server join: {reason}")]
    Refused { address: String, reason: String },
    #[error("cannot join: another server of the cluster is called {0:?}; choose another name with --name")]
    NameTaken(String),
    #[error("this server belongs to no cluster yet: it needs --join TOKEN (made by `limpet ctl join-token`)")]
    NoToken,
    #[error(
        "the certificate of this server expired at {}, and this machine's clock says {}: if the clock is right, it \
         needs a new --join TOKEN (made by `limpet ctl join-token`)",
        rfc3339(*at), rfc3339(*now)
    )]
    Expired { at: UnixMicros, now: UnixMicros },
    #[error(
        "the certificate of this server is not valid before {}, but this machine's clock says {}: set the clock",
        rfc3339(*from), rfc3339(*now)
    )]
    NotYet { from: UnixMicros, now: UnixMicros },
    #[error(
        "this server was removed from its cluster ({0}), and its certificate is revoked; to join again it needs a new \
         --join TOKEN (made by `limpet ctl join-token`)"
    )]
    Removed(String),
    #[error("{0} does not answer as a balancer should: {1}")]
    Protocol(String, String),
    #[error("this folder holds another cluster than the one of the token; choose another --data")]
    OtherCluster,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// What a token was traded for.
pub struct Joined {
    pub identity: Identity,
    /// The address that answered.
    pub address: String,
    /// For a balancer only.
    pub keys: Option<ClusterKeys>,
    /// For a balancer, while the CA is being changed.
    pub change: Option<CaChange>,
}

/// Trades a token for a certificate for `name`, at the first of the token's addresses that answers.
pub async fn join(token: &Token, name: &str) -> Result<Joined, JoinError> {
    trade(token, &pending::new_key()?, name, false, Vec::new()).await
}

async fn trade(
    token: &Token,
    key: &KeyPair,
    name: &str,
    any_name: bool,
    link: Vec<String>,
) -> Result<Joined, JoinError> {
    name::check(name)?;
    let csr = identity::request(key)?;
    let token_text = token.as_str().to_owned();
    let request = JoinRequest { token: token_text, name: name.to_owned(), csr, any_name, link, adopts: false };
    let (address, reply) = ask_any(token, &request).await?;
    accept(token, name, address, reply, key)
}

/// What a balancer gets to adopt the CA that the cluster is changing to.
pub(crate) async fn fetch_change(token: &Token, identity: &Identity) -> Result<CaChange, JoinError> {
    if token.role != Role::Balancer {
        return Err(TokenError::WrongRole { token: token.role, wanted: Role::Balancer }.into());
    }
    let (name, csr) = (identity.name().to_owned(), identity.csr()?);
    let token_text = token.as_str().to_owned();
    let request = JoinRequest { token: token_text, name, csr, adopts: true, ..JoinRequest::default() };
    let (address, reply) = ask_any(token, &request).await?;
    if !reply.refused.is_empty() {
        return Err(JoinError::Refused { address: address.to_owned(), reason: reply.refused });
    }
    serde_json::from_str(&reply.change)
        .map_err(|_| JoinError::Protocol(address.to_owned(), "the CA is not being changed there".into()))
}

/// The answer of the first address that gives one.
async fn ask_any<'a>(token: &'a Token, request: &JoinRequest) -> Result<(&'a str, JoinReply), JoinError> {
    let mut last = None;
    for address in &token.addresses {
        match ask(address, token, request).await {
            Ok(reply) => return Ok((address.as_str(), reply)),
            Err(JoinError::Dial(error)) => {
                tracing::warn!(%error, "cannot join there");
                last = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(last.map_or(TokenError::Malformed("it names no balancer").into(), JoinError::Dial))
}

async fn ask(address: &str, token: &Token, request: &JoinRequest) -> Result<JoinReply, JoinError> {
    let reset_key = endpoint::random_key().map_err(DialError::Socket)?;
    let (connection, endpoint) =
        client::connect(address, tls::joining(token.ca).map_err(DialError::Tls)?, reset_key).await?;
    let ended = |fallback: String| match connection.close_reason() {
        Some(reason) => DialError::Ended { address: address.to_owned(), ended: Ended::from(reason) },
        None => DialError::Protocol(address.to_owned(), fallback),
    };
    let exchange = async {
        let (mut send, receive) = connection.open_bi().await.map_err(|e| ended(e.to_string()))?;
        let mut buffer = bytes::BytesMut::new();
        link::encode(request, &mut buffer);
        send.write_all(&buffer).await.map_err(|e| ended(e.to_string()))?;
        let body =
            // TLS has verified the cluster, and while its CA is being changed the answer names every server.
            Receiver::<link::Ack>::new(receive).body().await.map_err(|e| ended(e.to_string()))?;
        body.and_then(|body| JoinReply::decode(body).ok()).ok_or_else(|| ended("no answer to the join request".into()))
    };
    let reply = tokio::time::timeout(std::time::Duration::from_secs(5), exchange).await;
    let reply = reply.map_err(|_| DialError::Timeout(address.to_owned()))??;
    connection.close(CODE_DONE, b"joined");
    let _ = tokio::time::timeout(std::time::Duration::from_millis(200), endpoint.wait_idle()).await;
    Ok(reply)
}

fn accept(token: &Token, name: &str, address: &str, reply: JoinReply, key: &KeyPair) -> Result<Joined, JoinError> {
    if reply.name_taken {
        return Err(JoinError::NameTaken(name.to_owned()));
    }
    if !reply.refused.is_empty() {
        let skew = Some(reply.now).filter(|now| *now > 0).and_then(|now| time::skew(time::now(), UnixMicros(now)));
        let reason = skew.map_or_else(|| reply.refused.clone(), |skew| format!("{} ({skew})", reply.refused));
        return Err(JoinError::Refused { address: address.to_owned(), reason });
    }
    let mut identity = Identity::from_pem(&reply.certificate, &key.serialize_pem(), &reply.ca)?;
    let unreadable =
        |_| JoinError::Protocol(address.to_owned(), "what it says of a change of the CA cannot be read".into());
    if !reply.trust.is_empty() {
        identity = identity.trusting(serde_json::from_str(&reply.trust).map_err(unreadable)?)?;
    }
    if identity.ca_fingerprint() != token.ca || identity.name() != name || identity.role() != token.role {
        return Err(JoinError::Protocol(
            address.to_owned(),
            "the certificate is not the one that was asked for".into(),
        ));
    }
    let keys = (token.role == Role::Balancer).then_some(ClusterKeys {
        ca_pem: reply.ca,
        ca_key_pem: reply.ca_key,
        token_key: reply.token_key,
    });
    let amid = token.role == Role::Balancer && !reply.change.is_empty();
    let change = if amid { Some(serde_json::from_str(&reply.change).map_err(unreadable)?) } else { None };
    Ok(Joined { identity, address: address.to_owned(), keys, change })
}

/// A worker's place in its cluster.
pub struct Membership {
    pub identity: Identity,
    /// Link addresses of the balancers that it knows of.
    pub balancers: Vec<String>,
}

/// A worker's identity: the one in `DATA/identity`, or a new one for the token. With `chosen`, the name is the
/// operator's choice and must be had; else a taken name is varied (`host-2`, `host-3`, ...) and a saved one kept.
pub async fn ensure_worker(
    data: &Path,
    token: Option<&Token>,
    name: &str,
    chosen: bool,
) -> Result<Membership, JoinError> {
    name::check(name)?;
    let folder = identity::folder(data, Role::Worker);
    let removed = removal(&folder, token)?;
    let before = files::read(&folder.join(TOKEN))?;
    let saved = Identity::load(&folder)?.filter(|saved| {
        let wanted = !chosen || saved.name() == name;
        // The token that it joined with once may name a CA that was changed since.
        let same = |token: &Token| saved.trust().includes(token.ca) || before.as_deref() == Some(token.id.as_str());
        wanted && removed.is_none() && token.is_none_or(same)
    });
    if let Some(Removal { words, spent: true }) = removed {
        return Err(JoinError::Removed(words));
    }
    let balancers = match token {
        Some(token) if token.role != Role::Worker => {
            return Err(TokenError::WrongRole { token: token.role, wanted: Role::Worker }.into());
        }
        Some(token) => token.addresses.clone(),
        None => load_balancers(&folder)?,
    };
    let now = time::now();
    match (saved, token) {
        (Some(identity), _) if now < identity.valid_from() => {
            Err(JoinError::NotYet { from: identity.valid_from(), now })
        }
        (Some(identity), _) if !identity.is_expired(now) => Ok(Membership { identity, balancers }),
        (Some(identity), None) => Err(JoinError::Expired { at: identity.expires_at(), now }),
        (None, None) => Err(JoinError::NoToken),
        (_, Some(token)) => {
            let joined = join_as(token, &pending::key(data, token)?, name, chosen).await?;
            joined.identity.save(&folder)?;
            save_balancers(&folder, &token.addresses)?;
            files::write(&folder.join(TOKEN), token.id.as_bytes())?;
            files::remove(&folder.join(REMOVED))?;
            pending::done(data)?;
            tracing::info!(name = joined.identity.name(), balancer = joined.address, "joined the cluster");
            Ok(Membership { identity: joined.identity, balancers })
        }
    }
}

/// Written when the server is removed: when, and by whose word.
const REMOVED: &str = "removed";
/// The id of the token that the identity was had for.
const TOKEN: &str = "token";

/// The server that has its identity in this folder was taken out of the cluster.
struct Removal {
    words: String,
    /// There is no token, or only the one that it had joined with before: nobody has asked for it to join again.
    spent: bool,
}

fn removal(folder: &Path, token: Option<&Token>) -> Result<Option<Removal>, FileError> {
    let Some(words) = files::read(&folder.join(REMOVED))? else { return Ok(None) };
    let before = files::read(&folder.join(TOKEN))?;
    let spent = token.is_none_or(|token| before.as_deref() == Some(token.id.as_str()));
    Ok(Some(Removal { words, spent }))
}

/// Keeps in mind that the server with its identity in this folder was removed from the cluster.
pub fn note_removal(folder: &Path) -> Result<(), FileError> {
    files::private_dir(folder)?;
    files::write(&folder.join(REMOVED), format!("noted at {}", rfc3339(time::now())).as_bytes())
}

async fn join_as(token: &Token, key: &KeyPair, name: &str, chosen: bool) -> Result<Joined, JoinError> {
    let first = trade(token, key, name, !chosen, Vec::new()).await;
    if chosen || !matches!(first, Err(JoinError::NameTaken(_))) {
        return first;
    }
    for number in 2..OTHER_NAMES {
        let suffix = format!("-{number}");
        let stem: String = name.chars().take(63 - suffix.len()).collect();
        match trade(token, key, &format!("{stem}{suffix}"), true, Vec::new()).await {
            Err(JoinError::NameTaken(_)) => {}
            other => return other,
        }
    }
    first
}

/// Keeps the addresses of balancers for the next start.
pub fn save_balancers(folder: &Path, balancers: &[String]) -> Result<(), FileError> {
    files::private_dir(folder)?;
    files::write(&folder.join("balancers"), balancers.join("\n").as_bytes())
}

fn load_balancers(folder: &Path) -> Result<Vec<String>, FileError> {
    let text = files::read(&folder.join("balancers"))?.unwrap_or_default();
    Ok(text.lines().map(str::to_owned).collect())
}

/// A balancer's cluster: the one in `DATA/cluster`, or with a token the one it leads to, or a new one. `link` is where
/// workers will dial it.
pub async fn ensure_balancer(
    data: &Path,
    token: Option<&Token>,
    name: &str,
    link: Vec<String>,
) -> Result<Authority, JoinError> {
    let cluster = data.join("cluster");
    match (Authority::load(&cluster)?, token) {
        (Some(authority), Some(token)) if !authority.has_had(token.ca)? => Err(JoinError::OtherCluster),
        (Some(authority), _) => Ok(authority),
        (None, None) => Ok(Authority::open(&cluster)?),
        (None, Some(token)) if token.role != Role::Balancer => {
            Err(TokenError::WrongRole { token: token.role, wanted: Role::Balancer }.into())
        }
        (None, Some(token)) => {
            let joined = trade(token, &pending::key(data, token)?, name, false, link).await?;
            let missing = || JoinError::Protocol(joined.address.clone(), "it sent no keys".into());
            // First: those that it joins with know it by this key already.
            joined.identity.save(&identity::folder(data, Role::Balancer))?;
            let authority = Authority::install_amid(&cluster, joined.keys.clone().ok_or_else(missing)?, joined.change)?;
            pending::done(data)?;
            tracing::info!(balancer = joined.address, "joined the cluster as a balancer");
            Ok(authority)
        }
    }
}
