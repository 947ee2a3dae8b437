//! Gateways.

use std::sync::atomic::Ordering;

use chirpstack_api::{api, common};
use limpet_shared::{Eui64, UnixMicros};
use limpet_worker_core::model::GatewaySeen;
use tonic::Code;

use crate::server::{GATEWAY, Server, code, refused_field};

fn gateway(server: &Server) -> api::Gateway {
    api::Gateway {
        gateway_id: GATEWAY.into(),
        name: "roof".into(),
        description: "north".into(),
        tenant_id: server.tenant.clone(),
        stats_interval: 30,
        location: Some(common::Location { latitude: 53.5, longitude: 10.0, altitude: 20.0, ..Default::default() }),
        tags: [("region".to_owned(), "eu868".to_owned())].into(),
        metadata: [("serial".to_owned(), "7".to_owned())].into(),
        ..Default::default()
    }
}

async fn create(server: &Server, gateway: api::Gateway) -> Result<(), tonic::Status> {
    let request = api::CreateGatewayRequest { gateway: Some(gateway) };
    server.gateways().await.create(server.ask(request)).await.map(|_| ())
}

#[tokio::test]
async fn a_gateway_is_created_read_changed_and_deleted_and_the_balancers_hear_of_each() {
    let server = Server::start().await;
    let told = || server.balancers.told.load(Ordering::SeqCst);
    create(&server, gateway(&server)).await.unwrap();
    assert_eq!(told(), 1);
    assert_eq!(code(create(&server, gateway(&server)).await), Code::AlreadyExists);

    let mut gateways = server.gateways().await;
    let get = || server.ask(api::GetGatewayRequest { gateway_id: GATEWAY.into() });
    let found = gateways.get(get()).await.unwrap().into_inner();
    assert_eq!((found.gateway, found.last_seen_at), (Some(gateway(&server)), None));
    let renamed = api::Gateway { name: "cellar".into(), ..gateway(&server) };
    gateways.update(server.ask(api::UpdateGatewayRequest { gateway: Some(renamed) })).await.unwrap();
    assert_eq!(gateways.get(get()).await.unwrap().into_inner().gateway.unwrap().name, "cellar");
    let delete = || server.ask(api::DeleteGatewayRequest { gateway_id: GATEWAY.into() });
    gateways.delete(delete()).await.unwrap();
    assert_eq!(told(), 3);
    assert_eq!(code(gateways.delete(delete()).await), Code::NotFound);
    assert_eq!(code(gateways.get(get()).await), Code::NotFound);
}

#[tokio::test]
async fn a_gateway_that_cannot_be_is_refused() {
    let server = Server::start().await;
    let good = gateway(&server);
    for (field, bad) in [
        ("gateway_id", api::Gateway { gateway_id: "0016c001".into(), ..good.clone() }),
        ("name", api::Gateway { name: String::new(), ..good.clone() }),
        ("tags", api::Gateway { tags: [("address_policy".into(), "lock:10.0.0.1/8".into())].into(), ..good.clone() }),
        ("tags", api::Gateway { tags: [("region".into(), "eu686".into())].into(), ..good.clone() }),
        ("tenant_id", api::Gateway { tenant_id: "Limpet".into(), ..good.clone() }),
        ("downlink_priority", api::Gateway { downlink_priority: 1, ..good.clone() }),
        (
            "location",
            api::Gateway { location: Some(common::Location { latitude: 91.0, ..Default::default() }), ..good.clone() },
        ),
    ] {
        assert_eq!(refused_field(create(&server, bad).await), field);
    }
    let usual =
        api::Gateway { downlink_priority: 10, tags: [("region".into(), "EU868".into())].into(), ..good.clone() };
    create(&server, usual).await.unwrap();
    let get = api::GetGatewayRequest { gateway_id: GATEWAY.into() };
    let found = server.gateways().await.get(server.ask(get)).await.unwrap().into_inner().gateway.unwrap();
    assert_eq!(found.downlink_priority, 10, "as clients send it");
    let orphan = api::Gateway { tenant_id: "11111111-2222-4333-8444-555555555555".into(), ..good };
    assert_eq!(code(create(&server, orphan).await), Code::NotFound);
}

#[tokio::test]
async fn a_list_tells_which_gateways_are_online() {
    let server = Server::start().await;
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        let gateway_id = format!("000000000000000{n}");
        create(&server, api::Gateway { gateway_id, name: name.into(), ..gateway(&server) }).await.unwrap();
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
    let seen = |ago_secs: u64| GatewaySeen {
        last_seen_at: Some(UnixMicros(now - ago_secs * 1_000_000)),
        ..GatewaySeen::default()
    };
    server.store.note_gateway(Eui64(1), seen(1)).await.unwrap();
    server.store.note_gateway(Eui64(2), seen(3600)).await.unwrap();
    let list = async |request: api::ListGatewaysRequest| {
        let answer = server.gateways().await.list(server.ask(request)).await.unwrap().into_inner();
        (answer.total_count, answer.result.into_iter().map(|g| (g.name.clone(), g.state())).collect::<Vec<_>>())
    };
    let all = api::ListGatewaysRequest { limit: 10, tenant_id: server.tenant.clone(), ..Default::default() };
    let states = [
        ("a".to_owned(), api::GatewayState::NeverSeen),
        ("b".to_owned(), api::GatewayState::Online),
        ("c".to_owned(), api::GatewayState::Offline),
    ];
    assert_eq!(list(all.clone()).await, (3, states.to_vec()));
    let by_time = api::list_gateways_request::OrderBy::LastSeenAt.into();
    let latest = api::ListGatewaysRequest { limit: 1, order_by: by_time, order_by_desc: true, ..all.clone() };
    assert_eq!(list(latest).await, (3, states[1..2].to_vec()));
    let search = api::ListGatewaysRequest { search: "0002".into(), ..all };
    assert_eq!(list(search).await, (1, states[2..].to_vec()));
}
