//! Sessions and queues.

use chirpstack_api::api;
use limpet_shared::{DevAddr, Eui64};
use limpet_store::Freshness;
use limpet_worker_core::model::{ItemInFlight, SessionRow};
use tonic::Code;

use crate::server::{DEVICE, KEY, OTHER_KEY, Server, code, refused_field};

const EUI: Eui64 = Eui64(0x0102_0304_0506_0708);

fn activation(dev_addr: &str) -> api::DeviceActivation {
    api::DeviceActivation {
        dev_eui: DEVICE.into(),
        dev_addr: dev_addr.into(),
        app_s_key: KEY.into(),
        nwk_s_enc_key: OTHER_KEY.into(),
        s_nwk_s_int_key: OTHER_KEY.into(),
        f_nwk_s_int_key: OTHER_KEY.into(),
        f_cnt_up: 7,
        n_f_cnt_down: 9,
        ..Default::default()
    }
}

async fn activate(server: &Server, activation: api::DeviceActivation) -> Result<(), tonic::Status> {
    let request = api::ActivateDeviceRequest { device_activation: Some(activation) };
    server.devices().await.activate(server.ask(request)).await.map(|_| ())
}

/// Those of a DevAddr that a device can be in.
async fn sessions(server: &Server, addr: DevAddr) -> Vec<SessionRow> {
    let mut rows = server.store.sessions_by_addr(addr, Freshness::Serial).await.unwrap();
    rows.retain(|row| row.session.over.is_none());
    rows
}

async fn session(server: &Server) -> Option<api::DeviceActivation> {
    let request = api::GetDeviceActivationRequest { dev_eui: DEVICE.into() };
    server.devices().await.get_activation(server.ask(request)).await.unwrap().into_inner().device_activation
}

async fn enqueue(server: &Server, item: api::DeviceQueueItem) -> Result<String, tonic::Status> {
    let request = api::EnqueueDeviceQueueItemRequest { queue_item: Some(item), flush_queue: false };
    Ok(server.devices().await.enqueue(server.ask(request)).await?.into_inner().id)
}

async fn queue(server: &Server) -> Vec<api::DeviceQueueItem> {
    let request = api::GetDeviceQueueItemsRequest { dev_eui: DEVICE.into(), count_only: false };
    let answer = server.devices().await.get_queue(server.ask(request)).await.unwrap().into_inner();
    assert_eq!(answer.total_count as usize, answer.result.len());
    answer.result
}

fn item(data: u8) -> api::DeviceQueueItem {
    api::DeviceQueueItem { dev_eui: DEVICE.into(), f_port: 10, data: vec![data], ..Default::default() }
}

#[tokio::test]
async fn a_device_is_activated_read_activated_anew_and_deactivated() {
    let server = Server::start().await;
    server.device(DEVICE).await;
    assert_eq!(session(&server).await, None);
    activate(&server, activation("01020304")).await.unwrap();
    assert_eq!(session(&server).await, Some(api::DeviceActivation { a_f_cnt_down: 9, ..activation("01020304") }));

    activate(&server, activation("01020305")).await.unwrap();
    assert_eq!(session(&server).await.unwrap().dev_addr, "01020305");
    assert!(sessions(&server, DevAddr(0x0102_0304)).await.is_empty(), "the session before is over");
    let old = server.store.sessions_by_addr(DevAddr(0x0102_0304), Freshness::Serial).await.unwrap();
    assert_eq!(old.len(), 1, "and kept for what was acknowledged in it");
    let new = sessions(&server, DevAddr(0x0102_0305)).await;
    assert_eq!(new.len(), 1);
    assert_eq!((new[0].session.seen.next, new[0].session.next_fcnt_down), (7, 9));
    assert!(!new[0].session.joined);
    assert_eq!(new[0].session.region, "eu868");

    let mut devices = server.devices().await;
    let next = api::GetDeviceNextFCntDownRequest { dev_eui: DEVICE.into() };
    assert_eq!(devices.get_next_f_cnt_down(server.ask(next.clone())).await.unwrap().into_inner().f_cnt_down, 9);
    devices.deactivate(server.ask(api::DeactivateDeviceRequest { dev_eui: DEVICE.into() })).await.unwrap();
    assert_eq!(session(&server).await, None);
    assert!(sessions(&server, DevAddr(0x0102_0305)).await.is_empty());
    assert_eq!(code(devices.get_next_f_cnt_down(server.ask(next)).await), Code::NotFound);
}

