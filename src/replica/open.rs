//! Opening a replica: from what a disk holds to a replica that can start.
//!
//! ```text
//!   superblock ──► checkpoint files ──► machine, client table      as of op K
//!        └───────► journal scan ──────► log entries S ..= head     S <= K + 1
//!                                            └─► replayed from K + 1 up to the commit point, after
//!                                                the start, while requests already wait
//! ```
//!
//! What the scan's frames make of the log, and what damage to them means, is `scan`'s to say. Damage
//! does not keep a replica from starting when there are others: they have what it lacks. A single
//! replica that lacks what it had acknowledged does not start.
//!
//! Blocking: both worlds do this before anything else runs. The two lines above do not depend on each
//! other: [`restore`] may run on a thread of its own while [`open`] scans the journal.

use std::collections::VecDeque;

use stampede_journal::device::{ReadAt, WriteAt};
use stampede_journal::{Journal, Recovery};

use super::Replica;
use super::clients::Clients;
use super::executor::{Executor, OPERATION_PULSE, OPERATION_REGISTER};
use super::misfit::Misfits;
use super::peers::Peers;
use super::room::Room;
use super::scan::{Scan, Scanned};
use super::scrub::Scrub;
use super::storage::{Entries, PrepareCheck};
pub(crate) use super::storage::{is_restored, op_of_tag};
use super::superblock::{State, Superblock};
use super::transfer::fetch::Fetcher;
use super::transfer::lend::Lender;
use super::transfer::mend::Mender;
use crate::limits::{INFLIGHT_BYTES_MAX, checkpoint_bytes, reply_bytes_max};
use crate::machine::Machine;
use crate::message::{Op, Pool};
use crate::mutant::Mutant;
use crate::store::{Damage, Manifest, Storage, StoreError};
use crate::vsr::sessions::{DecodeError, Limits, Sessions};
use crate::vsr::{Config, Recovered, Vsr};

/// Timestamps that a pulse uses up: as many events as a full unbatched request.
const PULSE_EVENTS: u32 = 8190;

/// Why a replica cannot be opened. Nothing has been changed on the disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Journal(#[from] stampede_journal::OpenError),
    #[error(
        "the journal is damaged where it held acknowledged operations: {0}. This replica would forget \
         what it has promised, and it has no peers to ask, so it does not start: restore a backup"
    )]
    Corrupt(String),
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] StoreError),
    #[error("checkpoint: {0}")]
    Damaged(#[from] Damage),
    #[error("checkpoint: {0}")]
    Sessions(#[from] DecodeError),
    #[error(
        "the journal begins after op {first}, but the checkpoint ends at op {checkpoint}: entries between are \
         missing; the files are of different times (restored from a backup?): recover this replica"
    )]
    Gap { first: Op, checkpoint: Op },
    #[error(
        "the journal ends at op {head}, before the checkpoint at op {checkpoint}: acknowledged operations are \
         missing; the files are of different times (restored from a backup?): recover this replica"
    )]
    Behind { head: Op, checkpoint: Op },
    #[error(
        "the journal's entry of op {0} is of another history than the checkpoint, or than the entry before it: \
         recover this replica"
    )]
    OtherHistory(Op),
}

impl OpenError {
    /// The checkpoint's files are not what was written.
    fn is_damage(&self) -> bool {
        match self {
            Self::Checkpoint(error) => error.is_damage(),
            Self::Damaged(_) => true,
            Self::Journal(_)
            | Self::Corrupt(_)
            | Self::Sessions(_)
            | Self::Gap { .. }
            | Self::Behind { .. }
            | Self::OtherHistory(_) => false,
        }
    }
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
    /// Why the checkpoint cannot be used, if so: the replica starts without a state, and fetches one.
    pub checkpoint_lost: Option<OpenError>,
}

/// State machine and client table as of the checkpoint.
#[derive(Debug)]
pub struct Restored<M> {
    machine: M,
    sessions: Sessions,
    /// Why they are empty instead, where there are others that have the same checkpoint.
    lost: Option<OpenError>,
}

/// What the checkpoint holds; `empty` where there is none, or one that is damaged and that others have.
///
/// # Errors
/// See [`OpenError`].
pub fn restore<M: Machine>(
    state: &State,
    storage: &dyn Storage,
    empty: impl Fn() -> M,
) -> Result<Restored<M>, OpenError> {
    let nothing = |lost| Restored {
        machine: empty(),
        sessions: no_sessions(state),
        lost,
    };
    match read_checkpoint(state, storage, &empty) {
        Ok(Some((machine, sessions))) => Ok(Restored {
            machine,
            sessions,
            lost: None,
        }),
        Ok(None) => Ok(nothing(None)),
        Err(error) if error.is_damage() && !state.is_alone() => Ok(nothing(Some(error))),
        Err(error) => Err(error),
    }
}

