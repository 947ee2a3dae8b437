use std::time::Duration;

use limpet_shared::{Eui64, UnixMicros};
use limpet_worker_core::model::*;

use super::{
    Bench, assert_exists, assert_missing, broken_off, race,
    samples::{House, NOON},
};
use limpet_store::{Commit, Freshness, List, Result, Store, StoreError};

pub(super) async fn tenants_come_and_go(Bench { store, new }: Bench) -> Result<()> {
    let mut tenant = new.tenant();
    assert_missing(store.update_tenant(&tenant).await);
    assert_missing(store.delete_tenant(tenant.id).await);
    assert_eq!(store.tenant(tenant.id).await?, None);
    store.create_tenant(&tenant).await?;
    assert_eq!(store.tenant(tenant.id).await?.as_ref(), Some(&tenant));
    tenant.name = "another name".into();
    tenant.tags.clear();
    store.update_tenant(&tenant).await?;
    assert_eq!(store.tenant(tenant.id).await?.as_ref(), Some(&tenant));
    store.delete_tenant(tenant.id).await?;
    assert_eq!(store.tenant(tenant.id).await?, None);
    assert_missing(store.delete_tenant(tenant.id).await);
    Ok(())
}

pub(super) async fn an_email_is_taken_once(Bench { store, new }: Bench) -> Result<()> {
    let word = new.word();
    let named = |email: String| User { email, ..new.user() };
    let mut user = named(format!("Ärzte.{word}@Example.org"));
    store.create_user(&user).await?;
    assert_exists(store.create_user(&named(format!("äRZTE.{word}@example.ORG"))).await);
    assert_exists(store.create_user(&User { email: new.word(), ..user.clone() }).await);
    assert_eq!(store.user_by_email(&format!("ärzte.{word}@EXAMPLE.org")).await?.as_ref(), Some(&user));
    let mut other = named(new.word());
    store.create_user(&other).await?;
    let was = other.clone();
    other.email = user.email.to_uppercase();
    assert_exists(store.update_user(&was, &other).await);
    assert!(store.user_by_email(&was.email).await?.is_some(), "a refused update changes nothing");
    let before = user.clone();
    user.email = user.email.to_lowercase();
    user.note = "changed".into();
    assert!(store.update_user(&before, &user).await?);
    // Who has read it before that, and changes something else, is told so.
    let stale = User { is_admin: !before.is_admin, email: new.word(), ..before.clone() };
    assert!(!store.update_user(&before, &stale).await?);
    assert_eq!(store.user_by_email(&stale.email).await?, None, "its address is as free as before");
    assert_eq!(store.user(user.id).await?.as_ref(), Some(&user));
    store.delete_user(user.id).await?;
    assert_eq!(store.user_by_email(&user.email).await?, None);
    assert!(store.update_user(&was, &other).await?);
    assert_missing(store.update_user(&user, &user).await);
    assert_missing(store.delete_user(user.id).await);
    // Two give it the same address at once, and something else each: one of them does, and it is found there.
    let email = new.word();
    let [one, two] = ["one", "two"].map(|note| User { email: email.clone(), note: note.into(), ..other.clone() });
    let both = futures_util::future::join(store.update_user(&other, &one), store.update_user(&other, &two)).await;
    assert_ne!(both.0?, both.1?);
    assert_eq!(store.user_by_email(&email).await?.map(|user| user.id), Some(other.id));
    Ok(())
}

/// Of those who make a user at once none is told so wrongly: two passwords for one log-in would be told, and one hold.
pub(super) async fn a_user_is_made_once(Bench { store, new }: Bench) -> Result<()> {
    let email = new.user().email;
    // Often, since it takes three of them that meet in the midst of it.
    for n in 0..12 {
        let (one_id, id) = (n % 4 == 0, new.uuid());
        let email = format!("{n}.{email}");
        let users: Vec<User> = (0..6)
            .map(|n| User {
                id: if one_id { id } else { new.uuid() },
                password_hash: format!("hash {n}"),
                email: email.clone(),
                ..new.user()
            })
            .collect();
        let made = race(6, |n| {
            let (store, user) = (store.clone(), users[n as usize].clone());
            async move { store.create_user(&user).await }
        })
        .await;
        let told: Vec<&User> = users.iter().zip(&made).filter(|(_, made)| made.is_ok()).map(|(user, _)| user).collect();
        assert!(told.len() <= 1, "{told:?}");
        assert!(!one_id || told.len() == 1, "who uses one identity finishes what another began: {made:?}");
        assert_eq!(store.user_by_email(&email).await?.as_ref(), told.first().copied());
        let list = List { limit: 10, search: email, ..List::default() };
        assert_eq!(store.users(&list).await?.total as usize, told.len(), "nobody else is there");
    }
    Ok(())
}

