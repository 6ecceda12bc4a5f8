//! The client table of the checkpoint: who has a session, and which reply is kept for whom.
//!
//! It is as old as the checkpoint; a restart brings it up to date by executing the log again.

use std::fmt::Write as _;

use serde::Serialize;
use stampede_client::wire::Operation;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::Problem;
use super::checkpoint::{self, store_problem};
use super::source::Source;
use super::text::{Columns, Hex, Side, Utc, heading, prefix, short};
use crate::limits::BODY_SIZE_MAX;
use crate::replica::superblock::State;

const PART: &str = "sessions";

/// What comes before the first record.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct TableHeader {
    count: u32,
    reserved: [u8; 4],
    replies_from: u64,
}

/// A record as it lies in the file; the reply's body follows.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Record {
    client: u128,
    request_checksum: u128,
    context: u128,
    session: u64,
    op: u64,
    timestamp: u64,
    request: u32,
    release: u32,
    operation: u8,
    reserved: [u8; 11],
    reply_size: u32,
}

const _: () = assert!(size_of::<TableHeader>() == 16 && size_of::<Record>() == 96);

/// See the module.
#[derive(Debug, Serialize)]
pub(super) struct SessionsReport {
    /// The table is as of this op; 0: there is no checkpoint yet.
    pub(super) op: u64,
    pub(super) sessions_max: u32,
    /// Replies of operations before this one have been dropped to make room.
    pub(super) replies_from: u64,
    pub(super) sessions: Vec<SessionReport>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct SessionReport {
    pub(super) client: Hex,
    pub(super) session: u64,
    pub(super) request: u32,
    pub(super) request_checksum: Hex,
    pub(super) operation: String,
    pub(super) op: u64,
    pub(super) timestamp: u64,
    time: Utc,
    context: Hex,
    pub(super) release: String,
    /// Of the reply's body; `None` when it has been dropped.
    pub(super) reply_size: Option<u32>,
}

/// `None` if the table cannot be read; then `problems` says why.
pub(super) fn examine(
    source: &Source,
    state: &State,
    problems: &mut Vec<Problem>,
) -> Option<SessionsReport> {
    let (replies_from, sessions) = read(source, state)
        .map_err(|problem| problems.push(problem))
        .ok()?;
    if sessions.len() > state.sessions_max as usize {
        problems.push(Problem::damage(
            PART,
            format!(
                "the table holds {} sessions; this cluster was formatted for {}",
                sessions.len(),
                state.sessions_max
            ),
        ));
    }
    Some(SessionsReport {
        op: state.checkpoint_op,
        sessions_max: state.sessions_max,
        replies_from,
        sessions,
    })
}

fn read(source: &Source, state: &State) -> Result<(u64, Vec<SessionReport>), Problem> {
    let Some(manifest) = checkpoint::manifest(source, state)? else {
        return Ok((0, Vec::new()));
    };
    let bytes = manifest.sessions(&source.checkpoints());
    let bytes = bytes.map_err(|error| store_problem(PART, &error))?;
    decode(&bytes).map_err(|what| Problem::damage(PART, what))
}

/// The first operation whose reply is kept, and the table; or what is wrong with it.
pub(super) fn decode(bytes: &[u8]) -> Result<(u64, Vec<SessionReport>), String> {
    let short_by = |at: usize| format!("the client table ends after {at} bytes, inside a record");
    let (header, mut rest) =
        TableHeader::read_from_prefix(bytes).map_err(|_| short_by(bytes.len()))?;
    let mut sessions = Vec::new();
    for _ in 0..header.count {
        let cut = || short_by(bytes.len());
        let (record, behind) = Record::read_from_prefix(rest).map_err(|_| cut())?;
        let reply_size = record.reply_size as usize;
        if reply_size > BODY_SIZE_MAX {
            return Err(format!(
                "the client table has a reply of {reply_size} bytes, more than a message can hold"
            ));
        }
        rest = behind.get(reply_size..).ok_or_else(cut)?;
        sessions.push(SessionReport::of(&record, header.replies_from));
    }
    if !rest.is_empty() {
        return Err(format!(
            "the client table has {} bytes after its last record",
            rest.len()
        ));
    }
    Ok((header.replies_from, sessions))
}

impl SessionReport {
    fn of(record: &Record, replies_from: u64) -> Self {
        let release = record.release;
        Self {
            client: Hex(record.client),
            session: record.session,
            request: record.request,
            request_checksum: Hex(record.request_checksum),
            operation: operation_name(record.operation),
            op: record.op,
            timestamp: record.timestamp,
            time: Utc(record.timestamp),
            context: Hex(record.context),
            release: stampede_client::wire::Release(release).to_string(),
            reply_size: (record.op >= replies_from).then_some(record.reply_size),
        }
    }
}

/// The name of an operation, or its number.
pub(super) fn operation_name(code: u8) -> String {
    Operation::from_code(code).map_or_else(
        || format!("operation {code}"),
        |operation| operation.name().to_owned(),
    )
}

impl SessionsReport {
    pub(super) fn write(&self, out: &mut String) {
        let about = if self.op == 0 {
            "none: there is no checkpoint yet".to_owned()
        } else {
            format!(
                "{} of at most {}, as of op {}",
                self.sessions.len(),
                self.sessions_max,
                self.op
            )
        };
        heading(out, "sessions", about);
        if self.replies_from > 0 {
            let from = self.replies_from;
            let _ = writeln!(
                out,
                "replies of operations before {from} are dropped: there was no room for them"
            );
        }
        if !self.sessions.is_empty() {
            let titles = [
                ("client", Side::Left),
                ("session", Side::Right),
                ("request", Side::Right),
                ("operation", Side::Left),
                ("op", Side::Right),
                ("time", Side::Left),
                ("release", Side::Left),
                ("reply", Side::Right),
                ("context", Side::Left),
            ];
            let mut columns = Columns::new(&titles);
            for session in &self.sessions {
                columns.row(vec![
                    short(session.client),
                    session.session.to_string(),
                    session.request.to_string(),
                    session.operation.clone(),
                    session.op.to_string(),
                    session.time.to_string(),
                    session.release.clone(),
                    session
                        .reply_size
                        .map_or_else(|| "dropped".to_owned(), |size| format!("{size} B")),
                    prefix(session.context),
                ]);
            }
            columns.write(out);
        }
        out.push('\n');
    }
}
