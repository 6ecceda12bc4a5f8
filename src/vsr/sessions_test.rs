//! The client table: stories of one or two clients, and random logs against a table without cleverness.

use proptest::prelude::*;

use super::sessions::{Check, DecodeError, Limits, Sessions};
use crate::limits::{BODY_SIZE_MAX, SESSIONS_MAX};
use crate::message::{Command, Header, Op};
use crate::protocol::Eviction;

fn limits(sessions: usize, reply_bytes: usize) -> Limits {
    Limits {
        sessions,
        reply_bytes,
    }
}

/// A table in which replies never run out.
fn table(sessions: usize) -> Sessions {
    Sessions::new(limits(sessions, 1 << 20))
}

fn prepare(client: u128, session: u64, request: u32, op: Op) -> Header {
    let mut header = Header::new(Command::Prepare, 0, 0, 0);
    header.client = client;
    header.session = session;
    header.request = request;
    header.request_checksum = client * 1000 + u128::from(request);
    header.checksum = u128::from(op) << 64;
    header.op = op;
    header.timestamp = op * 10;
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
    let mut table = table(2);
    assert_eq!(table.check(&request(5, 0, 0, 0), true), Check::Accept);
    assert!(table.commit(&prepare(5, 0, 0, 1), true, &[]));
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
    assert!(table.commit(&prepare(5, 1, 1, 2), false, &[]));
    assert_eq!(table.check(&request(5, 1, 1, 1), false), Check::Resend);
    assert_eq!(table.check(&request(5, 0, 0, 0), true), Check::Drop);
}

#[test]
fn as_many_sessions_as_there_may_be_and_their_successors_stay_within_bounds() {
    const REPLY: usize = 16 * 1024;
    let budget = limits(SESSIONS_MAX, 1 << 20);
    let mut table = Sessions::new(budget);
    let count = SESSIONS_MAX as u128;
    let mut op = 0;
    for client in 1..=count {
        op += 1;
        assert!(table.commit(&prepare(client, 0, 0, op), true, &[]));
        op += 1;
        assert!(table.commit(&prepare(client, op - 1, 1, op), false, &[7; REPLY]));
    }
    let kept = |table: &Sessions, client| table.get(client).is_some_and(|s| s.reply().is_some());
    let replies = (1..=count).filter(|client| kept(&table, *client)).count();
    assert_eq!((table.len(), replies), (SESSIONS_MAX, (1 << 20) / REPLY));
    // Each new one pushes out the one that has been silent for longest.
    for client in 1..=count {
        op += 1;
        assert!(table.commit(&prepare(count + client, 0, 0, op), true, &[]));
        assert!(table.get(client).is_none() && table.get(client + 1).is_some());
        assert_eq!(table.len(), SESSIONS_MAX);
    }
    assert!(table.encoded_size() < (1 << 20) + SESSIONS_MAX * 256);
    let again = Sessions::decode(&table.encode(), budget).unwrap();
    assert_eq!(again.encode(), table.encode());
}

#[test]
fn a_register_that_is_in_the_log_twice_keeps_the_first_session() {
    let mut table = table(2);
    assert!(table.commit(&prepare(5, 0, 0, 1), true, b"first"));
    assert!(table.commit(&prepare(5, 1, 1, 2), false, b"work"));
    assert!(!table.commit(&prepare(5, 0, 0, 3), true, b"again"));
    let session = table.get(5).unwrap();
    assert_eq!((session.session, session.request), (1, 1));
    assert_eq!(session.reply(), Some(&b"work"[..]));
}

#[test]
fn a_full_table_pushes_out_the_least_recently_active() {
    let mut table = table(2);
    table.commit(&prepare(5, 0, 0, 1), true, &[]);
    table.commit(&prepare(6, 0, 0, 2), true, &[]);
    table.commit(&prepare(5, 1, 1, 3), false, &[]);
    table.commit(&prepare(7, 0, 0, 4), true, &[]);
    assert!(table.get(5).is_some() && table.get(6).is_none() && table.get(7).is_some());
    // The evicted client's request that was on the way leaves no trace.
    assert!(!table.commit(&prepare(6, 2, 1, 5), false, &[]));
    assert!(table.get(6).is_none());
}

#[test]
fn replies_beyond_their_bytes_are_dropped_oldest_first_and_sessions_stay() {
    let mut table = Sessions::new(limits(8, 10));
    for client in 1..=3 {
        let op = u64::try_from(client).unwrap();
        table.commit(&prepare(client, 0, 0, op), true, &[1; 4]);
    }
    assert_eq!(table.len(), 3);
    assert_eq!(table.replies_from(), 2);
    assert_eq!(table.get(1).unwrap().reply(), None);
    assert_eq!(table.get(2).unwrap().reply(), Some(&[1; 4][..]));
    // Whoever asks again is told; nothing is executed twice.
    assert_eq!(
        table.check(&request(1, 0, 0, 0), true),
        Check::Evict(Eviction::ReplyDropped)
    );
    assert_eq!(table.check(&request(2, 0, 0, 0), true), Check::Resend);
    // A client that has its answer and goes on does not notice.
    assert_eq!(table.check(&request(1, 1, 1, 1), false), Check::Accept);
    table.commit(&prepare(1, 1, 1, 4), false, &[2; 2]);
    assert_eq!(table.get(1).unwrap().reply(), Some(&[2; 2][..]));
    assert_eq!(table.replies_from(), 2);
}

