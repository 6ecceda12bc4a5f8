//! Opening a replica: from what a disk holds to a replica that can start.
//!
//! ```text
//!   superblock ──► checkpoint files ──► machine, client table      as of op K
//!        └───────► journal scan ──────► log entries S ..= head     S <= K + 1
//!                                            └─► replayed from K + 1 up to the commit point, after
//!                                                the start, while requests already wait
//! ```
//!
//! A scan reports frames in the order in which they were written. A frame with an operation that is
//! there already replaces the log from there on. Entries beyond the point where the last view began
//! must be of that view: others died in the view change, and only their replacements' absence keeps
//! them on the disk.
//!
//! Blocking: both worlds do this before anything else runs.

use std::collections::VecDeque;

use stampede_journal::device::{ReadAt, WriteAt};
use stampede_journal::{Journal, Location, Recovery};

use super::Replica;
use super::clients::Clients;
use super::executor::{Executor, OPERATION_PULSE, OPERATION_REGISTER};
use super::peers::Peers;
use super::storage::{Entries, PrepareCheck, split};
use super::superblock::{State, Superblock};
use crate::limits::{CHECKPOINT_JOURNAL_SHARE, INFLIGHT_BYTES_MAX, reply_bytes_max};
use crate::machine::Machine;
use crate::message::{Op, Pool, View};
use crate::store::{Manifest, Storage, StoreError};
use crate::vsr::sessions::{DecodeError, Limits, Sessions};
use crate::vsr::{Config, Entry, Log, Recovered, Vsr};

/// Timestamps that a pulse uses up: as many events as a full unbatched request.
const PULSE_EVENTS: u32 = 8190;

/// Why a replica cannot be opened. Nothing has been changed on the disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Journal(#[from] stampede_journal::OpenError),
    #[error(
        "the journal is damaged where it held acknowledged operations: {0}. This replica would forget \
         what it has promised, so it does not start. With other replicas: move the directory away and \
         recover this replica from them; alone: restore a backup"
    )]
    Corrupt(String),
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] StoreError),
    #[error("checkpoint: {0}")]
    Sessions(#[from] DecodeError),
    #[error(
        "the journal begins after op {first}, but the checkpoint ends at op {checkpoint}: entries between are \
         missing; the files are of different times (restored from a backup?)"
    )]
    Gap { first: Op, checkpoint: Op },
    #[error(
        "the journal ends at op {head}, before the checkpoint at op {checkpoint}: acknowledged operations are \
         missing; the files are of different times (restored from a backup?)"
    )]
    Behind { head: Op, checkpoint: Op },
    #[error("the journal's entry of op {0} is not the one that the checkpoint was taken after")]
    OtherHistory(Op),
}

/// The journal's configuration, as the superblock has it.
pub fn journal_config(state: &State) -> stampede_journal::Config {
    stampede_journal::Config {
        id: state.journal_id,
        segment_size: state.segment_size,
        segment_count: state.segment_count,
        inflight_bytes_max: INFLIGHT_BYTES_MAX
            .min(state.segment_size * u64::from(state.segment_count.saturating_sub(1))),
    }
}

/// What the client table holds; equal on all replicas, as what it is made of.
pub fn session_limits(state: &State) -> Limits {
    let reply_bytes = reply_bytes_max(state.segment_size * u64::from(state.segment_count));
    Limits {
        sessions: state.sessions_max as usize,
        reply_bytes: usize::try_from(reply_bytes).expect("at most REPLY_BYTES_MAX"),
    }
}

/// A replica that is ready to start, its executor, and what the scan found.
#[derive(Debug)]
pub struct Opened {
    pub replica: Replica,
    pub executor: Executor,
    pub recovery: Recovery,
}

