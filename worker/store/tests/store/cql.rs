//! The CQL store on a real engine.

use std::{path::Path, sync::Arc, time::Duration};

use limpet_bench::engine::{self, Engine};
use limpet_store::{
    CqlStore, Migrated, OpenError, Store, conformance,
    fault::{FaultStore, Faults},
    migrate,
    moving::{self, Counters},
    open,
};
use scylla::client::{session::Session, session_builder::SessionBuilder};

/// One engine for all of these tests: a node takes 10 s to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cql_keeps_the_promises_of_the_trait() {
    let Some(engine) = engine() else { return };
    conforms(&engine).await;
    conforms_behind_faults(&engine).await;
    lists_follow_what_another_server_writes(&engine).await;
    many_servers_make_the_tables_of_a_new_network_together(&engine).await;
    a_schema_of_another_version_is_refused_by_name(&engine).await;
    a_network_moves_in_and_out(&engine).await;
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
    assert_eq!(migrate(&url).await.unwrap(), Migrated { from: 2, to: 2 });
}

async fn a_schema_of_another_version_is_refused_by_name(engine: &Engine) {
    let url = engine.store("versions");
    assert_eq!(migrate(&url).await.unwrap(), Migrated { from: 0, to: 2 });
    let session = session(&url).await;
    let reach = async |version: i32| {
        let text = "INSERT INTO versions.schema_version (id, version, name, applied_at) VALUES (0, ?, 'tomorrow', 0)";
        session.query_unpaged(text, (version,)).await.unwrap();
    };
    reach(3).await;
    assert!(open(&url).await.is_ok(), "the next schema only adds");
    reach(4).await;
    let refused = open(&url).await.err().unwrap();
    assert!(matches!(refused, OpenError::CqlSchemaTooNew { found: 4, .. }));
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
