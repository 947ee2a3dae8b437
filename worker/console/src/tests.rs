//! Rooms as a browser without scripts meets them, and as htmx does.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request as Http, StatusCode, header},
};
use http_body_util::BodyExt;
use limpet_api::{ADMIN, Api, ApiState, ClusterView, NoCluster, bootstrap, now};
use limpet_shared::{
    Eui64, UnixMicros,
    admin::{ErrorKind, Gateway, Reply, Request, Server, TokenInfo},
};
use limpet_store::{SqliteStore, Store};
use tower::ServiceExt;

use crate::{JoinLine, router};

mod people;
mod things;

const PASSWORD: &str = "correct horse";
const HOST: &str = "limpet.test:8080";
const NASTY: &str = "<script>alert('1')</script>\"&";

/// Balancers that remember what they were asked to do, and know a worker whose name is no name.
#[derive(Default)]
struct Balancers {
    asked: Mutex<Vec<Request>>,
}

#[async_trait]
impl ClusterView for Balancers {
    async fn gateways_changed(&self) {}
    async fn ask(&self, request: Request) -> Reply {
        self.asked.lock().unwrap().push(request.clone());
        let worker = |name: &str, state: &str, share| Server {
            name: name.into(),
            role: "worker".into(),
            state: state.into(),
            reason: NASTY.into(),
            share,
            ..Server::default()
        };
        match request {
            Request::Servers => Reply::Servers {
                servers: vec![
                    Server { role: "balancer".into(), combined: true, ..worker("edge", "ready", 0.0) },
                    worker("w1", "ready", 0.75),
                    worker(NASTY, "draining", 0.25),
                    worker("old", "gone", 0.0),
                ],
            },
            Request::GatewaysHeard { unknown: true, .. } => {
                let unknown = Gateway { eui: Eui64(7), last_seen: Some(now()), ..Gateway::default() };
                Reply::gateways(vec![unknown])
            }
            Request::GatewaysHeard { .. } => Reply::gateways(Vec::new()),
            Request::JoinToken { .. } => {
                Reply::JoinToken { token: "limpet1.secret".into(), expires_at: now(), note: String::new() }
            }
            Request::Tokens => {
                let expires_at = UnixMicros(now().0 + 3_600_000_000);
                Reply::Tokens {
                    tokens: vec![TokenInfo { id: "abcd".into(), uses: 1, expires_at, ..TokenInfo::default() }],
                }
            }
            Request::TokenRevoke { id } if id == "abcd" => Reply::Done { message: "abcd lets nobody in".into() },
            Request::Remove { name, .. } if name == "w1" => Reply::Done { message: "w1 was removed".into() },
            Request::Drain { name, .. } if name == "w1" => Reply::Done { message: "w1 gets no new frames".into() },
            _ => Reply::Error { kind: ErrorKind::NotFound, message: format!("no worker named {NASTY} is connected") },
        }
    }
}

struct Browser {
    console: Router,
    store: Arc<dyn Store>,
    cookie: String,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Browser {
    async fn new() -> Self {
        let store: Arc<dyn Store> = SqliteStore::in_memory().unwrap();
        bootstrap(&store, Some(PASSWORD.into())).await.unwrap();
        Self::over(store, Arc::new(Balancers::default()))
    }

    /// At another worker of the network.
    fn over(store: Arc<dyn Store>, cluster: Arc<dyn ClusterView>) -> Self {
        let api = Api::new(ApiState {
            store: store.clone(),
            codecs: limpet_codec::Codecs::default(),
            cluster,
            regions: vec!["eu868".into()],
            default_region: "eu868".into(),
            version: "0.1.0-test".into(),
            server: NASTY.into(),
            gwmp: Some("192.0.2.7:1700".into()),
        });
        let join = JoinLine::new("sqlite:store", std::path::Path::new("data")).unwrap();
        Self { console: router(api, join), store, cookie: String::new() }
    }

    async fn send(&self, request: axum::http::request::Builder, body: &str) -> Answer {
        let request = request.header(header::HOST, HOST).header(header::COOKIE, format!("a=b; {}", self.cookie));
        let answer = self.console.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Http::get(path), "").await
    }

    /// As htmx asks for a part.
    async fn part(&self, path: &str) -> Answer {
        self.send(Http::get(path).header("hx-request", "true"), "").await
    }

    async fn post(&self, path: &str, form: &str) -> Answer {
        self.send(self.form(path, &format!("http://{HOST}")), form).await
    }

