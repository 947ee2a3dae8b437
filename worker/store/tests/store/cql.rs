//! The CQL store on a real engine.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use limpet_bench::engine::{self, Engine};
use limpet_shared::{Eui64, UnixMicros};
use limpet_store::{
    Backlog, CqlStore, Finish, IntegrationId, MOST_COPIES, Migrated, OpenError, PendingBounds, Store, StoreError,
    migrate,
    moving::{self, Counters},
    open,
};
use limpet_store_testing::{
    conformance,
    fault::{FaultStore, Faults},
};
use limpet_worker_core::model::{Reception, Tenant};
use scylla::client::{session::Session, session_builder::SessionBuilder};
use uuid::Uuid;

/// One engine for all of these tests: a node takes 10 s to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cql_keeps_the_promises_of_the_trait() {
    let Some(engine) = engine() else { return };
    conforms(&engine).await;
    conforms_behind_faults(&engine).await;
    lists_follow_what_another_server_writes(&engine).await;
    what_one_server_puts_another_sends(&engine).await;
    many_devices_of_one_integration_silence_no_other(&engine).await;
    a_flood_of_one_frame_hides_no_honest_copy(&engine).await;
    a_creation_that_broke_off_is_repeated_within_the_limit(&engine).await;
    what_a_broken_deletion_left_in_a_queue_hides_nothing(&engine).await;
    many_servers_make_the_tables_of_a_new_network_together(&engine).await;
    a_schema_of_another_version_is_refused_by_name(&engine).await;
    a_network_moves_in_and_out(&engine).await;
    an_export_of_an_earlier_version_moves_in(&engine).await;
    crate::earlier::a_keyspace_of_an_earlier_version_goes_on(
        &engine.store("before"),
        &session(&engine.store("conforms")).await,
    )
    .await;
    rows_conform_before_a_migration_is_finished(&engine).await;
    a_database_without_conditional_writes_is_refused_by_name(&engine).await;
    let url = engine.store("gone");
    drop(engine);
    a_database_that_is_away_is_named(&url).await;
}

/// Without an engine the test is skipped, and says so; with `CI=true` it fails.
fn engine() -> Option<Engine> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cql-store");
    match Engine::start(1, &target, "127.0.11") {
        Ok(engine) => Some(engine),
        Err(missing) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
            println!("skipped: {missing}");
            None
        }
    }
}

/// For what the store itself does not do.
async fn session(url: &str) -> Session {
    let (hosts, login, _) = engine::parts(url);
    let mut builder = SessionBuilder::new().known_nodes(hosts);
    if let Some((user, password)) = login {
        builder = builder.user(user, password);
    }
    builder.build().await.unwrap()
}

async fn conforms(engine: &Engine) {
    let one: Arc<dyn Store> = CqlStore::open(&engine.store("conforms")).await.unwrap();
    conformance::suite(|| async { one.clone() }).await;
    assert!(one.describe().contains("keyspace conforms"));
}

/// Delays alone change no answer, only the order in which things happen.
async fn conforms_behind_faults(engine: &Engine) {
    let one: Arc<dyn Store> = CqlStore::open(&engine.store("conforms")).await.unwrap();
    let delays = Faults { delay: Duration::from_millis(2), ..Faults::default() };
    let delayed: Arc<dyn Store> = FaultStore::new(one, 7, delays);
    for property in conformance::properties().iter().filter(|p| !p.name.starts_with("receptions::what_has_expired")) {
        property.check(delayed.clone()).await;
    }
}

async fn lists_follow_what_another_server_writes(engine: &Engine) {
    let url = engine.store("conforms");
    let (one, two) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    crate::opening::lists_agree(&*one, &*two, &conformance::Samples::new()).await;
}

