//! One client session without IO: builds the next message, judges what comes back.
//!
//! ```text
//!                register()                   Registered
//!   Unregistered ───────────► waiting ─────────────────────► open
//!                                                             │ ▲
//!                                        request(), body ready│ │Reply
//!                                                             ▼ │
//!                                                           waiting ──► Evicted, for ever
//! ```
//!
//! Promises: one request is in flight at most; request numbers grow by one; each request names the context of the
//! reply before it; the view never goes back; a message that does not answer the request in flight changes nothing.
//!
//! The owner does everything that needs a world: it keeps the built message (a retransmission is the same bytes), sends
//! it to replica `primary()`, repeats it when no answer comes, and measures time. One event loop can drive thousands of
//! these.

use crate::wire::body::{self, BodyError, BodySummary};
use crate::wire::header::{
    AnyHeader, Eviction, Header, PingClient, PongClient, Refusal, Reply, Request, Typed,
};
use crate::wire::multibatch::{self, MultibatchError};
use crate::wire::record::RegisterResult;
use crate::wire::{
    BODY_SIZE_MAX, EvictionReason, HEADER_SIZE, MESSAGE_SIZE_MAX, Operation, REGISTER_BODY_SIZE,
    Release,
};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a register message.
pub const REGISTER_SIZE: usize = HEADER_SIZE + REGISTER_BODY_SIZE;

/// The state of one session.
#[derive(Clone, Debug)]
pub struct Session {
    cluster: u128,
    client: u128,
    release: Release,
    /// Zero until the register is answered.
    session: u64,
    /// Largest view heard of.
    view: u32,
    /// Context of the latest reply.
    parent: u128,
    /// Number of the latest request.
    request: u32,
    batch_size_limit: u32,
    previous_request_latency_us: u32,
    in_flight: Option<InFlight>,
    evicted: Option<EvictionReason>,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    checksum: u128,
    operation: Operation,
    summary: BodySummary,
}

/// What a received message meant.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The register was answered: requests may follow.
    Registered,
    /// The request in flight was answered.
    Reply { header: &'a Reply, body: &'a [u8] },
    /// A replica is there; the value is the one of the ping.
    Pong { ping_timestamp_monotonic: u64 },
    /// The session is over and nothing will be answered any more.
    Evicted(EvictionReason),
    /// Nothing: a duplicate, somebody else's message, or one with invalid fields.
    Ignored(Ignored),
}

/// Why a received message was ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ignored {
    Refused(Refusal),
    OtherClient,
    /// An answer to a request that is not in flight any more.
    AnsweredAlready,
    /// An eviction by a replica that has fallen behind.
    OlderView,
}

/// The server broke the protocol: nothing it says about this session can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    #[error("the reply's release is not the request's")]
    Release,
    #[error("the reply answers a request that was never sent")]
    RequestAhead,
    #[error("the reply names another request's checksum")]
    RequestChecksum,
    #[error("the reply is for another operation")]
    Operation,
    #[error("the batch size limit is zero or larger than a message")]
    BatchSizeLimit,
    #[error("the reply's body is not a multi-batch body: {0}")]
    Multibatch(#[from] MultibatchError),
    #[error("the reply has another number of batches than the request")]
    BatchCount,
    #[error("the reply has more or fewer results than the request allows")]
    ResultCount,
    #[error("the reply is not a whole number of results")]
    ResultSize,
}

/// Why a request cannot be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    #[error("the session was evicted: {0}")]
    Evicted(EvictionReason),
    #[error("the session is not registered")]
    Unregistered,
    #[error("the session is registered already")]
    Registered,
    #[error("a request is in flight")]
    InFlight,
    #[error("the body has {size} bytes, the server takes {max}")]
    BodyTooLarge { size: usize, max: usize },
    #[error("the body is not valid for the operation: {0}")]
    Body(#[from] BodyError),
    #[error("{0} is not for clients")]
    Operation(Operation),
    #[error("the session has used all its request numbers")]
    RequestsExhausted,
}

impl Session {
    /// A session not registered yet. `client` is random and not zero.
    pub fn new(cluster: u128, client: u128) -> Session {
        assert!(client != 0);
        Session {
            cluster,
            client,
            release: Release::CURRENT,
            session: 0,
            view: 0,
            parent: 0,
            request: 0,
            batch_size_limit: 0,
            previous_request_latency_us: 0,
            in_flight: None,
            evicted: None,
        }
    }

    /// As `new`, speaking as a client of another release.
    pub fn with_release(cluster: u128, client: u128, release: Release) -> Session {
        assert!(release != Release::ZERO);
        Session {
            release,
            ..Session::new(cluster, client)
        }
    }