    fn form(&self, path: &str, origin: &str) -> axum::http::request::Builder {
        let kind = "application/x-www-form-urlencoded";
        Http::post(path).header(header::CONTENT_TYPE, kind).header(header::ORIGIN, origin)
    }

    async fn log_in(&mut self, user: &str, password: &str) -> Answer {
        let answer = self.post("/login", &format!("user={user}&password={}", password.replace(' ', "+"))).await;
        if let Some((cookie, _)) = answer.header("set-cookie").split_once(';') {
            self.cookie = cookie.to_owned();
        }
        answer
    }

    async fn logged_in() -> Self {
        let mut browser = Self::new().await;
        assert_eq!(browser.log_in(ADMIN, PASSWORD).await.status, StatusCode::SEE_OTHER);
        browser
    }

    /// A user who may not administrate, with the same password.
    async fn add_user(&self) {
        let mut user = self.store.user_by_email(ADMIN).await.unwrap().unwrap();
        user.id = "00000000-0000-0000-0000-000000000007".parse().unwrap();
        user.email = "guest".into();
        user.is_admin = false;
        self.store.create_user(&user).await.unwrap();
    }
}

#[tokio::test]
async fn nobody_comes_in_without_logging_in() {
    let mut browser = Browser::new().await;
    for path in ["/", "/servers", "/servers/add", "/gateways", "/gateways/add"] {
        let answer = browser.get(path).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/login"), "{path}");
        let answer = browser.part(path).await;
        assert_eq!((answer.status, answer.header("hx-redirect")), (StatusCode::UNAUTHORIZED, "/login"), "{path}");
    }
    for (path, form) in [("/servers/add", "role=worker&uses=1&expires=60"), ("/servers/drain", "name=w1&on=true")] {
        assert_eq!(browser.post(path, form).await.header("location"), "/login", "{path}");
    }
    let answer = browser.log_in(ADMIN, "wrong").await;
    assert_eq!((answer.status, answer.header("set-cookie")), (StatusCode::UNAUTHORIZED, ""));
    assert!(answer.text.contains("the user or the password is wrong") && answer.text.contains("value=\"admin\""));
    browser.cookie = "limpet_session=nonsense".into();
    assert_eq!(browser.get("/").await.header("location"), "/login");
}

#[tokio::test]
async fn a_log_in_holds_at_every_worker_until_the_password_changes() {
    let browser = Browser::logged_in().await;
    let mut other = Browser::over(browser.store.clone(), Arc::new(NoCluster));
    other.cookie.clone_from(&browser.cookie);
    let page = other.get("/").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.text.contains("no balancer answers") && !page.text.contains("all that send are known"),
        "{}",
        page.text
    );
    let was = browser.store.user_by_email(ADMIN).await.unwrap().unwrap();
    let mut changed = was.clone();
    changed.password_hash.push('x');
    assert!(browser.store.update_user(&was, &changed).await.unwrap());
    assert_eq!(other.get("/").await.header("location"), "/login");
}

#[tokio::test]
async fn logging_out_takes_the_cookie_away() {
    let mut browser = Browser::new().await;
    let answer = browser.log_in(ADMIN, PASSWORD).await;
    let cookie = answer.header("set-cookie");
    for part in ["limpet_session=", "; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let answer = browser.post("/logout", "").await;
    assert!(answer.header("set-cookie").starts_with("limpet_session=; ") && answer.header("location") == "/login");
    assert!(answer.header("set-cookie").ends_with("Max-Age=0"));
}

#[tokio::test]
async fn guesses_come_to_an_end() {
    let mut browser = Browser::new().await;
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(browser.log_in("nobody", "guess").await.status);
    }
    assert_eq!((statuses[0], statuses[29]), (StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS));
}

#[tokio::test]
async fn another_sites_page_does_nothing_here() {
    let browser = Browser::logged_in().await;
    for path in ["/login", "/logout", "/servers/drain", "/servers/add", "/gateways/add"] {
        let answer = browser.send(browser.form(path, "http://evil.example"), "name=w1&on=true").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        let answer = browser.send(Http::post(path), "name=w1&on=true").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} from nowhere");
    }
}

