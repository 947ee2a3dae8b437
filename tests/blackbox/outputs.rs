//! Outputs that nobody reads: the reader has gone, or does not read, or there never was one. Every role starts, serves, and
//! ends with status 0 when it is told to.

use std::{
    io::{BufRead, BufReader, Write, pipe},
    net::SocketAddr,
    os::fd::AsFd,
    path::Path,
    process::Command,
};

use crate::support::{Limpet, ctl, free_addresses};

/// What becomes of what a process writes.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// There is none, and no pipe either: `>&- 2>&-`.
    Closed,
    /// It went after so many lines, as `head` does.
    Gone(usize),
    /// It is there and does not read, and the pipe is full from the start.
    Stuck,
}

const READERS: [Reader; 4] = [Reader::Closed, Reader::Gone(0), Reader::Gone(2), Reader::Stuck];

/// A process with such a reader of both its outputs. What is returned keeps the pipe as it is.
fn start(reader: Reader, arguments: &[&str]) -> (Limpet, Box<dyn std::any::Any>) {
    if let Reader::Closed = reader {
        let quoted: Vec<String> = arguments.iter().map(|argument| format!("'{argument}'")).collect();
        let line = format!("{} {} >&- 2>&-", env!("CARGO_BIN_EXE_limpet"), quoted.join(" "));
        return (Limpet::pasted("closed", &line, Path::new("/")), Box::new(()));
    }
    let (read, mut write) = pipe().unwrap();
    if let Reader::Stuck = reader {
        let size = rustix::pipe::fcntl_setpipe_size(write.as_fd(), 4_096).unwrap();
        write.write_all(&vec![b'.'; size]).unwrap();
    }
    let limpet = Limpet::start_at("outputs", arguments, |command: &mut Command| {
        command.stdout(write.try_clone().unwrap()).stderr(write);
    });
    match reader {
        Reader::Gone(lines) => {
            let taken: Vec<_> = BufReader::new(read).lines().take(lines).collect();
            assert_eq!(taken.len(), lines);
            (limpet, Box::new(()))
        }
        _ => (limpet, Box::new(read)),
    }
}

async fn ends_when_told(mut limpet: Limpet, serves: (SocketAddr, &str), what: &str) {
    limpet.answers(serves.0, serves.1).await;
    limpet.terminate();
    let stopped = limpet.stopped().await;
    assert_eq!(stopped.status.code(), Some(0), "{what}: {stopped:?}");
}

#[tokio::test]
async fn up_serves_and_ends_whoever_reads() {
    for reader in READERS {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data").display().to_string();
        let [gwmp, link, admin, http] = free_addresses().map(|address| address.to_string());
        let where_to = ["--gwmp", &gwmp, "--link", &link, "--admin", &admin, "--http", &http];
        let (limpet, _held) =
            start(reader, &[&["up", "--data", &data, "--log-level", "debug"], &where_to[..]].concat());
        ends_when_told(limpet, (http.parse().unwrap(), "/readyz"), &format!("up, {reader:?}")).await;
    }
}

#[tokio::test]
async fn a_balancer_and_a_worker_serve_and_end_whoever_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [gwmp, link, admin] = free_addresses().map(|address| address.to_string());
    let edge = ["balancer", "--data", &path("edge"), "--gwmp", &gwmp, "--link", &link, "--advertise", &link];
    let mut edge = Limpet::start("edge", &[&edge[..], &["--admin", &admin]].concat());
    edge.answers(admin.parse().unwrap(), "/healthz").await;
    let made = ctl(&folder.path().join("edge"), &["join-token"]);
    let token = String::from_utf8(made.stdout).unwrap().lines().last().unwrap().to_owned();
    let store = format!("sqlite:{}", path("store"));
    for (number, reader) in READERS.into_iter().enumerate() {
        let [gwmp, link, admin, http] = free_addresses().map(|address| address.to_string());
        // Its first start, at which it founds a cluster of its own.
        let data = path(&format!("balancer-{number}"));
        let first = ["balancer", "--data", &data, "--gwmp", &gwmp, "--link", &link, "--admin", &admin];
        let (limpet, _held) = start(reader, &first);
        ends_when_told(limpet, (admin.parse().unwrap(), "/healthz"), &format!("balancer, {reader:?}")).await;
        let (name, data) = (format!("w{number}"), path(&format!("worker-{number}")));
        let worker = ["worker", "--name", &name, "--data", &data, "--store", &store, "--http", &http, "--join", &token];
        let (limpet, _held) = start(reader, &worker);
        ends_when_told(limpet, (http.parse().unwrap(), "/readyz"), &format!("worker, {reader:?}")).await;
    }
}

/// A password that nobody got is no success.
#[tokio::test]
async fn what_cannot_be_printed_is_an_error_and_flags_stand_before_or_after_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let [gwmp, link, admin, http] = free_addresses().map(|address| address.to_string());
    let where_to = ["--gwmp", &gwmp, "--link", &link, "--admin", &admin, "--http", &http];
    let mut up = Limpet::start("up", &[&["up", "--data", &data], &where_to[..]].concat());
    up.answers(http.parse().unwrap(), "/readyz").await;
    up.terminate();
    up.stopped().await;
    let store = format!("sqlite:{data}/store");
    let run = |arguments: &[&str], full: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_limpet"));
        command.arg("ctl").args(arguments);
        if full {
            command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        }
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    for line in [
        ["--store", &store, "user", "list"],
        ["user", "--store", &store, "list"],
        ["user", "list", "--store", &store],
        ["--store", &store, "api-key", "list"],
    ] {
        let (code, out, error) = run(&line, false);
        assert!(code == Some(0) && (out.contains("admin") || out.contains("API key")), "{line:?}: {out} {error}");
    }
    let (code, _, error) = run(&["--store", &store, "migrate"], false);
    assert_eq!(code, Some(0), "{error}");
    let (code, _, error) = run(&["--store", &store, "servers"], false);
    assert!(code == Some(1) && error.contains("--store has no effect here"), "{error}");
    let (code, _, error) = run(&["--store", &store, "user", "password", "admin"], true);
    assert!(code == Some(1) && error.contains("got lost"), "{code:?}: {error}");
}
