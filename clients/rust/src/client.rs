//! A small blocking client: one session, one request at a time, over as many connections as there are replicas.
//!
//! A request goes to the primary of the highest view heard of. While it waits, everybody is pinged, soon at first and
//! then more and more rarely; a pong that names another primary has the request sent there at once. Without an answer
//! the request is repeated, the same bytes, to the primary and to one other replica: after 600 ms, or 50 ms after a
//! connection broke that it had been sent on, or one came up, or another primary was named, and then after twice the
//! round trip plus a random pause that doubles.
//!
//! Without a deadline a call waits for as long as it takes. With one it ends in `Error::Timeout`, and what became of
//! its request is not known; the request stays in flight, and the next call first waits for its answer, since a session
//! has only one request at a time.

#![expect(clippy::disallowed_methods, reason = "a client lives in real time")]

use crate::connection::{Connection, part_of};
use crate::inbox::Buffer;
use crate::session::{Event, REGISTER_SIZE, RequestError, Session, Violation};
use crate::wire::multibatch::{self, encode_trailer, trailer_size};
use crate::wire::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult,
    EvictionReason, HEADER_SIZE, MESSAGE_SIZE_MAX, Operation, QueryFilter, REPLICAS_MAX, Transfer,
};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const RETRY_FIRST: Duration = Duration::from_millis(600);
/// The first repetition after a connection broke with the request on it, or came up, or the primary changed: who is
/// there now may not be ready at once.
const RETRY_CHANGED: Duration = Duration::from_millis(50);
/// Pings while a request waits: the first after so long, the pauses between them half as long again each time.
const PROBE_FIRST: Duration = Duration::from_millis(50);
/// The first pause, also when a connection broke.
const PROBE_MIN: Duration = Duration::from_millis(10);
const PROBE_MAX: Duration = Duration::from_millis(250);
const ROUND_TRIP_FIRST: Duration = Duration::from_millis(300);
const ROUND_TRIP_MIN: Duration = Duration::from_millis(10);
/// Upper end of the random pause before repetition n: this, times 2^n, and never above `JITTER_MAX`.
const JITTER_UNIT: Duration = Duration::from_millis(10);
const JITTER_MAX: Duration = Duration::from_secs(10);

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster's id, as it was formatted with.
    pub cluster: u128,
    /// Every replica's address, in the cluster's order; at most six.
    pub addresses: Vec<SocketAddr>,
    /// How long a call may take; `None` waits for ever.
    pub deadline: Option<Duration>,
    /// The client's id; `None` for a random one.
    pub client: Option<u128>,
}

