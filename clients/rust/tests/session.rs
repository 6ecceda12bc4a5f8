//! A session's judgement of replies, rule by rule, against replies made by hand.

use stampede_client::Session;
use stampede_client::session::{Event, Ignored, REGISTER_SIZE, RequestError, Violation};
use stampede_client::wire::header::{AnyHeader, Eviction, Header, PongClient, Reply, Request};
use stampede_client::wire::multibatch::encode_trailer;
use stampede_client::wire::record::RegisterResult;
use stampede_client::wire::{
    Account, CreateResult, EvictionReason, HEADER_SIZE, Operation, Refusal, Release,
};
use zerocopy::{FromBytes, IntoBytes};

const CLUSTER: u128 = 7;
const CLIENT: u128 = 0xc11e47;
const LIMIT: u32 = 1 << 16;

/// The reply that a correct server gives to the request at the start of `message`.
fn reply(message: &[u8], op: u64, body: &[u8]) -> Reply {
    let (request, _) = Request::read_from_prefix(message).expect("a header");
    let mut reply = Reply::zeroed();
    reply.frame.cluster = request.frame.cluster;
    reply.frame.view = 3;
    reply.frame.release = request.frame.release;
    reply.request_checksum = request.frame.checksum;
    reply.client = request.client;
    reply.op = op;
    reply.commit = op;
    reply.timestamp = op * 1000;
    reply.request = request.request;
    reply.operation = request.operation;
    reply.seal_with_context(body);
    reply
}

fn deliver<'a>(
    session: &mut Session,
    header: &'a impl Header,
    body: &'a [u8],
) -> Result<Event<'a>, Violation> {
    let any = AnyHeader::ref_from_bytes(header.as_bytes()).expect("one size, one alignment");
    any.verify_body(body).expect("sealed");
    session.receive(any, body)
}

fn register_body(limit: u32) -> RegisterResult {
    RegisterResult {
        batch_size_limit: limit,
        ..RegisterResult::default()
    }
}

fn registered() -> Session {
    let mut session = Session::new(CLUSTER, CLIENT);
    let mut buffer = [0; REGISTER_SIZE];
    assert_eq!(session.register(&mut buffer), Ok(REGISTER_SIZE));
    let body = register_body(LIMIT);
    let reply = reply(&buffer, 9, body.as_bytes());
    let event = deliver(&mut session, &reply, body.as_bytes());
    assert!(matches!(event, Ok(Event::Registered)));
    session
}

/// A session with a create of `events` accounts in flight, and the request's bytes.
fn creating(events: usize) -> (Session, Vec<u8>) {
    let mut session = registered();
    let payload = events * Account::SIZE;
    let mut buffer = vec![0; HEADER_SIZE + payload + Account::SIZE];
    let count = [u16::try_from(events).expect("few")];
    let size = encode_trailer(
        &mut buffer[HEADER_SIZE..],
        payload,
        Account::SIZE,
        count.into_iter(),
    );
    let size = session
        .request(Operation::CreateAccounts, &mut buffer, size)
        .expect("valid");
    assert_eq!(size, buffer.len());
    (session, buffer)
}

/// The body of a reply with this many results in each batch.
fn results(counts: &[u16]) -> Vec<u8> {
    let payload = counts
        .iter()
        .map(|&count| usize::from(count))
        .sum::<usize>()
        * CreateResult::SIZE;
    let mut body = vec![0; payload + 64];
    let size = encode_trailer(
        &mut body,
        payload,
        CreateResult::SIZE,
        counts.iter().copied(),
    );
    body.truncate(size);
    body
}

