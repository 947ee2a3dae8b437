//! The settings of the network and its regions.

use chirpstack_api::api;
use limpet_shared::admin::{RegionChange, RegionSettings, Reply, Request};

use crate::{
    cluster::ctl,
    server::{DEVICE, Server},
};

fn set(id: &str, set: &[(&str, &str)]) -> Request {
    let set = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Request::RegionSet(RegionChange { id: id.into(), set, unset: Vec::new() })
}

async fn told(server: &Server, request: &Request) -> (u16, String) {
    match ctl(server, server.token(), request).await {
        (status, Reply::Done { message } | Reply::Error { message, .. }) => (status, message),
        other => panic!("{other:?}"),
    }
}

async fn shown(server: &Server, id: Option<&str>) -> Vec<RegionSettings> {
    match ctl(server, server.token(), &Request::Regions { id: id.map(Into::into) }).await {
        (200, Reply::Regions { regions }) => regions,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn settings_are_shown_changed_all_or_none_and_taken_back() {
    let server = Server::start().await;
    let ids: Vec<_> = shown(&server, None).await.into_iter().map(|region| (region.id, region.band)).collect();
    let named = |id: &str, band: &str| (id.to_owned(), band.to_owned());
    assert_eq!(ids, [named("network", ""), named("eu868", "EU868"), named("us915_1", "US915")]);

    let (status, message) = told(&server, &set("EU868", &[("rx1_delay", "5"), ("rx2_dr", "0")])).await;
    assert_eq!((status, message.as_str()), (200, "eu868 has rx1_delay=5 (was 1), rx2_dr=0 as before now"));
    let (status, message) = told(&server, &set("eu868", &[("rx1_delay", "6"), ("rx2_dr", "9")])).await;
    assert_eq!(status, 400);
    assert!(message.contains("rx2_dr: \"9\" is not allowed for eu868; allowed is "), "{message}");
    let value = async |name: &str| {
        let settings = shown(&server, Some("eu868")).await.remove(0).settings;
        settings
            .into_iter()
            .find(|setting| setting.name == name)
            .map(|setting| (setting.value, setting.is_set))
            .unwrap()
    };
    assert_eq!(value("rx1_delay").await, ("5".to_owned(), true), "neither of the two was taken");
    let unset = RegionChange { id: "eu868".into(), unset: vec!["rx1_delay".into()], ..RegionChange::default() };
    assert_eq!(told(&server, &Request::RegionSet(unset)).await.0, 200);
    assert_eq!(value("rx1_delay").await, ("1".to_owned(), false));

    for (id, setting, status, why) in [
        ("us915_2", ("rx1_delay", "5"), 404, "the network has eu868, us915_1, and network"),
        ("eu868", ("rx3_delay", "5"), 400, "it has rx1_delay, rx1_dr_offset"),
        ("network", ("net_id", "12345"), 400, "6 hex digits"),
    ] {
        let (got, message) = told(&server, &set(id, &[setting])).await;
        assert_eq!(got, status, "{message}");
        assert!(message.contains(why), "{message}");
    }
    assert_eq!(told(&server, &set("eu868", &[])).await.0, 400);
}

#[tokio::test]
async fn chirpstacks_clients_see_what_is_set() {
    let server = Server::start().await;
    let given = [("rx1_delay", "5"), ("rx1_dr_offset", "2"), ("rx2_dr", "3"), ("extra_channels", "864100000")];
    assert_eq!(told(&server, &set("eu868", &given)).await.0, 200);
    let request = api::GetRegionRequest { id: "eu868".into() };
    let region = server.internal().await.get_region(server.ask(request)).await.unwrap().into_inner();
    let channels: Vec<_> = region.uplink_channels.iter().map(|channel| channel.frequency).collect();
    assert_eq!((region.rx1_delay, region.rx1_dr_offset, region.rx2_dr), (5, 2, 3));
    assert_eq!(channels, [868_100_000, 868_300_000, 868_500_000, 864_100_000]);

    assert_eq!(told(&server, &set("network", &[("net_id", "000013")])).await.0, 200);
    server.device(DEVICE).await;
    let request = api::GetRandomDevAddrRequest { dev_eui: DEVICE.into(), ..Default::default() };
    let address = server.devices().await.get_random_dev_addr(server.ask(request)).await.unwrap().into_inner().dev_addr;
    assert!(address.starts_with("26") || address.starts_with("27"), "{address} is of NetID 000013");
}
