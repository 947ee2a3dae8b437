//! Who may do what.

use chirpstack_api::api;
use limpet_api::{Api, FIRST_TENANT, FirstStart, bootstrap};
use limpet_shared::{UnixMicros, admin};
use limpet_store::{List, SqliteStore, Store};
use limpet_store_testing::fault::{FaultStore, Faults};
use limpet_worker_core::model::User;
use std::{sync::Arc, time::Duration};
use tonic::{Code, Request, metadata::MetadataValue};

use uuid::Uuid;

use crate::server::{DEVICE, GATEWAY, PASSWORD, Server, code, with_token};

/// Each question waits for a while, another one each time: so all orders come about.
const SLOW: Faults = Faults { delay: Duration::from_millis(3), refuse: 0, lose: 0, hide: 0, crash: 0 };

async fn key(server: &Server, key: api::ApiKey) -> Result<api::CreateApiKeyResponse, tonic::Status> {
    let request = api::CreateApiKeyRequest { api_key: Some(key) };
    Ok(server.internal().await.create_api_key(server.ask(request)).await?.into_inner())
}

fn profile(token: &str) -> Request<()> {
    with_token((), token)
}

#[tokio::test]
async fn the_first_start_makes_one_admin_and_one_tenant_however_many_workers_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let stores = [SqliteStore::open(folder.path()).unwrap(), SqliteStore::open(folder.path()).unwrap()];
    let starts = (0..4).map(|n| {
        let inner: Arc<dyn Store> = stores[n % 2].clone();
        let store: Arc<dyn Store> = FaultStore::new(inner, n as u64, SLOW);
        tokio::spawn(async move { bootstrap(&store, None).await.unwrap().created })
    });
    let mut passwords = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        passwords.extend(start.await.unwrap());
    }
    assert_eq!(passwords.len(), 1, "one of them made the user, and tells the password");
    assert!(passwords[0].len() >= 16);
    let store: Arc<dyn Store> = stores[0].clone();
    let server = Server::with(store.clone(), &passwords[0]).await;
    assert!(!server.token().is_empty());
    let tenants = store.tenants(&List { limit: 10, ..List::default() }).await.unwrap();
    assert_eq!(tenants.items.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), [FIRST_TENANT]);
    assert_eq!(store.users(&List::default()).await.unwrap().total, 1);

    store.delete_tenant(tenants.items[0].id).await.unwrap();
    assert_eq!(bootstrap(&store, Some("again".into())).await.unwrap().created, None);
    assert_eq!(store.tenants(&List::default()).await.unwrap().total, 0, "what was deleted stays deleted");
}

/// It makes the user and does not say so.
#[tokio::test]
async fn the_password_of_the_first_start_is_told_though_the_store_did_not_answer() {
    let inner: Arc<dyn Store> = SqliteStore::in_memory().unwrap();
    let faults = FaultStore::new(inner.clone(), 1, Faults::default());
    let (store, first): (Arc<dyn Store>, _) = (faults.clone(), FirstStart::default());
    // Both ids are there, so that the user is what is not answered for.
    for setting in ["first_admin_id", "first_tenant_id"] {
        inner.init_setting(setting, Uuid::from_u128(7).as_bytes()).await.unwrap();
    }
    faults.set_faults(Faults { hide: 1_000, ..Faults::default() });
    assert!(first.run(&store, None).await.is_err());
    faults.set_faults(Faults::default());
    let password = first.run(&store, None).await.unwrap().created.expect("its password");
    assert!(!Server::with(inner.clone(), &password).await.token().is_empty());
    assert_eq!(bootstrap(&store, None).await.unwrap().created, None);
}

#[tokio::test]
async fn a_login_at_one_worker_holds_at_the_other() {
    let first = Server::start().await;
    let second = Server::over(first.store.clone()).await;
    let user = second.internal().await.profile(profile(first.token())).await.unwrap().into_inner().user.unwrap();
    assert_eq!((user.email.as_str(), user.is_admin), ("admin", true));
}

#[tokio::test]
async fn wrong_passwords_and_tokens_are_unauthenticated() {
    let server = Server::start().await;
    assert_eq!(code(server.login("admin", "wrong").await), Code::Unauthenticated);
    assert_eq!(code(server.login("nobody@example.org", PASSWORD).await), Code::Unauthenticated);
    assert_eq!(code(server.login("", "").await), Code::Unauthenticated);

    let mut internal = server.internal().await;
    assert_eq!(code(internal.profile(()).await), Code::Unauthenticated);
    for bad in ["", "a.b.c", &server.token()[1..], "eyJhbGciOiJub25lIn0.e30."] {
        assert_eq!(code(internal.profile(profile(bad)).await), Code::Unauthenticated, "{bad:?}");
    }
    let mut basic = Request::new(());
    basic.metadata_mut().insert("authorization", MetadataValue::from_static("Basic YWRtaW46YWRtaW4="));
    assert_eq!(code(internal.profile(basic).await), Code::Unauthenticated);
    internal.settings(()).await.expect("how one may log in is known before the log-in");
}