/// Each frame of a DevAddr is compared with all its sessions, so one tenant's must not be any number.
#[tokio::test]
async fn a_dev_addr_is_given_to_so_many_devices_and_no_more() {
    let server = Server::start().await;
    let eui = |n: u32| format!("01020304050607{n:02x}");
    let named = |n: u32| api::DeviceActivation { dev_eui: eui(n), ..activation("01020304") };
    for n in 0..66 {
        server.device(&eui(n)).await;
    }
    for n in 0..64 {
        activate(&server, named(n)).await.unwrap();
    }
    let refused = activate(&server, named(64)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("DevAddr 01020304") && refused.message().contains("another"), "{refused}");
    let sessions = async || sessions(&server, DevAddr(0x0102_0304)).await.len();
    assert_eq!(sessions().await, 64);
    for _ in 0..5 {
        activate(&server, named(3)).await.unwrap();
    }
    assert_eq!(sessions().await, 64, "who has it may be activated anew");
    let kept = server.store.sessions_by_addr(DevAddr(0x0102_0304), Freshness::Serial).await.unwrap().len();
    assert_eq!(kept, 64 + 2, "of sessions that are over two are kept");
    let elsewhere = api::DeviceActivation { dev_eui: eui(64), ..activation("01020305") };
    activate(&server, elsewhere).await.unwrap();
    let mut devices = server.devices().await;
    devices.deactivate(server.ask(api::DeactivateDeviceRequest { dev_eui: eui(5) })).await.unwrap();
    activate(&server, named(65)).await.unwrap();
    assert_eq!(sessions().await, 64, "a place that became free is given again");
}

/// Many at once do not get around it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn activations_at_once_fill_no_dev_addr_beyond_its_bound() {
    let server = std::sync::Arc::new(Server::start().await);
    let eui = |n: u32| format!("01020304050607{n:02x}");
    for n in 0..80 {
        server.device(&eui(n)).await;
    }
    let mut racing = tokio::task::JoinSet::new();
    for n in 0..80 {
        let server = server.clone();
        let wanted = api::DeviceActivation { dev_eui: eui(n), ..activation("01020304") };
        racing.spawn(async move { activate(&server, wanted).await });
    }
    let mut given = 0;
    while let Some(done) = racing.join_next().await {
        match done.unwrap() {
            Ok(()) => given += 1,
            Err(refused) => assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}"),
        }
    }
    let sessions = sessions(&server, DevAddr(0x0102_0304)).await;
    assert_eq!(sessions.len(), given, "who was refused has no session");
    assert!(given <= 64, "{given}");
}

/// Whatever the interleaving, the device ends in one session, and no row of another is left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn activations_at_once_leave_one_session() {
    let server = std::sync::Arc::new(Server::start().await);
    server.device(DEVICE).await;
    for round in 0..20 {
        let addr = move |n: u32| DevAddr(0x0102_0000 + round * 16 + n);
        let mut racing = tokio::task::JoinSet::new();
        for n in 0..4 {
            let server = server.clone();
            racing.spawn(async move { activate(&server, activation(&addr(n).to_string())).await });
        }
        while let Some(done) = racing.join_next().await {
            done.unwrap().unwrap();
        }
        let current = session(&server).await.unwrap().dev_addr;
        for n in 0..4 {
            let sessions = sessions(&server, addr(n)).await;
            assert_eq!(sessions.len(), usize::from(current == addr(n).to_string()), "round {round}, {}", addr(n));
        }
    }
}

