//! One replica in a world where everything completes at once: the wiring from a client's bytes to
//! disk and back, across checkpoints and restarts.

use stampede_client::Buffer;
use stampede_client::session::{Event, Session};
use stampede_client::wire::multibatch::{self, Encoder};
use stampede_client::wire::{Account, CreateResult, Operation, Transfer};
use stampede_journal::device::Device;
use stampede_journal::device::memory::{Image, MemoryDevice};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::executor::Executor;
use super::io::{ConnectionId, Input, Output};
use super::open::{Opened, journal_config, open};
use super::superblock::{Identity, State};
use super::*;
use crate::limits::{HEADER_SIZE, MESSAGE_SIZE_MAX, SECTOR_SIZE};
use crate::machine::ledger::{Ledger, LedgerOptions};
use crate::message::PoolConfig;
use crate::store::MemoryStorage;

const CONNECTION: ConnectionId = ConnectionId(1);

/// What survives a crash.
struct Disk {
    superblock: Vec<u8>,
    image: Image,
    storage: MemoryStorage,
}

struct World {
    replica: Replica,
    executor: Executor,
    pool: Pool,
    superblock: Vec<u8>,
    device: MemoryDevice<Message>,
    storage: MemoryStorage,
    now: Time,
    sent: Vec<Vec<u8>>,
    checkpoints: u64,
}

fn disk() -> Disk {
    let state = State::format(&Identity {
        cluster: 5,
        replica: 0,
        replica_count: 1,
        standby_count: 0,
        sessions_max: 4,
        segment_size: 4 << 20,
        segment_count: 8,
        recovering: false,
        journal_id: 99,
    });
    Disk {
        superblock: state.encode_file(),
        image: Image::new(&journal_config(&state)),
        storage: MemoryStorage::default(),
    }
}

impl World {
    fn start(disk: Disk, at: u64) -> Self {
        let config = PoolConfig {
            small: 64,
            medium: 16,
            large: 40,
            huge_pages: false,
        };
        let pool = Pool::new(&config).unwrap();
        let state = State::decode_file(&disk.superblock).unwrap();
        let mut device = MemoryDevice::from_image(disk.image);
        let empty = || Ledger::new(LedgerOptions::default());
        let opened = open(state, 1, empty, &mut device, &disk.storage, &pool).unwrap();
        let Opened {
            replica,
            executor,
            recovery,
        } = opened;
        assert_eq!(recovery.corruptions, []);
        let mut world = Self {
            replica,
            executor,
            pool,
            superblock: disk.superblock,
            device,
            storage: disk.storage,
            now: Time {
                monotonic: at,
                wall: at,
            },
            sent: Vec::new(),
            checkpoints: 0,
        };
        let mut outputs = Vec::new();
        world.replica.start(world.now, &mut outputs);
        world.carry_out(outputs);
        world
    }

    fn crash(self) -> Disk {
        let mut storage = self.storage;
        storage.crash();
        Disk {
            superblock: self.superblock,
            image: self.device.image().clone(),
            storage,
        }
    }