#[test]
fn register_then_request() {
    let (mut session, message) = creating(2);
    let (request, _) = Request::read_from_prefix(&message).expect("a header");
    assert_eq!(request.validate(), Ok(()));
    assert_eq!(
        (request.session, request.request, request.frame.view),
        (9, 1, 3)
    );
    assert_ne!(request.parent, 0);
    let body = results(&[2]);
    let answer = reply(&message, 10, &body);
    match deliver(&mut session, &answer, &body) {
        Ok(Event::Reply { header, body: got }) => {
            assert_eq!((header.op, got), (10, &body[..]));
        }
        other => panic!("{other:?}"),
    }
    assert!(!session.is_in_flight());
    // The duplicate means nothing.
    let event = deliver(&mut session, &answer, &body);
    assert!(matches!(
        event,
        Ok(Event::Ignored(Ignored::AnsweredAlready))
    ));
    // The next request names the reply.
    let mut buffer = vec![0; HEADER_SIZE];
    assert_eq!(
        session.request(Operation::Noop, &mut buffer, 0),
        Ok(HEADER_SIZE)
    );
    let (next, _) = Request::read_from_prefix(&buffer).expect("a header");
    assert_eq!((next.request, next.parent), (2, answer.context));
}

#[test]
fn requests_that_cannot_be_built() {
    let mut session = Session::new(CLUSTER, CLIENT);
    let mut buffer = vec![0; 1 << 17];
    let unregistered = session.request(Operation::Noop, &mut buffer, 0);
    assert_eq!(unregistered, Err(RequestError::Unregistered));
    let mut session = registered();
    assert_eq!(session.register(&mut buffer), Err(RequestError::Registered));
    let pulse = session.request(Operation::Pulse, &mut buffer, 0);
    assert_eq!(pulse, Err(RequestError::Operation(Operation::Pulse)));
    let large = session.request(Operation::CreateAccounts, &mut buffer, LIMIT as usize + 128);
    assert!(matches!(large, Err(RequestError::BodyTooLarge { .. })));
    let wrong = session.request(Operation::CreateAccounts, &mut buffer, 128);
    assert!(matches!(wrong, Err(RequestError::Body(_))));
    // None of these used a request number.
    session
        .request(Operation::Noop, &mut buffer, 0)
        .expect("valid");
    let (request, _) = Request::read_from_prefix(&buffer).expect("a header");
    assert_eq!(request.request, 1);
    assert_eq!(
        session.request(Operation::Noop, &mut buffer, 0),
        Err(RequestError::InFlight)
    );
}

/// What a reply that was changed after it was right makes of the session.
fn judged(counts: &[u16], change: impl FnOnce(&mut Reply)) -> Result<&'static str, Violation> {
    let (mut session, message) = creating(2);
    let body = results(counts);
    let mut answer = reply(&message, 10, &body);
    change(&mut answer);
    answer.seal(&body);
    match deliver(&mut session, &answer, &body)? {
        Event::Reply { .. } => Ok("reply"),
        Event::Ignored(Ignored::Refused(refusal)) => {
            assert!(session.is_in_flight());
            Ok(refusal.name())
        }
        Event::Ignored(Ignored::OtherClient) => Ok("other client"),
        Event::Ignored(Ignored::AnsweredAlready) => Ok("answered already"),
        other
        @ (Event::Registered | Event::Pong { .. } | Event::Evicted(_) | Event::Ignored(_)) => {
            panic!("{other:?}")
        }
    }
}

#[test]
fn replies_that_mean_nothing() {
    assert_eq!(judged(&[2], |_| {}), Ok("reply"));
    assert_eq!(
        judged(&[2], |r| r.commit = 11),
        Ok(Refusal::OpInvalid.name())
    );
    assert_eq!(
        judged(&[2], |r| (r.op, r.commit) = (0, 0)),
        Ok(Refusal::OpInvalid.name())
    );
    assert_eq!(
        judged(&[2], |r| r.timestamp = 0),
        Ok(Refusal::TimestampZero.name())
    );
    assert_eq!(
        judged(&[2], |r| r.reserved[18] = 1),
        Ok(Refusal::ReservedNotZero.name())
    );
    assert_eq!(
        judged(&[2], |r| r.frame.epoch = 1),
        Ok(Refusal::EpochNotZero.name())
    );
    assert_eq!(
        judged(&[2], |r| r.frame.protocol = 1),
        Ok(Refusal::ProtocolNotZero.name())
    );
    assert_eq!(
        judged(&[2], |r| r.frame.command = 9),
        Ok(Refusal::CommandUnexpected.name())
    );
    assert_eq!(
        judged(&[2], |r| r.request = 0),
        Ok(Refusal::RequestZero.name())
    );
    assert_eq!(judged(&[2], |r| r.client = 1), Ok("other client"));
}

