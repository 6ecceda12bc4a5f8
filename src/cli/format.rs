//! `stampede format`: makes the data directory of a new replica.
//!
//! Whoever lost a directory must not use this to get it back: `recover` is for that. A replica that has
//! forgotten what it promised can make a cluster lose data.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::size::{self, Size};
use super::{Failure, say};
use crate::limits::{
    JOURNAL_SIZE_DEFAULT, JOURNAL_SIZE_MIN, REPLICAS_MAX, SEGMENT_SIZE_DEFAULT, SESSIONS_DEFAULT,
    SESSIONS_MAX, STANDBYS_MAX,
};
use crate::replica::superblock::{Identity, State};
use crate::runtime::directory::DataDirectory;
use crate::runtime::host;

/// Segments that even a small journal has: trimming frees whole ones.
const SEGMENTS_MIN: u64 = 8;
/// Segments of the largest journal.
const SEGMENTS_MAX: u64 = stampede_journal::SEGMENT_COUNT_MAX as u64;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Identity of the cluster, the same for all its replicas and known to its clients
    #[arg(long, value_parser = cluster)]
    cluster: u128,
    /// Index of this replica: its place in the list of addresses, from 0; standbys come after replicas
    #[arg(long)]
    replica: u8,
    /// Number of replicas in the cluster, the same for all
    #[arg(long)]
    replica_count: u8,
    /// Number of standbys, which follow without voting, the same for all
    #[arg(long, default_value_t = 0)]
    standby_count: u8,
    /// Size of the journal, the same for all replicas; it is written once in full
    #[arg(long, value_name = "SIZE", default_value_t = Size(JOURNAL_SIZE_DEFAULT), value_parser = size_argument)]
    journal_size: Size,
    /// Client sessions that the cluster remembers, the same for all replicas; one more pushes out the
    /// session that was used least recently
    #[arg(long, value_name = "COUNT", default_value_t = SESSIONS_DEFAULT)]
    clients_max: usize,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    /// Directory to make; on a disk with direct I/O (ext4, XFS)
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

fn size_argument(text: &str) -> Result<Size, String> {
    size::parse(text).map(Size)
}

/// A cluster's identity, decimal or with 0x.
pub(super) fn cluster(text: &str) -> Result<u128, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u128::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is not a number of up to 128 bits"))
}

/// The identity that is asked for, without its random part.
pub(super) fn check(arguments: &Arguments) -> Result<Identity, Failure> {
    let Arguments {
        replica,
        replica_count,
        standby_count,
        clients_max,
        ..
    } = *arguments;
    if !(1..=REPLICAS_MAX).contains(&usize::from(replica_count)) {
        return Err(Failure::usage(format!(
            "a cluster has 1 to {REPLICAS_MAX} replicas, not {replica_count}"
        )));
    }
    if usize::from(standby_count) > STANDBYS_MAX {
        return Err(Failure::usage(format!(
            "a cluster has 0 to {STANDBYS_MAX} standbys, not {standby_count}"
        )));
    }
    let member_count = replica_count + standby_count;
    if replica >= member_count {
        return Err(Failure::usage(format!(
            "replica {replica} of {replica_count} and {standby_count} standbys: indexes are 0 to {}",
            member_count - 1
        )));
    }
    if !(1..=SESSIONS_MAX).contains(&clients_max) {
        return Err(Failure::usage(format!(
            "--clients-max is 1 to {SESSIONS_MAX}, not {clients_max}"
        )));
    }
    let (segment_size, segment_count) = segments(arguments.journal_size.0)?;
    Ok(Identity {
        cluster: arguments.cluster,
        replica,
        replica_count,
        standby_count,
        sessions_max: u32::try_from(clients_max).expect("checked above"),
        segment_size,
        segment_count,
        recovering: false,
        journal_id: 0,
    })
}

