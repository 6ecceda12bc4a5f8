//! One machine of the cluster: disks that survive a crash, and a replica that does not.
//!
//! ```text
//!   Host ── clock, journal device, superblock, storage      survive
//!     └─ Running ── replica, executor, pool, tasks          lost in a crash, made anew by `open`
//! ```
//!
//! The host carries out what a replica asks of its machine: writes, reads, tasks. It decides how
//! long each takes and leaves the waiting to its owner, as a [`Later`]; what leaves the machine
//! (messages) goes through untouched. A crash keeps an arbitrary subset of the sectors of every
//! write in flight, and of a checkpoint being written any number of whole files. A disk that fails a
//! write is a reason for the replica to stop itself, and the only one.
//!
//! The start goes through the production `open`; a replica that refuses to start here is a bug.

use std::collections::{BTreeMap, VecDeque};

use stampede_journal::Recovery;
use stampede_journal::device::ReadAt;

use super::clock::Clock;
use super::disk::{DiskCopy, JournalDisk, SuperblockDisk};
use super::queue::{Instant, MICROSECOND};
use super::random::Random;
use crate::limits::{EXECUTE_MAX, READS_MAX};
use crate::machine::ledger::{Ledger, LedgerOptions};
use crate::message::{Message, MessageMut, Op, Pool, PoolConfig};
use crate::protocol::ReplicaIndex;
use crate::replica::Replica;
use crate::replica::executor::{CheckpointTask, Executor, Outcome, Task};
use crate::replica::io::{Fatal, Input, Output};
use crate::replica::library::{LIBRARIANS, Librarian, LibraryTask};
use crate::replica::open::{OpenError, journal_config, open, restore};
use crate::replica::superblock::{Identity, State};
use crate::store::{BLOCK_SIZE, FileKind, FileName, Manifest, MemoryStorage, PAGE_SIZE};

/// Full chunks that stay in memory: few, so that files are read back within a short run.
const RESIDENT_CHUNKS: u32 = 2;

/// A block four times a second: rounds over small checkpoints, again and again, at little cost.
const SCRUB_RATE: u64 = 4 * BLOCK_SIZE as u64;

/// Something that this machine will have done, if it does not crash before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Later {
    JournalWritten {
        token: u64,
    },
    JournalRead {
        token: u64,
    },
    SuperblockWritten {
        token: u64,
    },
    /// The executor's oldest task.
    Executed,
    /// The builder's checkpoint.
    Built,
    /// The oldest task of a librarian.
    Library {
        librarian: usize,
    },
}

/// How long things take on a machine; mostly little, sometimes all of it.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    pub write_max: Instant,
    pub read_max: Instant,
    pub execute_max: Instant,
    pub build_max: Instant,
}

impl Speed {
    /// So many times slower.
    #[must_use]
    pub(crate) fn slower(self, factor: u64) -> Self {
        Self {
            write_max: self.write_max * factor,
            read_max: self.read_max * factor,
            execute_max: self.execute_max * factor,
            build_max: self.build_max * factor,
        }
    }

    /// A machine with a good disk.
    pub const GOOD: Self = Self {
        write_max: 300 * MICROSECOND,
        read_max: 150 * MICROSECOND,
        execute_max: 100 * MICROSECOND,
        build_max: 20_000 * MICROSECOND,
    };
}

/// What a disk does to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFault {
    /// It fails, and nothing is written.
    Error,
    /// It ends early, and says so.
    Short,
    /// It is there, and the sync after it fails: nobody may count on it.
    Unsynced,
}

/// What the disk still knows of what the replica has promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    Whole,
    /// It is an older copy, and the replica has not noticed yet.
    SetBack,
    /// The replica knows that it does not know, and has no vote.
    Recovering,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Host {
    pub index: ReplicaIndex,
    /// Counts starts: what was asked for in an earlier life is of no interest any more.
    pub life: u32,
    pub clock: Clock,
    pub speed: Speed,
    random: Random,
    /// For what becomes of checkpoint files.
    files: Random,
    pool_config: PoolConfig,
    pub journal: JournalDisk,
    pub superblock: SuperblockDisk,
    storage: MemoryStorage,
    ledger: LedgerOptions,
    identity: Identity,
    /// What happens to the next write of the journal or the superblock.
    next_write: Option<WriteFault>,
    /// A write of this life has failed: the replica must stop itself.
    write_failed: bool,
    /// Writes of checkpoints fail, or will soon.
    checkpoints_fail: bool,
    /// Which of two releases it runs, from the next start on.
    pub release: u16,
    /// Chance that a copy of the superblock is spoiled when the power goes while it is written.
    pub spoiled_copies: u32,
    pub memory: Memory,
    /// The checkpoint whose files were damaged last, or 0.
    damaged_checkpoint: Op,
    /// Files that a bit has flipped in; some of them may have been mended since.
    rotten: Vec<FileName>,
    /// Made when the machine was off, to be put back one day.
    pub copy: Option<DiskCopy>,
    running: Option<Running>,
    /// Empty vectors to be used again: most inputs would make several.
    outputs: Vec<Output>,
    spare: Reaction,
    /// Pools of former lives: messages of theirs may still be under way.
    pub pools: Vec<Pool>,
}

