//! What clients send: the shared port's first look, parsing, bodies, and execution of what passes.

use std::cell::RefCell;

use stampede::gateway::tigerbeetle::{Incoming, Terms, adopt, audit::audit, parse};
use stampede::limits::{BODY_SIZE_MAX, HEADER_SIZE};
use stampede::machine::Machine;
use stampede::machine::ledger::{Ledger, LedgerOptions};
use stampede::message::{Command, Pool, PoolConfig};
use stampede::replica::ingress;
use stampede_client::wire::header::{AnyHeader, Header, PingClient, Request};
use stampede_client::wire::multibatch::{self, trailer_size};
use stampede_client::wire::{
    AccountFilter, ChangeEventsFilter, Kind, Operation, QueryFilter, Release, body,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::recipe::Recipe;

const CLUSTER: u128 = 7;

/// A header as it arrives. It passes only with a size that a message can have.
pub fn header(input: &[u8]) {
    let mut bytes = request(Operation::CreateTransfers, 0).as_bytes().to_vec();
    let mut recipe = Recipe::new(input);
    recipe.damage(&mut bytes);
    let seal = !recipe.one_in(4);
    bytes.resize(HEADER_SIZE, 0);
    if seal {
        let mut header = AnyHeader::read_from_bytes(&bytes).expect("as long as a header");
        header.frame.checksum = header.checksum_compute();
        bytes = header.as_bytes().to_vec();
    }
    let header = bytes.first_chunk().expect("as long as a header");
    if let Ok(inspected) = ingress::inspect(header) {
        assert!((HEADER_SIZE..=HEADER_SIZE + BODY_SIZE_MAX).contains(&inspected.size));
    }
}

thread_local! {
    /// Messages of one target at a time; the ledger grows, so it is made anew now and then.
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

struct World {
    pool: Pool,
    ledger: Ledger,
    timestamp: u64,
    op: u64,
}

impl World {
    fn new() -> Self {
        let config = PoolConfig {
            small: 4,
            medium: 2,
            large: 4,
            huge_pages: false,
        };
        Self {
            pool: Pool::new(&config).expect("a small map"),
            ledger: Ledger::new(LedgerOptions {
                chunk_rows_log2: 8,
                ..LedgerOptions::default()
            }),
            timestamp: 1_000_000,
            op: 0,
        }
    }
}

/// A message from its first byte to its reply. Whatever the gateway admits, the ledger executes, and
/// the reply is one that clients accept. Whether it came to that.
pub fn message(input: &[u8]) -> bool {
    let mut recipe = Recipe::new(input);
    let operations = Operation::ALL;
    let operation = match recipe.byte() {
        // What changes something, more often than not.
        0..64 => Operation::CreateAccounts,
        64..160 => Operation::CreateTransfers,
        other => operations[usize::from(other) % operations.len()],
    };
    let mut payload = payload(operation, &mut recipe);
    let head = if recipe.one_in(8) {
        ping().as_bytes().to_vec()
    } else {
        request(operation, payload.len()).as_bytes().to_vec()
    };
    let mut bytes = head;
    let seal = recipe.byte();
    if seal & 3 == 0 {
        recipe.damage(&mut bytes);
        bytes.resize(HEADER_SIZE, 0);
    }
    if seal & 12 == 0 {
        recipe.damage(&mut payload);
        payload.truncate(BODY_SIZE_MAX);
    }
    if seal & 48 != 48 {
        let mut header = AnyHeader::read_from_bytes(&bytes).expect("as long as a header");
        header.seal(&payload);
        bytes = header.as_bytes().to_vec();
    }
    WORLD.with_borrow_mut(|world| deliver(world, &bytes, &payload))
}

fn deliver(world: &mut World, header: &[u8], payload: &[u8]) -> bool {
    let header: &[u8; HEADER_SIZE] = header.first_chunk().expect("as long as a header");
    let Ok(inspected) = ingress::inspect(header) else {
        return false;
    };
    if inspected.ours || inspected.size != HEADER_SIZE + payload.len() {
        return false;
    }
    let mut message = world
        .pool
        .acquire(payload.len())
        .expect("one message at a time");
    message.header_bytes_mut().copy_from_slice(header);
    message
        .body_mut_of_size(payload.len())
        .copy_from_slice(payload);
    let terms = Terms::new(CLUSTER, 0);
    let Incoming::Request(view) = parse(&message, &terms, 3) else {
        return false;
    };
    let request = adopt(message, &view, CLUSTER, 0, view.view);
    assert_eq!(request.header().command(), Some(Command::Request));
    assert_eq!(request.body(), payload);
    let operation = view.operation;
    if !operation.is_for_clients() || matches!(operation, Operation::Register | Operation::Noop) {
        return false;
    }
    world.op += 1;
    world.timestamp += 1_000 + u64::from(request.header().events);
    let bound = Ledger::reply_size_max(operation.code(), payload);
    assert!(bound <= BODY_SIZE_MAX && view.reply_size_max <= BODY_SIZE_MAX);
    let mut reply = vec![0; bound];
    let (op, timestamp) = (world.op, world.timestamp);
    let size = world
        .ledger
        .apply(op, operation.code(), timestamp, payload, &mut reply);
    if let Err(fault) = audit(operation, payload, &reply[..size], terms.batch_size_limit) {
        panic!("the reply to {operation} would end a client: {fault}");
    }
    if world.ledger.transfers_count() > 20_000 {
        *world = World::new();
    }
    true
}

/// Multi-batch bodies: what decodes has batches that add up, and encodes to the same bytes.
pub fn multibatch(input: &[u8]) {
    let mut recipe = Recipe::new(input);
    let element_size = [8, 16, 64, 128][usize::from(recipe.byte()) % 4];
    let bytes = recipe.rest().to_vec();
    check_multibatch(&bytes, element_size);
    let mut made = batches(element_size, &mut recipe);
    recipe.damage(&mut made);
    check_multibatch(&made, element_size);
}

fn check_multibatch(bytes: &[u8], element_size: usize) {
    let Ok(decoded) = multibatch::decode(bytes, element_size) else {
        return;
    };
    let counted: usize = decoded.iter().map(|batch| batch.elements.len()).sum();
    assert_eq!(counted, decoded.payload().len());
    assert_eq!(decoded.iter().len(), usize::from(decoded.batch_count()));
    let payload = decoded.payload();
    let mut again = vec![0; bytes.len()];
    again[..payload.len()].copy_from_slice(payload);
    let counts = decoded.counts();
    let size = multibatch::encode_trailer(&mut again, payload.len(), element_size, counts);
    assert_eq!(&again[..size], bytes);
}

/// Bodies by operation: what is valid has a reply that fits a message.
pub fn operation_body(input: &[u8]) {
    let mut recipe = Recipe::new(input);
    let code = recipe.byte();
    let Some(operation) = Operation::from_code(code) else {
        return;
    };
    let limit = u32::try_from(BODY_SIZE_MAX).expect("a mebibyte");
    let mut bytes = payload(operation, &mut recipe);
    recipe.damage(&mut bytes);
    if let Ok(summary) = body::validate(operation, &bytes, limit) {
        assert!(summary.reply_size_max <= BODY_SIZE_MAX);
        assert!(summary.events as usize <= bytes.len().max(1));
    }
}

/// A valid body, its elements as the recipe says.
fn payload(operation: Operation, recipe: &mut Recipe<'_>) -> Vec<u8> {
    if operation.is_query() && !recipe.one_in(8) {
        return filters(operation, recipe);
    }
    if operation.is_multi_batch() {
        return batches(operation.event_size(), recipe);
    }
    let elements = usize::from(recipe.byte() % 8);
    let mut bytes = vec![0; elements * operation.event_size()];
    fill(&mut bytes, recipe);
    bytes
}

/// Filters that ask for something that may be there, each in a batch of its own.
fn filters(operation: Operation, recipe: &mut Recipe<'_>) -> Vec<u8> {
    let batch_count = if operation.is_multi_batch() {
        1 + usize::from(recipe.byte() % 3)
    } else {
        1
    };
    let mut bytes = Vec::new();
    for _ in 0..batch_count {
        let mut small = |bound: u8| recipe.byte().checked_sub(128).map_or(0, |n| n % bound);
        // Cluster time grows by a thousand or so with each operation.
        let mut time = || 1_000_000 + u64::from(small(128)) * 10_000;
        let (from, to) = (time(), time());
        let (timestamp_min, timestamp_max) = match small(4) {
            0 => (0, 0),
            1 => (from, 0),
            2 => (0, to),
            _ => (from, to),
        };
        let limit = u32::from(small(100));
        let flags = 3 ^ u32::from(small(8));
        match operation.kind() {
            Kind::GetChangeEvents => bytes.extend_from_slice(
                ChangeEventsFilter {
                    timestamp_min,
                    timestamp_max,
                    limit,
                    ..ChangeEventsFilter::default()
                }
                .as_bytes(),
            ),
            Kind::GetAccountTransfers | Kind::GetAccountBalances => bytes.extend_from_slice(
                AccountFilter {
                    account_id: u128::from(recipe.byte() % 16),
                    timestamp_min,
                    timestamp_max,
                    limit,
                    flags,
                    ..AccountFilter::default()
                }
                .as_bytes(),
            ),
            Kind::QueryAccounts | Kind::QueryTransfers => bytes.extend_from_slice(
                QueryFilter {
                    user_data_128: u128::from(small(4)),
                    ledger: u32::from(small(3)),
                    code: u16::from(small(3)),
                    timestamp_min,
                    timestamp_max,
                    limit,
                    flags: flags & 1,
                    ..QueryFilter::default()
                }
                .as_bytes(),
            ),
            Kind::Register
            | Kind::Noop
            | Kind::Pulse
            | Kind::CreateAccounts
            | Kind::CreateTransfers
            | Kind::LookupAccounts
            | Kind::LookupTransfers => unreachable!("{operation} has no filter"),
        }
    }
    if operation.is_multi_batch() {
        let (payload, size) = (bytes.len(), operation.event_size());
        bytes.resize(payload + trailer_size(size, batch_count), 0);
        let counts = std::iter::repeat_n(1, batch_count);
        multibatch::encode_trailer(&mut bytes, payload, size, counts);
    }
    bytes
}

fn batches(element_size: usize, recipe: &mut Recipe<'_>) -> Vec<u8> {
    let batch_count = 1 + usize::from(recipe.byte() % 4);
    let counts: Vec<u16> = (0..batch_count)
        .map(|_| u16::from(recipe.byte() % 8))
        .collect();
    let elements: usize = counts.iter().map(|count| usize::from(*count)).sum();
    let payload = elements * element_size;
    let mut bytes = vec![0; payload + trailer_size(element_size, counts.len())];
    fill(&mut bytes[..payload], recipe);
    multibatch::encode_trailer(&mut bytes, payload, element_size, counts.into_iter());
    bytes
}

/// Elements of small numbers: ids that meet, flags that mean something.
fn fill(elements: &mut [u8], recipe: &mut Recipe<'_>) {
    for (index, word) in elements.chunks_mut(16).enumerate() {
        match (recipe.byte() % 4, index % 8) {
            (0, _) => {}
            // Ledger, code, flags.
            (1, 7) if word.len() == 16 => {
                let (ledger, code, flags) = (recipe.byte() % 3, recipe.byte() % 3, recipe.byte());
                word[0] = ledger;
                word[4] = code;
                word[6] = flags;
            }
            (1 | 2, _) => word[0] = recipe.byte() % 16,
            _ => word.iter_mut().for_each(|byte| *byte = recipe.byte()),
        }
    }
}

fn request(operation: Operation, body_size: usize) -> Request {
    let mut header = Request::zeroed();
    header.frame.cluster = CLUSTER;
    header.frame.release = Release::CURRENT;
    header.frame.size = u32::try_from(HEADER_SIZE + body_size).expect("small bodies");
    header.client = 99;
    header.operation = operation.code();
    if operation != Operation::Register {
        header.session = 1;
        header.request = 1;
    }
    header
}

fn ping() -> PingClient {
    let mut ping = PingClient::new_zeroed();
    ping.frame = PingClient::zeroed().frame;
    ping.frame.cluster = CLUSTER;
    ping.frame.release = Release::CURRENT;
    ping.client = 99;
    ping
}