#[tokio::test]
async fn an_activation_with_wrong_keys_or_of_lorawan_1_1_is_refused() {
    let server = Server::start().await;
    server.device(DEVICE).await;
    let good = activation("01020304");
    for (field, bad) in [
        ("dev_addr", api::DeviceActivation { dev_addr: "0102030".into(), ..good.clone() }),
        ("app_s_key", api::DeviceActivation { app_s_key: "00".into(), ..good.clone() }),
        ("nwk_s_enc_key", api::DeviceActivation { nwk_s_enc_key: String::new(), ..good.clone() }),
        ("s_nwk_s_int_key", api::DeviceActivation { s_nwk_s_int_key: KEY.into(), ..good.clone() }),
        ("f_nwk_s_int_key", api::DeviceActivation { f_nwk_s_int_key: KEY.into(), ..good.clone() }),
        ("a_f_cnt_down", api::DeviceActivation { a_f_cnt_down: 3, ..good.clone() }),
        ("dev_eui", api::DeviceActivation { dev_eui: "xyz".into(), ..good.clone() }),
    ] {
        assert_eq!(refused_field(activate(&server, bad).await), field);
    }
    let unknown = api::DeviceActivation { dev_eui: "ffffffffffffffff".into(), ..good };
    assert_eq!(code(activate(&server, unknown).await), Code::NotFound);
    assert_eq!(session(&server).await, None);
}

#[tokio::test]
async fn the_queue_takes_what_can_be_sent_in_order() {
    let server = Server::start().await;
    server.device(DEVICE).await;
    let first = enqueue(&server, item(1)).await.unwrap();
    let given = "0b7b0f5e-61a5-4f2f-9d0a-5f9a3b2c1d00".to_owned();
    let second =
        enqueue(&server, api::DeviceQueueItem { id: given.clone(), confirmed: true, ..item(2) }).await.unwrap();
    assert_eq!(second, given);
    let again = api::DeviceQueueItem { id: given.clone(), ..item(3) };
    assert_eq!(code(enqueue(&server, again).await), Code::AlreadyExists);
    let ids: Vec<_> = queue(&server).await.into_iter().map(|i| (i.id, i.data, i.confirmed)).collect();
    assert_eq!(ids, [(first, vec![1], false), (given, vec![2], true)]);

    for (field, bad) in [
        ("f_port", api::DeviceQueueItem { f_port: 0, ..item(1) }),
        ("f_port", api::DeviceQueueItem { f_port: 256, ..item(1) }),
        ("data", api::DeviceQueueItem { data: vec![0; 243], ..item(1) }),
        ("is_encrypted", api::DeviceQueueItem { is_encrypted: true, ..item(1) }),
        ("object", api::DeviceQueueItem { object: Some(Default::default()), ..item(1) }),
        ("f_cnt_down", api::DeviceQueueItem { f_cnt_down: 1, ..item(1) }),
        ("id", api::DeviceQueueItem { id: "one".into(), ..item(1) }),
    ] {
        assert_eq!(refused_field(enqueue(&server, bad).await), field);
    }
    enqueue(&server, api::DeviceQueueItem { f_port: 224, data: vec![0; 242], ..item(1) }).await.unwrap();
    let unknown = api::DeviceQueueItem { dev_eui: "ffffffffffffffff".into(), ..item(1) };
    assert_eq!(code(enqueue(&server, unknown).await), Code::NotFound);

    let mut devices = server.devices().await;
    let count = api::GetDeviceQueueItemsRequest { dev_eui: DEVICE.into(), count_only: true };
    let count = devices.get_queue(server.ask(count)).await.unwrap().into_inner();
    assert_eq!((count.total_count, count.result.len()), (3, 0));
    let replace = api::EnqueueDeviceQueueItemRequest { queue_item: Some(item(9)), flush_queue: true };
    devices.enqueue(server.ask(replace)).await.unwrap();
    assert_eq!(queue(&server).await.len(), 1);
    devices.flush_queue(server.ask(api::FlushDeviceQueueRequest { dev_eui: DEVICE.into() })).await.unwrap();
    assert!(queue(&server).await.is_empty());
}

