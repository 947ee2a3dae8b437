use std::net::SocketAddr;

use axum::{Extension, body::Body, routing::get};
use futures_util::StreamExt;
use hyper::client::conn::http2;
use prometheus::{IntCounterVec, IntGauge, Opts};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    task::JoinHandle,
    time::timeout,
};

use super::*;

/// Long enough for any machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(30);

/// `/large` is more than any socket holds; `/events` tells something now and then, and in between nothing.
fn answers() -> Router {
    let large = || async { vec![b'x'; LARGE] };
    let events = || async {
        let told = futures_util::stream::iter(0..4).then(async |n| {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok::<_, std::io::Error>(format!("event {n}\n"))
        });
        Body::from_stream(told)
    };
    Router::new().route("/large", get(large)).route("/events", get(events))
}

const LARGE: usize = 32 << 20;

struct Running {
    address: SocketAddr,
    counters: Counters,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// `/` tells the client's address; `/slow` takes a while.
    async fn start(limits: Limits, trusted: &[&str]) -> Self {
        let who =
            |Extension(ClientAddress(address)): Extension<ClientAddress>| async move { format!("you are {address}\n") };
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            "done\n"
        };
        let refused = IntCounterVec::new(Opts::new("refused", "Refused."), &["reason"]).unwrap();
        let counters = Counters { open: IntGauge::new("open", "Open.").unwrap(), refused };
        let service = Service {
            router: Router::new().route("/", get(who)).route("/slow", get(slow)).merge(answers()),
            proxies: Proxies::new(trusted.iter().map(|network| network.parse().unwrap())),
            limits,
            counters: counters.clone(),
        };
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, service, stop.clone()));
        Self { address, counters, stop, task }
    }

    async fn from(&self, address: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    fn refused(&self, reason: &str) -> u64 {
        self.counters.refused.with_label_values(&[reason]).get()
    }

    async fn ended(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("to end when told").unwrap();
    }
}

fn limits() -> Limits {
    let long = Duration::from_secs(600);
    Limits { all: 4_096, per_address: 256, per_site: 4_096, header: long, idle: long, unread: long }
}

/// What comes until the connection is closed.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("to be closed");
    String::from_utf8(text).unwrap()
}

async fn ask(mut stream: TcpStream, more: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    rest(stream).await
}

#[tokio::test]
async fn three_hundred_idle_connections_of_one_address_keep_nobody_else_out() {
    let running = Running::start(limits(), &[]).await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(running.from([127, 0, 0, 1]).await);
    }
    assert!(ask(running.from([127, 0, 0, 2]).await, "").await.ends_with("you are 127.0.0.2\n"));
    // They were accepted in the order in which they came.
    assert_eq!((running.refused("address"), running.refused("all")), (44, 0));
    assert_eq!(rest(idle.pop().unwrap()).await, "", "the last one was closed");
    idle.clear();
    while running.counters.open.get() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(ask(running.from([127, 0, 0, 1]).await, "").await.ends_with("you are 127.0.0.1\n"));
    running.ended().await;
}

#[tokio::test]
async fn a_trusted_proxy_may_have_more_and_only_the_number_of_all_bounds_it() {
    let running = Running::start(Limits { all: 20, per_address: 2, ..limits() }, &["127.0.0.1"]).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(running.from([127, 0, 0, 1]).await);
    }
    assert_eq!(rest(running.from([127, 0, 0, 1]).await).await, "");
    assert_eq!(rest(running.from([127, 0, 0, 2]).await).await, "");
    assert_eq!((running.refused("address"), running.refused("all")), (0, 2));
    running.ended().await;
}

#[tokio::test]
async fn whoever_sends_no_header_is_closed() {
    let running = Running::start(Limits { header: Duration::from_millis(300), ..limits() }, &[]).await;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let once = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let begun = format!("{once}GET / HT");
    for sent in ["", "P", "PRI * HTTP/2.0\r\n", preface, "GET / HT", "GET / HTTP/1.1\r\nhost: x\r\n", once, &begun] {
        let mut stream = running.from([127, 0, 0, 1]).await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap_or_else(|_| panic!("{sent:?} is left open"));
        assert_eq!(answer.starts_with(b"HTTP/1.1 200"), sent.starts_with(once), "{sent:?}");
    }
    running.ended().await;
}

#[tokio::test]
async fn an_answer_may_take_longer_than_a_header() {
    let running = Running::start(Limits { header: Duration::from_millis(100), ..limits() }, &[]).await;
    let mut stream = running.from([127, 0, 0, 1]).await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(rest(stream).await.ends_with("done\n"));
    running.ended().await;
}

#[tokio::test]
async fn only_trusted_proxies_say_whom_they_speak_for() {
    let running = Running::start(limits(), &["127.0.0.2/31"]).await;
    let told = "x-forwarded-for: 1.1.1.1, 198.51.100.7, 127.0.0.3\r\n";
    assert!(ask(running.from([127, 0, 0, 1]).await, told).await.ends_with("you are 127.0.0.1\n"));
    assert!(ask(running.from([127, 0, 0, 2]).await, told).await.ends_with("you are 198.51.100.7\n"));
    running.ended().await;
}

