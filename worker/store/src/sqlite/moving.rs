//! Moving house, on SQLite: a device with all that is its own is read from one state of the database, and records of one
//! thing are written in one piece.

use async_trait::async_trait;
use limpet_shared::Eui64;
use limpet_worker_core::model::{JoinRow, QueueItem, SessionRow};
use rusqlite::{Connection, Row};
use uuid::Uuid;

use super::{
    SqliteStore, directory,
    error::{all, check_wrap, decode, encode, execute, int},
    membership, notes, pending,
    readers::snapshot,
    sessions,
};
use crate::{
    IntegrationId, PendingEvent, Result, StoreError,
    moving::{DeviceRecords, Identified, Moving, PendingAfter, Record},
    rows::Form,
    waiting_body::WaitingBody,
    words,
};

#[async_trait]
impl Moving for SqliteStore {
    async fn settings(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let sql = "SELECT name, value FROM setting ORDER BY name";
        self.readers.read(move |conn| all(conn, sql, (), |row| Ok((row.get(0)?, row.get(1)?)))).await
    }
    async fn put_setting(&self, name: &str, value: Option<&[u8]>) -> Result<()> {
        let (name, value) = (name.to_owned(), value.map(<[u8]>::to_vec));
        self.writer.write(move |conn| put_setting(conn, &name, value.as_deref())).await
    }
    async fn identities(&self, of: Identified) -> Result<Vec<Uuid>> {
        let table = match of {
            Identified::Tenants => "tenant",
            Identified::Users => "user",
            Identified::ApiKeys => "api_key",
            Identified::Applications => "application",
            Identified::DeviceProfiles => "device_profile",
        };
        let sql = format!("SELECT id FROM {table} ORDER BY id");
        self.readers.read(move |conn| all(conn, &sql, (), |row| parsed(row, 0))).await
    }
    async fn device_euis(&self) -> Result<Vec<Eui64>> {
        let sql = "SELECT dev_eui FROM device ORDER BY dev_eui";
        self.readers.read(move |conn| all(conn, sql, (), |row| parsed(row, 0))).await
    }
    async fn device_records(&self, dev_eui: Eui64, page: u32) -> Result<Option<DeviceRecords>> {
        self.readers.read(move |conn| snapshot(conn, |conn| device_records(conn, dev_eui, page))).await
    }
    async fn joins_after(&self, dev_eui: Eui64, after: u16, limit: u32) -> Result<Vec<JoinRow>> {
        self.readers.read(move |conn| joins(conn, dev_eui, i64::from(after), limit)).await
    }
    async fn pending_keys(&self) -> Result<Vec<(Eui64, IntegrationId)>> {
        let sql = "SELECT DISTINCT device, integration FROM pending";
        let read = |row: &Row<'_>| Ok((parsed(row, 0)?, IntegrationId(parsed(row, 1)?)));
        self.readers.read(move |conn| all(conn, sql, (), read)).await
    }
    async fn pending_after(
        &self,
        integration: IntegrationId,
        device: Eui64,
        after: Option<PendingAfter>,
        limit: u32,
    ) -> Result<Vec<PendingEvent>> {
        self.readers.read(move |conn| pending::after(conn, integration, device, after, limit)).await
    }
    async fn restore(&self, records: &[Record]) -> Result<()> {
        let (records, form) = (records.to_vec(), self.form);
        self.writer.write(move |conn| records.iter().try_for_each(|record| restore(conn, form, record))).await
    }
}

/// What column `at` holds, as text.
fn parsed<T: std::str::FromStr>(row: &Row<'_>, at: usize) -> Result<T> {
    let text: String = row.get(at)?;
    text.parse().map_err(|_| StoreError::Corrupt(format!("{text:?} is no identity")))
}

fn put_setting(conn: &Connection, name: &str, value: Option<&[u8]>) -> Result<()> {
    let set =
        "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    match value {
        Some(value) => execute(conn, set, (name, value)).map(drop),
        None => execute(conn, "DELETE FROM setting WHERE name = ?1", [name]).map(drop),
    }
}