/// Also what nobody signed is found by whoever begins to send: its writer died, or is of the version before.
async fn what_one_server_puts_another_sends(engine: &Engine) {
    let (url, new) = (engine.store("conforms"), conformance::Samples::new());
    let (one, two) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    let (integration, device) = (new.integration(), new.eui());
    let waits = async |store: &Arc<dyn Store>| {
        store.pending_turns(u32::MAX, Vec::new()).await.unwrap().contains(&(integration, device))
    };
    let slots = async |store: &Arc<dyn Store>| -> Vec<u64> {
        store.next_pending(integration, device, 99).await.unwrap().iter().map(|event| event.slot).collect()
    };
    assert!(!waits(&two).await);
    for (slot, expected) in [(5, vec![5]), (8, vec![5, 8]), (3, vec![3, 5, 8])] {
        one.put_pending(new.pending(integration, device, slot)).await.unwrap();
        assert!(waits(&two).await, "slot {slot}");
        assert_eq!(slots(&two).await, expected);
    }
    let session = session(&url).await;
    let of = (integration.0.to_string(), device.to_string());
    let rows = "SELECT session_since, packed FROM conforms.pending WHERE integration = ? AND device = ? LIMIT 1";
    let rows = session.query_unpaged(rows, (&of.0, &of.1)).await.unwrap().into_rows_result().unwrap();
    let (since, packed): (i64, Vec<u8>) = rows.first_row().unwrap();
    assert_eq!(packed[0], 1, "its form");
    // As a version before writes it.
    let body = serde_json::to_string(&new.event(device)).unwrap();
    let unsigned =
        "INSERT INTO conforms.pending (integration, device, session_since, slot, part, written_at, bytes, body)
                    VALUES (?, ?, ?, 1, 0, 1, 1, ?) USING TIMESTAMP 700000000000000";
    session.query_unpaged(unsigned, (&of.0, &of.1, since, &body)).await.unwrap();
    let three = open(&url).await.unwrap();
    assert!(waits(&three).await);
    assert_eq!(slots(&three).await, [1, 3, 5, 8]);
    for event in three.pending(integration, device, 99).await.unwrap() {
        three.delete_pending(&event).await.unwrap();
    }
    for store in [&two, &three] {
        assert!(slots(store).await.is_empty() && !waits(store).await);
    }
    one.put_pending(new.pending(integration, device, 9)).await.unwrap();
    for store in [&two, &three] {
        assert!(waits(store).await);
        assert_eq!(slots(store).await, [9]);
    }
}

/// More than are remembered of one, whose id comes first; and who begins to send has the list alone.
async fn many_devices_of_one_integration_silence_no_other(engine: &Engine) {
    const MANY: usize = 2_300;
    let (url, new) = (engine.store("many"), conformance::Samples::new());
    let (one, two) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    let (first, second) = (IntegrationId(Uuid::from_u128(1)), IntegrationId(Uuid::from_u128(2)));
    let events = (0..MANY).map(|_| new.pending(first, new.eui(), 1)).chain([new.pending(second, new.eui(), 1)]);
    let puts = events.map(|event| one.put_pending(event));
    stream::iter(puts).buffer_unordered(32).try_collect::<Vec<_>>().await.unwrap();
    let of_first = |backlog: Vec<Backlog>| backlog.iter().find(|of| of.integration == first).map(|of| of.events);
    // As many calls as the sender makes in some minutes: it counts some at a time.
    let mut counted = None;
    for _ in 0..10 {
        counted = of_first(two.pending_backlog().await.unwrap());
    }
    assert_eq!(counted, Some(MANY as u64), "counted by the list");
    assert_eq!(two.pending_size(second).await.unwrap().0, 1);
    let turns = two.pending_turns(1, Vec::new()).await.unwrap();
    assert!(turns.iter().any(|(of, _)| *of == second), "{turns:?}");
    let mut sent = 0;
    for round in 0.. {
        assert!(round < 60, "{sent} of {MANY} were sent");
        let turns = two.pending_turns(512, vec![second]).await.unwrap();
        let send = turns.into_iter().map(|(of, device)| {
            let two = &two;
            async move {
                let events = two.next_pending(of, device, 9).await.unwrap();
                for event in &events {
                    two.delete_pending(event).await.unwrap();
                }
                events.len()
            }
        });
        sent += stream::iter(send).buffer_unordered(32).fold(0, async |sum, some| sum + some).await;
        if sent == MANY {
            break;
        }
    }
    // Two callers drop what waits; both are told of all that they dropped.
    let all = PendingBounds { events: 0, bytes: 0, since: UnixMicros(0) };
    assert_eq!(one.trim_pending(first, &all).await.unwrap().events(), 0);
    assert_eq!(one.trim_pending(second, &all).await.unwrap().events(), 1);
    assert_eq!(two.pending_backlog().await.unwrap(), [], "who sends counts anew");
    assert_eq!(two.pending_keys().await.unwrap(), []);
}

