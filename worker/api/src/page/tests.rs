use limpet_shared::{Eui64, admin};

use super::*;
use crate::About;

fn overview() -> Overview {
    Overview {
        about: About { version: "0.1.0".into(), server: "edge-1".into(), gwmp: Some("192.0.2.7:1700".into()) },
        store: "sqlite ./limpet-data/store".into(),
        regions: vec!["eu868", "us915_1"],
        servers: Some(vec![
            Server { name: "w1".into(), role: "worker".into(), state: "ready".into(), share: 0.5, ..Server::default() },
            Server { name: "w2".into(), role: "worker".into(), state: "ejected".into(), ..Server::default() },
        ]),
        unknown: Vec::new(),
        counts: Some(Counts { gateways: 3, heard: 2, applications: 1, devices: 17, pending: 5 }),
    }
}

#[test]
fn the_page_says_what_runs_and_what_to_do_next() {
    let page = render(&overview());
    for said in [
        "192.0.2.7, UDP port 1700",
        "sqlite ./limpet-data/store",
        "eu868, us915_1",
        "edge-1",
        "ejected",
        "2 heard so far",
        ">17<",
        "limpet ctl gateway add",
        "limpet ctl device add --dev-eui",
        "limpet ctl join-token",
        "limpet worker --join TOKEN",
    ] {
        assert!(page.contains(said), "{said}");
    }
}

#[test]
fn a_rejected_gateway_is_offered_with_the_command_that_adds_it() {
    let unknown = (1..=5).map(|n| admin::Gateway { eui: Eui64(n), ..Default::default() }).collect();
    let page = render(&Overview { unknown, ..overview() });
    assert!(page.contains("limpet ctl gateway add 0000000000000003"));
    assert!(!page.contains("limpet ctl gateway add 0000000000000004"));
    assert!(page.contains("And 2 more"));
}

#[test]
fn a_store_balancer_or_server_that_is_away_is_said() {
    assert!(render(&overview()).contains("Not every server is ready"));
    let all_ready = Overview { servers: overview().servers.map(|s| s[..1].to_vec()), ..overview() };
    assert!(render(&all_ready).contains("Everything that this worker can see is up"));
    assert!(render(&Overview { counts: None, ..overview() }).contains("The store does not answer"));
    assert!(render(&Overview { servers: None, ..overview() }).contains("No balancer answers"));
}

#[test]
fn names_cannot_become_markup() {
    let nasty = "<script>alert('1')</script>\"&";
    let servers = Some(vec![Server { name: nasty.into(), reason: nasty.into(), ..Server::default() }]);
    let about = About { version: nasty.into(), server: nasty.into(), gwmp: Some(nasty.into()) };
    let page = render(&Overview { about, store: nasty.into(), servers, ..overview() });
    assert!(!page.contains("<script>alert"));
    assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;"));
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let page = render(&overview());
    for elsewhere in ["src=", "@import", "url(", "href=\"http", "href=\"/"] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    assert!(POLICY.contains("default-src 'none'"));
}
