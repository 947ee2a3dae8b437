//! What people provision, one row each, changed by conditional writes on its revision.

use scylla::statement::prepared::PreparedStatement;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    db::{Db, How, after_lost_race},
    json::{decode, encode},
};
use crate::{OpenError, Result, StoreError};

/// The kinds, each with a table of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Setting,
    Tenant,
    Account,
    AccountEmail,
    ApiKey,
    Application,
    DeviceProfile,
    Gateway,
    Device,
    RevokedServer,
    JoinToken,
}

const TABLES: [(Kind, &str); 11] = [
    (Kind::Setting, "setting"),
    (Kind::Tenant, "tenant"),
    (Kind::Account, "account"),
    (Kind::AccountEmail, "account_email"),
    (Kind::ApiKey, "api_key"),
    (Kind::Application, "application"),
    (Kind::DeviceProfile, "device_profile"),
    (Kind::Gateway, "gateway"),
    (Kind::Device, "device"),
    (Kind::RevokedServer, "revoked_server"),
    (Kind::JoinToken, "join_token"),
];

impl Kind {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Setting => "setting",
            Self::Tenant => "tenant",
            Self::Account => "user",
            Self::AccountEmail => "e-mail address",
            Self::ApiKey => "API key",
            Self::Application => "application",
            Self::DeviceProfile => "device profile",
            Self::Gateway => "gateway",
            Self::Device => "device",
            Self::RevokedServer => "revoked server",
            Self::JoinToken => "join token",
        }
    }
}

/// How often a write whose outcome is unknown is tried.
const UNKNOWN: u32 = 4;
/// How often a write that lost a race is tried.
const TRIES: u32 = 100;

struct Statements {
    read: PreparedStatement,
    read_serial: PreparedStatement,
    read_all: PreparedStatement,
    insert: PreparedStatement,
    replace: PreparedStatement,
    delete: PreparedStatement,
    delete_claimed: PreparedStatement,
}

/// All tables' statements.
pub(super) struct Entities(Vec<(Kind, Statements)>);

/// A row as it is read.
struct Found {
    rev: i64,
    claim: Uuid,
    body: String,
}

type Columns = (i64, Uuid, Option<i32>, String);

