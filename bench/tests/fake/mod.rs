//! A small ledger server in this process that speaks the real protocol over real sockets, so that the
//! whole load generator can be run against it, and that can be told to misbehave.
//!
//! It keeps accounts and transfers in memory, answers each client at most once for each request number,
//! and leaves out everything that the load generator does not use.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    clippy::field_reassign_with_default,
    clippy::map_entry,
    reason = "a test server: real threads and clocks, and whatever goes wrong fails the test"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use stampede_client::Inbox;
use stampede_client::wire::header::{
    AnyHeader, Eviction, Header, PongClient, Reply, Request, Typed,
};
use stampede_client::wire::record::{RegisterResult, transfer_flags as flags};
use stampede_client::wire::{
    Account, CreateAccountStatus, CreateResult, CreateTransferStatus, EvictionReason, Operation,
    Release, Transfer, multibatch,
};
use zerocopy::{FromBytes, IntoBytes};

/// How the server behaves; the default is well.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Behaviour {
    pub(crate) cluster: u128,
    /// Time that each request takes, all clients one after the other.
    pub(crate) delay: Duration,
    /// Every so many requests the connection is closed before the request is executed.
    pub(crate) close_before: Option<u64>,
    /// Every so many requests the connection is closed after it was executed, without the reply.
    pub(crate) close_after: Option<u64>,
    /// This request (counting creations of transfers) is acknowledged and not executed.
    pub(crate) forget: Option<u64>,
    /// Every so many transfers one is refused.
    pub(crate) refuse: Option<u64>,
    /// After so many requests every session is ended.
    pub(crate) evict_after: Option<u64>,
    /// After so many requests the next replica becomes the primary.
    pub(crate) fail_over_after: Option<u64>,
    pub(crate) batch_size_limit: Option<u32>,
    /// Replies are sent in pieces of so many bytes.
    pub(crate) fragment: Option<usize>,
    /// Every creation is acknowledged and nothing is executed.
    pub(crate) blind: bool,
}

#[derive(Default)]
struct Ledger {
    accounts: BTreeMap<u128, Account>,
    transfers: BTreeMap<u128, Transfer>,
    /// Client to its latest request number and reply.
    sessions: BTreeMap<u128, (u32, Vec<u8>)>,
    op: u64,
    timestamp: u64,
    requests: u64,
    transfer_batches: u64,
    transfer_events: u64,
    view: u32,
}

pub(crate) struct Fake {
    pub(crate) addresses: Vec<SocketAddr>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Fake {
    pub(crate) fn start(behaviour: Behaviour) -> Fake {
        Fake::cluster(1, behaviour)
    }

    pub(crate) fn cluster(replicas: usize, behaviour: Behaviour) -> Fake {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut addresses = Vec::new();
        for replica in 0..replicas {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            addresses.push(listener.local_addr().unwrap());
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let server = Server {
                        ledger: Arc::clone(&ledger),
                        behaviour,
                        replica,
                        replicas,
                    };
                    let stream = stream.unwrap();
                    stream.set_nodelay(true).unwrap();
                    thread::spawn(move || server.serve(stream));
                }
            });
        }
        Fake { addresses, ledger }
    }

    pub(crate) fn transfers(&self) -> usize {
        self.ledger.lock().unwrap().transfers.len()
    }

    pub(crate) fn pendings(&self) -> u128 {
        self.ledger
            .lock()
            .unwrap()
            .accounts
            .values()
            .map(|account| account.debits_pending)
            .sum()
    }
}

struct Server {
    ledger: Arc<Mutex<Ledger>>,
    behaviour: Behaviour,
    replica: usize,
    replicas: usize,
}

/// What to do after a message.
enum Next {
    Send(Vec<u8>),
    Silence,
    Close,
}

impl Server {
    fn serve(&self, mut stream: TcpStream) {
        let mut inbox = Inbox::new(self.behaviour.cluster);
        loop {
            match stream.read(inbox.spare()) {
                Ok(0) | Err(_) => return,
                Ok(count) => inbox.filled(count),
            }
            loop {
                match inbox.message() {
                    Ok(None) => break,
                    Err(_) => return,
                    Ok(Some((header, body))) => match self.on_message(header, body) {
                        Next::Silence => {}
                        Next::Close => return,
                        Next::Send(bytes) => {
                            let size = self.behaviour.fragment.unwrap_or(bytes.len());
                            if bytes
                                .chunks(size)
                                .any(|piece| stream.write_all(piece).is_err())
                            {
                                return;
                            }
                        }
                    },
                }
            }
        }
    }

