//! Promises of the trait that moving needs.

use limpet_shared::{
    UnixMicros,
    admin::{RevokedServer, TokenInfo},
};
use limpet_worker_core::model::{
    CurrentSession, DeviceSeen, DeviceState, DownCounter, FormerSession, GatewaySeen, Marks, SessionKey, SessionRow,
};

use super::{
    Bench,
    samples::{House, NOON},
};
use limpet_store::{
    Commit, Freshness, List, Result, StoreError,
    moving::{DeviceRecord, DeviceRecords, GatewayRecord, GatewaySet, Identified, Record, Setting},
};

trait InAFile {
    /// As they stand in a file.
    fn records(&self) -> Vec<Record>;
}

impl InAFile for DeviceRecords {
    fn records(&self) -> Vec<Record> {
        let DeviceRecords { device, seen, queue_last, state, joins, sessions, queue } = self.clone();
        let mut records = vec![Record::Device(Box::new(DeviceRecord { device, seen, queue_last }))];
        records.extend((state.rev > 0).then_some(Record::DeviceState(state)));
        records.extend(joins.into_iter().map(|row| Record::Join(Box::new(row))));
        records.extend(sessions.into_iter().map(|row| Record::Session(Box::new(row))));
        records.extend(queue.into_iter().map(Record::QueueItem));
        records
    }
}

/// A device that has everything; `many` joins and items.
async fn full_device(Bench { store, new }: &Bench, many: u16) -> Result<DeviceRecords> {
    let house = House::build(&**store, new).await?;
    let device = new.device(&house.application, &house.profile);
    let dev_eui = device.dev_eui;
    let mut sessions: Vec<SessionRow> = (0..3)
        .map(|n| {
            let mut session = new.session(SessionKey { dev_eui, ..new.session_key() });
            session.rev = 7 + n;
            SessionRow { session, marks: Marks { out: 9 * n, out_through_pending: n == 1, sent: 70_000 * n } }
        })
        .collect();
    sessions.sort_by_key(|row| row.session.key);
    let key = sessions[0].session.key;
    let state = DeviceState {
        dev_eui,
        rev: 5,
        next_join_nonce: 70_001,
        highest_dev_nonce: Some(u16::MAX),
        current: Some(CurrentSession { key, since: NOON, dev_nonce: Some(7) }),
        previous: Some(sessions[1].session.key),
        former: vec![FormerSession { key: new.session_key(), at: NOON }],
        down_counters: vec![DownCounter { key: u64::MAX, next: u32::MAX }],
    };
    // The last DevNonce is among them.
    let joins = (0..many).map(|n| new.join(dev_eui, n * (u16::MAX / (many - 1).max(1)))).collect();
    let queue = (0..u64::from(many)).map(|n| {
        let mut item = new.item(dev_eui);
        item.seq = 4 + 2 * n;
        item
    });
    let (queue, queue_last) = (queue.collect(), 5 + 2 * u64::from(many));
    let seen = DeviceSeen { last_seen_at: Some(NOON), data_rate: Some(3), battery: None, margin: Some(-5) };
    Ok(DeviceRecords { device, seen, queue_last, state, joins, sessions, queue })
}

pub(super) async fn a_restored_device_is_as_it_was(bench: Bench) -> Result<()> {
    let had = full_device(&bench, 4).await?;
    let store = &bench.store;
    let dev_eui = had.device.dev_eui;
    assert_eq!(store.device_records(dev_eui, 10).await?, None);
    for _ in 0..2 {
        store.restore(&had.records()).await?;
        assert_eq!(store.device_records(dev_eui, 10).await?.as_ref(), Some(&had));
    }
    assert!(store.device_euis().await?.is_sorted());
    assert!(store.device_euis().await?.contains(&dev_eui));

    // It is there for everyone.
    assert_eq!(store.device(dev_eui).await?, Some((had.device.clone(), had.seen.clone())));
    let of_application = List { limit: 10, application: Some(had.device.application_id), ..List::default() };
    assert_eq!(store.devices(&of_application).await?.total, 1);
    assert_eq!(store.device_state(dev_eui, Freshness::Serial).await?, had.state);
    for row in &had.sessions {
        assert_eq!(store.session(&row.session.key, Freshness::Serial).await?.as_ref(), Some(row));
        assert_eq!(
            store.sessions_by_addr(row.session.key.dev_addr, Freshness::Quorum).await?,
            std::slice::from_ref(row)
        );
    }
    for row in &had.joins {
        assert_eq!(store.join_row(dev_eui, row.dev_nonce, Freshness::Serial).await?.as_ref(), Some(row));
    }
    assert_eq!(store.queue(dev_eui, 0, 100).await?, had.queue);
    Ok(())
}

