//! A driver that journals what it receives and sends it back, an executor that copies, a builder that
//! pretends. What is done with a message is in its header's `operation`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stampede_journal::WriteOp;

use super::super::*;
use crate::limits::{BODY_SIZE_MAX, HEADER_SIZE, HEADROOM_SIZE, SECTOR_SIZE, SEND_QUEUE_MAX};
use crate::message::{Command, Header, Message, Pool};
use crate::replica::executor::{
    Applied, CheckpointDone, CheckpointTask, ClientTable, Done, Outcome, Task,
};
use crate::replica::io::{ConnectionId, Sector};
use crate::store::{FileEntry, ManifestRef, Snapshot, Storage, StoreError};
use crate::vsr::sessions::{Limits, Sessions};

/// Journal, and answer when that is durable.
pub(super) const ECHO: u8 = 0;
/// Answer through the executor; quick.
pub(super) const EXECUTE: u8 = 1;
/// Answer through the executor; slow.
pub(super) const EXECUTE_SLOWLY: u8 = 2;
/// Keep the buffer until some ticks have passed, then answer.
pub(super) const HOLD: u8 = 3;
/// Answer, then close.
pub(super) const CLOSE: u8 = 4;
/// Answer when the builder has written a checkpoint.
pub(super) const CHECKPOINT: u8 = 5;
/// Journal, read back, answer with what was read.
pub(super) const READ_BACK: u8 = 6;
/// Answer this message a thousand times.
pub(super) const FLOOD: u8 = 7;
/// Write a superblock copy, then answer.
pub(super) const SUPERBLOCK: u8 = 8;

/// The replica field of messages that come from clients.
pub(super) const CLIENT: u8 = 255;

/// What the driver has seen, for the test to look at.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) closed: AtomicU64,
    pub(super) connected: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) from_replicas: AtomicU64,
    pub(super) written: AtomicU64,
}

pub(super) struct Echo {
    pub(super) pool: Pool,
    pub(super) seen: Arc<Seen>,
    pub(super) offset: u64,
    pub(super) token: u64,
    pub(super) writing: BTreeMap<u64, (ConnectionId, Message)>,
    pub(super) reading: BTreeMap<u64, ConnectionId>,
    pub(super) executing: VecDeque<(ConnectionId, u64)>,
    pub(super) held: Vec<(ConnectionId, Message)>,
    pub(super) superblock: Vec<(ConnectionId, Message)>,
    pub(super) checkpoint: Option<(ConnectionId, Message)>,
    pub(super) hold_ticks: u32,
    pub(super) op: u64,
    pub(super) peers: Vec<u8>,
}

impl Echo {
    fn answer(&self, connection: ConnectionId, message: Message, outputs: &mut Vec<Output>) {
        let size = message.header().size as usize;
        outputs.push(Output::SendClient {
            connection,
            message,
            size,
        });
    }

    fn journal(&mut self, connection: ConnectionId, message: Message, outputs: &mut Vec<Output>) {
        let size = HEADROOM_SIZE + message.header().size as usize;
        let len = size.next_multiple_of(SECTOR_SIZE);
        self.token += 1;
        self.writing
            .insert(self.token, (connection, message.clone()));
        outputs.push(Output::JournalWrite(WriteOp {
            token: self.token,
            file: 0,
            offset: self.offset,
            len,
            buffer: message,
        }));
        self.offset += len as u64;
    }

    fn execute(&mut self, connection: ConnectionId, message: Message, outputs: &mut Vec<Output>) {
        self.op += 1;
        self.executing.push_back((connection, self.op));
        let reply = self.pool.acquire(message.header().body_size()).unwrap();
        outputs.push(Output::Task(Task::Apply {
            prepare: message,
            reply,
            checkpoint: false,
        }));
    }
}