/// Opens a replica whose superblock has been read, with state machine `M`. `life_number` is random:
/// it tells this start from every other. `restored` is asked for when the journal has been scanned.
///
/// # Errors
/// See [`OpenError`].
pub fn open<M: Machine + 'static>(
    state: State,
    life_number: u64,
    restored: impl FnOnce() -> Result<Restored<M>, OpenError>,
    device: &mut (impl ReadAt + WriteAt),
    pool: &Pool,
) -> Result<Opened, OpenError> {
    let mut scan = Scan::default();
    let (journal, recovery) = Journal::open(
        journal_config(&state),
        device,
        &PrepareCheck,
        Some(state.journal_start),
        |entry| scan.visit(&entry),
    )?;
    if state.is_alone() {
        refuse_damage(&recovery)?;
    }
    let Scanned {
        log,
        locations,
        commit,
        unsure_from,
        strays,
    } = scan.finish(&state, &recovery)?;
    if state.is_alone()
        && let Some(op) = log.missing().next()
    {
        let what = format!("the entry of op {op} is gone without a trace");
        return Err(OpenError::Corrupt(what));
    }
    let Restored {
        machine,
        sessions,
        lost: checkpoint_lost,
    } = restored()?;

    let config = Config {
        cluster: state.cluster,
        replica: state.replica,
        replica_count: state.replica_count,
        standby_count: state.standby_count,
        journal_bytes: journal.capacity(),
        checkpoint_bytes: checkpoint_bytes(journal.capacity()),
        operation_register: OPERATION_REGISTER,
        operation_pulse: OPERATION_PULSE,
        is_write: M::is_write,
        pulse_events: PULSE_EVENTS,
    };
    let recovered = Recovered {
        promise: state.promise(),
        checkpoint_op: state.checkpoint_op,
        checkpoint_lost: checkpoint_lost.is_some(),
        sessions,
        pulse_due: machine.due(),
        commit: commit.max(state.commit),
        first_start: state.sequence == 1,
        log,
        unsure_from,
    };
    let base = recovered.log.base();
    let opened_commit = recovered.commit;
    let mut vsr = Vsr::new(config, pool.clone(), recovered);
    vsr.set_machine_full(machine.is_full());
    let replica = Replica {
        vsr,
        entries: Entries::new(journal, state.segment_size, base, locations, strays),
        superblock: Superblock::of_journal(state, recovery.head),
        clients: Clients::new(state.cluster, state.replica, state.member_count()),
        peers: Peers::new(&state),
        misfits: Misfits::new(),
        life_number,
        pool: pool.clone(),
        effects: Vec::with_capacity(256),
        executions: VecDeque::new(),
        reply_size: M::reply_size_max,
        checkpoint_written: None,
        checkpoint_of: None,
        capturing: None,
        checkpoint_bytes: config.checkpoint_bytes,
        executed_bytes: 0,
        pace: None,
        opened_commit,
        room: Room::default(),
        checkpoint_lost: checkpoint_lost.is_some(),
        fetcher: Fetcher::new(state.replica, state.replica_count),
        lender: Lender::default(),
        scrub: Scrub::default(),
        mender: Mender::new(state.replica, state.replica_count),
        installing: false,
        halted: false,
        idle_ticks: 0,
        stopped: false,
    };
    Ok(Opened {
        replica,
        executor: Executor::new(Box::new(machine)),
        recovery,
        checkpoint_lost,
    })
}

/// Alone, there is nobody to ask for what the disk has lost.
fn refuse_damage(recovery: &Recovery) -> Result<(), OpenError> {
    // Damage that hit only the journal's own markers has cost nobody anything.
    let mut lost = recovery.corruptions.iter().filter(|c| c.entries != Some(0));
    let Some(corruption) = lost.next() else {
        return Ok(());
    };
    let more = match lost.count() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Err(OpenError::Corrupt(format!("{corruption}{more}")))
}

fn no_sessions(state: &State) -> Sessions {
    Sessions::new(session_limits(state))
}

/// The client table of the checkpoint.
///
/// # Errors
/// It cannot be read, or is none that a replica would have made by then.
pub fn read_sessions(
    state: &State,
    manifest: &Manifest,
    storage: &dyn Storage,
) -> Result<Sessions, OpenError> {
    let bytes = manifest.sessions(storage)?;
    let sessions = Sessions::decode(&bytes, session_limits(state))?;
    match sessions.newest() {
        Some(op) if op > state.checkpoint_op => {
            Err(DecodeError::Later(op, state.checkpoint_op).into())
        }
        Some(_) | None => Ok(sessions),
    }
}

/// What the checkpoint holds, if there is one.
fn read_checkpoint<M: Machine>(
    state: &State,
    storage: &dyn Storage,
    empty: impl Fn() -> M,
) -> Result<Option<(M, Sessions)>, OpenError> {
    let Some(reference) = state.manifest() else {
        return Ok(None);
    };
    let manifest = Manifest::open(storage, &reference)?;
    let mut sessions = read_sessions(state, &manifest, storage)?;
    if Mutant::LosesSessions.is_on() {
        sessions = no_sessions(state);
    }
    // What is looked at in its place raises what it finds.
    let machine = Damage::catch(|| empty().restore(storage, &manifest.files))??;
    Ok(Some((machine, sessions)))
}
