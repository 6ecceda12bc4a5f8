//! An image of a replica: the checkpoint in force and the committed log after it, as of one operation.
//!
//! ```text
//!   superblock ──► checkpoint K ───────────────► machine as of K ─┐
//!        └───────► journal: prepares K+1 ..= C ──────────────────►├──► machine as of C
//!                  each under its own checksum, chained from K    ┘
//! ```
//!
//! Nothing here is of a quorum: what one replica has on its disk as committed is committed everywhere. The
//! disk may be that of a running replica. What it writes meanwhile is not missed: an entry that has been
//! written over does not verify, and the image is begun again with the newer superblock.

use std::collections::BTreeMap;

use stampede_journal::device::ReadAt;
use stampede_journal::scan;

use super::executor::OPERATION_MACHINE_MIN;
use super::open::{OpenError, journal_config};
use super::scan::Scan;
use super::storage::{PrepareCheck, split};
use super::superblock::State;
use crate::limits::BODY_SIZE_MAX;
use crate::machine::Machine;
use crate::message::{Command, Header, Op};
use crate::store::Damage;

/// Why an image cannot be made, or is none.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the journal was written over while it was read")]
    Overtaken,
    #[error("the entry of op {0} is not what it was")]
    Damaged(Op),
    #[error("the entry of op {0} is missing")]
    Missing(Op),
    #[error("the entry of op {0} does not continue the one before it")]
    OtherHistory(Op),
    #[error("the entry of op {0} is nothing that a replica would have executed")]
    Inadmissible(Op),
    #[error(transparent)]
    Unreadable(#[from] Damage),
}

