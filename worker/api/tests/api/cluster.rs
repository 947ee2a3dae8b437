//! The operator's questions over HTTP.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chirpstack_api::api;
use limpet_shared::{
    AesKey, DevAddr, Eui64, UnixMicros,
    admin::{DeviceAdd, ErrorKind, Gateway, GatewayAdd, Reply, Request},
};
use limpet_store::{Freshness, List};
use limpet_worker_core::model::{self, DeviceSeen};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::server::{DEVICE, GATEWAY, Server};

const EUI: Eui64 = Eui64(0x0102_0304_0506_0708);
const ROOF: Eui64 = Eui64(0x0016_c001_ff10_a235);

/// One request over a connection of its own; status and body.
async fn http(server: &Server, method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
    let host = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).await.unwrap();
    let authorization = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{authorization}content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

pub async fn ctl(server: &Server, token: &str, request: &Request) -> (u16, Reply) {
    let (status, body) =
        http(server, "POST", "/api/cluster/ctl", token, &serde_json::to_string(request).unwrap()).await;
    (status, serde_json::from_str(&body).unwrap())
}

fn kind(reply: Reply) -> ErrorKind {
    match reply {
        Reply::Error { kind, message } => {
            assert!(!message.is_empty());
            kind
        }
        other => panic!("{other:?}"),
    }
}

fn otaa() -> DeviceAdd {
    DeviceAdd { dev_eui: EUI, app_key: Some(AesKey([7; 16])), ..DeviceAdd::default() }
}

#[tokio::test]
async fn questions_need_an_administrator() {
    let server = Server::start().await;
    assert_eq!(ctl(&server, "", &Request::gateways()).await.0, 401);
    assert_eq!(ctl(&server, "nonsense", &Request::gateways()).await.0, 401);
    let key = api::ApiKey { name: "k".into(), tenant_id: server.tenant.clone(), ..Default::default() };
    let request = server.ask(api::CreateApiKeyRequest { api_key: Some(key) });
    let tenants = server.internal().await.create_api_key(request).await.unwrap().into_inner().token;
    assert_eq!(ctl(&server, &tenants, &Request::gateways()).await.0, 403);
    assert_eq!(http(&server, "POST", "/api/cluster/ctl", server.token(), "{").await.0, 400);
    let (status, reply) = ctl(&server, server.token(), &Request::Servers).await;
    assert!(matches!((status, reply), (200, Reply::Servers { servers }) if servers[0].name == "w1"));
}

#[tokio::test]
async fn a_gateway_is_added_by_one_question() {
    let server = Server::start().await;
    let add = Request::GatewayAdd(GatewayAdd { eui: ROOF, ..GatewayAdd::default() });
    let (status, reply) = ctl(&server, server.token(), &add).await;
    assert!(matches!((status, &reply), (200, Reply::Done { message }) if message.contains(GATEWAY)), "{reply:?}");
    let (status, reply) = ctl(&server, server.token(), &add).await;
    assert_eq!((status, kind(reply)), (409, ErrorKind::AlreadyExists));
    let elsewhere =
        Request::GatewayAdd(GatewayAdd { eui: Eui64(1), tenant: Some("nowhere".into()), ..GatewayAdd::default() });
    let (status, reply) = ctl(&server, server.token(), &elsewhere).await;
    assert_eq!((status, kind(reply)), (404, ErrorKind::NotFound));
    let named = Request::GatewayAdd(GatewayAdd {
        eui: Eui64(1),
        name: Some("one".into()),
        tenant: Some("Limpet".into()),
        address: None,
    });
    assert_eq!(ctl(&server, server.token(), &named).await.0, 200);
    let (_, reply) = ctl(&server, server.token(), &Request::gateways()).await;
    let Reply::Gateways { gateways, .. } = reply else { panic!("{reply:?}") };
    let known: Vec<_> = gateways.iter().map(|Gateway { eui, name, known, .. }| (*eui, name.as_str(), *known)).collect();
    assert_eq!(known, [(ROOF, GATEWAY, true), (Eui64(1), "one", true)]);
}

#[tokio::test]
async fn a_gateways_address_policy_is_given_when_it_is_added_and_changed_later() {
    let server = Server::start().await;
    let policy = async || {
        let Reply::Gateways { gateways, .. } = server.api.answer(Request::gateways()).await else { panic!("no list") };
        gateways.into_iter().find(|gateway| gateway.eui == ROOF).and_then(|gateway| gateway.policy)
    };
    let add = |address: &str| GatewayAdd { eui: ROOF, address: Some(address.into()), ..GatewayAdd::default() };
    let refused = server.api.answer(Request::GatewayAdd(add("lock:10.0.0.1/8"))).await;
    assert!(matches!(&refused, Reply::Error { message, .. } if message.contains("bits set beyond")), "{refused:?}");
    assert_eq!(policy().await, None, "it was not added");
    let added = server.api.answer(Request::GatewayAdd(add("lock:10.0.0.0/8"))).await;
    assert!(matches!(added, Reply::Done { .. }), "{added:?}");
    assert_eq!(policy().await.as_deref(), Some("lock:10.0.0.0/8"));
    let set = |eui, address: &str| Request::GatewayAddress { eui, address: address.into() };
    assert_eq!(kind(server.api.answer(set(ROOF, "hold:0")).await), ErrorKind::Invalid);
    assert_eq!(kind(server.api.answer(set(Eui64(9), "off")).await), ErrorKind::NotFound);
    assert!(matches!(server.api.answer(set(ROOF, "hold:600")).await, Reply::Done { .. }));
    assert_eq!(policy().await.as_deref(), Some("hold:600"));
}

