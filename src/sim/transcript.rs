//! A conversation, written down for people: who says what to whom, what becomes durable, what a client
//! is told. Documents to learn the protocol from; the trace is for finding mistakes.
//!
//! ```text
//!      3.120 ms  r0 → r1, r2   prepare        view 0, op 2 (on 1 committed)
//!      3.420 ms  r1            op 2 is durable
//!      3.421 ms  r1 → r0       prepare_ok     op 2
//! ```
//!
//! Left out is what says nothing new: a heartbeat like the one before, an acknowledgement of the same
//! operation again. Runs of one kind between the same two (prepares of a repair; blocks of files, and
//! questions for them) are folded into one line. Said is what is *sent*; what a cut swallows was sent all
//! the same. What is done to the cluster is in capitals.
//!
//! This is the one place that puts a message into words.

use std::fmt::Write;

use super::queue::Instant;
use crate::message::{Command, Header, Op};
use crate::protocol::ReplicaIndex;
use crate::replica::Progress;
use crate::vsr::Status;

/// Lines of a transcript: somebody has to read it.
const LINES_MAX: usize = 400;

/// What a replica was last seen to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    status: Status,
    view: u32,
    durable: Op,
    executed: Op,
    checkpoint: Op,
    recovering: bool,
    missing: u64,
}

/// A line that may still grow.
#[derive(Debug)]
struct Line {
    at: Instant,
    who: String,
    what: String,
    fold: Option<Fold>,
}

/// Messages of one kind between the same two.
#[derive(Debug)]
struct Fold {
    from: ReplicaIndex,
    to: ReplicaIndex,
    command: Command,
    count: u64,
    last: String,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    on: bool,
    lines: Vec<Line>,
    seen: Vec<Option<Seen>>,
    /// The last heartbeat or acknowledgement of each sender, in words.
    said: Vec<String>,
}

impl Transcript {
    /// From here on everything is written down.
    pub(crate) fn begin(&mut self, members: usize) {
        self.on = true;
        self.seen = vec![None; members];
        self.said = vec![String::new(); members];
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on && self.lines.len() < LINES_MAX
    }

    /// The lines so far, each with its time since the first.
    pub(crate) fn text(&self) -> String {
        let start = self.lines.first().map_or(0, |line| line.at);
        let mut text = String::new();
        for line in &self.lines {
            let at = line.at - start;
            let (ms, us) = (at / 1_000_000, at / 1_000 % 1_000);
            let what = match &line.fold {
                Some(fold) if fold.count > 1 => {
                    format!("{} … {} ({} of them)", line.what, fold.last, fold.count)
                }
                _ => line.what.clone(),
            };
            writeln!(text, "{ms:6}.{us:03} ms  {:<14}{what}", line.who).expect("a string grows");
        }
        text
    }

    fn push(&mut self, at: Instant, who: String, what: String, fold: Option<Fold>) {
        if self.is_on() {
            self.lines.push(Line {
                at,
                who,
                what,
                fold,
            });
        }
    }

    /// Something that was done to the cluster, or by a client.
    pub(crate) fn note(&mut self, at: Instant, who: String, what: impl Into<String>) {
        self.push(at, who, what.into(), None);
    }

    /// A message was sent.
    pub(crate) fn sent(
        &mut self,
        at: Instant,
        from: ReplicaIndex,
        to: ReplicaIndex,
        header: &Header,
        body: usize,
    ) {
        let Some(command) = header.command().filter(|_| self.is_on()) else {
            return;
        };
        let what = in_words(command, header, body);
        if matches!(command, Command::Commit | Command::PrepareOk) {
            let said = &mut self.said[usize::from(from)];
            let last = self.lines.last();
            let goes_on = last.is_some_and(|line| line.at == at && line.what == what);
            if *said == what && !goes_on {
                return;
            }
            said.clone_from(&what);
        }
        if let Some(line) = self.lines.last_mut() {
            // The same to one more.
            if line.at == at && line.what == what && line.who.starts_with(&format!("r{from} →")) {
                let _ = write!(line.who, ", r{to}");
                line.fold = None;
                return;
            }
        }
        // One more of the same kind, from the same to the same, in the same run.
        let run = self.lines.iter_mut().rev().map_while(|l| l.fold.as_mut());
        let same = |f: &Fold| (f.from, f.to, f.command) == (from, to, command);
        if let Some(fold) = run.into_iter().find(|fold| same(fold)) {
            fold.count += 1;
            fold.last = short(command, header);
            return;
        }
        let folds = matches!(
            command,
            Command::Prepare | Command::Block | Command::GetBlock
        );
        let fold = folds.then(|| Fold {
            from,
            to,
            command,
            count: 1,
            last: String::new(),
        });
        self.push(at, format!("r{from} → r{to}"), what, fold);
    }

