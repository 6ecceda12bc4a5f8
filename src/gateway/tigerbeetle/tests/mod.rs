//! The gateway's promises about what it receives, by name: the order of checks, and what comes of each failure.

mod never;

use proptest::prelude::*;
use stampede_client::wire::header::{AnyHeader, Header, PingClient, Refusal, Request};
use stampede_client::wire::multibatch::encode_trailer;
use zerocopy::IntoBytes;

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
