use axum::{Json, Router, http::HeaderMap, routing::post};
use clap::Parser;
use limpet_shared::{
    Eui64, UnixMicros,
    admin::{ErrorKind, Server},
};

use super::*;
use crate::cli::{Cli, Command};

/// What a server could answer.
async fn answer(request: Request) -> Reply {
    match request {
        Request::JoinToken { role: Role::Balancer, expires_in_secs: 604_800, uses: 3 } => {
            Reply::JoinToken { token: "limpet1.a.b".into(), expires_at: UnixMicros(1), note: String::new() }
        }
        Request::Servers => {
            Reply::Servers { servers: vec![Server { name: "w1".into(), state: "ready".into(), ..Server::default() }] }
        }
        Request::DeviceAdd(DeviceAdd { dev_eui: Eui64(1), app_key: Some(_), dev_addr: None, .. }) => {
            Reply::Done { message: "added".into() }
        }
        Request::Drain { name, .. } => {
            Reply::Error { kind: ErrorKind::NotFound, message: format!("no worker named {name} is connected") }
        }
        other => Reply::Error { kind: ErrorKind::Invalid, message: format!("{other:?}") },
    }
}

async fn ctl(line: &[&str]) -> Result<String, String> {
    let cli = Cli::try_parse_from([&["limpet", "ctl"], line].concat()).map_err(|e| e.to_string())?;
    let Command::Ctl(args) = cli.command else { panic!("{line:?} is no ctl") };
    run(args).await.map_err(|e| e.to_string())
}

#[tokio::test]
async fn a_running_process_answers_for_people_and_for_programs() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    let refused = ctl(&["servers", "--data", &data]).await.unwrap_err();
    assert_eq!(refused, format!("no limpet is running with --data {data}"));

    let _running = admin_socket::serve(&admin_socket::path(folder.path()), answer).await.unwrap();
    let token = ["join-token", "--role", "balancer", "--expires", "7d", "--uses", "3", "--data", &data];
    assert_eq!(ctl(&token).await.unwrap().lines().last(), Some("limpet1.a.b"));
    let table = ctl(&["servers", "--data", &data]).await.unwrap();
    assert!(table.starts_with("NAME") && table.contains("w1"), "{table}");
    let json = ctl(&["servers", "--json", "--data", &data]).await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["servers"][0]["name"], "w1");
    let key = "00112233445566778899aabbccddeeff";
    let device = ["device", "add", "--dev-eui", "0000000000000001", "--app-key", key, "--data", &data];
    assert_eq!(ctl(&device).await.unwrap(), "added\n");
    let file = folder.path().join("key");
    let device =
        ["device", "add", "--dev-eui", "0000000000000001", "--app-key-file", file.to_str().unwrap(), "--data", &data];
    std::fs::write(&file, format!("{key}\n")).unwrap();
    assert_eq!(ctl(&device).await.unwrap(), "added\n");
    std::fs::write(&file, format!("{key}00\n")).unwrap();
    let error = ctl(&device).await.unwrap_err();
    assert!(error.contains("--app-key-file: the file's first line is no key") && !error.contains(key), "{error}");
    let error = ctl(&["drain", "w9", "--json", "--data", &data]).await.unwrap_err();
    assert_eq!(error, "no worker named w9 is connected");
}

/// Whoever reads JSON finds the reason in it, as in the API's answers; a command line that cannot be read is no exception.
#[test]
fn an_error_is_a_document_of_its_kind() {
    let read = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let error = CtlError::Refused(ErrorKind::NotFound, "no such gateway".into());
    let told = serde_json::json!({ "answer": "error", "kind": "not_found", "message": "no such gateway" });
    assert_eq!((read(error_document(true, &error)), error_document(false, &error)), (told, String::new()));
    let of = |words: &[&str]| {
        let line: Vec<std::ffi::OsString> = words.iter().map(Into::into).collect();
        let error = <Cli as clap::CommandFactory>::command().try_get_matches_from(&line).unwrap_err();
        usage_document(&line, &error)
    };
    let told = read(of(&["limpet", "ctl", "--json", "join-token", "--uses", "0"]));
    assert_eq!((&told["kind"], told["answer"].as_str()), (&"invalid".into(), Some("error")));
    assert!(told["message"].as_str().unwrap().contains("--uses"), "{told}");
    assert_eq!(of(&["limpet", "ctl", "join-token", "--uses", "0"]), "");
    assert_eq!(of(&["limpet", "ctl", "--json", "--help"]), "", "which is no error");
}