    fn input(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.now.monotonic += 1_000;
        self.now.wall += 1_000;
        self.replica.on_input(input, self.now, &mut outputs);
        self.carry_out(outputs);
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::SendClient { message, size, .. } => {
                    self.sent.push(message.bytes(size).to_vec());
                }
                Output::JournalWrite(write) => {
                    let token = write.token;
                    self.device.submit(write).unwrap();
                    let done = self.device.complete(token);
                    self.input(Input::JournalWritten {
                        token,
                        result: done.result,
                    });
                }
                Output::JournalRead {
                    token,
                    file,
                    offset,
                    size,
                    mut message,
                } => {
                    let from = usize::try_from(offset).unwrap();
                    let bytes = &self.device.image().file(file)[from..from + size];
                    message.frame_mut(size).copy_from_slice(bytes);
                    self.input(Input::JournalRead {
                        token,
                        message,
                        result: Ok(size),
                    });
                }
                Output::SuperblockWrite {
                    token,
                    offset,
                    sector,
                } => {
                    let at = usize::try_from(offset).unwrap();
                    self.superblock[at..at + SECTOR_SIZE].copy_from_slice(&sector.0);
                    self.input(Input::SuperblockWritten {
                        token,
                        result: Ok(SECTOR_SIZE),
                    });
                }
                Output::Task(task) => {
                    if let Some(done) = self.executor.run(task) {
                        self.input(Input::Done(done));
                    }
                }
                Output::Checkpoint(task) => {
                    self.checkpoints += 1;
                    let done = task.write(&mut self.storage, || {});
                    self.input(Input::CheckpointDone(done));
                }
                Output::Close { reason, .. } => panic!("closed: {reason}"),
                Output::Stop(fatal) => panic!("stopped: {fatal}"),
                Output::SendReplica { .. } | Output::Dial { .. } => panic!("nobody else is there"),
            }
        }
    }

    /// Delivers a client's bytes and gives what is sent back.
    fn exchange(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (header, body) = bytes.split_first_chunk::<HEADER_SIZE>().unwrap();
        assert_eq!(ingress::inspect(header).unwrap().size, bytes.len());
        let mut message = self.pool.acquire(body.len()).unwrap();
        *message.header_bytes_mut() = *header;
        message.body_mut_of_size(body.len()).copy_from_slice(body);
        self.sent.clear();
        self.input(Input::Received {
            connection: CONNECTION,
            message,
        });
        assert_eq!(
            self.sent.len(),
            1,
            "one answer, {:?}",
            self.replica.progress()
        );
        self.sent.pop().unwrap()
    }

    fn request(&mut self, session: &mut Session, operation: Operation, records: &[u8]) -> Vec<u8> {
        let mut buffer = Buffer::new(MESSAGE_SIZE_MAX);
        let size = if operation == Operation::Register {
            session.register(&mut buffer).unwrap()
        } else {
            let mut encoder = Encoder::new(&mut buffer[HEADER_SIZE..], operation.event_size());
            encoder.spare()[..records.len()].copy_from_slice(records);
            encoder.end_batch(records.len());
            let body_size = encoder.finish();
            session.request(operation, &mut buffer, body_size).unwrap()
        };
        let reply = self.exchange(&buffer[..size]);
        let (header, body) = reply.split_first_chunk::<HEADER_SIZE>().unwrap();
        let header = stampede_client::wire::header::frame_unaligned(header).unwrap();
        header.verify_body(body).unwrap();
        match session.receive(&header, body).unwrap() {
            Event::Registered => Vec::new(),
            Event::Reply { body, .. } => body.to_vec(),
            other @ (Event::Pong { .. } | Event::Evicted(_) | Event::Ignored(_)) => {
                panic!("{other:?}")
            }
        }
    }
}

fn account(id: u128) -> Account {
    Account {
        id,
        ledger: 1,
        code: 1,
        ..Account::new_zeroed()
    }
}

fn transfer(id: u128) -> Transfer {
    Transfer {
        id,
        debit_account_id: 1,
        credit_account_id: 2,
        amount: 3,
        ledger: 1,
        code: 1,
        ..Transfer::new_zeroed()
    }
}

fn created(reply: &[u8]) -> usize {
    let batches = multibatch::decode(reply, size_of::<CreateResult>()).unwrap();
    let (results, _) = batches.payload().as_chunks::<16>();
    results
        .iter()
        .filter(|result| result[8..12] == [0xff; 4])
        .count()
}

#[test]
fn batches_survive_checkpoints_and_restarts() {
    let mut world = World::start(disk(), 1_000_000_000);
    let mut session = Session::new(5, 77);
    world.request(&mut session, Operation::Register, &[]);
    let accounts = [account(1), account(2)];
    let reply = world.request(&mut session, Operation::CreateAccounts, accounts.as_bytes());
    assert_eq!(created(&reply), 2);
    let mut id = 0;
    let mut checkpoints = 0;
    for round in 0..6 {
        for _ in 0..8 {
            let transfers: Vec<_> = (0..8189).map(|n| transfer(id + n + 1)).collect();
            id += 8189;
            let reply = world.request(
                &mut session,
                Operation::CreateTransfers,
                transfers.as_bytes(),
            );
            assert_eq!(created(&reply), 8189);
        }
        let digest = world.executor.machine().digest();
        checkpoints += world.checkpoints;
        let before = world.replica.progress();
        world = World::start(world.crash(), 2_000_000_000 * (round + 1));
        let after = world.replica.progress();
        assert_eq!((after.head, after.executed), (before.head, before.executed));
        assert_eq!(world.executor.machine().digest(), digest, "round {round}");
    }
    assert!(checkpoints >= 5, "only {checkpoints} checkpoints");
    let reply = world.request(&mut session, Operation::LookupAccounts, 1u128.as_bytes());
    let account = Account::read_from_bytes(&reply[..128]).unwrap();
    assert_eq!(account.debits_posted, id * 3);
}
