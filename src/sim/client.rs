//! A client: one session over connections to all replicas, the way official clients do it.
//!
//! A request goes to the primary of the highest view heard of and to one other replica; without an
//! answer the same bytes go again, after 600 ms at first, later after a random pause that grows.
//! The session itself is the one that the real client uses; only time and the network are simulated.
//!
//! Must not know what the answers should be: that is the checkers' business.

use std::sync::Arc;

use stampede_client::session::{Event, REGISTER_SIZE, Session};
use stampede_client::wire::header::{self, AnyHeader, Typed};
use stampede_client::wire::{EvictionReason, HEADER_SIZE, MESSAGE_SIZE_MAX};
use zerocopy::IntoBytes;

use super::network::LinkId;
use super::queue::{Instant, MILLISECOND};
use super::random::Random;
use super::workload::{Work, Workload};
use crate::message::{Message, Op};

const RETRY_FIRST: Instant = 600 * MILLISECOND;
const RETRY_NEXT: Instant = 300 * MILLISECOND;
const PAUSE_UNIT: Instant = 10 * MILLISECOND;
const PAUSE_MAX: Instant = 2_000 * MILLISECOND;

/// Bytes on their way from a client; shared between copies of one transmission.
pub(crate) type Bytes = Arc<[u8]>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    pub index: u32,
    pub session: Session,
    pub workload: Workload,
    /// Requests still to be made; a register does not count.
    pub requests_left: u64,
    pub replies: u64,
    /// By replica.
    pub links: Vec<Option<LinkId>>,
    cluster: u128,
    random: Random,
    in_flight: Option<InFlight>,
    /// Sessions of this client so far: each has an id of its own.
    incarnation: u64,
    /// Tells timers of former requests from the one in force.
    pub timer: u64,
}

#[derive(Debug)]
struct InFlight {
    bytes: Bytes,
    attempts: u32,
    /// The greatest operation that anybody had been told of when this was first sent.
    after: Op,
}

/// What a message meant.
#[derive(Debug)]
pub(crate) enum Outcome {
    Nothing,
    /// An answer: to which operation, to what, and since when it was waited for.
    Answered {
        op: Op,
        request_checksum: u128,
        after: Op,
        register: bool,
    },
    Evicted(EvictionReason),
    Violated(String),
}

impl Client {
    pub(crate) fn new(
        index: u32,
        cluster: u128,
        replica_count: u8,
        requests: u64,
        workload: Workload,
        random: Random,
    ) -> Self {
        Self {
            index,
            session: Session::new(cluster, Self::id(index, 0)),
            workload,
            requests_left: requests,
            replies: 0,
            links: vec![None; usize::from(replica_count)],
            cluster,
            random,
            in_flight: None,
            incarnation: 0,
            timer: 0,
        }
    }

    fn id(index: u32, incarnation: u64) -> u128 {
        ((u128::from(index) + 1) << 64) | (u128::from(incarnation) + 1)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.in_flight.is_some()
    }

    /// What is in flight was sent before.
    pub(crate) fn is_asking_again(&self) -> bool {
        let flight = self.in_flight.as_ref();
        flight.is_some_and(|flight| flight.attempts > 1)
    }

    /// Nothing in flight and nothing left to ask.
    pub(crate) fn is_done(&self) -> bool {
        !self.is_waiting() && self.requests_left == 0
    }

    /// Makes the next message, if there is anything to ask: a register first.
    pub(crate) fn begin(&mut self, after: Op) {
        assert!(self.in_flight.is_none());
        if !self.session.is_registered() {
            let mut buffer = vec![0; REGISTER_SIZE];
            let size = self
                .session
                .register(&mut buffer)
                .expect("nothing is in flight");
            return self.fly(&buffer[..size], after);
        }
        if self.requests_left > 0 {
            self.requests_left -= 1;
            let work = self.workload.next();
            self.ask(&work, after);
        }
    }

    /// Makes a request of the given work.
    pub(crate) fn ask(&mut self, work: &Work, after: Op) {
        let mut buffer = vec![0; HEADER_SIZE + work.body.len()];
        buffer[HEADER_SIZE..].copy_from_slice(&work.body);
        let size = self
            .session
            .request(work.operation, &mut buffer, work.body.len())
            .expect("the workload makes valid requests");
        assert!(size <= MESSAGE_SIZE_MAX);
        self.fly(&buffer[..size], after);
    }

    fn fly(&mut self, bytes: &[u8], after: Op) {
        self.in_flight = Some(InFlight {
            bytes: bytes.into(),
            attempts: 0,
            after,
        });
    }

    /// The replicas to send the request to now, its bytes, and when to look again.
    pub(crate) fn transmit(&mut self) -> Option<(Vec<usize>, Bytes, Instant)> {
        let count = self.links.len();
        let flight = self.in_flight.as_mut()?;
        flight.attempts += 1;
        self.timer += 1;
        let primary = self.session.primary(count);
        let mut to = vec![primary];
        if count > 1 {
            let other = self.random.index(count - 1);
            to.push(other + usize::from(other >= primary));
        }
        let wait = if flight.attempts == 1 {
            RETRY_FIRST
        } else {
            let grown = PAUSE_UNIT << flight.attempts.min(10);
            RETRY_NEXT + self.random.skewed(grown.min(PAUSE_MAX))
        };
        Some((to, Arc::clone(&flight.bytes), wait))
    }

    /// A ping, for all replicas, when answers do not come.
    pub(crate) fn ping(&self, now: Instant) -> Option<Bytes> {
        let flight = self.in_flight.as_ref()?;
        let ping = self.session.ping(now);
        (flight.attempts > 2).then(|| ping.as_bytes().into())
    }

    /// A message has arrived from a replica.
    pub(crate) fn receive(&mut self, message: &Message, size: usize) -> Outcome {
        let body = message.body_of_size(size - HEADER_SIZE);
        let checked = header::frame(message.header_bytes())
            .and_then(|header| header.verify_body(body).map(|()| header))
            .and_then(|header| header.verify_cluster(self.cluster).map(|()| header));
        let header: &AnyHeader = match checked {
            Ok(header) => header,
            Err(refusal) => return Outcome::Violated(format!("client refuses: {refusal}")),
        };
        let event = match self.session.receive(header, body) {
            Ok(event) => event,
            Err(violation) => return Outcome::Violated(format!("client refuses: {violation}")),
        };
        let register = match event {
            Event::Registered => true,
            Event::Reply { .. } => false,
            Event::Evicted(reason) => {
                self.in_flight = None;
                return Outcome::Evicted(reason);
            }
            Event::Pong { .. } | Event::Ignored(_) => return Outcome::Nothing,
        };
        let Ok(Typed::Reply(reply)) = header.typed() else {
            unreachable!("only replies answer");
        };
        let flight = self.in_flight.take().expect("an answer answers a request");
        self.timer += 1;
        self.replies += 1;
        self.workload.saw(reply.timestamp);
        let (op, request_checksum) = (reply.op, reply.request_checksum);
        Outcome::Answered {
            op,
            request_checksum,
            after: flight.after,
            register,
        }
    }

    /// After an eviction: another session, with another id.
    pub(crate) fn renew(&mut self) {
        self.incarnation += 1;
        let view = self.session.view();
        self.session = Session::new(self.cluster, Self::id(self.index, self.incarnation));
        self.timer += 1;
        // A client that starts knows nothing; it will hear of the view.
        assert!(self.session.view() <= view);
    }
}
