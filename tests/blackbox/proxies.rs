//! Who a request is from, with and without a proxy before HTTP, and what one address can hold.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpStream},
    time::Duration,
};

use reqwest::StatusCode;

use crate::{start::Up, support::eventually};

/// Wrong passwords that one address has for one account.
const TRIES: usize = 20;

/// Logs in with a wrong password, from one of this machine's addresses, with what a proxy would add.
async fn guess(up: &Up, from: [u8; 4], forwarded: &str) -> StatusCode {
    let client = reqwest::Client::builder().local_address(IpAddr::from(from)).build().unwrap();
    let home = format!("http://{}", up.http);
    let request = client.post(format!("{home}/login")).header("origin", &home).header("x-forwarded-for", forwarded);
    let request = request.header("content-type", "application/x-www-form-urlencoded").body("user=admin&password=wrong");
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn only_a_trusted_proxy_says_who_logs_in() {
    let up = Up::start(&["--trusted-proxy", "127.0.0.2,127.0.0.8/29"]).await;
    let refused = |address: &str| {
        let lines = up.limpet.lines();
        let of = format!("address=\"{address}\"");
        lines.iter().filter(|line| line.contains("log-in refused") && line.contains(&of)).count()
    };
    for n in 0..TRIES {
        assert_eq!(guess(&up, [127, 0, 0, 1], &format!("192.0.2.{n}")).await, StatusCode::UNAUTHORIZED);
    }
    let next = guess(&up, [127, 0, 0, 1], "192.0.2.200").await;
    assert_eq!(next, StatusCode::TOO_MANY_REQUESTS, "a stranger's claim buys no more tries");
    eventually("the log to name the address", async || (refused("127.0.0.1") >= TRIES).then_some(())).await;
    assert!(!up.limpet.lines().iter().any(|line| line.contains("192.0.2.")), "what nobody believes is not logged");

    // Through two proxies: the stranger stands left of them, and left of the stranger its own lies.
    for n in 0..TRIES {
        let forwarded = format!("203.0.113.{n}, 198.51.100.7, 127.0.0.9");
        assert_eq!(guess(&up, [127, 0, 0, 2], &forwarded).await, StatusCode::UNAUTHORIZED);
    }
    let chain = "203.0.113.99, 198.51.100.7, 127.0.0.9";
    assert_eq!(guess(&up, [127, 0, 0, 2], chain).await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        guess(&up, [127, 0, 0, 2], "198.51.100.8").await,
        StatusCode::UNAUTHORIZED,
        "another client of the proxy"
    );
    eventually("the log to name the clients", async || {
        (refused("198.51.100.7") >= TRIES && refused("198.51.100.8") == 1).then_some(())
    })
    .await;
}

/// Both roles: the worker's HTTP and the balancer's admin.
#[tokio::test]
async fn idle_connections_of_one_address_keep_nobody_out() {
    let up = Up::start(&[]).await;
    for (at, metric) in [(up.http, "limpet_worker"), (up.admin, "limpet_balancer")] {
        let idle: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(at).unwrap()).collect();
        let client = reqwest::Client::builder().local_address(IpAddr::from([127, 0, 0, 2])).build().unwrap();
        let text = client.get(format!("http://{at}/metrics")).send().await.unwrap().text().await.unwrap();
        let refused = format!("{metric}_http_connections_refused_total{{reason=\"address\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&refused)).unwrap_or_else(|| panic!("{text}"));
        assert!(count.parse::<u64>().unwrap() >= 44, "{count}");
        drop(idle);
    }
    let told = |line: &String| line.contains("refused an HTTP connection") && line.contains("127.0.0.1");
    eventually("a line about it", async || up.limpet.lines().iter().any(told).then_some(())).await;
}

#[tokio::test]
async fn a_connection_that_sends_half_a_header_is_closed() {
    let up = Up::start(&[]).await;
    for at in [up.http, up.admin] {
        let closed = tokio::task::spawn_blocking(move || {
            let mut connection = TcpStream::connect(at).unwrap();
            connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            connection.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
            connection.read(&mut [0; 100])
        });
        let closed = closed.await.unwrap();
        assert!(!matches!(&closed, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{closed:?}");
    }
}

#[tokio::test]
async fn a_wrong_old_password_is_logged_with_the_clients_address() {
    let up = Up::start(&[]).await;
    let (address, home) = (IpAddr::from([127, 0, 0, 3]), format!("http://{}", up.http));
    let client = reqwest::Client::builder().local_address(address).redirect(reqwest::redirect::Policy::none());
    let client = client.build().unwrap();
    let form = |path: &str, body: &'static str| {
        let request = client.post(format!("{home}{path}")).header("origin", &home).body(body);
        request.header("content-type", "application/x-www-form-urlencoded")
    };
    let logged_in = form("/login", "user=admin&password=black-box").send().await.unwrap();
    let cookie = logged_in.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let told = form("/password", "old=wrong&new=another-one").header("cookie", cookie).send().await.unwrap();
    assert!(told.text().await.unwrap().contains("the old one is not right"));
    let line = |line: &String| line.contains("log-in refused") && line.contains("address=\"127.0.0.3\"");
    eventually("the log to name the client", async || up.limpet.lines().iter().any(line).then_some(())).await;
}
