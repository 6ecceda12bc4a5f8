//! The fetching side: from an offer to all files of a checkpoint, whole and durable here.
//!
//! ```text
//!   manifest ──► list ──► files of full chunks ──► a newer offer? ──► files numbered by op ──► sync ──► ready
//!                            │                          │
//!                each: here already, verified     then its manifest first; what is here stays
//!                or in use? else piece by piece
//! ```
//!
//! All pieces of a plan are one sequence, over which a window moves. Pieces are asked for ahead, may
//! arrive in any order, and are handed to the librarians in theirs, who may write two files at once:
//!
//! ```text
//!              ┌──────────────── window ───────────────┐
//!    written   │ handed  handed │ here  asked  here  asked │   not asked for yet
//!              └─ to a librarian ─┘ waits for the one before
//! ```
//!
//! A donor answers in the order in which it was asked. So a piece that was overtaken is lost, and asked
//! for again at once; a donor that says nothing at all is left after a while for the next one. Whatever
//! happens, files that are whole stay where they are: the next plan finds them, also after a restart.
//!
//! Everything is verified: blocks and footers by a librarian before they are written, files against
//! the manifest, the manifest against the offer.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use super::wire::{self, Offer};
use super::{Context, Stretch};
use crate::limits::{FILES_AHEAD, TRANSFER_WINDOW};
use crate::message::{Command, Header, Message, Op, View};
use crate::mutant::Mutant;
use crate::protocol::ReplicaIndex;
use crate::replica::io::Output;
use crate::replica::library::{LibraryDone, LibraryTask, Listing};
use crate::store::{FileEntry, FileKind, FileName, ManifestRef, StoreError};
use crate::vsr::timeout::Deadline;

/// Whoever was asked for a checkpoint and has none, or does not hear, is left for the next.
const ASK_NS: u64 = 250_000_000;

/// No piece for so long: everything outstanding is asked for again; after some times elsewhere.
const SILENT_NS: u64 = 1_000_000_000;
const SILENT_MAX: u32 = 3;

/// A checkpoint that was offered longer ago than this has probably been followed by another one.
const REFRESH_NS: u64 = 2_000_000_000;

/// After an error of the disk here: once more after this.
const PROBLEM_NS: u64 = 5_000_000_000;

/// How far a transfer is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transfer {
    /// From whom; `None` while a donor is looked for.
    pub donor: Option<ReplicaIndex>,
    /// The checkpoint; 0 while none has been offered.
    pub op: Op,
    /// Bytes of files that are here, and of all. Both are 0 until the manifest is here.
    pub done: u64,
    pub total: u64,
    /// What the disk here said, if that is why nothing happens.
    pub problem: Option<io::ErrorKind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Manifest,
    Listing,
    Chunks,
    Refresh,
    Rest,
    Syncing,
    Ready,
}

#[derive(Debug)]
enum Standing {
    /// The number of the request, counted over all.
    Asked(u64),
    Here(Message),
    Handed,
}

/// A piece in the window.
#[derive(Debug)]
struct Piece {
    entry: FileEntry,
    number: u64,
    standing: Standing,
}

impl Piece {
    fn stretch(&self) -> Stretch {
        let (offset, size) = self.entry.piece(self.number);
        Stretch {
            name: self.entry.name,
            offset,
            size,
        }
    }
}

/// What is to be fetched for one offer.
#[derive(Debug)]
struct Plan {
    number: u32,
    offer: Offer,
    begun: u64,
    stage: Stage,
    /// Files of this stage of which it is not known whether they are here.
    unchecked: VecDeque<FileEntry>,
    /// Files that the first librarian looks for.
    checking: usize,
    /// Files that are not here, and the next piece of the first of them.
    lacking: VecDeque<FileEntry>,
    next: u64,
    window: VecDeque<Piece>,
    /// Files of the last stage.
    rest: Vec<FileEntry>,
    done: u64,
    total: u64,
    silent: Deadline,
    silences: u32,
}

impl Plan {
    fn new(number: u32, offer: Offer, now: u64) -> Self {
        Self {
            number,
            offer,
            begun: now,
            stage: Stage::Manifest,
            unchecked: VecDeque::from([offer.manifest.entry()]),
            checking: 0,
            lacking: VecDeque::new(),
            next: 0,
            window: VecDeque::new(),
            rest: Vec::new(),
            done: 0,
            total: 0,
            silent: Deadline::after(now, SILENT_NS),
            silences: 0,
        }
    }

    /// Nothing of this stage is left to be done.
    fn is_over(&self) -> bool {
        self.unchecked.is_empty()
            && self.checking == 0
            && self.lacking.is_empty()
            && self.window.is_empty()
    }

