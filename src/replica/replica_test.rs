//! One replica in a world where everything completes at once: the wiring from a client's bytes to
//! disk and back, across checkpoints and restarts.

use stampede_client::Buffer;
use stampede_client::session::{Event, Session};
use stampede_client::wire::multibatch::{self, Encoder};
use stampede_client::wire::record::account_filter_flags;
use stampede_client::wire::{
    Account, AccountFilter, CreateResult, EvictionReason, Operation, Transfer,
};
use stampede_journal::device::Device;
use stampede_journal::device::memory::{Image, MemoryDevice};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::executor::Executor;
use super::io::{ConnectionId, Input, Output};
use super::library::LibraryDone;
use super::misfit::Difference;
use super::open::{Opened, journal_config, open, restore};
use super::superblock::{Identity, State};
use super::*;
use crate::limits::PIPELINE_MAX;
use crate::limits::{HEADER_SIZE, MESSAGE_SIZE_MAX, SECTOR_SIZE};
use crate::machine::ledger::{Ledger, LedgerOptions, RowsMax};
use crate::message::PoolConfig;
use crate::store::{
    Damage, FileKind, FileName, ManifestRef, MemoryStorage, ScrubStep, Storage, StoreError,
};

mod power;

use self::power::{Power, Powered};

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
    /// To be delivered, in order.
    inputs: VecDeque<Input>,
    checkpoints: u64,
    /// What becomes of writes to the journal and to the superblock.
    journal_fault: Option<Fault>,
    superblock_fault: Option<Fault>,
    /// The replica has stopped itself, for this reason.
    stopped: Option<String>,
    power: Power,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// It fails with this error of the system.
    Fails(i32),
    /// Only so many bytes are written.
    Short(usize),
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
        Self::start_with(LedgerOptions::default(), disk, at)
    }

    fn start_with(options: LedgerOptions, disk: Disk, at: u64) -> Self {
        let config = PoolConfig {
            small: 64,
            medium: 16,
            large: 40,
            huge_pages: false,
        };
        let pool = Pool::new(&config).unwrap();
        let state = State::decode_file(&disk.superblock).unwrap();
        let mut device = MemoryDevice::from_image(disk.image);
        let empty = || Ledger::new(options);
        let restored = restore(&state, &disk.storage, empty);
        let opened = open(state, 1, || restored, &mut device, &pool).unwrap();
        let Opened {
            replica,
            executor,
            recovery,
            checkpoint_lost,
        } = opened;
        assert!(checkpoint_lost.is_none());
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
            inputs: VecDeque::new(),
            checkpoints: 0,
            journal_fault: None,
            superblock_fault: None,
            stopped: None,
            power: Power::lasting(),
        };
        // There is no librarian here.
        world.replica.set_scrub_rate(0);
        let mut outputs = Vec::new();
        world.replica.start(world.now, &mut outputs);
        world.carry_out(outputs);
        world.input(Input::Tick);
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
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            let mut outputs = Vec::new();
            self.now.monotonic += 1_000;
            self.now.wall += 1_000;
            self.replica.on_input(input, self.now, &mut outputs);
            self.carry_out(outputs);
        }
    }

    /// Does what the replica wants; what comes of it is delivered in that order.
    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            if self.power.is_out() {
                return;
            }
            match output {
                Output::SendClient { message, size, .. } => {
                    self.sent.push(message.bytes(size).to_vec());
                }
                Output::JournalWrite(write) => {
                    let token = write.token;
                    self.device.submit(write).unwrap();
                    match self.journal_fault {
                        Some(Fault::Fails(errno)) => self.device.fail(token, errno),
                        Some(Fault::Short(size)) => self.device.shorten(token, size),
                        None => {}
                    }
                    let done = self.device.complete(token);
                    self.inputs.push_back(Input::JournalWritten {
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
                    self.inputs.push_back(Input::JournalRead {
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
                    let result = match self.superblock_fault {
                        Some(Fault::Fails(errno)) => Err(std::io::Error::from_raw_os_error(errno)),
                        Some(Fault::Short(size)) => Ok(size),
                        None => Ok(SECTOR_SIZE),
                    };
                    // In two steps: power may fail before it, and in the middle of it.
                    let (before, middle) = (self.power.step(), self.power.step());
                    let written = match (before, middle) {
                        (Err(_), _) => 0,
                        (Ok(()), Err(_)) => SECTOR_SIZE / 8,
                        (Ok(()), Ok(())) => *result.as_ref().unwrap_or(&0),
                    };
                    self.superblock[at..at + written].copy_from_slice(&sector.0[..written]);
                    self.inputs
                        .push_back(Input::SuperblockWritten { token, result });
                }
                Output::Task(task) => {
                    if let Some(done) = self.executor.run(task) {
                        self.inputs.push_back(Input::Done(done));
                    }
                }
                Output::Checkpoint(task) => {
                    self.checkpoints += 1;
                    let mut storage = Powered {
                        storage: &mut self.storage,
                        power: self.power.clone(),
                    };
                    let done = task.write(&mut storage, || {});
                    self.inputs.push_back(Input::CheckpointDone(done));
                }
                Output::Close { reason, .. } => panic!("closed: {reason}"),
                Output::Stop(fatal) => self.stopped = Some(fatal.to_string()),
                Output::SendReplica { .. }
                | Output::Dial { .. }
                | Output::Library(_)
                | Output::Reopen => panic!("nobody else is there"),
            }
        }
    }

    /// Delivers a client's bytes and gives what is sent back.
    fn exchange(&mut self, bytes: &[u8]) -> Vec<u8> {
        let answer = self.deliver(bytes);
        answer.unwrap_or_else(|| panic!("no answer, {:?}", self.replica.progress()))
    }

    /// The same; `None` when nothing is sent back.
    fn deliver(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
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
        assert!(self.sent.len() <= 1, "{:?}", self.replica.progress());
        self.sent.pop()
    }

    /// Lets so much time pass, in ticks.
    fn wait(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / 10 {
            self.now.monotonic += TICK_NS;
            self.now.wall += TICK_NS;
            self.input(Input::Tick);
        }
    }

    fn request(&mut self, session: &mut Session, operation: Operation, records: &[u8]) -> Vec<u8> {
        let bytes = Self::compose(session, operation, records);
        let reply = self.exchange(&bytes);
        Self::receive(session, &reply)
    }

    fn compose(session: &mut Session, operation: Operation, records: &[u8]) -> Vec<u8> {
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
        buffer[..size].to_vec()
    }

    fn receive(session: &mut Session, reply: &[u8]) -> Vec<u8> {
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
        let digest = world.executor.digest();
        checkpoints += world.checkpoints;
        let before = world.replica.progress();
        world = World::start(world.crash(), 2_000_000_000 * (round + 1));
        let after = world.replica.progress();
        assert_eq!((after.head, after.executed), (before.head, before.executed));
        assert_eq!(world.executor.digest(), digest, "round {round}");
    }
    assert!(checkpoints >= 5, "only {checkpoints} checkpoints");
    let reply = world.request(&mut session, Operation::LookupAccounts, 1u128.as_bytes());
    let account = Account::read_from_bytes(&reply[..128]).unwrap();
    assert_eq!(account.debits_posted, id * 3);
}

/// A full batch, of new ids.
fn batch(first: u128) -> Vec<Transfer> {
    (0..8189).map(|n| transfer(first + n)).collect()
}

/// A replica with two accounts, and its client.
fn with_accounts() -> (World, Session) {
    let mut world = World::start(disk(), 1_000_000_000);
    let mut session = Session::new(5, 77);
    world.request(&mut session, Operation::Register, &[]);
    let accounts = [account(1), account(2)];
    world.request(&mut session, Operation::CreateAccounts, accounts.as_bytes());
    (world, session)
}

/// After a restart, the request that was not answered is.
fn answered_after_restart(world: World, request: &[u8], session: &mut Session) {
    let mut world = World::start(world.crash(), 9_000_000_000);
    let reply = world.exchange(request);
    assert_eq!(created(&World::receive(session, &reply)), 8189);
}

#[test]
fn a_journal_write_that_fails_or_is_short_stops_the_replica_unanswered() {
    for fault in [
        Fault::Fails(libc::EIO),
        Fault::Fails(libc::ENOSPC),
        Fault::Short(0),
        Fault::Short(SECTOR_SIZE),
        Fault::Short(100),
    ] {
        let (mut world, mut session) = with_accounts();
        world.journal_fault = Some(fault);
        let records = batch(1);
        let request = World::compose(&mut session, Operation::CreateTransfers, records.as_bytes());
        assert_eq!(world.deliver(&request), None, "{fault:?}");
        let reason = world.stopped.take().expect("it stops");
        assert!(reason.starts_with("journal write failed: "), "{reason}");
        // Nothing brings it back but a new start, not even a disk that is well again.
        world.journal_fault = None;
        assert_eq!(world.deliver(&request), None);
        world.wait(100);
        assert_eq!(world.replica.progress().commit, 2);
        answered_after_restart(world, &request, &mut session);
    }
}

#[test]
fn a_superblock_write_that_fails_or_is_short_stops_the_replica() {
    for fault in [
        Fault::Fails(libc::EIO),
        Fault::Fails(libc::ENOSPC),
        Fault::Short(512),
    ] {
        let (mut world, mut session) = with_accounts();
        world.superblock_fault = Some(fault);
        let (request, before) = until_stopped(&mut world, &mut session);
        let reason = world.stopped.take().expect("it stops");
        assert!(reason.starts_with("superblock write failed: "), "{reason}");
        assert!(before >= 2, "there was no checkpoint to be referred to");
        answered_after_restart(world, &request, &mut session);
    }
}

/// Full batches until one of them stops the replica; gives that one, and how many were answered.
fn until_stopped(world: &mut World, session: &mut Session) -> (Vec<u8>, u128) {
    for number in 0..20 {
        let records = batch(1 + number * 8189);
        let request = World::compose(session, Operation::CreateTransfers, records.as_bytes());
        let answer = world.deliver(&request);
        if world.stopped.is_some() {
            return match answer {
                // Its own answer was on its way before.
                Some(reply) => {
                    World::receive(session, &reply);
                    let records = batch(1 + (number + 1) * 8189);
                    let next =
                        World::compose(session, Operation::CreateTransfers, records.as_bytes());
                    (next, number + 1)
                }
                None => (request, number),
            };
        }
        World::receive(session, &answer.expect("it is well"));
    }
    panic!("twenty batches, and no checkpoint");
}

#[test]
fn a_checkpoint_write_that_fails_stops_the_replica_wherever_it_is() {
    let mut writes = 0;
    loop {
        let (mut world, mut session) = with_accounts();
        world.storage.fail_writes_after(Some(writes));
        let count = |world: &World| world.replica.progress().checkpoint;
        for number in 0..5 {
            let records = batch(1 + number * 8189);
            if world.stopped.is_none() {
                world.request(&mut session, Operation::CreateTransfers, records.as_bytes());
            }
        }
        let Some(reason) = world.stopped.take() else {
            assert!(count(&world) > 0 && writes > 8, "{writes} writes");
            return;
        };
        assert!(reason.starts_with("checkpoint of op "), "{reason}");
        assert_eq!(count(&world), 0, "write {writes}: nothing refers to it");
        world.storage.fail_writes_after(None);
        let again = World::start(world.crash(), 9_000_000_000);
        assert!(again.stopped.is_none());
        writes += 1;
    }
}

/// As the librarian says it of the manifest of this checkpoint.
fn gone(of: ManifestRef) -> Input {
    let error = std::io::Error::from(std::io::ErrorKind::NotFound);
    let error = StoreError::io("read", of.entry().name, error);
    let damage = Damage::new(of.entry(), &error);
    Input::Library(LibraryDone::Scrubbed(ScrubStep::Gone { of, damage }))
}

#[test]
fn a_file_that_is_not_there_is_lost_only_if_the_checkpoint_in_force_has_it() {
    let (mut world, mut session) = with_accounts();
    let mut in_force = Vec::new();
    for number in 0..20 {
        let records = batch(1 + number * 8189);
        world.request(&mut session, Operation::CreateTransfers, records.as_bytes());
        in_force.extend(world.replica.superblock.state().manifest());
    }
    in_force.dedup();
    let present = in_force.pop().expect("there were checkpoints");
    // The scrub asked for it when it was in force, and was slower than the next checkpoint.
    world.input(gone(in_force.pop().expect("there was one before")));
    assert_eq!(world.stopped, None);
    world.input(gone(present));
    let reason = world.stopped.take().expect("it stops");
    assert!(reason.contains("restore a backup"), "{reason}");
}

/// Batches until one is refused; gives that one, and how many were answered.
fn until_refused(world: &mut World, session: &mut Session) -> (Vec<u8>, u128) {
    for number in 0..20 {
        let records = batch(1 + number * 8189);
        let request = World::compose(session, Operation::CreateTransfers, records.as_bytes());
        match world.deliver(&request) {
            Some(reply) => assert_eq!(created(&World::receive(session, &reply)), 8189),
            None => return (request, number),
        }
    }
    panic!("twenty batches, and none was refused");
}

#[test]
fn a_full_disk_refuses_writes_answers_look_ups_and_goes_on_by_itself() {
    // Found before anything is written, or in the middle of it.
    let limits: [fn(&mut MemoryStorage); 2] =
        [|s| s.set_room(Some(1 << 17)), |s| s.set_quota(1 << 17)];
    for limit in limits {
        let (mut world, mut session) = with_accounts();
        let mut reader = Session::new(5, 78);
        world.request(&mut reader, Operation::Register, &[]);
        limit(&mut world.storage);
        let (request, answered) = until_refused(&mut world, &mut session);
        assert!((4..8).contains(&answered), "{answered}");
        assert!(world.stopped.is_none());
        let full = world.replica.progress().full.expect("it says so");
        assert!(full.needed > 1 << 17, "{full:?}");
        assert_eq!(world.storage.list().unwrap(), [], "nothing is left lying");

        // Half an interval, of at least a sector each; a batch may have taken some of it.
        let reads = (4 << 20) / 2 / SECTOR_SIZE - (1 << 20) / SECTOR_SIZE - 1;
        for _ in 0..reads {
            let reply = world.request(&mut reader, Operation::LookupAccounts, 1u128.as_bytes());
            let found = Account::read_from_bytes(&reply[..128]).unwrap();
            assert_eq!(found.debits_posted, answered * 8189 * 3);
        }
        assert_eq!(world.deliver(&request), None, "it is still full");

        let attempts = world.checkpoints;
        world.wait(5_000);
        assert!((4..=6).contains(&(world.checkpoints - attempts)));
        world.storage.set_room(None);
        world.wait(1_100);
        let progress = world.replica.progress();
        assert!(progress.full.is_none() && progress.checkpoint > 0);
        let reply = world.exchange(&request);
        assert_eq!(created(&World::receive(&mut session, &reply)), 8189);

        let digest = world.executor.digest();
        let again = World::start(world.crash(), 90_000_000_000);
        assert_eq!(again.executor.digest(), digest);
    }
}

#[test]
fn a_restart_with_a_full_disk_waits_as_well() {
    let (mut world, mut session) = with_accounts();
    world.storage.set_room(Some(0));
    let (request, _) = until_refused(&mut world, &mut session);
    let mut world = World::start(world.crash(), 9_000_000_000);
    assert!(world.replica.progress().full.is_some());
    assert_eq!(world.deliver(&request), None);
    world.storage.set_room(None);
    world.wait(1_100);
    let reply = world.exchange(&request);
    assert_eq!(created(&World::receive(&mut session, &reply)), 8189);
}

#[test]
fn a_query_that_meets_damage_stops_a_replica_that_is_alone_unanswered() {
    let (mut world, mut session) = with_accounts();
    for number in 0..16 {
        let records = batch(1 + number * 8189);
        world.request(&mut session, Operation::CreateTransfers, records.as_bytes());
    }
    let mut world = World::start(world.crash(), 5_000_000_000);
    let rotten = FileName::new(FileKind::Transfers, 0);
    let files = world.storage.list().unwrap();
    let (_, size) = files.into_iter().find(|(name, _)| *name == rotten).unwrap();
    // All of its pages; what was read when it was opened was read.
    for at in (0..usize::try_from(size).unwrap()).step_by(4096) {
        world.storage.damage(rotten, at);
    }
    let reply = world.request(&mut session, Operation::LookupAccounts, 1u128.as_bytes());
    assert_eq!(reply.len(), 256, "an account and a trailer");
    let filter = AccountFilter {
        account_id: 1,
        limit: 100,
        flags: account_filter_flags::DEBITS,
        ..AccountFilter::new_zeroed()
    };
    let request = World::compose(
        &mut session,
        Operation::GetAccountTransfers,
        filter.as_bytes(),
    );
    assert_eq!(world.deliver(&request), None);
    let reason = world.stopped.take().expect("it stops");
    assert!(
        reason.contains(&format!("checkpoint file {rotten} is damaged at")),
        "{reason}"
    );
    // Nor does it answer anything after that.
    assert_eq!(world.deliver(&request), None);
}

#[test]
fn a_full_ledger_sends_away_who_wants_to_create_and_answers_the_others() {
    // Room for two batches, besides that for what may be under way.
    let under_way = u32::try_from(PIPELINE_MAX * 8190).unwrap();
    let rows_max = RowsMax {
        accounts: under_way + 100,
        transfers: under_way + 2 * 8189,
        failed: under_way + 100,
        timeouts: under_way,
    };
    let options = LedgerOptions {
        rows_max,
        ..LedgerOptions::default()
    };
    let mut world = World::start_with(options, disk(), 1_000_000_000);
    let mut session = Session::new(5, 77);
    world.request(&mut session, Operation::Register, &[]);
    let accounts = [account(1), account(2)];
    world.request(&mut session, Operation::CreateAccounts, accounts.as_bytes());
    for number in 0..3 {
        assert!(!world.replica.progress().machine_full);
        let records = batch(1 + number * 8189);
        let reply = world.request(&mut session, Operation::CreateTransfers, records.as_bytes());
        assert_eq!(created(&reply), 8189);
    }
    assert!(world.replica.progress().machine_full);
    let (head, digest) = (world.replica.progress().head, world.executor.digest());
    let mut id = 3 * 8189;
    for operation in [Operation::CreateTransfers, Operation::CreateAccounts] {
        let mut session = Session::new(5, 100 + id);
        world.request(&mut session, Operation::Register, &[]);
        id += 1;
        let records = if operation == Operation::CreateTransfers {
            transfer(id).as_bytes().to_vec()
        } else {
            account(id).as_bytes().to_vec()
        };
        // What is there is found, by the session that is sent away afterwards, too.
        let found = world.request(&mut session, Operation::LookupTransfers, 7u128.as_bytes());
        assert_eq!(found[..16], 7u128.to_le_bytes());
        let request = World::compose(&mut session, operation, &records);
        let answer = world.exchange(&request);
        let (header, body) = answer.split_first_chunk::<HEADER_SIZE>().unwrap();
        let header = stampede_client::wire::header::frame_unaligned(header).unwrap();
        let event = session.receive(&header, body).unwrap();
        let reason = EvictionReason::InvalidRequestOperation;
        assert!(
            matches!(event, Event::Evicted(found) if found == reason),
            "{event:?}"
        );
    }
    // Nothing but two registers and two look-ups went through the log.
    assert_eq!(world.replica.progress().head, head + 4);
    assert_eq!(world.executor.digest(), digest);
    assert_eq!(world.stopped, None);
}

#[test]
fn who_is_not_made_alike_is_named_and_nothing_else_comes_of_it() {
    let (mut world, mut session) = with_accounts();
    let ours = peers::hello(world.replica.superblock(), 0, false);
    let differs = |name, theirs, ours| Difference::Option { name, theirs, ours };
    let cases = [
        (
            Header {
                cluster: 6,
                replica: 200,
                ..ours
            },
            "peer_cluster",
            vec![differs("--cluster", 6, 5)],
        ),
        (
            Header {
                commit: 3,
                replica: 2,
                ..ours
            },
            "peer_replica",
            vec![differs("--replica-count", 3, 1)],
        ),
        (
            Header {
                session: u64::MAX,
                timestamp: 1 << 30,
                ..ours
            },
            "peer_configuration",
            vec![
                differs("--clients-max", u64::MAX.into(), 4),
                differs("--journal-size", 1 << 30, 32 << 20),
                Difference::SameIndex,
            ],
        ),
    ];
    for (hello, refused, differences) in cases {
        let before = world.replica.progress();
        let replica = hello.replica;
        for _ in 0..3 {
            let mut message = world.pool.acquire(64).unwrap();
            message.fill(hello, &[0; 64]);
            let connection = ConnectionId(7);
            let received = Input::Received {
                connection,
                message,
            };
            let mut outputs = Vec::new();
            world.replica.on_input(received, world.now, &mut outputs);
            let [Output::Close { reason, .. }] = outputs[..] else {
                panic!("{outputs:?}");
            };
            assert_eq!(reason, refused);
            world
                .replica
                .on_input(Input::Closed { connection }, world.now, &mut outputs);
            assert_eq!((outputs.len(), world.replica.progress()), (1, before));
        }
        let misfits = world.replica.take_misfits();
        assert_eq!(
            misfits.into_iter().collect::<Vec<_>>(),
            [(replica, differences)]
        );
        assert!(world.replica.take_misfits().is_empty());
    }
    let batch = batch(1);
    let reply = world.request(&mut session, Operation::CreateTransfers, batch.as_bytes());
    assert_eq!(created(&reply), batch.len());
}