impl Options {
    pub fn new(cluster: u128, addresses: Vec<SocketAddr>) -> Options {
        Options {
            cluster,
            addresses,
            deadline: None,
            client: None,
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client cannot be used any more; a new one has to register.
    #[error("the cluster evicted this client: {0}")]
    Evicted(EvictionReason),
    #[error("no answer within {0:?}: whether the request was executed is not known")]
    Timeout(Duration),
    #[error("the request was not sent: {0}")]
    Request(RequestError),
    #[error("the server broke the protocol, use another client: {0}")]
    Violation(#[from] Violation),
    #[error("{count} events are too many for one request, send at most {max}")]
    TooManyEvents { count: usize, max: usize },
    #[error("a cluster has one to six addresses, not {0}")]
    Addresses(usize),
    #[error("waiting for the network failed: {0}")]
    Io(#[from] io::Error),
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Error {
        match error {
            RequestError::Evicted(reason) => Error::Evicted(reason),
            RequestError::Unregistered
            | RequestError::Registered
            | RequestError::InFlight
            | RequestError::BodyTooLarge { .. }
            | RequestError::Body(_)
            | RequestError::Operation(_)
            | RequestError::RequestsExhausted => Error::Request(error),
        }
    }
}

/// A registered session and its connections.
#[derive(Debug)]
pub struct Client {
    session: Session,
    connections: Vec<Connection>,
    deadline: Option<Duration>,
    /// The message in flight, or the last one.
    message: Buffer,
    message_size: usize,
    reply: Buffer,
    reply_size: usize,
    round_trip: Duration,
    epoch: Instant,
    random: u64,
    /// A connection broke that the message in flight had been sent on, or one came up, or another primary was named.
    changed: bool,
    /// Set once the server has broken the protocol.
    violated: Option<Violation>,
}

/// What a message in flight is written for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    /// Nobody has it yet, or a connection came up that did not have it.
    First,
    /// No answer came.
    Repeat,
    /// Another replica leads; what it may have been sent before, it could not use.
    Moved,
}

impl Client {
    /// Connects and registers; waits for a cluster that is not there yet.
    pub fn connect(options: Options) -> Result<Client, Error> {
        let count = options.addresses.len();
        if !(1..=usize::from(REPLICAS_MAX)).contains(&count) {
            return Err(Error::Addresses(count));
        }
        let client = options
            .client
            .filter(|id| *id != 0)
            .unwrap_or_else(random_id);
        let connections = options
            .addresses
            .iter()
            .map(|a| Connection::new(*a, options.cluster))
            .collect();
        let mut client = Client {
            session: Session::new(options.cluster, client),
            connections,
            deadline: options.deadline,
            message: Buffer::new(MESSAGE_SIZE_MAX),
            message_size: 0,
            reply: Buffer::new(MESSAGE_SIZE_MAX),
            reply_size: 0,
            round_trip: ROUND_TRIP_FIRST,
            epoch: Instant::now(),
            random: RandomState::new().build_hasher().finish() | 1,
            changed: false,
            violated: None,
        };
        client.message_size = client
            .session
            .register(&mut client.message[..REGISTER_SIZE])?;
        client.exchange()?;
        Ok(client)
    }

    /// The session's state: id, view, limits.
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// How long each of the following calls may take.
    pub const fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.deadline = deadline;
    }

    /// One result for each account, in order.
    pub fn create_accounts(&mut self, accounts: &[Account]) -> Result<Vec<CreateResult>, Error> {
        self.call(Operation::CreateAccounts, accounts)
    }

    /// One result for each transfer, in order.
    pub fn create_transfers(&mut self, transfers: &[Transfer]) -> Result<Vec<CreateResult>, Error> {
        self.call(Operation::CreateTransfers, transfers)
    }

    /// The accounts that exist, in the order of `ids`.
    pub fn lookup_accounts(&mut self, ids: &[u128]) -> Result<Vec<Account>, Error> {
        self.call(Operation::LookupAccounts, ids)
    }

    /// The transfers that exist, in the order of `ids`.
    pub fn lookup_transfers(&mut self, ids: &[u128]) -> Result<Vec<Transfer>, Error> {
        self.call(Operation::LookupTransfers, ids)
    }

    pub fn get_account_transfers(&mut self, filter: AccountFilter) -> Result<Vec<Transfer>, Error> {
        self.call(Operation::GetAccountTransfers, &[filter])
    }

    pub fn get_account_balances(
        &mut self,
        filter: AccountFilter,
    ) -> Result<Vec<AccountBalance>, Error> {
        self.call(Operation::GetAccountBalances, &[filter])
    }

    pub fn query_accounts(&mut self, filter: QueryFilter) -> Result<Vec<Account>, Error> {
        self.call(Operation::QueryAccounts, &[filter])
    }

    pub fn query_transfers(&mut self, filter: QueryFilter) -> Result<Vec<Transfer>, Error> {
        self.call(Operation::QueryTransfers, &[filter])
    }

    pub fn get_change_events(
        &mut self,
        filter: ChangeEventsFilter,
    ) -> Result<Vec<ChangeEvent>, Error> {
        self.call(Operation::GetChangeEvents, &[filter])
    }

    /// Executes `operation` on a body that is already as the wire wants it; the reply's body.
    pub fn request(&mut self, operation: Operation, body: &[u8]) -> Result<&[u8], Error> {
        self.settle()?;
        let max = self.session.batch_size_limit() as usize;
        if body.len() > max {
            return Err(RequestError::BodyTooLarge {
                size: body.len(),
                max,
            }
            .into());
        }
        self.message[HEADER_SIZE..HEADER_SIZE + body.len()].copy_from_slice(body);
        self.message_size = self
            .session
            .request(operation, &mut self.message, body.len())?;
        self.exchange()?;
        Ok(&self.reply[..self.reply_size])
    }

    /// One batch of events, the results of which are copied out.
    fn call<E, R>(&mut self, operation: Operation, events: &[E]) -> Result<Vec<R>, Error>
    where
        E: IntoBytes + Immutable,
        R: FromBytes + Immutable + KnownLayout + Clone,
    {
        self.settle()?;
        assert_eq!(size_of::<E>(), operation.event_size());
        let max = self.session.batch_events_max(operation) as usize;
        if events.len() > max {
            return Err(Error::TooManyEvents {
                count: events.len(),
                max,
            });
        }
        let payload = events.as_bytes();
        let buffer = &mut self.message[HEADER_SIZE..];
        buffer[..payload.len()].copy_from_slice(payload);
        let body_size = if operation.is_multi_batch() {
            let count = u16::try_from(events.len()).expect("a batch has at most 8190 events");
            let size = payload.len() + trailer_size(size_of::<E>(), 1);
            let written =
                encode_trailer(buffer, payload.len(), size_of::<E>(), [count].into_iter());
            assert_eq!(written, size);
            size
        } else {
            payload.len()
        };
        self.message_size = self
            .session
            .request(operation, &mut self.message, body_size)?;
        self.exchange()?;
        let body = &self.reply[..self.reply_size];
        let results = if operation.is_multi_batch() {
            multibatch::decode(body, size_of::<R>())
                .map_err(Violation::Multibatch)?
                .payload()
        } else {
            body
        };
        // The reply's buffer is aligned and the session has checked the size.
        let results = <[R]>::ref_from_bytes(results).map_err(|_| Violation::ResultSize)?;
        Ok(results.to_vec())
    }

    /// Waits for the answer of a request that an earlier call gave up.
    fn settle(&mut self) -> Result<(), Error> {
        if let Some(violation) = self.violated {
            return Err(violation.into());
        }
        if self.session.is_in_flight() {
            self.exchange()
        } else {
            Ok(())
        }
    }

    /// Sends the message in flight until it is answered.
    fn exchange(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        let give_up = self.deadline.map(|deadline| start + deadline);
        let mut attempt = 0u32;
        let mut retry = start + RETRY_FIRST;
        let (mut probe, mut probe_pause) = (start + PROBE_FIRST, PROBE_MIN);
        self.changed = false;
        // The first transmission goes out as soon as there is a connection.
        self.transmit(Why::First);
        loop {
            let now = Instant::now();
            if give_up.is_some_and(|give_up| give_up <= now) {
                return Err(Error::Timeout(self.deadline.unwrap_or_default()));
            }
            if std::mem::take(&mut self.changed) {
                // Things are different now: what pauses had grown to says nothing any more.
                attempt = 0;
                retry = retry.min(now + RETRY_CHANGED);
                (probe, probe_pause) = (now, PROBE_MIN);
            }
            if retry <= now {
                attempt += 1;
                self.transmit(Why::Repeat);
                retry = now + self.pause(attempt);
            }
            if probe <= now {
                self.ping();
                probe = now + probe_pause;
                probe_pause = (probe_pause * 3 / 2).min(PROBE_MAX);
            }
            let until = self.connections.iter().filter_map(Connection::wake);
            let until = until.chain([retry, probe]).chain(give_up).min();
            let until = until.unwrap_or(retry);
            if self.wait(until.saturating_duration_since(now))? {
                self.transmit(Why::First);
                self.changed = true;
            }
            if self.receive(start)? {
                return Ok(());
            }
        }
    }

    /// Writes the message in flight to the primary; a repetition to one more replica, and so a first transmission
    /// while there is no connection to the primary: the others forward.
    fn transmit(&mut self, why: Why) {
        let count = self.connections.len();
        let primary = self.session.primary(count);
        let help = match why {
            Why::First => !self.connections[primary].is_connected(),
            Why::Repeat => true,
            Why::Moved => false,
        };
        let other = if help { self.other(primary) } else { None };
        for index in [Some(primary), other].into_iter().flatten() {
            self.connections[index].transmit(self.message_size, why != Why::First);
            self.write(index);
        }
    }

    /// Any replica but `primary` that there is a connection to.
    fn other(&mut self, primary: usize) -> Option<usize> {
        let count = self.connections.len();
        let random = usize::try_from(self.random() % count as u64).unwrap_or(0);
        (0..count)
            .map(|offset| (random + offset) % count)
            .find(|index| *index != primary && self.connections[*index].is_connected())
    }

    fn ping(&mut self) {
        let elapsed = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let ping = self.session.ping(elapsed.max(1));
        for index in 0..self.connections.len() {
            if self.connections[index]
                .write_ping(ping.as_bytes(), self.message_size)
                .is_err()
            {
                self.fail(index);
            }
        }
    }

    fn write(&mut self, index: usize) {
        if self.connections[index]
            .write(&self.message[..self.message_size])
            .is_err()
        {
            self.fail(index);
        }
    }

    fn fail(&mut self, index: usize) {
        let jitter = self.random();
        let connection = &mut self.connections[index];
        self.changed |= connection.has_message();
        connection.fail(Instant::now(), jitter);
    }

    /// Waits for sockets, then drives attempts and writes; whether a connection came up.
    fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        let mut polled = [const {
            libc::pollfd {
                fd: -1,
                events: 0,
                revents: 0,
            }
        }; REPLICAS_MAX as usize];
        for (connection, entry) in self.connections.iter().zip(&mut polled) {
            if let Some((fd, write)) = connection.interest(self.message_size) {
                entry.fd = fd;
                entry.events = libc::POLLIN | if write { libc::POLLOUT } else { 0 };
            }
        }
        // Rounded up, so that a wait does not end just before the moment it waits for.
        let timeout_ms = timeout.as_millis().saturating_add(1).min(60_000);
        let timeout_ms = i32::try_from(timeout_ms).unwrap_or(60_000);
        // SAFETY: the array outlives the call and its length is given; entries with descriptor -1 are skipped.
        let ready = unsafe {
            libc::poll(
                polled.as_mut_ptr(),
                polled.len() as libc::nfds_t,
                timeout_ms,
            )
        };
        if ready < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted {
                Ok(false)
            } else {
                Err(error)
            };
        }
        let now = Instant::now();
        let mut came_up = false;
        for (index, entry) in polled.iter().enumerate().take(self.connections.len()) {
            let jitter = self.random();
            if entry.revents != 0 {
                came_up |= self.connections[index].on_attempt(now, jitter);
            }
            self.connections[index].tick(now, jitter);
            if entry.revents & libc::POLLOUT != 0 {
                self.write(index);
            }
        }
        Ok(came_up)
    }

