//! The captured conversations once more, this time seen from the server's side: the gateway must decide about every
//! client message as the reference server did, and must write every server message of it again, byte for byte.
//!
//! What needs a session table (evictions 1, 7 and 8, wrong parents, skipped numbers, retransmissions) passes the
//! gateway; those messages must come out as valid requests.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use stampede::gateway::tigerbeetle::audit::audit;
use stampede::gateway::tigerbeetle::render::{self, ReplyFields};
use stampede::gateway::tigerbeetle::{
    Answer, EvictionReason, Incoming, Operation, Reason, Release, Terms, adopt, inspect, parse,
    ping,
};
use stampede::message::{MessageMut, Pool, PoolConfig};
use stampede_client::wire::header::{AnyHeader, Typed, frame_unaligned};
use stampede_client::wire::{HEADER_SIZE, Refusal};

struct Captured {
    file: String,
    note: String,
    terms: Terms,
    bytes: [u8; HEADER_SIZE],
    body: Vec<u8>,
    header: AnyHeader,
}

/// All messages of all sets in order; `None` stands for silence of the server.
fn captured() -> Vec<Option<Captured>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let index: Value =
        serde_json::from_slice(&fs::read(directory.join("index.json")).unwrap()).unwrap();
    let entry = |entry: &Value| {
        let file = entry["file"].as_str()?;
        let message = fs::read(directory.join(file)).unwrap();
        let (bytes, body) = message.split_first_chunk::<HEADER_SIZE>().unwrap();
        let header = frame_unaligned(bytes).unwrap();
        // As the reference was configured: see the sets in the index.
        let mut terms = Terms::new(header.frame.cluster, header.frame.replica);
        terms.release_min = Release::new(0, 16, 0);
        if entry["set"] == "G_provoked" {
            terms.batch_size_limit = 32_512;
        }
        let note = entry["note"].as_str().unwrap().to_owned();
        Some(Captured {
            file: file.to_owned(),
            note,
            terms,
            bytes: *bytes,
            body: body.to_vec(),
            header,
        })
    };
    index["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(entry)
        .collect()
}

fn received(pool: &Pool, message: &Captured) -> MessageMut {
    let mut buffer = pool.acquire(message.body.len()).unwrap();
    buffer.header_bytes_mut().copy_from_slice(&message.bytes);
    assert_eq!(inspect(buffer.header_bytes()), Ok(message.body.len()));
    buffer
        .body_mut_of_size(message.body.len())
        .copy_from_slice(&message.body);
    buffer
}

