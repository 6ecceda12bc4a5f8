//! The gateway's promises, by name: the order of checks, and everything that a server must never do to a client.

use proptest::prelude::*;
use stampede_client::wire::header::{self, AnyHeader, Eviction, Header, PingClient, PongClient};
use stampede_client::wire::header::{Refusal, Reply, Request, Typed};
use stampede_client::wire::multibatch::encode_trailer;
use stampede_client::wire::{CreateAccountStatus, CreateResult, CreateTransferStatus};
use zerocopy::{FromBytes, IntoBytes};

use super::audit::{Fault, audit};
use super::render::{self, ReplyFields};
use super::*;
use crate::limits::{BODY_SIZE_MAX, HEADER_SIZE};
use crate::message::{Command, Message, MessageMut, Pool, PoolConfig, is_ours};

const CLUSTER: u128 = 0xc1;
const CLIENT: u128 = 0xc11e47;
const VIEW: u32 = 4;
const LIMIT: u32 = 1_048_320;

fn terms() -> Terms {
    Terms::new(CLUSTER, 1)
}

fn pool() -> Pool {
    let config = PoolConfig {
        small: 4,
        medium: 1,
        large: 1,
        huge_pages: false,
    };
    Pool::new(&config).unwrap()
}

/// A message as it arrives: these bytes in a pooled buffer.
fn received(header: &impl Header, body: &[u8]) -> MessageMut {
    let mut message = pool().acquire(body.len()).unwrap();
    message
        .header_bytes_mut()
        .copy_from_slice(header.as_bytes());
    message.body_mut_of_size(body.len()).copy_from_slice(body);
    message
}

/// A valid request that looks up nothing, not sealed.
fn request(operation: Operation) -> Request {
    let mut request = Request::zeroed();
    request.frame.cluster = CLUSTER;
    request.frame.release = Release::CURRENT;
    request.frame.view = VIEW;
    request.client = CLIENT;
    request.operation = operation.code();
    if operation != Operation::Register {
        request.session = 9;
        request.request = 3;
        request.parent = 77;
    }
    request
}

/// What comes of a request that was changed before it was sealed.
fn judged(body: &[u8], change: impl FnOnce(&mut Request)) -> Incoming {
    let mut request = request(Operation::LookupAccounts);
    change(&mut request);
    request.seal(body);
    parse(&received(&request, body), &terms(), VIEW)
}

fn ignored(refusal: Refusal) -> Incoming {
    Incoming::Ignore(refusal.into())
}

fn evicted(reason: EvictionReason) -> Incoming {
    Incoming::Evict {
        client: CLIENT,
        reason,
    }
}

/// A multi-batch body of zeroed elements.
fn batches(element: usize, counts: &[u16]) -> Vec<u8> {
    let payload = counts
        .iter()
        .map(|&count| usize::from(count))
        .sum::<usize>()
        * element;
    let mut body = vec![0; payload + 4 * element.max(16)];
    let size = encode_trailer(&mut body, payload, element, counts.iter().copied());
    body.truncate(size);
    body
}

fn lookup() -> Vec<u8> {
    batches(16, &[2, 1])
}

// --- receiving: wire section 1 ------------------------------------------------------------------

#[test]
fn untrustworthy_bytes_close_the_connection() {
    let mut good = request(Operation::LookupAccounts);
    good.seal(&lookup());
    let bytes: &[u8; HEADER_SIZE] = good.as_bytes().try_into().unwrap();
    let mut message = received(&good, &lookup());
    assert_eq!(inspect(message.header_bytes()), Ok(64));
    assert!(!is_ours(bytes));

    message.header_bytes_mut()[200] ^= 1;
    assert_eq!(
        inspect(message.header_bytes()),
        Err(Refusal::HeaderChecksum)
    );

    let mut unknown = good;
    unknown.frame.command = 25;
    unknown.seal(&lookup());
    let message = received(&unknown, &lookup());
    assert_eq!(
        inspect(message.header_bytes()),
        Err(Refusal::CommandUnknown)
    );

    for size in [0, 255, 1_048_577, u32::MAX] {
        let mut sized = good;
        sized.frame.size = size;
        sized.frame.checksum = sized.checksum_compute();
        let message = received(&sized, &lookup());
        assert_eq!(
            inspect(message.header_bytes()),
            Err(Refusal::SizeOutOfRange)
        );
        let closed = Incoming::Close(Refusal::SizeOutOfRange.into());
        assert_eq!(parse(&message, &terms(), VIEW), closed);
    }

    let mut message = received(&good, &lookup());
    message.body_mut_of_size(64)[63] ^= 1;
    let closed = Incoming::Close(Refusal::BodyChecksum.into());
    assert_eq!(parse(&message, &terms(), VIEW), closed);

    let closed = Incoming::Close(Refusal::ClusterOther.into());
    assert_eq!(judged(&lookup(), |r| r.frame.cluster += 1), closed);
    // The stream is judged before the message: another cluster's nonsense is another cluster's.
    let nonsense = |r: &mut Request| (r.frame.cluster, r.client) = (0, 0);
    assert_eq!(judged(&lookup(), nonsense), closed);
}

