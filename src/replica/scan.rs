//! The log in what a journal's scan found: frames in the order in which they were written, and
//! stretches that the disk has damaged.
//!
//! ```text
//!   frames    …98  99  ▒▒▒  101 …            one lost, and the next is one further: 100 is missing
//!             …98  99  ▒▒▒  100 (on 99) …    what was lost had been replaced: nothing is missing
//!             …98  99  ▒▒▒  100 (on 99') …   the log had been cut below 100: 99' is missing, and what
//!                                            came before it is not sure
//!             …98  99  ▒▒▒                   the end of the log is not sure
//! ```
//!
//! A frame with an operation that is there already replaces the log from there on: a view change had
//! cut it. A *restored* frame (its tag says so) stands in for a damaged one and replaces nothing.
//! Entries beyond the point where the last view began must be of that view: others died in the view
//! change, and only their replacements' absence keeps them on the disk.
//!
//! The superblock says what the log was at one position, its head and the head's checksum: what damage
//! below may have taken is known by that. Above it, the chain decides what damage means: an entry that continues the one before the damage proves that
//! nothing was lost between; a count of lost frames that is exactly the gap proves that nothing was
//! replaced. Where neither holds, no uncommitted entry from before the damage is trusted, until the
//! chain above names it: at last every missing entry whose checksum is known is looked for among all
//! frames that there are.

use std::collections::{BTreeMap, VecDeque};

use stampede_journal::{Corruption, Entry as Frame, Location, Recovery};

use super::open::OpenError;
use super::storage::{is_restored, split};
use super::superblock::State;
use crate::message::{Op, View};
use crate::mutant::Mutant;
use crate::vsr::{Entry, Log, UNKNOWN};

/// What a frame says, without its body.
#[derive(Debug, Clone, Copy)]
struct Found {
    op: Op,
    restored: bool,
    entry: Entry,
    location: Location,
    parent: u128,
    view: View,
    commit: Op,
}

/// An operation of the log: found, or missing with what is known of its checksum.
#[derive(Debug, Clone, Copy)]
enum Slot {
    Found(Found),
    Missing(u128),
}

impl Slot {
    fn checksum(&self) -> u128 {
        match self {
            Self::Found(found) => found.entry.checksum,
            Self::Missing(checksum) => *checksum,
        }
    }
}

/// The frames of a scan, in order.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// At most one for each sector of the journal.
    frames: Vec<Found>,
}

/// The log that is in force.
#[derive(Debug)]
pub(super) struct Scanned {
    pub log: Log,
    /// Where the entries after the log's base lie; `None` for missing ones.
    pub locations: VecDeque<Option<Location>>,
    /// The greatest commit point that any entry names.
    pub commit: Op,
    /// From here on entries may be lost without a trace.
    pub unsure_from: Option<Op>,
    /// Good frames that the log does not name, of a journal that is damaged: it may yet.
    pub strays: Strays,
}

/// Where frames lie that are of no log, by operation and checksum.
pub(super) type Strays = BTreeMap<(Op, u128), Location>;

/// What the log was at a position of the journal.
#[derive(Debug, Clone, Copy)]
struct Sound {
    position: u64,
    op: Op,
    checksum: u128,
}

/// Frames that were lost since the last good one.
#[derive(Debug, Clone, Copy)]
struct Lost {
    /// How many; `None` when nobody knows.
    count: Option<u64>,
    /// Where the last stretch of damage ends.
    end: u64,
}

#[derive(Debug, Default)]
struct Replay {
    checkpoint: Op,
    /// Where the superblock says what the log was; `None` once that has been passed.
    sound: Option<Sound>,
    first: Op,
    first_parent: u128,
    slots: VecDeque<Slot>,
    lost: Option<Lost>,
    /// The greatest commit point that anything names.
    commit: Op,
    /// The greatest one that was named before the damage, if there is any: what lies before it is not only
    /// committed, it is what was committed. A commit point from behind may be of what replaced it.
    trusted: Op,
    unsure_from: Option<Op>,
}

impl Scan {
    pub(super) fn visit(&mut self, frame: &Frame<'_>) {
        let (header, _) = split(frame.payload).expect("the check has read it as a prepare");
        self.frames.push(Found {
            op: header.op,
            restored: is_restored(frame.tag),
            entry: Entry::of(&header),
            location: frame.location,
            parent: header.parent,
            view: header.view,
            commit: header.commit,
        });
    }

