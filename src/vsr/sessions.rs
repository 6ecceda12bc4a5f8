//! Client sessions: at most one execution of each request, and its reply kept while the client may
//! ask for it again.
//!
//! The table changes only when operations are executed, in log order, so it is the same on every
//! replica at the same operation; it is part of each checkpoint. Requests in flight are not in it:
//! the primary keeps those in its pipeline (a request that dies in a view change must not look like
//! a duplicate for ever).
//!
//! A session is identified by the number of the register operation that created it. Two things run
//! out, and both take the session whose latest operation is the oldest:
//!
//! ```text
//!    oldest operation ───────────────────────────────────────────────► newest operation
//!    │ session                │ session, reply dropped     │ session and reply           │
//!    ▲                                                     ▲
//!    a register in a full table pushes it out              `replies_from`: moves up when the
//!                                                          replies together exceed their bytes
//! ```
//!
//! - Sessions: one more than the table holds pushes out the oldest.
//! - Bytes of replies: the oldest replies are dropped until the rest fits; the newest always stays.
//!   A session without its reply is a session still: its latest request is not executed again, and
//!   a client that asks for the answer again is told that there is none ([`Eviction::ReplyDropped`]).
//!
//! Bodies of replies are copied out of the buffer that the executor filled, so that the buffer can
//! leave to the client and come back to the pool. The copy is cheap: a create is answered with 16
//! bytes for each event of 128, which were received, hashed, journaled and sent twice; and memory of
//! a former reply of the same size is used again.
//!
//! Encoded form (little-endian), as checkpoints carry it:
//!
//! ```text
//!   count u32 · reserved 4 · replies_from u64 · count × { client u128 · request_checksum u128 ·
//!     context u128 · session u64 · op u64 · timestamp u64 · request u32 · release u32 ·
//!     operation u8 · reserved 11 · reply_size u32 · reply body }
//! ```
//!
//! Records ascend by client. Where `op < replies_from` the reply was dropped: `reply_size` is zero.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits::BODY_SIZE_MAX;
use crate::message::{Header, Op};
use crate::mutant::Mutant;
use crate::protocol::Eviction;

/// What is kept of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub session: u64,
    /// The latest request's number, checksum and operation.
    pub request: u32,
    pub request_checksum: u128,
    pub operation: u8,
    /// What the next request must name as its parent: the checksum of the latest prepare.
    pub context: u128,
    pub release: u32,
    /// Of the latest operation.
    pub op: Op,
    pub timestamp: u64,
    /// The body of the latest reply; `None` when it was dropped.
    reply: Option<Arc<[u8]>>,
}

impl Session {
    /// The body of the latest reply, unless it was dropped.
    pub fn reply(&self) -> Option<&[u8]> {
        self.reply.as_deref()
    }
}

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Check {
    /// The next request of its session, or a register.
    Accept,
    /// The latest request once more: send the stored reply.
    Resend,
    /// Old, early or unrelated: say nothing.
    Drop,
    Evict(Eviction),
}

/// How much a table holds. Equal on all replicas of a cluster, as the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub sessions: usize,
    /// Bodies of replies together; the newest reply may exceed it.
    pub reply_bytes: usize,
}

/// See the module. A clone shares the bodies of replies: it is cheap enough to be taken for each
/// checkpoint (well below a millisecond for a thousand sessions), and can be encoded elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    limits: Limits,
    sessions: BTreeMap<u128, Session>,
    /// The client of each session by its latest operation: the order in which things are dropped.
    by_op: BTreeMap<Op, u128>,
    /// Replies of earlier operations have been dropped.
    replies_from: Op,
    /// Bodies of all replies together.
    reply_bytes: usize,
}

const RECORD_SIZE: usize = 16 * 3 + 8 * 3 + 4 * 2 + 1 + 11 + 4;
const HEADER_SIZE: usize = 16;

/// Why an encoded table cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("client table ends after {0} bytes, in the middle of a record")]
    Short(usize),
    #[error("client table holds {0} sessions; this cluster was formatted for {1}")]
    TooMany(usize, usize),
    #[error("client table has a reply of {0} bytes, more than a message can hold")]
    ReplySize(usize),
    #[error("client table has {0} bytes of replies; a journal of this size allows {1}")]
    ReplyBytes(usize, usize),
    #[error("client table has {0} bytes after its last record")]
    Excess(usize),
    #[error("client table is out of order at client {0:x}")]
    Order(u128),
    #[error("client table contradicts itself about the latest operation of client {0:x}")]
    Operation(u128),
    #[error(
        "client table has dropped the reply of op {0} and those before, but not all of them, or all there are"
    )]
    Dropped(Op),
    #[error("client table has a reply of op {0}, but the checkpoint ends at op {1}")]
    Later(Op, Op),
}