#[tokio::test]
async fn a_device_is_added_with_all_that_it_stands_in() {
    let server = Server::start().await;
    let add = DeviceAdd { webhook: Some("http://localhost:9000/".into()), ..otaa() };
    let reply = server.api.answer(Request::DeviceAdd(add)).await;
    assert!(matches!(&reply, Reply::Done { message } if message.contains(DEVICE)), "{reply:?}");
    let context = server.store.device_context(EUI).await.unwrap().unwrap();
    assert_eq!(context.application.name, "default");
    assert_eq!(context.application.http.as_ref().unwrap().url, "http://localhost:9000/");
    assert_eq!((context.profile.region.as_str(), context.profile.supports_otaa), ("EU868", true));
    assert_eq!(context.device.app_key, Some(AesKey([7; 16])));
    assert_eq!(kind(server.api.answer(Request::DeviceAdd(otaa())).await), ErrorKind::AlreadyExists);

    let second = DeviceAdd { dev_eui: Eui64(2), ..otaa() };
    assert!(matches!(server.api.answer(Request::DeviceAdd(second)).await, Reply::Done { .. }));
    let all = List { limit: 10, ..List::default() };
    assert_eq!(server.store.applications(&all).await.unwrap().total, 1, "they share application and profile");
    assert_eq!(server.store.device_profiles(&all).await.unwrap().total, 1);
}

#[tokio::test]
async fn an_abp_device_is_ready_at_once_in_the_region_asked_for() {
    let server = Server::start().await;
    let abp = DeviceAdd {
        dev_eui: EUI,
        dev_addr: Some(DevAddr(0x0100_0001)),
        nwk_s_key: Some(AesKey([1; 16])),
        app_s_key: Some(AesKey([2; 16])),
        region: Some("US915_1".into()),
        mac_version: Some("1.0.4".into()),
        ..DeviceAdd::default()
    };
    let reply = server.api.answer(Request::DeviceAdd(abp)).await;
    assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    let sessions = server.store.sessions_by_addr(DevAddr(0x0100_0001), Freshness::Serial).await.unwrap();
    assert_eq!((sessions.len(), sessions[0].session.region.as_str()), (1, "us915_1"));
}