#[test]
fn meaningless_messages_are_met_with_silence() {
    let body = lookup();
    assert!(matches!(judged(&body, |_| {}), Incoming::Request(_)));
    assert_eq!(
        judged(&body, |r| r.frame.checksum_padding = 1),
        ignored(Refusal::FramePadding)
    );
    assert_eq!(
        judged(&body, |r| r.frame.nonce_reserved = 1),
        ignored(Refusal::FramePadding)
    );
    assert_eq!(
        judged(&body, |r| r.frame.reserved_frame[3] = 1),
        ignored(Refusal::FramePadding)
    );
    assert_eq!(
        judged(&body, |r| r.frame.epoch = 1),
        ignored(Refusal::EpochNotZero)
    );
    assert_eq!(
        judged(&body, |r| r.frame.protocol = 1),
        ignored(Refusal::ProtocolNotZero)
    );
    assert_eq!(
        judged(&body, |r| r.frame.replica = 1),
        ignored(Refusal::ReplicaInvalid)
    );
    assert_eq!(
        judged(&body, |r| r.frame.release = Release(0)),
        ignored(Refusal::ReleaseZero)
    );
    assert_eq!(
        judged(&body, |r| r.client = 0),
        ignored(Refusal::ClientZero)
    );
    assert_eq!(
        judged(&body, |r| r.parent_padding = 1),
        ignored(Refusal::ReservedNotZero)
    );
    assert_eq!(
        judged(&body, |r| r.padding[0] = 1),
        ignored(Refusal::ReservedNotZero)
    );
    assert_eq!(
        judged(&body, |r| r.reserved[51] = 1),
        ignored(Refusal::ReservedNotZero)
    );
    assert_eq!(
        judged(&body, |r| r.session = 0),
        ignored(Refusal::SessionZero)
    );
    assert_eq!(
        judged(&body, |r| r.request = 0),
        ignored(Refusal::RequestZero)
    );
    for operation in [0, 1, 4, 5, 7, 127] {
        let incoming = judged(&body, |r| r.operation = operation);
        assert_eq!(incoming, ignored(Refusal::OperationReserved), "{operation}");
    }
    assert_eq!(
        judged(&body, |r| r.operation = 6),
        ignored(Refusal::BodyUnexpected)
    );
    assert_eq!(
        judged(&body, |r| r.operation = 2),
        ignored(Refusal::RegisterFields)
    );
    // Commands that exist, but that no client sends.
    for command in [0, 1, 2, 4, 6, 7, 8, 18, 24] {
        let incoming = judged(&body, |r| r.frame.command = command);
        assert_eq!(incoming, ignored(Refusal::CommandUnexpected), "{command}");
    }
}

// --- requests: wire section 4.1 -----------------------------------------------------------------