#[test]
fn replies_that_break_the_protocol() {
    assert_eq!(
        judged(&[2], |r| r.frame.release = Release(1)),
        Err(Violation::Release)
    );
    assert_eq!(
        judged(&[2], |r| r.request = 2),
        Err(Violation::RequestAhead)
    );
    assert_eq!(
        judged(&[2], |r| r.request_checksum ^= 1),
        Err(Violation::RequestChecksum)
    );
    assert_eq!(
        judged(&[2], |r| r.operation = 147),
        Err(Violation::Operation)
    );
    assert_eq!(judged(&[2, 0], |_| {}), Err(Violation::BatchCount));
    assert_eq!(judged(&[1], |_| {}), Err(Violation::ResultCount));
    assert_eq!(judged(&[3], |_| {}), Err(Violation::ResultCount));
    let (mut session, message) = creating(1);
    let answer = reply(&message, 10, &[]);
    let verdict = deliver(&mut session, &answer, &[]).map(|_| ());
    assert!(matches!(verdict, Err(Violation::Multibatch(_))));
}

#[test]
fn batch_size_limits_are_checked() {
    for limit in [0, 1_048_321] {
        let mut session = Session::new(CLUSTER, CLIENT);
        let mut buffer = [0; REGISTER_SIZE];
        session.register(&mut buffer).expect("new");
        let body = register_body(limit);
        let answer = reply(&buffer, 9, body.as_bytes());
        let verdict = deliver(&mut session, &answer, body.as_bytes()).map(|_| ());
        assert_eq!(verdict, Err(Violation::BatchSizeLimit));
        assert!(!session.is_registered());
    }
}

fn eviction(view: u32, client: u128, reason: u8) -> Eviction {
    let mut eviction = Eviction::zeroed();
    eviction.frame.cluster = CLUSTER;
    eviction.frame.release = Release::CURRENT;
    eviction.frame.view = view;
    eviction.client = client;
    eviction.reason = reason;
    eviction.seal(&[]);
    eviction
}

#[test]
fn evictions() {
    let (mut session, _) = creating(1);
    let older = eviction(2, CLIENT, 1);
    assert!(matches!(
        deliver(&mut session, &older, &[]),
        Ok(Event::Ignored(Ignored::OlderView))
    ));
    let other = eviction(3, CLIENT + 1, 1);
    assert!(matches!(
        deliver(&mut session, &other, &[]),
        Ok(Event::Ignored(Ignored::OtherClient))
    ));
    for reason in [0, 9] {
        let unknown = eviction(3, CLIENT, reason);
        assert!(matches!(
            deliver(&mut session, &unknown, &[]),
            Ok(Event::Ignored(Ignored::Refused(Refusal::EvictionReason)))
        ));
    }
    let real = eviction(3, CLIENT, 5);
    assert!(matches!(
        deliver(&mut session, &real, &[]),
        Ok(Event::Evicted(EvictionReason::InvalidRequestBody))
    ));
    let refused = session.request(Operation::Noop, &mut [0; HEADER_SIZE], 0);
    assert_eq!(
        refused,
        Err(RequestError::Evicted(EvictionReason::InvalidRequestBody))
    );
}

#[test]
fn pongs_raise_the_view_and_nothing_lowers_it() {
    let mut session = registered();
    assert_eq!((session.view(), session.primary(3)), (3, 0));
    let mut pong = PongClient::zeroed();
    pong.frame.cluster = CLUSTER;
    pong.frame.release = Release::CURRENT;
    pong.ping_timestamp_monotonic = 77;
    for (view, seen) in [(5, 5), (4, 5)] {
        pong.frame.view = view;
        pong.seal(&[]);
        let event = deliver(&mut session, &pong, &[]);
        assert!(matches!(
            event,
            Ok(Event::Pong {
                ping_timestamp_monotonic: 77
            })
        ));
        assert_eq!(session.view(), seen);
    }
    let ping = session.ping(123);
    assert_eq!(ping.validate(), Ok(()));
    assert_eq!((ping.session, ping.frame.view), (9, 0));
}