#[tokio::test]
async fn who_is_no_administrator_sees_that_it_runs_and_no_more() {
    let mut browser = Browser::new().await;
    browser.add_user().await;
    browser.log_in("guest", PASSWORD).await;
    let overview = browser.get("/").await;
    assert_eq!(overview.status, StatusCode::OK);
    assert!(!overview.text.contains("w1") && !overview.text.contains("/servers"), "{}", overview.text);
    for path in [
        "/servers",
        "/servers/add",
        "/servers/remove?name=w1",
        "/servers/tokens",
        "/gateways",
        "/gateways/add",
        "/gateways/rename?eui=0000000000000001",
        "/devices",
        "/devices/one?eui=0000000000000001",
        "/devices/keys?eui=0000000000000001",
        "/integrations",
        "/integrations/events?id=x",
        "/users",
        "/keys",
    ] {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert!(answer.text.contains("Only an administrator") && !answer.text.contains("w1"));
    }
    let forms = [
        ("/servers/add", "role=worker&uses=1&expires=60"),
        ("/servers/remove", "name=w1"),
        ("/servers/drain", "name=w1&on=true"),
    ];
    for (path, form) in forms {
        let answer = browser.post(path, form).await;
        assert_eq!((answer.status, answer.text.contains("limpet1.")), (StatusCode::FORBIDDEN, false), "{path}");
    }
}

#[tokio::test]
async fn the_overview_says_what_runs_and_what_to_do_next() {
    let page = Browser::logged_in().await.get("/").await.text;
    for said in [
        "Not every server is ready",
        "192.0.2.7, UDP port 1700",
        "SQLite in memory",
        "eu868",
        "w1: 75 %",
        "limpet ctl gateway add 0000000000000007",
        "limpet ctl device add --dev-eui",
        "limpet ctl join-token",
        "0.1.0-test",
    ] {
        assert!(page.contains(said), "{said}");
    }
}

#[tokio::test]
async fn nothing_that_others_name_becomes_markup_and_nothing_is_inline() {
    let browser = Browser::logged_in().await;
    let drained = browser.post("/servers/drain", "name=x&on=true").await.text;
    let refused = browser.post("/gateways/add", "eui=%3Cscript%3Ealert('1')%3C/script%3E").await.text;
    let mut pages = vec![drained, refused];
    let nobody = "/servers/remove?name=%3Cscript%3Ealert('1')";
    for path in [
        "/",
        "/login",
        "/servers",
        "/servers/add",
        nobody,
        "/servers/tokens",
        "/gateways?q=%3Cscript%3Ealert('1')",
        "/gateways/add",
    ] {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        pages.push(answer.text);
        pages.push(browser.part(path).await.text);
    }
    for page in pages {
        assert!(!page.contains("<script>") && !page.contains("('1')"), "{page}");
        for inline in [" style=", " onclick=", "javascript:", "=\"http", "hx-on"] {
            assert!(!page.contains(inline), "{inline} in {page}");
        }
    }
}