#[test]
fn checks_come_in_the_protocols_order() {
    // Everything is wrong; each step repairs what the former one found.
    let mut wrong = request(Operation::LookupAccounts);
    let small = Terms {
        batch_size_limit: 16,
        ..terms()
    };
    wrong.session = 0;
    wrong.frame.view = VIEW + 1;
    wrong.frame.release = Release::new(0, 16, 3);
    wrong.operation = 148;
    wrong.timestamp = 1;
    let body = vec![0; 32];
    let mut judge = |terms: &Terms, change: &dyn Fn(&mut Request), body: &[u8]| {
        change(&mut wrong);
        wrong.seal(body);
        parse(&received(&wrong, body), terms, VIEW)
    };
    assert_eq!(judge(&small, &|_| {}, &body), ignored(Refusal::SessionZero));
    let ahead = judge(&small, &|r| r.session = 9, &body);
    assert_eq!(ahead, Incoming::Ignore(Reason::ViewAhead));
    let low = judge(&small, &|r| r.frame.view = VIEW, &body);
    assert_eq!(low, evicted(EvictionReason::ClientReleaseTooLow));
    let high = judge(
        &small,
        &|r| r.frame.release = Release::new(0, 17, 10),
        &body,
    );
    assert_eq!(high, evicted(EvictionReason::ClientReleaseTooHigh));
    let size = judge(&small, &|r| r.frame.release = Release::CLIENT_MIN, &body);
    assert_eq!(size, evicted(EvictionReason::InvalidRequestBodySize));
    let operation = judge(&terms(), &|_| {}, &body);
    assert_eq!(operation, evicted(EvictionReason::InvalidRequestOperation));
    let invalid = judge(&terms(), &|r| r.operation = 140, &body);
    assert_eq!(invalid, evicted(EvictionReason::InvalidRequestBody));
    let timestamp = judge(&terms(), &|_| {}, &lookup());
    assert_eq!(timestamp, Incoming::Ignore(Reason::TimestampPresent));
    let valid = judge(&terms(), &|r| r.timestamp = 0, &lookup());
    assert!(matches!(valid, Incoming::Request(_)));
}

#[test]
fn operations_of_the_cluster_are_not_for_clients() {
    for operation in [3, 128, 148, 255] {
        let incoming = judged(&[], |r| r.operation = operation);
        assert_eq!(
            incoming,
            evicted(EvictionReason::InvalidRequestOperation),
            "{operation}"
        );
    }
    assert!(matches!(
        judged(&[], |r| r.operation = 6),
        Incoming::Request(_)
    ));
}

#[test]
fn registers() {
    let judged = |body: &[u8]| {
        let mut register = request(Operation::Register);
        register.seal(body);
        parse(&received(&register, body), &terms(), VIEW)
    };
    match judged(&[0; 256]) {
        Incoming::Request(view) => {
            assert_eq!((view.operation, view.request), (Operation::Register, 0));
            assert_eq!(view.reply_size_max, 64);
        }
        other @ (Incoming::Ping(_)
        | Incoming::Evict { .. }
        | Incoming::Ignore(_)
        | Incoming::Close(_)) => panic!("{other:?}"),
    }
    assert_eq!(judged(&[]), evicted(EvictionReason::InvalidRequestBodySize));
    assert_eq!(judged(&[0; 128]), ignored(Refusal::RegisterSize));
    for at in [0, 4, 255] {
        let mut body = [0; 256];
        body[at] = 1;
        assert_eq!(judged(&body), evicted(EvictionReason::InvalidRequestBody));
    }
}

#[test]
fn a_request_is_adopted_in_place() {
    let body = batches(128, &[2, 1]);
    let mut create = request(Operation::CreateTransfers);
    create.frame.release = Release::new(0, 17, 1);
    create.seal(&body);
    let message = received(&create, &body);
    let Incoming::Request(view) = parse(&message, &terms(), VIEW) else {
        panic!()
    };
    assert_eq!(
        (view.events, view.view, view.body_size),
        (3, VIEW, body.len())
    );
    assert_eq!(view.reply_size_max, 3 * 16 + 16);
    let place = message.body_of_size(1).as_ptr();
    let message = adopt(message, &view, CLUSTER, 1, VIEW);
    assert!(is_ours(message.header_bytes()));
    assert_eq!(message.body().as_ptr(), place);
    assert_eq!(message.body(), body);
    let header = message.header();
    assert_eq!(header.verify_body(message.body()), Ok(()));
    assert_eq!(header.command(), Some(Command::Request));
    assert_eq!(
        (header.client, header.session, header.request),
        (CLIENT, 9, 3)
    );
    assert_eq!(
        (header.request_checksum, header.context),
        (create.frame.checksum, 77)
    );
    assert_eq!(
        (header.operation, header.events, header.release),
        (147, 3, 0x1101)
    );
    assert_eq!(
        (header.replica, header.view, header.cluster),
        (1, VIEW, CLUSTER)
    );

    // Reads take no timestamps of their own.
    let mut read = request(Operation::LookupAccounts);
    read.seal(&lookup());
    let message = received(&read, &lookup());
    let Incoming::Request(view) = parse(&message, &terms(), VIEW) else {
        panic!()
    };
    assert_eq!(view.events, 3);
    assert_eq!(adopt(message, &view, CLUSTER, 1, VIEW).header().events, 0);
}

