//! A balancer that was removed and does not end: somebody keeps it running, with its certificate and the cluster's keys.

use std::{fs, path::Path};

use crate::{site::Site, support::Limpet, turn};

/// Everything in a folder but sockets.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What it was told, and what it was not, at any time.
fn says(process: &Limpet, words: &str) -> bool {
    process.lines().iter().any(|line| line.contains(words))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_balancer_that_still_runs_is_believed_by_nobody_also_when_the_store_was_put_back() {
    let _turn = turn().await;
    let site = Site::new();
    let east = site.balancer("east", None).await;
    let west = site.balancer("west", Some(&site.token("east", &["--role", "balancer"]))).await;
    let w1 = site.worker("w1", &["--join", &site.token("east", &[])]);
    site.sees("w1", &[("east", "ready"), ("west", "ready"), ("w1", "ready")]).await;
    w1.terminate();
    assert!(w1.stopped().await.status.success());
    copy(&site.data("store"), &site.data("backup"));
    copy(&site.data("west"), &site.data("kept"));

    let w1 = site.worker("w1", &[]);
    site.sees("w1", &[("east", "ready"), ("west", "ready"), ("w1", "ready")]).await;
    site.ctl("w1", &["remove", "west"]);
    let at = west.at;
    assert!(west.process.stopped().await.status.success());
    site.sees("w1", &[("east", "ready"), ("w1", "ready")]).await;
    w1.terminate();
    assert!(w1.stopped().await.status.success());

    // Who has a copy of its folder from before knows nothing of that, and starts it.
    let mut kept = site.balancer_at("west", "kept", at, None).await;
    let both = format!("{},{}", kept.link, east.link);
    let mut w1 = site.worker("w1", &["--balancer", &both]);
    w1.line_with("is west, which was removed from this cluster: its certificate is revoked").await;
    site.sees("w1", &[("east", "ready"), ("w1", "ready")]).await;
    kept.process.line_with("a worker refuses this balancer, for it was removed from the cluster").await;
    let alone = |server: &str| site.servers(server).unwrap().iter().all(|server| server["name"] == "west");
    assert!(alone("kept"), "no worker is linked to it");
    w1.terminate();
    assert!(w1.stopped().await.status.success());

    // A store from before that names it as a balancer like any other: the one that is left knows better.
    fs::remove_dir_all(site.data("store")).unwrap();
    copy(&site.data("backup"), &site.data("store"));
    let mut w1 = site.worker("w1", &["--balancer", &east.link.to_string()]);
    w1.line_with("the store did not know of a removed server").await;
    site.sees("w1", &[("east", "ready"), ("w1", "ready")]).await;
    // Where the backup has its name only, it is dialled, and refused by its key.
    assert!(!says(&w1, "linked balancer=\"west\"") && alone("kept"), "it was believed");
    w1.terminate();
    assert!(w1.stopped().await.status.success());
    let mut w1 = site.worker("w1", &["--balancer", &both]);
    w1.line_with("is west, which was removed from this cluster: its certificate is revoked").await;
    assert!(!says(&w1, "the store did not know of a removed server"), "it knows by now");
}
