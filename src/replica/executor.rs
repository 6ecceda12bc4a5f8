//! The executor: applies committed prepares in order and builds the bodies of replies.
//!
//! It owns the state machine. It runs on a thread of its own in production and in place in the
//! simulator; it sees tasks in log order and nothing else, so every replica computes the same.
//! Operations below 128 belong to the replica, not to the machine: a register is answered here, so
//! that it takes its place in the order.
//!
//! An operation that meets damage in a file has no result, and leaves the machine half changed. Nothing is
//! executed any more from then on; every task is answered with the damage, until the replica is opened again.

use std::fmt;
use std::sync::Arc;

use super::pace::{Pace, PacedStorage};
use crate::limits::BODY_SIZE_MAX;
use crate::machine::{Machine, Snapshot};
use crate::message::{Message, MessageMut, Op};
use crate::store::{
    Damage, FileKind, FileName, ManifestRef, Storage, StoreError, sweep, write_checkpoint,
};
use crate::vsr::sessions::Sessions;

/// Operations of the replica itself. The machine's begin at [`OPERATION_MACHINE_MIN`].
pub const OPERATION_REGISTER: u8 = 2;
pub const OPERATION_NOOP: u8 = 6;
/// Time alone makes work: expiries. Made by the primary, never by a client.
pub const OPERATION_PULSE: u8 = 128;
pub const OPERATION_MACHINE_MIN: u8 = 128;

/// The body of a register's reply: the largest request body, then zeros.
pub const REGISTER_REPLY_SIZE: usize = 64;

/// What a checkpoint takes beside the rows that its snapshot counts: checksums, ends of files.
const ROOM_BESIDE: u64 = 1 << 20;

/// Work for the executor.
#[derive(Debug)]
pub enum Task {
    /// Apply `prepare`; write the reply's body into `reply`; begin to capture a checkpoint after it.
    Apply {
        prepare: Message,
        reply: MessageMut,
        checkpoint: bool,
    },
    /// Go on with capturing the checkpoint of `op`.
    Capture { op: Op },
    /// The checkpoint of `op` is durable and referenced: memory that its files hold may go.
    Published { op: Op },
}

/// A task that has been done, or given up.
pub struct Done {
    /// Of the prepare, or of the checkpoint.
    pub op: Op,
    pub result: Result<Outcome, Damage>,
}

/// What came of a task.
#[derive(Debug)]
pub enum Outcome {
    Applied(Applied),
    /// Some of the state has been captured: whether that was the last of it.
    Captured {
        complete: bool,
    },
}

/// What came of a prepare.
pub struct Applied {
    /// The body's size is set; the header is not yet filled in.
    pub reply: MessageMut,
    /// Cluster time at which a pulse will have work, or `u64::MAX`.
    pub pulse_due: u64,
    /// See [`Machine::is_full`].
    pub full: bool,
    /// What is to be captured from here on.
    pub snapshot: Option<Box<dyn Snapshot>>,
}

impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checkpoint {}", self.snapshot.is_some())
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(Outcome::Applied(applied)) => write!(f, "done op {} {applied:?}", self.op),
            Ok(Outcome::Captured { complete }) => {
                write!(f, "captured op {} complete {complete}", self.op)
            }
            Err(damage) => write!(f, "not done op {}: {damage}", self.op),
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "executor, pulse due {}", self.machine.due())
    }
}

/// The state machine and the rules around it.
pub struct Executor {
    machine: Box<dyn Machine>,
    /// What it met; the machine is of no use any more.
    damage: Option<Damage>,
}

impl Executor {
    pub fn new(machine: Box<dyn Machine>) -> Self {
        Self {
            machine,
            damage: None,
        }
    }

    /// For a thread that has nothing to do; see [`Machine::prepare`].
    pub fn prepare(&self) -> Option<Box<dyn FnMut() + Send>> {
        self.machine.prepare()
    }

    /// For checkers: of the machine's state; `None` if what it takes is damaged.
    pub fn digest(&self) -> Option<u128> {
        let digest = || Damage::catch(|| self.machine.digest()).ok();
        self.damage.is_none().then(digest).flatten()
    }

    /// Runs one task. `None` for tasks without an answer.
    pub fn run(&mut self, task: Task) -> Option<Done> {
        let op = match &task {
            Task::Apply { prepare, .. } => Some(prepare.header().op),
            Task::Capture { op } => Some(*op),
            Task::Published { .. } => None,
        };
        let result = match &self.damage {
            None => Damage::catch(|| self.run_sound(task)),
            Some(damage) => Err(damage.clone()),
        };
        if let Err(damage) = &result {
            self.damage = Some(damage.clone());
        }
        let result = result.transpose()?;
        op.map(|op| Done { op, result })
    }

    fn run_sound(&mut self, task: Task) -> Option<Outcome> {
        match task {
            Task::Apply {
                prepare,
                mut reply,
                checkpoint,
            } => {
                let size = self.apply(&prepare, &mut reply);
                reply.set_body_size(size);
                let op = prepare.header().op;
                let snapshot = checkpoint.then(|| self.machine.snapshot(op));
                Some(Outcome::Applied(Applied {
                    reply,
                    pulse_due: self.machine.due(),
                    full: self.machine.is_full(),
                    snapshot,
                }))
            }
            Task::Capture { .. } => Some(Outcome::Captured {
                complete: self.machine.capture(),
            }),
            Task::Published { op } => {
                self.machine.published(op);
                None
            }
        }
    }

