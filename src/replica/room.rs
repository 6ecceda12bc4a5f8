//! A checkpoint that found no room on the disk, until it does.
//!
//! ```text
//!   written ◄── builder ──► full: the files are gone, the snapshot waits here
//!                  ▲                        │
//!                  └────── a second later ──┘
//! ```
//!
//! Only the checkpoint's files need room that is not there for good: journal and superblock have had
//! theirs since `format`. So a full disk is no reason to stop; `vsr::full` says what goes on meanwhile.

use super::executor::{CheckpointTask, FullDisk};

/// Time between two attempts: long enough to cost nothing, short enough to wait for.
const RETRY_NS: u64 = 1_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Room {
    lacking: Option<FullDisk>,
    waiting: Option<(Box<CheckpointTask>, u64)>,
}

impl Room {
    /// The disk is full, and was at the last attempt.
    pub(super) fn lacking(&self) -> Option<FullDisk> {
        self.lacking
    }

    pub(super) fn wait(&mut self, task: Box<CheckpointTask>, disk: FullDisk, now: u64) {
        assert!(self.waiting.is_none(), "one checkpoint is under way");
        self.lacking = Some(disk);
        self.waiting = Some((task, now + RETRY_NS));
    }

    /// What is to be tried again now.
    pub(super) fn due(&mut self, now: u64) -> Option<CheckpointTask> {
        let (task, _) = self.waiting.take_if(|(_, at)| *at <= now)?;
        Some(*task)
    }

    /// The checkpoint has been written.
    pub(super) fn found(&mut self) {
        assert!(self.waiting.is_none(), "one checkpoint is under way");
        self.lacking = None;
    }
}