    pub const fn cluster(&self) -> u128 {
        self.cluster
    }

    pub const fn client(&self) -> u128 {
        self.client
    }

    /// Largest view heard of.
    pub const fn view(&self) -> u32 {
        self.view
    }

    /// Index of the replica that leads the view, out of `replica_count`.
    pub const fn primary(&self, replica_count: usize) -> usize {
        self.view as usize % replica_count
    }

    pub const fn is_registered(&self) -> bool {
        self.session != 0
    }

    pub const fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Largest request body the server takes; zero until registered.
    pub const fn batch_size_limit(&self) -> u32 {
        self.batch_size_limit
    }

    /// Most events of `operation` in one request with one batch.
    pub const fn batch_events_max(&self, operation: Operation) -> u32 {
        body::batch_events_max(operation, self.batch_size_limit)
    }

    /// What the next request reports as the latency of the one before.
    pub const fn set_previous_request_latency_us(&mut self, latency_us: u32) {
        self.previous_request_latency_us = latency_us;
    }

    /// Writes the register message to the start of `buffer` (at least `REGISTER_SIZE` bytes); returns its size.
    pub fn register(&mut self, buffer: &mut [u8]) -> Result<usize, RequestError> {
        self.ready()?;
        if self.is_registered() {
            return Err(RequestError::Registered);
        }
        buffer[HEADER_SIZE..REGISTER_SIZE].fill(0);
        let summary = BodySummary {
            events: 1,
            batches: 1,
            reply_size_max: 0,
        };
        Ok(self.send(Operation::Register, summary, buffer, REGISTER_BODY_SIZE))
    }

    /// Writes the header of a request in front of the body that lies at bytes 256 to 256 + `body_size` of `buffer`;
    /// returns the message's size.
    pub fn request(
        &mut self,
        operation: Operation,
        buffer: &mut [u8],
        body_size: usize,
    ) -> Result<usize, RequestError> {
        self.ready()?;
        if !self.is_registered() {
            return Err(RequestError::Unregistered);
        }
        if !operation.is_for_clients() || operation == Operation::Register {
            return Err(RequestError::Operation(operation));
        }
        let max = self.batch_size_limit as usize;
        if body_size > max {
            return Err(RequestError::BodyTooLarge {
                size: body_size,
                max,
            });
        }
        let next = self
            .request
            .checked_add(1)
            .ok_or(RequestError::RequestsExhausted)?;
        let body = &buffer[HEADER_SIZE..HEADER_SIZE + body_size];
        let summary = body::validate(operation, body, self.batch_size_limit)?;
        self.request = next;
        Ok(self.send(operation, summary, buffer, body_size))
    }

    /// A sealed ping; any replica answers it, whatever the session's state.
    pub fn ping(&self, timestamp_monotonic: u64) -> PingClient {
        let mut ping = PingClient::zeroed();
        ping.frame.cluster = self.cluster;
        ping.frame.release = self.release;
        ping.client = self.client;
        ping.session = self.session;
        ping.ping_timestamp_monotonic = timestamp_monotonic;
        ping.seal(&[]);
        ping
    }

    fn ready(&self) -> Result<(), RequestError> {
        if let Some(reason) = self.evicted {
            return Err(RequestError::Evicted(reason));
        }
        if self.in_flight.is_some() {
            return Err(RequestError::InFlight);
        }
        Ok(())
    }

    fn send(
        &mut self,
        operation: Operation,
        summary: BodySummary,
        buffer: &mut [u8],
        body_size: usize,
    ) -> usize {
        let mut header = Request::zeroed();
        header.frame.cluster = self.cluster;
        header.frame.view = self.view;
        header.frame.release = self.release;
        header.parent = self.parent;
        header.client = self.client;
        header.session = self.session;
        header.request = self.request;
        header.operation = operation.code();
        header.previous_request_latency = self.previous_request_latency_us;
        header.seal(&buffer[HEADER_SIZE..HEADER_SIZE + body_size]);
        header
            .write_to_prefix(buffer)
            .expect("the buffer holds the message");
        self.in_flight = Some(InFlight {
            checksum: header.frame.checksum,
            operation,
            summary,
        });
        HEADER_SIZE + body_size
    }