#[test]
fn the_newest_reply_stays_however_large_it_is() {
    let mut table = Sessions::new(limits(8, 10));
    table.commit(&prepare(1, 0, 0, 1), true, &[1; 4]);
    table.commit(&prepare(2, 0, 0, 2), true, &[2; 400]);
    assert_eq!(table.get(1).unwrap().reply(), None);
    assert_eq!(table.check(&request(2, 0, 0, 0), true), Check::Resend);
    let back = Sessions::decode(&table.encode(), limits(8, 10));
    assert_eq!(back.as_ref(), Ok(&table));
    table.commit(&prepare(3, 0, 0, 3), true, &[3; 4]);
    assert_eq!(table.get(2).unwrap().reply(), None);
    assert_eq!(table.check(&request(3, 0, 0, 0), true), Check::Resend);
}

#[test]
fn a_checkpoint_being_written_keeps_what_it_was_taken_of() {
    let mut table = table(2);
    table.commit(&prepare(5, 0, 0, 1), true, b"first");
    let (captured, bytes) = (table.clone(), table.encode());
    // A reply of the same size would be written over the former one.
    table.commit(&prepare(5, 1, 1, 2), false, b"other");
    assert_eq!(captured.encode(), bytes);
    assert_eq!(table.get(5).unwrap().reply(), Some(&b"other"[..]));
}

#[test]
fn a_reply_of_the_same_size_takes_no_new_memory() {
    let mut table = table(2);
    table.commit(&prepare(5, 0, 0, 1), true, b"first");
    let before = table.get(5).unwrap().reply().unwrap().as_ptr();
    table.commit(&prepare(5, 1, 1, 2), false, b"other");
    let reply = table.get(5).unwrap().reply().unwrap();
    assert_eq!((reply, reply.as_ptr()), (&b"other"[..], before));
}

/// A table with three sessions, the first without its reply.
fn dropped() -> Sessions {
    let mut table = Sessions::new(limits(4, 12));
    for (op, client) in [(1, 3), (2, 1), (3, 2)] {
        table.commit(&prepare(client, 0, 0, op), true, &[op.to_le_bytes()[0]; 5]);
    }
    table
}

#[test]
fn the_encoded_table_comes_back_and_bad_bytes_are_refused() {
    let limits = limits(4, 12);
    let table = dropped();
    let bytes = table.encode();
    let back = Sessions::decode(&bytes, limits).unwrap();
    assert_eq!(back, table);
    assert_eq!(back.encode(), bytes);
    assert_eq!(back.get(2).unwrap().reply(), Some(&[3; 5][..]));
    assert_eq!(back.get(3).unwrap().reply(), None);
    for cut in 0..bytes.len() {
        let refused = Sessions::decode(&bytes[..cut], limits).unwrap_err();
        assert_eq!(refused, DecodeError::Short(refusal_at(cut)), "cut {cut}");
    }
    let longer = [&bytes[..], &[0; 3]].concat();
    assert_eq!(
        Sessions::decode(&longer, limits),
        Err(DecodeError::Excess(3))
    );
}

/// Where the field begins that does not fit so many bytes, in the table of `dropped`.
fn refusal_at(cut: usize) -> usize {
    let record = [16, 16, 16, 8, 8, 8, 4, 4, 12, 4];
    let fields = [4, 4, 8]
        .into_iter()
        .chain(record.into_iter().chain([5]))
        .chain(record.into_iter().chain([5]))
        .chain(record);
    let mut at = 0;
    for size in fields {
        if at + size > cut {
            break;
        }
        at += size;
    }
    at
}

#[test]
fn a_table_that_these_limits_would_not_have_made_is_refused() {
    const CLIENT: usize = 0;
    const SESSION: usize = 48;
    const OP: usize = 56;
    const REPLY_SIZE: usize = 92;
    // Records ascend by client: 1 at op 2, 2 at op 3, 3 at op 1.
    let at = |record: usize, field: usize| 16 + record * (96 + 5) + field;
    let bytes = dropped().encode();
    let refused = |limits: Limits, changes: &[(usize, u8)]| {
        let mut bytes = bytes.clone();
        for (at, byte) in changes {
            bytes[*at] = *byte;
        }
        Sessions::decode(&bytes, limits).unwrap_err()
    };
    let same = limits(4, 12);
    assert_eq!(refused(limits(2, 12), &[]), DecodeError::TooMany(3, 2));
    assert_eq!(refused(limits(4, 9), &[]), DecodeError::ReplyBytes(10, 9));
    let client = |to| refused(same, &[(at(1, CLIENT), to)]);
    assert_eq!(client(1), DecodeError::Order(1));
    assert_eq!(refused(same, &[(at(0, CLIENT), 0)]), DecodeError::Order(0));
    // Two sessions at one operation; an operation before its session's first.
    assert_eq!(
        refused(same, &[(at(2, OP), 2), (8, 0)]),
        DecodeError::Operation(3)
    );
    assert_eq!(
        refused(same, &[(at(0, SESSION), 9)]),
        DecodeError::Operation(1)
    );
    // A reply where there should be none, and the newest one dropped.
    assert_eq!(refused(same, &[(8, 3)]), DecodeError::Dropped(3));
    assert_eq!(
        Sessions::decode(
            &[0u32.to_le_bytes(), [0; 4], [1, 0, 0, 0], [0; 4]].concat(),
            same
        ),
        Err(DecodeError::Dropped(1))
    );
    assert_eq!(
        refused(same, &[(at(0, REPLY_SIZE) + 3, 1)]),
        DecodeError::ReplySize(5 + (1 << 24))
    );
    const { assert!(5 + (1 << 24) > BODY_SIZE_MAX) };
}

