use std::time::Duration;

use limpet_shared::{
    UnixMicros,
    admin::{IntegrationBacklog, IntegrationTrouble, RevokedServer, Role, Server, TokenInfo},
};

use super::{
    Bench, assert_missing, race,
    samples::{NOON, Samples},
};
use limpet_store::{Result, Store, moving::Record};

fn server(new: &Samples, role: Role) -> Server {
    Server {
        name: new.word(),
        role: role.as_str().into(),
        state: "ready".into(),
        address: "192.0.2.7:41000".into(),
        http: "192.0.2.7:8080".into(),
        version: "9.9.9".into(),
        started_at: NOON,
        weight: 100,
        share: 0.25,
        in_flight: 3,
        reason: "\"it\" spills ü".into(),
        instance: u64::MAX,
        key: "00ff".into(),
        cpu: 0.125,
        memory: u64::MAX >> 1,
        disk_free: 7,
        combined: true,
        cluster: "ff00".into(),
        cluster_before: "0ff0".into(),
        urls_apart: true,
        failing: vec![IntegrationTrouble { reason: "dns".into(), since: NOON, ..IntegrationTrouble::default() }],
        token_keys_since: NOON,
        backlog: Some(vec![IntegrationBacklog { events: 7, oldest: NOON, ..IntegrationBacklog::default() }]),
        reads_rows: 1,
        seen_at: NOON,
    }
}

fn token(new: &Samples, created_at: UnixMicros) -> TokenInfo {
    TokenInfo {
        id: format!("{:016x}", new.number()),
        role: Role::Balancer,
        created_at,
        expires_at: created_at + Duration::from_secs(3600),
        uses: 100,
        ..TokenInfo::default()
    }
}

async fn listed(store: &dyn Store, of: &[&Server]) -> Result<Vec<Server>> {
    let mine = |server: &Server| of.iter().any(|one| one.name == server.name);
    Ok(store.servers().await?.into_iter().filter(mine).collect())
}

async fn token_now(store: &dyn Store, id: &str) -> Result<Option<TokenInfo>> {
    Ok(store.tokens().await?.into_iter().find(|token| token.id == id))
}

pub(super) async fn the_last_heartbeat_holds(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let (balancer, second, first) =
        (server(&new, Role::Balancer), server(&new, Role::Worker), server(&new, Role::Worker));
    // By name, of which the later one sorts behind.
    let (first, second) = if first.name < second.name { (first, second) } else { (second, first) };
    // Another role may have the same name.
    let twin = Server { name: first.name.clone(), ..balancer.clone() };
    for one in [&balancer, &second, &first, &twin] {
        store.heartbeat(one).await?;
    }
    let earlier = Server { seen_at: UnixMicros(1), state: "draining".into(), ..second.clone() };
    store.heartbeat(&earlier).await?;
    let mut balancers = [balancer.clone(), twin];
    balancers.sort_by(|a, b| a.name.cmp(&b.name));
    let wanted: Vec<Server> = [first.clone(), earlier.clone()].into_iter().chain(balancers).collect();
    assert_eq!(listed(store, &[&balancer, &first, &second]).await?, wanted);
    Ok(())
}

pub(super) async fn a_forgotten_server_is_gone(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let worker = server(&new, Role::Worker);
    let twin = Server { role: Role::Balancer.as_str().into(), ..worker.clone() };
    store.heartbeat(&worker).await?;
    store.heartbeat(&twin).await?;
    store.forget_server(Role::Worker, &worker.name).await?;
    assert_eq!(listed(store, &[&worker]).await?, [twin]);
    store.forget_server(Role::Worker, &worker.name).await?;
    store.heartbeat(&worker).await?;
    assert_eq!(listed(store, &[&worker]).await?.len(), 2, "it came back");
    Ok(())
}

pub(super) async fn a_revocation_stays_and_spares_the_next_of_that_name(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let name = new.word();
    let revoked = |key: &str, at| RevokedServer { name: name.clone(), role: Role::Worker, key: key.into(), at };
    for one in [revoked("b0", NOON), revoked("a0", NOON), revoked("b0", UnixMicros(NOON.0 + 1))] {
        store.revoke_server(&one).await?;
    }
    let found: Vec<RevokedServer> = store.revoked_servers().await?.into_iter().filter(|r| r.name == name).collect();
    assert_eq!(found, [revoked("a0", NOON), revoked("b0", NOON)]);
    Ok(())
}

