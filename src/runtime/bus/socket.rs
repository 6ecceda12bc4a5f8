//! Sockets before they are on the ring: the listening one, accepted ones, dialled ones.
//!
//! Options, and why: `TCP_NODELAY`, because messages are whole and small ones must not wait;
//! `SO_REUSEADDR`, so that a restart need not wait for old connections to time out; keepalive, so
//! that a machine that lost power is noticed while idle, and `TCP_USER_TIMEOUT`, while sending.
//! Buffer sizes stay untouched: the kernel's tuning does better than any fixed size.
//! All sockets are blocking: the ring does the waiting.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::super::Error;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// A peer that acknowledges nothing for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Binds the replica's address.
pub(in crate::runtime) fn listen(address: SocketAddr) -> Result<OwnedFd, Error> {
    let bind = || -> io::Result<OwnedFd> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|error| match error.raw_os_error() {
        Some(libc::EADDRINUSE) => Error::PortTaken(address),
        Some(libc::EADDRNOTAVAIL) => Error::AddressNotHere(address),
        _ => Error::Listen { address, error },
    })
}

/// Sets the options of a connection.
pub(super) fn prepare(socket: &OwnedFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(SILENCE_MAX)
        .with_interval(Duration::from_secs(3))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(SILENCE_MAX))
}

/// A socket to dial `address` with.
pub(super) fn outgoing(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    let socket = socket.into();
    prepare(&socket)?;
    Ok(socket)
}

/// Whether a dialled socket has reached itself: dialling a local port that nobody listens on can
/// hit the very port that the kernel chose for the caller.
pub(super) fn is_own_echo(socket: &OwnedFd) -> bool {
    let socket = SockRef::from(socket);
    match (socket.local_addr(), socket.peer_addr()) {
        (Ok(local), Ok(peer)) => local.as_socket() == peer.as_socket(),
        _ => false,
    }
}

/// Who is at the other end, for people.
pub(super) fn peer_address(socket: &OwnedFd) -> String {
    let address = SockRef::from(socket).peer_addr().ok();
    let address = address.and_then(|address| address.as_socket());
    address.map_or_else(|| "somebody".to_owned(), |address| address.to_string())
}

/// Ends one or both directions; operations in flight complete. Errors mean it is over already.
pub(super) fn shut_down(socket: &OwnedFd, how: std::net::Shutdown) {
    let _ = SockRef::from(socket).shutdown(how);
}