/// A worker's API that knows the key `good`.
async fn api() -> String {
    let question = |headers: HeaderMap, Json(request): Json<Request>| async move {
        match headers.get("authorization").and_then(|value| value.to_str().ok()) {
            Some("Bearer good") => Ok(Json(answer(request).await)),
            _ => Err(axum::http::StatusCode::UNAUTHORIZED),
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().route("/api/cluster/ctl", post(question));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn an_api_answers_whoever_has_a_key() {
    let url = api().await;
    let table = ctl(&["--server", &url, "--token", "good", "servers"]).await.unwrap();
    assert!(table.contains("w1"), "{table}");
    let refused = ctl(&["--server", &url, "--token", "bad", "servers"]).await.unwrap_err();
    assert!(refused.contains("does not accept this API key"), "{refused}");
    for (server, token, cause) in [
        ("ftp://h", "k", "must be an http:// or https:// address"),
        ("http://127.0.0.1:1", "k", "no answer from http://127.0.0.1:1"),
        ("http://127.0.0.1:1", "k k", "must be an API key"),
    ] {
        let error = ctl(&["--server", server, "--token", token, "servers"]).await.unwrap_err();
        assert!(error.contains(cause) && !error.contains('\n'), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "Its id is 1; the key itself is not shown again:\ngood\n").unwrap();
    let table = ctl(&["--server", &url, "--token-file", file.to_str().unwrap(), "servers"]).await.unwrap();
    assert!(table.contains("w1"), "{table}");
    let missing = ctl(&["--server", &url, "servers", "--token-file", "/nowhere/key"]).await.unwrap_err();
    assert!(missing.starts_with("--token-file /nowhere/key: it cannot be read"), "{missing}");
    let none = ctl(&["--server", &url, "servers"]).await.unwrap_err();
    assert_eq!(none, "--server needs an API key: give --token or --token-file");
    let elsewhere = ctl(&["--server", &format!("{url}x"), "--token", "good", "servers"]).await.unwrap_err();
    assert!(elsewhere.contains("answers 404, not as Limpet's API does"), "{elsewhere}");
}

#[tokio::test]
async fn people_get_in_again_by_the_store_of_a_stopped_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    let refused = ctl(&["user", "password", "admin", "--data", &data]).await.unwrap_err();
    assert!(
        refused.contains(&format!("if it is stopped, say --store URL, such as --store sqlite:{data}/store")),
        "{refused}"
    );
    let url = format!("sqlite:{data}/store");
    assert!(ctl(&["user", "list", "--store", &url]).await.unwrap_err().contains("there is no store in"));
    let store = limpet_store::open(&url).await.unwrap();
    limpet_api::bootstrap(&store, None).await.unwrap();
    let hash = async || store.user_by_email("admin").await.unwrap().unwrap().password_hash;
    let before = hash().await;
    let told = ctl(&["user", "password", "admin", "--store", &url]).await.unwrap();
    let password = told.lines().last().unwrap();
    assert!(password.len() >= 16 && !password.contains(' ') && hash().await != before, "{told}");
    let key = ctl(&["api-key", "create", "deploy", "--read-only", "--store", &url]).await.unwrap();
    assert_eq!(key.lines().last().unwrap().split('.').count(), 3, "{key}");
    let json = ctl(&["--json", "api-key", "list", "--store", &url]).await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["api_keys"][0]["name"], &json["api_keys"][0]["read_only"]), (&"deploy".into(), &true.into()));
    let file = folder.path().join("pw");
    std::fs::write(&file, "short\n").unwrap();
    let by_file = ["user", "add", "ann@example.org", "--password-file", file.to_str().unwrap(), "--store", &url];
    assert!(ctl(&by_file).await.unwrap_err().contains("at least 8 characters"));
    std::fs::write(&file, "long enough\n").unwrap();
    let kept = folder.path().join("url");
    std::fs::write(&kept, format!("{url}\n")).unwrap();
    let kept = kept.display().to_string();
    assert!(ctl(&["user", "list", "--store-file", &kept]).await.unwrap().contains("admin"));
    let said = ctl(&["migrate", "--store-file", &kept]).await.unwrap();
    assert!(said.contains("already"), "{said}");
    assert!(!ctl(&by_file).await.unwrap().contains("long enough"));
}
