//! Applications beside one whose endpoint fails: their events come as if it were not there.

use std::{ops::Range, sync::Arc, time::Duration};

use axum::http::StatusCode;
use limpet_shared::Eui64;

use crate::{
    account::{Account, settle},
    cluster::Cluster,
    collector::{Collector, UplinkId},
    field::{Devices, Field, Load, Sent, dev_eui},
    full, millis, sized,
    support::eventually,
    turn,
};

/// Of the application whose endpoint fails.
const DEVICES: u32 = 300;
/// A device of an application whose endpoint takes its time, and one of an application whose endpoint does not want one event.
const NEIGHBOUR: u32 = 1_001;
const REFUSED: u32 = 1_002;

/// What is promised, on a machine that has nothing else to do; and what any machine manages.
fn within(promised: Duration) -> Duration {
    if full() { promised } else { Duration::from_secs(30) }
}

async fn application(cluster: &Cluster, name: &str, numbers: Range<u32>, endpoint: &Collector) -> Arc<Field> {
    let gateway = Eui64(0x024c_5000_0000_0000 + u64::from(numbers.start));
    let devices = Devices { numbers, application: Some(name), webhook: &endpoint.url(), collisions: true };
    let field = Field::of_application(cluster, vec![gateway], devices).await;
    field.linked().await;
    Arc::new(field)
}

/// So many uplinks or one more, this far apart; all of them were acknowledged.
async fn send(field: &Arc<Field>, count: usize, apart: Duration) -> Vec<Sent> {
    let load = Load::start(field, (1.0 / apart.as_secs_f64()) as u32, 0);
    eventually(&format!("{count} uplinks to be sent"), async || (load.log.len() >= count).then_some(())).await;
    let sent = load.stop().await;
    assert!(sent.iter().all(Sent::is_acked), "{sent:?}");
    sent
}

/// When the endpoint took it.
async fn taken(endpoint: &Collector, uplink: UplinkId) -> std::time::Instant {
    let what = format!("uplink {uplink:?} to be told");
    eventually(&what, async || endpoint.ups().iter().find(|told| told.uplink == uplink).map(|told| told.at)).await
}

/// Three uplinks, and how long after each its event came, and was taken.
async fn three_events(how: &str, field: &Arc<Field>, endpoint: &Collector) -> Vec<Sent> {
    let sent = send(field, 3, millis(1_000)).await;
    let mut times = Vec::new();
    for uplink in &sent {
        let taken = taken(endpoint, uplink.uplink).await - uplink.at;
        times.push((endpoint.offered(uplink.uplink).unwrap() - uplink.at, taken));
    }
    println!(
        "an endpoint of {DEVICES} devices {how}; another's events came, and were taken 0.4 s later or more, after {times:.2?}"
    );
    let most = within(Duration::from_secs(1));
    assert!(times.iter().all(|(came, _)| *came < most), "{times:?}");
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_and_an_event_that_is_refused_hold_up_no_other() {
    let _turn = turn().await;
    let (mut failing, slow, picky) = (Collector::start().await, Collector::start().await, Collector::start().await);
    let cluster = Cluster::up().await;
    let many = application(&cluster, "failing", 1..DEVICES + 1, &failing).await;
    let neighbour = application(&cluster, "slow", NEIGHBOUR..NEIGHBOUR + 1, &slow).await;
    let refused = application(&cluster, "picky", REFUSED..REFUSED + 1, &picky).await;
    // Longer than an event as it comes is waited for, so it always takes the way of those that wait.
    slow.be_slow(millis(400));
    picky.refuse((dev_eui(REFUSED), 1));

    failing.answer(StatusCode::NOT_FOUND);
    let load = Load::start(&many, sized(100, 60), 0);
    tokio::time::sleep(Duration::from_secs(sized(15, 5))).await;
    let mut of_neighbour = three_events("answers 404", &neighbour, &slow).await;
    failing.close().await;
    tokio::time::sleep(Duration::from_secs(sized(10, 2))).await;
    of_neighbour.extend(three_events("refuses connections", &neighbour, &slow).await);
    failing.hang();
    failing.listen().await;
    tokio::time::sleep(Duration::from_secs(sized(10, 2))).await;
    of_neighbour.extend(three_events("hangs", &neighbour, &slow).await);
    an_event_that_is_refused(&refused, &picky).await;

    failing.answer(StatusCode::OK);
    let of_many = load.stop().await;
    for (sent, endpoint) in [(&of_many, &failing), (&of_neighbour, &slow)] {
        let account: Account = settle(sent, endpoint).await;
        println!("  {account}");
        account.assert_all_told();
        account.assert_in_order();
    }
}

/// The device's other events come all the same, in order.
async fn an_event_that_is_refused(field: &Arc<Field>, endpoint: &Collector) {
    let sent = send(field, 4, millis(500)).await;
    let first_refused = eventually("the event to be offered", async || endpoint.offered(sent[1].uplink)).await;
    let next = taken(endpoint, sent[2].uplink).await - first_refused;
    println!("an event was refused; its device's next one was taken {next:.2?} after that");
    assert!(next < within(Duration::from_secs(5)), "{next:?}");
    taken(endpoint, sent[sent.len() - 1].uplink).await;
    let told: Vec<UplinkId> = endpoint.ups().iter().map(|told| told.uplink).collect();
    let wanted: Vec<UplinkId> = sent.iter().map(|sent| sent.uplink).filter(|uplink| uplink.1 != 1).collect();
    assert_eq!(told, wanted);
}
