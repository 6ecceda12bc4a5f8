//! One client's connection to one replica: opening it again and again, writing, reading.
//!
//! ```text
//!   Idle ──pause over──► Connecting ──► Open ──closed, failed, or left in mid-message──► Idle
//! ```
//!
//! The message in flight belongs to the client and may be written on several links; a link remembers
//! how much of it has been written here. A ping goes out only between two such messages. The socket is
//! registered once, edge-triggered, so `writable` remembers what the kernel said last.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use rustix::event::epoll;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use stampede_client::Inbox;
use stampede_client::wire::header::PingClient;
use zerocopy::IntoBytes;

use crate::pace::Nanos;

const PAUSE_MIN: Nanos = 50_000_000;
const PAUSE_MAX: Nanos = 1_000_000_000;
/// A connection attempt that takes longer is given up.
const CONNECT_MAX: Nanos = 2_000_000_000;

#[derive(Debug)]
enum State {
    Idle { until: Nanos },
    Connecting { stream: TcpStream, until: Nanos },
    Open { stream: TcpStream, writable: bool },
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    state: State,
    pause: Nanos,
    pub(crate) inbox: Inbox,
    /// Bytes written of the client's message in flight; `None` if it is not sent here.
    sent: Option<usize>,
    /// A ping and how much of it has been written.
    ping: Option<(PingClient, usize)>,
    /// A message was received at least once, on any connection.
    pub(crate) heard: bool,
    /// Connections that the replica closed although they had been used.
    pub(crate) closed: u32,
    pub(crate) error: Option<String>,
}

impl Link {
    pub(crate) fn new(address: SocketAddr, cluster: u128) -> Link {
        Link {
            address,
            state: State::Idle { until: 0 },
            pause: PAUSE_MIN,
            inbox: Inbox::new(cluster),
            sent: None,
            ping: None,
            heard: false,
            closed: 0,
            error: None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Starts an attempt if the pause is over, ends one that takes too long.
    pub(crate) fn tick(&mut self, now: Nanos, epoll: &OwnedFd, token: u64) {
        match &self.state {
            State::Idle { until } if *until <= now => match self.connect(epoll, token) {
                Ok(stream) => {
                    self.state = State::Connecting {
                        stream,
                        until: now + CONNECT_MAX,
                    };
                }
                Err(error) => self.fail(now, &error),
            },
            State::Connecting { until, .. } if *until <= now => {
                self.fail(now, &ErrorKind::TimedOut.into());
            }
            State::Idle { .. } | State::Connecting { .. } | State::Open { .. } => {}
        }
    }

    fn connect(&self, epoll: &OwnedFd, token: u64) -> io::Result<TcpStream> {
        let family = if self.address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        match connect(&socket, &self.address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        let interest = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        epoll::add(epoll, &stream, epoll::EventData::new_u64(token), interest)?;
        Ok(stream)
    }

    /// The socket is writable or has failed. `true` if the link has just become open.
    pub(crate) fn on_writable(&mut self, now: Nanos) -> bool {
        match std::mem::replace(&mut self.state, State::Idle { until: now }) {
            State::Connecting { stream, until } => {
                match stream.take_error() {
                    Ok(None) if stream.peer_addr().is_ok() => {
                        self.state = State::Open {
                            stream,
                            writable: true,
                        };
                        self.error = None;
                        return true;
                    }
                    // Writable for another reason: not decided yet.
                    Ok(None) => self.state = State::Connecting { stream, until },
                    Ok(Some(error)) | Err(error) => self.fail(now, &error),
                }
            }
            State::Open { stream, .. } => {
                self.state = State::Open {
                    stream,
                    writable: true,
                }
            }
            State::Idle { until } => self.state = State::Idle { until },
        }
        false
    }

    /// Closes; the next attempt comes after a pause that doubles until something is heard.
    pub(crate) fn fail(&mut self, now: Nanos, error: &io::Error) {
        if self.is_open() {
            self.closed += 1;
        }
        self.error = Some(error.to_string());
        // Dropping the stream closes it, which also takes it out of the epoll set.
        self.state = State::Idle {
            until: now + self.pause,
        };
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.inbox.clear();
        self.sent = None;
        self.ping = None;
    }

    /// Asks for the message in flight to be written here; `false` if that is not possible or going on
    /// already.
    pub(crate) fn transmit(&mut self, message_size: usize) -> bool {
        let free = self.is_open() && self.sent.is_none_or(|sent| sent == message_size);
        if free {
            self.sent = Some(0);
        }
        free
    }

    /// Whether the message in flight was written here, or is being written.
    pub(crate) fn has_message(&self) -> bool {
        self.sent.is_some()
    }

    /// Asks for a ping; one that is waiting is replaced.
    pub(crate) fn ping(&mut self, ping: PingClient) {
        if self.is_open() && self.ping.is_none_or(|(_, written)| written == 0) {
            self.ping = Some((ping, 0));
        }
    }

    /// The message in flight has been answered and its buffer will be used again. If it was left half
    /// written here (it was answered by way of another replica), this stream is of no more use.
    pub(crate) fn answered(&mut self, now: Nanos, message_size: usize) {
        let half = self
            .sent
            .is_some_and(|sent| 0 < sent && sent < message_size);
        self.sent = None;
        if half {
            self.fail(now, &io::Error::other("left in mid-message"));
        }
    }

    /// Writes what is asked for and the socket takes.
    pub(crate) fn write(&mut self, message: &[u8]) -> io::Result<()> {
        let State::Open { stream, writable } = &mut self.state else {
            return Ok(());
        };
        while *writable {
            let in_message = self
                .sent
                .is_some_and(|sent| 0 < sent && sent < message.len());
            match (&mut self.ping, &mut self.sent) {
                (Some((ping, written)), _) if !in_message => {
                    put(stream, writable, ping.as_bytes(), written)?;
                    if *written == size_of::<PingClient>() {
                        self.ping = None;
                    }
                }
                (_, Some(sent)) if *sent < message.len() => put(stream, writable, message, sent)?,
                _ => break,
            }
        }
        Ok(())
    }

    /// Reads what is there, at most one buffer; `false` if there was nothing.
    pub(crate) fn read(&mut self) -> io::Result<bool> {
        let State::Open { stream, .. } = &mut self.state else {
            return Ok(false);
        };
        loop {
            match stream.read(self.inbox.spare()) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.inbox.filled(count);
                    self.heard = true;
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

/// Writes as much as the socket takes of the rest of `bytes`.
fn put(
    stream: &mut TcpStream,
    writable: &mut bool,
    bytes: &[u8],
    done: &mut usize,
) -> io::Result<()> {
    match stream.write(&bytes[*done..]) {
        Ok(0) => Err(ErrorKind::WriteZero.into()),
        Ok(count) => {
            *done += count;
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            *writable = false;
            Ok(())
        }
        Err(error) => Err(error),
    }
}
