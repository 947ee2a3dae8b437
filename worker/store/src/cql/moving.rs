//! Moving house. Rows are written as ever: conditionally where they are changed conditionally later, so that no clock can
//! put what was restored above what comes after it.

use async_trait::async_trait;
use futures_util::future::{try_join, try_join3};
use limpet_shared::Eui64;
use limpet_worker_core::model::{DeviceState, JoinRow, QueueItem, SessionRow};
use scylla::{
    statement::prepared::PreparedStatement,
    value::CqlValue::{self, BigInt, Int, Text},
};
use uuid::Uuid;

use super::{
    CqlStore,
    db::{Db, How},
    directory::GATEWAY_CHANGES,
    entities::Kind,
    json::{decode, encode, parse},
    pending::read_events,
    sessions::unwrapped,
};
use crate::{
    Directory, FrameStore, Freshness, IntegrationId, OpenError, PendingEvent, Result, StoreError,
    moving::{DeviceRecords, Identified, Moving, PendingAfter, Record},
};

/// Rows of one partition that one batch writes.
const BATCH: usize = 20;

/// Statements that nothing but moving needs; prepared when it begins.
pub(super) struct Moves {
    settings: PreparedStatement,
    identities: Vec<(Kind, PreparedStatement)>,
    joins: PreparedStatement,
    pending: PreparedStatement,
    first_state: PreparedStatement,
    same_state: PreparedStatement,
    join: PreparedStatement,
    first_head: PreparedStatement,
    same_head: PreparedStatement,
    item: PreparedStatement,
}

impl Moves {
    async fn prepare(db: &Db) -> std::result::Result<Self, OpenError> {
        use How::{Cas, Read, Scan};
        let mut identities = Vec::new();
        for (kind, table) in [
            (Kind::Tenant, "tenant"),
            (Kind::Account, "account"),
            (Kind::ApiKey, "api_key"),
            (Kind::Application, "application"),
            (Kind::DeviceProfile, "device_profile"),
            (Kind::Device, "device"),
        ] {
            identities.push((kind, db.prepare(Scan, &format!("SELECT id FROM $.{table}")).await?));
        }
        let joins =
            "SELECT key_wrap, body FROM $.device_state WHERE dev_eui = ? AND dev_nonce > ? ORDER BY dev_nonce LIMIT ?";
        let pending = "SELECT session_since, slot, part, body, packed FROM $.pending
                       WHERE integration = ? AND device = ? AND (session_since, slot, part) > (?, ?, ?) LIMIT ?";
        let first_state =
            "INSERT INTO $.device_state (dev_eui, dev_nonce, rev, body) VALUES (?, -1, ?, ?) IF NOT EXISTS";
        let same_state = "UPDATE $.device_state SET rev = ?, body = ? WHERE dev_eui = ? AND dev_nonce = -1 IF rev = ?";
        let join = "INSERT INTO $.device_state (dev_eui, dev_nonce, key_wrap, body) VALUES (?, ?, 0, ?)";
        let first_head = "INSERT INTO $.downlink_queue (dev_eui, seq, last, low) VALUES (?, 0, ?, ?) IF NOT EXISTS";
        let same_head = "UPDATE $.downlink_queue SET last = ?, low = ? WHERE dev_eui = ? AND seq = 0 IF last = ?";
        let item = "INSERT INTO $.downlink_queue (dev_eui, seq, item, body) VALUES (?, ?, ?, ?)";
        Ok(Self {
            settings: db.prepare(Scan, "SELECT id, body FROM $.setting").await?,
            identities,
            joins: db.prepare(Read, joins).await?,
            pending: db.prepare(Read, pending).await?,
            first_state: db.prepare(Cas, first_state).await?,
            same_state: db.prepare(Cas, same_state).await?,
            join: db.prepare(Cas, join).await?,
            first_head: db.prepare(Cas, first_head).await?,
            same_head: db.prepare(Cas, same_head).await?,
            item: db.prepare(Cas, item).await?,
        })
    }
}

