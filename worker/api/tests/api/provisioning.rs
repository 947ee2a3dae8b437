//! Provisioning from nothing, as a script does it.

use chirpstack_api::api;
use tonic::Code;

use crate::server::{DEVICE, GATEWAY, KEY, OTHER_KEY, Server, code};

#[tokio::test]
async fn everything_from_a_tenant_to_a_queued_downlink() {
    let server = Server::start().await;
    let tenant = api::Tenant { name: "Harbour".into(), can_have_gateways: true, ..Default::default() };
    let request = api::CreateTenantRequest { tenant: Some(tenant) };
    let tenant_id = server.tenants().await.create(server.ask(request)).await.unwrap().into_inner().id;

    let mut applications = server.applications().await;
    let application = api::Application { name: "tide".into(), tenant_id: tenant_id.clone(), ..Default::default() };
    let request = api::CreateApplicationRequest { application: Some(application) };
    let application_id = applications.create(server.ask(request)).await.unwrap().into_inner().id;
    let http = api::HttpIntegration {
        application_id: application_id.clone(),
        headers: [("X-Token".to_owned(), "1".to_owned())].into(),
        event_endpoint_url: "http://localhost:9000/hook".into(),
        ..Default::default()
    };
    let request = api::CreateHttpIntegrationRequest { integration: Some(http.clone()) };
    applications.create_http_integration(server.ask(request)).await.unwrap();
    let request = api::GetHttpIntegrationRequest { application_id: application_id.clone() };
    let found = applications.get_http_integration(server.ask(request)).await.unwrap().into_inner();
    assert_eq!(found.integration, Some(http));
    let request = api::ListIntegrationsRequest { application_id: application_id.clone() };
    let kinds = applications.list_integrations(server.ask(request)).await.unwrap().into_inner();
    assert_eq!((kinds.total_count, kinds.result[0].kind()), (1, api::IntegrationKind::Http));

    let profile = api::DeviceProfile { tenant_id: tenant_id.clone(), ..server.usual_profile() };
    let device_profile_id = server.profile(profile).await.unwrap();
    let gateway = api::Gateway {
        gateway_id: GATEWAY.into(),
        name: "pier".into(),
        tenant_id,
        stats_interval: 30,
        ..Default::default()
    };
    let request = api::CreateGatewayRequest { gateway: Some(gateway) };
    server.gateways().await.create(server.ask(request)).await.unwrap();

    let device = api::Device {
        dev_eui: DEVICE.into(),
        name: "gauge".into(),
        application_id: application_id.clone(),
        device_profile_id,
        join_eui: "0000000000000001".into(),
        tags: [("pier".to_owned(), "3".to_owned())].into(),
        variables: [("secret".to_owned(), "s".to_owned())].into(),
        ..Default::default()
    };
    server.create_device(device.clone()).await.unwrap();
    let mut devices = server.devices().await;
    let request = api::GetDeviceRequest { dev_eui: DEVICE.into() };
    let found = devices.get(server.ask(request)).await.unwrap().into_inner();
    assert_eq!(found.device, Some(device));
    assert!(found.created_at.is_some() && found.last_seen_at.is_none() && found.device_status.is_none());

    let keys = api::DeviceKeys { dev_eui: DEVICE.into(), nwk_key: KEY.into(), ..Default::default() };
    let request = api::CreateDeviceKeysRequest { device_keys: Some(keys) };
    devices.create_keys(server.ask(request)).await.unwrap();
    let item = api::DeviceQueueItem { dev_eui: DEVICE.into(), f_port: 10, data: vec![1, 2, 3], ..Default::default() };
    let request = api::EnqueueDeviceQueueItemRequest { queue_item: Some(item), flush_queue: false };
    let id = devices.enqueue(server.ask(request)).await.unwrap().into_inner().id;
    let request = api::GetDeviceQueueItemsRequest { dev_eui: DEVICE.into(), count_only: false };
    let queue = devices.get_queue(server.ask(request)).await.unwrap().into_inner();
    assert_eq!((queue.total_count, &queue.result[0].id, queue.result[0].is_pending), (1, &id, false));

    let request = api::DeleteApplicationRequest { id: application_id };
    applications.delete(server.ask(request)).await.unwrap();
    let request = api::GetDeviceRequest { dev_eui: DEVICE.into() };
    assert_eq!(code(devices.get(server.ask(request)).await), Code::NotFound, "its devices went along");
}