#[tokio::test]
async fn the_line_that_adds_a_worker_says_where_it_works() {
    let browser = Browser::logged_in().await;
    let answer = browser.post("/servers/add", "role=worker&uses=10&expires=86400").await;
    assert_eq!((answer.status, answer.header("cache-control")), (StatusCode::OK, "no-store"));
    assert!(answer.text.contains(" worker --join limpet1.secret --store sqlite:/"), "{}", answer.text);
    assert!(answer.text.contains("10 workers within 24 h") && answer.text.contains("need a shared store"));
    let answer = browser.post("/servers/add", "role=balancer&uses=1&expires=3600").await;
    assert!(answer.text.contains("<code tabindex=\"0\">limpet balancer --join limpet1.secret</code>"));
    assert!(!browser.get("/servers").await.text.contains("limpet1."), "it is shown once");
    let wrong = browser.post("/servers/add", "role=king&uses=1&expires=3600").await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn draining_says_what_became_of_it() {
    let browser = Browser::logged_in().await;
    let page = browser.post("/servers/drain", "name=w1&on=true&sure=true").await.text;
    assert!(page.contains("<!doctype html>") && page.contains("w1 gets no new frames."));
    let request = browser.form("/servers/drain", &format!("http://{HOST}")).header("hx-request", "true");
    let part = browser.send(request, "name=w1&on=true&sure=true").await;
    assert_eq!(part.header("hx-trigger"), "limpet:done");
    assert!(!part.text.contains("<!doctype html>") && part.text.contains("w1 gets no new frames."));
    assert!(part.text.contains("hx-swap-oob"));
    let page = browser.post("/servers/drain", "name=no&on=true").await.text;
    assert!(page.contains("no worker named"));
}

#[tokio::test]
async fn removing_asks_first_and_is_refused_where_it_was_asked() {
    let browser = Browser::logged_in().await;
    let list = browser.get("/servers").await.text;
    assert!(list.contains("/servers/remove?name=w1") && list.contains("/servers/remove?name=old"));
    assert!(!list.contains("/servers/remove?name=edge"), "a part of `limpet up`");
    let question = browser.get("/servers/remove?name=w1").await.text;
    assert!(question.contains("Remove w1?") && question.contains("its process ends"));
    let missing = browser.get("/servers/remove?name=nobody").await.text;
    assert!(
        missing.contains("There is no server nobody any more.")
            && !missing.contains("method=\"post\" action=\"/servers")
    );
    assert!(browser.post("/servers/remove", "name=w1").await.text.contains("w1 was removed."));
    let request = browser.form("/servers/remove", &format!("http://{HOST}")).header("hx-request", "true");
    let refused = browser.send(request, "name=old").await;
    assert_eq!((refused.header("hx-retarget"), refused.header("hx-trigger")), ("#ask", ""));
    assert!(refused.text.contains("no worker named"));
}

#[tokio::test]
async fn a_token_is_revoked() {
    let browser = Browser::logged_in().await;
    assert!(browser.get("/servers/tokens").await.text.contains("0 of 1"));
    assert!(browser.post("/servers/tokens/revoke", "id=abcd").await.text.contains("abcd lets nobody in."));
    assert!(browser.post("/servers/tokens/revoke", "id=no").await.text.contains("no worker named"));
}

#[tokio::test]
async fn a_gateway_is_added_or_the_reason_is_said_where_it_was_asked() {
    let browser = Browser::logged_in().await;
    let page = browser.post("/gateways/add", "eui=0016c001ff10a235&name=roof+1").await.text;
    assert!(page.contains("belongs to tenant Limpet now.") && page.contains(">roof 1<"), "{page}");
    let request = browser.form("/gateways/add", &format!("http://{HOST}")).header("hx-request", "true");
    let again = browser.send(request, "eui=0016c001ff10a235&name=").await;
    assert_eq!(again.header("hx-retarget"), "#ask");
    assert!(again.text.contains("already exists"), "{}", again.text);
    assert!(browser.post("/gateways/add", "eui=12").await.text.contains("16 hexadecimal digits"));
    let list = browser.part("/gateways?q=ROOF").await.text;
    assert!(list.contains("roof 1") && !list.contains("0000000000000007"), "{list}");
    assert!(browser.part("/gateways").await.text.contains("/gateways/add?eui=0000000000000007"));
}

#[tokio::test]
async fn no_balancer_is_said_in_words() {
    let mut browser = Browser::logged_in().await;
    browser = Browser { console: Browser::over(browser.store.clone(), Arc::new(NoCluster)).console, ..browser };
    assert!(browser.get("/").await.text.contains("No balancer answers this worker"));
    let servers = browser.get("/servers").await;
    assert_eq!(servers.status, StatusCode::OK);
    assert!(servers.text.contains("not known at the moment: no balancer is connected."));
    assert!(browser.get("/gateways").await.text.contains("no balancer is connected."));
    let add = browser.post("/servers/add", "role=worker&uses=1&expires=3600").await.text;
    assert!(add.contains("no balancer is connected.") && !add.contains("limpet1."));
}

#[tokio::test]
async fn files_are_kept_under_the_address_of_their_content_only() {
    let browser = Browser::new().await;
    let page = browser.get("/login").await.text;
    let addresses: Vec<&str> = page.split('"').filter(|part| part.starts_with("/assets/")).collect();
    assert_eq!(addresses.len(), 4, "{addresses:?}");
    for address in addresses {
        let file = browser.get(address).await;
        assert!(file.status == StatusCode::OK && file.header("cache-control").contains("immutable"), "{address}");
        assert!(
            ["text/css; charset=utf-8", "text/javascript; charset=utf-8", "image/svg+xml"]
                .contains(&file.header("content-type"))
        );
        let (path, _) = address.split_once('?').unwrap();
        assert_eq!(browser.get(path).await.header("cache-control"), "no-store");
    }
    assert_eq!(browser.get("/assets/htmx.LICENSE").await.status, StatusCode::NOT_FOUND);
    assert_eq!(browser.get("/assets/..%2Flib.rs").await.status, StatusCode::NOT_FOUND);
}