/// The same rules, without an index, a cursor or a sum.
#[derive(Debug, Default)]
struct Model {
    sessions: Vec<Kept>,
}

#[derive(Debug, Clone)]
struct Kept {
    client: u128,
    session: u64,
    request: u32,
    op: Op,
    reply: Option<Vec<u8>>,
}

impl Model {
    fn get(&self, client: u128) -> Option<&Kept> {
        self.sessions.iter().find(|kept| kept.client == client)
    }

    fn commit(&mut self, limits: Limits, prepare: &Header, is_register: bool, reply: &[u8]) {
        match (is_register, self.get(prepare.client)) {
            (true, Some(_)) | (false, None) => return,
            (false, Some(kept)) if kept.session != prepare.session => return,
            (false, Some(_)) => self.sessions.retain(|kept| kept.client != prepare.client),
            (true, None) => {
                if self.sessions.len() == limits.sessions {
                    let oldest = self.sessions.iter().map(|kept| kept.op).min();
                    self.sessions.retain(|kept| Some(kept.op) != oldest);
                }
            }
        }
        self.sessions.push(Kept {
            client: prepare.client,
            session: if is_register {
                prepare.op
            } else {
                prepare.session
            },
            request: prepare.request,
            op: prepare.op,
            reply: Some(reply.to_vec()),
        });
        while let Some(oldest) = self.excess(limits) {
            oldest.reply = None;
        }
    }

    /// The oldest of several replies that are too many bytes together.
    fn excess(&mut self, limits: Limits) -> Option<&mut Kept> {
        let with_reply = self.sessions.iter_mut().filter(|kept| kept.reply.is_some());
        let with_reply: Vec<_> = with_reply.collect();
        let sizes = with_reply.iter().filter_map(|kept| kept.reply.as_ref());
        let bytes: usize = sizes.map(Vec::len).sum();
        if bytes <= limits.reply_bytes || with_reply.len() == 1 {
            return None;
        }
        with_reply.into_iter().min_by_key(|kept| kept.op)
    }
}

proptest! {
    /// A random log, with clients that register again after they were pushed out, requests of sessions
    /// that are gone, and restarts from an encoded table at any point.
    #[test]
    fn a_table_is_what_the_log_says(
        sessions in 1usize..6,
        reply_bytes in 0usize..200,
        steps in prop::collection::vec((1u128..9, 0usize..90, 0u8..8), 1..200),
    ) {
        let limits = limits(sessions, reply_bytes);
        let mut table = Sessions::new(limits);
        let mut model = Model::default();
        // What each client believes: its session and its next request.
        let mut beliefs = [(0u64, 0u32); 9];
        for (index, (client, size, what)) in steps.into_iter().enumerate() {
            let op = index as Op + 1;
            let belief = &mut beliefs[usize::try_from(client).unwrap()];
            let known = model.get(client).cloned();
            // Most clients go on where they are; some register, though they have a session.
            let is_register = belief.0 == 0 || what == 0;
            let next = match &known {
                Some(known) if !is_register && known.session == belief.0 => known.request + 1,
                _ => belief.1,
            };
            let prepare = prepare(client, belief.0, if is_register { 0 } else { next }, op);
            let reply = vec![op.to_le_bytes()[0]; size];
            let is_latest = table.commit(&prepare, is_register, &reply);
            model.commit(limits, &prepare, is_register, &reply);
            let now = model.get(client);
            prop_assert_eq!(is_latest, now.is_some_and(|kept| kept.op == op));
            *belief = now.map_or((0, 0), |kept| (kept.session, kept.request + 1));

            prop_assert_eq!(table.len(), model.sessions.len());
            for kept in &model.sessions {
                let session = table.get(kept.client).unwrap();
                prop_assert_eq!(session.session, kept.session);
                prop_assert_eq!((session.request, session.op), (kept.request, kept.op));
                prop_assert_eq!(session.reply(), kept.reply.as_deref());
                // Exactly the dropped ones are below the mark.
                prop_assert_eq!(kept.reply.is_none(), kept.op < table.replies_from());
            }
            let back = Sessions::decode(&table.encode(), limits);
            prop_assert_eq!(back.as_ref(), Ok(&table));
            if what == 1 {
                table = back.unwrap();
            }
        }
    }
}
