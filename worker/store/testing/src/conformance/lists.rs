use limpet_shared::{Eui64, UnixMicros};
use limpet_worker_core::model::*;
use uuid::Uuid;

use super::{
    Bench, broken_off,
    samples::{House, NOON},
};
use limpet_store::{List, Page, Result, Store, StoreError, Totals};

fn named<T>(page: Page<T>, name: impl Fn(&T) -> &str) -> (u32, Vec<String>) {
    (page.total, page.items.iter().map(|item| name(item).to_owned()).collect())
}

pub(super) async fn names_may_repeat_and_order_is_by_name(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let word = new.word();
    let mut made: Vec<(String, Uuid)> = Vec::new();
    for suffix in ["b", "a", "b", "B", "ä"] {
        let tenant = Tenant { name: format!("{word}{suffix}"), ..new.tenant() };
        store.create_tenant(&tenant).await?;
        made.push((tenant.name, tenant.id));
    }
    made.sort();
    let page = store.tenants(&List { limit: 10, search: word, ..List::default() }).await?;
    assert_eq!(page.total, 5);
    let listed: Vec<_> = page.items.into_iter().map(|tenant| (tenant.name, tenant.id)).collect();
    assert_eq!(listed, made, "by name, then identity");
    let one = store.tenants(&List { limit: 10, tenant: Some(made[2].1), ..List::default() }).await?;
    assert_eq!(named(one, |tenant| &tenant.name), (1, vec![made[2].0.clone()]));
    Ok(())
}

pub(super) async fn pages_cover_everything_once(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let word = new.word();
    let mut emails = Vec::new();
    for n in 0..7 {
        let user = User { email: format!("{n}.{word}@example.org"), ..new.user() };
        store.create_user(&user).await?;
        emails.push(user.email);
    }
    let list = |limit, offset| List { limit, offset, search: word.to_uppercase(), ..List::default() };
    let mut seen = Vec::new();
    for offset in [0, 3, 6, 9] {
        let (total, names) = named(store.users(&list(3, offset)).await?, |user| &user.email);
        assert_eq!(total, 7);
        seen.extend(names);
    }
    assert_eq!(seen, emails);
    let count = store.users(&list(0, 0)).await?;
    assert_eq!((count.total, count.items.len()), (7, 0), "a limit of 0 counts");
    assert_eq!(store.users(&list(u32::MAX, 6)).await?.items.len(), 1);
    Ok(())
}

pub(super) async fn a_search_ignores_case_and_takes_nothing_literally_special(
    Bench { store, new }: Bench,
) -> Result<()> {
    let store: &dyn Store = &*store;
    let house = House::build(store, &new).await?;
    for name in ["100% Süd_Ost", "100 Sued Ost", "plain 'quoted' \"name\"; --"] {
        store.create_application(&Application { name: name.into(), ..new.application(house.tenant.id) }).await?;
    }
    let find = async |search: &str| -> Result<u32> {
        let list = List { tenant: Some(house.tenant.id), search: search.into(), ..List::default() };
        Ok(store.applications(&list).await?.total)
    };
    let wanted =
        [("", 4), ("100", 2), ("%", 1), ("_", 1), ("SÜD", 1), ("0 s", 1), ("'QUOTED'", 1), ("\\", 0), ("*", 0)];
    for (search, total) in wanted {
        assert_eq!(find(search).await?, total, "search {search:?}");
    }
    Ok(())
}

pub(super) async fn devices_are_listed_by_application_and_profile(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let house = House::build(store, &new).await?;
    let other_application = new.application(house.tenant.id);
    let other_profile = new.profile(house.tenant.id);
    store.create_application(&other_application).await?;
    store.create_device_profile(&other_profile).await?;
    let mine = house.device(store, &new).await?;
    let odd_profile = Device { name: "Zebra".into(), ..new.device(&house.application, &other_profile) };
    let elsewhere = new.device(&other_application, &house.profile);
    store.create_device(&odd_profile).await?;
    store.create_device(&elsewhere).await?;
    let total = async |list: List| -> Result<(u32, Vec<Eui64>)> {
        let page = store.devices(&List { limit: 9, ..list }).await?;
        Ok((page.total, page.items.iter().map(|(device, _)| device.dev_eui).collect()))
    };
    let (application, device_profile) = (Some(house.application.id), Some(house.profile.id));
    let tenant = Some(house.tenant.id);
    let by_name = vec![odd_profile.dev_eui, mine.dev_eui];
    assert_eq!(total(List { application, ..List::default() }).await?, (2, by_name));
    assert_eq!(total(List { application, device_profile, ..List::default() }).await?, (1, vec![mine.dev_eui]));
    assert_eq!(total(List { device_profile, ..List::default() }).await?.0, 2);
    assert_eq!(total(List { tenant, ..List::default() }).await?.0, 3);
    let search = elsewhere.dev_eui.to_string()[2..].to_uppercase();
    assert_eq!(total(List { search: search.clone(), ..List::default() }).await?, (1, vec![elsewhere.dev_eui]));
    assert_eq!(total(List { search, application, ..List::default() }).await?.0, 0);
    assert_eq!(total(List { search: "zebr".into(), application, ..List::default() }).await?.0, 1);
    assert_eq!(total(List { application: Some(new.uuid()), ..List::default() }).await?.0, 0);
    Ok(())
}