#[derive(Debug)]
struct Running {
    replica: Replica,
    executor: Executor,
    pool: Pool,
    /// The front one is being worked on.
    tasks: VecDeque<Task>,
    checkpoints: VecDeque<CheckpointTask>,
    librarians: [Librarian; LIBRARIANS],
    library: [VecDeque<LibraryTask>; LIBRARIANS],
    reads: BTreeMap<u64, Read>,
}

#[derive(Debug)]
struct Read {
    file: u32,
    offset: u64,
    size: usize,
    message: MessageMut,
}

/// What a replica did with an input, as far as the world has to know.
#[derive(Debug, Default)]
pub(crate) struct Reaction {
    /// To be called back, and when.
    pub later: Vec<(Instant, Later)>,
    /// What is not the machine's own business: messages, connections, the end.
    pub outputs: Vec<Output>,
    /// Prepares handed to the executor: committed, as far as this replica is concerned.
    pub committed: Vec<Message>,
    /// The machine's state is as of this operation, for the first time in this life.
    pub executed: Option<Op>,
}

impl Reaction {
    fn is_empty(&self) -> bool {
        self.later.is_empty() && self.outputs.is_empty() && self.committed.is_empty()
    }
}

/// A machine that was switched on.
#[derive(Debug)]
pub(crate) struct Started {
    /// What it starts from.
    pub checkpoint: Op,
    /// What the scan of its journal found.
    pub recovery: Recovery,
    pub reaction: Reaction,
}

impl Host {
    /// A machine with freshly formatted disks, switched off.
    pub(crate) fn new(
        identity: &Identity,
        pool_config: PoolConfig,
        chunk_rows_log2: u32,
        speed: Speed,
        clock: Clock,
        [random, files]: [Random; 2],
    ) -> Self {
        let state = State::format(identity);
        Self {
            index: identity.replica,
            life: 0,
            clock,
            speed,
            random,
            files,
            pool_config,
            journal: JournalDisk::new(&journal_config(&state)),
            superblock: SuperblockDisk::new(state.encode_file()),
            storage: MemoryStorage::default(),
            ledger: LedgerOptions {
                chunk_rows_log2,
                run_chunks_log2: 4,
                resident_chunks: RESIDENT_CHUNKS,
                filter_size: 1 << 10,
                ..LedgerOptions::default()
            },
            identity: *identity,
            next_write: None,
            write_failed: false,
            checkpoints_fail: false,
            release: 0,
            spoiled_copies: 0,
            memory: Memory::Whole,
            damaged_checkpoint: 0,
            rotten: Vec::new(),
            copy: None,
            running: None,
            outputs: Vec::new(),
            spare: Reaction::default(),
            pools: Vec::new(),
        }
    }

