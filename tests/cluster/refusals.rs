//! What a server says that is not let in, or that cannot work: its message names the cause.

use std::path::Path;

use crate::{
    site::Site,
    support::{Limpet, Stopped, ctl, eventually, faketime},
    turn,
};

fn says(stopped: &Stopped, wanted: &str) {
    assert_eq!(stopped.status.code(), Some(1), "{:#?}", stopped.lines);
    assert!(stopped.lines.iter().any(|line| line.contains(wanted)), "nothing of {wanted:?} in {:#?}", stopped.lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_may_not_join_says_why() {
    let _turn = turn().await;
    let (site, elsewhere) = (Site::new(), Site::new());
    let east = site.balancer("east", None).await;
    let _other = elsewhere.balancer("other", None).await;
    let token = site.token("east", &[]);
    let refused = async |name: &str, token: &str, more: &[&str]| {
        site.worker(name, &[&["--join", token], more].concat()).stopped().await
    };
    let expired = site.token("east", &["--expires", "1s"]);
    let astray = elsewhere.token("other", &[]);
    let (signed, mac) = token.rsplit_once('.').unwrap();
    let other = if mac.starts_with('A') { "B" } else { "A" };
    let damaged = format!("{signed}.{other}{}", &mac[1..]);
    says(&refused("w", &damaged, &[]).await, "of another cluster, or was changed");
    // At the other cluster's balancer it would do; at this one it is a stranger's.
    let link = east.link.to_string();
    let lost = astray_worker(&site, &astray, &link).await;
    assert!(lost.contains("no balancer of this cluster"), "{lost}");
    says(&refused("w", &site.token("east", &["--role", "balancer"]), &[]).await, "for a balancer, not for a worker");
    let malformed = site.worker("w", &["--join", "limpet1.x"]).stopped().await;
    assert_eq!(malformed.status.code(), Some(2));
    assert!(malformed.lines.iter().any(|line| line.contains("malformed")), "{:#?}", malformed.lines);
    let unreachable = refused("w", &token, &["--store", "sqlite:/proc/limpet/store"]).await;
    says(&unreachable, "/proc/limpet");

    let mut w1 = site.worker("w1", &["--join", &token]);
    w1.line_with("the worker is running").await;
    site.sees("east", &[("east", "ready"), ("w1", "ready")]).await;
    // Another machine's server of the same name has a folder of its own.
    let data = site.data("w1-elsewhere");
    let twin = ["worker", "--name", "w1", "--join", &token, "--http", "127.0.0.1:0"];
    let store = format!("sqlite:{}", site.data("store").display());
    let folder = ["--data", data.to_str().unwrap(), "--store", &store];
    let twin = || Limpet::start("twin", &[&twin[..], &folder].concat());
    says(&twin().stopped().await, "another server of the cluster is called \"w1\"; choose another name with --name");
    w1.terminate();
    w1.stopped().await;
    let mut twin = twin();
    twin.line_with("the worker is running").await;

    eventually("the token to expire", async || {
        site.ctl("east", &["join-token", "list"]).contains("expired").then_some(())
    })
    .await;
    let late = refused("late", &expired, &[]).await;
    says(&late, "the join token expired at");
    says(&late, "the balancer's clock says");
    let denied = ctl(Path::new("nowhere"), &["--server", "http://127.0.0.1:9", "--token", "x", "servers"]);
    assert!(String::from_utf8_lossy(&denied.stderr).contains("no answer from http://127.0.0.1:9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_another_store_than_its_clusters_is_told_which_to_take() {
    let _turn = turn().await;
    let site = Site::new();
    let _east = site.balancer("east", None).await;
    let token = site.token("east", &[]);
    // Alone it may have a store of its own: then that is the cluster's.
    let without_store = |name: &str| {
        let data = site.data(name);
        let who = ["worker", "--name", name, "--data", data.to_str().unwrap(), "--http", "127.0.0.1:0"];
        Limpet::start(name, &[&who[..], &["--join", &token]].concat())
    };
    let mut first = without_store("first");
    first.line_with("the worker is running").await;
    site.sees("east", &[("east", "ready"), ("first", "ready")]).await;
    site.ctl("east", &["gateway", "add", "024c500000000001"]);
    let store = format!("sqlite:{}", site.data("first").join("store").display());

    // Twice: what the first try left behind is no store of the cluster's either.
    for _ in 0..2 {
        let second = without_store("second").stopped().await;
        says(&second, "its store is not the one of this cluster");
        says(&second, &format!("it has SQLite in {}", site.data("second").join("store").display()));
        says(&second, &format!("worker first has SQLite in {}", site.data("first").join("store").display()));
        says(&second, "give it theirs with --store URL");
    }
    let told = site.ctl("first", &["gateways"]);
    assert!(told.contains("024c500000000001"), "{told}");
    let mut second = site.worker("second", &["--join", &token, "--store", &store]);
    second.line_with("the worker is running").await;
    site.sees("east", &[("east", "ready"), ("first", "ready"), ("second", "ready")]).await;

    let balancer = site.token("east", &["--role", "balancer", "--uses", "1"]);
    let data = site.data("up");
    let up = ["up", "--data", data.to_str().unwrap(), "--join", &balancer, "--balancer", "127.0.0.1:1"];
    let up = Limpet::start("up", &up).stopped().await;
    assert_eq!(up.status.code(), Some(2));
    assert!(up.lines.iter().any(|line| line.contains("join is given without store")), "{:#?}", up.lines);
    drop((first, second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_another_cluster_works_with_is_left_alone() {
    let _turn = turn().await;
    let (site, elsewhere) = (Site::new(), Site::new());
    let _east = site.balancer("east", None).await;
    let _other = elsewhere.balancer("other", None).await;
    let member = site.worker("w1", &["--join", &site.token("east", &[])]);
    site.sees("east", &[("east", "ready"), ("w1", "ready")]).await;
    let store = format!("sqlite:{}", site.data("store").display());
    let stray = elsewhere.worker("stray", &["--join", &elsewhere.token("other", &[]), "--store", &store]);
    let stray = stray.stopped().await;
    says(&stray, "belongs to another cluster, whose");
    says(&stray, "give it another --store");
    // Once that cluster is gone, the store may have another: so a network outlives the loss of its cluster's keys.
    member.terminate();
    member.stopped().await;
    drop(_east);
    let mut heir = elsewhere.worker("stray", &["--store", &store]);
    heir.line_with("the worker is running").await;
}

/// What a worker with the token of another cluster says of this one's balancer, before it turns to the next address.
async fn astray_worker(site: &Site, token: &str, link: &str) -> String {
    let mut worker = site.worker("astray", &["--join", token, "--balancer", link]);
    let line = worker.line_with("cannot join there").await;
    drop(worker);
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_told_by_name() {
    let _turn = turn().await;
    let Some(library) = faketime() else { return };
    // The process has a working directory of its own choice.
    let library = std::path::absolute(library).unwrap().display().to_string();
    let site = Site::new();
    let _east = site.balancer("east", None).await;
    let token = site.token("east", &[]);
    // Only the wall clock: what waits must wait as long as ever.
    let clock = |by| {
        let still = [("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("DONT_FAKE_MONOTONIC", "1")];
        [("LD_PRELOAD", library.as_str()), ("FAKETIME", by), still[0], still[1]]
    };
    let skewed = |name: &str, by| site.worker_with(name, &["--join", &token], &clock(by));
    // Ten minutes: it works, and it says so, in its log and in the list.
    let mut ahead = skewed("ahead", "+600s");
    let line = ahead.line_with("this machine's clock is").await;
    assert!(line.contains("s ahead of the balancer's: set the clocks"), "{line}");
    site.sees("east", &[("east", "ready"), ("ahead", "ready")]).await;
    eventually("the list to tell of the clock", async || {
        let table = site.ctl("east", &["servers"]);
        table.contains("clock is").then_some(())
    })
    .await;
    drop(ahead);
    let mut behind = skewed("behind", "-600s");
    let line = behind.line_with("this machine's clock is").await;
    assert!(line.contains("s behind the balancer's: set the clocks"), "{line}");
    drop(behind);
    // A clock at which the certificates are not valid yet, or not any more, keeps a server out.
    let mut early = skewed("early", "-3d");
    let line = early.line_with("is not valid before").await;
    assert!(line.contains("this machine's clock says"), "{line}");
    drop(early);
    let mut late = skewed("late", "+200d");
    let line = late.line_with("expired at").await;
    assert!(line.contains("this machine's clock says"), "{line}");
    drop(late);
    let mut member = site.worker("member", &["--join", &token]);
    member.line_with("the worker is running").await;
    member.terminate();
    member.stopped().await;
    for (by, wanted) in [("+200d", "the certificate of this server expired at"), ("-3d", "is not valid before")] {
        let stopped = site.worker_with("member", &[], &clock(by)).stopped().await;
        says(&stopped, wanted);
        says(&stopped, "this machine's clock says");
    }
}
