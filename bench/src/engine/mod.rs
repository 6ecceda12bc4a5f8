//! The event loop: one thread, some sessions, one request in flight in each, no allocation per request.
//!
//! ```text
//!              ┌────────────── client (session) ──────────────┐
//!   work ─────►│ left buffer   in flight ──► link to replica 0 │──► primary
//!   prepare    │ right buffer  prepared      link to replica 1 │    the others: pings, and the request
//!   complete ◄─│                             link to replica 2 │    when the primary does not answer
//!              └──────────────────────────────────────────────┘
//! ```
//!
//! Each client has two buffers: while a request is in flight the next one is generated in the other
//! buffer, so that a closed loop measures the server and not the generator. Preparing is done when no
//! socket has anything to say; a client found idle with nothing prepared is counted as *unprepared*.
//!
//! Requests go to the primary of the highest view heard of. A request without an answer is repeated
//! after 600 ms, then with growing pauses, to the primary and one other replica; when the connection it
//! went out on breaks, or a pong names a new primary, it is repeated at once. Meanwhile all replicas are
//! pinged ten times a second. A repeated request is the same bytes, so the server executes it once.

#![expect(
    clippy::disallowed_methods,
    reason = "a load generator lives in real time"
)]

mod link;
mod stuck;
pub mod work;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use stampede_client::session::Event;
use stampede_client::wire::multibatch;
use stampede_client::wire::{HEADER_SIZE, Operation};
use stampede_client::{Buffer, Session};

use self::link::Link;
use self::stuck::{evicted, refusal_text, refused, violation};
use self::work::{Done, Prepared, Side, Work};
use crate::failure::Failure;
use crate::pace::{Nanos, Start};
use crate::random::Random;

const MILLISECOND: Nanos = 1_000_000;
/// First repetition of a request, as the official clients do it.
const RETRY_FIRST: Nanos = 600 * MILLISECOND;
const RETRY_MAX: Nanos = 2_000 * MILLISECOND;
/// Pings while a request waits, after it has waited this long.
const PING_WAITING: Nanos = 100 * MILLISECOND;
const PING_IDLE: Nanos = 5_000 * MILLISECOND;
/// How often timers are looked at.
const TIMERS: Nanos = 10 * MILLISECOND;
const TICK: Nanos = 100 * MILLISECOND;

/// The clock of a run.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn start() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    #[inline]
    pub fn now(&self) -> Nanos {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Where the sessions live and how they behave.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    pub addresses: Vec<SocketAddr>,
    pub cluster: u128,
    pub clients: u32,
    /// Events of 128 bytes in the largest request.
    pub batch: u32,
    pub timeout: Duration,
    /// Client ids and jitter.
    pub seed: u64,
}

#[derive(Debug)]
struct Flight {
    side: Side,
    prepared: Prepared,
    size: usize,
    intended: Nanos,
    started: Nanos,
    retry_at: Nanos,
    retry_pause: Nanos,
    transmissions: u32,
}

#[derive(Debug)]
struct Client {
    session: Session,
    left: Buffer,
    right: Buffer,
    /// The buffer that is in flight, or will be next.
    side: Side,
    prepared: Option<(Side, Prepared)>,
    flight: Option<Flight>,
    /// The phase has nothing more for this client.
    exhausted: bool,
    pinged_at: Nanos,
}

impl Client {
    fn buffer(&mut self, side: Side) -> &mut Buffer {
        match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        }
    }
}

/// What the loop itself did, for the report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub requests: u64,
    /// Requests sent more than once.
    pub repeated: u64,
    /// Connections lost and opened again.
    pub reconnected: u64,
    /// Requests that had to be generated while the client was idle.
    pub unprepared: u64,
    /// Highest view heard of.
    pub view: u32,
}

