//! What opening a journal reports: found, cut off, damaged; or why it could not be opened.
//!
//! A corruption is not an error of the opening: the log goes on behind it, and what to do is the
//! caller's to decide (fetch the entries from a peer, or refuse to start).

use std::fmt;
use std::io;

use crate::config::ConfigError;
use crate::frame::Damage;

/// The account of one scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Entries handed to the visitor.
    pub entries: u64,
    /// Markers passed at or above the start.
    pub markers: u64,
    /// Bytes read from the device.
    pub bytes_read: u64,
    /// Where the scan began to report.
    pub start: u64,
    /// The end of what was found. Opening may have written a marker behind it.
    pub head: u64,
    /// The highest durable point found on disk; entries from here on were whole but not proven
    /// to have been acknowledged.
    pub proven: u64,
    /// What was in flight at the crash and did not make it.
    pub torn: Option<TornTail>,
    /// Damaged stretches of the log that had been durable, in order of position.
    pub corruptions: Vec<Corruption>,
}

/// A tail that was in flight at the crash and has been cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// First address that was cut.
    pub position: u64,
    /// Bytes from there to the end of the last trace found.
    pub bytes: u64,
    /// Whole frame headers among them: frames that were written but follow one that was not.
    pub frames: u64,
    /// What was wrong with the first one.
    pub damage: Damage,
}

/// A stretch of log that had been durable and cannot be read back as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// First damaged address.
    pub position: u64,
    /// Bytes to the next good frame. 0 if nothing lies between two good frames that do not belong
    /// together.
    pub bytes: u64,
    /// Sequence number of the first frame lost, if known.
    pub sequence_first: Option<u64>,
    /// Sequence number of the last frame lost, if known.
    pub sequence_last: Option<u64>,
    /// How many entries are lost, if known; 0 says that only markers were hit.
    pub entries: Option<u64>,
    /// The tag, if a single entry was hit and its header survived.
    pub tag: Option<u64>,
    /// What was wrong with the first frame.
    pub damage: Damage,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes at position {}: {}",
            self.bytes, self.position, self.damage
        )?;
        match self.entries {
            Some(entries) => write!(f, "; {entries} acknowledged entries lost"),
            None => write!(f, "; number of acknowledged entries lost is unknown"),
        }?;
        if let Some(tag) = self.tag {
            write!(f, " (tag {tag})")?;
        }
        Ok(())
    }
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration is not valid.
    #[error("journal configuration: {0}")]
    Config(#[from] ConfigError),
    /// The device failed in a way that is not a bad sector.
    #[error("journal segment {file}, offset {offset}: cannot read: {source}")]
    Read {
        /// Index of the segment file.
        file: u32,
        /// Offset of the read.
        offset: u64,
        /// The device's error.
        source: io::Error,
    },
    /// The leftovers behind the end of the log could not be erased, or the device not be flushed.
    #[error("journal: cannot make the recovered log durable (position {position}): {source}")]
    Write {
        /// Log address of the write.
        position: u64,
        /// The device's error.
        source: io::Error,
    },
    /// The segments hold another journal.
    #[error(
        "segments belong to journal {found:032x}, not {expected:032x}: wrong directory, or a copy \
         of another replica's files"
    )]
    Foreign {
        /// The identity found in the segments.
        found: u128,
        /// The identity asked for.
        expected: u128,
    },
    /// The segments were written by a version this crate does not know.
    #[error("segments have journal format version {found}, this build reads version {known}")]
    Version {
        /// The version found.
        found: u16,
        /// The version of this crate.
        known: u16,
    },
    /// Size or number of segments differ from those the journal was formatted with.
    #[error("segments were formatted with another segment size or count than configured")]
    Geometry,
    /// The start is no position that a journal can have given out.
    #[error("start {start} is not a journal position; the caller's checkpoint is damaged")]
    Start {
        /// The position asked for.
        start: u64,
    },
    /// The log no longer holds the position it should be read from.
    #[error(
        "journal starts at position {oldest}, but should be read from {start}: the caller's \
         checkpoint is older than the journal (restored from a backup?)"
    )]
    StartOverwritten {
        /// The position asked for.
        start: u64,
        /// The oldest position that can still be there.
        oldest: u64,
    },
    /// The log holds nothing at all around the position it should be read from.
    #[error(
        "journal holds no frame near position {start}, where the caller's checkpoint ends: its \
         segments were replaced or zeroed; recover this replica instead of starting it"
    )]
    Blank {
        /// The position asked for.
        start: u64,
    },
}
