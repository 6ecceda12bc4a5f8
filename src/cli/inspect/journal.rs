//! The journal as a restart would read it: every entry, which of them are the log, what is torn,
//! what is damaged.
//!
//! ```text
//!   scan (the journal's own, writes nothing)
//!      │ entry
//!      ▼
//!   Log     ops in order: an entry with an op that is there replaces the log from there on
//!   Window  the rows to be shown, the newest `limit` of them
//! ```
//!
//! Memory: a small entry for each operation of the log, as the server itself keeps, and the rows
//! that are shown.

use std::collections::VecDeque;
use std::fmt;

use serde::Serialize;
use stampede_client::wire::{Kind, Operation, multibatch};
use stampede_journal::{Corruption, Entry, OpenError, PayloadCheck, Recovery, TornTail, scan};
use zerocopy::FromBytes;

use super::Problem;
use super::log::{Link, Log, LogReport};
use super::sessions::operation_name;
use super::source::{Segments, Source};
use super::text::{Columns, Hex, Side, Utc, heading, line, prefix, short};
use crate::cli::size::Size;
use crate::limits::HEADER_SIZE;
use crate::message::{Command, Header};
use crate::replica::open::{is_restored, journal_config, op_of_tag};
use crate::replica::superblock::State;

const PART: &str = "journal";

/// Operations, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpRange {
    first: u64,
    last: u64,
}

impl OpRange {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str, otherwise: u64| match text {
            "" => Ok(otherwise),
            text => text.parse().map_err(|_| format!("`{text}` is not an op")),
        };
        let (first, last) = match text.split_once("..") {
            Some((first, last)) => (number(first, 0)?, number(last, u64::MAX)?),
            None if text.is_empty() => return Err("write it like 10..20".to_owned()),
            None => (number(text, 0)?, number(text, 0)?),
        };
        if first > last {
            return Err(format!("{first} is after {last}"));
        }
        Ok(Self { first, last })
    }

    fn contains(self, op: u64) -> bool {
        (self.first..=self.last).contains(&op)
    }
}

impl fmt::Display for OpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (0, u64::MAX) => f.write_str(".."),
            (first, u64::MAX) => write!(f, "{first}.."),
            (first, last) => write!(f, "{first}..{last}"),
        }
    }
}

/// Which entries to show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection {
    pub(super) ops: OpRange,
    /// The newest so many; 0 for all.
    pub(super) limit: usize,
}