impl Sessions {
    pub fn new(limits: Limits) -> Self {
        assert!(limits.sessions > 0);
        Self {
            limits,
            sessions: BTreeMap::new(),
            by_op: BTreeMap::new(),
            replies_from: 0,
            reply_bytes: 0,
        }
    }

    pub fn get(&self, client: u128) -> Option<&Session> {
        self.sessions.get(&client)
    }

    /// Every session with its client, ascending by client.
    pub fn iter(&self) -> impl Iterator<Item = (u128, &Session)> {
        self.sessions
            .iter()
            .map(|(client, session)| (*client, session))
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Replies of operations before this one have been dropped.
    pub fn replies_from(&self) -> Op {
        self.replies_from
    }

    /// Judges a request ([`crate::message::Command::Request`]) against the table.
    pub fn check(&self, request: &Header, is_register: bool) -> Check {
        let Some(session) = self.sessions.get(&request.client) else {
            return if is_register {
                Check::Accept
            } else {
                Check::Evict(Eviction::NoSession)
            };
        };
        if !is_register {
            if session.session > request.session {
                return Check::Evict(Eviction::SessionTooLow);
            }
            if session.session < request.session {
                return Check::Drop;
            }
        }
        if session.release != request.release {
            return Check::Evict(Eviction::ReleaseMismatch);
        }
        if request.request == session.request {
            return if Mutant::ExecutesTwice.is_on() {
                Check::Accept
            } else if request.request_checksum != session.request_checksum {
                Check::Drop
            } else if session.reply.is_some() {
                Check::Resend
            } else {
                Check::Evict(Eviction::ReplyDropped)
            };
        }
        let follows = session.request.checked_add(1) == Some(request.request);
        if follows && request.context == session.context {
            Check::Accept
        } else {
            Check::Drop
        }
    }

    /// Records the reply of an executed operation. Gives whether that is now the latest of its
    /// client: not if the client has no session, or has it already.
    pub fn commit(&mut self, prepare: &Header, is_register: bool, reply: &[u8]) -> bool {
        let client = prepare.client;
        assert!(client != 0);
        assert!(self.newest() < Some(prepare.op));
        let mut memory = None;
        if is_register {
            // A register that is in the log twice (made again after a view change) keeps the first
            // session: the client may be using it already.
            if self.sessions.contains_key(&client) {
                return false;
            }
            if self.sessions.len() >= self.limits.sessions {
                self.evict_oldest();
            }
        } else {
            match self.sessions.get_mut(&client) {
                Some(session) if session.session == prepare.session => {
                    // At most once: the same request a second time would be in the log twice.
                    assert_eq!(session.request.checked_add(1), Some(prepare.request));
                    memory = session.reply.take();
                    self.by_op.remove(&session.op);
                }
                // Pushed out while its request was on the way: executed, with nobody to tell.
                _ => return false,
            }
        }
        self.reply_bytes -= memory.as_ref().map_or(0, |former| former.len());
        self.reply_bytes += reply.len();
        let session = Session {
            session: if is_register {
                prepare.op
            } else {
                prepare.session
            },
            request: prepare.request,
            request_checksum: prepare.request_checksum,
            operation: prepare.operation,
            context: prepare.checksum,
            release: prepare.release,
            op: prepare.op,
            timestamp: prepare.timestamp,
            reply: Some(stored(memory, reply)),
        };
        self.by_op.insert(session.op, client);
        self.sessions.insert(client, session);
        self.drop_replies();
        true
    }

    /// The latest operation of any session.
    pub fn newest(&self) -> Option<Op> {
        self.by_op.last_key_value().map(|(op, _)| *op)
    }

    fn evict_oldest(&mut self) {
        let oldest = if Mutant::EvictsTheNewest.is_on() {
            self.by_op.pop_last()
        } else {
            self.by_op.pop_first()
        };
        let (_, client) = oldest.expect("a full table has sessions");
        let session = self.sessions.remove(&client).expect("both hold the same");
        self.reply_bytes -= session.reply.map_or(0, |reply| reply.len());
    }

    /// Drops the oldest replies until the rest fits.
    fn drop_replies(&mut self) {
        while self.reply_bytes > self.limits.reply_bytes {
            let mut kept = self.by_op.range(self.replies_from..);
            let (op, client) = kept.next().expect("the bytes are somebody's");
            if kept.next().is_none() {
                return;
            }
            let session = self.sessions.get_mut(client).expect("both hold the same");
            let reply = session.reply.take().expect("not yet dropped");
            self.reply_bytes -= reply.len();
            self.replies_from = op + 1;
        }
    }

    /// Bytes of the encoded table.
    pub fn encoded_size(&self) -> usize {
        HEADER_SIZE + self.len() * RECORD_SIZE + self.reply_bytes
    }

    /// The encoded table.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_size());
        let count = u32::try_from(self.len()).expect("sessions are bounded");
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.replies_from.to_le_bytes());
        for (client, session) in &self.sessions {
            out.extend_from_slice(&client.to_le_bytes());
            out.extend_from_slice(&session.request_checksum.to_le_bytes());
            out.extend_from_slice(&session.context.to_le_bytes());
            out.extend_from_slice(&session.session.to_le_bytes());
            out.extend_from_slice(&session.op.to_le_bytes());
            out.extend_from_slice(&session.timestamp.to_le_bytes());
            out.extend_from_slice(&session.request.to_le_bytes());
            out.extend_from_slice(&session.release.to_le_bytes());
            out.push(session.operation);
            out.extend_from_slice(&[0; 11]);
            let reply = session.reply().unwrap_or_default();
            let size = u32::try_from(reply.len()).expect("a reply is a message");
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(reply);
        }
        assert_eq!(out.len(), self.encoded_size());
        out
    }

    /// Reads an encoded table.
    ///
    /// # Errors
    /// The bytes are not such a table, or one that these limits would not have made.
    pub fn decode(bytes: &[u8], limits: Limits) -> Result<Self, DecodeError> {
        let mut reader = Reader { bytes, at: 0 };
        let count = u32::from_le_bytes(reader.take()?) as usize;
        let _: [u8; 4] = reader.take()?;
        let mut table = Self::new(limits);
        table.replies_from = u64::from_le_bytes(reader.take()?);
        if count > limits.sessions {
            return Err(DecodeError::TooMany(count, limits.sessions));
        }
        for _ in 0..count {
            table.decode_record(&mut reader)?;
        }
        if reader.at != bytes.len() {
            return Err(DecodeError::Excess(bytes.len() - reader.at));
        }
        // The newest reply is there, however large it is.
        let newest = table.by_op.last_key_value();
        let newest = newest.and_then(|(_, client)| table.sessions[client].reply());
        if newest.is_none() && table.replies_from > 0 {
            return Err(DecodeError::Dropped(table.replies_from));
        }
        let others = table.reply_bytes - newest.map_or(0, <[u8]>::len);
        if others > 0 && table.reply_bytes > limits.reply_bytes {
            return Err(DecodeError::ReplyBytes(
                table.reply_bytes,
                limits.reply_bytes,
            ));
        }
        Ok(table)
    }

    fn decode_record(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let client = u128::from_le_bytes(reader.take()?);
        let last = self.sessions.last_key_value();
        if client <= last.map_or(0, |(client, _)| *client) {
            return Err(DecodeError::Order(client));
        }
        let request_checksum = u128::from_le_bytes(reader.take()?);
        let context = u128::from_le_bytes(reader.take()?);
        let session = u64::from_le_bytes(reader.take()?);
        let op = u64::from_le_bytes(reader.take()?);
        let timestamp = u64::from_le_bytes(reader.take()?);
        let request = u32::from_le_bytes(reader.take()?);
        let release = u32::from_le_bytes(reader.take()?);
        let [operation, ..]: [u8; 12] = reader.take()?;
        if session > op || self.by_op.insert(op, client).is_some() {
            return Err(DecodeError::Operation(client));
        }
        let reply_size = u32::from_le_bytes(reader.take()?) as usize;
        if reply_size > BODY_SIZE_MAX {
            return Err(DecodeError::ReplySize(reply_size));
        }
        let reply = reader.slice(reply_size)?;
        self.reply_bytes += reply_size;
        let is_kept = op >= self.replies_from;
        if !is_kept && reply_size > 0 {
            return Err(DecodeError::Dropped(self.replies_from));
        }
        self.sessions.insert(
            client,
            Session {
                session,
                request,
                request_checksum,
                operation,
                context,
                release,
                op,
                timestamp,
                reply: is_kept.then(|| match Mutant::LosesReplies.is_on() {
                    false => reply.into(),
                    true => [].into(),
                }),
            },
        );
        Ok(())
    }
}

/// The body in memory of its own: that of the former reply, if the size is the same and no
/// checkpoint is being written from it.
fn stored(memory: Option<Arc<[u8]>>, reply: &[u8]) -> Arc<[u8]> {
    if let Some(mut memory) = memory
        && let Some(bytes) = Arc::get_mut(&mut memory)
        && bytes.len() == reply.len()
    {
        bytes.copy_from_slice(reply);
        return memory;
    }
    reply.into()
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn slice(&mut self, size: usize) -> Result<&'a [u8], DecodeError> {
        let slice = self
            .bytes
            .get(self.at..self.at + size)
            .ok_or(DecodeError::Short(self.at))?;
        self.at += size;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self.slice(N)?.try_into().expect("as long as asked for"))
    }
}