async fn a_flood_of_one_frame_hides_no_honest_copy(engine: &Engine) {
    const MANY: u64 = 20_200;
    let store = open(&engine.store("many")).await.unwrap();
    let new = conformance::Samples::new();
    let honest = Reception { gateway: Eui64(u64::MAX), ..new.reception(new.dedup_key()) };
    let replayed = |n| Reception {
        gateway: Eui64(n % 4),
        context: n,
        received_at: UnixMicros(honest.received_at.0 - 1_000_000_000 + n),
        ..honest.clone()
    };
    let puts = (0..MANY).map(|n| store.put_reception(replayed(n)));
    stream::iter(puts).buffer_unordered(128).try_collect::<Vec<_>>().await.unwrap();
    store.put_reception(honest.clone()).await.unwrap();
    let read = store.receptions(honest.key).await.unwrap();
    assert_eq!(read.len(), MOST_COPIES);
    assert_eq!(read.last(), Some(&honest));
    assert_eq!(read[0], replayed(MANY - MOST_COPIES as u64 + 1), "those received last");
}

/// What it left in a list holds a place of the tenant's, which is its own.
async fn a_creation_that_broke_off_is_repeated_within_the_limit(engine: &Engine) {
    let (url, new) = (engine.store("many"), conformance::Samples::new());
    let (store, session) = (open(&url).await.unwrap(), session(&url).await);
    let tenant = Tenant { max_gateway_count: 1, ..new.tenant() };
    store.create_tenant(&tenant).await.unwrap();
    let gateway = new.gateway(tenant.id);
    store.create_gateway(&gateway).await.unwrap();
    let thing = "DELETE FROM many.gateway WHERE id = ? IF EXISTS";
    session.query_unpaged(thing, (gateway.eui.to_string(),)).await.unwrap();
    let other = store.create_gateway(&new.gateway(tenant.id)).await;
    assert!(matches!(other, Err(StoreError::Exhausted(_))), "its place may be taken at any moment: {other:?}");
    store.create_gateway(&gateway).await.unwrap();
    assert_eq!(store.gateway(gateway.eui).await.unwrap().map(|(gateway, _)| gateway), Some(gateway));
    let more = store.create_gateway(&new.gateway(tenant.id)).await;
    assert!(matches!(more, Err(StoreError::Exhausted(_))), "{more:?}");
}

/// An item that came between its last two steps, and has no head.
async fn what_a_broken_deletion_left_in_a_queue_hides_nothing(engine: &Engine) {
    let (url, new) = (engine.store("many"), conformance::Samples::new());
    let (store, session) = (open(&url).await.unwrap(), session(&url).await);
    let (device, other) = (new.eui(), new.eui());
    let body = serde_json::to_string(&new.item(device)).unwrap();
    let left = "INSERT INTO many.downlink_queue (dev_eui, seq, item, body) VALUES (?, 7, 'left', ?) IF NOT EXISTS";
    for eui in [device, other] {
        session.query_unpaged(left, (eui.to_string(), &body)).await.unwrap();
    }
    let item = store.enqueue(new.item(device)).await.unwrap();
    assert!(store.queue(device, 0, 9).await.unwrap().contains(&item));
    store.flush_queue(other, u64::MAX).await.unwrap();
    let rows = "SELECT seq FROM many.downlink_queue WHERE dev_eui = ?";
    let rows = session.query_unpaged(rows, (other.to_string(),)).await.unwrap().into_rows_result().unwrap();
    assert_eq!(rows.rows_num(), 0);
}

async fn many_servers_make_the_tables_of_a_new_network_together(engine: &Engine) {
    let url = engine.store("together");
    let servers: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn({
                let url = url.clone();
                async move { open(&url).await }
            })
        })
        .collect();
    let mut stores = Vec::new();
    for server in servers {
        stores.push(server.await.unwrap().unwrap());
    }
    let firsts = [stores[0].init_setting("x", b"a").await.unwrap(), stores[3].init_setting("x", b"b").await.unwrap()];
    assert_eq!(firsts, [b"a", b"a"]);
    let known = Migrated { from: 5, to: 5, unfinished: false };
    assert_eq!(migrate(&url, Finish::Later).await.unwrap(), known);
}