#[tokio::test]
async fn a_device_that_cannot_be_added_leaves_nothing_behind() {
    let server = Server::start().await;
    for wrong in [
        DeviceAdd { dev_eui: EUI, ..DeviceAdd::default() },
        DeviceAdd { dev_addr: Some(DevAddr(1)), ..otaa() },
        DeviceAdd { dev_eui: EUI, dev_addr: Some(DevAddr(1)), ..DeviceAdd::default() },
        DeviceAdd { region: Some("us915_5".into()), ..otaa() },
        DeviceAdd { mac_version: Some("1.1.0".into()), ..otaa() },
        DeviceAdd { webhook: Some("localhost".into()), ..otaa() },
        DeviceAdd { application: Some(String::new()), ..otaa() },
    ] {
        assert_eq!(kind(server.api.answer(Request::DeviceAdd(wrong)).await), ErrorKind::Invalid);
    }
    assert_eq!(server.store.applications(&List::default()).await.unwrap().total, 0);
    assert_eq!(kind(server.api.answer(Request::Ring { eui: None }).await), ErrorKind::Invalid, "that is a balancer's");

    let hooked = DeviceAdd { webhook: Some("http://localhost:1/".into()), ..otaa() };
    server.api.answer(Request::DeviceAdd(hooked)).await;
    let other = DeviceAdd { dev_eui: Eui64(2), webhook: Some("http://localhost:2/".into()), ..otaa() };
    assert_eq!(kind(server.api.answer(Request::DeviceAdd(other)).await), ErrorKind::AlreadyExists);
    assert!(server.store.device(Eui64(2)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_balancer_gives_no_webhook_to_an_application_that_has_devices() {
    let server = Server::start().await;
    let hook = |eui, url: &str| DeviceAdd { dev_eui: Eui64(eui), webhook: Some(url.into()), ..otaa() };
    let asked = async |wanted| server.api.answer_a_balancer(Request::DeviceAdd(wanted)).await;
    server.api.answer(Request::DeviceAdd(otaa())).await;
    let refused = asked(hook(2, "http://localhost:1/")).await;
    assert!(matches!(&refused, Reply::Error { message, .. } if message.contains("ask a worker")), "{refused:?}");
    assert!(server.store.device(Eui64(2)).await.unwrap().is_none());
    let applications = server.store.applications(&List { limit: 9, ..List::default() }).await.unwrap();
    assert!(applications.items.iter().all(|application| application.http.is_none()));
    // One that it makes itself shows it nothing of others, and a device without a webhook is a device like any.
    for wanted in [
        DeviceAdd { application: Some("new".into()), ..hook(2, "http://localhost:1/") },
        DeviceAdd { application: Some("new".into()), ..hook(3, "http://localhost:1/") },
        DeviceAdd { dev_eui: Eui64(4), ..otaa() },
    ] {
        let added = asked(wanted).await;
        assert!(matches!(added, Reply::Done { .. }), "{added:?}");
    }
    // An operator at a worker may.
    let given = server.api.answer(Request::DeviceAdd(hook(5, "http://localhost:1/"))).await;
    assert!(matches!(given, Reply::Done { .. }), "{given:?}");
}

#[tokio::test]
async fn gateways_are_listed_in_parts_and_a_balancer_is_asked_about_those_alone() {
    let server = Server::start().await;
    let tenant_id = server.tenant.parse().unwrap();
    for n in 0..450 {
        let (eui, name) = (Eui64(n + 1), format!("mast {n:03}"));
        let gateway = model::Gateway { eui, tenant_id, name, ..model::Gateway::default() };
        server.store.create_gateway(&gateway).await.unwrap();
    }
    for (search, offset, shown, left) in
        [("", 0, 200, 250), ("", 200, 200, 50), ("", 400, 50, 0), ("", 450, 0, 0), ("MAST 44", 0, 10, 0)]
    {
        server.balancers.heard.lock().unwrap().clear();
        let reply = server.api.answer(Request::Gateways { search: search.into(), offset }).await;
        let Reply::Gateways { gateways, more, note } = reply else { panic!("{reply:?}") };
        assert_eq!((gateways.len(), more, note.as_str()), (shown, left, ""), "{search:?} {offset}");
        assert!(gateways.iter().all(|gateway| gateway.worker.as_deref() == Some("w1")), "{gateways:?}");
        let heard: Vec<usize> = server.balancers.heard.lock().unwrap().iter().map(Vec::len).collect();
        assert_eq!(heard, if shown == 0 { vec![] } else { vec![shown] });
    }
}

#[tokio::test]
async fn taking_away_the_last_worker_needs_a_second_word() {
    let server = Server::start().await;
    for asked in [Request::drain("w1", true), Request::remove("w1")] {
        let (status, reply) = ctl(&server, server.token(), &asked).await;
        assert!(
            matches!(&reply, Reply::Error { message, .. } if message.contains("no uplink is acknowledged")),
            "{reply:?}"
        );
        assert_eq!((status, kind(reply)), (412, ErrorKind::Unconfirmed));
        assert_eq!(ctl(&server, server.token(), &asked.meant()).await.0, 200);
    }
    assert_eq!(ctl(&server, server.token(), &Request::drain("w1", false)).await.0, 200);
}

#[tokio::test]
async fn gateways_and_devices_are_listed_renamed_and_removed() {
    let server = Server::start().await;
    let done = async |request: Request| {
        let (status, reply) = ctl(&server, server.token(), &request).await;
        assert!(matches!(reply, Reply::Done { .. }) && status == 200, "{reply:?}");
    };
    done(Request::GatewayAdd(GatewayAdd { eui: ROOF, ..GatewayAdd::default() })).await;
    done(Request::GatewayRename { eui: ROOF, name: "mast".into() }).await;
    done(Request::DeviceAdd(otaa())).await;
    done(Request::DeviceRename { dev_eui: EUI, name: "door".into() }).await;
    let listed = |search: &str| Request::Devices { search: search.into(), offset: 0 };
    let (_, reply) = ctl(&server, server.token(), &listed("doo")).await;
    let Reply::Devices { total: 1, devices } = reply else { panic!("{reply:?}") };
    assert_eq!((devices[0].name.as_str(), devices[0].application.as_str()), ("door", "default"));
    let (_, gateways) = ctl(&server, server.token(), &Request::gateways()).await;
    assert!(matches!(gateways, Reply::Gateways { gateways, .. } if gateways[0].name == "mast"));
    assert_eq!(devices[0].active, None, "never heard");
    let now = UnixMicros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64);
    for (minutes_ago, active) in [(91, false), (89, true), (1, true)] {
        let at = now - Duration::from_secs(minutes_ago * 60);
        let seen = DeviceSeen { last_seen_at: Some(at), ..DeviceSeen::default() };
        server.store.note_device(EUI, seen).await.unwrap();
        let (_, reply) = ctl(&server, server.token(), &listed("door")).await;
        let Reply::Devices { devices, .. } = reply else { panic!("{reply:?}") };
        assert_eq!(devices[0].active, Some(active), "heard {minutes_ago} minutes ago, expected each hour");
    }
    done(Request::GatewayRemove { eui: ROOF }).await;
    done(Request::DeviceRemove { dev_eui: EUI }).await;
    for gone in [Request::GatewayRemove { eui: ROOF }, Request::DeviceRename { dev_eui: EUI, name: "x".into() }] {
        assert_eq!(ctl(&server, server.token(), &gone).await.0, 404);
    }
}
