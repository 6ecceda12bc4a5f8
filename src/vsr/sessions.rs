//! Client sessions: at most one execution of each request, and its reply kept for as long as the
//! client may ask again.
//!
//! The table changes only when operations are executed, in log order, so it is the same on every
//! replica at the same operation; it is part of each checkpoint. Requests in flight are not in it:
//! the primary keeps those in its pipeline (a request that dies in a view change must not look like
//! a duplicate for ever).
//!
//! A session is identified by the number of the register operation that created it. When the table
//! is full, a register pushes out the session whose latest operation is the oldest.
//!
//! Encoded form (little-endian), as checkpoints carry it:
//!
//! ```text
//!   count u32 · reserved 12 · count × { client u128 · request_checksum u128 · context u128 ·
//!     session u64 · op u64 · timestamp u64 · request u32 · release u32 · operation u8 · reserved 11 ·
//!     reply_size u32 · reply body }
//! ```

use std::collections::BTreeMap;

use crate::limits::BODY_SIZE_MAX;
use crate::message::{Header, Message, MessageMut, Op, Pool, View};
use crate::protocol::Eviction;

/// What is kept of a client.
#[derive(Debug)]
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
    /// The latest reply: body in place; header in the foreign form of `rendered`, if any.
    pub reply: Message,
    pub reply_size: usize,
    pub rendered: Option<View>,
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

/// See the module.
#[derive(Debug)]
pub struct Sessions {
    sessions: BTreeMap<u128, Session>,
    capacity: usize,
}

const RECORD_SIZE: usize = 16 * 3 + 8 * 3 + 4 * 2 + 1 + 11 + 4;
const HEADER_SIZE: usize = 16;

/// Why an encoded table cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("client table ends after {0} bytes, in the middle of a record")]
    Short(usize),
    #[error("client table holds {0} sessions; this cluster was formatted for {1}")]
    TooMany(usize, usize),
    #[error("client table has a reply of {0} bytes, more than a message can hold")]
    ReplySize(usize),
    #[error("client table has {0} bytes after its last record")]
    Excess(usize),
    #[error("no free buffer for the reply of a session")]
    NoBuffer,
}