    /// The log that the frames make, in front of what damage took away.
    ///
    /// # Errors
    /// The journal and the checkpoint are not of one history.
    pub(super) fn finish(self, state: &State, recovery: &Recovery) -> Result<Scanned, OpenError> {
        let corruptions = &recovery.corruptions;
        let mut replay = Replay {
            checkpoint: state.checkpoint_op,
            commit: state.commit.max(state.checkpoint_op),
            trusted: state.checkpoint_op,
            sound: Some(Sound {
                position: state.sound_position,
                op: state.sound_op,
                checksum: state.sound_checksum,
            }),
            ..Replay::default()
        };
        // Damage that hit only the journal's own markers has cost nobody anything.
        let mut damage = corruptions
            .iter()
            .filter(|c| c.entries != Some(0))
            .peekable();
        let damaged = damage.peek().is_some();
        for frame in &self.frames {
            while let Some(stretch) = damage.next_if(|c| c.position < frame.location.position) {
                replay.pass(stretch.position);
                replay.damage(stretch);
            }
            replay.pass(frame.location.position);
            replay.frame(*frame)?;
        }
        for stretch in damage {
            replay.pass(stretch.position);
            replay.damage(stretch);
        }
        // An end that is gone without a trace was not in flight if the superblock speaks of it.
        if recovery.head < state.sound_position {
            replay.lose(None, state.sound_position);
        }
        replay.pass(u64::MAX);
        replay.end();
        replay.drop_what_died(state);
        replay.find_again(&self.frames);
        let mut scanned = replay.finish(state, damaged)?;
        if scanned.log.missing().len() > 0 || scanned.unsure_from.is_some() {
            scanned.strays = strays(&self.frames, &scanned);
        }
        Ok(scanned)
    }
}

/// Frames of operations after the log's base that it does not hold.
fn strays(frames: &[Found], scanned: &Scanned) -> Strays {
    let log = &scanned.log;
    let holds = |found: &Found| {
        log.checksum(found.op) == Some(found.entry.checksum) && !log.is_missing(found.op)
    };
    let strays = frames
        .iter()
        .filter(|found| found.op > log.base() && !holds(found));
    strays
        .map(|found| ((found.op, found.entry.checksum), found.location))
        .collect()
}

impl Replay {
    fn head(&self) -> Op {
        self.first + self.slots.len() as u64 - 1
    }

    fn index(&self, op: Op) -> Option<usize> {
        usize::try_from(op.checked_sub(self.first)?).ok()
    }

    fn slot(&self, op: Op) -> Option<&Slot> {
        self.slots.get(self.index(op)?)
    }

    /// What comes next lies at `position` or behind it.
    fn pass(&mut self, position: u64) {
        let Some(sound) = self.sound.take_if(|sound| sound.position <= position) else {
            return;
        };
        // Without damage the frames have said so themselves. What they do not say was lost with the
        // end of the journal, without a trace, and more has been written since.
        let before = !self.slots.is_empty() && sound.op < self.first;
        let known = self.slot(sound.op).map(Slot::checksum) == Some(sound.checksum);
        let count = match self.lost.take() {
            // A stretch may lie across the position: how much of it comes before, nobody knows.
            Some(Lost { end, .. }) if end > sound.position => {
                self.lost = Some(Lost { count: None, end });
                None
            }
            Some(Lost { count, .. }) => count,
            None if known || before || sound.op <= self.checkpoint => return,
            None => None,
        };
        if self.slots.is_empty() || sound.op < self.first {
            self.slots.clear();
            if sound.op > self.checkpoint {
                (self.first, self.first_parent) = (sound.op, UNKNOWN);
                self.slots.push_back(Slot::Missing(sound.checksum));
            }
            return;
        }
        let is_there = |slot: &Slot| slot.checksum() == sound.checksum;
        if !self.slot(sound.op).is_some_and(is_there) {
            let further = sound.op.checked_sub(self.head());
            let exact = further.is_some_and(|further| further > 0 && count == Some(further));
            if !exact {
                self.truncate_to(self.trusted.min(sound.op - 1));
            }
            self.pad_to(sound.op - 1);
            self.slots.push_back(Slot::Missing(sound.checksum));
        }
        self.truncate_to(sound.op);
    }

    fn damage(&mut self, stretch: &Corruption) {
        // A stand-in takes nothing with it but the entry that it stood in for.
        if let (Some(tag), Some(1)) = (stretch.tag, stretch.entries)
            && is_restored(tag)
        {
            return;
        }
        self.lose(stretch.entries, stretch.position + stretch.bytes);
    }

    /// So many entries were lost, if that is known, in a stretch that ends there.
    fn lose(&mut self, count: Option<u64>, end: u64) {
        let before = self.lost.map_or(Some(0), |lost| lost.count);
        let count = before.zip(count).map(|(before, more)| before + more);
        self.lost = Some(Lost { count, end });
    }