pub(super) async fn a_parent_must_exist(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let nobody = new.uuid();
    assert_missing(store.create_application(&new.application(nobody)).await);
    assert_missing(store.create_device_profile(&new.profile(nobody)).await);
    assert_missing(store.create_gateway(&new.gateway(nobody)).await);
    assert_missing(store.create_api_key(&new.api_key(Some(nobody))).await);
    let (house, other) = (House::build(store, &new).await?, House::build(store, &new).await?);
    let device = house.device(store, &new).await?;
    let unknown = [
        Device { application_id: nobody, ..new.device(&house.application, &house.profile) },
        Device { device_profile_id: nobody, ..new.device(&house.application, &house.profile) },
        new.device(&house.application, &other.profile),
    ];
    for stranger in unknown {
        assert_missing(store.create_device(&stranger).await);
        assert_eq!(store.device(stranger.dev_eui).await?, None);
        let update = Device { dev_eui: device.dev_eui, ..stranger };
        assert_missing(store.update_device(&update).await);
    }
    assert_eq!(store.device(device.dev_eui).await?.map(|(device, _)| device), Some(device));
    Ok(())
}

pub(super) async fn identities_are_taken_once(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let house = House::build(store, &new).await?;
    let device = house.device(store, &new).await?;
    let (gateway, key) = (new.gateway(house.tenant.id), new.api_key(Some(house.tenant.id)));
    store.create_gateway(&gateway).await?;
    store.create_api_key(&key).await?;
    assert_exists(store.create_tenant(&house.tenant).await);
    assert_exists(store.create_application(&house.application).await);
    assert_exists(store.create_device_profile(&house.profile).await);
    assert_exists(store.create_device(&Device { name: "x".into(), ..device.clone() }).await);
    assert_exists(store.create_gateway(&gateway).await);
    assert_exists(store.create_api_key(&key).await);
    assert_eq!(store.device(device.dev_eui).await?, Some((device, DeviceSeen::default())));
    assert_eq!(store.gateway(gateway.eui).await?, Some((gateway, GatewaySeen::default())));
    assert_eq!(store.api_key(key.id).await?, Some(key.clone()));
    assert_eq!(store.application(house.application.id).await?, Some(house.application));
    assert_eq!(store.device_profile(house.profile.id).await?, Some(house.profile));
    store.delete_api_key(key.id).await?;
    assert_missing(store.delete_api_key(key.id).await);
    Ok(())
}

pub(super) async fn a_deleted_tenant_takes_everything_along(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let (house, other) = (House::build(store, &new).await?, House::build(store, &new).await?);
    let device = house.device(store, &new).await?;
    let (gateway, key) = (new.gateway(house.tenant.id), new.api_key(Some(house.tenant.id)));
    let (kept_gateway, kept_key) = (new.gateway(other.tenant.id), new.api_key(None));
    for (gateway, key) in [(&gateway, &key), (&kept_gateway, &kept_key)] {
        store.create_gateway(gateway).await?;
        store.create_api_key(key).await?;
    }
    let version = store.gateway_set_version().await?;
    store.delete_tenant(house.tenant.id).await?;
    assert_eq!(store.application(house.application.id).await?, None);
    assert_eq!(store.device_profile(house.profile.id).await?, None);
    assert_eq!(store.device(device.dev_eui).await?, None);
    assert_eq!(store.gateway(gateway.eui).await?, None);
    assert_eq!(store.api_key(key.id).await?, None);
    assert!(store.gateway_set_version().await? > version);
    assert!(store.gateway(kept_gateway.eui).await?.is_some() && store.api_key(kept_key.id).await?.is_some());
    assert!(store.application(other.application.id).await?.is_some());
    Ok(())
}

pub(super) async fn a_deleted_application_takes_its_devices_along(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let house = House::build(store, &new).await?;
    let other = new.application(house.tenant.id);
    store.create_application(&other).await?;
    let (device, kept) = (house.device(store, &new).await?, new.device(&other, &house.profile));
    store.create_device(&kept).await?;
    let session = new.session(SessionKey { dev_eui: device.dev_eui, ..new.session_key() });
    store.create_session(&session).await?;
    store.delete_application(house.application.id).await?;
    assert_missing(store.delete_application(house.application.id).await);
    assert_missing(store.update_application(&house.application).await);
    assert_eq!(store.device(device.dev_eui).await?, None);
    assert_eq!(store.session(&session.key, Freshness::Serial).await?, None);
    assert!(store.device(kept.dev_eui).await?.is_some());
    Ok(())
}

