//! The drills that there are: name, what is done, how often, and what is aimed at.

use std::fmt::Write;

use crate::scenario;
use crate::scene::Scene;
use crate::trouble::Trouble;

/// Mebibytes. The smallest journal: checkpoints come often, and a replica is soon beyond its reach.
const SMALL: u64 = 64;
const MEDIUM: u64 = 256;

/// What a replica does unless told otherwise.
const SCRUB: u64 = 8;

/// Sessions for guests: few, so that a drill can push all of them out.
const SEATS: u32 = 16;

#[derive(Debug)]
pub(crate) struct Drill {
    pub(crate) name: &'static str,
    /// What is done and what must hold, in one line.
    pub(crate) summary: &'static str,
    pub(crate) play: fn(&mut Scene) -> Result<(), Trouble>,
    /// How often the fault is repeated, unless the command line says otherwise.
    pub(crate) runs: u32,
    pub(crate) journal_mebibytes: u64,
    /// How fast checkpoint files are read and verified, per second.
    pub(crate) scrub_mebibytes: u64,
    /// Sessions beside those of the load; there are more clients that want one.
    pub(crate) seats: Option<u32>,
    /// Milliseconds: the longest gap without an acknowledgement (p99 over the runs), and the time to recover.
    pub(crate) gap_ms: Option<f64>,
    pub(crate) recovery_ms: Option<f64>,
}

const fn drill(
    name: &'static str,
    summary: &'static str,
    play: fn(&mut Scene) -> Result<(), Trouble>,
) -> Drill {
    Drill {
        name,
        summary,
        play,
        runs: 1,
        journal_mebibytes: MEDIUM,
        scrub_mebibytes: SCRUB,
        seats: None,
        gap_ms: None,
        recovery_ms: None,
    }
}

pub(crate) const ALL: &[Drill] = &[
    drill(
        "normal",
        "nothing is done: load alone, for comparison",
        scenario::normal,
    ),
    Drill {
        runs: 5,
        gap_ms: Some(200.0),
        ..drill(
            "primary-crash",
            "kill -9 of the primary: another one takes over",
            scenario::primary_crash,
        )
    },
    Drill {
        runs: 5,
        gap_ms: Some(25.0),
        ..drill(
            "backup-crash",
            "kill -9 of a backup: nobody notices",
            scenario::backup_crash,
        )
    },
    Drill {
        runs: 5,
        gap_ms: Some(400.0),
        ..drill(
            "primary-pause",
            "SIGSTOP of the primary, SIGCONT later: it does not answer as primary",
            scenario::primary_pause,
        )
    },
    drill(
        "cascade",
        "kill -9 of one primary after the other: service stops without a majority and resumes with one",
        scenario::cascade,
    ),
    Drill {
        seats: Some(SEATS),
        ..drill(
            "sessions",
            "more clients than sessions: the oldest are evicted, told so and back, also when the primary is killed",
            scenario::sessions,
        )
    },
    drill(
        "rejoin",
        "a backup was away: it catches up while the others serve, and counts again",
        scenario::rejoin,
    ),
    Drill {
        journal_mebibytes: SMALL,
        ..drill(
            "lagging-backup",
            "a backup was away for longer than the journals reach: it fetches a checkpoint while the others serve",
            scenario::lagging_backup,
        )
    },
    drill(
        "lost-disk",
        "the directory of a backup is removed: recover makes a new one, which has no vote until it is up to date",
        scenario::lost_disk,
    ),
    drill(
        "corrupt-journal",
        "bits flip in the journal of one replica, then in different entries on each: they heal each other",
        scenario::corrupt_journal,
    ),
    Drill {
        journal_mebibytes: SMALL,
        scrub_mebibytes: 64,
        ..drill(
            "damaged-segment",
            "bits flip in checkpoint files of running replicas, in another file on each: the scrub finds and mends them",
            scenario::damaged_segment,
        )
    },
    drill(
        "rollback",
        "the directory of a backup is set back to an older copy: the others notice and bring it up to date",
        scenario::rollback,
    ),
    Drill {
        runs: 5,
        recovery_ms: Some(1000.0),
        ..drill(
            "power-loss",
            "kill -9 of all replicas at once: they come back from their disks",
            scenario::power_loss,
        )
    },
    drill(
        "partition",
        "links are cut: one primary off, one deaf, a backup deaf, all from each other",
        scenario::partition,
    ),
    drill(
        "slow-disk",
        "the disk of a backup becomes a hundred times slower: nobody waits for it",
        scenario::slow_disk,
    ),
    Drill {
        journal_mebibytes: SMALL,
        ..drill(
            "disk-full",
            "full disks: of one replica, the others go on; of all, reads are served and writes resume with room",
            scenario::disk_full,
        )
    },
];

/// The drills of these names, in the order given.
pub(crate) fn select(names: &[String]) -> Result<Vec<&'static Drill>, String> {
    let mut drills = Vec::new();
    for name in names {
        if name == "all" {
            drills.extend(ALL);
            continue;
        }
        let found = ALL.iter().find(|drill| drill.name == *name);
        let known: Vec<&str> = ALL.iter().map(|drill| drill.name).collect();
        drills.push(found.ok_or_else(|| {
            format!(
                "there is no drill `{name}`; there are all, {}",
                known.join(", ")
            )
        })?);
    }
    Ok(drills)
}

/// What `drill list` prints.
pub(crate) fn text() -> String {
    let mut text = String::new();
    for drill in ALL {
        writeln!(text, "{:<16} {}", drill.name, drill.summary).expect("a string can be written");
    }
    text
}