    fn frame(&mut self, found: Found) -> Result<(), OpenError> {
        self.commit = self.commit.max(found.commit);
        if found.restored {
            self.restore(found);
            return Ok(());
        }
        if self.slots.is_empty() || found.op < self.first {
            self.slots.clear();
            self.lost = None;
            (self.first, self.first_parent) = (found.op, found.parent);
            self.slots.push_back(Slot::Found(found));
            self.trusted = self.trusted.max(found.commit);
            return Ok(());
        }
        let before = found.op.checked_sub(1).and_then(|op| self.slot(op));
        let continues = match before {
            Some(slot) => slot.checksum() == found.parent,
            None => found.op == self.first && self.first_parent == found.parent,
        };
        match self.lost.take() {
            _ if continues => {}
            None if found.op > self.head() + 1 => return Err(OpenError::OtherHistory(found.op)),
            // Found out at the end, unless it is replaced.
            None => {}
            Some(Lost { count, .. }) => {
                let gap = found.op.checked_sub(self.head() + 1);
                let exact = gap.is_some_and(|gap| gap > 0 && count == Some(gap));
                if !exact {
                    self.truncate_to(self.trusted.min(found.op - 1));
                }
                self.pad_to(found.op - 1);
                // What the frame continues is missing, whatever lay there.
                match self.index(found.op - 1) {
                    Some(last) => {
                        self.slots.truncate(last);
                        self.slots.push_back(Slot::Missing(found.parent));
                    }
                    None => self.first_parent = found.parent,
                }
            }
        }
        self.truncate_to(found.op - 1);
        self.slots.push_back(Slot::Found(found));
        self.trusted = self.trusted.max(found.commit);
        Ok(())
    }

    /// A stand-in for a damaged frame. It was part of the log when it was written: where the frame that
    /// it stands in for was lost, it says how far the log went at least.
    fn restore(&mut self, found: Found) {
        if self.slots.is_empty() && self.lost.is_some() && found.op > self.checkpoint {
            (self.first, self.first_parent) = (found.op, found.parent);
            self.slots.push_back(Slot::Missing(UNKNOWN));
        }
        if self.slots.is_empty() || found.op < self.first.min(self.checkpoint + 1) {
            return;
        }
        // The frame itself may lie before the position from which a restart reads.
        while found.op < self.first {
            self.slots.push_front(Slot::Missing(self.first_parent));
            self.first -= 1;
            self.first_parent = UNKNOWN;
        }
        if let Some(further) = found.op.checked_sub(self.head())
            && let Some(lost) = &mut self.lost
        {
            lost.count = lost.count.and_then(|count| count.checked_sub(further));
            self.pad_to(found.op);
        }
        let index = self.index(found.op).expect("not before the first");
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let known = slot.checksum();
        if known != UNKNOWN && known != found.entry.checksum {
            return;
        }
        *slot = Slot::Found(found);
        match index.checked_sub(1) {
            None => self.first_parent = found.parent,
            Some(before) if self.slots[before].checksum() == found.parent => {}
            Some(before) => self.slots[before] = Slot::Missing(found.parent),
        }
    }

