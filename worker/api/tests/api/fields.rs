//! A field is honoured or refused by name.

use chirpstack_api::{api, common};
use tonic::Code;

use crate::server::{Server, code, refused_field};

#[tokio::test]
async fn what_official_clients_send_for_a_profile_passes_and_comes_back() {
    let server = Server::start().await;
    let id = server.profile(server.usual_profile()).await.unwrap();
    let mut profiles = server.profiles().await;
    let get = server.ask(api::GetDeviceProfileRequest { id: id.clone() });
    let found = profiles.get(get).await.unwrap().into_inner().device_profile.unwrap();
    assert_eq!((found.name.as_str(), found.supports_otaa, found.uplink_interval), ("class A", true, 3600));
    assert_eq!((found.adr_algorithm_id.as_str(), found.flush_queue_on_activate), ("default", true));
    assert_eq!((found.region(), found.mac_version()), (common::Region::Eu868, common::MacVersion::Lorawan103));
    // What a client reads it can write back.
    profiles.update(server.ask(api::UpdateDeviceProfileRequest { device_profile: Some(found) })).await.unwrap();
    let algorithms = profiles.list_adr_algorithms(server.ask(())).await.unwrap().into_inner();
    assert_eq!((algorithms.total_count, algorithms.result[0].id.as_str()), (1, "default"));

    let only_names = api::DeviceProfile { name: "bare".into(), tenant_id: server.tenant.clone(), ..Default::default() };
    server.profile(only_names).await.expect("a client that leaves everything at its default");
    profiles.delete(server.ask(api::DeleteDeviceProfileRequest { id })).await.unwrap();
    let list = api::ListDeviceProfilesRequest { limit: 10, tenant_id: server.tenant.clone(), ..Default::default() };
    assert_eq!(profiles.list(server.ask(list)).await.unwrap().into_inner().total_count, 1);
}

#[tokio::test]
async fn a_profile_that_asks_for_what_is_not_there_is_refused_by_field() {
    let server = Server::start().await;
    let usual = || server.usual_profile();
    let us915 = common::Region::Us915.into();
    let app = api::AppLayerParams { ts003_version: 1, ..Default::default() };
    for (field, bad) in [
        ("name", api::DeviceProfile { name: String::new(), ..usual() }),
        ("tenant_id", api::DeviceProfile { tenant_id: "x".into(), ..usual() }),
        ("region", api::DeviceProfile { region: common::Region::As923.into(), ..usual() }),
        ("region", api::DeviceProfile { region: 99, ..usual() }),
        ("region_config_id", api::DeviceProfile { region_config_id: "us915_1".into(), ..usual() }),
        ("region_config_id", api::DeviceProfile { region: us915, region_config_id: "us915_0".into(), ..usual() }),
        ("mac_version", api::DeviceProfile { mac_version: common::MacVersion::Lorawan110.into(), ..usual() }),
        ("reg_params_revision", api::DeviceProfile { reg_params_revision: 77, ..usual() }),
        ("adr_algorithm_id", api::DeviceProfile { adr_algorithm_id: "lr_fhss".into(), ..usual() }),
        ("payload_codec_runtime", api::DeviceProfile { payload_codec_runtime: 3, ..usual() }),
        ("device_status_req_interval", api::DeviceProfile { device_status_req_interval: 1441, ..usual() }),
        ("supports_class_b", api::DeviceProfile { supports_class_b: true, ..usual() }),
        ("supports_class_c", api::DeviceProfile { supports_class_c: true, ..usual() }),
        ("measurements", api::DeviceProfile { measurements: [("t".into(), Default::default())].into(), ..usual() }),
        ("allow_roaming", api::DeviceProfile { allow_roaming: true, ..usual() }),
        ("is_relay", api::DeviceProfile { is_relay: true, ..usual() }),
        ("is_relay_ed", api::DeviceProfile { is_relay_ed: true, ..usual() }),
        ("rx1_delay", api::DeviceProfile { rx1_delay: 16, ..usual() }),
        ("app_layer_params", api::DeviceProfile { app_layer_params: Some(app), ..usual() }),
        ("supported_uplink_data_rates", api::DeviceProfile { supported_uplink_data_rates: vec![0], ..usual() }),
        ("abp_rx1_delay", api::DeviceProfile { abp_rx1_delay: 16, ..usual() }),
        ("abp_rx1_dr_offset", api::DeviceProfile { abp_rx1_dr_offset: 6, ..usual() }),
        ("abp_rx2_dr", api::DeviceProfile { abp_rx2_dr: 3, ..usual() }),
        ("abp_rx2_dr", api::DeviceProfile { region: us915, abp_rx2_dr: 0, abp_rx2_freq: 923_300_000, ..usual() }),
        ("abp_rx2_freq", api::DeviceProfile { abp_rx2_freq: 8_695_250, ..usual() }),
    ] {
        assert_eq!(refused_field(server.profile(bad).await), field);
    }
    let good = api::DeviceProfile {
        region: us915,
        region_config_id: "US915_1".into(),
        abp_rx2_freq: 923_300_000,
        abp_rx2_dr: 8,
        rx1_delay: 15,
        device_status_req_interval: 24,
        ..usual()
    };
    let id = server.profile(good).await.unwrap();
    let get = server.ask(api::GetDeviceProfileRequest { id });
    let found = server.profiles().await.get(get).await.unwrap().into_inner().device_profile.unwrap();
    assert_eq!((found.region_config_id.as_str(), found.abp_rx2_dr, found.rx1_delay), ("us915_1", 8, 15));
    assert_eq!(found.device_status_req_interval, 24);
}