impl Entities {
    pub async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        let mut all = Vec::with_capacity(TABLES.len());
        for (kind, table) in TABLES {
            let read = format!("SELECT rev, claim, key_wrap, body FROM $.{table} WHERE id = ?");
            let insert =
                format!("INSERT INTO $.{table} (id, rev, claim, key_wrap, body) VALUES (?, 1, ?, 0, ?) IF NOT EXISTS");
            let replace =
                format!("UPDATE $.{table} SET rev = ?, claim = ?, key_wrap = 0, body = ? WHERE id = ? IF claim = ?");
            let delete_claimed = format!("DELETE FROM $.{table} WHERE id = ? IF claim = ?");
            let statements = Statements {
                read: db.prepare(How::Read, &read).await?,
                read_serial: db.prepare(How::Serial, &read).await?,
                read_all: db.prepare(How::Scan, &format!("SELECT body FROM $.{table}")).await?,
                insert: db.prepare(How::Cas, &insert).await?,
                replace: db.prepare(How::Cas, &replace).await?,
                delete: db.prepare(How::Cas, &format!("DELETE FROM $.{table} WHERE id = ? IF EXISTS")).await?,
                delete_claimed: db.prepare(How::Cas, &delete_claimed).await?,
            };
            all.push((kind, statements));
        }
        Ok(Self(all))
    }

    fn of(&self, kind: Kind) -> Result<&Statements> {
        let found = self.0.iter().find(|(k, _)| *k == kind).map(|(_, statements)| statements);
        found.ok_or_else(|| StoreError::Corrupt(format!("no statements for {kind:?}")))
    }

    async fn find(&self, db: &Db, kind: Kind, id: &str, serial: bool) -> Result<Option<Found>> {
        let statements = self.of(kind)?;
        let statement = if serial { &statements.read_serial } else { &statements.read };
        let Some((rev, claim, key_wrap, body)) = db.row::<Columns>(statement, (id,)).await? else { return Ok(None) };
        match key_wrap {
            None | Some(0) => Ok(Some(Found { rev, claim, body })),
            Some(wrap) => {
                Err(StoreError::Corrupt(format!("device keys are wrapped in a way (version {wrap}) of a newer Limpet")))
            }
        }
    }

    pub async fn get<T: DeserializeOwned>(&self, db: &Db, kind: Kind, id: &str) -> Result<Option<T>> {
        self.find(db, kind, id, false).await?.map(|found| decode(&found.body)).transpose()
    }

    /// After all conditional writes begun before.
    pub async fn get_settled<T: DeserializeOwned>(&self, db: &Db, kind: Kind, id: &str) -> Result<Option<T>> {
        self.find(db, kind, id, true).await?.map(|found| decode(&found.body)).transpose()
    }

    /// All of a kind, of which there are few; in no order.
    pub async fn all<T: DeserializeOwned>(&self, db: &Db, kind: Kind) -> Result<Vec<T>> {
        let mut all = Vec::new();
        let collect = |(body,): (String,)| {
            all.push(decode(&body)?);
            Ok(true)
        };
        db.scan(&self.of(kind)?.read_all, (), collect).await?;
        Ok(all)
    }

    pub async fn exists(&self, db: &Db, kind: Kind, id: &str) -> Result<bool> {
        Ok(self.find(db, kind, id, false).await?.is_some())
    }

    /// False if there is one of that identity. It is ours if its claim is, whatever the database said.
    pub async fn insert(&self, db: &Db, kind: Kind, id: &str, value: &impl Serialize) -> Result<bool> {
        let (statement, body, claim) = (&self.of(kind)?.insert, encode(value)?, Uuid::new_v4());
        let mut tries = 0;
        loop {
            tries += 1;
            match db.cas(statement, (id, claim, &body)).await {
                Ok(true) => return Ok(true),
                Ok(false) if tries == 1 => return Ok(false),
                Ok(false) => return Ok(self.find(db, kind, id, true).await?.is_some_and(|row| row.claim == claim)),
                Err(StoreError::Unknown(_)) if tries < UNKNOWN => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Replaces the row by what `change` makes of it; `change` is called again if another writer was faster. `None` if
    /// there is no such row.
    pub async fn change<T, U: Serialize>(
        &self,
        db: &Db,
        kind: Kind,
        id: &str,
        mut change: impl FnMut(T) -> Result<U>,
    ) -> Result<Option<U>>
    where
        T: DeserializeOwned,
    {
        self.change_after(db, kind, id, |was| std::future::ready(change(was))).await
    }

    /// The same where `change` may look at something else first: the row is not replaced if it was written meanwhile.
    pub async fn change_after<T, U, Changed>(
        &self,
        db: &Db,
        kind: Kind,
        id: &str,
        mut change: impl FnMut(T) -> Changed,
    ) -> Result<Option<U>>
    where
        T: DeserializeOwned,
        U: Serialize,
        Changed: Future<Output = Result<U>>,
    {
        let statement = &self.of(kind)?.replace;
        let mut claim = None;
        for tries in 0..TRIES {
            let Some(found) = self.find(db, kind, id, true).await? else { return Ok(None) };
            let next = change(decode(&found.body)?).await?;
            if claim == Some(found.claim) {
                return Ok(Some(next));
            }
            let mine = *claim.insert(Uuid::new_v4());
            match db.cas(statement, (found.rev + 1, mine, encode(&next)?, id, found.claim)).await {
                Ok(true) => return Ok(Some(next)),
                Ok(false) | Err(StoreError::Unknown(_)) => after_lost_race(tries).await,
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unknown(format!("{kind:?} {id} was changed by others {TRIES} times in a row")))
    }

    /// False if there was none. Deleting twice comes to the same, so an unknown outcome is tried again.
    pub async fn remove(&self, db: &Db, kind: Kind, id: &str) -> Result<bool> {
        let statement = &self.of(kind)?.delete;
        let mut tries = 0;
        loop {
            tries += 1;
            match db.cas(statement, (id,)).await {
                // After an unknown outcome its absence is our doing as far as anyone can tell.
                Ok(applied) => return Ok(applied || tries > 1),
                Err(StoreError::Unknown(_)) if tries < UNKNOWN => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes the row if `given_up` says so of what it holds and nobody has written it since; it is asked again if somebody
    /// has.
    pub async fn remove_after<T, GivenUp>(
        &self,
        db: &Db,
        kind: Kind,
        id: &str,
        mut given_up: impl FnMut(T) -> GivenUp,
    ) -> Result<()>
    where
        T: DeserializeOwned,
        GivenUp: Future<Output = Result<bool>>,
    {
        for tries in 0..TRIES {
            let Some(found) = self.find(db, kind, id, true).await? else { return Ok(()) };
            if !given_up(decode(&found.body)?).await? {
                return Ok(());
            }
            match db.cas(&self.of(kind)?.delete_claimed, (id, found.claim)).await {
                Ok(true) => return Ok(()),
                Ok(false) | Err(StoreError::Unknown(_)) => after_lost_race(tries).await,
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unknown(format!("{kind:?} {id} was changed by others {TRIES} times in a row")))
    }
}