impl Driver for Echo {
    fn inspect(header: &[u8; HEADER_SIZE]) -> Result<Inspected, &'static str> {
        let header: Header = zerocopy::transmute!(*header);
        header.verify().map_err(|_| "refused")?;
        Ok(Inspected {
            size: header.size as usize,
            ours: header.replica != CLIENT,
        })
    }

    fn start(&mut self, _: Time, _: &mut Vec<Output>) {}

    fn on_input(&mut self, input: Input, now: Time, outputs: &mut Vec<Output>) {
        assert!(now.monotonic > 0 && now.wall > 0);
        match input {
            Input::Tick => {
                if !self.held.is_empty() {
                    self.hold_ticks += 1;
                }
                if self.hold_ticks == 10 {
                    self.hold_ticks = 0;
                    for (connection, message) in std::mem::take(&mut self.held) {
                        self.answer(connection, message, outputs);
                    }
                }
            }
            Input::Received {
                connection,
                message,
            } => {
                let header = *message.header();
                header.verify().unwrap();
                header.verify_body(message.body()).unwrap();
                let message = message.freeze();
                if header.replica != CLIENT && header.operation != HOLD {
                    self.seen.from_replicas.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                match header.operation {
                    ECHO | READ_BACK => self.journal(connection, message, outputs),
                    EXECUTE | EXECUTE_SLOWLY => self.execute(connection, message, outputs),
                    HOLD => self.held.push((connection, message)),
                    CLOSE => {
                        self.answer(connection, message, outputs);
                        outputs.push(Output::Close {
                            connection,
                            reason: "asked_to",
                        });
                    }
                    CHECKPOINT => {
                        self.checkpoint = Some((connection, message));
                        outputs.push(Output::Checkpoint(CheckpointTask {
                            op: 77,
                            snapshot: Box::new(Nothing),
                            sessions: ClientTable::Captured(Sessions::new(Limits {
                                sessions: 1,
                                reply_bytes: 0,
                            })),
                            keep: None,
                            pace: Default::default(),
                        }));
                    }
                    FLOOD => {
                        for _ in 0..SEND_QUEUE_MAX + 200 {
                            self.answer(connection, message.clone(), outputs);
                        }
                    }
                    SUPERBLOCK => {
                        self.superblock.push((connection, message));
                        outputs.push(Output::SuperblockWrite {
                            token: 5,
                            offset: SECTOR_SIZE as u64,
                            sector: Box::new(Sector([0xab; SECTOR_SIZE])),
                        });
                    }
                    other => panic!("operation {other}"),
                }
            }
            Input::Closed { .. } => {
                self.seen.closed.fetch_add(1, Ordering::Relaxed);
            }
            Input::Peer { replica, connected } => {
                let count = if connected {
                    self.peers.push(replica);
                    let mut message = self.pool.acquire(3).unwrap();
                    let mut header = Header::new(Command::Hello, 1, 0, 0);
                    header.operation = ECHO;
                    message.fill(header, b"hey");
                    outputs.push(Output::SendReplica {
                        to: replica,
                        message: message.freeze(),
                    });
                    &self.seen.connected
                } else {
                    &self.seen.lost
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
            Input::JournalWritten { token, result } => {
                let (connection, message) = self.writing.remove(&token).unwrap();
                let size =
                    (HEADROOM_SIZE + message.header().size as usize).next_multiple_of(SECTOR_SIZE);
                self.seen.written.fetch_add(1, Ordering::Relaxed);
                match result {
                    Ok(written) if written == size => {}
                    other => {
                        outputs.push(Output::Stop(Fatal::Journal(format!("{other:?}"))));
                        return;
                    }
                }
                if message.header().operation == READ_BACK {
                    self.reading.insert(token, connection);
                    let message = self.pool.acquire(BODY_SIZE_MAX).unwrap();
                    outputs.push(Output::JournalRead {
                        token,
                        file: 0,
                        offset: self.offset - size as u64,
                        size,
                        message,
                    });
                } else {
                    self.answer(connection, message, outputs);
                }
            }
            Input::JournalRead {
                token,
                message,
                result,
            } => {
                result.unwrap();
                let connection = self.reading.remove(&token).unwrap();
                self.answer(connection, message.freeze(), outputs);
            }
            Input::SuperblockWritten { token, result } => {
                assert_eq!((token, result.unwrap()), (5, SECTOR_SIZE));
                let (connection, message) = self.superblock.pop().unwrap();
                self.answer(connection, message, outputs);
            }
            Input::Done(done) => {
                let (connection, op) = self.executing.pop_front().unwrap();
                assert_eq!(done.op, op, "answers come in order");
                let Ok(Outcome::Applied(applied)) = done.result else {
                    panic!("{done:?}");
                };
                let reply = applied.reply.freeze();
                self.answer(connection, reply, outputs);
            }
            Input::CheckpointDone(done) => {
                assert_eq!((done.op, done.result.unwrap().op), (77, 77));
                let (connection, message) = self.checkpoint.take().unwrap();
                self.answer(connection, message, outputs);
            }
            Input::Library(done) => panic!("nobody asked for {done:?}"),
        }
    }
}

/// Copies a request into its reply.
pub(super) struct Copier(pub(super) u64);

impl Execute for Copier {
    fn run(&mut self, task: Task) -> Option<Done> {
        let Task::Apply {
            prepare, mut reply, ..
        } = task
        else {
            return None;
        };
        self.0 += 1;
        if prepare.header().operation == EXECUTE_SLOWLY {
            std::thread::sleep(Duration::from_millis(2));
        }
        reply.fill(*prepare.header(), prepare.body());
        Some(Done {
            op: self.0,
            result: Ok(Outcome::Applied(Applied {
                reply,
                pulse_due: u64::MAX,
                full: false,
                snapshot: None,
            })),
        })
    }

    fn is_quick(task: &Task) -> bool {
        matches!(task, Task::Apply { prepare, .. } if prepare.header().operation == EXECUTE)
    }
}

/// A checkpoint of a machine without state.
pub(super) struct Nothing;

impl Snapshot for Nothing {
    fn size(&self) -> u64 {
        0
    }

    fn write(&mut self, _: &mut dyn Storage) -> Result<Vec<FileEntry>, StoreError> {
        Ok(Vec::new())
    }

    fn discard(&mut self) {}
}

pub(super) struct Builder;

impl Build for Builder {
    fn build(&mut self, task: CheckpointTask) -> CheckpointDone {
        std::thread::sleep(Duration::from_millis(5));
        CheckpointDone {
            op: task.op,
            result: Ok(ManifestRef {
                op: task.op,
                ..ManifestRef::default()
            }),
        }
    }
}