    fn on_message(&self, header: &AnyHeader, body: &[u8]) -> Next {
        match header.typed().unwrap() {
            Typed::PingClient(ping) => {
                ping.validate().unwrap();
                let mut pong = PongClient::zeroed();
                pong.frame.cluster = self.behaviour.cluster;
                pong.frame.release = Release::CURRENT;
                pong.frame.view = self.ledger.lock().unwrap().view;
                pong.frame.replica = u8::try_from(self.replica).unwrap();
                pong.ping_timestamp_monotonic = ping.ping_timestamp_monotonic;
                pong.seal(&[]);
                Next::Send(pong.as_bytes().to_vec())
            }
            Typed::Request(request) => {
                request.validate().unwrap();
                self.on_request(request, body)
            }
            other => panic!("unexpected message {other:?}"),
        }
    }

    fn on_request(&self, request: &Request, body: &[u8]) -> Next {
        let mut ledger = self.ledger.lock().unwrap();
        if ledger.view as usize % self.replicas != self.replica {
            return Next::Silence;
        }
        let operation = Operation::from_code(request.operation).unwrap();
        if let Some((number, reply)) = ledger.sessions.get(&request.client) {
            if *number == request.request {
                return Next::Send(reply.clone());
            }
            assert_eq!(
                *number + 1,
                request.request,
                "requests come one after the other"
            );
        } else {
            assert_eq!(operation, Operation::Register);
        }
        ledger.requests += 1;
        let every =
            |period: Option<u64>, count: u64| period.is_some_and(|n| count.is_multiple_of(n));
        if self.behaviour.fail_over_after == Some(ledger.requests) {
            ledger.view += 1;
            return Next::Silence;
        }
        if self.behaviour.evict_after == Some(ledger.requests) {
            return Next::Send(self.eviction(request, ledger.view));
        }
        if every(self.behaviour.close_before, ledger.requests) {
            return Next::Close;
        }
        thread::sleep(self.behaviour.delay);
        let body = self.execute(&mut ledger, operation, body);
        ledger.op += 1;
        ledger.timestamp += 1;
        let mut reply = Reply::zeroed();
        reply.frame.cluster = self.behaviour.cluster;
        reply.frame.release = request.frame.release;
        reply.frame.view = ledger.view;
        reply.frame.replica = u8::try_from(self.replica).unwrap();
        reply.request_checksum = request.frame.checksum;
        reply.client = request.client;
        reply.op = ledger.op;
        reply.commit = ledger.op;
        reply.timestamp = ledger.timestamp;
        reply.request = request.request;
        reply.operation = request.operation;
        reply.seal_with_context(&body);
        let message = [reply.as_bytes(), &body].concat();
        ledger
            .sessions
            .insert(request.client, (request.request, message.clone()));
        if every(self.behaviour.close_after, ledger.requests) {
            return Next::Close;
        }
        Next::Send(message)
    }

    fn eviction(&self, request: &Request, view: u32) -> Vec<u8> {
        let mut eviction = Eviction::zeroed();
        eviction.frame.cluster = self.behaviour.cluster;
        eviction.frame.release = Release::CURRENT;
        eviction.frame.view = view;
        eviction.client = request.client;
        eviction.reason = EvictionReason::NoSession as u8;
        eviction.seal(&[]);
        eviction.as_bytes().to_vec()
    }