/// Divides a journal into equal segments; their size is a whole number of mebibytes.
fn segments(journal_size: u64) -> Result<(u64, u32), Failure> {
    let max = SEGMENTS_MAX * SEGMENT_SIZE_DEFAULT;
    if !(JOURNAL_SIZE_MIN..=max).contains(&journal_size) {
        return Err(Failure::usage(format!(
            "--journal-size is {} to {}, not {}",
            Size(JOURNAL_SIZE_MIN),
            Size(max),
            Size(journal_size)
        )));
    }
    let segment_size = (journal_size / SEGMENTS_MIN).min(SEGMENT_SIZE_DEFAULT) >> 20 << 20;
    if !journal_size.is_multiple_of(segment_size) {
        let lower = journal_size / segment_size * segment_size;
        return Err(Failure::usage(format!(
            "--journal-size {} is not a whole number of segments of {}: use {} or {}",
            Size(journal_size),
            Size(segment_size),
            Size(lower),
            Size(lower + segment_size)
        )));
    }
    let count = u32::try_from(journal_size / segment_size).expect("at most SEGMENTS_MAX");
    Ok((segment_size, count))
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    make(arguments, false)
}

/// `format`, or `recover` for a replica whose directory was lost.
pub(super) fn make(arguments: &Arguments, recovering: bool) -> Result<(), Failure> {
    let words = if recovering {
        let then = "start it as usual: it fetches what it lacks from the others, and votes once it knows \
                    what it had promised\n";
        ("made for recovery:", then)
    } else {
        ("formatted", "")
    };
    make_with(arguments, recovering, words, |_, _| Ok(()))
}

/// The same with a state to begin with, that `content` writes before the directory counts as made; `words` are
/// what is said of it.
pub(super) fn make_with(
    arguments: &Arguments,
    recovering: bool,
    words: (&str, &str),
    content: impl FnOnce(&mut State, &DataDirectory) -> Result<(), String>,
) -> Result<(), Failure> {
    let mut identity = check(arguments)?;
    identity.recovering = recovering;
    identity.journal_id = host::random_id()
        .map_err(|error| Failure::new(format!("the system gives no random numbers: {error}")))?;
    let data = DataDirectory::new(&arguments.directory);
    let mut bar = Bar::new(!arguments.quiet && std::io::stderr().is_terminal());
    let result = data.format_with(&identity, |done, total| bar.show(done, total), content);
    bar.end();
    let state = result.map_err(Failure::new)?;
    let (done, then) = words;
    say(&format!(
        "{done} {}: cluster {}, replica {} of {}, journal {}\n{then}",
        arguments.directory.display(),
        state.cluster,
        state.replica,
        state.replica_count,
        arguments.journal_size
    ))
}

/// One line on standard error that is written again and again.
struct Bar {
    visible: bool,
    start: Instant,
    last: Option<Instant>,
}

impl Bar {
    const WIDTH: u64 = 30;
    const PAUSE: Duration = Duration::from_millis(100);

    fn new(visible: bool) -> Self {
        Self {
            visible,
            start: Instant::now(),
            last: None,
        }
    }

    fn show(&mut self, done: u64, total: u64) {
        let now = Instant::now();
        let soon = self.last.is_some_and(|last| now - last < Self::PAUSE);
        if !self.visible || total == 0 || soon && done < total {
            return;
        }
        self.last = Some(now);
        let filled = usize::try_from(done * Self::WIDTH / total).expect("at most the width");
        let rest = usize::try_from(Self::WIDTH).expect("a small constant") - filled;
        let milliseconds = u64::try_from((now - self.start).as_millis()).unwrap_or(u64::MAX);
        let rate = done.saturating_mul(1000) / milliseconds.max(1);
        let _ = write!(
            std::io::stderr(),
            "\rwriting the journal [{}{}] {:>3} %  {}/s \x1b[K",
            "#".repeat(filled),
            ".".repeat(rest),
            done * 100 / total,
            Size(rate)
        );
    }

    fn end(&self) {
        if self.last.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_are_whole_segments() {
        assert_eq!(segments(1 << 30).unwrap(), (64 << 20, 16));
        assert_eq!(segments(64 << 20).unwrap(), (8 << 20, 8));
        assert_eq!(segments(100 << 20).unwrap_err().code, 2);
        assert_eq!(segments(96 << 20).unwrap(), (12 << 20, 8));
        assert_eq!(segments(256 << 30).unwrap(), (64 << 20, 4096));
        assert!(segments(1 << 20).is_err());
        assert!(segments(1 << 40).is_err());
    }

    #[test]
    fn clusters_are_read() {
        assert_eq!(cluster("7"), Ok(7));
        assert_eq!(cluster("0xff"), Ok(255));
        assert_eq!(cluster(&u128::MAX.to_string()), Ok(u128::MAX));
        assert!(cluster("-1").is_err() && cluster("").is_err());
    }
}
