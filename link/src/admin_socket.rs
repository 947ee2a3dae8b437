//! The operator's socket of a running process, `DATA/ctl.sock`: one [`Request`] as a line of JSON, one [`Reply`] as a
//! line of JSON, then the end. Only the owner of the process (and root) may ask.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use limpet_shared::admin::{ErrorKind, Reply, Request};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use crate::files::FileError;

/// Longest question; a line that is longer is refused.
const REQUEST_MAX: u64 = 64 << 10;
/// Longest answer: a table of a few hundred thousand gateways.
const REPLY_MAX: u64 = 64 << 20;
/// Questions in work; more wait.
const AT_ONCE: usize = 16;
/// A question must have arrived after this long.
const ASK_TIME: Duration = Duration::from_secs(5);
/// An answer must have come after this long.
const REPLY_TIME: Duration = Duration::from_secs(30);

/// Where the socket is under `--data`.
pub fn path(data: &Path) -> PathBuf {
    data.join("ctl.sock")
}

/// Why the socket cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("another limpet is running with --data {}", .0.display())]
    Taken(PathBuf),
    #[error(transparent)]
    File(#[from] FileError),
}

/// The socket of a running process. Dropping it removes it.
pub struct AdminSocket {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

/// Offers the socket at `path` and answers what comes with `handler`, until the result is dropped. A socket that a
/// killed process left is replaced. Needs a running tokio runtime.
pub async fn serve<F, A>(path: &Path, handler: F) -> Result<AdminSocket, ServeError>
where
    F: Fn(Request) -> A + Send + Sync + 'static,
    A: Future<Output = Reply> + Send + 'static,
{
    let folder = path.parent().unwrap_or(Path::new(""));
    let failed = |e| FileError::new("offer the socket", path, e);
    if UnixStream::connect(path).await.is_ok() {
        return Err(ServeError::Taken(folder.to_owned()));
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e).into()),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let owner = peer_of_ourselves().map_err(failed)?;
    let task = tokio::spawn(accept(listener, owner, Arc::new(handler)));
    Ok(AdminSocket { path: path.to_owned(), task })
}

/// Our own user id, as the kernel tells it of a peer.
fn peer_of_ourselves() -> io::Result<u32> {
    let (one, _other) = UnixStream::pair()?;
    Ok(one.peer_cred()?.uid())
}

async fn accept<F, A>(listener: UnixListener, owner: u32, handler: Arc<F>)
where
    F: Fn(Request) -> A + Send + Sync + 'static,
    A: Future<Output = Reply> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely; a moment helps, and spinning does not.
                tracing::warn!(%error, "cannot accept on the operator's socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Between bind and chmod the file's mode is the umask's; what counts is who asks.
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == owner || peer.uid() == 0) {
            continue;
        }
        let handler = handler.clone();
        tokio::spawn(async move {
            if let Err(error) = answer(stream, &*handler).await {
                tracing::debug!(%error, "an operator's question was not answered");
            }
            drop(place);
        });
    }
}

async fn answer<F, A>(stream: UnixStream, handler: &F) -> io::Result<()>
where
    F: Fn(Request) -> A,
    A: Future<Output = Reply>,
{
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(REQUEST_MAX));
    tokio::time::timeout(ASK_TIME, reader.read_line(&mut line)).await??;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => handler(request).await,
        Err(e) => Reply::Error { kind: ErrorKind::Invalid, message: format!("the question cannot be read: {e}") },
    };
    let mut text = serde_json::to_vec(&reply).map_err(|e| io::Error::other(e.to_string()))?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    writer.shutdown().await
}

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no limpet is running with --data {}", .0.display())]
    NotRunning(PathBuf),
    #[error("the socket {} may be used only by the user that runs limpet there", .0.display())]
    Denied(PathBuf),
    #[error("no answer from the limpet that runs with --data {}: {reason}", data.display())]
    NoAnswer { data: PathBuf, reason: String },
}

/// Asks the process that runs with `--data DATA`.
pub async fn ask(data: &Path, request: &Request) -> Result<Reply, AskError> {
    let path = path(data);
    let no_answer = |reason: String| AskError::NoAnswer { data: data.to_owned(), reason };
    let stream = UnixStream::connect(&path).await.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
            AskError::NotRunning(data.to_owned())
        }
        io::ErrorKind::PermissionDenied => AskError::Denied(path.clone()),
        _ => no_answer(e.to_string()),
    })?;
    let exchange = async {
        let (reader, mut writer) = stream.into_split();
        let mut text = serde_json::to_vec(request).map_err(|e| io::Error::other(e.to_string()))?;
        text.push(b'\n');
        writer.write_all(&text).await?;
        let mut line = Vec::new();
        BufReader::new(reader.take(REPLY_MAX)).read_until(b'\n', &mut line).await?;
        io::Result::Ok(line)
    };
    let line = tokio::time::timeout(REPLY_TIME, exchange).await;
    let line = line.map_err(|_| no_answer(format!("it took longer than {} s", REPLY_TIME.as_secs())))?;
    let line = line.map_err(|e| no_answer(e.to_string()))?;
    if line.is_empty() {
        // Root's process asked by another user, or one that stops.
        return Err(no_answer("it hung up; only the user that runs it may ask".into()));
    }
    serde_json::from_slice(&line).map_err(|e| no_answer(format!("the answer cannot be read: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn done(request: Request) -> Reply {
        Reply::Done { message: format!("{request:?}") }
    }

    #[tokio::test]
    async fn a_question_is_answered_until_the_socket_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let socket = path(data);
        assert!(matches!(ask(data, &Request::Servers).await, Err(AskError::NotRunning(_))));
        // As a killed process leaves it.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(matches!(ask(data, &Request::Servers).await, Err(AskError::NotRunning(_))));
        let running = serve(&socket, done).await.unwrap();
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        let reply = ask(data, &Request::Servers).await.unwrap();
        assert_eq!(reply, Reply::Done { message: "Servers".into() });
        assert!(matches!(serve(&socket, done).await, Err(ServeError::Taken(_))));
        drop(running);
        assert!(matches!(ask(data, &Request::Servers).await, Err(AskError::NotRunning(_))));
    }

    #[tokio::test]
    async fn nonsense_is_answered_with_its_cause() {
        let folder = tempfile::tempdir().unwrap();
        let socket = path(folder.path());
        let _running = serve(&socket, done).await.unwrap();
        for (sent, expected) in [("{\"ask\":\"fly\"}\n", "unknown variant"), ("\n", "EOF"), ("[1\n", "cannot be read")]
        {
            let mut stream = UnixStream::connect(&socket).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            assert!(reply.contains("invalid") && reply.contains(expected), "{reply}");
        }
    }
}