pub(super) async fn gateways_are_listed_by_tenant(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let (one, two) = (House::build(store, &new).await?, House::build(store, &new).await?);
    let (a, b, c) = (new.gateway(one.tenant.id), new.gateway(one.tenant.id), new.gateway(two.tenant.id));
    for gateway in [&a, &b, &c] {
        store.create_gateway(gateway).await?;
    }
    let list = List { limit: 9, tenant: Some(one.tenant.id), ..List::default() };
    let page = store.gateways(&list).await?;
    let listed: Vec<_> = page.items.into_iter().map(|(gateway, _)| gateway).collect();
    assert_eq!((page.total, listed), (2, vec![a.clone(), b]));
    let page = store.gateways(&List { search: a.eui.to_string()[1..].to_uppercase(), ..list.clone() }).await?;
    assert_eq!((page.total, page.items[0].0.eui), (1, a.eui));
    assert_eq!(store.gateways(&List { search: c.eui.to_string(), ..list }).await?.total, 0);
    let profiles = List { limit: 9, tenant: Some(two.tenant.id), ..List::default() };
    assert_eq!(store.device_profiles(&profiles).await?, Page { total: 1, items: vec![two.profile] });
    Ok(())
}

/// Whoever creates or deletes a gateway may die at any step, and somebody else's may come under the same EUI.
pub(super) async fn what_breaks_off_shows_nothing_of_anothers(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let (one, two) = (House::build(store, &new).await?, House::build(store, &new).await?);
    let of = |house: &House| List { limit: 99, tenant: Some(house.tenant.id), ..List::default() };
    let mut made = 0;
    for step in 0.. {
        let (created, deleted) = (new.gateway(one.tenant.id), new.gateway(one.tenant.id));
        store.create_gateway(&deleted).await?;
        let creation = broken_off(store.create_gateway(&created), step).await;
        let deletion = broken_off(store.delete_gateway(deleted.eui), step).await;
        for eui in [created.eui, deleted.eui] {
            // What was under way when it broke off may be done at any moment.
            let gone = async || match store.delete_gateway(eui).await {
                Err(StoreError::NotFound(_)) => Ok(()),
                other => other,
            };
            if store.gateway(eui).await?.is_some() {
                gone().await?;
            }
            let theirs = Gateway { eui, ..new.gateway(two.tenant.id) };
            while let Err(StoreError::AlreadyExists(_)) = store.create_gateway(&theirs).await {
                gone().await?;
            }
            made += 1;
        }
        let page = store.gateways(&of(&one)).await?;
        assert_eq!((page.total, page.items), (0, Vec::new()), "step {step}: another's gateway is listed");
        if creation.is_some() && deletion.is_some() {
            break;
        }
    }
    store.delete_tenant(one.tenant.id).await?;
    assert_eq!(store.gateways(&of(&two)).await?.total, made, "and another's went along");
    store.delete_tenant(two.tenant.id).await
}

/// The store may hold what others made, so only what is added is looked at.
pub(super) async fn totals_count_the_whole_network(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let before = store.totals(NOON).await?;
    let house = House::build(store, &new).await?;
    house.device(store, &new).await?;
    house.device(store, &new).await?;
    let gateways = [new.gateway(house.tenant.id), new.gateway(house.tenant.id), new.gateway(house.tenant.id)];
    for gateway in &gateways {
        store.create_gateway(gateway).await?;
    }
    for (gateway, at) in [(&gateways[0], NOON), (&gateways[1], UnixMicros(NOON.0 - 61_000_000))] {
        store.note_gateway(gateway.eui, GatewaySeen { last_seen_at: Some(at), ..GatewaySeen::default() }).await?;
    }
    // Notes are written a moment later.
    for _ in 0..200 {
        if store.totals(NOON).await?.heard == before.heard + 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let after = store.totals(NOON).await?;
    let more = |pick: fn(&Totals) -> u64| pick(&after) - pick(&before);
    assert_eq!((more(|t| t.applications), more(|t| t.devices), more(|t| t.gateways)), (1, 2, 3));
    assert_eq!((more(|t| t.heard), more(|t| t.online)), (2, 1));
    Ok(())
}

pub(super) async fn api_keys_are_listed_by_whom_they_act_for(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let (tenant, other) = (new.tenant(), new.tenant());
    store.create_tenant(&tenant).await?;
    store.create_tenant(&other).await?;
    let (mine, theirs, global) = (new.api_key(Some(tenant.id)), new.api_key(Some(other.id)), new.api_key(None));
    for key in [&mine, &theirs, &global] {
        store.create_api_key(key).await?;
    }
    let of = |tenant| List { limit: u32::MAX, tenant, ..List::default() };
    assert_eq!(store.api_keys(false, &of(Some(tenant.id))).await?, Page { total: 1, items: vec![mine.clone()] });
    let admin = store.api_keys(true, &of(None)).await?.items;
    assert!(admin.contains(&global) && !admin.contains(&mine) && !admin.contains(&theirs));
    assert_eq!(store.api_keys(false, &of(None)).await?, Page { total: 0, items: vec![] });
    Ok(())
}