#[tokio::test]
async fn tenants_applications_and_users_refuse_what_they_cannot_keep() {
    let server = Server::start().await;
    let tenant = |tenant| server.ask(api::CreateTenantRequest { tenant: Some(tenant) });
    let named = || api::Tenant { name: "t".into(), ..Default::default() };
    let mut tenants = server.tenants().await;
    for (field, bad) in [
        ("name", api::Tenant::default()),
        ("private_gateways_up", api::Tenant { private_gateways_up: true, ..named() }),
        ("dev_addr_prefixes", api::Tenant { dev_addr_prefixes: vec!["01000000/8".into()], ..named() }),
        ("name", api::Tenant { name: "x".repeat(1000), ..named() }),
        ("tags", api::Tenant { tags: (0..200).map(|n| (n.to_string(), String::new())).collect(), ..named() }),
    ] {
        assert_eq!(refused_field(tenants.create(tenant(bad)).await), field);
    }
    let application_id = server.application("app").await;
    let mut applications = server.applications().await;
    let http = |url: &str, header: &str| {
        server.ask(api::CreateHttpIntegrationRequest {
            integration: Some(api::HttpIntegration {
                application_id: application_id.clone(),
                event_endpoint_url: url.into(),
                headers: [(header.to_owned(), "1".to_owned())].into(),
                ..Default::default()
            }),
        })
    };
    for url in ["", "localhost:9000", "ftp://localhost/", "http://a/,b"] {
        let answer = applications.create_http_integration(http(url, "X-A")).await;
        assert_eq!(refused_field(answer), "event_endpoint_url", "{url}");
    }
    let answer = applications.create_http_integration(http("http://localhost/", "bad header")).await;
    assert_eq!(refused_field(answer), "headers");
    applications.create_http_integration(http("http://localhost/", "X-A")).await.unwrap();
    let again = applications.create_http_integration(http("http://localhost/", "X-A")).await;
    assert_eq!(code(again), Code::AlreadyExists);
    let delete = || server.ask(api::DeleteHttpIntegrationRequest { application_id: application_id.clone() });
    applications.delete_http_integration(delete()).await.unwrap();
    assert_eq!(code(applications.delete_http_integration(delete()).await), Code::NotFound);

    let user = api::User { email: "no address".into(), ..Default::default() };
    let request = api::CreateUserRequest { user: Some(user), password: "p".into(), tenants: Vec::new() };
    assert_eq!(refused_field(server.users().await.create(server.ask(request)).await), "email");
}

#[tokio::test]
async fn what_is_not_served_says_so_by_name() {
    let server = Server::start().await;
    let mut devices = server.devices().await;
    let status = devices.get_metrics(server.ask(api::GetDeviceMetricsRequest::default())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("get_metrics"), "{status:?}");
    let mut internal = server.internal().await;
    let stream = internal.stream_device_events(server.ask(api::StreamDeviceEventsRequest::default())).await;
    assert_eq!(code(stream), Code::Unimplemented);
    let channel = tonic::transport::Channel::from_shared(server.url.clone()).unwrap().connect().await.unwrap();
    let mut multicast = api::multicast_group_service_client::MulticastGroupServiceClient::new(channel);
    let status = multicast.list(server.ask(api::ListMulticastGroupsRequest::default())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("api.MulticastGroupService/List"), "{status:?}");
}

#[tokio::test]
async fn the_networks_regions_are_told() {
    let server = Server::start().await;
    let mut internal = server.internal().await;
    let regions = internal.list_regions(server.ask(())).await.unwrap().into_inner().regions;
    let ids: Vec<_> = regions.iter().map(|r| (r.id.as_str(), r.region())).collect();
    assert_eq!(ids, [("eu868", common::Region::Eu868), ("us915_1", common::Region::Us915)]);
    let request = api::GetRegionRequest { id: "us915_1".into() };
    let region = internal.get_region(server.ask(request)).await.unwrap().into_inner();
    assert_eq!((region.uplink_channels.len(), region.rx2_frequency, region.rx2_dr), (9, 923_300_000, 8));
    let unknown = internal.get_region(server.ask(api::GetRegionRequest { id: "us915_0".into() })).await;
    assert_eq!(code(unknown), Code::NotFound);
    assert_eq!(internal.get_version(server.ask(())).await.unwrap().into_inner().version, "0.1.0-test");
}