    fn is_waiting(&self) -> bool {
        let asked = |piece: &Piece| matches!(piece.standing, Standing::Asked(_));
        self.window.iter().any(asked)
    }

    /// The files that the manifest lists. `None` if it lists what no checkpoint has.
    fn list(&mut self, files: &[FileEntry]) -> Option<()> {
        let plausible =
            |entry: &FileEntry| entry.is_plausible() && entry.name.kind != FileKind::Manifest;
        if !files.iter().all(plausible) {
            return None;
        }
        let sizes = files.iter().map(|entry| entry.size);
        self.total = sizes.fold(0, u64::saturating_add);
        let (chunks, rest) = files.iter().partition(|entry| entry.name.kind.is_chunk());
        let (chunks, rest): (Vec<FileEntry>, Vec<FileEntry>) = (chunks, rest);
        self.unchecked = chunks.into();
        self.rest = rest;
        self.stage = Stage::Chunks;
        Some(())
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::replica) struct Fetcher {
    me: ReplicaIndex,
    replica_count: u8,
    plan: Option<Plan>,
    /// Counts plans: answers to tasks of earlier ones come late.
    plans: u32,
    /// Files known to be here and whole, by the checksum of their footers. As many as a manifest lists.
    here: BTreeMap<FileName, u128>,
    donor: ReplicaIndex,
    /// An offer is waited for. Without a plan always.
    asking: bool,
    /// Counts those who were asked in vain.
    asked: u32,
    retry: Deadline,
    requests: u64,
    problem: Option<io::ErrorKind>,
    /// The checkpoint in force here, if it can be read.
    own: Option<ManifestRef>,
    active: bool,
}

impl Fetcher {
    pub(in crate::replica) fn new(me: ReplicaIndex, replica_count: u8) -> Self {
        Self {
            me,
            replica_count,
            plan: None,
            plans: 0,
            here: BTreeMap::new(),
            donor: me,
            asking: true,
            asked: 0,
            retry: Deadline::after(0, 0),
            requests: 0,
            problem: None,
            own: None,
            active: false,
        }
    }

    /// Whether files of a checkpoint are being fetched: nobody may sweep then.
    pub(in crate::replica) fn is_active(&self) -> bool {
        self.active
    }

    pub(in crate::replica) fn progress(&self) -> Option<Transfer> {
        let plan = self.plan.as_ref();
        self.active.then(|| Transfer {
            donor: (!self.asking).then_some(self.donor),
            op: plan.map_or(0, |plan| plan.offer.op),
            done: plan.map_or(0, |plan| plan.done),
            total: plan.map_or(0, |plan| plan.total),
            problem: self.problem,
        })
    }

    /// The checkpoint of which everything is here, whole and durable.
    pub(super) fn ready(&self) -> Option<&Offer> {
        let plan = self.plan.as_ref()?;
        (plan.stage == Stage::Ready).then_some(&plan.offer)
    }

    // ── whom to ask ─────────────────────────────────────────────────────────────────────────

    /// Time has passed. `least` is the lowest operation whose checkpoint is of use, if any is wanted.
    /// `own` is the checkpoint in force here.
    pub(super) fn tick(
        &mut self,
        least: Option<Op>,
        own: Option<ManifestRef>,
        world: &mut Context<'_>,
    ) {
        self.own = own;
        let Some(least) = least else {
            if self.active {
                *self = Self {
                    plans: self.plans + 1,
                    ..Self::new(self.me, self.replica_count)
                };
            }
            return;
        };
        self.active = true;
        if self.plan.as_ref().is_some_and(|plan| plan.offer.op < least) {
            self.give_up();
        }
        let now = world.now;
        if self.asking && self.retry.due(now) {
            self.problem = None;
            self.ask(least, world);
        }
        let Some(plan) = &mut self.plan else { return };
        if plan.is_waiting() && !self.asking && plan.silent.due(now) {
            plan.silences += 1;
            plan.silent = Deadline::after(now, SILENT_NS);
            if plan.silences > SILENT_MAX {
                return self.leave_donor();
            }
            self.ask_again(u64::MAX, world);
        }
    }

    /// The others in turn, the primary last: it has most to do.
    fn candidate(&self, view: View) -> ReplicaIndex {
        let count = self.replica_count;
        let primary = u8::try_from(view % View::from(count)).expect("below the count");
        // A standby has an index beyond all of them.
        let others = (1..=count).map(|step| (self.me + step) % count);
        let mut others: Vec<ReplicaIndex> = others.filter(|r| *r != self.me).collect();
        others.sort_by_key(|replica| *replica == primary);
        others[self.asked as usize % others.len()]
    }

