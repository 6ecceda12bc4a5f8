//! One non-blocking TCP connection to one replica, with its attempts and its pauses between them.
//!
//! ```text
//!   Idle ──open──► Connecting ──► Connected
//!     ▲               │ failed        │ closed, refused, or a request left half sent
//!     └─── pause ─────┴───────────────┘
//! ```
//!
//! The pause doubles from 50 ms to 250 ms, with jitter, and starts again after a connection that worked: a replica that
//! was restarted is found again within a quarter of a second, for at most eight attempts a second while it is away.

#![expect(clippy::disallowed_methods, reason = "a client lives in real time")]

use crate::inbox::Inbox;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// A connection attempt that takes longer is given up.
const CONNECT_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    state: State,
    pause: Duration,
    pub(crate) inbox: Inbox,
    /// How much of the message in flight has been written; `None` if it is not to be sent here.
    sent: Option<usize>,
}

#[derive(Debug)]
enum State {
    Idle { until: Instant },
    Connecting { stream: TcpStream, until: Instant },
    Connected(TcpStream),
}

impl Connection {
    pub(crate) fn new(address: SocketAddr, cluster: u128) -> Connection {
        let state = State::Idle {
            until: Instant::now(),
        };
        Connection {
            address,
            state,
            pause: PAUSE_MIN,
            inbox: Inbox::new(cluster),
            sent: None,
        }
    }

    pub(crate) const fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected(_))
    }

    /// Whether the message in flight was written here, or is being written.
    pub(crate) const fn has_message(&self) -> bool {
        self.sent.is_some()
    }

    /// What to wait for on this connection: descriptor, and whether writing is of interest.
    pub(crate) fn interest(&self, message_size: usize) -> Option<(RawFd, bool)> {
        match &self.state {
            State::Idle { .. } => None,
            State::Connecting { stream, .. } => Some((stream.as_raw_fd(), true)),
            State::Connected(stream) => Some((
                stream.as_raw_fd(),
                self.sent.is_some_and(|sent| sent < message_size),
            )),
        }
    }

    /// When something has to be done without any event: the end of a pause or of an attempt.
    pub(crate) const fn wake(&self) -> Option<Instant> {
        match &self.state {
            State::Idle { until } | State::Connecting { until, .. } => Some(*until),
            State::Connected(_) => None,
        }
    }

    /// Starts an attempt if the pause is over, ends one that took too long.
    pub(crate) fn tick(&mut self, now: Instant, jitter: u64) {
        match &self.state {
            State::Idle { until } if *until <= now => match self.connect() {
                Ok(stream) => {
                    self.state = State::Connecting {
                        stream,
                        until: now + CONNECT_MAX,
                    };
                }
                Err(_) => self.fail(now, jitter),
            },
            State::Connecting { until, .. } if *until <= now => self.fail(now, jitter),
            State::Idle { .. } | State::Connecting { .. } | State::Connected(_) => {}
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let socket = Socket::new(
            Domain::for_address(self.address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&self.address.into()) {
            Ok(()) => Ok(socket.into()),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket.into()),
            Err(error) => Err(error),
        }
    }

    /// The socket became writable or failed: the attempt is decided. Whether there is a connection that was not there.
    pub(crate) fn on_attempt(&mut self, now: Instant, jitter: u64) -> bool {
        let failed = match &self.state {
            State::Connecting { stream, .. } => !matches!(stream.take_error(), Ok(None)),
            State::Idle { .. } | State::Connected(_) => return false,
        };
        if failed {
            self.fail(now, jitter);
            return false;
        }
        let state = std::mem::replace(&mut self.state, State::Idle { until: now });
        if let State::Connecting { stream, .. } = state {
            self.state = State::Connected(stream);
        }
        true
    }

    /// Closes; the next attempt comes after a pause.
    pub(crate) fn fail(&mut self, now: Instant, jitter: u64) {
        let half = self.pause / 2;
        self.state = State::Idle {
            until: now + half + part_of(half, jitter),
        };
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.inbox.clear();
        self.sent = None;
    }

    /// Asks for the message in flight to be written here: for the first time on this connection, or `again`. A write
    /// that has not ended is left alone.
    pub(crate) fn transmit(&mut self, message_size: usize, again: bool) {
        let idle = self.sent.is_none_or(|sent| again && sent == message_size);
        if self.is_connected() && idle {
            self.sent = Some(0);
        }
    }

    /// The message in flight has been answered. What was half written must not be followed by another message.
    pub(crate) fn answered(&mut self, message_size: usize, now: Instant, jitter: u64) {
        let half_sent = self
            .sent
            .is_some_and(|sent| 0 < sent && sent < message_size);
        self.sent = None;
        if half_sent {
            self.fail(now, jitter);
        }
    }

    /// Writes as much of `message` as the socket takes.
    pub(crate) fn write(&mut self, message: &[u8]) -> io::Result<()> {
        let (State::Connected(stream), Some(mut sent)) = (&mut self.state, self.sent) else {
            return Ok(());
        };
        while sent < message.len() {
            match stream.write(&message[sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.sent = Some(sent);
        Ok(())
    }

    /// Writes a small message that nobody waits for, unless a request is on its way.
    pub(crate) fn write_ping(&mut self, ping: &[u8], message_size: usize) -> io::Result<()> {
        let busy = self.sent.is_some_and(|sent| sent < message_size);
        let State::Connected(stream) = &mut self.state else {
            return Ok(());
        };
        if busy {
            return Ok(());
        }
        match stream.write(ping) {
            Ok(count) if count == ping.len() => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            // Part of a message cannot be taken back.
            Ok(_) => Err(ErrorKind::WriteZero.into()),
            Err(error) => Err(error),
        }
    }

    /// Reads what is there, at most one buffer; `Ok(false)` if there was nothing.
    pub(crate) fn read(&mut self) -> io::Result<bool> {
        let State::Connected(stream) = &mut self.state else {
            return Ok(false);
        };
        loop {
            match stream.read(self.inbox.spare()) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.inbox.filled(count);
                    self.pause = PAUSE_MIN;
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Somewhere between nothing and all of `range`.
pub(crate) fn part_of(range: Duration, random: u64) -> Duration {
    let range_us = u64::try_from(range.as_micros()).unwrap_or(u64::MAX - 1);
    Duration::from_micros(random % (range_us + 1))
}