#[tokio::test]
async fn http_2_is_spoken_too_and_outlives_the_time_for_headers() {
    let running = Running::start(Limits { header: Duration::from_millis(200), ..limits() }, &[]).await;
    let stream = TokioIo::new(running.from([127, 0, 0, 3]).await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Body>(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..2 {
        let uri = format!("http://{}/", running.address);
        let answer = client.send_request(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
        let body = axum::body::to_bytes(Body::new(answer.into_body()), 100).await.unwrap();
        assert_eq!(body, "you are 127.0.0.3\n");
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    running.ended().await;
    timeout(PATIENCE, connection).await.expect("it is told to go").unwrap().unwrap();
}

#[tokio::test]
async fn what_is_in_work_is_answered_at_the_end_and_idle_ones_are_closed() {
    let running = Running::start(limits(), &[]).await;
    let (mut busy, mut idle) = (running.from([127, 0, 0, 1]).await, running.from([127, 0, 0, 1]).await);
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    idle.read_exact(&mut [0; 15]).await.unwrap();
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let silent = running.from([127, 0, 0, 1]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ended = tokio::spawn(running.ended());
    assert!(rest(busy).await.ends_with("done\n"));
    rest(idle).await;
    rest(silent).await;
    ended.await.unwrap();
}

#[tokio::test]
async fn answers_are_sent_without_delay() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (served, _) = accepted.unwrap();
    at_once(&served);
    assert!(served.nodelay().unwrap());
    drop(client);
}

type Http2 = (http2::SendRequest<Body>, JoinHandle<hyper::Result<()>>);

/// With so much room for answers.
async fn http_2(running: &Running, window: u32) -> Http2 {
    let stream = TokioIo::new(running.from([127, 0, 0, 1]).await);
    let mut client = http2::Builder::new(TokioExecutor::new());
    client.initial_stream_window_size(window).initial_connection_window_size(window);
    let (client, connection) = client.handshake(stream).await.unwrap();
    (client, tokio::spawn(connection))
}

async fn get_on(client: &mut Http2, running: &Running, path: &str) -> axum::http::Response<hyper::body::Incoming> {
    let uri = format!("http://{}{path}", running.address);
    client.0.send_request(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn whoever_asks_for_nothing_is_closed_and_gives_back_its_place() {
    let running = Running::start(Limits { idle: Duration::from_millis(300), ..limits() }, &[]).await;
    let mut once = running.from([127, 0, 0, 1]).await;
    once.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(rest(once).await.ends_with("you are 127.0.0.1\n"), "it is kept alive, and not for ever");
    let mut client = http_2(&running, 1 << 20).await;
    drop(get_on(&mut client, &running, "/").await);
    timeout(PATIENCE, client.1).await.expect("it is told to go").unwrap().unwrap();
    timeout(PATIENCE, async {
        while running.counters.open.get() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("all places back");
    running.ended().await;
}

#[tokio::test]
async fn a_stream_of_events_is_not_idle() {
    let limits = Limits { idle: Duration::from_millis(200), unread: Duration::from_millis(200), ..limits() };
    let running = Running::start(limits, &[]).await;
    let mut old = running.from([127, 0, 0, 1]).await;
    old.write_all(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut client = http_2(&running, 1 << 20).await;
    let events = get_on(&mut client, &running, "/events").await;
    let events = axum::body::to_bytes(Body::new(events.into_body()), 1_000).await.unwrap();
    assert!(events.ends_with(b"event 3\n"), "{events:?}");
    assert!(rest(old).await.contains("event 3\n"));
    running.ended().await;
}

#[tokio::test]
async fn whoever_takes_nothing_of_an_answer_is_closed_and_who_is_slow_is_not() {
    let running = Running::start(Limits { unread: Duration::from_millis(1_500), ..limits() }, &[]).await;
    let request = b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut stuck = running.from([127, 0, 0, 1]).await;
    stuck.write_all(request).await.unwrap();
    let mut client = http_2(&running, 100_000).await;
    let unread = get_on(&mut client, &running, "/large").await;
    let mut slow = running.from([127, 0, 0, 2]).await;
    slow.write_all(request).await.unwrap();
    let (mut taken, mut piece) = (0, vec![0; 4 << 20]);
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut some = 0;
        while some < piece.len() {
            let read = slow.read(&mut piece[some..]).await.unwrap();
            if read == 0 {
                break;
            }
            some += read;
        }
        taken += some;
        if some < piece.len() {
            break;
        }
    }
    assert!(taken > LARGE, "{taken}");
    let answered = |text: &str| text.len() < LARGE;
    timeout(PATIENCE, async {
        while running.counters.open.get() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("both to be closed");
    assert!(answered(&rest(stuck).await), "it was broken off");
    drop(unread);
    running.ended().await;
}