#[tokio::test]
async fn keys_are_created_once_read_changed_and_deleted() {
    let server = Server::start().await;
    server.device(DEVICE).await;
    let mut devices = server.devices().await;
    let get = || server.ask(api::GetDeviceKeysRequest { dev_eui: DEVICE.into() });
    let keys = |nwk_key: &str, app_key: &str| {
        Some(api::DeviceKeys {
            dev_eui: DEVICE.into(),
            nwk_key: nwk_key.into(),
            app_key: app_key.into(),
            ..Default::default()
        })
    };
    let create = |keys| server.ask(api::CreateDeviceKeysRequest { device_keys: keys });
    let update = |keys| server.ask(api::UpdateDeviceKeysRequest { device_keys: keys });

    assert_eq!(code(devices.get_keys(get()).await), Code::NotFound);
    assert_eq!(code(devices.update_keys(update(keys(KEY, ""))).await), Code::NotFound);
    for short in ["", "00", &KEY[1..], "0g0102030405060708090a0b0c0d0e0f"] {
        assert_eq!(code(devices.create_keys(create(keys(short, ""))).await), Code::InvalidArgument, "{short:?}");
    }
    assert_eq!(code(devices.create_keys(create(keys("", KEY))).await), Code::InvalidArgument);
    assert_eq!(code(devices.create_keys(create(keys(KEY, OTHER_KEY))).await), Code::InvalidArgument);
    devices.create_keys(create(keys(KEY, KEY))).await.expect("clients that write it into both fields");
    assert_eq!(code(devices.create_keys(create(keys(KEY, ""))).await), Code::AlreadyExists);
    assert_eq!(devices.get_keys(get()).await.unwrap().into_inner().device_keys.unwrap().nwk_key, KEY);

    let zeros = "00000000000000000000000000000000";
    devices.update_keys(update(keys(OTHER_KEY, zeros))).await.unwrap();
    assert_eq!(devices.get_keys(get()).await.unwrap().into_inner().device_keys.unwrap().nwk_key, OTHER_KEY);
    let delete = || server.ask(api::DeleteDeviceKeysRequest { dev_eui: DEVICE.into() });
    devices.delete_keys(delete()).await.unwrap();
    assert_eq!(code(devices.delete_keys(delete()).await), Code::NotFound);
}

#[tokio::test]
async fn lists_are_paged_counted_searched_and_filtered() {
    let server = Server::start().await;
    let first = server.device(DEVICE).await;
    for n in 0..5 {
        let tags = [("floor".to_owned(), (n % 2).to_string())].into();
        let device =
            api::Device { dev_eui: format!("a00000000000000{n}"), name: format!("n{n}"), tags, ..first.clone() };
        server.create_device(device).await.unwrap();
    }
    let list = async |request: api::ListDevicesRequest| {
        let answer = server.devices().await.list(server.ask(request)).await.unwrap().into_inner();
        (answer.total_count, answer.result.into_iter().map(|d| d.name).collect::<Vec<_>>())
    };
    let all = api::ListDevicesRequest { limit: 10, ..Default::default() };
    let profiles = server.devices().await.list(server.ask(all.clone())).await.unwrap().into_inner();
    assert!(profiles.result.iter().all(|d| d.device_profile_name == "class A"));
    assert_eq!(list(api::ListDevicesRequest::default()).await, (6, vec![]), "limit 0 only counts");
    let page = api::ListDevicesRequest { limit: 2, offset: 2, ..Default::default() };
    assert_eq!(list(page).await, (6, vec!["n1".into(), "n2".into()]));
    let search = api::ListDevicesRequest { search: "N3".into(), ..all.clone() };
    assert_eq!(list(search).await, (1, vec!["n3".into()]));
    let tagged = api::ListDevicesRequest { tags: [("floor".into(), "1".into())].into(), ..all.clone() };
    assert_eq!(list(tagged).await, (2, vec!["n1".into(), "n3".into()]));
    let application = api::ListDevicesRequest { application_id: server.application("empty").await, ..all.clone() };
    assert_eq!(list(application).await.0, 0);
    let profile = api::ListDevicesRequest { device_profile_id: first.device_profile_id, ..all.clone() };
    assert_eq!(list(profile).await.0, 6);
    let order = api::list_devices_request::OrderBy::DevEui.into();
    let descending = api::ListDevicesRequest { limit: 2, order_by: order, order_by_desc: true, ..all };
    assert_eq!(list(descending).await, (6, vec!["n4".into(), "n3".into()]));
}

