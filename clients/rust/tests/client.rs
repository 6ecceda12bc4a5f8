//! The blocking client against a small server over real sockets, and what a network and a cluster do to it: replies in
//! pieces, connections cut, damaged bytes, a primary elsewhere, silence, evictions.
#![expect(
    clippy::disallowed_methods,
    reason = "servers run in threads of their own"
)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test panics at what it does not expect"
)]

use stampede_client::wire::header::{Eviction, Header, PongClient, Reply, Request, Typed};
use stampede_client::wire::multibatch::{self, encode_trailer};
use stampede_client::wire::record::RegisterResult;
use stampede_client::wire::{
    Account, CreateAccountStatus, CreateResult, EvictionReason, HEADER_SIZE, Operation, Release,
};
use stampede_client::{Client, Error, Inbox, Options};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use zerocopy::{FromBytes, IntoBytes};

const CLUSTER: u128 = 0x5747;

/// What a server does with the requests after the register, one entry for each that arrives; then `Answer`.
#[derive(Clone, Copy, Debug)]
enum Behaviour {
    Answer,
    /// Executes, but the connection is cut before the reply.
    Cut,
    /// Executes, and damages a bit of the reply.
    Damage,
    /// The request is lost.
    Lose,
    Evict(EvictionReason),
}

/// State shared by the replicas of one cluster: the log has been replicated, so to speak.
#[derive(Debug, Default)]
struct Cluster {
    view: u32,
    op: u64,
    accounts: Vec<Account>,
    /// Request bytes and reply of the latest request.
    latest: (Vec<u8>, Vec<u8>),
    executed: usize,
    script: Vec<Behaviour>,
    /// Reply bytes are written in pieces of this size.
    piece: usize,
}

type Shared = Arc<Mutex<Cluster>>;

fn start(script: &[Behaviour], piece: usize, replicas: u32, view: u32) -> (Shared, Options) {
    let mut script = script.to_vec();
    script.reverse();
    let cluster = Cluster {
        view,
        script,
        piece,
        ..Cluster::default()
    };
    let shared = Arc::new(Mutex::new(cluster));
    let addresses = (0..replicas)
        .map(|index| replica(&shared, index, replicas))
        .collect();
    let options = Options::new(CLUSTER, addresses);
    (
        shared,
        Options {
            deadline: Some(Duration::from_secs(20)),
            ..options
        },
    )
}

fn replica(shared: &Shared, index: u32, replicas: u32) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = Arc::clone(&shared);
            thread::spawn(move || serve(stream, &shared, index, replicas));
        }
    });
    address
}

/// One connection, until either side closes it.
fn serve(mut stream: TcpStream, shared: &Shared, index: u32, replicas: u32) -> Option<()> {
    let mut inbox = Inbox::new(CLUSTER);
    loop {
        let count = stream.read(inbox.spare()).ok().filter(|count| *count > 0)?;
        inbox.filled(count);
        while let Some((header, body)) = inbox.message().expect("clients are correct") {
            let mut cluster = shared.lock().expect("no test panics with it");
            let answer = match header.typed().expect("clients are correct") {
                Typed::PingClient(ping) => {
                    ping.validate().expect("clients are correct");
                    let mut pong = PongClient::zeroed();
                    pong.frame.cluster = CLUSTER;
                    pong.frame.release = Release::CURRENT;
                    pong.frame.view = cluster.view;
                    pong.ping_timestamp_monotonic = ping.ping_timestamp_monotonic;
                    pong.seal(&[]);
                    pong.as_bytes().to_vec()
                }
                Typed::Request(request) => {
                    request.validate().expect("clients are correct");
                    if cluster.view % replicas != index {
                        continue;
                    }
                    cluster.answer(request, body)?
                }
                other => panic!("{other:?}"),
            };
            let piece = cluster.piece;
            drop(cluster);
            for part in answer.chunks(piece) {
                stream.write_all(part).ok()?;
            }
        }
    }
}

impl Cluster {
    /// The bytes to send; `None` closes the connection.
    fn answer(&mut self, request: &Request, body: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = request.as_bytes().to_vec();
        bytes.extend_from_slice(body);
        let behaviour = if request.operation == Operation::Register.code() {
            Behaviour::Answer
        } else {
            self.script.pop().unwrap_or(Behaviour::Answer)
        };
        match behaviour {
            Behaviour::Lose => return Some(Vec::new()),
            Behaviour::Evict(reason) => {
                let mut eviction = Eviction::zeroed();
                eviction.frame.cluster = CLUSTER;
                eviction.frame.release = Release::CURRENT;
                eviction.frame.view = self.view;
                eviction.client = request.client;
                eviction.reason = reason as u8;
                eviction.seal(&[]);
                return Some(eviction.as_bytes().to_vec());
            }
            Behaviour::Answer | Behaviour::Cut | Behaviour::Damage => {}
        }
        if bytes != self.latest.0 {
            self.latest = (bytes, self.execute(request, body));
        }
        let mut reply = self.latest.1.clone();
        match behaviour {
            Behaviour::Cut => return None,
            Behaviour::Damage => reply[HEADER_SIZE + 1] ^= 4,
            Behaviour::Answer | Behaviour::Lose | Behaviour::Evict(_) => {}
        }
        Some(reply)
    }