// --- pings: wire section 4.2 --------------------------------------------------------------------

#[test]
fn pings() {
    let mut header = PingClient::zeroed();
    header.frame.cluster = CLUSTER;
    header.frame.release = Release::CURRENT;
    header.client = CLIENT;
    header.session = 5;
    header.ping_timestamp_monotonic = 1234;
    header.seal(&[]);
    let Incoming::Ping(view) = parse(&received(&header, &[]), &terms(), 0) else {
        panic!()
    };
    assert_eq!(
        (view.client, view.session, view.timestamp),
        (CLIENT, 5, 1234)
    );

    let pong = Answer::Pong { timestamp: 1234 };
    assert_eq!(ping(&view, true, 9, &terms()), pong);
    let no_session = Answer::Evict(EvictionReason::NoSession);
    assert_eq!(ping(&view, false, 9, &terms()), no_session);
    assert_eq!(ping(&view, false, 5, &terms()), no_session);
    assert_eq!(ping(&view, false, 4, &terms()), pong);
    assert_eq!(
        ping(&PingView { session: 0, ..view }, false, 9, &terms()),
        pong
    );
    for (release, reason) in [
        (Release::new(0, 16, 3), EvictionReason::ClientReleaseTooLow),
        (
            Release::new(0, 17, 10),
            EvictionReason::ClientReleaseTooHigh,
        ),
    ] {
        let view = PingView { release, ..view };
        assert_eq!(ping(&view, true, 9, &terms()), Answer::Evict(reason));
        // The missing session is noticed first.
        assert_eq!(ping(&view, false, 9, &terms()), no_session);
    }

    let judged = |change: &dyn Fn(&mut PingClient)| {
        let mut header = header;
        change(&mut header);
        header.seal(&[]);
        parse(&received(&header, &[]), &terms(), 0)
    };
    assert_eq!(judged(&|p| p.client = 0), ignored(Refusal::ClientZero));
    assert_eq!(judged(&|p| p.frame.view = 1), ignored(Refusal::ViewNotZero));
    assert_eq!(
        judged(&|p| p.reserved[0] = 1),
        ignored(Refusal::ReservedNotZero)
    );
}

// --- answers: wire section 10, item by item -----------------------------------------------------

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
    let body = b"results";
    let mut bytes = rendered(&fields(), body);
    let first = seen(&bytes, body);
    let other = Terms {
        replica: 2,
        ..terms()
    };
    render::reply_again(&mut bytes, &other, VIEW + 3);
    let again = seen(&bytes, body);
    assert_eq!((again.frame.view, again.frame.replica), (VIEW + 3, 2));
    assert_ne!(first.frame.checksum, again.frame.checksum);
    // Everything else is what it was: the next request's parent, too.
    assert_eq!(first.command, again.command);
    let back = std::panic::catch_unwind(move || render::reply_again(&mut bytes, &other, VIEW));
    assert!(back.is_err());
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

proptest! {
    #[test]
    fn any_sealed_message_is_judged(
        command in 0..26u8,
        operation in any::<u8>(),
        fields in any::<[u8; 128]>(),
        zeros in any::<bool>(),
        body in prop::collection::vec(any::<u8>(), 0..700),
    ) {
        let mut header = AnyHeader::zeroed();
        if !zeros {
            header.command = fields;
        }
        header.frame.cluster = CLUSTER;
        header.frame.release = Release::CURRENT;
        header.frame.command = command;
        header.command[48..52].fill(1);
        header.command[32] = 1;
        header.command[64] = 1;
        header.command[68] = operation;
        header.seal(&body);
        let message = received(&header, &body);
        let incoming = parse(&message, &terms(), VIEW);
        if let Incoming::Request(view) = incoming {
            prop_assert!(view.reply_size_max <= BODY_SIZE_MAX);
            let message: Message = adopt(message, &view, CLUSTER, 0, VIEW).freeze();
            prop_assert_eq!(message.body(), &body[..]);
        }
    }
}
