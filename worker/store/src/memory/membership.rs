//! Servers, revoked certificates and join tokens in memory.

use async_trait::async_trait;
use limpet_shared::{
    UnixMicros,
    admin::{RevokedServer, Role, Server, TokenInfo},
};

use super::{MemoryStore, State};
use crate::{Membership, Result, counted, words};

#[async_trait]
impl Membership for MemoryStore {
    async fn heartbeat(&self, server: &Server) -> Result<()> {
        let key = (server.kind(), server.name.clone());
        self.state.lock().servers.insert(key, server.clone());
        Ok(())
    }
    async fn servers(&self) -> Result<Vec<Server>> {
        Ok(self.state.lock().servers.values().cloned().collect())
    }
    async fn forget_server(&self, role: Role, name: &str) -> Result<()> {
        self.state.lock().servers.remove(&(role, name.to_owned()));
        Ok(())
    }

    async fn revoke_server(&self, revoked: &RevokedServer) -> Result<()> {
        let key = (revoked.name.clone(), revoked.key.clone());
        let mut state = self.state.lock();
        state.revoked.entry(key).or_insert_with(|| revoked.clone());
        state.count_membership_change();
        Ok(())
    }
    async fn revoked_servers(&self) -> Result<Vec<RevokedServer>> {
        Ok(self.state.lock().revoked.values().cloned().collect())
    }

    async fn put_token(&self, token: &TokenInfo) -> Result<()> {
        let mut state = self.state.lock();
        state.tokens.entry(token.id.clone()).and_modify(|known| known.merge(token)).or_insert_with(|| token.clone());
        state.count_membership_change();
        Ok(())
    }
    async fn tokens(&self) -> Result<Vec<TokenInfo>> {
        let mut tokens: Vec<_> = self.state.lock().tokens.values().cloned().collect();
        // The map gives them by id, and the sort is stable.
        tokens.sort_by_key(|token| token.created_at);
        Ok(tokens)
    }
    async fn revoke_token(&self, id: &str) -> Result<()> {
        let mut state = self.state.lock();
        let token = state.tokens.get_mut(id).ok_or_else(|| words::missing("join token", id))?;
        token.revoked = true;
        state.count_membership_change();
        Ok(())
    }
    async fn expire_tokens(&self, before: UnixMicros) -> Result<u64> {
        let mut state = self.state.lock();
        let had = state.tokens.len();
        state.tokens.retain(|_, token| token.expires_at >= before);
        let expired = had - state.tokens.len();
        if expired > 0 {
            state.count_membership_change();
        }
        Ok(expired as u64)
    }

    async fn membership_version(&self) -> Result<u64> {
        counted::read(self.state.lock().settings.get(counted::MEMBERSHIP).map(Vec::as_slice))
    }
}

impl State {
    pub(super) fn count_membership_change(&mut self) {
        let next = counted::next(self.settings.get(counted::MEMBERSHIP).map(Vec::as_slice));
        self.settings.insert(counted::MEMBERSHIP.into(), next);
    }
}
