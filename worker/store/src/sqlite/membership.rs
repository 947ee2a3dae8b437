//! Servers, revoked certificates and join tokens, on SQLite.

use async_trait::async_trait;
use limpet_shared::{
    UnixMicros,
    admin::{RevokedServer, Role, Server, TokenInfo},
};
use rusqlite::Connection;

use super::{
    SqliteStore, directory,
    error::{all, decode, encode, execute, int, one},
};
use crate::{Membership, Result, counted, words};

#[async_trait]
impl Membership for SqliteStore {
    async fn heartbeat(&self, server: &Server) -> Result<()> {
        let (role, name, body) = (server.kind(), server.name.clone(), encode(server)?);
        self.writer
            .write(move |conn| {
                let sql = "INSERT INTO server (role, name, body) VALUES (?1, ?2, ?3) \
                           ON CONFLICT (role, name) DO UPDATE SET body = excluded.body";
                execute(conn, sql, (role_key(role), name, body)).map(drop)
            })
            .await
    }
    async fn servers(&self) -> Result<Vec<Server>> {
        let sql = "SELECT body FROM server ORDER BY role, name";
        self.readers.read(move |conn| all(conn, sql, [], |row| decode(row, 0))).await
    }
    async fn forget_server(&self, role: Role, name: &str) -> Result<()> {
        let (role, name) = (role_key(role), name.to_owned());
        let sql = "DELETE FROM server WHERE role = ?1 AND name = ?2";
        self.writer.write(move |conn| execute(conn, sql, (role, name)).map(drop)).await
    }

    async fn revoke_server(&self, revoked: &RevokedServer) -> Result<()> {
        let revoked = revoked.clone();
        self.writer.write(move |conn| revoke_server(conn, &revoked)).await
    }
    async fn revoked_servers(&self) -> Result<Vec<RevokedServer>> {
        let sql = "SELECT body FROM revoked_server ORDER BY name, key";
        self.readers.read(move |conn| all(conn, sql, [], |row| decode(row, 0))).await
    }

    async fn put_token(&self, token: &TokenInfo) -> Result<()> {
        let token = token.clone();
        self.writer.write(move |conn| put_token(conn, token)).await
    }
    async fn tokens(&self) -> Result<Vec<TokenInfo>> {
        let sql = "SELECT body FROM join_token ORDER BY created_at, id";
        self.readers.read(move |conn| all(conn, sql, [], |row| decode(row, 0))).await
    }
    async fn revoke_token(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.writer
            .write(move |conn| {
                let mut token = token(conn, &id)?.ok_or_else(|| words::missing("join token", &id))?;
                token.revoked = true;
                write_token(conn, &token)
            })
            .await
    }
    async fn expire_tokens(&self, before: UnixMicros) -> Result<u64> {
        let sql = "DELETE FROM join_token WHERE expires_at < ?1";
        self.writer
            .write(move |conn| {
                let expired = execute(conn, sql, [int(before.0)])?;
                if expired > 0 {
                    count_change(conn)?;
                }
                Ok(expired as u64)
            })
            .await
    }

    async fn membership_version(&self) -> Result<u64> {
        self.readers.read(|conn| counted::read(directory::setting(conn, counted::MEMBERSHIP)?.as_deref())).await
    }
}

/// Orders as [`Role`] does.
fn role_key(role: Role) -> i64 {
    match role {
        Role::Worker => 0,
        Role::Balancer => 1,
    }
}

pub(super) fn revoke_server(conn: &Connection, revoked: &RevokedServer) -> Result<()> {
    let sql = "INSERT INTO revoked_server (name, key, body) VALUES (?1, ?2, ?3) ON CONFLICT (name, key) DO NOTHING";
    execute(conn, sql, (&revoked.name, &revoked.key, encode(revoked)?))?;
    count_change(conn)
}

pub(super) fn count_change(conn: &Connection) -> Result<()> {
    let next = counted::next(directory::setting(conn, counted::MEMBERSHIP)?.as_deref());
    let sql =
        "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    execute(conn, sql, (counted::MEMBERSHIP, next)).map(drop)
}

fn token(conn: &Connection, id: &str) -> Result<Option<TokenInfo>> {
    one(conn, "SELECT body FROM join_token WHERE id = ?1", [id], |row| decode(row, 0))
}

pub(super) fn put_token(conn: &Connection, new: TokenInfo) -> Result<()> {
    let merged = match token(conn, &new.id)? {
        Some(mut known) => {
            known.merge(&new);
            known
        }
        None => new,
    };
    write_token(conn, &merged)
}

fn write_token(conn: &Connection, token: &TokenInfo) -> Result<()> {
    let sql = "INSERT INTO join_token (id, created_at, expires_at, body) VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT (id) DO UPDATE SET body = excluded.body";
    let values = (&token.id, int(token.created_at.0), int(token.expires_at.0), encode(token)?);
    execute(conn, sql, values)?;
    count_change(conn)
}
