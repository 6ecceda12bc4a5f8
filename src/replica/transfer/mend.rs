//! Mending: one damaged file of the checkpoint in force, fetched again from whoever has it.
//!
//! ```text
//!   scrub ──damaged──► get_block (piece 0) ──► block ──► written ──► piece 1 … ──► named, synced
//!                           │  silent, gone, or wrong: the next replica
//!                           ▼
//!                      reopened: nothing reads from the damaged file any more
//! ```
//!
//! The file's entry says what every byte of it must be, so it may come from anybody, and piece by piece
//! from several. Until the whole of it is here the damaged one stays in its place: it is of use still,
//! wherever it is not damaged. One file at a time, one piece under way: this is seldom, and must not take
//! anything from those who serve.

use std::collections::VecDeque;

use super::{Context, Stretch, wire};
use crate::limits::MENDING_FILES_MAX;
use crate::message::{Command, Header, Message, Op};
use crate::protocol::ReplicaIndex;
use crate::replica::io::Output;
use crate::replica::library::{LibraryDone, LibraryTask};
use crate::store::{FileEntry, FileName, ManifestRef};
use crate::vsr::timeout::Deadline;

/// A replica that has not answered for so long is passed over.
const SILENT_NS: u64 = 500_000_000;

/// The plan number of the librarians' tasks; plans of whole checkpoints count from 1.
const PLAN: u32 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A piece has been asked for.
    Asked,
    /// It is being written.
    Writing,
    Syncing,
}

#[derive(Debug)]
struct Work {
    entry: FileEntry,
    piece: u64,
    stage: Stage,
    silent: Deadline,
}

impl Work {
    fn stretch(&self) -> Stretch {
        let (offset, size) = self.entry.piece(self.piece);
        Stretch {
            name: self.entry.name,
            offset,
            size,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::replica) struct Mender {
    me: ReplicaIndex,
    replica_count: u8,
    /// Damaged files that wait, a bounded number: the next round of the scrub finds the others.
    waiting: VecDeque<FileEntry>,
    work: Option<Work>,
    /// The checkpoint that was in force when it was looked at last.
    of: Option<Op>,
    donor: ReplicaIndex,
    /// Files that are whole again since the replica was opened, and are not yet read from.
    mended: u64,
}

impl Mender {
    pub(in crate::replica) fn new(me: ReplicaIndex, replica_count: u8) -> Self {
        Self {
            me,
            replica_count,
            waiting: VecDeque::new(),
            work: None,
            of: None,
            donor: me,
            mended: 0,
        }
    }

    /// The file that is being mended.
    pub(in crate::replica) fn file(&self) -> Option<FileName> {
        let work = self.work.as_ref().map(|work| work.entry.name);
        work.or_else(|| self.waiting.front().map(|entry| entry.name))
    }

    /// Something was mended, and nothing is left to be.
    pub(super) fn is_done(&self) -> bool {
        self.mended > 0 && self.work.is_none() && self.waiting.is_empty()
    }

    /// A file has been found damaged.
    pub(in crate::replica) fn add(&mut self, entry: FileEntry) {
        let known = self
            .waiting
            .iter()
            .chain(self.work.iter().map(|work| &work.entry));
        let is_known = known.into_iter().any(|known| *known == entry);
        if !is_known && entry.is_plausible() && self.waiting.len() < MENDING_FILES_MAX {
            self.waiting.push_back(entry);
        }
    }

    /// Time has passed, or something has changed. `in_force` is the checkpoint that the files belong to.
    pub(super) fn tick(&mut self, in_force: &ManifestRef, world: &mut Context<'_>) {
        // What is not of chunks goes with its checkpoint, or soon after it; if not, the scrub will say so.
        let former = self.of.replace(in_force.op);
        let is_over = former.is_some_and(|former| former != in_force.op);
        let outlived = |entry: &FileEntry| is_over && !entry.name.kind.is_chunk();
        self.waiting.retain(|entry| !outlived(entry));
        self.work
            .take_if(|work| work.stage == Stage::Asked && outlived(&work.entry));
        match &mut self.work {
            None => {
                if let Some(entry) = self.waiting.pop_front() {
                    self.begin(entry, in_force, world);
                }
            }
            Some(work) if work.stage == Stage::Asked && work.silent.due(world.now) => {
                self.ask_next(in_force, world);
            }
            Some(_) => {}
        }
    }

    fn begin(&mut self, entry: FileEntry, in_force: &ManifestRef, world: &mut Context<'_>) {
        self.work = Some(Work {
            entry,
            piece: 0,
            stage: Stage::Asked,
            silent: Deadline::after(world.now, SILENT_NS),
        });
        self.ask_next(in_force, world);
    }

    /// The present piece from the next replica.
    fn ask_next(&mut self, in_force: &ManifestRef, world: &mut Context<'_>) {
        self.donor = (self.donor + 1) % self.replica_count;
        if self.donor == self.me {
            self.donor = (self.donor + 1) % self.replica_count;
        }
        self.ask(in_force, world);
    }

    fn ask(&mut self, in_force: &ManifestRef, world: &mut Context<'_>) {
        let Some(work) = &mut self.work else { return };
        work.stage = Stage::Asked;
        work.silent = Deadline::after(world.now, SILENT_NS);
        let header = wire::block(world.header(Command::GetBlock), in_force.op, work.stretch());
        world.send(self.donor, header, &[]);
    }

    /// Whether a block is the one that was asked for.
    pub(super) fn expects(&self, header: &Header) -> bool {
        self.work.as_ref().is_some_and(|work| {
            work.stage == Stage::Asked && wire::stretch(header) == Some(work.stretch())
        })
    }

    /// The block that was asked for, or the news that there is none.
    pub(super) fn on_block(&mut self, message: Message, world: &mut Context<'_>) {
        let Some(work) = &mut self.work else { return };
        if message.body().len() != work.stretch().size {
            // Whoever has it not is asked again when it has been everybody's turn; in time, not at once.
            return;
        }
        work.stage = Stage::Writing;
        world.outputs.push(Output::Library(LibraryTask::Write {
            plan: PLAN,
            entry: work.entry,
            piece: work.piece,
            message,
        }));
    }

    /// A librarian has done something. Gives it back if it was not for this.
    pub(super) fn on_done(
        &mut self,
        done: LibraryDone,
        in_force: &ManifestRef,
        world: &mut Context<'_>,
    ) -> Option<LibraryDone> {
        if done.plan() != Some(PLAN) {
            return Some(done);
        }
        let work = self.work.as_mut()?;
        match done {
            LibraryDone::Written { result: Ok(()), .. } => {
                work.piece += 1;
                if work.piece < work.entry.pieces() {
                    self.ask(in_force, world);
                } else {
                    work.stage = Stage::Syncing;
                    let task = LibraryTask::Sync { plan: PLAN };
                    world.outputs.push(Output::Library(task));
                }
            }
            LibraryDone::Synced { result: Ok(()), .. } => {
                self.work = None;
                self.mended += 1;
            }
            // What came was wrong, or the disk here does not take it: from the beginning, elsewhere, when
            // the present patience is over.
            LibraryDone::Written { result: Err(_), .. }
            | LibraryDone::Synced { result: Err(_), .. } => {
                work.piece = 0;
                work.stage = Stage::Asked;
                work.silent = Deadline::after(world.now, SILENT_NS);
            }
            LibraryDone::Read { .. }
            | LibraryDone::Checked { .. }
            | LibraryDone::Listed { .. }
            | LibraryDone::Scrubbed(_) => {}
        }
        None
    }
}