#[test]
fn requests_are_judged_as_the_reference_did() {
    let pool = Pool::new(&PoolConfig {
        small: 2,
        medium: 1,
        large: 1,
        huge_pages: false,
    })
    .unwrap();
    let (mut requests, mut evictions, mut pings, mut ignored) = (0, 0, 0, 0);
    let messages = captured();
    for (index, message) in messages.iter().enumerate() {
        let Some(message) = message else { continue };
        let Ok(Typed::Request(_) | Typed::PingClient(_)) = message.header.typed() else {
            continue;
        };
        // What the server said next, if anything: conversations are one message each way.
        let answer = messages
            .get(index + 1)
            .and_then(Option::as_ref)
            .map(|m| m.header);
        let answer = answer.as_ref().and_then(|header| header.typed().ok());
        let eviction = match answer {
            Some(Typed::Eviction(eviction)) => EvictionReason::from_code(eviction.reason),
            _ => None,
        };
        let view = if message.note.contains("view above") {
            1
        } else {
            message.header.frame.view
        };
        let buffer = received(&pool, message);
        let file = &message.file;
        match parse(&buffer, &message.terms, view) {
            Incoming::Request(request) => {
                use EvictionReason::{NoSession, SessionReleaseMismatch, SessionTooLow};
                // Those are for the session table to say.
                let by_table = [NoSession, SessionTooLow, SessionReleaseMismatch];
                assert!(
                    eviction.is_none_or(|reason| by_table.contains(&reason)),
                    "{file}"
                );
                let adopted = adopt(buffer, &request, message.header.frame.cluster, 0, view);
                assert_eq!(adopted.body(), message.body, "{file}");
                if let Some(Typed::Reply(reply)) = answer {
                    assert_eq!(reply.request_checksum, adopted.header().request_checksum);
                    assert_eq!(reply.operation, adopted.header().operation);
                    assert_eq!(reply.request, adopted.header().request);
                }
                requests += 1;
            }
            Incoming::Evict { reason, .. } => {
                assert_eq!(eviction, Some(reason), "{file}");
                evictions += 1;
            }
            Incoming::Ping(view) => {
                // Whether the table knew the client is not on the wire, except in what came of it.
                let known = view.session != 0 && eviction != Some(EvictionReason::NoSession);
                match (ping(&view, known, u64::MAX, &message.terms), answer) {
                    (Answer::Pong { timestamp }, Some(Typed::PongClient(pong))) => {
                        assert_eq!(timestamp, pong.ping_timestamp_monotonic, "{file}");
                    }
                    (Answer::Evict(reason), Some(Typed::Eviction(_))) => {
                        assert_eq!(Some(reason), eviction, "{file}");
                    }
                    (Answer::Pong { .. } | Answer::Evict(_), other) => panic!("{file}: {other:?}"),
                }
                pings += 1;
            }
            Incoming::Ignore(reason) => {
                let expected = if message.note.contains("view above") {
                    Reason::ViewAhead
                } else {
                    Refusal::OperationReserved.into()
                };
                assert_eq!(reason, expected, "{file}");
                assert!(messages[index + 1].is_none(), "{file}");
                ignored += 1;
            }
            Incoming::Close(reason) => panic!("{file}: {reason:?}"),
        }
    }
    assert_eq!((requests, evictions, pings, ignored), (102, 7, 6, 2));
}

#[test]
fn answers_are_written_as_the_reference_did() {
    let (mut replies, mut pongs, mut evictions) = (0, 0, 0);
    let messages = captured();
    for message in messages.iter().flatten() {
        let (view, file, terms) = (message.header.frame.view, &message.file, &message.terms);
        let mut bytes = [0; HEADER_SIZE];
        match message.header.typed().unwrap() {
            Typed::Reply(reply) => {
                let fields = ReplyFields {
                    request_checksum: reply.request_checksum,
                    context: reply.context,
                    client: reply.client,
                    release: reply.frame.release,
                    op: reply.op,
                    timestamp: reply.timestamp,
                    request: reply.request,
                    operation: Operation::try_from(reply.operation).unwrap(),
                };
                render::reply(&mut bytes, &fields, &message.body, terms, view);
                assert_eq!(bytes, message.bytes, "{file}");
                replies += 1;
            }
            Typed::PongClient(pong) => {
                render::pong(&mut bytes, pong.ping_timestamp_monotonic, terms, view);
                assert_eq!(bytes, message.bytes, "{file}");
                pongs += 1;
            }
            Typed::Eviction(eviction) => {
                let reason = EvictionReason::from_code(eviction.reason).unwrap();
                render::eviction(&mut bytes, eviction.client, reason, terms, view);
                assert_eq!(bytes, message.bytes, "{file}");
                evictions += 1;
            }
            Typed::PingClient(_) | Typed::Request(_) => {}
        }
    }
    assert_eq!((replies, pongs, evictions), (96, 3, 15));
}

#[test]
fn every_captured_reply_passes_the_audit() {
    let messages = captured();
    let mut audited = 0;
    for message in messages.iter().flatten() {
        let Ok(Typed::Reply(reply)) = message.header.typed() else {
            continue;
        };
        let request = messages
            .iter()
            .flatten()
            .find(|request| request.header.frame.checksum == reply.request_checksum);
        let request = request.unwrap_or_else(|| panic!("{} answers nothing", message.file));
        let operation = Operation::try_from(reply.operation).unwrap();
        let limit = message.terms.batch_size_limit;
        assert_eq!(
            audit(operation, &request.body, &message.body, limit),
            Ok(()),
            "{}",
            message.file
        );
        audited += 1;
    }
    assert!(audited > 90);
}