/// A session, a join and a queue item of a device.
async fn live_a_little(store: &dyn Store, new: &super::Samples, dev_eui: limpet_shared::Eui64) -> Result<Session> {
    let join = new.join(dev_eui, 1);
    let state = DeviceState { rev: 1, next_join_nonce: 2, ..DeviceState::new(dev_eui) };
    assert_eq!(store.commit_join(&state, Some(&join)).await?, Commit::Applied);
    store.create_session(&join.session).await?;
    store.mark_out(&join.session.key, 1, false).await?;
    store.enqueue(new.item(dev_eui)).await?;
    Ok(join.session)
}

/// All that is left of the state are the JoinNonces below this one.
async fn assert_ended(store: &dyn Store, dev_eui: Eui64, next_join_nonce: u32) -> Result<()> {
    let state = store.device_state(dev_eui, Freshness::Serial).await?;
    assert_eq!(state, DeviceState { rev: state.rev, next_join_nonce, ..DeviceState::new(dev_eui) });
    Ok(())
}

/// Three times, alone and with its application: under one AppKey no JoinNonce comes twice, nor under one session key an FCntDown.
pub(super) async fn a_device_that_is_added_again_goes_on_counting(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let house = House::build(store, &new).await?;
    let device = new.device(&house.application, &house.profile);
    for round in 0..3 {
        if round == 1 {
            store.delete_application(house.application.id).await?;
            store.create_application(&house.application).await?;
        } else if round == 2 {
            store.delete_device(device.dev_eui).await?;
        }
        store.create_device(&device).await?;
        let state = store.device_state(device.dev_eui, Freshness::Serial).await?;
        assert_eq!(state.next_join_nonce, 1 + 7 * round, "round {round}");
        assert_eq!((state.current, state.previous, state.highest_dev_nonce), (None, None, None), "round {round}");
        // The same DevNonce again: the device has been reset.
        let join = new.join(device.dev_eui, 5);
        let next = DeviceState {
            rev: state.rev + 1,
            next_join_nonce: state.next_join_nonce + 7,
            highest_dev_nonce: Some(5),
            ..state.clone()
        };
        assert_eq!(store.commit_join(&next, Some(&join)).await?, Commit::Applied, "round {round}");
        store.create_session(&join.session).await?;
    }
    // The one before had no ABP session, the next one has.
    let mut abp = new.session(SessionKey { dev_eui: device.dev_eui, ..new.session_key() });
    (abp.joined, abp.slot.number, abp.next_fcnt_down) = (false, 3, 70_000);
    store.create_session(&abp).await?;
    store.delete_device(device.dev_eui).await?;
    store.create_device(&device).await?;
    let state = store.device_state(device.dev_eui, Freshness::Serial).await?;
    assert!(state.unused_fcnt_down(&abp.keys) >= 70_000, "{state:?}");
    assert_eq!(store.session(&abp.key, Freshness::Serial).await?, None);
    Ok(())
}

pub(super) async fn a_deleted_device_leaves_nothing(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let house = House::build(store, &new).await?;
    let (device, kept) = (house.device(store, &new).await?, house.device(store, &new).await?);
    let session = live_a_little(store, &new, device.dev_eui).await?;
    let kept_session = live_a_little(store, &new, kept.dev_eui).await?;
    store.delete_device(device.dev_eui).await?;
    assert_missing(store.delete_device(device.dev_eui).await);
    assert_missing(store.update_device(&device).await);
    assert_missing(store.set_app_key(device.dev_eui, None).await);
    assert_eq!(store.session(&session.key, Freshness::Serial).await?, None);
    assert_ended(store, device.dev_eui, 2).await?;
    assert_eq!(store.join_row(device.dev_eui, 1, Freshness::Serial).await?, None);
    assert_eq!(store.queue(device.dev_eui, 0, 9).await?, []);
    store.create_session(&session).await?;
    let marks = store.session(&session.key, Freshness::Serial).await?.map(|row| row.marks);
    assert_eq!(marks, Some(Marks::default()), "no mark is left for a session of the same identity");
    assert!(store.session(&kept_session.key, Freshness::Serial).await?.is_some());
    assert_eq!(store.queue(kept.dev_eui, 0, 9).await?.len(), 1);
    assert!(store.join_row(kept.dev_eui, 1, Freshness::Serial).await?.is_some());
    Ok(())
}