/// See the module.
#[derive(Debug, Serialize)]
pub(super) struct JournalReport {
    path: String,
    segment_size: u64,
    segment_count: u32,
    start: u64,
    head: u64,
    /// Everything below is known to have been acknowledged.
    proven: u64,
    bytes_read: u64,
    pub(super) entries: u64,
    pub(super) markers: u64,
    /// Entries that a later one replaced, or that died in a view change.
    pub(super) superseded: u64,
    pub(super) log: Option<LogReport>,
    pub(super) torn: Option<TornReport>,
    pub(super) corruptions: Vec<CorruptionReport>,
    /// Entries of the operations asked for; `rows` holds the newest of them.
    matching: u64,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub(super) struct TornReport {
    pub(super) position: u64,
    file: u64,
    offset: u64,
    bytes: u64,
    /// Whole frames among them.
    frames: u64,
    reason: String,
}

#[derive(Debug, Serialize)]
pub(super) struct CorruptionReport {
    pub(super) position: u64,
    file: u64,
    offset: u64,
    bytes: u64,
    reason: String,
    /// Entries lost, if that is known.
    pub(super) entries: Option<u64>,
    pub(super) op: Option<u64>,
    sequence_first: Option<u64>,
    sequence_last: Option<u64>,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    position: u64,
    file: u64,
    offset: u64,
    size: u32,
    sequence: u64,
    pub(super) status: RowStatus,
    pub(super) op: u64,
    view: u32,
    primary: u8,
    operation_code: u8,
    pub(super) operation: String,
    pub(super) client: Hex,
    session: u64,
    request: u32,
    pub(super) events: usize,
    timestamp: u64,
    time: Utc,
    commit: u64,
    checksum: Hex,
    parent: Hex,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RowStatus {
    /// Part of the log.
    Live,
    /// A later entry has this op, or an earlier one.
    Superseded,
    /// It was made in a former view, and the log of a later one does not have it.
    Died,
}

/// A prepare, verified as the server does it: the frame's checksum is its header's, which covers
/// the body.
pub(super) struct PrepareCheck;

impl PayloadCheck for PrepareCheck {
    fn verify(&self, payload: &[u8], checksum: u128) -> bool {
        split(payload).is_some_and(|(header, body)| {
            header.checksum == checksum
                && header.verify() == Ok(Command::Prepare)
                && header.verify_body(body).is_ok()
        })
    }
}

fn split(payload: &[u8]) -> Option<(Header, &[u8])> {
    let (header, body) = payload.split_at_checked(HEADER_SIZE)?;
    Some((Header::read_from_bytes(header).ok()?, body))
}

/// `None` if there is nothing to show; then `problems` says why.
pub(super) fn examine(
    source: &Source,
    state: &State,
    selection: Selection,
    problems: &mut Vec<Problem>,
) -> Option<JournalReport> {
    let config = journal_config(state);
    if let Err(error) = config.validate() {
        let what = format!("the superblock says what no journal can be: {error}");
        problems.push(Problem::damage(PART, what));
        return None;
    }
    let path = source.journal_path();
    let mut segments = Segments::open(&path, &config, problems);
    if !segments.any() {
        return None;
    }
    let mut reading = Reading::new(state.segment_size, state.segment_count, selection);
    let start = Some(state.journal_start);
    let recovery = match scan::scan(config, &mut segments, &PrepareCheck, start, |entry| {
        reading.visit(&entry);
    }) {
        Ok(recovery) => recovery,
        Err(error) => {
            problems.push(open_problem(&error));
            return None;
        }
    };
    reading.drop_what_died(state);
    for corruption in &recovery.corruptions {
        problems.push(Problem::damage(PART, meaning(corruption)));
    }
    // With entries missing in the middle, the rest cannot be judged.
    if recovery.corruptions.iter().all(|c| c.entries == Some(0)) {
        problems.extend(reading.log.contradictions(state));
    }
    Some(reading.report(path.display().to_string(), &recovery))
}

fn open_problem(error: &OpenError) -> Problem {
    let what = error.to_string();
    match error {
        OpenError::Read { .. } | OpenError::Write { .. } | OpenError::Version { .. } => {
            Problem::unreadable(PART, what)
        }
        OpenError::Config(_)
        | OpenError::Foreign { .. }
        | OpenError::Geometry
        | OpenError::Start { .. }
        | OpenError::StartOverwritten { .. }
        | OpenError::Blank { .. } => Problem::damage(PART, what),
    }
}

/// A corruption in words.
fn meaning(corruption: &Corruption) -> String {
    let bytes = format!(
        "{} bytes at position {}: {}",
        corruption.bytes, corruption.position, corruption.damage
    );
    let lost = match (corruption.entries, corruption.tag.map(op_of_tag)) {
        (Some(0), _) => {
            return format!(
                "{bytes}; only markers of the journal's own were there, and no operation is lost: the replica \
                 starts, but look for the disk's own error reports"
            );
        }
        (Some(1), Some(op)) => format!("op {op}, which had been durable, cannot be read back"),
        (Some(1), None) => "one operation that had been durable cannot be read back".to_owned(),
        (Some(count), _) => format!("{count} operations that had been durable cannot be read back"),
        (None, _) => {
            "an unknown number of operations that had been durable cannot be read back".to_owned()
        }
    };
    format!(
        "{bytes}; {lost}. With other replicas, start it: it fetches what is lost from them; alone, it does \
         not start: restore a backup"
    )
}

/// A scan under way.
#[derive(Debug)]
struct Reading {
    segment_size: u64,
    segment_count: u32,
    selection: Selection,
    log: Log,
    superseded: u64,
    matching: u64,
    rows: VecDeque<Row>,
}

impl Reading {
    fn new(segment_size: u64, segment_count: u32, selection: Selection) -> Self {
        Self {
            segment_size,
            segment_count,
            selection,
            log: Log::default(),
            superseded: 0,
            matching: 0,
            rows: VecDeque::new(),
        }
    }

    /// File and offset of a position.
    fn place(&self, position: u64) -> (u64, u64) {
        let file = position / self.segment_size % u64::from(self.segment_count);
        (file, position % self.segment_size)
    }