    fn execute(&self, ledger: &mut Ledger, operation: Operation, body: &[u8]) -> Vec<u8> {
        if operation == Operation::Register {
            let mut result = RegisterResult::default();
            result.batch_size_limit = self.behaviour.batch_size_limit.unwrap_or(1_048_320);
            return result.as_bytes().to_vec();
        }
        let batches = multibatch::decode(body, operation.event_size()).unwrap();
        assert_eq!(batches.batch_count(), 1);
        let payload = batches.payload();
        if self.behaviour.blind {
            let created = CreateResult::transfer(1, CreateTransferStatus::Created);
            return encode(std::iter::repeat_n(created, batches.element_count()));
        }
        match operation {
            Operation::CreateAccounts => {
                let events = <[Account]>::ref_from_bytes(payload).unwrap();
                encode(events.iter().map(|event| create_account(ledger, event)))
            }
            Operation::CreateTransfers => {
                ledger.transfer_batches += 1;
                let forget = self.behaviour.forget == Some(ledger.transfer_batches);
                let events = <[Transfer]>::ref_from_bytes(payload).unwrap();
                encode(events.iter().map(|event| {
                    ledger.transfer_events += 1;
                    let number = ledger.transfer_events;
                    let status = if self
                        .behaviour
                        .refuse
                        .is_some_and(|n| number.is_multiple_of(n))
                    {
                        CreateTransferStatus::ExceedsCredits
                    } else if forget {
                        CreateTransferStatus::Created
                    } else {
                        create_transfer(ledger, event)
                    };
                    CreateResult::transfer(1, status)
                }))
            }
            Operation::LookupAccounts => {
                let ids = payload
                    .chunks_exact(16)
                    .map(|id| u128::read_from_bytes(id).unwrap());
                encode(ids.filter_map(|id| ledger.accounts.get(&id).copied()))
            }
            Operation::LookupTransfers => {
                let ids = payload
                    .chunks_exact(16)
                    .map(|id| u128::read_from_bytes(id).unwrap());
                encode(ids.filter_map(|id| ledger.transfers.get(&id).copied()))
            }
            other => panic!("unexpected operation {other}"),
        }
    }
}

fn encode<T: IntoBytes + zerocopy::Immutable>(elements: impl Iterator<Item = T>) -> Vec<u8> {
    let elements: Vec<T> = elements.collect();
    let mut body = elements.as_bytes().to_vec();
    let payload = body.len();
    body.resize(payload + size_of::<T>(), 0);
    let count = u16::try_from(elements.len()).unwrap();
    multibatch::encode_trailer(&mut body, payload, size_of::<T>(), std::iter::once(count));
    body
}

fn create_account(ledger: &mut Ledger, event: &Account) -> CreateResult {
    assert_eq!(
        (event.debits_posted, event.credits_posted, event.timestamp),
        (0, 0, 0)
    );
    let status = if ledger.accounts.contains_key(&event.id) {
        CreateAccountStatus::Exists
    } else {
        ledger.accounts.insert(event.id, *event);
        CreateAccountStatus::Created
    };
    CreateResult::account(1, status)
}

fn create_transfer(ledger: &mut Ledger, event: &Transfer) -> CreateTransferStatus {
    use CreateTransferStatus as Status;
    let (debit, credit) = (event.debit_account_id, event.credit_account_id);
    assert!(event.id != 0 && debit != credit && event.timestamp == 0);
    if ledger.transfers.contains_key(&event.id) {
        return Status::Exists;
    }
    if !ledger.accounts.contains_key(&debit) {
        return Status::DebitAccountNotFound;
    }
    if !ledger.accounts.contains_key(&credit) {
        return Status::CreditAccountNotFound;
    }
    let resolves = event.flags & (flags::POST_PENDING_TRANSFER | flags::VOID_PENDING_TRANSFER) != 0;
    if resolves {
        let Some(pending) = ledger.transfers.get(&event.pending_id).copied() else {
            return Status::PendingTransferNotFound;
        };
        if (
            pending.debit_account_id,
            pending.credit_account_id,
            pending.amount,
        ) != (debit, credit, event.amount)
        {
            return Status::PendingTransferHasDifferentAmount;
        }
    }
    let mut change =
        |id, pending: fn(&mut Account) -> &mut u128, posted: fn(&mut Account) -> &mut u128| {
            let account = ledger.accounts.get_mut(&id).unwrap();
            if event.flags & flags::PENDING != 0 {
                *pending(account) += event.amount;
                return;
            }
            if resolves {
                *pending(account) -= event.amount;
            }
            if event.flags & flags::VOID_PENDING_TRANSFER == 0 {
                *posted(account) += event.amount;
            }
        };
    change(
        debit,
        |account| &mut account.debits_pending,
        |account| &mut account.debits_posted,
    );
    change(
        credit,
        |account| &mut account.credits_pending,
        |account| &mut account.credits_posted,
    );
    ledger.timestamp += 1;
    let stored = Transfer {
        timestamp: ledger.timestamp,
        ..*event
    };
    ledger.transfers.insert(event.id, stored);
    Status::Created
}