/// Whoever deletes may die at any step, and somebody else's device may come under the same DevEUI.
pub(super) async fn what_a_broken_deletion_leaves_is_nobodys(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let (house, next) = (House::build(store, &new).await?, House::build(store, &new).await?);
    for step in 0.. {
        let device = house.device(store, &new).await?;
        let session = live_a_little(store, &new, device.dev_eui).await?;
        let went = broken_off(store.delete_device(device.dev_eui), step).await;
        // The owner may try again, or not; a device that is still there is deleted by that.
        if went.is_none() && (step % 2 == 0 || store.device(device.dev_eui).await?.is_some()) {
            let again = store.delete_device(device.dev_eui).await;
            assert!(matches!(again, Ok(()) | Err(StoreError::NotFound(_))), "step {step}: {again:?}");
        }
        let theirs = Device { dev_eui: device.dev_eui, ..new.device(&next.application, &next.profile) };
        store.create_device(&theirs).await?;
        let left = store.session(&session.key, Freshness::Serial).await?;
        assert_eq!(left, None, "step {step}: the session of the device before");
        assert_ended(store, device.dev_eui, 2).await?;
        assert_eq!(store.join_row(device.dev_eui, 1, Freshness::Serial).await?, None, "step {step}");
        assert_eq!(store.queue(device.dev_eui, 0, 9).await?, [], "step {step}: the queue of the device before");
        let application = Some(house.application.id);
        let listed = store.devices(&List { limit: 9, application, ..List::default() }).await?;
        assert_eq!((listed.total, listed.items), (0, Vec::new()), "step {step}: another's device is listed");
        if let Some(went) = went {
            went?;
            break;
        }
    }
    let theirs = List { application: Some(next.application.id), ..List::default() };
    let all = store.devices(&theirs).await?.total;
    store.delete_application(house.application.id).await?;
    assert_eq!(store.devices(&theirs).await?.total, all);
    store.delete_device_profile(house.profile.id).await
}

pub(super) async fn a_used_profile_stays(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let house = House::build(store, &new).await?;
    let device = house.device(store, &new).await?;
    let answer = store.delete_device_profile(house.profile.id).await;
    let Err(StoreError::AlreadyExists(what)) = answer else { return answer };
    assert!(what.contains(&device.dev_eui.to_string()), "it names the device: {what}");
    assert!(store.device_profile(house.profile.id).await?.is_some());
    store.delete_device(device.dev_eui).await?;
    store.delete_device_profile(house.profile.id).await?;
    assert_missing(store.delete_device_profile(house.profile.id).await);
    assert_missing(store.update_device_profile(&house.profile).await);
    Ok(())
}

pub(super) async fn an_update_keeps_the_app_key(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let house = House::build(store, &new).await?;
    let mut device = house.device(store, &new).await?;
    let without_key = Device { app_key: None, name: "new name".into(), is_disabled: true, ..device.clone() };
    store.update_device(&without_key).await?;
    let now = store.device(device.dev_eui).await?.map(|(device, _)| device);
    assert_eq!(now, Some(Device { app_key: device.app_key, ..without_key }));
    device.app_key = Some(new.aes_key());
    store.set_app_key(device.dev_eui, device.app_key).await?;
    assert_eq!(store.device(device.dev_eui).await?.and_then(|(device, _)| device.app_key), device.app_key);
    store.set_app_key(device.dev_eui, None).await?;
    assert_eq!(store.device(device.dev_eui).await?.and_then(|(device, _)| device.app_key), None);
    Ok(())
}

