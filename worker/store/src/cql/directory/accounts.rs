//! Users, each with an address nobody else has.
//!
//! An address is a row of its own that says whose it is, its claim. Who wants it claims it, writes the account, and then
//! writes the claim once more, unchanged: that confirms it. Who finds a claim of another looks whether that other's account
//! is there, and takes the claim over only if nobody wrote it since it was read. So a claim changes hands either before its
//! account is confirmed, which its confirmation notices, or after whoever takes it could see the account. What a crash
//! left of a claim is taken over the same way.

use std::sync::atomic::{AtomicBool, Ordering};

use limpet_worker_core::model::User;
use uuid::Uuid;

use super::{
    super::{CqlStore, entities::Kind},
    cascade::account_places,
};
use crate::{Directory, Result, StoreError, words};

/// How often an address is claimed whose claim is given up each time it is looked at.
const TRIES: u32 = 10;

fn contested(key: &str) -> StoreError {
    StoreError::Unknown(format!("the address {key} was given up by others {TRIES} times in a row"))
}

impl CqlStore {
    async fn account(&self, id: Uuid) -> Result<Option<User>> {
        self.entities.get_settled(&self.db, Kind::Account, &id.to_string()).await
    }

    async fn claim_email(&self, user: &User) -> Result<()> {
        let key = words::email_key(&user.email);
        for _ in 0..TRIES {
            if self.entities.insert(&self.db, Kind::AccountEmail, &key, &user.id).await? {
                return Ok(());
            }
            let key = &key;
            let take_over = |holder: Uuid| async move {
                match holder == user.id || self.has_given_up(holder, key).await? {
                    true => Ok(user.id),
                    false => Err(words::exists("user", &user.email)),
                }
            };
            if self.entities.change_after(&self.db, Kind::AccountEmail, key, take_over).await?.is_some() {
                return Ok(());
            }
        }
        Err(contested(&key))
    }

    /// Whether who claims the address is not there, or has another one for good.
    async fn has_given_up(&self, holder: Uuid, key: &str) -> Result<bool> {
        let Some(account) = self.account(holder).await? else { return Ok(true) };
        let now = words::email_key(&account.email);
        // One that is just moving to another address may lose that and come back, unless it is confirmed on its behalf.
        Ok(now != key && self.confirm(holder, &now).await?)
    }

    /// Confirms the address of an account that is written. False if another has taken its claim meanwhile.
    async fn confirm(&self, id: Uuid, key: &str) -> Result<bool> {
        for _ in 0..TRIES {
            match self.entities.change(&self.db, Kind::AccountEmail, key, |holder: Uuid| Ok(holder)).await? {
                Some(holder) => return Ok(holder == id),
                None if self.entities.insert(&self.db, Kind::AccountEmail, key, &id).await? => return Ok(true),
                None => {}
            }
        }
        Err(contested(key))
    }

    pub(super) async fn create_account(&self, user: &User) -> Result<()> {
        if self.entities.exists(&self.db, Kind::Account, &user.id.to_string()).await? {
            return Err(words::exists("user", user.id));
        }
        self.claim_email(user).await?;
        self.create(Kind::Account, user.id, user, account_places, &[]).await?;
        if self.confirm(user.id, &words::email_key(&user.email)).await? {
            return Ok(());
        }
        self.delete::<User>(Kind::Account, "user", user.id, account_places).await?;
        Err(words::exists("user", &user.email))
    }

    pub(super) async fn update_account(&self, was: &User, user: &User) -> Result<bool> {
        let Some(before) = self.user(user.id).await? else { return Err(words::missing("user", user.id)) };
        if before != *was {
            return Ok(false);
        }
        let key = words::email_key(&user.email);
        let moved = words::email_key(&before.email) != key;
        if moved {
            self.claim_email(user).await?;
        }
        let changed = AtomicBool::new(false);
        let replace = |now: User| {
            // One that is there already is what an earlier try has written, whose answer was lost.
            let other = now != *was && now != *user;
            changed.store(other, Ordering::Relaxed);
            Ok(if other { now } else { user.clone() })
        };
        self.update(Kind::Account, user.id, account_places, replace).await?;
        let changed = changed.into_inner();
        if moved && !changed && !self.confirm(user.id, &key).await? {
            let back = |now: User| Ok(if now == *user { was.clone() } else { now });
            self.update(Kind::Account, user.id, account_places, back).await?;
            return Err(words::exists("user", &user.email));
        }
        if moved {
            let given_up = if changed { &user.email } else { &before.email };
            self.give_up_email(user.id, given_up).await?;
        }
        Ok(!changed)
    }

    pub(super) async fn delete_account(&self, id: Uuid) -> Result<()> {
        let Some(user) = self.user(id).await? else { return Err(words::missing("user", id)) };
        self.delete::<User>(Kind::Account, "user", id, account_places).await?;
        self.give_up_email(id, &user.email).await
    }

    /// Takes the account's claim on an address back, unless the account has that address now: somebody may have changed it the
    /// same way meanwhile, by the same claim.
    async fn give_up_email(&self, id: Uuid, email: &str) -> Result<()> {
        let key = &words::email_key(email);
        let given_up = |holder: Uuid| async move {
            let account = if holder == id { self.account(id).await? } else { None };
            Ok(holder == id && account.is_none_or(|user| words::email_key(&user.email) != *key))
        };
        self.entities.remove_after(&self.db, Kind::AccountEmail, key, given_up).await
    }
}