/// Opens a replica whose superblock has been read, with state machine `M`. `life_number` is random:
/// it tells this start from every other.
///
/// # Errors
/// See [`OpenError`].
pub fn open<M: Machine + 'static>(
    state: State,
    life_number: u64,
    empty: impl FnOnce() -> M,
    device: &mut (impl ReadAt + WriteAt),
    storage: &dyn Storage,
    pool: &Pool,
) -> Result<Opened, OpenError> {
    let (machine, sessions) = restore(&state, empty, storage)?;
    let mut scan = Scan::default();
    let (journal, recovery) = Journal::open(
        journal_config(&state),
        device,
        &PrepareCheck,
        Some(state.journal_start),
        |entry| scan.visit(entry.location, entry.payload),
    )?;
    // Damage that hit only the journal's own markers has cost nobody anything.
    let lost: Vec<_> = recovery
        .corruptions
        .iter()
        .filter(|c| c.entries != Some(0))
        .collect();
    if let Some(corruption) = lost.first() {
        let more = match lost.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        return Err(OpenError::Corrupt(format!("{corruption}{more}")));
    }
    let (log, locations, commit) = scan.finish(&state)?;

    let config = Config {
        cluster: state.cluster,
        replica: state.replica,
        replica_count: state.replica_count,
        standby_count: state.standby_count,
        checkpoint_bytes: journal.capacity() / CHECKPOINT_JOURNAL_SHARE,
        operation_register: OPERATION_REGISTER,
        operation_pulse: OPERATION_PULSE,
        pulse_events: PULSE_EVENTS,
    };
    let recovered = Recovered {
        promise: state.promise(),
        checkpoint_op: state.checkpoint_op,
        sessions,
        pulse_due: machine.due(),
        commit: commit.max(state.commit),
        first_start: state.sequence == 1,
        log,
    };
    let base = recovered.log.base();
    let replica = Replica {
        vsr: Vsr::new(config, pool.clone(), recovered),
        entries: Entries::new(journal, state.segment_size, base, locations),
        superblock: Superblock::new(state),
        clients: Clients::new(state.cluster, state.replica, state.member_count()),
        peers: Peers::new(&state),
        life_number,
        pool: pool.clone(),
        effects: Vec::with_capacity(256),
        executions: VecDeque::new(),
        reply_size: M::reply_size_max,
        checkpoint_written: None,
        checkpoint_of: None,
        checkpoint_bytes: config.checkpoint_bytes,
        pace: None,
        idle_ticks: 0,
        stopped: false,
    };
    Ok(Opened {
        replica,
        executor: Executor::new(Box::new(machine)),
        recovery,
    })
}

fn restore<M: Machine>(
    state: &State,
    empty: impl FnOnce() -> M,
    storage: &dyn Storage,
) -> Result<(M, Sessions), OpenError> {
    let limits = session_limits(state);
    let Some(reference) = state.manifest() else {
        return Ok((empty(), Sessions::new(limits)));
    };
    let manifest = Manifest::open(storage, &reference)?;
    let sessions = manifest.sessions(storage)?;
    let sessions = Sessions::decode(&sessions, limits)?;
    Ok((M::restore(storage, &manifest.files)?, sessions))
}

/// The log as a scan finds it.
#[derive(Debug, Default)]
struct Scan {
    first: Op,
    first_parent: u128,
    entries: VecDeque<Found>,
}

#[derive(Debug)]
struct Found {
    entry: Entry,
    location: Location,
    parent: u128,
    view: View,
    commit: Op,
}

impl Scan {
    fn visit(&mut self, location: Location, payload: &[u8]) {
        let (header, _) = split(payload).expect("the check has read it as a prepare");
        if self.entries.is_empty() || header.op < self.first {
            self.entries.clear();
            self.first = header.op;
            self.first_parent = header.parent;
        }
        let keep = usize::try_from(header.op - self.first).unwrap_or(usize::MAX);
        self.entries.truncate(keep);
        self.entries.push_back(Found {
            entry: Entry::of(&header),
            location,
            parent: header.parent,
            view: header.view,
            commit: header.commit,
        });
    }

    /// The log that is in force, where its entries lie, and the commit point that they know of.
    fn finish(mut self, state: &State) -> Result<(Log, VecDeque<Location>, Op), OpenError> {
        let checkpoint = state.checkpoint_op;
        if self.entries.is_empty() {
            // Nothing after the checkpoint. (What the journal lost it has reported.)
            let (checksum, timestamp) = (state.checkpoint_checksum, state.checkpoint_timestamp);
            return Ok((
                Log::new(checkpoint, checksum, timestamp),
                VecDeque::new(),
                0,
            ));
        }
        if self.first > checkpoint + 1 {
            return Err(OpenError::Gap {
                first: self.first - 1,
                checkpoint,
            });
        }
        self.drop_what_died(state);
        let base = self.first - 1;
        let head = base + self.entries.len() as u64;
        if head < checkpoint {
            return Err(OpenError::Behind { head, checkpoint });
        }
        let base_timestamp = if base == checkpoint {
            state.checkpoint_timestamp
        } else {
            0
        };
        let mut log = Log::new(base, self.first_parent, base_timestamp);
        let mut locations = VecDeque::with_capacity(self.entries.len());
        let mut commit = 0;
        for found in self.entries {
            // Whole frames that do not continue the chain cannot come from this replica's writes.
            if found.parent != log.head_checksum() {
                return Err(OpenError::OtherHistory(log.head() + 1));
            }
            commit = commit.max(found.commit);
            log.push(found.entry);
            locations.push_back(found.location);
        }
        if log.checksum(checkpoint) != Some(state.checkpoint_checksum) {
            return Err(OpenError::OtherHistory(checkpoint));
        }
        Ok((log, locations, commit))
    }

    fn drop_what_died(&mut self, state: &State) {
        let first = self.first;
        let died = (first..)
            .zip(&self.entries)
            .find(|(op, found)| *op > state.log_view_op && found.view < state.log_view);
        if let Some((op, _)) = died {
            let keep = usize::try_from(op - first).expect("an index");
            self.entries.truncate(keep);
        }
    }
}