#[tokio::test]
async fn guessing_passwords_is_slowed_down() {
    let server = Server::start().await;
    let mut codes = Vec::new();
    for _ in 0..40 {
        codes.push(code(server.login("Victim@example.org", "guess").await));
    }
    assert_eq!(codes[0], Code::Unauthenticated);
    assert!(codes.contains(&Code::ResourceExhausted));
    server.login("admin", PASSWORD).await.expect("other accounts are not held up");
}

#[tokio::test]
async fn who_is_disabled_stays_so_however_busily_a_password_is_being_changed() {
    let server = Server::start().await;
    let mut users = server.users().await;
    let user = api::User { email: "ann@example.org".into(), is_active: true, ..Default::default() };
    let create =
        api::CreateUserRequest { user: Some(user.clone()), password: "one-one-one".into(), tenants: Vec::new() };
    let id = users.create(server.ask(create)).await.unwrap().into_inner().id;
    let mut changing = tokio::task::JoinSet::new();
    for n in 0..6 {
        let change = api::UpdateUserPasswordRequest { user_id: id.clone(), password: format!("password {n}") };
        let (mut users, request) = (users.clone(), server.ask(change));
        changing.spawn(async move { users.update_password(request).await.map(drop) });
    }
    // Each of them has read the user before this, and writes it later: hashing takes its time.
    tokio::task::yield_now().await;
    let disabled = api::User { id: id.clone(), is_active: false, ..user };
    users.update(server.ask(api::UpdateUserRequest { user: Some(disabled) })).await.unwrap();
    while let Some(changed) = changing.join_next().await {
        changed.unwrap().unwrap();
    }
    let user = users.get(server.ask(api::GetUserRequest { id })).await.unwrap().into_inner().user.unwrap();
    assert!(!user.is_active);
}

#[tokio::test]
async fn a_new_password_ends_the_old_logins_and_a_disabled_user_is_out() {
    let server = Server::start().await;
    let mut users = server.users().await;
    let user = api::User { email: "ann@example.org".into(), is_active: true, ..Default::default() };
    let create =
        api::CreateUserRequest { user: Some(user.clone()), password: "one-one-one".into(), tenants: Vec::new() };
    let id = users.create(server.ask(create.clone())).await.unwrap().into_inner().id;
    assert_eq!(code(users.create(server.ask(create)).await), Code::AlreadyExists);

    let token = server.login("Ann@Example.org", "one-one-one").await.unwrap();
    let mut internal = server.internal().await;
    internal.profile(profile(&token)).await.unwrap();
    let change = api::UpdateUserPasswordRequest { user_id: id.clone(), password: "two-two-two".into() };
    users.update_password(with_token(change, &token)).await.expect("one's own password");
    assert_eq!(code(internal.profile(profile(&token)).await), Code::Unauthenticated);
    assert_eq!(code(server.login("ann@example.org", "one-one-one").await), Code::Unauthenticated);
    let token = server.login("ann@example.org", "two-two-two").await.unwrap();

    let change = api::UpdateUserPasswordRequest { user_id: id.clone(), password: "seven-7".into() };
    assert_eq!(code(users.update_password(server.ask(change)).await), Code::InvalidArgument);
    let disabled = api::User { id: id.clone(), is_active: false, ..user };
    users.update(server.ask(api::UpdateUserRequest { user: Some(disabled) })).await.unwrap();
    assert_eq!(code(internal.profile(profile(&token)).await), Code::Unauthenticated);
    assert_eq!(code(server.login("ann@example.org", "two-two-two").await), Code::Unauthenticated);

    users.delete(server.ask(api::DeleteUserRequest { id: id.clone() })).await.unwrap();
    assert_eq!(code(users.get(server.ask(api::GetUserRequest { id })).await), Code::NotFound);
}

