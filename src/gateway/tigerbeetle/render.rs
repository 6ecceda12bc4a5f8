//! What clients are sent: pongs, evictions, and the headers of replies, each with the foreign checksums.
//!
//! All of them are written into 256 bytes that the caller has, in front of the body if there is one. A wrong field here
//! stops a client's process or makes it wait for ever, so what must never be is asserted before the bytes exist.

use stampede_client::wire::header::{AnyHeader, Eviction, Header, PongClient, Reply};
use stampede_client::wire::{EvictionReason, Operation, REPLICAS_MAX, Release};
use zerocopy::{FromBytes, IntoBytes};

use super::Terms;
use crate::limits::HEADER_SIZE;
use crate::message::{Op, View};

/// What a reply says besides its body. Everything is known to every replica that has executed the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyFields {
    /// The checksum of the foreign request.
    pub request_checksum: u128,
    /// What the next request has to name as its parent.
    pub context: u128,
    pub client: u128,
    /// The session's release: the request's, not the server's.
    pub release: Release,
    pub op: Op,
    pub timestamp: u64,
    pub request: u32,
    pub operation: Operation,
}

/// Writes the header of a reply in front of `body`; returns the message's size.
pub fn reply(
    bytes: &mut [u8; HEADER_SIZE],
    fields: &ReplyFields,
    body: &[u8],
    terms: &Terms,
    view: View,
) -> usize {
    assert!(fields.op > 0);
    assert!(fields.timestamp > 0);
    assert!(fields.client != 0);
    assert!(fields.release != Release::ZERO);
    assert_eq!(fields.request == 0, fields.operation == Operation::Register);
    let mut header = Reply::zeroed();
    frame(&mut header, terms, fields.release, view);
    header.request_checksum = fields.request_checksum;
    header.context = fields.context;
    header.client = fields.client;
    header.op = fields.op;
    header.commit = fields.op;
    header.timestamp = fields.timestamp;
    header.request = fields.request;
    header.operation = fields.operation.code();
    // Asserts that the body fits a message.
    header.seal(body);
    bytes.copy_from_slice(header.as_bytes());
    HEADER_SIZE + body.len()
}

/// Writes the answer to a ping. It has no body.
pub fn pong(bytes: &mut [u8; HEADER_SIZE], timestamp: u64, terms: &Terms, view: View) {
    let mut header = PongClient::zeroed();
    frame(&mut header, terms, terms.release, view);
    header.ping_timestamp_monotonic = timestamp;
    header.seal(&[]);
    bytes.copy_from_slice(header.as_bytes());
}

/// Writes the end of a client's session. It has no body, and there is no way back for that client.
pub fn eviction(
    bytes: &mut [u8; HEADER_SIZE],
    client: u128,
    reason: EvictionReason,
    terms: &Terms,
    view: View,
) {
    assert!(client != 0);
    let mut header = Eviction::zeroed();
    frame(&mut header, terms, terms.release, view);
    header.client = client;
    header.reason = reason as u8;
    header.seal(&[]);
    bytes.copy_from_slice(header.as_bytes());
}

/// Size of a rendered message, from its header.
pub fn size(bytes: &[u8; HEADER_SIZE]) -> usize {
    let header = AnyHeader::read_from_bytes(bytes).expect("both have the header's size");
    HEADER_SIZE + header.frame.body_size().expect("rendered here")
}

fn frame(header: &mut impl Header, terms: &Terms, release: Release, view: View) {
    assert!(terms.replica < REPLICAS_MAX);
    assert!(release != Release::ZERO);
    let frame = header.frame_mut();
    frame.cluster = terms.cluster;
    frame.view = view;
    frame.release = release;
    frame.replica = terms.replica;
}