    /// How a replica stands after an event.
    pub(crate) fn stands(
        &mut self,
        at: Instant,
        replica: ReplicaIndex,
        progress: &Progress,
        durable: Op,
    ) {
        if !self.is_on() {
            return;
        }
        let now = Seen {
            status: progress.status,
            view: progress.view,
            durable,
            executed: progress.executed,
            checkpoint: progress.checkpoint,
            recovering: progress.recovering,
            missing: progress.missing,
        };
        let before = self.seen[usize::from(replica)].replace(now);
        let mut say = |what: String| self.push(at, format!("r{replica}"), what, None);
        // What is not worth a word when it is so from the start.
        let before = before.unwrap_or(Seen {
            recovering: false,
            missing: 0,
            ..now
        });
        if now.missing != before.missing {
            match now.missing {
                0 => say("nothing is missing any more".to_owned()),
                1 => say("one entry of its log is missing".to_owned()),
                n => say(format!("{n} entries of its log are missing")),
            }
        }
        if now.durable > before.durable {
            say(format!("op {} is durable", now.durable));
        }
        if (now.status, now.view) != (before.status, before.view) {
            let standing = match now.status {
                Status::Normal if progress.serving => "is the primary",
                Status::Normal => "follows",
                Status::Resigned => "was its primary before it restarted, and waits for the next",
                Status::ViewChange => "has left the one before",
                Status::CatchUp => "brings its log to that of the view",
                Status::Recovering => {
                    "waits for a view to follow: it does not know what it promised"
                }
            };
            say(format!("view {}: {standing}", now.view));
        }
        if now.recovering != before.recovering {
            say(if now.recovering {
                "does not vote: its disk has forgotten what it promised".to_owned()
            } else {
                "votes again".to_owned()
            });
        }
        if now.checkpoint > before.checkpoint {
            say(format!(
                "the checkpoint of op {} is in force",
                now.checkpoint
            ));
        }
        if now.executed > before.executed {
            say(format!("op {} is executed", now.executed));
        }
    }

    /// A replica has stopped, or starts: nothing is compared across that.
    pub(crate) fn forget(&mut self, replica: ReplicaIndex) {
        if let Some(seen) = self.seen.get_mut(usize::from(replica)) {
            *seen = None;
        }
    }
}

/// What tells a message of a run from the others.
fn short(command: Command, header: &Header) -> String {
    if matches!(command, Command::Block | Command::GetBlock) {
        place(header)
    } else {
        format!("op {}", header.op)
    }
}

/// Where a block of a checkpoint belongs.
fn place(header: &Header) -> String {
    let Header {
        operation: kind,
        session: number,
        commit: offset,
        ..
    } = *header;
    format!("file {kind}-{number} at {} KiB", offset >> 10)
}

fn in_words(command: Command, header: &Header, body: usize) -> String {
    let Header {
        view,
        op,
        commit,
        log_view,
        ..
    } = *header;
    let (name, what) = match command {
        Command::Hello => (
            "hello",
            format!(
                "this is my start {op}{}",
                if header.operation == 1 {
                    ", and I have forgotten what I promised"
                } else {
                    ""
                }
            ),
        ),
        Command::Welcome if header.operation == 1 => (
            "welcome",
            format!("start {} is over: I know your start {op}", header.session),
        ),
        Command::Welcome => (
            "welcome",
            format!(
                "I know your start {}, and am in view {view}",
                header.session
            ),
        ),
        Command::Request => ("request", format!("number {}, passed on", header.request)),
        Command::Prepare => (
            "prepare",
            format!("view {view}, op {op} ({commit} is committed)"),
        ),
        Command::PrepareOk if op == 0 => (
            "prepare_ok",
            format!("view {view}, nothing yet; what my clock shows"),
        ),
        Command::PrepareOk => ("prepare_ok", format!("view {view}, all up to op {op}")),
        Command::Commit => (
            "commit",
            format!("view {view}, all up to op {commit}; the log ends at {op}"),
        ),
        Command::GetPrepares => (
            "get_prepares",
            match header.operation {
                1 => format!("only the checksums of ops {op} to {commit}"),
                2 => format!("ops {op} to {commit}, of the chain that I name"),
                _ => format!("ops {op} to {commit}"),
            },
        ),
        Command::Headers if body == 0 => ("headers", format!("my log begins after op {commit}")),
        Command::Headers => (
            "headers",
            format!("checksums of ops {op} to {}", op + (body / 16) as u64 - 1),
        ),
        Command::ExitView => ("exit_view", format!("I would like to leave view {view}")),
        Command::JoinView => {
            let mut what =
                format!("view {view}; my log: log_view {log_view}, op {op}, commit {commit}");
            if header.parent != 0 {
                let _ = write!(what, ", {} of it missing", header.parent.count_ones());
            }
            if header.session != 0 {
                let _ = write!(what, ", unsure from op {} on", header.session);
            }
            ("join_view", what)
        }
        Command::View => (
            "view",
            format!("view {view} has begun: op {op}, commit {commit}"),
        ),
        Command::GetView => ("get_view", format!("how did view {view} begin?")),
        Command::GetCheckpoint => ("get_checkpoint", "which is your newest?".to_owned()),
        Command::Checkpoint => ("checkpoint", format!("I have that of op {op}")),
        Command::GetBlock => ("get_block", place(header)),
        Command::Block => ("block", place(header)),
        Command::Reply => ("reply", String::new()),
    };
    format!("{name:<15}{what}")
}
