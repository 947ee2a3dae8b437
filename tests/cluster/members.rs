//! Servers that know each other, come, are drained and removed: two balancers that never talk to each other, and workers
//! of which each was told of one of them only.

use crate::{
    site::Site,
    support::{eventually, free_address},
    turn,
};

const ALL: [(&str, &str); 4] = [("east", "ready"), ("west", "ready"), ("w1", "ready"), ("w2", "ready")];

#[tokio::test(flavor = "multi_thread")]
async fn every_server_knows_all_others_and_one_is_drained_and_removed_from_anywhere() {
    let _turn = turn().await;
    let site = Site::new();
    let east = site.balancer("east", None).await;
    let w1 = site.worker("w1", &["--join", &site.token("east", &[])]);
    // It is told of by the store: w1 was started before it.
    let west = site.balancer("west", Some(&site.token("east", &["--role", "balancer"]))).await;
    let token = site.token("west", &[]);
    let w2 = site.worker("w2", &["--join", &token, "--balancer", &west.link.to_string()]);
    for server in ["east", "west", "w1", "w2"] {
        let seen = site.sees(server, &ALL).await;
        let both = eventually("both workers to be linked to both balancers", async || {
            let seen = site.servers(server)?;
            let linked = |s: &serde_json::Value| !s["reason"].as_str().unwrap().contains("not linked");
            seen.iter().all(linked).then_some(seen)
        });
        let share: f64 = both.await.iter().map(|s| s["share"].as_f64().unwrap()).sum();
        assert!((share - 1.0).abs() < 0.01, "the shares of {server} add up to {share}");
        for server in &seen {
            let told = |key: &str| server[key].as_str().is_some_and(|text| !text.is_empty());
            assert!(["role", "address", "http", "version"].into_iter().all(told), "{server}");
            let counted = |key: &str| server[key].as_u64().is_some_and(|number| number > 0);
            assert!(["started_at", "memory", "disk_free"].into_iter().all(counted), "{server}");
        }
    }

    site.ctl("west", &["drain", "w2"]);
    site.sees("east", &[ALL[0], ALL[1], ALL[2], ("w2", "draining")]).await;
    site.ctl("w1", &["drain", "w2", "--off"]);
    site.sees("west", &ALL).await;

    let unknown = site.ctl_refused("east", &["remove", "w9"]);
    assert!(unknown.contains("no server is called w9; there are: east, west, w1, w2"), "{unknown}");
    let said = site.ctl("east", &["remove", "w2"]);
    assert!(said.contains("its certificate is revoked"), "{said}");
    let ended = w2.stopped().await;
    assert!(ended.status.success(), "{:?}: {:#?}", ended.status, ended.lines);
    for server in ["east", "west", "w1"] {
        site.sees(server, &ALL[..3]).await;
    }
    // Its own command line says what happened, and what to do; a new token lets it in again, under its name.
    for more in [&["--join", &token][..], &[]] {
        let again = site.worker("w2", more).stopped().await;
        assert_eq!(again.status.code(), Some(1));
        let told = |line: &String| line.contains("was removed from its cluster") && line.contains("new --join TOKEN");
        assert!(again.lines.iter().any(told), "{:#?}", again.lines);
    }
    let _w2 = site.worker("w2", &["--join", &site.token("east", &[])]);
    site.sees("w1", &ALL).await;

    let said = site.ctl("w1", &["remove", "west"]);
    assert!(said.contains("pointed at another balancer"), "{said}");
    let ended = west.process.stopped().await;
    assert!(ended.status.success(), "{:?}: {:#?}", ended.status, ended.lines);
    site.sees("w1", &[ALL[0], ALL[2], ALL[3]]).await;
    let address = [free_address(), free_address(), free_address()].map(|address| address.to_string());
    let data = site.data("west");
    let listen = ["--gwmp", &address[0], "--link", &address[1], "--admin", &address[2]];
    let who = ["balancer", "--name", "west", "--data", data.to_str().unwrap()];
    let again = crate::support::Limpet::start("west", &[&who[..], &listen].concat()).stopped().await;
    assert_eq!(again.status.code(), Some(1));
    assert!(again.lines.iter().any(|line| line.contains("was removed from its cluster")), "{:#?}", again.lines);
    let last = site.ctl_refused("east", &["remove", "east"]);
    assert!(last.contains("east is the only balancer"), "{last}");
    drop((w1, east));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_away_when_it_is_removed_is_refused_later() {
    let _turn = turn().await;
    let site = Site::new();
    let _east = site.balancer("east", None).await;
    let token = site.token("east", &[]);
    let _w1 = site.worker("w1", &["--join", &token]);
    let w2 = site.worker("w2", &["--join", &token]);
    site.sees("east", &[("east", "ready"), ("w1", "ready"), ("w2", "ready")]).await;
    w2.kill();
    site.sees("w1", &[("east", "ready"), ("w1", "ready"), ("w2", "gone")]).await;
    let said = site.ctl("east", &["remove", "w2"]);
    assert!(said.contains("it was not running"), "{said}");
    site.sees("east", &[("east", "ready"), ("w1", "ready")]).await;
    for _ in 0..2 {
        // First by the balancer's word, then by its own note of it.
        let again = site.worker("w2", &["--join", &token]).stopped().await;
        assert_eq!(again.status.code(), Some(1));
        let told = |line: &String| line.contains("was removed from") && line.contains("--join TOKEN");
        assert!(again.lines.iter().any(told), "{:#?}", again.lines);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_listed_and_revoked_across_balancers() {
    let _turn = turn().await;
    let site = Site::new();
    let east = site.balancer("east", None).await;
    let west = site.balancer("west", Some(&site.token("east", &["--role", "balancer", "--uses", "1"]))).await;
    let _w1 = site.worker("w1", &["--join", &site.token("east", &["--uses", "1"])]);
    site.sees("west", &[("east", "ready"), ("west", "ready"), ("w1", "ready")]).await;
    let token = site.token("west", &["--uses", "1", "--expires", "1h"]);
    let _w2 = site.worker("w2", &["--join", &token, "--balancer", &west.link.to_string()]);
    site.sees("east", &[("east", "ready"), ("west", "ready"), ("w1", "ready"), ("w2", "ready")]).await;
    // Three tokens are used up, each counted at another balancer or the same; every server lists all.
    for server in ["east", "west", "w1"] {
        eventually(&format!("{server} to list three used tokens"), async || {
            let list = site.ctl(server, &["join-token", "list"]);
            (list.matches("used up").count() == 3 && list.matches("1 of 1").count() == 3).then_some(())
        })
        .await;
    }
    let w3 = site.worker("w3", &["--join", &token, "--balancer", &east.link.to_string()]).stopped().await;
    assert!(w3.lines.iter().any(|line| line.contains("used up: it was good for 1 server")), "{:#?}", w3.lines);

    let token = site.token("east", &[]);
    let list = eventually("the new token to be listed", async || {
        let list: serde_json::Value = serde_json::from_str(&site.ctl("w1", &["join-token", "list", "--json"])).unwrap();
        let tokens = list["tokens"].as_array()?.clone();
        tokens.into_iter().find(|token| token["uses"] == 100)
    });
    let id = list.await["id"].as_str().unwrap().to_owned();
    site.ctl("east", &["join-token", "revoke", &id]);
    let w3 = site.worker("w3", &["--join", &token, "--balancer", &west.link.to_string()]).stopped().await;
    assert!(w3.lines.iter().any(|line| line.contains("the join token was revoked")), "{:#?}", w3.lines);
    let nothing = site.ctl_refused("west", &["join-token", "revoke", "nothing"]);
    assert!(nothing.contains("does not exist"), "{nothing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_worker_is_a_way_to_the_clusters_keys() {
    let _turn = turn().await;
    let site = Site::new();
    let _east = site.balancer("east", None).await;
    let http = free_address().to_string();
    let _w1 = site.worker("w1", &["--join", &site.token("east", &["--uses", "1"]), "--http", &http]);
    site.sees("w1", &[("east", "ready"), ("w1", "ready")]).await;
    let key = site.ctl("w1", &["api-key", "create", "operator"]);
    let file = site.data("key");
    std::fs::write(&file, &key).unwrap();
    let (url, file) = (format!("http://{http}"), file.display().to_string());
    // Beside the worker, and over its API with a key that may administrate the cluster.
    for how in [&[][..], &["--server", &url, "--token-file", &file]] {
        let ask = |arguments: &[&'static str]| [how, &["join-token"], arguments].concat();
        let refused = site.ctl_refused("w1", &ask(&["--role", "balancer", "--uses", "1", "--expires", "1h"]));
        assert!(refused.contains("made only beside a balancer: on the machine of east run limpet ctl"), "{refused}");
        let refused = site.ctl_refused("w1", &ask(&["--uses", "10000", "--expires", "365d"]));
        assert!(refused.contains("at most 7d and 100 servers"), "{refused}");
        assert!(site.ctl("w1", &ask(&["--uses", "1", "--expires", "1h"])).contains("\nlimpet1."));
    }
    let tokens = site.ctl("east", &["--json", "join-token", "list"]);
    assert!(!tokens.contains("\"balancer\""), "{tokens}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_join_tokens_changes_at_all_balancers_while_the_cluster_runs() {
    let _turn = turn().await;
    let site = Site::new();
    let east = site.balancer("east", None).await;
    let west = site.balancer("west", Some(&site.token("east", &["--role", "balancer", "--uses", "1"]))).await;
    // They join at the second one.
    let at_west = ["--balancer", &format!("{},{}", west.link, east.link)];
    let old = site.token("east", &[]);
    let _w1 = site.worker("w1", &[&["--join", &old], &at_west[..]].concat());
    let all = [("east", "ready"), ("west", "ready"), ("w1", "ready"), ("w2", "ready"), ("w3", "ready")];
    site.sees("w1", &all[..3]).await;
    let refused = site.ctl_refused("w1", &["rotate-token-key"]);
    assert!(refused.contains("beside a balancer only"), "{refused}");
    let none = site.ctl_refused("east", &["rotate-token-key", "--finish"]);
    assert!(none.contains("there is no old key"), "{none}");

    let said = site.ctl("east", &["rotate-token-key"]);
    assert!(said.contains("open are: "), "{said}");
    let keys = site.data("west").join("cluster/token-keys.json");
    eventually("the other balancer to have the new key", async || keys.exists().then_some(())).await;
    // The old one counts at the balancer that was told of it, and the new one too.
    let _w2 = site.worker("w2", &[&["--join", &old], &at_west[..]].concat());
    site.sees("w1", &all[..4]).await;
    let _w3 = site.worker("w3", &[&["--join", &site.token("east", &[])], &at_west[..]].concat());
    site.sees("w1", &all).await;
    let twice = site.ctl_refused("west", &["rotate-token-key"]);
    assert!(twice.contains("the last change is not finished"), "{twice}");

    let before = std::fs::read(&keys).unwrap();
    site.ctl("west", &["rotate-token-key", "--finish"]);
    let keys = site.data("east").join("cluster/token-keys.json");
    eventually("the first balancer to give up the old key", async || {
        (std::fs::read(&keys).unwrap() != before).then_some(())
    })
    .await;
    let late = site.worker("w4", &["--join", &old]).stopped().await;
    assert_eq!(late.status.code(), Some(1));
    assert!(late.lines.iter().any(|line| line.contains("of another cluster, or was changed")), "{:#?}", late.lines);
    site.sees("w1", &all).await;
}