fn device_records(conn: &Connection, dev_eui: Eui64, page: u32) -> Result<Option<DeviceRecords>> {
    let Some((device, seen)) = directory::device(conn, dev_eui)? else { return Ok(None) };
    Ok(Some(DeviceRecords {
        device,
        seen,
        queue_last: sessions::queue_last(conn, dev_eui)?,
        state: sessions::device_state(conn, dev_eui)?,
        joins: joins(conn, dev_eui, -1, page)?,
        sessions: sessions::of_device(conn, dev_eui)?,
        queue: sessions::queue(conn, dev_eui, 0, page)?,
    }))
}

fn joins(conn: &Connection, dev_eui: Eui64, after: i64, limit: u32) -> Result<Vec<JoinRow>> {
    let sql = "SELECT body, key_wrap FROM join_row WHERE dev_eui = ?1 AND dev_nonce > ?2 ORDER BY dev_nonce LIMIT ?3";
    all(conn, sql, (dev_eui.to_string(), after, limit), |row| check_wrap(row, 1).and_then(|()| decode(row, 0)))
}

fn restore(conn: &Connection, form: Form, record: &Record) -> Result<()> {
    let put = match record {
        Record::Header(_) | Record::Trailer(_) => Ok(()),
        Record::Setting(setting) => directory::init_setting(conn, &setting.name, setting.value.clone()).map(drop),
        Record::Tenant(tenant) => directory::create_tenant(conn, tenant),
        Record::User(user) => directory::create_user(conn, user),
        Record::ApiKey(key) => directory::create_api_key(conn, key),
        Record::Application(application) => directory::create_application(conn, application),
        Record::DeviceProfile(profile) => directory::create_device_profile(conn, profile),
        Record::Gateway(row) => {
            let created = directory::create_gateway(conn, &row.gateway);
            words::or_there(created).and_then(|()| notes::write_gateway(conn, row.gateway.eui, row.seen.clone()))
        }
        Record::GatewaySet(set) => {
            execute(conn, "UPDATE gateway_set SET version = ?1", [int(set.version)])?;
            directory::note_jump(conn, set.version)
        }
        Record::Device(row) => restore_device(conn, row),
        Record::DeviceState(state) => sessions::put_state(conn, state),
        Record::Join(row) => {
            let sql = "INSERT INTO join_row (dev_eui, dev_nonce, body) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            execute(conn, sql, (row.dev_eui.to_string(), row.dev_nonce, encode(row)?)).map(drop)
        }
        Record::Session(row) => restore_session(conn, form, row),
        Record::QueueItem(item) => restore_item(conn, item),
        Record::PendingEvent(row) => {
            let event = PendingEvent::from(&**row);
            pending::put(conn, &pending::key_of(&event), &form.encode(&WaitingBody::from(&event))?)
        }
        Record::RevokedServer(server) => membership::revoke_server(conn, server),
        Record::JoinToken(token) => membership::put_token(conn, token.clone()),
    };
    words::or_there(put)
}

fn restore_device(conn: &Connection, row: &crate::moving::DeviceRecord) -> Result<()> {
    let dev_eui = row.device.dev_eui;
    words::or_there(directory::create_device(conn, &row.device))?;
    notes::write_device(conn, dev_eui, row.seen.clone())?;
    if row.queue_last == 0 {
        return Ok(());
    }
    let sql = "INSERT INTO queue_number (dev_eui, last) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    execute(conn, sql, (dev_eui.to_string(), int(row.queue_last))).map(drop)
}

fn restore_session(conn: &Connection, form: Form, row: &SessionRow) -> Result<()> {
    let (session, marks) = (&row.session, row.marks);
    sessions::create(conn, &session.key, session.rev, &form.encode(session)?)?;
    if marks.out > 0 {
        sessions::mark_out(conn, &session.key, marks.out, marks.out_through_pending)?;
    }
    match marks.sent.checked_sub(1) {
        Some(sent) => sessions::mark_sent(conn, &session.key, u32::try_from(sent).unwrap_or(u32::MAX)),
        None => Ok(()),
    }
}

fn restore_item(conn: &Connection, item: &QueueItem) -> Result<()> {
    let sql = "INSERT INTO queue_item (dev_eui, seq, id, body) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    execute(conn, sql, (item.dev_eui.to_string(), int(item.seq), &item.id, encode(item)?)).map(drop)
}