pub struct Engine {
    clock: Clock,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    clients: Vec<Client>,
    /// Client by client, one for each replica.
    links: Vec<Link>,
    replicas: usize,
    random: Random,
    timeout: Nanos,
    timers_at: Nanos,
    tick_at: Nanos,
    /// When the phase began, or a request was answered last.
    progress_at: Nanos,
    registered: bool,
    counters: Counters,
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Engine {
    pub fn new(options: &EngineOptions, clock: Clock) -> Result<Engine, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| Failure::files(format!("cannot create an epoll instance: {error}")))?;
        let mut random = Random::new(options.seed, 0xe6);
        // Header, events, and a trailer of one element; at least the register message fits.
        let size = HEADER_SIZE + (options.batch as usize).max(2) * 128 + 128;
        let clients = (0..options.clients)
            .map(|_| Client {
                session: Session::new(options.cluster, random.next_u128() | 1),
                left: Buffer::new(size),
                right: Buffer::new(size),
                side: Side::Left,
                prepared: None,
                flight: None,
                exhausted: false,
                pinged_at: 0,
            })
            .collect();
        let links = (0..options.clients)
            .flat_map(|_| &options.addresses)
            .map(|&address| Link::new(address, options.cluster))
            .collect();
        Ok(Engine {
            clock,
            epoll,
            events: Vec::with_capacity(64),
            clients,
            links,
            replicas: options.addresses.len(),
            random,
            timeout: nanos(options.timeout),
            timers_at: 0,
            tick_at: 0,
            progress_at: 0,
            registered: false,
            counters: Counters::default(),
        })
    }

    pub fn counters(&self) -> Counters {
        let view = self
            .clients
            .iter()
            .map(|client| client.session.view())
            .max();
        Counters {
            view: view.unwrap_or(0),
            ..self.counters
        }
    }

    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Most events of an operation that the server takes in one request; zero before registering.
    pub fn events_max(&self, operation: Operation) -> u32 {
        self.clients
            .iter()
            .map(|client| client.session.batch_events_max(operation))
            .min()
            .unwrap_or(0)
    }

    /// Connects, and registers every session.
    pub fn register(&mut self) -> Result<(), Failure> {
        self.run(&mut Nothing)?;
        self.registered = true;
        Ok(())
    }

    /// Drives all clients until `work` has nothing more and everything is answered.
    pub fn run(&mut self, work: &mut dyn Work) -> Result<(), Failure> {
        self.progress_at = self.clock.now();
        for client in &mut self.clients {
            client.exhausted = false;
            // What the phase before had prepared and did not send.
            client.prepared = None;
        }
        loop {
            let now = self.clock.now();
            let mut wake = self.timers_at;
            let mut busy = false;
            for index in 0..self.clients.len() {
                if self.clients[index].flight.is_none()
                    && let Some(at) = self.advance(index, now, work)?
                {
                    wake = wake.min(at);
                }
                let client = &self.clients[index];
                busy |= client.flight.is_some() || !client.exhausted;
            }
            if !busy {
                return Ok(());
            }
            let unprepared = self.clients.iter().position(|client| {
                client.prepared.is_none() && !client.exhausted && client.session.is_registered()
            });
            let patience = if unprepared.is_some() {
                0
            } else {
                wake.saturating_sub(now)
            };
            self.wait(patience)?;
            if self.events.is_empty()
                && let Some(index) = unprepared
            {
                self.prepare(index, work);
            }
            self.on_events(work)?;
            let now = self.clock.now();
            if now >= self.timers_at {
                self.on_timers(now, work)?;
            }
        }
    }

    fn wait(&mut self, patience: Nanos) -> Result<(), Failure> {
        let timeout = Timespec {
            tv_sec: i64::try_from(patience / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(patience % 1_000_000_000).expect("below 10^9"),
        };
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            Some(&timeout),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Failure::files(format!("cannot wait for sockets: {error}"))),
        }
    }

    /// Gives an idle client something to do; says when to look again if nothing is due yet.
    fn advance(
        &mut self,
        index: usize,
        now: Nanos,
        work: &mut dyn Work,
    ) -> Result<Option<Nanos>, Failure> {
        let client = &mut self.clients[index];
        if !client.session.is_registered() {
            let side = client.side;
            let buffer = match side {
                Side::Left => &mut client.left,
                Side::Right => &mut client.right,
            };
            let size = client.session.register(buffer).map_err(refused)?;
            let prepared = Prepared {
                operation: Operation::Register,
                events: 1,
            };
            self.launch(index, side, prepared, size, now, now);
            return Ok(None);
        }
        if client.exhausted {
            return Ok(None);
        }
        if client.prepared.is_none() {
            self.prepare(index, work);
            self.counters.unprepared += u64::from(self.clients[index].prepared.is_some());
        }
        let Some((side, prepared)) = self.clients[index].prepared else {
            return Ok(None);
        };
        let now = self.clock.now();
        match work.start(now) {
            Start::Now { intended } => {
                work.on_start(intended);
                let client = &mut self.clients[index];
                client.prepared = None;
                let body = prepared.events as usize * prepared.operation.event_size();
                let body = body + multibatch::trailer_size(prepared.operation.event_size(), 1);
                let buffer = match side {
                    Side::Left => &mut client.left,
                    Side::Right => &mut client.right,
                };
                let size = client
                    .session
                    .request(prepared.operation, buffer, body)
                    .map_err(refused)?;
                self.launch(index, side, prepared, size, intended, now);
                Ok(None)
            }
            Start::At(at) => Ok(Some(at)),
            Start::Over => {
                let client = &mut self.clients[index];
                client.prepared = None;
                client.exhausted = true;
                Ok(None)
            }
        }
    }

    /// Has the client's next request generated into the buffer that is not in flight.
    fn prepare(&mut self, index: usize, work: &mut dyn Work) {
        let client = &mut self.clients[index];
        let side = match &client.flight {
            Some(flight) => flight.side.other(),
            None => client.side,
        };
        let body = &mut client.buffer(side)[HEADER_SIZE..];
        match work.prepare(index, side, body) {
            None => client.exhausted = true,
            Some(prepared) => {
                let element = prepared.operation.event_size();
                let count =
                    u16::try_from(prepared.events).expect("a batch has at most 8189 events");
                let payload = prepared.events as usize * element;
                multibatch::encode_trailer(body, payload, element, std::iter::once(count));
                client.prepared = Some((side, prepared));
            }
        }
    }

    fn launch(
        &mut self,
        index: usize,
        side: Side,
        prepared: Prepared,
        size: usize,
        intended: Nanos,
        now: Nanos,
    ) {
        self.counters.requests += 1;
        let client = &mut self.clients[index];
        client.flight = Some(Flight {
            side,
            prepared,
            size,
            intended,
            started: now,
            retry_at: now + RETRY_FIRST,
            retry_pause: RETRY_FIRST,
            transmissions: 0,
        });
        if let Some(target) = self.target(index) {
            self.transmit(index, target, now);
        }
    }

    /// The replica to send to: the primary, or while there is no connection to it, one that is there
    /// and can forward.
    fn target(&self, index: usize) -> Option<usize> {
        let primary = self.clients[index].session.primary(self.replicas);
        (0..self.replicas)
            .map(|offset| (primary + offset) % self.replicas)
            .find(|replica| self.links[index * self.replicas + replica].is_open())
    }

    /// Sends the request in flight to a replica, for the first time or once more.
    fn transmit(&mut self, index: usize, replica: usize, now: Nanos) {
        let Some(flight) = &mut self.clients[index].flight else {
            return;
        };
        if self.links[index * self.replicas + replica].transmit(flight.size) {
            self.counters.repeated += u64::from(flight.transmissions == 1);
            flight.transmissions += 1;
            self.write(index, replica, now);
        }
    }

    fn write(&mut self, index: usize, replica: usize, now: Nanos) {
        let client = &mut self.clients[index];
        let link = &mut self.links[index * self.replicas + replica];
        let message = match &client.flight {
            None => &[],
            Some(flight) => match flight.side {
                Side::Left => &client.left[..flight.size],
                Side::Right => &client.right[..flight.size],
            },
        };
        if let Err(error) = link.write(message) {
            self.on_link_failed(index, replica, now, &error);
        }
    }

    fn on_link_failed(&mut self, index: usize, replica: usize, now: Nanos, error: &io::Error) {
        let link = &mut self.links[index * self.replicas + replica];
        let carried = link.has_message();
        link.fail(now, error);
        self.counters.reconnected += u64::from(self.registered);
        if carried && let Some(target) = self.target(index) {
            self.transmit(index, target, now);
        }
    }

    fn on_events(&mut self, work: &mut dyn Work) -> Result<(), Failure> {
        for position in 0..self.events.len() {
            let event = self.events[position];
            let (flags, token) = (event.flags, event.data.u64());
            let token = usize::try_from(token).expect("tokens are indexes of links");
            let (index, replica) = (token / self.replicas, token % self.replicas);
            let now = self.clock.now();
            let failed = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
            if flags.contains(epoll::EventFlags::OUT) || failed {
                if self.links[token].on_writable(now) {
                    self.on_link_open(index, replica, now);
                } else {
                    self.write(index, replica, now);
                }
            }
            if failed || flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP) {
                self.on_readable(index, replica, work)?;
            }
        }
        Ok(())
    }

    fn on_link_open(&mut self, index: usize, replica: usize, now: Nanos) {
        let ping = self.clients[index].session.ping(now);
        self.links[index * self.replicas + replica].ping(ping);
        let nowhere = (0..self.replicas)
            .all(|other| !self.links[index * self.replicas + other].has_message());
        let primary = self.clients[index].session.primary(self.replicas) == replica;
        if nowhere || primary {
            self.transmit(index, replica, now);
        } else {
            self.write(index, replica, now);
        }
    }

    fn on_readable(
        &mut self,
        index: usize,
        replica: usize,
        work: &mut dyn Work,
    ) -> Result<(), Failure> {
        let token = index * self.replicas + replica;
        loop {
            match self.links[token].read() {
                Ok(true) => self.on_bytes(index, replica, work)?,
                Ok(false) => return Ok(()),
                Err(error) => {
                    let now = self.clock.now();
                    self.on_link_failed(index, replica, now, &error);
                    return Ok(());
                }
            }
        }
    }

    /// Takes all whole messages out of a link's inbox.
    fn on_bytes(
        &mut self,
        index: usize,
        replica: usize,
        work: &mut dyn Work,
    ) -> Result<(), Failure> {
        let token = index * self.replicas + replica;
        loop {
            let client = &mut self.clients[index];
            let before = client.session.primary(self.replicas);
            let (header, body) = match self.links[token].inbox.message() {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(()),
                Err(refusal) => {
                    let now = self.clock.now();
                    self.on_link_failed(
                        index,
                        replica,
                        now,
                        &io::Error::other(refusal_text(refusal)),
                    );
                    return Ok(());
                }
            };
            let event = client.session.receive(header, body).map_err(violation)?;
            match event {
                Event::Reply { body, .. } => {
                    let now = self.clock.now();
                    let flight = client
                        .flight
                        .take()
                        .expect("only a request in flight is answered");
                    let latency_us = u32::try_from((now - flight.started) / 1000);
                    client
                        .session
                        .set_previous_request_latency_us(latency_us.unwrap_or(u32::MAX));
                    client.side = flight.side.other();
                    let Flight {
                        side,
                        prepared,
                        size,
                        intended,
                        ..
                    } = flight;
                    let operation = prepared.operation;
                    let payload = prepared.events as usize * operation.event_size();
                    let events = HEADER_SIZE..HEADER_SIZE + payload;
                    let client = &self.clients[index];
                    let request = match side {
                        Side::Left => &client.left[events],
                        Side::Right => &client.right[events],
                    };
                    let results = multibatch::decode(body, operation.result_size())
                        .expect("the session has verified it")
                        .payload();
                    work.complete(Done {
                        client: index,
                        side,
                        events: prepared.events,
                        request,
                        results,
                        intended,
                        now,
                        waiting_since: waiting_since(&self.clients, now, work),
                    })?;
                    self.on_answered(index, size, now);
                }
                Event::Registered => {
                    let now = self.clock.now();
                    let flight = client
                        .flight
                        .take()
                        .expect("only a request in flight is answered");
                    self.on_answered(index, flight.size, now);
                }
                Event::Pong { .. } => {
                    let primary = client.session.primary(self.replicas);
                    if primary != before
                        && client.flight.is_some()
                        && self.links[index * self.replicas + primary].is_open()
                    {
                        let now = self.clock.now();
                        self.transmit(index, primary, now);
                    }
                }
                Event::Evicted(reason) => return Err(evicted(reason)),
                Event::Ignored(_) => {}
            }
        }
    }

    fn on_answered(&mut self, index: usize, size: usize, now: Nanos) {
        self.progress_at = now;
        for link in &mut self.links[index * self.replicas..(index + 1) * self.replicas] {
            link.answered(now, size);
        }
    }

    fn on_timers(&mut self, now: Nanos, work: &mut dyn Work) -> Result<(), Failure> {
        self.timers_at = now + TIMERS;
        for token in 0..self.links.len() {
            self.links[token].tick(now, &self.epoll, token as u64);
        }
        for index in 0..self.clients.len() {
            self.on_client_timers(index, now);
        }
        self.give_up(now)?;
        if now >= self.tick_at {
            self.tick_at = now + TICK;
            work.tick(now);
        }
        Ok(())
    }

    fn on_client_timers(&mut self, index: usize, now: Nanos) {
        let client = &mut self.clients[index];
        let waiting = |flight: &Flight| now >= flight.started + PING_WAITING;
        let interval = if client.flight.as_ref().is_some_and(waiting) {
            PING_WAITING
        } else {
            PING_IDLE
        };
        if now >= client.pinged_at + interval {
            client.pinged_at = now;
            let ping = client.session.ping(now);
            for replica in 0..self.replicas {
                self.links[index * self.replicas + replica].ping(ping);
                self.write(index, replica, now);
            }
        }
        let jitter = self.random.below(50 * MILLISECOND);
        let replicas = self.replicas;
        let client = &mut self.clients[index];
        let Some(flight) = client
            .flight
            .as_mut()
            .filter(|flight| now >= flight.retry_at)
        else {
            return;
        };
        flight.retry_pause = (flight.retry_pause * 2).min(RETRY_MAX);
        flight.retry_at = now + flight.retry_pause + jitter;
        let other = flight.transmissions as usize % replicas;
        if let Some(target) = self.target(index) {
            self.transmit(index, target, now);
            if other != target {
                self.transmit(index, other, now);
            }
        }
    }
}

fn waiting_since(clients: &[Client], now: Nanos, work: &dyn Work) -> Option<Nanos> {
    let in_flight = clients
        .iter()
        .filter_map(|client| Some(client.flight.as_ref()?.intended))
        .min();
    match (in_flight, work.overdue_since(now)) {
        (Some(first), Some(second)) => Some(first.min(second)),
        (first, second) => first.or(second),
    }
}

/// The work of registering: none.
struct Nothing;

impl Work for Nothing {
    fn prepare(&mut self, _client: usize, _side: Side, _events: &mut [u8]) -> Option<Prepared> {
        None
    }

    fn complete(&mut self, _done: Done<'_>) -> Result<(), Failure> {
        Ok(())
    }
}
