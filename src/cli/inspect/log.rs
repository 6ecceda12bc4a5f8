//! The log as a journal's entries make it: the rules by which `replica::open` reads them, without
//! its refusals, because what a person wants to see is why it would refuse.
//!
//! Entries come in the order in which they were written. One with an op that is there replaces the
//! log from there on, unless it stands in for a damaged one; those that a view change left behind are dropped; what remains must be one
//! hash chain that contains the checkpoint's end.

use std::collections::VecDeque;

use serde::Serialize;

use super::Problem;
use crate::replica::superblock::State;

const PART: &str = "journal";

/// The log that is in force.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct LogReport {
    pub(super) first: u64,
    pub(super) last: u64,
    /// The greatest commit point that any of its entries names.
    pub(super) commit: u64,
}

/// What a restart keeps of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) op: u64,
    pub(super) checksum: u128,
    pub(super) parent: u128,
    pub(super) view: u32,
    pub(super) commit: u64,
}

/// The log as the entries make it.
#[derive(Debug, Default)]
pub(super) struct Log {
    links: VecDeque<Link>,
}

impl Log {
    /// Adds an entry; gives the number of those that it replaces.
    pub(super) fn push(&mut self, link: Link) -> u64 {
        let mut replaced = 0;
        while self.links.back().is_some_and(|last| last.op >= link.op) {
            self.links.pop_back();
            replaced += 1;
        }
        self.links.push_back(link);
        replaced
    }

    /// Puts a restored entry where the damaged one was.
    pub(super) fn restore(&mut self, link: Link) {
        let at = self.links.partition_point(|other| other.op < link.op);
        let is_there = self.links.get(at).is_some_and(|other| other.op == link.op);
        let belongs = at > 0
            || self
                .links
                .front()
                .is_some_and(|f| f.parent == link.checksum);
        if !is_there && belongs {
            self.links.insert(at, link);
        }
    }

    pub(super) fn report(&self) -> Option<LogReport> {
        Some(LogReport {
            first: self.links.front()?.op,
            last: self.links.back()?.op,
            commit: self.links.iter().map(|link| link.commit).max()?,
        })
    }

    /// Drops entries beyond the beginning of the last view that are not of that view, and all behind
    /// the first of them. Gives the op of that one, and how many they were.
    pub(super) fn drop_what_died(&mut self, state: &State) -> Option<(u64, u64)> {
        let died = |link: &&Link| link.op > state.log_view_op && link.view < state.log_view;
        let op = self.links.iter().find(died)?.op;
        let before = self.links.len();
        self.links.retain(|link| link.op < op);
        Some((op, (before - self.links.len()) as u64))
    }

    /// Whatever would keep a replica from starting with this log.
    pub(super) fn contradictions(&self, state: &State) -> Vec<Problem> {
        const TIMES: &str =
            "the files are of different times (was only a part restored from a backup?)";
        let mut problems = Vec::new();
        let mut damage = |what: String| problems.push(Problem::damage(PART, what));
        let checkpoint = state.checkpoint_op;
        let (Some(first), Some(last)) = (self.links.front(), self.links.back()) else {
            return problems;
        };
        if first.op > checkpoint + 1 {
            damage(format!(
                "the log begins at op {}, but the checkpoint ends at op {checkpoint}: what was between is \
                 missing; {TIMES}",
                first.op
            ));
        }
        if last.op < checkpoint {
            damage(format!(
                "the log ends at op {}, before the checkpoint at op {checkpoint}; {TIMES}",
                last.op
            ));
        }
        let mut former: Option<&Link> = None;
        for link in &self.links {
            let follows = former.is_none_or(|f| f.op + 1 == link.op && f.checksum == link.parent);
            if !follows {
                damage(format!(
                    "op {} does not continue op {}: they are of different histories",
                    link.op,
                    former.map_or(0, |former| former.op)
                ));
                break;
            }
            former = Some(link);
        }
        let base = (first.op.checked_sub(1) == Some(checkpoint)).then_some(first.parent);
        let inside = self.links.iter().find(|link| link.op == checkpoint);
        let found = base.or_else(|| inside.map(|link| link.checksum));
        if found.is_some_and(|checksum| checksum != state.checkpoint_checksum) {
            damage(format!(
                "op {checkpoint} of the log is not the one that the checkpoint was taken after; {TIMES}"
            ));
        }
        problems
    }
}
