//! File descriptors of which the runtime tells when they can be read, or written.
#![allow(unsafe_code, reason = "tokio leaves it to its user that a file descriptor stays open, which these types say")]

use std::{
    io,
    net::UdpSocket,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// One that stays what it is for as long as its type lives.
pub trait Held: AsRawFd {}

impl Held for OwnedFd {}
impl Held for BorrowedFd<'_> {}
impl Held for UdpSocket {}

/// Has it watched for reading until what is returned is dropped.
pub fn watched<T: Held>(fd: T) -> io::Result<AsyncFd<T>> {
    watched_for(Interest::READABLE, fd)
}

/// The same for what one is interested in.
pub(crate) fn watched_for<T: Held>(interest: Interest, fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: it stays open, and the same, for as long as its type lives.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
