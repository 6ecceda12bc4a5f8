//! What a server must never do to a client, one test for each item of the protocol's list.
//!
//! Each of these stops a client's process, or leaves it waiting for ever. Most cannot be written down here, because the
//! types do not hold them; the others panic before the bytes exist, or are found by the audit.

use stampede_client::wire::header::{self, AnyHeader, Eviction, PongClient, Reply, Typed};
use stampede_client::wire::{CreateAccountStatus, CreateResult, CreateTransferStatus};
use zerocopy::{FromBytes, IntoBytes};

use super::super::audit::{Fault, audit};
use super::super::render::{self, ReplyFields};
use super::*;

fn fields() -> ReplyFields {
    ReplyFields {
        request_checksum: 11,
        context: 12,
        client: CLIENT,
        release: Release::new(0, 16, 78),
        op: 13,
        timestamp: 14,
        request: 3,
        operation: Operation::CreateAccounts,
    }
}

fn rendered(fields: &ReplyFields, body: &[u8]) -> [u8; HEADER_SIZE] {
    let mut bytes = [0xff; HEADER_SIZE];
    let size = render::reply(&mut bytes, fields, body, &terms(), VIEW);
    assert_eq!(size, HEADER_SIZE + body.len());
    assert_eq!(render::size(&bytes), size);
    bytes
}

/// A rendered message, seen with a client's eyes.
fn seen(bytes: &[u8; HEADER_SIZE], body: &[u8]) -> AnyHeader {
    let header = header::frame_unaligned(bytes).unwrap();
    header.verify_body(body).unwrap();
    header.verify_cluster(CLUSTER).unwrap();
    match header.typed().unwrap() {
        Typed::Reply(reply) => reply.validate().unwrap(),
        Typed::PongClient(pong) => pong.validate().unwrap(),
        Typed::Eviction(eviction) => eviction.validate().unwrap(),
        other @ (Typed::PingClient(_) | Typed::Request(_)) => panic!("{other:?}"),
    }
    header
}

#[test]
fn never_1_a_command_that_clients_do_not_know() {
    let mut bytes = [0; HEADER_SIZE];
    assert_eq!(seen(&rendered(&fields(), &[]), &[]).frame.command, 8);
    render::pong(&mut bytes, 1, &terms(), VIEW);
    assert_eq!(seen(&bytes, &[]).frame.command, 4);
    render::eviction(
        &mut bytes,
        CLIENT,
        EvictionReason::NoSession,
        &terms(),
        VIEW,
    );
    assert_eq!(seen(&bytes, &[]).frame.command, 18);
}

#[test]
fn never_2_an_eviction_reason_above_8() {
    for (reason, code) in EvictionReason::ALL.into_iter().zip(1..) {
        let mut bytes = [0; HEADER_SIZE];
        render::eviction(&mut bytes, CLIENT, reason, &terms(), VIEW);
        seen(&bytes, &[]);
        let eviction = Eviction::read_from_bytes(&bytes).unwrap();
        assert_eq!((eviction.client, eviction.reason), (CLIENT, code));
        assert_eq!(eviction.frame.release, Release::CURRENT);
        assert_eq!((eviction.frame.view, eviction.frame.replica), (VIEW, 1));
    }
}

#[test]
fn never_3_the_servers_release_in_a_reply() {
    assert_eq!(
        seen(&rendered(&fields(), &[]), &[]).frame.release,
        Release::new(0, 16, 78)
    );
}

#[test]
fn never_4_an_answer_to_another_request() {
    let reply = Reply::read_from_bytes(&rendered(&fields(), b"body")).unwrap();
    assert_eq!(reply.request_checksum, 11);
    assert_eq!(
        (reply.request, reply.operation, reply.client),
        (3, 146, CLIENT)
    );
    assert_eq!(reply.context, 12);
}