    /// Judges a message whose checksums have been verified (`Inbox` does that).
    pub fn receive<'a>(
        &mut self,
        header: &'a AnyHeader,
        body: &'a [u8],
    ) -> Result<Event<'a>, Violation> {
        if let Err(refusal) = header.verify_cluster(self.cluster) {
            return Ok(Event::Ignored(Ignored::Refused(refusal)));
        }
        if self.evicted.is_some() {
            return Ok(Event::Ignored(Ignored::AnsweredAlready));
        }
        match header.typed() {
            Ok(Typed::Reply(reply)) => self.on_reply(reply, body),
            Ok(Typed::PongClient(pong)) => Ok(self.on_pong(pong)),
            Ok(Typed::Eviction(eviction)) => Ok(self.on_eviction(eviction)),
            Ok(Typed::PingClient(_) | Typed::Request(_)) => {
                Ok(Event::Ignored(Ignored::Refused(Refusal::CommandUnexpected)))
            }
            Err(refusal) => Ok(Event::Ignored(Ignored::Refused(refusal))),
        }
    }

    fn on_pong<'a>(&mut self, pong: &PongClient) -> Event<'a> {
        if let Err(refusal) = pong.validate() {
            return Event::Ignored(Ignored::Refused(refusal));
        }
        self.view = self.view.max(pong.frame.view);
        Event::Pong {
            ping_timestamp_monotonic: pong.ping_timestamp_monotonic,
        }
    }

    fn on_eviction<'a>(&mut self, eviction: &Eviction) -> Event<'a> {
        if let Err(refusal) = eviction.validate() {
            return Event::Ignored(Ignored::Refused(refusal));
        }
        if eviction.client != self.client {
            return Event::Ignored(Ignored::OtherClient);
        }
        if eviction.frame.view < self.view {
            return Event::Ignored(Ignored::OlderView);
        }
        let reason = EvictionReason::from_code(eviction.reason).expect("validated just above");
        self.evicted = Some(reason);
        self.in_flight = None;
        Event::Evicted(reason)
    }

    fn on_reply<'a>(&mut self, reply: &'a Reply, body: &'a [u8]) -> Result<Event<'a>, Violation> {
        if let Err(refusal) = reply.validate() {
            return Ok(Event::Ignored(Ignored::Refused(refusal)));
        }
        if reply.client != self.client {
            return Ok(Event::Ignored(Ignored::OtherClient));
        }
        if reply.frame.release != self.release {
            return Err(Violation::Release);
        }
        if reply.request > self.request {
            return Err(Violation::RequestAhead);
        }
        let Some(in_flight) = self.in_flight.filter(|_| reply.request == self.request) else {
            return Ok(Event::Ignored(Ignored::AnsweredAlready));
        };
        if reply.request_checksum != in_flight.checksum {
            return Err(Violation::RequestChecksum);
        }
        if reply.operation != in_flight.operation.code() {
            return Err(Violation::Operation);
        }
        if in_flight.operation == Operation::Register {
            self.open(reply, body)?;
        } else {
            in_flight.verify(body)?;
        }
        self.view = self.view.max(reply.frame.view);
        self.parent = reply.context;
        self.in_flight = None;
        if in_flight.operation == Operation::Register {
            Ok(Event::Registered)
        } else {
            Ok(Event::Reply {
                header: reply,
                body,
            })
        }
    }

    fn open(&mut self, reply: &Reply, body: &[u8]) -> Result<(), Violation> {
        let result =
            RegisterResult::read_from_bytes(body).map_err(|_| Violation::BatchSizeLimit)?;
        let limit = result.batch_size_limit;
        if limit == 0 || limit as usize > BODY_SIZE_MAX {
            return Err(Violation::BatchSizeLimit);
        }
        self.session = reply.commit;
        self.batch_size_limit = limit;
        Ok(())
    }
}

impl InFlight {
    /// Whether a reply body has the arrangement that the request asked for.
    fn verify(&self, body: &[u8]) -> Result<(), Violation> {
        let result_size = self.operation.result_size();
        if self.operation.is_multi_batch() {
            let batches = multibatch::decode(body, result_size)?;
            if batches.batch_count() != self.summary.batches {
                return Err(Violation::BatchCount);
            }
            let one_for_each = matches!(
                self.operation,
                Operation::CreateAccounts | Operation::CreateTransfers
            );
            if one_for_each && batches.element_count() != self.summary.events as usize {
                return Err(Violation::ResultCount);
            }
        } else if result_size != 0 && !body.len().is_multiple_of(result_size) {
            return Err(Violation::ResultSize);
        }
        if body.len() > self.summary.reply_size_max {
            return Err(Violation::ResultCount);
        }
        Ok(())
    }
}

const _: () = assert!(REGISTER_SIZE <= MESSAGE_SIZE_MAX);