#[tokio::test]
async fn what_is_missing_double_or_malformed_has_its_status() {
    let server = Server::start().await;
    let device = server.device(DEVICE).await;
    let missing = "11111111-2222-4333-8444-555555555555".to_owned();
    let other = || api::Device { dev_eui: "ffffffffffffffff".into(), ..device.clone() };
    let create = async |device| code(server.create_device(device).await);
    assert_eq!(create(device.clone()).await, Code::AlreadyExists);
    assert_eq!(create(api::Device { application_id: missing.clone(), ..other() }).await, Code::NotFound);
    assert_eq!(create(api::Device { device_profile_id: missing.clone(), ..other() }).await, Code::NotFound);
    assert_eq!(create(api::Device { name: " ".into(), ..other() }).await, Code::InvalidArgument);
    assert_eq!(create(api::Device { application_id: "app".into(), ..other() }).await, Code::InvalidArgument);
    assert_eq!(create(api::Device { join_eui: "1".into(), ..other() }).await, Code::InvalidArgument);
    for eui in ["", "01", "010203040506070", "01020304050607089", "gggggggggggggggg"] {
        assert_eq!(create(api::Device { dev_eui: eui.into(), ..other() }).await, Code::InvalidArgument, "{eui:?}");
        let get = server.devices().await.get(server.ask(api::GetDeviceRequest { dev_eui: eui.into() })).await;
        assert_eq!(code(get), Code::InvalidArgument, "{eui:?}");
    }
    let mut devices = server.devices().await;
    assert_eq!(code(devices.create(server.ask(api::CreateDeviceRequest::default())).await), Code::InvalidArgument);
    let unknown = api::DeleteDeviceRequest { dev_eui: "ffffffffffffffff".into() };
    assert_eq!(code(devices.delete(server.ask(unknown)).await), Code::NotFound);
    let update = api::UpdateDeviceRequest { device: Some(other()) };
    assert_eq!(code(devices.update(server.ask(update)).await), Code::NotFound);

    let orphan = api::Application { name: "a".into(), tenant_id: missing.clone(), ..Default::default() };
    let orphan = api::CreateApplicationRequest { application: Some(orphan) };
    assert_eq!(code(server.applications().await.create(server.ask(orphan)).await), Code::NotFound);
    let orphan = api::DeviceProfile { tenant_id: missing.clone(), ..server.usual_profile() };
    assert_eq!(code(server.profile(orphan).await), Code::NotFound);
    let mut profiles = server.profiles().await;
    let used = api::DeleteDeviceProfileRequest { id: device.device_profile_id };
    assert_eq!(code(profiles.delete(server.ask(used)).await), Code::FailedPrecondition);
    let get = api::GetTenantRequest { id: missing };
    assert_eq!(code(server.tenants().await.get(server.ask(get)).await), Code::NotFound);
}

#[tokio::test]
async fn a_tenants_limits_hold() {
    let server = Server::start().await;
    let tenant =
        api::Tenant { id: server.tenant.clone(), name: "small".into(), max_device_count: 1, ..Default::default() };
    let request = api::UpdateTenantRequest { tenant: Some(tenant) };
    server.tenants().await.update(server.ask(request)).await.unwrap();
    let device = server.device(DEVICE).await;
    let second = api::Device { dev_eui: "ffffffffffffffff".into(), ..device };
    assert_eq!(code(server.create_device(second).await), Code::ResourceExhausted);
    let gateway = api::Gateway {
        gateway_id: GATEWAY.into(),
        name: "g".into(),
        tenant_id: server.tenant.clone(),
        ..Default::default()
    };
    let request = api::CreateGatewayRequest { gateway: Some(gateway) };
    assert_eq!(code(server.gateways().await.create(server.ask(request)).await), Code::FailedPrecondition);
}