impl Sessions {
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0);
        Self {
            sessions: BTreeMap::new(),
            capacity,
        }
    }

    pub fn get(&self, client: u128) -> Option<&Session> {
        self.sessions.get(&client)
    }

    pub fn get_mut(&mut self, client: u128) -> Option<&mut Session> {
        self.sessions.get_mut(&client)
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
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
            return if request.request_checksum == session.request_checksum {
                Check::Resend
            } else {
                Check::Drop
            };
        }
        let follows = session.request.checked_add(1) == Some(request.request);
        if follows && request.context == session.context {
            Check::Accept
        } else {
            Check::Drop
        }
    }

    /// Records the reply of an executed operation.
    pub fn commit(&mut self, prepare: &Header, is_register: bool, reply: MessageMut) {
        let client = prepare.client;
        assert!(client != 0);
        if is_register {
            // A register that is in the log twice (made again after a view change) keeps the first
            // session: the client may be using it already.
            if self.sessions.contains_key(&client) {
                return;
            }
            if self.sessions.len() >= self.capacity {
                self.evict_oldest();
            }
        } else {
            match self.sessions.get(&client) {
                Some(session) if session.session == prepare.session => {
                    // At most once: the same request a second time would be in the log twice.
                    assert_eq!(session.request.checked_add(1), Some(prepare.request));
                }
                // Pushed out while its request was on the way: executed, with nobody to tell.
                _ => return,
            }
        }
        let reply_size = reply.header().body_size();
        self.sessions.insert(
            client,
            Session {
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
                reply: reply.freeze(),
                reply_size,
                rendered: None,
            },
        );
    }

    fn evict_oldest(&mut self) {
        let oldest = self.sessions.iter().min_by_key(|(_, session)| session.op);
        if let Some(client) = oldest.map(|(client, _)| *client) {
            self.sessions.remove(&client);
        }
    }

    /// The encoded table.
    pub fn encode(&self) -> Vec<u8> {
        let replies: usize = self.sessions.values().map(|s| s.reply_size).sum();
        let mut out = Vec::with_capacity(HEADER_SIZE + self.len() * RECORD_SIZE + replies);
        let count = u32::try_from(self.len()).expect("sessions are bounded");
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&[0; 12]);
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
            let size = u32::try_from(session.reply_size).expect("a reply is a message");
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(session.reply.body_of_size(session.reply_size));
        }
        out
    }

    /// Reads an encoded table; replies get buffers of `pool`.
    ///
    /// # Errors
    /// The bytes are not such a table, or the pool is too small for it.
    pub fn decode(bytes: &[u8], capacity: usize, pool: &Pool) -> Result<Self, DecodeError> {
        let mut reader = Reader { bytes, at: 0 };
        let count = u32::from_le_bytes(reader.take()?) as usize;
        let _: [u8; 12] = reader.take()?;
        if count > capacity {
            return Err(DecodeError::TooMany(count, capacity));
        }
        let mut table = Self::new(capacity);
        for _ in 0..count {
            let client = u128::from_le_bytes(reader.take()?);
            let request_checksum = u128::from_le_bytes(reader.take()?);
            let context = u128::from_le_bytes(reader.take()?);
            let session = u64::from_le_bytes(reader.take()?);
            let op = u64::from_le_bytes(reader.take()?);
            let timestamp = u64::from_le_bytes(reader.take()?);
            let request = u32::from_le_bytes(reader.take()?);
            let release = u32::from_le_bytes(reader.take()?);
            let [operation, ..]: [u8; 12] = reader.take()?;
            let reply_size = u32::from_le_bytes(reader.take()?) as usize;
            if reply_size > BODY_SIZE_MAX {
                return Err(DecodeError::ReplySize(reply_size));
            }
            let body = reader.slice(reply_size)?;
            let mut reply = pool.acquire(reply_size).ok_or(DecodeError::NoBuffer)?;
            reply.body_mut_of_size(reply_size).copy_from_slice(body);
            let reply = reply.freeze();
            table.sessions.insert(
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
                    reply,
                    reply_size,
                    rendered: None,
                },
            );
        }
        if reader.at != bytes.len() {
            return Err(DecodeError::Excess(bytes.len() - reader.at));
        }
        Ok(table)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Command, PoolConfig};

    fn pool() -> Pool {
        let config = PoolConfig {
            small: 16,
            medium: 2,
            large: 1,
            huge_pages: false,
        };
        Pool::new(&config).unwrap()
    }

    fn prepare(client: u128, session: u64, request: u32, op: Op) -> Header {
        let mut header = Header::new(Command::Prepare, 0, 0, 0);
        header.client = client;
        header.session = session;
        header.request = request;
        header.request_checksum = client * 1000 + u128::from(request);
        header.checksum = u128::from(op) << 64;
        header.op = op;
        header.release = 17;
        header
    }

    fn request(client: u128, session: u64, request: u32, parent_op: Op) -> Header {
        let mut header = prepare(client, session, request, 0);
        header.context = u128::from(parent_op) << 64;
        header
    }

    #[test]
    fn requests_are_accepted_in_sequence_only() {
        let pool = pool();
        let mut table = Sessions::new(2);
        assert_eq!(table.check(&request(5, 0, 0, 0), true), Check::Accept);
        table.commit(&prepare(5, 0, 0, 1), true, pool.acquire(0).unwrap());
        assert_eq!(table.check(&request(5, 0, 0, 0), true), Check::Resend);
        assert_eq!(table.check(&request(5, 1, 1, 1), false), Check::Accept);
        assert_eq!(table.check(&request(5, 1, 1, 9), false), Check::Drop);
        assert_eq!(table.check(&request(5, 1, 2, 1), false), Check::Drop);
        assert_eq!(table.check(&request(5, 2, 1, 1), false), Check::Drop);
        assert_eq!(
            table.check(&request(5, 0, 1, 1), false),
            Check::Evict(Eviction::SessionTooLow)
        );
        assert_eq!(
            table.check(&request(6, 1, 1, 1), false),
            Check::Evict(Eviction::NoSession)
        );
        let mut other_release = request(5, 1, 1, 1);
        other_release.release = 18;
        assert_eq!(
            table.check(&other_release, false),
            Check::Evict(Eviction::ReleaseMismatch)
        );
        table.commit(&prepare(5, 1, 1, 2), false, pool.acquire(0).unwrap());
        assert_eq!(table.check(&request(5, 1, 1, 1), false), Check::Resend);
        assert_eq!(table.check(&request(5, 0, 0, 0), true), Check::Drop);
    }

    #[test]
    fn a_full_table_pushes_out_the_least_recently_active() {
        let pool = pool();
        let mut table = Sessions::new(2);
        table.commit(&prepare(5, 0, 0, 1), true, pool.acquire(0).unwrap());
        table.commit(&prepare(6, 0, 0, 2), true, pool.acquire(0).unwrap());
        table.commit(&prepare(5, 1, 1, 3), false, pool.acquire(0).unwrap());
        table.commit(&prepare(7, 0, 0, 4), true, pool.acquire(0).unwrap());
        assert!(table.get(5).is_some() && table.get(6).is_none() && table.get(7).is_some());
        // The evicted client's request that was on the way leaves no trace.
        table.commit(&prepare(6, 2, 1, 5), false, pool.acquire(0).unwrap());
        assert!(table.get(6).is_none());
    }

    #[test]
    fn the_encoded_table_comes_back_and_bad_bytes_are_refused() {
        let pool = pool();
        let mut table = Sessions::new(4);
        for client in 1..=3u8 {
            let mut reply = pool.acquire(5).unwrap();
            reply.body_mut_of_size(5).fill(client);
            table.commit(&prepare(client.into(), 0, 0, client.into()), true, reply);
        }
        let bytes = table.encode();
        let back = Sessions::decode(&bytes, 4, &pool).unwrap();
        assert_eq!(back.encode(), bytes);
        assert_eq!(back.get(2).unwrap().reply.body_of_size(5), [2; 5]);
        for cut in 0..bytes.len() {
            assert!(
                Sessions::decode(&bytes[..cut], 4, &pool).is_err(),
                "cut {cut}"
            );
        }
        assert!(matches!(
            Sessions::decode(&bytes, 2, &pool),
            Err(DecodeError::TooMany(3, 2))
        ));
    }
}