#[test]
#[should_panic = "replica"]
fn never_5_a_pong_of_replica_6() {
    let terms = Terms {
        replica: 6,
        ..terms()
    };
    render::pong(&mut [0; HEADER_SIZE], 1, &terms, VIEW);
}

#[test]
fn pongs_echo_the_timestamp() {
    let mut bytes = [0; HEADER_SIZE];
    render::pong(&mut bytes, 987, &terms(), VIEW);
    seen(&bytes, &[]);
    let pong = PongClient::read_from_bytes(&bytes).unwrap();
    assert_eq!(pong.ping_timestamp_monotonic, 987);
    assert_eq!(
        (pong.frame.view, pong.frame.release),
        (VIEW, Release::CURRENT)
    );
}

#[test]
fn never_6_a_register_limit_that_no_client_takes() {
    let audited = |limit: u32, size: usize| {
        let mut body = vec![0; size];
        body[..4].copy_from_slice(&limit.to_le_bytes());
        audit(Operation::Register, &[0; 256], &body, LIMIT)
    };
    assert_eq!(audited(LIMIT, 64), Ok(()));
    assert_eq!(audited(0, 64), Err(Fault::BatchSizeLimit));
    assert_eq!(audited(LIMIT + 1, 64), Err(Fault::BatchSizeLimit));
    assert_eq!(audited(LIMIT, 63), Err(Fault::Size));
}

#[test]
fn never_7_a_multi_batch_reply_of_another_shape() {
    let audited = |request: &[u16], reply: &[u8]| {
        audit(
            Operation::LookupAccounts,
            &batches(16, request),
            reply,
            LIMIT,
        )
    };
    assert_eq!(audited(&[2, 1], &batches(128, &[2, 1])), Ok(()));
    assert_eq!(audited(&[2, 1], &batches(128, &[0, 1])), Ok(()));
    assert!(matches!(audited(&[2, 1], &[]), Err(Fault::Multibatch(_))));
    let count = Fault::BatchCount {
        request: 2,
        reply: 1,
    };
    assert_eq!(audited(&[2, 1], &batches(128, &[3])), Err(count));
    let more = Fault::ResultCount {
        batch: 1,
        results: 2,
        allowed: 1,
    };
    assert_eq!(audited(&[2, 1], &batches(128, &[1, 2])), Err(more));
    let mut damaged = batches(128, &[2, 1]);
    let padding = damaged.len() - 20;
    damaged[padding] = 0;
    assert!(matches!(
        audited(&[2, 1], &damaged),
        Err(Fault::Multibatch(_))
    ));

    // Creates have exactly one result for each event.
    let mut results = batches(16, &[1]);
    results[8..12].fill(0xff);
    let create = |events: u16| {
        audit(
            Operation::CreateAccounts,
            &batches(128, &[events]),
            &results,
            LIMIT,
        )
    };
    assert_eq!(create(1), Ok(()));
    let fewer = Fault::ResultCount {
        batch: 0,
        results: 1,
        allowed: 2,
    };
    assert_eq!(create(2), Err(fewer));

    // Queries have at most as many as the filter's limit.
    let query = |limit: u32, results: u16| {
        let mut filter = batches(64, &[1]);
        filter[56..60].copy_from_slice(&limit.to_le_bytes());
        audit(
            Operation::QueryAccounts,
            &filter,
            &batches(128, &[results]),
            LIMIT,
        )
    };
    assert_eq!(query(2, 2), Ok(()));
    let beyond = Fault::ResultCount {
        batch: 0,
        results: 3,
        allowed: 2,
    };
    assert_eq!(query(2, 3), Err(beyond));
}

