//! One replica that fetches, others that lend, and a network between them that does what a test says.

use std::collections::VecDeque;

use super::fetch::Fetcher;
use super::lend::Lender;
use super::{Context, wire};
use crate::message::{Command, Message, Op, Pool, PoolConfig, View};
use crate::replica::io::Output;
use crate::replica::library::{LIBRARIANS, Librarian, LibraryDone, LibraryTask};
use crate::replica::superblock::{Identity, State};
use crate::store::{
    BLOCK_SIZE, FileEntry, FileKind, FileName, Manifest, ManifestRef, MemoryStorage, SealedWriter,
    Snapshot, Storage, StoreError, sweep, write_checkpoint,
};

const CLUSTER: u128 = 9;
const VIEW: View = 4;
const MILLISECOND: u64 = 1_000_000;

/// As many files of full chunks, each of some blocks, and one numbered by op.
struct Chunks(u64, Op);

impl Snapshot for Chunks {
    fn size(&self) -> u64 {
        self.0
    }

    fn write(&mut self, storage: &mut dyn Storage) -> Result<Vec<FileEntry>, StoreError> {
        let mut files = Vec::new();
        let mut write = |name, fill: u64, size| -> Result<(), StoreError> {
            let mut writer = SealedWriter::create(storage, name)?;
            writer.section(1)?;
            let bytes: Vec<u8> = (0..size)
                .map(|at| (at as u64 * 7 + fill).to_le_bytes()[0])
                .collect();
            writer.write(&bytes)?;
            files.push(writer.finish()?);
            Ok(())
        };
        for chunk in 0..self.0 {
            let name = FileName::new(FileKind::Transfers, chunk);
            write(name, chunk, 2 * BLOCK_SIZE + 4096)?;
        }
        write(
            FileName::new(FileKind::Ledger, self.1),
            self.1,
            3 * BLOCK_SIZE,
        )?;
        Ok(files)
    }

    fn discard(&mut self) {}
}

/// A replica that has a checkpoint.
struct Donor {
    state: State,
    storage: MemoryStorage,
    librarian: Librarian,
    lender: Lender,
    is_up: bool,
}

impl Donor {
    fn checkpoint(&mut self, chunks: u64, op: Op) -> ManifestRef {
        let mut snapshot = Chunks(chunks, op);
        let manifest = write_checkpoint(&mut self.storage, op, &mut snapshot, b"sessions").unwrap();
        self.state.checkpoint_op = op;
        self.state.checkpoint_checksum = u128::from(op) * 11;
        self.state.checkpoint_timestamp = op * 1000;
        self.state.manifest_size = manifest.size;
        self.state.manifest_data_size = manifest.data_size;
        self.state.manifest_checksum = manifest.checksum;
        manifest
    }

    fn sweep(&mut self, now: u64) {
        let mut keep: Vec<ManifestRef> = self.state.manifest().into_iter().collect();
        keep.extend(self.lender.kept(now));
        sweep(&mut self.storage, &keep).unwrap();
    }
}

/// What the network does with a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    /// Behind what is under way now.
    Late,
}

struct World {
    now: u64,
    pool: Pool,
    /// Who fetches: replica 0.
    fetcher: Fetcher,
    storage: MemoryStorage,
    librarians: [Librarian; LIBRARIANS],
    /// Replicas 1 and 2.
    donors: Vec<Donor>,
    network: VecDeque<(u8, Message)>,
    tasks: VecDeque<(u8, LibraryTask)>,
    fate: Box<dyn FnMut(&Message) -> Fate>,
    /// The checkpoint in force at the one who fetches.
    own: Option<ManifestRef>,
    /// Blocks that came, by donor.
    blocks: [u64; 3],
}

fn state(replica: u8) -> State {
    State::format(&Identity {
        cluster: CLUSTER,
        replica,
        replica_count: 3,
        standby_count: 0,
        sessions_max: 4,
        segment_size: 4 << 20,
        segment_count: 8,
        recovering: false,
        journal_id: 1,
    })
}

fn librarians(storage: &MemoryStorage) -> [Librarian; LIBRARIANS] {
    std::array::from_fn(|_| Librarian::new(Box::new(storage.handle())))
}

