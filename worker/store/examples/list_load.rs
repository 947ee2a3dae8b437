//! How long lists take with many devices: a page, a page from deep inside, searches, each after a change.
//!
//! `cargo run --release -p limpet-store --example list_load [URL] [DEVICES]`; without a URL it uses a temporary folder.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use limpet_store::{List, Store, open};
use limpet_store_testing::conformance::Samples;
use limpet_worker_core::model::Device;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Times each question is asked.
const TIMES: usize = 40;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let folder = std::env::temp_dir().join(format!("limpet-list-load-{}", std::process::id()));
    let url = args.next().unwrap_or_else(|| format!("sqlite:{}", folder.display()));
    let count: u32 = args.next().map_or(Ok(200_000), |text| text.parse())?;
    let store = open(&url).await?;
    println!("{}", store.describe());
    let new = Samples::new();
    let (tenant, began) = (new.tenant(), Instant::now());
    let (application, profile) = (new.application(tenant.id), new.profile(tenant.id));
    store.create_tenant(&tenant).await?;
    store.create_application(&application).await?;
    store.create_device_profile(&profile).await?;
    let device = |n: u32| Device { name: format!("sensor {n:06}"), ..new.device(&application, &profile) };
    let creates = (0..count).map(|n| {
        let (store, device) = (&store, device(n));
        async move { store.create_device(&device).await }
    });
    stream::iter(creates).buffer_unordered(256).try_collect::<()>().await?;
    println!("{count} devices created in {:.1} s", began.elapsed().as_secs_f64());
    let list = List { limit: 10, application: Some(application.id), ..List::default() };
    let began = Instant::now();
    store.devices(&list).await?;
    println!("the first question took {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    let of_tenant = List { application: None, tenant: Some(tenant.id), ..list.clone() };
    let search = |text: &str| List { search: text.into(), ..list.clone() };
    println!("{:<28} {:>8} {:>8} {:>8}", "page of 10", "total", "p50 ms", "max ms");
    for (what, list) in [
        ("the first", list.clone()),
        ("in the middle", List { offset: count / 2, ..list.clone() }),
        ("the last", List { offset: count.saturating_sub(10), ..list.clone() }),
        ("of the tenant", of_tenant),
        ("search: one device", search(&format!("{:06}", count / 3))),
        ("search: all", search("SENSOR")),
        ("search: two letters", search("9a")),
        ("search: nothing", search("no such name")),
    ] {
        measure(&*store, what, &list, &device(count)).await?;
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

async fn measure(store: &dyn Store, what: &str, list: &List, like: &Device) -> Result<(), Failure> {
    let mut times: Vec<Duration> = Vec::new();
    let mut total = 0;
    for _ in 0..TIMES {
        store.create_device(like).await?;
        let start = Instant::now();
        total = store.devices(list).await?.total;
        times.push(start.elapsed());
        store.delete_device(like.dev_eui).await?;
    }
    times.sort_unstable();
    let ms = |at: usize| times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    println!("{what:<28} {total:>8} {:>8.2} {:>8.2}", ms(TIMES / 2), ms(TIMES - 1));
    Ok(())
}