    fn execute(&mut self, request: &Request, body: &[u8]) -> Vec<u8> {
        self.executed += 1;
        self.op += 1;
        let operation = Operation::try_from(request.operation).expect("clients are correct");
        let (element, payload) = match operation {
            Operation::Register => {
                let result = RegisterResult {
                    batch_size_limit: 32_512,
                    ..Default::default()
                };
                (0, result.as_bytes().to_vec())
            }
            Operation::CreateAccounts => {
                let batches = multibatch::decode(body, Account::SIZE).expect("valid");
                let events = batches.payload().chunks_exact(Account::SIZE);
                let events = events.map(|event| Account::read_from_bytes(event).expect("whole"));
                self.accounts.extend(events);
                let one = CreateResult::account(self.op, CreateAccountStatus::Created);
                (
                    CreateResult::SIZE,
                    vec![one; batches.element_count()].as_bytes().to_vec(),
                )
            }
            Operation::LookupAccounts => {
                let batches = multibatch::decode(body, 16).expect("valid");
                let wanted = |account: &&Account| {
                    batches
                        .payload()
                        .chunks_exact(16)
                        .any(|id| id == account.id.as_bytes())
                };
                let found: Vec<_> = self.accounts.iter().filter(wanted).copied().collect();
                (Account::SIZE, found.as_bytes().to_vec())
            }
            other => panic!("{other}"),
        };
        let mut body = payload;
        if element > 0 {
            let size = body.len();
            body.resize(size + element, 0);
            let count = u16::try_from(size / element).expect("few");
            encode_trailer(&mut body, size, element, [count].into_iter());
        }
        let mut reply = Reply::zeroed();
        reply.frame.cluster = CLUSTER;
        reply.frame.release = request.frame.release;
        reply.frame.view = self.view;
        reply.request_checksum = request.frame.checksum;
        reply.client = request.client;
        (reply.op, reply.commit, reply.timestamp) = (self.op, self.op, self.op);
        (reply.request, reply.operation) = (request.request, request.operation);
        reply.seal_with_context(&body);
        let mut bytes = reply.as_bytes().to_vec();
        bytes.extend_from_slice(&body);
        bytes
    }
}

fn account(id: u128) -> Account {
    Account {
        id,
        ledger: 1,
        code: 1,
        ..Account::default()
    }
}

/// Creates one account and reads it back: two requests.
fn create_and_look_up(client: &mut Client) {
    let results = client.create_accounts(&[account(1)]).expect("an answer");
    assert_eq!(results.len(), 1);
    assert!(results[0].is_created());
    assert_eq!(
        client.lookup_accounts(&[1, 2]).expect("an answer"),
        [account(1)]
    );
}

#[test]
fn replies_arrive_in_pieces() {
    let (shared, options) = start(&[], 7, 1, 1);
    let mut client = Client::connect(options).expect("a server");
    assert_eq!(client.session().batch_size_limit(), 32_512);
    create_and_look_up(&mut client);
    assert_eq!(client.lookup_accounts(&[]).expect("an answer"), []);
    let error = client.create_accounts(&vec![account(1); 254]);
    assert!(matches!(
        error,
        Err(Error::TooManyEvents {
            count: 254,
            max: 253
        })
    ));
    assert_eq!(shared.lock().expect("no panic").executed, 4);
}

#[test]
fn an_executed_request_whose_reply_was_lost_is_not_executed_again() {
    use Behaviour::{Answer, Cut, Damage, Lose};
    let (shared, options) = start(&[Cut, Damage, Lose, Cut, Answer], 1 << 20, 1, 0);
    let mut client = Client::connect(options).expect("a server");
    create_and_look_up(&mut client);
    // The register, the create and the lookup.
    assert_eq!(shared.lock().expect("no panic").executed, 3);
}

#[test]
fn the_primary_is_found() {
    let (shared, options) = start(&[], 1 << 20, 3, 1);
    let mut client = Client::connect(options).expect("a server");
    assert_eq!(client.session().view(), 1);
    shared.lock().expect("no panic").view = 5;
    create_and_look_up(&mut client);
    assert_eq!(client.session().view(), 5);
}

#[test]
fn a_missing_replica_does_not_matter() {
    let (_shared, mut options) = start(&[], 1 << 20, 2, 1);
    // A port where nobody listens; the server above believes in two replicas, the client in two as well.
    let unused = TcpListener::bind("127.0.0.1:0").expect("a free port");
    options.addresses[0] = unused.local_addr().expect("bound");
    drop(unused);
    let mut client = Client::connect(options).expect("a server");
    create_and_look_up(&mut client);
}

#[test]
fn silence_ends_at_the_deadline_and_the_session_goes_on() {
    use Behaviour::Lose;
    let (shared, mut options) = start(&[Lose], 1 << 20, 1, 0);
    options.deadline = Some(Duration::from_millis(300));
    let mut client = Client::connect(options).expect("a server");
    let silence = client.create_accounts(&[account(1)]);
    assert!(matches!(silence, Err(Error::Timeout(_))));
    // The lost request is still in flight: it is executed before the lookup.
    client.set_deadline(Some(Duration::from_secs(20)));
    assert_eq!(
        client.lookup_accounts(&[1]).expect("an answer"),
        [account(1)]
    );
    assert_eq!(shared.lock().expect("no panic").executed, 3);
}

#[test]
fn an_eviction_is_final() {
    let reason = EvictionReason::SessionTooLow;
    let (_shared, options) = start(&[Behaviour::Evict(reason)], 1 << 20, 1, 0);
    let mut client = Client::connect(options).expect("a server");
    for _ in 0..2 {
        let evicted = client.create_accounts(&[account(1)]);
        assert!(matches!(evicted, Err(Error::Evicted(r)) if r == reason));
    }
}

#[test]
fn a_cluster_has_addresses() {
    let none = Client::connect(Options::new(CLUSTER, Vec::new()));
    assert!(matches!(none, Err(Error::Addresses(0))));
}
