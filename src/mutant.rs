//! Mistakes made on purpose: does the simulator notice them?
//!
//! A checker that has never found anything proves nothing. So the real code holds known mistakes of
//! replication protocols and of storage, one readable line each, and `tests/mutants.rs` makes them one
//! by one until the simulator has found every one of them:
//!
//! ```text
//!   cargo test --features mutants --test mutants -- --nocapture
//! ```
//!
//! Without the feature `mutants`, which no release has, [`Mutant::is_on`] is the constant `false`, and
//! nothing of this is in the product; with it, `stampede start` refuses to run. A mistake is on for one
//! thread, as one simulation runs on one thread.
//!
//! Knows nothing of the rest of the crate. What each mistake is, and where it is known from, stands here
//! and nowhere else; `docs/testing.md` shows the same table.

macro_rules! mutants {
    ($($name:ident: $what:literal, $source:literal;)+) => {
        /// A mistake; see the module.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $(#[doc = $what] $name,)+
        }

        impl Mutant {
            pub const ALL: &[Self] = &[$(Self::$name),+];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// What the mistake is.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$name => $what,)+
                }
            }

            /// Where it is known from.
            pub const fn source(self) -> &'static str {
                match self {
                    $(Self::$name => $source,)+
                }
            }
        }
    };
}

mutants! {
    // Normal operation.
    AcknowledgesTooEarly: "a backup acknowledges what is not yet on its disk", "VR Revisited §4.1; `fsync` left out";
    CommitsOneShort: "the commit point counts one replica too few", "an off-by-one in counting quorums";
    CommitsThePrepared: "a backup executes what is prepared, not what is committed", "VR Revisited §4.1";
    BelievesCommitEarly: "the primary's commit point is applied to a log that is not yet the view's", "VR Revisited §4.2, state transfer";
    TakesOldPrepares: "prepares of former views are taken without asking whether they belong", "VR Revisited §4.2; delayed messages";
    TimeGoesBack: "cluster time is what the clock says, not more than the operation's before", "a clock that is set back";
    ForgetsTimestamps: "a new primary does not go on from the last timestamp of the log", "a failover to a clock that is behind";
    PrimaryClockAlone: "cluster time follows the primary's clock, whatever the others say", "NTP gone wrong on one machine";
    PipelineWithoutEnd: "the primary prepares without a bound", "queues that grow";
    StandbyCounts: "a standby is counted in a quorum", "members that are taken for voters; Ongaro 2014 §4.2.1";
    // View changes.
    ResumesItsView: "a primary that has restarted goes on in its view", "VR Revisited §4.3";
    LeavesAlone: "a replica leaves its view without the others", "Ongaro 2014 §9.6, pre-vote";
    WishesStay: "a wish to leave the view is never forgotten", "churn after flapping links";
    BeginsAlone: "a view begins when its primary alone has joined it", "two primaries";
    JoinsTooEarly: "a replica joins a view before that is on its disk", "Paxos: a promise must survive a crash";
    LongestLogWins: "the view's log is the longest one, of whatever view", "VR Revisited §4.2; Raft §5.4.1";
    KeepsDeadSuffix: "what lies beyond the log of the new view stays", "VR Revisited §4.2, Raft §5.3";
    LogViewTooEarly: "`log_view` is durable before the log that it vouches for", "decision 3";
    ForgetsLogViewOp: "where the view's log began is not written down", "a field that a change forgot";
    ForgetsInFlight: "a new primary does not know whose requests are in its log", "duplicates after failover, VR Revisited §4.1";
    DeafPrimaryStays: "a primary that hears nobody stays primary", "asymmetric partitions, Cloudflare 2020";
    ForgetsHeartbeats: "an idle primary sends no heartbeats", "churn";
    // Repair and holes.
    AsksOnce: "a repair request that was lost is not repeated", "at-most-once messages taken for reliable ones";
    NeverBeyondReach: "a replica that was away for too long does not notice that", "VR Revisited §5.2";
    AcknowledgesOverHoles: "a backup acknowledges entries above one that its disk has damaged", "Protocol-Aware Recovery §3";
    DamageIsANack: "a damaged entry counts as one that was never there", "Protocol-Aware Recovery §3.4";
    NackQuorumShort: "one nack too few decides that an entry was not committed", "Protocol-Aware Recovery §3.4";
    UnsureIsTrusted: "a log whose end may be lost speaks for its end", "Protocol-Aware Recovery §3.4";
    RestoredCutsOff: "an entry that was restored replaces all that follow it", "a log of another shape";
    // Recovery.
    VotesWhileRecovering: "a replica that has forgotten its promises votes at once", "Michael et al. 2017";
    IgnoresRollback: "an older copy of a replica's files is not noticed", "Michael et al. 2017; restored virtual machines";
    CopiesAtOnce: "all copies of the superblock are written at once", "a double write without an order";
    SameHalfFirst: "the same half of the superblock is always written first", "a double write that trusts what a crash has spoiled";
    KeepsDeadEntries: "a restart believes entries that died in a view change", "a log that is cut in memory only";
    // Sessions.
    ExecutesTwice: "a request that was answered is taken for a new one", "VR Revisited §4.1, client table";
    EvictsTheNewest: "a full client table drops the session that was used last", "an order turned round";
    LosesSessions: "the client table is not restored from a checkpoint", "Ongaro 2014 §6.3, sessions in snapshots";
    LosesReplies: "replies are not restored from a checkpoint", "Ongaro 2014 §6.3, sessions in snapshots";
    OnlyThePrimaryKeepsReplies: "backups keep no replies: they have sent none", "VR Revisited §4.1, client table";
    // Checkpoints.
    StartsTooLate: "a restart begins to read the journal one entry too late", "an off-by-one at the checkpoint";
    SweepsTooEarly: "files of the checkpoint in force are removed while the next is written", "garbage collection before the commit";
    CapturesLate: "what changes while a checkpoint is captured is in it as it is then", "a fuzzy snapshot without copies";
    CheckpointNotSynced: "a checkpoint is referred to before the names of its files are durable", "Pillai et al. 2014, directories not synced";
    // State transfer.
    TransferNotSynced: "a fetched checkpoint is referred to before the names of its files are durable", "Pillai et al. 2014";
    TransferNotVerified: "blocks of a checkpoint are written without a look at their checksums", "damage that spreads";
}

impl Mutant {
    /// Whether this mistake is to be made.
    #[cfg(not(feature = "mutants"))]
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        false
    }
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    impl Mutant {
        /// Whether this mistake is to be made.
        pub fn is_on(self) -> bool {
            ON.get() == Some(self)
        }

        /// Makes this thread make one mistake, or none.
        pub fn switch(mutant: Option<Self>) {
            ON.set(mutant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_documentation_is_this_one() {
        let rows = include_str!("../docs/testing.md")
            .lines()
            .skip_while(|line| !line.starts_with("| mutant |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        let documented: Vec<&str> = rows.collect();
        assert_eq!(documented.len(), Mutant::ALL.len());
        for (row, mutant) in documented.iter().zip(Mutant::ALL) {
            let (name, what, source) = (mutant.name(), mutant.what(), mutant.source());
            let begins = format!("| `{name}` | {what} | {source} |");
            assert!(
                row.starts_with(&begins),
                "{row}\nshould begin with\n{begins}"
            );
        }
    }
}
