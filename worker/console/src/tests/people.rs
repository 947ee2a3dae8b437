//! Users, API keys, and what is asked about before it is done.

use super::*;

/// What a page shows once.
fn shown_once(page: &str) -> String {
    let (_, rest) = page.split_once("<code tabindex=\"0\">").unwrap_or_else(|| panic!("nothing is shown in {page}"));
    rest.split('<').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_user_is_added_gets_a_new_password_and_is_deleted() {
    let browser = Browser::logged_in().await;
    let added = browser.post("/users/add", "email=ann%40example.org&password=&admin=true").await.text;
    let password = shown_once(&added);
    let mut ann = Browser { console: browser.console.clone(), store: browser.store.clone(), cookie: String::new() };
    assert_eq!(ann.log_in("ann%40example.org", &password).await.status, StatusCode::SEE_OTHER);
    assert!(ann.get("/users").await.text.contains("ann@example.org"));
    let short = browser.post("/users/password", "email=ann%40example.org&password=short").await.text;
    assert!(short.contains("at least 8 characters"), "{short}");
    let given = browser.post("/users/password", "email=ann%40example.org&password=").await.text;
    assert_ne!(shown_once(&given), password);
    assert_eq!(ann.get("/").await.header("location"), "/login", "the old log-in has ended");
    assert!(browser.get("/users/remove?email=ann%40example.org").await.text.contains("Delete ann@example.org?"));
    assert!(browser.post("/users/remove", "email=ann%40example.org").await.text.contains("was deleted"));
    assert!(browser.post("/users/remove", "email=admin").await.text.contains("You cannot delete yourself"));
    assert!(!browser.get("/users").await.text.contains("ann@example.org"));
}

#[tokio::test]
async fn ones_own_password_ends_all_log_ins_but_this_one() {
    let mut browser = Browser::logged_in().await;
    let mut elsewhere =
        Browser { console: browser.console.clone(), store: browser.store.clone(), cookie: String::new() };
    elsewhere.log_in(ADMIN, PASSWORD).await;
    let wrong = browser.post("/password", "old=wrong&new=another-one").await;
    assert!(wrong.text.contains("the old one is not right") && wrong.header("set-cookie").is_empty());
    let changed = browser.post("/password", "old=correct+horse&new=another-one").await;
    assert!(changed.text.contains("You have a new password"), "{}", changed.text);
    browser.cookie = changed.header("set-cookie").split(';').next().unwrap().to_owned();
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
    assert_eq!(elsewhere.get("/").await.header("location"), "/login");
}

#[tokio::test]
async fn an_api_key_is_made_shown_once_and_deleted() {
    let browser = Browser::logged_in().await;
    let made = browser.post("/keys/add", "name=dash&tenant=Limpet&read_only=true").await.text;
    let token = shown_once(&made);
    assert!(token.split('.').count() == 3 && made.contains("may look at everything of tenant Limpet"), "{made}");
    let list = browser.get("/keys").await.text;
    assert!(list.contains("dash") && !list.contains(&token));
    assert!(browser.post("/keys/add", "name=x&tenant=nowhere").await.text.contains("does not exist"));
    let id = list.split("data-key=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(browser.post("/keys/remove", &format!("id={id}")).await.text.contains("counts no more"));
    assert!(browser.get("/keys").await.text.contains("There is none yet"));
}

#[tokio::test]
async fn taking_away_the_last_worker_is_asked_about_with_what_stops() {
    let browser = Browser::logged_in().await;
    let what = "no uplink is acknowledged";
    let question = browser.post("/servers/drain", "name=w1&on=true").await.text;
    assert!(question.contains("Drain w1?") && question.contains(what) && !question.contains("w1 gets no new frames"));
    let meant = browser.post("/servers/drain", "name=w1&on=true&sure=true").await.text;
    assert!(meant.contains("w1 gets no new frames."));
    assert!(browser.get("/servers/remove?name=w1").await.text.contains(what));
    assert!(!browser.get("/servers/remove?name=old").await.text.contains(what));
}