    fn truncate_to(&mut self, op: Op) {
        let keep = (op + 1).saturating_sub(self.first);
        self.slots
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    fn pad_to(&mut self, op: Op) {
        while self.first + (self.slots.len() as u64) <= op {
            self.slots.push_back(Slot::Missing(UNKNOWN));
        }
    }

    /// Frames that were lost after the last good one: what they held, and what that replaced, nobody
    /// knows.
    fn end(&mut self) {
        if self.lost.take().is_some() {
            self.unsure_from = Some(self.trusted + 1);
        }
    }

    fn drop_what_died(&mut self, state: &State) {
        let died = (self.first..)
            .zip(&self.slots)
            .find(|(op, slot)| match slot {
                Slot::Found(_) if Mutant::KeepsDeadEntries.is_on() => false,
                Slot::Found(found) => *op > state.log_view_op && found.view < state.log_view,
                Slot::Missing(_) => false,
            })
            .map(|(op, _)| op);
        if let Some(op) = died {
            self.truncate_to(op - 1);
            // What is missing just below was of no later view.
            while let Some(Slot::Missing(_)) = self.slots.back()
                && self.head() > state.log_view_op
            {
                self.slots.pop_back();
            }
        }
    }

    /// Missing entries that the chain names and some frame holds: what was not trusted, or given up
    /// before the chain was known. From the top down: each one found names the one before it.
    fn find_again(&mut self, frames: &[Found]) {
        let mut known: BTreeMap<(Op, u128), Found> = BTreeMap::new();
        if self
            .slots
            .iter()
            .any(|slot| matches!(slot, Slot::Missing(_)))
        {
            known.extend(frames.iter().map(|f| ((f.op, f.entry.checksum), *f)));
        }
        for index in (0..self.slots.len()).rev() {
            let op = self.first + index as u64;
            let above = match self.slots.get(index + 1) {
                Some(Slot::Found(found)) => found.parent,
                Some(Slot::Missing(_)) | None => UNKNOWN,
            };
            let Slot::Missing(checksum) = &mut self.slots[index] else {
                continue;
            };
            if *checksum == UNKNOWN {
                *checksum = above;
            }
            if let Some(found) = known.get(&(op, *checksum)) {
                self.slots[index] = Slot::Found(*found);
                if index == 0 {
                    self.first_parent = found.parent;
                }
            }
        }
    }

    fn finish(mut self, state: &State, damaged: bool) -> Result<Scanned, OpenError> {
        let checkpoint = state.checkpoint_op;
        let after_checkpoint = |unsure_from, commit| Scanned {
            log: Log::new(
                checkpoint,
                state.checkpoint_checksum,
                state.checkpoint_timestamp,
            ),
            locations: VecDeque::new(),
            commit,
            unsure_from,
            strays: Strays::new(),
        };
        if self.slots.is_empty() {
            // Nothing after the checkpoint.
            let unsure_from = self.unsure_from.map(|_| checkpoint + 1);
            return Ok(after_checkpoint(unsure_from, self.commit));
        }
        if self.first > checkpoint + 1 {
            // What was missing when the checkpoint was taken left no trace behind it; others have it.
            if !damaged && state.is_alone() {
                return Err(OpenError::Gap {
                    first: self.first - 1,
                    checkpoint,
                });
            }
            self.slots.push_front(Slot::Missing(self.first_parent));
            self.first -= 1;
            while self.first > checkpoint + 1 {
                self.slots.push_front(Slot::Missing(UNKNOWN));
                self.first -= 1;
            }
            self.first_parent = state.checkpoint_checksum;
        }
        if self.head() < checkpoint {
            if !damaged {
                return Err(OpenError::Behind {
                    head: self.head(),
                    checkpoint,
                });
            }
            // Lost up to beyond the checkpoint, for all that is known.
            return Ok(after_checkpoint(Some(checkpoint + 1), self.commit));
        }
        self.drop_what_is_not_needed(checkpoint);
        self.chain(state)
    }

    /// What is missing up to the checkpoint is of no use to anybody here, nor is what comes before it.
    fn drop_what_is_not_needed(&mut self, checkpoint: Op) {
        let missing = (self.first..=checkpoint)
            .zip(&self.slots)
            .filter(|(_, slot)| matches!(slot, Slot::Missing(_)));
        let Some((op, _)) = missing.last() else {
            return;
        };
        while self.first <= op
            && let Some(slot) = self.slots.pop_front()
        {
            self.first += 1;
            self.first_parent = slot.checksum();
        }
    }

    fn chain(self, state: &State) -> Result<Scanned, OpenError> {
        let checkpoint = state.checkpoint_op;
        let base = self.first - 1;
        let (base_checksum, base_timestamp) = if base == checkpoint {
            let known = self.first_parent != UNKNOWN;
            if known && self.first_parent != state.checkpoint_checksum {
                return Err(OpenError::OtherHistory(checkpoint));
            }
            (state.checkpoint_checksum, state.checkpoint_timestamp)
        } else {
            (self.first_parent, 0)
        };
        let mut log = Log::new(base, base_checksum, base_timestamp);
        let mut locations = VecDeque::with_capacity(self.slots.len());
        for slot in &self.slots {
            match slot {
                Slot::Missing(checksum) => {
                    log.push_missing(*checksum);
                    locations.push_back(None);
                }
                Slot::Found(found) => {
                    // Whole frames that do not continue the chain cannot come from this replica.
                    let before = log.head_checksum();
                    if before != UNKNOWN && found.parent != before {
                        return Err(OpenError::OtherHistory(log.head() + 1));
                    }
                    log.push(found.entry);
                    locations.push_back(Some(found.location));
                }
            }
        }
        let at_checkpoint = log.checksum(checkpoint);
        if at_checkpoint.is_some_and(|checksum| checksum != state.checkpoint_checksum) {
            return Err(OpenError::OtherHistory(checkpoint));
        }
        Ok(Scanned {
            commit: self
                .unsure_from
                .map_or(self.commit, |from| self.commit.min(from - 1))
                .min(log.head()),
            unsure_from: self.unsure_from.map(|from| from.min(log.head() + 1)),
            log,
            locations,
            strays: Strays::new(),
        })
    }
}