    fn visit(&mut self, entry: &Entry<'_>) {
        let (header, body) = split(entry.payload).expect("the check has read it as a prepare");
        let link = Link {
            op: header.op,
            checksum: header.checksum,
            parent: header.parent,
            view: header.view,
            commit: header.commit,
        };
        // One that stands in for a damaged frame replaces nothing else.
        let replaced = if is_restored(entry.tag) {
            self.log.restore(link);
            0
        } else {
            self.log.push(link)
        };
        if replaced > 0 {
            self.superseded += replaced;
            self.mark(header.op, RowStatus::Superseded);
        }
        if !self.selection.ops.contains(header.op) {
            return;
        }
        self.matching += 1;
        let row = self.row(entry, &header, body);
        self.rows.push_back(row);
        if self.selection.limit > 0 && self.rows.len() > self.selection.limit {
            self.rows.pop_front();
        }
    }

    /// Live rows from `op` on are not live any more.
    fn mark(&mut self, op: u64, status: RowStatus) {
        let gone = self
            .rows
            .iter_mut()
            .filter(|row| row.status == RowStatus::Live && row.op >= op);
        gone.for_each(|row| row.status = status);
    }

    fn row(&self, entry: &Entry<'_>, header: &Header, body: &[u8]) -> Row {
        let position = entry.location.position;
        let (file, offset) = self.place(position);
        Row {
            position,
            file,
            offset,
            size: entry.location.size,
            sequence: entry.sequence,
            status: RowStatus::Live,
            op: header.op,
            view: header.view,
            primary: header.replica,
            operation_code: header.operation,
            operation: operation_name(header.operation),
            client: Hex(header.client),
            session: header.session,
            request: header.request,
            events: events(header.operation, body),
            timestamp: header.timestamp,
            time: Utc(header.timestamp),
            commit: header.commit,
            checksum: Hex(header.checksum),
            parent: Hex(header.parent),
        }
    }

    fn drop_what_died(&mut self, state: &State) {
        if let Some((op, count)) = self.log.drop_what_died(state) {
            self.superseded += count;
            self.mark(op, RowStatus::Died);
        }
    }

    fn report(self, path: String, recovery: &Recovery) -> JournalReport {
        let torn = recovery.torn.as_ref().map(|torn| self.torn(torn));
        let corruptions = recovery.corruptions.iter();
        let corruptions = corruptions.map(|corruption| self.corruption(corruption));
        JournalReport {
            path,
            segment_size: self.segment_size,
            segment_count: self.segment_count,
            start: recovery.start,
            head: recovery.head,
            proven: recovery.proven,
            bytes_read: recovery.bytes_read,
            entries: recovery.entries,
            markers: recovery.markers,
            superseded: self.superseded,
            log: self.log.report(),
            torn,
            corruptions: corruptions.collect(),
            matching: self.matching,
            rows: self.rows.into(),
        }
    }

    fn torn(&self, torn: &TornTail) -> TornReport {
        let (file, offset) = self.place(torn.position);
        TornReport {
            position: torn.position,
            file,
            offset,
            bytes: torn.bytes,
            frames: torn.frames,
            reason: torn.damage.to_string(),
        }
    }