pub(super) async fn a_restored_device_goes_on(bench: Bench) -> Result<()> {
    let had = full_device(&bench, 2).await?;
    let (store, new) = (&bench.store, &bench.new);
    let dev_eui = had.device.dev_eui;
    store.restore(&had.records()).await?;
    let mut session = had.sessions[0].session.clone();
    assert_eq!(store.commit_session(&session).await?, Commit::Refused, "it is at that revision");
    session.rev += 1;
    assert_eq!(store.commit_session(&session).await?, Commit::Applied);
    store.mark_out(&session.key, 1_000_000, false).await?;
    let mut state = had.state.clone();
    state.rev += 1;
    let used = had.joins[0].dev_nonce;
    assert_eq!(store.commit_join(&state, Some(&new.join(dev_eui, used))).await?, Commit::Refused);
    assert_eq!(store.commit_join(&state, Some(&new.join(dev_eui, used + 1))).await?, Commit::Applied);
    assert_eq!(store.enqueue(new.item(dev_eui)).await?.seq, had.queue_last + 1, "no number is given twice");

    // What went on is not turned back.
    store.restore(&had.records()).await?;
    let row = store.session(&session.key, Freshness::Serial).await?;
    assert_eq!(row.map(|row| (row.session.rev, row.marks.out)), Some((session.rev, 1_000_000)));
    assert_eq!(store.device_state(dev_eui, Freshness::Serial).await?.rev, state.rev);
    assert_eq!(store.enqueue(new.item(dev_eui)).await?.seq, had.queue_last + 2);
    store.delete_device(dev_eui).await?;
    assert_eq!(store.device_records(dev_eui, 10).await?, None);
    assert_eq!(store.session(&session.key, Freshness::Serial).await?, None);
    Ok(())
}

pub(super) async fn a_long_device_is_moved_in_pieces(bench: Bench) -> Result<()> {
    let had = full_device(&bench, 90).await?;
    let store = &bench.store;
    let dev_eui = had.device.dev_eui;
    let records = had.records();
    // Cut among the joins, and again among the items.
    for piece in [&records[..50], &records[50..150], &records[50..150], &records[150..]] {
        store.restore(piece).await?;
    }
    let found = store.device_records(dev_eui, 40).await?;
    let found = found.ok_or_else(|| StoreError::NotFound("the device".into()))?;
    assert_eq!((found.joins.as_slice(), found.queue.as_slice()), (&had.joins[..40], &had.queue[..40]));
    assert_eq!((&found.sessions, found.queue_last), (&had.sessions, had.queue_last));
    let rest = store.joins_after(dev_eui, had.joins[39].dev_nonce, 1_000).await?;
    assert_eq!(rest.as_slice(), &had.joins[40..]);
    assert_eq!(store.joins_after(dev_eui, u16::MAX, 10).await?, []);
    assert_eq!(store.queue(dev_eui, had.queue[39].seq, 1_000).await?.as_slice(), &had.queue[40..]);
    Ok(())
}