#[tokio::test]
async fn of_two_administrators_who_remove_each_other_one_is_left() {
    let admin = |n: u128, email: &str| User {
        id: Uuid::from_u128(n),
        created_at: UnixMicros(1),
        updated_at: UnixMicros(1),
        email: email.into(),
        is_admin: true,
        is_active: true,
        note: String::new(),
        password_hash: "none".into(),
    };
    for seed in 0..40 {
        let inner: Arc<dyn Store> = SqliteStore::in_memory().unwrap();
        for user in [admin(1, "ann@example.org"), admin(2, "bob@example.org")] {
            inner.create_user(&user).await.unwrap();
        }
        let api = |seed| {
            let store = FaultStore::new(inner.clone(), seed, SLOW);
            Api::new(crate::server::state(store, Arc::new(limpet_api::NoCluster)))
        };
        let remove = async |api: Arc<Api>, email: &str| {
            api.answer_or_ask(admin::Request::UserRemove { email: email.into() }, "test").await
        };
        let (one, two) = (api(seed), api(seed + 1_000));
        let replies = tokio::join!(remove(one, "ann@example.org"), remove(two, "bob@example.org"));
        let left = inner.users(&List { limit: 10, ..List::default() }).await.unwrap().items;
        let left: Vec<_> = left.iter().map(|user| (user.is_admin, user.is_active)).collect();
        assert_eq!(left, [(true, true)], "seed {seed}: {replies:?}");
        let last =
            |reply: &admin::Reply| matches!(reply, admin::Reply::Error { message, .. } if message.contains("last"));
        assert!(last(&replies.0) != last(&replies.1), "seed {seed}: {replies:?}");
    }
}

/// With an API key of the network, for whom "yourself" means nobody.
#[tokio::test]
async fn the_last_administrator_can_be_neither_deleted_nor_demoted() {
    let server = Server::start().await;
    let mut users = server.users().await;
    let network = api::ApiKey { name: "network".into(), is_admin: true, ..Default::default() };
    let token = key(&server, network).await.unwrap().token;
    let listed = users.list(server.ask(api::ListUsersRequest { limit: 10, ..Default::default() })).await.unwrap();
    let admin = listed.into_inner().result.remove(0);
    let as_it_is =
        api::User { id: admin.id.clone(), email: admin.email, is_admin: true, is_active: true, ..Default::default() };
    let update = |user: api::User| api::UpdateUserRequest { user: Some(user) };
    let delete = || api::DeleteUserRequest { id: admin.id.clone() };
    for user in [api::User { is_admin: false, ..as_it_is.clone() }, api::User { is_active: false, ..as_it_is.clone() }]
    {
        let refused = users.update(with_token(update(user), &token)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("admin is the last administrator"), "{refused}");
    }
    assert_eq!(code(users.delete(with_token(delete(), &token)).await), Code::FailedPrecondition);
    users.update(with_token(update(api::User { note: "first".into(), ..as_it_is.clone() }), &token)).await.unwrap();

    let second = api::User { email: "ann@example.org".into(), is_admin: true, is_active: false, ..Default::default() };
    let create =
        api::CreateUserRequest { user: Some(second.clone()), password: "one-one-one".into(), tenants: Vec::new() };
    let id = users.create(with_token(create, &token)).await.unwrap().into_inner().id;
    let refused = users.delete(with_token(delete(), &token)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "who is disabled administrates nothing");
    users.update(with_token(update(api::User { id, is_active: true, ..second }), &token)).await.unwrap();
    users.delete(with_token(delete(), &token)).await.unwrap();
}