#[async_trait]
impl Moving for CqlStore {
    async fn settings(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut all = Vec::new();
        let collect = |(name, body): (String, String)| {
            if name != GATEWAY_CHANGES {
                let value = decode(&body)?;
                all.push((name, value));
            }
            Ok(true)
        };
        self.db.scan(&self.moves().await?.settings, (), collect).await?;
        all.sort();
        Ok(all)
    }
    async fn put_setting(&self, name: &str, value: Option<&[u8]>) -> Result<()> {
        let Some(value) = value else {
            return self.entities.remove(&self.db, Kind::Setting, name).await.map(drop);
        };
        let put = |_: Vec<u8>| Ok(value.to_vec());
        let changed = self.entities.change(&self.db, Kind::Setting, name, put).await?;
        if changed.is_none() && !self.entities.insert(&self.db, Kind::Setting, name, &value).await? {
            self.entities.change(&self.db, Kind::Setting, name, put).await?;
        }
        Ok(())
    }
    async fn identities(&self, of: Identified) -> Result<Vec<Uuid>> {
        self.all_of(match of {
            Identified::Tenants => Kind::Tenant,
            Identified::Users => Kind::Account,
            Identified::ApiKeys => Kind::ApiKey,
            Identified::Applications => Kind::Application,
            Identified::DeviceProfiles => Kind::DeviceProfile,
        })
        .await
    }
    async fn device_euis(&self) -> Result<Vec<Eui64>> {
        self.all_of(Kind::Device).await
    }
    async fn device_records(&self, dev_eui: Eui64, page: u32) -> Result<Option<DeviceRecords>> {
        let Some((device, seen)) = self.device(dev_eui).await? else { return Ok(None) };
        // The state before the joins and sessions that it names.
        let state = self.device_state(dev_eui, Freshness::Quorum).await?;
        let queue = try_join(self.queues.last(&self.db, dev_eui), self.queue(dev_eui, 0, page));
        let (joins, sessions, (queue_last, queue)) =
            try_join3(self.joins(dev_eui, -1, page), self.sessions_of(dev_eui), queue).await?;
        Ok(Some(DeviceRecords { device, seen, queue_last, state, joins, sessions, queue }))
    }
    async fn joins_after(&self, dev_eui: Eui64, after: u16, limit: u32) -> Result<Vec<JoinRow>> {
        self.joins(dev_eui, i32::from(after), limit).await
    }
    async fn pending_keys(&self) -> Result<Vec<(Eui64, IntegrationId)>> {
        self.pending.keys(&self.db).await
    }
    async fn pending_after(
        &self,
        integration: IntegrationId,
        device: Eui64,
        after: Option<PendingAfter>,
        limit: u32,
    ) -> Result<Vec<PendingEvent>> {
        let Some((since, slot, part)) = after else { return self.pending(integration, device, limit).await };
        let after = (since.0.cast_signed(), slot.cast_signed(), i64::from(part));
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let values = (integration.0.to_string(), device.to_string(), after.0, after.1, after.2, limit);
        read_events(integration, device, self.db.rows(&self.moves().await?.pending, values).await?)
    }
    async fn restore(&self, records: &[Record]) -> Result<()> {
        let (mut joins, mut queue) = (Joins::default(), Queue::default());
        for record in records {
            match record {
                Record::DeviceState(state) => joins.state = Some(state),
                Record::Join(row) => joins.rows.push(row),
                Record::Session(row) => self.restore_session(row).await?,
                Record::QueueItem(item) => queue.items.push(item),
                Record::Device(row) => {
                    self.restore_thing(record).await?;
                    queue.last = Some((row.device.dev_eui, row.queue_last));
                }
                Record::PendingEvent(row) => self.put_pending((&**row).into()).await?,
                other => self.restore_thing(other).await?,
            }
        }
        self.restore_joins(joins).await?;
        self.restore_queue(queue).await
    }
}

/// A device's state and some of its joins, which are one partition.
#[derive(Default)]
struct Joins<'a> {
    /// Absent with joins that come after the first ones.
    state: Option<&'a DeviceState>,
    rows: Vec<&'a JoinRow>,
}

/// The last number of a device's queue and some of its items, which are one partition.
#[derive(Default)]
struct Queue<'a> {
    /// Absent with items that come after the first ones.
    last: Option<(Eui64, u64)>,
    items: Vec<&'a QueueItem>,
}

impl CqlStore {
    async fn moves(&self) -> Result<&Moves> {
        let prepared = self.moves.get_or_try_init(|| Moves::prepare(&self.db)).await;
        prepared.map_err(|e| StoreError::Unavailable(e.to_string()))
    }

    async fn all_of<T: std::str::FromStr + Ord>(&self, kind: Kind) -> Result<Vec<T>> {
        let moves = self.moves().await?;
        let Some((_, statement)) = moves.identities.iter().find(|(known, _)| *known == kind) else {
            return Err(StoreError::Corrupt(format!("no list of each {}", kind.name())));
        };
        let mut all = Vec::new();
        let collect = |(id,): (String,)| {
            all.push(parse(&id, kind.name())?);
            Ok(true)
        };
        self.db.scan(statement, (), collect).await?;
        all.sort_unstable();
        Ok(all)
    }

