//! The boundary between a replication protocol and everything else: events in, effects out.
//!
//! A protocol orders operations. It knows no socket, file, clock, thread or random number: what it
//! learns arrives as an [`Event`], what it wants done leaves as an [`Effect`]. Every protocol that
//! will run on this journal and runtime (VSR, later Raft and EPaxos) implements [`Protocol`], and
//! the two worlds that drive it, the runtime and the simulator, cannot tell which one it is.
//!
//! ```text
//!   request, message, durable, read, executed, persisted, trimmed, tick
//!        │
//!        ▼
//!   Protocol::on_event ──► send, append, read, execute, reply, evict, persist
//! ```
//!
//! Contracts of the world:
//! - appends become durable in the order in which they were asked for; `Durable` names the newest
//!   operation for which that, and all before it, holds;
//! - executions are answered in order; `Executed` comes once for each `Execute`;
//! - a `Persisted` answers the oldest unanswered `Persist`.

use crate::message::{Message, MessageMut, Op, View};

/// The time of an event, read once by the world before it delivers a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Nanoseconds from an arbitrary start; never goes back.
    pub monotonic: u64,
    /// Nanoseconds since 1970; may jump.
    pub wall: u64,
}

/// The index of a replica in the cluster.
pub type ReplicaIndex = u8;

/// What must never be forgotten, because a message has promised it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Promise {
    pub view: View,
    pub log_view: View,
    /// The head of the log when `log_view` began: what a disk holds beyond it from former views is
    /// not part of the log.
    pub log_view_op: Op,
    /// A lower bound of the commit point: saves work after a restart. What it counts as committed is in
    /// the journal, durably: a restart takes it for true of whatever it finds there.
    pub commit: Op,
    /// What was promised before is not known: no vote until the others have told.
    pub recovering: bool,
}

/// Why a log entry is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFor {
    /// To hand it to the executor.
    Execute,
    /// To send it to a replica that lacks it.
    Replica(ReplicaIndex),
}

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// Time has passed. Comes about every `TICK_NS`.
    Tick,
    /// A client's request in our own form ([`crate::message::Command::Request`]): valid, body
    /// checksum set, header not yet sealed.
    Request(MessageMut),
    /// A verified message from another replica.
    Message(Message),
    /// A replica has begun a new life: what it said in an earlier one counts no more. In the new one
    /// it knows all that it had promised, unless it is recovering.
    PeerStarted {
        replica: ReplicaIndex,
        recovering: bool,
    },
    /// The connection from a replica broke: it may be dead. A hint; nothing follows from it alone.
    PeerLost { replica: ReplicaIndex },
    /// A replica has taken note of this replica's present life, and is in this view.
    Welcomed { replica: ReplicaIndex, view: View },
    /// A replica knows this one from a later life than its disk does: the disk was set back.
    RolledBack,
    /// The journal holds everything up to and with `op`, whose prepare has this checksum.
    Durable { op: Op, checksum: u128 },
    /// A prepare that was restored is in the journal again.
    Restored { op: Op },
    /// The journal cannot give back the entry of `op`: its disk has damaged it.
    Damaged { op: Op },
    /// A read is done; `None` when the entry is not there any more.
    Read {
        op: Op,
        purpose: ReadFor,
        message: Option<Message>,
    },
    /// The operation has been applied; `reply` holds the reply's body.
    Executed {
        op: Op,
        reply: MessageMut,
        pulse_due: u64,
    },
    /// The oldest unanswered promise is on disk.
    Persisted,
    /// A checkpoint of `op` is durable; entries up to and with `op` are not needed to restart,
    /// and those up to and with `trimmed` are gone from the journal.
    Checkpointed { op: Op, trimmed: Op },
}

/// Something is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Send to another replica; may be lost.
    Send { to: ReplicaIndex, message: Message },
    /// Append the prepare to the journal. A lower or equal `op` than the last one's replaces the
    /// log from there on.
    Append { message: Message },
    /// Append a prepare once more, in place of its damaged entry. It replaces nothing else.
    Restore { message: Message },
    /// Read a log entry back.
    Read { op: Op, purpose: ReadFor },
    /// Apply a committed prepare, and capture a checkpoint right after it when asked to.
    Execute { message: Message, checkpoint: bool },
    /// The client's request is on its way: its answer belongs to the connection it came on.
    Wait { client: u128, request: u32 },
    /// Send the client its latest reply, if it waits here. `reply` holds the body when it was just
    /// made; else it is in the session table.
    Reply {
        client: u128,
        reply: Option<MessageMut>,
    },
    /// Tell a client, if its request has come here directly, that its session is over.
    Evict { client: u128, reason: Eviction },
    /// Make a promise durable.
    Persist(Promise),
}

/// Why a client's session is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// Its session is not in the table: it was pushed out by others, or never registered.
    NoSession,
    /// A newer session of the same client exists.
    SessionTooLow,
    /// The session was registered by another release of the client.
    ReleaseMismatch,
    /// Its request was executed, and so long ago that the reply is not kept any more.
    ReplyDropped,
    /// It asks for more than the machine will ever have room for.
    MachineFull,
}

/// The list that a protocol writes its effects to; owned by the caller, reused, drained after each
/// event. Bounded: an event causes at most a few effects for each entry of the pipeline.
pub type Effects = Vec<Effect>;

/// A replication protocol: a deterministic function of its events.
pub trait Protocol {
    /// Takes one event and appends what is to be done.
    fn on_event(&mut self, event: Event, now: Time, effects: &mut Effects);
}
