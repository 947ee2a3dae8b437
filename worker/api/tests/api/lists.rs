//! Pages and searches among many devices, over HTTP. `LIMPET_FULL=1 cargo test --release -p limpet-api --test api -- lists --nocapture`
//! has 200,000 of them (`LIMPET_DEVICES` any number) and prints what each question took; with `LIMPET_TEST_CQL`
//! (`scripts/cql-engine.sh env`) they are in CQL.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::serve::ListenerExt;
use chirpstack_api::api;
use futures_util::{StreamExt, TryStreamExt, stream};
use limpet_api::{Api, bootstrap};
use limpet_shared::Eui64;
use limpet_store::open;
use limpet_worker_core::model::Device;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::server::{Balancers, PASSWORD, Server, state};

/// Times each question is asked.
const TIMES: u32 = 40;
const FIRST: u64 = 0x0102_0304_0000_0000;

async fn filled(count: u32) -> (Server, Device, Option<tempfile::TempDir>) {
    let (url, folder) = match std::env::var("LIMPET_TEST_CQL").ok().filter(|hosts| !hosts.is_empty()) {
        Some(hosts) => {
            let keyspace = format!("lists_{}", &Uuid::new_v4().simple().to_string()[..8]);
            (format!("cql://{}/{keyspace}", hosts.trim_start_matches("cql://").trim_end_matches('/')), None)
        }
        None => {
            let folder = tempfile::tempdir().unwrap();
            (format!("sqlite:{}", folder.path().display()), Some(folder))
        }
    };
    let store = open(&url).await.unwrap();
    bootstrap(&store, Some(PASSWORD.into())).await.unwrap();
    let mut server = Server::over(store.clone()).await;
    // As a worker serves it.
    let api = Api::new(state(store.clone(), Arc::new(Balancers::default())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    server.url = format!("http://{}", listener.local_addr().unwrap());
    let listener = listener.tap_io(|tcp| tcp.set_nodelay(true).unwrap());
    let router = api.router().into_make_service_with_connect_info::<std::net::SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, router).await });

    let like = Device {
        application_id: server.application("many").await.parse().unwrap(),
        device_profile_id: server.profile(server.usual_profile()).await.unwrap().parse().unwrap(),
        ..Device::default()
    };
    let began = Instant::now();
    let creates = (0..count).map(|n| {
        let (store, device) = (store.clone(), numbered(&like, n));
        async move { store.create_device(&device).await }
    });
    stream::iter(creates).buffer_unordered(256).try_collect::<()>().await.unwrap();
    println!("{}: {count} devices made in {:.0} s", store.describe(), began.elapsed().as_secs_f64());
    (server, like, folder)
}

fn numbered(like: &Device, n: u32) -> Device {
    Device { dev_eui: Eui64(FIRST + u64::from(n)), name: format!("sensor {n:06}"), ..like.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_searches_among_many_devices_hold_what_was_written_before() {
    let asked = std::env::var("LIMPET_DEVICES").ok().and_then(|text| text.parse().ok());
    let full = std::env::var("LIMPET_FULL").as_deref() == Ok("1");
    let count = asked.unwrap_or(if full { 200_000 } else { 1_500 }).max(100);
    let (server, like, _folder) = filled(count).await;
    let mut client = server.devices().await;
    println!("{:<24} {:>8} {:>8} {:>8}", "page of 10", "total", "p50 ms", "max ms");
    let one = count / 3;
    for (what, search, offset, total, first) in [
        ("the first", String::new(), 0, count + 1, 0),
        ("in the middle", String::new(), count / 2, count + 1, count / 2),
        ("the last", String::new(), count - 9, count + 1, count - 9),
        ("search: one", format!("sensor {one:06}"), 0, 1, one),
        ("search: all", "SENSOR".into(), 0, count + 1, 0),
        ("search: a new one", format!("{count:06}"), 0, 1, count),
    ] {
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..TIMES {
            // So that each list has a change to follow.
            server.store.create_device(&numbered(&like, count)).await.unwrap();
            let request = api::ListDevicesRequest {
                limit: 10,
                offset,
                search: search.clone(),
                application_id: like.application_id.to_string(),
                ..Default::default()
            };
            let began = Instant::now();
            let page = client.list(server.ask(request)).await.unwrap().into_inner();
            times.push(began.elapsed());
            assert_eq!(page.total_count, total, "{what}");
            assert_eq!(page.result.len() as u32, total.min(10), "{what}");
            assert_eq!(page.result[0].name, format!("sensor {first:06}"), "{what}");
            server.store.delete_device(numbered(&like, count).dev_eui).await.unwrap();
        }
        times.sort_unstable();
        let ms = |at: u32| times[at as usize].as_secs_f64() * 1e3;
        println!("{what:<24} {total:>8} {:>8.2} {:>8.2}", ms(TIMES / 2), ms(TIMES - 1));
    }
}