#[test]
fn never_8_a_status_that_does_not_exist() {
    let audited = |operation: Operation, status: u32| {
        let mut results = batches(16, &[1]);
        let result = CreateResult {
            timestamp: 1,
            status,
            reserved: 0,
        };
        results[..16].copy_from_slice(result.as_bytes());
        audit(operation, &batches(128, &[1]), &results, LIMIT)
    };
    for status in CreateAccountStatus::ALL {
        assert_eq!(audited(Operation::CreateAccounts, status.code()), Ok(()));
    }
    for status in CreateTransferStatus::ALL {
        assert_eq!(audited(Operation::CreateTransfers, status.code()), Ok(()));
    }
    for status in [0, 27, 999] {
        let fault = Err(Fault::Status(status));
        assert_eq!(audited(Operation::CreateAccounts, status), fault);
    }
    for status in [0, 18, 69] {
        let fault = Err(Fault::Status(status));
        assert_eq!(audited(Operation::CreateTransfers, status), fault);
    }
    // In the sparse form success is said by saying nothing.
    let sparse = |status: u32| {
        let mut body = vec![0; 8];
        body[4..].copy_from_slice(&status.to_le_bytes());
        audit(Operation::CreateAccountsUnbatched, &[0; 256], &body, LIMIT)
    };
    assert_eq!(sparse(21), Ok(()));
    assert_eq!(sparse(0), Err(Fault::Status(0)));
    assert_eq!(sparse(u32::MAX), Err(Fault::Status(u32::MAX)));
}

#[test]
fn never_9_a_message_larger_than_a_mebibyte() {
    let largest = vec![0; BODY_SIZE_MAX];
    let bytes = rendered(&fields(), &largest);
    assert_eq!(render::size(&bytes), 1 << 20);
    let larger = vec![0; BODY_SIZE_MAX + 1];
    let lookup = audit(Operation::LookupAccountsUnbatched, &[0; 16], &larger, LIMIT);
    assert_eq!(lookup, Err(Fault::Size));
    let panicked = std::panic::catch_unwind(|| rendered(&fields(), &larger));
    assert!(panicked.is_err());
}

#[test]
fn never_10_fields_that_clients_ignore_replies_for() {
    let reply = Reply::read_from_bytes(&rendered(&fields(), &[])).unwrap();
    assert_eq!((reply.op, reply.commit, reply.timestamp), (13, 13, 14));
    assert_eq!((reply.frame.epoch, reply.frame.protocol), (0, 0));
    for wrong in [
        ReplyFields { op: 0, ..fields() },
        ReplyFields {
            timestamp: 0,
            ..fields()
        },
        ReplyFields {
            client: 0,
            ..fields()
        },
        ReplyFields {
            release: Release(0),
            ..fields()
        },
        ReplyFields {
            request: 0,
            ..fields()
        },
        ReplyFields {
            operation: Operation::Register,
            ..fields()
        },
    ] {
        assert!(
            std::panic::catch_unwind(|| rendered(&wrong, &[])).is_err(),
            "{wrong:?}"
        );
    }
}

#[test]
fn never_11_a_view_that_goes_back() {
    // A reply that is sent again has the view that the replica is in by then.
    let body = b"results";
    let mut bytes = rendered(&fields(), body);
    let first = seen(&bytes, body);
    let other = Terms {
        replica: 2,
        ..terms()
    };
    render::reply(&mut bytes, &fields(), body, &other, VIEW + 3);
    let again = seen(&bytes, body);
    assert_eq!((again.frame.view, again.frame.replica), (VIEW + 3, 2));
    assert_ne!(first.frame.checksum, again.frame.checksum);
    // Everything else is what it was: the next request's parent, too.
    assert_eq!(first.command, again.command);
}

#[test]
fn never_12_a_retransmission_that_looks_new() {
    // The session table knows a retransmission by number and checksum: both are carried along.
    let identity = || {
        let mut read = request(Operation::LookupAccounts);
        read.seal(&lookup());
        let message = received(&read, &lookup());
        let Incoming::Request(view) = parse(&message, &terms(), VIEW) else {
            panic!()
        };
        let message = adopt(message, &view, CLUSTER, 1, VIEW);
        (
            message.header().client,
            message.header().request,
            message.header().request_checksum,
        )
    };
    assert_eq!(identity(), identity());
    assert_ne!(identity().2, 0);
}