    fn ask(&mut self, least: Op, world: &mut Context<'_>) {
        let refreshing = self
            .plan
            .as_ref()
            .is_some_and(|p| p.stage == Stage::Refresh);
        if refreshing {
            // Once was enough: what was offered first will do.
            self.asking = false;
            return self.advance(world);
        }
        let to = self.candidate(world.view);
        self.asked += 1;
        self.retry = Deadline::after(world.now, ASK_NS);
        world.send_get_checkpoint(to, least);
    }

    /// Looks for another donor; what was planned goes on there if it has the same checkpoint.
    fn leave_donor(&mut self) {
        self.asking = true;
        self.retry = Deadline::after(0, 0);
    }

    /// Begins anew, with what is here.
    fn give_up(&mut self) {
        self.plan = None;
        self.leave_donor();
    }

    /// Another replica offers its checkpoint.
    pub(super) fn on_offer(&mut self, from: &Header, offer: Offer, world: &mut Context<'_>) {
        if !self.active || !self.asking || from.view != world.view {
            return;
        }
        self.donor = from.replica;
        match &mut self.plan {
            Some(plan) if plan.offer == offer => {
                self.asking = false;
                plan.silences = 0;
                plan.silent = Deadline::after(world.now, SILENT_NS);
                self.ask_again(u64::MAX, world);
            }
            // Nothing newer: what was begun will do.
            Some(plan) if plan.stage == Stage::Refresh && offer.op <= plan.offer.op => {
                self.asking = false;
            }
            _ => {
                self.asking = false;
                self.plans += 1;
                self.plan = Some(Plan::new(self.plans, offer, world.now));
            }
        }
        self.advance(world);
    }

    // ── pieces ──────────────────────────────────────────────────────────────────────────────

    fn ask_for(donor: ReplicaIndex, op: Op, stretch: Stretch, world: &mut Context<'_>) {
        let header = wire::block(world.header(Command::GetBlock), op, stretch);
        world.send(donor, header, &[]);
    }

    /// Asks once more for everything that was asked for before request `before` and is not here.
    fn ask_again(&mut self, before: u64, world: &mut Context<'_>) {
        let Some(plan) = &mut self.plan else { return };
        for piece in &mut plan.window {
            if matches!(piece.standing, Standing::Asked(number) if number < before) {
                piece.standing = Standing::Asked(self.requests);
                self.requests += 1;
                Self::ask_for(self.donor, plan.offer.op, piece.stretch(), world);
            }
        }
    }

    /// A block, or the news that there is none.
    pub(super) fn on_block(&mut self, message: Message, world: &mut Context<'_>) {
        let header = *message.header();
        let (Some(plan), Some(stretch)) = (&mut self.plan, wire::stretch(&header)) else {
            return;
        };
        if plan.offer.op != header.op {
            return;
        }
        let asked = plan.window.iter_mut().find_map(|piece| {
            let Standing::Asked(number) = piece.standing else {
                return None;
            };
            (piece.stretch() == stretch).then_some((piece, number))
        });
        let Some((piece, number)) = asked else { return };
        if message.body().len() != stretch.size {
            if header.replica == self.donor && !self.asking {
                self.leave_donor();
            }
            return;
        }
        piece.standing = Standing::Here(message);
        plan.silences = 0;
        plan.silent = Deadline::after(world.now, SILENT_NS);
        self.ask_again(number, world);
        self.advance(world);
    }

    /// Does what can be done now.
    fn advance(&mut self, world: &mut Context<'_>) {
        loop {
            self.check(world);
            self.fill(world);
            self.hand(world);
            let Some(plan) = &mut self.plan else { return };
            if !plan.is_over() {
                return;
            }
            let number = plan.number;
            match plan.stage {
                Stage::Manifest => {
                    plan.stage = Stage::Listing;
                    let manifest = plan.offer.manifest;
                    let task = LibraryTask::List {
                        plan: number,
                        manifest,
                        own: self.own,
                    };
                    return world.outputs.push(Output::Library(task));
                }
                Stage::Chunks if world.now >= plan.begun + REFRESH_NS && !self.asking => {
                    plan.stage = Stage::Refresh;
                    let least = plan.offer.op;
                    self.asking = true;
                    self.retry = Deadline::after(world.now, ASK_NS);
                    return world.send_get_checkpoint(self.donor, least);
                }
                Stage::Refresh if self.asking => return,
                Stage::Chunks | Stage::Refresh => {
                    plan.unchecked = std::mem::take(&mut plan.rest).into();
                    plan.stage = Stage::Rest;
                }
                Stage::Rest if Mutant::TransferNotSynced.is_on() => plan.stage = Stage::Ready,
                Stage::Rest => {
                    plan.stage = Stage::Syncing;
                    let task = LibraryTask::Sync { plan: number };
                    return world.outputs.push(Output::Library(task));
                }
                Stage::Listing | Stage::Syncing | Stage::Ready => return,
            }
        }
    }

