//! Which log a view begins with, from the logs of those who have joined it.
//!
//! Two mistakes are possible. To leave out an operation that was committed loses what a client was
//! told. To wait for an operation that nobody can have acknowledged stops the cluster for nothing. An
//! entry that a disk has damaged is neither there nor absent: its replica may have acknowledged it, so
//! it is never counted as a *nack* (Alagappan et al., *Protocol-Aware Recovery for Consensus-Based
//! Storage*, FAST 2018, §3.4).
//!
//! ```text
//!            commit                               ended by: nobody has more, or enough nacks
//!   log ───────┼─── op ─── op ─── op ─── op ────────┤
//!              │    one of the logs with the greatest log_view says what it is,
//!              │    and somebody who has joined still has it
//! ```
//!
//! The logs with the greatest `log_view` are prefixes of one another, so they never contradict one
//! another; between them, an entry is known if one of them knows it. Above the commit point, op by op:
//! - known, and somebody has the prepare: it belongs to the log;
//! - unknown, because damage may have replaced it unseen, but another log that agrees so far has an entry
//!   there, and a nack quorum never acknowledged any other: it is that one, or one that nobody needs;
//! - known or possible, and nobody has it: the log ends before it if a nack quorum certainly never
//!   acknowledged it, so many that the rest is no replication quorum; otherwise the view waits for
//!   more to join;
//! - not possible (all these logs are sure to end before it): the log ends.
//!
//! Every entry continues the one before it, whichever logs they are from: replicas take one agreement
//! with the result as proof of all that comes before. So a log that parts from it further down has
//! nothing more to give, and never acknowledged anything that continues it: it nacks whatever comes next.

use super::quorum;
use crate::limits::REPLICAS_MAX;
use crate::message::{Op, View};
use crate::mutant::Mutant;
use crate::protocol::ReplicaIndex;

/// A replica's log as it said when it joined a view.
#[derive(Debug, Clone)]
pub(super) struct Join {
    pub log_view: View,
    /// The last operation, and the checksum of its prepare.
    pub op: Op,
    pub checksum: u128,
    pub commit: Op,
    /// The checksums of the last entries, from `first` to `op`; zero for those it does not know.
    pub first: Op,
    pub suffix: Vec<u128>,
    /// One bit for each of them whose prepare it does not have, from the lowest.
    pub missing: u128,
    /// From here on its disk may have lost entries, without a trace of what they were.
    pub unsure_from: Option<Op>,
}

impl Join {
    /// What this log says for certain that its entry at `op` is.
    fn checksum(&self, op: Op) -> Option<u128> {
        self.is_sure(op).then(|| self.claimed(op)).flatten()
    }

    fn claimed(&self, op: Op) -> Option<u128> {
        if op == self.op {
            return Some(self.checksum).filter(|c| *c != 0);
        }
        let index = usize::try_from(op.checked_sub(self.first)?).ok()?;
        self.suffix.get(index).copied().filter(|c| *c != 0)
    }

    fn is_sure(&self, op: Op) -> bool {
        self.unsure_from.is_none_or(|from| op < from) || Mutant::UnsureIsTrusted.is_on()
    }

    /// It has the prepare with this checksum at `op`.
    fn has(&self, op: Op, checksum: u128) -> bool {
        let index = op.saturating_sub(self.first).min(127);
        let is_missing = op >= self.first && self.missing >> index & 1 == 1;
        self.claimed(op) == Some(checksum) && !is_missing
    }

    /// It certainly has another entry than this one at `op`.
    fn parts_at(&self, op: Op, checksum: Option<u128>) -> bool {
        let ours = self.checksum(op).zip(checksum);
        ours.is_some_and(|(ours, asked)| ours != asked)
    }

    /// It certainly never acknowledged the prepare with this checksum at `op`, or any, if none is
    /// given, that continues a log with `before` in front of it.
    fn nacks(&self, op: Op, checksum: Option<u128>, before: Option<u128>) -> bool {
        if before.is_some() && self.parts_at(op - 1, before) {
            return true;
        }
        if !self.is_sure(op) {
            return false;
        }
        let damaged = Mutant::DamageIsANack.is_on() && checksum.is_some_and(|c| !self.has(op, c));
        op > self.op || self.parts_at(op, checksum) || damaged
    }

    /// It may have an entry at `op`, but cannot say which.
    fn may_have(&self, op: Op) -> bool {
        !self.is_sure(op) || (op <= self.op && self.checksum(op).is_none())
    }
}

/// What follows from the logs of those who have joined.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// The view's log, and who describes it.
    Log(Target),
    /// Nobody who has joined has the prepare at `op`, and it may have been acknowledged.
    Wait { op: Op },
}

/// The log that a view begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub donor: ReplicaIndex,
    pub op: Op,
    pub checksum: u128,
    pub commit: Op,
    /// The checksums of the last entries, from `first` to `op`; zero for unknown ones.
    pub first: Op,
    pub suffix: Vec<u128>,
}