pub(super) async fn an_update_never_moves_a_thing_to_another_tenant(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let (house, other) = (House::build(store, &new).await?, new.tenant());
    store.create_tenant(&other).await?;
    let gateway = new.gateway(house.tenant.id);
    store.create_gateway(&gateway).await?;
    let tenant_id = other.id;
    assert_missing(store.update_application(&Application { tenant_id, ..house.application.clone() }).await);
    assert_missing(store.update_device_profile(&DeviceProfile { tenant_id, ..house.profile.clone() }).await);
    assert_missing(store.update_gateway(&Gateway { tenant_id, ..gateway.clone() }).await);
    let renamed = Application { name: "renamed".into(), http: None, ..house.application };
    store.update_application(&renamed).await?;
    assert_eq!(store.application(renamed.id).await?, Some(renamed));
    let renamed = DeviceProfile { name: "renamed".into(), ..house.profile };
    store.update_device_profile(&renamed).await?;
    assert_eq!(store.device_profile(renamed.id).await?, Some(renamed));
    let renamed = Gateway { name: "renamed".into(), location: None, ..gateway };
    store.update_gateway(&renamed).await?;
    assert_eq!(store.gateway(renamed.eui).await?.map(|(gateway, _)| gateway), Some(renamed));
    Ok(())
}

pub(super) async fn a_device_comes_with_its_context(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let house = House::build(store, &new).await?;
    let device = house.device(store, &new).await?;
    let dev_eui = device.dev_eui;
    let context = DeviceContext {
        device,
        profile: house.profile,
        application: house.application,
        tenant_name: house.tenant.name,
    };
    assert_eq!(store.device_context(dev_eui).await?, Some(context));
    assert_eq!(store.device_context(new.eui()).await?, None);
    Ok(())
}

pub(super) async fn the_first_value_of_a_setting_holds(Bench { store, new }: Bench) -> Result<()> {
    let name = new.word();
    assert_eq!(store.setting(&name).await?, None);
    let answers = race(10, |n| {
        let (store, name) = (store.clone(), name.clone());
        async move { store.init_setting(&name, &[n as u8, 0, 255]).await }
    })
    .await;
    let Some(holds) = store.setting(&name).await? else { return Err(StoreError::NotFound(name)) };
    assert_eq!(answers, vec![Ok(holds.clone()); 10], "everyone learns the same value");
    assert_eq!(store.init_setting(&name, b"later").await?, holds);
    Ok(())
}

pub(super) async fn the_gateway_sets_version_is_raised_and_never_lowered(Bench { store, new }: Bench) -> Result<()> {
    let version = store.gateway_set_version().await? + 1_000;
    store.raise_gateway_set_version(version).await?;
    store.raise_gateway_set_version(1).await?;
    assert!(store.gateway_set_version().await? >= version);
    let tenant = new.tenant();
    store.create_tenant(&tenant).await?;
    store.create_gateway(&new.gateway(tenant.id)).await?;
    assert!(store.gateway_set_version().await? > version, "and it counts on from there");
    Ok(())
}

pub(super) async fn the_gateway_set_has_a_version(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let house = House::build(store, &new).await?;
    let mut gateway = new.gateway(house.tenant.id);
    let (mut version, set) = store.gateway_set().await?;
    assert!(version >= 1 && !set.contains(&gateway.eui));
    store.create_gateway(&gateway).await?;
    let mut grown = async |present: bool| -> Result<()> {
        let (now, set) = store.gateway_set().await?;
        assert!(now > version, "{now} is not above {version}");
        assert_eq!(set.contains(&gateway.eui), present);
        assert!(set.is_sorted());
        version = store.gateway_set_version().await?;
        assert!(version >= now);
        Ok(())
    };
    grown(true).await?;
    gateway.name = "renamed".into();
    store.update_gateway(&gateway).await?;
    grown(true).await?;
    store.delete_gateway(gateway.eui).await?;
    grown(false).await?;
    assert_missing(store.delete_gateway(gateway.eui).await);
    assert_missing(store.update_gateway(&gateway).await);
    Ok(())
}

