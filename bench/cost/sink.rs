//! Where events go: the least HTTP server that a webhook can be. It notes when the event of which uplink came first.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use limpet_shared::Eui64;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::Outcome;

const MOST: usize = 1 << 20;

/// DevEUI and FCntUp.
pub type Uplink = (Eui64, u32);

#[derive(Clone, Default)]
pub struct Sink {
    told: Arc<Mutex<HashMap<Uplink, (Instant, String)>>>,
    odd: Arc<AtomicUsize>,
}

impl Sink {
    /// Listens on a thread of its own.
    pub fn start() -> Outcome<(Self, SocketAddr)> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let (address, sink) = (listener.local_addr()?, Self::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mine = sink.clone();
        std::thread::spawn(move || runtime.block_on(mine.accept(listener)));
        Ok((sink, address))
    }

    /// How many came again under another id.
    pub fn odd(&self) -> usize {
        self.odd.load(Ordering::Relaxed)
    }

    /// When each came first, and its id.
    pub fn told(&self) -> MutexGuard<'_, HashMap<Uplink, (Instant, String)>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, event: &str) {
        let Some(uplink) = uplink(event) else { return };
        let id = value(event, "\"deduplicationId\"").unwrap_or_default();
        let mut told = self.told();
        let known = told.entry(uplink).or_insert_with(|| (Instant::now(), id.to_owned()));
        if known.1 != id {
            self.odd.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn accept(self, listener: std::net::TcpListener) {
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        while let Ok((stream, _)) = listener.accept().await {
            let sink = self.clone();
            tokio::spawn(async move { sink.serve(stream).await });
        }
    }

    /// Until the client closes, or says what this server does not understand.
    async fn serve(&self, stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut stream = BufReader::new(stream);
        loop {
            let (mut length, mut line) = (0, String::new());
            loop {
                line.clear();
                if stream.read_line(&mut line).await.ok()? == 0 {
                    return None;
                }
                if line.trim().is_empty() {
                    break;
                }
                let (name, value) = line.split_once(':').unwrap_or_default();
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().ok().filter(|length| *length <= MOST)?;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.ok()?;
            self.hear(&String::from_utf8_lossy(&body));
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok()?;
        }
    }
}

fn value<'a>(event: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = event.split_once(name)?;
    let rest = rest.trim_start_matches([':', '"', ' ']);
    rest.split(['"', ',', '}']).next()
}

fn uplink(event: &str) -> Option<Uplink> {
    Some((value(event, "\"devEui\"")?.parse().ok()?, value(event, "\"fCnt\"")?.parse().ok()?))
}