pub(super) async fn what_is_known_of_a_token_only_grows(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let later = token(&new, NOON + Duration::from_secs(1));
    let made = token(&new, NOON);
    let counted = |balancer: &str, used| TokenInfo { used: [(balancer.into(), used)].into(), ..made.clone() };
    for one in [&later, &counted("east", 2), &made, &counted("west", 1), &counted("east", 1), &later] {
        store.put_token(one).await?;
    }
    let wanted = TokenInfo { used: [("east".into(), 2), ("west".into(), 1)].into(), ..made.clone() };
    let ids = [&made.id, &later.id];
    let found: Vec<TokenInfo> = store.tokens().await?.into_iter().filter(|t| ids.contains(&&t.id)).collect();
    assert_eq!(found, [wanted, later.clone()], "by time of making");
    assert_eq!(found[0].used(), 3);
    Ok(())
}

pub(super) async fn many_balancers_count_one_token(Bench { store, new }: Bench) -> Result<()> {
    let made = token(&new, NOON);
    let answers = race(8, |n| {
        let (store, made) = (store.clone(), made.clone());
        async move {
            for used in 1..=5 {
                let counted = TokenInfo { used: [(format!("edge-{n}"), used)].into(), ..made.clone() };
                store.put_token(&counted).await?;
            }
            Result::Ok(())
        }
    })
    .await;
    answers.into_iter().collect::<Result<Vec<()>>>()?;
    let found = token_now(&*store, &made.id).await?;
    assert_eq!(found.map(|token| token.used()), Some(40));
    Ok(())
}

pub(super) async fn a_token_is_revoked_and_expires(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    // Earlier than what any other property expires.
    let (old, young) = (token(&new, UnixMicros(1_000_000)), token(&new, NOON));
    assert_missing(store.revoke_token(&young.id).await);
    for one in [&old, &young] {
        store.put_token(one).await?;
    }
    store.revoke_token(&young.id).await?;
    store.revoke_token(&young.id).await?;
    store.put_token(&young).await?;
    assert_eq!(token_now(store, &young.id).await?.map(|token| token.revoked), Some(true), "for good");
    assert!(store.expire_tokens(UnixMicros(old.expires_at.0 + 1)).await? >= 1);
    assert_eq!(token_now(store, &old.id).await?, None);
    assert!(token_now(store, &young.id).await?.is_some());
    Ok(())
}

pub(super) async fn each_change_of_who_may_take_part_moves_the_version(bench: Bench) -> Result<()> {
    let (store, new): (&dyn Store, _) = (&*bench.store, &bench.new);
    let mut version = store.membership_version().await?;
    let mut moved = async |what: &str| -> Result<()> {
        let now = store.membership_version().await?;
        assert_ne!(now, version, "{what}");
        version = now;
        Ok(())
    };
    let made = token(new, UnixMicros(2_000_000));
    store.put_token(&made).await?;
    moved("a token was made").await?;
    store.put_token(&TokenInfo { used: [("east".into(), 1)].into(), ..made.clone() }).await?;
    moved("a token was used").await?;
    store.revoke_token(&made.id).await?;
    moved("a token was revoked").await?;
    store.expire_tokens(UnixMicros(made.expires_at.0 + 1)).await?;
    moved("a token has expired").await?;
    let revoked = RevokedServer { name: new.word(), role: Role::Worker, key: "c0".into(), at: NOON };
    store.revoke_server(&revoked).await?;
    moved("a server was revoked").await?;
    let restored = RevokedServer { key: "c1".into(), ..revoked };
    store.restore(&[Record::RevokedServer(restored)]).await?;
    moved("a revocation came from a file").await?;
    race(4, |_| {
        let made = token(new, NOON);
        let store = bench.store.clone();
        async move { store.put_token(&made).await }
    })
    .await
    .into_iter()
    .collect::<Result<Vec<()>>>()?;
    moved("several at once").await
}