impl World {
    fn new(chunks: u64, op: Op) -> Self {
        let config = PoolConfig {
            small: 256,
            medium: 8,
            large: 80,
            huge_pages: false,
        };
        let donors = (1..3).map(|replica| {
            let storage = MemoryStorage::default();
            let mut donor = Donor {
                state: state(replica),
                librarian: Librarian::new(Box::new(storage.handle())),
                storage,
                lender: Lender::default(),
                is_up: true,
            };
            donor.checkpoint(chunks, op);
            donor
        });
        let donors = donors.collect();
        let storage = MemoryStorage::default();
        Self {
            now: 1,
            pool: Pool::new(&config).unwrap(),
            fetcher: Fetcher::new(0, 3),
            librarians: librarians(&storage),
            storage,
            donors,
            network: VecDeque::new(),
            tasks: VecDeque::new(),
            fate: Box::new(|_| Fate::Arrives),
            own: None,
            blocks: [0; 3],
        }
    }

    /// Lets a replica do something, and its machine what it wants.
    fn act(&mut self, replica: u8, act: impl FnOnce(&mut Self, &mut Context<'_>)) {
        let pool = self.pool.clone();
        let mut outputs = Vec::new();
        let mut context = Context {
            cluster: CLUSTER,
            replica,
            view: VIEW,
            now: self.now,
            pool: &pool,
            outputs: &mut outputs,
        };
        act(self, &mut context);
        for output in outputs {
            match output {
                Output::SendReplica { to, message } => match (self.fate)(&message) {
                    Fate::Lost => {}
                    Fate::Arrives => self.network.push_back((to, message)),
                    Fate::Twice => {
                        self.network.push_back((to, message.clone()));
                        self.network.push_back((to, message));
                    }
                    Fate::Late => {
                        let at = self.network.len().saturating_sub(3);
                        let earlier = self.network.split_off(at);
                        self.network.push_back((to, message));
                        self.network.extend(earlier);
                    }
                },
                Output::Library(task) => self.tasks.push_back((replica, task)),
                Output::Dial { .. }
                | Output::SendClient { .. }
                | Output::Close { .. }
                | Output::JournalWrite(_)
                | Output::JournalRead { .. }
                | Output::SuperblockWrite { .. }
                | Output::Task(_)
                | Output::Checkpoint(_)
                | Output::Reopen
                | Output::Stop(_) => panic!("unexpected {output:?}"),
            }
        }
    }

    /// Librarians do what they were asked to. Each in turn, and the last of them is the fastest.
    fn work(&mut self) {
        while let Some(fastest) = self.tasks.iter().map(|(_, task)| task.librarian()).max() {
            let theirs = |(_, task): &(u8, LibraryTask)| task.librarian() == fastest;
            let at = self.tasks.iter().position(theirs).unwrap();
            let (replica, task) = self.tasks.remove(at).unwrap();
            if replica == 0 {
                let done = self.librarians[fastest].run(task);
                self.act(0, |world, context| world.fetcher.on_done(done, context));
                continue;
            }
            let donor = &mut self.donors[usize::from(replica) - 1];
            let LibraryDone::Read { to, message } = donor.librarian.run(task) else {
                panic!("donors only read");
            };
            self.act(replica, |world, context| {
                let donor = &mut world.donors[usize::from(replica) - 1];
                donor.lender.on_read(to, message, context);
            });
        }
    }

    fn deliver(&mut self) -> bool {
        self.work();
        let Some((to, message)) = self.network.pop_front() else {
            return false;
        };
        let header = *message.header();
        if to == 0 {
            if header.command() == Some(Command::Block) && !message.body().is_empty() {
                self.blocks[usize::from(header.replica)] += 1;
            }
            self.act(0, |world, context| match header.command() {
                Some(Command::Block) => world.fetcher.on_block(message, context),
                Some(Command::Checkpoint) => {
                    let offer = wire::Offer::read(&message).unwrap();
                    world.fetcher.on_offer(&header, offer, context);
                }
                other => panic!("unexpected {other:?}"),
            });
        } else if self.donors[usize::from(to) - 1].is_up {
            self.act(to, |world, context| {
                let donor = &mut world.donors[usize::from(to) - 1];
                match header.command() {
                    Some(Command::GetCheckpoint) => {
                        donor
                            .lender
                            .on_get_checkpoint(&header, &donor.state, context);
                    }
                    Some(Command::GetBlock) => {
                        donor.lender.on_get_block(&header, &donor.state, context);
                    }
                    other => panic!("unexpected {other:?}"),
                }
            });
        }
        true
    }

    /// Ticks, and delivers so many messages; whether all is here.
    fn go_on(&mut self, messages: u64) -> bool {
        self.now += 10 * MILLISECOND;
        self.act(0, |world, context| {
            world.fetcher.tick(Some(1), world.own, context);
        });
        for _ in 0..messages {
            if !self.deliver() {
                break;
            }
        }
        self.fetcher.ready().is_some()
    }

    /// Until all is here, for at most so many simulated seconds.
    fn finish(&mut self, seconds: u64) {
        let end = self.now + seconds * 1_000 * MILLISECOND;
        while !self.go_on(20) {
            assert!(self.now < end, "{:?}", self.fetcher.progress());
        }
    }

    /// What was fetched is what the donor has, and survives a crash.
    fn check(&mut self, donor: usize) {
        let offer = *self.fetcher.ready().unwrap();
        let state = &self.donors[donor].state;
        assert_eq!(Some(offer.manifest), state.manifest());
        assert_eq!(
            (offer.op, offer.checksum, offer.timestamp),
            (
                state.checkpoint_op,
                state.checkpoint_checksum,
                state.checkpoint_timestamp
            )
        );
        self.storage.crash();
        let manifest = Manifest::open(&self.storage, &offer.manifest).unwrap();
        manifest.verify(&self.storage).unwrap();
        let progress = self.fetcher.progress().unwrap();
        assert_eq!(progress.done, progress.total);
    }

    /// The process ends and begins again: only files stay.
    fn restart(&mut self) {
        self.storage.crash();
        self.fetcher = Fetcher::new(0, 3);
        self.librarians = librarians(&self.storage);
        self.network.clear();
        self.tasks.clear();
    }
}

/// Pieces of a checkpoint of so many chunks: of each chunk, the ledger, the sessions, the manifest.
fn pieces(chunks: u64) -> u64 {
    chunks * 4 + 4 + 2 + 2
}

#[test]
fn a_checkpoint_is_fetched_piece_by_piece_and_each_once() {
    let mut world = World::new(6, 40);
    world.finish(2);
    world.check(0);
    assert_eq!(world.blocks.iter().sum::<u64>(), pieces(6));
    // The primary of view 4 is replica 1: the other one is asked.
    assert_eq!(world.blocks[1], 0);
    drop(world.fetcher);
    assert!(world.pool.is_whole());
}

#[test]
fn lost_repeated_and_late_messages_cost_time_and_nothing_else() {
    for kind in [Fate::Lost, Fate::Twice, Fate::Late] {
        let mut world = World::new(6, 40);
        let mut count = 0;
        world.fate = Box::new(move |_| {
            count += 1;
            if count % 5 == 0 { kind } else { Fate::Arrives }
        });
        world.finish(60);
        world.check(0);
    }
}

#[test]
fn a_lost_block_is_noticed_by_the_next_one() {
    let mut world = World::new(8, 40);
    let mut blocks = 0;
    world.fate = Box::new(move |message| {
        let is_block = message.header().command() == Some(Command::Block);
        blocks += u64::from(is_block);
        if is_block && blocks == 12 {
            Fate::Lost
        } else {
            Fate::Arrives
        }
    });
    // Much less than the silence after which everything is asked for again.
    world.finish(1);
    world.check(0);
}

#[test]
fn a_donor_that_goes_is_replaced_and_nothing_is_fetched_twice() {
    let mut world = World::new(10, 40);
    while world.blocks[2] < 20 {
        world.go_on(4);
    }
    world.donors[1].is_up = false;
    world.network.clear();
    world.finish(20);
    world.check(0);
    assert!(world.blocks[1] > 0);
    assert_eq!(world.blocks[1] + world.blocks[2], pieces(10));
}

#[test]
fn a_donor_that_has_moved_on_keeps_what_it_lends() {
    let mut world = World::new(4, 40);
    while world.blocks[2] < 10 {
        world.go_on(4);
    }
    world.donors[1].checkpoint(5, 50);
    world.donors[1].sweep(world.now);
    world.finish(1);
    assert_eq!(world.fetcher.ready().unwrap().op, 40);
    let manifest = world.fetcher.ready().unwrap().manifest;
    Manifest::open(&world.storage, &manifest)
        .unwrap()
        .verify(&world.storage)
        .unwrap();
}

#[test]
fn a_donor_that_has_dropped_the_checkpoint_offers_its_newest_and_chunks_are_kept() {
    let mut world = World::new(6, 40);
    while world.blocks[2] < 17 {
        world.go_on(4);
    }
    let before = world.blocks[2];
    for donor in &mut world.donors {
        donor.checkpoint(7, 50);
        // As after a restart: what was lent is forgotten.
        donor.lender = Lender::default();
        donor.sweep(world.now);
    }
    world.tasks.retain(|(replica, _)| *replica == 0);
    world.finish(10);
    assert_eq!(world.fetcher.ready().unwrap().op, 50);
    world.check(0);
    let after = world.blocks[1] + world.blocks[2] - before;
    assert!(after < pieces(7) - 8, "{after} of {} pieces", pieces(7));
}

#[test]
fn a_transfer_that_takes_long_ends_with_the_newest_checkpoint() {
    let mut world = World::new(20, 40);
    while world.fetcher.ready().is_none() {
        world.go_on(1);
        if world.now > 500 * MILLISECOND && world.donors[1].state.checkpoint_op == 40 {
            world.donors[1].checkpoint(21, 50);
            // It takes more than two seconds from here on.
            world.now += 2_000 * MILLISECOND;
        }
    }
    assert_eq!(world.fetcher.ready().unwrap().op, 50);
    world.check(1);
    // Two manifests, and after the silence what was under way once more; but each chunk once.
    let window = crate::limits::TRANSFER_WINDOW as u64;
    assert!(world.blocks[1] + world.blocks[2] <= pieces(21) + 2 + window);
}

#[test]
fn after_a_restart_whole_files_are_not_fetched_again() {
    let mut world = World::new(10, 40);
    while world.blocks[2] < 30 {
        world.go_on(4);
    }
    // Names are durable only after a sync, as of another checkpoint's or of the file system's own.
    world.storage.sync().unwrap();
    world.restart();
    world.blocks = [0; 3];
    world.finish(10);
    world.check(0);
    let after = world.blocks[1] + world.blocks[2];
    assert!(after <= pieces(10) - 20, "{after} pieces");
}

#[test]
fn damaged_files_are_fetched_and_good_ones_are_not() {
    let mut world = World::new(6, 40);
    world.finish(2);
    world.restart();
    world
        .storage
        .damage(FileName::new(FileKind::Transfers, 3), 5);
    world
        .storage
        .damage(FileName::new(FileKind::Sessions, 40), 4100);
    world
        .storage
        .remove(FileName::new(FileKind::Transfers, 0))
        .unwrap();
    world.blocks = [0; 3];
    world.finish(2);
    world.check(0);
    assert_eq!(world.blocks[1] + world.blocks[2], 4 + 4 + 2);
}

#[test]
fn files_that_are_in_use_are_not_read_again() {
    let mut world = World::new(6, 40);
    world.finish(2);
    world.own = Some(world.fetcher.ready().unwrap().manifest);
    world.restart();
    for donor in &mut world.donors {
        donor.checkpoint(7, 50);
    }
    // Whoever reads them again would notice.
    let block = FileName::new(FileKind::Transfers, 3);
    world.storage.damage(block, 5);
    world.blocks = [0; 3];
    world.finish(2);
    assert_eq!(world.fetcher.ready().unwrap().op, 50);
    assert_eq!(world.blocks.iter().sum::<u64>(), pieces(1));
    // But the footer is looked at.
    let footer = 2 * BLOCK_SIZE + 4096;
    world.restart();
    world.storage.damage(block, footer);
    world.blocks = [0; 3];
    world.finish(2);
    world.check(0);
    assert_eq!(world.blocks.iter().sum::<u64>(), 4);
}

#[test]
fn a_damaged_donor_is_left_for_another() {
    let mut world = World::new(4, 40);
    world.donors[1]
        .storage
        .damage(FileName::new(FileKind::Transfers, 2), 100);
    world.finish(10);
    world.check(0);
    assert!(world.blocks[1] > 0 && world.blocks[2] > 0);
}

#[test]
fn a_full_disk_is_told_and_tried_again() {
    let mut world = World::new(4, 40);
    world.storage.set_room(Some(3 * BLOCK_SIZE as u64));
    for _ in 0..50 {
        assert!(!world.go_on(20));
    }
    let problem = world.fetcher.progress().unwrap().problem;
    assert_eq!(problem, Some(std::io::ErrorKind::StorageFull));
    world.storage.set_room(None);
    world.finish(10);
    world.check(0);
}

#[test]
fn nobody_offers_what_is_too_old_or_of_another_view() {
    let mut world = World::new(1, 40);
    for _ in 0..100 {
        world.now += 10 * MILLISECOND;
        world.act(0, |world, context| {
            world.fetcher.tick(Some(41), None, context)
        });
        while world.deliver() {}
    }
    assert_eq!(world.fetcher.progress().unwrap().op, 0);
    for _ in 0..100 {
        world.now += 10 * MILLISECOND;
        world.act(0, |world, context| {
            context.view = VIEW + 1;
            world.fetcher.tick(Some(1), None, context);
        });
        while world.deliver() {}
    }
    assert_eq!(world.fetcher.progress().unwrap().op, 0);
    // What is wanted no more is forgotten.
    world.act(0, |world, context| world.fetcher.tick(None, None, context));
    assert_eq!(world.fetcher.progress(), None);
}
