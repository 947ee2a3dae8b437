//! Users and keys as operators make them, and what a key may do.

use chirpstack_api::api;
use limpet_shared::admin::{ApiKeyAdd, ErrorKind, Reply, Request as Ask, UserAdd};
use tonic::{Code, Request};

use crate::server::{DEVICE, GATEWAY, PASSWORD, Server, code, with_token};

async fn made_key(server: &Server, tenant: Option<&str>, read_only: bool) -> String {
    let wanted = ApiKeyAdd { name: "k".into(), tenant: tenant.map(str::to_owned), read_only };
    match server.api.answer_or_ask(Ask::ApiKeyAdd(wanted), "test").await {
        Reply::ApiKey { token, .. } => token,
        other => panic!("{other:?}"),
    }
}

async fn password_of(server: &Server, request: Ask) -> String {
    match server.api.answer_or_ask(request, "test").await {
        Reply::Password { password, .. } => password.0,
        other => panic!("{other:?}"),
    }
}

fn refused(reply: Reply) -> (ErrorKind, String) {
    match reply {
        Reply::Error { kind, message } => (kind, message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_lost_password_is_replaced_and_every_log_in_with_it_ends() {
    let server = Server::start().await;
    let new = password_of(&server, Ask::UserPassword { email: "Admin".into(), password: None }).await;
    let mut internal = server.internal().await;
    assert_eq!(code(internal.profile(server.ask(())).await), Code::Unauthenticated);
    assert_eq!(code(server.login("admin", PASSWORD).await), Code::Unauthenticated);
    server.login("admin", &new).await.unwrap();
    let nobody = Ask::UserPassword { email: "bob@example.org".into(), password: None };
    let (kind, message) = refused(server.api.answer_or_ask(nobody, "test").await);
    assert!(kind == ErrorKind::NotFound && message.contains("there are: admin"), "{message}");
}

#[tokio::test]
async fn a_user_is_added_and_the_last_administrator_stays() {
    let server = Server::start().await;
    let ann = || Ask::UserAdd(UserAdd { email: "ann@example.org".into(), admin: true, password: None });
    let last = Ask::UserRemove { email: "admin".into() };
    assert!(refused(server.api.answer_or_ask(last.clone(), "test").await).1.contains("last administrator"));
    let (key, mut users) = (made_key(&server, None, false).await, server.users().await);
    let id = server.store.user_by_email("admin").await.unwrap().unwrap().id.to_string();
    let delete = api::DeleteUserRequest { id: id.clone() };
    assert_eq!(code(users.delete(with_token(delete, &key)).await), Code::FailedPrecondition);
    let demoted = api::User { id, email: "admin".into(), is_active: true, ..Default::default() };
    let update = api::UpdateUserRequest { user: Some(demoted) };
    assert_eq!(code(users.update(with_token(update, &key)).await), Code::FailedPrecondition);
    let password = password_of(&server, ann()).await;
    server.login("ann@example.org", &password).await.unwrap();
    assert_eq!(refused(server.api.answer_or_ask(ann(), "test").await).0, ErrorKind::AlreadyExists);
    assert!(matches!(server.api.answer_or_ask(last, "test").await, Reply::Done { .. }));
    assert_eq!(code(server.login("admin", PASSWORD).await), Code::Unauthenticated);
}

#[tokio::test]
async fn nobody_is_let_in_at_the_wish_of_a_balancer() {
    let server = Server::start().await;
    for asked in [
        Ask::Users,
        Ask::UserAdd(UserAdd { email: "eve@example.org".into(), admin: true, password: None }),
        Ask::UserPassword { email: "admin".into(), password: None },
        Ask::ApiKeyAdd(ApiKeyAdd { name: "k".into(), ..ApiKeyAdd::default() }),
    ] {
        let (kind, message) = refused(server.api.answer(asked).await);
        assert!(kind == ErrorKind::Invalid && message.contains("not dealt with from a balancer"), "{message}");
    }
    server.login("admin", PASSWORD).await.unwrap();
}

#[tokio::test]
async fn the_owner_of_a_key_or_a_session_is_never_held_up_by_others() {
    let server = Server::start().await;
    while code(server.login("admin", "guess").await) != Code::ResourceExhausted {}
    assert_eq!(code(server.login("admin", PASSWORD).await), Code::ResourceExhausted, "from the same address");
    let right = || api::LoginRequest { email: "admin".into(), password: PASSWORD.into() };
    let nonsense = server.internal().await.login(with_token(right(), "a.b.c")).await;
    assert_eq!(code(nonsense), Code::ResourceExhausted, "a token that is none");
    let key = made_key(&server, None, true).await;
    for token in [server.token(), &key] {
        server.internal().await.login(with_token(right(), token)).await.unwrap();
    }
}

/// Every method that changes something, asked with a key that may only look.
#[tokio::test]
async fn a_key_that_may_only_look_changes_nothing() {
    let server = Server::start().await;
    let device = server.device(DEVICE).await;
    for key in [made_key(&server, None, true).await, made_key(&server, Some("Limpet"), true).await] {
        let mut denied: Vec<(&str, Code)> = Vec::new();
        macro_rules! deny {
            ($client:ident.$method:ident($request:expr)) => {{
                let request: Request<_> = with_token($request, &key);
                let name = concat!(stringify!($client), ".", stringify!($method));
                denied.push((name, code(server.$client().await.$method(request).await)));
            }};
        }
        let eui = || DEVICE.to_owned();
        let (application, profile) = (device.application_id.clone(), device.device_profile_id.clone());
        let app = || api::Application {
            id: application.clone(),
            name: "x".into(),
            tenant_id: server.tenant.clone(),
            ..Default::default()
        };
        let http = || api::HttpIntegration { application_id: application.clone(), ..Default::default() };
        let gateway = || api::Gateway {
            gateway_id: GATEWAY.into(),
            name: "g".into(),
            tenant_id: server.tenant.clone(),
            ..Default::default()
        };
        let keys = || api::DeviceKeys { dev_eui: eui(), nwk_key: crate::server::KEY.into(), ..Default::default() };
        let activation = api::DeviceActivation {
            dev_eui: eui(),
            dev_addr: "01020304".into(),
            app_s_key: crate::server::KEY.into(),
            nwk_s_enc_key: crate::server::KEY.into(),
            ..Default::default()
        };
        let item = api::DeviceQueueItem { dev_eui: eui(), f_port: 1, data: vec![1], ..Default::default() };
        let admin = api::ApiKey { name: "k".into(), is_admin: true, ..Default::default() };
        let user = || api::User { email: "e@example.org".into(), is_active: true, ..Default::default() };
        let whole = api::DeviceProfile { id: profile.clone(), ..server.usual_profile() };
        deny!(applications.create(api::CreateApplicationRequest { application: Some(app()) }));
        deny!(applications.update(api::UpdateApplicationRequest { application: Some(app()) }));
        deny!(applications.delete(api::DeleteApplicationRequest { id: application.clone() }));
        deny!(applications.create_http_integration(api::CreateHttpIntegrationRequest { integration: Some(http()) }));
        deny!(applications.update_http_integration(api::UpdateHttpIntegrationRequest { integration: Some(http()) }));
        deny!(
            applications
                .delete_http_integration(api::DeleteHttpIntegrationRequest { application_id: application.clone() })
        );
        deny!(profiles.create(api::CreateDeviceProfileRequest { device_profile: Some(server.usual_profile()) }));
        deny!(profiles.update(api::UpdateDeviceProfileRequest { device_profile: Some(whole) }));
        deny!(profiles.delete(api::DeleteDeviceProfileRequest { id: profile }));
        deny!(devices.create(api::CreateDeviceRequest {
            device: Some(api::Device { dev_eui: "0102030405060709".into(), ..device.clone() })
        }));
        deny!(devices.update(api::UpdateDeviceRequest { device: Some(device.clone()) }));
        deny!(devices.delete(api::DeleteDeviceRequest { dev_eui: eui() }));
        deny!(devices.create_keys(api::CreateDeviceKeysRequest { device_keys: Some(keys()) }));
        deny!(devices.update_keys(api::UpdateDeviceKeysRequest { device_keys: Some(keys()) }));
        deny!(devices.delete_keys(api::DeleteDeviceKeysRequest { dev_eui: eui() }));
        deny!(devices.flush_dev_nonces(api::FlushDevNoncesRequest { dev_eui: eui() }));
        deny!(devices.activate(api::ActivateDeviceRequest { device_activation: Some(activation) }));
        deny!(devices.deactivate(api::DeactivateDeviceRequest { dev_eui: eui() }));
        deny!(devices.enqueue(api::EnqueueDeviceQueueItemRequest { queue_item: Some(item), ..Default::default() }));
        deny!(devices.flush_queue(api::FlushDeviceQueueRequest { dev_eui: eui() }));
        deny!(gateways.create(api::CreateGatewayRequest { gateway: Some(gateway()) }));
        deny!(internal.create_api_key(api::CreateApiKeyRequest { api_key: Some(admin) }));
        deny!(internal.delete_api_key(api::DeleteApiKeyRequest { id: server.tenant.clone() }));
        deny!(
            tenants.create(api::CreateTenantRequest {
                tenant: Some(api::Tenant { name: "t".into(), ..Default::default() })
            })
        );
        deny!(tenants.delete(api::DeleteTenantRequest { id: server.tenant.clone() }));
        deny!(users.create(api::CreateUserRequest { user: Some(user()), password: PASSWORD.into(), tenants: vec![] }));
        deny!(users.update(api::UpdateUserRequest { user: Some(user()) }));
        deny!(users.delete(api::DeleteUserRequest { id: server.tenant.clone() }));
        let user_id = server.tenant.clone();
        deny!(users.update_password(api::UpdateUserPasswordRequest { user_id, password: PASSWORD.into() }));
        denied.retain(|(_, code)| *code != Code::PermissionDenied);
        assert!(denied.is_empty(), "{denied:?}");
    }
}