#[tokio::test]
async fn a_user_who_is_no_admin_sees_nothing_and_nobody_locks_himself_out() {
    let server = Server::start().await;
    let mut users = server.users().await;
    let user = api::User { email: "bob@example.org".into(), is_active: true, ..Default::default() };
    let create = api::CreateUserRequest { user: Some(user), password: "one-one-one".into(), tenants: Vec::new() };
    users.create(server.ask(create)).await.unwrap();
    let token = server.login("bob@example.org", "one-one-one").await.unwrap();
    assert_eq!(code(users.list(with_token(api::ListUsersRequest::default(), &token)).await), Code::PermissionDenied);
    let list = api::ListApplicationsRequest { tenant_id: server.tenant.clone(), ..Default::default() };
    assert_eq!(code(server.applications().await.list(with_token(list, &token)).await), Code::PermissionDenied);
    let tenants = server
        .tenants()
        .await
        .list(with_token(api::ListTenantsRequest { limit: 9, ..Default::default() }, &token))
        .await;
    assert_eq!(tenants.unwrap().into_inner().total_count, 0);

    let me = server.internal().await.profile(server.ask(())).await.unwrap().into_inner().user.unwrap();
    let gone = users.delete(server.ask(api::DeleteUserRequest { id: me.id.clone() })).await;
    assert_eq!(code(gone), Code::FailedPrecondition);
    let demoted = api::User { is_admin: false, ..me };
    let demoted = users.update(server.ask(api::UpdateUserRequest { user: Some(demoted) })).await;
    assert_eq!(code(demoted), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_tenants_key_acts_for_that_tenant_only() {
    let server = Server::start().await;
    let tenant = api::Tenant { name: "other".into(), can_have_gateways: true, ..Default::default() };
    let request = api::CreateTenantRequest { tenant: Some(tenant) };
    let other = server.tenants().await.create(server.ask(request)).await.unwrap().into_inner().id;
    let theirs = api::ApiKey { name: "theirs".into(), tenant_id: other.clone(), ..Default::default() };
    let theirs = key(&server, theirs).await.unwrap().token;

    server.device(DEVICE).await;
    let get = api::GetDeviceRequest { dev_eui: DEVICE.into() };
    let mut devices = server.devices().await;
    assert_eq!(code(devices.get(with_token(get.clone(), &theirs)).await), Code::PermissionDenied);
    let queue = api::GetDeviceQueueItemsRequest { dev_eui: DEVICE.into(), count_only: true };
    assert_eq!(code(devices.get_queue(with_token(queue, &theirs)).await), Code::PermissionDenied);
    let all = api::ListDevicesRequest { limit: 10, ..Default::default() };
    assert_eq!(devices.list(with_token(all.clone(), &theirs)).await.unwrap().into_inner().total_count, 0);
    assert_eq!(devices.list(server.ask(all)).await.unwrap().into_inner().total_count, 1);

    let mut gateways = server.gateways().await;
    let gateway = |tenant: &str| api::CreateGatewayRequest {
        gateway: Some(api::Gateway {
            gateway_id: GATEWAY.into(),
            name: "roof".into(),
            tenant_id: tenant.into(),
            ..Default::default()
        }),
    };
    assert_eq!(code(gateways.create(with_token(gateway(&server.tenant), &theirs)).await), Code::PermissionDenied);
    gateways.create(with_token(gateway(&other), &theirs)).await.unwrap();
    let mut tenants = server.tenants().await;
    let get = |id: &str| api::GetTenantRequest { id: id.into() };
    tenants.get(with_token(get(&other), &theirs)).await.unwrap();
    assert_eq!(code(tenants.get(with_token(get(&server.tenant), &theirs)).await), Code::PermissionDenied);
    let delete = api::DeleteTenantRequest { id: other };
    assert_eq!(code(tenants.delete(with_token(delete, &theirs)).await), Code::PermissionDenied);
}

#[tokio::test]
async fn keys_are_listed_held_to_reading_and_end_when_they_are_deleted() {
    let server = Server::start().await;
    let admin = api::ApiKey { name: "deploy".into(), is_admin: true, ..Default::default() };
    let made = key(&server, admin.clone()).await.unwrap();
    let reader = key(&server, api::ApiKey { name: "dash".into(), is_read_only: true, ..admin.clone() }).await.unwrap();

    let mut tenants = server.tenants().await;
    let list = api::ListTenantsRequest { limit: 10, ..Default::default() };
    for token in [&made.token, &reader.token] {
        assert_eq!(tenants.list(with_token(list.clone(), token)).await.unwrap().into_inner().total_count, 1);
    }
    let create = api::CreateTenantRequest { tenant: Some(api::Tenant { name: "t".into(), ..Default::default() }) };
    assert_eq!(code(tenants.create(with_token(create.clone(), &reader.token)).await), Code::PermissionDenied);
    tenants.create(with_token(create, &made.token)).await.unwrap();

    let mut internal = server.internal().await;
    let all = api::ListApiKeysRequest { limit: 10, is_admin: true, ..Default::default() };
    let keys = internal.list_api_keys(server.ask(all)).await.unwrap().into_inner();
    let names: Vec<_> = keys.result.iter().map(|k| (k.name.as_str(), k.is_read_only)).collect();
    assert_eq!((keys.total_count, names), (2, vec![("dash", true), ("deploy", false)]));

    internal.delete_api_key(server.ask(api::DeleteApiKeyRequest { id: made.id.clone() })).await.unwrap();
    assert_eq!(code(tenants.list(with_token(list, &made.token)).await), Code::Unauthenticated);
    let again = internal.delete_api_key(server.ask(api::DeleteApiKeyRequest { id: made.id })).await;
    assert_eq!(code(again), Code::NotFound);

    let both = api::ApiKey { tenant_id: server.tenant.clone(), ..admin.clone() };
    assert_eq!(code(key(&server, both).await), Code::InvalidArgument);
    let missing = "00000000-0000-4000-8000-000000000000".to_owned();
    let orphan = api::ApiKey { is_admin: false, tenant_id: missing, ..admin };
    assert_eq!(code(key(&server, orphan).await), Code::NotFound);
}