async fn a_schema_of_another_version_is_refused_by_name(engine: &Engine) {
    let url = engine.store("versions");
    let made = Migrated { from: 0, to: 5, unfinished: false };
    assert_eq!(migrate(&url, Finish::Later).await.unwrap(), made);
    let session = session(&url).await;
    let reach = async |version: i32| {
        let text = "INSERT INTO versions.schema_version (id, version, name, applied_at) VALUES (0, ?, 'tomorrow', 0)";
        session.query_unpaged(text, (version,)).await.unwrap();
    };
    reach(6).await;
    assert!(open(&url).await.is_ok(), "the next schema only adds");
    reach(7).await;
    let refused = open(&url).await.err().unwrap();
    assert!(matches!(refused, OpenError::CqlSchemaTooNew { found: 7, .. }));
    assert!(refused.to_string().contains("tomorrow") && refused.to_string().contains("newer version"), "{refused}");
}

/// Equal to the last byte, also when the import was interrupted.
async fn a_network_moves_in_and_out(engine: &Engine) {
    let (first, folder) = crate::moving::network().await;
    let (file, original) = crate::moving::exported(&*first, folder.path(), "first").await;
    let checked = moving::check(&file, &|_| {}).unwrap();
    let cql = open(&engine.store("moved")).await.unwrap();
    let mut seed = 0;
    loop {
        let view = FaultStore::new(cql.clone(), seed, Faults { crash: 4, hide: 10, ..Faults::default() });
        tokio::select! {
            done = moving::import(&*view, &checked, Counters::Keep, &|_| {}) => break drop(done.unwrap()),
            () = view.crashed() => seed += 1,
        }
        assert!(seed < 50, "it never ends");
    }
    let (second, again) = crate::moving::exported(&*cql, folder.path(), "second").await;
    assert_eq!(again.summary, original.summary, "interrupted {seed} times");
    let sqlite = open(&format!("sqlite:{}", folder.path().join("store").display())).await.unwrap();
    let checked = moving::check(&second, &|_| {}).unwrap();
    moving::import(&*sqlite, &checked, Counters::Keep, &|_| {}).await.unwrap();
    assert_eq!(crate::moving::exported(&*sqlite, folder.path(), "third").await.1.summary, original.summary);
}

async fn an_export_of_an_earlier_version_moves_in(engine: &Engine) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&engine.store("earlier")).await.unwrap();
    let checked = crate::earlier::checked(folder.path());
    moving::import(&*store, &checked, Counters::Keep, &|_| {}).await.unwrap();
    crate::earlier::holds_all(&*store).await;
}

/// Rows are as the version before reads them.
async fn rows_conform_before_a_migration_is_finished(engine: &Engine) {
    let url = engine.store("unfinished");
    migrate(&url, Finish::Later).await.unwrap();
    let back = "DELETE FROM unfinished.schema_version WHERE id = 0 AND version = 5";
    session(&url).await.query_unpaged(back, ()).await.unwrap();
    let store = open(&url).await.unwrap();
    let of_rows = ["sessions::", "receptions::", "pending::", "moving::"];
    for property in conformance::properties().iter().filter(|p| of_rows.iter().any(|of| p.name.starts_with(of))) {
        property.check(store.clone()).await;
    }
}

/// As ScyllaDB before 2025.4 does it in keyspaces with tablets: plain writes pass, conditional ones are Invalid.
async fn a_database_without_conditional_writes_is_refused_by_name(engine: &Engine) {
    let (known, new) = (engine.store("conforms?consistency=quorum"), engine.store("refused?consistency=quorum"));
    if !engine.limit("WriteConsistencyLevelsDisallowedCSV", "SERIAL") {
        return println!("skipped: this engine cannot be told to refuse them");
    }
    for (url, keyspace) in [(known, "conforms"), (new, "refused")] {
        let refused = open(&url).await.err().unwrap();
        assert!(matches!(&refused, OpenError::CqlNoConditionalWrites { .. }), "{refused}");
        assert!(refused.to_string().contains(&format!("keyspace {keyspace} refuses conditional writes")), "{refused}");
    }
    assert!(engine.limit("WriteConsistencyLevelsDisallowedCSV", ""));
}

async fn a_database_that_is_away_is_named(url: &str) {
    let error = open(url).await.err().unwrap().to_string();
    assert!(error.contains("cannot reach the database at 127.0.11.1:9042"), "{error}");
}
