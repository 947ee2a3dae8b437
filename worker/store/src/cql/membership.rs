//! Servers, revoked certificates and join tokens.

use async_trait::async_trait;
use limpet_shared::{
    UnixMicros,
    admin::{RevokedServer, Role, Server, TokenInfo},
};
use scylla::statement::prepared::PreparedStatement;

use super::{
    CqlStore,
    db::{Db, How},
    entities::Kind,
    json::{decode, encode},
};
use crate::{Directory, Membership, OpenError, Result, counted, words};

/// Statements about signs of life.
pub(super) struct Servers {
    put: PreparedStatement,
    all: PreparedStatement,
    forget: PreparedStatement,
}

impl Servers {
    pub async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        let put = "INSERT INTO $.server (one, role, name, body) VALUES (0, ?, ?, ?)";
        let forget = "DELETE FROM $.server WHERE one = 0 AND role = ? AND name = ?";
        Ok(Self {
            put: db.prepare(How::Write, put).await?,
            all: db.prepare(How::Scan, "SELECT body FROM $.server WHERE one = 0").await?,
            forget: db.prepare(How::Write, forget).await?,
        })
    }
}

#[async_trait]
impl Membership for CqlStore {
    async fn heartbeat(&self, server: &Server) -> Result<()> {
        self.db.write(&self.servers.put, (role_key(server.kind()), &server.name, encode(server)?)).await
    }
    async fn servers(&self) -> Result<Vec<Server>> {
        let mut all = Vec::new();
        let collect = |(body,): (String,)| {
            all.push(decode(&body)?);
            Ok(true)
        };
        self.db.scan(&self.servers.all, (), collect).await?;
        Ok(all)
    }
    async fn forget_server(&self, role: Role, name: &str) -> Result<()> {
        self.db.write(&self.servers.forget, (role_key(role), name)).await
    }

    async fn revoke_server(&self, revoked: &RevokedServer) -> Result<()> {
        let id = format!("{}/{}", revoked.name, revoked.key);
        // The first revocation stays.
        self.entities.insert(&self.db, Kind::RevokedServer, &id, revoked).await?;
        self.count_membership_change().await
    }
    async fn revoked_servers(&self) -> Result<Vec<RevokedServer>> {
        let mut all: Vec<RevokedServer> = self.entities.all(&self.db, Kind::RevokedServer).await?;
        all.sort_by(|a, b| (&a.name, &a.key).cmp(&(&b.name, &b.key)));
        Ok(all)
    }

    async fn put_token(&self, token: &TokenInfo) -> Result<()> {
        let known = self.merge_token(token).await?;
        if !known && !self.entities.insert(&self.db, Kind::JoinToken, &token.id, token).await? {
            // Another worker was first to write it.
            self.merge_token(token).await?;
        }
        self.count_membership_change().await
    }
    async fn tokens(&self) -> Result<Vec<TokenInfo>> {
        let mut all: Vec<TokenInfo> = self.entities.all(&self.db, Kind::JoinToken).await?;
        all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(all)
    }
    async fn revoke_token(&self, id: &str) -> Result<()> {
        let revoke = |token: TokenInfo| Ok(TokenInfo { revoked: true, ..token });
        let revoked = self.entities.change(&self.db, Kind::JoinToken, id, revoke).await?;
        revoked.ok_or_else(|| words::missing("join token", id))?;
        self.count_membership_change().await
    }
    async fn expire_tokens(&self, before: UnixMicros) -> Result<u64> {
        let mut expired = 0;
        for token in self.tokens().await?.into_iter().filter(|token| token.expires_at < before) {
            expired += u64::from(self.entities.remove(&self.db, Kind::JoinToken, &token.id).await?);
        }
        if expired > 0 {
            self.count_membership_change().await?;
        }
        Ok(expired)
    }

    async fn membership_version(&self) -> Result<u64> {
        counted::read(self.setting(counted::MEMBERSHIP).await?.as_deref())
    }
}

impl CqlStore {
    /// After the change, so that who sees the new number sees the change. Whoever dies in between has told nobody that it was
    /// made.
    pub(super) async fn count_membership_change(&self) -> Result<()> {
        let count = |value: Vec<u8>| Ok(counted::next(Some(&value)));
        let counted = self.entities.change(&self.db, Kind::Setting, counted::MEMBERSHIP, count);
        let first = counted::next(None);
        if counted.await?.is_none()
            && !self.entities.insert(&self.db, Kind::Setting, counted::MEMBERSHIP, &first).await?
        {
            self.entities.change(&self.db, Kind::Setting, counted::MEMBERSHIP, count).await?;
        }
        Ok(())
    }

    /// False if there is no such token yet.
    async fn merge_token(&self, token: &TokenInfo) -> Result<bool> {
        let merge = |mut known: TokenInfo| {
            known.merge(token);
            Ok(known)
        };
        Ok(self.entities.change(&self.db, Kind::JoinToken, &token.id, merge).await?.is_some())
    }
}

/// Orders as [`Role`] does.
fn role_key(role: Role) -> i32 {
    match role {
        Role::Worker => 0,
        Role::Balancer => 1,
    }
}
