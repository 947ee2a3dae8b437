//! How much a tenant may have.

use limpet_worker_core::model::*;

use super::{Bench, race, samples::House};
use limpet_store::{List, Result, StoreError};

/// More than this want one of the last places at once.
const AT_ONCE: u64 = 8;

fn of(tenant: &Tenant) -> List {
    List { tenant: Some(tenant.id), ..List::default() }
}

/// How many were made; all others were refused for the tenant's limit.
fn made(answers: &[Result<()>]) -> u32 {
    for answer in answers {
        assert!(matches!(answer, Ok(()) | Err(StoreError::Exhausted(_))), "{answer:?}");
    }
    answers.iter().filter(|answer| answer.is_ok()).count() as u32
}

pub(super) async fn a_tenant_has_no_more_gateways_than_it_may(bench: Bench) -> Result<()> {
    let (store, new) = (bench.store.clone(), bench.new.clone());
    let tenant = Tenant { max_gateway_count: 3, ..new.tenant() };
    store.create_tenant(&tenant).await?;
    let answers = race(AT_ONCE, |_| {
        let (store, gateway) = (store.clone(), new.gateway(tenant.id));
        async move { store.create_gateway(&gateway).await }
    });
    let made = made(&answers.await);
    assert_eq!(store.gateways(&of(&tenant)).await?.total, made);
    assert!(made <= 3, "{made}");
    // One after the other the rest is filled, and no more.
    for _ in made..3 {
        store.create_gateway(&new.gateway(tenant.id)).await?;
    }
    let one_more = new.gateway(tenant.id);
    let refused = store.create_gateway(&one_more).await;
    assert!(matches!(refused, Err(StoreError::Exhausted(_))), "{refused:?}");
    assert_eq!((store.gateway(one_more.eui).await?, store.gateways(&of(&tenant)).await?.total), (None, 3));
    // What goes makes room; and no limit is none.
    let first = store.gateways(&List { limit: 1, ..of(&tenant) }).await?.items.remove(0).0;
    store.delete_gateway(first.eui).await?;
    store.create_gateway(&one_more).await?;
    store.update_tenant(&Tenant { max_gateway_count: 0, ..tenant.clone() }).await?;
    store.create_gateway(&new.gateway(tenant.id)).await
}

pub(super) async fn a_tenant_has_no_more_devices_than_it_may(bench: Bench) -> Result<()> {
    let (store, new) = (bench.store.clone(), bench.new.clone());
    let house = House::build(&*store, &new).await?;
    let tenant = Tenant { max_device_count: 3, ..house.tenant.clone() };
    store.update_tenant(&tenant).await?;
    // In two applications: they count together.
    let other = new.application(tenant.id);
    store.create_application(&other).await?;
    let device = |n: u64| new.device(if n.is_multiple_of(2) { &house.application } else { &other }, &house.profile);
    let answers = race(AT_ONCE, |n| {
        let (store, device) = (store.clone(), device(n));
        async move { store.create_device(&device).await }
    });
    let made = made(&answers.await);
    assert_eq!(store.devices(&of(&tenant)).await?.total, made);
    assert!(made <= 3, "{made}");
    for n in made..3 {
        store.create_device(&device(n.into())).await?;
    }
    let refused = store.create_device(&device(0)).await;
    assert!(matches!(refused, Err(StoreError::Exhausted(_))), "{refused:?}");
    assert_eq!(store.devices(&of(&tenant)).await?.total, 3);
    // Another tenant's do not count.
    House::build(&*store, &new).await?.device(&*store, &new).await.map(drop)
}