/// The committed prepares after the checkpoint that a journal holds without a gap: hands each to `take`,
/// header and body, in the order in which they lie there, and gives the last operation.
///
/// # Errors
/// See [`ImageError`]; what was taken until then is of no use.
pub fn committed<E: From<ImageError>>(
    state: &State,
    device: &mut impl ReadAt,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Op, E> {
    let config = journal_config(state);
    let start = Some(state.journal_start);
    let opened = |error| ImageError::Open(OpenError::Journal(error));
    let mut found = Scan::default();
    let recovery = scan::scan(config, device, &PrepareCheck, start, |entry| {
        found.visit(&entry)
    })
    .map_err(opened)?;
    let scanned = found.finish(state, &recovery).map_err(ImageError::Open)?;
    let base = scanned.log.base();
    // Alone, what is on disk is on a quorum.
    let commit = if state.is_alone() {
        scanned.log.head()
    } else {
        scanned.commit.max(state.commit)
    };
    let mut wanted = BTreeMap::new();
    let mut last = state.checkpoint_op;
    for (op, location) in (base + 1..).zip(&scanned.locations) {
        if op <= state.checkpoint_op {
            continue;
        }
        let Some(location) = location.filter(|_| op <= commit) else {
            break;
        };
        wanted.insert(location.position, op);
        last = op;
    }
    let mut result = Ok(());
    let mut taken = 0;
    scan::scan(config, device, &PrepareCheck, start, |entry| {
        let op = wanted.get(&entry.location.position);
        let is_it = split(entry.payload).is_some_and(|(header, _)| Some(&header.op) == op);
        if result.is_ok() && is_it {
            taken += 1;
            result = take(entry.payload);
        }
    })
    .map_err(opened)?;
    result?;
    if taken == wanted.len() {
        Ok(last)
    } else {
        Err(ImageError::Overtaken.into())
    }
}

/// One prepare of an image, verified by itself.
///
/// # Errors
/// `op` is only for the message: that of the entry before.
pub fn verify(payload: &[u8], op: Op) -> Result<Header, ImageError> {
    let damaged = || ImageError::Damaged(op + 1);
    let (header, body) = split(payload).ok_or_else(damaged)?;
    if header.verify() != Ok(Command::Prepare) || header.verify_body(body).is_err() {
        return Err(damaged());
    }
    Ok(header)
}

/// A machine as of its checkpoint, to be brought to the end of an image's log.
#[derive(Debug)]
pub struct Replay<M> {
    pub machine: M,
    pub op: Op,
    pub timestamp: u64,
    parent: u128,
    reply: Vec<u8>,
}

impl<M: Machine> Replay<M> {
    /// From the state that the image's superblock describes.
    pub fn new(state: &State, machine: M) -> Self {
        Self {
            machine,
            op: state.checkpoint_op,
            timestamp: state.checkpoint_timestamp,
            parent: state.checkpoint_checksum,
            reply: vec![0; BODY_SIZE_MAX],
        }
    }

    /// Applies the next prepare.
    ///
    /// # Errors
    /// It is not the next one, or none that a replica executes.
    pub fn apply(&mut self, payload: &[u8]) -> Result<(), ImageError> {
        let header = verify(payload, self.op)?;
        if header.op != self.op + 1 {
            return Err(ImageError::Missing(self.op + 1));
        }
        if header.parent != self.parent {
            return Err(ImageError::OtherHistory(header.op));
        }
        if header.operation >= OPERATION_MACHINE_MIN {
            let (_, body) = split(payload).ok_or(ImageError::Damaged(header.op))?;
            // Checksums tell what has changed by accident, not what was never right.
            if !M::admits(header.operation, self.timestamp, header.timestamp, body) {
                return Err(ImageError::Inadmissible(header.op));
            }
            self.machine.apply(
                header.op,
                header.operation,
                header.timestamp,
                body,
                &mut self.reply,
            );
        }
        self.op = header.op;
        self.timestamp = header.timestamp;
        self.parent = header.checksum;
        Ok(())
    }
}

impl State {
    /// A new replica that begins with a checkpoint of another cluster. Equal for all replicas of the new one,
    /// so that they agree on what the log goes on from.
    pub fn begin_with(&mut self, op: Op, timestamp: u64, manifest: crate::store::ManifestRef) {
        let mut root = [0; 48];
        root[..16].copy_from_slice(&crate::vsr::root_checksum(self.cluster).to_le_bytes());
        root[16..32].copy_from_slice(&manifest.checksum.to_le_bytes());
        root[32..40].copy_from_slice(&op.to_le_bytes());
        let checksum = crate::message::checksum(&root);
        self.checkpoint_op = op;
        self.checkpoint_checksum = checksum;
        self.checkpoint_timestamp = timestamp;
        self.manifest_size = manifest.size;
        self.manifest_data_size = manifest.data_size;
        self.manifest_checksum = manifest.checksum;
        self.commit = op;
        self.log_view_op = op;
        (self.sound_op, self.sound_position, self.sound_checksum) = (op, 0, checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::ledger::Ledger;
    use crate::message::{Pool, PoolConfig};
    use stampede_client::wire::operation::Operation;
    use zerocopy::IntoBytes;

    /// The prepare of the first operation of a log that begins at time 1000.
    fn prepare(operation: u8, timestamp: u64, body: &[u8]) -> Vec<u8> {
        let pool = Pool::new(&PoolConfig {
            small: 1,
            medium: 0,
            large: 0,
            huge_pages: false,
        });
        let mut prepare = pool.unwrap().acquire(body.len()).unwrap();
        let mut header = Header::new(Command::Prepare, 0, 0, 0);
        (header.op, header.operation, header.timestamp) = (1, operation, timestamp);
        prepare.fill(header, body);
        [prepare.header().as_bytes(), body].concat()
    }

    #[test]
    fn what_no_replica_would_have_executed_is_named_not_executed() {
        const TRANSFERS: u8 = Operation::CreateTransfersUnbatched.code();
        const PULSE: u8 = Operation::Pulse.code();
        let mut replay = Replay {
            machine: Ledger::default(),
            op: 0,
            timestamp: 1000,
            parent: 0,
            reply: vec![0; BODY_SIZE_MAX],
        };
        let transfers = [1; 2 * 128];
        for (operation, timestamp, body) in [
            (TRANSFERS, 1002, &transfers[..]),
            (TRANSFERS, 999, &transfers[..]),
            (TRANSFERS, u64::MAX, &transfers[..]),
            (TRANSFERS, 2000, &transfers[1..]),
            (PULSE, 2000, &[]),
            (PULSE, 1 << 40, &transfers[..]),
            (200, 2000, &[]),
        ] {
            let result = replay.apply(&prepare(operation, timestamp, body));
            let refused = matches!(result, Err(ImageError::Inadmissible(1)));
            assert!(refused, "{operation} at {timestamp}: {result:?}");
        }
        let result = replay.apply(&prepare(TRANSFERS, 1003, &transfers));
        assert!(result.is_ok(), "{result:?}");
        assert_eq!((replay.op, replay.timestamp), (1, 1003));
    }
}