    fn corruption(&self, corruption: &Corruption) -> CorruptionReport {
        let (file, offset) = self.place(corruption.position);
        CorruptionReport {
            position: corruption.position,
            file,
            offset,
            bytes: corruption.bytes,
            reason: corruption.damage.to_string(),
            entries: corruption.entries,
            op: corruption.tag.map(op_of_tag),
            sequence_first: corruption.sequence_first,
            sequence_last: corruption.sequence_last,
        }
    }
}

/// Events in a body; 0 for operations that have none.
fn events(code: u8, body: &[u8]) -> usize {
    let Some(operation) = Operation::from_code(code) else {
        return 0;
    };
    let size = operation.event_size();
    match operation.kind() {
        Kind::Register | Kind::Noop | Kind::Pulse => 0,
        Kind::GetChangeEvents
        | Kind::CreateAccounts
        | Kind::CreateTransfers
        | Kind::LookupAccounts
        | Kind::LookupTransfers
        | Kind::GetAccountTransfers
        | Kind::GetAccountBalances
        | Kind::QueryAccounts
        | Kind::QueryTransfers => {
            if operation.is_multi_batch() {
                multibatch::decode(body, size).map_or(0, |batches| batches.element_count())
            } else {
                body.len() / size
            }
        }
    }
}

impl JournalReport {
    pub(super) fn write(&self, out: &mut String) {
        heading(out, "journal", &self.path);
        line(
            out,
            "read",
            format!(
                "positions {} to {}, {}",
                self.start,
                self.head,
                Size(self.head - self.start)
            ),
        );
        line(
            out,
            "entries",
            format!(
                "{}, of which {} superseded; {} markers",
                self.entries, self.superseded, self.markers
            ),
        );
        match &self.log {
            None => line(out, "log", "nothing after the checkpoint"),
            Some(log) => line(
                out,
                "log",
                format!(
                    "op {} to {}, committed to op {} at least",
                    log.first, log.last, log.commit
                ),
            ),
        }
        let proven = if self.proven >= self.head {
            "all of it had been durable".to_owned()
        } else {
            format!(
                "up to position {}; what follows was whole, but may not have been acknowledged",
                self.proven
            )
        };
        line(out, "proven", proven);
        match &self.torn {
            None => line(out, "torn tail", "none"),
            Some(torn) => line(
                out,
                "torn tail",
                format!(
                    "{} at position {} (file {}, offset {}), {} whole frames among them: {}. They were being \
                     written when the machine stopped and had not been acknowledged; the next start cuts \
                     them off",
                    Size(torn.bytes),
                    torn.position,
                    torn.file,
                    torn.offset,
                    torn.frames,
                    torn.reason
                ),
            ),
        }
        for corruption in &self.corruptions {
            line(
                out,
                "DAMAGE",
                format!(
                    "{} at position {} (file {}, offset {}): {}",
                    Size(corruption.bytes),
                    corruption.position,
                    corruption.file,
                    corruption.offset,
                    corruption.reason
                ),
            );
        }
        self.write_rows(out);
        out.push('\n');
    }

    fn write_rows(&self, out: &mut String) {
        let shown = self.rows.len() as u64;
        if shown < self.matching {
            line(
                out,
                "shown",
                format!(
                    "the newest {shown} of {}; --limit 0 shows all, --op A..B a part",
                    self.matching
                ),
            );
        }
        if self.rows.is_empty() {
            return;
        }
        let titles = [
            ("position", Side::Right),
            ("size", Side::Right),
            ("op", Side::Right),
            ("view", Side::Right),
            ("operation", Side::Left),
            ("client", Side::Left),
            ("request", Side::Right),
            ("events", Side::Right),
            ("time", Side::Left),
            ("commit", Side::Right),
            ("checksum", Side::Left),
            ("", Side::Left),
        ];
        let mut columns = Columns::new(&titles);
        for row in &self.rows {
            let status = match row.status {
                RowStatus::Live => "",
                RowStatus::Superseded => "superseded",
                RowStatus::Died => "died in a view change",
            };
            let client = match row.client {
                Hex(0) => "-".to_owned(),
                client => short(client),
            };
            columns.row(vec![
                row.position.to_string(),
                row.size.to_string(),
                row.op.to_string(),
                row.view.to_string(),
                row.operation.clone(),
                client,
                row.request.to_string(),
                row.events.to_string(),
                row.time.to_string(),
                row.commit.to_string(),
                prefix(row.checksum),
                status.to_owned(),
            ]);
        }
        columns.write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ops_are_read() {
        let range = |first, last| Ok(OpRange { first, last });
        assert_eq!(OpRange::parse("3..9"), range(3, 9));
        assert_eq!(OpRange::parse("3.."), range(3, u64::MAX));
        assert_eq!(OpRange::parse("..9"), range(0, 9));
        assert_eq!(OpRange::parse(".."), range(0, u64::MAX));
        assert_eq!(OpRange::parse("7"), range(7, 7));
        for bad in ["", "9..3", "x", "1..y", "-1", "1...2"] {
            assert!(OpRange::parse(bad).is_err(), "{bad}");
        }
        for text in ["..", "3..", "3..9"] {
            assert_eq!(OpRange::parse(text).unwrap().to_string(), text);
        }
    }
}