    /// Finds out which of the next files are here already.
    fn check(&mut self, world: &mut Context<'_>) {
        let Some(plan) = &mut self.plan else { return };
        while plan.checking + plan.lacking.len() < FILES_AHEAD {
            let Some(entry) = plan.unchecked.pop_front() else {
                return;
            };
            if self.here.get(&entry.name) == Some(&entry.checksum) {
                plan.done += entry.size;
                continue;
            }
            plan.checking += 1;
            let task = LibraryTask::Check {
                plan: plan.number,
                entry,
            };
            world.outputs.push(Output::Library(task));
        }
    }

    /// Asks for the next pieces, as many as the window takes.
    fn fill(&mut self, world: &mut Context<'_>) {
        let Some(plan) = &mut self.plan else { return };
        while !self.asking && plan.window.len() < TRANSFER_WINDOW {
            let Some(entry) = plan.lacking.front().copied() else {
                return;
            };
            if plan.window.is_empty() {
                plan.silent = Deadline::after(world.now, SILENT_NS);
            }
            let piece = Piece {
                entry,
                number: plan.next,
                standing: Standing::Asked(self.requests),
            };
            self.requests += 1;
            Self::ask_for(self.donor, plan.offer.op, piece.stretch(), world);
            plan.window.push_back(piece);
            plan.next += 1;
            if plan.next == entry.pieces() {
                plan.lacking.pop_front();
                plan.next = 0;
            }
        }
    }

    /// Hands what is here to its librarian, in order.
    fn hand(&mut self, world: &mut Context<'_>) {
        let Some(plan) = &mut self.plan else { return };
        for piece in &mut plan.window {
            match std::mem::replace(&mut piece.standing, Standing::Handed) {
                Standing::Handed => {}
                Standing::Here(message) => {
                    world.outputs.push(Output::Library(LibraryTask::Write {
                        plan: plan.number,
                        entry: piece.entry,
                        piece: piece.number,
                        message,
                    }));
                }
                asked @ Standing::Asked(_) => {
                    piece.standing = asked;
                    return;
                }
            }
        }
    }

    /// A librarian has done something.
    pub(super) fn on_done(&mut self, done: LibraryDone, world: &mut Context<'_>) {
        let number = done.plan();
        let in_force = self.plan.as_mut();
        let Some(plan) = in_force.filter(|plan| Some(plan.number) == number) else {
            return;
        };
        let result = match done {
            LibraryDone::Read { .. } | LibraryDone::Scrubbed(_) => return,
            LibraryDone::Checked { entry, whole, .. } => {
                plan.checking -= 1;
                if whole {
                    plan.done += entry.size;
                    self.here.insert(entry.name, entry.checksum);
                } else {
                    self.here.remove(&entry.name);
                    plan.lacking.push_back(entry);
                }
                Ok(())
            }
            LibraryDone::Written {
                entry,
                piece,
                result,
                ..
            } => {
                let is_it = |other: &Piece| other.entry == entry && other.number == piece;
                let at = plan.window.iter().position(is_it);
                plan.window.remove(at.expect("it was handed over"));
                if result.is_ok() {
                    plan.done += entry.piece(piece).1 as u64;
                    if piece + 1 == entry.pieces() {
                        self.here.insert(entry.name, entry.checksum);
                    }
                }
                result
            }
            LibraryDone::Listed { result, .. } => match result {
                Ok(Listing { files, own }) if plan.list(&files).is_some() => {
                    let listed = |name: &FileName| files.binary_search_by_key(name, |f| f.name);
                    self.here.retain(|name, _| listed(name).is_ok());
                    let own = own.into_iter().map(|entry| (entry.name, entry.checksum));
                    self.here.extend(own);
                    plan.done = 0;
                    Ok(())
                }
                Ok(_) => {
                    self.give_up();
                    Ok(())
                }
                Err(error) => {
                    // What was here a moment ago is damaged: look again at all of it.
                    self.here.clear();
                    Err(error)
                }
            },
            LibraryDone::Synced { result, .. } => {
                if result.is_ok() {
                    plan.stage = Stage::Ready;
                }
                result
            }
        };
        match result {
            Ok(()) => self.advance(world),
            Err(error) => self.on_failed(&error, world.now),
        }
    }

    /// What came was not what it should be: the next donor may have it right. Or the disk here cannot take it: once
    /// more after a while.
    fn on_failed(&mut self, error: &StoreError, now: u64) {
        self.give_up();
        if let StoreError::Io { source, .. } | StoreError::List(source) = error {
            self.problem = Some(source.kind());
            self.retry = Deadline::after(now, PROBLEM_NS);
        }
    }
}