pub(super) async fn what_people_provision_is_restored(Bench { store, new }: Bench) -> Result<()> {
    let tenant = new.tenant();
    let (user, keys) = (new.user(), [new.api_key(None), new.api_key(Some(tenant.id))]);
    let (application, profile, gateway) = (new.application(tenant.id), new.profile(tenant.id), new.gateway(tenant.id));
    let seen =
        GatewaySeen { last_seen_at: Some(NOON), address: Some("192.0.2.1:1700".into()), location: gateway.location };
    let server = RevokedServer { name: new.word(), key: new.word(), at: NOON, ..RevokedServer::default() };
    let token = TokenInfo {
        id: format!("{:016x}", new.number()),
        expires_at: UnixMicros(u64::MAX / 4),
        used: [("edge".to_owned(), 7)].into(),
        ..TokenInfo::default()
    };
    let records = [
        Record::Tenant(tenant.clone()),
        Record::User(user.clone()),
        Record::ApiKey(keys[0].clone()),
        Record::ApiKey(keys[1].clone()),
        Record::Application(application.clone()),
        Record::DeviceProfile(Box::new(profile.clone())),
        Record::Gateway(Box::new(GatewayRecord { gateway: gateway.clone(), seen: seen.clone() })),
        Record::RevokedServer(server.clone()),
        Record::JoinToken(token.clone()),
    ];
    for record in records.iter().chain(&records) {
        store.restore(std::slice::from_ref(record)).await?;
    }
    assert_eq!(store.tenant(tenant.id).await?.as_ref(), Some(&tenant));
    assert_eq!(store.user_by_email(&user.email.to_uppercase()).await?.as_ref(), Some(&user));
    for key in &keys {
        assert_eq!(store.api_key(key.id).await?.as_ref(), Some(key));
    }
    assert_eq!(store.application(application.id).await?.as_ref(), Some(&application));
    assert_eq!(store.device_profile(profile.id).await?.as_ref(), Some(&profile));
    assert_eq!(store.gateway(gateway.eui).await?, Some((gateway.clone(), seen)));
    assert!(store.gateway_set().await?.1.contains(&gateway.eui));
    assert!(store.revoked_servers().await?.contains(&server));
    assert!(store.tokens().await?.contains(&token));
    let of_tenant = List { limit: 10, tenant: Some(tenant.id), ..List::default() };
    assert_eq!(store.applications(&of_tenant).await?.items, std::slice::from_ref(&application));
    assert_eq!(store.gateways(&of_tenant).await?.total, 1);
    for (of, id) in [
        (Identified::Tenants, tenant.id),
        (Identified::Users, user.id),
        (Identified::ApiKeys, keys[0].id),
        (Identified::Applications, application.id),
        (Identified::DeviceProfiles, profile.id),
    ] {
        let all = store.identities(of).await?;
        assert!(all.contains(&id) && all.is_sorted(), "{of:?}");
    }
    Ok(())
}

pub(super) async fn settings_are_listed_and_written_over(Bench { store, new }: Bench) -> Result<()> {
    let name = new.word();
    let value = |settings: Vec<(String, Vec<u8>)>| settings.into_iter().find(|(n, _)| *n == name).map(|(_, v)| v);
    let restore = |value: &[u8]| Record::Setting(Setting { name: name.clone(), value: value.into() });
    // The set of gateways has a version, which is no setting of the network's in any store.
    store.create_tenant(&new.tenant()).await?;
    store.restore(&[restore(&[0, 255])]).await?;
    store.restore(&[restore(b"later")]).await?;
    assert_eq!(store.setting(&name).await?, Some(vec![0, 255]), "the first stays");
    let all = store.settings().await?;
    assert!(all.is_sorted());
    assert_eq!(value(all), Some(vec![0, 255]));
    store.put_setting(&name, Some(b"over")).await?;
    assert_eq!(value(store.settings().await?), Some(b"over".to_vec()));
    store.put_setting(&name, None).await?;
    store.put_setting(&name, None).await?;
    assert_eq!(store.setting(&name).await?, None);
    store.put_setting(&name, Some(b"new")).await?;
    assert_eq!(store.init_setting(&name, b"x").await?, b"new");
    store.put_setting(&name, None).await
}

pub(super) async fn the_gateway_sets_version_is_restored(Bench { store, new }: Bench) -> Result<()> {
    let tenant = new.tenant();
    store.create_tenant(&tenant).await?;
    store.create_gateway(&new.gateway(tenant.id)).await?;
    let version = store.gateway_set_version().await? + 7;
    for _ in 0..2 {
        store.restore(&[Record::GatewaySet(GatewaySet { version })]).await?;
        assert_eq!(store.gateway_set_version().await?, version);
    }
    store.create_gateway(&new.gateway(tenant.id)).await?;
    assert_eq!(store.gateway_set_version().await?, version + 1);
    let settings = store.settings().await?;
    assert!(settings.iter().all(|(_, value)| !value.is_empty()), "{settings:?}");
    Ok(())
}

pub(super) async fn pending_events_are_restored(Bench { store, new }: Bench) -> Result<()> {
    let (integration, device) = (new.integration(), new.eui());
    let events: Vec<_> = (1..=5).map(|slot| new.pending(integration, device, slot)).collect();
    for _ in 0..2 {
        for event in &events {
            store.restore(&[Record::PendingEvent(Box::new(event.clone().into()))]).await?;
        }
    }
    assert!(store.pending_keys().await?.contains(&(device, integration)));
    assert_eq!(store.pending(integration, device, 10).await?, events);
    let mut walked = Vec::new();
    loop {
        let after = walked.last().map(|e: &limpet_store::PendingEvent| (e.session_since, e.slot, e.part));
        let page = store.pending_after(integration, device, after, 2).await?;
        if page.is_empty() {
            break;
        }
        walked.extend(page);
    }
    assert_eq!(walked, events);
    assert!(store.pending_devices(integration, 9).await?.contains(&device));
    Ok(())
}
