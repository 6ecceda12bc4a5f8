//! The client table of the checkpoint: who has a session, and which reply is kept for whom.
//!
//! It is read as a start reads it, so what would make a start refuse is told here. It is as old as the checkpoint;
//! a restart brings it up to date by executing the log again.

use std::fmt::Write as _;

use serde::Serialize;
use stampede_client::wire::Operation;

use super::Problem;
use super::checkpoint::{self, store_problem};
use super::source::Source;
use super::text::{Columns, Hex, Side, Utc, heading, prefix, short};
use crate::replica::open::{self, OpenError};
use crate::replica::superblock::State;
use crate::vsr::sessions::{Session, Sessions};

const PART: &str = "sessions";

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
    pub(super) reply_size: Option<usize>,
}

/// `None` if the table cannot be read; then `problems` says why.
pub(super) fn examine(
    source: &Source,
    state: &State,
    problems: &mut Vec<Problem>,
) -> Option<SessionsReport> {
    let table = read(source, state)
        .map_err(|problem| problems.push(problem))
        .ok()?;
    let replies_from = table.as_ref().map_or(0, Sessions::replies_from);
    let sessions = table.iter().flat_map(Sessions::iter);
    Some(SessionsReport {
        op: state.checkpoint_op,
        sessions_max: state.sessions_max,
        replies_from,
        sessions: sessions.map(SessionReport::of).collect(),
    })
}

/// The table as a start reads it, if there is a checkpoint.
fn read(source: &Source, state: &State) -> Result<Option<Sessions>, Problem> {
    let Some(manifest) = checkpoint::manifest(source, state)? else {
        return Ok(None);
    };
    let table = open::read_sessions(state, &manifest, &source.checkpoints());
    table.map(Some).map_err(|error| {
        if let OpenError::Checkpoint(error) = &error {
            store_problem(PART, error)
        } else {
            Problem::damage(PART, error.to_string())
        }
    })
}

impl SessionReport {
    fn of((client, session): (u128, &Session)) -> Self {
        Self {
            client: Hex(client),
            session: session.session,
            request: session.request,
            request_checksum: Hex(session.request_checksum),
            operation: operation_name(session.operation),
            op: session.op,
            timestamp: session.timestamp,
            time: Utc(session.timestamp),
            context: Hex(session.context),
            release: stampede_client::wire::Release(session.release).to_string(),
            reply_size: session.reply().map(<[u8]>::len),
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