pub(super) async fn notes_of_devices_and_gateways_are_kept(Bench { store, new }: Bench) -> Result<()> {
    let store: &dyn Store = &*store;
    let house = House::build(store, &new).await?;
    let device = house.device(store, &new).await?;
    let gateway = new.gateway(house.tenant.id);
    store.create_gateway(&gateway).await?;
    let later = Some(UnixMicros(NOON.0 + 1));
    let battery = DeviceSeen { last_seen_at: Some(NOON), battery: Some(200), margin: Some(-3), data_rate: Some(1) };
    let uplink = DeviceSeen { last_seen_at: later, data_rate: Some(5), ..DeviceSeen::default() };
    store.note_device(device.dev_eui, uplink).await?;
    store.note_device(device.dev_eui, battery.clone()).await?;
    store.note_device(new.eui(), battery.clone()).await?;
    let location = Location { latitude: 1.5, ..Location::default() };
    let stat = GatewaySeen { last_seen_at: Some(NOON), address: None, location: Some(location) };
    let pull = GatewaySeen { last_seen_at: later, address: Some("192.0.2.1:4000".into()), location: None };
    store.note_gateway(gateway.eui, stat).await?;
    store.note_gateway(gateway.eui, pull.clone()).await?;
    store.note_gateway(new.eui(), pull.clone()).await?;

    let want_device = DeviceSeen { last_seen_at: later, data_rate: Some(5), ..battery };
    let want_gateway = GatewaySeen { location: Some(location), ..pull };
    // Nothing waits for a note, so a store may write it later; that it never comes is what fails, by the bound.
    let list = List { limit: 1, application: Some(house.application.id), ..List::default() };
    for _ in 0..500 {
        let device_seen = store.devices(&list).await?.items.pop().map(|(_, seen)| seen);
        let gateway_seen = store.gateway(gateway.eui).await?.map(|(_, seen)| seen);
        if device_seen == Some(want_device.clone()) && gateway_seen == Some(want_gateway.clone()) {
            assert_eq!(store.device(device.dev_eui).await?, Some((device, want_device)));
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(StoreError::NotFound("what was noted: the latest, with what it left out".into()))
}

pub(super) async fn what_has_changed_of_the_gateway_set_is_told_or_said_to_be_unknown(bench: Bench) -> Result<()> {
    let (store, new): (&dyn Store, _) = (&*bench.store, &bench.new);
    let house = House::build(store, new).await?;
    let mut gateways = [new.gateway(house.tenant.id), new.gateway(house.tenant.id), new.gateway(house.tenant.id)];
    gateways[0].tags.insert("color".into(), "red".into());
    let first = store.gateway_set_version().await?;
    let nothing = store.gateway_changes(first).await?;
    assert_eq!((nothing.version, nothing.changed), (first, Some(Vec::new())));
    for gateway in &gateways {
        store.create_gateway(gateway).await?;
    }
    let made = store.gateway_changes(first).await?;
    let [a, b, c] = [gateways[0].eui, gateways[1].eui, gateways[2].eui];
    assert_eq!(made.version, first + 3);
    assert_eq!(made.changed, Some(vec![(first + 1, a), (first + 2, b), (first + 3, c)]));

    gateways[0].tags.insert("color".into(), "blue".into());
    store.update_gateway(&gateways[0]).await?;
    store.delete_gateway(b).await?;
    let changed = store.gateway_changes(made.version).await?;
    assert_eq!(changed.changed, Some(vec![(first + 4, a), (first + 5, b)]));
    let (version, tags) = store.gateway_tags("color").await?;
    assert_eq!(version, first + 5);
    let of = |eui| tags.iter().find(|(known, _)| *known == eui).map(|(_, tag)| tag.as_deref());
    assert_eq!((of(a), of(b), of(c)), (Some(Some("blue")), None, Some(None)));

    // A number that is to come: of a store that was put back.
    assert_eq!(store.gateway_changes(version + 1).await?.changed, None);
    store.raise_gateway_set_version(version + 10).await?;
    let raised = store.gateway_changes(version).await?;
    assert_eq!((raised.version, raised.changed), (version + 10, None), "the numbers between were of another history");
    store.delete_gateway(c).await?;
    assert_eq!(store.gateway_changes(version).await?.changed, None);
    assert_eq!(store.gateway_changes(version + 10).await?.changed, Some(vec![(version + 11, c)]));
    Ok(())
}

pub(super) async fn many_who_change_gateways_at_once_leave_no_hole(bench: Bench) -> Result<()> {
    let (store, new): (&dyn Store, _) = (&*bench.store, &bench.new);
    let house = House::build(store, new).await?;
    let first = store.gateway_set_version().await?;
    let gateways: Vec<Gateway> = (0..12).map(|_| new.gateway(house.tenant.id)).collect();
    let mut euis: Vec<Eui64> = gateways.iter().map(|gateway| gateway.eui).collect();
    let made = race(12, |n| {
        let (store, gateway) = (bench.store.clone(), gateways[n as usize].clone());
        async move { store.create_gateway(&gateway).await }
    });
    made.await.into_iter().collect::<Result<Vec<()>>>()?;
    let changes = store.gateway_changes(first).await?;
    let mut changed: Vec<Eui64> = changes.changed.unwrap_or_default().into_iter().map(|(_, eui)| eui).collect();
    changed.sort_unstable();
    euis.sort_unstable();
    assert_eq!((changes.version, changed), (first + 12, euis));
    Ok(())
}
