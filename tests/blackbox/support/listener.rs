//! Listening in the test's own process.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::net::TcpListener;

/// Listens there. A process that is just being started by another test has for a moment what this one had open, be it only to
/// look whether the port was free.
pub async fn listen(address: SocketAddr) -> TcpListener {
    let give_up = Instant::now() + Duration::from_secs(5);
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < give_up => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            listener => return listener.unwrap(),
        }
    }
}