    /// Reads from every connection; whether the request in flight was answered.
    fn receive(&mut self, start: Instant) -> Result<bool, Error> {
        for index in 0..self.connections.len() {
            match self.connections[index].read() {
                Ok(true) => {}
                Ok(false) => continue,
                Err(_) => {
                    self.fail(index);
                    continue;
                }
            }
            if self.drain(index, start)? {
                let now = Instant::now();
                let (size, jitter) = (self.message_size, self.random());
                for connection in &mut self.connections {
                    connection.answered(size, now, jitter);
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Judges the messages of one connection; whether the request in flight was answered.
    fn drain(&mut self, index: usize, start: Instant) -> Result<bool, Error> {
        let view = self.session.view();
        let mut answered = false;
        loop {
            let (header, body) = match self.connections[index].inbox.message() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(_) => {
                    self.fail(index);
                    break;
                }
            };
            match self.session.receive(header, body) {
                Ok(Event::Registered) => answered = true,
                Ok(Event::Reply { body, .. }) => {
                    self.reply[..body.len()].copy_from_slice(body);
                    self.reply_size = body.len();
                    let latency = start.elapsed().as_micros();
                    let latency = u32::try_from(latency).unwrap_or(u32::MAX);
                    self.session.set_previous_request_latency_us(latency);
                    answered = true;
                }
                Ok(Event::Pong {
                    ping_timestamp_monotonic,
                }) => {
                    let sent = Duration::from_nanos(ping_timestamp_monotonic);
                    let round_trip = self.epoch.elapsed().saturating_sub(sent);
                    self.round_trip = round_trip.clamp(ROUND_TRIP_MIN, Duration::from_secs(60));
                }
                Ok(Event::Evicted(reason)) => return Err(Error::Evicted(reason)),
                Ok(Event::Ignored(_)) => {}
                Err(violation) => {
                    self.violated = Some(violation);
                    return Err(violation.into());
                }
            }
        }
        if !answered && view != self.session.view() {
            self.transmit(Why::Moved);
            // It may not have begun to lead yet.
            self.changed = true;
        }
        Ok(answered)
    }

    fn pause(&mut self, attempt: u32) -> Duration {
        let jitter = JITTER_UNIT
            .saturating_mul(1 << attempt.min(16))
            .min(JITTER_MAX);
        self.round_trip * 2 + JITTER_UNIT + part_of(jitter, self.random())
    }

    /// xorshift64: spreads repetitions, nothing more.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// A random id from the standard library's hash keys, which the operating system seeds.
fn random_id() -> u128 {
    let half = || u128::from(RandomState::new().build_hasher().finish());
    (half() << 64 | half()).max(1)
}