/// The queue shows what the session knows: an item in flight is pending, and gone once a gateway said that it sent it.
#[tokio::test]
async fn an_item_in_flight_is_pending_until_a_gateway_has_sent_it() {
    let server = Server::start().await;
    server.device(DEVICE).await;
    activate(&server, activation("01020304")).await.unwrap();
    for n in 1..=3 {
        enqueue(&server, item(n)).await.unwrap();
    }
    let mut row =
        server.store.sessions_by_addr(DevAddr(0x0102_0304), Freshness::Serial).await.unwrap().remove(0).session;
    row.rev += 1;
    row.queue_done = 1;
    row.item = Some(ItemInFlight::new(2, 9));
    row.next_fcnt_down = 10;
    server.store.commit_session(&row).await.unwrap();
    let shown: Vec<_> = queue(&server).await.into_iter().map(|i| (i.data[0], i.is_pending, i.f_cnt_down)).collect();
    assert_eq!(shown, [(2, true, 9), (3, false, 0)]);

    server.store.mark_sent(&row.key, 9).await.unwrap();
    let shown: Vec<_> = queue(&server).await.into_iter().map(|i| (i.data[0], i.is_pending)).collect();
    assert_eq!(shown, [(3, false)]);

    server
        .devices()
        .await
        .deactivate(server.ask(api::DeactivateDeviceRequest { dev_eui: DEVICE.into() }))
        .await
        .unwrap();
    let left: Vec<_> = queue(&server).await.into_iter().map(|i| i.data[0]).collect();
    assert_eq!(left, [3], "what was sent does not come back with the next session");
}

#[tokio::test]
async fn a_full_queue_refuses_more() {
    let server = Server::start().await;
    server.device(DEVICE).await;
    for n in 0..1000 {
        let item =
            limpet_worker_core::model::QueueItem { dev_eui: EUI, id: n.to_string(), fport: 1, ..Default::default() };
        server.store.enqueue(item).await.unwrap();
    }
    assert_eq!(code(enqueue(&server, item(1)).await), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_random_dev_addr_is_of_the_private_network() {
    let server = Server::start().await;
    server.device(DEVICE).await;
    let mut devices = server.devices().await;
    for request in [
        api::GetRandomDevAddrRequest { dev_eui: DEVICE.into(), ..Default::default() },
        api::GetRandomDevAddrRequest { tenant_id: server.tenant.clone(), ..Default::default() },
    ] {
        let addr = devices.get_random_dev_addr(server.ask(request)).await.unwrap().into_inner().dev_addr;
        assert!(u32::from_str_radix(&addr, 16).unwrap() < 0x0200_0000, "{addr}");
    }
    let neither = devices.get_random_dev_addr(server.ask(api::GetRandomDevAddrRequest::default())).await;
    assert_eq!(code(neither), Code::InvalidArgument);
    let nonces = api::FlushDevNoncesRequest { dev_eui: DEVICE.into() };
    devices.flush_dev_nonces(server.ask(nonces)).await.unwrap();
}

/// What was sent under a key is not sent again with other content, whatever its owner says and whatever was between.
#[tokio::test]
async fn keys_that_come_again_go_on_counting_down() {
    let server = Server::start().await;
    server.device(DEVICE).await;
    let of_keys = |keys: &str| api::DeviceActivation {
        nwk_s_enc_key: keys.into(),
        s_nwk_s_int_key: keys.into(),
        f_nwk_s_int_key: keys.into(),
        app_s_key: keys.into(),
        f_cnt_up: 0,
        n_f_cnt_down: 0,
        ..activation("01020304")
    };
    let next = async || session(&server).await.unwrap().n_f_cnt_down;
    let sent = async |fcnt_down: u32| {
        let rows = sessions(&server, DevAddr(0x0102_0304)).await;
        assert_eq!(rows.len(), 1);
        let mut session = rows[0].session.clone();
        (session.rev, session.slot.number, session.next_fcnt_down) = (session.rev + 1, 1, fcnt_down);
        assert_eq!(server.store.commit_session(&session).await.unwrap(), limpet_store::Commit::Applied);
    };
    activate(&server, of_keys(KEY)).await.unwrap();
    activate(&server, of_keys(KEY)).await.unwrap();
    assert_eq!(next().await, 0, "nothing was sent");
    sent(40).await;
    activate(&server, of_keys(KEY)).await.unwrap();
    assert_eq!(next().await, 40);
    activate(&server, api::DeviceActivation { n_f_cnt_down: 50, ..of_keys(KEY) }).await.unwrap();
    assert_eq!(next().await, 50, "up is as its owner says");
    sent(60).await;
    activate(&server, of_keys(OTHER_KEY)).await.unwrap();
    assert_eq!(next().await, 0, "other keys");
    let mut devices = server.devices().await;
    devices.deactivate(server.ask(api::DeactivateDeviceRequest { dev_eui: DEVICE.into() })).await.unwrap();
    activate(&server, of_keys(KEY)).await.unwrap();
    assert_eq!(next().await, 60);
}