    pub(crate) fn is_standby(&self) -> bool {
        self.identity.replica >= self.identity.replica_count
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn replica(&self) -> Option<&Replica> {
        self.running.as_ref().map(|running| &running.replica)
    }

    pub(crate) fn pool(&self) -> Option<&Pool> {
        self.running.as_ref().map(|running| &running.pool)
    }

    /// What the replica has asked of this machine and has not got yet: its name, how much of it, and how
    /// much there may be.
    pub(crate) fn queues(&self) -> [(&'static str, usize, usize); 2] {
        let running = self.running.as_ref();
        let (tasks, reads) = running.map_or((0, 0), |r| (r.tasks.len(), r.reads.len()));
        // Besides executions, the executor is told which checkpoint has come into force.
        [
            ("tasks", tasks, EXECUTE_MAX + 1),
            ("reads", reads, READS_MAX),
        ]
    }

    /// The digest of the machine's state, which is as of the last executed operation; `None` where what it
    /// takes is damaged.
    pub(crate) fn digest(&self) -> Option<u128> {
        self.running.as_ref()?.executor.digest()
    }

    /// Switches on: opens what the disks hold, and starts.
    ///
    /// # Errors
    /// What `open` says: a replica must be able to start after any crash.
    pub(crate) fn start(&mut self, now: Instant) -> Result<Started, OpenError> {
        assert!(self.running.is_none());
        self.life += 1;
        self.write_failed = false;
        self.next_write = None;
        self.repair_storage();
        let state = self.state();
        // What it had noticed was not durable yet: it has to notice again.
        if self.memory == Memory::Recovering && state.recovering == 0 {
            self.memory = Memory::SetBack;
        }
        let pool = self.take_pool();
        let restored = restore(&state, &self.storage, || Ledger::new(self.ledger));
        let opened = open(
            state,
            u64::from(self.life) << 32 | self.random.below(1 << 32),
            || restored,
            &mut self.journal,
            &pool,
        )?;
        self.pools.push(pool.clone());
        let mut replica = opened.replica;
        replica.set_scrub_rate(SCRUB_RATE);
        self.running = Some(Running {
            replica,
            executor: opened.executor,
            pool,
            tasks: VecDeque::new(),
            checkpoints: VecDeque::new(),
            librarians: std::array::from_fn(|_| Librarian::new(Box::new(self.storage.handle()))),
            library: Default::default(),
            reads: BTreeMap::new(),
        });
        let time = self.clock.at(now);
        let mut outputs = std::mem::take(&mut self.outputs);
        if let Some(running) = &mut self.running {
            running.replica.start(time, &mut outputs);
        }
        Ok(Started {
            checkpoint: state.checkpoint_op,
            recovery: opened.recovery,
            reaction: self.react(outputs, now),
        })
    }

    /// What the superblock says.
    pub(crate) fn state(&self) -> State {
        State::decode_file(self.superblock.image())
            .expect("copies are written two by two, and of each two the atlas keeps one")
    }

    /// The pool of a former life once all its messages are gone, or else a new one: mapping memory
    /// takes longer than most starts.
    fn take_pool(&mut self) -> Pool {
        let free = self.pools.iter().position(Pool::is_whole);
        let reused = free.map(|index| self.pools.swap_remove(index));
        reused.unwrap_or_else(|| Pool::new(&self.pool_config).expect("the machine has the memory"))
    }

    /// The power goes, at this instant.
    pub(crate) fn crash(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        let random = &mut self.random;
        self.journal.crash(random);
        self.superblock.crash(random, self.spoiled_copies);
        if let Some(checkpoint) = running.checkpoints.into_iter().next() {
            // The builder was somewhere in the middle: a number of its writes have been done.
            self.storage.fail_writes_after(Some(random.skewed(40)));
            drop(checkpoint.write(&mut self.storage, || {}));
        }
        self.repair_storage();
        // Of the names and removals that were not synced none are on the disk, all, or some.
        let (which, salt) = (self.files.below(3), self.files.next());
        self.storage.crash_keeping(|name| match which {
            0 => false,
            1 => true,
            _ => {
                let mixed = (name.number ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                ((mixed >> 32) ^ name.kind as u64) & 1 == 1
            }
        });
    }

    /// The disk takes so many bytes more.
    pub(crate) fn set_room(&mut self, bytes: Option<u64>) {
        self.storage.set_room(bytes);
    }

    /// The checkpoint that this machine would start from, if there is one and its files are whole.
    pub(crate) fn whole_checkpoint(&self) -> Option<Op> {
        let op = self.state().checkpoint_op;
        (op > self.damaged_checkpoint && self.is_mended()).then_some(op)
    }

    /// Whether nothing is left of the rot.
    pub(crate) fn is_mended(&self) -> bool {
        self.rotten.is_empty() || self.has_whole_files()
    }

    /// Whether the next damage to a checkpoint is to any of its files, or to the one that every start reads.
    pub(crate) fn rots_anywhere(&mut self) -> bool {
        self.files.below(3) > 0
    }

    /// A bit of the checkpoint flips, wherever it may be; the file.
    pub(crate) fn let_rot(&mut self) -> FileName {
        let manifest = self.state().manifest().expect("a checkpoint");
        let mut files = self.manifest().expect("it was whole").files;
        files.push(manifest.entry());
        let file = files[self.files.index(files.len())];
        let offset = usize::try_from(self.files.below(file.size)).expect("in memory");
        let bit = u32::try_from(self.files.below(8)).expect("of a byte");
        self.storage.flip(file.name, offset, bit);
        self.rotten.push(file.name);
        file.name
    }

    /// A bit of the checkpoint that this machine would start from flips.
    pub(crate) fn damage_checkpoint(&mut self) {
        let state = self.state();
        self.damaged_checkpoint = state.checkpoint_op;
        let manifest = state.manifest().expect("a checkpoint");
        let files = Manifest::open(&self.storage, &manifest)
            .expect("it was whole")
            .files;
        let ledger = files
            .iter()
            .find(|entry| entry.name.kind == FileKind::Ledger);
        let name = ledger.expect("every checkpoint has one").name;
        self.storage.damage(name, 0);
    }

    /// A bit of one file of the checkpoint flips, in this page; false if there is no such page.
    pub(crate) fn damage_file(&mut self, name: FileName, page: usize) -> bool {
        let at = page * PAGE_SIZE + 100;
        let manifest = self.manifest();
        let files = manifest.iter().flat_map(|manifest| &manifest.files);
        let file = files.into_iter().find(|entry| entry.name == name);
        let has_page = file.is_some_and(|entry| entry.data_size > at as u64);
        if has_page {
            self.storage.damage(name, at);
        }
        has_page
    }

    /// A bit of the checkpoint's list of files flips; false if there is no checkpoint.
    pub(crate) fn damage_manifest(&mut self) -> bool {
        let manifest = self.state().manifest();
        let Some(manifest) = manifest else {
            return false;
        };
        self.storage.damage(manifest.entry().name, 100);
        true
    }

    fn manifest(&self) -> Option<Manifest> {
        Manifest::open(&self.storage, &self.state().manifest()?).ok()
    }

    /// Whether every file of the checkpoint is as it was written.
    pub(crate) fn has_whole_files(&self) -> bool {
        let manifest = self.manifest();
        manifest.is_some_and(|manifest| manifest.verify(&self.storage).is_ok())
    }

    /// Full chunks of transfers in the checkpoint.
    pub(crate) fn segments(&self) -> usize {
        self.files(FileKind::Transfers).count()
    }

    /// The checkpoint's files of one kind, in order.
    pub(crate) fn files(&self, kind: FileKind) -> impl Iterator<Item = FileName> + use<> {
        let files = self
            .manifest()
            .map_or(Vec::new(), |manifest| manifest.files);
        let names = files.into_iter().map(|entry| entry.name);
        names.filter(move |name| name.kind == kind)
    }

    /// The replica ends in order, to be started again: what is under way on its disks is finished.
    pub(crate) fn close(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        assert!(running.checkpoints.is_empty(), "the builder is at work");
        self.journal.finish();
        self.superblock.finish();
    }

    // ── what a disk does by itself ──────────────────────────────────────────────────────────

    /// What the disk does to the next write of the journal or the superblock.
    pub(crate) fn set_next_write(&mut self, fault: Option<WriteFault>) {
        self.next_write = fault;
    }

    /// All writes of checkpoint files fail but the next few, until the next start.
    pub(crate) fn fail_checkpoints(&mut self, after: u64) {
        self.checkpoints_fail = true;
        self.storage.fail_writes_after(Some(after));
    }

    fn repair_storage(&mut self) {
        self.checkpoints_fail = false;
        self.storage.fail_writes_after(None);
    }

    /// The disk does from now on what it is told to.
    pub(crate) fn heal(&mut self) {
        self.next_write = None;
        // A checkpoint may have failed already: its replica has a reason to stop, still.
        self.storage.fail_writes_after(None);
        self.set_room(None);
    }

    /// Whether the disk has given the replica a reason to stop itself like this.
    pub(crate) fn may_stop(&self, fatal: &Fatal) -> bool {
        match fatal {
            Fatal::Journal(_) | Fatal::Superblock(_) => self.write_failed,
            Fatal::Checkpoint { .. } => self.checkpoints_fail,
            Fatal::Read { .. } | Fatal::Damaged(_) => false,
        }
    }

    /// Somebody keeps a copy of the disk of this machine, which is off.
    pub(crate) fn make_copy(&mut self) {
        assert!(!self.is_up());
        self.copy = Some(DiskCopy {
            journal: self.journal.copy(),
            superblock: self.superblock.clone(),
            storage: self.storage.copy(),
        });
    }

    /// Puts the copy back, if there is one; the machine is off.
    pub(crate) fn put_back(&mut self) {
        assert!(!self.is_up());
        if let Some(copy) = self.copy.take() {
            self.journal = copy.journal;
            self.superblock = copy.superblock;
            self.storage = copy.storage;
            self.damaged_checkpoint = 0;
            self.memory = Memory::SetBack;
        }
    }

    /// The disk is lost; a new one is made by `recover`. The machine is off.
    pub(crate) fn replace_disk(&mut self) {
        assert!(!self.is_up());
        let identity = Identity {
            recovering: true,
            journal_id: u128::from(self.random.next()),
            ..self.identity
        };
        let state = State::format(&identity);
        self.journal = JournalDisk::new(&journal_config(&state));
        self.superblock = SuperblockDisk::new(state.encode_file());
        self.storage = MemoryStorage::default();
        self.damaged_checkpoint = 0;
        self.memory = Memory::Recovering;
        self.copy = None;
    }

    /// Looks whether a replica has noticed what its disk has forgotten, and whether it votes again.
    pub(crate) fn remember(&mut self) {
        if self.memory == Memory::Whole {
            return;
        }
        if let Some(running) = &self.running {
            let vsr = running.replica.vsr();
            match (self.memory, vsr.is_recovering()) {
                (Memory::SetBack, true) => self.memory = Memory::Recovering,
                // A crash before that is durable would take its vote away again.
                (Memory::Recovering, false) if self.state().recovering == 0 => {
                    self.memory = Memory::Whole;
                }
                _ => {}
            }
        }
    }

    /// What the disk does to the write that has just been started, if anything.
    fn strike(&mut self) -> Option<WriteFault> {
        let fault = self.next_write.take()?;
        self.write_failed = true;
        Some(fault)
    }

    /// Hands an input to the replica.
    pub(crate) fn input(&mut self, input: Input, now: Instant) -> Reaction {
        let time = self.clock.at(now);
        let Some(running) = &mut self.running else {
            return Reaction::default();
        };
        let mut outputs = std::mem::take(&mut self.outputs);
        running.replica.on_input(input, time, &mut outputs);
        self.react(outputs, now)
    }

    /// Something of this life is done.
    pub(crate) fn done(&mut self, later: Later, now: Instant) -> Reaction {
        let Some(running) = &mut self.running else {
            return Reaction::default();
        };
        let input = match later {
            Later::JournalWritten { token } => {
                let completion = self.journal.complete(token);
                Input::JournalWritten {
                    token,
                    result: completion.result,
                }
            }
            Later::JournalRead { token } => {
                let read = running
                    .reads
                    .remove(&token)
                    .expect("a read that was started");
                Self::read(&mut self.journal, token, read)
            }
            Later::SuperblockWritten { token } => {
                let result = self.superblock.complete(token);
                Input::SuperblockWritten { token, result }
            }
            Later::Executed => return self.execute(now),
            Later::Built => {
                let task = running
                    .checkpoints
                    .pop_front()
                    .expect("a checkpoint under way");
                let input = Input::CheckpointDone(task.write(&mut self.storage, || {}));
                let mut reaction = self.input(input, now);
                self.build_next(now, &mut reaction);
                return reaction;
            }
            Later::Library { librarian } => {
                let tasks = &mut running.library[librarian];
                let task = tasks.pop_front().expect("a task under way");
                let more = !tasks.is_empty();
                let input = Input::Library(running.librarians[librarian].run(task));
                let mut reaction = self.input(input, now);
                if more {
                    let at = self.library_task_ends(now);
                    reaction.later.push((at, later));
                }
                return reaction;
            }
        };
        self.input(input, now)
    }

    fn read(journal: &mut JournalDisk, token: u64, read: Read) -> Input {
        let Read {
            file,
            offset,
            size,
            mut message,
        } = read;
        assert!(size <= message.frame_capacity());
        // SAFETY: the frame has at least `size` bytes, and this is its only handle.
        let bytes = unsafe { std::slice::from_raw_parts_mut(message.frame_ptr(), size) };
        let result = journal.read_at(file, offset, bytes).map(|()| size);
        Input::JournalRead {
            token,
            message,
            result,
        }
    }

    fn execute(&mut self, now: Instant) -> Reaction {
        let Some(running) = &mut self.running else {
            return Reaction::default();
        };
        let task = running.tasks.pop_front().expect("a task under way");
        let done = running.executor.run(task);
        let more = !running.tasks.is_empty();
        let mut reaction = Reaction::default();
        if let Some(done) = done {
            let is_applied = matches!(done.result, Ok(Outcome::Applied(_)));
            let executed = is_applied.then_some(done.op);
            reaction = self.input(Input::Done(done), now);
            reaction.executed = executed;
        }
        if more {
            reaction
                .later
                .push((self.execution_ends(now), Later::Executed));
        }
        reaction
    }

    fn build_next(&mut self, now: Instant, reaction: &mut Reaction) {
        if self
            .running
            .as_ref()
            .is_some_and(|running| !running.checkpoints.is_empty())
        {
            let at = now + self.random.skewed(self.speed.build_max);
            reaction.later.push((at, Later::Built));
        }
    }

    /// As long as a read or a write of the disk.
    fn library_task_ends(&mut self, now: Instant) -> Instant {
        now + MICROSECOND + self.random.skewed(self.speed.write_max)
    }

    fn execution_ends(&mut self, now: Instant) -> Instant {
        now + MICROSECOND + self.random.skewed(self.speed.execute_max)
    }

    /// Starts what the replica asked of its machine; passes on the rest.
    fn react(&mut self, mut outputs: Vec<Output>, now: Instant) -> Reaction {
        let mut reaction = std::mem::take(&mut self.spare);
        for output in outputs.drain(..) {
            self.carry_out(output, now, &mut reaction);
        }
        self.outputs = outputs;
        reaction
    }

    /// Whoever has done with a reaction gives it back, empty.
    pub(crate) fn give_back(&mut self, reaction: Reaction) {
        debug_assert!(reaction.is_empty());
        self.spare = Reaction {
            executed: None,
            ..reaction
        };
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("whoever asks is running")
    }

    fn carry_out(&mut self, output: Output, now: Instant, reaction: &mut Reaction) {
        match output {
            Output::JournalWrite(write) => {
                let token = write.token;
                let bytes = write.len as u64;
                self.journal.submit(write);
                match self.strike() {
                    None => {}
                    Some(WriteFault::Error) => self.journal.fail(token),
                    Some(WriteFault::Unsynced) => self.journal.fail_sync(token),
                    Some(WriteFault::Short) => {
                        let size = usize::try_from(bytes).expect("a frame's size");
                        self.journal.shorten(token, size, &mut self.random);
                    }
                }
                // A gigabyte a second, and whatever else the disk is doing.
                let at = now + MICROSECOND + bytes + self.random.skewed(self.speed.write_max);
                reaction.later.push((at, Later::JournalWritten { token }));
            }
            Output::JournalRead {
                token,
                file,
                offset,
                size,
                message,
            } => {
                let before = self.running().reads.insert(
                    token,
                    Read {
                        file,
                        offset,
                        size,
                        message,
                    },
                );
                assert!(before.is_none(), "a read token was used twice");
                let at = now + MICROSECOND + self.random.skewed(self.speed.read_max);
                reaction.later.push((at, Later::JournalRead { token }));
            }
            Output::SuperblockWrite {
                token,
                offset,
                sector,
            } => {
                self.superblock.start(token, offset, Box::new(sector.0));
                match self.strike() {
                    None => {}
                    Some(WriteFault::Unsynced) => self.superblock.fail_last_sync(),
                    Some(WriteFault::Error | WriteFault::Short) => self.superblock.fail_last(),
                }
                let at = now + MICROSECOND + self.random.skewed(self.speed.write_max);
                reaction
                    .later
                    .push((at, Later::SuperblockWritten { token }));
            }
            Output::Task(task) => {
                if let Task::Apply { prepare, .. } = &task {
                    reaction.committed.push(prepare.clone());
                }
                self.running().tasks.push_back(task);
                if self.running().tasks.len() == 1 {
                    let at = self.execution_ends(now);
                    reaction.later.push((at, Later::Executed));
                }
            }
            Output::Checkpoint(task) => {
                self.running().checkpoints.push_back(task);
                if self.running().checkpoints.len() == 1 {
                    self.build_next(now, reaction);
                }
            }
            Output::Library(task) => {
                let librarian = task.librarian();
                let tasks = &mut self.running().library[librarian];
                tasks.push_back(task);
                if tasks.len() == 1 {
                    let at = self.library_task_ends(now);
                    reaction.later.push((at, Later::Library { librarian }));
                }
            }
            Output::SendReplica { .. }
            | Output::Reopen
            | Output::Dial { .. }
            | Output::SendClient { .. }
            | Output::Close { .. }
            | Output::Stop(_) => reaction.outputs.push(output),
        }
    }
}