/// Nacks that leave no replication quorum to have acknowledged an operation.
fn nack_quorum(replica_count: u8) -> usize {
    let certain = usize::from(!Mutant::NackQuorumShort.is_on());
    usize::from(replica_count) - quorum::replication(replica_count) + certain
}

/// See the module. `me` describes the log itself where it can: then there is nothing to fetch.
///
/// # Panics
/// When nobody has joined.
pub(super) fn merge(
    joins: &[Option<Join>; REPLICAS_MAX],
    me: ReplicaIndex,
    replica_count: u8,
) -> Merged {
    let all = || {
        (0u8..)
            .zip(joins)
            .filter_map(|(r, j)| Some((r, j.as_ref()?)))
    };
    let log_view = if Mutant::LongestLogWins.is_on() {
        let longest = all().max_by_key(|(_, join)| join.op);
        longest.map(|(_, join)| join.log_view)
    } else {
        all().map(|(_, join)| join.log_view).max()
    };
    let log_view = log_view.expect("a quorum has joined");
    let canonical = || all().filter(move |(_, join)| join.log_view == log_view);
    let commit = all().map(|(_, join)| join.commit).max().unwrap_or(0);

    // What another log has where those with the greatest log_view cannot say, if a nack quorum never
    // acknowledged anything else there. What is committed needs no proof that it continues the log: a
    // quorum has acknowledged it.
    let otherwise = |op, before: Option<u128>| {
        if !canonical().any(|(_, join)| join.may_have(op)) {
            return None;
        }
        let agrees = |join: &Join| before.is_some() && join.checksum(op - 1) == before;
        let others = all().filter(|(_, join)| op <= commit || op == 1 || agrees(join));
        let others = others.filter_map(|(_, join)| Some((join.log_view, join.checksum(op)?)));
        let (_, checksum) = others.max_by_key(|(log_view, _)| *log_view)?;
        let only =
            |join: &Join| join.nacks(op, None, before) || join.checksum(op) == Some(checksum);
        let nacks = all().filter(|(_, join)| only(join)).count();
        (nacks >= nack_quorum(replica_count)).then_some(checksum)
    };
    let known = |op, before| {
        let said = canonical().find_map(|(_, join)| join.checksum(op));
        said.or_else(|| otherwise(op, before))
    };
    let committed = |op| known(op, None);

    let mut end = commit;
    let mut last = committed(commit);
    // The checksums of what comes after the commit point.
    let mut found = Vec::new();
    loop {
        let op = end + 1;
        let next = known(op, last);
        if let Some(checksum) = next {
            if all().any(|(_, join)| join.has(op, checksum)) {
                end = op;
                last = next;
                found.push(checksum);
                continue;
            }
        } else if !canonical().any(|(_, join)| join.may_have(op)) {
            break;
        }
        let nacks = all().filter(|(_, join)| join.nacks(op, next, last));
        if nacks.count() < nack_quorum(replica_count) {
            return Merged::Wait { op };
        }
        break;
    }
    let describes = |(_, join): &(ReplicaIndex, &Join)| last.is_some() && join.claimed(end) == last;
    let donor = all()
        .filter(describes)
        .max_by_key(|(r, join)| (join.log_view, join.missing == 0, *r == me));
    let Some((donor, join)) = donor else {
        return Merged::Wait { op: end };
    };
    let committed = (join.first..=commit).map(|op| committed(op).unwrap_or(0));
    let after = (commit + 1..).zip(found);
    let after = after.filter(|(op, _)| *op >= join.first);
    Merged::Log(Target {
        donor,
        op: end,
        checksum: last.expect("somebody describes it"),
        commit,
        first: join.first,
        suffix: committed
            .chain(after.map(|(_, checksum)| checksum))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with entries up to `op`, each with its own number (and `mark`) as checksum, committed up
    /// to 10, described from 9 on.
    fn join(log_view: View, op: Op, mark: u128) -> Join {
        let checksum = |op: Op| u128::from(op) + if op > 10 { mark } else { 0 };
        Join {
            log_view,
            op,
            checksum: checksum(op),
            commit: 10,
            first: 9,
            suffix: (9..=op).map(checksum).collect(),
            missing: 0,
            unsure_from: None,
        }
    }

    /// Its disk has damaged the entry, which the next one names.
    fn damaged(mut join: Join, op: Op) -> Join {
        join.missing |= 1 << (op - join.first);
        join
    }

    /// Its disk may have lost entries at the end.
    fn unsure(mut join: Join, from: Op) -> Join {
        join.unsure_from = Some(from);
        join
    }

    fn merged(joins: &[Join]) -> Result<(ReplicaIndex, Op, u128), Op> {
        let mut all = [const { None }; REPLICAS_MAX];
        for (place, join) in all.iter_mut().zip(joins) {
            *place = Some(join.clone());
        }
        match merge(&all, 0, 3) {
            Merged::Log(target) => Ok((target.donor, target.op, target.checksum)),
            Merged::Wait { op } => Err(op),
        }
    }

    #[test]
    fn the_greatest_log_view_wins_then_the_longest_log() {
        assert_eq!(
            merged(&[join(2, 14, 100), join(3, 11, 200)]),
            Ok((1, 11, 211))
        );
        assert_eq!(
            merged(&[join(3, 11, 200), join(3, 12, 200)]),
            Ok((1, 12, 212))
        );
        assert_eq!(
            merged(&[join(3, 12, 200), join(3, 12, 200)]),
            Ok((0, 12, 212))
        );
    }

    #[test]
    fn a_damaged_entry_that_another_has_belongs_to_the_log() {
        let one = damaged(join(3, 13, 0), 12);
        assert_eq!(merged(&[one.clone(), join(3, 12, 0)]), Ok((0, 13, 13)));
        // Also when the other one holds it from an earlier view.
        assert_eq!(merged(&[one, join(2, 12, 0)]), Ok((0, 13, 13)));
    }

    #[test]
    fn a_damaged_entry_that_nobody_has_waits_until_enough_never_had_it() {
        let one = damaged(join(3, 13, 0), 12);
        assert_eq!(merged(&[one.clone(), join(3, 11, 0)]), Err(12));
        let all = [one.clone(), join(3, 11, 0), join(3, 11, 0)];
        assert_eq!(merged(&all), Ok((2, 11, 11)));
        // A third that has another entry there never acknowledged this one.
        let all = [one.clone(), join(3, 11, 0), join(2, 12, 500)];
        assert_eq!(merged(&all).map(|(_, op, _)| op), Ok(11));
        // One that has damaged its own copy may have acknowledged it: it is no nack.
        let all = [one, join(3, 11, 0), damaged(join(3, 13, 0), 12)];
        assert_eq!(merged(&all), Err(12));
    }

    #[test]
    fn a_log_whose_end_may_be_lost_proves_nothing_about_it() {
        let one = unsure(join(3, 11, 0), 11);
        assert_eq!(merged(&[one.clone(), join(3, 11, 0)]), Err(12));
        assert_eq!(merged(&[one.clone(), join(3, 12, 0)]), Err(13));
        let all = [one, join(3, 12, 0), join(3, 12, 0)];
        assert_eq!(merged(&all).map(|(_, op, _)| op), Ok(12));
        // What it has is of use all the same, once another says that it belongs.
        let all = [
            unsure(join(3, 12, 0), 11),
            damaged(join(3, 13, 0), 12),
            join(3, 11, 0),
        ];
        assert_eq!(merged(&all).map(|(_, op, _)| op), Ok(13));
        assert_eq!(merged(&all[..2]), Err(14));
        let mut two = unsure(join(3, 12, 0), 11);
        two.log_view = 2;
        let all = [two, damaged(join(3, 13, 0), 12)];
        assert_eq!(merged(&all).map(|(_, op, _)| op), Ok(13));
    }

    #[test]
    fn where_nobody_can_say_what_a_later_view_had_an_earlier_log_may_be_enough() {
        // Two replicas: one has been in view 3 and is unsure of it, the other has not: nothing of view 3
        // was acknowledged by both.
        let mut all = [const { None }; REPLICAS_MAX];
        all[0] = Some(unsure(join(3, 13, 0), 11));
        all[1] = Some(join(2, 12, 0));
        let Merged::Log(target) = merge(&all, 0, 2) else {
            panic!("nothing to wait for");
        };
        assert_eq!((target.op, target.checksum), (12, 12));
        // Three: the third may have acknowledged something else in view 3.
        assert_eq!(merge(&all, 0, 3), Merged::Wait { op: 11 });
        all[2] = Some(join(2, 12, 0));
        let Merged::Log(target) = merge(&all, 0, 3) else {
            panic!("nothing to wait for");
        };
        assert_eq!(target.op, 12);
    }

    #[test]
    fn a_log_that_parts_from_the_others_gives_nothing_that_comes_later() {
        // What the first has from 11 on died in view 3. The end of the third's log may be lost, but what the
        // first has there continues nothing, and neither of the others ever acknowledged what would.
        let all = [join(2, 15, 500), join(3, 12, 0), unsure(join(3, 11, 0), 11)];
        assert_eq!(merged(&all), Ok((1, 12, 12)));
        // Without the first, the third and it may have acknowledged more.
        assert_eq!(merged(&all[1..]), Err(13));
        // One that agrees so far may have what the third has lost.
        let mut one = join(2, 15, 500);
        one.suffix[2..4].copy_from_slice(&[11, 12]);
        let all = [one, join(3, 12, 0), unsure(join(3, 11, 0), 11)];
        assert_eq!(merged(&all), Ok((0, 15, 515)));
    }

    #[test]
    fn what_is_committed_is_never_nacked_away() {
        let mut ahead = join(3, 10, 0);
        ahead.commit = 12;
        let all = [ahead, unsure(join(3, 10, 0), 11), join(3, 10, 0)];
        assert_eq!(merged(&all), Err(12));
    }
}
