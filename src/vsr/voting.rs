//! Whether this replica may vote: acknowledge, leave views, join them.
//!
//! A vote is a promise, and a replica that may have forgotten promises must not make new ones that
//! contradict them (`Revisiting Liskov and Cowling` is unsafe here: a recovering replica that votes at
//! once can lose what it had acknowledged, see Michael et al., *Recovering Shared Objects Without
//! Stable Storage*, DISC 2017).
//!
//! ```text
//!   start ──► Arriving ── all others have welcomed it, or 150 ms ──► Voter
//!                │                                                     │
//!                └──────── a peer knows a later life of it ────────────┤
//!                                                                      ▼
//!   made by `recover` ───────────────────────────────────────────► Recovering
//!                               has a view's whole log, and           │
//!   Voter ◄──── enough others have forgotten its earlier votes ───────┘
//! ```
//!
//! **Arriving.** A directory that was set back to an older copy looks like any other. The peers know
//! better: each keeps, durably, the latest life of every member, and answers a hello by it. So a
//! replica waits for their word before its first vote, but not for long: others may be down.
//!
//! **Recovering.** What this replica said in former lives may still be counted by others: an
//! acknowledgement, a join. A welcome says that its sender has dropped all of that, and in which view
//! it is. A view that began with this replica's forgotten join was joined by a view-change quorum,
//! and a forgotten acknowledgement is in the log of the view's primary. So it may vote
//! - when all other replicas have welcomed it, in a view that is at least the latest of theirs; or
//! - when so many have that every view-change quorum holds one of them, in a view after all of theirs:
//!   a join that one of the rest still counts is for no later view than that;
//!
//! and in both cases only with that view's log, as its primary described it in this life, durable.

use super::timeout::{ARRIVAL_NS, Deadline};
use super::{Status, Vsr, quorum};
use crate::limits::REPLICAS_MAX;
use crate::message::View;
use crate::mutant::Mutant;
use crate::protocol::{Effects, ReplicaIndex, Time};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voting {
    /// It remembers all it has promised.
    Voter,
    /// It has just started, and waits for the word of the others.
    Arriving(Deadline),
    /// It has forgotten promises.
    Recovering,
    /// A standby follows, and never votes.
    Standby,
}

impl Vsr {
    pub(super) fn votes(&self) -> bool {
        let rash = Mutant::VotesWhileRecovering.is_on();
        let counts = Mutant::StandbyCounts.is_on() && self.voting == Voting::Standby;
        self.voting == Voting::Voter || counts || (rash && self.is_recovering())
    }

    /// It neither votes nor counts: its disk had forgotten what it promised.
    pub fn is_recovering(&self) -> bool {
        self.voting == Voting::Recovering
    }

    pub(super) fn is_arriving(&self) -> bool {
        matches!(self.voting, Voting::Arriving(_))
    }

    /// The first step of a start: to vote at once, or to wait for the others.
    pub(super) fn arrive(&mut self, now: Time, effects: &mut Effects) {
        match self.voting {
            Voting::Voter if self.config.replica_count > 1 => {
                self.voting = Voting::Arriving(Deadline::after(now.monotonic, ARRIVAL_NS));
            }
            Voting::Voter | Voting::Arriving(_) | Voting::Recovering | Voting::Standby => {
                self.begin(now, effects);
            }
        }
    }

    pub(super) fn tick_arrival(&mut self, now: Time, effects: &mut Effects) {
        if let Voting::Arriving(until) = self.voting
            && until.due(now.monotonic)
        {
            self.voting = Voting::Voter;
            self.begin(now, effects);
        }
    }

    pub(super) fn on_welcomed(
        &mut self,
        replica: ReplicaIndex,
        view: View,
        now: Time,
        effects: &mut Effects,
    ) {
        if replica >= self.config.replica_count {
            return;
        }
        self.welcomes[usize::from(replica)] = Some(view);
        match self.voting {
            Voting::Arriving(_) if self.welcomes_from_others() == self.others().count() => {
                self.voting = Voting::Voter;
                self.begin(now, effects);
            }
            Voting::Recovering if self.status == Status::Normal && self.may_vote_again() => {
                self.voting = Voting::Voter;
                self.persist(effects);
            }
            Voting::Arriving(_) | Voting::Recovering | Voting::Voter | Voting::Standby => {}
        }
    }

    fn welcomes_from_others(&self) -> usize {
        let welcomed = |r: &ReplicaIndex| self.welcomes[usize::from(*r)].is_some();
        self.others().filter(welcomed).count()
    }

    /// See the module; the view's log is whole here.
    pub(super) fn may_vote_again(&self) -> bool {
        let count = self.config.replica_count;
        let latest = self.welcomes.iter().flatten().max().copied().unwrap_or(0);
        let welcomes = self.welcomes_from_others();
        let enough = usize::from(count) - quorum::view_change(count) + 1;
        if welcomes == self.others().count() {
            self.view >= latest
        } else {
            welcomes >= enough && self.view > latest
        }
    }

    /// The files of this replica are older than what it has said.
    pub(super) fn on_rolled_back(&mut self, now: Time, effects: &mut Effects) {
        self.welcomes = [None; REPLICAS_MAX];
        if matches!(self.voting, Voting::Recovering | Voting::Standby) {
            return;
        }
        self.voting = Voting::Recovering;
        self.status = Status::Recovering;
        self.forget_view(now);
        self.persist(effects);
    }

    /// What a replica said in a former life counts no more.
    pub(super) fn on_peer_started(&mut self, replica: ReplicaIndex) {
        if replica < self.config.replica_count {
            let index = usize::from(replica);
            self.joins[index] = None;
            self.exit_votes[index] = None;
            self.acknowledged[index] = 0;
        }
    }
}