    async fn joins(&self, dev_eui: Eui64, after: i32, limit: u32) -> Result<Vec<JoinRow>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let values = (dev_eui.to_string(), after, limit);
        let found: Vec<(Option<i32>, String)> = self.db.rows(&self.moves().await?.joins, values).await?;
        found.into_iter().map(|(wrap, body)| unwrapped(wrap).and_then(|()| decode(&body))).collect()
    }

    async fn sessions_of(&self, dev_eui: Eui64) -> Result<Vec<SessionRow>> {
        let mut rows = Vec::new();
        for key in self.sessions.keys_of_device(&self.db, dev_eui).await? {
            // One that is listed and not there was not made to its end.
            rows.extend(self.session(&key, Freshness::Quorum).await?);
        }
        rows.sort_by_key(|row| row.session.key);
        Ok(rows)
    }

    async fn restore_session(&self, row: &SessionRow) -> Result<()> {
        let (key, marks) = (&row.session.key, row.marks);
        self.create_session(&row.session).await?;
        if marks.out > 0 {
            self.mark_out(key, marks.out, marks.out_through_pending).await?;
        }
        match marks.sent.checked_sub(1) {
            Some(sent) => self.mark_sent(key, u32::try_from(sent).unwrap_or(u32::MAX)).await,
            None => Ok(()),
        }
    }

    async fn restore_joins(&self, Joins { state, rows }: Joins<'_>) -> Result<()> {
        let dev_eui = state.map(|state| state.dev_eui).or(rows.first().map(|row| row.dev_eui));
        let Some(dev_eui) = dev_eui else { return Ok(()) };
        let known = match state {
            Some(state) => state.clone(),
            None => self.device_state(dev_eui, Freshness::Serial).await?,
        };
        let moves = self.moves().await?;
        let device = dev_eui.to_string();
        let rows = rows.into_iter().map(|row| join_values(&device, row)).collect::<Result<_>>()?;
        let (id, rev, body) = (Text(device), BigInt(known.rev.cast_signed()), Text(encode(&known)?));
        self.put_partition(Partition {
            first: state.map(|_| (&moves.first_state, vec![id.clone(), rev.clone(), body.clone()])),
            same: (&moves.same_state, vec![rev.clone(), body, id, rev]),
            row: &moves.join,
            rows,
        })
        .await
    }

    async fn restore_queue(&self, Queue { last, items }: Queue<'_>) -> Result<()> {
        let dev_eui = last.map(|(device, _)| device).or(items.first().map(|item| item.dev_eui));
        let Some(dev_eui) = dev_eui else { return Ok(()) };
        let (number, low) = match last {
            Some((_, 0)) if items.is_empty() => return Ok(()),
            // Items that are not among these may come later, and must be found.
            Some((_, number)) => (number, items.first().map_or(0, |first| first.seq.saturating_sub(1))),
            None => self.queues.numbers(&self.db, dev_eui).await?,
        };
        let moves = self.moves().await?;
        let device = dev_eui.to_string();
        let rows = items.into_iter().map(|item| item_values(&device, item)).collect::<Result<_>>()?;
        let (id, number, low) = (Text(device), BigInt(number.cast_signed()), BigInt(low.cast_signed()));
        self.put_partition(Partition {
            first: last.map(|_| (&moves.first_head, vec![id.clone(), number.clone(), low.clone()])),
            same: (&moves.same_head, vec![number.clone(), low, id, number]),
            row: &moves.item,
            rows,
        })
        .await
    }

    async fn put_partition(&self, Partition { mut first, same, row, rows }: Partition<'_>) -> Result<()> {
        let mut chunks = rows.chunks(BATCH);
        let mut chunk = chunks.next().unwrap_or_default();
        loop {
            let made = match first.take() {
                Some(first) => self.db.cas_partition(first, row, chunk).await?,
                None => false,
            };
            // It is there if this was broken off before; the rest is written beside it, on the condition that it stays.
            if !made && !chunk.is_empty() && !self.db.cas_partition((same.0, same.1.clone()), row, chunk).await? {
                // All of it was there once, and the device has gone on since.
                return Ok(());
            }
            match chunks.next() {
                Some(next) => chunk = next,
                None => return Ok(()),
            }
        }
    }
}

/// A conditional row with the rows that are written together with it.
struct Partition<'a> {
    /// Makes the conditional row; absent if it is there.
    first: Option<(&'a PreparedStatement, Vec<CqlValue>)>,
    /// Leaves it as it is, if it is what it should be.
    same: (&'a PreparedStatement, Vec<CqlValue>),
    row: &'a PreparedStatement,
    rows: Vec<Vec<CqlValue>>,
}

fn join_values(device: &str, row: &JoinRow) -> Result<Vec<CqlValue>> {
    Ok(vec![Text(device.into()), Int(i32::from(row.dev_nonce)), Text(encode(row)?)])
}

fn item_values(device: &str, item: &QueueItem) -> Result<Vec<CqlValue>> {
    Ok(vec![Text(device.into()), BigInt(item.seq.cast_signed()), Text(item.id.clone()), Text(encode(item)?)])
}
