//! Received bytes to a value: what the message asks for, or what is done about it instead.
//!
//! The order of checks decides what a wrong client sees, so it is the protocol's:
//!
//! ```text
//!   inspect   header checksum, command number, size                               close
//!   parse     body checksum, cluster                                              close
//!             fields of the header, view                                          silence
//!             release, size, operation, body, size of a register                  eviction
//!             timestamp                                                           silence
//! ```
//!
//! The session table comes after that, in `vsr`. (The reference looks at the timestamp after the session; the difference
//! would show only to a client that sets it, and none does.)

use stampede_client::wire::body;
use stampede_client::wire::header::{self, AnyHeader, PingClient, Reaction, Request, Typed};
use stampede_client::wire::{EvictionReason, Operation, Refusal, Release};
use zerocopy::FromBytes;

use super::{PingView, Reason, Terms};
use crate::limits::HEADER_SIZE;
use crate::message::{Message, View};

/// A message, judged as far as it can be without the session table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming {
    /// Answer it with [`super::ping`].
    Ping(PingView),
    /// Valid for its operation: to be adopted and replicated.
    Request(RequestView),
    /// Tell the client that its session is over, if this replica is the primary. A backup never evicts: it drops.
    Evict {
        client: u128,
        reason: EvictionReason,
    },
    /// Say nothing, keep the connection.
    Ignore(Reason),
    /// Close the connection.
    Close(Reason),
}

/// A valid request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestView {
    pub client: u128,
    /// The number that identifies the request in its session: 0 for a register.
    pub request: u32,
    pub session: u64,
    /// Context of the reply before it.
    pub parent: u128,
    /// The request's identity: a retransmission has the same one, another request another one.
    pub checksum: u128,
    pub release: Release,
    pub view: View,
    pub operation: Operation,
    pub body_size: usize,
    /// Events in all batches.
    pub events: u32,
    /// The largest reply body that executing it can give: the buffer to reserve.
    pub reply_size_max: usize,
}

/// Looks at a header as soon as it has arrived: the size of the body that follows, or why to close the connection.
pub fn inspect(header: &[u8; HEADER_SIZE]) -> Result<usize, Refusal> {
    let header = header::frame(header)?;
    header.frame.body_size().ok_or(Refusal::SizeOutOfRange)
}

/// Judges a whole message whose header [`inspect`] has passed, at the replica's current `view`.
pub fn parse(message: &Message, terms: &Terms, view: View) -> Incoming {
    let header = any(message);
    match parse_typed(header, message, terms, view) {
        Ok(incoming) => incoming,
        Err(refusal) => match refusal.reaction() {
            Reaction::Close => Incoming::Close(refusal.into()),
            Reaction::Drop => Incoming::Ignore(refusal.into()),
        },
    }
}

/// The header in place: buffers are aligned, and any bytes are a header.
pub(super) fn any(message: &Message) -> &AnyHeader {
    AnyHeader::ref_from_bytes(message.header_bytes()).expect("256 aligned bytes are a header")
}

fn parse_typed(
    header: &AnyHeader,
    message: &Message,
    terms: &Terms,
    view: View,
) -> Result<Incoming, Refusal> {
    let body_size = header.frame.body_size().ok_or(Refusal::SizeOutOfRange)?;
    if body_size > message.body_capacity() {
        // The receiver chose the buffer by `inspect`, so these are not the bytes it has seen.
        return Err(Refusal::SizeOutOfRange);
    }
    let body = message.body_of_size(body_size);
    header.verify_body(body)?;
    header.verify_cluster(terms.cluster)?;
    match header.typed()? {
        Typed::PingClient(ping) => parse_ping(ping),
        Typed::Request(request) => parse_request(request, body, terms, view),
        Typed::PongClient(_) | Typed::Reply(_) | Typed::Eviction(_) => {
            Err(Refusal::CommandUnexpected)
        }
    }
}

fn parse_ping(ping: &PingClient) -> Result<Incoming, Refusal> {
    ping.validate()?;
    Ok(Incoming::Ping(PingView {
        client: ping.client,
        session: ping.session,
        release: ping.frame.release,
        timestamp: ping.ping_timestamp_monotonic,
    }))
}

fn parse_request(
    request: &Request,
    body: &[u8],
    terms: &Terms,
    view: View,
) -> Result<Incoming, Refusal> {
    request.validate()?;
    if request.frame.view > view {
        return Ok(Incoming::Ignore(Reason::ViewAhead));
    }
    let valid = match validate(request, body, terms) {
        Ok(valid) => valid,
        Err(reason) => {
            return Ok(Incoming::Evict {
                client: request.client,
                reason,
            });
        }
    };
    if request.timestamp != 0 {
        return Ok(Incoming::Ignore(Reason::TimestampPresent));
    }
    Ok(Incoming::Request(RequestView {
        client: request.client,
        request: request.request,
        session: request.session,
        parent: request.parent,
        checksum: request.frame.checksum,
        release: request.frame.release,
        view: request.frame.view,
        operation: valid.operation,
        body_size: body.len(),
        events: valid.events,
        reply_size_max: valid.reply_size_max,
    }))
}

struct Valid {
    operation: Operation,
    events: u32,
    reply_size_max: usize,
}

/// Whether the request can be executed at all; if not, why its client is evicted.
fn validate(request: &Request, body: &[u8], terms: &Terms) -> Result<Valid, EvictionReason> {
    release(request.frame.release, terms)?;
    if body.len() > terms.batch_size_limit as usize {
        return Err(EvictionReason::InvalidRequestBodySize);
    }
    let operation = Operation::try_from(request.operation)
        .ok()
        // A pulse that a client makes would stand in the log beside the server's own.
        .filter(|operation| operation.is_for_clients())
        .ok_or(EvictionReason::InvalidRequestOperation)?;
    if operation == Operation::Register {
        // Its body is all zeros: a limit that the client does not choose, and reserved bytes.
        if body.len() != operation.event_size() {
            return Err(EvictionReason::InvalidRequestBodySize);
        }
        if body.iter().any(|&byte| byte != 0) {
            return Err(EvictionReason::InvalidRequestBody);
        }
    }
    let summary = body::validate(operation, body, terms.batch_size_limit)
        .map_err(|_| EvictionReason::InvalidRequestBody)?;
    Ok(Valid {
        operation,
        events: summary.events,
        reply_size_max: summary.reply_size_max,
    })
}

/// Whether a client of this release is served.
pub(super) fn release(client: Release, terms: &Terms) -> Result<(), EvictionReason> {
    if client < terms.release_min {
        Err(EvictionReason::ClientReleaseTooLow)
    } else if client > terms.release {
        Err(EvictionReason::ClientReleaseTooHigh)
    } else {
        Ok(())
    }
}