    fn apply(&mut self, prepare: &Message, reply: &mut MessageMut) -> usize {
        let header = prepare.header();
        match header.operation {
            OPERATION_REGISTER => {
                let body = reply.body_mut_of_size(REGISTER_REPLY_SIZE);
                body.fill(0);
                let limit = u32::try_from(BODY_SIZE_MAX).expect("a mebibyte");
                body[..4].copy_from_slice(&limit.to_le_bytes());
                REGISTER_REPLY_SIZE
            }
            operation if operation >= OPERATION_MACHINE_MIN => {
                let capacity = reply.body_capacity().min(BODY_SIZE_MAX);
                let output = reply.body_mut_of_size(capacity);
                self.machine.apply(
                    header.op,
                    operation,
                    header.timestamp,
                    prepare.body(),
                    output,
                )
            }
            _ => 0,
        }
    }
}

/// A checkpoint to be written by the builder.
pub struct CheckpointTask {
    pub op: Op,
    pub snapshot: Box<dyn Snapshot>,
    /// As of `op`.
    pub sessions: ClientTable,
    /// The checkpoint in force and those that are lent, whose files stay; all other files go. `None`:
    /// none go this time.
    pub keep: Option<Vec<ManifestRef>>,
    pub pace: Arc<Pace>,
}

/// The client table as of a checkpoint. With large replies it has tens of mebibytes: the builder encodes
/// it, and lets go of the replies.
#[derive(Debug)]
pub enum ClientTable {
    Captured(Sessions),
    Encoded(Vec<u8>),
}

impl ClientTable {
    pub fn encoded_size(&self) -> usize {
        match self {
            Self::Captured(sessions) => sessions.encoded_size(),
            Self::Encoded(bytes) => bytes.len(),
        }
    }

    fn encoded(&mut self) -> &[u8] {
        if let Self::Captured(sessions) = self {
            *self = Self::Encoded(sessions.encode());
        }
        match self {
            Self::Encoded(bytes) => bytes,
            Self::Captured(_) => unreachable!("it has just been encoded"),
        }
    }
}

/// A checkpoint that was written (its files are durable, nothing refers to them yet) or was not.
#[derive(Debug)]
pub struct CheckpointDone {
    pub op: Op,
    pub result: Result<ManifestRef, Unwritten>,
}

/// Why there is no checkpoint.
#[derive(Debug)]
pub enum Unwritten {
    /// The disk has no room for it; what was written has been removed. To be tried again.
    Full {
        task: Box<CheckpointTask>,
        disk: FullDisk,
    },
    Failed(String),
}

/// A disk that has no room for a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FullDisk {
    /// About so many bytes will be written, and so many fit.
    pub needed: u64,
    pub room: u64,
}

impl fmt::Debug for CheckpointTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "checkpoint op {} sessions {} B",
            self.op,
            self.sessions.encoded_size()
        )
    }
}

impl CheckpointTask {
    /// Writes the checkpoint's files. Blocking: for the builder's thread; `pause` lets about a
    /// millisecond go by.
    ///
    /// A full disk is found before anything is written, or in the middle when somebody else was
    /// faster. Either way all room is given back.
    pub fn write(mut self, storage: &mut dyn Storage, pause: fn()) -> CheckpointDone {
        let op = self.op;
        let mut storage = PacedStorage::new(storage, Arc::clone(&self.pace), pause);
        // What was just written is read again, to see that it is there.
        let result = match Damage::catch(|| self.try_write(&mut storage)) {
            Ok(Ok(Ok(manifest))) => Ok(manifest),
            Ok(Ok(Err(disk))) => {
                let task = Box::new(self);
                Err(Unwritten::Full { task, disk })
            }
            Ok(Err(error)) => Err(Unwritten::Failed(error.to_string())),
            Err(damage) => Err(Unwritten::Failed(damage.to_string())),
        };
        CheckpointDone { op, result }
    }

    fn try_write(
        &mut self,
        storage: &mut dyn Storage,
    ) -> Result<Result<ManifestRef, FullDisk>, StoreError> {
        let needed = self.snapshot.size() + self.sessions.encoded_size() as u64 + ROOM_BESIDE;
        self.sweep(storage)?;
        let room = room_in(storage, self.op)?;
        if room < needed {
            return Ok(Err(FullDisk { needed, room }));
        }
        let sessions = self.sessions.encoded();
        match write_checkpoint(storage, self.op, &mut *self.snapshot, sessions) {
            Err(error) if error.is_full() => {
                self.snapshot.discard();
                self.sweep(storage)?;
                let room = room_in(storage, self.op)?;
                Ok(Err(FullDisk { needed, room }))
            }
            result => result.map(Ok),
        }
    }

    fn sweep(&self, storage: &mut dyn Storage) -> Result<(), StoreError> {
        let Some(keep) = &self.keep else {
            return Ok(());
        };
        match sweep(storage, keep) {
            // What a damaged manifest lists is not known before it is mended, or not in force any more: all
            // files stay until then.
            Err(StoreError::Damaged { .. }) => Ok(()),
            result => result.map(drop),
        }
    }
}

fn room_in(storage: &dyn Storage, op: Op) -> Result<u64, StoreError> {
    let name = FileName::new(FileKind::Manifest, op);
    storage
        .room()
        .map_err(|error| StoreError::io("look for room for", name, error))
}
